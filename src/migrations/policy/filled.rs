//! Which tables may have rows once the files have run.
//!
//! In doubt a table has rows. A statement that reads only empty tables has no effect, whatever it
//! computes.

use std::collections::{HashMap, HashSet};

use super::volatile::{Volatile, is_in};
use crate::migrations::sql::keywords::Keywords;
use crate::migrations::sql::lexer::TokenKind;
use crate::migrations::sql::relations::{RelationChange, change, changed};

/// Functions that return a row even if there is none to read, unless rows are grouped.
const AGGREGATES: &str = "count sum max min avg array_agg string_agg json_agg jsonb_agg json_object_agg \
     jsonb_object_agg bool_or bool_and every";

/// First words of statements that change rows.
const CHANGES: &[&str] = &["insert", "with", "merge", "update", "delete"];

/// What may precede a parenthesis in a query that has no effect: keywords, and functions without one.
const QUIET: &str = "all and any as between by case cast coalesce count date_trunc else exists extract \
     filter from greatest in join least length lower max min not now nullif on or over \
     select sum then to_regclass to_regtype upper when where";

/// What the files create, and which of it may have rows.
#[derive(Default)]
pub(super) struct Tables {
    /// Tables and views.
    created: HashSet<String>,
    filled: HashSet<String>,
    /// Whether any table may have rows, because code builds the names.
    all: bool,
    /// Pairs: if the first may have rows, so may the second.
    links: HashSet<(String, String)>,
    /// Pairs: if the table may have rows, the function may have run.
    triggers: HashSet<(String, String)>,
    routines: HashMap<String, Routine>,
}

/// What a function does when it is called.
#[derive(Clone, Default)]
struct Routine {
    fills: HashSet<String>,
    fills_all: bool,
    calls: HashSet<String>,
}

impl Tables {
    /// Returns a number that grows with everything that is noted.
    pub(super) fn size(&self) -> usize {
        self.created.len() + self.filled.len() + self.links.len() + usize::from(self.all)
    }

    pub(super) fn is_created(&self, table: &str) -> bool {
        self.created.contains(table)
    }

    /// Notes what a statement creates, and the tables that it may fill.
    pub(super) fn note(&mut self, keywords: Keywords<'_>, names: &Volatile<'_>) {
        let first_changed = || Some(changed(keywords).first()?.1.relation.clone());
        let call = |word: &str| {
            let at = keywords.positions("execute").find(|&at| keywords.is(at + 1, word))? + 2;
            keywords.identifier(if keywords.text(at + 1) == "." { at + 2 } else { at })
        };
        if keywords.is(0, "create") && keywords.is_any(1, &["trigger", "constraint"]) {
            let function = call("function").or_else(|| call("procedure"));
            self.triggers.extend(first_changed().zip(function));
        } else if keywords.is(0, "create") && keywords.is(1, "rule") {
            let (targets, all) = targets(keywords);
            let table = first_changed().unwrap_or_default();
            self.links.extend(targets.into_iter().map(|target| (table.clone(), target)));
            self.all |= all;
        } else if keywords.is_any(0, &["create", "alter"]) {
            self.define(keywords, names);
        } else if !self.are_unchanged_by(keywords, names) {
            let (targets, all) = targets(keywords);
            self.created.extend(targets.iter().cloned());
            self.filled.extend(targets);
            self.all |= all;
            for name in calls(keywords) {
                self.run(&name, &mut HashSet::new());
            }
        }
        self.settle();
    }

    /// Notes what is in the code of a function.
    pub(super) fn note_code(&mut self, function: &str, level: Keywords<'_>) {
        let (fills, all) = targets(level);
        let routine = self.routines.entry(function.to_owned()).or_default();
        routine.fills.extend(fills);
        routine.fills_all |= all;
        routine.calls.extend(calls(level));
    }

    fn define(&mut self, keywords: Keywords<'_>, names: &Volatile<'_>) {
        let changed = changed(keywords).into_iter().map(|(_, name)| name.relation);
        let name = created(keywords);
        let Some(table) = name.clone().or_else(|| changed.clone().next()) else {
            return;
        };
        self.created.extend(name);
        let attached = changed.filter(|_| keywords.positions("attach").next().is_some());
        // Rows of a partition are rows of its table.
        for other in related(keywords).into_iter().chain(attached) {
            self.links.insert((other.clone(), table.clone()));
            self.links.insert((table.clone(), other));
        }
        if keywords.is(0, "alter") {
            self.rename(keywords);
        } else if runs_query(keywords) {
            self.filled.insert(table.clone());
        } else if let Some(view) = keywords.positions("view").next().filter(|&at| at < 5) {
            let query = (view..keywords.len()).find(|&at| keywords.is(at, "select"));
            let query = keywords.slice(query.unwrap_or(keywords.len())..keywords.len());
            let reads_tables = query.positions("from").count() >= query.positions("select").count();
            if !reads_tables || !self.reads_empty_tables(query, names) {
                self.filled.insert(table.clone());
            }
            let read = (0..query.len()).filter_map(|at| query.identifier(at));
            self.links.extend(read.map(|name| (name, table.clone())));
        }
        // Defaults and checks call functions for each row.
        let called = calls(keywords).into_iter().filter(|name| self.routines.contains_key(name));
        self.triggers.extend(called.map(|function| (table.clone(), function)).collect::<Vec<_>>());
    }

    /// Notes what a function fills.
    fn run(&mut self, name: &str, running: &mut HashSet<String>) {
        let Some(routine) = self.routines.get(name).cloned() else {
            return;
        };
        if running.insert(name.to_owned()) {
            self.created.extend(routine.fills.iter().cloned());
            self.filled.extend(routine.fills);
            self.all |= routine.fills_all;
            for called in routine.calls {
                self.run(&called, running);
            }
        }
    }

    /// Follows links and triggers until nothing changes.
    fn settle(&mut self) {
        let mut size = 0;
        while size != self.size() {
            size = self.size();
            let filled = |(table, _): &&(String, String)| self.filled.contains(table);
            let linked: Vec<_> = self.links.iter().filter(filled).map(|it| it.1.clone()).collect();
            let called: Vec<_> =
                self.triggers.iter().filter(filled).map(|it| it.1.clone()).collect();
            self.filled.extend(linked);
            for function in called {
                self.run(&function, &mut HashSet::new());
            }
        }
    }

    /// Returns whether a statement certainly writes no row: it changes an empty table, or reads only
    /// empty ones.
    pub(super) fn are_unchanged_by(&self, keywords: Keywords<'_>, names: &Volatile<'_>) -> bool {
        let is_empty = |table: &str| !self.all && !self.filled.contains(table);
        let changes = keywords.is_any(0, &["update", "delete"])
            || keywords.is(0, "alter") && keywords.is(1, "table");
        changes && changed(keywords).iter().all(|(_, name)| is_empty(&name.relation))
            || self.reads_empty_tables(keywords, names)
    }

    /// Follows `ALTER TABLE a RENAME TO b`.
    fn rename(&mut self, keywords: Keywords<'_>) {
        let renamed = keywords
            .positions("rename")
            .find(|&index| keywords.is(index + 1, "to"))
            .and_then(|index| {
                Some((changed(keywords).first()?.1.clone(), keywords.identifier(index + 2)?))
            });
        if let Some((old, new)) = renamed {
            if self.filled.contains(&old.relation) {
                self.filled.insert(new.clone());
            }
            self.created.insert(new);
        }
    }

    /// Returns whether a query or a change reads only tables that are certainly empty, so that it
    /// writes no row whatever its expressions are.
    fn reads_empty_tables(&self, keywords: Keywords<'_>, names: &Volatile<'_>) -> bool {
        let count = |word: &'static str| keywords.positions(word).count();
        let is_call = |index: usize| keywords.kind(index + 1) == Some(TokenKind::Open);
        let other_from: usize = ["extract", "substring", "trim", "overlay", "distinct"]
            .iter()
            .map(|it| count(it))
            .sum();
        let changes = ["insert", "update", "delete", "merge"].iter().any(|word| count(word) > 0);
        let is_query = keywords.is(0, "select") && count("into") == 0;
        let is_known = (is_query || changes && keywords.is_any(0, CHANGES))
            && ["values", "default", "right", "full"].iter().all(|word| count(word) == 0)
            && (is_query || count("from") >= count("select") + other_from);
        is_known
            && !self.all
            && (0..keywords.len()).all(|index| {
                let Some(name) = keywords.identifier(index) else {
                    return true;
                };
                let is_source = index > 0 && keywords.is_any(index - 1, &["from", "join"]);
                let is_aggregate =
                    is_call(index) && is_in(AGGREGATES, &name) && count("group") == 0;
                let is_unknown = is_query && is_call(index) && !is_in(QUIET, &name);
                let is_table = index > 0
                    && keywords.is_any(index - 1, &["from", "join"])
                    && keywords.kind(index + 1) != Some(TokenKind::Open);
                let is_with = keywords
                    .positions("as")
                    .any(|at| at > 0 && keywords.identifier(at - 1).as_ref() == Some(&name));
                !(self.filled.contains(&name)
                    || is_unknown
                    || is_table && !is_with && !self.created.contains(&name)
                    || name.starts_with("pg_")
                    || name == "information_schema"
                    || name == "public"
                    || names.is_outside(&name)
                    || is_source && is_call(index) && !keywords.is(index, "lateral")
                    || is_aggregate)
            })
    }
}

/// Returns whether a statement only defines objects.
pub(super) fn is_definition(keywords: Keywords<'_>) -> bool {
    let definitions = [
        "alter",
        "analyze",
        "cluster",
        "comment",
        "create",
        "deallocate",
        "drop",
        "grant",
        "listen",
        "lock",
        "refresh",
        "reindex",
        "reset",
        "revoke",
        "security",
        "set",
        "show",
        "truncate",
        "unlisten",
    ];
    keywords.is_any(0, &definitions)
        && !(keywords.is(0, "alter") && keywords.is(1, "table"))
        && !(keywords.is(0, "create") && runs_query(keywords))
}

/// Returns the names of the tables that SQL inserts into, and whether there are names that code builds.
fn targets(keywords: Keywords<'_>) -> (Vec<String>, bool) {
    let skipped = ["only", "temp", "temporary", "unlogged", "table"];
    let names: Vec<Option<String>> = keywords
        .positions("into")
        .map(|index| {
            let at = (index + 1..=keywords.len()).find(|&at| !keywords.is_any(at, &skipped))?;
            keywords.identifier(if keywords.text(at + 1) == "." { at + 2 } else { at })
        })
        .collect();
    let are_built = names.iter().any(Option::is_none);
    (names.into_iter().flatten().collect(), are_built)
}

/// Returns the names that a parenthesis follows.
fn calls(keywords: Keywords<'_>) -> HashSet<String> {
    let called = |&at: &usize| keywords.kind(at + 1) == Some(TokenKind::Open);
    (0..keywords.len()).filter(called).filter_map(|at| keywords.identifier(at)).collect()
}

/// Returns the name of the table or view that a statement creates.
fn created(keywords: Keywords<'_>) -> Option<String> {
    let materialized = keywords.positions("view").next().and_then(|index| {
        let exists = if keywords.is(index + 1, "if") { 3 } else { 0 };
        keywords.is(1, "materialized").then(|| keywords.identifier(index + 1 + exists))?
    });
    materialized.or_else(|| match change(keywords) {
        Some(RelationChange::Create { name: (_, name), .. }) => Some(name.relation),
        _ => None,
    })
}

/// Returns the tables of which a new one is a partition or a child.
fn related(keywords: Keywords<'_>) -> Vec<String> {
    let of = keywords.positions("partition").filter(|&at| keywords.is(at + 1, "of"));
    let inherits = keywords.positions("inherits");
    of.chain(inherits).filter_map(|at| keywords.identifier(at + 2)).collect()
}

/// Returns whether a `CREATE` runs a query: `CREATE TABLE AS`, or a materialized view.
pub(super) fn runs_query(keywords: Keywords<'_>) -> bool {
    let query = ["select", "values", "with", "table", "execute"];
    let is_query = |index: usize| {
        let open = usize::from(keywords.kind(index + 1) == Some(TokenKind::Open));
        keywords.is_any(index + 1 + open, &query)
    };
    let is_table = (1..4).any(|index| keywords.is(index, "table"));
    keywords.is(1, "materialized") || is_table && keywords.positions("as").any(is_query)
}
