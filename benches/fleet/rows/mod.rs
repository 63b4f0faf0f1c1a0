//! The rows of the report, one file each.

mod backup;
mod builds;
mod cold;
mod create;
mod drop;
mod idle;
mod listings;
mod memory;
mod new_file;
mod peers;

use anyhow::Result;
use clap::ValueEnum as _;

use crate::args::{Args, RowName};
use crate::bench::Bench;
use crate::measure::Measured;

/// Returns the selected rows, in the order of the report.
pub(crate) fn chosen(args: &Args) -> Vec<RowName> {
    if args.against.is_some() {
        return vec![RowName::Builds];
    }
    let mut rows = RowName::value_variants().to_vec();
    rows.retain(|row| args.only.is_empty() || args.only.contains(row));
    rows
}

impl RowName {
    /// Returns the modes of the row, `true` for durable; both if the disk matters.
    pub(crate) fn modes(self, args: &Args) -> &'static [bool] {
        let waits = matches!(self, Self::Cold | Self::NewFile | Self::Create | Self::Drop);
        match (args.durable, args.fast) {
            (true, _) => &[true],
            (_, true) => &[false],
            _ if waits => &[false, true],
            _ => &[false],
        }
    }

    /// Measures the row.
    pub(crate) fn measure(self, bench: &Bench) -> Result<Vec<Measured>> {
        match self {
            Self::Cold => cold::measure(bench),
            Self::NewFile => new_file::measure(bench),
            Self::Create => create::measure(bench),
            Self::Idle => idle::measure(bench),
            Self::Peers => peers::measure(bench),
            Self::Listings => listings::measure(bench),
            Self::Memory => memory::measure(bench),
            Self::Drop => drop::measure(bench),
            Self::Backup => backup::measure(bench),
            Self::Builds => builds::measure(bench),
        }
    }

    /// Returns the row's name for `--only`.
    pub(crate) fn key(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(|| "builds".to_owned(), |value| value.get_name().to_owned())
    }
}
