//! The shipped migration files, and projects that contain them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// One file of the tenant set.
pub(crate) struct File {
    /// The version.
    pub(crate) version: u32,
    /// The name without version and extension.
    pub(crate) name: String,
    /// The text.
    pub(crate) text: String,
}

/// A typical new file: a column without a default, and an index.
const NEW_FILE: &str = "ALTER TABLE products ADD COLUMN weight_grams integer;\n\
    CREATE INDEX products_weight_idx ON products (weight_grams);\n";

/// The new file for schemas that contain only a history.
const NEW_TABLE: &str = "CREATE TABLE notes (id bigint PRIMARY KEY, body text);\n";

/// Project folders with a `pricesync.toml` and migrations.
pub(crate) struct Projects {
    root: PathBuf,
}

impl Projects {
    /// Writes the projects into an empty folder.
    pub(crate) fn write(root: PathBuf) -> Result<Self> {
        let new = [("shipped", None), ("new-file", Some(NEW_FILE)), ("new-table", Some(NEW_TABLE))];
        for (name, extra) in new {
            let project = root.join(name);
            copy(&migrations(), &project.join("migrations"))?;
            fs::write(project.join("pricesync.toml"), "")?;
            if let Some(sql) = extra {
                let version = tenant_files()?.last().map_or(0, |file| file.version) + 1;
                let file = format!("migrations/tenant/V{version}__new.sql");
                fs::write(project.join(file), sql)?;
            }
        }
        let aged = root.join("aged");
        copy(&migrations(), &aged.join("migrations"))?;
        fs::write(aged.join("pricesync.toml"), "")?;
        for file in later_files()? {
            let name = format!("migrations/tenant/V{}__{}.sql", file.version, file.name);
            fs::write(aged.join(name), file.text)?;
        }
        Ok(Self { root })
    }

    /// Returns the project with the shipped files.
    pub(crate) fn shipped(&self) -> PathBuf {
        self.root.join("shipped")
    }

    /// Returns the project with forty later files.
    pub(crate) fn aged(&self) -> PathBuf {
        self.root.join("aged")
    }

    /// Returns the project with one more file.
    pub(crate) fn with_new_file(&self) -> PathBuf {
        self.root.join("new-file")
    }

    /// Returns the project with one more file, which does not need earlier tables.
    pub(crate) fn with_new_table(&self) -> PathBuf {
        self.root.join("new-table")
    }

    /// Returns a folder for other tools.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let dir = self.root.join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

/// Returns the new file of [`Projects::with_new_file`], for other tools.
pub(crate) fn new_file() -> Result<File> {
    Ok(File {
        version: tenant_files()?.last().map_or(0, |file| file.version) + 1,
        name: "new".to_owned(),
        text: NEW_FILE.to_owned(),
    })
}

/// Returns the shipped tenant files in order.
pub(crate) fn tenant_files() -> Result<Vec<File>> {
    let mut files = Vec::new();
    gather(&migrations().join("tenant"), &mut files)?;
    files.sort_by_key(|file| file.version);
    Ok(files)
}

/// Returns the shipped files and the later ones of [`Projects::aged`].
pub(crate) fn aged_files() -> Result<Vec<File>> {
    let mut files = tenant_files()?;
    files.extend(later_files()?);
    Ok(files)
}

/// Generates later files: columns are added, indexed and changed, and half of them are dropped.
fn later_files() -> Result<Vec<File>> {
    let newest = tenant_files()?.last().map_or(0, |file| file.version);
    let tables = ["users", "products", "price_history", "subscriptions"];
    Ok((1..=40)
        .map(|number: u32| {
            let column = (number - 1) / 4;
            let table = tables[column as usize % tables.len()];
            let text = match number % 4 {
                1 => format!("ALTER TABLE {table} ADD COLUMN later_{column} integer;\n"),
                2 => format!(
                    "CREATE INDEX {table}_later_{column}_idx ON {table} (later_{column});\n"
                ),
                3 => format!("ALTER TABLE {table} ALTER COLUMN later_{column} TYPE bigint;\n"),
                _ if column.is_multiple_of(2) => {
                    format!("ALTER TABLE {table} DROP COLUMN later_{column};\n")
                }
                _ => format!("ALTER TABLE {table} ALTER COLUMN later_{column} SET DEFAULT 0;\n"),
            };
            File { version: newest + number, name: format!("later_{number}"), text }
        })
        .collect())
}

fn migrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")
}

fn gather(dir: &Path, files: &mut Vec<File>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            gather(&path, files)?;
            continue;
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let (version, name) = stem
            .strip_prefix('V')
            .and_then(|rest| rest.split_once("__"))
            .with_context(|| format!("{} is not a migration", path.display()))?;
        files.push(File {
            version: version.parse()?,
            name: name.to_owned(),
            text: fs::read_to_string(&path)?,
        });
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("an entry has a name")?);
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
