//! Nothing pending: the whole process, compared with psql and a trivial query.

use anyhow::Result;

use crate::args::RowName;
use crate::bench::Bench;
use crate::fleet::Base;
use crate::measure::{Bar, Measured, Side, in_turns};
use crate::process;

/// Measures an ordinary and a large fleet against `psql -c 'select 1'`.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Measured>> {
    let (schemas, large) = (bench.args.schemas(), bench.args.large());
    Ok(vec![
        over(bench, Base::Migrated(schemas), schemas, 3.0)?,
        over(bench, Base::Thin(large), large, 10.0)?,
    ])
}

fn over(bench: &Bench, base: Base, schemas: usize, bar: f64) -> Result<Measured> {
    let base = bench.base(base)?;
    bench.settle()?;
    let project = bench.projects.shipped();
    let mut sides = [
        Side::new("psql -c 'select 1'", || bench.seconds(bench.psql(&base, &["-c", "select 1"]))),
        Side::new("psql from PATH -c 'select 1'", || {
            let url = bench.url(&base);
            let mut command = process::command("psql");
            command.args(["-X", "-d", &url, "-c", "select 1"]);
            bench.seconds(command)
        }),
        Side::new("pricesync", || {
            bench.seconds(bench.pricesync(&project, &base, &["migrate-schemas"]))
        }),
    ];
    let samples = in_turns(bench.args.repetitions(), &mut sides)?;
    let title = format!("nothing pending in {schemas} schemas, whole process");
    Ok(Measured::new(bench, RowName::Idle, title, samples)
        .ratio("pricesync", "psql -c 'select 1'", Some(Bar::AtMost(bar)))
        .ratio("pricesync", "psql from PATH -c 'select 1'", None)
        .note("psql from PATH is Debian's script around psql where there is one"))
}
