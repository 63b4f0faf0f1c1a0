//! Ctrl-C, SIGTERM and SIGHUP.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Exit, Failure};
use crate::service::event::{EventKind, Interrupt, Progress};
use crate::service::fleet::{Interrupter, Interrupts};

/// Awaits work while each signal raises the level of interruption.
///
/// # Errors
///
/// Exit 130 for the third signal, which abandons the work.
pub(crate) async fn interruptible<T>(
    work: impl Future<Output = T>,
    interrupter: Interrupter,
    progress: Progress,
) -> Result<T, Failure> {
    // A task of its own, so that the work's wake-ups do not poll the signals.
    let signals = tokio::spawn(async move {
        let mut signals = Signals::listen()?;
        loop {
            signals.next().await;
            if interrupter.level() == Interrupt::Cancel {
                return Ok::<(), io::Error>(());
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
            "interrupted three times; the server rolls back running transactions",
        )
    })
}

/// A change that the first signal cancels.
pub(crate) struct Cancellation {
    signals: Signals,
    interrupter: Interrupter,
    pub(crate) interrupts: Interrupts,
}

impl Cancellation {
    /// Starts to catch the signals.
    pub(crate) fn listen() -> io::Result<Self> {
        let (interrupter, interrupts) = Interrupts::new();
        Ok(Self { signals: Signals::listen()?, interrupter, interrupts })
    }

    /// Awaits work, and raises the level to [`Interrupt::Cancel`] at the first signal: the work cancels
    /// what the server runs, and ends.
    ///
    /// # Errors
    ///
    /// Exit 130 for the second signal, which abandons the work.
    pub(crate) async fn run<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            done = &mut work => return Ok(done),
            () = self.signals.next() => {}
        }
        while self.interrupter.raise() < Interrupt::Cancel {}
        tokio::select! {
            done = &mut work => Ok(done),
            () = self.signals.next() => Err(Failure::interrupted()),
        }
    }
}

/// The three signals, which mean the same.
pub(crate) struct Signals([Signal; 3]);

impl Signals {
    /// Starts to catch the signals.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
