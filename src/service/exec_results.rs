//! Many results as one: in the order of the tenants, each whole, all with the same columns.

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
    /// What its texts are.
    pub kind: Kind,
}

/// What the texts of a column are, as far as anybody asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Text, or not known.
    #[default]
    Text,
    /// Numbers, `NaN` and `Infinity` among them.
    Number,
    /// `t` or `f`.
    Flag,
    /// JSON.
    Json,
}

/// So many rows, or bytes of values, are handed over together.
const ROWS: usize = 500;
const BYTES: usize = 64 << 10;
/// So many bytes wait in memory for their turn; what is more waits in a file.
const KEPT: usize = 8 << 20;
/// So many chunks are on their way at once.
const UNDER_WAY: usize = 16;

/// Where one position's rows go. Dropped without [`Share::end`], the rows are forgotten.
#[derive(Debug)]
pub struct Share {
    position: usize,
    heads: Arc<watch::Sender<Heads>>,
    sender: mpsc::Sender<Piece>,
    rows: Vec<Vec<Value>>,
    bytes: usize,
    has_columns: bool,
    ended: bool,
}

/// What is known about the columns: those of the first position that has any.
#[derive(Debug, Default)]
struct Heads {
    columns: Option<Arc<[Column]>>,
    /// Every position before this one has ended without columns.
    next: usize,
    without: BTreeSet<usize>,
}

#[derive(Debug)]
enum Piece {
    Rows(usize, Vec<Vec<Value>>),
    End(usize, bool),
}

/// The results that are to be merged, handed out by position.
#[derive(Clone, Debug)]
pub struct Shares {
    heads: Arc<watch::Sender<Heads>>,
    sender: mpsc::Sender<Piece>,
    /// How many positions have taken what they need to begin.
    entered: Arc<watch::Sender<usize>>,
}

/// A position's turn to take what it needs; the next one's comes when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Entrance {
    position: usize,
    entered: Arc<watch::Sender<usize>>,
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.entered
            .send_modify(|entered| *entered = self.position + 1);
    }
}

/// The other end: reads what the shares bring, in their order.
#[derive(Debug)]
pub struct Merge {
    heads: watch::Receiver<Heads>,
    receiver: mpsc::Receiver<Piece>,
    waiting: BTreeMap<usize, Waiting>,
    next: usize,
    kept: usize,
    spilled: Option<File>,
}

/// What a position has brought so far.
#[derive(Debug, Default)]
struct Waiting {
    chunks: Vec<Chunk>,
    ended: Option<bool>,
}

#[derive(Debug)]
enum Chunk {
    Kept(Vec<u8>),
    /// Offset and length in the file.
    Spilled(u64, usize),
}

/// Returns both ends.
#[must_use]
pub fn merge() -> (Shares, Merge) {
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    let (heads, watched) = watch::channel(Heads::default());
    let shares = Shares {
        heads: Arc::new(heads),
        sender,
        entered: Arc::new(watch::channel(0).0),
    };
    let merge = Merge {
        heads: watched,
        receiver,
        waiting: BTreeMap::new(),
        next: 0,
        kept: 0,
        spilled: None,
    };
    (shares, merge)
}

impl Shares {
    /// Waits until every position before this one has taken what it needs to begin. Who waits for
    /// the columns of an earlier position must not hold what that one is still waiting for.
    pub async fn enter(&self, position: usize) -> Entrance {
        let mut watched = self.entered.subscribe();
        // The sender is in our own hands, so it is there.
        let _ = watched.wait_for(|entered| *entered >= position).await;
        Entrance {
            position,
            entered: Arc::clone(&self.entered),
        }
    }

    /// Returns the share of a position, counted from 0. Positions have to begin in their order,
    /// and each of them has to end.
    #[must_use]
    pub fn of(&self, position: usize) -> Share {
        Share {
            position,
            heads: Arc::clone(&self.heads),
            sender: self.sender.clone(),
            rows: Vec::new(),
            bytes: 0,
            has_columns: false,
            ended: false,
        }
    }
}

impl Share {
    /// Says which columns the rows have, and waits until all positions before this one have
    /// said theirs or ended, so that the first one's are everybody's whoever was faster.
    ///
    /// # Errors
    ///
    /// The columns that the result has, where they have other names.
    pub async fn columns(&mut self, columns: Vec<Column>) -> Result<(), Arc<[Column]>> {
        let mut watched = self.heads.subscribe();
        let position = self.position;
        // The sender is in our own hands, so it is there.
        let _ = watched
            .wait_for(|heads| heads.columns.is_some() || heads.next == position)
            .await;
        let columns: Arc<[Column]> = columns.into();
        let mut agreed = Arc::clone(&columns);
        self.heads.send_if_modified(|heads| {
            if let Some(first) = &heads.columns {
                agreed = Arc::clone(first);
                return false;
            }
            heads.columns = Some(Arc::clone(&columns));
            true
        });
        let same = agreed.len() == columns.len()
            && agreed
                .iter()
                .zip(columns.iter())
                .all(|(a, b)| a.name == b.name);
        if same {
            self.has_columns = true;
            Ok(())
        } else {
            Err(agreed)
        }
    }

    /// Adds a row. Waits while more is on its way than can be taken.
    pub async fn row(&mut self, row: Vec<Value>) {
        self.bytes += row.iter().flatten().map(String::len).sum::<usize>();
        self.rows.push(row);
        if self.rows.len() >= ROWS || self.bytes >= BYTES {
            self.hand_over().await;
        }
    }

    /// Ends the share: its rows belong to the result.
    pub async fn end(mut self) {
        self.hand_over().await;
        self.ended = self
            .sender
            .send(Piece::End(self.position, true))
            .await
            .is_ok();
    }

    async fn hand_over(&mut self) {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        if !rows.is_empty() {
            // Nobody reads any more: whoever reads has ended the run.
            let _ = self.sender.send(Piece::Rows(self.position, rows)).await;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let position = self.position;
        if !self.has_columns {
            self.heads.send_if_modified(|heads| {
                heads.without.insert(position);
                while heads.without.remove(&heads.next) {
                    heads.next += 1;
                }
                true
            });
        }
        if !self.ended {
            let sender = self.sender.clone();
            if let Err(mpsc::error::TrySendError::Full(piece)) =
                sender.try_send(Piece::End(position, false))
                && let Ok(runtime) = tokio::runtime::Handle::try_current()
            {
                runtime.spawn(async move {
                    let _ = sender.send(piece).await;
                });
            }
        }
    }
}

impl Merge {
    /// Reads to the end, and gives the rows of each position to `take`, in order, and only
    /// once the position has ended well. `take` gets the columns first, with the first row;
    /// the columns are returned as well, if there were any.
    ///
    /// Blocks: call it on a thread that may. Memory stays bounded whatever the size: what
    /// cannot be given yet waits in a temporary file beyond a few megabytes.
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
                Piece::Rows(position, rows) => {
                    let bytes = serde_json::to_vec(&rows)?;
                    let chunk = self.store(bytes)?;
                    self.waiting.entry(position).or_default().chunks.push(chunk);
                }
                Piece::End(position, well) => {
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
        // A run that ended early has gaps.
        while let Some((&position, _)) = self.waiting.first_key_value() {
            self.give(position, &mut take)?;
        }
        Ok(self.heads.borrow().columns.clone())
    }

    fn store(&mut self, bytes: Vec<u8>) -> io::Result<Chunk> {
        if self.kept + bytes.len() <= KEPT {
            self.kept += bytes.len();
            return Ok(Chunk::Kept(bytes));
        }
        let file = match &mut self.spilled {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        let at = file.seek(SeekFrom::End(0))?;
        file.write_all(&bytes)?;
        Ok(Chunk::Spilled(at, bytes.len()))
    }

    fn give(
        &mut self,
        position: usize,
        take: &mut impl FnMut(&[Column], usize, Vec<Value>) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(waiting) = self.waiting.remove(&position) else {
            return Ok(());
        };
        let columns = self.heads.borrow().columns.clone().unwrap_or_default();
        for chunk in waiting.chunks {
            let bytes = match chunk {
                Chunk::Kept(bytes) => {
                    self.kept -= bytes.len();
                    bytes
                }
                Chunk::Spilled(at, length) => {
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
            // Nobody waits, so nothing in the file is wanted any more.
            self.spilled = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str) -> Vec<Column> {
        vec![Column {
            name: name.to_owned(),
            kind: Kind::Text,
        }]
    }

    fn read(merge: Merge) -> tokio::task::JoinHandle<Vec<(usize, Value)>> {
        tokio::task::spawn_blocking(move || {
            let mut rows = Vec::new();
            merge
                .run(|_, position, mut row| {
                    rows.push((position, row.swap_remove(0)));
                    Ok(())
                })
                .unwrap();
            rows
        })
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_come_in_the_order_of_positions_and_only_of_those_that_ended_well() {
        let (shares, merge) = merge();
        let reading = read(merge);
        let (mut first, mut second, mut third) = (shares.of(0), shares.of(1), shares.of(2));
        drop(shares);
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
    async fn the_columns_are_those_of_the_first_position_that_has_any_whoever_is_faster() {
        let (shares, merge) = merge();
        let reading = read(merge);
        let (first, mut second, mut third) = (shares.of(0), shares.of(1), shares.of(2));
        drop(shares);
        let late = tokio::spawn(async move { third.columns(column("b")).await });
        tokio::task::yield_now().await;
        drop(first);
        second.columns(column("a")).await.unwrap();
        assert_eq!(late.await.unwrap().unwrap_err()[0].name, "a");
        drop(second);
        assert!(reading.await.unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_waits_for_a_slow_one_goes_to_a_file_and_comes_back() {
        let (shares, merge) = merge();
        let reading = read(merge);
        let (mut first, mut second) = (shares.of(0), shares.of(1));
        drop(shares);
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
            rows[1..]
                .iter()
                .all(|(position, row)| *position == 1 && row.as_deref() == Some(&long))
        );
    }
}
