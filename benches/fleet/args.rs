//! Command-line options of the benchmark.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures pricesync against the raw limit of the server and other tools.
#[derive(Debug, Parser)]
#[command(name = "fleet")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that may be given or not")]
pub(crate) struct Args {
    /// Measure only these rows
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    pub(crate) only: Vec<RowName>,
    /// Use smaller fleets and fewer rounds, for a first impression
    #[arg(long)]
    pub(crate) quick: bool,
    /// Also measure slow rows: 50,000 tenants, django-tenants with 1,000
    #[arg(long, conflicts_with = "quick")]
    pub(crate) full: bool,
    /// Schemas in the rows that migrate a fleet [default: 1000, quick: 200]
    #[arg(long, value_name = "N")]
    schemas: Option<usize>,
    /// Runs of each candidate [default: 3, quick: 2]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Measure only with default settings of the server, which wait for the disk
    #[arg(long, conflicts_with = "fast")]
    pub(crate) durable: bool,
    /// Measure only with fsync off
    #[arg(long)]
    pub(crate) fast: bool,
    /// Compare with this build of pricesync, in turns; measures only the row `builds`
    #[arg(long, value_name = "PROGRAM", conflicts_with = "only")]
    pub(crate) against: Option<PathBuf>,
    /// Exit with 3 if a ratio exceeds its limit
    #[arg(long)]
    pub(crate) strict: bool,
    /// Passed by cargo bench
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

/// The rows of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowName {
    /// Every file on empty schemas
    Cold,
    /// One new file on migrated schemas
    NewFile,
    /// Creating one tenant next to many
    Create,
    /// Nothing pending
    Idle,
    /// Other tools
    Peers,
    /// Listings of the fleet
    Listings,
    /// Peak memory
    Memory,
    /// Dropping one tenant
    Drop,
    /// Backing up one tenant
    Backup,
    /// Another build of pricesync, given by `--against`
    #[value(skip)]
    Builds,
}

impl Args {
    /// Returns whether this is a complete run with default sizes.
    pub(crate) fn is_everything(&self) -> bool {
        let as_usual = self.schemas.is_none() && self.rounds.is_none() && self.against.is_none();
        as_usual && self.only.is_empty() && !self.quick && !self.durable && !self.fast
    }

    /// Returns the number of schemas in the rows that migrate a fleet.
    pub(crate) fn schemas(&self) -> usize {
        self.schemas.unwrap_or(if self.quick { 200 } else { 1_000 })
    }

    /// Returns the number of tenants that exist when one is created.
    pub(crate) fn neighbours(&self) -> usize {
        self.schemas() * 2
    }

    /// Returns the size of the large fleet, whose schemas contain only a history.
    pub(crate) fn large(&self) -> usize {
        if self.quick { 2_000 } else { 10_000 }
    }

    /// Returns the number of schemas that other tools migrate.
    pub(crate) fn for_peers(&self) -> usize {
        self.schemas().min(if self.quick { 20 } else { 100 })
    }

    /// Returns the number of runs of each candidate of a slow row.
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 3 }).max(1)
    }

    /// Returns the number of runs of each candidate of a row that takes milliseconds.
    pub(crate) fn repetitions(&self) -> usize {
        if self.quick { 7 } else { 21 }
    }
}
