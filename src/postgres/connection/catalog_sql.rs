//! SQL for the configured catalog tables, with the column names that every query uses.

use postgres_protocol::escape::escape_literal;

use crate::domain::schema_name::{DROPPING_PREFIX, QuotedIdentifier};
use crate::domain::tenant::{NewTenant, Tenant, TenantId};
use crate::settings::{CatalogLayout, TableName};

/// SQL for the catalog tables and their columns, quoted.
///
/// Queries read `rows` and `hosts`, sub-selects with the columns of the shipped tables, which the planner
/// flattens. Writes use the tables themselves.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// The tenants: `id`, `schema_name`, `slug` (the schema's name where the row has none),
    /// `given_slug` (as the row has it), `name`, `created_at` (without a zone, in UTC).
    pub(crate) rows: String,
    /// Their hosts: `id`, `domain`, `is_primary`, `tenant_id`; no row where no table keeps them.
    pub(crate) hosts: String,
    /// The tenant table.
    pub(crate) tenants: String,
    /// The id column of the tenant table.
    pub(crate) id: String,
    /// The schema column of the tenant table.
    pub(crate) schema: String,
    slug: Option<String>,
    name: Option<String>,
    pub(crate) created: Option<String>,
    /// The table of hosts.
    pub(crate) domains: Option<Domains>,
    /// The schema of the tenant table, in which `--where` looks up other names.
    pub(crate) home: String,
}

/// The table of hosts and its columns.
#[derive(Clone, Debug)]
pub(crate) struct Domains {
    pub(crate) table: String,
    pub(crate) id: String,
    pub(crate) domain: String,
    pub(crate) tenant: String,
    pub(crate) primary: Option<String>,
}

impl Tables {
    pub(crate) fn new(layout: &CatalogLayout) -> Self {
        let column = |name: &String| QuotedIdentifier::new(name).to_string();
        let of = &layout.tenants;
        let (id, schema) = (column(&of.id), column(&of.schema));
        let [slug, name, created] =
            [&of.slug, &of.name, &of.created].map(|maybe| maybe.as_ref().map(column));
        let tenants = quoted(&of.table);
        let domains = layout.domains.as_ref().map(|domains| Domains {
            table: quoted(&domains.table),
            id: column(&domains.id),
            domain: column(&domains.domain),
            tenant: column(&domains.tenant),
            primary: domains.primary.as_ref().map(column),
        });
        let slug_value = slug.as_ref().map_or_else(
            || {
                let prefix = &layout.schema_prefix;
                let length = prefix.chars().count();
                format!(
                    "CASE WHEN starts_with(c.{schema}::text, {}) AND length(c.{schema}::text) > {length} \
                     THEN substr(c.{schema}::text, {}) ELSE c.{schema}::text END",
                    escape_literal(prefix),
                    length + 1
                )
            },
            // The column may be NULL or empty, and every tenant needs a name.
            |slug| format!("coalesce(nullif(c.{slug}::text, ''), c.{schema}::text)"),
        );
        // The bare column, so that an index on it can be used.
        let given_slug =
            slug.as_ref().map_or_else(|| slug_value.clone(), |slug| format!("c.{slug}::text"));
        let name_value = name
            .as_ref()
            .map_or_else(|| slug_value.clone(), |name| format!("coalesce(c.{name}::text, '')"));
        // A time without a zone is UTC.
        let created_value = created.as_ref().map_or_else(
            || "NULL::timestamp".to_owned(),
            |created| {
                format!(
                    "CASE WHEN pg_typeof(c.{created}) = 'timestamptz'::regtype \
                     THEN c.{created}::timestamptz AT TIME ZONE 'UTC' ELSE c.{created}::timestamp END"
                )
            },
        );
        let rows = format!(
            "(SELECT c.{id} AS id, c.{schema}::text AS schema_name, {slug_value} AS slug, {given_slug} AS given_slug, {name_value} AS name, \
             {created_value} AS created_at FROM {tenants} c)"
        );
        let hosts = match &domains {
            Some(Domains { table, id, domain, tenant, primary }) => {
                let primary = match primary {
                    Some(primary) => format!("c.{primary}"),
                    None => "false".to_owned(),
                };
                format!(
                    "(SELECT c.{id} AS id, c.{domain}::text AS domain, {primary} AS is_primary, c.{tenant} AS tenant_id FROM {table} c)"
                )
            }
            None => format!(
                "(SELECT c.{id} AS id, ''::text AS domain, false AS is_primary, c.{id} AS tenant_id FROM {tenants} c WHERE false)"
            ),
        };
        Self {
            rows,
            hosts,
            home: QuotedIdentifier::new(&of.table.schema).to_string(),
            id,
            schema,
            slug,
            name,
            created,
            tenants,
            domains,
        }
    }

    /// Returns whether a key in an error detail, such as `Key (lower(slug::text)`, is on the schema.
    pub(crate) fn is_schema_key(&self, key: &str) -> bool {
        names(key, Some(&self.schema))
    }

    /// Returns whether the key is on the slug.
    pub(crate) fn is_slug_key(&self, key: &str) -> bool {
        names(key, self.slug.as_ref())
    }

    /// Returns whether the key is on the host.
    pub(crate) fn is_host_key(&self, key: &str) -> bool {
        names(key, self.domains.as_ref().map(|domains| &domains.domain))
    }

    /// Returns the statement that inserts a tenant with its hosts and returns its id.
    pub(crate) fn insert(&self, new: &NewTenant) -> String {
        let mut cells = self.naming(new);
        cells.extend(self.created.iter().map(|column| (column.clone(), "now()".to_owned())));
        for (column, value) in assignments(new) {
            // A value that was given wins over ours.
            cells.retain(|(name, _)| *name != column);
            cells.push((column, value));
        }
        let (columns, values): (Vec<_>, Vec<_>) = cells.into_iter().unzip();
        let (columns, values) = (columns.join(", "), values.join(", "));
        let tenant = format!(
            "INSERT INTO {} ({columns}) VALUES ({values}) RETURNING {} AS id",
            self.tenants, self.id
        );
        match self.insert_hosts(new) {
            Some(hosts) => format!("WITH t AS ({tenant}), d AS ({hosts}) SELECT id::text FROM t"),
            None => tenant,
        }
    }

    /// Returns the columns that identify a tenant's row and their values, both quoted.
    pub(crate) fn naming(&self, new: &NewTenant) -> Vec<(String, String)> {
        let slug = self.slug.iter().map(|column| (column, new.slug.as_str()));
        let name = self.name.iter().map(|column| (column, new.name.as_str()));
        let schema = std::iter::once((&self.schema, new.schema.as_str()));
        schema
            .chain(slug)
            .chain(name)
            .map(|(column, value)| (column.clone(), escape_literal(value)))
            .collect()
    }

    /// Returns the statement that inserts a tenant's hosts, the first as the primary one, with the
    /// tenant's id from `t`; `None` without hosts.
    pub(crate) fn insert_hosts(&self, new: &NewTenant) -> Option<String> {
        let domains = self.domains.as_ref().filter(|_| !new.hostnames.is_empty())?;
        let hosts: Vec<String> = new
            .hostnames
            .iter()
            .enumerate()
            .map(|(position, host)| {
                let is_primary = position == 0;
                format!("({position}, {}, {is_primary})", escape_literal(host.as_str()))
            })
            .collect();
        let (column, value) = match &domains.primary {
            Some(primary) => (format!(", {primary}"), ", v.is_primary"),
            None => (String::new(), ""),
        };
        Some(format!(
            "INSERT INTO {} ({}, {}{column}) \
             SELECT v.domain, t.id{value} FROM t, (VALUES {}) v (place, domain, is_primary) ORDER BY v.place",
            domains.table,
            domains.domain,
            domains.tenant,
            hosts.join(", ")
        ))
    }

    /// Returns the statement that updates schema, slug and name of a tenant's row where they differ;
    /// `None` where none does.
    pub(crate) fn update(&self, old: &Tenant, new: &NewTenant) -> Option<String> {
        let parts = [
            (Some(&self.schema), old.schema.as_str(), new.schema.as_str()),
            (self.slug.as_ref(), old.slug.as_str(), new.slug.as_str()),
            (self.name.as_ref(), &*old.name, &*new.name),
        ];
        let set: Vec<String> = parts
            .into_iter()
            .filter(|(_, old, new)| old != new)
            .filter_map(|(column, _, new)| Some(format!("{} = {}", column?, escape_literal(new))))
            .collect();
        (!set.is_empty()).then(|| {
            format!(
                "UPDATE {} SET {} WHERE {} = {}",
                self.tenants,
                set.join(", "),
                self.id,
                id_literal(&old.id)
            )
        })
    }

    /// Returns the statements that delete a tenant's row and its hosts.
    pub(crate) fn delete(&self, id: &TenantId) -> String {
        let id = id_literal(id);
        let tenant = format!("DELETE FROM {} WHERE {} = {id}", self.tenants, self.id);
        match &self.domains {
            Some(domains) => {
                format!("DELETE FROM {} WHERE {} = {id}; {tenant}", domains.table, domains.tenant)
            }
            None => tenant,
        }
    }
}

/// Returns the further columns of a new tenant and their values, both quoted.
pub(crate) fn assignments(new: &NewTenant) -> impl Iterator<Item = (String, String)> {
    let quoted = |(column, value): &(String, String)| {
        (QuotedIdentifier::new(column).to_string(), escape_literal(value))
    };
    new.columns.iter().map(quoted)
}

/// Returns an id as a literal without a type.
pub(crate) fn id_literal(id: &TenantId) -> String {
    escape_literal(id.as_str())
}

/// Returns the expression for [`SchemaName::dropping`] of the id in a column.
pub(crate) fn dropping(id: &str) -> String {
    format!(
        "('{DROPPING_PREFIX}' || CASE WHEN {id}::text COLLATE \"C\" ~ '^[A-Za-z0-9_-]{{1,44}}$' THEN {id}::text \
         ELSE left(encode(sha256(convert_to({id}::text, 'UTF8')), 'hex'), 40) END)"
    )
}

/// Returns whether a key contains a column; the server quotes names only where necessary.
fn names(key: &str, column: Option<&String>) -> bool {
    column.is_some_and(|column| key.contains(column) || key.contains(column.trim_matches('"')))
}

/// Returns a table's name, quoted for SQL.
fn quoted(table: &TableName) -> String {
    format!("{}.{}", QuotedIdentifier::new(&table.schema), QuotedIdentifier::new(&table.table))
}

/// Returns the query for tenants whose schema is missing, and whether an unfinished drop is the reason.
pub(crate) fn select_missing(tenants: &str) -> String {
    let there = |name: &str| {
        format!("EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname::text = {name})")
    };
    format!(
        "SELECT t.schema_name, {} FROM {tenants} t WHERE NOT {}",
        there(&dropping("t.id")),
        there("t.schema_name::text")
    )
}
