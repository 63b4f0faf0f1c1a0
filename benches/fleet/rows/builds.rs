//! This build of pricesync against another, such as the one before a change.

use std::cell::Cell;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::args::RowName;
use crate::bench::{Bench, Copy, PROGRAM};
use crate::fleet::{Base, slug};
use crate::measure::{Bar, Measured, Side, in_turns};

/// The largest ratio that is not a regression.
const LIMIT: Bar = Bar::AtMost(1.03);

/// Processes in one sample of a command that changes one tenant.
const PROCESSES: usize = 5;

/// Measures each command with both builds in turns, each over databases that it built itself.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Measured>> {
    let other = bench.args.against.as_deref().context("--against names no program")?;
    let (schemas, large) = (bench.args.schemas(), bench.args.large());
    let shipped = bench.projects.shipped();
    let with_new_file = bench.projects.with_new_file();
    let backups = bench.projects.folder("builds")?.display().to_string();

    let fleet = |title: String, base: Base, project: &Path, args: &[&str]| {
        compare(bench, other, title, bench.args.rounds(), || {
            let copy = bench.copy(&bench.base(base)?)?;
            bench.seconds(bench.pricesync(project, &copy.name, args))
        })
    };
    let reading = |title: String, base: Base, args: &[&str]| {
        compare(bench, other, title, bench.args.repetitions(), || {
            bench.seconds(bench.pricesync(&shipped, &bench.base(base)?, args))
        })
    };
    let next = Cell::new(0);
    let one_tenant = |title: String, args: &dyn Fn(&str) -> Vec<String>| {
        let base = Base::Migrated(schemas);
        let ours = bench.copy(&bench.base(base)?)?;
        let theirs = bench.with_program(other, || bench.copy(&bench.base(base)?))?;
        compare(bench, other, title, bench.args.repetitions(), || {
            let copy: &Copy = if bench.is_other() { &theirs } else { &ours };
            let mut took = 0.0;
            for _ in 0..PROCESSES {
                next.set(next.get() + 1);
                let args = args(&slug(next.get()));
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                took += bench.seconds(bench.pricesync(&shipped, &copy.name, &args))?;
            }
            Ok(took)
        })
    };
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();

    let mut rows = vec![
        fleet(
            format!("every file on {schemas} empty schemas, by files"),
            Base::Empty(schemas),
            &shipped,
            &["migrate-schemas", "--no-template"],
        )?,
        fleet(
            format!("every file on {schemas} empty schemas, by template"),
            Base::Empty(schemas),
            &shipped,
            &["migrate-schemas"],
        )?,
        fleet(
            format!("one new file on {schemas} schemas"),
            Base::Migrated(schemas),
            &with_new_file,
            &["migrate-schemas"],
        )?,
    ];
    for base in [Base::Migrated(schemas), Base::Thin(large)] {
        let title = format!("nothing pending, {}", base.name());
        rows.push(reading(title, base, &["migrate-schemas"])?);
    }
    for args in [&["status"][..], &["list-tenants", "-o", "json"]] {
        rows.push(reading(format!("{}, {large} schemas", args[0]), Base::Thin(large), args)?);
    }
    rows.push(one_tenant("backup, five processes".to_owned(), &|slug| {
        words(&["backup", "--tenant", slug, "--out", &format!("{backups}/{}", bench.is_other())])
    })?);
    next.set(0);
    rows.push(one_tenant("drop-schema, five processes".to_owned(), &|slug| {
        words(&["drop-schema", "--tenant", slug, "--force"])
    })?);
    next.set(0);
    rows.push(one_tenant("create-tenant, five processes".to_owned(), &|slug| {
        let slug = format!("new-{slug}");
        let domain = format!("{slug}.example.com");
        words(&["create-tenant", "--name", &slug, "--slug", &slug, "--domain", &domain])
    })?);
    Ok(rows)
}

/// Runs one job with both builds in turns.
fn compare(
    bench: &Bench,
    other: &Path,
    title: String,
    rounds: usize,
    job: impl Fn() -> Result<f64>,
) -> Result<Measured> {
    let mut sides = [
        Side::new("other build", || bench.with_program(other, &job)),
        Side::new("this build", || bench.with_program(Path::new(PROGRAM), &job)),
    ];
    let samples = in_turns(rounds, &mut sides)?;
    Ok(Measured::new(bench, RowName::Builds, title, samples).ratio(
        "this build",
        "other build",
        Some(LIMIT),
    ))
}
