//! The file with the server's messages.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::LocalError;

/// A longer log is emptied at the next start, because it is not rotated.
const KEPT_BYTES: u64 = 1024 * 1024;

/// How many lines of the log an error quotes.
const QUOTED_LINES: usize = 12;

/// How much of the file's end is read to find those lines.
const QUOTED_BYTES: u64 = 8 * 1024;

/// Opens the log for appending.
pub(super) fn open(path: &Path) -> Result<File, LocalError> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(super::directory::NO_SYMLINK)
        .open(path)
        .map_err(LocalError::file("open", path))?;
    if file.metadata().is_ok_and(|meta| meta.len() > KEPT_BYTES) {
        file.set_len(0).map_err(LocalError::file("empty", path))?;
    }
    Ok(file)
}

/// Returns the last lines; empty without a log.
pub(super) fn tail(path: &Path) -> String {
    let text = last_bytes(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
}

fn last_bytes(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(QUOTED_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    #[test]
    fn the_tail_is_the_last_lines_and_empty_without_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.log");
        assert_eq!(super::tail(&path), "");
        let mut log = super::open(&path).unwrap();
        for line in 1..=2000 {
            writeln!(log, "line {line}").unwrap();
        }
        let tail = super::tail(&path);
        assert!(tail.starts_with("line 1989\n"), "{tail}");
        assert!(tail.ends_with("line 2000"), "{tail}");
    }
}
