//! Other tools on the same schemas.

use anyhow::Result;

use crate::args::RowName;
use crate::bench::Bench;
use crate::files::tenant_files;
use crate::fleet::{Base, schema};
use crate::measure::{Bar, Measured, Side, in_turns};
use crate::peers::{Missing, dbmate, django::Django, psql};
use crate::raw;

/// Connections of the raw limit, which is only an orientation here.
const RAW: usize = 4;

/// Measures a small fleet, and with `--full` a run of django-tenants with nothing pending.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Measured>> {
    // The project is written once.
    let django = Django::install(bench);
    let mut rows = vec![cold(bench, &django)?];
    if bench.args.full {
        rows.push(idle(bench, &django)?);
    }
    Ok(rows)
}

fn cold(bench: &Bench, django: &Result<Django, Missing>) -> Result<Measured> {
    let count = bench.args.for_peers();
    let base = bench.base(Base::Empty(count))?;
    let files = tenant_files()?;
    let schemas: Vec<String> = (1..=count).map(schema).collect();
    let newest = files.last().map_or(0, |file| file.version);
    let project = bench.projects.shipped();
    let mut absent = Vec::new();
    let django = kept("django-tenants", django.as_ref(), &mut absent);
    let dbmate = dbmate::install();
    let dbmate = kept("dbmate", dbmate.as_ref(), &mut absent);

    let mut sides = vec![
        Side::new("raw, 4 connections", || {
            let copy = bench.copy(&base)?;
            let messages = schemas.iter().map(|schema| raw::cold(schema, &files));
            let took = raw::seconds(bench, &copy.name, RAW, messages.collect())?;
            copy.expect(newest, count)?;
            Ok(took)
        }),
        Side::new("pricesync", || {
            let copy = bench.copy(&base)?;
            let command = bench.pricesync(&project, &copy.name, &["migrate-schemas"]);
            let took = bench.seconds(command)?;
            copy.expect(newest, count)?;
            Ok(took)
        }),
        Side::new("xargs -P4 psql -1 (no history)", || {
            let copy = bench.copy(&base)?;
            bench.seconds(psql::cold(bench, &copy.name, &schemas)?)
        }),
    ];
    if let Some(program) = dbmate {
        sides.push(Side::new("xargs -P4 dbmate", || {
            let copy = bench.copy(&base)?;
            let took = bench.seconds(dbmate::cold(program, bench, &copy.name, &schemas)?)?;
            expect_column(bench, &copy.name, count)?;
            Ok(took)
        }));
    }
    if let Some(django) = django {
        for executor in ["multiprocessing", "standard"] {
            let name = format!("django-tenants {executor}");
            let base = &base;
            sides.push(Side::new(&name, move || {
                let copy = bench.copy(base)?;
                let took = bench.seconds(django.migrate(bench, &copy.name, executor))?;
                expect_column(bench, &copy.name, count)?;
                Ok(took)
            }));
        }
    }
    let samples = in_turns(bench.args.rounds(), &mut sides)?;
    drop(sides);
    let title = format!("{} files on {count} empty schemas, beside other tools", files.len());
    let mut row = Measured::new(bench, RowName::Peers, title, samples)
        .ratio("django-tenants multiprocessing", "pricesync", Some(Bar::AtLeast(18.0)))
        .ratio("xargs -P4 dbmate", "pricesync", Some(Bar::AtLeast(2.2)))
        .ratio("pricesync", "raw, 4 connections", None);
    row.notes.extend(absent);
    Ok(row)
}

fn idle(bench: &Bench, django: &Result<Django, Missing>) -> Result<Measured> {
    let count = bench.args.schemas();
    let base = bench.base(Base::Empty(count))?;
    let copy = bench.copy(&base)?;
    let migrated = bench.base(Base::Migrated(count))?;
    let mut absent = Vec::new();
    let django = kept("django-tenants", django.as_ref(), &mut absent);
    let project = bench.projects.shipped();
    let mut sides = vec![Side::new("pricesync", || {
        bench.seconds(bench.pricesync(&project, &migrated, &["migrate-schemas"]))
    })];
    let mut samples = in_turns(bench.args.repetitions(), &mut sides)?;
    if let Some(django) = django {
        // Migrates everything, so that nothing is pending.
        bench.seconds(django.migrate(bench, &copy.name, "multiprocessing"))?;
        for executor in ["multiprocessing", "standard"] {
            let name = format!("django-tenants {executor}");
            let run = || bench.seconds(django.migrate(bench, &copy.name, executor));
            samples.extend(in_turns(1, &mut [Side::new(&name, run)])?);
        }
    }
    let title = format!("nothing pending in {count} schemas, beside django-tenants");
    let mut row = Measured::new(bench, RowName::Peers, title, samples)
        .ratio("django-tenants standard", "pricesync", Some(Bar::AtLeast(1_000.0)))
        .ratio("django-tenants multiprocessing", "pricesync", None)
        .note("django-tenants ran once");
    row.notes.extend(absent);
    Ok(row)
}

/// Fails unless the last schema has the column that the last file adds.
fn expect_column(bench: &Bench, database: &str, schemas: usize) -> Result<()> {
    let sql = format!("SELECT count(locale) FROM {}.users", schema(schemas));
    bench.run(database, &sql)
}

fn kept<T>(name: &str, tool: Result<T, &Missing>, absent: &mut Vec<String>) -> Option<T> {
    tool.inspect_err(|missing| absent.push(format!("{name} not installed: {}", missing.0))).ok()
}
