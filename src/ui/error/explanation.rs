//! The layout of a failure: headline, excerpt, causes, details, hints.

use std::fmt::Write as _;

use super::excerpt::Excerpt;
use crate::domain::hint::Hint;
use crate::domain::os_error::without_number;
use crate::ui::style::Style;
use crate::ui::text::{clean, clean_lines};

/// A failure in words. Holds the texts as the server and the files gave them; rendering escapes
/// control characters.
///
/// ```text
/// error: tenant_globex: V8__price_history_index failed at migrations/tenant/V8__price_history_index.sql:12:17
///   12 | create index on prices (product_id);
///      |                 ^
///   caused by: relation "prices" does not exist (42P01)
///   hint: names were looked up in tenant_globex, then in [run] search_path; ...
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// What failed, without the schema.
    pub headline: String,
    /// The line of the file that failed.
    pub excerpt: Option<Excerpt>,
    /// The causes, outermost first.
    pub caused_by: Vec<String>,
    /// Other facts, such as the blocking sessions.
    pub details: Vec<String>,
    /// The server's `CONTEXT`.
    pub context: Option<Box<str>>,
    /// What to do next.
    pub hints: Vec<Hint>,
}

/// How much of an explanation is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Everything.
    Full,
    /// What may differ from one schema to the next: no excerpt, no hints.
    Brief,
}

/// How an explanation is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    /// Colours.
    pub style: Style,
    /// Columns to which the excerpt is cut; other lines are left to the terminal.
    pub width: usize,
    /// Whether the context is shown.
    pub with_context: bool,
    /// The program in proposed commands, such as `pricesync --local`.
    pub program: &'a str,
}

impl Explanation {
    /// Returns an explanation that is a headline only.
    pub fn new(headline: impl Into<String>) -> Self {
        Self { headline: headline.into(), ..Self::default() }
    }

    /// Adds a cause.
    #[must_use]
    pub fn cause(mut self, cause: &(impl ToString + ?Sized)) -> Self {
        self.caused_by.push(cause.to_string());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<Hint>) -> Self {
        self.hints([hint.into()])
    }

    /// Adds hints.
    #[must_use]
    pub fn hints(mut self, hints: impl IntoIterator<Item = Hint>) -> Self {
        self.hints.extend(hints);
        self
    }

    /// Returns headline and causes on one line, for JSON and for lists. Not escaped.
    pub fn message(&self) -> String {
        match self.caused_by.as_slice() {
            [] => self.headline.clone(),
            causes => format!("{}: {}", self.headline, causes.join("; ")),
        }
    }

    /// Returns the explanation as lines: `error:`, then `subject` (usually the schema) if there is
    /// one, then the rest.
    pub fn render(&self, subject: Option<&str>, detail: Detail, layout: Layout<'_>) -> String {
        let style = layout.style;
        let mut out = format!("{} ", style.bad("error:"));
        if let Some(subject) = subject {
            let _ = write!(out, "{}: ", clean(subject));
        }
        out.push_str(&clean(without_number(&self.headline)));
        out.push('\n');

        if let (Some(excerpt), Detail::Full) = (&self.excerpt, detail) {
            for line in excerpt.render(style, layout.width) {
                out.push_str(&line);
                out.push('\n');
            }
        }
        for cause in &self.caused_by {
            labelled(&mut out, "caused by:", cause);
        }
        for detail in &self.details {
            labelled(&mut out, "detail:", detail);
        }
        if let Some(context) = self.context.as_ref().filter(|_| layout.with_context) {
            labelled(&mut out, "context:", context);
        }
        if detail == Detail::Full {
            for hint in &self.hints {
                labelled(&mut out, &style.advice("hint:"), &hint.render(layout.program));
            }
        }
        out
    }
}

fn labelled(out: &mut String, label: &str, text: &str) {
    let text = clean_lines(without_number(text.trim_end()));
    for (number, line) in text.lines().enumerate() {
        let _ = if number == 0 {
            writeln!(out, "  {label} {line}")
        } else {
            writeln!(out, "    {line}")
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::test_support::PLAIN;
    use snapbox::{IntoData, assert_data_eq, str};

    #[test]
    fn lines_are_indented_and_escaped() {
        let explanation = Explanation {
            headline: "V1__a\nfailed".into(),
            caused_by: vec!["first\nsecond \u{1b}[31m\n".into(), "not found (os error 2)".into()],
            hints: vec!["try".into()],
            ..Explanation::default()
        };
        assert_data_eq!(
            explanation.render(Some("tenant_x"), Detail::Full, PLAIN),
            str![[r#"
error: tenant_x: V1__a\nfailed
  caused by: first
    second \u{1b}[31m
  caused by: not found
  hint: try

"#]]
            .raw()
        );
        assert!(!explanation.render(None, Detail::Brief, PLAIN).contains("hint"));
    }
}
