//! What costs something because there are many schemas, or because they share `public`.

use super::effect::{Act, Value};
use super::finding::Said;
use super::rule::{Rule, Severity};
use super::transaction::InTransaction;
use crate::domain::script::Scope;
use crate::migrations::sql::lexer::{Lexer, TokenKind};
use crate::migrations::sql::relations::RelationName;

/// Judges what a statement changes outside of the tenant's schema.
pub(super) fn outside(now: &InTransaction<'_>, act: &Act) -> Vec<Said> {
    if now.scope == Scope::Shared {
        return Vec::new();
    }
    let (tables, command) = match act {
        Act::CreateTable { table, .. } if is_shared_name(now, table) => {
            let said = Said::new(
                Rule::OutsideSchema,
                format!("the shared set has a table '{table}' too, and this one hides it"),
                "the same name means this table in one tenant and public's in one that lacks it",
                "give it a name that public does not have",
            );
            return vec![said.at(Severity::Warning)];
        }
        Act::Write { table, command, .. } => (vec![table], *command),
        Act::Truncate { tables, .. } => (tables.iter().collect(), "TRUNCATE"),
        Act::Lock { tables } => (tables.iter().collect(), "LOCK TABLE"),
        Act::Index { table, .. } => (vec![table], "CREATE INDEX"),
        Act::AddColumn { table, .. }
        | Act::SetType { table, .. }
        | Act::SetNotNull { table, .. }
        | Act::AddConstraint { table, .. }
        | Act::Validate { table, .. }
        | Act::Rewrite { table, .. }
        | Act::Rename { table, .. }
        | Act::Alter { table } => (vec![table], "this statement"),
        Act::Remove { table, .. } => (vec![table], "DROP"),
        _ => return Vec::new(),
    };
    let said = |table: &RelationName| {
        let bare = match &table.schema {
            Some(_) => "",
            None => ", because no file of the tenant set creates a table of that name",
        };
        Said::new(
            Rule::OutsideSchema,
            format!("{command} changes {}{bare}", in_public(table)),
            "it would be done once for every tenant, to what all of them share; the run rolls it back",
            "put it into the shared set",
        )
    };
    tables
        .into_iter()
        .filter(|table| is_outside(now, table))
        .map(said)
        .collect()
}

/// Returns whether a file of a tenant that names this table means one that is not the tenant's.
pub(super) fn is_outside(now: &InTransaction<'_>, table: &RelationName) -> bool {
    now.scope == Scope::Tenant && (is_elsewhere(table) || means_shared(now, table))
}

/// Judges what grows with the fleet.
pub(super) fn judge(now: &InTransaction<'_>, act: &Act) -> Vec<Said> {
    let said = match act {
        Act::Key { to } => key(now, to),
        Act::AddColumn { table, column } if column.value == Value::Constant => {
            add_column_default(now, table, &column.name)
        }
        Act::SetType { table, column } => Some(set_type(now, table, column))
            .filter(|_| now.scope == Scope::Tenant || now.in_use(table)),
        Act::Kept { what, calls } => kept(now, what, calls),
        _ => None,
    };
    said.into_iter().collect()
}

/// Judges what is locked until the same COMMIT.
pub(super) fn locks(now: &mut InTransaction<'_>, act: &Act) -> Option<Said> {
    let name = match act {
        Act::Key { to } if now.scope == Scope::Tenant && leads_out(now, to) => in_public(to),
        Act::AddColumn { table, .. }
        | Act::SetType { table, .. }
        | Act::SetNotNull { table, .. }
        | Act::AddConstraint { table, .. }
        | Act::Rewrite { table, .. }
        | Act::Remove { table, .. }
        | Act::Rename { table, .. }
        | Act::Alter { table }
        | Act::Index {
            table,
            concurrently: false,
            ..
        } if now.in_use(table) => table.to_string(),
        _ => return None,
    };
    if !now.holds_locks || now.locked.contains(&name) {
        return None;
    }
    now.locked.push(name.clone());
    // Said once, where it becomes true.
    if now.locked.len() != 2 {
        return None;
    }
    Some(Said::new(
        Rule::SeveralLocks,
        format!(
            "{} and {name} are locked until the same COMMIT",
            now.locked[0]
        ),
        "a program that uses both in the other order can deadlock with it; the transaction is then run again",
        "one table in each file, and run.atomic = \"migration\", where the parts may stand alone",
    ))
}

fn key(now: &InTransaction<'_>, to: &RelationName) -> Option<Said> {
    if now.scope == Scope::Shared || !leads_out(now, to) {
        return None;
    }
    let (statements, files) = now.work_behind()?;
    let more = if statements == 1 {
        "statement follows"
    } else {
        "statements follow"
    };
    let of = match files {
        0 => String::new(),
        1 => ", another file among them".to_owned(),
        files => format!(", {files} files among them"),
    };
    let to = in_public(to);
    Some(Said::new(
        Rule::FkToShared,
        format!(
            "the foreign key locks {to} against writes until COMMIT, and {statements} {more}{of}"
        ),
        format!(
            "tenants that are migrated side by side queue for {to}, and whoever writes to it waits: \
             40 tenants took 4.1 s at 8 jobs with the key first, 0.64 s with the key last"
        ),
        format!(
            "make it the last statement of the last file: ALTER TABLE ... ADD CONSTRAINT ... FOREIGN KEY (...) REFERENCES {to} NOT VALID; \
             VALIDATE CONSTRAINT in a later file that begins with '-- pricesync: no-transaction'"
        ),
    ))
}

fn add_column_default(now: &InTransaction<'_>, table: &RelationName, column: &str) -> Option<Said> {
    if now.scope == Scope::Shared {
        return None;
    }
    let safer = if now.in_use(table) {
        format!(
            "ADD COLUMN {column} without the default, then ALTER COLUMN {column} SET DEFAULT; rows that are there keep NULL, \
             so fill them with an UPDATE if NULL will not do"
        )
    } else {
        format!("put column {column} into the CREATE TABLE")
    };
    Some(Said::new(
        Rule::AddColumnDefault,
        format!("column {column} is added to {table} together with its default"),
        "some minor releases (seen on 15.20, not on 15.18) look through the whole catalog for it: 0.5 ms with 100 schemas, \
         20 ms with 3,000, in each of them",
        safer,
    ))
}

fn set_type(now: &InTransaction<'_>, table: &RelationName, column: &str) -> Said {
    let catalog = match now.scope {
        Scope::Tenant => {
            "; on some minor releases (seen on 15.20) 2 ms with 100 schemas, 20 ms with 3,000, in each of them, for the catalog alone"
        }
        Scope::Shared => "",
    };
    Said::new(
        Rule::AlterColumnType,
        format!("column {column} of {table} changes its type"),
        format!(
            "writes the table and its indexes anew while nobody may read it, unless the old values fit as they are \
             (a longer varchar, text){catalog}"
        ),
        format!(
            "add a column of the new type, write both, copy in pieces, then let programs read the new one and drop {column}"
        ),
    )
}

/// Since version 17 the server computes what it keeps with `search_path = pg_catalog, pg_temp`.
fn kept(now: &InTransaction<'_>, what: &str, calls: &[String]) -> Option<Said> {
    let half = now.linter.half(now.scope);
    let statements = half.readings[..=now.file]
        .iter()
        .flat_map(|reading| &reading.statements);
    let acts = statements
        .filter_map(|statement| statement.acts.as_ref())
        .flatten();
    let functions: Vec<(&String, &String, bool)> = acts
        .filter_map(|(_, act)| match act {
            Act::Function {
                name,
                body,
                pins_path,
            } => Some((name, body, *pins_path)),
            _ => None,
        })
        .collect();
    let ours = |word: &str| {
        half.tables.contains(word) || functions.iter().any(|(name, ..)| name.as_str() == word)
    };
    let (function, needs) = functions
        .iter()
        .filter(|(name, _, pins_path)| !pins_path && calls.contains(name))
        .find_map(|(name, body, _)| Some((name, bare_name(body, name, ours)?)))?;
    Some(Said::new(
        Rule::SearchPath17,
        format!("{what} calls {function}(), whose body names '{needs}' without a schema"),
        "from PostgreSQL 17 on the server looks such names up in pg_catalog alone while it builds or refreshes: the file works on 16 and fails on 17",
        format!(
            "write the body of {function}() as BEGIN ATOMIC ... END, which binds its names when it is created"
        ),
    ))
}

/// Returns the first word of a function's body that names something of ours without a schema.
fn bare_name(body: &str, own: &str, ours: impl Fn(&str) -> bool) -> Option<String> {
    let inside = body.trim_matches(['\'', '$']);
    let mut qualified = false;
    for token in Lexer::new(inside) {
        let text = &inside[token.start..token.end];
        let word = text.to_ascii_lowercase();
        if token.kind == TokenKind::Word && !qualified && word != own && ours(&word) {
            return Some(word);
        }
        qualified = text == ".";
    }
    None
}

/// A key to a table of another schema: by its name, or by a name that only `public` has.
fn leads_out(now: &InTransaction<'_>, to: &RelationName) -> bool {
    is_elsewhere(to) || means_shared(now, to)
}

fn is_elsewhere(table: &RelationName) -> bool {
    (table.schema.as_deref()).is_some_and(|schema| schema != "pg_temp")
}

fn is_shared_name(now: &InTransaction<'_>, table: &RelationName) -> bool {
    table.schema.is_none() && now.linter.shared.tables.contains(&table.relation)
}

fn means_shared(now: &InTransaction<'_>, table: &RelationName) -> bool {
    is_shared_name(now, table) && !now.linter.tenant.tables.contains(&table.relation)
}

fn in_public(table: &RelationName) -> String {
    match table.schema {
        Some(_) => table.to_string(),
        None => format!("public.{table}"),
    }
}
