//! Everything a person or a script reads.
