//! Log lines on a stream.

use std::io::{self, Write};

use crate::service::event::Event;
use crate::service::summary::Summary;

use super::Reporter;
use super::log_format::LogFormatter;

/// Writes a run as lines of text.
#[derive(Debug)]
pub(in crate::ui) struct LogReporter<W> {
    format: LogFormatter,
    out: W,
}

impl<W: Write> LogReporter<W> {
    pub(in crate::ui) fn new(out: W, format: LogFormatter) -> Self {
        Self { format, out }
    }

    /// Writes an event's lines at once, so that lines of another process do not come between them.
    fn write(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Reporter for LogReporter<W> {
    fn on(&mut self, event: &Event) -> io::Result<()> {
        let text = self.format.event(event);
        self.write(&text)
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        let text = self.format.finish(summary);
        self.write(&text)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::sqlstate;
    use std::time::Duration;

    use snapbox::{IntoData, assert_data_eq, str};

    use super::super::log_format::LogLevel;
    use super::*;
    use crate::service::event::{EventKind, Interrupt, NotStarted, Operation, Outcome, Skipped};
    use crate::service::failure::MigrateError;
    use crate::service::stages::StageKind;
    use crate::ui::style::Style;
    use crate::ui::test_support::*;

    fn written(level: LogLevel, events: &[Event], summary: &Summary) -> String {
        let mut lines = LogReporter::new(
            Vec::new(),
            LogFormatter::new(level, Style::plain(), 100, "pricesync"),
        );
        report(&mut lines, events);
        lines.finish(summary).unwrap();
        String::from_utf8(lines.out).unwrap()
    }

    #[test]
    fn other_operations_have_a_line_for_each_schema() {
        let work = Operation { command: "backup", doing: "backing up", done: Some("backed up") };
        let (acme, globex) = (tenant("acme"), tenant("globex"));
        let good =
            Outcome::Done { result: "3 tables, 12 MB".to_owned(), took: Duration::from_millis(9) };
        let bad = failed(MigrateError::Job {
            doing: "reading products".to_owned(),
            error: server_error(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                "permission denied for table products",
            ),
            hints: vec!["use a role that may read it".into()],
        });
        let events = [
            run(EventKind::RunStarted { work, schemas: 2, pending: 2, jobs: 2 }),
            started(&acme, 1, 2),
            started(&globex, 2, 2),
            finished(&globex, bad.clone()),
            finished(&acme, good.clone()),
        ];
        let summary = Summary { work, ..summary(vec![(&acme, good), (&globex, bad)]) };
        assert_data_eq!(
            written(LogLevel::Progress, &events, &summary),
            str![[r#"
tenant_globex: ✗ FAILED
tenant_globex: error: reading products failed
tenant_globex:   caused by: permission denied for table products (42501)
tenant_globex:   hint: use a role that may read it
✓ [1/2] tenant_acme  3 tables, 12 MB                 9 ms
2 schemas: 1 backed up, 1 failed, 0 skipped, 0 not started · 0.21 s

"#]]
            .raw()
        );
    }

    #[test]
    fn steps_have_a_line_every_few_seconds_or_each() {
        let acme = tenant("acme");
        let events = |pending| {
            let at =
                |seconds, kind| Event { elapsed: Duration::from_secs(seconds), ..of(&acme, kind) };
            [
                run(EventKind::RunStarted { work: RESTORE, schemas: pending, pending, jobs: 1 }),
                at(0, EventKind::SchemaStarted { number: 1, of: 1 }),
                at(0, step(1, "structure", 0)),
                at(1, step(2, "table a\u{1b}b", 0)),
                at(5, step(2, "table a\u{1b}b", 4000)),
                at(6, step(2, "table a\u{1b}b", 50_000)),
                at(9, step(2, "table a\u{1b}b", 60_000)),
                at(9, step(3, "constraints", 0)),
                at(10, step(3, "constraints", 0)),
            ]
        };
        let summary = Summary {
            work: RESTORE,
            ..summary(vec![(&acme, failed(MigrateError::SchemaMissing))])
        };
        assert_data_eq!(
            written(LogLevel::Steps, &events(1), &summary),
            str![[r#"
tenant_acme: step 1 of 12: structure
tenant_acme: step 2 of 12: table a\u{1b}b
tenant_acme: step 2 of 12: table a\u{1b}b, 50000 rows, 4882 KiB
tenant_acme: step 3 of 12: constraints

"#]]
            .raw()
        );
        let long = str![[r#"
tenant_acme: step 2 of 12: table a\u{1b}b, 4000 rows, 390 KiB
tenant_acme: step 3 of 12: constraints

"#]]
        .raw();
        assert_data_eq!(written(LogLevel::Progress, &events(1), &summary), long.clone());
        assert_data_eq!(written(LogLevel::Steps, &events(2), &summary), long);
        assert_eq!(written(LogLevel::Warnings, &events(1), &summary), "");
        assert_eq!(written(LogLevel::Failures, &events(1), &summary), "");
    }

    #[test]
    fn interleaved_lines_all_carry_their_schema() {
        let (acme, globex, ha_noi) = (tenant("acme"), tenant("globex"), tenant("hà_nội"));
        let good = migrated(&[applied(1, "products", 9)]);
        let events = [
            run_started(3, 3, 4),
            started(&acme, 1, 3),
            started(&globex, 2, 3),
            started(&ha_noi, 3, 3),
            of(
                &globex,
                EventKind::WaitingForLock {
                    holder: Some(holder()),
                    waited: Duration::from_secs(5),
                },
            ),
            of(&acme, EventKind::ScriptFinished { script: applied(1, "products", 9) }),
            of(&acme, EventKind::WaitingForStandby { waited: Duration::from_secs(3) }),
            of(&ha_noi, retrying(1500)),
            finished(&globex, failed(missing_relation())),
            finished(&acme, good.clone()),
            finished(&ha_noi, failed(missing_relation())),
        ];
        let summary = summary(vec![
            (&acme, good),
            (&globex, failed(missing_relation())),
            (&ha_noi, failed(missing_relation())),
        ]);
        assert_data_eq!(written(LogLevel::Progress, &events, &summary), str![[r#"
[1/3] Running migrations for schema 'tenant_acme'...
[2/3] Running migrations for schema 'tenant_globex'...
[3/3] Running migrations for schema 'tenant_hà_nội'...
tenant_globex: waiting for lock, 5 s so far, held by pid 4121 (psql) from 10.0.0.7, for 75 s
tenant_acme: waiting for a standby, 3 s so far: the server has committed, and no standby named in synchronous_standby_names confirms it; start one or change that setting (interrupting twice ends the wait, what is committed stays)
tenant_hà_nội: attempt 1 of 5 failed, next in 1.5 s: canceling statement due to lock timeout (55P03); blocked by pid 4121 (psql) from 10.0.0.7, for 75 s: update products set price = 1
tenant_globex: ✗ FAILED V8__price_history_index
tenant_globex: error: V8__price_history_index failed at migrations/tenant/prices/V8__price_history_index.sql:12:17
tenant_globex:   12 | create index on prices (product_id);
tenant_globex:      |                 ^
tenant_globex:   caused by: relation "prices" does not exist (42P01)
tenant_globex:   hint: names were looked up in tenant_globex, then in [run] search_path; nothing of this run stays in tenant_globex, fix the file or the data and rerun with --tenant=globex
tenant_acme: ✓ Migrated V1__products                              9 ms
tenant_acme: ✓ Done
tenant_hà_nội: ✗ FAILED V8__price_history_index
tenant_hà_nội: error: V8__price_history_index failed at migrations/tenant/prices/V8__price_history_index.sql:12:17
tenant_hà_nội:   caused by: relation "prices" does not exist (42P01)
error: V8__price_history_index failed at migrations/tenant/prices/V8__price_history_index.sql:12:17: relation "prices" does not exist (42P01)
  2 schemas: tenant_globex, tenant_hà_nội
retry the failed schemas: pricesync migrate-schemas --tenant=globex,hà_nội
waited 6.5 s for locks in 2 schemas, 5.0 s at most, most often for pid 4121 (psql)
3 schemas: 1 migrated, 0 up to date, 2 failed, 0 skipped, 0 not started · 0.21 s

"#]].raw());
    }

    #[test]
    fn what_was_committed_before_a_failure_is_shown() {
        let acme = tenant("acme");
        let outcome = Outcome::Failed {
            error: Box::new(missing_relation()),
            applied: vec![applied(7, "prices", 20)],
        };
        let summary = summary(vec![(&acme, outcome.clone())]);
        assert_data_eq!(
            written(
                LogLevel::Progress,
                &[
                    run_started(1, 1, 8),
                    started(&acme, 1, 1),
                    finished(&acme, outcome)
                ],
                &summary
            ),
            str![[r#"
[1/1] Running migrations for schema 'tenant_acme'...
✓ Migrated V7__prices                               20 ms
✗ FAILED V8__price_history_index
error: tenant_acme: V8__price_history_index failed at migrations/tenant/prices/V8__price_history_index.sql:12:17
  12 | create index on prices (product_id);
     |                 ^
  caused by: relation "prices" does not exist (42P01)
  hint: names were looked up in tenant_acme, then in [run] search_path; V7__prices of this run stays applied in tenant_acme, V8__price_history_index does not; fix the file or the data and rerun with --tenant=acme
1 schema: 0 migrated, 0 up to date, 1 failed, 0 skipped, 0 not started · 0.21 s

"#]].raw()
        );
    }

    #[test]
    fn quiet_runs_show_each_failure_once() {
        let (acme, globex) = (tenant("acme"), tenant("globex"));
        let missing = || failed(MigrateError::SchemaMissing);
        let summary = summary(vec![(&acme, missing()), (&globex, missing())]);
        let events =
            [run_started(2, 2, 2), finished(&acme, missing()), finished(&globex, missing())];
        assert_data_eq!(
            written(LogLevel::Failures, &events, &summary),
            str![[r#"
error: tenant_acme: the schema of tenant 'acme' does not exist
  hint: restore a backup, or create the schema without data: pricesync doctor --fix missing
error: tenant_globex: the schema of tenant 'globex' does not exist
retry the failed schemas: pricesync migrate-schemas --tenant=acme,globex

"#]]
            .raw()
        );
    }

    #[test]
    fn the_summary_repeats_an_explanation_that_scrolled_away() {
        let bad = tenant("bad");
        let mut events = vec![
            run_started(30, 30, 1),
            started(&bad, 1, 30),
            finished(&bad, failed(missing_relation())),
        ];
        for number in 2..=30 {
            events.push(started(&tenant(&format!("t{number}")), number, 30));
        }
        let text = written(
            LogLevel::Progress,
            &events,
            &summary(vec![(&bad, failed(missing_relation()))]),
        );
        assert_eq!(text.matches("error: tenant_bad: V8").count(), 2);
    }

    #[test]
    fn the_summary_says_why_schemas_were_left_out() {
        let (acme, globex, initech) = (tenant("acme"), tenant("globex"), tenant("initech"));
        let interrupted = || Outcome::NotStarted { why: NotStarted::Interrupted };
        let skipped = Outcome::Skipped { why: Skipped::Interrupted };
        let events = [
            run_started(3, 3, 1),
            started(&acme, 1, 3),
            run(EventKind::Interrupted { level: Interrupt::Drain }),
            run(EventKind::Interrupted { level: Interrupt::Cancel }),
            finished(&acme, skipped.clone()),
        ];
        let summary = Summary {
            interrupted: Interrupt::Cancel,
            ..summary(vec![(&acme, skipped), (&globex, interrupted()), (&initech, interrupted())])
        };
        assert_data_eq!(
            written(LogLevel::Progress, &events, &summary),
            str![[r#"
[1/3] Running migrations for schema 'tenant_acme'...
interrupted: running schemas finish, nothing new starts; interrupt again to cancel them
interrupted again: cancelling the running statements, they are rolled back
tenant_acme: skipped (interrupted, its transaction was rolled back)
2 schemas not started (the run was interrupted): tenant_globex, tenant_initech
1 schema skipped (interrupted, its transaction was rolled back): tenant_acme
continue with the rest: run the same command again
3 schemas: 0 migrated, 0 up to date, 0 failed, 1 skipped, 2 not started · 0.21 s · interrupted

"#]]
            .raw()
        );
    }

    #[test]
    fn stages_pauses_and_unstarted_schemas_have_a_line() {
        let (acme, globex) = (tenant("acme"), tenant("globex"));
        let events = [
            run_started(2, 2, 1),
            run(EventKind::StageStarted { stage: StageKind::Canary, number: 1, of: 2, schemas: 2 }),
            run(EventKind::Pausing { before: 2, of: 2, left: Duration::from_millis(119_999) }),
            run(EventKind::JobsChanged { jobs: 4, most: 8 }),
        ];
        let summary = Summary {
            command: Some("pricesync migrate-schemas --canary acme".into()),
            ..summary(vec![
                (&acme, failed(missing_relation())),
                (&globex, Outcome::NotStarted { why: NotStarted::CanaryFailed }),
            ])
        };
        let text = written(LogLevel::All, &events, &summary);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Stage 1 of 2: 2 canaries");
        assert_eq!(
            lines[1],
            "pausing before stage 2 of 2, 2 min 00 s left; interrupt to end the run here"
        );
        assert_eq!(lines[2], "jobs: now 4 of 8");
        assert!(
            text.contains(
                "\n1 schema not started (a canary failed): tenant_globex\n\
                 continue with the rest: pricesync migrate-schemas --canary acme\n"
            ),
            "{text}"
        );
        assert!(!written(LogLevel::Progress, &events, &summary).contains("jobs:"));
        assert!(written(LogLevel::Failures, &events, &summary).ends_with("--canary acme\n"));
    }

    #[test]
    fn notices_need_verbose_and_warnings_do_not() {
        let acme = tenant("acme");
        let notice = |severity: &str, message: &str| {
            of(&acme, EventKind::Notice { severity: severity.into(), message: message.into() })
        };
        let events = [
            run_started(1, 1, 1),
            notice("NOTICE", "table \"x\" does not exist, skipping"),
            notice("WARNING", "hash\u{1b}[2J index\nfake line"),
        ];
        let text = |level| {
            let all = written(level, &events, &summary(vec![]));
            all.lines().filter(|line| line.starts_with("tenant_")).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(
            text(LogLevel::Progress),
            "tenant_acme: WARNING: hash\\u{1b}[2J index\\nfake line"
        );
        assert!(text(LogLevel::All).starts_with("tenant_acme: NOTICE: table"));
    }

    #[test]
    fn a_closed_pipe_is_an_error_of_the_reporter() {
        let mut lines = LogReporter::new(
            Closed,
            LogFormatter::new(LogLevel::Progress, Style::plain(), 80, "pricesync"),
        );
        assert!(lines.on(&run_started(1, 1, 1)).is_ok());
        let error = lines.on(&started(&tenant("acme"), 1, 1)).unwrap_err();
        assert!(crate::ui::is_broken_pipe(&error));
    }
}
