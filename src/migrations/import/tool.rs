//! The other tools, and in what they differ.

use std::path::Path;

use super::names::{Version, named};

/// A tool whose migrations can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Flyway: `V1.1__add_users.sql`, `U1.1__add_users.sql`.
    Flyway,
    /// golang-migrate: `1_add_users.up.sql`, `1_add_users.down.sql`.
    GolangMigrate,
    /// dbmate: `20261201120000_add_users.sql` with `-- migrate:up` and `-- migrate:down`.
    Dbmate,
    /// goose: `00001_add_users.sql` with `-- +goose Up` and `-- +goose Down`.
    Goose,
    /// sqlx: `1_add_users.sql`, or `1_add_users.up.sql` and `1_add_users.down.sql`.
    Sqlx,
    /// diesel: `2026-12-01-120000_add_users/up.sql` and `down.sql`.
    Diesel,
    /// refinery: `V1__add_users.sql`, the same files as ours.
    Refinery,
    /// node-pg-migrate: `1700000000000_add-users.sql` with `-- Up Migration` and `-- Down Migration`.
    NodePgMigrate,
}

impl Tool {
    /// Every tool, in the order of the help.
    pub const ALL: [Self; 8] = [
        Self::Flyway,
        Self::GolangMigrate,
        Self::Dbmate,
        Self::Goose,
        Self::Sqlx,
        Self::Diesel,
        Self::Refinery,
        Self::NodePgMigrate,
    ];

    /// Returns its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flyway => "flyway",
            Self::GolangMigrate => "golang-migrate",
            Self::Dbmate => "dbmate",
            Self::Goose => "goose",
            Self::Sqlx => "sqlx",
            Self::Diesel => "diesel",
            Self::Refinery => "refinery",
            Self::NodePgMigrate => "node-pg-migrate",
        }
    }

    /// Returns how the tool's history names the version of a file.
    pub(super) fn key(self, path: &Path) -> Option<String> {
        let stem = || Some(path.file_stem()?.to_str()?.to_owned());
        match self {
            Self::NodePgMigrate => stem(),
            _ => Some(named(self, path).ok()??.version.to_string()),
        }
    }

    /// Returns a version of the tool's history as [`Self::key`] writes it: Flyway's 1.0 is 1, dbmate's
    /// 001 is 1.
    pub(super) fn normal(self, version: &str) -> String {
        match self {
            Self::NodePgMigrate => version.to_owned(),
            _ => Version::parse(version).map_or_else(|| version.to_owned(), |it| it.to_string()),
        }
    }

    /// Returns how a file is named to people: diesel's are all called `up.sql`.
    pub(super) fn shown(self, path: &Path) -> String {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match path.parent().and_then(Path::file_name) {
            Some(folder) if self == Self::Diesel => format!("{}/{name}", folder.to_string_lossy()),
            _ => name.into_owned(),
        }
    }

    /// Returns whether the tool runs a file without a transaction if the server demands it.
    pub(super) fn decides_itself(self) -> bool {
        matches!(self, Self::Flyway | Self::GolangMigrate)
    }

    /// Returns whether a file next to a migration says that it runs without a transaction.
    pub(super) fn runs_without_transaction(self, path: &Path) -> bool {
        let (file, setting) = match self {
            Self::Flyway => (path.with_added_extension("conf"), "executeInTransaction=false"),
            Self::Diesel => (path.with_file_name("metadata.toml"), "run_in_transaction=false"),
            _ => return false,
        };
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.replace([' ', '\t'], "") == setting)
    }

    /// Returns the lines on which the tool would replace something before it sends them.
    pub(super) fn unknown_to_us(self, text: &str) -> Vec<(usize, String)> {
        let replaces = match self {
            Self::Flyway => true,
            Self::Goose => text.to_ascii_lowercase().contains("+goose envsub on"),
            _ => false,
        };
        let lines = text.lines().enumerate().filter(|_| replaces);
        lines
            .filter_map(|(index, line)| {
                let (_, rest) = line.split_once("${")?;
                let (name, _) = rest.split_once('}')?;
                Some((
                    index + 1,
                    format!("write the value of ${{{name}}}: placeholders are not replaced"),
                ))
            })
            .collect()
    }
}
