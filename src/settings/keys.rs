//! Every key of the configuration, with its variables and its default.

/// One key of the configuration.
pub(super) struct Key {
    /// `section.name`, as in the file.
    pub(super) name: &'static str,
    /// Environment variables that set it, in order of precedence.
    pub(super) environment: &'static [&'static str],
    /// The default; `None` where there is none.
    pub(super) default: Option<&'static str>,
    /// Whether the empty text is a value, meaning "none"; for other keys an empty variable is ignored.
    pub(super) may_be_empty: bool,
}

impl Key {
    const fn or_empty(self) -> Self {
        Self { may_be_empty: true, ..self }
    }
}

pub(super) const KEYS: &[Key] = &[
    key("database.url", &["PRICESYNC_DATABASE_URL", "DATABASE_URL"], None),
    key("database.direct_url", &["PRICESYNC_DIRECT_URL"], None),
    key("catalog.tenant_table", &["PRICESYNC_TENANT_TABLE"], Some("public.tenants_tenant")),
    key("catalog.domain_table", &["PRICESYNC_DOMAIN_TABLE"], Some("public.tenants_domain"))
        .or_empty(),
    key("catalog.id_column", &["PRICESYNC_ID_COLUMN"], Some("id")),
    key("catalog.schema_column", &["PRICESYNC_SCHEMA_COLUMN"], Some("schema_name")),
    key("catalog.slug_column", &["PRICESYNC_SLUG_COLUMN"], Some("slug")).or_empty(),
    key("catalog.name_column", &["PRICESYNC_NAME_COLUMN"], Some("name")).or_empty(),
    key("catalog.created_column", &["PRICESYNC_CREATED_COLUMN"], Some("created_at")).or_empty(),
    key("catalog.domain_id_column", &["PRICESYNC_DOMAIN_ID_COLUMN"], Some("id")),
    key("catalog.domain_column", &["PRICESYNC_DOMAIN_COLUMN"], Some("domain")),
    key("catalog.domain_tenant_column", &["PRICESYNC_DOMAIN_TENANT_COLUMN"], Some("tenant_id")),
    key("catalog.domain_primary_column", &["PRICESYNC_DOMAIN_PRIMARY_COLUMN"], Some("is_primary"))
        .or_empty(),
    key("catalog.shared_references", &["PRICESYNC_SHARED_REFERENCES"], None).or_empty(),
    key("catalog.schema_prefix", &["PRICESYNC_SCHEMA_PREFIX"], Some("tenant_")).or_empty(),
    key("migrations.shared", &["PRICESYNC_MIGRATIONS_SHARED"], Some("migrations/shared")),
    key("migrations.tenant", &["PRICESYNC_MIGRATIONS_TENANT"], Some("migrations/tenant")),
    key("migrations.history_table", &["PRICESYNC_HISTORY_TABLE"], Some("refinery_schema_history")),
    key("run.jobs", &["PRICESYNC_JOBS"], Some("auto")),
    key("run.lock_timeout", &["PRICESYNC_LOCK_TIMEOUT"], Some("2s")),
    key("run.lock_retries", &["PRICESYNC_LOCK_RETRIES"], Some("5")),
    key("run.lock_wait", &["PRICESYNC_LOCK_WAIT"], Some("60s")),
    key("run.statement_timeout", &["PRICESYNC_STATEMENT_TIMEOUT"], Some("0")),
    key("run.on_failure", &["PRICESYNC_ON_FAILURE"], Some("stop")),
    key("run.atomic", &["PRICESYNC_ATOMIC"], Some("schema")),
    key("run.group_time", &["PRICESYNC_GROUP_TIME"], Some("50ms")),
    key("run.group_size", &["PRICESYNC_GROUP_SIZE"], Some("16")),
    key("run.template", &["PRICESYNC_TEMPLATE"], Some("auto")),
    key("run.search_path", &["PRICESYNC_SEARCH_PATH"], Some("public")),
    key("guard.allow_writes", &["PRICESYNC_GUARD_ALLOW_WRITES"], None).or_empty(),
    key("users.table", &["PRICESYNC_USERS_TABLE"], Some("users")),
    key("users.username", &["PRICESYNC_USERS_USERNAME"], Some("username")),
    key("users.email", &["PRICESYNC_USERS_EMAIL"], Some("email")),
    key("users.password", &["PRICESYNC_USERS_PASSWORD"], Some("password")),
    key("users.is_superuser", &["PRICESYNC_USERS_IS_SUPERUSER"], Some("is_superuser")),
    key("users.is_staff", &["PRICESYNC_USERS_IS_STAFF"], Some("is_staff")),
    key("users.is_active", &["PRICESYNC_USERS_IS_ACTIVE"], Some("is_active")),
    key("users.joined_at", &["PRICESYNC_USERS_JOINED_AT"], Some("date_joined")),
    key("users.hasher", &["PRICESYNC_USERS_HASHER"], Some("argon2id")),
    key("local.data_dir", &["PRICESYNC_LOCAL_DATA_DIR"], Some(".pricesync/postgres")),
];

const fn key(
    name: &'static str,
    environment: &'static [&'static str],
    default: Option<&'static str>,
) -> Key {
    Key { name, environment, default, may_be_empty: false }
}

/// Returns the key that looks most like `name`; a name without a dot is taken for a section.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    KEYS.iter()
        .filter_map(
            |key| {
                if name.contains('.') { Some(key.name) } else { key.name.split('.').next() }
            },
        )
        .map(|candidate| (strsim::jaro_winkler(candidate, name), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
