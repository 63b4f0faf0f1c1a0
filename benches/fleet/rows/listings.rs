//! Listings of a large fleet, compared with the query that reads the same rows.

use anyhow::Result;

use crate::args::RowName;
use crate::bench::Bench;
use crate::fleet::Base;
use crate::measure::{Bar, Measured, Side, in_turns};

/// Selects the tenants with their domains, without any state.
const TENANTS: &str = "SELECT t.id, t.name, t.slug, t.schema_name, \
    (SELECT string_agg(d.domain, ' ' ORDER BY NOT d.is_primary, d.domain) FROM tenants_domain d WHERE d.tenant_id = t.id), \
    t.created_at";

/// Selects the state of each schema, for builds without a ledger.
const CATALOG: &str = " FROM tenants_tenant t LEFT JOIN pg_namespace n ON n.nspname = t.schema_name \
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'refinery_schema_history'";

/// Finds the ledger's table, and its column with the schema's oid.
const LEDGER: &str = "SELECT format('pricesync.%I s ON s.%I = n.oid', c.relname, a.attname) \
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
    WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'pricesync') \
    AND c.relkind = 'r' AND c.relname LIKE '%state%' AND a.attnum > 0 AND a.atttypid = 'oid'::regtype \
    ORDER BY a.attname NOT LIKE '%schema%', a.attnum LIMIT 1";

/// Measures `status` and `list-tenants`.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Measured>> {
    let schemas = bench.args.large();
    let base = bench.base(Base::Thin(schemas))?;
    bench.settle()?;
    let ledger = bench.value(&base, LEDGER)?;
    let state = match &ledger {
        Some(join) => format!("{CATALOG} LEFT JOIN {join}"),
        None => CATALOG.to_owned(),
    };
    let read = if ledger.is_some() { "s.*, " } else { "" };
    let list = format!("{TENANTS}, {read}c.oid{state} ORDER BY t.id");
    let status = format!("SELECT t.schema_name, {read}n.oid, c.oid{state}");
    let project = bench.projects.shipped();
    let mut rows = Vec::new();
    for (name, args, sql) in [
        ("pricesync status", &["status"][..], &status),
        ("pricesync list-tenants", &["list-tenants", "-o", "json"], &list),
    ] {
        let mut sides = [
            Side::new("psql", || bench.seconds(bench.psql(&base, &["-At", "-c", sql]))),
            Side::new(name, || bench.seconds(bench.pricesync(&project, &base, args))),
        ];
        let samples = in_turns(bench.args.repetitions(), &mut sides)?;
        let title = format!("{} over {schemas} schemas, whole process", args.join(" "));
        let mut row = Measured::new(bench, RowName::Listings, title, samples).ratio(
            name,
            "psql",
            Some(Bar::AtMost(3.0)),
        );
        if ledger.is_none() {
            row = row.note(
                "this build keeps no table of all schemas: psql reads tenants and catalog only",
            );
        }
        rows.push(row);
    }
    Ok(rows)
}
