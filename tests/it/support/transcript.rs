//! Everything that commands write, as a snapshot holds it.

use std::fmt::Write as _;

use super::pricesync::Given;

/// Runs command lines one after the other and returns them with all that they wrote and their exit
/// codes; what differs from run to run is replaced by placeholders.
pub(crate) fn transcript(given: &Given, lines: &[&str]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = given.command(&words).output().unwrap();
        let _ = writeln!(text, "$ pricesync {line}");
        for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
            let written = String::from_utf8(bytes).unwrap();
            if !written.is_empty() {
                let _ = write!(text, "--- {name}\n{}", lasting(given, &written));
                if !written.ends_with('\n') {
                    text.push_str("[no line break]\n");
                }
            }
        }
        let _ = writeln!(text, "--- exit {}\n", output.status.code().unwrap());
        text
    })
}

/// Splits a command line at spaces, but not within single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            ' ' if !is_quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Replaces what differs from run to run and from machine to machine.
fn lasting(given: &Given, original: &str) -> String {
    let url = given.database.url();
    let name = url.split('?').next().and_then(|url| url.rsplit('/').next());
    let host = url.split("host=").nth(1).and_then(|rest| rest.split('&').next());
    let folder = given.dir.path().to_str().unwrap();
    let mut text = original.replace(url, "[URL]").replace(folder, "[FOLDER]");
    for (found, placeholder) in [(name, "[DATABASE]"), (host, "[SOCKET]")] {
        if let Some(found) = found.filter(|found| !found.is_empty()) {
            let encoded = found.replace('/', "%2F");
            text = text.replace(found, placeholder).replace(&encoded, placeholder);
        }
    }
    let host = rustix::system::uname();
    let user = rustix::process::geteuid().as_raw();
    if let Ok(host) = host.nodename().to_str() {
        text = text.replace(&format!("uid {user}@{host}"), "[USER]");
    }
    let mut columns = Vec::new();
    let redacted: Vec<String> =
        text.lines().map(|line| redact(&redact_cells(line, &mut columns))).collect();
    let is_narrowed = redacted.iter().map(String::as_str).ne(original.lines());
    redacted.into_iter().fold(String::new(), |mut all, line| {
        // Columns are as wide as what was in them.
        all.push_str(&if is_narrowed { narrow(&line) } else { line });
        all.push('\n');
        all
    })
}

/// Replaces the cells of a table in columns that differ from run to run, which its head names.
fn redact_cells(line: &str, columns: &mut Vec<bool>) -> String {
    const VOLATILE: [&str; 7] = ["pid", "ms", "seconds", "bytes", "in", "slowest", "shape"];
    let Some(row) = line.strip_prefix('│') else {
        if line.starts_with('┌') {
            columns.clear();
        }
        return line.to_owned();
    };
    let cells: Vec<&str> = row.trim_end_matches('│').split('┆').collect();
    if columns.is_empty() {
        columns.extend(cells.iter().map(|cell| VOLATILE.contains(&cell.trim())));
        return line.to_owned();
    }
    let cells: Vec<&str> = cells
        .into_iter()
        .zip(columns.iter())
        .map(|(cell, &is_volatile)| if is_volatile && cell.trim() != "-" { " [..] " } else { cell })
        .collect();
    format!("│{}│", cells.join("┆"))
}

/// Shortens each row of spaces or rules inside a line.
fn narrow(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let mut short = line[..indent].to_owned();
    for c in line.trim().chars() {
        let is_filling = " ─━═".contains(c);
        if !(is_filling && short[indent..].ends_with(c)) {
            short.push(c);
        }
    }
    short
}

/// A fingerprint's first digits, which differ between servers.
fn is_short_digest(word: &str) -> bool {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    word.bytes().all(is_hex) && word.bytes().any(|b| b.is_ascii_digit())
}

/// Replaces moments, amounts of time and of bytes, and process ids in a line.
fn redact(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if is_compact_moment(rest) {
            out.push_str("[MOMENT]");
            rest = &rest[16..];
            continue;
        }
        let is_word = |c: char| c.is_alphanumeric() || "_.-".contains(c);
        let word = rest.len() - rest.trim_start_matches(char::is_alphanumeric).len();
        if word == 8 && !out.ends_with(is_word) && is_short_digest(&rest[..8]) {
            out.push_str("[DIGEST]");
            rest = &rest[8..];
            continue;
        }
        let number =
            rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        if number == 0 || !c.is_ascii_digit() || out.ends_with(is_word) {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (digits, behind) = rest.split_at(number);
        let unit = behind.strip_prefix(' ').unwrap_or_default();
        let letters = unit.len() - unit.trim_start_matches(char::is_alphabetic).len();
        let moment = rest.len()
            - rest.trim_start_matches(|c: char| c.is_ascii_digit() || "-:T.Z".contains(c)).len();
        let key = |keys: &[&str]| keys.iter().any(|key| out.ends_with(key));
        if moment >= 16 && rest[..moment].contains('T') {
            out.push_str("[MOMENT]");
            rest = &rest[moment..];
        } else if moment == 10 && rest[..10].matches('-').count() == 2 {
            out.push_str("[MOMENT]");
            let time = rest[10..].strip_prefix(' ').unwrap_or(&rest[10..]);
            let end = time.len()
                - time.trim_start_matches(|c: char| c.is_ascii_digit() || ":.Z+".contains(c)).len();
            rest = if end >= 5 { &time[end..] } else { &rest[10..] };
        } else if key(&["pid ", "process ", "\"pid\":", "\"pid\": "]) {
            out.push_str("[PID]");
            rest = behind;
        } else if key(&[
            "_s\":",
            "_ms\":",
            "\"t\":",
            "took\":",
            "seconds\":",
            "_s\": ",
            "_ms\": ",
            "took\": ",
            "seconds\": ",
        ]) {
            out.push_str("[TIME]");
            rest = behind;
        } else if ["ms", "s", "min", "h", "d"].contains(&&unit[..letters]) {
            // What is too short to measure and what takes longer look the same.
            out.truncate(out.trim_end_matches("< ").len());
            out.truncate(out.trim_end_matches("[TIME] ").len());
            out.push_str("[TIME]");
            rest = &unit[letters..];
        } else if ["KiB", "MiB", "bytes", "B"].contains(&&unit[..letters]) {
            out.push_str("[SIZE]");
            rest = &unit[letters..];
        } else {
            out.push_str(digits);
            rest = behind;
        }
    }
    out
}

/// Whether a text begins like `20261201T035330Z`.
fn is_compact_moment(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_number = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    bytes.len() >= 16
        && is_number(&bytes[..8])
        && bytes[8] == b'T'
        && is_number(&bytes[9..15])
        && bytes[15] == b'Z'
}

#[test]
fn command_lines_are_split_at_spaces_outside_of_quotes() {
    assert_eq!(words("exec  -c 'SELECT 1' ''"), ["exec", "-c", "SELECT 1", ""]);
}

#[test]
fn times_sizes_and_process_ids_are_redacted() {
    let line = "< 1 ms, 2026-12-01T10:00:00Z 2026-12-01 10:00 pid 41, 1 min 2 s, V1__a 3 KiB (42P07) {\"t\":0.3} a.20261201T035330Z.backup 2s";
    assert_eq!(
        redact(line),
        "[TIME], [MOMENT] [MOMENT] pid [PID], [TIME], V1__a [SIZE] (42P07) {\"t\":[TIME]} a.[MOMENT].backup 2s"
    );
    assert_eq!(narrow("  a     b ─────"), "  a b ─");
}
