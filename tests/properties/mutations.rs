//! The functions of the fuzz targets on inputs that are nearly right.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::entries::backup_files::backup_files;
use crate::entries::connection_strings::connection_strings;
use crate::entries::directives::directives;
use crate::entries::file_names::file_names;
use crate::entries::server_answers::server_answers;
use crate::entries::sql_text::sql_text;
use crate::holds;

const FILE_NAMES: &[&str] = &[
    "V1__products.sql",
    "U20261123101500__thêm_giá.sql",
    "V9223372036854775807__x.sql",
    "|1__x.sql",
    "v07_orders.up.SQL",
];

const CONNECTION_STRINGS: &[&str] = &[
    "postgresql://me:p%40ss@[::1]:5432,h2/shop?sslmode=verify-full&target_session_attrs=read-write",
    "postgres://%2Frun%2Fpg/shop?options=-c%20a%3Db",
    "host=h,h2 port=5432,5433 user='m\\'e' password = x dbname=shop connect_timeout=3",
    "host=/run/pg hostaddr=127.0.0.1 sslmode=require application_name='a b'",
];

const DIRECTIVES: &[&str] = &[
    " no-transaction",
    " allow not-null-without-default, drop-column: the column is new",
    " allow\u{a0}drop-table",
    "no-transaction -- pricesync: no-transaction",
];

const SQL: &[&str] = &[
    "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY i ON a (id);\nVACUUM a;\n",
    "\u{feff}CREATE TABLE a (id int, \"ô\"\"b\" text DEFAULT E'it\\'s; ');\r\nCOMMENT ON TABLE a IS $q$; $q$;\r\n",
    "DO $seal0$ BEGIN EXECUTE $file0$ COMMIT $file0$; END $seal0$; SELECT $1 /* /* ; */ */ ;;",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SET search_path = x",
    "SELECT U&'\\0061' UESCAPE '!' , x'1F', 1.5e-3::numeric <@ a.b[1:2] -- \n; COPY a FROM STDIN;\n1\n\\.\n",
];

const BACKUPS: &[&str] = &[
    "-- pricesync backup 1\n-- header {\"tool\":\"pricesync 0.1.0\",\"server_version\":150018,\"taken_at\":\"2026-12-01T00:00:00Z\",\"role\":\"me\",\"slug\":\"acme\",\"name\":\"Acme\",\"schema\":\"acme\",\"tenant\":{\"id\":1},\"domains\":[],\"hosts\":[\"a.test\"],\"migrations\":[1],\"fingerprint\":\"f\",\"structure\":[],\"mentions\":[],\"about_schema\":[]}\n\
     -- section before 19\nCREATE TABLE a ();\n\n-- table {\"table\":\"a\",\"columns\":[\"id\"]}\nCOPY \"a\" (\"id\") FROM stdin;\n1\n\\.\n-- section sequences 0\n-- section after 0\n\
     -- end {\"tables\":[{\"table\":\"a\",\"rows\":1,\"bytes\":2,\"sha256\":\"\"}],\"sha256\":\"\"}\n",
];

const SERVER_ANSWERS: &[&str] = &[
    "150018\tf\tf\t90\tme\tt\x1e1\x1e1\t2\x1eacme\tt\x1e0\t1\tproducts\t2026-12-01T00:00:00Z\t123\x1e1\tAcme\tacme\tacme\t\\N\ta.test",
    "E28000no such role\x1eE57P03starting up\x1e!Z\0\0\0\x05I",
];

/// A change of a text at a place: bytes that are taken out, and others that are put in.
fn change() -> impl Strategy<Value = (Index, usize, Vec<u8>)> {
    let bytes = prop_oneof![
        3 => select(b"\0\n\r ;:'\"$-/*\\%@=,._|VU1\xc3\xa9\xff".as_slice()).prop_map(|byte| vec![byte]),
        1 => vec(any::<u8>(), 0..4),
        1 => select(["--", "/*", "$$", "$file0$", "%00", "://", "__", ".sql", "COMMIT;", "-- pricesync:"].as_slice())
            .prop_map(|text| text.as_bytes().to_vec()),
    ];
    (any::<Index>(), 0_usize..4, bytes)
}

fn mutated(seeds: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    (select(seeds), vec(change(), 0..6)).prop_map(|(seed, changes)| {
        let mut bytes = seed.as_bytes().to_vec();
        for (place, removed, added) in changes {
            let from = place.index(bytes.len() + 1);
            let to = bytes.len().min(from + removed);
            bytes.splice(from..to, added);
        }
        bytes
    })
}

fn none_panics(what: &str, seeds: &'static [&'static str], entry: fn(&[u8])) {
    holds(what, [1_000, 100_000], &mutated(seeds), |bytes| {
        entry(&bytes);
        Ok(())
    });
}

#[test]
fn spoilt_file_names_are_read_or_refused() {
    none_panics("spoilt file names", FILE_NAMES, file_names);
}

#[test]
fn spoilt_connection_strings_are_read_or_refused() {
    none_panics("spoilt connection strings", CONNECTION_STRINGS, connection_strings);
}

#[test]
fn spoilt_directives_are_read_or_refused() {
    none_panics("spoilt directives", DIRECTIVES, directives);
}

#[test]
fn spoilt_sql_is_read_or_refused() {
    none_panics("spoilt SQL", SQL, sql_text);
}

#[test]
fn spoilt_backups_are_read_or_refused() {
    none_panics("spoilt backups", BACKUPS, backup_files);
}

#[test]
fn spoilt_server_answers_are_read_or_refused() {
    none_panics("spoilt server answers", SERVER_ANSWERS, server_answers);
}

#[test]
#[ignore = "writes files into fuzz/corpus, for make fuzz"]
fn write_seeds() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, seeds) in [
        ("file_names", FILE_NAMES),
        ("connection_strings", CONNECTION_STRINGS),
        ("directives", DIRECTIVES),
        ("sql_text", SQL),
        ("backup_files", BACKUPS),
        ("server_answers", SERVER_ANSWERS),
    ] {
        std::fs::create_dir_all(corpus.join(target)).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(corpus.join(target).join(format!("seed-{number}")), seed).unwrap();
        }
    }
}
