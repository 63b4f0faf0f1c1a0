//! The pricesync command.

fn main() {}
