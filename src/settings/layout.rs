//! Names of the tables and columns of the tenant catalog.

use super::TableName;

/// The tables and columns of the catalog; by default those of `migrations/shared`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogLayout {
    /// The tenants.
    pub tenants: TenantTable,
    /// Their hosts; `None` if the database stores no hosts.
    pub domains: Option<DomainTable>,
    /// The part of a schema's name before the slug.
    pub schema_prefix: String,
}

/// The table with a row for each tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantTable {
    /// The table.
    pub table: TableName,
    /// The column with the primary key, of any type.
    pub id: String,
    /// The column with the name of the schema.
    pub schema: String,
    /// The column with the slug; `None` if the slug is the schema's name without the prefix.
    pub slug: Option<String>,
    /// The column with the display name.
    pub name: Option<String>,
    /// The column with the time of creation: a date or a timestamp, with or without time zone.
    pub created: Option<String>,
}

/// The table with a row for each host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainTable {
    /// The table.
    pub table: TableName,
    /// The column with the primary key, by which hosts are ordered.
    pub id: String,
    /// The column with the host.
    pub domain: String,
    /// The column that refers to the tenant's id.
    pub tenant: String,
    /// The boolean column that marks the tenant's primary host.
    pub primary: Option<String>,
}

impl Default for CatalogLayout {
    fn default() -> Self {
        let table = |name: &str| TableName { schema: "public".to_owned(), table: name.to_owned() };
        Self {
            tenants: TenantTable {
                table: table("tenants_tenant"),
                id: "id".to_owned(),
                schema: "schema_name".to_owned(),
                slug: Some("slug".to_owned()),
                name: Some("name".to_owned()),
                created: Some("created_at".to_owned()),
            },
            domains: Some(DomainTable {
                table: table("tenants_domain"),
                id: "id".to_owned(),
                domain: "domain".to_owned(),
                tenant: "tenant_id".to_owned(),
                primary: Some("is_primary".to_owned()),
            }),
            schema_prefix: "tenant_".to_owned(),
        }
    }
}

impl CatalogLayout {
    /// Returns the slug of a schema for catalogs without a column for it.
    pub fn slug_of<'a>(&self, schema: &'a str) -> &'a str {
        match schema.strip_prefix(&self.schema_prefix) {
            Some(rest) if !rest.is_empty() => rest,
            _ => schema,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_what_follows_the_prefix() {
        let layout = CatalogLayout::default();
        assert_eq!(layout.slug_of("tenant_acme"), "acme");
        assert_eq!(layout.slug_of("acme"), "acme");
        assert_eq!(layout.slug_of("tenant_"), "tenant_");
    }
}
