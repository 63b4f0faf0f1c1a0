//! What identifies a migration file: its set, its version, a position in it.

use std::fmt;

use serde::Serialize;

/// Which set of migrations a schema gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The shared set, in `public`.
    Shared,
    /// The tenant set, in a tenant's schema.
    Tenant,
}

/// Which of refinery's two kinds of migration a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Prefix {
    /// `V`: applied in the order of versions; an older one may not appear later.
    Versioned,
    /// `U`: may be applied after newer ones (refinery's rule).
    Unversioned,
}

/// What identifies a migration file in a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptId {
    /// `V` or `U`.
    pub prefix: Prefix,
    /// Unique within the set, 64 bits.
    pub version: i64,
    /// The part of the file name after the two underscores.
    pub name: String,
    /// refinery's checksum over name, version and the normalised text.
    pub checksum: u64,
    /// The checksum over the bytes as they are on disk, which other refinery tools
    /// record; equal to `checksum` unless line ends or a byte order mark were normalised.
    pub raw_checksum: u64,
    /// The checksum over the text with CR LF as line ends: what those tools record from a
    /// checkout on Windows.
    pub crlf_checksum: u64,
}

impl ScriptId {
    /// Returns whether a history row with this checksum was made from this file.
    pub fn accepts(&self, checksum: u64) -> bool {
        [self.checksum, self.raw_checksum, self.crlf_checksum].contains(&checksum)
    }

    /// Returns version and name without the checksums.
    pub fn reference(&self) -> ScriptRef {
        ScriptRef { prefix: self.prefix, version: self.version, name: self.name.clone() }
    }
}

impl fmt::Display for ScriptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}__{}", self.prefix, self.version, self.name)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Versioned => "V",
            Self::Unversioned => "U",
        })
    }
}

/// A migration by version and name, for events and outcomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScriptRef {
    /// `V` or `U`.
    #[serde(skip)]
    pub prefix: Prefix,
    /// Version within its set.
    pub version: i64,
    /// The part of the file name after the two underscores.
    pub name: String,
}

impl fmt::Display for ScriptRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}__{}", self.prefix, self.version, self.name)
    }
}

/// Which migration file creates a relation that a script refers to and that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefinedIn {
    /// A later file of the same set.
    LaterFile(ScriptRef),
    /// An earlier file of the same set, which the history has as applied.
    AppliedFile(ScriptRef),
    /// No file that could have created it before.
    NoFile,
}

/// A line and column in a file, both counted from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// Line.
    pub line: usize,
    /// Column, or `None` where only the line is known.
    pub column: Option<usize>,
    /// The text of that line, without its line end.
    pub text: String,
}
