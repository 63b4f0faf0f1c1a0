//! The options that choose tenants, the same wherever a command works on several.

use crate::service::tenants::Selection;

/// Which tenants.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct SelectArgs {
    /// Only these: slug, schema or host, or a glob over them such as 'a*'
    #[arg(
        long = "tenant",
        short = 't',
        value_name = "TENANT",
        value_delimiter = ',',
        help_heading = "Selection"
    )]
    pub(super) tenants: Vec<String>,
    /// All but these
    #[arg(
        long,
        value_name = "TENANT",
        value_delimiter = ',',
        help_heading = "Selection"
    )]
    pub(super) exclude: Vec<String>,
}

impl SelectArgs {
    /// Returns the selection that was typed.
    #[must_use]
    pub(super) fn selection(&self) -> Selection {
        Selection {
            include: self.tenants.clone(),
            exclude: self.exclude.clone(),
        }
    }
}
