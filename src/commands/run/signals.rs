//! Ctrl-C, SIGTERM and SIGHUP.

use crate::error::{Exit, Failure};
use crate::service::event::{EventKind, Interrupt, Progress};
use crate::service::fleet::Interrupter;

/// Does work until it is done, while signals raise the level of interruption.
///
/// # Errors
///
/// Exit 130 for the third signal, which ends the work where it is.
pub(crate) async fn interruptible<T>(
    work: impl Future<Output = T>,
    interrupter: Interrupter,
    progress: Progress,
) -> Result<T, Failure> {
    let signals = tokio::spawn(async move {
        let mut presses = Presses::listen()?;
        loop {
            presses.next().await;
            if interrupter.level() == Interrupt::Cancel {
                // A third press: whoever presses has no time left. The server rolls back what is open.
                return Ok::<(), std::io::Error>(());
            }
            let level = interrupter.raise();
            progress.send(EventKind::Interrupted { level });
        }
    });
    let abort = signals.abort_handle();
    let done = tokio::select! {
        done = work => Some(done),
        _ = signals => None,
    };
    abort.abort();
    done.ok_or_else(|| {
        Failure::words(
            Exit::Interrupted,
            "interrupted three times; running transactions are rolled back by the server",
        )
    })
}

/// Ctrl-C, SIGTERM and SIGHUP, which mean the same.
pub(crate) struct Presses {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 3],
}

impl Presses {
    #[cfg(unix)]
    pub(crate) fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            signals: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
        })
    }

    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
