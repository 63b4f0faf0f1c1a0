//! Parses the name of a migration file by refinery's rules.

use std::fmt;

use refinery::Migration;

use crate::domain::script::Prefix;

/// The length of the name column in refinery's history tables, in characters.
pub(crate) const MAX_NAME_CHARS: usize = 255;

/// The parts of a file name `V<version>__<name>.sql`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptName {
    /// `V` or `U`.
    pub prefix: Prefix,
    /// From 0.
    pub version: i64,
    /// Letters, digits, marks and underscores of any script.
    pub name: String,
}

/// Why a file name is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptNameError {
    /// The rule that is broken.
    pub rule: NameRule,
    /// A valid name that is probably meant.
    pub suggestion: Option<String>,
}

/// A rule for file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameRule {
    /// The name begins with an upper-case `V` or `U`.
    Prefix,
    /// A whole number follows.
    Version,
    /// The number fits into 64 bits.
    VersionRange,
    /// Two underscores follow.
    Separator,
    /// A name of letters, digits and underscores follows. Holds the first other character, if any.
    Name(Option<char>),
    /// The name fits into the history table.
    Length,
    /// It ends in `.sql`, in lower case.
    Extension,
}

impl ScriptName {
    /// Parses a file name.
    pub fn parse(file_name: &str) -> Result<Self, ScriptNameError> {
        Self::parts(file_name)
            .map_err(|rule| ScriptNameError { rule, suggestion: suggest(file_name) })
    }

    fn parts(file_name: &str) -> Result<Self, NameRule> {
        let stem = file_name.strip_suffix(".sql").ok_or(NameRule::Extension)?;
        let (prefix, rest) = if let Some(rest) = stem.strip_prefix('V') {
            (Prefix::Versioned, rest)
        } else if let Some(rest) = stem.strip_prefix('U') {
            (Prefix::Unversioned, rest)
        } else {
            return Err(NameRule::Prefix);
        };
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (digits, rest) = rest.split_at(digits);
        if digits.is_empty() || rest.starts_with('.') {
            return Err(NameRule::Version);
        }
        let version = digits.parse().map_err(|_| NameRule::VersionRange)?;
        let name = rest.strip_prefix("__").ok_or(NameRule::Separator)?;
        if let Some(invalid) = name.chars().find(|&c| !is_word_character(c)) {
            return Err(NameRule::Name(Some(invalid)));
        }
        if name.is_empty() {
            return Err(NameRule::Name(None));
        }
        if name.chars().count() > MAX_NAME_CHARS {
            return Err(NameRule::Length);
        }
        Ok(Self { prefix, version, name: name.to_owned() })
    }
}

/// Returns whether refinery accepts a character in a name (`\w` of its pattern).
pub(crate) fn is_word_character(c: char) -> bool {
    c.is_alphanumeric() && c.is_ascii()
        || c == '_'
        // Asks refinery about the rest, so that both always agree.
        || !c.is_ascii() && Migration::unapplied(&format!("V1__{c}"), "").is_ok()
}

/// Returns the name with common mistakes corrected, if that makes it valid.
fn suggest(file_name: &str) -> Option<String> {
    let lower = file_name.to_ascii_lowercase();
    let stem = &file_name[..lower.strip_suffix(".sql")?.len()];
    let stem = stem.strip_suffix(".up").unwrap_or(stem);
    let stem = stem.trim_start_matches(['|', ' ']);
    let prefix = match stem.chars().next()? {
        'U' | 'u' => 'U',
        _ => 'V',
    };
    let rest = stem.trim_start_matches(['V', 'v', 'U', 'u']);
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (digits, name) = rest.split_at(digits);
    let name: String = name
        .trim_start_matches(['_', '-', ' '])
        .chars()
        .map(|c| if is_word_character(c) { c } else { '_' })
        .collect();
    let corrected = format!("{prefix}{digits}__{name}.sql");
    let is_valid = !name.starts_with('_') && ScriptName::parts(&corrected).is_ok();
    (is_valid && corrected != file_name).then_some(corrected)
}

impl fmt::Display for ScriptNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid file name: ")?;
        match self.rule {
            NameRule::Prefix => f.write_str("must begin with an upper-case V or U"),
            NameRule::Version => f.write_str("a whole number must follow the first letter"),
            NameRule::VersionRange => {
                write!(f, "the version is greater than {}", i64::MAX)
            }
            NameRule::Separator => f.write_str("two underscores must follow the version"),
            NameRule::Name(Some(invalid)) => {
                write!(f, "'{}' is not a letter, digit or underscore", invalid.escape_debug())
            }
            NameRule::Name(None) => f.write_str("a name must follow the two underscores"),
            NameRule::Length => {
                write!(f, "the name has more than {MAX_NAME_CHARS} characters")
            }
            NameRule::Extension => f.write_str("must end in .sql, in lower case"),
        }
    }
}

impl std::error::Error for ScriptNameError {}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn valid_names_are_parsed() {
        for (file_name, prefix, version, name) in [
            ("V1__products.sql", Prefix::Versioned, 1, "products"),
            ("U0007___x.sql", Prefix::Unversioned, 7, "_x"),
            ("V20261123101500__x.sql", Prefix::Versioned, 20_261_123_101_500, "x"),
            ("V9223372036854775807__x.sql", Prefix::Versioned, i64::MAX, "x"),
            ("V2__thêm_giá.sql", Prefix::Versioned, 2, "thêm_giá"),
            ("V3__gia\u{301}.sql", Prefix::Versioned, 3, "gia\u{301}"),
        ] {
            let expected = ScriptName { prefix, version, name: name.to_owned() };
            assert_eq!(ScriptName::parse(file_name), Ok(expected), "{file_name}");
        }
    }

    #[test]
    fn errors_name_the_rule_and_a_correction() {
        for (file_name, rule, suggestion) in [
            ("V1.5__x.sql", NameRule::Version, None),
            ("v3__lower.sql", NameRule::Prefix, Some("V3__lower.sql")),
            ("u3__lower.sql", NameRule::Prefix, Some("U3__lower.sql")),
            ("V4_single.sql", NameRule::Separator, Some("V4__single.sql")),
            ("V2__add-brand.sql", NameRule::Name(Some('-')), Some("V2__add_brand.sql")),
            ("V6__a b.sql", NameRule::Name(Some(' ')), Some("V6__a_b.sql")),
            ("V5__x.SQL", NameRule::Extension, Some("V5__x.sql")),
            ("|1__x.sql", NameRule::Prefix, Some("V1__x.sql")),
            ("V7__x.up.sql", NameRule::Name(Some('.')), Some("V7__x.sql")),
            ("0007_orders.sql", NameRule::Prefix, Some("V0007__orders.sql")),
            ("V1__.sql", NameRule::Name(None), None),
            ("V__x.sql", NameRule::Version, None),
            ("V9223372036854775808__x.sql", NameRule::VersionRange, None),
            ("V１__x.sql", NameRule::Version, None),
            ("notes.sql", NameRule::Prefix, None),
            (".sql", NameRule::Prefix, None),
            ("", NameRule::Extension, None),
        ] {
            let expected = ScriptNameError { rule, suggestion: suggestion.map(str::to_owned) };
            assert_eq!(ScriptName::parse(file_name), Err(expected), "{file_name}");
        }
        let long = format!("V1__{}.sql", "ế".repeat(256));
        assert_eq!(ScriptName::parse(&long).unwrap_err().rule, NameRule::Length);
    }

    fn refinery_reads_all_of(file_name: &str) -> bool {
        let Some(stem) = file_name.strip_suffix(".sql") else {
            return false;
        };
        // refinery panics at a leading `|`.
        let Ok(Ok(read)) = catch_unwind(|| Migration::unapplied(stem, "")) else {
            return false;
        };
        let digits: String = stem[1..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse() == Ok(read.version())
            && format!("{}{digits}__{}", read.prefix(), read.name()) == stem
            && read.name().chars().count() <= MAX_NAME_CHARS
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn names_are_valid_exactly_if_refinery_reads_all_of_them(
            file_name in r"[VUvu]?[0-9１٣.]{0,20}_{0,3}(\w|[-. ²\u{301}\u{200d}]|\PC){0,6}(\.sql|\.SQL|\.up\.sql|)"
        ) {
            let ours = ScriptName::parse(&file_name);
            prop_assert_eq!(ours.is_ok(), refinery_reads_all_of(&file_name), "{}", file_name);
            if let Ok(ours) = ours {
                let theirs = Migration::unapplied(file_name.strip_suffix(".sql").unwrap(), "").unwrap();
                prop_assert_eq!((ours.version, ours.name.as_str()), (theirs.version(), theirs.name()));
                prop_assert_eq!(ours.prefix.to_string(), theirs.prefix().to_string());
            } else if let Some(suggestion) = ours.unwrap_err().suggestion {
                prop_assert!(ScriptName::parse(&suggestion).is_ok());
            }
        }

        #[test]
        fn parsing_never_panics(file_name in any::<String>()) {
            let _ = ScriptName::parse(&file_name);
            let _ = ScriptName::parse(&format!("V1__{file_name}.sql"));
        }
    }
}
