//! Events, outcomes and a terminal in memory for the unit tests of `ui`.
//! Imports `domain`, `service` and `ui`; compiled for tests only.
//! Start with `fixtures.rs`.

mod fixtures;
mod screen;

pub(super) use fixtures::*;
pub(super) use screen::{Closed, Screen, WIDTH};
