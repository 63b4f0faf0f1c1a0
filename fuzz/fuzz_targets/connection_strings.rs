#![no_main]

#[path = "../../tests/properties/entries/connection_strings.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entry::connection_strings(bytes));
