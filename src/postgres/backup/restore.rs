//! A tenant made of parts: row, hosts, schema and rows in one transaction, or nothing.

use crate::postgres::connection::options::EngineOptions;
use std::fmt::Write as _;

use futures_util::SinkExt as _;
use futures_util::future::join4;
use postgres_protocol::escape::escape_literal;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Error;

use super::dump::{Source, dump, lasting};
use super::progress::Steps;
use super::verify_ddl::first_difference;
use super::{BackupError, CHANNEL_CAPACITY, PartReceiver, about_schema, owner_of_schema};
use crate::archive::{
    ArchiveError, ArchivePart, Header, Section, SequenceRecord, TableHead, Trailer,
};
use crate::domain::catalog::CatalogError;
use crate::domain::schema_name::{QuotedIdentifier, SchemaName};
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::domain::tenant::{NewTenant, Tenant};
use crate::postgres::connection::server_error::is_connection_lost;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::tenants::catalog::{PostgresCatalog, catalog_error};
use crate::postgres::tenants::change::ChangeError;
use crate::postgres::tenants::new_row::{insert_error, inserted_id};
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::open::{OpenOutcome, OpenTransaction, interpret, probe};
use crate::postgres::transaction::retry::TxError;
use crate::postgres::transaction::settings::begin;
use crate::service::event::Progress;

/// Which tenant is made.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its slug, schema, name and hosts.
    pub new: NewTenant,
    /// Whether it is the tenant that was backed up: its row comes back with id and times, where
    /// the id is free. Another one gets an id of its own.
    pub is_same_tenant: bool,
    /// Whether the hosts are those of the backup, which come back with their rows.
    pub keeps_hosts: bool,
}

/// A tenant that was restored or copied.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The tenant.
    pub tenant: Tenant,
    /// How many tables have rows of their own.
    pub tables: usize,
    /// How many rows.
    pub rows: u64,
    /// Where a server of another version describes the same structure in other words.
    pub differences: Vec<String>,
    /// Columns with a key to the tenant table whose values could not be changed to the new id.
    pub stale_references: Vec<String>,
}

/// Bytes on their way into a table.
type Portion = std::io::Cursor<Vec<u8>>;

impl PostgresCatalog {
    /// Makes a tenant of the parts of a backup. They are believed once their end was seen, and
    /// committed once the schema is what the header says.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; nothing is left then.
    pub async fn restore_backup(
        &self,
        header: &Header,
        destination: &Destination,
        parts: PartReceiver,
        options: &EngineOptions,
    ) -> Result<Restored, BackupError> {
        if destination.new.schema.as_str() != header.schema && !header.mentions.is_empty() {
            return Err(BackupError::NameReferenced(header.mentions.clone()));
        }
        let session = self.session().await?;
        let loading = Loading {
            catalog: self,
            session: &session,
            header,
            destination,
            options,
        };
        let committed = match loading.run(parts).await {
            Ok(loaded) => loading.commit(loaded).await,
            Err(error) => Err(TxError::Refused(error)),
        };
        if committed.is_err() {
            // Closing the connection rolls back, whatever state it is in.
            session.discard();
        }
        let refused = |error: &Error| BackupError::refused("restoring", error);
        let restored = self.retry(options).settle(refused, committed).await;
        match restored {
            Err(BackupError::Change(ChangeError::Catalog(error))) => {
                Err(self.describe_owner(error).await.into())
            }
            other => other,
        }
    }

    /// Copies a tenant into a new one, out of one snapshot.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; nothing is left then.
    pub async fn copy_tenant(
        &self,
        source: &Source<'_>,
        destination: &Destination,
    ) -> Result<Restored, BackupError> {
        let (to, parts) = mpsc::channel(CHANNEL_CAPACITY);
        let (say, said) = oneshot::channel();
        // Whoever writes tells how far it is.
        let (silent, _nobody) = Progress::channel();
        let reading = dump(source, &silent, async |header| {
            // Nobody hears it where the other side has given up already.
            let _ = say.send(header);
            Ok(to)
        });
        let writing = async {
            match said.await {
                Ok(header) => self
                    .restore_backup(&header, destination, parts, source.options)
                    .await
                    .map(Some),
                Err(_) => Ok(None),
            }
        };
        let (read, written) =
            futures_util::future::join(Box::pin(reading), Box::pin(writing)).await;
        match (read, written) {
            (_, Ok(Some(restored))) => Ok(restored),
            // A reader that nobody listens to any more is not what failed.
            (Err(BackupError::Archive(_)) | Ok(()), Err(error)) | (Err(error), _) => Err(error),
            (Ok(()), Ok(None)) => Err(BackupError::TenantMissing),
        }
    }
}

/// What is loaded and not committed yet.
struct Loaded {
    opened: OpenTransaction,
    id: i64,
    tables: usize,
    rows: u64,
    differences: Vec<String>,
    stale_references: Vec<String>,
}

struct Loading<'a> {
    catalog: &'a PostgresCatalog,
    session: &'a Session,
    header: &'a Header,
    destination: &'a Destination,
    options: &'a EngineOptions,
}

impl Loading<'_> {
    async fn run(&self, mut parts: PartReceiver) -> Result<Loaded, BackupError> {
        let new = &self.destination.new;
        let opened = self.open().await?;
        let (mut tables, mut rows) = (0, 0);
        let mut id = None;
        let mut stale_references = Vec::new();
        let progress = self.catalog.progress().clone();
        let mut steps = Steps::begin(progress, &self.header.structure, 2);
        let ending = loop {
            match next(&mut parts).await? {
                ArchivePart::Sql(Section::Preamble | Section::Schema, _) => {}
                ArchivePart::Sql(Section::After, sql) => {
                    steps.behind(1, "constraints and indexes");
                    let owner = owner_of_schema(&self.header.about_schema, &new.schema);
                    self.statements(Section::Schema, &owner).await?;
                    // Keys of the tenant's tables may point to its row.
                    let inserted = self.insert().await?;
                    id = Some(inserted);
                    stale_references = self.pointed_to(inserted, &sql).await?;
                }
                ArchivePart::Sql(section, sql) => self.statements(section, &sql).await?,
                ArchivePart::Table(head) => {
                    steps.table(&head.table);
                    rows += self.table(&head, &mut parts, &mut steps).await?;
                    tables += 1;
                }
                ArchivePart::Rows(_) | ArchivePart::TableEnd => {
                    return Err(ArchiveError::Damaged("rows without a table".to_owned()).into());
                }
                ArchivePart::End(ending) => break ending,
            }
        };
        steps.behind(2, "comparison with what it was");
        let about = about_schema(&self.header.about_schema, &new.schema);
        self.statements(Section::Schema, &about).await?;
        let differences = self.compare(&ending).await?;
        self.is_unchanged(&opened).await?;
        let Some(id) = id else {
            return Err(ArchiveError::Damaged("it lacks what follows the rows".to_owned()).into());
        };
        Ok(Loaded {
            opened,
            id,
            tables,
            rows,
            differences,
            stale_references,
        })
    }

    async fn commit(&self, loaded: Loaded) -> Result<Restored, TxError<BackupError, Restored>> {
        let (new, select) = (&self.destination.new, format!("SELECT {}", loaded.id));
        let made = |tenant| Restored {
            tenant: Tenant {
                id: loaded.id,
                ..tenant
            },
            tables: loaded.tables,
            rows: loaded.rows,
            differences: loaded.differences,
            stale_references: loaded.stale_references,
        };
        let committed =
            self.catalog
                .commit_new(self.session, new, &loaded.opened, &select, "", made);
        committed.await.map_err(TxError::map)
    }

    /// Opens the transaction and makes the schema, unless something of the tenant is taken.
    async fn open(&self) -> Result<OpenTransaction, BackupError> {
        let new = &self.destination.new;
        let opening = || BackupError::server("opening the transaction");
        let target = Target {
            schema: new.schema.clone(),
            label: new.slug.to_string(),
            scope: Scope::Tenant,
        };
        let first = format!(
            "{}SET LOCAL check_function_bodies TO off; SET LOCAL row_security TO off; SET LOCAL xmloption TO content; \
             SET LOCAL DateStyle TO ISO; SET LOCAL IntervalStyle TO postgres; SET LOCAL client_min_messages TO warning; \
             SET LOCAL idle_in_transaction_session_timeout TO 0; SET LOCAL statement_timeout TO 0",
            begin(self.options, &target)
        );
        let creation = format!(
            "CREATE SCHEMA {}; {}",
            new.schema.quoted(),
            probe(&new.schema, &self.options.history_table)
        );
        // All sent before the first is answered. What is taken is said in better words by the
        // look at it than by whatever fails because of it.
        let (reset, begun, conflict, made) = join4(
            self.session.client().simple_query("DISCARD ALL"),
            self.session.rows(&first),
            self.catalog.find_conflict(self.session, new, false),
            self.session.rows(&creation),
        )
        .await;
        reset.map_err(opening())?;
        begun.map_err(opening())?;
        let looked = conflict.map_err(|error| BackupError::from(catalog_error(&error)))?;
        if let Some(conflict) = looked {
            return Err(conflict.into());
        }
        let rows = made
            .map_err(|error| BackupError::from(insert_error(&error, new, self.catalog.tables())))?;
        match interpret(&rows, &new.schema).map_err(opening())? {
            OpenOutcome::Ready(opened) => Ok(opened),
            _ => Err(CatalogError::SchemaMissing(new.schema.clone()).into()),
        }
    }

    async fn statements(&self, section: Section, sql: &str) -> Result<(), BackupError> {
        let doing = match section {
            Section::Before => "making tables",
            Section::Sequences => "setting sequences",
            Section::After => "making constraints, indexes and privileges",
            Section::Preamble | Section::Schema => "setting the schema's owner and privileges",
        };
        let done = self.session.client().simple_query(sql).await;
        done.map(drop).map_err(BackupError::server(doing))
    }

    /// Runs what follows the rows, which refer to this tenant before: where a column has a key to
    /// the tenant's id, the id that was backed up means the tenant itself. Returns the columns
    /// where something in the schema, such as a check, does not let the new id take its place.
    async fn pointed_to(&self, id: i64, sql: &str) -> Result<Vec<String>, BackupError> {
        const BACK: &str = "ROLLBACK TO SAVEPOINT pricesync_pointed";
        let keys = &self.header.tenant_keys;
        let before = self.id_before().filter(|before| *before != id.to_string());
        let (Some(before), false) = (before, keys.is_empty()) else {
            self.after(sql).await?;
            return Ok(Vec::new());
        };
        let schema = &self.destination.new.schema;
        let mut update = "SAVEPOINT pricesync_pointed".to_owned();
        for (table, column) in keys {
            let column = QuotedIdentifier::new(column);
            // Nothing hangs on the tables yet: no trigger, no rule, no index.
            let _ = write!(
                update,
                "; UPDATE ONLY {} SET {column} = '{id}' WHERE {column} = {}",
                qualified(schema, table),
                escape_literal(&before)
            );
        }
        let client = self.session.client();
        let updated = client.simple_query(&update).await;
        let updated = updated
            .map(drop)
            .map_err(BackupError::server("pointing rows to the tenant's new id"));
        let done = match updated {
            Ok(()) => self.after(sql).await,
            Err(error) => Err(error),
        };
        let Err(error) = done else {
            return Ok(Vec::new());
        };
        // Where it is the connection that failed, this fails too, and why is known.
        if client.simple_query(BACK).await.is_err() {
            return Err(error);
        }
        self.after(sql).await?;
        let names = keys
            .iter()
            .map(|(table, column)| format!("{table}.{column}"));
        Ok(names.collect())
    }

    /// Returns the id of the row that was backed up, if it had one.
    fn id_before(&self) -> Option<String> {
        let row: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(self.header.tenant.get()).ok()?;
        let quoted = &self.catalog.tables().id;
        let name = quoted.get(1..quoted.len() - 1)?.replace("\"\"", "\"");
        match row.get(&name)? {
            serde_json::Value::String(id) => Some(id.clone()),
            id => Some(id.to_string()),
        }
    }

    /// Runs what follows the rows. Keys to shared tables lock those, so another session's lock may be
    /// in the way; a savepoint keeps the rows that were loaded.
    async fn after(&self, sql: &str) -> Result<(), BackupError> {
        let client = self.session.client();
        let refused = |error: &Error| {
            BackupError::refused("making constraints, indexes and privileges", error)
        };
        let attempt = async |number| {
            if number == 1 {
                client.simple_query("SAVEPOINT pricesync_after").await?;
            }
            match client.simple_query(sql).await {
                Ok(_) => Ok(()),
                // The transaction is lost with the connection.
                Err(error) if is_connection_lost(&error) => Err(TxError::Refused(refused(&error))),
                Err(error) => {
                    // Before the pause, which must not hold the locks.
                    let back = "ROLLBACK TO SAVEPOINT pricesync_after";
                    client.simple_query(back).await?;
                    Err(TxError::Server(error))
                }
            }
        };
        let retry = self.catalog.retry(self.options);
        retry.run(refused, attempt).await
    }

    /// Fills a table and returns how many rows it got.
    async fn table(
        &self,
        head: &TableHead,
        parts: &mut PartReceiver,
        steps: &mut Steps,
    ) -> Result<u64, BackupError> {
        let doing = || BackupError::server(format!("filling table {}", head.table));
        let target = format!("{}.{}", self.destination.new.schema.quoted(), head.target());
        let sql = format!("COPY {target} FROM STDIN");
        let sink = self.session.client().copy_in::<_, Portion>(&sql).await;
        let mut sink = std::pin::pin!(sink.map_err(doing())?);
        let mut read = 0;
        loop {
            match next(parts).await? {
                ArchivePart::Rows(rows) => {
                    read += steps.moved(&rows);
                    sink.send(Portion::new(rows)).await.map_err(doing())?;
                }
                ArchivePart::TableEnd => break,
                _ => {
                    return Err(ArchiveError::Damaged("a table without an end".to_owned()).into());
                }
            }
        }
        let written = sink.finish().await.map_err(doing())?;
        if written != read {
            return Err(BackupError::Different(format!(
                "table '{}' has {written} rows instead of {read}",
                head.table
            )));
        }
        Ok(written)
    }

    /// Compares the schema with what the backup says of it. Returns what a server of another
    /// major version says otherwise, which is no reason to refuse it.
    async fn compare(&self, ending: &Trailer) -> Result<Vec<String>, BackupError> {
        let schema = &self.destination.new.schema;
        let comparing = || BackupError::server("comparing");
        let found = lasting(self.session, schema).await.map_err(comparing())?;
        let difference = first_difference(&self.header.structure, &found);
        let mut differences = Vec::new();
        if let Some(line) = difference {
            if self.header.major() == self.options.server_version / 10_000 {
                return Err(BackupError::Different(line));
            }
            differences.push(line);
        }
        let sequences = sequences(self.session, schema, &ending.sequences)
            .await
            .map_err(comparing())?;
        for (said, found) in ending.sequences.iter().zip(&sequences) {
            if said != found {
                return Err(BackupError::Different(format!(
                    "sequence '{}' stands at {} instead of {}",
                    said.sequence, found.last_value, said.last_value
                )));
            }
        }
        Ok(differences)
    }

    /// The statements of a file are the file's: what they may not change is looked at.
    async fn is_unchanged(&self, opened: &OpenTransaction) -> Result<(), BackupError> {
        let sql = "SELECT '', pg_current_xact_id(), current_user, session_user, current_schema()";
        let rows = self
            .session
            .rows(sql)
            .await
            .map_err(BackupError::server("checking the transaction"))?;
        if rows.first().is_some_and(|row| opened.is_unchanged(row)) {
            return Ok(());
        }
        Err(BackupError::Different(
            "its statements ended the transaction, or changed role or schema".to_owned(),
        ))
    }

    /// Inserts the tenant and its hosts and returns its id.
    async fn insert(&self) -> Result<i64, BackupError> {
        let sql = self.insertion().await?;
        let new = &self.destination.new;
        let rows = self.session.rows(&sql).await;
        let rows = rows
            .map_err(|error| BackupError::from(insert_error(&error, new, self.catalog.tables())))?;
        Ok(inserted_id(&rows))
    }

    /// Returns the statement that inserts the tenant and its hosts and brings its id.
    async fn insertion(&self) -> Result<String, BackupError> {
        let reading = || BackupError::server("reading the tenant tables");
        let Destination {
            new,
            is_same_tenant,
            keeps_hosts,
        } = self.destination;
        let tables = self.catalog.tables();
        let row = format!("json_build_array({}::json)", literal(&self.header.tenant));
        let columns = self
            .columns(&tables.tenants, &tables.id, &row, *is_same_tenant)
            .await
            .map_err(reading())?;
        let mut values = tables.naming(new);
        if !is_same_tenant {
            // It is made now.
            let created = tables.created.iter();
            values.extend(created.map(|column| (column.clone(), "now()".to_owned())));
        }
        let tenant = format!(
            "{} FROM json_populate_recordset(NULL::{}, {row}) r RETURNING {} AS id",
            insert_into(&tables.tenants, &columns, &values),
            tables.tenants,
            tables.id
        );
        let hosts = match &tables.domains {
            Some(domains) if *keeps_hosts && !new.hostnames.is_empty() => {
                let rows = format!("{}::json", literal(&self.header.domains));
                let columns = self
                    .columns(&domains.table, &domains.id, &rows, *is_same_tenant)
                    .await
                    .map_err(reading())?;
                let owner = [(domains.tenant.clone(), "t.id".to_owned())];
                Some(format!(
                    "{} FROM t, json_populate_recordset(NULL::{}, {rows}) r",
                    insert_into(&domains.table, &columns, &owner),
                    domains.table
                ))
            }
            _ => tables.insert_hosts(new),
        };
        Ok(match hosts {
            Some(hosts) => format!("WITH t AS ({tenant}), d AS ({hosts}) SELECT id FROM t"),
            None => tenant,
        })
    }

    /// Returns the columns of a table that these rows have, quoted. The id is among them where all
    /// ids are free and were given out here: another number would be given out a second time.
    async fn columns(
        &self,
        table: &str,
        id: &str,
        rows: &str,
        keeps_ids: bool,
    ) -> Result<Vec<String>, Error> {
        let (name, id_name) = (escape_literal(table), escape_literal(id));
        let sql = format!(
            "SELECT c.called FROM (SELECT a.attnum, a.attname::text AS name, format('\"%s\"', replace(a.attname, '\"', '\"\"')) AS called, \
             pg_get_serial_sequence({name}, a.attname::text) AS sequence FROM pg_attribute a \
             WHERE a.attrelid = {name}::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') c \
             WHERE EXISTS (SELECT FROM json_array_elements({rows}) e, json_object_keys(e) k WHERE k = c.name) \
             AND (c.called <> {id_name} OR {keeps_ids} AND NOT EXISTS (SELECT FROM json_array_elements({rows}) e \
             WHERE EXISTS (SELECT FROM {table} o WHERE o.{id}::text = e->>c.name) OR CASE WHEN c.sequence IS NOT NULL \
             THEN (e->>c.name)::numeric > coalesce(pg_sequence_last_value(c.sequence::regclass), 0) END)) ORDER BY c.attnum"
        );
        let rows = self.session.rows(&sql).await?;
        Ok(rows
            .iter()
            .filter_map(|row| row.optional(0).map(str::to_owned))
            .collect())
    }
}

/// Returns `INSERT INTO t (a, b) SELECT r.a, value`; all names are quoted.
fn insert_into(table: &str, columns: &[String], values: &[(String, String)]) -> String {
    let expressions: Vec<String> = columns
        .iter()
        .map(
            |column| match values.iter().find(|(name, _)| name == column) {
                Some((_, value)) => value.clone(),
                None => format!("r.{column}"),
            },
        )
        .collect();
    format!(
        "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE SELECT {}",
        columns.join(", "),
        expressions.join(", ")
    )
}

fn literal(json: &RawValue) -> String {
    escape_literal(json.get())
}

async fn next(parts: &mut PartReceiver) -> Result<ArchivePart, BackupError> {
    match parts.recv().await {
        Some(piece) => Ok(piece?),
        None => Err(ArchiveError::Damaged("it is truncated".to_owned()).into()),
    }
}

/// Returns where these sequences stand, in the same order.
async fn sequences(
    session: &Session,
    schema: &SchemaName,
    wanted: &[SequenceRecord],
) -> Result<Vec<SequenceRecord>, Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let selects: Vec<String> = wanted
        .iter()
        .enumerate()
        .map(|(number, one)| {
            format!(
                "SELECT {number} AS n, last_value, is_called FROM {}",
                qualified(schema, &one.sequence)
            )
        })
        .collect();
    let sql = format!("{} ORDER BY n", selects.join(" UNION ALL "));
    let rows = session.rows(&sql).await?;
    let record = |(row, one): (&Row, &SequenceRecord)| {
        Ok(SequenceRecord {
            sequence: one.sequence.clone(),
            last_value: row.parse(1)?,
            is_called: row.is_true(2),
        })
    };
    rows.iter().zip(wanted).map(record).collect()
}
