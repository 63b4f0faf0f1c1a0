//! Runs over many schemas: selection, stages, concurrency, failures, events and the summary.
//!
//! May import `domain`; knows no SQL, no driver, no file of the user and no terminal.
//! Start reading at [`fleet`] (one job in many schemas), then [`rollout`] (a run of migrations).

pub mod applied_scripts;
pub mod concurrency;
pub mod event;
pub mod exec_results;
pub mod failure;
pub mod fan_out;
pub mod fleet;
mod group_size;
pub mod rollout;
pub mod run_state;
pub mod selection;
pub mod stages;
pub mod summary;
