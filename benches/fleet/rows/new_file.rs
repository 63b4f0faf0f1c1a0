//! One new file on a fleet that has all the others.

use anyhow::Result;

use crate::args::RowName;
use crate::bench::Bench;
use crate::files;
use crate::fleet::{Base, schema};
use crate::measure::{Bar, Measured, Side, in_turns};
use crate::raw;

/// Measures pricesync against the raw limit.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Measured>> {
    let schemas = bench.args.schemas();
    let base = bench.base(Base::Migrated(schemas))?;
    let file = files::new_file()?;
    let messages: Vec<String> =
        (1..=schemas).map(|number| raw::one_more(&schema(number), &file)).collect();
    let (connections, tried) = {
        let some = schemas.div_ceil(4);
        let small = bench.base(Base::Migrated(some))?;
        raw::best_connections(bench, &small, &messages[..some])?
    };
    let pricesync = |args: &[&str]| {
        let copy = bench.copy(&base)?;
        let project = bench.projects.with_new_file();
        let args = [&["migrate-schemas"], args].concat();
        let took = bench.seconds(bench.pricesync(&project, &copy.name, &args))?;
        copy.expect(file.version, schemas)?;
        Ok(took)
    };
    let mut sides = [
        Side::new("raw", || {
            let copy = bench.copy(&base)?;
            let took = raw::seconds(bench, &copy.name, connections, messages.clone())?;
            copy.expect(file.version, schemas)?;
            Ok(took)
        }),
        Side::new("pricesync", || pricesync(&[])),
        Side::new("pricesync --group-size 1", || pricesync(&["--group-size", "1"])),
    ];
    let samples = in_turns(bench.args.rounds(), &mut sides)?;
    let title = format!("one new file (column and index) on {schemas} migrated schemas");
    Ok(vec![
        Measured::new(bench, RowName::NewFile, title, samples)
            .ratio("pricesync", "raw", Some(Bar::AtMost(1.25)))
            .ratio("pricesync --group-size 1", "raw", None)
            .note(tried),
    ])
}
