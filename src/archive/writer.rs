//! Writing a backup: under a name of its own, and under its real one when it is whole.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{
    ArchivePart, END, FIRST, FORMAT, HEADER, Header, LONGEST, ROWS_END, RowCount, SECTION, Section,
    TABLE, TableHead, TableRecord, Trailer,
};

/// How hard the text is packed: zstd's own default, from which on time grows faster than room shrinks.
const LEVEL: i32 = 3;

/// Writes a backup. Without [`ArchiveWriter::finish`] no file is left.
pub struct ArchiveWriter {
    path: PathBuf,
    to: zstd::Encoder<'static, NamedTempFile>,
    hash: Sha256,
    table: Option<(String, RowCount)>,
    tables: Vec<TableRecord>,
}

/// A backup that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenArchive {
    /// Where it is.
    pub path: PathBuf,
    /// How many bytes the file has.
    pub bytes: u64,
    /// What is in it.
    pub ending: Trailer,
}

impl ArchiveWriter {
    /// Creates a file that only its owner can read.
    ///
    /// # Errors
    ///
    /// What the system says; a file that exists is an error.
    pub fn create(path: &Path, header: &Header) -> io::Result<Self> {
        if path.try_exists()? {
            let words = format!("{} is there already", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, words));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        // Made for its owner alone.
        let file = tempfile::Builder::new()
            .prefix(".pricesync-")
            .suffix(".partial")
            .tempfile_in(folder)?;
        let mut to = zstd::Encoder::new(file, LEVEL)?;
        to.include_checksum(true)?;
        let mut writer = Self {
            path: path.to_owned(),
            to,
            hash: Sha256::new(),
            table: None,
            tables: Vec::new(),
        };
        writer.line(FIRST, &FORMAT.to_string())?;
        writer.line(HEADER, &json(header)?)?;
        writer.sql(Section::Preamble, &preamble(header))?;
        Ok(writer)
    }

    /// Writes a piece; the end is for [`ArchiveWriter::finish`].
    ///
    /// # Errors
    ///
    /// What the system says; statements of more than 256 MiB.
    pub fn write(&mut self, piece: &ArchivePart) -> io::Result<()> {
        match piece {
            ArchivePart::Sql(section, sql) => self.sql(*section, sql),
            ArchivePart::Table(head) => self.table(head),
            ArchivePart::Rows(rows) => {
                if let Some((_, count)) = &mut self.table {
                    count.add(rows);
                }
                self.put(rows)
            }
            ArchivePart::TableEnd => {
                self.put(ROWS_END)?;
                let ended = self.table.take();
                self.tables.extend(ended.map(|(table, count)| count.record(&table)));
                Ok(())
            }
            ArchivePart::End(_) => Ok(()),
        }
    }

    /// Ends the file, brings it to the disk and gives it its name.
    ///
    /// # Errors
    ///
    /// I/O errors, and an existing file of that name. No file is left then.
    pub fn finish(mut self, ending: Trailer) -> io::Result<WrittenArchive> {
        let mut ending = Trailer { tables: std::mem::take(&mut self.tables), ..ending };
        ending.sha256 = ending.digest(self.hash.clone())?;
        self.line(END, &json(&ending)?)?;
        let file = self.to.finish()?;
        file.as_file().sync_all()?;
        let bytes = file.as_file().metadata()?.len();
        file.persist_noclobber(&self.path).map_err(|error| error.error)?;
        // A name is lost with its folder's contents otherwise.
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(WrittenArchive { path: self.path, bytes, ending })
    }

    fn table(&mut self, head: &TableHead) -> io::Result<()> {
        let target = head.target();
        if target.contains('\n') {
            let words =
                format!("line break in the name of a table or column: {}", target.escape_debug());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
        self.line(TABLE, &json(head)?)?;
        self.put(format!("COPY {target} FROM stdin;\n").as_bytes())?;
        self.table = Some((head.table.clone(), RowCount::default()));
        Ok(())
    }

    fn sql(&mut self, section: Section, sql: &str) -> io::Result<()> {
        if sql.len() > LONGEST {
            return Err(io::Error::other("the schema's statements are too long"));
        }
        self.line(SECTION, &format!("{} {}", section.word(), sql.len()))?;
        self.put(sql.as_bytes())
    }

    fn line(&mut self, begin: &str, rest: &str) -> io::Result<()> {
        self.put(format!("{begin}{rest}\n").as_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.to.write_all(bytes)
    }
}

/// On one line: a column of type `json` is handed through as it was typed, and between its words
/// line breaks may stand. Within a text they are written as `\n` (RFC 8259 section 7).
fn json(value: &impl serde::Serialize) -> io::Result<String> {
    let text = serde_json::to_string(value)?.replace(['\n', '\r'], " ");
    if text.len() > LONGEST {
        return Err(io::Error::other("the schema's description is too long"));
    }
    Ok(text)
}

/// What psql needs before the rest; a restore does it in its own way.
fn preamble(header: &Header) -> String {
    let name = crate::domain::schema_name::QuotedIdentifier::new(&header.schema);
    format!(
        "SET client_encoding TO 'UTF8';\nSET standard_conforming_strings TO on;\nSET check_function_bodies TO off;\n\
         SET row_security TO off;\nSET xmloption TO content;\nSET DateStyle TO ISO;\nSET IntervalStyle TO postgres;\n\
         CREATE SCHEMA {name};\nSET search_path TO {name}, public;\n"
    )
}
