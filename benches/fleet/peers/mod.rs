//! Other tools, installed into the target folder on demand and run as their users would run them.

pub(crate) mod dbmate;
pub(crate) mod django;
pub(crate) mod psql;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;

/// The reason why a tool is left out.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

/// Returns the folder of installed tools, which is kept between runs.
fn installed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench").join(name)
}

/// Runs one step of an installation.
fn step(mut command: Command) -> Result<(), Missing> {
    let name = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let output = command.output().map_err(|error| Missing(format!("{name}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    Err(Missing(format!("{name}: {}", last.unwrap_or("failed").trim())))
}

/// Returns `xargs`, which runs a shell line for each schema, four at a time. The line finds
/// the schema in `$1`.
fn for_each_schema(schemas: &[String], line: &str, list: &Path) -> anyhow::Result<Command> {
    std::fs::write(list, schemas.join("\n"))?;
    let mut command = process::command("xargs");
    command.arg("-a").arg(list).args(["-P", "4", "-n", "1", "sh", "-c", line, "sh"]);
    Ok(command)
}
