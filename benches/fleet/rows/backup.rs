//! Backing up one tenant of many.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::args::RowName;
use crate::bench::Bench;
use crate::fleet::{Base, schema, slug};
use crate::measure::{Measured, Side, in_turns};
use crate::server;

/// Number of tenants in a run over several.
const TOGETHER: usize = 20;

/// Measures `backup` against `pg_dump`, which reads the whole catalog.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Measured>> {
    let schemas = bench.args.neighbours();
    let base = bench.base(Base::Migrated(schemas))?;
    let copy = bench.copy(&base)?;
    bench.run(&copy.name, "ANALYZE")?;
    let project = bench.projects.shipped();
    let folder = bench.projects.folder("backups")?;
    let out = folder.display().to_string();
    // A new folder for each run, because a file is never replaced.
    let last = Cell::new(0);
    let next = |count: usize| {
        let first = last.get() + 1;
        last.set(last.get() + count);
        first..first + count
    };
    let program = server::program("pg_dump").unwrap_or_else(|| Path::new("pg_dump").to_owned());
    // The conversion to f64 is exact.
    let together = f64::from(u32::try_from(TOGETHER).unwrap_or(1));
    let mut sides = [
        Side::new("pg_dump -Fc -n", || {
            let schema = schema(next(1).start);
            let mut command = Command::new(&program);
            command
                .args(["-Fc", "-n", &schema, "-d", &bench.url(&copy.name), "-f"])
                .arg(folder.join(&schema));
            bench.seconds(command)
        }),
        Side::new("pricesync backup", || {
            let slug = slug(next(1).start);
            let args = ["backup", "--tenant", &slug, "--out", &out];
            bench.seconds(bench.pricesync(&project, &copy.name, &args))
        }),
        Side::new("pricesync backup, 20 tenants", || {
            let slugs: Vec<String> = next(TOGETHER).map(slug).collect();
            let args = ["backup", "--tenant", &slugs.join(","), "--out", &out];
            let took = bench.seconds(bench.pricesync(&project, &copy.name, &args))?;
            Ok(took / together)
        }),
    ];
    let rounds = bench.args.rounds().min(5);
    let samples = in_turns(rounds, &mut sides)?;
    drop(sides);
    let title = format!("one of {schemas} tenants backed up, whole process");
    Ok(vec![
        Measured::new(bench, RowName::Backup, title, samples)
            .ratio("pricesync backup", "pg_dump -Fc -n", None)
            .ratio("pricesync backup, 20 tenants", "pg_dump -Fc -n", None)
            .note("20 tenants: per tenant"),
    ])
}
