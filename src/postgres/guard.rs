//! Did the transaction stay in its schema? Answered from its own locks, before COMMIT.
//!
//! Every write and every change of structure takes a lock that says so, and the locks are
//! held until the transaction ends. Whatever they name outside the schema, a migration of
//! this tenant has touched, however it was hidden.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Error, SimpleQueryRow};

use super::pool::Session;
use crate::domain::schema_name::SchemaName;

/// Returns the statement that lists what the transaction has touched outside the schema.
///
/// Two lock modes are innocent: reading, and `FOR KEY SHARE`, which a foreign key needs on
/// rows that it points to. Creating such a key takes SHARE ROW EXCLUSIVE on the table in
/// `public`; so does creating a trigger there, which is told apart by the catalog rows that
/// this transaction wrote.
///
/// Some escapes leave no lock that tells. Functions and types are created without one on the
/// schema, so what came to depend on `public` is looked up; functions are replaced without
/// one, so their rows are looked through where this transaction wrote any. And a table that
/// was moved into the schema looks like the tenant's own, but for columns that are older
/// than its place.
pub(super) fn question(schema: &SchemaName) -> String {
    let name = escape_literal(schema.as_str());
    format!(
        "WITH own AS (SELECT oid FROM pg_namespace WHERE nspname = {name}), \
         me AS (SELECT pg_current_xact_id()::xid AS xid) \
         SELECT l.relation, n.nspname, c.relname, l.mode FROM pg_locks l \
         LEFT JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() \
         AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') \
         AND (c.oid IS NULL OR (n.oid NOT IN (SELECT oid FROM own) \
         AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_')) \
         AND NOT (l.mode = 'ShareRowExclusiveLock' AND n.nspname = 'public' \
         AND NOT EXISTS (SELECT FROM pg_trigger t, me WHERE t.tgrelid = l.relation AND NOT t.tgisinternal AND age(t.xmin) <= age(me.xid)) \
         AND NOT EXISTS (SELECT FROM pg_constraint k, me WHERE k.conrelid = l.relation AND age(k.xmin) <= age(me.xid))) \
         UNION ALL \
         SELECT NULL, n.nspname, NULL, 'created there' FROM pg_locks l \
         JOIN pg_namespace n ON n.oid = l.objid \
         WHERE l.locktype = 'object' AND l.pid = pg_backend_pid() AND l.classid = 'pg_namespace'::regclass \
         AND n.oid NOT IN (SELECT oid FROM own) AND n.nspname !~ '^pg_(toast_)?temp_' AND n.nspname <> 'pg_toast' \
         UNION ALL \
         SELECT l.objid, n.nspname, coalesce(p.proname, t.typname), CASE l.classid WHEN 'pg_proc'::regclass THEN 'function' ELSE 'type' END FROM pg_locks l \
         LEFT JOIN pg_proc p ON l.classid = 'pg_proc'::regclass AND p.oid = l.objid \
         LEFT JOIN pg_type t ON l.classid = 'pg_type'::regclass AND t.oid = l.objid \
         LEFT JOIN pg_namespace n ON n.oid = coalesce(p.pronamespace, t.typnamespace) \
         WHERE l.locktype = 'object' AND l.pid = pg_backend_pid() AND l.mode IN ('ExclusiveLock', 'AccessExclusiveLock') \
         AND l.classid IN ('pg_proc'::regclass, 'pg_type'::regclass) \
         AND (n.oid IS NULL OR (n.oid NOT IN (SELECT oid FROM own) AND n.nspname !~ '^pg_(toast_)?temp_' AND n.nspname <> 'pg_toast')) \
         UNION ALL \
         SELECT NULL, n.nspname, pg_describe_object(d.classid, d.objid, 0), 'created there' \
         FROM pg_namespace n JOIN pg_depend d ON d.refobjid = n.oid, me \
         WHERE d.refclassid = 'pg_namespace'::regclass AND n.nspname = 'public' \
         AND d.classid <> 'pg_class'::regclass AND age(d.xmin) <= age(me.xid) \
         UNION ALL \
         SELECT NULL, n.nspname, t.typname, 'changed' \
         FROM pg_namespace n JOIN pg_depend d ON d.refobjid = n.oid JOIN pg_type t ON t.oid = d.objid, me \
         WHERE d.refclassid = 'pg_namespace'::regclass AND n.nspname = 'public' \
         AND d.classid = 'pg_type'::regclass AND age(t.xmin) <= age(me.xid) \
         UNION ALL \
         SELECT NULL, n.nspname, p.proname, 'function' FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, me \
         WHERE (SELECT pg_stat_get_xact_tuples_inserted(c) + pg_stat_get_xact_tuples_updated(c) FROM CAST('pg_proc'::regclass AS oid) c) > 0 \
         AND age(p.xmin) <= age(me.xid) AND n.oid NOT IN (SELECT oid FROM own) AND n.nspname !~ '^pg_(toast_)?temp_' \
         UNION ALL \
         SELECT NULL, n.nspname, c.relname, 'moved there' FROM own JOIN pg_namespace n ON n.oid = own.oid, pg_locks l, pg_class c, me \
         WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.mode = 'AccessExclusiveLock' \
         AND c.oid = l.relation AND c.relnamespace = own.oid \
         AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0 \
         AND d.refclassid = 'pg_namespace'::regclass AND age(d.xmin) <= age(me.xid)) \
         AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND age(a.xmin) > age(me.xid))"
    )
}

/// What [`question`] brought: things named at once, and those that are gone.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// In words, each.
    pub(super) outside: Vec<String>,
    /// What has no catalog row any more: created and dropped again, or dropped from outside.
    pub(super) gone: Vec<Gone>,
}

/// Something that this transaction dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    /// The catalog in which it stood.
    catalog: &'static str,
    oid: u32,
}

/// Reads the answer to [`question`].
pub(super) fn read(rows: &[SimpleQueryRow]) -> Touched {
    let mut touched = Touched::default();
    for row in rows {
        let cell = |column: usize| row.get(column);
        match (cell(1), cell(2), cell(3)) {
            (Some(schema), Some(object), Some(how)) => {
                touched
                    .outside
                    .push(format!("{schema}.{object} ({})", words(how)));
            }
            (Some(schema), None, Some(how)) => {
                touched.outside.push(format!("schema {schema} ({how})"));
            }
            (None, _, how) => {
                let catalog = match how {
                    Some("function") => "pg_proc",
                    Some("type") => "pg_type",
                    _ => "pg_class",
                };
                let oid = cell(0).and_then(|oid| oid.parse().ok());
                touched.gone.extend(oid.map(|oid| Gone { catalog, oid }));
            }
            _ => {}
        }
    }
    touched.outside.sort();
    touched.outside.dedup();
    touched
}

/// Names those of the vanished things that other sessions still see outside the schema:
/// they were there before, so this transaction drops them.
pub(super) async fn dropped_outside(
    other: &Session,
    schema: &SchemaName,
    gone: &[Gone],
) -> Result<Vec<String>, Error> {
    let of = |catalog: &str, name: &str, namespace: &str| {
        let oids: Vec<String> = gone
            .iter()
            .filter(|gone| gone.catalog == catalog)
            .map(|gone| gone.oid.to_string())
            .collect();
        format!(
            "SELECT n.nspname, o.{name} FROM {catalog} o JOIN pg_namespace n ON n.oid = o.{namespace} \
             WHERE o.oid = ANY (ARRAY[{}]::oid[]) AND n.nspname <> {} AND n.nspname <> 'pg_toast'",
            oids.join(","),
            escape_literal(schema.as_str())
        )
    };
    let sql = [
        of("pg_class", "relname", "relnamespace"),
        of("pg_proc", "proname", "pronamespace"),
        of("pg_type", "typname", "typnamespace"),
    ]
    .join(" UNION ");
    let rows = other.read(&sql).await?;
    let name = |row: &SimpleQueryRow| {
        let cell = |column: usize| row.get(column).unwrap_or_default();
        format!("{}.{} (dropped)", cell(0), cell(1))
    };
    Ok(rows.iter().map(name).collect())
}

/// What a lock mode means for whoever reads the message.
fn words(mode: &str) -> &str {
    match mode {
        "RowExclusiveLock" => "rows changed",
        "ShareLock" => "index created",
        "ShareUpdateExclusiveLock" | "ShareRowExclusiveLock" | "AccessExclusiveLock" => {
            "structure changed"
        }
        "ExclusiveLock" => "locked",
        "function" | "type" => "changed",
        other => other,
    }
}
