//! django-tenants: a Django project with the same tenants.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Missing, installed, step};
use crate::bench::Bench;
use crate::process;

/// The versions that are measured.
const PACKAGES: [&str; 3] = ["django-tenants==3.5.0", "Django>=4.2,<5", "psycopg2-binary"];

/// The project, file by file.
const FILES: [(&str, &str); 7] = [
    ("manage.py", include_str!("django/manage.py")),
    ("settings.py", include_str!("django/settings.py")),
    ("split.py", include_str!("django/split.py")),
    ("tenants/__init__.py", ""),
    ("tenants/models.py", include_str!("django/tenants.py")),
    ("shop/__init__.py", ""),
    ("shop/models.py", include_str!("django/shop.py")),
];

/// An installed django-tenants and a project for it.
pub(crate) struct Django {
    python: PathBuf,
    project: PathBuf,
}

impl Django {
    /// Installs django-tenants once, and rewrites the project.
    pub(crate) fn install(bench: &Bench) -> Result<Self, Missing> {
        let venv = installed("django");
        let python = venv.join("bin/python");
        if !venv.join("installed").exists() {
            let mut make = process::command("python3");
            step({
                make.args(["-m", "venv"]).arg(&venv);
                make
            })?;
            let mut pip = process::command(&python);
            step({
                pip.args(["-m", "pip", "--disable-pip-version-check", "-q", "install"]);
                pip.args(PACKAGES);
                pip
            })?;
            let _ = fs::write(venv.join("installed"), "");
        }
        let written = || -> anyhow::Result<PathBuf> {
            let project = bench.projects.folder("django")?;
            for (name, text) in FILES {
                let path = project.join(name);
                fs::create_dir_all(path.parent().unwrap_or(&project))?;
                fs::write(path, text)?;
            }
            Ok(project)
        };
        let project = written().map_err(|error| Missing(error.to_string()))?;
        let django = Self { python, project };
        step(django.run(bench, "postgres", "split.py", &[]))?;
        Ok(django)
    }

    /// Returns the command that migrates every tenant of a database.
    pub(crate) fn migrate(&self, bench: &Bench, database: &str, executor: &str) -> Command {
        let executor = format!("--executor={executor}");
        let args = ["migrate_schemas", "--tenant", &executor, "-v", "0"];
        self.run(bench, database, "manage.py", &args)
    }

    fn run(&self, bench: &Bench, database: &str, script: &str, args: &[&str]) -> Command {
        let mut command = process::command(self.python.as_path());
        command
            .arg(Path::new(script))
            .args(args)
            .current_dir(&self.project)
            .env("BENCH_HOST", bench.server.socket_dir())
            .env("BENCH_DATABASE", database);
        command
    }
}
