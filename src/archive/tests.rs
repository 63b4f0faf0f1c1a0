use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;

fn header() -> Header {
    let raw = |text: &str| RawValue::from_string(text.to_owned()).expect("JSON");
    Header {
        tool: "pricesync".to_owned(),
        server_version: 150_018,
        taken_at: "2026-11-25T12:00:00Z".to_owned(),
        role: "postgres".to_owned(),
        slug: "acme".to_owned(),
        name: "Công ty \"Á\"\n-- end {}".to_owned(),
        schema: "tenant \"acme\"".to_owned(),
        tenant: raw("{\"id\":1,\"rate\":1.10}"),
        domains: raw("[]"),
        hosts: vec!["acme.test".to_owned()],
        migrations: vec![1, 20_261_123_101_500],
        fingerprint: "x".to_owned(),
        structure: vec!["relation a".to_owned()],
        mentions: Vec::new(),
        tenant_keys: vec![("a".to_owned(), "tenant".to_owned())],
        about_schema: Vec::new(),
    }
}

/// Rows longer and shorter than a portion, whose ends fall everywhere.
fn rows() -> Vec<u8> {
    let mut rows = b"\\\\.\n\\N\n".to_vec();
    for length in [0, 1, PORTION - 40, PORTION + 1, 2] {
        rows.extend(std::iter::repeat_n(b'x', length));
        rows.push(b'\n');
    }
    rows
}

const PORTION: usize = 64 << 10;

fn pieces() -> Vec<ArchivePart> {
    let head = |table: &str| {
        ArchivePart::Table(TableHead {
            table: table.to_owned(),
            columns: vec!["a\"b".to_owned(), "c".to_owned()],
        })
    };
    vec![
        ArchivePart::Sql(Section::Before, "CREATE TABLE \"products\" ();\n".to_owned()),
        head("products"),
        ArchivePart::Rows(rows()),
        ArchivePart::TableEnd,
        head("-- end {}"),
        ArchivePart::TableEnd,
        ArchivePart::Sql(Section::Sequences, String::new()),
        ArchivePart::Sql(Section::After, "\\.\n-- end {}\n".to_owned()),
    ]
}

fn written(folder: &Path) -> WrittenArchive {
    let mut writer = ArchiveWriter::create(&folder.join("acme.backup"), &header()).expect("new");
    for piece in pieces() {
        writer.write(&piece).expect("written");
    }
    let ending = Trailer {
        sequences: vec![SequenceRecord {
            sequence: "s".to_owned(),
            last_value: 7,
            is_called: true,
        }],
        ..Trailer::default()
    };
    writer.finish(ending).expect("finished")
}

/// Reads to the end: the rows of all tables, and what is said at the end.
fn read(path: &Path) -> Result<(Vec<u8>, Trailer), ArchiveError> {
    let mut reader = ArchiveReader::open(path)?;
    let mut rows = Vec::new();
    loop {
        match reader.next_part()? {
            Some(ArchivePart::Rows(some)) => rows.extend(some),
            Some(ArchivePart::End(ending)) => return Ok((rows, ending)),
            Some(_) => {}
            None => return Err(ArchiveError::damaged("no end")),
        }
    }
}

fn packed(path: &Path, text: &[u8]) {
    let mut to = zstd::Encoder::new(std::fs::File::create(path).expect("made"), 3).expect("zstd");
    to.write_all(text).expect("written");
    to.finish().expect("finished");
}

fn unpacked(path: &Path) -> Vec<u8> {
    zstd::decode_all(std::fs::File::open(path).expect("there")).expect("whole")
}

#[test]
fn what_is_written_is_read_again_and_only_its_owner_may() {
    let folder = tempfile::tempdir().expect("a folder");
    let written = written(folder.path());
    let mode = std::fs::metadata(&written.path).expect("there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let reader = ArchiveReader::open(&written.path).expect("readable");
    assert_eq!(reader.header().name, header().name);
    assert_eq!(reader.header().tenant.get(), "{\"id\":1,\"rate\":1.10}");
    let (read_rows, ending) = read(&written.path).expect("whole");
    assert_eq!(read_rows, rows());
    assert_eq!(ending, written.ending);
    assert_eq!(ending.rows(), 7);
    assert_eq!(ending.tables[1].rows, 0);
    assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 1);
}

#[test]
fn an_unfinished_backup_leaves_no_file_and_replaces_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("acme.backup");
    let writer = ArchiveWriter::create(&path, &header()).expect("new");
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 0);
    let late = ArchiveWriter::create(&path, &header()).expect("new");
    let first = written(folder.path());
    let bytes = std::fs::read(&first.path).expect("there");
    assert!(ArchiveWriter::create(&path, &header()).is_err());
    assert!(late.finish(Trailer::default()).is_err());
    assert_eq!(std::fs::read(&first.path).expect("there"), bytes);
}

#[test]
fn a_file_that_is_cut_anywhere_is_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let written = written(folder.path());
    let bytes = std::fs::read(&written.path).expect("there");
    for length in (0..bytes.len()).step_by(5) {
        let cut = folder.path().join("cut");
        std::fs::write(&cut, &bytes[..length]).expect("written");
        let error = read(&cut).expect_err("cut");
        let known = matches!(error, ArchiveError::Damaged(_) | ArchiveError::NotABackup);
        assert!(known, "{length}: {error:?}");
    }
}

#[test]
fn a_byte_that_changed_is_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let written = written(folder.path());
    let bytes = std::fs::read(&written.path).expect("there");
    let whole = read(&written.path).expect("whole");
    // In the packed file, and in the text, compressed again.
    for at in (0..bytes.len()).step_by(3) {
        let mut spoilt = bytes.clone();
        spoilt[at] ^= 1;
        let path = folder.path().join("spoilt");
        std::fs::write(&path, &spoilt).expect("written");
        // A changed bit that the frame does not use is harmless.
        assert!(read(&path).map_or(true, |read| read == whole), "{at}");
    }
    let text = unpacked(&written.path);
    let ends = text.len() - 900;
    let places =
        (0..text.len()).filter(|at| at % if (1000..ends).contains(at) { 9973 } else { 7 } == 0);
    for at in places {
        let mut spoilt = text.clone();
        spoilt[at] ^= 1;
        let path = folder.path().join("spoilt");
        packed(&path, &spoilt);
        assert!(read(&path).is_err(), "{at}");
    }
}

#[test]
fn wrong_lengths_are_damage_and_allocate_no_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("hostile");
    let begin = format!(
        "-- pricesync backup 1\n-- header {}\n",
        serde_json::to_string(&header()).expect("JSON")
    );
    for rest in [
        "-- section before 18446744073709551615\n",
        "-- section before 268435456\nshort",
        "-- section before -1\n",
        "-- section other 0\n",
        "-- table {\"table\":7}\n",
        "-- table {\"table\":\"a\",\"columns\":[]}\nCOPY\nno end",
        "-- end {\"tables\":[{\"table\":\"a\",\"rows\":9,\"bytes\":1,\"sha256\":\"\"}],\"sequences\":[],\"sha256\":\"\"}\n",
        "-- end {\"tables\":[],\"sequences\":[],\"sha256\":\"\"}\n",
        "DROP TABLE x;\n",
    ] {
        packed(&path, format!("{begin}{rest}").as_bytes());
        let error = read(&path).expect_err(rest);
        assert!(matches!(error, ArchiveError::Damaged(_)), "{rest}: {error:?}");
    }
    let mut to = zstd::Encoder::new(std::fs::File::create(&path).expect("made"), 3).expect("zstd");
    to.write_all(b"-- pricesync backup 1\n-- header ").expect("written");
    let zeros = vec![b'0'; 1 << 20];
    for _ in 0..300 {
        to.write_all(&zeros).expect("written");
    }
    to.finish().expect("finished");
    let error = read(&path).expect_err("too long");
    assert_eq!(error.to_string(), "it is damaged: a line is too long");
}

#[test]
fn other_files_and_newer_formats_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("other");
    for bytes in [&b""[..], b"PGDMP", b"-- PostgreSQL database dump"] {
        std::fs::write(&path, bytes).expect("written");
        assert!(matches!(read(&path), Err(ArchiveError::NotABackup)));
    }
    packed(&path, b"hello\n");
    assert!(matches!(read(&path), Err(ArchiveError::NotABackup)));
    packed(&path, b"-- pricesync backup 2\nwho knows\n");
    let error = read(&path).expect_err("newer");
    assert_eq!(
        error.to_string(),
        "its format 2 is newer than 1, the newest that this version reads"
    );
    assert!(matches!(read(&folder.path().join("none")), Err(ArchiveError::Io(_))));
}
