//! Everything that each command writes in each of its typical states.
//!
//! `SNAPSHOTS=overwrite cargo test --test it -- snapshots::` writes them anew.

mod backups;
mod migrating;
mod project;
mod reading;
mod tenants;

use std::fs;
use std::path::Path;
use std::process::Command;

use snapbox::{Data, assert_data_eq};

use crate::support::pricesync::{Given, PROGRAM};
use crate::support::transcript::transcript;

/// Names every command and every command below one, such as `domains add`.
fn commands() -> Vec<String> {
    let below = |parent: &str| {
        let help = [parent, "--help"].concat();
        let output = Command::new(PROGRAM).args(help.split_whitespace()).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let rows = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        rows.take_while(|line| !line.is_empty())
            .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
            .filter(|name| !name.is_empty() && *name != "help")
            .map(|name| format!("{parent}{name} "))
            .collect::<Vec<_>>()
    };
    let all = below("").into_iter().flat_map(|name| [vec![name.clone()], below(&name)].concat());
    all.map(|name| name.trim_end().to_owned()).collect()
}

#[test]
fn every_command_explains_itself() {
    let given = Given::nothing();
    let names = commands();
    assert!(names.len() > 30, "{names:?}");
    for name in names.into_iter().chain(["help".to_owned()]) {
        let line = match name.as_str() {
            "help" => "--help".to_owned(),
            name => format!("{name} --help"),
        };
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/it/snapshots/help")
            .join(format!("{}.txt", name.replace(' ', "-")));
        let expected = Data::read_from(&file, None).raw();
        let mut shown = transcript(&given, &[&line]);
        // The same below each command, so that one snapshot of them is enough.
        if name != "help"
            && let Some(end) = shown.find("\nGlobal options:\n")
        {
            shown.truncate(end);
        }
        assert_data_eq!(shown, expected);
    }
}

#[test]
fn every_command_has_a_snapshot_of_what_it_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.is_file());
    let shown: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    let is_shown = |name: &String| {
        [' ', '\n'].iter().any(|end| shown.contains(&format!("$ pricesync {name}{end}")))
    };
    let missing: Vec<String> = commands().into_iter().filter(|name| !is_shown(name)).collect();
    assert_eq!(missing, Vec::<String>::new());
}
