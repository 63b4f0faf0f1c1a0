//! Builds databases with many tenants quickly.

use anyhow::Result;
use futures_util::future::join_all;

use crate::bench::Bench;
use crate::session::Session;

/// Schemas built in one transaction; each uses slots of the server's lock table.
const CHUNK: usize = 250;

/// Number of connections that build.
const BUILDERS: usize = 2;

/// Does autovacuum's work on tables that grow with the fleet.
const TIDY: &str = "VACUUM ANALYZE pg_class, pg_attribute, pg_namespace, pg_index, pg_depend, \
    pg_constraint, pg_type, pg_sequence, pg_attrdef, tenants_tenant, tenants_domain";

/// The contents of a database before a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Base {
    /// Tenants with empty schemas.
    Empty(usize),
    /// Tenants migrated by pricesync with every shipped file.
    Migrated(usize),
    /// Tenants whose schemas contain only a complete history.
    Thin(usize),
}

/// Returns the slug of a tenant, counted from 1.
pub(crate) fn slug(number: usize) -> String {
    format!("t{number:05}")
}

/// Returns the schema of a tenant, counted from 1.
pub(crate) fn schema(number: usize) -> String {
    format!("tenant_{}", slug(number))
}

impl Base {
    /// Returns the database's name.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Empty(n) => format!("empty_{n}"),
            Self::Migrated(n) => format!("migrated_{n}"),
            Self::Thin(n) => format!("thin_{n}"),
        }
    }

    /// Builds the database.
    pub(crate) fn build(self, bench: &Bench) -> Result<()> {
        let name = bench.name(self);
        crate::say(&format!("building {name}"));
        let place = bench.in_memory();
        let migrate = |args: &[&str]| {
            let args = [&["migrate-schemas"], args].concat();
            bench.seconds(bench.pricesync(&bench.projects.shipped(), &name, &args))
        };
        match self {
            Self::Empty(n) => {
                bench.run("postgres", &format!("CREATE DATABASE {name}{place}"))?;
                migrate(&["--shared"])?;
                bench.run(&name, &rows(n))?;
                in_chunks(bench, &name, 1, n, "EXECUTE format('CREATE SCHEMA %I', s);")?;
            }
            Self::Migrated(n) => {
                let empty = bench.base(Self::Empty(n))?;
                bench
                    .run("postgres", &format!("CREATE DATABASE {name} TEMPLATE {empty}{place}"))?;
                migrate(&[])?;
            }
            Self::Thin(n) => {
                bench.run("postgres", &format!("CREATE DATABASE {name}{place}"))?;
                migrate(&["--shared"])?;
                bench.run(&name, &rows(n))?;
                let first = schema(1);
                bench.run(&name, &format!("CREATE SCHEMA {first}"))?;
                migrate(&["--tenant", &slug(1)])?;
                let each = format!(
                    "EXECUTE format('CREATE SCHEMA %I', s); \
                     EXECUTE format('CREATE TABLE %I.refinery_schema_history (LIKE {first}.refinery_schema_history INCLUDING ALL)', s); \
                     EXECUTE format('INSERT INTO %I.refinery_schema_history SELECT * FROM {first}.refinery_schema_history', s);"
                );
                in_chunks(bench, &name, 2, n, &each)?;
                // This run writes pricesync's ledger.
                migrate(&[])?;
            }
        }
        bench.run(&name, TIDY)
    }
}

/// Returns the statement that writes the tenants' rows.
fn rows(tenants: usize) -> String {
    format!(
        "INSERT INTO tenants_tenant (schema_name, name, slug) \
         SELECT 'tenant_t' || lpad(i::text, 5, '0'), 'Tenant ' || i, 't' || lpad(i::text, 5, '0') \
         FROM generate_series(1, {tenants}) i; \
         INSERT INTO tenants_domain (domain, is_primary, tenant_id) \
         SELECT slug || '.example.com', true, id FROM tenants_tenant"
    )
}

/// Runs statements for every schema `s` of a range, about a hundred in a transaction.
fn in_chunks(bench: &Bench, database: &str, first: usize, last: usize, each: &str) -> Result<()> {
    let chunks: Vec<String> = (first..=last)
        .step_by(CHUNK)
        .map(|from| {
            let to = (from + CHUNK - 1).min(last);
            format!(
                "DO $$ DECLARE s text; BEGIN FOR i IN {from}..{to} LOOP \
                 s := 'tenant_t' || lpad(i::text, 5, '0'); {each} END LOOP; END $$"
            )
        })
        .collect();
    let url = bench.url(database);
    bench.runtime.block_on(async {
        let builders = (0..BUILDERS).map(|builder| {
            let mine = chunks.iter().skip(builder).step_by(BUILDERS);
            let url = &url;
            async move {
                let session = Session::open(url).await?;
                for chunk in mine {
                    session.run(chunk).await?;
                }
                session.close().await;
                Ok(())
            }
        });
        join_all(builders).await.into_iter().collect()
    })
}
