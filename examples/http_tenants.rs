//! A web service that selects the tenant by the host of the request:
//! host → tenant → a transaction in the tenant's schema → queries → response.
//!
//! `DATABASE_URL=postgresql://... cargo run --example http_tenants -- 127.0.0.1:8080`
//!
//! ```sh
//! curl -H 'Host: acme.example.com' -d 'Anvil' http://127.0.0.1:8080/products/A-1
//! curl -H 'Host: acme.example.com' http://127.0.0.1:8080/products
//! ```

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::http::header::{HOST, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use pricesync::domain::catalog::{CatalogError, TenantCatalog as _};
use pricesync::domain::schema_name::SchemaName;
use pricesync::domain::tenant::{Hostname, Tenant};
use pricesync::postgres::connection::conninfo::{ConnectOptions, Environment};
use pricesync::postgres::connection::database::Database;
use pricesync::postgres::connection::tls;
use pricesync::postgres::tenants::catalog::PostgresCatalog;
use pricesync::postgres::tenants::context::{TenantContext, TenantError};
use pricesync::settings::CatalogLayout;
use tokio::net::TcpListener;

/// Maximum number of connections, and so of concurrent requests in the database.
const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(10).expect("ten is not zero");

/// How long a request waits for a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).ok_or("usage: http_tenants ADDRESS:PORT")?;
    let url = env::var("DATABASE_URL")?;
    let options = ConnectOptions::resolve(Some(&url), &Environment::from_process())?;
    let tls = tls::connector(&options)?;
    let database = Database::open(&options, tls, CONNECTIONS, Duration::ZERO).await?;
    // The layout that pricesync and django-tenants create.
    let catalog = PostgresCatalog::new(database.clone(), &CatalogLayout::default());
    let service = Router::new()
        .route("/products", get(list))
        .route("/products/{sku}", post(add))
        .with_state(Service { database, catalog });
    let listener = TcpListener::bind(&address).await?;
    writeln!(std::io::stdout(), "listening on {}", listener.local_addr()?)?;
    axum::serve(listener, service).await?;
    Ok(())
}

/// The state shared by all requests.
#[derive(Clone)]
struct Service {
    database: Database,
    catalog: PostgresCatalog,
}

/// The tenant of the request's host, and a transaction in its schema.
struct InTenant {
    tenant: Tenant,
    context: TenantContext,
}

impl FromRequestParts<Service> for InTenant {
    type Rejection = Rejected;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Rejected> {
        let opening = async {
            let host = host(&parts.headers)?;
            let tenant = service.catalog.resolve(&host).await?;
            let context = service.database.tenant(&tenant.schema, &[SchemaName::public()]).await?;
            Ok(Self { tenant, context })
        };
        // A future that is dropped leaves no open transaction.
        tokio::time::timeout(CONNECTION_TIMEOUT, opening).await.unwrap_or(Err(Rejected::busy()))
    }
}

fn host(headers: &HeaderMap) -> Result<Hostname, Rejected> {
    headers
        .get(HOST)
        .and_then(|host| Hostname::parse(host.to_str().ok()?).ok())
        .ok_or(Rejected(StatusCode::BAD_REQUEST, "invalid host name\n"))
}

async fn list(InTenant { tenant, context }: InTenant) -> Result<String, Rejected> {
    let rows = context.client().query("SELECT sku, name FROM products ORDER BY sku", &[]).await?;
    context.rollback().await?;
    let mut text = format!("{} ({})\n", tenant.name, tenant.schema);
    for row in rows {
        let (sku, name): (&str, &str) = (row.get(0), row.get(1));
        let _ = writeln!(text, "{sku} {name}");
    }
    Ok(text)
}

async fn add(
    InTenant { context, .. }: InTenant,
    Path(sku): Path<String>,
    name: String,
) -> Result<StatusCode, Rejected> {
    let insert = "INSERT INTO products (sku, name, price) VALUES ($1, $2, 0)";
    if let Err(error) = context.client().execute(insert, &[&sku, &name]).await {
        // unique_violation
        if error.code().is_some_and(|code| code.code() == "23505") {
            return Err(Rejected(StatusCode::CONFLICT, "this product exists\n"));
        }
        return Err(error.into());
    }
    context.commit().await?;
    Ok(StatusCode::CREATED)
}

/// The response to the client; details go to the log.
struct Rejected(StatusCode, &'static str);

impl Rejected {
    fn busy() -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "try again later\n")
    }

    fn broken(error: &dyn Error) -> Self {
        let _ = writeln!(std::io::stderr(), "error: {error}");
        Self(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
    }
}

impl IntoResponse for Rejected {
    fn into_response(self) -> Response {
        if self.0 == StatusCode::SERVICE_UNAVAILABLE {
            (self.0, [(RETRY_AFTER, "1")], self.1).into_response()
        } else {
            (self.0, self.1).into_response()
        }
    }
}

impl From<CatalogError> for Rejected {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::NotFound(_) => Self(StatusCode::NOT_FOUND, "unknown host\n"),
            CatalogError::Unreachable(_) => Self::busy(),
            error => Self::broken(&error),
        }
    }
}

impl From<TenantError> for Rejected {
    fn from(error: TenantError) -> Self {
        match error {
            TenantError::NoConnection(_) => Self::busy(),
            // The tenant is being created or dropped.
            TenantError::SchemaMissing(_) => Self(StatusCode::NOT_FOUND, "unknown host\n"),
            error => Self::broken(&error),
        }
    }
}

impl From<tokio_postgres::Error> for Rejected {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::broken(&error)
    }
}
