//! Use cases. Nothing here knows SQL, a driver, a folder or a terminal.

pub mod course;
pub mod event;
pub mod failure;
pub mod fan_out;
pub mod fleet;
mod grouping;
pub mod merge;
pub mod pace;
pub mod rollout;
pub mod scripts;
pub mod stages;
pub mod summary;
pub mod tenants;
