//! Finds rows whose foreign keys reference a tenant's row or hosts: they block its deletion, or
//! cascade with it.
//!
//! A drop of several transactions deletes the row in the last one, so whether that will succeed must
//! be known before the first.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use crate::domain::schema_name::{DROPPING_PREFIX, SchemaName, TRASH_PREFIX};
use crate::domain::tenant::Tenant;
use crate::postgres::connection::catalog_sql::{Tables, id_literal};
use crate::postgres::connection::session::{Row, Session};

/// How many tables one query searches; it locks them all until its end.
const TABLES_PER_QUERY: usize = 100;

/// The search ends after this many keys.
const LIMIT: usize = 20;

/// A foreign key with rows that reference a tenant's row, or a row that is deleted with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferencingKey {
    /// The qualified name of the referencing table.
    pub table: String,
    /// The key's name.
    pub key: String,
    /// Whether its rows block the deletion; otherwise they are deleted too, or set to NULL or the
    /// default.
    pub blocks: bool,
    /// Whether the table is in a tenant's schema or in the trash.
    pub is_tenants: bool,
}

/// The tables to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SearchScope {
    /// Tables outside tenants' schemas.
    Shared,
    /// All tables but the tenant's own.
    Elsewhere,
    /// All tables.
    Everywhere,
}

/// The result of a search.
#[derive(Debug, Default)]
pub(crate) struct ReferencingKeys {
    /// The keys that have such rows, at most about [`LIMIT`].
    pub(crate) found: Vec<ReferencingKey>,
    /// How many locks the server takes to check all referencing tables when the row is deleted.
    pub(crate) locks: u64,
}

/// Finds foreign keys whose rows reference a tenant's row or hosts, or rows of shared tables that
/// are deleted with them. A `lock_timeout` of zero waits without a limit.
///
/// # Errors
///
/// The driver's error, also if a table was dropped meanwhile or a lock timed out.
pub(crate) async fn find(
    session: &Session,
    tables: &Tables,
    tenant: &Tenant,
    scope: SearchScope,
    lock_timeout: Duration,
) -> Result<ReferencingKeys, Error> {
    let id = id_literal(&tenant.id);
    let mut parents = vec![(tables.tenants.clone(), format!("{} = {id}", tables.id))];
    if let Some(domains) = &tables.domains {
        parents.push((domains.table.clone(), format!("{} = {id}", domains.tenant)));
    }
    let mut result = ReferencingKeys::default();
    let mut locks = HashMap::new();
    let mut followed = HashSet::new();
    while let Some((parent, rows)) = parents.pop() {
        let sql = keys(tables, tenant, scope, &parent, &rows);
        let keys = session.read(&sql).await?;
        let keys: Vec<Key> = keys.iter().map(read).collect::<Result<_, _>>()?;
        locks.extend(keys.iter().map(|key| (key.relation.clone(), key.locks)));
        for some in keys.chunks(TABLES_PER_QUERY) {
            let queries: Vec<String> = some.iter().enumerate().map(exists).collect();
            let sql = format!(
                "SET LOCAL lock_timeout TO {}; {}",
                lock_timeout.as_millis(),
                queries.join(" UNION ALL ")
            );
            for row in session.read(&sql).await? {
                let Some(key) = some.get(row.parse::<usize>(0)?) else {
                    continue;
                };
                result.found.push(key.reference.clone());
                // Rows of a tenant block the drop, whatever would be deleted with them.
                if key.cascades && !key.reference.is_tenants && followed.insert(key.oid.clone()) {
                    parents.push((key.reference.table.clone(), key.rows.clone()));
                }
            }
            if result.found.len() >= LIMIT {
                break;
            }
        }
    }
    result.locks = locks.values().sum();
    Ok(result)
}

struct Key {
    oid: String,
    reference: ReferencingKey,
    /// Whether its rows are deleted with the referenced row.
    cascades: bool,
    /// The condition for the referencing rows of its table.
    rows: String,
    relation: String,
    locks: u64,
}

/// Returns the query for the foreign keys to some rows of a table. Leaves out tables that the role
/// may not read.
fn keys(tables: &Tables, tenant: &Tenant, scope: SearchScope, parent: &str, rows: &str) -> String {
    let is_tenants = format!(
        "(n.nspname <> 'public' AND n.nspname::text IN (SELECT t.schema_name FROM {} t) \
         OR starts_with(n.nspname::text, '{TRASH_PREFIX}') OR starts_with(n.nspname::text, '{DROPPING_PREFIX}'))",
        tables.rows
    );
    let in_scope = match scope {
        SearchScope::Shared => format!("AND NOT {is_tenants}"),
        SearchScope::Elsewhere => format!(
            "AND n.nspname NOT IN ({}, {})",
            escape_literal(tenant.schema.as_str()),
            escape_literal(SchemaName::dropping(tenant.id.as_str()).as_str())
        ),
        SearchScope::Everywhere => String::new(),
    };
    // Hosts are deleted with the row in any case.
    let hosts = match &tables.domains {
        Some(domains) if parent == tables.tenants => {
            format!("AND k.conrelid <> {}::regclass", escape_literal(&domains.table))
        }
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
         AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') {hosts} {in_scope}",
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
        reference: ReferencingKey {
            table: row.text(1)?.to_owned(),
            key: row.text(2)?.to_owned(),
            blocks: matches!(action, "a" | "r"),
            is_tenants: row.is_true(4),
        },
        cascades: action == "c",
        rows: row.text(5)?.to_owned(),
        relation: row.text(6)?.to_owned(),
        locks: row.parse(7)?,
    })
}

fn exists((place, key): (usize, &Key)) -> String {
    format!("SELECT {place} WHERE EXISTS (SELECT FROM {} WHERE {})", key.reference.table, key.rows)
}
