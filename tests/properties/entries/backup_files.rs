//! Any text as the content of a backup file.

use std::io::Write as _;

use pricesync::archive::ArchiveReader;

/// Panics if reading the backup does, or if an error has no message.
pub fn backup_files(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    // Random bytes are rarely a zstd frame; a damaged frame is the business of its decoder.
    let packed = zstd::encode_all(bytes, 1).expect("memory is enough");
    file.write_all(&packed).expect("the disk has space");
    let parts = ArchiveReader::open(file.path()).and_then(|mut reader| {
        assert!(reader.header().major() < u32::MAX);
        while reader.next_part()?.is_some() {}
        Ok(())
    });
    if let Err(error) = parts {
        assert!(!error.to_string().is_empty());
    }
}
