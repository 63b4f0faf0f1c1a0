//! `-o/--output` of the commands that print a listing.

use clap::ValueEnum;

use crate::ui::OutputFormat;

/// `-o/--output`.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct OutputArg {
    /// Format of the listing
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// The formats of a listing.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    /// A table for people
    #[default]
    Table,
    /// One JSON document
    Json,
    /// CSV with a header
    Csv,
    /// One name a line, for xargs
    Names,
}

impl OutputArg {
    /// Returns the format.
    pub(crate) fn format(self) -> OutputFormat {
        match self.output {
            Output::Table => OutputFormat::Table,
            Output::Json => OutputFormat::Json,
            Output::Csv => OutputFormat::Csv,
            Output::Names => OutputFormat::Names,
        }
    }
}
