//! Adopts an existing schema: applies pending migrations and inserts row and hosts in one
//! transaction.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::admin::TenantAdmin;
use super::catalog::database_error;
use super::change::ChangeError;
use super::conflicts::NewValues;
use super::create::{CreateFailed, Created, Creation, Prepared};
use super::new_row::insert_error;
use crate::domain::applied::Applied;
use crate::domain::catalog::CatalogError;
use crate::domain::plan::{Goal, Plan};
use crate::domain::sqlstate;
use crate::domain::tenant::NewTenant;
use crate::migrations::{MigrationSet, Script, Transaction};
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::open::{OpenOutcome, OpenTransaction, open};
use crate::postgres::transaction::retry::TxError;
use crate::service::failure::{MigrateError, ServerError};

impl TenantAdmin {
    /// Registers an existing schema as a new tenant and applies its pending migrations. Without a
    /// set none are applied.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; the transaction is rolled back.
    pub async fn adopt(
        &self,
        new: &NewTenant,
        set: Option<&MigrationSet>,
    ) -> Result<Created, ChangeError> {
        let creation = Creation::new(self, new, set).await;
        let attempt = async |number| {
            creation.attempt(number, async |session| creation.adopt_in(session, number).await).await
        };
        let refused = |error: &Error| insert_error(error, new, self.tables()).into();
        let adopted = self.retry().run(refused, attempt).await?;
        Ok(Created { tenant: self.with_id(adopted.tenant).await?, ..adopted })
    }
}

impl Creation<'_> {
    async fn adopt_in(&self, session: &Session, number: u32) -> Result<Prepared, CreateFailed> {
        let refused = |error: CatalogError| TxError::Refused(ChangeError::from(error));
        let schema = &self.new.schema;
        let opened = self.open_schema(session).await?;
        let catalog = &self.admin.catalog;
        if let Some(taken) = catalog.find_conflict(session, self.new, NewValues::Adopt).await? {
            return Err(refused(taken));
        }
        let (mut history, pending) = compare(self.set, &opened)
            .map_err(|error| TxError::Refused(ChangeError::Migrate(error)))?;
        if history.is_empty()
            && !pending.is_empty()
            && let objects @ 1.. = self.count_objects(session, &opened).await?
        {
            return Err(refused(CatalogError::NoHistory(schema.clone(), objects)));
        }
        let inside = |script: &&&Script| script.transaction == Transaction::Inside;
        let scripts: Vec<&Script> = pending.iter().take_while(inside).copied().collect();
        let applied = if scripts.is_empty() {
            Vec::new()
        } else {
            self.run_files(session, &opened, &scripts, number).await?
        };
        history.extend(scripts.iter().map(|script| script.id.claimed()));
        let left = pending.len() - scripts.len();
        let history = (!history.is_empty()).then_some(history);
        Ok(Prepared { opened, history, applied, left })
    }

    /// Opens the transaction in the schema, under its lock.
    async fn open_schema(&self, session: &Session) -> Result<OpenTransaction, CreateFailed> {
        let (schema, options) = (&self.new.schema, &self.admin.options);
        let open = async |expect_history| {
            let opened = open(session, options, &self.target, expect_history).await;
            opened.map_err(|error| {
                let (doing, error) =
                    (format!("reading the history of {schema}"), server_error(&error));
                TxError::of(error.clone(), MigrateError::Database { doing, error }.into())
            })
        };
        let mut outcome = open(true).await?;
        if let OpenOutcome::Expect(history) = outcome {
            outcome = open(history).await?;
        }
        let refused = match outcome {
            OpenOutcome::Ready(opened) => return Ok(opened),
            OpenOutcome::Busy(oid) => return Err(TxError::Busy(oid)),
            OpenOutcome::NotUsable(role) => database_error(ServerError {
                sqlstate: Some(sqlstate::INSUFFICIENT_PRIVILEGE.to_owned()),
                message: format!("role '{role}' may not use schema '{schema}'"),
                ..ServerError::default()
            }),
            _ => CatalogError::SchemaMissing(schema.clone()),
        };
        Err(TxError::Refused(refused.into()))
    }

    /// Returns the number of objects in the schema other than the history table.
    async fn count_objects(
        &self,
        session: &Session,
        opened: &OpenTransaction,
    ) -> Result<u64, Error> {
        let history = qualified(&self.new.schema, &self.admin.options.history_table);
        let sql = format!(
            "SELECT count(*) FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::regclass AND refobjid = {} \
             AND NOT (classid = 'pg_catalog.pg_class'::regclass AND objid IS NOT DISTINCT FROM to_regclass({}))",
            opened.schema_oid,
            escape_literal(&history)
        );
        let rows = session.rows(&sql).await?;
        rows.first().map_or(Ok(0), |row| row.parse(0))
    }
}

/// Returns the history and the pending scripts.
fn compare<'a>(
    set: Option<&'a MigrationSet>,
    opened: &OpenTransaction,
) -> Result<(Vec<Applied>, Vec<&'a Script>), Box<MigrateError>> {
    let Some(set) = set else {
        return Ok((opened.history.clone().unwrap_or_default(), Vec::new()));
    };
    let history = opened.history.clone();
    let history = history.map_err(|why| Box::new(MigrateError::DamagedHistory { why }))?;
    let plan = Plan::compare(set.ids(), &history, Goal::Latest)
        .map_err(|drifts| Box::new(MigrateError::Drift { drifts }))?;
    let pending = plan.pending.iter().map(|&index| &set.scripts()[index]);
    Ok((history, pending.collect()))
}
