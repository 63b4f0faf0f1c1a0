//! Backups in files: written and read on threads of their own, beside the connection.

use crate::postgres::connection::options::EngineOptions;
use std::path::Path;
use std::sync::Mutex;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::dump::{Source, dump};
use super::restore::{Destination, Restored};
use super::{BackupError, CHANNEL_CAPACITY};
use crate::archive::{ArchiveError, ArchivePart, ArchiveReader, ArchiveWriter, WrittenArchive};
use crate::postgres::tenants::catalog::PostgresCatalog;

type Writing = JoinHandle<Result<WrittenArchive, ArchiveError>>;

/// Backs a tenant up into a file. The file has its name once it is whole and on the disk.
///
/// # Errors
///
/// [`BackupError`]; there is no file then.
pub async fn back_up(source: &Source<'_>, path: &Path) -> Result<WrittenArchive, BackupError> {
    let writing: Mutex<Option<Writing>> = Mutex::new(None);
    let dumped = dump(source, source.catalog.progress(), async |header| {
        let (to, mut parts) = mpsc::channel::<Result<ArchivePart, ArchiveError>>(CHANNEL_CAPACITY);
        let path = path.to_owned();
        let task = spawn_blocking(move || {
            // What the disk says about writing is never damage.
            let mut writer = ArchiveWriter::create(&path, &header).map_err(ArchiveError::Io)?;
            while let Some(piece) = parts.blocking_recv() {
                match piece? {
                    ArchivePart::End(ending) => {
                        return writer.finish(ending).map_err(ArchiveError::Io);
                    }
                    piece => writer.write(&piece).map_err(ArchiveError::Io)?,
                }
            }
            Err(ArchiveError::Damaged("it is truncated".to_owned()))
        });
        if let Ok(mut place) = writing.lock() {
            *place = Some(task);
        }
        Ok(to)
    })
    .await;
    let task = writing.into_inner().ok().flatten();
    match (dumped, task) {
        (Ok(()), Some(task)) => Ok(ended(task).await?),
        (Err(BackupError::Archive(error)), Some(task)) => {
            // Whoever wrote failed first, and knows why.
            Err(ended(task).await.err().unwrap_or(error).into())
        }
        (Err(error), _) => Err(error),
        (Ok(()), None) => Err(BackupError::TenantMissing),
    }
}

async fn ended(task: Writing) -> Result<WrittenArchive, ArchiveError> {
    match task.await {
        Ok(written) => written,
        Err(error) => Err(ArchiveError::Io(std::io::Error::other(error))),
    }
}

impl PostgresCatalog {
    /// Restores a tenant from a file that was opened.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; nothing is left then.
    pub async fn restore_file(
        &self,
        mut file: ArchiveReader,
        destination: &Destination,
        options: &EngineOptions,
    ) -> Result<Restored, BackupError> {
        let header = file.header().clone();
        let (to, parts) = mpsc::channel(CHANNEL_CAPACITY);
        // It ends when the file does, or when nobody takes its parts any more.
        let _reading = spawn_blocking(move || {
            loop {
                let piece = file.next_part().transpose();
                let is_last = !matches!(piece, Some(Ok(_)));
                if let Some(piece) = piece
                    && to.blocking_send(piece).is_err()
                {
                    return;
                }
                if is_last {
                    return;
                }
            }
        });
        self.restore_backup(&header, destination, parts, options)
            .await
    }
}
