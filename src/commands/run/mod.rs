//! What a running command uses: settings and connections, the reporter, signals, the stored record.
//! May import every room below `commands`, and no command.
//! Start with `app.rs`, then `jobs.rs`.

pub(crate) mod app;
pub(crate) mod jobs;
pub(crate) mod recorder;
pub(crate) mod reporter_task;
pub(crate) mod signals;
