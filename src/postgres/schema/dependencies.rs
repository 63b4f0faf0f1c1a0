//! What goes with a schema and is not in it: the walk that `DROP ... CASCADE` would make.

use crate::domain::tenant::Dependent;
use crate::postgres::connection::session::Row;

/// From where the walk begins.
pub(crate) enum Start<'a> {
    /// The schemas themselves.
    Schemas,
    /// Some relations in them, by oid.
    Relations(&'a [String]),
}

/// Returns the query for everything outside the schemas with these oids that would be dropped
/// with what the walk begins from.
///
/// As `findDependentObjects` in the server's `dependency.c` does, it follows `pg_depend` to
/// whatever depends on something that goes, and from an internal part to its whole (a view's
/// rule to the view). An extension that lives in the schema counts as outside, because it
/// belongs to the whole database. What goes as a part of something named is not named itself.
pub(crate) fn select(schemas: &[String], start: &Start<'_>) -> String {
    let schemas = schemas.join(", ");
    let start = match start {
        Start::Schemas => {
            format!(
                "SELECT 'pg_namespace'::regclass::oid, n.oid, 0 FROM pg_namespace n WHERE n.oid IN ({schemas})"
            )
        }
        Start::Relations(oids) => format!(
            "SELECT 'pg_class'::regclass::oid, c.oid, 0 FROM pg_class c WHERE c.oid IN ({})",
            oids.join(", ")
        ),
    };
    // Catalogs whose rows have a schema of their own, and those whose rows are parts of relations.
    let own = [
        ("pg_class", "relnamespace"),
        ("pg_type", "typnamespace"),
        ("pg_proc", "pronamespace"),
        ("pg_constraint", "connamespace"),
        ("pg_operator", "oprnamespace"),
        ("pg_opclass", "opcnamespace"),
        ("pg_opfamily", "opfnamespace"),
        ("pg_collation", "collnamespace"),
        ("pg_conversion", "connamespace"),
        ("pg_ts_config", "cfgnamespace"),
        ("pg_ts_dict", "dictnamespace"),
        ("pg_ts_parser", "prsnamespace"),
        ("pg_ts_template", "tmplnamespace"),
        ("pg_statistic_ext", "stxnamespace"),
    ]
    .map(|(table, column)| {
        format!(
            "WHEN '{table}'::regclass THEN (SELECT x.{column} FROM {table} x WHERE x.oid = g.objid)"
        )
    })
    .join(" ");
    let parts = [
        ("pg_attrdef", "adrelid"),
        ("pg_rewrite", "ev_class"),
        ("pg_trigger", "tgrelid"),
        ("pg_policy", "polrelid"),
    ]
    .map(|(table, column)| {
        format!("WHEN '{table}'::regclass THEN (SELECT c.relnamespace FROM {table} x JOIN pg_class c ON c.oid = x.{column} WHERE x.oid = g.objid)")
    })
    .join(" ");
    format!(
        // The planner expects thousands of rows, and compiling for them costs seconds. Counting keeps
        // it from reading pg_depend as a whole, which holds millions of rows in a large fleet.
        "SET LOCAL jit TO off; WITH RECURSIVE gone (classid, objid, objsubid) AS ({start} UNION \
           SELECT d.classid, d.objid, d.objsubid FROM gone g CROSS JOIN LATERAL ( \
             SELECT p.classid, p.objid, p.objsubid FROM pg_depend p \
             WHERE p.refclassid = g.classid AND p.refobjid = g.objid AND (g.objsubid = 0 OR p.refobjsubid = g.objsubid) \
             UNION ALL SELECT p.refclassid, p.refobjid, p.refobjsubid FROM pg_depend p \
             WHERE p.classid = g.classid AND p.objid = g.objid AND p.objsubid = g.objsubid AND p.deptype = 'i') d), \
         outside AS (SELECT g.* FROM gone g WHERE coalesce(CASE g.classid WHEN 'pg_namespace'::regclass THEN g.objid {own} {parts} END, 0) NOT IN ({schemas})) \
         SELECT pg_describe_object(g.classid, g.objid, g.objsubid), (SELECT e.extname FROM pg_extension e WHERE e.oid = g.objid AND g.classid = 'pg_extension'::regclass) \
         FROM outside g WHERE g.classid NOT IN ('pg_default_acl'::regclass, 'pg_publication_rel'::regclass, 'pg_amop'::regclass, 'pg_amproc'::regclass, \
           coalesce(to_regclass('pg_publication_namespace'), 0::oid)) \
         AND (SELECT count(*) FROM pg_depend p WHERE p.classid = g.classid AND p.objid = g.objid AND p.objsubid = g.objsubid AND (p.deptype = 'e' \
           OR p.deptype = 'i' AND ((p.refclassid, p.refobjid, 0) IN (SELECT o.classid, o.objid, o.objsubid FROM gone o) \
             OR (p.refclassid, p.refobjid, p.refobjsubid) IN (SELECT o.classid, o.objid, o.objsubid FROM gone o)) \
           OR p.deptype IN ('a', 'P', 'S') AND ((p.refclassid, p.refobjid, 0) IN (SELECT o.classid, o.objid, o.objsubid FROM outside o) \
             OR (p.refclassid, p.refobjid, p.refobjsubid) IN (SELECT o.classid, o.objid, o.objsubid FROM outside o)))) = 0 \
         ORDER BY 2, 1 LIMIT 100"
    )
}

/// Reads the rows of [`select`]; an object that another session has dropped meanwhile has no
/// description.
pub(crate) fn read(rows: &[Row]) -> Vec<Dependent> {
    let dependent = |row: &Row| {
        Some(Dependent {
            description: row.optional(0)?.to_owned(),
            extension: row.optional(1).map(str::to_owned),
        })
    };
    rows.iter().filter_map(dependent).collect()
}
