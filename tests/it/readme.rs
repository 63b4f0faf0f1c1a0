//! What the README and the guide show is what happens.

use pricesync::error::Exit;
use pricesync::settings::{Overrides, Settings};

use super::support::console::{lasting, prints_what_it_shows};

const README: &str = include_str!("../../README.md");

#[test]
fn the_walk_through_prints_what_it_shows() {
    prints_what_it_shows("README.md", README, 21);
}

#[test]
fn the_guide_prints_what_it_shows() {
    prints_what_it_shows("docs/guide.md", include_str!("../../docs/guide.md"), 55);
}

#[test]
fn only_what_varies_is_taken_out_of_a_line() {
    assert_eq!(
        lasting("✓ Migrated V1__users       < 1 ms"),
        lasting("✓ Migrated V1__users        12 ms")
    );
    assert_eq!(lasting("3 schemas · 0.02 s"), "3 schemas · [amount] s");
    assert_eq!(lasting("public | pg_database_owner"), "public | postgres");
    assert_eq!(lasting("│ 2026-11-24T01:58:10Z │"), lasting("│ 2027-01-01T00:00:00Z │"));
    assert_eq!(
        lasting("from 2026-11-24T01:58:10Z, 5 tables, 4154 bytes"),
        lasting("from 2027-01-01T00:00:00Z, 5 tables, 4149 bytes")
    );
    assert_ne!(lasting("1 schema"), lasting("2 schemas"));
}

#[test]
fn the_readme_lists_every_exit_code() {
    for (code, meaning) in Exit::TABLE {
        let row = format!("| {} | {meaning} |", code as u8);
        assert!(README.contains(&row), "missing: {row}");
    }
}

#[test]
fn the_readme_lists_every_setting_with_its_default() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::resolve(&Overrides::default(), &|_| None, folder.path()).unwrap();
    for setting in settings.effective() {
        let default = match &setting.value {
            Some(value) => format!("| `{value}` |"),
            None => "| none |".to_owned(),
        };
        let key = format!("| `{}` | `PRICESYNC_", setting.key);
        let row = README.lines().find(|line| line.starts_with(&key));
        assert!(row.is_some_and(|row| row.contains(&default)), "{key}...: {default}");
    }
}
