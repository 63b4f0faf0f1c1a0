//! Resolves every key from flags, environment, file and defaults.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::keys::{KEYS, Key};
use super::layout::{CatalogLayout, DomainTable, TenantTable};
use super::value::{
    choice, duration, identifier, jobs, maybe, search_path, table_name, table_names, writable_names,
};
use super::{
    Effective, Hasher, Origin, Overrides, Settings, SettingsError, UseTemplate, UserColumns,
    Variables, file,
};
use crate::domain::run_options::{Atomic, GroupLimit, OnFailure};

impl Settings {
    /// Resolves the settings for a process that runs in `folder`.
    ///
    /// # Errors
    ///
    /// [`SettingsError`], before anything has been touched.
    pub fn resolve(
        overrides: &Overrides,
        variables: Variables<'_>,
        folder: &Path,
    ) -> Result<Self, SettingsError> {
        let file = file::find(overrides.config.as_deref(), variables, folder);
        let in_file = match &file {
            Some(path) => file::read(path)?,
            None => BTreeMap::new(),
        };
        let source = Sources { overrides, variables, file: file.as_deref(), in_file: &in_file };
        let effective: Vec<Effective> = KEYS.iter().map(|key| source.effective(key)).collect();
        let root = file
            .as_deref()
            .and_then(Path::parent)
            .map_or_else(|| folder.to_path_buf(), Path::to_path_buf);
        let read = Reader { effective: &effective, root: &root, folder };
        let is_secret = ["database.url", "database.direct_url"]
            .iter()
            .filter_map(|key| in_file.get(*key))
            .any(|(address, _)| file::holds_password(address));
        if let Some(path) = file.as_ref().filter(|path| is_secret && file::others_may_read(path)) {
            return Err(SettingsError::OpenPassword(path.clone()));
        }
        Ok(Self {
            database_url: read.text("database.url").map(str::to_owned),
            direct_url: read.direct_url().map(str::to_owned),
            catalog: read.catalog()?,
            shared_dir: read.path("migrations.shared"),
            tenant_dir: read.path("migrations.tenant"),
            history_table: read.parsed("migrations.history_table", identifier)?,
            jobs: read.parsed("run.jobs", jobs)?,
            lock_timeout: read.parsed("run.lock_timeout", duration)?,
            lock_retries: read.parsed("run.lock_retries", |text| {
                text.parse().map_err(|_| "a number, such as 5".to_owned())
            })?,
            lock_wait: read.parsed("run.lock_wait", duration)?,
            statement_timeout: read.parsed("run.statement_timeout", duration)?,
            on_failure: read.parsed(
                "run.on_failure",
                choice([("stop", OnFailure::Stop), ("continue", OnFailure::Continue)]),
            )?,
            atomic: read.parsed(
                "run.atomic",
                choice([("schema", Atomic::Schema), ("migration", Atomic::Migration)]),
            )?,
            group_limit: GroupLimit {
                schemas: read.parsed("run.group_size", |text| {
                    text.parse()
                        .map(NonZeroUsize::get)
                        .map_err(|_| "a number of schemas, at least 1".to_owned())
                })?,
                time: read.parsed("run.group_time", duration)?,
            },
            template: read.parsed(
                "run.template",
                choice([("auto", UseTemplate::Auto), ("off", UseTemplate::Off)]),
            )?,
            search_path: read.parsed("run.search_path", search_path)?,
            shared_references: match read.text("catalog.shared_references") {
                Some(_) => Some(read.parsed("catalog.shared_references", table_names)?),
                None => None,
            },
            allow_writes: match read.text("guard.allow_writes") {
                Some(_) => read.parsed("guard.allow_writes", writable_names)?,
                None => Vec::new(),
            },
            users: read.users()?,
            hasher: read.parsed("users.hasher", |text| match text {
                "argon2id" => Ok(Hasher::Argon2id),
                "pbkdf2_sha256" => Ok(Hasher::Pbkdf2Sha256),
                _ => Err("'argon2id' or 'pbkdf2_sha256', which is Django's".to_owned()),
            })?,
            local_data_dir: read.path("local.data_dir"),
            file,
            root,
            dotenv: overrides.dotenv.clone(),
            effective,
        })
    }
}

/// Where values come from, the one with the highest precedence first.
struct Sources<'a> {
    overrides: &'a Overrides,
    variables: Variables<'a>,
    file: Option<&'a Path>,
    in_file: &'a BTreeMap<String, (String, usize)>,
}

impl Sources<'_> {
    fn effective(&self, key: &Key) -> Effective {
        let mut flags = self.overrides.values.iter();
        let from_flag = flags.find(|(name, ..)| *name == key.name);
        let from_flag = from_flag.map(|(_, flag, value)| (value.clone(), Origin::Flag(flag)));
        let from_environment = || {
            key.environment.iter().find_map(|&name| {
                let value = (self.variables)(name);
                let value = value.filter(|value| key.may_be_empty || !value.is_empty());
                Some((value?, self.overrides.origin_of(name)))
            })
        };
        let from_file = || {
            let (value, line) = self.in_file.get(key.name)?;
            Some((value.clone(), Origin::File(self.file?.to_path_buf(), *line)))
        };
        let (value, origin) = from_flag
            .or_else(from_environment)
            .or_else(from_file)
            .map_or((key.default.map(str::to_owned), Origin::Default), |(value, origin)| {
                (Some(value), origin)
            });
        Effective { key: key.name, value, origin }
    }
}

/// Reads typed values out of texts, with errors that name the origin.
struct Reader<'a> {
    effective: &'a [Effective],
    root: &'a Path,
    folder: &'a Path,
}

impl Reader<'_> {
    fn find(&self, key: &str) -> &Effective {
        super::find(self.effective, key)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.find(key).value.as_deref()
    }

    fn parsed<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, SettingsError> {
        let effective = self.find(key);
        let text = effective.value.as_deref().unwrap_or_default();
        parse(text).map_err(|wanted| {
            SettingsError::BadValue(
                effective.origin.clone(),
                effective.key,
                text.to_owned(),
                wanted,
            )
        })
    }

    fn direct_url(&self) -> Option<&str> {
        let [database, direct] = ["database.url", "database.direct_url"].map(|key| self.find(key));
        let is_beside = direct.origin.precedence() >= database.origin.precedence();
        direct.value.as_deref().filter(|_| is_beside)
    }

    fn catalog(&self) -> Result<CatalogLayout, SettingsError> {
        let tenants = TenantTable {
            table: self.parsed("catalog.tenant_table", table_name)?,
            id: self.parsed("catalog.id_column", identifier)?,
            schema: self.parsed("catalog.schema_column", identifier)?,
            slug: self.parsed("catalog.slug_column", maybe(identifier))?,
            name: self.parsed("catalog.name_column", maybe(identifier))?,
            created: self.parsed("catalog.created_column", maybe(identifier))?,
        };
        // One column cannot be written twice.
        let mut known = vec![tenants.id.clone(), tenants.schema.clone()];
        for (key, column) in [
            ("catalog.slug_column", &tenants.slug),
            ("catalog.name_column", &tenants.name),
            ("catalog.created_column", &tenants.created),
        ] {
            let Some(column) = column else { continue };
            if known.contains(column) {
                return self.parsed(key, |_| {
                    Err("a column that no other key names, or \"\" where there is none".to_owned())
                });
            }
            known.push(column.clone());
        }
        let domains = match self.parsed("catalog.domain_table", maybe(table_name))? {
            Some(table) => Some(DomainTable {
                table,
                id: self.parsed("catalog.domain_id_column", identifier)?,
                domain: self.parsed("catalog.domain_column", identifier)?,
                tenant: self.parsed("catalog.domain_tenant_column", identifier)?,
                primary: self.parsed("catalog.domain_primary_column", maybe(identifier))?,
            }),
            None => None,
        };
        let schema_prefix = self.parsed("catalog.schema_prefix", |text| Ok(text.to_owned()))?;
        Ok(CatalogLayout { tenants, domains, schema_prefix })
    }

    fn users(&self) -> Result<UserColumns, SettingsError> {
        Ok(UserColumns {
            table: self.parsed("users.table", identifier)?,
            username: self.parsed("users.username", identifier)?,
            password: self.parsed("users.password", identifier)?,
            email: self.parsed("users.email", identifier)?,
            is_superuser: self.parsed("users.is_superuser", identifier)?,
            is_staff: self.parsed("users.is_staff", identifier)?,
            is_active: self.parsed("users.is_active", identifier)?,
            joined_at: self.parsed("users.joined_at", identifier)?,
        })
    }

    /// Paths of a file are relative to the file, those of flags and environment to the current folder.
    fn path(&self, key: &str) -> PathBuf {
        let effective = self.find(key);
        let base = match &effective.origin {
            Origin::File(..) | Origin::Default => self.root,
            Origin::DotEnv(path, _) => path.parent().unwrap_or(self.folder),
            Origin::Environment(_) | Origin::Flag(_) => self.folder,
        };
        base.join(effective.value.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{FILE_NAME, Jobs};
    use super::*;

    fn folder(content: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join(FILE_NAME), content).expect("writable");
        folder
    }

    fn resolve(
        content: &str,
        variables: &[(&str, &str)],
        overrides: &Overrides,
    ) -> Result<Settings, String> {
        let folder = folder(content);
        let lookup = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::resolve(overrides, &lookup, folder.path())
            .map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "DIR"))
    }

    fn refused(content: &str, variables: &[(&str, &str)]) -> String {
        resolve(content, variables, &Overrides::default()).expect_err(content)
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let mut flags = Overrides::default();
        let content = "[run]\njobs = 4\nlock_timeout = \"3s\"\n";
        let settings = resolve(content, &[("PRICESYNC_JOBS", "6")], &flags).expect("fine");
        assert_eq!(settings.jobs, Jobs::Fixed(NonZeroUsize::new(6).expect("not 0")));
        assert_eq!(settings.lock_timeout, Duration::from_secs(3));
        assert_eq!(settings.lock_wait, Duration::from_mins(1));
        flags.set("run.jobs", "--jobs", Some("8"));
        let settings = resolve(content, &[("PRICESYNC_JOBS", "6")], &flags).expect("fine");
        assert_eq!(settings.jobs, Jobs::Fixed(NonZeroUsize::new(8).expect("not 0")));
        let origin =
            |key| settings.effective().iter().find(|e| e.key == key).map(|e| e.origin.to_string());
        assert_eq!(origin("run.jobs").as_deref(), Some("--jobs"));
        assert_eq!(origin("run.lock_wait").as_deref(), Some("default"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_a_similar_one() {
        assert_eq!(
            refused("[run]\njobs = 1\nlock_timeot = \"1s\"\n", &[]),
            "DIR/pricesync.toml:3: unknown key 'run.lock_timeot'; did you mean 'run.lock_timeout'?"
        );
        assert_eq!(
            refused("[runs]\njobs = 1\n", &[]),
            "DIR/pricesync.toml:1: unknown key 'runs'; did you mean 'run'?"
        );
    }

    #[test]
    fn a_bad_value_names_file_line_and_what_is_expected() {
        assert_eq!(
            refused("[run]\n\njobs = \"many\"\n", &[]),
            "DIR/pricesync.toml:3: run.jobs = 'many' is invalid: expected 'auto' or a number from 1 to 1000"
        );
        assert_eq!(
            refused("[run]\n", &[("PRICESYNC_LOCK_WAIT", "soon")]),
            "$PRICESYNC_LOCK_WAIT: run.lock_wait = 'soon' is invalid: expected a time such as 500ms, 2s, 5m or 0"
        );
        let broken = refused("[run\n", &[]);
        assert!(broken.starts_with("DIR/pricesync.toml:1: not valid TOML: "), "{broken}");
    }

    #[test]
    fn columns_have_other_names_or_are_missing() {
        let settings = resolve(
            "[catalog]\ntenant_table = \"crm.Client\"\nschema_column = \"Sub domain\"\nslug_column = \"\"\ndomain_table = \"\"\nschema_prefix = \"\"\n",
            &[],
            &Overrides::default(),
        );
        let catalog = settings.expect("fine").catalog;
        assert_eq!(catalog.tenants.table.to_string(), "crm.Client");
        assert_eq!(catalog.tenants.schema, "Sub domain");
        assert_eq!((catalog.tenants.slug, catalog.domains), (None, None));
        let standard = resolve("", &[], &Overrides::default());
        assert_eq!(standard.expect("fine").catalog, CatalogLayout::default());
        assert_eq!(
            refused("[catalog]\nslug_column = \"schema_name\"\n", &[]),
            "DIR/pricesync.toml:2: catalog.slug_column = 'schema_name' is invalid: expected a column that no other key names, or \"\" where there is none"
        );
        assert!(resolve("[catalog]\nid_column = \"\"\n", &[], &Overrides::default()).is_err());
        let variables = [
            ("PRICESYNC_SLUG_COLUMN", ""),
            ("PRICESYNC_SCHEMA_PREFIX", ""),
            ("PRICESYNC_SHARED_REFERENCES", ""),
            ("PRICESYNC_ID_COLUMN", ""),
        ];
        let settings = resolve("", &variables, &Overrides::default()).expect("fine");
        assert_eq!(settings.catalog.tenants.slug, None);
        assert_eq!(settings.catalog.schema_prefix, "");
        assert_eq!(settings.catalog.tenants.id, "id");
        assert_eq!(settings.shared_references, Some(Vec::new()));
    }

    #[test]
    fn a_direct_url_is_used_only_with_the_database_next_to_it() {
        let content = "[database]\nurl = \"host=pooler\"\ndirect_url = \"host=direct\"\n";
        let direct = |variables: &[(&str, &str)], flags: &Overrides| {
            let settings = resolve(content, variables, flags).expect("fine");
            settings.direct_url
        };
        let mut flags = Overrides::default();
        assert_eq!(direct(&[], &flags).as_deref(), Some("host=direct"));
        let url = ("DATABASE_URL", "host=staging");
        assert_eq!(direct(&[url], &flags), None);
        let past = ("PRICESYNC_DIRECT_URL", "host=past");
        assert_eq!(direct(&[url, past], &flags).as_deref(), Some("host=past"));
        assert_eq!(direct(&[past], &flags).as_deref(), Some("host=past"));
        flags.set("database.url", "--local", Some("local"));
        assert_eq!(direct(&[url, past], &flags), None);
    }

    #[test]
    fn paths_of_the_file_start_at_the_file() {
        let folder = folder("[migrations]\ntenant = \"db/tenant\"\n");
        let below = folder.path().join("a/b");
        std::fs::create_dir_all(&below).expect("writable");
        let settings =
            Settings::resolve(&Overrides::default(), &|_| None, &below).expect("found upwards");
        assert_eq!(settings.tenant_dir, folder.path().join("db/tenant"));
        assert_eq!(settings.file, Some(folder.path().join(FILE_NAME)));
    }

    #[cfg(unix)]
    #[test]
    fn a_password_in_a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = folder("[database]\nurl = \"postgresql://app:secret@db/x\"\n");
        let path = folder.path().join(FILE_NAME);
        let mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
        };
        mode(0o644);
        let refused = || {
            let settings = Settings::resolve(&Overrides::default(), &|_| None, folder.path());
            matches!(settings, Err(SettingsError::OpenPassword(_)))
        };
        assert!(refused());
        for address in [
            "direct_url = \"postgresql://app:secret@db/x\"",
            "url = \"host=db user=app password = secret\"",
        ] {
            std::fs::write(&path, format!("[database]\n{address}\n")).expect("ours");
            assert!(refused(), "{address}");
        }
        mode(0o600);
        let settings =
            Settings::resolve(&Overrides::default(), &|_| None, folder.path()).expect("closed");
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
