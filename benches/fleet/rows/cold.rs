//! All files on empty schemas: the shipped files, and files of tables that changed often.

use std::path::Path;

use anyhow::Result;

use crate::args::RowName;
use crate::bench::Bench;
use crate::files::{File, aged_files, tenant_files};
use crate::fleet::{Base, schema};
use crate::measure::{Bar, Measured, Side, in_turns};
use crate::raw;

/// Measures both sets; the longer one on a quarter of the schemas and only with fsync off.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Measured>> {
    let schemas = bench.args.schemas();
    let shipped = of(bench, &bench.projects.shipped(), &tenant_files()?, schemas)?;
    let mut rows =
        vec![shipped.ratio("pricesync --no-template", "raw", Some(Bar::AtMost(1.15))).ratio(
            "pricesync",
            "raw",
            Some(Bar::AtMost(0.75)),
        )];
    if !bench.is_durable() {
        let few = schemas.div_ceil(4);
        let aged = of(bench, &bench.projects.aged(), &aged_files()?, few)?;
        rows.push(aged.ratio("pricesync --no-template", "raw", None).ratio(
            "pricesync",
            "raw",
            None,
        ));
    }
    Ok(rows)
}

/// Measures pricesync, with and without templates, against the raw limit.
fn of(bench: &Bench, project: &Path, files: &[File], schemas: usize) -> Result<Measured> {
    let base = bench.base(Base::Empty(schemas))?;
    let newest = files.last().map_or(0, |file| file.version);
    let messages: Vec<String> =
        (1..=schemas).map(|number| raw::cold(&schema(number), files)).collect();
    let (connections, tried) = {
        let some = schemas.div_ceil(4);
        let small = bench.base(Base::Empty(some))?;
        raw::best_connections(bench, &small, &messages[..some])?
    };

    let pricesync = |args: &'static [&'static str]| {
        let base = &base;
        move || {
            let copy = bench.copy(base)?;
            let args = [&["migrate-schemas"], args].concat();
            let took = bench.seconds(bench.pricesync(project, &copy.name, &args))?;
            copy.expect(newest, schemas)?;
            Ok(took)
        }
    };
    let mut sides = vec![Side::new("raw", || {
        let copy = bench.copy(&base)?;
        let took = raw::seconds(bench, &copy.name, connections, messages.clone())?;
        copy.expect(newest, schemas)?;
        Ok(took)
    })];
    if bench.has_templates() {
        sides.push(Side::new("pricesync --no-template", pricesync(&["--no-template"])));
        sides.push(Side::new("pricesync", pricesync(&[])));
    } else {
        sides.push(Side::new("pricesync --no-template", pricesync(&[])));
    }
    let samples = in_turns(bench.args.rounds(), &mut sides)?;
    drop(sides);
    let title = format!("{} files on {schemas} empty schemas", files.len());
    let mut row = Measured::new(bench, RowName::Cold, title, samples).note(tried);
    if !bench.has_templates() {
        row =
            row.note("this build has no --no-template: what it does by default is the first line");
    }
    Ok(row)
}
