//! The task between the workers of a run and its reporter.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use super::app::App;
use super::recorder::Recorder;
use crate::service::event::{Event, Progress};
use crate::service::summary::Summary;
use crate::ui::{ProgressMode, Reporter, Terminal};

/// Minimum time between two wake-ups of the reporter's thread. Waking it for each event would cost
/// as much as migrating a small schema.
const WAKE_INTERVAL: Duration = Duration::from_millis(10);

/// Reads the events of a run on a thread of its own; owns the reporter and the recorder.
pub(crate) struct ReporterTask {
    task: JoinHandle<Option<Consumers>>,
    /// Dropping it ends the wait between two batches of events.
    finishing: Sender<()>,
    terminal: Terminal,
}

/// What gets each event.
struct Consumers {
    /// `None` once stderr is closed; the run goes on without it.
    reporter: Option<Box<dyn Reporter + Send>>,
    /// `None` for a run that is not stored.
    recorder: Option<Recorder>,
}

impl ReporterTask {
    /// Starts the task, and returns it with the channel that the workers send to.
    pub(crate) fn start(
        app: &App,
        mode: ProgressMode,
        recorder: Option<Recorder>,
    ) -> (Self, Progress) {
        let (progress, events) = Progress::channel();
        let (finishing, waiting) = channel();
        let consumers = Consumers { reporter: Some(app.terminal.reporter(mode)), recorder };
        let runtime = Handle::current();
        let task = tokio::task::spawn_blocking(move || {
            Some(runtime.block_on(consumers.read(events, &waiting)))
        });
        let task = Self { task, finishing, terminal: app.terminal.clone() };
        (task, progress)
    }

    /// Waits until each event has been shown. Every [`Progress`] must have been dropped.
    pub(crate) async fn shown(self) -> Shown {
        drop(self.finishing);
        Shown { consumers: self.task.await.ok().flatten(), terminal: self.terminal }
    }

    /// Waits until each event has been shown, then stores and shows how the run ended.
    pub(crate) async fn finish(self, summary: &mut Summary) {
        self.shown().await.finish(summary).await;
    }
}

impl Consumers {
    /// Reads events until the last sender is gone.
    async fn read(mut self, mut events: UnboundedReceiver<Event>, waiting: &Receiver<()>) -> Self {
        while let Some(event) = events.recv().await {
            self.take(&event).await;
            // Blocks this thread, which has nothing else to do.
            let _ = waiting.recv_timeout(WAKE_INTERVAL);
            while let Ok(event) = events.try_recv() {
                self.take(&event).await;
            }
        }
        self
    }

    async fn take(&mut self, event: &Event) {
        if let Some(recorder) = &mut self.recorder {
            recorder.on(event).await;
        }
        self.reporter.take_if(|reporter| reporter.on(event).is_err());
    }
}

/// A run whose events have all been shown.
pub(crate) struct Shown {
    consumers: Option<Consumers>,
    terminal: Terminal,
}

impl Shown {
    /// Stores how the run ended, adds its number to the summary, and shows the summary.
    pub(crate) async fn finish(self, summary: &mut Summary) {
        let Some(Consumers { reporter, recorder }) = self.consumers else {
            return;
        };
        let mut gap = None;
        if let Some(recorder) = recorder {
            (summary.run, gap) = recorder.finish(summary).await;
        }
        if let Some(mut reporter) = reporter {
            // stderr may be closed.
            let _ = reporter.finish(summary);
        }
        if let Some(gap) = gap {
            self.terminal.warn(gap);
        }
    }
}
