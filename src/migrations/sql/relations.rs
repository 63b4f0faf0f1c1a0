//! Which tables and views a statement creates, drops, alters or writes, by its keywords.

use std::fmt;

use super::keywords::Keywords;
use super::lexer::{Lexer, Token, TokenKind};

/// Keywords between `CREATE`, `ALTER` or `DROP` and the kind of relation.
const BEFORE_A_KIND: [&str; 10] = [
    "or",
    "replace",
    "global",
    "local",
    "temp",
    "temporary",
    "unlogged",
    "foreign",
    "materialized",
    "recursive",
];

/// The name of a relation as the server folds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RelationName {
    pub(crate) schema: Option<String>,
    pub(crate) relation: String,
}

/// A name in a statement, with the byte at which it begins.
pub(crate) type NameAt = (usize, RelationName);

/// How a statement changes the relations of its schema.
pub(crate) enum RelationChange {
    Create {
        name: NameAt,
        is_temporary: bool,
    },
    Drop(Vec<NameAt>),
    Alter {
        name: NameAt,
        /// Whether the relation is renamed or moved to another schema.
        renames: bool,
    },
}

impl RelationName {
    /// Parses `schema.table`, with or without `ONLY`, `*` and parentheses around it.
    pub(crate) fn parse(sql: &str) -> Option<Self> {
        let tokens: Vec<Token> = Lexer::new(sql)
            .filter(|token| {
                matches!(token.kind, TokenKind::Word | TokenKind::Quoted)
                    && !sql[token.start..token.end].eq_ignore_ascii_case("only")
            })
            .collect();
        let keywords = Keywords::new(sql, &tokens);
        let last = keywords.len().checked_sub(1)?;
        let schema = last.checked_sub(1);
        Some(Self {
            schema: schema.and_then(|index| keywords.identifier(index)),
            relation: keywords.identifier(last)?,
        })
    }

    /// Reads a name at an index, and the index after it.
    fn at(keywords: Keywords<'_>, index: usize) -> Option<(NameAt, usize)> {
        let first = keywords.identifier(index)?;
        let offset = keywords.offset(index)?;
        let (schema, relation, end) = if keywords.text(index + 1) == "." {
            (Some(first), keywords.identifier(index + 2)?, index + 3)
        } else {
            (None, first, index + 1)
        };
        Some(((offset, Self { schema, relation }), end))
    }

    /// Returns whether the name resolves to this schema when that is the `search_path`.
    pub(crate) fn may_be_in(&self, schema: &str) -> bool {
        self.schema.as_deref().is_none_or(|it| it == schema)
    }
}

impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.relation)
    }
}

/// Returns the change of a `CREATE`, `DROP` or `ALTER` of a table or view.
pub(crate) fn change(keywords: Keywords<'_>) -> Option<RelationChange> {
    let skip = |from: usize, skipped: &[&str]| {
        (from..keywords.len()).find(|&index| !keywords.is_any(index, skipped))
    };
    let kind = skip(1, &BEFORE_A_KIND)?;
    if !keywords.is_any(kind, &["table", "view"]) {
        return None;
    }
    let start = skip(kind + 1, &["if", "not", "exists", "only"])?;
    match keywords.text(0).to_ascii_lowercase().as_str() {
        "create" => Some(RelationChange::Create {
            name: RelationName::at(keywords, start)?.0,
            is_temporary: (1..kind).any(|index| keywords.is_any(index, &["temp", "temporary"])),
        }),
        "drop" => Some(RelationChange::Drop(list(keywords, start))),
        "alter" => {
            let (name, end) = RelationName::at(keywords, start)?;
            let renames = (end..keywords.len()).any(|index| {
                keywords.is(index, "rename") && keywords.is(index + 1, "to")
                    || keywords.is(index, "set") && keywords.is(index + 1, "schema")
            });
            Some(RelationChange::Alter { name, renames })
        }
        _ => None,
    }
}

/// Returns the relations whose rows or definition a statement changes, and those that it creates by
/// a query.
pub(crate) fn changed(keywords: Keywords<'_>) -> Vec<NameAt> {
    let at = |index: usize| {
        let index = index + usize::from(keywords.is(index, "only"));
        RelationName::at(keywords, index).map(|(name, _)| name)
    };
    // The first ON of an index, a trigger or a policy precedes its table.
    let after = |word: &'static str| at(keywords.positions(word).next()? + 1);
    let name = match keywords.text(0).to_ascii_lowercase().as_str() {
        "truncate" | "lock" => return list(keywords, 1 + usize::from(keywords.is(1, "table"))),
        "copy" if keywords.positions("from").next().is_some() => at(1),
        "refresh" => at(3 + usize::from(keywords.is(3, "concurrently"))),
        "create" | "alter" | "drop" => {
            let kind = (1..keywords.len())
                .find(|&index| !keywords.is_any(index, &["or", "replace", "unique", "constraint"]))
                .unwrap_or_default();
            let creates = keywords.is(0, "create");
            if keywords.is_any(kind, &["trigger", "policy", if creates { "index" } else { "rule" }])
            {
                after("on")
            } else if creates && keywords.is(kind, "rule") {
                after("to")
            } else if creates && keywords.is(kind, "statistics") {
                keywords.positions("from").last().and_then(|index| at(index + 1))
            } else {
                return match change(keywords) {
                    Some(RelationChange::Drop(names)) => names,
                    Some(RelationChange::Alter { name, .. }) => {
                        let attached = (keywords.positions("attach"))
                            .filter(|&index| keywords.is(index + 1, "partition"))
                            .find_map(|index| at(index + 2));
                        std::iter::once(name).chain(attached).collect()
                    }
                    _ => Vec::new(),
                };
            }
        }
        _ => return written(keywords),
    };
    name.into_iter().collect()
}

/// Returns the relations that a query or a change of rows writes, in `WITH` too, and the one that
/// `SELECT INTO` creates.
fn written(keywords: Keywords<'_>) -> Vec<NameAt> {
    let at = |index: usize, skipped: &[&str]| {
        let name = (index..keywords.len()).find(|&index| !keywords.is_any(index, skipped))?;
        RelationName::at(keywords, name).map(|(name, _)| name)
    };
    let name = |index: usize| {
        let follows = |words: &[&str]| index > 0 && keywords.is_any(index - 1, words);
        if keywords.is(index, "into") {
            at(index + 1, &["temp", "temporary", "unlogged", "table"])
        } else if keywords.is(index, "from") && follows(&["delete"])
            || keywords.is(index, "update") && !follows(&["for", "key", "do", "then"])
        {
            at(index + 1, &["only"])
        } else {
            None
        }
    };
    (0..keywords.len()).filter_map(name).collect()
}

/// Reads a list such as `a, ONLY b *, c.d`.
fn list(keywords: Keywords<'_>, start: usize) -> Vec<NameAt> {
    let mut names = Vec::new();
    let mut index = start;
    loop {
        index += usize::from(keywords.is(index, "only"));
        let Some((name, end)) = RelationName::at(keywords, index) else {
            return names;
        };
        names.push(name);
        index = end + usize::from(keywords.text(end) == "*");
        if keywords.text(index) != "," {
            return names;
        }
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_as_the_server_does() {
        for (sql, expected) in [
            ("Public.Plans", "public.plans"),
            ("ONLY (orders)", "orders"),
            ("\"Only\" *", "Only"),
            ("orders *", "orders"),
            ("\"a b\".\"C\"", "a b.C"),
        ] {
            assert_eq!(RelationName::parse(sql).unwrap().to_string(), expected, "{sql}");
        }
        assert_eq!(RelationName::parse(""), None);
    }
}
