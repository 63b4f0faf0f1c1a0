//! Did the transaction stay in its schema? Answered from its own locks, before COMMIT.
//!
//! Every write and every change of structure takes a lock that says so, and the locks are
//! held until the transaction ends. Whatever they name outside the schema, a migration of
//! this tenant has touched, however it was hidden.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Error, SimpleQueryRow};

use super::pool::Session;
use crate::domain::schema_name::SchemaName;

/// Returns the expression that tells whether there is anything to look at closely: it is true
/// unless the transaction certainly stayed in the schema with this oid.
///
/// [`question`] takes the server longer than most migrations, so it is asked only where this
/// cheap one is answered: where a lock that tells is held on something outside, where
/// something came to depend on `public`, or where the transaction wrote to a catalog whose
/// rows it changes without a lock. `pg_catalog` and `pg_toast` have the oids 11 and 99 in every database.
///
/// `pricesync.leave` asks the same, and is what is used where our own tables are to be had:
/// the plans of a function are kept from one schema to the next, and making them costs most.
pub(super) fn glance(schema_oid: u32) -> String {
    format!(
        "(EXISTS (SELECT FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation \
         WHERE l.pid = pg_backend_pid() AND (l.locktype = 'relation' AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') \
         AND (c.oid IS NULL OR c.relnamespace NOT IN (11, 99, {schema_oid})) \
         OR l.locktype = 'object' AND (l.classid = 'pg_namespace'::regclass AND l.objid NOT IN (99, {schema_oid}) \
         OR l.classid IN ('pg_proc'::regclass, 'pg_type'::regclass) AND l.mode IN ('ExclusiveLock', 'AccessExclusiveLock')))) \
         OR EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_namespace'::regclass \
         AND d.refobjid = (SELECT oid FROM pg_namespace WHERE nspname = 'public') \
         AND d.classid <> 'pg_class'::regclass AND age(d.xmin) <= age(pg_current_xact_id()::xid)) \
         OR pg_stat_get_xact_tuples_inserted('pg_proc'::regclass) + pg_stat_get_xact_tuples_updated('pg_proc'::regclass) \
         + pg_stat_get_xact_tuples_updated('pg_type'::regclass) + pg_stat_get_xact_tuples_updated('pg_depend'::regclass) > 0 \
         OR current_setting('track_counts') = 'off')"
    )
}

/// Returns the statement that lists what the transaction has touched outside the schema.
///
/// Two lock modes are innocent: reading, and `FOR KEY SHARE`, which a foreign key needs on
/// rows that it points to. Creating such a key takes SHARE ROW EXCLUSIVE on the table in
/// `public`; so does creating a trigger there, which is told apart by the catalog rows that
/// this transaction wrote. Dropping a key takes ACCESS EXCLUSIVE, which leaves no row to
/// look at, so what another session still sees is compared.
///
/// Some escapes leave no lock that tells. Functions and types are created without one on the
/// schema, so what came to depend on `public` is looked up; functions are replaced without
/// one, so their rows are looked through where this transaction wrote any. And a table that
/// was moved into the schema looks like the tenant's own, but for columns that are older
/// than its place.
pub(super) fn question(schema: &SchemaName) -> String {
    let name = escape_literal(schema.as_str());
    let (trigger, constraint, dependency, kind, function, column) = (
        ours("t.xmin"),
        ours("k.xmin"),
        ours("d.xmin"),
        ours("t.xmin"),
        ours("p.xmin"),
        ours("a.xmin"),
    );
    let shared = shared_object("l.relation", &name);
    let (class, attribute, rule, policy, index) = (
        ours("c.xmin"),
        ours("b.xmin"),
        ours("r.xmin"),
        ours("y.xmin"),
        ours("x.xmin"),
    );
    format!(
        "WITH own AS (SELECT oid FROM pg_namespace WHERE nspname = {name}), \
         me AS (SELECT pg_current_xact_id()::xid AS xid, pg_current_xact_id()::text::int8 >> 32 << 32 AS epoch) \
         SELECT l.relation, n.nspname, c.relname, l.mode FROM pg_locks l \
         LEFT JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() \
         AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') \
         AND (c.oid IS NULL OR (n.oid NOT IN (SELECT oid FROM own) \
         AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_')) \
         AND NOT (l.mode IN ('ShareRowExclusiveLock', 'AccessExclusiveLock') AND n.nspname = 'public' \
         AND (l.mode = 'ShareRowExclusiveLock' OR NOT EXISTS (SELECT FROM me WHERE {class})) \
         AND NOT EXISTS (SELECT FROM pg_trigger t, me WHERE t.tgrelid = l.relation AND NOT t.tgisinternal AND {trigger}) \
         AND NOT EXISTS (SELECT FROM pg_constraint k, me WHERE k.conrelid = l.relation AND {constraint}) \
         AND NOT EXISTS (SELECT FROM pg_attribute b, me WHERE b.attrelid = l.relation AND {attribute}) \
         AND NOT EXISTS (SELECT FROM pg_rewrite r, me WHERE r.ev_class = l.relation AND {rule}) \
         AND NOT EXISTS (SELECT FROM pg_policy y, me WHERE y.polrelid = l.relation AND {policy}) \
         AND NOT EXISTS (SELECT FROM pg_index x, me WHERE x.indrelid = l.relation AND {index})) \
         UNION ALL \
         SELECT l.relation, NULL, {shared}, 'compare' FROM pg_locks l \
         JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.mode = 'AccessExclusiveLock' AND n.nspname = 'public' \
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
         AND d.classid <> 'pg_class'::regclass AND {dependency} \
         UNION ALL \
         SELECT NULL, n.nspname, t.typname, 'changed' \
         FROM pg_namespace n JOIN pg_depend d ON d.refobjid = n.oid JOIN pg_type t ON t.oid = d.objid, me \
         WHERE d.refclassid = 'pg_namespace'::regclass AND n.nspname = 'public' \
         AND d.classid = 'pg_type'::regclass AND {kind} \
         UNION ALL \
         SELECT NULL, n.nspname, p.proname, 'function' FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, me \
         WHERE ((SELECT pg_stat_get_xact_tuples_inserted(c) + pg_stat_get_xact_tuples_updated(c) FROM CAST('pg_proc'::regclass AS oid) c) > 0 OR current_setting('track_counts') = 'off') \
         AND {function} AND n.oid NOT IN (SELECT oid FROM own) AND n.nspname !~ '^pg_(toast_)?temp_' \
         UNION ALL \
         SELECT NULL, n.nspname, c.relname, 'moved there' FROM own JOIN pg_namespace n ON n.oid = own.oid, pg_locks l, pg_class c, me \
         WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.mode = 'AccessExclusiveLock' \
         AND c.oid = l.relation AND c.relnamespace = own.oid \
         AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0 \
         AND d.refclassid = 'pg_namespace'::regclass AND {dependency}) \
         AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT {column})"
    )
}

/// Returns the condition that a catalog row was written by this transaction or by a part of
/// it. A row as young as that which is not in progress was committed by somebody else.
fn ours(xmin: &str) -> String {
    format!(
        "(CASE WHEN age({xmin}) <= age(me.xid) \
         THEN pg_xact_status((me.epoch + {xmin}::text::int8)::text::xid8) = 'in progress' ELSE false END)"
    )
}

/// Returns an expression that tells how many foreign keys of the schema point to a relation,
/// and how many of everything else hangs on it.
///
/// Dropping such a key locks the relation as if its structure changed, and leaves no row that
/// could be looked at: only the numbers that another session still sees tell.
fn shared_object(relation: &str, schema_literal: &str) -> String {
    format!(
        "concat((SELECT count(*) FROM pg_constraint f JOIN pg_namespace s ON s.oid = f.connamespace \
         WHERE f.confrelid = {relation} AND f.contype = 'f' AND s.nspname = {schema_literal}), ' ', \
         (SELECT count(*) FROM pg_trigger WHERE tgrelid = {relation} AND NOT tgisinternal), '/', \
         (SELECT count(*) FROM pg_rewrite WHERE ev_class = {relation}), '/', \
         (SELECT count(*) FROM pg_policy WHERE polrelid = {relation}), '/', \
         (SELECT count(*) FROM pg_constraint WHERE conrelid = {relation}), '/', \
         (SELECT count(*) FROM pg_index WHERE indrelid = {relation}))"
    )
}

/// What [`question`] brought: things named at once, and those that are gone.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// In words, each.
    pub(super) outside: Vec<String>,
    /// What has no catalog row any more: created and dropped again, or dropped from outside.
    pub(super) gone: Vec<Gone>,
    /// Relations of `public` that are locked as for a change that left no row: their oids,
    /// and what hangs on them now.
    locked: Vec<(u32, String)>,
}

impl Touched {
    /// Returns whether another session has to be asked.
    pub(super) fn is_open(&self) -> bool {
        !self.gone.is_empty() || !self.locked.is_empty()
    }
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
            (None, Some(numbers), Some("compare")) => {
                let oid = cell(0).and_then(|oid| oid.parse().ok());
                touched
                    .locked
                    .extend(oid.map(|oid| (oid, numbers.to_owned())));
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
/// they were there before, so this transaction drops them. And those of the locked relations
/// that lost something other than a foreign key of this schema.
pub(super) async fn seen_by_others(
    other: &Session,
    schema: &SchemaName,
    touched: &Touched,
) -> Result<Vec<String>, Error> {
    let of = |catalog: &str, name: &str, namespace: &str| {
        let oids: Vec<String> = touched
            .gone
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
    let mut outside: Vec<String> = rows.iter().map(name).collect();
    for (oid, now) in &touched.locked {
        let numbers = shared_object(&format!("{oid}::oid"), &escape_literal(schema.as_str()));
        let sql = format!("SELECT {numbers}, {oid}::regclass::text");
        let rows = other.read(&sql).await?;
        let cell = |column: usize| {
            rows.first()
                .and_then(|row| row.get(column))
                .unwrap_or_default()
        };
        let (keys_now, rest_now) = now.split_once(' ').unwrap_or_default();
        let (keys_before, rest_before) = cell(0).split_once(' ').unwrap_or_default();
        let count = |keys: &str| keys.parse::<u64>().unwrap_or_default();
        // A lock that no dropped key explains was taken for its own sake.
        if rest_now != rest_before || count(keys_before) <= count(keys_now) {
            outside.push(format!("{} (structure changed)", cell(1)));
        }
    }
    Ok(outside)
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
