//! SQL as text: tokens, statements, positions, directives, and what a statement's keywords say.
//!
//! May import: `domain`. Knows neither files nor what is forbidden.
//! Start reading at: `lexer.rs`, then `split.rs`.

pub(crate) mod catalogs;
pub(crate) mod code;
pub(crate) mod directives;
pub(crate) mod do_block;
pub(crate) mod keywords;
pub(crate) mod lexer;
pub(crate) mod parser;
pub(crate) mod position;
pub(crate) mod relations;
pub(crate) mod split;
pub(crate) mod where_clause;
