//! The tests that need a real server: one binary, one module per subject.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod examples;
mod local_server;
mod local_server_dies;
mod picture;
mod readme;
mod support;
