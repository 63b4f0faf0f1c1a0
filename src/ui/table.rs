//! Listings on stdout: tables, JSON, CSV and names.

use std::borrow::Cow;
use std::io::{self, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::value::RawValue;

use super::json::encode;
use super::terminal::{Stream, Terminal};
use super::text::clean;
use crate::service::exec_results::{ColumnType, Value};

/// The format of a listing: `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// A table.
    #[default]
    Table,
    /// An array of objects.
    Json,
    /// CSV as in RFC 4180, with a header; lines end in LF, as in psql.
    Csv,
    /// One name a line, for xargs.
    Names,
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Text.
    Text(String),
    /// A number; right-aligned in tables.
    Number(i64),
    /// `yes` or `no` in tables.
    Flag(bool),
    /// Several texts; joined by semicolons in CSV.
    List(Vec<String>),
    /// No value: `-` in tables, empty in CSV, `null` in JSON.
    Absent,
    /// A value of a query as the server writes it. NULL is `NULL` in tables and, as in COPY, empty
    /// in CSV, where an empty text has quotes.
    Value(ColumnType, Value),
}

/// The columns of a listing.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Headers of tables and CSV, keys of JSON objects.
    pub columns: Vec<Cow<'static, str>>,
    /// Index of the column for `-o names`.
    pub name: usize,
    /// The note on stderr if there are no rows, such as `no tenants`.
    pub empty: &'static str,
}

impl Listing {
    /// Returns a listing with these columns; the first one holds the names.
    pub fn new(columns: &[&'static str], empty: &'static str) -> Self {
        Self { columns: columns.iter().copied().map(Cow::Borrowed).collect(), name: 0, empty }
    }

    /// Returns the listing with its names in another column.
    #[must_use]
    pub fn named_by(self, column: &str) -> Self {
        Self { name: self.columns.iter().position(|key| key == column).unwrap_or_default(), ..self }
    }

    /// Writes a listing to stdout, and a note to stderr if a table is empty.
    pub fn write(
        self,
        terminal: &Terminal,
        format: OutputFormat,
        rows: impl IntoIterator<Item = Vec<Cell>>,
    ) -> io::Result<()> {
        let empty = self.empty;
        let mut writer = ListingWriter::new(self, terminal.out(), terminal.stdout(), format);
        for row in rows {
            writer.row(row)?;
        }
        if writer.end()? == 0 && format == OutputFormat::Table {
            terminal.note(empty);
        }
        Ok(())
    }
}

/// Writes a listing. A table is kept until [`ListingWriter::end`], which knows the widths of its
/// columns; other formats are written row by row.
#[derive(Debug)]
pub(super) struct ListingWriter<W> {
    /// The columns can be changed until the first row.
    pub(super) listing: Listing,
    out: W,
    stream: Stream,
    format: OutputFormat,
    table: Table,
    pub(super) rows: usize,
}

impl<W: Write> ListingWriter<W> {
    /// Returns a writer to `out`; `stream` says whether that is a terminal, and how wide.
    pub(super) fn new(listing: Listing, out: W, stream: Stream, format: OutputFormat) -> Self {
        Self { listing, out, stream, format, table: Table::new(), rows: 0 }
    }

    /// Adds a row: one cell for each column, in their order.
    pub(super) fn row(&mut self, cells: Vec<Cell>) -> io::Result<()> {
        if self.rows == 0 {
            self.start()?;
        }
        match self.format {
            OutputFormat::Table => {
                self.table.add_row(cells.iter().map(Cell::in_table));
            }
            OutputFormat::Json => {
                let mut before = if self.rows == 0 { "\n  {" } else { ",\n  {" };
                for (key, cell) in self.listing.columns.iter().zip(cells) {
                    write!(self.out, "{before}{}:{}", encode(key)?, cell.json()?)?;
                    before = ",";
                }
                self.out.write_all(b"}")?;
            }
            OutputFormat::Csv => {
                let fields: Vec<String> = cells.iter().map(|cell| self.field(cell)).collect();
                writeln!(self.out, "{}", fields.join(","))?;
            }
            // xargs would read a name with a line break as two names.
            OutputFormat::Names => match cells.get(self.listing.name) {
                Some(Cell::List(names)) => {
                    for name in names {
                        writeln!(self.out, "{}", clean(name))?;
                    }
                }
                Some(name) => writeln!(self.out, "{}", clean(&name.plain(" ")))?,
                None => {}
            },
        }
        self.rows += 1;
        Ok(())
    }

    /// Finishes the listing and returns the number of rows.
    pub(super) fn end(mut self) -> io::Result<usize> {
        if self.rows == 0 {
            self.start()?;
        }
        match self.format {
            // An empty table prints nothing, as in kubectl and gh.
            OutputFormat::Table if self.rows > 0 => {
                for line in self.table.lines() {
                    writeln!(self.out, "{}", line.trim_end())?;
                }
            }
            OutputFormat::Json => {
                self.out.write_all(if self.rows == 0 { b"]\n" } else { b"\n]\n" })?;
            }
            _ => {}
        }
        self.out.flush()?;
        Ok(self.rows)
    }

    fn start(&mut self) -> io::Result<()> {
        let columns = &self.listing.columns;
        match self.format {
            OutputFormat::Table => {
                self.table.load_style(UTF8_FULL_CONDENSED);
                self.table.set_header(columns.iter().map(|key| clean(key)));
                self.table.set_content_arrangement(ContentArrangement::Disabled);
                if let Some(width) = self.stream.width.filter(|_| self.stream.is_terminal) {
                    self.table
                        .set_content_arrangement(ContentArrangement::Dynamic)
                        .set_width(width);
                }
            }
            OutputFormat::Json => self.out.write_all(b"[")?,
            OutputFormat::Csv => {
                let heads = columns.iter().map(|key| self.quoted(key, false));
                let heads: Vec<String> = heads.collect();
                writeln!(self.out, "{}", heads.join(","))?;
            }
            OutputFormat::Names => {}
        }
        Ok(())
    }

    fn field(&self, cell: &Cell) -> String {
        self.quoted(&cell.plain(";"), matches!(cell, Cell::Value(_, Some(_))))
    }

    /// Returns a field of CSV, in quotes where RFC 4180 requires them.
    fn quoted(&self, text: &str, even_empty: bool) -> String {
        // A file gets the value unchanged; a terminal must not act on it.
        let text = if self.stream.is_terminal { clean(text) } else { text.into() };
        if text.contains([',', '"', '\n', '\r']) || even_empty && text.is_empty() {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.into_owned()
        }
    }
}

impl Cell {
    /// Returns a text cell, or [`Cell::Absent`] for `None`.
    pub fn maybe(text: Option<impl Into<String>>) -> Self {
        text.map_or(Self::Absent, |text| Self::Text(text.into()))
    }

    /// Returns a cell with a number of things.
    pub fn count(number: impl TryInto<i64>) -> Self {
        Self::Number(number.try_into().unwrap_or(i64::MAX))
    }

    fn plain(&self, separator: &str) -> Cow<'_, str> {
        match self {
            Self::Text(text) | Self::Value(_, Some(text)) => Cow::Borrowed(text),
            Self::Number(number) => Cow::Owned(number.to_string()),
            Self::Flag(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
            Self::List(items) => Cow::Owned(items.join(separator)),
            Self::Absent | Self::Value(_, None) => Cow::Borrowed(""),
        }
    }

    fn in_table(&self) -> comfy_table::Cell {
        let text = match self {
            Self::Flag(flag) => Cow::Borrowed(if *flag { "yes" } else { "no" }),
            Self::Absent => Cow::Borrowed("-"),
            Self::List(items) if items.is_empty() => Cow::Borrowed("-"),
            Self::Value(_, None) => Cow::Borrowed("NULL"),
            other => other.plain(", "),
        };
        let cell = comfy_table::Cell::new(clean(&text));
        match self {
            Self::Number(_) | Self::Value(ColumnType::Number, _) => {
                cell.set_alignment(CellAlignment::Right)
            }
            _ => cell,
        }
    }

    fn json(&self) -> io::Result<String> {
        match self {
            Self::List(items) => encode(items),
            Self::Absent | Self::Value(_, None) => Ok("null".to_owned()),
            Self::Value(ColumnType::Flag, Some(text)) => Ok((text == "t").to_string()),
            Self::Value(ColumnType::Number | ColumnType::Json, Some(text)) => {
                match serde_json::from_str::<&RawValue>(text) {
                    // Line breaks between tokens; those in strings are escaped.
                    Ok(raw) => {
                        let line = raw.get().replace(['\n', '\r', '\t'], " ");
                        encode(&RawValue::from_string(line)?)
                    }
                    // JSON has no NaN and no Infinity.
                    Err(_) => encode(text),
                }
            }
            Self::Text(text) | Self::Value(ColumnType::Text, Some(text)) => encode(text),
            other @ (Self::Number(_) | Self::Flag(_)) => Ok(other.plain("").into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use snapbox::{IntoData, assert_data_eq, str};

    use super::*;
    use crate::ui::is_broken_pipe;
    use crate::ui::test_support::Closed;

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec![
                Cell::Number(1),
                Cell::Text("acme".into()),
                Cell::Text("Acme, \"Inc.\"".into()),
                Cell::List(vec!["acme.example.com".into(), "acme.vn".into()]),
                Cell::Flag(true),
            ],
            vec![
                Cell::Number(20),
                Cell::Text("hà_nội".into()),
                Cell::Text("Công ty Tiếng Việt 株式会社\u{1b}[2J".into()),
                Cell::List(vec![]),
                Cell::Absent,
            ],
        ]
    }

    fn listing() -> Listing {
        Listing::new(&["id", "slug", "name", "domains", "pending"], "no tenants").named_by("slug")
    }

    fn written(format: OutputFormat, rows: Vec<Vec<Cell>>, width: Option<u16>) -> String {
        let mut out = Vec::new();
        let stream = Stream { is_terminal: width.is_some(), width, ..Stream::default() };
        let mut writer = ListingWriter::new(listing(), &mut out, stream, format);
        for row in rows {
            writer.row(row).unwrap();
        }
        writer.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_counts_cells_and_shows_escapes() {
        assert_data_eq!(
            written(OutputFormat::Table, rows(), None),
            str![[r#"
┌────┬────────┬──────────────────────────────────────┬───────────────────────────┬─────────┐
│ id ┆ slug   ┆ name                                 ┆ domains                   ┆ pending │
╞════╪════════╪══════════════════════════════════════╪═══════════════════════════╪═════════╡
│  1 ┆ acme   ┆ Acme, "Inc."                         ┆ acme.example.com, acme.vn ┆ yes     │
│ 20 ┆ hà_nội ┆ Công ty Tiếng Việt 株式会社\u{1b}[2J ┆ -                         ┆ -       │
└────┴────────┴──────────────────────────────────────┴───────────────────────────┴─────────┘

"#]]
            .raw()
        );
    }

    #[test]
    fn a_table_on_a_narrow_terminal_wraps() {
        let text = written(OutputFormat::Table, rows(), Some(50));
        assert!(text.lines().all(|line| crate::ui::text::columns(line) <= 50));
    }

    #[test]
    fn json_is_one_array_with_keys_in_the_order_of_columns() {
        assert_data_eq!(written(OutputFormat::Json, rows(), None), str![[r#"
[
  {"id":1,"slug":"acme","name":"Acme, \"Inc.\"","domains":["acme.example.com","acme.vn"],"pending":true},
  {"id":20,"slug":"hà_nội","name":"Công ty Tiếng Việt 株式会社\u001b[2J","domains":[],"pending":null}
]

"#]].raw());
    }

    #[test]
    fn csv_quotes_only_where_necessary() {
        assert_eq!(
            written(OutputFormat::Csv, rows(), None),
            "id,slug,name,domains,pending\n\
             1,acme,\"Acme, \"\"Inc.\"\"\",acme.example.com;acme.vn,true\n\
             20,hà_nội,Công ty Tiếng Việt 株式会社\u{1b}[2J,,\n"
        );
        assert!(written(OutputFormat::Csv, rows(), Some(80)).contains("\\u{1b}[2J"));
    }

    #[test]
    fn names_are_one_a_line() {
        assert_eq!(written(OutputFormat::Names, rows(), None), "acme\nhà_nội\n");
    }

    #[test]
    fn an_empty_listing_is_valid_in_every_format() {
        let empty = |format| written(format, vec![], None);
        assert_eq!(empty(OutputFormat::Table), "");
        assert_eq!(empty(OutputFormat::Json), "[]\n");
        assert_eq!(empty(OutputFormat::Csv), "id,slug,name,domains,pending\n");
        assert_eq!(empty(OutputFormat::Names), "");
    }

    #[test]
    fn a_closed_pipe_is_an_error_in_every_format() {
        for format in
            [OutputFormat::Table, OutputFormat::Json, OutputFormat::Csv, OutputFormat::Names]
        {
            let mut writer = ListingWriter::new(listing(), Closed, Stream::default(), format);
            let written = rows().into_iter().try_for_each(|row| writer.row(row));
            let ended = written.and_then(|()| writer.end());
            assert!(is_broken_pipe(&ended.unwrap_err()), "{format:?}");
        }
    }
}
