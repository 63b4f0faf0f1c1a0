//! dbmate in a loop: one process and one history for each schema.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Missing, installed, step};
use crate::bench::Bench;
use crate::files::tenant_files;
use crate::process;

/// The version that is measured.
const PACKAGE: &str = "dbmate@2.36.0";

/// Installs dbmate once and returns the path of the binary, not of its wrapper script.
pub(crate) fn install() -> Result<PathBuf, Missing> {
    let dir = installed("dbmate");
    if let Some(program) = find(&dir) {
        return Ok(program);
    }
    std::fs::create_dir_all(&dir).map_err(|error| Missing(error.to_string()))?;
    let mut npm = process::command("npm");
    npm.args(["install", "--no-fund", "--no-audit", "--prefix"]).arg(&dir).arg(PACKAGE);
    step(npm)?;
    find(&dir).ok_or_else(|| Missing("the package holds no program for this machine".to_owned()))
}

fn find(dir: &Path) -> Option<PathBuf> {
    std::fs::read_dir(dir.join("node_modules/@dbmate"))
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("bin/dbmate"))
        .find(|program| program.is_file())
}

/// Returns the loop over these schemas.
pub(crate) fn cold(
    program: &Path,
    bench: &Bench,
    database: &str,
    schemas: &[String],
) -> Result<Command> {
    let dir = bench.projects.folder("dbmate")?;
    let files = dir.join("migrations");
    std::fs::create_dir_all(&files)?;
    for file in tenant_files()? {
        let path = files.join(format!("{:04}_{}.sql", file.version, file.name));
        std::fs::write(path, format!("-- migrate:up\n{}\n-- migrate:down\n", file.text))?;
    }
    let line = format!(
        "{} --no-dump-schema --migrations-dir {} --url \"postgres://postgres@/{database}?socket={}&sslmode=disable&search_path=$1,public\" migrate",
        program.display(),
        files.display(),
        bench.server.socket_dir().display()
    );
    super::for_each_schema(schemas, &line, &dir.join("schemas"))
}
