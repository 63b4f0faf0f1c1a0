//! One migration file: its name, its text, its statements, and where in it something is.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use refinery::Migration;

use super::seal::{NO_TRANSACTION, refusals};
use super::tokens::{self, split};
use crate::domain::script::{Place, Prefix, Scope, ScriptId};

/// Larger files are refused; the server keeps a whole message in memory several times.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// Whether a file runs in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// Together with its history row, and with other files.
    Inside,
    /// Statement by statement: `-- pricesync: no-transaction`.
    Outside,
}

/// Who guarantees that a file does not end the transaction that it runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// The parser understood the file, and there is nothing of the kind in it.
    Parsed,
    /// The server: the file runs inside `DO ... EXECUTE`, where such statements are errors.
    Server,
}

/// One statement of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its bytes in the text, without the semicolon.
    pub range: Range<usize>,
    builds: Option<String>,
}

impl Statement {
    /// Returns the index that the statement builds concurrently, if it does and names it.
    #[must_use]
    pub fn concurrent_index(&self) -> Option<String> {
        self.builds.clone()
    }
}

/// One migration file.
#[derive(Clone, Debug)]
pub struct Script {
    /// Version, name, checksums.
    pub id: ScriptId,
    /// Its file, as people are told it.
    pub path: PathBuf,
    /// The text, without a byte order mark and with line feeds as line ends.
    pub text: String,
    /// Whether it runs in a transaction.
    pub transaction: Transaction,
    /// Who guarantees that it stays in it.
    pub seal: Seal,
    /// Its statements; none are known where the server seals it.
    pub statements: Vec<Statement>,
    pub(crate) refinery: Migration,
}

/// Why a file cannot be a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The file or folder.
    pub path: PathBuf,
    /// Line and column, where it is about a place in the file.
    pub place: Option<(usize, usize)>,
    /// What is wrong, and what to do.
    pub why: String,
}

impl LoadError {
    pub(super) fn new(path: &Path, why: impl Into<String>) -> Self {
        Self {
            path: path.to_path_buf(),
            place: None,
            why: why.into(),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.why)
    }
}

impl std::error::Error for LoadError {}

impl Script {
    /// Reads a file's name and content.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn parse(path: &Path, bytes: &[u8], scope: Scope) -> Result<Self, Vec<LoadError>> {
        let one = |why: String| vec![LoadError::new(path, why)];
        let file_name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let (prefix, version, name) = parse_name(file_name).map_err(one)?;
        if bytes.len() > MOST_BYTES {
            return Err(one(format!(
                "has {} bytes; at most {MOST_BYTES} can be run as one file",
                bytes.len()
            )));
        }
        let raw = std::str::from_utf8(bytes).map_err(|error| {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let line = good.matches('\n').count() + 1;
            one(format!("line {line} is not UTF-8; save the file as UTF-8"))
        })?;
        if let Some(at) = raw.find('\0') {
            let line = raw[..at].matches('\n').count() + 1;
            return Err(one(format!(
                "line {line} holds a NUL byte, which no SQL text may"
            )));
        }
        let text = raw
            .strip_prefix('\u{feff}')
            .unwrap_or(raw)
            .replace("\r\n", "\n");
        let transaction = directive(&text).map_err(|(line, why)| {
            vec![LoadError {
                place: Some((line, 1)),
                ..LoadError::new(path, why)
            }]
        })?;
        let refinery_name = format!("{prefix}{version}__{name}");
        let unapplied = |sql: &str| {
            Migration::unapplied(&refinery_name, sql)
                .expect("our rule for names is stricter than refinery's")
        };
        let refinery = unapplied(&text);
        let split = split(&text);
        if transaction == Transaction::Outside && !split.understood {
            return Err(one(format!(
                "holds SQL that pricesync's parser does not know, so it cannot be split into statements; move that part to a file without '{NO_TRANSACTION}'"
            )));
        }
        let refused: Vec<LoadError> =
            refusals(&split.statements, split.understood, scope, transaction)
                .into_iter()
                .map(|refusal| {
                    let place = place_at(&text, refusal.at);
                    LoadError {
                        place: Some((place.line, place.column.unwrap_or(1))),
                        ..LoadError::new(path, refusal.why)
                    }
                })
                .collect();
        if !refused.is_empty() {
            return Err(refused);
        }
        Ok(Self {
            id: ScriptId {
                prefix,
                version,
                name,
                checksum: refinery.checksum(),
                raw_checksum: unapplied(raw).checksum(),
            },
            path: path.to_path_buf(),
            transaction,
            seal: if split.understood {
                Seal::Parsed
            } else {
                Seal::Server
            },
            statements: if split.understood {
                split.statements.iter().map(statement).collect()
            } else {
                Vec::new()
            },
            text,
            refinery,
        })
    }

    /// Returns the place of the server's error position: a character of the text, from 1.
    #[must_use]
    pub fn place(&self, position: usize) -> Place {
        let bytes = self
            .text
            .char_indices()
            .nth(position.saturating_sub(1))
            .map_or(self.text.len(), |(at, _)| at);
        place_at(&self.text, bytes)
    }

    /// Returns the line on which a statement begins, counted from 0.
    #[must_use]
    pub fn place_of_statement(&self, index: usize) -> Option<Place> {
        let statement = self.statements.get(index)?;
        Some(Place {
            column: None,
            ..place_at(&self.text, statement.range.start)
        })
    }

    /// Returns the text inside a block in which the server refuses transaction control, and
    /// how many characters stand before the text.
    #[must_use]
    pub fn sealed_sql(&self) -> (String, usize) {
        let tag = |base: &str| {
            let mut tag = format!("${base}$");
            while self.text.contains(&tag) {
                tag.insert(1, '_');
            }
            tag
        };
        let (outer, inner) = (tag("pricesync_block"), tag("pricesync_file"));
        let before = format!("DO {outer} BEGIN EXECUTE {inner}");
        let characters = before.chars().count();
        (
            format!("{before}{}{inner}; END {outer}", self.text),
            characters,
        )
    }
}

fn statement(statement: &tokens::Statement) -> Statement {
    let create = statement.begins(&["create", "index", "concurrently"])
        || statement.begins(&["create", "unique", "index", "concurrently"]);
    let mut builds = None;
    if create {
        let behind = statement.find(&["concurrently"]).map_or(0, |at| at + 1);
        let exists = statement
            .find(&["if", "not", "exists"])
            .filter(|at| *at == behind);
        let name = statement.tokens.get(exists.map_or(behind, |at| at + 3));
        builds = name
            .filter(|token| !token.is("on"))
            .map(|token| identifier(&token.text));
    }
    Statement {
        range: statement.range(),
        builds,
    }
}

/// Returns the name that the server makes of an identifier (manual section 4.1.1).
fn identifier(text: &str) -> String {
    match text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
    {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => text.to_lowercase(),
    }
}

fn place_at(text: &str, byte: usize) -> Place {
    let byte = byte.min(text.len());
    let begin = text[..byte].rfind('\n').map_or(0, |at| at + 1);
    let line = text[begin..].split('\n').next().unwrap_or_default();
    Place {
        line: text[..begin].matches('\n').count() + 1,
        column: Some(text[begin..byte].chars().count() + 1),
        text: line.to_owned(),
    }
}

/// Reads the directive in the first line that is not blank.
fn directive(text: &str) -> Result<Transaction, (usize, String)> {
    let Some((number, line)) = text
        .lines()
        .enumerate()
        .find(|(_, line)| !line.trim().is_empty())
    else {
        return Ok(Transaction::Inside);
    };
    let Some(comment) = line.trim().strip_prefix("--") else {
        return Ok(Transaction::Inside);
    };
    let Some(directive) = comment.trim().strip_prefix("pricesync:") else {
        return Ok(Transaction::Inside);
    };
    match directive.trim() {
        "no-transaction" => Ok(Transaction::Outside),
        other => Err((
            number + 1,
            format!("unknown directive '{other}'; the only one is '{NO_TRANSACTION}'"),
        )),
    }
}

/// Reads `V<version>__<name>.sql`.
pub(super) fn parse_name(file_name: &str) -> Result<(Prefix, i64, String), String> {
    let wanted = |why: &str| {
        format!("{why}; a migration is named V<version>__<name>.sql, such as V12__add_brand.sql")
    };
    let Some(stem) = file_name.strip_suffix(".sql") else {
        return Err(wanted("the ending is not '.sql'"));
    };
    let (prefix, rest) = match stem.split_at_checked(1) {
        Some(("V", rest)) => (Prefix::Versioned, rest),
        Some(("U", rest)) => (Prefix::Unversioned, rest),
        Some(("v" | "u", _)) => return Err(wanted("the first letter must be upper case")),
        _ => return Err(wanted("the name does not begin with V or U")),
    };
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (number, name) = rest.split_at(digits);
    if number.is_empty() {
        return Err(wanted("there is no version behind the first letter"));
    }
    let version = number
        .parse()
        .map_err(|_| wanted("the version does not fit into 64 bits"))?;
    let Some(name) = name.strip_prefix("__") else {
        return Err(wanted("version and name are not parted by two underscores"));
    };
    // What refinery's \w matches, to the end of the name, where refinery itself stops silently.
    if let Some(bad) = name.chars().find(|&c| !(c.is_alphanumeric() || c == '_')) {
        return Err(wanted(&format!("the name holds '{}'", bad.escape_debug())));
    }
    if name.is_empty() || name.chars().count() > 255 {
        return Err(wanted("the name must have 1 to 255 characters"));
    }
    Ok((prefix, version, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str, text: &str, scope: Scope) -> Result<Script, String> {
        Script::parse(Path::new(name), text.as_bytes(), scope).map_err(|errors| {
            errors
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        })
    }

    fn refused(text: &str) -> Option<String> {
        load("V1__x.sql", text, Scope::Tenant).err()
    }

    #[test]
    fn names_are_read_as_refinery_reads_them_or_refused() {
        for (name, version, rest) in [
            ("V1__init.sql", 1, "init"),
            ("U20261123101500__x.sql", 20_261_123_101_500, "x"),
            ("V2__thêm_giá.sql", 2, "thêm_giá"),
        ] {
            let script = load(name, "select 1", Scope::Tenant).expect(name);
            assert_eq!(
                (script.id.version, script.id.name.as_str()),
                (version, rest)
            );
            assert_eq!(script.refinery.version(), version);
            assert_eq!(script.refinery.name(), rest);
        }
        for name in [
            "V1_init.sql",
            "v1__x.sql",
            "V1__a-b.sql",
            "V1__a b.sql",
            "V1__x.SQL",
            "V1.5__x.sql",
            "|1__x.sql",
            "V__x.sql",
            "V1__.sql",
            "V1__x.up.sql",
            "V99999999999999999999__x.sql",
            "x.sql",
            "V-1__x.sql",
            ".sql",
        ] {
            assert!(load(name, "select 1", Scope::Tenant).is_err(), "{name}");
        }
    }

    #[test]
    fn a_mark_and_foreign_line_ends_change_nothing_but_the_raw_checksum() {
        let plain = load("V1__x.sql", "select 1;\nselect 2;\n", Scope::Tenant).expect("fine");
        let windows = load(
            "V1__x.sql",
            "\u{feff}select 1;\r\nselect 2;\r\n",
            Scope::Tenant,
        )
        .expect("fine");
        assert_eq!(plain.id.checksum, windows.id.checksum);
        assert_eq!(plain.id.raw_checksum, plain.id.checksum);
        assert_ne!(windows.id.raw_checksum, windows.id.checksum);
    }

    #[test]
    fn transaction_control_is_refused_with_its_place() {
        assert_eq!(
            refused("create table a (id int);\n  commit;\ncreate table b (id int);").as_deref(),
            Some(
                "V1__x.sql:2:3: COMMIT is not a migration's business: pricesync runs the file in a transaction of its own; remove it"
            )
        );
        for text in [
            "begin; select 1",
            "START TRANSACTION",
            "select 1; END",
            "/* x */ RollBack",
            "savepoint a",
            "abort",
            "release savepoint a",
            "prepare transaction 'x'",
            "set search_path = public",
            "SET LOCAL search_path TO x",
            "set schema 'x'",
            "set role x",
            "set session authorization x",
            "reset all",
            "discard all",
            "select pg_catalog.set_config('search_path', 'public', false)",
            "copy t from stdin",
            "\\i other.sql",
            "create extension citext",
            "drop schema x",
            "create schema x",
            "alter system set a = 1",
            "create database x",
            "create function public.f() returns int language sql as 'select 1'",
            "create table if not exists public.t (id int)",
            "drop table \"public\".t",
            "alter domain public.d drop not null",
            "create role x",
        ] {
            assert!(refused(text).is_some(), "{text}");
        }
    }

    #[test]
    fn the_same_words_in_texts_comments_and_bodies_are_nobodys_business() {
        for text in [
            "-- commit;\nselect 1",
            "/* rollback; /* nested */ commit; */ select 1",
            "select 'commit; begin'",
            "select E'it\\'s; commit'",
            "do $$ begin perform 1; end $$",
            "do $a$ begin execute 'select 1'; end $a$",
            "create function f() returns int language plpgsql as $f$ begin return 1; end $f$",
            "create function f() returns int language sql begin atomic select 1; end",
            "set local lock_timeout = '1s'",
            "prepare p as select 1",
            "create table t (\"commit\" int)",
            "comment on table t is 'end; commit'",
            "alter type mood add value 'x'",
            "create table a (b int references public.c (id))",
            "create sequence s owned by a.b",
            "create temporary table pg_temp.t (id int)",
            "create view v as select * from public.c",
        ] {
            assert_eq!(refused(text), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_run_in_a_transaction_needs_the_header() {
        for text in [
            "create unique index concurrently i on t (a)",
            "drop index concurrently i",
            "vacuum t",
            "cluster",
            "reindex table concurrently t",
            "alter table t detach partition p concurrently",
        ] {
            let why = refused(text).expect(text);
            assert!(why.contains("'-- pricesync: no-transaction'"), "{why}");
            let with_header = format!("-- pricesync: no-transaction\n{text}");
            assert_eq!(refused(&with_header), None, "{with_header}");
        }
        assert!(
            refused("-- pricesync: no-transactions\nselect 1")
                .expect("typo")
                .contains(":1:1: unknown directive")
        );
    }

    #[test]
    fn extensions_and_schemas_are_for_the_shared_set() {
        assert!(load("V1__x.sql", "create extension citext", Scope::Shared).is_ok());
        assert!(load("V1__x.sql", "create schema extensions", Scope::Shared).is_ok());
    }

    #[test]
    fn a_concurrent_index_is_known_by_the_name_that_the_server_gives_it() {
        let text = "-- pricesync: no-transaction\ncreate index concurrently if not exists Idx_A on t (a);\n\
                    create unique index concurrently \"I\"\"x\" on t (a);\ncreate index concurrently on t (a);";
        let script = load("V1__x.sql", text, Scope::Tenant).expect("fine");
        let names: Vec<Option<String>> = script
            .statements
            .iter()
            .map(Statement::concurrent_index)
            .collect();
        assert_eq!(
            names,
            [Some("idx_a".to_owned()), Some("I\"x".to_owned()), None]
        );
        assert_eq!(script.transaction, Transaction::Outside);
    }

    #[test]
    fn places_count_lines_from_one_and_columns_in_characters() {
        let script = load("V1__x.sql", "-- giá\nselect 'ữ', x;\n", Scope::Tenant).expect("fine");
        let position = "-- giá\nselect 'ữ', ".chars().count() + 1;
        assert_eq!(
            script.place(position),
            Place {
                line: 2,
                column: Some(13),
                text: "select 'ữ', x;".to_owned()
            }
        );
        assert_eq!(script.place_of_statement(0).expect("one").line, 2);
        assert_eq!(script.place(10_000).line, 3);
    }

    #[test]
    fn what_the_parser_does_not_know_is_sealed_by_the_server() {
        let script = load(
            "V1__x.sql",
            "alter table t frobnicate $pricesync_file$; x",
            Scope::Tenant,
        )
        .expect("not refused");
        assert_eq!(script.seal, Seal::Server);
        let (sql, before) = script.sealed_sql();
        assert!(sql.contains("$_pricesync_file$"), "{sql}");
        assert_eq!(
            sql.chars().skip(before).take(5).collect::<String>(),
            "alter"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_line() {
        let error = |bytes: &[u8]| {
            Script::parse(Path::new("V1__x.sql"), bytes, Scope::Tenant).expect_err("refused")[0]
                .to_string()
        };
        assert_eq!(
            error(b"select 1;\n\xff"),
            "V1__x.sql: line 2 is not UTF-8; save the file as UTF-8"
        );
        assert!(error(b"select\0 1").contains("line 1 holds a NUL byte"));
    }

    proptest::proptest! {
        #[test]
        fn no_file_name_panics_and_those_accepted_mean_the_same_to_refinery(name in "[VUvu|]?[0-9]{0,3}\\.?_{0,3}[\\w -]{0,6}(\\.sql|\\.SQL)?") {
            if let Ok((_, version, rest)) = parse_name(&name) {
                let stem = name.strip_suffix(".sql").expect("accepted");
                let migration = Migration::unapplied(stem, "").expect("refinery accepts it too");
                proptest::prop_assert_eq!(migration.version(), version);
                proptest::prop_assert_eq!(migration.name(), rest);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            let _ = Script::parse(Path::new("V1__x.sql"), text.as_bytes(), Scope::Tenant);
        }
    }
}
