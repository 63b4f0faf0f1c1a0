//! The file format of a tenant's backup: a zstd frame around a text that psql can execute.
//!
//! ```text
//! -- pricesync backup 1
//! -- header {"schema":"tenant_acme", ...}
//! -- section preamble 312
//! CREATE SCHEMA ... (312 bytes)
//! -- section before 4711
//! CREATE TABLE ...
//! -- table {"table":"products","columns":["id","name"]}
//! COPY "products" ("id", "name") FROM stdin;
//! 1<tab>Espresso
//! \.
//! -- section sequences 80
//! -- section after 901
//! -- section schema 60
//! -- end {"tables":[{"table":"products","rows":1,"bytes":11,"sha256":"..."}],"sha256":"..."}
//! ```
//!
//! A table's rows end with `\.`, which no row of the server's text format can be. A reader compares
//! the counts and digests of the trailer with what it read. The digests detect damage; they do not
//! authenticate the file.
//!
//! May import `domain`. Start reading at [`ArchiveWriter`] and [`ArchiveReader`].

mod reader;
mod writer;

use std::fmt::Write as _;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::domain::digest::hexadecimal;
use crate::domain::os_error::without_number;
use crate::domain::schema_name::QuotedIdentifier;

pub use reader::ArchiveReader;
pub use writer::{ArchiveWriter, WrittenArchive};

/// The format that is written, and the newest that is read.
pub const FORMAT: u32 = 1;

/// The extension of the file's name.
pub const EXTENSION: &str = "backup";

const FIRST: &str = "-- pricesync backup ";
const HEADER: &str = "-- header ";
const SECTION: &str = "-- section ";
const TABLE: &str = "-- table ";
const END: &str = "-- end ";
const ROWS_END: &[u8] = b"\\.\n";

/// The longest section, and the longest line that is not a row, in bytes.
const LONGEST: usize = 256 << 20;

/// The header of a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// What wrote it, such as `pricesync 0.1.0`.
    pub tool: String,
    /// `server_version_num` of the server that it comes from.
    pub server_version: u32,
    /// When its snapshot was taken, by the server's clock, as RFC 3339 text.
    pub taken_at: String,
    /// The role that took it.
    pub role: String,
    /// The tenant's slug.
    pub slug: String,
    /// The name that people read.
    pub name: String,
    /// The tenant's schema.
    pub schema: String,
    /// The tenant's row with all its columns, as the server writes it.
    pub tenant: Box<RawValue>,
    /// The rows of its hosts, likewise.
    pub domains: Box<RawValue>,
    /// Its hosts, the primary one first.
    pub hosts: Vec<String>,
    /// The versions that its history holds.
    pub migrations: Vec<i64>,
    /// Digest of `structure`.
    pub fingerprint: String,
    /// What the schema is like, a line for each thing, without its name.
    pub structure: Vec<String>,
    /// Things whose text holds the schema's name, so that they would be wrong in another one.
    pub mentions: Vec<String>,
    /// Tables and their columns that refer to the tenant's id by a foreign key.
    #[serde(default)]
    pub tenant_keys: Vec<(String, String)>,
    /// Statements about the schema itself: its name stands between the two.
    pub about_schema: Vec<(String, String)>,
}

impl Header {
    /// Returns the major version of the server that the backup comes from.
    pub const fn major(&self) -> u32 {
        self.server_version / 10_000
    }
}

/// The statements of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// For psql alone: the schema, and settings that a restore makes itself.
    Preamble,
    /// What must be there before rows are.
    Before,
    /// The values of sequences.
    Sequences,
    /// What follows the rows.
    After,
    /// For psql alone: what is said of the schema itself.
    Schema,
}

impl Section {
    const ALL: [Self; 5] =
        [Self::Preamble, Self::Before, Self::Sequences, Self::After, Self::Schema];

    const fn word(self) -> &'static str {
        match self {
            Self::Preamble => "preamble",
            Self::Before => "before",
            Self::Sequences => "sequences",
            Self::After => "after",
            Self::Schema => "schema",
        }
    }
}

/// A table whose rows follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableHead {
    /// Its name.
    pub table: String,
    /// The columns that are stored; none where all are.
    pub columns: Vec<String>,
}

impl TableHead {
    /// Returns what stands between `COPY` and its direction, with a bare table name.
    pub fn target(&self) -> String {
        let mut text = QuotedIdentifier::new(&self.table).to_string();
        for (number, column) in self.columns.iter().enumerate() {
            let before = if number == 0 { " (" } else { ", " };
            let _ = write!(text, "{before}{}", QuotedIdentifier::new(column));
        }
        if !self.columns.is_empty() {
            text.push(')');
        }
        text
    }
}

/// The count and the digest of a table's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    /// Its name.
    pub table: String,
    /// How many rows.
    pub rows: u64,
    /// How many bytes they are in the server's text format.
    pub bytes: u64,
    /// SHA-256 of these bytes, as hexadecimal digits.
    pub sha256: String,
}

/// The state of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceRecord {
    /// Its name.
    pub sequence: String,
    /// Its last value.
    pub last_value: i64,
    /// Whether that value was returned by `nextval`.
    pub is_called: bool,
}

/// The last line of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// Its tables.
    pub tables: Vec<TableRecord>,
    /// Its sequences.
    pub sequences: Vec<SequenceRecord>,
    /// SHA-256 of the text before the last line, and of the tables and sequences in it.
    #[serde(default)]
    pub sha256: String,
}

impl Trailer {
    /// Returns how many rows all tables have.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// Returns the digest of a text that ended this way.
    fn digest(&self, mut text: Sha256) -> io::Result<String> {
        let said =
            serde_json::to_vec(&(&self.tables, &self.sequences)).map_err(io::Error::other)?;
        text.update(&said);
        Ok(hexadecimal(&text.finalize()))
    }
}

/// A part of a backup, in the order of the file.
#[derive(Clone, Debug)]
pub enum ArchivePart {
    /// Statements.
    Sql(Section, String),
    /// A table begins.
    Table(TableHead),
    /// Rows of the table, any number of bytes of them.
    Rows(Vec<u8>),
    /// The table ends.
    TableEnd,
    /// The end. A writer fills in the digest and what it counted itself.
    End(Trailer),
}

/// Counts rows and digests them on their way.
#[derive(Debug, Default)]
pub struct RowCount {
    rows: u64,
    bytes: u64,
    hash: Sha256,
}

impl RowCount {
    /// Adds rows; each ends with the only line end in it.
    pub fn add(&mut self, bytes: &[u8]) {
        self.rows += bytes.iter().map(|&byte| u64::from(byte == b'\n')).sum::<u64>();
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    /// Returns the count and the digest.
    pub fn record(self, table: &str) -> TableRecord {
        TableRecord {
            table: table.to_owned(),
            rows: self.rows,
            bytes: self.bytes,
            sha256: hexadecimal(&self.hash.finalize()),
        }
    }
}

/// Why a file cannot be read as a backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The file cannot be read or written.
    #[error("{}", without_number(&.0.to_string()))]
    Io(io::Error),
    /// The file is not a backup.
    #[error("not a backup of pricesync")]
    NotABackup,
    /// The format is newer than this version reads; holds its number.
    #[error("its format {0} is newer than {FORMAT}, the newest that this version reads")]
    Newer(u32),
    /// The contents are damaged; holds the reason.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl ArchiveError {
    fn damaged(why: impl Into<String>) -> Self {
        Self::Damaged(why.into())
    }
}

impl From<io::Error> for ArchiveError {
    /// Errors of the operating system have a number; those of the decompressor do not.
    fn from(error: io::Error) -> Self {
        if error.raw_os_error().is_some() {
            Self::Io(error)
        } else if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::damaged("it is truncated")
        } else {
            Self::Damaged(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests;
