//! Comments that begin with `-- pricesync:` and change how a file is read or run.

/// The first line of a file that runs statement by statement, outside of a transaction.
pub(crate) const NO_TRANSACTION: &str = "-- pricesync: no-transaction";

/// Whether a file runs inside the transaction that records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// With the other pending files of a schema: all or nothing.
    Inside,
    /// One statement after the other, each its own transaction.
    Outside,
}

/// Returns the text after `-- pricesync:`, or `None` for any other comment.
pub(crate) fn directive(comment: &str) -> Option<&str> {
    let words = comment.strip_prefix("--")?.trim_start();
    let key = words.get(.."pricesync:".len())?;
    key.eq_ignore_ascii_case("pricesync:").then(|| words[key.len()..].trim())
}

/// Returns the rules that an `allow` directive names, or `None` for any other directive.
pub(crate) fn allowed_rules(directive: &str) -> Option<impl Iterator<Item = &str>> {
    let rules = directive.strip_prefix("allow")?;
    rules
        .starts_with(char::is_whitespace)
        .then(|| rules.split([',', ' ', '\t']).filter(|rule| !rule.is_empty()))
}

/// Returns whether a comment is another tool's mark before the statements that undo a file: those of
/// goose, sql-migrate, micrate, dbmate, Rambler, tern, `MyBatis` and Play.
pub(crate) fn starts_down_section(comment: &str) -> bool {
    let words = comment.trim_matches(|c: char| c == '-' || c.is_whitespace()).to_ascii_lowercase();
    let first = |count| words.split_whitespace().take(count).collect::<Vec<_>>().join(" ");
    ["+goose down", "+migrate down", "+micrate down", "rambler down"].contains(&&*first(2))
        || ["migrate:down", "//@undo", "!downs"].contains(&&*first(1))
        || words == "create above / drop below"
}
