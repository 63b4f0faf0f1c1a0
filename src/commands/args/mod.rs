//! Options that several commands share, and what is read from them.
//! May import clap, `domain`, `migrations`, `service`, `settings`, `postgres` and `error`; no command.
//! Start with `select.rs`, which chooses tenants.

pub(crate) mod rollout;
pub(crate) mod select;
pub(crate) mod template;
pub(crate) mod tenant;
