//! Any bytes as a migration file, and as a condition.

use std::path::Path;

use pricesync::domain::script::Scope;
use pricesync::migrations::{Script, WhereClause, wrap_in_do};

/// Panics where reading does, where statements do not lie in the file one behind the other, or
/// where an error or a sealed text says nothing.
pub fn sql_text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = WhereClause::parse(&text);
    let sealed = wrap_in_do(&text);
    let behind: String = sealed.sql.chars().skip(sealed.text_offset).collect();
    assert!(behind.starts_with(&*text));
    for scope in [Scope::Shared, Scope::Tenant] {
        match Script::read(Path::new("V1__x.sql"), bytes.to_vec(), scope) {
            Ok(script) => {
                let mut end = 0;
                for (number, statement) in script.statements.iter().enumerate() {
                    assert!(statement.range.start >= end && !statement.range.is_empty());
                    end = statement.range.end;
                    assert!(script.text.get(statement.range.clone()).is_some());
                    assert!(script.location_of_statement(number).line >= 1);
                }
            }
            Err(errors) => {
                assert!(!errors.is_empty());
                assert!(errors.iter().all(|error| !error.to_string().is_empty()));
            }
        }
    }
}
