//! The SQL of a migration as a psql script, for `--dry-run=sql`.

use std::fmt::Write as _;

use super::context::Context;
use crate::domain::plan::Plan;
use crate::domain::run_options::Atomic;
use crate::domain::target::Target;
use crate::migrations::Transaction;
use crate::postgres::transaction::settings::{SettingScope, begin, own_timeout, settings};
use crate::postgres::transaction::{batch, history};

/// Returns the statements that migrate a schema according to `plan`, without locks and checks.
pub(super) fn preview(context: &Context, target: &Target, plan: &Plan) -> String {
    let (set, options) = (context.set(target.scope), &context.options);
    let table = &options.history_table;
    let only_records = context.mode.only_records();
    let schema = target.schema.to_string();
    let schema = schema.escape_debug();
    let mut sql = String::new();
    let mut is_open = false;
    for (position, &index) in plan.pending.iter().enumerate() {
        let script = &set.scripts()[index];
        let inside = script.transaction == Transaction::Inside || only_records;
        if is_open && (!inside || options.atomic == Atomic::Migration) {
            sql.push_str("COMMIT;\n\n");
            is_open = false;
        }
        if inside && !is_open {
            let begin = begin(options, target).replace("; ", ";\n");
            let _ = write!(sql, "-- schema {schema}\n{begin}");
            is_open = true;
        }
        if !inside {
            let settings = settings(options, target, SettingScope::Session).replace("; ", ";\n");
            let _ = write!(sql, "-- schema {schema}, without a transaction\n{settings}");
        }
        if position == 0 && plan.version.is_none() {
            if inside {
                let _ = writeln!(sql, "{};", history::NO_PARALLEL_BUILD);
            }
            let _ = writeln!(sql, "{}", history::create_table(&target.schema, table));
        }
        let claim = batch::claim(&target.schema, table, script, batch::NOW);
        let _ = writeln!(sql, "\n-- {}\n{claim};\n", script.path.display());
        if !only_records {
            let to_send = script.sent(|timeout| own_timeout(options, timeout));
            let text = to_send.sql.trim_end();
            let end = if text.ends_with(';') { "" } else { "\n;" };
            let _ = writeln!(sql, "{text}{end}\n");
        }
    }
    if is_open {
        sql.push_str("COMMIT;\n\n");
    }
    sql
}
