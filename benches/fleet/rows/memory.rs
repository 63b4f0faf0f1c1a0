//! Peak memory of the program and of the server's sessions.

use anyhow::Result;

use crate::args::RowName;
use crate::bench::Bench;
use crate::fleet::Base;
use crate::measure::{Bar, Measured, Samples, Unit};
use crate::memory::Backends;
use crate::process;

/// Limit for the program, whatever the size of the fleet.
const CLIENT: Bar = Bar::AtMost(64.0);

/// Limit for one session of the server.
const BACKEND: Bar = Bar::AtMost(150.0);

/// Measures fleets of growing size: nothing pending, and one new file.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Measured>> {
    let mut sizes = vec![bench.args.schemas(), bench.args.large()];
    if bench.args.full {
        sizes.push(50_000);
    }
    sizes.into_iter().map(|schemas| over(bench, schemas)).collect()
}

fn over(bench: &Bench, schemas: usize) -> Result<Measured> {
    let base = bench.base(Base::Thin(schemas))?;
    let copy = bench.copy(&base)?;
    let mut samples = Vec::new();
    let mut keep = |name: &str, value: Option<f64>| {
        samples.push(Samples { name: name.to_owned(), values: value.into_iter().collect() });
    };
    let shipped = bench.projects.shipped();
    let command = bench.pricesync(&shipped, &copy.name, &["migrate-schemas"]);
    let client = process::peak(command, &bench.log(), || {})?;
    keep("nothing pending", Some(client));
    let project = bench.projects.with_new_table();
    let command = bench.pricesync(&project, &copy.name, &["migrate-schemas"]);
    let mut backends = Backends::of(bench, &copy.name);
    let mut looks: u32 = 0;
    let client = process::peak(command, &bench.log(), || {
        // Sampling slows the server's processes down; one in sixteen is about thirty a second.
        if looks.is_multiple_of(16) {
            backends.look();
        }
        looks += 1;
    })?;
    keep("one new file", Some(client));
    keep("one new file, largest server session", backends.largest());
    let title = format!("peak memory over {schemas} schemas");
    let mut row = Measured::new(bench, RowName::Memory, title, samples)
        .note("schemas hold a history and nothing else; the new file makes a table");
    row.unit = Unit::Mebibytes;
    Ok(row
        .limit("nothing pending", CLIENT)
        .limit("one new file", CLIENT)
        .limit("one new file, largest server session", BACKEND))
}
