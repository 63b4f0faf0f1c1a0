//! Writes backups into files and restores them. A blocking task does the file I/O.

use std::path::Path;
use std::sync::Mutex;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::dump::{Source, dump};
use super::restore::{Destination, Restored};
use super::{BackupError, CHANNEL_CAPACITY, PartReceiver, PartSender};
use crate::archive::{ArchiveError, ArchivePart, ArchiveReader, ArchiveWriter, WrittenArchive};
use crate::postgres::tenants::admin::TenantAdmin;

type WriterTask = JoinHandle<Result<WrittenArchive, ArchiveError>>;

/// Backs up a tenant into a file, which gets its name when it is complete and synced.
///
/// # Errors
///
/// [`BackupError`]; there is no file then.
pub async fn back_up(source: &Source<'_>, path: &Path) -> Result<WrittenArchive, BackupError> {
    let writer: Mutex<Option<WriterTask>> = Mutex::new(None);
    let dumped = dump(source, &source.admin.progress, async |header| {
        let (sender, mut parts): (PartSender, PartReceiver) = mpsc::channel(CHANNEL_CAPACITY);
        let path = path.to_owned();
        let task = spawn_blocking(move || {
            let mut writer = ArchiveWriter::create(&path, &header).map_err(ArchiveError::Io)?;
            while let Some(part) = parts.blocking_recv() {
                match part? {
                    ArchivePart::End(ending) => {
                        return writer.finish(ending).map_err(ArchiveError::Io);
                    }
                    part => writer.write(&part).map_err(ArchiveError::Io)?,
                }
            }
            Err(ArchiveError::Damaged("it is truncated".to_owned()))
        });
        if let Ok(mut writer) = writer.lock() {
            *writer = Some(task);
        }
        Ok(sender)
    })
    .await;
    let task = writer.into_inner().ok().flatten();
    match (dumped, task) {
        (Ok(()), Some(task)) => Ok(join(task).await?),
        (Err(BackupError::Archive(error)), Some(task)) => {
            // The writer failed first and has the cause.
            Err(join(task).await.err().unwrap_or(error).into())
        }
        (Err(error), task) => {
            // The writer removes the file that it started.
            if let Some(task) = task {
                let _ = join(task).await;
            }
            Err(error)
        }
        (Ok(()), None) => Err(BackupError::TenantMissing),
    }
}

async fn join(task: WriterTask) -> Result<WrittenArchive, ArchiveError> {
    match task.await {
        Ok(written) => written,
        Err(error) => Err(ArchiveError::Io(std::io::Error::other(error))),
    }
}

impl TenantAdmin {
    /// Restores a tenant from an opened file.
    pub async fn restore_file(
        &self,
        mut file: ArchiveReader,
        destination: &Destination,
    ) -> Result<Restored, BackupError> {
        let header = file.header().clone();
        let (sender, parts) = mpsc::channel(CHANNEL_CAPACITY);
        // Ends at the end of the file, or when the receiver is dropped.
        let _reader = spawn_blocking(move || {
            loop {
                let part = file.next_part().transpose();
                let is_last = !matches!(part, Some(Ok(_)));
                if let Some(part) = part
                    && sender.blocking_send(part).is_err()
                {
                    return;
                }
                if is_last {
                    return;
                }
            }
        });
        self.restore_backup(&header, destination, parts).await
    }
}
