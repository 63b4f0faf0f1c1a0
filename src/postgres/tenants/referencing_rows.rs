//! Rows elsewhere that refer to a tenant's row or to its hosts: they keep it, or would go with it.
//!
//! When a row is deleted the server looks into every table that has a key to it. A drop that takes
//! several transactions deletes it in the last one, so it must be known before the first whether
//! that will work.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use crate::domain::schema_name::{DROPPING_PREFIX, SchemaName, TRASH_PREFIX};
use crate::domain::tenant::Tenant;
use crate::postgres::connection::catalog_sql::Tables;
use crate::postgres::connection::session::{Row, Session};

/// How many tables are looked into in one query, which locks them all until its end.
const AT_ONCE: usize = 100;

/// When so many are found it is not looked for more.
const ENOUGH: usize = 20;

/// A key with rows that refer to what goes with a tenant's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The table that has the key, with its schema.
    pub table: String,
    /// The key's name.
    pub key: String,
    /// Whether its rows keep what they refer to from being deleted; else they go too, or lose
    /// what they refer to.
    pub keeps: bool,
    /// Whether the table is another tenant's, or in the trash.
    pub is_tenants: bool,
}

/// Where it is looked for rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SearchScope {
    /// In tables of no tenant.
    Shared,
    /// In all but the tenant's own.
    Elsewhere,
    /// In all.
    Everywhere,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Referrers {
    /// The keys that have such rows, or the first of them.
    pub(crate) found: Vec<Referrer>,
    /// How many locks the server takes at once to look into all tables that have a key.
    pub(crate) locks: u64,
}

/// Looks for rows that refer to a tenant's row or hosts, or to rows of shared tables that go with
/// them. Each lock is waited for so long, zero is for ever.
///
/// # Errors
///
/// The driver's error: a table that was dropped meanwhile, a lock that was not to be had.
pub(crate) async fn find(
    session: &Session,
    tables: &Tables,
    tenant: &Tenant,
    scope: SearchScope,
    lock_timeout: Duration,
) -> Result<Referrers, Error> {
    let id = tenant.id;
    let mut parents = vec![(tables.tenants.clone(), format!("{} = '{id}'", tables.id))];
    if let Some(domains) = &tables.domains {
        parents.push((
            domains.table.clone(),
            format!("{} = '{id}'", domains.tenant),
        ));
    }
    let mut result = Referrers::default();
    let mut locks = HashMap::new();
    let mut followed = HashSet::new();
    while let Some((parent, rows)) = parents.pop() {
        let sql = keys(tables, tenant, scope, &parent, &rows);
        let keys = session.read(&sql).await?;
        let keys: Vec<Key> = keys.iter().map(read).collect::<Result<_, _>>()?;
        locks.extend(keys.iter().map(|key| (key.relation.clone(), key.locks)));
        for some in keys.chunks(AT_ONCE) {
            let questions: Vec<String> = some.iter().enumerate().map(question).collect();
            let sql = format!(
                "SET LOCAL lock_timeout TO {}; {}",
                lock_timeout.as_millis(),
                questions.join(" UNION ALL ")
            );
            for row in session.read(&sql).await? {
                let Some(key) = some.get(row.parse::<usize>(0)?) else {
                    continue;
                };
                result.found.push(key.referrer.clone());
                // Rows of another tenant are no matter of course, whatever would follow them.
                if key.cascades && !key.referrer.is_tenants && followed.insert(key.oid.clone()) {
                    parents.push((key.referrer.table.clone(), key.rows.clone()));
                }
            }
            if result.found.len() >= ENOUGH {
                break;
            }
        }
    }
    result.locks = locks.values().sum();
    Ok(result)
}

struct Key {
    oid: String,
    referrer: Referrer,
    /// Whether its rows are deleted with what they refer to.
    cascades: bool,
    /// Which rows of its table refer to it, as a condition.
    rows: String,
    relation: String,
    locks: u64,
}

/// Returns the query for the keys to some rows of a table. A table that the role may not read
/// cannot be looked into.
fn keys(tables: &Tables, tenant: &Tenant, scope: SearchScope, parent: &str, rows: &str) -> String {
    let is_tenants = format!(
        "(n.nspname <> 'public' AND n.nspname::text IN (SELECT t.schema_name FROM {} t) \
         OR starts_with(n.nspname::text, '{TRASH_PREFIX}') OR starts_with(n.nspname::text, '{DROPPING_PREFIX}'))",
        tables.rows
    );
    let reached = match scope {
        SearchScope::Shared => format!("AND NOT {is_tenants}"),
        SearchScope::Elsewhere => format!(
            "AND n.nspname NOT IN ({}, {})",
            escape_literal(tenant.schema.as_str()),
            escape_literal(SchemaName::dropping(tenant.id).as_str())
        ),
        SearchScope::Everywhere => String::new(),
    };
    // Hosts go with the row in any case.
    let hosts = match &tables.domains {
        Some(domains) if parent == tables.tenants => format!(
            "AND k.conrelid <> {}::regclass",
            escape_literal(&domains.table)
        ),
        _ => String::new(),
    };
    let columns = |numbers: &str, relation: &str| {
        format!(
            "(SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY u.place) FROM unnest(k.{numbers}) WITH ORDINALITY u(number, place) \
             JOIN pg_attribute a ON a.attrelid = k.{relation} AND a.attnum = u.number)"
        )
    };
    format!(
        "SELECT k.oid, format('%I.%I', n.nspname, c.relname), k.conname, k.confdeltype, {is_tenants}, \
         '(' || {own} || ') IN (SELECT ' || {others} || {from} || CASE WHEN k.conrelid = k.confrelid THEN {itself} ELSE '' END, \
         c.oid, 1 + (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid) \
         FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype = 'f' AND k.confrelid = {table}::regclass AND k.conparentid = 0 \
         AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') {hosts} {reached}",
        own = columns("conkey", "conrelid"),
        others = columns("confkey", "confrelid"),
        from = escape_literal(&format!(" FROM {parent} WHERE {rows})")),
        itself = escape_literal(&format!(" AND NOT ({rows})")),
        table = escape_literal(parent),
    )
}

fn read(row: &Row) -> Result<Key, Error> {
    let action = row.text(3)?;
    Ok(Key {
        oid: row.text(0)?.to_owned(),
        referrer: Referrer {
            table: row.text(1)?.to_owned(),
            key: row.text(2)?.to_owned(),
            keeps: matches!(action, "a" | "r"),
            is_tenants: row.is_true(4),
        },
        cascades: action == "c",
        rows: row.text(5)?.to_owned(),
        relation: row.text(6)?.to_owned(),
        locks: row.parse(7)?,
    })
}

fn question((place, key): (usize, &Key)) -> String {
    format!(
        "SELECT {place} WHERE EXISTS (SELECT FROM {} WHERE {})",
        key.referrer.table, key.rows
    )
}
