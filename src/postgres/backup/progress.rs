//! How far a tenant is on its way, told while it moves.

use std::time::Instant;

use crate::postgres::connection::options::PROGRESS_INTERVAL;
use crate::service::event::{EventKind, Progress};

/// The steps of a tenant: its structure, each of its tables, and what comes behind them.
#[derive(Debug)]
pub(super) struct Steps {
    progress: Progress,
    /// How many tables there are, and how many steps behind them.
    tables: usize,
    behind: usize,
    step: String,
    number: usize,
    rows: u64,
    bytes: u64,
    told: Instant,
}

impl Steps {
    /// Begins with the structure. How many tables there are is what the lines about it say.
    pub(super) fn begin(progress: Progress, structure: &[String], behind: usize) -> Self {
        let is_table = |line: &&String| line.starts_with("relation ") && line.contains(" kind=r ");
        let mut steps = Self {
            progress,
            tables: structure.iter().filter(is_table).count(),
            behind,
            step: String::new(),
            number: 0,
            rows: 0,
            bytes: 0,
            told: Instant::now(),
        };
        steps.next("structure".to_owned(), 1);
        steps
    }

    /// Goes on to a table.
    pub(super) fn table(&mut self, name: &str) {
        let number = (self.number + 1).min(self.tables + 1);
        self.next(format!("table {name}"), number);
    }

    /// Goes on to a step behind the tables, the first of which is 1.
    pub(super) fn behind(&mut self, place: usize, step: &str) {
        self.next(step.to_owned(), 1 + self.tables + place);
    }

    /// Takes note of rows of the table that moved, and returns how many they are: each ends with the
    /// only line end in it.
    pub(super) fn moved(&mut self, rows: &[u8]) -> u64 {
        let count = rows.iter().map(|&byte| u64::from(byte == b'\n')).sum();
        self.rows += count;
        self.bytes += rows.len() as u64;
        if self.told.elapsed() >= PROGRESS_INTERVAL {
            self.tell();
        }
        count
    }

    fn next(&mut self, step: String, number: usize) {
        self.step = step;
        self.number = number;
        (self.rows, self.bytes) = (0, 0);
        self.tell();
    }

    fn tell(&mut self) {
        self.told = Instant::now();
        self.progress.send(EventKind::Step {
            step: self.step.clone(),
            number: self.number,
            of: 1 + self.tables + self.behind,
            rows: self.rows,
            bytes: self.bytes,
        });
    }
}
