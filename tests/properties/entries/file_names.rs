//! Any bytes as the name of a file.

use pricesync::migrations::ScriptName;

/// Panics where a name is misread, or a suggestion is none.
pub fn file_names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match ScriptName::parse(&text) {
        Ok(name) => {
            assert!(text.ends_with(&format!("__{}.sql", name.name)));
            assert!(name.version >= 0);
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if let Some(suggestion) = error.suggestion {
                assert!(ScriptName::parse(&suggestion).is_ok(), "{suggestion}");
            }
        }
    }
}
