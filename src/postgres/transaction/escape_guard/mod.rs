//! Checks before COMMIT whether the transaction stayed in its schema.
//!
//! Every write and every DDL statement takes a lock, and locks are held until the transaction ends. So
//! the transaction's own locks name every object that it changed, even if the statement was hidden in a
//! function. Some catalog rows change without such a lock; those are found by their `xmin`.

mod change;
#[cfg(feature = "cli")]
mod unusable;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

pub(crate) use self::change::Changes;
#[cfg(feature = "cli")]
pub(crate) use self::unusable::UnusableEntries;
use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::database::{Database, no_second_session};
use crate::postgres::connection::options::{GuardRules, SECOND_SESSION_TIMEOUT};
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::connection::session_cache::SessionCache;
use crate::service::failure::ServerError;
use crate::settings::TableName;

/// Catalogs whose rows change without a lock that lasts, by their fixed oids. A tenant's script may write
/// only rows of its own schema in them, such as operators, collations, text search objects and casts.
const CATALOGS: &str = "826,1213,1262,1417,2328,2601,2605,2607,2612,2615,2616,2617,2753,2995,\
     3079,3381,3456,3466,3576,3600,3601,3602,3764,6100,6104,6106,6237,6243";

/// The text of `pricesync.finish`; `{writable}` stands for [`WRITABLE`].
const FINISH: &str = include_str!("finish.sql");

/// The condition that rows of the relation `l.relation` may change: it is listed, or is a partition, an
/// index or the identity or serial sequence of a listed table. `{listed}` is an array of quoted names.
const WRITABLE: &str = include_str!("writable.sql").trim_ascii_end();

/// Returns the statement that creates `pricesync.finish`, the function that asks the quick question and
/// writes the ledger. After a release it is changed by another migration of the bookkeeping.
pub(crate) fn create_finish() -> String {
    FINISH.replace("{writable}", &WRITABLE.replace("{listed}", "listed"))
}

/// Returns [`WRITABLE`] for these rules.
fn writable(rules: &GuardRules) -> String {
    if rules.allow_writes.is_empty() {
        return "false".to_owned();
    }
    WRITABLE.replace("{listed}", &rules.listed())
}

/// Returns the quick question about one schema as an expression, for use without the ledger. It is false
/// only if the transaction certainly stayed in the schema.
///
/// The full question costs the server more than most migrations, so it is asked only if this one is true:
/// on a lock that indicates a change outside, on a row of `public` that the transaction wrote, or on a write
/// to a catalog that is changed without a lock. The write counters may include an earlier transaction
/// of the session, which costs an unnecessary full question. The oids of `pg_catalog` (11), `pg_toast`
/// (99) and the catalogs are fixed (`src/include/catalog`).
///
/// `wide`: code ran that pricesync cannot read, so types and privileges of all schemas are checked too.
pub(crate) fn quick_question(schema_oid: u32, rules: &GuardRules, wide: bool) -> String {
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
        // How a name is printed depends on the search path; the second step compares oids.
        ("own_prefixes", "'{}'::text[]"),
        ("public_oid", "to_regnamespace('public')"),
        ("is_group", "false"),
        ("group_tables", "'{}'::oid[]"),
        ("is_wide", if wide { "true" } else { "false" }),
        // Last, because names that are filled in may contain any word.
        ("{writable}", &writable(rules)),
    ]
    .iter()
    .fold(format!("\n{steps}"), |text, (from, to)| text.replace(from, to));
    format!("({steps} false)")
}

const FULL: &str = include_str!("full.sql");

const THROUGH: &str = include_str!("through.sql");

/// Returns the statement that lists what the transaction changed outside the schema.
///
/// `wide`: code ran that pricesync cannot read, so all relations and types are checked.
fn full_question(schema: &SchemaName, rules: &GuardRules, wide: bool) -> String {
    let visible = if wide {
        "true"
    } else {
        "c.oid IN (SELECT d.objid FROM pg_depend d JOIN pg_namespace s ON s.oid = d.refobjid \
         WHERE d.refclassid = 2615 AND d.classid = 1259 AND s.nspname = 'public')"
    };
    let fill = |text: &str| {
        let mut text = text
            .replace("{me}", ME)
            .replace("{catalogs}", CATALOGS)
            .replace("{visible}", visible)
            .replace("{wide}", if wide { "true" } else { "false" })
            .replace("{shared}", &shared_object("l.relation", "{schema}"))
            .replace("{foreign}", &foreign_to("{schema}"));
        for alias in ["a", "b", "c", "d", "k", "p", "r", "t", "x", "y"] {
            text =
                text.replace(&format!("{{own {alias}}}"), &written_here(&format!("{alias}.xmin")));
        }
        text.replace("{schema}", &escape_literal(schema.as_str()))
    };
    // Last, because names that are filled in may contain braces.
    let fill = |text: &str| {
        let parts: Vec<String> = text.split("{referable}").map(fill).collect();
        parts.join(&rules.is_referable())
    };
    let parts: Vec<String> = FULL.split("{writable}").map(fill).collect();
    parts.join(&writable(rules))
}

/// Returns the statement that names the rows that this transaction wrote to these catalogs.
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
                    "SELECT NULL, NULL, 'large object ' || x.oid, 'named' FROM {catalog} x, me WHERE {}",
                    written_here("x.xmin")
                ));
                continue;
            }
            // Not every role may read `xmin` here, so the row is compared with what another session sees.
            "pg_subscription" => {
                parts.push(format!(
                    "SELECT x.oid, NULL, {SUBSCRIPTION}, 'subscription' FROM pg_subscription x"
                ));
                continue;
            }
            _ => String::new(),
        };
        parts.push(format!(
            "SELECT NULL, NULL, i.type || ' ' || i.identity, 'named' FROM {catalog} x, me, LATERAL pg_identify_object('{catalog}'::regclass, x.oid, 0) i \
             WHERE {} AND {foreign} {own}",
            written_here("x.xmin")
        ));
    }
    format!("WITH {ME} {}", parts.join(" UNION ALL "))
}

/// The columns of the subscription `x` that every role may read.
const SUBSCRIPTION: &str =
    "concat_ws(' ', x.subname, x.subowner, x.subenabled, x.subslotname, x.subpublications)";

/// Returns the condition that the object that `pg_identify_object` describes as `i` does not belong to the
/// schema: it is in another schema, or in none and its identity names no object of the schema, as that of
/// a cast does.
fn foreign_to(schema_literal: &str) -> String {
    format!(
        "(i.schema IS DISTINCT FROM quote_ident({schema_literal}) AND coalesce(i.schema, '') !~ '^pg_(toast_)?temp_' \
         AND strpos(i.identity, quote_ident({schema_literal}) || '.') = 0)"
    )
}

/// The id and the age of this transaction, as in `finish.sql`.
const ME: &str = "me AS (SELECT pg_current_xact_id()::text::bigint AS xact, age(pg_current_xact_id()::xid) AS age)";

/// Returns the condition that a catalog row was written by this transaction or by one of its
/// subtransactions, which have ids of their own: the row is as young, and its writer is in progress.
fn written_here(xmin: &str) -> String {
    format!(
        "(CASE WHEN age({xmin}) <= me.age \
         THEN pg_xact_status((me.xact + me.age - age({xmin}))::text::xid8) = 'in progress' ELSE false END)"
    )
}

/// Returns an expression for the number of the schema's foreign keys to a relation, and the numbers of its
/// other dependents.
///
/// Dropping such a key locks the relation like a change of its structure and leaves no row, so the
/// numbers are compared with those that another session sees.
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

/// The result of [`full_question`]: changes outside the schema, and suspects that only another session can
/// confirm.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    outside: Changes,
    /// Objects without a catalog row: created and dropped by this transaction, or existing and dropped.
    dropped: Vec<DroppedObject>,
    locked: Vec<LockedRelation>,
    /// Relations whose row this transaction wrote, and their privileges now.
    privileges: Vec<(u32, String)>,
    /// Subscriptions that this transaction may have written, and their columns now.
    subscriptions: Vec<(u32, String)>,
    /// Catalogs that this transaction may have written to.
    written: Vec<String>,
}

impl Findings {
    /// Returns whether another session is required.
    fn has_suspects(&self) -> bool {
        !self.dropped.is_empty()
            || !self.locked.is_empty()
            || !self.privileges.is_empty()
            || !self.subscriptions.is_empty()
    }
}

/// A relation of `public` that is locked like one whose structure changes.
#[derive(Debug)]
struct LockedRelation {
    oid: u32,
    /// The numbers of its dependents now, as [`shared_object`] counts them.
    dependents: String,
    /// Whether the transaction dropped constraints, which it may have created itself.
    dropped_constraints: bool,
}

/// An object that this transaction dropped, by the oid of its catalog and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DroppedObject {
    catalog: u32,
    oid: u32,
}

/// Asks the full question, and names the rows of the catalogs that were written.
pub(crate) async fn inspect(
    session: &Session,
    schema: &SchemaName,
    rules: &GuardRules,
    wide: bool,
) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    let sql = full_question(schema, rules, wide);
    findings.read(&session.rows(&sql).await?);
    if !findings.written.is_empty() {
        let rows = session.rows(&rows_of(schema, &findings.written)).await?;
        findings.read(&rows);
    }
    let written = findings.outside.written();
    if !written.is_empty() {
        let schema = escape_literal(schema.as_str());
        let sql = THROUGH.replace("{{oids}}", &format!("{{{}}}", written.join(",")));
        // Without the causes the finding is still right. The transaction is rolled back in any case.
        if let Ok(rows) = session.rows(&sql.replace("{schema}", &schema)).await {
            findings.outside.add_causes(&rows);
        }
    }
    Ok(findings)
}

impl Findings {
    /// Adds the rows that [`full_question`] or [`rows_of`] returned.
    fn read(&mut self, rows: &[Row]) {
        for row in rows {
            let cell = |column: usize| row.optional(column);
            let oid = cell(0).and_then(|oid| oid.parse().ok());
            match (cell(1), cell(2), cell(3)) {
                (dropped, Some(numbers), Some("compare")) => {
                    let dependents = numbers.to_owned();
                    self.locked.extend(oid.map(|oid| LockedRelation {
                        oid,
                        dependents,
                        dropped_constraints: dropped.is_some(),
                    }));
                }
                (Some(schema), Some(object), Some(how)) => {
                    let name = TableName { schema: schema.to_owned(), table: object.to_owned() };
                    self.outside.add_relation(oid.unwrap_or_default(), name, change(how));
                }
                (Some(schema), None, Some(how)) => {
                    self.outside.add(format!("schema {schema}"), how);
                }
                (None, Some(now), Some("privileges")) => {
                    self.privileges.extend(oid.map(|oid| (oid, now.to_owned())));
                }
                (None, Some(now), Some("subscription")) => {
                    self.subscriptions.extend(oid.map(|oid| (oid, now.to_owned())));
                }
                (None, Some(catalog), Some("written")) => self.written.push(catalog.to_owned()),
                (None, Some(object), Some("named")) => {
                    self.outside.add(object.to_owned(), "changed");
                }
                (None, _, how) => {
                    // The oid of another catalog, or the lock mode of a relation.
                    let catalog = how.and_then(|how| how.parse().ok()).unwrap_or(1259);
                    self.dropped.extend(oid.map(|oid| DroppedObject { catalog, oid }));
                }
                _ => {}
            }
        }
    }
}

/// Returns the objects that a transaction changed outside its schema. Suspects are
/// checked from a cached or a second connection. The wait for it is short, because other sessions queue
/// for the locks of this transaction.
///
/// # Errors
///
/// The server's error; `53300` where there is no second connection.
pub(crate) async fn outside(
    database: &Database,
    cache: Option<&SessionCache>,
    schema: &SchemaName,
    mut findings: Findings,
) -> Result<Changes, ServerError> {
    if !findings.has_suspects() {
        return Ok(findings.outside);
    }
    let other = match cache.and_then(SessionCache::take) {
        Some(session) => session,
        None => database.second_session().await?,
    };
    // A pooler accepts a connection even if it has no server session for it.
    let reply = tokio::time::timeout(SECOND_SESSION_TIMEOUT, other.rows("SELECT 1")).await;
    if reply.is_err() {
        other.discard();
        return Err(no_second_session());
    }
    let mut outside = std::mem::take(&mut findings.outside);
    let confirmed = confirm(&other, schema, &findings, &mut outside).await;
    confirmed.map_err(|error| server_error(&error))?;
    Ok(outside)
}

/// Adds the suspects that `other`, which does not see the transaction's changes, confirms: dropped
/// objects that existed before, relations that lost more than foreign keys of this schema, and changed
/// privileges and subscriptions.
async fn confirm(
    other: &Session,
    schema: &SchemaName,
    findings: &Findings,
    outside: &mut Changes,
) -> Result<(), Error> {
    if !findings.dropped.is_empty() {
        let pairs: Vec<String> = findings
            .dropped
            .iter()
            .map(|object| format!("({}::oid, {}::oid)", object.catalog, object.oid))
            .collect();
        let sql = format!(
            "SELECT CASE WHEN i.schema IS NULL THEN i.type || ' ' ELSE '' END || i.identity \
             FROM (VALUES {}) g (catalog, oid), LATERAL pg_identify_object(g.catalog, g.oid, 0) i \
             WHERE i.identity IS NOT NULL AND i.schema IS DISTINCT FROM 'pg_toast' AND {}",
            pairs.join(", "),
            foreign_to(&escape_literal(schema.as_str()))
        );
        let rows = other.read(&sql).await?;
        for row in &rows {
            outside.add(row.text(0)?.to_owned(), "dropped");
        }
    }
    for (oid, now) in &findings.privileges {
        let sql = format!(
            "SELECT oid::regclass FROM pg_class WHERE oid = {oid} AND coalesce(relacl::text, '') <> {}",
            escape_literal(now)
        );
        let rows = other.read(&sql).await?;
        if let Some(row) = rows.first() {
            outside.add(row.text(0)?.to_owned(), "privileges changed");
        }
    }
    for (oid, now) in &findings.subscriptions {
        let sql = format!("SELECT {SUBSCRIPTION} FROM pg_subscription x WHERE x.oid = {oid}");
        let rows = other.read(&sql).await?;
        if rows.first().and_then(|row| row.optional(0)) != Some(now) {
            let name = now.split(' ').next().unwrap_or_default();
            outside.add(format!("subscription {name}"), "changed");
        }
    }
    for locked in &findings.locked {
        let (oid, now) = (locked.oid, &locked.dependents);
        let numbers = shared_object(&format!("{oid}::oid"), &escape_literal(schema.as_str()));
        let sql = format!("SELECT {numbers}, oid::regclass::text FROM pg_class WHERE oid = {oid}");
        let rows = other.read(&sql).await?;
        // Relations that this transaction created are not visible, and reported already.
        let Some(row) = rows.first() else { continue };
        let (keys_now, rest_now) = now.split_once(' ').unwrap_or_default();
        let (keys_before, rest_before) = row.text(0)?.split_once(' ').unwrap_or_default();
        let count = |keys: &str| keys.parse::<u64>().unwrap_or_default();
        // A lock that no dropped key explains was taken for another change.
        let explained = locked.dropped_constraints || count(keys_before) > count(keys_now);
        if rest_now != rest_before || !explained {
            outside.add(row.text(1)?.to_owned(), "structure changed");
        }
    }
    Ok(())
}

/// Returns the change that a lock mode or a kind of finding stands for.
fn change(mode: &str) -> &str {
    match mode {
        "RowExclusiveLock" => "rows changed",
        "ShareLock" => "index created",
        "ShareUpdateExclusiveLock" | "ShareRowExclusiveLock" | "AccessExclusiveLock" => {
            "structure changed"
        }
        "ExclusiveLock" => "locked",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_question_is_an_expression() {
        for wide in [false, true] {
            let rules = GuardRules {
                allow_writes: vec![TableName { schema: "a".into(), table: "b".into() }],
                ..GuardRules::default()
            };
            let question = quick_question(4711, &rules, wide);
            for word in ["IF", "RETURN", "own_", "is_", "group_", "public_oid"] {
                let mut words = question.split(|c: char| !c.is_alphanumeric() && c != '_');
                assert!(!words.any(|it| it.starts_with(word)), "{word}: {question}");
            }
            assert_eq!(question.matches('(').count(), question.matches(')').count());
        }
    }

    #[test]
    fn the_function_is_complete() {
        assert_eq!(create_finish().matches("ANY (listed)").count(), 1);
        assert!(!create_finish().contains('{'));
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
