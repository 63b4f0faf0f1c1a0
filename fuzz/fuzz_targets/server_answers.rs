#![no_main]

#[path = "../../tests/properties/entries/server_answers.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entry::server_answers(bytes));
