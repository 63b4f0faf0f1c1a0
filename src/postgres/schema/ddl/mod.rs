//! Generates the statements that create a copy of a schema, from the system catalogs, with unqualified names.

mod arrays;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::fingerprint::{own_path, relative_to};
use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::connection::sql_file::filled;

const PARTS: &str = include_str!("parts.sql");

/// Revokes what default privileges granted on the objects of a restored schema.
const WITHOUT_DEFAULT_PRIVILEGES: &str = include_str!("privileges.sql");

/// The statements that create a copy of a schema, to be run with the copy as `search_path`.
#[derive(Debug, Default)]
pub(crate) struct Structure {
    parts: Parts,
    /// Descriptions of objects that cannot be copied.
    pub(crate) refused: Vec<String>,
    /// Descriptions of objects that cannot be copied to a schema that does not exist yet.
    pub(crate) unpredictable: Vec<String>,
    /// Objects whose text contains the schema's name.
    pub(crate) mentions: Vec<Mention>,
}

/// An object with a text that the server parses only when it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    /// The server's description of the object.
    pub(crate) what: String,
    pub(crate) text: String,
}

/// The statements of an exact copy, with several in each text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SchemaCopy {
    /// Statements to run before rows are loaded.
    pub(crate) before: String,
    /// Statements to run after rows are loaded.
    pub(crate) after: String,
    /// Statements about the schema itself, as the parts before and after its name.
    pub(crate) about_schema: Vec<(String, String)>,
}

/// Reads the statements of a schema in the open transaction, without the history table where its name is
/// given.
pub(crate) async fn read(
    session: &Session,
    schema: &SchemaName,
    without_table: Option<&str>,
) -> Result<Structure, Error> {
    let values = [
        ("{schema}", escape_literal(schema.as_str())),
        ("{history}", escape_literal(without_table.unwrap_or_default())),
        ("{own_path}", own_path(schema)),
    ];
    let rows = relative_to(session, schema, &filled(PARTS, &values)).await?;
    Ok(Structure::of(&rows))
}

impl Structure {
    /// Returns one script for a copy, or the reason why there is none. `rows` are the statements that fill
    /// tables, by quoted name; they run before there are keys, triggers, rules or policies. Privileges on
    /// objects are `explicit`, or those that new objects get.
    pub(crate) fn script(
        &self,
        rows: &BTreeMap<String, String>,
        explicit: bool,
    ) -> Result<String, String> {
        if let Some(why) = self.unpredictable.iter().chain(&self.refused).next() {
            return Err(why.clone());
        }
        let mut parts = self.parts.clone();
        let mut last = std::mem::take(&mut parts.restart);
        last.append(&mut parts.last);
        // Position 0 is the owner.
        let privileges = parts.owners.range(1..).filter(|_| explicit);
        last.extend(privileges.flat_map(|(_, statements)| statements.iter().cloned()));
        let (mut statements, after) = parts.write(|table| rows.contains_key(table))?;
        statements.extend(rows.values().cloned());
        statements.extend(after);
        statements.append(&mut last);
        Ok(statements.join(";\n"))
    }

    /// Returns the statements of an exact copy, or why there are none.
    pub(crate) fn copy(self) -> Result<SchemaCopy, Vec<String>> {
        if !self.refused.is_empty() {
            return Err(self.refused);
        }
        let mut parts = self.parts;
        let about_schema = std::mem::take(&mut parts.about_schema);
        let last = std::mem::take(&mut parts.last);
        let owners = std::mem::take(&mut parts.owners);
        let (before, mut after) = parts.write(|_| true).map_err(|why| vec![why])?;
        after.extend(last);
        after.push(WITHOUT_DEFAULT_PRIVILEGES.trim_end().to_owned());
        after.extend(owners.into_values().flatten());
        Ok(SchemaCopy {
            before: joined(&before),
            after: joined(&after),
            about_schema: about_schema.into_values().flatten().collect(),
        })
    }

    fn of(rows: &[Row]) -> Self {
        let mut structure = Self::default();
        // Tables first: the other rows refer to them.
        let order = |row: &&Row| row.optional(0) != Some("table");
        let mut sorted: Vec<&Row> = rows.iter().collect();
        sorted.sort_by_key(order);
        for row in sorted {
            let cell = |column: usize| row.optional(column).unwrap_or_default().to_owned();
            let (node, mut text, other, more) = (cell(1), cell(3), cell(4), cell(5));
            let what = row.optional(0).unwrap_or_default();
            // A function's body is not an expression.
            if !node.starts_with('f') && what != "mention" {
                text = arrays::with_element_types(&text);
            }
            let position: i64 = cell(2).parse().unwrap_or_default();
            let parts = &mut structure.parts;
            match what {
                "refuse" => structure.refused.push(text),
                "unpredictable" => structure.unpredictable.push(text),
                "mention" => structure.mentions.push(Mention { what: other, text }),
                "edge" => {
                    parts.needs.entry(node).or_default().insert(other);
                }
                "last" => parts.last.push(text),
                "restart" => parts.restart.push(text),
                "owner" => parts.owners.entry(position).or_default().push(text),
                "schema" => {
                    let texts = parts.about_schema.entry(position).or_default();
                    texts.push((text, other));
                }
                "refresh" => {
                    parts.refreshes.insert(node, text);
                }
                "after" => {
                    let at = &mut parts.nodes.entry(node).or_default().after;
                    at.entry(position).or_default().push(text);
                }
                "create" if text.is_empty() => {
                    let why = "it holds a function or type of an unknown kind";
                    structure.refused.push(why.to_owned());
                }
                _ => parts.place(what, node, position, text, &other, more),
            }
        }
        structure.refused.sort();
        structure.refused.dedup();
        structure
    }
}

fn joined(statements: &[String]) -> String {
    statements.iter().fold(String::new(), |text, statement| text + statement + ";\n")
}

/// The position of the first foreign key. Foreign keys come last, because they lock shared tables until the
/// transaction ends.
const FOREIGN_KEYS: i64 = 10_000_000_000;

/// The objects to create, by node.
#[derive(Clone, Debug, Default)]
struct Parts {
    nodes: HashMap<String, Node>,
    /// The nodes that must exist before another.
    needs: HashMap<String, BTreeSet<String>>,
    /// Statements after all others.
    last: Vec<String>,
    restart: Vec<String>,
    owners: BTreeMap<i64, Vec<String>>,
    about_schema: BTreeMap<i64, Vec<(String, String)>>,
    /// Statements that fill a node after the rows are loaded.
    refreshes: HashMap<String, String>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The order of creation in the original, which is kept where dependencies allow it.
    position: i64,
    /// The CREATE statement; of a table only the part before the parentheses.
    sql: String,
    form: Form,
    /// Statements right after it.
    after: BTreeMap<i64, Vec<String>>,
}

#[derive(Clone, Debug, Default)]
enum Form {
    #[default]
    Whole,
    Table {
        /// The quoted name.
        name: String,
        /// The columns.
        inside: BTreeMap<i64, String>,
        end: String,
        keys: BTreeSet<(i64, String)>,
    },
    /// A constraint; holds the start of its ALTER TABLE.
    Key(String),
}

impl Parts {
    fn place(
        &mut self,
        what: &str,
        node: String,
        position: i64,
        text: String,
        owner: &str,
        more: String,
    ) {
        let table = |parts: &mut Self, node: &str, put: &dyn Fn(&mut Form)| {
            if let Some(node) = parts.nodes.get_mut(node) {
                put(&mut node.form);
            }
        };
        match what {
            "in-table" => table(self, &node, &|form| {
                if let Form::Table { inside, .. } = form {
                    inside.insert(position, text.clone());
                }
            }),
            "end" => table(self, &node, &|form| {
                if let Form::Table { end, .. } = form {
                    end.clone_from(&text);
                }
            }),
            _ => {
                let form = match what {
                    "table" => Form::Table {
                        name: owner.to_owned(),
                        inside: BTreeMap::new(),
                        end: String::new(),
                        keys: BTreeSet::new(),
                    },
                    "key" => {
                        table(self, owner, &|form| {
                            if let Form::Table { keys, .. } = form {
                                keys.insert((position, node.clone()));
                            }
                        });
                        Form::Key(more)
                    }
                    _ => Form::Whole,
                };
                let made = self.nodes.entry(node).or_default();
                (made.position, made.sql, made.form) = (position, text, form);
            }
        }
    }

    /// Returns the statements before and after the rows: every node as soon as its dependencies exist, in
    /// the order of the original.
    ///
    /// Constraints of a table without rows are created in its CREATE TABLE where possible, which is fastest.
    /// Those with an index, and foreign keys, follow the rows of a filled table.
    fn write(
        mut self,
        is_filled: impl Fn(&str) -> bool,
    ) -> Result<(Vec<String>, Vec<String>), String> {
        let mut waiting: BTreeSet<(i64, String)> =
            self.nodes.iter().map(|(name, node)| (node.position, name.clone())).collect();
        let mut made: HashSet<String> = HashSet::new();
        let (mut before, mut after, mut refreshes) = (Vec::new(), Vec::new(), Vec::new());
        let mut has_rows = false;
        while !waiting.is_empty() {
            let is_first = |name: &str| has_rows || !Self::follows_rows(name);
            let ready =
                waiting.iter().find(|(_, name)| is_first(name) && self.can(name, &made, None));
            let Some(next) = ready.cloned() else {
                if has_rows {
                    return Err("objects that depend on each other".to_owned());
                }
                has_rows = true;
                continue;
            };
            waiting.remove(&next);
            let (position, name) = next;
            if has_rows && position >= FOREIGN_KEYS {
                after.append(&mut refreshes);
            }
            let Some(node) = self.nodes.get(&name) else {
                continue;
            };
            let statements = if has_rows { &mut after } else { &mut before };
            match &node.form {
                Form::Whole => statements.push(node.sql.clone()),
                Form::Key(start) => statements.push(format!("{start}{}", node.sql)),
                Form::Table { name: table, .. } if has_rows && is_filled(table) => {
                    return Err(format!(
                        "a table depends on an object that depends on a constraint or an index: {}",
                        node.sql
                    ));
                }
                Form::Table { name: table, inside, end, keys } => {
                    let mut lines: Vec<&str> = inside.values().map(String::as_str).collect();
                    for key in keys {
                        let Some(constraint) = self.nodes.get(&key.1) else {
                            continue;
                        };
                        let fits = !is_filled(table) || !Self::follows_rows(&key.1);
                        if fits && self.can(&key.1, &made, Some(&name)) && waiting.remove(key) {
                            lines.push(constraint.sql.as_str());
                            made.insert(key.1.clone());
                        }
                    }
                    statements.push(format!("{} ({}) {end}", node.sql, lines.join(", ")));
                }
            }
            statements.extend(node.after.values().flatten().cloned());
            refreshes.extend(self.refreshes.remove(&name));
            made.insert(name);
        }
        after.append(&mut refreshes);
        Ok((before, after))
    }

    /// Returns whether a node is created after the rows: triggers would fire for them, and indexes are built
    /// faster over all of them.
    fn follows_rows(node: &str) -> bool {
        node.starts_with(['k', 'i', 'g', 'p', 's', 'w'])
    }

    /// Returns whether all dependencies of a node are created, or are created with it.
    fn can(&self, name: &str, made: &HashSet<String>, with: Option<&str>) -> bool {
        self.needs.get(name).is_none_or(|needs| {
            needs.iter().all(|need| {
                made.contains(need)
                    || with == Some(need.as_str())
                    // Objects that are not copied were refused or belong to the history table.
                    || !self.nodes.contains_key(need)
            })
        })
    }
}
