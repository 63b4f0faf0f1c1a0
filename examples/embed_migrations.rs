//! Migrates every tenant when a service starts, and serves only when all of them are ready.
//!
//! `DATABASE_URL=postgresql://... cargo run --example embed_migrations`
//!
//! The files are part of the program, so that a deployment is one artefact. Two instances
//! that start at once share the work: each schema is migrated by one of them.

use std::env;
use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pricesync::domain::plan::{Atomic, Goal, OnFailure};
use pricesync::domain::schema_name::SchemaName;
use pricesync::domain::script::Scope;
use pricesync::error::Exit;
use pricesync::migrations::source::MigrationSet;
use pricesync::postgres::catalog::{PostgresCatalog, quoted};
use pricesync::postgres::conninfo::{ConnectOptions, Environment};
use pricesync::postgres::migrator::{PostgresMigrator, Rules};
use pricesync::postgres::pool::Database;
use pricesync::postgres::tls;
use pricesync::service::event::Progress;
use pricesync::service::fleet::{Fleet, Interrupts};
use pricesync::service::rollout::{Rollout, Scopes};
use pricesync::settings::TableName;
use pricesync::ui::{ColorChoice, ProgressMode, Terminal, Verbosity};

/// Includes files of this repository's `migrations` folder.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        [$((
            Path::new($path),
            include_bytes!(concat!("../migrations/", $path)).as_slice(),
        )),*]
    };
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let exit = migrate(&env::var("DATABASE_URL")?).await?;
    if exit == Exit::Done {
        // Here the service would begin to listen.
    }
    Ok(ExitCode::from(exit as u8))
}

async fn migrate(url: &str) -> Result<Exit, Box<dyn Error>> {
    let shared = files![
        "shared/tenants/V1__tenants.sql",
        "shared/accounts/V2__auth_user.sql",
        "shared/admin/V3__admin_log.sql",
    ];
    let tenant = files![
        "tenant/users/V1__users.sql",
        "tenant/products/V2__products.sql",
        "tenant/prices/V3__price_history.sql",
        "tenant/subscriptions/V4__subscriptions.sql",
        "tenant/products/V5__product_brand.sql",
        "tenant/prices/V6__price_history_index.sql",
        "tenant/subscriptions/V7__subscription_trial.sql",
        "tenant/users/V8__user_locale.sql",
    ];
    let shared = MigrationSet::from_texts(shared, Scope::Shared)?;
    let tenant = MigrationSet::from_texts(tenant, Scope::Tenant)?;

    // One connection for each job, one for the catalog, one to watch and to cancel.
    let jobs = NonZeroUsize::new(4).expect("four is not zero");
    let options = ConnectOptions::resolve(Some(url), &Environment::from_process())?
        .with_application_name("my-service");
    let tls = tls::connector(&options)?;
    let patience = Duration::from_secs(30);
    let database = Database::open(&options, tls, jobs.saturating_add(2), patience).await?;

    let tenants = table("tenants_tenant");
    let catalog = PostgresCatalog::new(database.clone(), &tenants, &table("tenants_domain"));
    let rules = Rules {
        lock_timeout: Duration::from_secs(2),
        statement_timeout: Duration::ZERO,
        lock_retries: 5,
        lock_wait: Duration::from_mins(1),
        atomic: Atomic::Schema,
        goal: Goal::Latest,
        fake: false,
        search_path: vec![SchemaName::public()],
        history_table: "refinery_schema_history".to_owned(),
        tenant_table: quoted(&tenants),
        unlisted: false,
        server_version: database.facts().version,
    };
    let migrator = PostgresMigrator::new(database, rules, Arc::new(shared), Arc::new(tenant));

    // A service that has to stop while it starts raises the first of the pair.
    let (_interrupter, interrupts) = Interrupts::new();
    let rollout = Rollout {
        migrator: &Arc::new(migrator),
        catalog: &catalog,
        fleet: Fleet {
            jobs,
            on_failure: OnFailure::Continue,
            interrupts,
        },
        scopes: Scopes::Everything,
    };
    let (progress, mut events) = Progress::channel();
    let terminal = Terminal::detect(ColorChoice::Never, Verbosity::Normal);
    let mut reporter = terminal.reporter(ProgressMode::Lines);
    let telling = tokio::task::spawn_blocking(move || {
        while let Some(event) = events.blocking_recv() {
            // Nobody reads the log any more; the run goes on.
            let _ = reporter.on(&event);
        }
        reporter
    });
    let summary = rollout.run(&progress).await;
    drop(progress);
    let mut reporter = telling.await?;
    let summary = summary.map_err(|error| format!("{error:?}"))?;
    reporter.finish(&summary)?;
    Ok(Exit::of(&summary))
}

fn table(name: &str) -> TableName {
    TableName {
        schema: "public".to_owned(),
        table: name.to_owned(),
    }
}
