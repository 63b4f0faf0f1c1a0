//! How a failure reads: what failed, where, why, and what to do next.

use std::fmt::Write as _;

use super::excerpt::Excerpt;
use crate::ui::invocation::addressed;
use crate::ui::style::Style;
use crate::ui::text::{clean, clean_lines};

/// A failure as it is told, before anybody decided to whom. Holds texts as they came;
/// rendering makes them harmless.
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
    /// What failed, without the schema in which it did.
    pub headline: String,
    /// The line in which it failed.
    pub excerpt: Option<Excerpt>,
    /// Why, one cause after the other.
    pub caused_by: Vec<String>,
    /// What else is known.
    pub details: Vec<String>,
    /// What to do next.
    pub hints: Vec<String>,
}

/// How much of an explanation is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Everything.
    Full,
    /// What may differ from one schema to the next: no excerpt, no hints.
    Brief,
}

impl Explanation {
    /// Returns what failed and why on one line, for JSON and for lists. Not escaped.
    #[must_use]
    pub fn message(&self) -> String {
        match self.caused_by.as_slice() {
            [] => self.headline.clone(),
            causes => format!("{}: {}", self.headline, causes.join("; ")),
        }
    }

    /// Returns the explanation as lines that end in line breaks, `error:` in front, then
    /// `subject` (usually the schema) if there is one.
    ///
    /// Only the excerpt is cut to `width`; the rest is left to the terminal.
    #[must_use]
    pub fn render(
        &self,
        subject: Option<&str>,
        extent: Detail,
        style: Style,
        width: usize,
    ) -> String {
        let mut out = format!("{} ", style.bad("error:"));
        if let Some(subject) = subject {
            let _ = write!(out, "{}: ", clean(subject));
        }
        out.push_str(&clean(&self.headline));
        out.push('\n');

        if let (Some(excerpt), Detail::Full) = (&self.excerpt, extent) {
            for line in excerpt.render(style, width) {
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
        if extent == Detail::Full {
            for hint in &self.hints {
                labelled(&mut out, &style.advice("hint:"), &addressed(hint));
            }
        }
        out
    }
}

fn labelled(out: &mut String, label: &str, text: &str) {
    let text = clean_lines(text.trim_end());
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
    use snapbox::{IntoData, assert_data_eq, str};

    #[test]
    fn texts_of_several_lines_are_indented_and_harmless() {
        let explanation = Explanation {
            headline: "V1__a\nfailed".into(),
            caused_by: vec!["first\nsecond \u{1b}[31m\n".into()],
            hints: vec!["try".into()],
            ..Explanation::default()
        };
        assert_data_eq!(
            explanation.render(Some("tenant_x"), Detail::Full, Style::plain(), 80),
            str![[r#"
error: tenant_x: V1__a\nfailed
  caused by: first
    second \u{1b}[31m
  hint: try

"#]]
            .raw()
        );
        assert!(
            !explanation
                .render(None, Detail::Brief, Style::plain(), 80)
                .contains("hint")
        );
    }
}
