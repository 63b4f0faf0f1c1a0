//! What a transaction changed outside its schema, and how it is reported.

use std::collections::BTreeMap;

use crate::migrations::Script;
use crate::postgres::connection::session::Row;
use crate::service::failure::MigrateError;
use crate::settings::TableName;

/// How many changes are reported one by one.
const MOST: usize = 12;

/// Changes outside the schema, each object once.
#[derive(Debug, Default)]
pub(crate) struct Changes(BTreeMap<String, Change>);

/// A change of one object.
#[derive(Debug, Default)]
struct Change {
    /// How it changed; of several ways the one that says the most.
    how: String,
    /// The relation, where the object is one.
    relation: Option<(u32, TableName)>,
    /// The triggers, functions, views, defaults and keys that may have made the change.
    through: Vec<String>,
    /// Whether an event trigger is among them.
    by_event_trigger: bool,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a change of an object, whose name is complete.
    pub(super) fn add(&mut self, object: String, how: &str) {
        let change = self.0.entry(object).or_default();
        if change.how.is_empty() || strength(how) > strength(&change.how) {
            how.clone_into(&mut change.how);
        }
    }

    /// Adds a change of a relation.
    pub(super) fn add_relation(&mut self, oid: u32, name: TableName, how: &str) {
        let object = name.to_string();
        self.add(object.clone(), how);
        self.0.entry(object).or_default().relation = Some((oid, name));
    }

    /// Returns the oids of the relations of which rows changed.
    pub(super) fn written(&self) -> Vec<String> {
        let written = self.0.values().filter(|change| strength(&change.how) == 0);
        written.filter_map(|change| Some(change.relation.as_ref()?.0.to_string())).collect()
    }

    /// Adds what `through.sql` returned.
    pub(super) fn add_causes(&mut self, rows: &[Row]) {
        for change in self.0.values_mut() {
            let Some((oid, _)) = &change.relation else { continue };
            for row in rows.iter().filter(|row| row.parse::<u32>(0).ok() == Some(*oid)) {
                change.through.extend(row.optional(1).map(ToOwned::to_owned));
                change.by_event_trigger |= row.is_true(2);
            }
        }
    }

    /// Returns the changes in words; `scripts` are searched for the line that names the object.
    pub(crate) fn describe(&self, scripts: &[&Script]) -> Vec<String> {
        let listed = self.0.iter().filter(|(object, _)| !self.is_implied(object));
        let mut lines: Vec<String> = listed
            .map(|(object, change)| {
                let mut line = format!("{object} ({})", change.how);
                if !change.through.is_empty() {
                    line = format!("{line} through {}", change.through.join(", "));
                }
                match change.relation.as_ref().and_then(|it| named_at(&it.1.table, scripts)) {
                    Some(place) if !change.by_event_trigger => format!("{line}, named at {place}"),
                    _ => line,
                }
            })
            .collect();
        if lines.len() > MOST {
            let more = lines.len() - MOST;
            lines.truncate(MOST);
            lines.push(format!("{more} more objects"));
        }
        lines
    }

    /// Returns whether an object changed only because another one did that is listed: the row type and
    /// the array type of a relation or type, and the schema in which something was created.
    fn is_implied(&self, object: &str) -> bool {
        let base = object.strip_suffix("[]").unwrap_or(object);
        let base = base.strip_prefix("type ").unwrap_or(base);
        let is_listed = |other: String| other != object && self.0.contains_key(&other);
        if is_listed(base.to_owned()) || object.ends_with("[]") && is_listed(format!("type {base}"))
        {
            return true;
        }
        object.strip_prefix("schema ").is_some_and(|schema| {
            let inside = format!("{schema}.");
            self.0.keys().any(|other| other.split(' ').any(|word| word.starts_with(&inside)))
        })
    }

    /// Returns the error of these scripts.
    pub(crate) fn into_error(self, scripts: &[&Script]) -> MigrateError {
        let only_rows = self.0.values().all(|it| it.relation.is_some() && strength(&it.how) == 0);
        let names = self.0.values().filter_map(|it| Some(it.relation.as_ref()?.1.to_string()));
        MigrateError::LeftSchema {
            scripts: scripts.iter().map(|script| script.id.reference()).collect(),
            touched: self.describe(scripts),
            allow_writes: if only_rows { names.collect() } else { Vec::new() },
            by_event_trigger: self.0.values().any(|change| change.by_event_trigger),
        }
    }
}

/// Returns how much a change says about an object, zero for its rows.
fn strength(how: &str) -> u8 {
    match how {
        "rows changed" | "rows locked" | "number drawn or set" => 0,
        "index created" | "locked" => 1,
        _ => 2,
    }
}

/// Returns the file and line that names a relation first, outside comments that begin with `--`.
fn named_at(name: &str, scripts: &[&Script]) -> Option<String> {
    let name = name.to_lowercase();
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let names_it = |line: &str| {
        let line = line.split("--").next().unwrap_or_default().to_lowercase();
        line.match_indices(&name).any(|(at, _)| {
            !line[..at].ends_with(is_part) && !line[at + name.len()..].starts_with(is_part)
        })
    };
    scripts.iter().find_map(|script| {
        let line = script.text.lines().position(names_it)? + 1;
        Some(format!("{}:{line}", script.path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_listed_once_and_with_the_most_telling_change() {
        let name = |table: &str| TableName { schema: "public".into(), table: table.into() };
        let mut changes = Changes::default();
        changes.add_relation(1, name("rates"), "rows changed");
        changes.add_relation(1, name("rates"), "structure changed");
        changes.add_relation(1, name("rates"), "rows changed");
        for implied in ["type public.rates", "type public.rates[]", "schema public"] {
            changes.add(implied.to_owned(), "changed");
        }
        changes.add("type public.mood".to_owned(), "changed");
        changes.add("schema other".to_owned(), "changed");
        let lines = changes.describe(&[]);
        assert_eq!(
            lines,
            [
                "public.rates (structure changed)",
                "schema other (changed)",
                "type public.mood (changed)"
            ]
        );
    }
}
