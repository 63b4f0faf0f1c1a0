use super::prelude::*;
use crate::migrations::sql::lexer::{Lexer, TokenKind};

pub(super) const RULE: Definition = Definition {
    name: "search-path-17",
    severity: Severity::Warning,
    grows_with_fleet: false,
    summary: "index or materialized view that calls a function with unqualified names",
    why: "The file works on PostgreSQL 16 and fails on 17.",
    server: "From 17 on, `CREATE INDEX`, `REINDEX`, `REFRESH` and similar commands run with `search_path = pg_catalog, pg_temp`.",
    found: &[
        "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE\n  AS 'SELECT count(*)::int FROM items WHERE id = $1';\nCREATE TABLE n (id int);\nCREATE INDEX i ON n (f(id));",
        "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT count(*)::int FROM items WHERE id = $1'; CREATE MATERIALIZED VIEW v AS SELECT f(id) FROM orders",
    ],
    accepted: &[
        "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE\n  BEGIN ATOMIC SELECT count(*)::int FROM items; END;\nCREATE TABLE n (id int);\nCREATE INDEX i ON n (f(id));",
        "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1'; CREATE TABLE n (id int); CREATE INDEX i ON n (f(id))",
        "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql SET search_path FROM CURRENT AS 'SELECT count(*)::int FROM items'; CREATE MATERIALIZED VIEW v AS SELECT f(id) FROM orders",
        "CREATE TABLE n (a text); CREATE INDEX i ON n (lower(a))",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    let Effect::StoredExpression { object, calls } = effect else {
        return None;
    };
    let functions: Vec<(&String, &String, bool)> = (now.effects_so_far())
        .filter_map(|effect| match effect {
            Effect::Function { name, body, sets_search_path } => {
                Some((name, body, *sets_search_path))
            }
            _ => None,
        })
        .collect();
    let is_ours = |word: &str| {
        now.creates_table(word) || functions.iter().any(|(name, ..)| name.as_str() == word)
    };
    let (function, name) = functions
        .iter()
        .filter(|(name, _, sets_search_path)| !sets_search_path && calls.contains(name))
        .find_map(|(name, body, _)| Some((name, unqualified_name(body, name, is_ours)?)))?;
    Some(Violation::new(
        format!("{object} calls {function}(), whose body uses '{name}' without a schema"),
        "from PostgreSQL 17 on the server resolves such names in pg_catalog only while it builds or refreshes: the file works on 16 and fails on 17",
        format!(
            "write the body of {function}() as BEGIN ATOMIC ... END, which resolves its names when it is created"
        ),
    ))
}

/// Returns the first unqualified word of a function's body that names an object of the set.
fn unqualified_name(body: &str, own: &str, is_ours: impl Fn(&str) -> bool) -> Option<String> {
    let code = body.trim_matches(['\'', '$']);
    let mut is_qualified = false;
    for token in Lexer::new(code) {
        let text = &code[token.start..token.end];
        let word = text.to_ascii_lowercase();
        if token.kind == TokenKind::Word && !is_qualified && word != own && is_ours(&word) {
            return Some(word);
        }
        is_qualified = text == ".";
    }
    None
}
