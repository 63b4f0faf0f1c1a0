//! Prints findings on stdout, as diagnostics or as JSON.

use std::io::Write as _;

use serde_json::{Value, json};

use super::fleet_data::FleetData;
use crate::commands::run::app::App;
use crate::error::Failure;
use crate::migrations::lint::{Finding, Severity};
use crate::ui::{Diagnostic, DiagnosticLevel, write_document};

/// Width of an excerpt without a terminal.
const PAGE: usize = 120;

/// A finding with its path and forecast.
pub(super) struct Reported<'a> {
    finding: &'a Finding,
    path: String,
    forecast: Option<String>,
}

impl<'a> Reported<'a> {
    pub(super) fn new(finding: &'a Finding, fleet: &FleetData) -> Self {
        Self {
            finding,
            path: finding.path.display().to_string(),
            forecast: fleet.forecast(finding),
        }
    }

    fn remark(&self) -> Diagnostic<'_> {
        let finding = self.finding;
        let mut notes = vec![("cost", finding.cost.as_str())];
        notes.extend(self.forecast.as_deref().map(|words| ("forecast", words)));
        notes.push(("safer", &finding.safer));
        Diagnostic {
            path: &self.path,
            place: &finding.location,
            level: match finding.severity {
                Severity::Hint => DiagnosticLevel::Hint,
                Severity::Warning => DiagnosticLevel::Warning,
                Severity::Error => DiagnosticLevel::Error,
            },
            rule: finding.rule.name(),
            message: &finding.message,
            notes,
        }
    }

    fn json(&self) -> Value {
        let finding = self.finding;
        json!({
            "file": self.path,
            "line": finding.location.line,
            "column": finding.location.column,
            "set": finding.scope,
            "rule": finding.rule,
            "severity": finding.severity,
            "message": finding.message,
            "cost": finding.cost,
            "forecast": self.forecast,
            "safer": finding.safer,
        })
    }
}

pub(super) fn write_diagnostics(reported: &[Reported<'_>], app: &App) -> Result<(), Failure> {
    let stdout = app.terminal.stdout();
    let width = stdout.width.map_or(PAGE, usize::from);
    let mut out = app.terminal.out();
    for (number, item) in reported.iter().enumerate() {
        if number > 0 {
            out.write_all(b"\n")?;
        }
        out.write_all(item.remark().render(stdout.style, width).as_bytes())?;
    }
    Ok(out.flush()?)
}

pub(super) fn write_json(reported: &[Reported<'_>], app: &App) -> Result<(), Failure> {
    let of = |severity| {
        let same = |item: &&Reported<'_>| item.finding.severity == severity;
        reported.iter().filter(same).count()
    };
    let document = json!({
        "v": 1,
        "counts": {
            "error": of(Severity::Error),
            "warning": of(Severity::Warning),
            "hint": of(Severity::Hint),
        },
        "findings": reported.iter().map(Reported::json).collect::<Vec<_>>(),
    });
    let mut out = app.terminal.out();
    write_document(&mut out, &document)?;
    Ok(out.flush()?)
}
