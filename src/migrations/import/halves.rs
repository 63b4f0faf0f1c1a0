//! Splits a file into what it does and what undoes that.
//!
//! The tools look for their comments at the starts of lines, also within strings, and so does this.

use super::Tool;
use crate::migrations::sql::directives::Transaction;
use crate::migrations::sql::lexer::{Lexer, TokenKind};

/// The parts of a file of another tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Halves {
    pub(super) up: String,
    /// `None` if the file has no second half.
    pub(super) down: Option<String>,
    pub(super) transaction: Transaction,
}

/// What a comment means to its tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Up(Transaction),
    Down,
    /// The file runs without a transaction.
    NoTransaction,
    /// Nothing to us.
    Leave,
}

/// Splits the text of a file.
///
/// # Errors
///
/// The line, from 1, and why it cannot be split.
pub(super) fn halves(tool: Tool, text: &str) -> Result<Halves, (usize, String)> {
    let mut halves = Halves { up: String::new(), down: None, transaction: Transaction::Inside };
    // Before the first mark; the tools that have marks run none of it.
    let mut before = String::new();
    let has_marks = matches!(tool, Tool::Dbmate | Tool::Goose);
    let mut is_up = !has_marks;
    for line in text.lines() {
        match mark(tool, line) {
            Some(Mark::Up(transaction)) => {
                is_up = true;
                if transaction == Transaction::Outside {
                    halves.transaction = transaction;
                }
                continue;
            }
            Some(Mark::Down) => {
                halves.down.get_or_insert_default();
                continue;
            }
            Some(Mark::NoTransaction) => {
                halves.transaction = Transaction::Outside;
                continue;
            }
            Some(Mark::Leave) => continue,
            None => {}
        }
        let half = match &mut halves.down {
            Some(down) => down,
            None if is_up => &mut halves.up,
            None => &mut before,
        };
        half.push_str(line);
        half.push('\n');
    }
    if !is_up {
        return Err((1, format!("has no '{}'", start(tool))));
    }
    if let Some(line) = first_statement(&before) {
        return Err((
            line,
            format!("is before '{}', so {} never ran it", start(tool), tool.name()),
        ));
    }
    halves.up.insert_str(0, &before);
    Ok(halves)
}

fn start(tool: Tool) -> &'static str {
    if tool == Tool::Dbmate { "-- migrate:up" } else { "-- +goose Up" }
}

fn mark(tool: Tool, line: &str) -> Option<Mark> {
    let comment = line.trim_start().strip_prefix("--")?;
    let comment = match tool {
        Tool::NodePgMigrate => comment.trim_start_matches(|c: char| c == '-' || c.is_whitespace()),
        _ => comment.trim_start(),
    };
    let words: Vec<String> = comment.split_whitespace().map(str::to_ascii_lowercase).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match (tool, &words[..]) {
        (Tool::Goose, ["+goose", "up"]) | (Tool::NodePgMigrate, ["up", "migration", ..]) => {
            Some(Mark::Up(Transaction::Inside))
        }
        (Tool::Dbmate, ["migrate:up", options @ ..]) => {
            let is_outside = options.contains(&"transaction:false");
            Some(Mark::Up(if is_outside { Transaction::Outside } else { Transaction::Inside }))
        }
        (Tool::Goose, ["+goose", "down"])
        | (Tool::Dbmate, ["migrate:down", ..])
        | (Tool::NodePgMigrate, ["down", "migration", ..]) => Some(Mark::Down),
        (Tool::Goose, ["+goose", "no", "transaction"]) | (Tool::Sqlx, ["no-transaction"]) => {
            Some(Mark::NoTransaction)
        }
        (Tool::Goose, ["+goose", ..]) => Some(Mark::Leave),
        _ => None,
    }
}

/// Returns the line, from 1, of the first token that is not a comment.
fn first_statement(text: &str) -> Option<usize> {
    let token = Lexer::new(text).find(|token| token.kind != TokenKind::LineComment)?;
    Some(text[..token.start].matches('\n').count() + 1)
}
