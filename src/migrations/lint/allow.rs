//! `-- pricesync: allow <rule>`: the rules that a file switches off.

use std::ops::Range;

use super::rules::Rule;
use crate::migrations::files::load_error::{LoadError, Problem};
use crate::migrations::files::script::Script;
use crate::migrations::sql::directives::{allowed_rules, directive};
use crate::migrations::sql::lexer::{Lexer, TokenKind};

/// The rules that a file allows, and where.
#[derive(Debug, Default)]
pub(super) struct Allowances {
    everywhere: Vec<Rule>,
    /// With the byte at which its statement begins.
    at: Vec<(usize, Rule)>,
}

impl Allowances {
    /// Reads the comments of a file. One on the line above a statement applies to that statement; one
    /// above an empty line before the first statement, to the whole file.
    ///
    /// # Errors
    ///
    /// An unknown rule.
    pub(super) fn read(script: &Script) -> Result<Self, LoadError> {
        let text = &*script.text;
        let mut found = Self::default();
        let first = script.statements.first().map_or(text.len(), |first| first.range.start);
        for token in Lexer::new(text).filter(|token| token.kind == TokenKind::LineComment) {
            let comment = token.start..token.end;
            let Some(rules) = directive(&text[comment.clone()]).and_then(allowed_rules) else {
                continue;
            };
            for name in rules {
                let rule = Rule::named(name).ok_or_else(|| {
                    let problem = Problem::UnknownRule {
                        name: name.to_owned(),
                        similar: Rule::similar(name),
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

/// Returns where the statement below a comment begins, if only further comments are between them.
fn statement_below(script: &Script, comment: &Range<usize>) -> Option<usize> {
    let next = (script.statements.iter())
        .map(|statement| statement.range.start)
        .find(|&start| start >= comment.end)?;
    let between = &script.text[comment.end..next];
    let (lines, indent) = between.rsplit_once('\n')?;
    let only_comments = lines.split('\n').skip(1).all(|line| line.trim_start().starts_with("--"));
    (indent.trim().is_empty() && only_comments).then_some(next)
}
