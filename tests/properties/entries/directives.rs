//! Any bytes behind `-- pricesync:` on the first line.

use std::path::Path;

use pricesync::domain::script::Scope;
use pricesync::migrations::Script;

/// Panics where reading the file does, or where an error lies outside of the file.
pub fn directives(bytes: &[u8]) {
    let file = [b"-- pricesync:", bytes, b"\nSELECT 1;\n"].concat();
    let lines = file.split(|&byte| byte == b'\n').count();
    for scope in [Scope::Shared, Scope::Tenant] {
        let read = Script::read(Path::new("V1__x.sql"), file.clone(), scope);
        for error in read.err().unwrap_or_default() {
            assert!(!error.to_string().is_empty());
            let line = error.location.map_or(1, |location| location.line);
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
        }
    }
}
