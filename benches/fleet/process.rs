//! Starts, monitors and measures programs.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often the memory of a running program is sampled. The kernel keeps the peak, so only growth
/// after the last sample is missed.
const GLANCE: Duration = Duration::from_millis(2);

/// Returns a command without variables that could select another server or project.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PG") || text.starts_with("PRICESYNC_") || text == "DATABASE_URL" {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Runs a program and returns the seconds from start to exit.
///
/// # Errors
///
/// The program fails; the error contains the end of its output.
pub(crate) fn seconds(mut command: Command, log: &Path) -> Result<f64> {
    let name = name(&command);
    command.stderr(file(log)?);
    let started = Instant::now();
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    let took = started.elapsed().as_secs_f64();
    if !status.success() {
        bail!("{name} ended with {status}:\n{}", tail(log));
    }
    Ok(took)
}

/// Runs a program and returns its peak resident memory in MiB. `watch` is called periodically
/// while it runs.
///
/// # Errors
///
/// The program fails; the error contains the end of its output.
pub(crate) fn peak(mut command: Command, log: &Path, mut watch: impl FnMut()) -> Result<f64> {
    let name = name(&command);
    command.stderr(file(log)?);
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    let mut peak = 0;
    let status = loop {
        peak = high_water(&child).unwrap_or(peak).max(peak);
        watch();
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(GLANCE);
    };
    if !status.success() {
        bail!("{name} ended with {status}:\n{}", tail(log));
    }
    Ok(mebibytes(peak))
}

/// Converts kibibytes to MiB.
pub(crate) fn mebibytes(kibibytes: u64) -> f64 {
    f64::from(u32::try_from(kibibytes).unwrap_or(u32::MAX)) / 1024.0
}

/// Returns the kibibytes after a label in a file of `/proc`.
pub(crate) fn kibibytes(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}

fn high_water(child: &Child) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    kibibytes(&text, "VmHWM:")
}

fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let argument = command.get_args().next().unwrap_or_default();
    format!("{name} {}", argument.to_string_lossy())
}

fn file(log: &Path) -> Result<fs::File> {
    fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
