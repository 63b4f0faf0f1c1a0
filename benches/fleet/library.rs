//! Creates tenants through the library. No other file of the benchmark uses it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use pricesync::domain::script::Scope;
use pricesync::domain::tenant::{Hostname, NewTenant, Slug};
use pricesync::migrations::MigrationSet;
use pricesync::postgres::connection::conninfo::{ConnectOptions, Environment};
use pricesync::postgres::connection::database::Database;
use pricesync::postgres::connection::options::EngineOptions;
use pricesync::postgres::connection::tls;
use pricesync::postgres::migrate::migrator::PostgresMigrator;
use pricesync::postgres::tenants::admin::TenantAdmin;
use pricesync::postgres::tenants::catalog::PostgresCatalog;
use pricesync::settings::CatalogLayout;

use crate::bench::Bench;
use crate::files::File;

/// Creates tenants sequentially and returns the seconds, without connecting.
pub(crate) fn create(
    bench: &Bench,
    database: &str,
    files: &[File],
    slugs: &[String],
) -> Result<f64> {
    bench.runtime.block_on(create_all(&bench.url(database), files, slugs))
}

async fn create_all(url: &str, files: &[File], slugs: &[String]) -> Result<f64> {
    let names: Vec<String> =
        files.iter().map(|file| format!("V{}__{}.sql", file.version, file.name)).collect();
    let files: Vec<(&str, &str)> =
        names.iter().zip(files).map(|(name, file)| (name.as_str(), file.text.as_str())).collect();
    let sets = [(Scope::Shared, &[][..]), (Scope::Tenant, &files)];
    let [shared, tenant] = sets.map(|(scope, files)| MigrationSet::embedded(scope, files));
    let options = ConnectOptions::resolve(Some(url), &Environment::from_process())?;
    let tls = tls::connector(&options)?;
    let sessions = NonZeroUsize::new(3).context("three is not zero")?;
    let database = Database::open(&options, tls, sessions, Duration::ZERO).await?;
    let layout = CatalogLayout::default();
    let catalog = PostgresCatalog::new(database.clone(), &layout);
    let options = EngineOptions::new(&database, &layout);
    let (shared, tenant) = (Arc::new(shared?), Arc::new(tenant?));
    let migrator = PostgresMigrator::new(database, options.clone(), shared, tenant);
    let admin = TenantAdmin::new(catalog, options);
    let started = Instant::now();
    for slug in slugs {
        let slug = Slug::parse(slug)?;
        let new = NewTenant {
            name: format!("Tenant {slug}"),
            schema: slug.schema("tenant_")?,
            hostnames: vec![Hostname::parse(&format!("{slug}.example.com"))?],
            slug,
            columns: Vec::new(),
        };
        admin
            .create(&new, Some(&migrator))
            .await
            .map_err(|error| anyhow!("tenant {} was not created: {error:?}", new.slug))?;
    }
    Ok(started.elapsed().as_secs_f64())
}
