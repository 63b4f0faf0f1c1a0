//! Bars: one for the run and a line for each schema in progress, below the lines that stay.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::service::event::{Event, EventKind};
use crate::service::summary::Summary;

use super::Reporter;
use super::log_format::{LogFormatter, LogLevel};
use super::progress_state::ProgressState;
use crate::ui::style::Style;
use crate::ui::text::columns;

/// How often a second the bars are drawn.
const HERTZ: u8 = 10;

/// Draws a run with indicatif.
///
/// All bars are one indicatif bar whose template reads the [`ProgressState`] when it is drawn, so an
/// event costs a change of state and no drawing.
#[derive(Debug)]
pub(in crate::ui) struct BarsReporter<W: Write> {
    bar: ProgressBar,
    state: Arc<Mutex<ProgressState>>,
    format: LogFormatter,
    out: W,
    /// Whether a bar is drawn; a run with nothing to do has none.
    is_drawn: bool,
    /// The interval of drawing; `None` in tests, which draw on request.
    tick: Option<Duration>,
}

impl BarsReporter<io::Stderr> {
    /// Returns bars on stderr, which must be a terminal.
    /// `window` returns the columns that the terminal has now.
    pub(in crate::ui) fn on_stderr(
        level: LogLevel,
        style: Style,
        program: &str,
        window: impl Fn() -> usize + Clone + Send + Sync + 'static,
    ) -> Self {
        let width = window();
        let mut bars = Self::new(
            ProgressDrawTarget::stderr_with_hz(HERTZ),
            io::stderr(),
            window,
            LogFormatter::new(above_bars(level), style, width, program),
            style,
        );
        bars.tick = Some(Duration::from_millis(1000 / u64::from(HERTZ)));
        bars
    }
}

impl<W: Write> BarsReporter<W> {
    fn new(
        target: ProgressDrawTarget,
        out: W,
        width: impl Fn() -> usize + Clone + Send + Sync + 'static,
        format: LogFormatter,
        style: Style,
    ) -> Self {
        let state = Arc::new(Mutex::new(ProgressState::default()));
        let bar = ProgressBar::with_draw_target(Some(0), target);
        bar.set_style(template(&state, width, style));
        Self { bar, state, format, out, is_drawn: false, tick: None }
    }

    fn clear(&mut self) {
        if self.is_drawn {
            self.is_drawn = false;
            self.bar.finish_and_clear();
        }
    }

    /// Writes above the bars. Not through indicatif, which ignores write errors.
    fn above(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let out = &mut self.out;
        let mut write = || {
            out.write_all(text.as_bytes())?;
            out.flush()
        };
        // Suspending draws the bar again, even one that was never drawn.
        if self.is_drawn { self.bar.suspend(write) } else { write() }
    }
}

impl<W: Write> Reporter for BarsReporter<W> {
    fn on(&mut self, event: &Event) -> io::Result<()> {
        // Lock order: the drawing thread locks the bar, then the state.
        let (finished, done, total) = {
            let mut state = lock(&self.state);
            (state.record(event, Instant::now()), state.done, state.total)
        };
        if let EventKind::TenantsFound { .. } = event.kind {
            self.bar.set_length(total as u64);
        }
        if let EventKind::RunStarted { pending: 1.., .. } = event.kind {
            self.is_drawn = true;
            self.bar.set_length(total as u64);
            self.bar.reset_elapsed();
            if let Some(tick) = self.tick {
                self.bar.enable_steady_tick(tick);
            }
        }
        if finished && self.is_drawn {
            self.bar.set_length(total as u64);
            self.bar.set_position(done as u64);
        }
        let text = self.format.event(event);
        self.above(&text)
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        self.clear();
        let text = self.format.finish(summary);
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Drop for BarsReporter<W> {
    fn drop(&mut self) {
        // The error that ended the run must not follow half a bar.
        self.clear();
    }
}

/// Returns the level for the lines above the bars, which show progress themselves.
fn above_bars(level: LogLevel) -> LogLevel {
    match level {
        LogLevel::Progress => LogLevel::Warnings,
        other => other,
    }
}

fn template(
    state: &Arc<Mutex<ProgressState>>,
    width: impl Fn() -> usize + Clone + Send + Sync + 'static,
    style: Style,
) -> ProgressStyle {
    let (of_head, of_lines) = (Arc::clone(state), Arc::clone(state));
    let head_width = width.clone();
    ProgressStyle::with_template("{head}\n{running}")
        // Does not fail: the template above is a constant.
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("head", move |bar: &indicatif::ProgressState, out: &mut dyn fmt::Write| {
            let state = lock(&of_head);
            let _ = out.write_str(&head(&state, bar, head_width(), style));
        })
        .with_key("running", move |_: &indicatif::ProgressState, out: &mut dyn fmt::Write| {
            let lines = lock(&of_lines).lines(Instant::now(), width(), style);
            let _ = out.write_str(&lines);
        })
}

/// Returns the line of the whole run, most important first; what does not fit is left out.
fn head(
    state: &ProgressState,
    bar: &indicatif::ProgressState,
    width: usize,
    style: Style,
) -> String {
    // Of a single schema, its steps are counted.
    let (done, total) = match state.step {
        Some((number, of)) => (number.saturating_sub(1), of),
        None => (state.done, state.total),
    };
    let digits = total.to_string().len();
    let activity = match state.stage {
        Some((number, of)) => format!("stage {number} of {of}"),
        None => state.work.doing.to_owned(),
    };
    let mut line = format!("{activity}  {done:>digits$}/{total}");
    let mut used = columns(&line);

    let mut tail = Vec::new();
    if state.failed > 0 {
        tail.push((format!("{} failed", state.failed), true));
    }
    tail.push((clock(bar.elapsed()), false));
    // A rate that is shown as 0.0 would give an estimate of centuries.
    if bar.per_sec() >= 0.05 && state.done < state.total {
        tail.push((format!("{:.1}/s", bar.per_sec()), false));
        tail.push((format!("eta {}", clock(bar.eta())), false));
    }
    tail.retain(|(text, _)| {
        let fits = used + 2 + columns(text) <= width;
        used += if fits { 2 + columns(text) } else { 0 };
        fits
    });

    let room = width.saturating_sub(used + 2).min(40);
    if room >= 5 {
        line += "  ";
        line += &filled_bar(done, total, room, style);
    }
    for (text, bad) in tail {
        line += "  ";
        line += &if bad { style.bad(&text) } else { text };
    }
    line
}

fn filled_bar(done: usize, total: usize, width: usize, style: Style) -> String {
    let filled = (done * width).checked_div(total).unwrap_or(0).min(width);
    let (full, rest) = ("━".repeat(filled), "─".repeat(width - filled));
    format!("{}{}", style.good(&full), style.dim(&rest))
}

fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds / 3600 {
        0 => format!("{:02}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// Ignores poisoning: a panic is reported elsewhere, and the state stays readable.
fn lock(state: &Mutex<ProgressState>) -> MutexGuard<'_, ProgressState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::event::Outcome;
    use crate::ui::test_support::*;

    fn bars() -> (Screen, BarsReporter<Screen>) {
        let (screen, style, width) = (Screen::new(), Style::plain(), usize::from(WIDTH));
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        let format = LogFormatter::new(above_bars(LogLevel::Progress), style, width, "pricesync");
        let bars = BarsReporter::new(target, screen.clone(), move || width, format, style);
        (screen, bars)
    }

    /// Reports the events and returns what the terminal shows.
    fn drawn(bars: &mut BarsReporter<Screen>, screen: &Screen, events: &[Event]) -> String {
        report(bars, events);
        bars.bar.tick();
        screen.text()
    }

    #[test]
    fn at_most_eight_schemas_have_a_line() {
        let (screen, mut bars) = bars();
        let tenants: Vec<_> = (1..=14).map(|n| tenant(&format!("t{n}"))).collect();
        bars.on(&run_started(20, 20, 14)).unwrap();
        for (number, tenant) in tenants.iter().enumerate() {
            bars.on(&started(tenant, number + 1, 20)).unwrap();
        }
        for tenant in &tenants[..3] {
            bars.on(&finished(tenant, migrated(&[applied(1, "products", 9)]))).unwrap();
        }
        let script = script(8, "price_hiformat_index");
        let waiting =
            EventKind::WaitingForLock { holder: Some(holder()), waited: Duration::from_secs(12) };
        let text = drawn(
            &mut bars,
            &screen,
            &[of(&tenants[3], EventKind::ScriptStarted { script }), of(&tenants[4], waiting)],
        );
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("migrating   3/20  ━━"), "{text}");
        assert_eq!(lines[1], "  tenant_t4   V8__price_hiformat_index");
        assert_eq!(lines[2], "  tenant_t5   waiting for lock (held by pid 4121, 12 s)");
        assert_eq!(lines.len(), 10, "{text}");
        assert_eq!(lines[9], "  … 3 more");
    }

    #[test]
    fn a_missing_standby_is_shown_above_the_bars_too() {
        let (screen, mut bars) = bars();
        let acme = tenant("acme");
        let waiting = EventKind::WaitingForStandby { waited: Duration::from_secs(4) };
        let text = drawn(
            &mut bars,
            &screen,
            &[run_started(1, 1, 1), started(&acme, 1, 1), of(&acme, waiting)],
        );
        assert!(text.starts_with("tenant_acme: waiting for a standby, 4 s"));
        assert!(text.contains("  tenant_acme  waiting for a standby (4 s)"), "{text}");
    }

    #[test]
    fn failures_stay_above_the_bars_and_the_summary_is_last() {
        let (screen, mut bars) = bars();
        let (acme, globex) = (tenant("acme"), tenant("globex"));
        let good = migrated(&[applied(1, "products", 9)]);
        let text = drawn(
            &mut bars,
            &screen,
            &[
                run_started(3, 2, 2),
                started(&acme, 1, 2),
                started(&globex, 2, 2),
                finished(&globex, failed(missing_relation())),
            ],
        );
        assert!(text.starts_with("error: tenant_globex: V8__"), "{text}");
        assert!(text.contains("\nmigrating  1/2 "), "{text}");
        assert!(text.contains("  1 failed  00:0"), "{text}");
        assert!(text.ends_with("\n  tenant_acme"), "{text}");

        bars.on(&finished(&acme, good.clone())).unwrap();
        bars.finish(&summary(vec![
            (&public(), Outcome::UpToDate),
            (&acme, good),
            (&globex, failed(missing_relation())),
        ]))
        .unwrap();
        drop(bars);
        let text = screen.text();
        assert_eq!(text.matches("error: tenant_globex").count(), 1, "{text}");
        assert_eq!(text.matches("3 schemas: 1 migrated").count(), 1, "{text}");
        assert!(!text.contains("migrating"), "{text}");
        assert!(!text.contains("━"), "{text}");
    }

    #[test]
    fn the_bar_of_one_schema_counts_its_steps() {
        let (screen, mut bars) = bars();
        let acme = tenant("acme");
        let text = drawn(
            &mut bars,
            &screen,
            &[
                run(EventKind::RunStarted { work: RESTORE, schemas: 1, pending: 1, jobs: 1 }),
                started(&acme, 1, 1),
                of(&acme, step(4, "table products", 20_000)),
            ],
        );
        assert!(text.starts_with("restoring   3/12  ━━━"), "{text}");
        assert!(text.ends_with("\n  tenant_acme  table products, 20000 rows, 1953 KiB"), "{text}");
        bars.finish(&Summary {
            work: RESTORE,
            ..summary(vec![(&acme, failed(missing_relation()))])
        })
        .unwrap();
        drop(bars);
        assert_eq!(screen.text(), "");
    }

    #[test]
    fn one_of_many_schemas_shows_its_step_in_its_line() {
        let (screen, mut bars) = bars();
        let acme = tenant("acme");
        let text = drawn(
            &mut bars,
            &screen,
            &[run_started(3, 3, 2), started(&acme, 1, 3), of(&acme, step(4, "table products", 0))],
        );
        assert!(text.starts_with("migrating  0/3  "), "{text}");
        assert!(text.ends_with("\n  tenant_acme  4/12 table products"), "{text}");
    }

    #[test]
    fn names_longer_than_the_terminal_do_not_wrap() {
        let (screen, mut bars) = bars();
        let long = tenant(&"株式会社ế".repeat(3));
        let name = "a_name_that_goes_on_and_on_and_on_and_on_until_it_is_cut_off";
        let text = drawn(
            &mut bars,
            &screen,
            &[
                run_started(1, 1, 1),
                started(&long, 1, 1),
                of(&long, EventKind::ScriptStarted { script: script(20_261_123_101_500, name) }),
            ],
        );
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.ends_with('…'), "{text}");
    }

    #[test]
    fn a_run_with_nothing_to_do_draws_no_bar() {
        let (screen, mut bars) = bars();
        let acme = tenant("acme");
        let missing = failed(crate::service::failure::MigrateError::SchemaMissing);
        report(&mut bars, &[run_started(1, 0, 4), finished(&acme, missing)]);
        assert!(!screen.text().contains("migrating"), "{}", screen.text());
    }

    #[test]
    fn a_pause_counts_down_in_place_of_schemas() {
        let (screen, mut bars) = bars();
        let pausing = EventKind::Pausing { before: 2, of: 3, left: Duration::from_mins(2) };
        let text = drawn(&mut bars, &screen, &[run_started(2, 2, 1), run(pausing)]);
        assert!(text.ends_with("\n  pausing before stage 2 of 3, 2 min 00 s left"), "{text}");
        let next = EventKind::StageStarted {
            stage: crate::service::stages::StageKind::Batch,
            number: 2,
            of: 3,
            schemas: 1,
        };
        let text = drawn(&mut bars, &screen, &[run(next)]);
        assert!(text.starts_with("stage 2 of 3  0/2 "), "{text}");
        assert!(!text.contains("pausing"), "{text}");
    }

    #[test]
    fn ten_thousand_schemas_leave_one_line() {
        let (screen, mut bars) = bars();
        bars.on(&run_started(10_000, 10_000, 4)).unwrap();
        for number in 1..=10_000 {
            let tenant = tenant(&format!("t{number}"));
            let done = migrated(&[]);
            report(&mut bars, &[started(&tenant, number, 10_000), finished(&tenant, done)]);
        }
        let text = drawn(&mut bars, &screen, &[]);
        assert!(text.starts_with("migrating  10000/10000 "), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
