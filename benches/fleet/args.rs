//! What a person may ask of the benchmark.

use clap::{Parser, ValueEnum};

/// Measures pricesync beside the raw limit of the server and beside other tools.
#[derive(Debug, Parser)]
#[command(name = "fleet")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag that may be given or not"
)]
pub(crate) struct Args {
    /// Measure these rows only
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    pub(crate) only: Vec<RowName>,
    /// Smaller fleets and fewer rounds: a look, no proof
    #[arg(long)]
    pub(crate) quick: bool,
    /// Also what takes long: 50,000 tenants, django-tenants over 1,000
    #[arg(long, conflicts_with = "quick")]
    pub(crate) full: bool,
    /// Schemas in the rows that migrate a fleet [default: 1000, quick: 200]
    #[arg(long, value_name = "N")]
    schemas: Option<usize>,
    /// How often every candidate runs [default: 3, quick: 2]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Only with the server's stock settings, which wait for the disk
    #[arg(long, conflicts_with = "fast")]
    pub(crate) durable: bool,
    /// Only with fsync off
    #[arg(long)]
    pub(crate) fast: bool,
    /// Exit 3 when a bar is missed
    #[arg(long)]
    pub(crate) strict: bool,
    /// Said by cargo bench
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
    /// One tenant beside many
    Create,
    /// Nothing pending
    Idle,
    /// Other tools
    Peers,
    /// What lists the fleet
    Listings,
    /// Peak memory
    Memory,
    /// One tenant goes
    Drop,
    /// One tenant into a file
    Backup,
}

impl Args {
    /// Returns whether nothing of the ordinary run is left out or made smaller.
    pub(crate) fn is_everything(&self) -> bool {
        let as_usual = self.schemas.is_none() && self.rounds.is_none();
        as_usual && self.only.is_empty() && !self.quick && !self.durable && !self.fast
    }

    /// Returns how many schemas are migrated in the rows about a whole fleet.
    pub(crate) fn schemas(&self) -> usize {
        self.schemas.unwrap_or(if self.quick { 200 } else { 1_000 })
    }

    /// Returns how many tenants a new one finds there.
    pub(crate) fn neighbours(&self) -> usize {
        self.schemas() * 2
    }

    /// Returns the size of the large fleet, whose schemas hold a history and nothing else.
    pub(crate) fn large(&self) -> usize {
        if self.quick { 2_000 } else { 10_000 }
    }

    /// Returns how many schemas other tools migrate.
    pub(crate) fn for_peers(&self) -> usize {
        self.schemas().min(if self.quick { 20 } else { 100 })
    }

    /// Returns how often every candidate of a long row runs.
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 3 }).max(1)
    }

    /// Returns how often every candidate of a row in milliseconds runs.
    pub(crate) fn repetitions(&self) -> usize {
        if self.quick { 7 } else { 21 }
    }
}
