//! The task that shows a run.

use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use super::app::App;
use crate::service::event::Event;
use crate::service::summary::Summary;
use crate::ui::{ProgressMode, Reporter};

/// The reporter of a run, at work in a thread of its own.
pub(crate) struct Watch {
    showing: JoinHandle<(Box<dyn Reporter + Send>, bool)>,
}

impl Watch {
    /// Begins to show what comes.
    pub(crate) fn begin(
        app: &App,
        mode: ProgressMode,
        mut events: UnboundedReceiver<Event>,
    ) -> Self {
        let mut reporter = app.terminal.reporter(mode);
        let (sender, gathered) = mpsc::channel();
        tokio::spawn(async move {
            while let Some(events) = gather(&mut events).await {
                // The thread ends only after this task.
                let _ = sender.send(events);
            }
        });
        let showing = tokio::task::spawn_blocking(move || {
            let mut readable = true;
            for event in gathered.into_iter().flatten() {
                // Nobody reads any more; the run goes on all the same.
                readable = readable && reporter.on(&event).is_ok();
            }
            (reporter, readable)
        });
        Self { showing }
    }

    /// Waits until every sender of events is gone and everything is shown.
    pub(crate) async fn shown(self) -> Shown {
        match self.showing.await {
            Ok((reporter, true)) => Shown(Some(reporter)),
            _ => Shown(None),
        }
    }

    /// The same, and shows how the run ended.
    pub(crate) async fn finish(self, summary: &Summary) {
        self.shown().await.finish(summary);
    }
}

/// Waits for an event and returns it with those that follow within a moment, because waking a thread
/// for each costs as much as the work that it tells of; nothing when every sender is gone.
async fn gather(events: &mut UnboundedReceiver<Event>) -> Option<Vec<Event>> {
    const MOMENT: Duration = Duration::from_millis(10);
    let mut gathered = vec![events.recv().await?];
    let mut moment = std::pin::pin!(tokio::time::sleep(MOMENT));
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => gathered.push(event),
                None => return Some(gathered),
            },
            () = &mut moment => return Some(gathered),
        }
    }
}

/// The reporter of a run that is over, where somebody still reads.
pub(crate) struct Shown(Option<Box<dyn Reporter + Send>>);

impl Shown {
    /// Shows how the run ended.
    pub(crate) fn finish(self, summary: &Summary) {
        if let Some(mut reporter) = self.0 {
            // Nobody may read any more.
            let _ = reporter.finish(summary);
        }
    }
}
