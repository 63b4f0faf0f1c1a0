//! Finds values that switch a timeout off, such as in `SET lock_timeout = 0`, and replaces them: a
//! dump of `pg_dump` begins with such statements, and the file would wait without a limit.

use std::borrow::Cow;
use std::ops::Range;

use crate::migrations::sql::keywords::Keywords;
use crate::migrations::sql::lexer::{Lexer, TokenKind};

/// The lint rule that finds these values. A file that allows it keeps them.
pub(crate) const UNBOUNDED_LOCK: &str = "unbounded-lock";

/// A setting that limits how long a statement, a lock or a transaction lasts; zero means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// `lock_timeout`
    Lock,
    /// `statement_timeout`
    Statement,
    /// `idle_in_transaction_session_timeout`
    IdleInTransaction,
    /// `transaction_timeout`, from PostgreSQL 17 on
    Transaction,
}

impl Timeout {
    const ALL: [Self; 4] =
        [Self::Lock, Self::Statement, Self::IdleInTransaction, Self::Transaction];

    /// Returns the name of the setting.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Lock => "lock_timeout",
            Self::Statement => "statement_timeout",
            Self::IdleInTransaction => "idle_in_transaction_session_timeout",
            Self::Transaction => "transaction_timeout",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|timeout| name.eq_ignore_ascii_case(timeout.setting()))
    }
}

/// A value that switches a timeout off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SwitchedOff {
    /// The setting.
    pub(crate) timeout: Timeout,
    /// Whether the value is `DEFAULT`, which is what the role, the database or the server sets.
    pub(crate) is_default: bool,
    /// The bytes of the value in the text.
    pub(crate) value: Range<usize>,
    /// Whether it is an argument of `set_config`.
    is_argument: bool,
}

/// Returns the values that a statement switches timeouts off with, by `SET` or a call of `set_config`.
pub(crate) fn switched_off(keywords: Keywords<'_>) -> Vec<SwitchedOff> {
    if keywords.is(0, "set") {
        set(keywords, 0).into_iter().collect()
    } else if keywords.is_any(0, &["select", "with"]) {
        calls(keywords)
    } else {
        Vec::new()
    }
}

/// Returns the timeouts that the code of a `DO` switches off. Its values cannot be replaced.
pub(crate) fn switched_off_in_do(keywords: Keywords<'_>) -> Vec<Timeout> {
    if !keywords.is(0, "do") {
        return Vec::new();
    }
    let is_code = |index: &usize| keywords.kind(*index) == Some(TokenKind::Literal);
    let codes = (0..keywords.len()).filter(is_code).map(|index| keywords.text(index));
    let mut found = Vec::new();
    for code in codes.map(|code| code.trim_matches(['\'', '$'])) {
        let tokens = Lexer::statement(code);
        for statement in tokens.split(|token| token.kind == TokenKind::Semicolon) {
            let keywords = Keywords::new(code, statement);
            found.extend(calls(keywords));
            let is_first = |index: &usize| {
                *index == 0 || keywords.is_any(index - 1, &["begin", "then", "else", "loop"])
            };
            let first = keywords.positions("set").find(is_first);
            found.extend(first.and_then(|index| set(keywords, index)));
        }
    }
    found.into_iter().filter(|it| !it.is_default).map(|it| it.timeout).collect()
}

/// Reads the `SET` at this index, up to the end of the statement.
fn set(keywords: Keywords<'_>, index: usize) -> Option<SwitchedOff> {
    let has_scope = keywords.is_any(index + 1, &["local", "session"]);
    let name = index + if has_scope { 2 } else { 1 };
    let timeout = Timeout::named(&keywords.identifier(name)?)?;
    let (first, last) = (name + 2, keywords.len() - 1);
    let has_value = keywords.text(name + 1) == "=" || keywords.is(name + 1, "to");
    // A number such as -0.0 is several tokens.
    let value: String = (first..=last).map(|index| keywords.text(index)).collect();
    let is_default = value.eq_ignore_ascii_case("default");
    (has_value && (is_default || is_zero(&value))).then(|| SwitchedOff {
        timeout,
        is_default,
        value: keywords.range(first).start..keywords.range(last).end,
        is_argument: false,
    })
}

fn calls(keywords: Keywords<'_>) -> Vec<SwitchedOff> {
    let call = |index| {
        let name = keywords.text(index + 2).strip_prefix('\'')?.strip_suffix('\'')?;
        let timeout = Timeout::named(name)?;
        let value = index + 4;
        let is_call =
            keywords.kind(index + 1) == Some(TokenKind::Open) && keywords.text(index + 3) == ",";
        (is_call && keywords.text(value + 1) == "," && is_zero(keywords.text(value))).then(|| {
            SwitchedOff {
                timeout,
                is_default: false,
                value: keywords.range(value),
                is_argument: true,
            }
        })
    };
    keywords.positions("set_config").filter_map(call).collect()
}

/// Returns whether a value is zero in any unit.
fn is_zero(value: &str) -> bool {
    let number = value.trim_matches('\'').trim_end_matches(|c: char| c.is_ascii_alphabetic());
    number.trim().parse::<f64>().is_ok_and(|number| number == 0.0)
}

/// A text as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct SentSql<'a> {
    pub(crate) sql: Cow<'a, str>,
    /// For each replaced value: where it ends in `sql`, in characters, and by how much it grew.
    grown: Vec<(usize, isize)>,
}

impl<'a> SentSql<'a> {
    /// Replaces the values of a text, which begins at the byte `start` of its file, by those of
    /// `values`; `None` is the server's default.
    pub(crate) fn new(
        text: &'a str,
        start: usize,
        switched_off: &[SwitchedOff],
        values: impl Fn(Timeout) -> Option<String>,
    ) -> Self {
        let bytes = start..start + text.len();
        let inside = switched_off.iter().filter(|it| bytes.contains(&it.value.start));
        let (mut sql, mut sent, mut grown) = (String::new(), 0, Vec::new());
        for it in inside {
            let value = it.value.start - start..it.value.end - start;
            let replacement = match (values(it.timeout), it.is_argument) {
                (Some(own), _) => format!("'{own}'"),
                (None, false) => "DEFAULT".to_owned(),
                (None, true) => "NULL".to_owned(),
            };
            sql.push_str(&text[sent..value.start]);
            sql.push_str(&replacement);
            sent = value.end;
            grown.push((
                sql.chars().count(),
                replacement.len().cast_signed() - value.len().cast_signed(),
            ));
        }
        if grown.is_empty() {
            return Self { sql: Cow::Borrowed(text), grown };
        }
        sql.push_str(&text[sent..]);
        Self { sql: Cow::Owned(sql), grown }
    }

    /// Returns the position in the original text of a position in the sent one; both count characters
    /// from 1.
    pub(crate) fn original_position(&self, position: usize) -> usize {
        let before = self.grown.iter().take_while(|(end, _)| *end < position);
        before.fold(position, |position, (_, grown)| position.saturating_add_signed(-grown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(sql: &str, find: impl Fn(Keywords<'_>) -> T) -> T {
        find(Keywords::new(sql, &Lexer::statement(sql)))
    }

    fn sent(sql: &str) -> SentSql<'_> {
        let own = |timeout| (timeout != Timeout::Transaction).then(|| "2000".to_owned());
        let mut lexed = Vec::new();
        let tokens = Lexer::statement(sql);
        for statement in tokens.split(|token| token.kind == TokenKind::Semicolon) {
            lexed.extend(switched_off(Keywords::new(sql, statement)));
        }
        SentSql::new(sql, 0, &lexed, own)
    }

    #[test]
    fn values_without_a_limit_are_replaced_in_each_spelling() {
        for (file, expected) in [
            ("SET lock_timeout = 0", "SET lock_timeout = '2000'"),
            ("SET lock_timeout = -0.0", "SET lock_timeout = '2000'"),
            ("set local Lock_Timeout to '0s'", "set local Lock_Timeout to '2000'"),
            (
                "SET SESSION \"statement_timeout\"=DEFAULT",
                "SET SESSION \"statement_timeout\"='2000'",
            ),
            (
                "SET /* x */ transaction_timeout = '0 min'",
                "SET /* x */ transaction_timeout = DEFAULT",
            ),
            (
                "SELECT pg_catalog.set_config('transaction_timeout', '0', false), set_config('LOCK_TIMEOUT', '0', true)",
                "SELECT pg_catalog.set_config('transaction_timeout', NULL, false), set_config('LOCK_TIMEOUT', '2000', true)",
            ),
        ] {
            assert_eq!(sent(file).sql, expected);
        }
        for kept in [
            "SET lock_timeout = '5s'",
            "SET lock_timeout = 10",
            "SET lock_timeout = 0.5",
            "SET lock_timeout =",
            "SET lock_timeout",
            "SET lock_timeout_x = 0",
            "SET my.lock_timeout = 0",
            "SET SESSION AUTHORIZATION DEFAULT",
            "UPDATE t SET lock_timeout = 0",
            "SELECT set_config('lock_timeout', '1min', false)",
            "SELECT 'set_config', 'lock_timeout', '0', 1",
            "CREATE FUNCTION f() RETURNS text BEGIN ATOMIC SELECT set_config('lock_timeout', '0', true); END",
            "DO 'BEGIN SET lock_timeout = 0; END'",
        ] {
            assert_eq!(sent(kept).sql, kept);
        }
    }

    #[test]
    fn a_position_behind_replaced_values_is_that_of_the_file() {
        let file = "SET lock_timeout = 0; SET transaction_timeout TO '0ms'; SELECT 'é', x; SET statement_timeout = 0; y";
        let sent = sent(file);
        let place = |text: &str, part: &str| text[..text.find(part).unwrap()].chars().count() + 1;
        for part in ["SET lock", "SET trans", "SELECT", "x;", "SET state", "y"] {
            let position = sent.original_position(place(&sent.sql, part));
            assert_eq!(position, place(file, part), "{part}");
        }
    }

    #[test]
    fn code_in_do_is_searched() {
        for (sql, found) in [
            ("DO $$ BEGIN SET LOCAL lock_timeout = 0; END $$", true),
            ("DO $x$ BEGIN IF a THEN SET lock_timeout TO '0'; END IF; END $x$", true),
            ("DO $$ BEGIN PERFORM set_config('lock_timeout', '0', true); END $$", true),
            ("DO $$ BEGIN SET lock_timeout = '5s'; SET lock_timeout TO DEFAULT; END $$", false),
            ("DO $$ BEGIN UPDATE t SET lock_timeout = 0; END $$", false),
        ] {
            assert_eq!(!read(sql, switched_off_in_do).is_empty(), found, "{sql}");
        }
    }
}
