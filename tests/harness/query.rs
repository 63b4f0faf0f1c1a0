//! One message in a session of its own.

use std::thread;

use tokio_postgres::{Error, NoTls, SimpleQueryMessage};

/// Runs statements in one message and returns all rows as text.
pub(crate) fn query(url: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be built").block_on(send(url, sql))
    };
    // A thread of its own, because a runtime must not be started on a runtime's thread.
    thread::scope(|scope| scope.spawn(run).join().expect("a query does not panic"))
}

async fn send(url: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let driving = tokio::spawn(connection);
    let messages = client.simple_query(sql).await;
    drop(client);
    let _ = driving.await;
    let rows = messages?.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let value = |column| row.try_get(column).unwrap().map(str::to_owned);
            Some((0..row.len()).map(value).collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}
