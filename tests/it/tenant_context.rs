//! A tenant's connection comes back clean or not at all, whatever was done with it.

use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use pricesync::domain::schema_name::SchemaName;
use pricesync::domain::script::Scope;
use pricesync::domain::target::Target;
use pricesync::migrations::MigrationSet;
use pricesync::postgres::connection::conninfo::{ConnectOptions, Environment};
use pricesync::postgres::connection::database::{Database, Route};
use pricesync::postgres::connection::options::EngineOptions;
use pricesync::postgres::connection::server_error::server_error;
use pricesync::postgres::connection::tls;
use pricesync::postgres::migrate::migrator::PostgresMigrator;
use pricesync::postgres::migrate::pending_hint::{PendingHint, is_something_missing};
use pricesync::postgres::tenants::context::{TenantContext, TenantError};
use pricesync::settings::CatalogLayout;

use super::support::eventually::eventually;
use super::support::pooler::Pooler;
use super::support::pricesync::Given;

/// Two tenants, and a pool with a single connection: what one leaves would meet the next.
struct Two {
    database: Database,
    server: Given,
}

fn acme() -> SchemaName {
    SchemaName::parse("tenant_acme").unwrap()
}

fn globex() -> SchemaName {
    SchemaName::parse("tenant_globex").unwrap()
}

impl Two {
    async fn tenants() -> Self {
        let server = Self::given();
        let url = server.database.url().to_owned();
        Self::through(&url, server).await
    }

    fn given() -> Given {
        let server = Given::nothing();
        for schema in [acme(), globex()] {
            server.database.execute(&format!(
                "CREATE SCHEMA {schema}; CREATE TYPE {schema}.size AS ENUM ('s', 'l'); \
                 CREATE TABLE {schema}.products (name text, size {schema}.size DEFAULT 'l'); \
                 INSERT INTO {schema}.products VALUES ('{schema}''s')"
            ));
        }
        let public = "CREATE TABLE public.products (name text)";
        server.database.execute(public);
        server
    }

    async fn through(url: &str, server: Given) -> Self {
        let empty = Environment::from_pairs(Vec::<(String, String)>::new());
        let options = ConnectOptions::resolve(Some(url), &empty).unwrap();
        let tls = tls::connector(&options).unwrap();
        let database =
            Database::open(&options, tls, NonZeroUsize::MIN, Duration::ZERO).await.unwrap();
        Self { database, server }
    }

    async fn enter(&self, schema: &SchemaName) -> Result<TenantContext, TenantError> {
        self.database.tenant(schema, &[SchemaName::public()]).await
    }

    /// Enters both tenants and sees only what is theirs.
    async fn works(&self) {
        for schema in [acme(), globex()] {
            let context = self.enter(&schema).await.unwrap();
            assert_eq!(names(&context).await, [format!("{schema}'s")]);
            context.commit().await.unwrap();
        }
    }

    /// Returns a value as a borrower sees it who resets nothing.
    async fn outside(&self, sql: &str) -> String {
        let session = self.database.session(Duration::ZERO).await.unwrap();
        let rows = session.rows(sql).await.unwrap();
        rows[0].try_get(0).unwrap().unwrap().to_owned()
    }
}

async fn names(context: &TenantContext) -> Vec<String> {
    let sql = "SELECT name FROM products ORDER BY name";
    let rows = context.client().query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Polls a future so many times, then drops it; whether it was ready by then.
async fn drop_after(polls: usize, future: impl Future) -> bool {
    let mut future = pin!(future);
    let mut polled = 0;
    poll_fn(|context| {
        polled += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if polled >= polls => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn a_future_that_is_dropped_anywhere_leaves_nothing_to_the_next() {
    let two = Two::tenants().await;
    for polls in 1..200 {
        let finished = drop_after(polls, async {
            let context = two.enter(&acme()).await.unwrap();
            let client = context.client();
            client.batch_execute("SET search_path TO tenant_globex").await.unwrap();
            let insert = "INSERT INTO tenant_acme.products VALUES ($1)";
            client.execute(insert, &[&"dropped"]).await.unwrap();
            context.rollback().await.unwrap();
        })
        .await;
        two.works().await;
        assert_eq!(two.outside("SELECT current_schema()").await, "public", "after {polls} polls");
        if finished {
            assert!(polls > 5, "it was dropped in the middle often enough");
            return;
        }
    }
    panic!("it never came to its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_dropped_in_a_query_returns_no_connection() {
    let two = Two::tenants().await;
    let context = two.enter(&acme()).await.unwrap();
    let pid: i32 = context.client().query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let request = tokio::spawn(async move {
        let insert = "INSERT INTO products SELECT 'late' FROM pg_sleep(36000)";
        let _ = context.client().execute(insert, &[]).await;
        context.commit().await
    });
    let at_work = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
    );
    eventually("the query runs", || two.server.value(&at_work) == "1");
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    two.works().await;
    let now = two.outside("SELECT pg_backend_pid()").await;
    assert_ne!(now, pid.to_string());
    two.server.database.execute(&format!("SELECT pg_terminate_backend({pid})"));
}

#[tokio::test]
async fn what_was_set_inside_ends_with_the_context() {
    let two = Two::tenants().await;
    let context = two.enter(&acme()).await.unwrap();
    context
        .client()
        .batch_execute(
            "SET search_path TO tenant_globex; SET statement_timeout TO 1234; LISTEN news; \
             SET ROLE pg_read_all_data; RESET ROLE; SELECT pg_advisory_lock(4711); \
             CREATE TEMPORARY TABLE products (name text); SET TimeZone TO 'Asia/Ho_Chi_Minh'; \
             SET DateStyle TO 'SQL, DMY'; SET extra_float_digits TO -15",
        )
        .await
        .unwrap();
    context.commit().await.unwrap();
    let left = "SELECT concat_ws(' ', current_setting('search_path'), current_setting('statement_timeout'), current_user, \
         (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_locks WHERE objid = 4711 AND pid = pg_backend_pid()), \
         pg_my_temp_schema() = 0 OR to_regclass('pg_temp.products') IS NULL)";
    assert_eq!(two.outside(left).await, "\"$user\", public 0 postgres 0 0 t");
    two.works().await;
}

#[tokio::test]
async fn types_of_every_tenant_are_known_on_the_same_connection() {
    let two = Two::tenants().await;
    for schema in [acme(), globex(), acme()] {
        let context = two.enter(&schema).await.unwrap();
        let sql = "SELECT size FROM products";
        let statement = context.client().prepare(sql).await.unwrap();
        let column = &statement.columns()[0];
        assert_eq!(column.type_().schema(), schema.as_str());
        context.commit().await.unwrap();
    }
    assert_eq!(two.outside("SELECT current_schema()").await, "public");
}

#[tokio::test]
async fn a_commit_inside_is_told_and_not_taken_for_the_end() {
    let two = Two::tenants().await;
    for how in ["COMMIT", "ROLLBACK", "COMMIT; BEGIN", "COMMIT AND CHAIN"] {
        for commits in [true, false] {
            let context = two.enter(&acme()).await.unwrap();
            let client = context.client();
            client.batch_execute(how).await.unwrap();
            let insert = "INSERT INTO products VALUES ('stray')";
            client.batch_execute(insert).await.unwrap();
            let ended = if commits { context.commit().await } else { context.rollback().await };
            let error = ended.unwrap_err();
            assert!(matches!(error, TenantError::Ended(_)), "{how}: {error:?}");
            two.works().await;
        }
    }
    // A transaction of its own is rolled back; only what ran by itself is there.
    let strays = "SELECT count(*) FROM public.products";
    assert_eq!(two.server.value(strays), "4");
}

#[tokio::test]
async fn a_failure_that_nobody_looked_at_is_no_commit() {
    let two = Two::tenants().await;
    let context = two.enter(&acme()).await.unwrap();
    let client = context.client();
    let insert = "INSERT INTO products VALUES ('half')";
    client.execute(insert, &[]).await.unwrap();
    assert!(client.execute("SELECT 1/0", &[]).await.is_err());
    let error = context.commit().await.unwrap_err();
    assert!(
        matches!(&error, TenantError::Refused(said) if said.sqlstate.as_deref() == Some("25P02")),
        "{error:?}"
    );
    two.works().await;
    let context = two.enter(&acme()).await.unwrap();
    assert!(context.client().execute("SELECT 1/0", &[]).await.is_err());
    context.rollback().await.unwrap();
    two.works().await;
}

#[tokio::test]
async fn what_only_a_commit_refuses_is_told() {
    let two = Two::tenants().await;
    let context = two.enter(&acme()).await.unwrap();
    context
        .client()
        .batch_execute(
            "ALTER TABLE products ADD CONSTRAINT one UNIQUE (name) DEFERRABLE INITIALLY DEFERRED; \
             INSERT INTO products SELECT name FROM products",
        )
        .await
        .unwrap();
    let error = context.commit().await.unwrap_err();
    assert!(
        matches!(&error, TenantError::Refused(said) if said.sqlstate.as_deref() == Some("23505")),
        "{error:?}"
    );
    two.works().await;
}

#[tokio::test]
async fn a_lost_connection_leaves_the_commit_in_doubt() {
    let two = Two::tenants().await;
    let context = two.enter(&acme()).await.unwrap();
    two.server.database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    let error = context.commit().await.unwrap_err();
    assert!(matches!(error, TenantError::InDoubt(_)), "{error:?}");
    two.works().await;
}

#[tokio::test]
async fn a_missing_schema_does_not_show_public() {
    let two = Two::tenants().await;
    let missing = SchemaName::parse("tenant_missing").unwrap();
    let error = two.enter(&missing).await.unwrap_err();
    assert!(matches!(&error, TenantError::SchemaMissing(schema) if *schema == missing));
    assert_eq!(
        error.to_string(),
        "schema 'tenant_missing' does not exist, or the role has no USAGE privilege on it"
    );
    two.works().await;
}

#[tokio::test]
async fn a_transaction_that_another_borrower_left_open_is_not_joined() {
    let two = Two::tenants().await;
    for left in [
        "BEGIN; INSERT INTO tenant_acme.products VALUES ('left')",
        "BEGIN; INSERT INTO tenant_acme.products VALUES ('left'); SELECT 1/0",
    ] {
        let session = two.database.session(Duration::ZERO).await.unwrap();
        let _ = session.rows(left).await;
        drop(session);
        two.works().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_shares_sessions_shows_each_tenant_its_own() {
    let given = Two::given();
    let Some(pooler) = Pooler::start("transaction", 1) else {
        return;
    };
    let two = Two::through(&pooler.url(&given), given).await;
    assert_eq!(two.database.facts().route, Route::Pooled);
    two.works().await;
    // What a context sets for the session stays there, in the only one, which all share.
    let context = two.enter(&acme()).await.unwrap();
    let set = "SET search_path TO tenant_globex; SET statement_timeout TO 1";
    context.client().batch_execute(set).await.unwrap();
    context.commit().await.unwrap();
    two.works().await;
    let context = two.enter(&acme()).await.unwrap();
    context.client().batch_execute("COMMIT").await.unwrap();
    let error = context.commit().await.unwrap_err();
    assert!(matches!(error, TenantError::Ended(_)), "{error:?}");
    two.works().await;
}

#[tokio::test]
async fn a_service_learns_how_far_behind_a_tenant_is() {
    let server = Given::tenants(&["acme"]);
    server.tenant_file("V1__a.sql", "CREATE TABLE a (id int);");
    server.run(&["migrate-schemas"]).exits(0);
    server.tenant_file("V2__b.sql", "CREATE TABLE b (id int);");
    server.tenant_file("V3__c.sql", "CREATE TABLE c (id int);");
    let url = server.database.url().to_owned();
    let two = Two::through(&url, server).await;
    let folder = two.server.dir.path().join("migrations");
    let set = |name, scope| Arc::new(MigrationSet::load(&folder.join(name), scope).unwrap());
    let migrator = Arc::new(PostgresMigrator::new(
        two.database.clone(),
        EngineOptions::new(&two.database, &CatalogLayout::default()),
        set("shared", Scope::Shared),
        set("tenant", Scope::Tenant),
    ));
    let target =
        Arc::new(Target { schema: acme(), label: "acme".to_owned(), scope: Scope::Tenant });

    let context = two.enter(&acme()).await.unwrap();
    let error = context.client().query("SELECT * FROM c", &[]).await;
    let error = server_error(&error.unwrap_err());
    context.rollback().await.unwrap();
    let ask = || PendingHint::new(Some(Arc::clone(&migrator)), vec![Arc::clone(&target)]);
    assert!(is_something_missing(&error));
    assert_eq!(ask().pending(&target).await, Some(2));
    assert_eq!(
        ask().hint(&target, &error).await.unwrap().render("pricesync"),
        "tenant 'acme' is 2 migrations behind: pricesync migrate-schemas --tenant=acme"
    );
    two.server.run(&["migrate-schemas"]).exits(0);
    assert_eq!(ask().pending(&target).await, Some(0));
}
