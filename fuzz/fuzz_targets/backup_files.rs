#![no_main]

#[path = "../../tests/properties/entries/backup_files.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entry::backup_files(bytes));
