//! Reports the progress of a dump or restore.

use std::time::Instant;

use crate::postgres::connection::options::PROGRESS_INTERVAL;
use crate::service::event::{EventKind, Progress};

/// The steps of a dump or restore: the structure, each table, then `later_steps` others.
#[derive(Debug)]
pub(super) struct StepProgress {
    progress: Progress,
    tables: usize,
    later_steps: usize,
    step: String,
    number: usize,
    rows: u64,
    bytes: u64,
    reported_at: Instant,
}

impl StepProgress {
    /// Starts with the structure, whose lines determine the number of tables.
    pub(super) fn new(progress: Progress, structure: &[String], later_steps: usize) -> Self {
        let is_table = |line: &&String| line.starts_with("relation ") && line.contains(" kind=r ");
        let mut new = Self {
            progress,
            tables: structure.iter().filter(is_table).count(),
            later_steps,
            step: String::new(),
            number: 0,
            rows: 0,
            bytes: 0,
            reported_at: Instant::now(),
        };
        new.start("structure".to_owned(), 1);
        new
    }

    /// Starts the next table.
    pub(super) fn start_table(&mut self, name: &str) {
        let number = (self.number + 1).min(self.tables + 1);
        self.start(format!("table {name}"), number);
    }

    /// Starts a step after the tables, the first of which is 1.
    pub(super) fn start_later_step(&mut self, number: usize, step: &str) {
        self.start(step.to_owned(), 1 + self.tables + number);
    }

    /// Adds copied rows and returns their number: the text format of COPY escapes all other newlines.
    pub(super) fn add_rows(&mut self, rows: &[u8]) -> u64 {
        let count = rows.iter().map(|&byte| u64::from(byte == b'\n')).sum();
        self.rows += count;
        self.bytes += rows.len() as u64;
        if self.reported_at.elapsed() >= PROGRESS_INTERVAL {
            self.report();
        }
        count
    }

    fn start(&mut self, step: String, number: usize) {
        self.step = step;
        self.number = number;
        (self.rows, self.bytes) = (0, 0);
        self.report();
    }

    fn report(&mut self) {
        self.reported_at = Instant::now();
        self.progress.send(EventKind::Step {
            step: self.step.clone(),
            number: self.number,
            of: 1 + self.tables + self.later_steps,
            rows: self.rows,
            bytes: self.bytes,
        });
    }
}
