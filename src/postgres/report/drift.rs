//! Which tenants' schemas are made alike, and what those that are not have more or less.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

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
use crate::postgres::transaction::open::rollback;
use crate::service::event::Progress;
use crate::service::failure::MigrateError;
use crate::service::fleet::{Interrupts, JobFailure, JobResult, JobSuccess, SchemaJob};

/// Reads the structure of schemas and keeps one of each kind: what it takes grows with the number
/// of shapes, and by a name with each schema.
#[derive(Debug)]
pub struct ShapeReader {
    database: Database,
    history_table: String,
    /// What schemas are only compared with others of, such as their version.
    kinds: HashMap<String, String>,
    shapes: Mutex<HashMap<(String, String), Shape>>,
}

/// Schemas of one kind that are made alike.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What they have in common besides, as it was given to [`ShapeReader::new`].
    pub kind: String,
    /// Digest of the lines, 64 hexadecimal digits.
    pub digest: String,
    /// What they are like, sorted; a line for each thing, relative to the schema.
    pub lines: Vec<String>,
    /// The schemas, as targets are labelled; sorted.
    pub members: Vec<String>,
}

impl Shape {
    /// Returns the lines that this has and another has not, and the other way round.
    #[must_use]
    pub fn differences<'a>(&'a self, other: &'a Self) -> (Vec<&'a str>, Vec<&'a str>) {
        let lacking = |lines: &'a [String], of: &[String]| {
            let lines = lines.iter().filter(|line| of.binary_search(line).is_err());
            lines.map(String::as_str).collect()
        };
        (
            lacking(&self.lines, &other.lines),
            lacking(&other.lines, &self.lines),
        )
    }
}

impl ShapeReader {
    /// Returns a reader. `kinds` says by schema name which schemas ought to be alike.
    #[must_use]
    pub fn new(database: Database, history_table: &str, kinds: HashMap<String, String>) -> Self {
        Self {
            database,
            history_table: history_table.to_owned(),
            kinds,
            shapes: Mutex::default(),
        }
    }

    /// Returns the shapes that were found: for each kind the one that most schemas have first.
    pub fn shapes(&self) -> Vec<Shape> {
        let shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shapes: Vec<Shape> = shapes.values().cloned().collect();
        for shape in &mut shapes {
            shape.members.sort_unstable();
        }
        shapes.sort_by(|a, b| {
            let size = |shape: &Shape| std::cmp::Reverse(shape.members.len());
            (&a.kind, size(a), &a.members).cmp(&(&b.kind, size(b), &b.members))
        });
        shapes
    }

    async fn read(&self, session: &Session, target: &Target) -> Result<Option<Vec<String>>, Error> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_catalog.to_regnamespace({}) IS NOT NULL",
            escape_literal(&target.schema.quoted().to_string())
        );
        let rows = session.rows(&begin).await?;
        if !rows.first().is_some_and(|row| row.is_true(0)) {
            return Ok(None);
        }
        let fingerprint = Fingerprint::read(session, &target.schema, &self.history_table).await?;
        // Whether a table holds rows, and where a sequence stands, is nobody's drift.
        let is_structure = |line: &&String| !line.starts_with("state ");
        let lines = fingerprint.lines().iter().filter(is_structure).cloned();
        Ok(Some(without_own_name(lines.collect(), &target.schema)))
    }

    fn keep(&self, target: &Target, lines: Vec<String>) {
        let kind = self.kinds.get(target.schema.as_str());
        let kind = kind.cloned().unwrap_or_default();
        let digest = digest(lines.iter().map(String::as_str));
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        let shape = shapes
            .entry((kind.clone(), digest.clone()))
            .or_insert_with(|| Shape {
                kind,
                digest,
                lines,
                members: Vec::new(),
            });
        shape.members.push(target.label.clone());
    }
}

/// What stands for the schema's own name in what is compared.
const OWN_NAME: &str = "<its schema>";

/// Takes the schema's own name out of the texts of its functions, triggers and rules, where it stands in front of
/// another name or in a search path: with `SET search_path FROM CURRENT` the server writes it into each of them.
/// The name of a relation, column or type of the schema is left, which it could be as well.
fn without_own_name(mut lines: Vec<String>, schema: &SchemaName) -> Vec<String> {
    let is_text = |line: &str| {
        ["function ", "trigger ", "rule "]
            .iter()
            .any(|kind| line.starts_with(kind))
    };
    let quoted = schema.as_str().replace('"', "\"\"");
    // No name of a function stands in front of a dot.
    let is_other = |line: &&String| !is_text(line) && !line.starts_with("member function ");
    let mut others = lines.iter().filter(is_other);
    if others.any(|line| name_references::is_word_of(schema.as_str(), line)) {
        return lines;
    }
    for line in &mut lines {
        if is_text(line) {
            *line = name_references::replaced(line, &quoted, OWN_NAME, |before, after| {
                let line = before.rsplit('\n').next().unwrap_or_default();
                let is_path = line.trim_start().starts_with("SET search_path TO ");
                is_path || after.trim_start_matches('"').starts_with('.')
            });
        }
    }
    lines
}

impl SchemaJob for ShapeReader {
    async fn run(&self, target: &Target, _: &Progress, _: Interrupts) -> JobResult {
        let doing = || format!("reading what {} is made of", target.schema);
        let session = self
            .database
            .session(RECONNECT_TIMEOUT)
            .await
            .map_err(|error| {
                JobFailure::from(MigrateError::Database {
                    doing: doing(),
                    error,
                })
            })?;
        let read = self.read(&session, target).await;
        if read.is_err() || rollback(&session).await.is_err() {
            session.discard();
        }
        match read {
            Ok(Some(lines)) => {
                self.keep(target, lines);
                Ok(JobSuccess::Finished(String::new()))
            }
            Ok(None) => Err(MigrateError::SchemaMissing.into()),
            Err(error) => Err(MigrateError::Database {
                doing: doing(),
                error: server_error(&error),
            }
            .into()),
        }
    }
}
