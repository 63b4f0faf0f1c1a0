//! Options that divide a run into stages.

use std::time::Duration;

use crate::error::{Exit, Failure};
use crate::service::selection::Selection;
use crate::service::stages::{StageLimit, Stages};
use crate::settings;

/// `--canary`, `--batches`, `--pause`.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct RolloutArgs {
    /// Migrate these tenants first; if one fails, start no other
    #[arg(long, value_name = "TENANT", value_delimiter = ',', help_heading = "Stages")]
    canary: Vec<String>,
    /// Cumulative size of each stage, percent or number, such as 5%,25%
    #[arg(long, value_name = "SIZES", value_delimiter = ',', help_heading = "Stages")]
    batches: Vec<StageLimit>,
    /// Time between two stages, such as 2m
    #[arg(long, value_name = "TIME", value_parser = settings::duration, help_heading = "Stages")]
    pause: Option<Duration>,
}

impl RolloutArgs {
    /// Returns the stages.
    ///
    /// # Errors
    ///
    /// Exit 2 for stages that contradict each other.
    pub(crate) fn stages(&self) -> Result<Stages, Failure> {
        let stages = Stages {
            canary: Selection { include: self.canary.clone(), ..Selection::default() },
            batches: self.batches.clone(),
            pause: self.pause.unwrap_or_default(),
        };
        stages.check().map_err(|error| {
            Failure::words(Exit::Usage, error)
                .hint("for example: --canary acme --batches 5%,25% --pause 2m")
        })?;
        Ok(stages)
    }
}
