//! Options that override a setting of `[run]`.

use crate::settings::Overrides;

/// `--jobs`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct JobsArg {
    /// Schemas in parallel [default: auto] [env: PRICESYNC_JOBS]
    #[arg(short, long, value_name = "N")]
    jobs: Option<String>,
}

/// `--lock-timeout`.
#[derive(clap::Args, Debug)]
pub(crate) struct LockTimeoutArg {
    /// Lock timeout, 0: none [default: 2s] [env: PRICESYNC_LOCK_TIMEOUT]
    #[arg(long, value_name = "TIME")]
    lock_timeout: Option<String>,
}

/// `--lock-wait`.
#[derive(clap::Args, Debug)]
pub(crate) struct LockWaitArg {
    /// Time to wait for another run [default: 60s] [env: PRICESYNC_LOCK_WAIT]
    #[arg(long, value_name = "TIME")]
    lock_wait: Option<String>,
}

/// `--no-template`.
#[derive(clap::Args, Debug)]
pub(crate) struct TemplateArg {
    /// Run each file in empty schemas too [env: PRICESYNC_TEMPLATE=off]
    #[arg(long)]
    no_template: bool,
}

impl JobsArg {
    /// Records the option.
    pub(crate) fn override_settings(&self, overrides: &mut Overrides) {
        overrides.set("run.jobs", "--jobs", self.jobs.as_deref());
    }
}

impl LockTimeoutArg {
    /// Records the option.
    pub(crate) fn override_settings(&self, overrides: &mut Overrides) {
        let value = self.lock_timeout.as_deref();
        overrides.set("run.lock_timeout", "--lock-timeout", value);
    }
}

impl LockWaitArg {
    /// Records the option.
    pub(crate) fn override_settings(&self, overrides: &mut Overrides) {
        overrides.set("run.lock_wait", "--lock-wait", self.lock_wait.as_deref());
    }
}

impl TemplateArg {
    /// Records the option.
    pub(crate) fn override_settings(&self, overrides: &mut Overrides) {
        let off = self.no_template.then_some("off");
        overrides.set("run.template", "--no-template", off);
    }
}
