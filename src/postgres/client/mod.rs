//! Work in tenants on a user's behalf: SQL of `exec`, programs, psql and `pg_dump`.
//!
//! Imports every room of `postgres` but `backup` and `report`. Start reading at [`exec_sql`].

pub mod environment;
pub mod exec_program;
pub mod exec_sql;
pub mod pg_dump;
pub mod psql;
