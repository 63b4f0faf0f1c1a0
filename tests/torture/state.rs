//! What a database holds, as the server itself reports it.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::query::query;

/// Everything about relations, columns, constraints, indexes and functions of the schemas that are not the
/// server's, nor the program's records.
const LINES: &str = "\
WITH ns AS (SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'pricesync'))
SELECT nspname, concat_ws(' ', 'schema', obj_description(oid, 'pg_namespace')) FROM ns
UNION ALL SELECT nspname, format('%s %s', relkind, relname) FROM pg_class c JOIN ns ON c.relnamespace = ns.oid
UNION ALL SELECT nspname, format('column %s.%s %s %s %s', relname, attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid))
  FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN ns ON c.relnamespace = ns.oid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE attnum > 0 AND NOT attisdropped
UNION ALL SELECT nspname, format('constraint %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(k.oid)) FROM pg_constraint k JOIN ns ON connamespace = ns.oid
UNION ALL SELECT nspname, format('index %s %s', pg_get_indexdef(indexrelid), indisvalid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN ns ON c.relnamespace = ns.oid
UNION ALL SELECT nspname, format('function %s %s', proname, md5(prosrc)) FROM pg_proc JOIN ns ON pronamespace = ns.oid
ORDER BY 1, 2";

/// For each table a query that brings its schema and what is to be known of its rows.
const ROWS: &str = "\
SELECT format(CASE relname WHEN 'refinery_schema_history' THEN 'SELECT %L, concat_ws('' '', ''history'', version, name, checksum) FROM %I.%I'
  WHEN 'tenants_tenant' THEN 'SELECT %L, concat_ws('' '', ''tenant'', slug, schema_name) FROM %I.%I'
  WHEN 'tenants_domain' THEN 'SELECT %L, concat_ws('' '', ''domain'', domain, is_primary) FROM %I.%I'
  ELSE 'SELECT %L, ''rows ' || relname || ' '' || count(*) FROM %I.%I' END, nspname, nspname, relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'pricesync')
UNION ALL SELECT 'SELECT ''pricesync'', ''unfinished script '' || script FROM pricesync.unfinished_script' WHERE to_regclass('pricesync.unfinished_script') IS NOT NULL";

/// The schemas of a database, each with its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State(BTreeMap<String, Vec<String>>);

impl State {
    /// Reads it when no other session is left: what a backend still does for a client that is gone counts.
    pub(crate) fn settled(url: &str) -> Self {
        const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        let deadline = Instant::now() + Duration::from_mins(5);
        while query(url, OTHERS).unwrap()[0][0].as_deref() != Some("0") {
            assert!(Instant::now() < deadline, "sessions stay in {url}");
            thread::sleep(Duration::from_millis(10));
        }
        Self::of(url)
    }

    fn of(url: &str) -> Self {
        let mut state = BTreeMap::<String, Vec<String>>::new();
        let mut add = |rows: Vec<Vec<Option<String>>>| {
            for row in rows {
                let [Some(schema), Some(line)] = &row[..] else {
                    panic!("two columns: {row:?}");
                };
                state.entry(schema.clone()).or_default().push(line.clone());
            }
        };
        add(query(url, LINES).unwrap());
        let tables = query(url, ROWS).unwrap();
        let tables: Vec<String> = tables.into_iter().flatten().flatten().collect();
        if !tables.is_empty() {
            let rows = format!("{} ORDER BY 1, 2", tables.join(" UNION ALL "));
            add(query(url, &rows).unwrap());
        }
        Self(state)
    }

    /// Returns whether a schema is the same in both.
    pub(crate) fn agrees(&self, other: &Self, schema: &str) -> bool {
        self.0.get(schema) == other.0.get(schema)
    }

    /// Returns the names of the schemas of either.
    pub(crate) fn schemas<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a String> {
        let mut names: Vec<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter()
    }

    /// Returns the first line that only one of the two has.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let lacks = |one: &Self, two: &Self, mark: &str| {
            one.0.iter().find_map(|(schema, lines)| {
                let empty = Vec::new();
                let known = two.0.get(schema).unwrap_or(&empty);
                let line = lines.iter().find(|line| !known.contains(line))?;
                Some(format!("{mark} {schema}: {line}"))
            })
        };
        let counts = || (self != other).then(|| "different in number".to_owned());
        lacks(self, other, "too much in")
            .or_else(|| lacks(other, self, "missing in"))
            .or_else(counts)
    }
}
