//! What is hard on one table that is in use, fleet or not.

use super::effect::{Act, AddedColumn, Checked, Value};
use super::finding::Said;
use super::fleet::is_outside;
use super::rule::Rule;
use super::transaction::InTransaction;
use crate::migrations::sql::relations::RelationName;

const APART: &str = "in a file that begins with '-- pricesync: no-transaction'";

/// Judges what a statement does to tables that others may be using.
pub(super) fn judge(now: &InTransaction<'_>, act: &Act) -> Vec<Said> {
    let said = match act {
        Act::AddColumn { table, column } => return added(now, table, column),
        Act::CreateTable {
            table,
            if_not_exists: true,
        } => Some(if_not_exists(&format!("table {table}"))),
        Act::Rewrite { table, by } if now.in_use(table) => Some(rewrite(table, by, false)),
        Act::Index {
            table,
            concurrently: false,
            ..
        } if now.in_use(table) => Some(index(table)),
        Act::Index {
            if_not_exists: true,
            ..
        } => Some(if_not_exists("the index")),
        Act::IndexLocked { command } => Some(index_locked(command)),
        Act::Refresh { view } if now.in_use(view) => Some(refreshed(view)),
        Act::Cascade { kind } => Some(cascaded(kind)),
        // What lies elsewhere may not be written at all.
        Act::Write {
            table,
            command,
            is_all: true,
        } if now.in_use(table) && !is_outside(now, table) => Some(written(table, command)),
        Act::AddConstraint {
            table,
            kind: Checked::NotNull,
            at_once: true,
            ..
        } if now.in_use(table) => Some(set_not_null(table, "the column")),
        Act::AddConstraint {
            table,
            kind,
            at_once: true,
            ..
        } if now.in_use(table) => Some(scan(table, *kind)),
        Act::Validate { table, constraint }
            if now.holds_locks && now.unchecked.contains(constraint) =>
        {
            Some(validated_at_once(table, constraint))
        }
        Act::SetNotNull { table, column } if now.in_use(table) && !now.proven(table, column) => {
            Some(set_not_null(table, column))
        }
        Act::Remove { table, what } if now.in_use(table) => Some(removed(what)),
        Act::Rename { table, what } if now.in_use(table) => Some(renamed(what)),
        Act::Lock { tables } if tables.iter().any(|table| now.in_use(table)) => {
            Some(locked(tables))
        }
        Act::Truncate { tables, cascade } if tables.iter().any(|table| now.in_use(table)) => {
            Some(truncated(tables, *cascade))
        }
        Act::VacuumFull { command } => Some(Said::new(
            Rule::VacuumFull,
            format!("{command} writes the table anew"),
            "nobody may read it meanwhile, and it needs the table's size again on the disk",
            "plain VACUUM gives the room back to the table; pg_repack shrinks it while it is in use",
        )),
        _ => None,
    };
    said.into_iter().collect()
}

fn added(now: &InTransaction<'_>, table: &RelationName, column: &AddedColumn) -> Vec<Said> {
    let mut said = Vec::new();
    let name = &column.name;
    if column.if_not_exists {
        said.push(if_not_exists(&format!("column {name}")));
    }
    if !now.in_use(table) {
        return said;
    }
    match &column.value {
        Value::Each(by) => said.push(rewrite(table, by, false)),
        Value::Perhaps(by) => said.push(rewrite(table, by, true)),
        Value::Nothing if column.not_null => said.push(Said::new(
            Rule::NotNullColumn,
            format!("column {name} may not be NULL and has no default"),
            "passes in tenants whose table is empty and fails in the others",
            format!("add {name} without NOT NULL, fill it, then make it NOT NULL (pricesync lint says how)"),
        )),
        Value::Nothing | Value::Constant => {}
    }
    if let Some(kind) = column.checked {
        said.push(scan(table, kind));
    }
    said
}

fn rewrite(table: &RelationName, by: &str, perhaps: bool) -> Said {
    let (verb, unless) = if perhaps {
        (
            "may write",
            " (not if the function is declared STABLE or IMMUTABLE)",
        )
    } else {
        ("writes", "")
    };
    Said::new(
        Rule::RewritesTable,
        format!("{by} {verb} every row of {table} anew{unless}"),
        "nobody may read or write the table meanwhile",
        "add the column plain, set its default in a second statement, and fill existing rows in pieces",
    )
}

fn index(table: &RelationName) -> Said {
    Said::new(
        Rule::IndexWithoutConcurrently,
        format!("the index on {table} is built under a lock against writes"),
        "INSERT, UPDATE and DELETE on the table wait until COMMIT",
        format!("CREATE INDEX CONCURRENTLY, {APART}"),
    )
}

fn index_locked(command: &str) -> Said {
    Said::new(
        Rule::IndexWithoutConcurrently,
        format!("{command} locks out who uses the index's table"),
        "readers and writers wait until COMMIT",
        format!("{command} CONCURRENTLY, {APART}"),
    )
}

fn refreshed(view: &RelationName) -> Said {
    Said::new(
        Rule::RewritesTable,
        format!("{view} is computed anew, and nobody may read it meanwhile"),
        "its readers wait until COMMIT",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY, which needs a unique index on it",
    )
}

fn cascaded(kind: &str) -> Said {
    Said::new(
        Rule::BreaksRunningCode,
        format!("with a {kind} goes whatever depends on it"),
        "CASCADE takes columns, views and functions along without naming them, and not the same ones in every tenant",
        "leave CASCADE away, and drop first what the server then names",
    )
}

fn written(table: &RelationName, command: &str) -> Said {
    Said::new(
        Rule::RewritesTable,
        format!("{command} without WHERE writes every row of {table}"),
        "each of its rows is locked until COMMIT, and the table grows by as many dead ones",
        "write them in parts by exec --write, or where they are read",
    )
}

fn scan(table: &RelationName, kind: Checked) -> Said {
    let words = kind.words();
    let (message, safer) = if kind == Checked::Exclude {
        (
            format!("{words} on {table} builds its index under a lock"),
            "there is no gentler form; do it while the table is small or the tenants sleep"
                .to_owned(),
        )
    } else if kind.builds_index() {
        (
            format!("{words} on {table} builds its index under a lock"),
            format!(
                "CREATE UNIQUE INDEX CONCURRENTLY {APART}, then ADD CONSTRAINT ... {words} USING INDEX"
            ),
        )
    } else {
        (
            format!("{words} on {table} is checked against every row under a lock"),
            format!("ADD CONSTRAINT ... {words} ... NOT VALID, then VALIDATE CONSTRAINT {APART}"),
        )
    };
    let cost = match kind {
        Checked::Key => "writes to both tables wait until COMMIT",
        _ => "nobody may read or write the table until COMMIT",
    };
    Said::new(Rule::ConstraintScan, message, cost, safer)
}

fn validated_at_once(table: &RelationName, constraint: &str) -> Said {
    Said::new(
        Rule::ConstraintScan,
        format!("{constraint} is validated in the transaction that adds it"),
        format!(
            "the lock on {table} that adding took is kept while every row is read, as without NOT VALID"
        ),
        format!("VALIDATE CONSTRAINT {APART}"),
    )
}

fn set_not_null(table: &RelationName, column: &str) -> Said {
    Said::new(
        Rule::SetNotNull,
        format!("SET NOT NULL reads every row of {table} for {column}"),
        "nobody may read or write the table meanwhile",
        format!(
            "ADD CONSTRAINT ... CHECK ({column} IS NOT NULL) NOT VALID, VALIDATE CONSTRAINT {APART}, then SET NOT NULL, which reads nothing any more"
        ),
    )
}

fn removed(what: &str) -> Said {
    Said::new(
        Rule::BreaksRunningCode,
        format!("{what} is taken away"),
        "programs that use it fail from this tenant's COMMIT on; a table with a foreign key to public locks out readers there too",
        "first release a version that does not use it, drop it in a later one",
    )
}

fn renamed(what: &str) -> Said {
    Said::new(
        Rule::BreaksRunningCode,
        format!("{what} gets another name"),
        "programs know one name, and tenants get the other one by one",
        "add the new one beside it and write both, or rename the table and leave a view under the old name",
    )
}

fn locked(tables: &[RelationName]) -> Said {
    Said::new(
        Rule::LockTable,
        format!("LOCK TABLE {}", listed(tables)),
        "whoever uses the table waits until COMMIT, behind everything else in the transaction",
        "let each statement take the lock that it needs; if it must be, make it the last part of the last file",
    )
}

fn truncated(tables: &[RelationName], cascade: bool) -> Said {
    let (what, which) = if cascade {
        (
            " CASCADE",
            " and of every table with a key to it, in whichever schema",
        )
    } else {
        ("", "")
    };
    Said::new(
        Rule::Truncate,
        format!(
            "TRUNCATE {}{what} empties it in every tenant",
            listed(tables)
        ),
        format!("the rows of all tenants{which} are gone, and nobody may read it until COMMIT"),
        "DELETE what is meant, with a WHERE",
    )
}

fn if_not_exists(what: &str) -> Said {
    Said::new(
        Rule::IfNotExists,
        format!("IF NOT EXISTS takes whatever is there for {what}"),
        "a schema in which it looks different counts as migrated, and the difference shows much later",
        "leave IF NOT EXISTS away: a file runs once in a schema, and a surprise should stop it",
    )
}

fn listed(tables: &[RelationName]) -> String {
    let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
    names.join(", ")
}
