//! Plain sessions for the benchmark's own SQL.

use anyhow::{Context as _, Result, anyhow};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A connection of the driver, without pricesync.
pub(crate) struct Session {
    client: Client,
    driving: JoinHandle<()>,
}

impl Session {
    /// Connects.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls)
            .await
            .context("the benchmark's server does not answer")?;
        let driving = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { client, driving })
    }

    /// Sends statements as one message and waits for the result.
    pub(crate) async fn run(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|error| refused(&error, sql))
    }

    /// Returns the first value of the first row, if there is one.
    pub(crate) async fn value(&self, sql: &str) -> Result<Option<String>> {
        let messages = self.client.simple_query(sql).await.map_err(|error| refused(&error, sql))?;
        Ok(messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.try_get(0).ok()?.map(str::to_owned),
            _ => None,
        }))
    }

    /// Closes the session and waits until the server has closed it.
    pub(crate) async fn close(self) {
        drop(self.client);
        let _ = self.driving.await;
    }
}

fn refused(error: &tokio_postgres::Error, sql: &str) -> anyhow::Error {
    let said = error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
    let start: String = sql.chars().take(200).collect();
    anyhow!("{said}: {start}")
}
