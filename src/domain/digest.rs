//! The digest of a history, 32 hexadecimal characters, to compare schemas without reading the rows.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::applied::Applied;
use super::script::ScriptId;

/// Returns the digest of these rows: versions and checksums, in the order of versions.
///
/// It is stored in databases, so it never changes: SHA-256 over `version:checksum` lines, the
/// first 128 bits in hexadecimal. Names are not part of it, because a checksum contains the name.
pub fn of_history(rows: &[Applied]) -> String {
    let mut pairs: Vec<(i64, u64)> = rows.iter().map(|row| (row.version, row.checksum)).collect();
    pairs.sort_unstable();
    let mut hash = Sha256::new();
    for (version, checksum) in pairs {
        hash.update(line(version, checksum));
    }
    shorten(&hash)
}

/// Returns, for every length from none to all, the digest of a schema in which the first so
/// many scripts of the set are applied.
pub fn of_prefixes(scripts: &[ScriptId]) -> Vec<String> {
    let mut hash = Sha256::new();
    let mut digests = vec![shorten(&hash)];
    for script in scripts {
        hash.update(line(script.version, script.checksum));
        digests.push(shorten(&hash));
    }
    digests
}

fn line(version: i64, checksum: u64) -> String {
    format!("{version}:{checksum}\n")
}

fn shorten(hash: &Sha256) -> String {
    hexadecimal(&hash.clone().finalize()[..16])
}

/// Returns two lower-case digits for each byte.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::script::Prefix;

    fn row(version: i64, checksum: u64) -> Applied {
        Applied { version, name: "x".to_owned(), checksum, applied_on: String::new() }
    }

    #[test]
    fn digests_do_not_change_between_releases() {
        assert_eq!(of_history(&[]), "e3b0c44298fc1c149afbf4c8996fb924");
        assert_eq!(of_history(&[row(1, 10), row(2, 20)]), "c728dcd91c55d6b79f4ad1f2dfbd2ef5");
    }

    #[test]
    fn the_digest_of_a_history_does_not_depend_on_its_order() {
        let script = |version: i64| ScriptId {
            prefix: Prefix::Versioned,
            version,
            name: "x".to_owned(),
            checksum: version.unsigned_abs() * 10,
            raw_checksum: 0,
            crlf_checksum: 0,
        };
        let prefixes = of_prefixes(&[script(1), script(2), script(5)]);
        assert_eq!(prefixes.len(), 4);
        assert_eq!(prefixes[0], of_history(&[]));
        assert_eq!(prefixes[2], of_history(&[row(2, 20), row(1, 10)]));
        assert_eq!(prefixes[3], of_history(&[row(1, 10), row(2, 20), row(5, 50)]));
        assert_ne!(of_history(&[row(1, 10)]), of_history(&[row(1, 11)]));
    }
}
