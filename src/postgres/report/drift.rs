//! Groups schemas by their structure, for `drift`.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use crate::domain::schema_name::SchemaName;
use crate::domain::target::Target;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::RECONNECT_TIMEOUT;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::Session;
use crate::postgres::schema::fingerprint::{Fingerprint, digest};
use crate::postgres::schema::name_references;
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::open::rollback;
use crate::service::event::Progress;
use crate::service::failure::MigrateError;
use crate::service::fleet::{Interrupts, JobFailure, JobResult, JobSuccess, SchemaJob};

/// How often a schema is read, at most, that is missing or cannot be read.
const ATTEMPTS: usize = 3;

/// How long to pause before a schema is read again.
const PAUSE: Duration = Duration::from_millis(100);

/// Reads the structure of each schema and keeps every distinct one once, so that memory grows with the
/// number of different structures.
#[derive(Debug)]
pub struct ShapeReader {
    database: Database,
    history_table: String,
    /// Schemas that are compared only with the others of their version.
    versioned: HashSet<SchemaName>,
    shapes: Mutex<HashMap<(String, String), Shape>>,
}

/// The schemas of one kind that have the same structure.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Their version; empty where versions are not compared.
    pub version: String,
    /// Digest of the lines, 64 hexadecimal digits.
    pub digest: String,
    /// A description of each object, relative to the schema; sorted.
    pub lines: Vec<String>,
    /// The labels of the schemas; sorted.
    pub members: Vec<String>,
}

impl Shape {
    /// Returns the lines that only this shape has, and those that only `other` has.
    pub fn differences<'a>(&'a self, other: &'a Self) -> (Vec<&'a str>, Vec<&'a str>) {
        let missing = |lines: &'a [String], of: &[String]| {
            let lines = lines.iter().filter(|line| of.binary_search(line).is_err());
            lines.map(String::as_str).collect()
        };
        (missing(&self.lines, &other.lines), missing(&other.lines, &self.lines))
    }
}

impl ShapeReader {
    /// Returns a reader. Schemas in `versioned` are compared with the others of their version, the rest
    /// with each other.
    pub fn new(database: Database, history_table: &str, versioned: HashSet<SchemaName>) -> Self {
        Self {
            database,
            history_table: history_table.to_owned(),
            versioned,
            shapes: Mutex::default(),
        }
    }

    /// Returns the shapes that were found, by version, the most frequent one first.
    pub fn shapes(&self) -> Vec<Shape> {
        let shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shapes: Vec<Shape> = shapes.values().cloned().collect();
        for shape in &mut shapes {
            shape.members.sort_unstable();
        }
        shapes.sort_by(|a, b| {
            let size = |shape: &Shape| std::cmp::Reverse(shape.members.len());
            (&a.version, size(a), &a.members).cmp(&(&b.version, size(b), &b.members))
        });
        shapes
    }

    /// Returns the version and the structure, read in one snapshot; `None` where there is no schema.
    async fn read(
        &self,
        session: &Session,
        target: &Target,
    ) -> Result<Option<(String, Vec<String>)>, Error> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_catalog.to_regnamespace({}) IS NOT NULL",
            escape_literal(&target.schema.quoted().to_string())
        );
        let rows = session.rows(&begin).await?;
        if !rows.first().is_some_and(|row| row.is_true(0)) {
            return Ok(None);
        }
        let version = self.version(session, &target.schema).await?;
        let fingerprint = Fingerprint::read(session, &target.schema, &self.history_table).await?;
        // Rows and the positions of sequences are not structure.
        let is_structure = |line: &&String| !line.starts_with("state ");
        let lines = fingerprint.lines().iter().filter(is_structure).cloned();
        let lines = without_own_name(lines.collect(), &target.schema);
        Ok(Some((version, lines)))
    }

    async fn version(&self, session: &Session, schema: &SchemaName) -> Result<String, Error> {
        if !self.versioned.contains(schema) {
            return Ok(String::new());
        }
        let history = qualified(schema, &self.history_table);
        let sql =
            format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL", escape_literal(&history));
        if !session.rows(&sql).await?.iter().any(|row| row.is_true(0)) {
            return Ok(String::new());
        }
        let sql = format!("SELECT pg_catalog.max(version) FROM {history}");
        let rows = session.rows(&sql).await?;
        let newest = rows.first().and_then(|row| row.optional(0));
        Ok(newest.unwrap_or_default().to_owned())
    }

    fn keep(&self, target: &Target, version: String, lines: Vec<String>) {
        let digest = digest(lines.iter().map(String::as_str));
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        let shape = shapes.entry((version.clone(), digest.clone())).or_insert_with(|| Shape {
            version,
            digest,
            lines,
            members: Vec::new(),
        });
        shape.members.push(target.label.clone());
    }
}

/// The placeholder for the schema's own name in the lines that are compared.
const OWN_NAME: &str = "<its schema>";

/// Replaces the schema's own name in the texts of functions, triggers and rules, where it qualifies another
/// name. Changes nothing where a relation, column or type has the same name.
fn without_own_name(mut lines: Vec<String>, schema: &SchemaName) -> Vec<String> {
    let is_text =
        |line: &str| ["function ", "trigger ", "rule "].iter().any(|kind| line.starts_with(kind));
    let quoted = schema.as_str().replace('"', "\"\"");
    // The name of a function is never followed by a dot.
    let is_other = |line: &&String| !is_text(line) && !line.starts_with("member function ");
    let mut others = lines.iter().filter(is_other);
    if others.any(|line| name_references::is_word_of(schema.as_str(), line)) {
        return lines;
    }
    for line in &mut lines {
        if is_text(line) {
            *line = name_references::replaced(line, &quoted, OWN_NAME, |after| {
                after.trim_start_matches('"').starts_with('.')
            });
        }
    }
    lines
}

impl SchemaJob for ShapeReader {
    async fn run(&self, target: &Target, _: &Progress, _: Interrupts) -> JobResult {
        let doing = || format!("reading the structure of {}", target.schema);
        let session =
            self.database.session(RECONNECT_TIMEOUT).await.map_err(|error| {
                JobFailure::from(MigrateError::Database { doing: doing(), error })
            })?;
        let mut read = self.read(&session, target).await;
        // The tenant may be dropped and created again while its schema is being read.
        for _ in 1..ATTEMPTS {
            if matches!(read, Ok(Some(_))) || rollback(&session).await.is_err() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            read = self.read(&session, target).await;
        }
        if read.is_err() || rollback(&session).await.is_err() {
            session.discard();
        }
        match read {
            Ok(Some((version, lines))) => {
                self.keep(target, version, lines);
                Ok(JobSuccess::Finished(String::new()))
            }
            Ok(None) => Err(MigrateError::SchemaMissing.into()),
            Err(error) => {
                Err(MigrateError::Database { doing: doing(), error: server_error(&error) }.into())
            }
        }
    }
}
