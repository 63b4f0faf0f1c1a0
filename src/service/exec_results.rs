//! Merges the results of `exec` in the order of the tenants: each complete, all with equal columns.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

/// One value of a row; `None` is NULL.
pub type Value = Option<String>;

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, as the server gives it.
    pub name: String,
    /// The type of its texts.
    pub kind: ColumnType,
}

/// The type of a column's texts, as far as it changes how they are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColumnType {
    /// Text or any other type.
    #[default]
    Text,
    /// Numbers, `NaN` and `Infinity` among them.
    Number,
    /// `t` or `f`.
    Flag,
    /// JSON.
    Json,
}

/// Rows, or bytes of values, in one message.
const ROWS: usize = 500;
const BYTES: usize = 64 << 10;
/// Bytes of results that are buffered in memory; more go to a temporary file.
const KEPT: usize = 8 << 20;
/// Messages in the channel.
const QUEUED: usize = 16;

/// Sends the rows of one position. Dropped without [`ResultWriter::end`], its rows are discarded.
#[derive(Debug)]
pub struct ResultWriter {
    position: usize,
    agreement: Arc<watch::Sender<Agreement>>,
    sender: mpsc::Sender<Message>,
    rows: Vec<Vec<Value>>,
    bytes: usize,
    has_columns: bool,
    ended: bool,
}

/// The columns of the first position that has any.
#[derive(Debug, Default)]
struct Agreement {
    columns: Option<Arc<[Column]>>,
    /// Every position before this one ended without columns.
    next: usize,
    without: BTreeSet<usize>,
}

#[derive(Debug)]
enum Message {
    Rows(usize, Vec<Vec<Value>>),
    End(usize, bool),
}

/// Hands out a [`ResultWriter`] for each position.
#[derive(Clone, Debug)]
pub struct ResultWriters {
    agreement: Arc<watch::Sender<Agreement>>,
    sender: mpsc::Sender<Message>,
    /// How many positions have acquired what they need to start.
    started: Arc<watch::Sender<usize>>,
}

/// The turn of a position to acquire what it needs; the next turn comes when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Turn {
    position: usize,
    started: Arc<watch::Sender<usize>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.started.send_modify(|started| *started = self.position + 1);
    }
}

/// Receives the rows of all positions and returns them in order.
#[derive(Debug)]
pub struct ResultReader {
    agreement: watch::Receiver<Agreement>,
    receiver: mpsc::Receiver<Message>,
    waiting: BTreeMap<usize, Buffered>,
    next: usize,
    kept: usize,
    spilled: Option<File>,
}

/// What a position has sent so far.
#[derive(Debug, Default)]
struct Buffered {
    chunks: Vec<StoredRows>,
    ended: Option<bool>,
}

#[derive(Debug)]
enum StoredRows {
    Kept(Vec<u8>),
    /// Offset and length in the file.
    Spilled(u64, usize),
}

/// Returns both ends.
pub fn ordered_results() -> (ResultWriters, ResultReader) {
    let (sender, receiver) = mpsc::channel(QUEUED);
    let (agreement, watched) = watch::channel(Agreement::default());
    let writers = ResultWriters {
        agreement: Arc::new(agreement),
        sender,
        started: Arc::new(watch::channel(0).0),
    };
    let reader = ResultReader {
        agreement: watched,
        receiver,
        waiting: BTreeMap::new(),
        next: 0,
        kept: 0,
        spilled: None,
    };
    (writers, reader)
}

impl ResultWriters {
    /// Waits until every earlier position has acquired what it needs to start. Without that order a
    /// position that waits for the columns of an earlier one could hold the connection which that
    /// one waits for.
    pub async fn turn(&self, position: usize) -> Turn {
        let mut watched = self.started.subscribe();
        // Cannot fail: `self` holds the sender.
        let _ = watched.wait_for(|started| *started >= position).await;
        Turn { position, started: Arc::clone(&self.started) }
    }

    /// Returns the writer of a position, counted from 0. Positions must start in their order, and
    /// each of them must end.
    pub fn of(&self, position: usize) -> ResultWriter {
        ResultWriter {
            position,
            agreement: Arc::clone(&self.agreement),
            sender: self.sender.clone(),
            rows: Vec::new(),
            bytes: 0,
            has_columns: false,
            ended: false,
        }
    }
}

impl ResultWriter {
    /// Sets the columns of the rows. Waits until every earlier position has set its columns or
    /// ended, so that the columns of the result are those of the first position, not of the fastest.
    ///
    /// # Errors
    ///
    /// The columns of the result, where their names differ.
    pub async fn columns(&mut self, columns: Vec<Column>) -> Result<(), Arc<[Column]>> {
        let mut watched = self.agreement.subscribe();
        let position = self.position;
        // Cannot fail: `self` holds the sender.
        let _ = watched
            .wait_for(|agreement| agreement.columns.is_some() || agreement.next == position)
            .await;
        let columns: Arc<[Column]> = columns.into();
        let mut agreed = Arc::clone(&columns);
        self.agreement.send_if_modified(|agreement| {
            if let Some(columns) = &agreement.columns {
                agreed = Arc::clone(columns);
                return false;
            }
            agreement.columns = Some(Arc::clone(&columns));
            true
        });
        let same = agreed.len() == columns.len()
            && agreed.iter().zip(columns.iter()).all(|(a, b)| a.name == b.name);
        if same {
            self.has_columns = true;
            Ok(())
        } else {
            Err(agreed)
        }
    }

    /// Adds a row. Waits while the channel is full.
    pub async fn row(&mut self, row: Vec<Value>) {
        self.bytes += row.iter().flatten().map(String::len).sum::<usize>();
        self.rows.push(row);
        if self.rows.len() >= ROWS || self.bytes >= BYTES {
            self.flush().await;
        }
    }

    /// Ends the position: its rows become part of the result.
    pub async fn end(mut self) {
        self.flush().await;
        self.ended = self.sender.send(Message::End(self.position, true)).await.is_ok();
    }

    async fn flush(&mut self) {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        if !rows.is_empty() {
            // The reader ended, and with it the run.
            let _ = self.sender.send(Message::Rows(self.position, rows)).await;
        }
    }
}

impl Drop for ResultWriter {
    fn drop(&mut self) {
        let position = self.position;
        if !self.has_columns {
            self.agreement.send_if_modified(|agreement| {
                agreement.without.insert(position);
                while agreement.without.remove(&agreement.next) {
                    agreement.next += 1;
                }
                true
            });
        }
        if !self.ended {
            let sender = self.sender.clone();
            if let Err(mpsc::error::TrySendError::Full(piece)) =
                sender.try_send(Message::End(position, false))
                && let Ok(runtime) = tokio::runtime::Handle::try_current()
            {
                runtime.spawn(async move {
                    let _ = sender.send(piece).await;
                });
            }
        }
    }
}

impl ResultReader {
    /// Receives until every writer is dropped, and passes the rows of each position to `take`, in
    /// order, once the position has ended successfully. Returns the columns, if there are any.
    ///
    /// Blocks the thread. Memory is bounded: beyond a few megabytes, rows that wait for an earlier
    /// position are stored in a temporary file.
    ///
    /// # Errors
    ///
    /// Those of `take` and of the temporary file.
    pub fn run(
        mut self,
        mut take: impl FnMut(&[Column], usize, Vec<Value>) -> io::Result<()>,
    ) -> io::Result<Option<Arc<[Column]>>> {
        while let Some(piece) = self.receiver.blocking_recv() {
            match piece {
                Message::Rows(position, rows) => {
                    let bytes = serde_json::to_vec(&rows)?;
                    let chunk = self.store(bytes)?;
                    self.waiting.entry(position).or_default().chunks.push(chunk);
                }
                Message::End(position, well) => {
                    let waiting = self.waiting.entry(position).or_default();
                    waiting.ended = Some(well);
                }
            }
            while let Some(waiting) = self.waiting.get(&self.next)
                && waiting.ended.is_some()
            {
                let position = self.next;
                self.next += 1;
                self.give(position, &mut take)?;
            }
        }
        // A run that ended early leaves gaps.
        while let Some((&position, _)) = self.waiting.first_key_value() {
            self.give(position, &mut take)?;
        }
        Ok(self.agreement.borrow().columns.clone())
    }

    fn store(&mut self, bytes: Vec<u8>) -> io::Result<StoredRows> {
        if self.kept + bytes.len() <= KEPT {
            self.kept += bytes.len();
            return Ok(StoredRows::Kept(bytes));
        }
        let file = match &mut self.spilled {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        let at = file.seek(SeekFrom::End(0))?;
        file.write_all(&bytes)?;
        Ok(StoredRows::Spilled(at, bytes.len()))
    }

    fn give(
        &mut self,
        position: usize,
        take: &mut impl FnMut(&[Column], usize, Vec<Value>) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(waiting) = self.waiting.remove(&position) else {
            return Ok(());
        };
        let columns = self.agreement.borrow().columns.clone().unwrap_or_default();
        for chunk in waiting.chunks {
            let bytes = match chunk {
                StoredRows::Kept(bytes) => {
                    self.kept -= bytes.len();
                    bytes
                }
                StoredRows::Spilled(at, length) => {
                    let mut bytes = vec![0; length];
                    if let Some(file) = &mut self.spilled {
                        file.seek(SeekFrom::Start(at))?;
                        file.read_exact(&mut bytes)?;
                    }
                    bytes
                }
            };
            if waiting.ended != Some(true) {
                continue;
            }
            let rows: Vec<Vec<Value>> = serde_json::from_slice(&bytes)?;
            for row in rows {
                take(&columns, position, row)?;
            }
        }
        if self.waiting.is_empty() {
            // No position refers to the file any more.
            self.spilled = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str) -> Vec<Column> {
        vec![Column { name: name.to_owned(), kind: ColumnType::Text }]
    }

    fn read(reader: ResultReader) -> tokio::task::JoinHandle<Vec<(usize, Value)>> {
        tokio::task::spawn_blocking(move || {
            let mut rows = Vec::new();
            reader
                .run(|_, position, mut row| {
                    rows.push((position, row.swap_remove(0)));
                    Ok(())
                })
                .unwrap();
            rows
        })
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_are_ordered_and_unfinished_positions_discarded() {
        let (writers, reader) = ordered_results();
        let reading = read(reader);
        let (mut first, mut second, mut third) = (writers.of(0), writers.of(1), writers.of(2));
        drop(writers);
        first.columns(column("a")).await.unwrap();
        third.columns(column("a")).await.unwrap();
        third.row(vec![None]).await;
        third.end().await;
        second.columns(column("a")).await.unwrap();
        second.row(vec![Some("lost".into())]).await;
        drop(second);
        for number in 0..ROWS * 2 {
            first.row(vec![Some(number.to_string())]).await;
        }
        first.end().await;
        let rows = reading.await.unwrap();
        assert_eq!(rows.len(), ROWS * 2 + 1);
        assert_eq!(rows[1], (0, Some("1".to_owned())));
        assert_eq!(rows[ROWS * 2], (2, None));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_columns_are_those_of_the_first_position_not_the_fastest() {
        let (writers, reader) = ordered_results();
        let reading = read(reader);
        let (first, mut second, mut third) = (writers.of(0), writers.of(1), writers.of(2));
        drop(writers);
        let late = tokio::spawn(async move { third.columns(column("b")).await });
        tokio::task::yield_now().await;
        drop(first);
        second.columns(column("a")).await.unwrap();
        assert_eq!(late.await.unwrap().unwrap_err()[0].name, "a");
        drop(second);
        assert!(reading.await.unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_that_wait_for_a_slow_position_are_kept_in_a_file() {
        let (writers, reader) = ordered_results();
        let reading = read(reader);
        let (mut first, mut second) = (writers.of(0), writers.of(1));
        drop(writers);
        first.columns(column("a")).await.unwrap();
        second.columns(column("a")).await.unwrap();
        let long = "ế".repeat(100_000);
        let many = 2 * KEPT / long.len();
        for _ in 0..many {
            second.row(vec![Some(long.clone())]).await;
        }
        second.end().await;
        first.row(vec![Some(String::new())]).await;
        first.end().await;
        let rows = reading.await.unwrap();
        assert_eq!(rows[0], (0, Some(String::new())));
        assert_eq!(rows.len(), many + 1);
        assert!(
            rows[1..].iter().all(|(position, row)| *position == 1 && row.as_deref() == Some(&long))
        );
    }
}
