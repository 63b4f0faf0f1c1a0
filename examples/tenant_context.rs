//! Resolves a host to a tenant, queries the tenant's schema, and returns a clean connection to the
//! pool.
//!
//! `DATABASE_URL=postgresql://... cargo run --example tenant_context -- acme.example.com`

use std::env;
use std::error::Error;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::time::Duration;

use pricesync::domain::catalog::TenantCatalog as _;
use pricesync::domain::schema_name::SchemaName;
use pricesync::domain::tenant::Hostname;
use pricesync::postgres::connection::conninfo::{ConnectOptions, Environment};
use pricesync::postgres::connection::database::Database;
use pricesync::postgres::connection::tls;
use pricesync::postgres::tenants::catalog::PostgresCatalog;
use pricesync::settings::CatalogLayout;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let host = env::args().nth(1).ok_or("usage: tenant_context HOST")?;
    let url = env::var("DATABASE_URL")?;
    let options = ConnectOptions::resolve(Some(&url), &Environment::from_process())?;
    let tls = tls::connector(&options)?;
    // A pool of one connection, so that the session below reuses the one that was returned.
    let database = Database::open(&options, tls, NonZeroUsize::MIN, Duration::ZERO).await?;
    let catalog = PostgresCatalog::new(database.clone(), &CatalogLayout::default());

    // The host as in a request: with a port, in any case.
    let tenant = catalog.resolve(&Hostname::parse(&host)?).await?;

    let context = database.tenant(&tenant.schema, &[SchemaName::public()]).await?;
    let row = context
        .client()
        .query_one("SELECT current_schema()::text, count(*) FROM products", &[])
        .await?;
    let (schema, products): (String, i64) = (row.get(0), row.get(1));
    context.commit().await?;

    let session = database.session(Duration::ZERO).await?;
    let after = session.rows("SELECT current_schema()").await?;
    writeln!(
        std::io::stdout(),
        "{}: {products} products in {schema}; afterwards the connection sees {}",
        tenant.name,
        after[0].try_get(0)?.unwrap_or("nothing")
    )?;
    Ok(())
}
