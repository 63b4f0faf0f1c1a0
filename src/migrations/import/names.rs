//! Which files of a folder are migrations of a tool, and of which version.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Tool;

/// Ends of files that hold migrations as programs.
const PROGRAMS: [&str; 10] = ["go", "js", "ts", "cjs", "mjs", "rs", "java", "kt", "groovy", "py"];

/// The version of a file: whole numbers, of which only Flyway has several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(Vec<i64>);

impl Version {
    /// Parses `1`, `1.2` and `1_2`. Zeros at the end do not count: Flyway's 1.0 is 1.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let parts = text.split(['.', '_']).map(|part| {
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
        });
        let mut parts = parts.collect::<Option<Vec<i64>>>()?;
        while parts.len() > 1 && parts.last() == Some(&0) {
            parts.pop();
        }
        Some(Self(parts))
    }

    /// Returns the version as one number, if it is one.
    pub(super) fn number(&self) -> Option<i64> {
        match self.0[..] {
            [number] => Some(number),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(i64::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

/// What a file contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Up,
    Down,
    /// Both halves, between comments.
    Both,
}

/// The parts of a file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) version: Version,
    pub(super) title: String,
    pub(super) half: Half,
}

/// Returns the files below a folder that the tool would look at, sorted. Skips names that begin with
/// a dot.
pub(super) fn files(tool: Tool, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let goes_down = matches!(tool, Tool::Flyway | Tool::Refinery | Tool::Diesel);
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.file_name().unwrap_or_default().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if !path.is_dir() {
                found.push(path);
            } else if goes_down {
                folders.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Parses the name of a file; `None` if the tool would ignore it.
///
/// # Errors
///
/// The tool would use the file, and why it cannot be converted.
pub(super) fn named(tool: Tool, path: &Path) -> Result<Option<Named>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some((stem, end)) = name.rsplit_once('.') else {
        return Ok(None);
    };
    let is_program = PROGRAMS.contains(&end);
    if end != "sql" && !is_program {
        return Ok(None);
    }
    let parsed = match tool {
        Tool::Flyway => flyway(stem)?,
        Tool::Refinery => refinery(stem),
        Tool::Diesel => diesel(stem, path),
        _ => numbered(tool, stem),
    };
    match parsed {
        Some(_) if is_program => {
            Err(format!("a program in .{end} cannot be converted: write its statements as SQL"))
        }
        None if is_program => Ok(None),
        None => Err(format!("is not named like a migration of {}", tool.name())),
        parsed => Ok(parsed),
    }
}

fn flyway(stem: &str) -> Result<Option<Named>, String> {
    if stem.starts_with("R__") {
        return Err(
            "a repeatable migration is run again when it changes, which pricesync does not do; \
             write what it defines now as a versioned file"
                .to_owned(),
        );
    }
    let Some((version, title)) = stem.split_once("__") else {
        let is_callback = ["before", "after", "create"].iter().any(|start| stem.starts_with(start));
        return if is_callback {
            Err("a callback of Flyway is not a migration".to_owned())
        } else {
            Ok(None)
        };
    };
    let parsed = |version: &str, half| {
        let version = Version::parse(version)?;
        Some(Named { version, title: title.to_owned(), half })
    };
    if version.strip_prefix('B').and_then(|version| parsed(version, Half::Up)).is_some() {
        return Err("a baseline replaces the files before it: import without either".to_owned());
    }
    let up = version.strip_prefix('V').and_then(|version| parsed(version, Half::Up));
    Ok(up.or_else(|| parsed(version.strip_prefix('U')?, Half::Down)))
}

fn refinery(stem: &str) -> Option<Named> {
    let (version, title) = stem.strip_prefix('V')?.split_once("__")?;
    let version = Version(vec![version.parse().ok()?]);
    Some(Named { version, title: title.to_owned(), half: Half::Up })
}

fn diesel(stem: &str, path: &Path) -> Option<Named> {
    let half = match stem {
        "up" => Half::Up,
        "down" => Half::Down,
        _ => return None,
    };
    let folder = path.parent()?.file_name()?.to_str()?;
    let (version, title) = folder.split_once('_').unwrap_or((folder, ""));
    let version = Version::parse(&version.replace('-', ""))?;
    Some(Named { version, title: title.to_owned(), half })
}

/// `<digits>_<title>`, with `.up` or `.down` where the tool has these.
fn numbered(tool: Tool, stem: &str) -> Option<Named> {
    let (stem, half) = match tool {
        Tool::GolangMigrate => match stem.rsplit_once('.')? {
            (stem, "up") => (stem, Half::Up),
            (stem, "down") => (stem, Half::Down),
            _ => return None,
        },
        Tool::Sqlx => match stem.rsplit_once('.') {
            Some((stem, "up")) => (stem, Half::Up),
            Some((stem, "down")) => (stem, Half::Down),
            _ => (stem, Half::Up),
        },
        _ => (stem, Half::Both),
    };
    let digits = stem.len() - stem.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (version, title) = stem.split_at(digits);
    let title = match tool {
        Tool::NodePgMigrate => title.strip_prefix(['_', '-'])?,
        _ => title.strip_prefix('_')?,
    };
    let version = Version(vec![version.parse().ok()?]);
    Some(Named { version, title: title.to_owned(), half })
}
