//! The only SQL, and the only driver.

pub mod conninfo;
pub mod tls;
