//! Did the transaction stay in its schema? Answered from its own locks, before COMMIT.
//!
//! Every write and every change of structure takes a lock that says so, and the locks are
//! held until the transaction ends. Whatever they name outside the schema, a migration of
//! this tenant has touched, however it was hidden.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::database::{Database, no_second_session};
use crate::postgres::connection::options::{References, SECOND_SESSION_TIMEOUT};
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::connection::session_cache::SessionCache;
use crate::service::failure::ServerError;

/// Catalogs whose rows change without a lock that lasts, by their fixed oids. A tenant's file
/// has no business in most of them; of the others (operators, collations, text search, casts)
/// it may have rows of its own schema.
const CATALOGS: &str = "826,1213,1262,1417,2328,2601,2605,2607,2612,2615,2616,2617,2753,2995,\
     3079,3381,3456,3466,3576,3600,3601,3602,3764,6100,6104,6106,6237,6243";

/// Creates `pricesync.finish`, the function that asks the quick question and writes the ledger. Where the
/// text is changed after a release, the change is a further file of the bookkeeping.
pub(crate) const FINISH: &str = include_str!("escape_guard/finish.sql");

/// Returns the quick question about one schema as an expression, for use without the ledger: false only
/// where the transaction certainly stayed in the schema.
///
/// [`full_question`] takes the server longer than most migrations, so it is asked only where this one is
/// true: where a lock on something outside tells of a change, where a row of `public` is the
/// transaction's, or where it wrote to a catalog whose rows change without a lock. The counters of writes
/// may still hold those of an earlier transaction of the session, which costs no more than the full
/// question. `pg_catalog` and `pg_toast` have the oids 11 and 99 in every database, and catalogs have
/// theirs (`src/include/catalog`).
///
/// `wide` asks as well for types and privileges of any schema, which is needed behind code that was
/// not read.
pub(crate) fn quick_question(schema_oid: u32, wide: bool) -> String {
    let (_, steps) = FINISH.split_once("-- quick question\n").expect("the mark");
    let (steps, _) = steps.split_once("-- end of the quick").expect("the mark");
    let steps = [
        ("THEN RETURN true; END IF; END IF;", ") OR"),
        ("THEN RETURN true; END IF;", ") OR"),
        ("THEN IF ", ") AND ("),
        ("\n    IF ", "\n    ("),
        ("\n    IF\n", "\n    (\n"),
        ("own_xact", "pg_current_xact_id()::text::bigint"),
        ("own_age", "age(pg_current_xact_id()::xid)"),
        ("own_oids", &format!("'{{{schema_oid}}}'::oid[]")),
        // What a name is written like depends on the search path; the step behind it asks by oid.
        ("own_prefixes", "'{}'::text[]"),
        ("public_oid", "to_regnamespace('public')"),
        ("is_group", "false"),
        ("group_tables", "'{}'::oid[]"),
        ("is_wide", if wide { "true" } else { "false" }),
    ]
    .iter()
    .fold(format!("\n{steps}"), |text, (from, to)| {
        text.replace(from, to)
    });
    format!("({steps} false)")
}

/// Locks that do not tell of a change to something that is no relation.
const WEAK: &str = "'AccessShareLock', 'RowShareLock', 'RowExclusiveLock'";

/// Catalogs of the parts of a relation, which is locked itself: defaults, constraints, rules,
/// triggers, policies.
const PARTS: &str = "2604, 2606, 2618, 2620, 3256";

/// Whether a key between the relation of the lock `l` and one that is locked too is why its
/// rows were locked.
const EXPLAINED_BY_A_KEY: &str = "EXISTS (SELECT FROM pg_locks w JOIN pg_constraint f \
     ON f.conrelid = w.relation AND f.confrelid = l.relation OR f.conrelid = l.relation AND f.confrelid = w.relation \
     WHERE w.locktype = 'relation' AND w.pid = l.pid AND f.contype = 'f')";

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
///
/// The columns are text from the first branch on: what a branch has to say may be longer than a name, and a
/// UNION with names would cut it.
///
/// `wide` is asked where code ran that nobody has read: every relation and type is looked at then.
fn full_question(schema: &SchemaName, references: &References, wide: bool) -> String {
    let name = escape_literal(schema.as_str());
    let foreign = foreign_to(&name);
    let referable = references.condition();
    let kinds = ours("t.xmin");
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
         {ME} \
         SELECT l.relation, n.nspname::text, c.relname::text, l.mode FROM pg_locks l \
         LEFT JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() \
         AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') \
         AND (c.oid IS NULL OR (n.oid NOT IN (SELECT oid FROM own) \
         AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_')) \
         AND NOT ((l.mode = 'ShareRowExclusiveLock' AND {referable} OR l.mode = 'AccessExclusiveLock' AND n.nspname = 'public') \
         AND (l.mode = 'ShareRowExclusiveLock' OR NOT EXISTS (SELECT FROM me WHERE {class})) \
         AND NOT EXISTS (SELECT FROM pg_trigger t, me WHERE t.tgrelid = l.relation AND NOT t.tgisinternal AND {trigger}) \
         AND NOT EXISTS (SELECT FROM pg_constraint k, me WHERE k.conrelid = l.relation AND {constraint}) \
         AND NOT EXISTS (SELECT FROM pg_attribute b, me WHERE b.attrelid = l.relation AND {attribute}) \
         AND NOT EXISTS (SELECT FROM pg_rewrite r, me WHERE r.ev_class = l.relation AND {rule}) \
         AND NOT EXISTS (SELECT FROM pg_policy y, me WHERE y.polrelid = l.relation AND {policy}) \
         AND NOT EXISTS (SELECT FROM pg_index x, me WHERE x.indrelid = l.relation AND {index})) \
         UNION ALL \
         SELECT l.relation, (SELECT 'dropped' FROM pg_locks k WHERE k.locktype = 'object' AND k.pid = l.pid AND k.classid = 2606 \
         AND k.mode = 'AccessExclusiveLock' LIMIT 1), {shared}, 'compare' FROM pg_locks l \
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
         WHERE l.locktype = 'object' AND l.pid = pg_backend_pid() AND l.mode NOT IN ({WEAK}) \
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
         AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT {column}) \
         UNION ALL \
         SELECT l.objid, NULL, i.type || ' ' || i.identity, CASE WHEN i.identity IS NULL THEN l.classid::text ELSE 'said' END \
         FROM pg_locks l, LATERAL pg_identify_object(l.classid, l.objid, 0) i \
         WHERE l.locktype = 'object' AND l.pid = pg_backend_pid() AND l.mode NOT IN ({WEAK}) \
         AND l.classid NOT IN ({PARTS}, 2615, 1255, 1247) AND (i.identity IS NULL OR {foreign}) \
         UNION ALL \
         SELECT NULL, NULL, CASE l.relation WHEN 1260 THEN 'roles' WHEN 1261 THEN 'memberships of roles' WHEN 1262 THEN 'databases' \
         WHEN 2613 THEN 'large objects' ELSE 'settings of roles and databases' END, 'said' \
         FROM pg_locks l WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') \
         AND l.relation IN (1260, 1261, 1262, 2613, 2964) \
         UNION ALL \
         SELECT NULL, n.nspname, c.relname, 'rows locked' FROM pg_locks l \
         JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.mode = 'RowShareLock' AND c.relkind IN ('r', 'p') \
         AND n.nspname NOT IN ({name}, 'pg_catalog', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_' AND NOT {EXPLAINED_BY_A_KEY} \
         AND NOT EXISTS (SELECT FROM pg_locks w WHERE w.locktype = 'relation' AND w.pid = l.pid AND NOT EXISTS (SELECT FROM pg_class x WHERE x.oid = w.relation)) \
         UNION ALL \
         SELECT c.oid, NULL, coalesce(c.relacl::text, ''), 'privileges' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, me \
         WHERE pg_stat_get_xact_tuples_updated(1259) > 0 AND c.relnamespace NOT IN (SELECT oid FROM own) \
         AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_' AND {class} AND {reach} \
         UNION ALL \
         SELECT NULL, n.nspname, t.typname, 'created or changed' FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace, me \
         WHERE {wide} AND t.typnamespace NOT IN (SELECT oid FROM own) \
         AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_' AND {kinds} \
         UNION ALL \
         SELECT NULL, NULL, c::regclass::text, 'written' FROM unnest('{{{CATALOGS}}}'::oid[]) c \
         WHERE pg_stat_get_xact_tuples_inserted(c) + pg_stat_get_xact_tuples_updated(c) > 0 \
         OR current_setting('track_counts') = 'off' AND EXISTS (SELECT FROM pg_class k WHERE k.oid = c)",
        reach = if wide {
            "true"
        } else {
            "c.oid IN (SELECT d.objid FROM pg_depend d JOIN pg_namespace s ON s.oid = d.refobjid \
             WHERE d.refclassid = 2615 AND d.classid = 1259 AND s.nspname = 'public')"
        }
    )
}

/// Returns the statement that names the rows that this transaction wrote to catalogs which
/// [`full_question`] found written.
fn rows_of(schema: &SchemaName, catalogs: &[String]) -> String {
    let name = escape_literal(schema.as_str());
    let foreign = foreign_to(&name);
    let mut parts = Vec::new();
    for catalog in catalogs {
        let own = match catalog.as_str() {
            "pg_default_acl" => {
                format!(
                    "AND x.defaclnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname = {name})"
                )
            }
            "pg_namespace" => {
                format!("AND x.nspname <> {name} AND x.nspname !~ '^pg_(toast_)?temp_'")
            }
            "pg_largeobject_metadata" => {
                parts.push(format!(
                    "SELECT NULL, NULL, 'large object ' || x.oid, 'said' FROM {catalog} x, me WHERE {}",
                    ours("x.xmin")
                ));
                continue;
            }
            // Not every role may read who wrote these rows, so other sessions are asked what they see.
            "pg_subscription" => {
                parts.push(format!(
                    "SELECT x.oid, NULL, {SUBSCRIPTION}, 'subscription' FROM pg_subscription x"
                ));
                continue;
            }
            _ => String::new(),
        };
        parts.push(format!(
            "SELECT NULL, NULL, i.type || ' ' || i.identity, 'said' FROM {catalog} x, me, LATERAL pg_identify_object('{catalog}'::regclass, x.oid, 0) i \
             WHERE {} AND {foreign} {own}",
            ours("x.xmin")
        ));
    }
    format!("WITH {ME} {}", parts.join(" UNION ALL "))
}

/// What every role may read of the subscription `x`.
const SUBSCRIPTION: &str =
    "concat_ws(' ', x.subname, x.subowner, x.subenabled, x.subslotname, x.subpublications)";

/// Returns the condition that what `pg_identify_object` said as `i` is not the schema's: it is in
/// another one, or in none and not about something in it, as a cast from one of its types is.
fn foreign_to(schema_literal: &str) -> String {
    format!(
        "(i.schema IS DISTINCT FROM quote_ident({schema_literal}) AND coalesce(i.schema, '') !~ '^pg_(toast_)?temp_' \
         AND strpos(i.identity, quote_ident({schema_literal}) || '.') = 0)"
    )
}

/// This transaction's number and age, as in `finish.sql`.
const ME: &str = "me AS (SELECT pg_current_xact_id()::text::bigint AS xact, age(pg_current_xact_id()::xid) AS age)";

/// Returns the condition that a catalog row was written by this transaction or by a savepoint in it,
/// which has a number of its own. A row as young as that whose writer is no longer in progress is
/// another session's.
fn ours(xmin: &str) -> String {
    format!(
        "(CASE WHEN age({xmin}) <= me.age \
         THEN pg_xact_status((me.xact + me.age - age({xmin}))::text::xid8) = 'in progress' ELSE false END)"
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

/// What [`full_question`] brought: things named at once, and those that are gone.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// In words, each.
    outside: Vec<String>,
    /// What has no catalog row any more: created and dropped again, or dropped from outside.
    gone: Vec<Gone>,
    locked: Vec<Locked>,
    /// Relations whose row this transaction wrote, and their privileges now.
    privileges: Vec<(u32, String)>,
    /// Subscriptions where this transaction may have written one, and what is known of each.
    subscriptions: Vec<(u32, String)>,
    /// Catalogs that this transaction may have written to.
    written: Vec<String>,
}

impl Touched {
    /// Returns whether another session has to be asked.
    fn is_open(&self) -> bool {
        !self.gone.is_empty()
            || !self.locked.is_empty()
            || !self.privileges.is_empty()
            || !self.subscriptions.is_empty()
    }
}

/// A relation of `public` that is locked as for a change that left no row.
#[derive(Debug)]
struct Locked {
    oid: u32,
    /// What hangs on it now, as [`shared_object`] counts it.
    hung: String,
    /// Whether the transaction dropped constraints, which may have been keys of its own making.
    dropped_constraints: bool,
}

/// Something that this transaction dropped: the oid of the catalog in which it stood, and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gone {
    catalog: u32,
    oid: u32,
}

/// Asks [`full_question`], and for the rows of the catalogs that it found written.
pub(crate) async fn look(
    session: &Session,
    schema: &SchemaName,
    references: &References,
    wide: bool,
) -> Result<Touched, Error> {
    let mut touched = Touched::default();
    touched.read(
        &session
            .rows(&full_question(schema, references, wide))
            .await?,
    );
    if !touched.written.is_empty() {
        let rows = session.rows(&rows_of(schema, &touched.written)).await?;
        touched.read(&rows);
    }
    touched.outside.sort();
    touched.outside.dedup();
    Ok(touched)
}

impl Touched {
    /// Reads the answer to [`full_question`] or [`rows_of`].
    fn read(&mut self, rows: &[Row]) {
        for row in rows {
            let cell = |column: usize| row.optional(column);
            let oid = cell(0).and_then(|oid| oid.parse().ok());
            match (cell(1), cell(2), cell(3)) {
                (dropped, Some(numbers), Some("compare")) => {
                    let hung = numbers.to_owned();
                    self.locked.extend(oid.map(|oid| Locked {
                        oid,
                        hung,
                        dropped_constraints: dropped.is_some(),
                    }));
                }
                (Some(schema), Some(object), Some(how)) => {
                    self.outside
                        .push(format!("{schema}.{object} ({})", words(how)));
                }
                (Some(schema), None, Some(how)) => {
                    self.outside.push(format!("schema {schema} ({how})"));
                }
                (None, Some(now), Some("privileges")) => {
                    self.privileges.extend(oid.map(|oid| (oid, now.to_owned())));
                }
                (None, Some(now), Some("subscription")) => {
                    self.subscriptions
                        .extend(oid.map(|oid| (oid, now.to_owned())));
                }
                (None, Some(catalog), Some("written")) => self.written.push(catalog.to_owned()),
                (None, Some(said), Some("said")) => self.outside.push(format!("{said} (changed)")),
                (None, _, how) => {
                    let catalog = match how {
                        Some("function") => 1255,
                        Some("type") => 1247,
                        // A lock's mode: what else is gone comes with the number of its catalog.
                        how => how.and_then(|how| how.parse().ok()).unwrap_or(1259),
                    };
                    self.gone.extend(oid.map(|oid| Gone { catalog, oid }));
                }
                _ => {}
            }
        }
    }
}

/// Returns what a transaction touched outside its schema. Where other sessions have to be asked,
/// that is done over a cached or a second connection, which is waited for only briefly: others queue
/// for what this transaction has locked.
///
/// # Errors
///
/// The server's error; `53300` where there is no second connection.
pub(crate) async fn outside(
    database: &Database,
    cache: Option<&SessionCache>,
    schema: &SchemaName,
    touched: Touched,
) -> Result<Vec<String>, ServerError> {
    if !touched.is_open() {
        return Ok(touched.outside);
    }
    let other = match cache.and_then(SessionCache::take) {
        Some(session) => session,
        None => database.second_session().await?,
    };
    // A pooler accepts a connection although it has no server session for it.
    let answered = tokio::time::timeout(SECOND_SESSION_TIMEOUT, other.rows("SELECT 1")).await;
    if answered.is_err() {
        other.discard();
        return Err(no_second_session());
    }
    let seen = seen_by_others(&other, schema, &touched).await;
    let seen = seen.map_err(|error| server_error(&error))?;
    Ok(touched.outside.into_iter().chain(seen).collect())
}

/// Names those of the vanished things that other sessions still see outside the schema:
/// they were there before, so this transaction drops them. And those of the locked relations
/// that lost something other than a foreign key of this schema, and those whose privileges
/// are other ones.
async fn seen_by_others(
    other: &Session,
    schema: &SchemaName,
    touched: &Touched,
) -> Result<Vec<String>, Error> {
    let mut outside = Vec::new();
    if !touched.gone.is_empty() {
        let pairs: Vec<String> = touched
            .gone
            .iter()
            .map(|gone| format!("({}::oid, {}::oid)", gone.catalog, gone.oid))
            .collect();
        let sql = format!(
            "SELECT CASE WHEN i.schema IS NULL THEN i.type || ' ' ELSE '' END || i.identity \
             FROM (VALUES {}) g (catalog, oid), LATERAL pg_identify_object(g.catalog, g.oid, 0) i \
             WHERE i.identity IS NOT NULL AND i.schema IS DISTINCT FROM 'pg_toast' AND {}",
            pairs.join(", "),
            foreign_to(&escape_literal(schema.as_str()))
        );
        let rows = other.read(&sql).await?;
        let name = |row: &Row| format!("{} (dropped)", row.optional(0).unwrap_or_default());
        outside.extend(rows.iter().map(name));
    }
    for (oid, now) in &touched.privileges {
        let sql = format!(
            "SELECT oid::regclass FROM pg_class WHERE oid = {oid} AND coalesce(relacl::text, '') <> {}",
            escape_literal(now)
        );
        let rows = other.read(&sql).await?;
        let name = rows.first().and_then(|row| row.optional(0));
        outside.extend(name.map(|name| format!("{name} (privileges changed)")));
    }
    for (oid, now) in &touched.subscriptions {
        let sql = format!("SELECT {SUBSCRIPTION} FROM pg_subscription x WHERE x.oid = {oid}");
        let rows = other.read(&sql).await?;
        if rows.first().and_then(|row| row.optional(0)) != Some(now) {
            let name = now.split(' ').next().unwrap_or_default();
            outside.push(format!("subscription {name} (changed)"));
        }
    }
    for locked in &touched.locked {
        let (oid, now) = (locked.oid, &locked.hung);
        let numbers = shared_object(&format!("{oid}::oid"), &escape_literal(schema.as_str()));
        let sql = format!("SELECT {numbers}, oid::regclass::text FROM pg_class WHERE oid = {oid}");
        let rows = other.read(&sql).await?;
        // Another session does not see what the transaction created, which is named already.
        let Some(row) = rows.first() else { continue };
        let cell = |column: usize| row.optional(column).unwrap_or_default();
        let (keys_now, rest_now) = now.split_once(' ').unwrap_or_default();
        let (keys_before, rest_before) = cell(0).split_once(' ').unwrap_or_default();
        let count = |keys: &str| keys.parse::<u64>().unwrap_or_default();
        // A lock that no dropped key explains was taken for its own sake.
        let explained = locked.dropped_constraints || count(keys_before) > count(keys_now);
        if rest_now != rest_before || !explained {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_question_is_an_expression() {
        for wide in [false, true] {
            let question = quick_question(4711, wide);
            for word in ["IF", "RETURN", "own_", "is_", "group_", "public_oid"] {
                let mut words = question.split(|c: char| !c.is_alphanumeric() && c != '_');
                assert!(!words.any(|it| it.starts_with(word)), "{word}: {question}");
            }
            assert_eq!(question.matches('(').count(), question.matches(')').count());
        }
    }

    #[test]
    fn the_quick_question_counts_the_writes_of_every_catalog() {
        for catalog in CATALOGS.split(',') {
            for event in ["inserted", "updated"] {
                let counter = format!("pg_stat_get_xact_tuples_{event}({})", catalog.trim());
                assert!(FINISH.contains(&counter), "{counter}");
            }
        }
    }
}
