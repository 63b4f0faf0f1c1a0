//! Listings on stdout: tables, JSON, CSV and names.

use std::borrow::Cow;
use std::io::{self, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::{Map, Value};

use super::json::encode;
use super::terminal::Terminal;
use super::text::clean;

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

/// Writes a listing. A table is kept until [`ListingWriter::end`], which knows the widths of its
/// columns; other formats are written row by row.
#[derive(Debug)]
pub struct ListingWriter<W: Write> {
    form: Form<W>,
    columns: Vec<Cow<'static, str>>,
    name: usize,
    /// Whether the output is a terminal, so that CSV is escaped too.
    is_terminal: bool,
    rows: usize,
}

#[derive(Debug)]
enum Form<W: Write> {
    Table(Box<Table>, W),
    Json(W),
    Csv(Box<csv::Writer<W>>),
    Names(W),
}

impl Listing {
    /// Returns a listing with these columns; the first one holds the names.
    #[must_use]
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
        &self,
        terminal: &Terminal,
        format: OutputFormat,
        rows: impl IntoIterator<Item = Vec<Cell>>,
    ) -> io::Result<()> {
        let mut sheet = self.begin(terminal, format)?;
        for row in rows {
            sheet.row(row)?;
        }
        if sheet.end()? == 0 && format == OutputFormat::Table {
            terminal.note(self.empty);
        }
        Ok(())
    }

    /// Starts a listing on stdout whose rows are added one by one.
    pub fn begin(
        &self,
        terminal: &Terminal,
        format: OutputFormat,
    ) -> io::Result<ListingWriter<impl Write + use<>>> {
        let width = terminal.stdout().width.filter(|_| terminal.stdout().is_terminal);
        self.begin_in(terminal.out(), format, terminal.stdout().is_terminal, width)
    }

    /// Starts a listing in a writer; `width` limits a table.
    pub fn begin_in<W: Write>(
        &self,
        mut out: W,
        format: OutputFormat,
        is_terminal: bool,
        width: Option<u16>,
    ) -> io::Result<ListingWriter<W>> {
        let form = match format {
            OutputFormat::Table => {
                let mut table = Table::new();
                table.load_style(UTF8_FULL_CONDENSED);
                table.set_header(self.columns.iter().map(|key| clean(key).into_owned()));
                match width {
                    Some(width) => {
                        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width)
                    }
                    None => table.set_content_arrangement(ContentArrangement::Disabled),
                };
                Form::Table(Box::new(table), out)
            }
            OutputFormat::Json => {
                out.write_all(b"[")?;
                Form::Json(out)
            }
            OutputFormat::Csv => {
                let mut writer = csv::Writer::from_writer(out);
                let heads = self.columns.iter().map(|key| key.as_bytes());
                writer.write_record(heads).map_err(plain)?;
                Form::Csv(Box::new(writer))
            }
            OutputFormat::Names => Form::Names(out),
        };
        Ok(ListingWriter {
            form,
            columns: self.columns.clone(),
            name: self.name,
            is_terminal,
            rows: 0,
        })
    }
}

impl<W: Write> ListingWriter<W> {
    /// Adds a row: one cell for each column, in their order.
    pub fn row(&mut self, cells: Vec<Cell>) -> io::Result<()> {
        match &mut self.form {
            Form::Table(table, _) => {
                table.add_row(cells.iter().map(Cell::in_table).collect::<Vec<_>>());
            }
            Form::Json(out) => {
                let keys = self.columns.iter().map(|key| key.clone().into_owned());
                let object: Map<_, _> = keys.zip(cells.into_iter().map(Value::from)).collect();
                out.write_all(if self.rows == 0 { b"\n  " } else { b",\n  " })?;
                out.write_all(encode(&object)?.as_bytes())?;
            }
            Form::Csv(writer) => {
                let is_terminal = self.is_terminal;
                let fields = cells.iter().map(|cell| {
                    let text = cell.plain(";");
                    // A file gets the value unchanged; a terminal must not act on it.
                    if is_terminal { clean(&text).into_owned() } else { text.into_owned() }
                });
                writer.write_record(fields.map(String::into_bytes)).map_err(plain)?;
            }
            Form::Names(out) => {
                // xargs would read a name with a line break as two names.
                match cells.get(self.name) {
                    Some(Cell::List(names)) => {
                        for name in names {
                            writeln!(out, "{}", clean(name))?;
                        }
                    }
                    Some(name) => writeln!(out, "{}", clean(&name.plain(" ")))?,
                    None => {}
                }
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Finishes the listing and returns the number of rows.
    pub fn end(self) -> io::Result<usize> {
        match self.form {
            // An empty table prints nothing, as in kubectl and gh.
            Form::Table(_, mut out) if self.rows == 0 => out.flush()?,
            Form::Table(table, mut out) => {
                for line in table.lines() {
                    writeln!(out, "{}", line.trim_end())?;
                }
                out.flush()?;
            }
            Form::Json(mut out) => {
                out.write_all(if self.rows == 0 { b"]\n" } else { b"\n]\n" })?;
                out.flush()?;
            }
            Form::Csv(mut writer) => writer.flush()?,
            Form::Names(mut out) => out.flush()?,
        }
        Ok(self.rows)
    }
}

impl Cell {
    /// Returns a text cell, or [`Cell::Absent`] for `None`.
    #[must_use]
    pub fn maybe(text: Option<impl Into<String>>) -> Self {
        text.map_or(Self::Absent, |text| Self::Text(text.into()))
    }

    fn plain(&self, separator: &str) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => Cow::Owned(number.to_string()),
            Self::Flag(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
            Self::List(items) => Cow::Owned(items.join(separator)),
            Self::Absent => Cow::Borrowed(""),
        }
    }

    fn in_table(&self) -> comfy_table::Cell {
        match self {
            Self::Number(_) => {
                comfy_table::Cell::new(self.plain("")).set_alignment(CellAlignment::Right)
            }
            Self::Flag(flag) => comfy_table::Cell::new(if *flag { "yes" } else { "no" }),
            Self::Absent => comfy_table::Cell::new("-"),
            Self::List(items) if items.is_empty() => comfy_table::Cell::new("-"),
            Self::Text(_) | Self::List(_) => comfy_table::Cell::new(clean(&self.plain(", "))),
        }
    }
}

impl From<Cell> for Value {
    fn from(cell: Cell) -> Self {
        match cell {
            Cell::Text(text) => text.into(),
            Cell::Number(number) => number.into(),
            Cell::Flag(flag) => flag.into(),
            Cell::List(items) => items.into(),
            Cell::Absent => Self::Null,
        }
    }
}

/// Keeps the kind of an I/O error, which the conversion of the csv crate drops.
fn plain(error: csv::Error) -> io::Error {
    let kind = match error.kind() {
        csv::ErrorKind::Io(error) => error.kind(),
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use snapbox::{IntoData, assert_data_eq, str};

    use super::*;

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
        let mut sheet = listing().begin_in(&mut out, format, width.is_some(), width).unwrap();
        for row in rows {
            sheet.row(row).unwrap();
        }
        sheet.end().unwrap();
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
    fn csv_quotes_what_needs_it_and_keeps_the_rest() {
        assert_eq!(
            written(OutputFormat::Csv, rows(), None),
            "id,slug,name,domains,pending\n\
             1,acme,\"Acme, \"\"Inc.\"\"\",acme.example.com;acme.vn,true\n\
             20,hà_nội,Công ty Tiếng Việt 株式会社\u{1b}[2J,,\n"
        );
        assert!(written(OutputFormat::Csv, rows(), Some(80)).contains("\\u{1b}[2J"));
    }

    #[test]
    fn names_are_one_on_each_line() {
        assert_eq!(written(OutputFormat::Names, rows(), None), "acme\nhà_nội\n");
    }

    #[test]
    fn an_empty_listing_is_what_programs_expect_of_it() {
        let empty = |format| written(format, vec![], None);
        assert_eq!(empty(OutputFormat::Table), "");
        assert_eq!(empty(OutputFormat::Json), "[]\n");
        assert_eq!(empty(OutputFormat::Csv), "id,slug,name,domains,pending\n");
        assert_eq!(empty(OutputFormat::Names), "");
    }

    #[test]
    fn a_reader_that_goes_away_is_a_broken_pipe_in_every_format() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for format in
            [OutputFormat::Table, OutputFormat::Json, OutputFormat::Csv, OutputFormat::Names]
        {
            let ended = listing().begin_in(Closed, format, false, None).and_then(|mut sheet| {
                for row in rows() {
                    sheet.row(row)?;
                }
                sheet.end()
            });
            assert!(super::super::is_broken_pipe(&ended.unwrap_err()), "{format:?}");
        }
    }
}
