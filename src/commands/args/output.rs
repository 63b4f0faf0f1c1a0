//! `-o/--output` of the commands that print a listing.

use crate::ui::OutputFormat;

/// `-o/--output`.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct OutputArg {
    /// Format of the listing
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: OutputFormat,
}

impl OutputArg {
    /// Returns the format.
    pub(crate) fn format(self) -> OutputFormat {
        self.output
    }
}
