#![no_main]

#[path = "../../tests/properties/entries/file_names.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entry::file_names(bytes));
