//! The environment of every row: the server, its databases, the program.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;

use crate::args::Args;
use crate::files::Projects;
use crate::fleet::Base;
use crate::process;
use crate::server::{self, Server};
use crate::session::Session;

/// The program that is measured.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_pricesync");

/// The environment of every row.
pub(crate) struct Bench<'a> {
    pub(crate) args: &'a Args,
    pub(crate) server: Server,
    pub(crate) projects: Projects,
    pub(crate) runtime: Runtime,
    work: tempfile::TempDir,
    durable: Cell<bool>,
    built: RefCell<BTreeSet<String>>,
    copies: Cell<usize>,
    /// The build that runs until another is chosen.
    program: RefCell<PathBuf>,
    templates: bool,
    psql: PathBuf,
}

impl<'a> Bench<'a> {
    /// Starts the server.
    pub(crate) fn start(args: &'a Args) -> Result<Self> {
        let work = tempfile::tempdir()?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let help = Command::new(PROGRAM)
            .args(["migrate-schemas", "--help"])
            .output()
            .context("pricesync does not run")?;
        let bench = Self {
            args,
            server: Server::start()?,
            projects: Projects::write(work.path().to_owned())?,
            runtime,
            work,
            durable: Cell::new(true),
            built: RefCell::default(),
            copies: Cell::default(),
            program: RefCell::new(PROGRAM.into()),
            templates: String::from_utf8_lossy(&help.stdout).contains("--no-template"),
            psql: server::program("psql").context("psql is needed; make needs installs it")?,
        };
        if let Some(ram) = bench.server.ram() {
            let sql = format!("CREATE TABLESPACE ram LOCATION '{}'", ram.display());
            bench.run("postgres", &sql)?;
        }
        Ok(bench)
    }

    /// Sets whether timed runs wait for the disk.
    pub(crate) fn use_mode(&self, durable: bool) -> Result<()> {
        self.durable.set(durable);
        self.wait_for_disk(durable)
    }

    /// Returns whether timed runs wait for the disk.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable.get()
    }

    /// Returns whether this build of pricesync supports templates.
    pub(crate) fn has_templates(&self) -> bool {
        self.templates
    }

    /// Returns the URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        self.server.url(database)
    }

    /// Returns the file for the output of measured programs.
    pub(crate) fn log(&self) -> PathBuf {
        self.work.path().join("log")
    }

    /// Runs statements as one message in a new session.
    pub(crate) fn run(&self, database: &str, sql: &str) -> Result<()> {
        self.value(database, sql).map(drop)
    }

    /// Returns the first value of the first row.
    pub(crate) fn value(&self, database: &str, sql: &str) -> Result<Option<String>> {
        self.runtime.block_on(async {
            let session = Session::open(&self.url(database)).await?;
            let value = session.value(sql).await;
            session.close().await;
            value
        })
    }

    /// Returns a command that runs pricesync in a project against a database.
    pub(crate) fn pricesync(&self, project: &Path, database: &str, args: &[&str]) -> Command {
        let mut command = process::command(&*self.program.borrow());
        command.args(args).current_dir(project).env("DATABASE_URL", self.url(database));
        command
    }

    /// Returns a quiet psql that reads no configuration.
    pub(crate) fn psql(&self, database: &str, args: &[&str]) -> Command {
        let mut command = process::command(&self.psql);
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d"]);
        command.arg(self.url(database)).args(args);
        command
    }

    /// Runs a program and returns its seconds.
    pub(crate) fn seconds(&self, command: Command) -> Result<f64> {
        process::seconds(command, &self.log())
    }

    /// Runs `job` with another build of pricesync, which has its own databases.
    pub(crate) fn with_program<T>(&self, program: &Path, job: impl FnOnce() -> T) -> T {
        let usual = self.program.replace(program.to_owned());
        let result = job();
        self.program.replace(usual);
        result
    }

    /// Returns whether another build of pricesync runs.
    pub(crate) fn is_other(&self) -> bool {
        self.program.borrow().as_path() != Path::new(PROGRAM)
    }

    /// Returns the name of a database of this kind, which depends on the build that makes it.
    pub(crate) fn name(&self, base: Base) -> String {
        let other = if self.is_other() { "other_" } else { "" };
        format!("{other}{}", base.name())
    }

    /// Returns a database of this kind, which is built on first use.
    pub(crate) fn base(&self, base: Base) -> Result<String> {
        let name = self.name(base);
        if !self.built.borrow().contains(&name) {
            self.wait_for_disk(false)?;
            base.build(self)?;
            self.wait_for_disk(self.is_durable())?;
            self.built.borrow_mut().insert(name.clone());
        }
        Ok(name)
    }

    /// Returns the option of CREATE DATABASE that puts a database into memory, if there is space.
    pub(crate) fn in_memory(&self) -> &'static str {
        match self.server.ram() {
            Some(_) => " TABLESPACE ram",
            None => "",
        }
    }

    /// Returns a fresh copy of a database, after all writes have finished.
    pub(crate) fn copy(&self, base: &str) -> Result<Copy<'_>> {
        self.copies.set(self.copies.get() + 1);
        let name = format!("run_{}", self.copies.get());
        self.wait_for_disk(false)?;
        // With fsync off, creating files must not wait for the disk either.
        let place = if self.is_durable() { " TABLESPACE pg_default" } else { self.in_memory() };
        let sql = format!("CREATE DATABASE {name} TEMPLATE {base}{place}");
        self.run("postgres", &sql)?;
        let copy = Copy { bench: self, name };
        self.settle()?;
        Ok(copy)
    }

    /// Waits until the server has finished earlier writes.
    pub(crate) fn settle(&self) -> Result<()> {
        self.run("postgres", "CHECKPOINT")?;
        if self.is_durable() {
            rustix::fs::sync();
        }
        self.wait_for_disk(self.is_durable())
    }

    fn wait_for_disk(&self, durable: bool) -> Result<()> {
        let wanted = if durable { "on" } else { "off" };
        let is_so = || -> Result<bool> {
            Ok(self.value("postgres", "SHOW fsync")?.as_deref() == Some(wanted))
        };
        if is_so()? {
            return Ok(());
        }
        for setting in ["fsync", "full_page_writes"] {
            let sql = format!("ALTER SYSTEM SET {setting} TO {wanted}");
            self.run("postgres", &sql)?;
        }
        self.run("postgres", "SELECT pg_reload_conf()")?;
        while !is_so()? {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// A database for one timed run, dropped afterwards.
pub(crate) struct Copy<'a> {
    bench: &'a Bench<'a>,
    pub(crate) name: String,
}

impl Copy<'_> {
    /// Fails unless first, middle and last schema are at this version: a run must have had an effect.
    pub(crate) fn expect(&self, version: u32, schemas: usize) -> Result<()> {
        // A query over all schemas would fill the lock table, so a sample is read.
        for number in [1, schemas.div_ceil(2), schemas] {
            let sql = format!(
                "SELECT max(version) FROM {}.refinery_schema_history",
                crate::fleet::schema(number)
            );
            let found = self.bench.value(&self.name, &sql)?;
            anyhow::ensure!(
                found == Some(version.to_string()),
                "{} is at version {found:?} and not {version}",
                crate::fleet::schema(number)
            );
        }
        Ok(())
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let _ = self.bench.wait_for_disk(false);
        let _ = self.bench.run("postgres", &sql);
    }
}
