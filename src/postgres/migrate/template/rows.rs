//! The rows that files leave in a schema: read as SQL literals, compared and written.
//!
//! A value that is the start of the transaction is read and written as `now()`: it is the time of
//! creation, as it is by files. A date of today is not told from a day that the clock named, and is
//! refused.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use crate::domain::schema_name::{QuotedIdentifier, SchemaName};
use crate::postgres::connection::session::Session;
use crate::postgres::connection::sql_file::filled;
use crate::postgres::schema::fingerprint::{digest, relative_to};

/// How many rows a template holds.
const MAX_ROWS: usize = 1_000;

/// How many bytes of literals a template holds.
const MAX_BYTES: usize = 1 << 20;

/// What a column holds that the start of the transaction filled.
const START: &str = "pg_catalog.now()";

/// What a column holds that a day or the like filled.
const PART_OF_START: &str = "date_trunc(now())";

/// The rows of all tables and materialized views that have any, by quoted name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows(BTreeMap<String, TableRows>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct TableRows {
    /// The columns that are not generated, quoted.
    columns: Vec<String>,
    /// Whether a query fills it.
    is_view: bool,
    /// Literals of the columns, in the order of the table.
    rows: Vec<Vec<String>>,
}

/// A table to read.
#[derive(Default)]
struct Source {
    table: TableRows,
    /// The types of columns with dates and times.
    times: Vec<Option<String>>,
    /// Whether row-level security applies to its owner.
    hides_rows: bool,
}

impl Rows {
    /// Reads the rows of a schema in the open transaction, without those of the history table.
    pub(super) async fn read(
        session: &Session,
        schema: &SchemaName,
        history_table: &str,
    ) -> Result<Self, Error> {
        let values = [
            ("{schema}", escape_literal(schema.as_str())),
            ("{history}", escape_literal(history_table)),
        ];
        let sql = filled(include_str!("rows.sql"), &values);
        let columns = relative_to(session, schema, &sql).await?;
        let mut sources: BTreeMap<String, Source> = BTreeMap::new();
        for row in &columns {
            let source = sources.entry(row.text(0)?.to_owned()).or_default();
            source.hides_rows = row.is_true(1);
            source.table.is_view = row.is_true(2);
            if let Some(column) = row.optional(3) {
                source.table.columns.push(QuotedIdentifier::new(column).to_string());
                source.times.push(row.optional(4).map(str::to_owned));
            }
        }
        let sources: Vec<(String, Source)> = sources.into_iter().collect();
        let rows = session.rows(&query(schema, &sources)).await?;
        let mut tables: Vec<(String, TableRows)> =
            sources.into_iter().map(|(name, source)| (name, source.table)).collect();
        for row in &rows {
            let Some((_, table)) = tables.get_mut(row.parse::<usize>(0)?) else {
                continue;
            };
            let cell = |column: usize| row.text(column + 1).map(str::to_owned);
            let cells = (0..table.columns.len()).map(cell);
            table.rows.push(cells.collect::<Result<_, _>>()?);
        }
        Ok(Self(tables.into_iter().filter(|(_, table)| !table.rows.is_empty()).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the first value that is the day of the run, or part of its time.
    pub(super) fn of_the_day(&self) -> Option<Difference> {
        self.0.iter().find_map(|(name, table)| {
            let cell = table.rows.iter().flatten().position(|cell| cell == PART_OF_START)?;
            let column = &table.columns[cell % table.columns.len()];
            Some(Difference::of(name, &format!("column {column} has the day of the run")))
        })
    }

    /// Returns why a template does not hold these rows, if they are too many.
    pub(super) fn refusal(&self) -> Option<String> {
        let rows = |table: &TableRows| table.rows.len();
        let bytes = |table: &TableRows| table.rows.iter().flatten().map(String::len).sum::<usize>();
        let tables = || self.0.values();
        let what = if tables().map(rows).sum::<usize>() > MAX_ROWS {
            "1,000 rows"
        } else if tables().map(bytes).sum::<usize>() > MAX_BYTES {
            "1 MB of rows"
        } else {
            return None;
        };
        let (largest, _) = self.0.iter().max_by_key(|(_, table)| (bytes(table), rows(table)))?;
        Some(format!("the files leave more than {what}, most of them in table {largest}"))
    }

    /// Returns the first table in which two runs left different rows, and what differs.
    pub(super) fn first_difference(&self, other: &Self, schema: &SchemaName) -> Option<Difference> {
        let names = self.0.keys().chain(other.0.keys());
        names.into_iter().find_map(|name| {
            let (Some(one), Some(two)) = (self.0.get(name), other.0.get(name)) else {
                return Some(Difference::of(name, "has rows in one of two runs"));
            };
            if one.rows.len() != two.rows.len() {
                return Some(Difference::of(name, "has another number of rows in each run"));
            }
            let cells = one.rows.iter().flatten().zip(two.rows.iter().flatten());
            let (index, (cell, _)) = cells.enumerate().find(|(_, (one, two))| one != two)?;
            let column = &one.columns[index % one.columns.len()];
            Some(Difference::of(
                name,
                &if cell.contains(schema.as_str()) {
                    format!("column {column} contains the name of the schema")
                } else {
                    format!("column {column} has another value in each run")
                },
            ))
        })
    }

    /// Returns the statements that write the rows, by quoted name of the table.
    pub(super) fn statements(&self) -> BTreeMap<String, String> {
        let tables = self.0.iter().filter(|(_, table)| !table.is_view);
        let statement = |(name, table): (&String, &TableRows)| {
            if table.columns.is_empty() {
                let insert = format!("INSERT INTO {name} DEFAULT VALUES");
                return (name.clone(), vec![insert; table.rows.len()].join(";\n"));
            }
            let rows = table.rows.iter().map(|row| format!("({})", row.join(", ")));
            let sql = format!(
                "INSERT INTO {name} ({}) OVERRIDING SYSTEM VALUE VALUES {}",
                table.columns.join(", "),
                rows.collect::<Vec<_>>().join(",\n")
            );
            (name.clone(), sql)
        };
        tables.map(statement).collect()
    }

    /// Returns a digest of all rows, as 64 hexadecimal digits.
    pub(super) fn hash(&self) -> String {
        let texts = self.0.iter().flat_map(|(name, table)| {
            let cells = table.rows.iter().flatten();
            std::iter::once(name).chain(&table.columns).chain(cells)
        });
        digest(texts.map(String::as_str))
    }
}

/// A table in which two runs left different rows.
pub(super) struct Difference {
    pub(super) table: String,
    what: String,
}

impl Difference {
    fn of(table: &str, what: &str) -> Self {
        Self { table: table.to_owned(), what: what.to_owned() }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table {}: {}", self.table, self.what)
    }
}

/// Returns the query of all rows, as literals that every setting of a session reads back as they were.
fn query(schema: &SchemaName, sources: &[(String, Source)]) -> String {
    let mut sql = format!(
        "SAVEPOINT pricesync_rows; SET LOCAL search_path TO {}; SET LOCAL statement_timeout TO 0; \
         SET LOCAL DateStyle TO ISO; SET LOCAL IntervalStyle TO iso_8601; \
         SET LOCAL extra_float_digits TO 1; SET LOCAL bytea_output TO 'hex'; \
         SET LOCAL enable_indexscan TO off; SET LOCAL enable_indexonlyscan TO off",
        schema.quoted()
    );
    for (name, _) in sources.iter().filter(|(_, source)| source.hides_rows) {
        let _ = write!(sql, "; ALTER TABLE {}.{name} NO FORCE ROW LEVEL SECURITY", schema.quoted());
    }
    for (index, (name, source)) in sources.iter().enumerate() {
        let columns = source.table.columns.iter().zip(&source.times);
        let literals = columns.map(|(column, time)| literal(column, time.as_deref()));
        let _ = write!(
            sql,
            "; SELECT {index}{} FROM ONLY {}.{name} t LIMIT {}",
            literals.collect::<String>(),
            schema.quoted(),
            MAX_ROWS + 1
        );
    }
    sql + "; ROLLBACK TO SAVEPOINT pricesync_rows; RELEASE SAVEPOINT pricesync_rows"
}

/// Returns the expression for the literal of a column, after a comma.
fn literal(column: &str, time: Option<&str>) -> String {
    let literal = format!("pg_catalog.format('%L', t.{column})");
    match time {
        None => format!(", {literal}"),
        Some("date") => {
            format!(
                ", CASE WHEN t.{column} = CURRENT_DATE THEN '{PART_OF_START}' ELSE {literal} END"
            )
        }
        Some(kind) => format!(
            ", CASE WHEN t.{column} = {START}::{kind} THEN '{START}' WHEN t.{column} IN \
             (date_trunc('minute', {START}), date_trunc('hour', {START}), date_trunc('day', {START}), \
             date_trunc('week', {START}), date_trunc('month', {START}), date_trunc('year', {START})) \
             THEN '{PART_OF_START}' ELSE {literal} END"
        ),
    }
}
