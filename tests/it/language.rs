//! The words of the sources, the tests and the documentation.

use std::fs;
use std::path::Path;

use crate::support::modules::files_below;

/// Words that hide who acts, or what happens; each is looked for in any case as whole words.
const BANNED: [&str; 15] = [
    "somebody",
    "nobody",
    "whoever",
    "everybody",
    "what became of",
    "is told",
    "are told",
    "is no ",
    "at odds",
    "mend",
    "for ever",
    "begun",
    "was to be had",
    "stands in the way",
    "as it mostly is",
];

/// The last of them, which is also the name of a diff's option.
const SIDE: &str = "side by side";

/// Lines with these are quoted, or are data: the system's user and role of that name, a word that
/// is followed by another meaning, and this list.
const EXCEPT: [&str; 12] = [
    "there is no ",
    "There is no ",
    "\\\"nobody\\\"",
    "`nobody`",
    "\"nobody\"",
    "'nobody'",
    "nobody@",
    "nobody:",
    "TO nobody",
    "ROLE nobody",
    "is no longer",
    "is no more",
];

const PLACES: [&str; 4] = ["src", "tests", "docs", "README.md"];

fn has_banned(line: &str) -> bool {
    if EXCEPT.iter().any(|except| line.contains(except)) {
        return false;
    }
    let line = line.to_lowercase();
    let is_letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    BANNED.iter().chain([&SIDE]).any(|words| {
        line.match_indices(words).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + words.len()..].chars().next();
            !is_letter(before) && (words.ends_with(' ') || !is_letter(after))
        })
    })
}

#[test]
fn no_line_has_a_banned_word() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in PLACES {
        let path = root.join(folder);
        let files = if path.is_dir() { files_below(&path) } else { vec![path] };
        let mut found = Vec::new();
        for file in files {
            if file.ends_with("tests/it/language.rs") {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap_or_default();
            let lines = text.lines().enumerate();
            found.extend(
                lines.filter(|(_, line)| has_banned(line)).map(|(index, line)| {
                    format!("{}:{}: {}", file.display(), index + 1, line.trim())
                }),
            );
        }
        assert!(found.is_empty(), "{folder}:\n{}", found.join("\n"));
    }
}

#[test]
fn no_test_has_a_name_of_more_than_60_characters() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut long = Vec::new();
    for file in files_below(&root.join("tests")).into_iter().chain(files_below(&root.join("src"))) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (index, line) in lines.iter().enumerate() {
            let is_test = line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let function = lines[index..].iter().take(6).find(|line| line.contains("fn "));
            if let (true, Some(function)) = (is_test, function) {
                let name = function.split("fn ").nth(1).unwrap_or_default();
                let name = name.split('(').next().unwrap_or_default();
                if name.len() > 60 {
                    long.push(format!("{}: {name}", file.display()));
                }
            }
        }
    }
    assert_eq!(long, Vec::<String>::new());
}
