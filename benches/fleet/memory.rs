//! What the server's processes take for themselves.

use std::fs;

use crate::bench::Bench;
use crate::process::{kibibytes, mebibytes};

/// Looks at the sessions of one database and keeps the largest.
pub(crate) struct Backends {
    server: Option<u32>,
    database: String,
    largest: u64,
    readable: bool,
}

impl Backends {
    /// Watches a database; nothing is known before the first look.
    pub(crate) fn of(bench: &Bench, database: &str) -> Self {
        Self {
            server: bench.server.pid(),
            database: format!(" {database} "),
            largest: 0,
            readable: true,
        }
    }

    /// Looks at every session there is now.
    pub(crate) fn look(&mut self) {
        let Some(server) = self.server else { return };
        let children = format!("/proc/{server}/task/{server}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        for child in children.split_whitespace() {
            let title = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if !String::from_utf8_lossy(&title).contains(&self.database) {
                continue;
            }
            match fs::read_to_string(format!("/proc/{child}/smaps_rollup")) {
                Ok(text) => {
                    let private = kibibytes(&text, "Private_Dirty:").unwrap_or_default();
                    self.largest = self.largest.max(private);
                }
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    self.readable = false;
                }
                // It ended between two looks.
                Err(_) => {}
            }
        }
    }

    /// Returns the largest private memory of a session in MiB, if we were allowed to look.
    pub(crate) fn largest(&self) -> Option<f64> {
        (self.readable && self.largest > 0).then(|| mebibytes(self.largest))
    }
}
