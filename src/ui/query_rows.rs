//! Rows of a query, from many tenants: their values as the server returns them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, Write};

use super::table::{Cell, Listing, ListingWriter, OutputFormat};
use super::terminal::Terminal;
use crate::service::exec_results::{Column, Value};

/// The header of the first column.
const TENANT: &str = "tenant";

/// Writes the rows of a query, each with its tenant in front.
#[derive(Debug)]
pub struct QueryRows<W> {
    writer: ListingWriter<W>,
    format: OutputFormat,
    last: String,
}

impl QueryRows<io::Sink> {
    /// Starts a result on stdout.
    pub fn on_stdout(terminal: &Terminal, format: OutputFormat) -> QueryRows<impl Write + use<>> {
        let listing = Listing::new(&[TENANT], "");
        let writer = ListingWriter::new(listing, terminal.out(), terminal.stdout(), format);
        QueryRows { writer, format, last: String::new() }
    }
}

impl<W: Write> QueryRows<W> {
    /// Adds a row.
    pub fn row(&mut self, columns: &[Column], tenant: &str, values: Vec<Value>) -> io::Result<()> {
        if self.writer.rows == 0 {
            self.writer.listing.columns = heads(columns);
        } else if self.format == OutputFormat::Names && self.last == tenant {
            return Ok(());
        }
        tenant.clone_into(&mut self.last);
        let values =
            columns.iter().zip(values).map(|(column, value)| Cell::Value(column.kind, value));
        self.writer.row(std::iter::once(Cell::Text(tenant.to_owned())).chain(values).collect())
    }

    /// Finishes the result. `columns` are the headers if there are no rows.
    pub fn end(mut self, columns: Option<&[Column]>) -> io::Result<()> {
        if self.writer.rows == 0 {
            self.writer.listing.columns = heads(columns.unwrap_or_default());
        }
        self.writer.end().map(drop)
    }
}

/// Returns the headers: the tenant and the columns. A repeated name gets a number, because each is a
/// key in JSON.
fn heads(columns: &[Column]) -> Vec<Cow<'static, str>> {
    let mut taken = HashSet::from([TENANT.to_owned()]);
    let mut heads = vec![TENANT.into()];
    for column in columns {
        let mut head = column.name.clone();
        let mut number = 2;
        while !taken.insert(head.clone()) {
            head = format!("{}_{number}", column.name);
            number += 1;
        }
        heads.push(head.into());
    }
    heads
}

#[cfg(test)]
mod tests {
    use snapbox::{IntoData, assert_data_eq, str};

    use super::*;
    use crate::service::exec_results::ColumnType;
    use crate::ui::Stream;

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

    fn rows(out: &mut Vec<u8>, format: OutputFormat, is_terminal: bool) -> QueryRows<&mut Vec<u8>> {
        let stream = Stream { is_terminal, ..Stream::default() };
        let writer = ListingWriter::new(Listing::new(&[TENANT], ""), out, stream, format);
        QueryRows { writer, format, last: String::new() }
    }

    fn written(format: OutputFormat, is_terminal: bool) -> String {
        let mut out = Vec::new();
        let mut rows = rows(&mut out, format, is_terminal);
        let text = |text: &str| Some(text.to_owned());
        let first = vec![text("1.50"), text("a,\"b\"\u{1b}[2J"), text("t"), text("{\"a\": [1]}")];
        rows.row(&columns(), "acme", first).unwrap();
        rows.row(&columns(), "globex", vec![text("NaN"), text(""), None, None]).unwrap();
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
            rows(&mut out, format, false).end(Some(&columns())).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(ended(OutputFormat::Csv), "tenant,id,name,tenant_2,name_2\n");
        assert_eq!(ended(OutputFormat::Json), "[]\n");
        assert_eq!(ended(OutputFormat::Table), "");
    }
}
