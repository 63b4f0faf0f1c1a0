//! A finding in a file, as compilers print it: location, message, excerpt, notes.

use std::fmt::Write as _;

use super::excerpt::Excerpt;
use crate::domain::script::Location;
use crate::ui::style::Style;
use crate::ui::text::{clean, clean_lines};

/// The level of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiagnosticLevel {
    /// Information.
    Hint,
    /// Should be changed.
    Warning,
    /// Must be changed.
    Error,
}

/// A finding at a place in a file. Rendering escapes control characters.
#[derive(Clone, Debug)]
pub struct Diagnostic<'a> {
    /// The path to show.
    pub path: &'a str,
    /// Line and column.
    pub place: &'a Location,
    /// Its level.
    pub level: DiagnosticLevel,
    /// The name of the rule, for `allow` directives.
    pub rule: &'a str,
    /// What was found.
    pub message: &'a str,
    /// Further text, each with its label.
    pub notes: Vec<(&'static str, &'a str)>,
}

impl Diagnostic<'_> {
    /// Returns the diagnostic as lines. The first starts with `file:line:column`, which editors
    /// recognise; only the excerpt is cut to `width`.
    #[must_use]
    pub fn render(&self, style: Style, width: usize) -> String {
        let column = self.place.column.unwrap_or(1);
        let level = match self.level {
            DiagnosticLevel::Hint => style.advice("hint:"),
            DiagnosticLevel::Warning => style.warning("warning:"),
            DiagnosticLevel::Error => style.bad("error:"),
        };
        let mut out = format!(
            "{}:{}:{column}: {level} {} {}\n",
            clean(self.path),
            self.place.line,
            clean(self.message),
            style.dim(&format!("[{}]", self.rule)),
        );
        for line in Excerpt::new(self.place).render(style, width) {
            out.push_str(&line);
            out.push('\n');
        }
        for (label, text) in &self.notes {
            let label = style.advice(&format!("{label}:"));
            let _ = writeln!(out, "  {label} {}", clean_lines(text));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use snapbox::{IntoData, assert_data_eq, str};

    use super::*;

    #[test]
    fn a_diagnostic_starts_with_its_location_and_shows_the_line() {
        let place = Location {
            line: 3,
            column: Some(13),
            text: "ALTER TABLE products DROP COLUMN brand;".to_owned(),
        };
        let diagnostic = Diagnostic {
            path: "migrations/tenant/V9__\u{1b}x.sql",
            place: &place,
            level: DiagnosticLevel::Warning,
            rule: "breaks-running-code",
            message: "column brand is taken away",
            notes: vec![("cost", "programs fail"), ("safer", "later")],
        };
        assert_data_eq!(
            diagnostic.render(Style::plain(), 80),
            str![[r#"
migrations/tenant/V9__\u{1b}x.sql:3:13: warning: column brand is taken away [breaks-running-code]
  3 | ALTER TABLE products DROP COLUMN brand;
    |             ^
  cost: programs fail
  safer: later

"#]]
            .raw()
        );
    }
}
