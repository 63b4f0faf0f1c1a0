//! A line of a file with a caret under a column.

use crate::domain::script::Location;

use crate::ui::style::Style;
use crate::ui::text::{clean, columns, fit, skip_columns};

/// A line of a file and a column in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// Line number, from 1.
    pub line: usize,
    /// The line before the column, escaped, each tab as one space.
    before: String,
    /// The line from the column on; `None` if the place has no column.
    from: Option<String>,
}

impl Excerpt {
    /// Returns the excerpt for a place. A column after the end of the line points just after it.
    pub fn new(place: &Location) -> Self {
        let escaped = |text: &str| clean(&text.replace('\t', " ")).into_owned();
        let (before, from) = match place.column {
            None => (escaped(&place.text), None),
            Some(column) => {
                let at = place
                    .text
                    .char_indices()
                    .nth(column.saturating_sub(1))
                    .map_or(place.text.len(), |(at, _)| at);
                let (before, from) = place.text.split_at(at);
                (escaped(before), Some(escaped(from)))
            }
        };
        Self { line: place.line, before, from }
    }

    /// Returns the line and, below it, the caret, cut to `width` columns (at least 30) around the
    /// caret.
    pub fn render(&self, style: Style, width: usize) -> Vec<String> {
        let number = self.line.to_string();
        let gutter = format!("  {number} | ");
        let room = width.max(30).saturating_sub(columns(&gutter));
        let Some(from) = &self.from else {
            return vec![format!("{}{}", style.dim(&gutter), fit(&self.before, room))];
        };

        let before = cut_left(&self.before, columns(from), room);
        let caret = columns(&before);
        let margin = format!("  {} | ", " ".repeat(number.len()));
        vec![
            format!("{}{before}{}", style.dim(&gutter), fit(from, room.saturating_sub(caret))),
            format!("{}{}{}", style.dim(&margin), " ".repeat(caret), style.bad("^")),
        ]
    }
}

/// Cuts the start of the line so that the caret and some text after it stay visible.
fn cut_left(before: &str, columns_behind: usize, room: usize) -> String {
    let behind = columns_behind.clamp(1, room / 3);
    let allowed = room - behind;
    let used = columns(before);
    if used <= allowed {
        return before.to_owned();
    }
    format!("…{}", skip_columns(before, used - allowed + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapbox::{IntoData, assert_data_eq, str};

    fn shown(line: usize, column: Option<usize>, text: &str, width: usize) -> String {
        let place = Location { line, column, text: text.to_owned() };
        Excerpt::new(&place).render(Style::plain(), width).join("\n")
    }

    #[test]
    fn columns_are_characters_and_the_caret_counts_cells() {
        // 価格 is two characters in four cells, "ế" three characters in one.
        let text = "select '価格', 'gie\u{302}\u{301}', x";
        let column = text.chars().position(|c| c == 'x').unwrap() + 1;
        let shown = shown(3, Some(column), text, 80);
        let (line, caret) = shown.split_once('\n').unwrap();
        assert_eq!(
            columns(line.split_once('x').unwrap().0),
            columns(caret.split_once('^').unwrap().0)
        );
    }

    #[test]
    fn the_caret_is_under_the_column() {
        let long = format!("select {}, here, {};", "a".repeat(60), "b".repeat(60));
        let shown = [
            shown(12, Some(17), "create index on prices (product_id);", 80),
            // A tab is one blank, and an escape is visible.
            shown(7, Some(3), "\t\tdrop\u{1b}[0m", 80),
            // A long line is cut around the caret.
            shown(1, long.find("here").map(|at| at + 1), &long, 40),
            // A column after the end points just after it.
            shown(2, Some(99), "select (", 80),
            shown(3, None, "no column, no caret", 80),
        ];
        assert_data_eq!(
            shown.join("\n"),
            str![[r#"
  12 | create index on prices (product_id);
     |                 ^
  7 |   drop\u{1b}[0m
    |   ^
  1 | …aaaaaaaaaaaaaaaaaaaa, here, bbbb…
    |                        ^
  2 | select (
    |         ^
  3 | no column, no caret
"#]]
            .raw()
        );
    }
}
