#![no_main]

#[path = "../../tests/properties/entries/sql_text.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entry::sql_text(bytes));
