//! A remark about a place in a file: one line to jump to, the line with a caret, and notes.

use std::fmt::Write as _;

use super::excerpt::Excerpt;
use crate::domain::script::Location;
use crate::ui::style::Style;
use crate::ui::text::{clean, clean_lines};

/// How much a remark matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiagnosticLevel {
    /// Worth knowing.
    Hint,
    /// Worth changing.
    Warning,
    /// Wrong.
    Error,
}

/// Something to say about a place in a file. Holds texts as they came; rendering makes them
/// harmless.
#[derive(Clone, Debug)]
pub struct Diagnostic<'a> {
    /// The file, as it is shown to people.
    pub path: &'a str,
    /// Where in it.
    pub place: &'a Location,
    /// How much it matters.
    pub weight: DiagnosticLevel,
    /// The name under which it can be looked up or switched off.
    pub rule: &'a str,
    /// What is there.
    pub message: &'a str,
    /// What else there is to say, each with its label.
    pub notes: Vec<(&'static str, &'a str)>,
}

impl Diagnostic<'_> {
    /// Returns the remark as lines that end in line breaks. The first one begins with
    /// `file:line:column`, as editors read it; only the excerpt is cut to `width`.
    #[must_use]
    pub fn render(&self, style: Style, width: usize) -> String {
        let column = self.place.column.unwrap_or(1);
        let weight = match self.weight {
            DiagnosticLevel::Hint => style.advice("hint:"),
            DiagnosticLevel::Warning => style.warning("warning:"),
            DiagnosticLevel::Error => style.bad("error:"),
        };
        let mut out = format!(
            "{}:{}:{column}: {weight} {} {}\n",
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
    fn a_remark_begins_with_where_and_shows_the_line() {
        let place = Location {
            line: 3,
            column: Some(13),
            text: "ALTER TABLE products DROP COLUMN brand;".to_owned(),
        };
        let remark = Diagnostic {
            path: "migrations/tenant/V9__\u{1b}x.sql",
            place: &place,
            weight: DiagnosticLevel::Warning,
            rule: "breaks-running-code",
            message: "column brand is taken away",
            notes: vec![("cost", "programs fail"), ("safer", "later")],
        };
        assert_data_eq!(
            remark.render(Style::plain(), 80),
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
