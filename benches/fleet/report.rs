//! The report: JSON, Markdown and text on the terminal.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::args::Args;
use crate::bench::Bench;
use crate::chart;
use crate::measure::{Bar, Check, Measured, Samples, Unit};

/// All measurements, and the machine that they were made on.
pub(crate) struct Report {
    dir: PathBuf,
    machine: Vec<(&'static str, String)>,
    rows: Vec<Measured>,
}

impl Report {
    /// Creates an empty report for this machine.
    pub(crate) fn new(bench: &Bench) -> Result<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        fs::create_dir_all(&dir)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            dir,
            machine: vec![
                ("pricesync", version()?),
                ("server", bench.server.version()?),
                ("processor", processor()),
                ("cores", cores.to_string()),
                ("rounds", bench.args.rounds().to_string()),
            ],
            rows: Vec::new(),
        })
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: Measured) {
        self.rows.push(row);
    }

    /// Returns whether every limit was kept.
    pub(crate) fn is_met(&self) -> bool {
        self.rows.iter().flat_map(|row| &row.checks).all(|check| check.is_met() != Some(false))
    }

    /// Writes the files with the rows so far.
    pub(crate) fn write(&self) -> Result<()> {
        write(&self.dir.join("fleet.json"), &format!("{:#}\n", self.json()))?;
        write(&self.dir.join("fleet.md"), &self.markdown())?;
        write(&self.dir.join("fleet.svg"), &self.chart())
    }

    /// Returns the list of limits and the paths of the files. A complete run also redraws the
    /// chart of the README.
    pub(crate) fn finish(&self, args: &Args, complete: bool) -> Result<String> {
        let mut text = String::from("\n");
        for row in &self.rows {
            for check in row.checks.iter().filter(|check| check.bar.is_some()) {
                let _ = writeln!(text, "{:<9} {}: {}", verdict(check), heading(row), words(check));
            }
        }
        let _ = write!(text, "written {}/fleet.json, fleet.md, fleet.svg", self.dir.display());
        if complete && args.is_everything() {
            let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/bench.svg");
            write(&chart, &self.chart())?;
            text.push_str(" and docs/bench.svg");
        }
        Ok(text)
    }

    fn chart(&self) -> String {
        let machine: Vec<&str> = self
            .machine
            .iter()
            .filter(|(name, _)| ["server", "processor"].contains(name))
            .map(|(_, value)| value.as_str())
            .collect();
        let cores = self.machine.iter().find(|(name, _)| *name == "cores");
        let cores = cores.map_or("", |(_, cores)| cores.as_str());
        let below = format!(
            "medians, shorter is better; {}, {cores} cores, client and server together",
            machine.join(", ")
        );
        chart::draw(&self.rows, &below)
    }

    fn json(&self) -> Value {
        let machine: serde_json::Map<String, Value> =
            self.machine.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let rows: Vec<Value> = self.rows.iter().map(row_json).collect();
        json!({ "v": 1, "machine": machine, "rows": rows })
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        let machine: Vec<String> =
            self.machine.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let _ = writeln!(text, "{}\n", machine.join(", "));
        text.push_str("| what | candidate | median | from to | ratio | bar | |\n|---|---|--:|--:|---|---|---|\n");
        for row in &self.rows {
            for (number, samples) in row.samples.iter().enumerate() {
                let title = if number == 0 { heading(row) } else { String::new() };
                let (low, high) = samples.range();
                let check = row.checks.iter().find(|check| is_of(check, samples));
                let _ = writeln!(
                    text,
                    "| {title} | {} | {} | {} to {} | {} |",
                    samples.name,
                    number_words(samples.median(), row.unit),
                    number_words(low, row.unit),
                    number_words(high, row.unit),
                    check.map_or_else(|| " | | ".to_owned(), cells),
                );
            }
            for check in &row.checks {
                if !row.samples.iter().any(|samples| is_of(check, samples)) {
                    let _ = writeln!(text, "| | {} | | | {} |", check.what, cells(check));
                }
            }
        }
        text.push('\n');
        for row in &self.rows {
            for note in &row.notes {
                let _ = writeln!(text, "- {}: {note}", heading(row));
            }
        }
        text
    }
}

impl Measured {
    /// Returns the row for a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}\n", heading(self));
        for samples in &self.samples {
            let (low, high) = samples.range();
            let _ = writeln!(
                text,
                "  {:<40} {:>10}   {} to {}",
                samples.name,
                number_words(samples.median(), self.unit),
                number_words(low, self.unit),
                number_words(high, self.unit)
            );
        }
        for check in &self.checks {
            let _ = writeln!(text, "  {} {}", words(check), verdict(check));
        }
        for note in &self.notes {
            let _ = writeln!(text, "  {note}");
        }
        text
    }
}

/// Returns the title with its mode.
pub(crate) fn heading(row: &Measured) -> String {
    let mode = if row.durable { "durable" } else { "fsync off" };
    format!("{} ({mode})", row.title)
}

/// Returns a number with its unit, in three or four digits.
pub(crate) fn number_words(value: f64, unit: Unit) -> String {
    match unit {
        _ if !value.is_finite() => "not measured".to_owned(),
        Unit::Times if value < 10.0 => format!("{value:.2} ×"),
        Unit::Times => format!("{value:.0} ×"),
        Unit::Mebibytes => format!("{value:.1} MiB"),
        Unit::Seconds if value < 0.1 => format!("{:.1} ms", value * 1000.0),
        Unit::Seconds if value < 1.0 => format!("{:.0} ms", value * 1000.0),
        Unit::Seconds => format!("{value:.2} s"),
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn is_of(check: &Check, samples: &Samples) -> bool {
    check.what == samples.name || check.what.starts_with(&format!("{} / ", samples.name))
}

fn words(check: &Check) -> String {
    let value = number_words(check.value.unwrap_or(f64::NAN), check.unit);
    match check.bar {
        Some(bar) => format!("{} = {value}, bar {}", check.what, bar_words(bar, check.unit)),
        None => format!("{} = {value}", check.what),
    }
}

fn cells(check: &Check) -> String {
    let value = number_words(check.value.unwrap_or(f64::NAN), check.unit);
    let bar = check.bar.map(|bar| bar_words(bar, check.unit)).unwrap_or_default();
    let against = check.what.split_once(" / ").map_or("", |(_, to)| to);
    let of = if against.is_empty() { "" } else { " of " };
    format!("{value}{of}{against} | {bar} | {}", verdict(check))
}

fn bar_words(bar: Bar, unit: Unit) -> String {
    match bar {
        Bar::AtMost(bar) => format!("≤ {}", number_words(bar, unit)),
        Bar::AtLeast(bar) => format!("≥ {}", number_words(bar, unit)),
    }
}

fn verdict(check: &Check) -> &'static str {
    match check.is_met() {
        Some(true) => "ok",
        Some(false) => "MISSED",
        None => "",
    }
}

fn row_json(row: &Measured) -> Value {
    let unit = |unit| match unit {
        Unit::Seconds => "s",
        Unit::Mebibytes => "MiB",
        Unit::Times => "x",
    };
    let samples: Vec<Value> = row
        .samples
        .iter()
        .map(|samples| json!({"name": samples.name, "median": samples.median(), "values": samples.values}))
        .collect();
    let checks: Vec<Value> = row
        .checks
        .iter()
        .map(|check| {
            let (at_most, at_least) = match check.bar {
                Some(Bar::AtMost(bar)) => (Some(bar), None),
                Some(Bar::AtLeast(bar)) => (None, Some(bar)),
                None => (None, None),
            };
            json!({
                "what": check.what, "value": check.value, "unit": unit(check.unit),
                "at_most": at_most, "at_least": at_least, "met": check.is_met(),
            })
        })
        .collect();
    json!({
        "row": row.row.key(), "title": row.title, "durable": row.durable,
        "unit": unit(row.unit), "samples": samples, "checks": checks, "notes": row.notes,
    })
}

fn version() -> Result<String> {
    let said = Command::new(crate::bench::PROGRAM).arg("--version").output()?;
    let said = String::from_utf8_lossy(&said.stdout);
    Ok(said.trim().trim_start_matches("pricesync ").to_owned())
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "))
        .map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}
