#![no_main]

#[path = "../../tests/properties/entries/directives.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entry::directives(bytes));
