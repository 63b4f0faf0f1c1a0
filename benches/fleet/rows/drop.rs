//! Dropping one tenant.

use std::cell::Cell;

use anyhow::Result;

use crate::args::RowName;
use crate::bench::Bench;
use crate::fleet::{Base, schema, slug};
use crate::measure::{Measured, Side, in_turns};

/// Measures `drop-schema` against psql, one process for each tenant.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Measured>> {
    let schemas = bench.args.schemas();
    let base = bench.base(Base::Migrated(schemas))?;
    let copy = bench.copy(&base)?;
    let last = Cell::new(0);
    let next = || {
        last.set(last.get() + 1);
        last.get()
    };
    let project = bench.projects.shipped();
    let mut sides = [
        Side::new("psql, DROP SCHEMA CASCADE", || {
            let number = next();
            let tenant = format!("(SELECT id FROM tenants_tenant WHERE slug = '{}')", slug(number));
            let sql = format!(
                "BEGIN; DROP SCHEMA {} CASCADE; DELETE FROM tenants_domain WHERE tenant_id = {tenant}; \
                 DELETE FROM tenants_tenant WHERE id = {tenant}; COMMIT",
                schema(number)
            );
            bench.seconds(bench.psql(&copy.name, &["-c", &sql]))
        }),
        Side::new("pricesync drop-schema", || {
            let slug = slug(next());
            let args = ["drop-schema", "--tenant", &slug, "--force"];
            bench.seconds(bench.pricesync(&project, &copy.name, &args))
        }),
    ];
    let samples = in_turns(bench.args.repetitions(), &mut sides)?;
    drop(sides);
    let title = format!("one of {schemas} tenants dropped, whole process");
    Ok(vec![Measured::new(bench, RowName::Drop, title, samples).ratio(
        "pricesync drop-schema",
        "psql, DROP SCHEMA CASCADE",
        None,
    )])
}
