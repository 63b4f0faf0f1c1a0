//! Rows of a query, from many tenants: their values as the server returns them.

use std::collections::HashSet;
use std::io::{self, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::value::RawValue;

use super::json::encode;
use super::table::OutputFormat;
use super::terminal::Terminal;
use super::text::clean;
use crate::service::exec_results::{Column, ColumnType, Value};

/// The header of the first column.
const TENANT: &str = "tenant";

/// Writes the rows of a query, each with its tenant in front. A table is kept until the end; other
/// formats are written row by row.
#[derive(Debug)]
pub struct QueryRows<W: Write> {
    out: W,
    format: OutputFormat,
    is_terminal: bool,
    width: Option<u16>,
    heads: Vec<String>,
    table: Table,
    last: Option<String>,
    written: usize,
}

impl QueryRows<io::Sink> {
    /// Starts a result on stdout.
    pub fn on_stdout(terminal: &Terminal, format: OutputFormat) -> QueryRows<impl Write + use<>> {
        let stdout = terminal.stdout();
        let width = stdout.width.filter(|_| stdout.is_terminal);
        QueryRows::new(terminal.out(), format, stdout.is_terminal, width)
    }
}

impl<W: Write> QueryRows<W> {
    fn new(out: W, format: OutputFormat, is_terminal: bool, width: Option<u16>) -> Self {
        Self {
            out,
            format,
            is_terminal,
            width,
            heads: Vec::new(),
            table: Table::new(),
            last: None,
            written: 0,
        }
    }

    /// Adds a row.
    pub fn row(&mut self, columns: &[Column], tenant: &str, values: &[Value]) -> io::Result<()> {
        if self.written == 0 {
            self.start(columns)?;
        }
        match self.format {
            OutputFormat::Table => {
                let mut cells = vec![comfy_table::Cell::new(clean(tenant))];
                for (column, value) in columns.iter().zip(values) {
                    let cell = comfy_table::Cell::new(match value {
                        Some(text) => clean(text),
                        None => "NULL".into(),
                    });
                    cells.push(match column.kind {
                        ColumnType::Number => cell.set_alignment(CellAlignment::Right),
                        _ => cell,
                    });
                }
                self.table.add_row(cells);
            }
            OutputFormat::Json => {
                let comma = if self.written == 0 { "" } else { "," };
                write!(self.out, "{comma}\n  {{{}:{}", encode(&TENANT)?, encode(&tenant)?)?;
                for ((head, column), value) in self.heads[1..].iter().zip(columns).zip(values) {
                    write!(self.out, ",{}:{}", encode(head)?, json(column.kind, value)?)?;
                }
                self.out.write_all(b"}")?;
            }
            OutputFormat::Csv => {
                let mut line = self.field(Some(tenant));
                for value in values {
                    line.push(',');
                    line += &self.field(value.as_deref());
                }
                writeln!(self.out, "{line}")?;
            }
            OutputFormat::Names => {
                if self.last.as_deref() != Some(tenant) {
                    writeln!(self.out, "{}", clean(tenant))?;
                    self.last = Some(tenant.to_owned());
                }
            }
        }
        self.written += 1;
        Ok(())
    }

    /// Finishes the result and returns the number of rows. `columns` are the headers if there are no rows.
    pub fn end(mut self, columns: Option<&[Column]>) -> io::Result<usize> {
        if self.written == 0 {
            self.start(columns.unwrap_or_default())?;
        }
        match self.format {
            OutputFormat::Table if self.written > 0 => {
                for line in self.table.lines() {
                    writeln!(self.out, "{}", line.trim_end())?;
                }
            }
            OutputFormat::Json => {
                self.out.write_all(if self.written == 0 { b"]\n" } else { b"\n]\n" })?;
            }
            _ => {}
        }
        self.out.flush()?;
        Ok(self.written)
    }

    fn start(&mut self, columns: &[Column]) -> io::Result<()> {
        self.heads = heads(columns);
        match self.format {
            OutputFormat::Table => {
                self.table.load_style(UTF8_FULL_CONDENSED);
                self.table.set_header(self.heads.iter().map(|head| clean(head).into_owned()));
                match self.width {
                    Some(width) => self
                        .table
                        .set_content_arrangement(ContentArrangement::Dynamic)
                        .set_width(width),
                    None => self.table.set_content_arrangement(ContentArrangement::Disabled),
                };
            }
            OutputFormat::Json => self.out.write_all(b"[")?,
            OutputFormat::Csv => {
                let heads: Vec<String> =
                    self.heads.iter().map(|head| self.field(Some(head))).collect();
                writeln!(self.out, "{}", heads.join(","))?;
            }
            OutputFormat::Names => {}
        }
        Ok(())
    }

    /// Returns a field as COPY writes it: nothing for NULL, two quotes for an empty text.
    fn field(&self, value: Option<&str>) -> String {
        let Some(text) = value else {
            return String::new();
        };
        // A file gets the value unchanged; a terminal must not act on it.
        let text = if self.is_terminal { clean(text) } else { text.into() };
        if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.into_owned()
        }
    }
}

/// Returns the headers: the tenant and the columns. A repeated name gets a number, because each is a
/// key in JSON.
fn heads(columns: &[Column]) -> Vec<String> {
    let mut taken = HashSet::from([TENANT.to_owned()]);
    let mut heads = vec![TENANT.to_owned()];
    for column in columns {
        let mut head = column.name.clone();
        let mut number = 2;
        while !taken.insert(head.clone()) {
            head = format!("{}_{number}", column.name);
            number += 1;
        }
        heads.push(head);
    }
    heads
}

fn json(kind: ColumnType, value: &Value) -> io::Result<String> {
    let Some(text) = value else {
        return Ok("null".to_owned());
    };
    match kind {
        ColumnType::Flag => Ok(if text == "t" { "true" } else { "false" }.to_owned()),
        // JSON has no NaN and no Infinity.
        ColumnType::Number | ColumnType::Json => match serde_json::from_str::<&RawValue>(text) {
            // Line breaks between tokens; those in strings are escaped.
            Ok(raw) => {
                let line = raw.get().replace(['\n', '\r', '\t'], " ");
                encode(&RawValue::from_string(line)?)
            }
            Err(_) => encode(text),
        },
        ColumnType::Text => encode(text),
    }
}

#[cfg(test)]
mod tests {
    use snapbox::{IntoData, assert_data_eq, str};

    use super::*;

    fn columns() -> Vec<Column> {
        [
            ("id", ColumnType::Number),
            ("name", ColumnType::Text),
            ("tenant", ColumnType::Flag),
            ("name", ColumnType::Json),
        ]
        .map(|(name, kind)| Column { name: name.to_owned(), kind })
        .into()
    }

    fn written(format: OutputFormat, is_terminal: bool) -> String {
        let mut out = Vec::new();
        let mut rows = QueryRows::new(&mut out, format, is_terminal, None);
        let text = |text: &str| Some(text.to_owned());
        rows.row(
            &columns(),
            "acme",
            &[text("1.50"), text("a,\"b\"\u{1b}[2J"), text("t"), text("{\"a\": [1]}")],
        )
        .unwrap();
        rows.row(&columns(), "globex", &[text("NaN"), text(""), None, None]).unwrap();
        rows.end(None).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn null_and_empty_differ_and_values_keep_their_kind() {
        assert_data_eq!(
            written(OutputFormat::Json, false),
            str![[r#"
[
  {"tenant":"acme","id":1.50,"name":"a,\"b\"\u001b[2J","tenant_2":true,"name_2":{"a": [1]}},
  {"tenant":"globex","id":"NaN","name":"","tenant_2":null,"name_2":null}
]

"#]]
            .raw()
        );
        assert_data_eq!(
            written(OutputFormat::Csv, false).replace('\u{1b}', "ESC"),
            str![[r#"
tenant,id,name,tenant_2,name_2
acme,1.50,"a,""b""ESC[2J",t,"{""a"": [1]}"
globex,NaN,"",,

"#]]
            .raw()
        );
        assert_data_eq!(
            written(OutputFormat::Table, true),
            str![[r#"
┌────────┬──────┬────────────────┬──────────┬────────────┐
│ tenant ┆ id   ┆ name           ┆ tenant_2 ┆ name_2     │
╞════════╪══════╪════════════════╪══════════╪════════════╡
│ acme   ┆ 1.50 ┆ a,"b"\u{1b}[2J ┆ t        ┆ {"a": [1]} │
│ globex ┆  NaN ┆                ┆ NULL     ┆ NULL       │
└────────┴──────┴────────────────┴──────────┴────────────┘

"#]]
            .raw()
        );
        assert_eq!(written(OutputFormat::Names, false), "acme\nglobex\n");
        assert!(written(OutputFormat::Csv, true).contains("\\u{1b}[2J"));
    }

    #[test]
    fn a_result_without_rows_has_its_columns_in_csv() {
        let ended = |format| {
            let mut out = Vec::new();
            QueryRows::new(&mut out, format, false, None).end(Some(&columns())).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(ended(OutputFormat::Csv), "tenant,id,name,tenant_2,name_2\n");
        assert_eq!(ended(OutputFormat::Json), "[]\n");
        assert_eq!(ended(OutputFormat::Table), "");
    }
}
