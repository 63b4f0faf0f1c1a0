//! `-- pricesync: allow <rule>`: a rule that a file switches off, and where.

use std::ops::Range;

use crate::migrations::sql::split::Statement;

/// One rule of an `allow` comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// The name as it is written.
    pub(crate) rule: String,
    /// The byte at which the comment begins.
    pub(crate) comment: usize,
    bytes: Range<usize>,
}

impl Allowance {
    /// Returns the rules of a comment. On the line above a statement it applies to that statement;
    /// above an empty line before the first statement, to the whole file.
    pub(super) fn of<'a>(
        rules: impl Iterator<Item = &'a str>,
        comment: &Range<usize>,
        text: &str,
        statements: &[Statement],
    ) -> Vec<Self> {
        let is_header = statements.first().is_none_or(|first| comment.start < first.range.start);
        let bytes = match statement_below(comment, text, statements) {
            Some(statement) => statement.range.clone(),
            None if is_header => 0..text.len(),
            None => 0..0,
        };
        let allow = |rule: &str| Self {
            rule: rule.to_owned(),
            comment: comment.start,
            bytes: bytes.clone(),
        };
        rules.map(allow).collect()
    }

    /// Returns whether it allows a rule at this byte.
    pub(crate) fn covers(&self, rule: &str, byte: usize) -> bool {
        self.rule == rule && self.bytes.contains(&byte)
    }
}

/// Returns the statement below a comment, if only further comments are between them.
fn statement_below<'a>(
    comment: &Range<usize>,
    text: &str,
    statements: &'a [Statement],
) -> Option<&'a Statement> {
    let next = statements.iter().find(|statement| statement.range.start >= comment.end)?;
    let between = &text[comment.end..next.range.start];
    let (lines, indent) = between.rsplit_once('\n')?;
    let only_comments = lines.split('\n').skip(1).all(|line| line.trim_start().starts_with("--"));
    (indent.trim().is_empty() && only_comments).then_some(next)
}
