//! One migration file, read and checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use refinery::Migration;

use super::allowance::Allowance;
use super::load_error::{LoadError, MAX_FILE_BYTES, Problem};
use super::script_name::{ScriptName, ScriptNameError};
use crate::domain::script::{Location, Scope, ScriptId};
use crate::migrations::policy::check::check;
use crate::migrations::policy::timeouts::{SentSql, SwitchedOff, Timeout, UNBOUNDED_LOCK};
use crate::migrations::sql::directives::{Transaction, allowed_rules, directive};
use crate::migrations::sql::do_block::{InnerError, byte_in_block};
use crate::migrations::sql::position::{byte_of_position, location_of_byte};
use crate::migrations::sql::split::Statement;

/// A migration file, checked and ready to run.
#[derive(Clone, Debug)]
pub struct Script {
    /// Version, name and checksums.
    pub id: ScriptId,
    /// The file, below the folder of its set as the user gave it.
    pub path: PathBuf,
    /// The text to run, without a byte order mark, with line feeds as line ends.
    pub text: Arc<str>,
    /// Whether it runs inside a transaction.
    pub transaction: Transaction,
    /// Its statements, in order.
    pub statements: Vec<Statement>,
    /// Whether the parser confirms each statement; always true of a file outside of a transaction.
    /// Otherwise run the text through [`wrap_in_do`](crate::migrations::wrap_in_do), so that the
    /// server rejects transaction commands.
    pub is_parsed: bool,
    /// Whether its text mentions deferrable constraints, so that it may create one.
    pub mentions_deferral: bool,
    /// Whether its text mentions `CONSTRAINTS`, so that it may run `SET CONSTRAINTS`.
    pub mentions_constraints: bool,
    /// The rules that it allows.
    pub(crate) allowances: Vec<Allowance>,
    /// The values that switch timeouts off and that it does not allow.
    pub(crate) switched_off: Vec<SwitchedOff>,
    /// The file as refinery's migration, with the normalised text.
    pub refinery: Migration,
}

impl Script {
    /// Reads a file from its bytes. The path is not opened, only parsed and shown.
    ///
    /// # Errors
    ///
    /// All errors in the file, in the order of its lines.
    pub fn read(path: &Path, bytes: Vec<u8>, scope: Scope) -> Result<Self, Vec<LoadError>> {
        let name = parse_name(path).map_err(|problem| LoadError::new(path, problem));
        let raw = match decode(path, bytes) {
            Ok(raw) => raw,
            Err(error) => return Err(name.err().into_iter().chain([error]).collect()),
        };
        let text = normalise(&raw);
        let mut errors: Vec<_> = name.as_ref().err().cloned().into_iter().collect();
        let error_at = |offset, problem| LoadError::at(path, &text, offset, problem);

        let (transaction, header) = header(&text);
        let checked = check(&text, scope, transaction);
        let mut allowances = Vec::new();
        for comment in checked.directives {
            let directive = directive(&text[comment.clone()]).unwrap_or_default();
            // The names of rules are checked by lint only: an applied file cannot be changed, so a
            // version with other rules must still run it.
            if let Some(rules) = allowed_rules(directive) {
                allowances.extend(Allowance::of(rules, &comment, &text, &checked.statements));
            } else if !is_no_transaction(directive) {
                let problem = Problem::UnknownDirective(directive.to_owned());
                errors.push(error_at(comment.start, problem));
            } else if Some(comment.start) != header {
                errors.push(error_at(comment.start, Problem::MisplacedDirective));
            }
        }
        let is_refused = !checked.refusals.is_empty();
        let refused = |(offset, refusal)| error_at(offset, Problem::Refused(refusal));
        errors.extend(checked.refusals.into_iter().map(refused));
        if transaction == Transaction::Outside && !checked.is_parsed && !is_refused {
            errors.push(LoadError::new(path, Problem::Unsplittable));
        }
        let (Ok(name), true) = (name, errors.is_empty()) else {
            return Err(errors);
        };
        let mut switched_off = checked.switched_off;
        let is_allowed = |it: &SwitchedOff| {
            (allowances.iter()).any(|allowed| allowed.covers(UNBOUNDED_LOCK, it.value.start))
        };
        switched_off.retain(|it| !is_allowed(it));
        let (id, refinery) = identify(path, name, &raw, &text).map_err(|error| vec![error])?;
        Ok(Self {
            id,
            path: path.to_owned(),
            mentions_deferral: text.to_ascii_lowercase().contains("defer"),
            mentions_constraints: text.to_ascii_lowercase().contains("constraints"),
            text: text.into(),
            transaction,
            statements: checked.statements,
            is_parsed: checked.is_parsed,
            allowances,
            switched_off,
            refinery,
        })
    }

    /// Returns whether the file only defines relations, types and comments, so that it leaves no state
    /// in its session.
    pub fn only_defines(&self) -> bool {
        self.is_parsed && self.statements.iter().all(Statement::only_defines)
    }

    /// Returns whether the file runs code that is not checked: `DO`, `CALL`, and statements that the
    /// parser does not know.
    pub fn runs_code(&self) -> bool {
        !self.is_parsed || self.statements.iter().any(Statement::runs_code)
    }

    /// Returns the location of a position in the text as the server reports it: in characters, from
    /// 1. A position past the end is the end.
    pub fn location(&self, position: usize) -> Location {
        location_of_byte(&self.text, byte_of_position(&self.text, position))
    }

    /// Returns the location of a position in a statement, by its index in [`Script::statements`]. An
    /// index past the end is the end of the file.
    pub fn location_in_statement(&self, statement: usize, position: usize) -> Location {
        let within = byte_of_position(self.statement(statement), position);
        let start = self
            .statements
            .get(statement)
            .map_or(self.text.len(), |statement| statement.range.start);
        location_of_byte(&self.text, start + within)
    }

    /// Returns the location at which a statement begins, by its index.
    pub fn location_of_statement(&self, statement: usize) -> Location {
        self.location_in_statement(statement, 1)
    }

    /// Returns the location of an error in the code of a statement, by its index: inside the block of
    /// a `DO`, else the start of the statement. In a file that is wrapped in `DO`, the index is not
    /// known: the location is inside its only block, or `None`.
    pub fn location_in_code(&self, statement: usize, error: InnerError<'_>) -> Option<Location> {
        let place = |statement: &Statement, error| {
            let byte = byte_in_block(&self.text[statement.range.clone()], error)?;
            Some(location_of_byte(&self.text, statement.range.start + byte))
        };
        if self.is_parsed {
            let inside = place(self.statements.get(statement)?, error);
            return inside.or_else(|| Some(self.location_of_statement(statement)));
        }
        // The outermost call is that of the wrapping block.
        let context = error.context.rsplit_once('\n')?.0;
        let error = InnerError { context, ..error };
        let mut places = self.statements.iter().filter_map(|statement| place(statement, error));
        places.next().filter(|_| places.next().is_none())
    }

    /// Returns the text to send. `own` are the values of the run, which replace those that switch a
    /// timeout off; `None` is the server's default.
    pub(crate) fn sent(&self, own: impl Fn(Timeout) -> Option<String>) -> SentSql<'_> {
        SentSql::new(&self.text, 0, &self.switched_off, own)
    }

    /// Returns a statement to send, by its index.
    pub(crate) fn sent_statement(
        &self,
        statement: usize,
        own: impl Fn(Timeout) -> Option<String>,
    ) -> SentSql<'_> {
        let start = self.statements.get(statement).map_or(0, |statement| statement.range.start);
        SentSql::new(self.statement(statement), start, &self.switched_off, own)
    }

    /// Returns the text of a statement by its index; empty past the end.
    pub fn statement(&self, statement: usize) -> &str {
        self.statements.get(statement).map_or("", |statement| &self.text[statement.range.clone()])
    }
}

fn parse_name(path: &Path) -> Result<ScriptName, Problem> {
    match path.file_name().unwrap_or_default().to_str() {
        Some(file_name) => {
            ScriptName::parse(file_name).map_err(|error: ScriptNameError| Problem::Name(error))
        }
        None => Err(Problem::NameNotUtf8),
    }
}

fn decode(path: &Path, bytes: Vec<u8>) -> Result<String, LoadError> {
    let size = bytes.len() as u64;
    if size > MAX_FILE_BYTES {
        return Err(LoadError::new(path, Problem::TooLarge(size)));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let valid = String::from_utf8_lossy(&error.as_bytes()[..valid]);
        LoadError::at(path, &valid, valid.len(), Problem::NotUtf8)
    })?;
    match text.find('\0') {
        Some(offset) => Err(LoadError::at(path, &text, offset, Problem::NulByte)),
        None => Ok(text),
    }
}

fn normalise(raw: &str) -> String {
    raw.strip_prefix('\u{feff}').unwrap_or(raw).replace("\r\n", "\n")
}

/// Returns whether the first line that is not blank is the `no-transaction` directive, and the byte
/// at which it begins.
fn header(text: &str) -> (Transaction, Option<usize>) {
    let start = text.len() - text.trim_start().len();
    let line = text[start..].lines().next().unwrap_or_default();
    match directive(line) {
        Some(directive) if is_no_transaction(directive) => (Transaction::Outside, Some(start)),
        _ => (Transaction::Inside, None),
    }
}

fn is_no_transaction(directive: &str) -> bool {
    directive == "no-transaction"
}

/// Computes refinery's checksums: of the normalised text, of the bytes as they are, and of the text
/// with CR LF.
fn identify(
    path: &Path,
    name: ScriptName,
    raw: &str,
    text: &str,
) -> Result<(ScriptId, Migration), LoadError> {
    let stem = format!("{}{}__{}", name.prefix, name.version, name.name);
    let migration = |text| {
        Migration::unapplied(&stem, text)
            .map_err(|error| LoadError::new(path, Problem::Unreadable(error.to_string())))
    };
    let refinery = migration(text)?;
    let checksum = refinery.checksum();
    let raw_checksum = if raw == text { checksum } else { migration(raw)?.checksum() };
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
        Script::read(Path::new("t/V1__x.sql"), text.as_bytes().to_vec(), Scope::Tenant)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn line_ends_do_not_change_the_checksum() {
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
        assert_eq!((script.id.version, script.id.checksum), (7, theirs.checksum()));
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
        assert_eq!(read("-- about it\nselect 1").unwrap().transaction, Transaction::Inside);
    }

    #[test]
    fn unknown_and_misplaced_directives_are_errors() {
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
                "t/V1__x.sql:2:1: the directive 'no-transaction' is only valid on the first line",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), [expected]);
        }
        assert!(read("select '\n-- pricesync: nonsense\n'").is_ok());
    }

    #[test]
    fn a_file_without_a_transaction_is_split_into_statements() {
        let script = read(
            "-- pricesync: no-transaction\n\
             drop index concurrently if exists giá_idx;\n\
             create index concurrently giá_idx on products (giá);\n",
        )
        .unwrap();
        assert!(script.is_parsed);
        assert_eq!(script.statements.len(), 2);
        assert_eq!(script.statement(1), "create index concurrently giá_idx on products (giá)");
        assert_eq!(script.statements[1].concurrent_index(), Some("giá_idx"));
        assert_eq!(script.location_of_statement(1).line, 3);
        let location = script.location_in_statement(1, 48);
        assert_eq!((location.line, location.column), (3, Some(48)));
        assert_eq!(script.statement(2), "");
    }

    #[test]
    fn a_file_without_a_transaction_must_be_parsed() {
        assert_eq!(
            read("-- pricesync: no-transaction\ncreate flux capacitor").unwrap_err(),
            [
                "t/V1__x.sql: cannot be split into statements safely: the parser does not know all of its grammar"
            ]
        );
    }

    #[test]
    fn invalid_bytes_are_reported_with_their_line() {
        assert_eq!(
            read("select 1;\nselect '\0'").unwrap_err(),
            ["t/V1__x.sql:2:9: contains a NUL byte, which PostgreSQL cannot store"]
        );
        let latin =
            Script::read(Path::new("bad.sql"), b"select 1;\n-- gi\xe1".to_vec(), Scope::Tenant)
                .unwrap_err();
        let latin: Vec<_> = latin.iter().map(ToString::to_string).collect();
        assert_eq!(
            latin,
            [
                "bad.sql: invalid file name: must begin with an upper-case V or U",
                "bad.sql:2:6: invalid UTF-8",
            ]
        );
    }

    #[test]
    fn temporary_objects_leave_state_in_the_session() {
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
                "t/V1__x.sql:1:1: SET ROLE is not allowed in a migration: later statements would run as another role",
                "t/V1__x.sql:2:1: COMMIT is not allowed in a migration: it would end the transaction that applies the file",
                "t/V1__x.sql:3:1: VACUUM cannot run inside a transaction, and the file lacks the line '-- pricesync: no-transaction'",
            ]
        );
    }
}
