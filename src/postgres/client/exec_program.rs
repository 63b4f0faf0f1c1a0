//! Runs a program of `exec` for each tenant, with `PG*` variables that connect it to the tenant.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc::Sender;

use super::environment::TenantEnvironment;
use super::psql::process;
use crate::domain::target::Target;
use crate::service::event::{EventKind, Interrupt, Progress, Skipped};
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fleet::{Interrupts, JobFailure, JobResult, JobSuccess, SchemaJob};

/// A line that a program wrote to its stdout.
#[derive(Debug)]
pub struct OutputLine {
    /// The tenant's slug.
    pub tenant: String,
    /// The line, without its end; what is not UTF-8 is replaced.
    pub line: String,
}

/// Runs a program for each tenant.
#[derive(Debug)]
pub struct RunProgram {
    /// The connection that the program gets as variables.
    pub environment: TenantEnvironment,
    /// Whether `default_transaction_read_only` is on.
    pub read_only: bool,
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// How long it may run before it is terminated; zero means no limit.
    pub timeout: Duration,
    /// Where the lines of its stdout go.
    pub lines: Sender<OutputLine>,
}

impl SchemaJob for RunProgram {
    async fn run(
        &self,
        target: &Target,
        progress: &Progress,
        mut interrupts: Interrupts,
    ) -> JobResult {
        let program = self.words[0].to_string_lossy().into_owned();
        let failed = |message: String| -> JobFailure {
            MigrateError::Job {
                doing: program.clone(),
                error: ServerError { message, ..ServerError::default() },
                hints: Vec::new(),
            }
            .into()
        };
        let mut command = std::process::Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        self.environment.options.apply_to(&mut command);
        command.envs(self.environment.variables(&target.label, &target.schema, self.read_only));
        let mut command = Command::from(command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A process group of its own, so that Ctrl-C reaches only this process, which lets running
            // programs finish first.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let group = ProcessGroup(child.id());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut output = std::pin::pin!(async {
            let forward_output = async {
                let mut lines = LineReader::new(stdout);
                while let Some(line) = lines.next().await {
                    let tenant = target.label.clone();
                    // Sending fails only after the run has ended.
                    let _ = self.lines.send(OutputLine { tenant, line }).await;
                }
            };
            let forward_errors = async {
                let mut lines = LineReader::new(stderr);
                while let Some(line) = lines.next().await {
                    progress.send(EventKind::Output { line });
                }
            };
            futures_util::future::join(forward_output, forward_errors).await;
            child.wait().await
        });
        let limit = async {
            if self.timeout.is_zero() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(self.timeout).await;
        };
        let status = tokio::select! {
            status = &mut output => status,
            () = interrupts.reaches(Interrupt::Cancel) => {
                terminate(&group, output).await;
                return Ok(JobSuccess::Skipped(Skipped::Interrupted));
            }
            () = limit => {
                terminate(&group, output).await;
                return Err(failed(format!("timed out ({} s); raise --timeout", self.timeout.as_secs_f64())));
            }
        };
        group.forget();
        match status {
            Ok(status) if status.success() => Ok(JobSuccess::Finished(String::new())),
            Ok(status) => Err(failed(status.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// How long a program may take to end after SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// The process group of a program, killed when dropped.
struct ProcessGroup(Option<u32>);

impl ProcessGroup {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = process(self.0) {
            // It may have ended already.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }

    /// Lets the group go: after the program has ended, its id may be another group's.
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Sends SIGTERM, then SIGKILL after [`GRACE`].
async fn terminate(group: &ProcessGroup, output: impl Future) {
    group.signal(Signal::TERM);
    let _ = tokio::time::timeout(GRACE, output).await;
    group.signal(Signal::KILL);
}

/// Reads lines of a stream, with bytes that are not UTF-8 replaced.
struct LineReader<R>(Option<BufReader<R>>);

impl<R: AsyncRead + Unpin> LineReader<R> {
    fn new(stream: Option<R>) -> Self {
        Self(stream.map(BufReader::new))
    }

    async fn next(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let read = self.0.as_mut()?.read_until(b'\n', &mut line).await;
        read.is_ok_and(|read| read > 0).then(|| {
            let text = String::from_utf8_lossy(&line);
            text.trim_end_matches(['\n', '\r']).to_owned()
        })
    }
}
