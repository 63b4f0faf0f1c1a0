//! Where a transaction must end.

use std::collections::BTreeSet;

use super::script::Script;
use crate::migrations::sql::directives::Transaction;
use crate::migrations::sql::split::Statement;

/// Returns how many of the pending scripts the next transaction applies. It ends before a script that
/// runs without one, before those in `first_of_transaction` (versions), and before a script that may use
/// an enum value which an earlier one adds: the value cannot be used before COMMIT (manual, `ALTER TYPE`).
///
/// A script may use a value if its text contains it in quotes. A use that the text does not show, such as
/// a call of a function, fails with SQLSTATE 55P04.
pub fn in_one_transaction(pending: &[&Script], first_of_transaction: &BTreeSet<i64>) -> usize {
    let mut added: Vec<String> = Vec::new();
    for (index, script) in pending.iter().enumerate() {
        let is_next = index > 0 && first_of_transaction.contains(&script.id.version)
            || added.iter().any(|value| script.text.contains(value));
        if is_next || script.transaction == Transaction::Outside {
            return index;
        }
        let values = script.statements.iter().filter_map(Statement::enum_value);
        added.extend(values.map(|value| format!("'{value}'")));
    }
    pending.len()
}

/// Returns whether the enum value that an error of SQLSTATE 55P04 names is added by the script that failed,
/// so that it fails in a transaction of its own too.
pub fn uses_its_own_value(script: &Script, message: &str) -> bool {
    script.statements.iter().any(|statement| {
        // The value may exist then.
        let is_conditional =
            || script.text[statement.range.clone()].to_ascii_lowercase().contains("exists");
        let is_named = |value: &str| message.contains(&value.replace("''", "'"));
        statement.enum_value().is_some_and(is_named) && !is_conditional()
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::domain::script::Scope;

    /// Returns how many of the files share the first transaction.
    fn first(texts: &[&str], first_of_transaction: &[i64]) -> usize {
        let read = |(version, text): (usize, &&str)| {
            let path = PathBuf::from(format!("V{version}__x.sql"));
            Script::read(&path, text.as_bytes().to_vec(), Scope::Tenant).expect("the file is valid")
        };
        let scripts: Vec<Script> = (1..).zip(texts).map(read).collect();
        let scripts: Vec<&Script> = scripts.iter().collect();
        in_one_transaction(&scripts, &first_of_transaction.iter().copied().collect())
    }

    const CREATE: &str = "CREATE TYPE mood AS ENUM ('calm'); CREATE TABLE t (m mood);";
    const ADD: &str = "alter type mood add value if not exists 'wild' after 'calm'";

    #[test]
    fn a_transaction_ends_before_the_use_of_a_value_it_adds() {
        assert_eq!(first(&[CREATE, ADD, "INSERT INTO t VALUES ('wild')"], &[]), 2);
        assert_eq!(first(&[CREATE, ADD, "SELECT 1", "DO $$BEGIN PERFORM 'wild'; END$$"], &[]), 3);
        assert_eq!(first(&[CREATE, ADD, "INSERT INTO t VALUES ('calm')"], &[]), 3);
        assert_eq!(first(&[CREATE, ADD, "DO 'BEGIN PERFORM ''wild''; END'"], &[]), 2);
        assert_eq!(first(&[CREATE, ADD, "CREATE TABLE wild (wild text)"], &[]), 3);
        assert_eq!(first(&["ALTER TYPE public_x ADD ATTRIBUTE a text", "SELECT 'a'"], &[]), 2);
    }

    #[test]
    fn a_transaction_ends_before_a_no_transaction_file() {
        let outside = "-- pricesync: no-transaction\nVACUUM";
        assert_eq!(first(&[CREATE, outside], &[]), 1);
        assert_eq!(first(&[outside, CREATE], &[]), 0);
        assert_eq!(first(&[CREATE, ADD, "SELECT 1"], &[1, 2]), 1);
    }
}
