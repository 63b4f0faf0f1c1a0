//! The script that makes a schema, put together from the statements it consists of.

mod arrays;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tokio_postgres::{Error, SimpleQueryRow};

use super::super::fingerprint::{filled, relative_to};
use super::super::pool::Session;
use crate::domain::schema_name::SchemaName;
use postgres_protocol::escape::escape_literal;

/// Of which statements does the schema consist?
const PARTS: &str = include_str!("parts.sql");

/// Returns the SQL that makes what is in the schema, the history table excepted, when it
/// runs with another schema as the path; or why there is no such SQL.
pub(super) async fn script(
    session: &Session,
    schema: &SchemaName,
    history_table: &str,
) -> Result<Result<String, String>, Error> {
    let values = [
        ("{schema}", escape_literal(schema.as_str())),
        ("{history}", escape_literal(history_table)),
    ];
    let rows = relative_to(session, schema, &filled(PARTS, &values)).await?;
    Ok(Parts::read(&rows).and_then(Parts::write))
}

/// What is to be made, by node.
#[derive(Debug, Default)]
struct Parts {
    nodes: HashMap<String, Node>,
    /// Which nodes must be there before another.
    needs: HashMap<String, BTreeSet<String>>,
    /// What follows everything.
    last: Vec<String>,
}

#[derive(Debug, Default)]
struct Node {
    /// Objects are made in the order in which they were made first, as far as they can.
    position: i64,
    /// The statement that makes it; of a table only what stands before the parentheses.
    sql: String,
    form: Form,
    /// What follows it at once.
    after: BTreeMap<i64, Vec<String>>,
}

#[derive(Debug, Default)]
enum Form {
    #[default]
    Whole,
    Table {
        /// Columns, then constraints.
        inside: BTreeMap<i64, String>,
        end: String,
        keys: BTreeSet<(i64, String)>,
    },
    /// A foreign key of this table.
    Key(String),
}

impl Parts {
    fn read(rows: &[SimpleQueryRow]) -> Result<Self, String> {
        let mut parts = Self::default();
        // Tables first, so that what belongs to them finds them.
        let order = |row: &&SimpleQueryRow| row.get(0) != Some("table");
        let mut sorted: Vec<&SimpleQueryRow> = rows.iter().collect();
        sorted.sort_by_key(order);
        for row in sorted {
            let cell = |column: usize| row.get(column).unwrap_or_default().to_owned();
            let (node, mut text, other) = (cell(1), cell(3), cell(4));
            // A function's body is nobody's expression.
            if !node.starts_with('f') {
                text = arrays::with_element_types(&text);
            }
            let position: i64 = cell(2).parse().unwrap_or_default();
            match row.get(0).unwrap_or_default() {
                "refuse" => return Err(text),
                "edge" => {
                    parts.needs.entry(node).or_default().insert(other);
                }
                "last" => parts.last.push(text),
                "after" => {
                    let at = &mut parts.nodes.entry(node).or_default().after;
                    at.entry(position).or_default().push(text);
                }
                "create" if text.is_empty() => {
                    return Err("it holds a function or type that no template can hold".to_owned());
                }
                what => parts.place(what, node, position, text, other),
            }
        }
        Ok(parts)
    }

    fn place(&mut self, what: &str, node: String, position: i64, text: String, other: String) {
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
                        inside: BTreeMap::new(),
                        end: String::new(),
                        keys: BTreeSet::new(),
                    },
                    "key" => {
                        table(self, &other, &|form| {
                            if let Form::Table { keys, .. } = form {
                                keys.insert((position, node.clone()));
                            }
                        });
                        Form::Key(other)
                    }
                    _ => Form::Whole,
                };
                let made = self.nodes.entry(node).or_default();
                (made.position, made.sql, made.form) = (position, text, form);
            }
        }
    }

    /// Writes every node as soon as what it needs is there, the oldest first.
    fn write(mut self) -> Result<String, String> {
        let mut waiting: BTreeSet<(i64, String)> = self
            .nodes
            .iter()
            .map(|(name, node)| (node.position, name.clone()))
            .collect();
        let mut made: HashSet<String> = HashSet::new();
        let mut statements = Vec::new();
        while !waiting.is_empty() {
            let ready = waiting.iter().find(|(_, name)| self.can(name, &made, None));
            let Some(next) = ready.cloned() else {
                return Err("its objects need each other".to_owned());
            };
            waiting.remove(&next);
            let (_, name) = next;
            let Some(node) = self.nodes.get(&name) else {
                continue;
            };
            match &node.form {
                Form::Whole => statements.push(node.sql.clone()),
                Form::Key(table) => {
                    let table = self.nodes.get(table).map_or("", |table| &table.sql);
                    let table = table.split_once(" TABLE ").map_or(table, |(_, name)| name);
                    statements.push(format!("ALTER TABLE {table} ADD {}", node.sql));
                }
                Form::Table { inside, end, keys } => {
                    let mut lines: Vec<&str> = inside.values().map(String::as_str).collect();
                    // A key within the parentheses is not checked against rows that are not there.
                    for key in keys {
                        if self.can(&key.1, &made, Some(&name)) && waiting.remove(key) {
                            lines.extend(self.nodes.get(&key.1).map(|key| key.sql.as_str()));
                            made.insert(key.1.clone());
                        }
                    }
                    statements.push(format!("{} ({}) {end}", node.sql, lines.join(", ")));
                }
            }
            statements.extend(node.after.values().flatten().cloned());
            made.insert(name);
        }
        statements.append(&mut self.last);
        Ok(statements.join(";\n"))
    }

    /// Returns whether all that a node needs is made, or is just being made.
    fn can(&self, name: &str, made: &HashSet<String>, with: Option<&str>) -> bool {
        self.needs.get(name).is_none_or(|needs| {
            needs.iter().all(|need| {
                made.contains(need)
                    || with == Some(need.as_str())
                    // What is not to be made was refused, or stands in the history table.
                    || !self.nodes.contains_key(need)
            })
        })
    }
}
