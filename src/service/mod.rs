//! Use cases. Nothing here knows SQL, a driver, a folder or a terminal.

pub mod event;
pub mod fleet;
pub mod rollout;
pub mod tenants;
