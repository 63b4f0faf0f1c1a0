//! Creating one tenant next to many others.

use std::cell::Cell;
use std::path::Path;

use anyhow::Result;

use crate::args::RowName;
use crate::bench::Bench;
use crate::files::{File, aged_files, tenant_files};
use crate::fleet::{Base, slug};
use crate::library;
use crate::measure::{Bar, Measured, Side, in_turns};
use crate::raw;

/// Tenants created sequentially in one sample.
const TOGETHER: usize = 20;

/// Measures with the shipped files, and with files of tables that changed often.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Measured>> {
    let (shipped, aged) = (tenant_files()?, aged_files()?);
    Ok(vec![
        of(bench, &bench.projects.shipped(), &shipped)?.ratio(
            "pricesync library",
            "raw replay",
            Some(Bar::AtMost(0.75)),
        ),
        of(bench, &bench.projects.aged(), &aged)?.ratio("pricesync library", "raw replay", None),
    ])
}

/// Measures the library and the whole program against one message that replays the files.
fn of(bench: &Bench, project: &Path, files: &[File]) -> Result<Measured> {
    let neighbours = bench.args.neighbours();
    let base = bench.base(Base::Migrated(neighbours))?;
    let copy = bench.copy(&base)?;
    let next = Cell::new(neighbours);
    let fresh = |count: usize| -> Vec<String> {
        let first = next.get() + 1;
        next.set(next.get() + count);
        (first..first + count).map(slug).collect()
    };
    // The conversion to f64 is exact.
    let each = |took: f64, count: usize| took / f64::from(u32::try_from(count).unwrap_or(1));
    let mut sides = [
        Side::new("raw replay", || {
            let slugs = fresh(TOGETHER);
            let messages = slugs.iter().map(|slug| raw::create(slug, files)).collect();
            bench.settle()?;
            let took = raw::seconds(bench, &copy.name, 1, messages)?;
            Ok(each(took, TOGETHER))
        }),
        Side::new("pricesync library", || {
            let slugs = fresh(TOGETHER);
            bench.settle()?;
            Ok(each(library::create(bench, &copy.name, files, &slugs)?, TOGETHER))
        }),
        Side::new("pricesync create-tenant", || {
            let slugs = fresh(TOGETHER / 4);
            bench.settle()?;
            let mut took = 0.0;
            for slug in &slugs {
                let domain = format!("{slug}.example.com");
                let args = ["create-tenant", "--name", slug, "--slug", slug, "--domain", &domain];
                took += bench.seconds(bench.pricesync(project, &copy.name, &args))?;
            }
            Ok(each(took, slugs.len()))
        }),
    ];
    let rounds = bench.args.rounds().max(3);
    let samples = in_turns(rounds, &mut sides)?;
    drop(sides);
    let title = format!("one tenant with {} files beside {neighbours} others", files.len());
    Ok(Measured::new(bench, RowName::Create, title, samples)
        .ratio("pricesync create-tenant", "raw replay", None)
        .note(format!(
            "per tenant; a sample is the mean of {TOGETHER} tenants, and of {} processes",
            TOGETHER / 4
        )))
}
