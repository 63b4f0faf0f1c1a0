//! Restores a tenant from the parts of a backup, or copies one, in one transaction.

use std::fmt::Write as _;

use futures_util::SinkExt as _;
use postgres_protocol::escape::escape_literal;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Error;

use super::dump::{Source, dump, structure_lines};
use super::progress::StepProgress;
use super::verify_ddl::first_difference;
use super::{BackupError, CHANNEL_CAPACITY, PartReceiver, about_schema, owner_of_schema};
use crate::archive::{
    ArchiveError, ArchivePart, Header, Section, SequenceRecord, TableHead, Trailer,
};
use crate::domain::schema_name::{QuotedIdentifier, SchemaName};
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::domain::tenant::{NewTenant, Tenant, TenantId};
use crate::postgres::connection::catalog_sql::id_literal;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::tenants::admin::TenantAdmin;
use crate::postgres::tenants::new_row::insert_error;
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::open::OpenTransaction;
use crate::postgres::transaction::retry::TxError;
use crate::postgres::transaction::settings::begin;
use crate::service::event::Progress;

/// The tenant to create.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its slug, schema, name and hosts.
    pub new: NewTenant,
    /// Whether it is the tenant that was backed up: its row keeps its times, and its id if that is
    /// free. Any other tenant gets a new id.
    pub is_same_tenant: bool,
    /// Whether the rows of the hosts are restored from the backup.
    pub keeps_hosts: bool,
}

/// A tenant that was restored or copied.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The tenant.
    pub tenant: Tenant,
    /// Number of tables.
    pub tables: usize,
    /// Number of rows.
    pub rows: u64,
    /// Differences in structure that a server of another major version reports.
    pub differences: Vec<String>,
    /// Columns with a foreign key to the tenant table that could not be updated to the new id.
    pub stale_references: Vec<String>,
}

/// Rows in the text format of COPY.
type CopyChunk = std::io::Cursor<Vec<u8>>;

impl TenantAdmin {
    /// Restores a tenant from the parts of a backup. Commits after the trailer was verified and the
    /// structure matches the header.
    pub async fn restore_backup(
        &self,
        header: &Header,
        destination: &Destination,
        parts: PartReceiver,
    ) -> Result<Restored, BackupError> {
        if destination.new.schema.as_str() != header.schema && !header.mentions.is_empty() {
            return Err(BackupError::NameReferenced(header.mentions.clone()));
        }
        let retry = self.retry();
        let session = retry.session(1).await?;
        let transaction =
            RestoreTransaction { admin: self, session: &session, header, destination };
        let committed = match retry.until_cancelled(&session, transaction.run(parts)).await {
            Ok(Ok(loaded)) => transaction.commit(loaded).await,
            Ok(Err(error)) => Err(TxError::Refused(error)),
            Err(gave_up) => Err(gave_up.into()),
        };
        if committed.is_err() {
            // Closing the connection rolls back, whatever state it is in.
            session.discard();
        }
        let refused =
            |error: &Error| BackupError::from(insert_error(error, &destination.new, self.tables()));
        match retry.settle(refused, committed).await {
            Err(BackupError::Change(error)) => Err(self.describe_owner(error).await.into()),
            other => other,
        }
    }

    /// Copies a tenant, as of one snapshot, to a new one.
    pub async fn copy_tenant(
        &self,
        source: &Source<'_>,
        destination: &Destination,
    ) -> Result<Restored, BackupError> {
        let (sender, parts) = mpsc::channel(CHANNEL_CAPACITY);
        let (header_sender, header) = oneshot::channel();
        // The restore reports the progress.
        let (silent, _) = Progress::channel();
        let reading = dump(source, &silent, async |header| {
            // Fails only if the restore has failed.
            let _ = header_sender.send(header);
            Ok(sender)
        });
        let writing = async {
            match header.await {
                Ok(header) => self.restore_backup(&header, destination, parts).await.map(Some),
                Err(_) => Ok(None),
            }
        };
        let (read, written) =
            futures_util::future::join(Box::pin(reading), Box::pin(writing)).await;
        match (read, written) {
            (_, Ok(Some(restored))) => Ok(restored),
            // The dump fails with an archive error if the restore has failed.
            (Err(BackupError::Archive(_)) | Ok(()), Err(error)) | (Err(error), _) => Err(error),
            (Ok(()), Ok(None)) => Err(BackupError::TenantMissing),
        }
    }
}

/// A restored tenant before COMMIT.
struct Loaded {
    opened: OpenTransaction,
    id: TenantId,
    tables: usize,
    rows: u64,
    differences: Vec<String>,
    stale_references: Vec<String>,
}

/// The open transaction of a restore.
pub(super) struct RestoreTransaction<'a> {
    pub(super) admin: &'a TenantAdmin,
    pub(super) session: &'a Session,
    pub(super) header: &'a Header,
    pub(super) destination: &'a Destination,
}

impl RestoreTransaction<'_> {
    async fn run(&self, mut parts: PartReceiver) -> Result<Loaded, BackupError> {
        let new = &self.destination.new;
        let opened = self.open().await?;
        let (mut tables, mut rows) = (0, 0);
        let mut id = None;
        let mut stale_references = Vec::new();
        let progress = self.admin.progress.clone();
        let mut progress = StepProgress::new(progress, &self.header.structure, 2);
        let trailer = loop {
            match next_part(&mut parts).await? {
                ArchivePart::Sql(Section::Preamble | Section::Schema, _) => {}
                ArchivePart::Sql(Section::After, sql) => {
                    progress.start_later_step(1, "constraints and indexes");
                    let owner = owner_of_schema(&self.header.about_schema, &new.schema);
                    self.statements(Section::Schema, &owner).await?;
                    // Foreign keys of the tenant's tables may reference its row.
                    let inserted = self.insert().await?;
                    stale_references = self.add_constraints(&inserted, &sql).await?;
                    id = Some(inserted);
                }
                ArchivePart::Sql(section, sql) => self.statements(section, &sql).await?,
                ArchivePart::Table(head) => {
                    progress.start_table(&head.table);
                    rows += self.copy_table(&head, &mut parts, &mut progress).await?;
                    tables += 1;
                }
                ArchivePart::Rows(_) | ArchivePart::TableEnd => {
                    return Err(ArchiveError::Damaged("rows without a table".to_owned()).into());
                }
                ArchivePart::End(trailer) => break trailer,
            }
        };
        progress.start_later_step(2, "comparison with the backup");
        let about = about_schema(&self.header.about_schema, &new.schema);
        self.statements(Section::Schema, &about).await?;
        let differences = self.compare(&trailer).await?;
        self.is_unchanged(&opened).await?;
        let Some(id) = id else {
            return Err(ArchiveError::Damaged("it lacks what follows the rows".to_owned()).into());
        };
        Ok(Loaded { opened, id, tables, rows, differences, stale_references })
    }

    async fn commit(&self, loaded: Loaded) -> Result<Restored, TxError<BackupError, Restored>> {
        let new = &self.destination.new;
        let select = format!("SELECT {}", id_literal(&loaded.id));
        let restored = |tenant| Restored {
            tenant: Tenant { id: loaded.id, ..tenant },
            tables: loaded.tables,
            rows: loaded.rows,
            differences: loaded.differences,
            stale_references: loaded.stale_references,
        };
        self.admin.commit_new(self.session, new, &loaded.opened, &select, "", restored).await
    }

    /// Opens the transaction and creates the schema, unless the slug, schema or a host is taken.
    async fn open(&self) -> Result<OpenTransaction, BackupError> {
        let new = &self.destination.new;
        let target = Target {
            schema: new.schema.clone(),
            label: new.slug.to_string(),
            scope: Scope::Tenant,
        };
        let opening = format!(
            "{}SET LOCAL check_function_bodies TO off; SET LOCAL row_security TO off; SET LOCAL xmloption TO content; \
             SET LOCAL DateStyle TO ISO; SET LOCAL IntervalStyle TO postgres; SET LOCAL client_min_messages TO warning; \
             SET LOCAL idle_in_transaction_session_timeout TO 0; SET LOCAL statement_timeout TO 0",
            begin(&self.admin.options, &target)
        );
        let opened = self.admin.open_new(self.session, new, &opening).await;
        let opened = opened.map_err(|error| insert_error(&error, new, self.admin.tables()))?;
        Ok(opened?)
    }

    async fn statements(&self, section: Section, sql: &str) -> Result<(), BackupError> {
        let doing = match section {
            Section::Before => "creating tables",
            Section::Sequences => "setting sequences",
            Section::After => "creating constraints, indexes and privileges",
            Section::Preamble | Section::Schema => "setting the schema's owner and privileges",
        };
        let done = self.session.client().simple_query(sql).await;
        done.map(drop).map_err(BackupError::server(doing))
    }

    /// Updates columns with a foreign key to the tenant's id from the old to the new id, then runs the
    /// section after the rows. If that fails, such as for a CHECK, runs the section with the old id and
    /// returns these columns.
    async fn add_constraints(&self, id: &TenantId, sql: &str) -> Result<Vec<String>, BackupError> {
        const ROLLBACK: &str = "ROLLBACK TO SAVEPOINT pricesync_new_id";
        let keys = &self.header.tenant_keys;
        let before = self.id_before().filter(|before| before != id.as_str());
        let (Some(before), false) = (before, keys.is_empty()) else {
            self.run_after_section(sql).await?;
            return Ok(Vec::new());
        };
        let schema = &self.destination.new.schema;
        let mut update = "SAVEPOINT pricesync_new_id".to_owned();
        for (table, column) in keys {
            let column = QuotedIdentifier::new(column);
            // The tables have no trigger, rule or index yet.
            let _ = write!(
                update,
                "; UPDATE ONLY {} SET {column} = {} WHERE {column} = {}",
                qualified(schema, table),
                id_literal(id),
                escape_literal(&before)
            );
        }
        let client = self.session.client();
        let updated = client.simple_query(&update).await;
        let updated = updated
            .map(drop)
            .map_err(BackupError::server("updating references to the tenant's new id"));
        let done = match updated {
            Ok(()) => self.run_after_section(sql).await,
            Err(error) => Err(error),
        };
        let Err(error) = done else {
            return Ok(Vec::new());
        };
        // Fails too if the connection is lost.
        if client.simple_query(ROLLBACK).await.is_err() {
            return Err(error);
        }
        self.run_after_section(sql).await?;
        let names = keys.iter().map(|(table, column)| format!("{table}.{column}"));
        Ok(names.collect())
    }

    /// Runs the section after the rows, and retries it after lock contention on shared tables. A
    /// savepoint keeps the rows.
    async fn run_after_section(&self, sql: &str) -> Result<(), BackupError> {
        let client = self.session.client();
        let refused = |error: &Error| {
            BackupError::refused("creating constraints, indexes and privileges", error)
        };
        let savepoint = client.simple_query("SAVEPOINT pricesync_after").await;
        savepoint.map_err(|error| refused(&error))?;
        let attempt = async |_| {
            let Err(error) = client.simple_query(sql).await else {
                return Ok(());
            };
            // Before the pause, which must not hold the locks.
            let rollback = "ROLLBACK TO SAVEPOINT pricesync_after";
            if client.simple_query(rollback).await.is_err() {
                // The transaction is lost with the connection.
                return Err(TxError::Refused(refused(&error)));
            }
            Err(error.into())
        };
        self.admin.retry().run(refused, attempt).await
    }

    /// Copies rows into a table and returns their number.
    async fn copy_table(
        &self,
        head: &TableHead,
        parts: &mut PartReceiver,
        progress: &mut StepProgress,
    ) -> Result<u64, BackupError> {
        let doing = || BackupError::server(format!("copying rows into table {}", head.table));
        let target = format!("{}.{}", self.destination.new.schema.quoted(), head.target());
        let sql = format!("COPY {target} FROM STDIN");
        let sink = self.session.client().copy_in::<_, CopyChunk>(&sql).await;
        let mut sink = std::pin::pin!(sink.map_err(doing())?);
        let mut read = 0;
        loop {
            match next_part(parts).await? {
                ArchivePart::Rows(rows) => {
                    read += progress.add_rows(&rows);
                    sink.send(CopyChunk::new(rows)).await.map_err(doing())?;
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

    /// Compares the schema with the backup. A difference is an error, unless the server has another
    /// major version than that of the backup; then it is returned.
    async fn compare(&self, trailer: &Trailer) -> Result<Vec<String>, BackupError> {
        let schema = &self.destination.new.schema;
        let comparing = || BackupError::server("comparing with the backup");
        let found = structure_lines(self.session, schema).await.map_err(comparing())?;
        let difference = first_difference(&self.header.structure, &found);
        let mut differences = Vec::new();
        if let Some(line) = difference {
            if self.header.major() == self.admin.options.server_version / 10_000 {
                return Err(BackupError::Different(line));
            }
            differences.push(line);
        }
        let sequences =
            sequences(self.session, schema, &trailer.sequences).await.map_err(comparing())?;
        for (expected, found) in trailer.sequences.iter().zip(&sequences) {
            if expected != found {
                return Err(BackupError::Different(format!(
                    "sequence '{}' is at {} instead of {}",
                    expected.sequence, found.last_value, expected.last_value
                )));
            }
        }
        Ok(differences)
    }

    /// Fails if the statements of the file have changed transaction, role or schema.
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
}

async fn next_part(parts: &mut PartReceiver) -> Result<ArchivePart, BackupError> {
    match parts.recv().await {
        Some(part) => Ok(part?),
        None => Err(ArchiveError::Damaged("it is truncated".to_owned()).into()),
    }
}

/// Reads the positions of these sequences, in the same order.
async fn sequences(
    session: &Session,
    schema: &SchemaName,
    expected: &[SequenceRecord],
) -> Result<Vec<SequenceRecord>, Error> {
    if expected.is_empty() {
        return Ok(Vec::new());
    }
    let selects: Vec<String> = expected
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
    rows.iter().zip(expected).map(record).collect()
}
