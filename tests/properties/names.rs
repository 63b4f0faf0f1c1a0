//! Slugs, schema names and hosts.

use pricesync::domain::schema_name::SchemaName;
use pricesync::domain::tenant::{Hostname, Slug};
use proptest::prelude::*;

use crate::holds;

const CASES: [u32; 2] = [4_000, 1_000_000];

/// A reason is one line that cannot act on a terminal.
fn is_a_reason(reason: &str) -> bool {
    !reason.is_empty() && !reason.chars().any(char::is_control)
}

/// Reads an identifier as PostgreSQL does (manual section 4.1.1), or `None` where it ends early.
fn unquoted(sql: &str) -> Option<String> {
    let inner = sql.strip_prefix('"')?.strip_suffix('"')?;
    let pairs = inner.replace("\"\"", "\0");
    (!pairs.contains('"')).then(|| pairs.replace('\0', "\""))
}

#[test]
fn a_slug_is_kept_as_it_is_or_refused_with_a_reason() {
    let texts = prop_oneof![
        4 => "[a-z0-9][a-z0-9_-]{0,64}",
        1 => "[-_A-Za-z0-9 .'\"\\u{300}é]{0,8}",
        1 => "(?s).{0,66}",
    ];
    let prefixes = prop_oneof![4 => Just("tenant_"), 1 => Just(""), 1 => Just("pg_"), 1 => Just("Công \"ty\" ")];
    holds("slugs", CASES, &(texts, prefixes), |(text, prefix)| {
        let slug = match Slug::parse(&text) {
            Ok(slug) => slug,
            Err(refused) => {
                prop_assert!(is_a_reason(&refused.to_string()), "{refused:?}");
                return Ok(());
            }
        };
        prop_assert_eq!(slug.as_str(), &*text);
        prop_assert!(text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_alphanumeric()));
        prop_assert!(text.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-')));
        match slug.schema(prefix) {
            Ok(schema) => {
                prop_assert_eq!(schema.as_str(), format!("{prefix}{text}"));
                prop_assert_eq!(SchemaName::parse(schema.as_str()), Ok(schema));
            }
            Err(refused) => prop_assert!(is_a_reason(&refused.to_string()), "{refused:?}"),
        }
        Ok(())
    });
}

#[test]
fn a_schema_name_survives_sql_or_is_refused() {
    let texts = prop_oneof![
        3 => "[a-zA-Z0-9_$\"'; ế-]{1,64}",
        1 => "([Pp][Gg]_|[Pp]ublic|information_schema|pricesync(_trash_|_dropping_)?|PRICESYNC)[a-z0-9]{0,3}",
        2 => "(?s).{0,64}",
    ];
    holds("schema names", CASES, &texts, |text| {
        let name = match SchemaName::parse(&text) {
            Ok(name) => name,
            Err(refused) => {
                prop_assert!(is_a_reason(&refused.to_string()), "{refused:?}");
                return Ok(());
            }
        };
        prop_assert_eq!(name.as_str(), &*text);
        prop_assert!((1..=63).contains(&text.len()));
        prop_assert!(!text.chars().any(char::is_control));
        prop_assert_eq!(unquoted(&name.quoted().to_string()), Some(text.clone()));
        let folded = text.to_ascii_lowercase();
        for begins in ["pg_", "pricesync_trash_", "pricesync_dropping_"] {
            prop_assert!(!folded.starts_with(begins));
        }
        prop_assert!(!["public", "information_schema", "pricesync"].contains(&&*folded));
        Ok(())
    });
}

#[test]
fn a_host_has_one_normal_form_or_is_refused_with_a_reason() {
    let texts = prop_oneof![
        4 => "[a-zA-Z0-9_-]{1,8}(\\.[a-zA-Z0-9ßẞİΣĐế\\u{301}-]{1,8}){0,4}\\.?(:[+-]?[0-9]{0,6})?",
        1 => "([a-zİ]{1,64}\\.){1,5}[a-z]{1,64}",
        2 => "(?s).{0,12}",
        1 => "(?s).{250,260}",
    ];
    holds("hosts", CASES, &texts, |text| {
        let host = match Hostname::parse(&text) {
            Ok(host) => host,
            Err(refused) => {
                prop_assert!(is_a_reason(&refused.to_string()), "{refused:?}");
                return Ok(());
            }
        };
        let normal = host.as_str();
        prop_assert_eq!(Hostname::parse(normal), Ok(host.clone()));
        prop_assert!(normal.chars().count() <= 253);
        prop_assert!(normal.split('.').all(|label| (1..=63).contains(&label.len())));
        prop_assert!(!normal.contains([':', '/', '"', '\'', ' ', '\0']));
        prop_assert!(normal.is_ascii() && normal == normal.to_lowercase());
        // Who types what it stands for means the same.
        if let Some(unicode) = host.unicode() {
            prop_assert_eq!(Hostname::parse(&unicode), Ok(host.clone()));
        }
        if text.is_ascii() {
            // All that is taken off is a port and a final dot.
            let lower = text.to_lowercase();
            let rest = lower.strip_prefix(normal);
            prop_assert!(rest.is_some(), "{normal} of {lower}");
            let rest = rest.unwrap_or_default();
            let rest = rest.strip_prefix('.').unwrap_or(rest);
            prop_assert!(
                rest.is_empty()
                    || rest
                        .strip_prefix(':')
                        .is_some_and(|port| port.bytes().all(|digit| digit.is_ascii_digit())),
                "{rest} of {lower}"
            );
        }
        Ok(())
    });
}
