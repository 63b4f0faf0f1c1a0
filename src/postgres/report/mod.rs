//! Reports about the fleet: who holds locks, which schemas differ, what a migration would cost.
//!
//! Imports every room of `postgres` but `backup` and `client`. Start reading at [`drift`].

pub mod contents;
pub mod drift;
pub mod lint_cost;
pub mod locks;
