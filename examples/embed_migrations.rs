//! Migrates every tenant when a service starts; the service listens only if all of them succeed.
//!
//! `DATABASE_URL=postgresql://... cargo run --example embed_migrations`
//!
//! The files are compiled into the program, so a deployment is one artifact. Two instances that
//! start at the same time share the work: each schema is migrated by one of them. The library is
//! enough for this: `pricesync = { version = "0.1", default-features = false }`.

use std::env;
use std::error::Error;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pricesync::domain::run_options::OnFailure;
use pricesync::domain::script::Scope;
use pricesync::migrations::MigrationSet;
use pricesync::postgres::connection::conninfo::{ConnectOptions, Environment};
use pricesync::postgres::connection::database::Database;
use pricesync::postgres::connection::options::EngineOptions;
use pricesync::postgres::connection::tls;
use pricesync::postgres::migrate::migrator::PostgresMigrator;
use pricesync::postgres::tenants::catalog::PostgresCatalog;
use pricesync::service::concurrency::ConcurrencyLimit;
use pricesync::service::event::{Operation, Progress};
use pricesync::service::fleet::{Fleet, Interrupts};
use pricesync::service::rollout::{Rollout, Scopes};
use pricesync::service::stages::Stages;
use pricesync::settings::CatalogLayout;

/// Embeds files of this repository's `migrations` folder, as pairs of path and text.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_str!(concat!("../migrations/", $path)))),*]
    };
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    if !migrate(&env::var("DATABASE_URL")?).await? {
        return Ok(ExitCode::FAILURE);
    }
    // The service starts to listen here.
    Ok(ExitCode::SUCCESS)
}

/// Migrates all schemas; returns whether every one of them is at the newest version.
async fn migrate(url: &str) -> Result<bool, Box<dyn Error>> {
    let shared = files![
        "shared/tenants/V1__tenants.sql",
        "shared/auth/V2__content_types.sql",
        "shared/auth/V3__auth.sql",
        "shared/admin/V4__admin_log.sql",
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
    let shared = MigrationSet::embedded(Scope::Shared, &shared)?;
    let tenant = MigrationSet::embedded(Scope::Tenant, &tenant)?;

    // One connection for each job, one for the catalog, one to monitor and cancel statements.
    let jobs = NonZeroUsize::new(4).expect("four is not zero");
    let options = ConnectOptions::resolve(Some(url), &Environment::from_process())?
        .with_application_name("my-service");
    let tls = tls::connector(&options)?;
    let patience = Duration::from_secs(30);
    let database = Database::open(&options, tls, jobs.saturating_add(2), patience).await?;

    let layout = CatalogLayout::default();
    let catalog = PostgresCatalog::new(database.clone(), &layout);
    let engine_options = EngineOptions::new(&database, &layout);
    let migrator =
        PostgresMigrator::new(database, engine_options, Arc::new(shared), Arc::new(tenant));

    // Raise the first of the pair to stop the run.
    let (_interrupter, interrupts) = Interrupts::new();
    let rollout = Rollout {
        migrator: &Arc::new(migrator),
        catalog: &catalog,
        fleet: Fleet {
            concurrency: ConcurrencyLimit::fixed(jobs),
            on_failure: OnFailure::Continue,
            interrupts,
        },
        scopes: Scopes::Everything,
        stages: Stages::default(),
        work: Operation::MIGRATION,
    };
    let (progress, mut events) = Progress::channel();
    let logging = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            // A closed log must not end the run.
            let line = serde_json::to_string(&event.kind).unwrap_or_default();
            let _ = writeln!(io::stderr(), "{line}");
        }
    });
    let summary = rollout.run(rollout.survey().await?, &progress).await;
    drop(progress);
    logging.await?;
    let counts = summary?.counts();
    let line = serde_json::to_string(&counts)?;
    writeln!(io::stderr(), "{line}")?;
    Ok(counts.failed + counts.skipped + counts.not_started == 0)
}
