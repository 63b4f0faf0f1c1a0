//! Prints findings on stdout, as diagnostics or as JSON.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};

use super::fleet_data::FleetData;
use crate::commands::run::app::App;
use crate::error::Failure;
use crate::migrations::lint::{Finding, Severity};
use crate::ui::{Excerpt, Style, clean, clean_lines, write_document};

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

    /// Returns the finding as lines. The first starts with `file:line:column`, which editors
    /// recognise; only the excerpt is cut to `width`.
    fn render(&self, style: Style, width: usize) -> String {
        let Finding { location, message, cost, safer, .. } = self.finding;
        let level = match self.finding.severity {
            Severity::Hint => style.advice("hint:"),
            Severity::Warning => style.warning("warning:"),
            Severity::Error => style.bad("error:"),
        };
        let (path, line) = (clean(&self.path), location.line);
        let column = location.column.unwrap_or(1);
        let rule = style.dim(&format!("[{}]", self.finding.rule.name()));
        let mut out = format!("{path}:{line}:{column}: {level} {} {rule}\n", clean(message));
        for line in Excerpt::new(location).render(style, width) {
            out += &line;
            out.push('\n');
        }
        let notes =
            [("cost", Some(cost)), ("forecast", self.forecast.as_ref()), ("safer", Some(safer))];
        for (label, text) in notes {
            if let Some(text) = text {
                let label = style.advice(&format!("{label}:"));
                let _ = writeln!(out, "  {label} {}", clean_lines(text));
            }
        }
        out
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
        out.write_all(item.render(stdout.style, width).as_bytes())?;
    }
    Ok(out.flush()?)
}

pub(super) fn write_json(
    reported: &[Reported<'_>],
    [errors, warnings, hints]: [usize; 3],
    no_template: Option<&str>,
    app: &App,
) -> Result<(), Failure> {
    let document = json!({
        "v": 1,
        "counts": { "error": errors, "warning": warnings, "hint": hints },
        "no_template": no_template,
        "findings": reported.iter().map(Reported::json).collect::<Vec<_>>(),
    });
    let mut out = app.terminal.out();
    write_document(&mut out, &document)?;
    Ok(out.flush()?)
}
