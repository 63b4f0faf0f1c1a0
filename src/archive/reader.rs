//! Reads a backup; lengths in the file are never trusted.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{
    ArchiveError, ArchivePart, END, FIRST, FORMAT, HEADER, Header, LONGEST, ROWS_END, RowCount,
    SECTION, Section, TABLE, TableHead, TableRecord, Trailer,
};

/// What a zstd frame begins with.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Rows are handed on in portions of this many bytes.
const PORTION: usize = 64 << 10;

/// The text of a file, unpacked, with a look ahead.
struct Text {
    from: zstd::Decoder<'static, BufReader<File>>,
    buffer: Vec<u8>,
    at: usize,
    hash: Sha256,
}

impl Text {
    /// Returns what comes next: so many bytes or more, less only at the end of the file.
    fn look(&mut self, least: usize) -> io::Result<&[u8]> {
        while self.buffer.len() - self.at < least {
            self.buffer.drain(..self.at);
            self.at = 0;
            let kept = self.buffer.len();
            self.buffer.resize(kept + PORTION, 0);
            let read = self.from.read(&mut self.buffer[kept..]);
            self.buffer.truncate(kept + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                break;
            }
        }
        Ok(&self.buffer[self.at..])
    }

    /// Returns what comes next, at least one byte; the end of the file is an error.
    fn more(&mut self) -> io::Result<&[u8]> {
        let next = self.look(1)?;
        if next.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(next) }
    }

    /// Takes bytes that were looked at.
    fn take(&mut self, length: usize) {
        self.hash.update(&self.buffer[self.at..self.at + length]);
        self.at += length;
    }

    /// Reads a line without its end.
    fn line(&mut self, limit: usize) -> Result<String, ArchiveError> {
        let mut bytes = Vec::new();
        while bytes.last() != Some(&b'\n') {
            let next = self.more()?;
            let length = row_length(next);
            if bytes.len() + length > limit {
                return Err(ArchiveError::damaged("a line is too long"));
            }
            bytes.extend_from_slice(&next[..length]);
            self.take(length);
        }
        bytes.pop();
        String::from_utf8(bytes).map_err(|_| ArchiveError::damaged("a line is not UTF-8"))
    }

    /// Reads so many bytes. Room is made as they come, not because a number says so.
    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let next = self.more()?;
            let some = next.len().min(length - bytes.len());
            bytes.extend_from_slice(&next[..some]);
            self.take(some);
        }
        Ok(bytes)
    }
}

/// Returns how many of these bytes are one row or the beginning of one.
fn row_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1)
}

/// Reads a backup from its start to its end.
pub struct ArchiveReader {
    text: Text,
    header: Header,
    table: Option<(String, RowCount)>,
    /// Whether the next byte of the rows begins one.
    at_row: bool,
    tables: Vec<TableRecord>,
    ended: bool,
}

impl ArchiveReader {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let mut file = BufReader::new(File::open(path)?);
        if !file.fill_buf()?.starts_with(&MAGIC) {
            return Err(ArchiveError::NotABackup);
        }
        let mut text = Text {
            from: zstd::Decoder::with_buffer(file)?,
            buffer: Vec::new(),
            at: 0,
            hash: Sha256::new(),
        };
        if !text.look(FIRST.len())?.starts_with(FIRST.as_bytes()) {
            return Err(ArchiveError::NotABackup);
        }
        let first = text.line(FIRST.len() + 20)?;
        match first[FIRST.len()..].parse() {
            Ok(FORMAT) => {}
            Ok(newer) if newer > FORMAT => return Err(ArchiveError::Newer(newer)),
            _ => return Err(ArchiveError::damaged("its format is invalid")),
        }
        let line = text.line(LONGEST)?;
        let header = line
            .strip_prefix(HEADER)
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(|| ArchiveError::damaged("its header cannot be read"))?;
        Ok(Self { text, header, table: None, at_row: false, tables: Vec::new(), ended: false })
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the next part; `None` after the end, once all counts and digests have matched.
    pub fn next_part(&mut self) -> Result<Option<ArchivePart>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        if self.table.is_some() {
            return self.rows().map(Some);
        }
        let before = self.text.hash.clone();
        let line = self.text.line(LONGEST)?;
        if let Some(rest) = line.strip_prefix(SECTION) {
            return self.section(rest).map(Some);
        }
        if let Some(text) = line.strip_prefix(TABLE) {
            let head: TableHead = serde_json::from_str(text)
                .map_err(|_| ArchiveError::damaged("the name of a table cannot be read"))?;
            // The statement is for psql.
            self.text.line(LONGEST)?;
            self.table = Some((head.table.clone(), RowCount::default()));
            self.at_row = true;
            return Ok(Some(ArchivePart::Table(head)));
        }
        let Some(text) = line.strip_prefix(END) else {
            return Err(ArchiveError::damaged("there is something between its parts"));
        };
        let ending: Trailer = serde_json::from_str(text)
            .map_err(|_| ArchiveError::damaged("its end cannot be read"))?;
        self.compare(&ending)?;
        if ending.sha256 != ending.digest(before)? {
            return Err(ArchiveError::damaged("its text has another digest"));
        }
        if !self.text.look(1)?.is_empty() {
            return Err(ArchiveError::damaged("something follows its end"));
        }
        self.ended = true;
        Ok(Some(ArchivePart::End(ending)))
    }

    /// Compares what is said about the tables with what was read.
    fn compare(&self, ending: &Trailer) -> Result<(), ArchiveError> {
        for (said, read) in ending.tables.iter().zip(&self.tables) {
            if said != read {
                return Err(ArchiveError::Damaged(format!(
                    "table '{}' should have {} rows with the digest {}, and has {} with {}",
                    said.table, said.rows, said.sha256, read.rows, read.sha256
                )));
            }
        }
        if ending.tables.len() != self.tables.len() {
            return Err(ArchiveError::Damaged(format!(
                "it should hold {} tables, and holds {}",
                ending.tables.len(),
                self.tables.len()
            )));
        }
        Ok(())
    }

    fn section(&mut self, rest: &str) -> Result<ArchivePart, ArchiveError> {
        let said = rest.split_once(' ').and_then(|(word, length)| {
            let section = Section::ALL.into_iter().find(|one| one.word() == word)?;
            Some((section, length.parse::<usize>().ok()?))
        });
        let Some((section, length)) = said.filter(|(_, length)| *length <= LONGEST) else {
            return Err(ArchiveError::damaged("a section has no name or no length"));
        };
        let sql = String::from_utf8(self.text.exactly(length)?)
            .map_err(|_| ArchiveError::damaged("a statement is not UTF-8"))?;
        Ok(ArchivePart::Sql(section, sql))
    }

    /// Returns a portion of rows, or the end of the table. A row that begins with a backslash
    /// and a dot does not exist: the server doubles a backslash that is data.
    fn rows(&mut self) -> Result<ArchivePart, ArchiveError> {
        let mut portion = Vec::with_capacity(PORTION);
        while portion.len() < PORTION {
            let at_row = self.at_row;
            let next = self.text.look(ROWS_END.len())?;
            if at_row && next.starts_with(ROWS_END) {
                if !portion.is_empty() {
                    break;
                }
                self.text.take(ROWS_END.len());
                let (table, count) = self.table.take().unwrap_or_default();
                let record = count.record(&table);
                self.tables.push(record);
                return Ok(ArchivePart::TableEnd);
            }
            if next.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let length = row_length(next);
            portion.extend_from_slice(&next[..length]);
            self.at_row = portion.ends_with(b"\n");
            self.text.take(length);
        }
        if let Some((_, count)) = &mut self.table {
            count.add(&portion);
        }
        Ok(ArchivePart::Rows(portion))
    }
}
