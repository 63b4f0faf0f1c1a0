//! The options that cut a run into stages.

use std::time::Duration;

use crate::error::{Exit, Failure};
use crate::service::selection::Selection;
use crate::service::stages::{StageLimit, Stages};
use crate::settings;

/// In which stages.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct StageArgs {
    /// These tenants first, alone; when one of them fails nothing else is begun
    #[arg(
        long,
        value_name = "TENANT",
        value_delimiter = ',',
        help_heading = "Stages"
    )]
    canary: Vec<String>,
    /// How far each stage goes, such as 5%,25%: of the tenants with something to do, or a number of them
    #[arg(
        long,
        value_name = "SIZES",
        value_delimiter = ',',
        help_heading = "Stages"
    )]
    batches: Vec<StageLimit>,
    /// How long to wait between two stages, such as 2m
    #[arg(long, value_name = "TIME", value_parser = settings::duration, help_heading = "Stages")]
    pause: Option<Duration>,
}

impl StageArgs {
    /// Returns the stages that were typed.
    ///
    /// # Errors
    ///
    /// Exit 2 for stages that make no sense together.
    pub(crate) fn stages(&self) -> Result<Stages, Failure> {
        let stages = Stages {
            canary: Selection {
                include: self.canary.clone(),
                ..Selection::default()
            },
            batches: self.batches.clone(),
            pause: self.pause.unwrap_or_default(),
        };
        stages.check().map_err(|error| {
            Failure::new(Exit::Usage, error)
                .hint("for example: --canary acme --batches 5%,25% --pause 2m")
        })?;
        Ok(stages)
    }
}
