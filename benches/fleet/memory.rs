//! Private memory of the server's processes.

use std::fs;

use crate::bench::Bench;
use crate::process::{kibibytes, mebibytes};

/// Samples the sessions of one database and keeps the largest value.
pub(crate) struct Backends {
    server: Option<u32>,
    database: String,
    largest: u64,
    readable: bool,
}

impl Backends {
    /// Creates a sampler for a database.
    pub(crate) fn of(bench: &Bench, database: &str) -> Self {
        Self {
            server: bench.server.pid(),
            database: format!(" {database} "),
            largest: 0,
            readable: true,
        }
    }

    /// Samples every current session.
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
                // The process has ended.
                Err(_) => {}
            }
        }
    }

    /// Returns the largest private memory of a session in MiB, if it could be read.
    pub(crate) fn largest(&self) -> Option<f64> {
        (self.readable && self.largest > 0).then(|| mebibytes(self.largest))
    }
}
