//! `-- pricesync: allow <rule>`: what a file says it knows.

use std::ops::Range;

use super::rule::Rule;
use crate::migrations::files::load_error::{LoadError, Problem};
use crate::migrations::files::script::Script;
use crate::migrations::sql::directives::{allowed_rules, directive};
use crate::migrations::sql::lexer::{Lexer, TokenKind};

/// The rules that a file allows, and where.
#[derive(Debug, Default)]
pub(super) struct Allowances {
    everywhere: Vec<Rule>,
    /// With the byte at which the statement begins that it is said of.
    at: Vec<(usize, Rule)>,
}

impl Allowances {
    /// Reads the comments of a file. One that ends on the line before a statement is about
    /// that statement; one further up, before the first statement, about the whole file.
    ///
    /// # Errors
    ///
    /// A rule that does not exist.
    pub(super) fn read(script: &Script) -> Result<Self, LoadError> {
        let text = &*script.text;
        let mut found = Self::default();
        let first = script
            .statements
            .first()
            .map_or(text.len(), |first| first.range.start);
        for token in Lexer::new(text).filter(|token| token.kind == TokenKind::LineComment) {
            let comment = token.start..token.end;
            let Some(words) = directive(&text[comment.clone()]).and_then(allowed_rules) else {
                continue;
            };
            for word in words {
                let rule = Rule::named(word).ok_or_else(|| {
                    let problem = Problem::UnknownRule {
                        name: word.to_owned(),
                        similar: Rule::similar(word),
                    };
                    LoadError::at(&script.path, text, comment.start, problem)
                })?;
                match statement_below(script, &comment) {
                    Some(at) => found.at.push((at, rule)),
                    None if comment.start < first => found.everywhere.push(rule),
                    None => {}
                }
            }
        }
        Ok(found)
    }

    pub(super) fn cover(&self, rule: Rule, statement: usize) -> bool {
        self.everywhere.contains(&rule) || self.at.contains(&(statement, rule))
    }
}

/// Returns where the statement begins that stands under a comment, with nothing but further
/// comments between: no empty line.
fn statement_below(script: &Script, comment: &Range<usize>) -> Option<usize> {
    let next = (script.statements.iter())
        .map(|statement| statement.range.start)
        .find(|&start| start >= comment.end)?;
    let between = &script.text[comment.end..next];
    let (lines, indent) = between.rsplit_once('\n')?;
    let only_comments = lines
        .split('\n')
        .skip(1)
        .all(|line| line.trim_start().starts_with("--"));
    (indent.trim().is_empty() && only_comments).then_some(next)
}
