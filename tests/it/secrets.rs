//! Passwords are nowhere: not in errors, not in listings, not in what programs read.

use crate::support::pricesync::{Given, Ran};

const SECRET: &str = "hunter2sesame";

/// Ways of being told a password, with which no database is reached.
const ADDRESSES: [&str; 9] = [
    "postgresql://app:hunter2sesame@127.0.0.1:1/saas",
    "postgresql://app:hunter2sesame@nowhere.invalid/saas",
    "postgresql://app:hunter2sesame@127.0.0.1:port/saas",
    "postgresql://app:x@hunter2sesame@127.0.0.1:1/saas",
    "postgresql://app:hunter2sesame@127.0.0.1:1/saas?sslmode=wrong",
    "postgresql://app@127.0.0.1:1/saas?password=hunter2sesame&unknown=1",
    "host=127.0.0.1 port=1 user=app password=hunter2sesame dbname=saas",
    "host=127.0.0.1 port=1 user=app password='hunter2sesame dbname=saas",
    "host=/nowhere user=app password=hunter2sesame dbname=saas",
];

const COMMANDS: [&[&str]; 5] = [
    &["migrate-schemas"],
    &["migrate-schemas", "--progress", "json"],
    &["list-tenants", "-o", "json"],
    &["config"],
    &["config", "-o", "json"],
];

#[test]
fn a_password_is_said_by_no_command_however_it_was_told() {
    let given = Given::nothing();
    for address in ADDRESSES {
        for args in COMMANDS {
            let mut command = given.command(args);
            command.env("PRICESYNC_DATABASE_URL", address).env("RUST_BACKTRACE", "1");
            let ran = Ran::from(args, command.output().unwrap());
            let reaches = args[0] != "config";
            assert!(!reaches || matches!(ran.code(), Some(2 | 5)), "{address}");
            ran.told().never_says(SECRET);
        }
    }
    let mut command = given.command(&["migrate-schemas"]);
    command
        .env("PRICESYNC_DATABASE_URL", "postgresql://app@127.0.0.1:1/saas")
        .env("PGPASSWORD", SECRET);
    Ran::from(&["migrate-schemas"], command.output().unwrap()).exits(5).never_says(SECRET);
}
