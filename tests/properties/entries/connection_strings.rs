//! Any bytes as what `-d` is given.

use pricesync::postgres::connection::conninfo::{ConnectOptions, Environment};

/// Panics where reading a connection string does.
pub fn connection_strings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match ConnectOptions::resolve(Some(&text), &Environment::from_pairs([("USER", "me")])) {
        Ok(options) => {
            assert!(!options.targets().is_empty());
            assert!(!options.user().is_empty());
            assert!(!options.describe().is_empty());
            assert!(options.parameters().all(|(name, _, _)| !name.is_empty()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
