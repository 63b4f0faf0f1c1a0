//! What a schema is made of: its fingerprint, its definition as SQL, what depends on it and what names it.
//!
//! Imports `connection` and `transaction`. Start reading at [`fingerprint`].

pub(crate) mod ddl;
pub(crate) mod dependencies;
pub mod fingerprint;
pub(crate) mod name_references;
