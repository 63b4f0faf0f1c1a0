//! One migration file, read and found fit to run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use refinery::Migration;

use super::load_error::{LoadError, Problem};
use super::script_name::{ScriptName, ScriptNameError};
use crate::domain::script::{Place, Scope, ScriptId};
use crate::migrations::policy::check::{Seal, examine};
use crate::migrations::sql::directives::{Transaction, allowed_rules, directive};
use crate::migrations::sql::position::{byte_of_position, place_of_byte};
use crate::migrations::sql::split::Statement;

/// Larger files are refused: 120 MB were seen to work, and a message ends at 1 GB.
pub(crate) const MAX_FILE_BYTES: u64 = 256 << 20;

/// A migration file: identified, normalised and read.
#[derive(Clone, Debug)]
pub struct Script {
    /// Version, name and checksums.
    pub id: ScriptId,
    /// The file, as to show to people: below the folder of its set as that was given.
    pub path: PathBuf,
    /// The text to run: without a byte order mark, line ends as line feeds.
    pub text: Arc<str>,
    /// Whether it runs inside a transaction.
    pub transaction: Transaction,
    /// Its statements in order. Those of a file outside of a transaction are cut where the
    /// parser cuts them too; see [`Seal`] for the others.
    pub statements: Vec<Statement>,
    /// How it is known that the file stays inside its transaction.
    pub seal: Seal,
    /// The same file as refinery's runner takes it, with the normalised text.
    pub refinery: Migration,
}

impl Script {
    /// Reads a file of a set from its path, which is shown but not opened, and its bytes.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the file, in the order of its lines.
    pub fn read(path: &Path, bytes: Vec<u8>, scope: Scope) -> Result<Self, Vec<LoadError>> {
        let wrong = |place, problem| LoadError {
            path: path.to_owned(),
            place,
            problem,
        };
        let name = named(path).map_err(|problem| wrong(None, problem));
        let raw = match decoded(path, bytes) {
            Ok(raw) => raw,
            Err(error) => return Err(name.err().into_iter().chain([error]).collect()),
        };
        let text = normalised(&raw);
        let mut errors: Vec<_> = name.as_ref().err().cloned().into_iter().collect();

        let (transaction, header) = header(&text);
        let found = examine(&text, scope, transaction);
        let place = |at| Some(place_of_byte(&text, at));
        for comment in found.directives {
            let said = directive(&text[comment.clone()]).unwrap_or_default();
            // Which rules there are is lint's business: a file that is applied cannot be changed
            // any more, so a later version that has other rules must still run it.
            if allowed_rules(said).is_some() {
                continue;
            }
            if !is_no_transaction(said) {
                let problem = Problem::UnknownDirective(said.to_owned());
                errors.push(wrong(place(comment.start), problem));
            } else if Some(comment.start) != header {
                errors.push(wrong(place(comment.start), Problem::MisplacedDirective));
            }
        }
        let refused = |(at, refusal)| wrong(place(at), Problem::Refused(refusal));
        let is_refused = !found.refusals.is_empty();
        errors.extend(found.refusals.into_iter().map(refused));
        if transaction == Transaction::Outside && found.seal == Seal::Server && !is_refused {
            errors.push(wrong(None, Problem::Unsplittable));
        }
        let (Ok(name), true) = (name, errors.is_empty()) else {
            return Err(errors);
        };
        let (id, refinery) = identified(path, name, &raw, &text).map_err(|error| vec![error])?;
        Ok(Self {
            id,
            path: path.to_owned(),
            text: text.into(),
            transaction,
            statements: found.statements,
            seal: found.seal,
            refinery,
        })
    }

    /// Returns whether the file leaves its session as it found it: all that it does is define
    /// relations, types and comments.
    #[must_use]
    pub fn only_defines(&self) -> bool {
        self.seal == Seal::Parsed && self.statements.iter().all(Statement::only_defines)
    }

    /// Returns whether the file runs code that was not read: blocks, procedures, and whatever
    /// the parser does not know.
    #[must_use]
    pub fn runs_code(&self) -> bool {
        self.seal == Seal::Server || self.statements.iter().any(Statement::runs_code)
    }

    /// Returns the place of a position in this file's text as the server reports it: counted
    /// in characters, from 1. A position behind the end is the end.
    #[must_use]
    pub fn place(&self, position: usize) -> Place {
        place_of_byte(&self.text, byte_of_position(&self.text, position))
    }

    /// Returns the place of a position in the text of one statement, counted from 0 in
    /// [`Script::statements`]; a statement that does not exist is the end of the file.
    #[must_use]
    pub fn place_in_statement(&self, statement: usize, position: usize) -> Place {
        let within = byte_of_position(self.statement(statement), position);
        let start = self
            .statements
            .get(statement)
            .map_or(self.text.len(), |statement| statement.range.start);
        place_of_byte(&self.text, start + within)
    }

    /// Returns where a statement, counted from 0, begins.
    #[must_use]
    pub fn place_of_statement(&self, statement: usize) -> Place {
        self.place_in_statement(statement, 1)
    }

    /// Returns the text of a statement, counted from 0; empty where there is none.
    #[must_use]
    pub fn statement(&self, statement: usize) -> &str {
        self.statements
            .get(statement)
            .map_or("", |statement| &self.text[statement.range.clone()])
    }
}

fn named(path: &Path) -> Result<ScriptName, Problem> {
    match path.file_name().unwrap_or_default().to_str() {
        Some(file_name) => {
            ScriptName::parse(file_name).map_err(|error: ScriptNameError| Problem::Name(error))
        }
        None => Err(Problem::NameNotUtf8),
    }
}

fn decoded(path: &Path, bytes: Vec<u8>) -> Result<String, LoadError> {
    let wrong = |place, problem| LoadError {
        path: path.to_owned(),
        place,
        problem,
    };
    let size = bytes.len() as u64;
    if size > MAX_FILE_BYTES {
        return Err(wrong(None, Problem::TooLarge(size)));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let known = String::from_utf8_lossy(&error.as_bytes()[..good]);
        wrong(Some(place_of_byte(&known, known.len())), Problem::NotUtf8)
    })?;
    match text.find('\0') {
        Some(at) => Err(wrong(Some(place_of_byte(&text, at)), Problem::NulByte)),
        None => Ok(text),
    }
}

fn normalised(raw: &str) -> String {
    raw.strip_prefix('\u{feff}')
        .unwrap_or(raw)
        .replace("\r\n", "\n")
}

/// Returns whether the first line that is not blank takes the file out of its transaction,
/// and the byte at which that line's comment begins.
fn header(text: &str) -> (Transaction, Option<usize>) {
    let start = text.len() - text.trim_start().len();
    let line = text[start..].lines().next().unwrap_or_default();
    match directive(line) {
        Some(said) if is_no_transaction(said) => (Transaction::Outside, Some(start)),
        _ => (Transaction::Inside, None),
    }
}

fn is_no_transaction(said: &str) -> bool {
    said == "no-transaction"
}

/// Lets refinery make the checksums: over the normalised text, and over the bytes as they are.
fn identified(
    path: &Path,
    name: ScriptName,
    raw: &str,
    text: &str,
) -> Result<(ScriptId, Migration), LoadError> {
    let stem = format!("{}{}__{}", name.prefix, name.version, name.name);
    let migration = |text| {
        Migration::unapplied(&stem, text).map_err(|error| LoadError {
            path: path.to_owned(),
            place: None,
            problem: Problem::Unreadable(error.to_string()),
        })
    };
    let refinery = migration(text)?;
    let checksum = refinery.checksum();
    let raw_checksum = if raw == text {
        checksum
    } else {
        migration(raw)?.checksum()
    };
    let id = ScriptId {
        prefix: name.prefix,
        version: name.version,
        name: name.name,
        checksum,
        raw_checksum,
        crlf_checksum: migration(&text.replace('\n', "\r\n"))?.checksum(),
    };
    Ok((id, refinery))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Script, Vec<String>> {
        Script::read(
            Path::new("t/V1__x.sql"),
            text.as_bytes().to_vec(),
            Scope::Tenant,
        )
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn line_ends_and_a_byte_order_mark_do_not_change_the_checksum_but_both_are_known() {
        let unix = read("select 1;\nselect 2;\n").unwrap();
        let windows = read("\u{feff}select 1;\r\nselect 2;\r\n").unwrap();
        assert_eq!(windows.text, unix.text);
        assert_eq!(windows.id.checksum, unix.id.checksum);
        assert_eq!(unix.id.raw_checksum, unix.id.checksum);
        let theirs = Migration::unapplied("V1__x", "\u{feff}select 1;\r\nselect 2;\r\n").unwrap();
        let checkout = Migration::unapplied("V1__x", "select 1;\r\nselect 2;\r\n").unwrap();
        assert_eq!(unix.id.crlf_checksum, checkout.checksum());
        assert!(unix.id.accepts(checkout.checksum()));
        assert_eq!(windows.id.raw_checksum, theirs.checksum());
        assert_eq!(windows.refinery.sql(), Some("select 1;\nselect 2;\n"));
    }

    #[test]
    fn leading_zeros_of_a_version_are_no_part_of_it() {
        let script = Script::read(Path::new("V007__x.sql"), Vec::new(), Scope::Shared).unwrap();
        let theirs = Migration::unapplied("V007__x", "").unwrap();
        assert_eq!(
            (script.id.version, script.id.checksum),
            (7, theirs.checksum())
        );
    }

    #[test]
    fn the_header_takes_a_file_out_of_its_transaction() {
        for text in [
            "-- pricesync: no-transaction\nvacuum;",
            "\n\n  --pricesync:no-transaction  \nvacuum;",
            "\u{feff}-- pricesync: no-transaction\r\nvacuum;",
        ] {
            assert_eq!(read(text).unwrap().transaction, Transaction::Outside);
        }
        assert_eq!(
            read("-- about it\nselect 1").unwrap().transaction,
            Transaction::Inside
        );
    }

    #[test]
    fn an_unknown_or_misplaced_directive_is_an_error_with_its_line() {
        for (text, expected) in [
            (
                "-- pricesync: no-transactions\nselect 1",
                "t/V1__x.sql:1:1: unknown directive 'no-transactions'",
            ),
            (
                "-- PriceSync: No-Transaction\nselect 1",
                "t/V1__x.sql:1:1: unknown directive 'No-Transaction'",
            ),
            (
                "-- first\n-- pricesync: no-transaction\nselect 1",
                "t/V1__x.sql:2:1: the directive 'no-transaction' counts on the first line only",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), [expected]);
        }
        assert!(read("select '\n-- pricesync: nonsense\n'").is_ok());
    }

    #[test]
    fn a_file_outside_of_a_transaction_is_cut_into_its_statements() {
        let script = read(
            "-- pricesync: no-transaction\n\
             drop index concurrently if exists giá_idx;\n\
             create index concurrently giá_idx on products (giá);\n",
        )
        .unwrap();
        assert_eq!(script.seal, Seal::Parsed);
        assert_eq!(script.statements.len(), 2);
        assert_eq!(
            script.statement(1),
            "create index concurrently giá_idx on products (giá)"
        );
        assert_eq!(script.statements[1].concurrent_index(), Some("giá_idx"));
        assert_eq!(script.place_of_statement(1).line, 3);
        let place = script.place_in_statement(1, 48);
        assert_eq!((place.line, place.column), (3, Some(48)));
        assert_eq!(script.statement(2), "");
    }

    #[test]
    fn a_file_outside_of_a_transaction_that_cannot_be_parsed_is_an_error() {
        assert_eq!(
            read("-- pricesync: no-transaction\ncreate flux capacitor").unwrap_err(),
            [
                "t/V1__x.sql: cannot be cut into statements safely, because the parser does not know all of its grammar"
            ]
        );
    }

    #[test]
    fn bytes_that_the_server_would_refuse_name_their_line() {
        assert_eq!(
            read("select 1;\nselect '\0'").unwrap_err(),
            ["t/V1__x.sql:2:9: holds a NUL byte, which PostgreSQL cannot store"]
        );
        let latin = Script::read(
            Path::new("bad.sql"),
            b"select 1;\n-- gi\xe1".to_vec(),
            Scope::Tenant,
        )
        .unwrap_err();
        let latin: Vec<_> = latin.iter().map(ToString::to_string).collect();
        assert_eq!(
            latin,
            [
                "bad.sql: not a migration's file name: it does not begin with a capital V or U",
                "bad.sql:2:6: not UTF-8 from here on",
            ]
        );
    }

    #[test]
    fn what_is_temporary_leaves_something_behind_in_its_session() {
        assert!(read("create table t (id int)").unwrap().only_defines());
        for text in [
            "create temporary table t (id int)",
            "create table pg_temp.t (id int)",
            "create table \"pg_temp\".t (id int)",
        ] {
            assert!(!read(text).unwrap().only_defines(), "{text}");
        }
    }

    #[test]
    fn all_refusals_of_a_file_are_reported() {
        assert_eq!(
            read("set role x;\ncommit;\nvacuum").unwrap_err(),
            [
                "t/V1__x.sql:1:1: SET ROLE is not allowed in a migration: what follows would run as another role",
                "t/V1__x.sql:2:1: COMMIT is not allowed in a migration: it would leave the transaction that holds the file",
                "t/V1__x.sql:3:1: VACUUM cannot run inside a transaction, and the file lacks the line '-- pricesync: no-transaction'",
            ]
        );
    }
}
