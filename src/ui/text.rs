//! Text for terminals: escaping, width, truncation, plurals, durations.

use std::borrow::Cow;
use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Returns the text with control and bidirectional characters as visible escapes (`\u{1b}`, `\n`).
///
/// Use it for all text from the database, from files and from the environment: it could otherwise
/// move the cursor or forge lines.
pub fn clean(text: &str) -> Cow<'_, str> {
    escape(text, false)
}

/// Returns the text like [`clean`], but keeps line breaks and shows tabs as spaces.
pub fn clean_lines(text: &str) -> Cow<'_, str> {
    escape(text, true)
}

fn escape(text: &str, several_lines: bool) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' if several_lines => out.push('\n'),
            '\t' if several_lines => out.push_str("    "),
            '\0' => out.push_str("\\0"),
            c if is_hostile(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Returns whether a terminal could act on a character instead of showing it. Joiners are shown:
/// some scripts need them.
pub(super) fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Marks, embeddings, overrides and isolates of the bidirectional algorithm
            // (Trojan Source), line and paragraph separators, byte order mark, tags.
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Returns a word quoted for a shell.
pub fn shell_word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "_-.,@=/:%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
    }
}

/// Returns how many columns of a terminal the text takes.
pub(super) fn columns(text: &str) -> usize {
    text.width()
}

/// Returns the text cut to `limit` columns; a cut text ends in `…`.
pub fn fit(text: &str, limit: usize) -> Cow<'_, str> {
    if columns(text) <= limit {
        return Cow::Borrowed(text);
    }
    if limit == 0 {
        return Cow::Borrowed("");
    }
    let mut out = take_columns(text, limit - 1).to_owned();
    out.push('…');
    Cow::Owned(out)
}

/// Returns the longest prefix of at most `limit` columns. Combining marks stay with their letter.
fn take_columns(text: &str, limit: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > limit {
            return &text[..at];
        }
    }
    text
}

/// Returns the text without its first `skip` columns. A wide letter across the cut is left out.
pub(super) fn skip_columns(text: &str, skip: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        let width = c.width().unwrap_or(0);
        if used >= skip && width > 0 {
            return &text[at..];
        }
        used += width;
    }
    ""
}

/// Returns the text padded with spaces to `width` columns.
pub(super) fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// Returns a number with its noun: `1 schema`, `2 schemas`. For other plurals see `plural`.
pub fn count(number: usize, noun: &str) -> String {
    plural(number, noun, &format!("{noun}s"))
}

/// Returns a number with its noun in the singular or the plural: `1 canary`, `2 canaries`.
pub(super) fn plural(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Returns a number of bytes with a unit: `812 bytes`, `9216 KiB`, `48 MiB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if value < 10_240 {
            return format!("{value} {unit}");
        }
        value /= 1024;
    }
    format!("{value} TiB")
}

/// Returns a duration with a unit: `12 ms`, `1.9 s`, `2 min 03 s`, `1 h 02 min`.
pub fn took(duration: Duration) -> String {
    if duration.as_micros() < 1000 {
        return "< 1 ms".to_owned();
    }
    if duration.as_millis() < 1000 {
        return format!("{} ms", duration.as_millis());
    }
    if duration.as_secs() < 60 {
        // Truncated: 59.96 s must not become a minute.
        return format!("{}.{} s", duration.as_secs(), duration.subsec_millis() / 100);
    }
    long(duration)
}

/// Returns the duration of a run, to a hundredth of a second: `0.21 s`, `2 min 03 s`.
pub(super) fn total(duration: Duration) -> String {
    if duration.as_secs() < 60 {
        return format!("{}.{:02} s", duration.as_secs(), duration.subsec_millis() / 10);
    }
    long(duration)
}

/// Returns a duration in whole seconds: `4 s`, `2 min 03 s`.
pub(super) fn whole(duration: Duration) -> String {
    if duration.as_secs() < 60 { format!("{} s", duration.as_secs()) } else { long(duration) }
}

/// Rounds to the nearest second, so that a pause of two minutes starts at `2 min 00 s`.
pub(super) fn rounded(duration: Duration) -> Duration {
    Duration::from_secs((duration + Duration::from_millis(500)).as_secs())
}

fn long(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 3600 {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    } else {
        format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60)
    }
}

/// Returns the first names of a list and the number of the others: `a, b, c … (+15)`.
pub(super) fn some_of<'a>(names: impl ExactSizeIterator<Item = &'a str>, limit: usize) -> String {
    let more = names.len().saturating_sub(limit);
    let shown: Vec<_> = names.take(limit).map(clean).collect();
    match more {
        0 => shown.join(", "),
        more => format!("{} … (+{more})", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            clean("a\u{1b}[2Jb\rc\u{7}d\0e\nf\tg\u{9b}h\u{202e}i"),
            "a\\u{1b}[2Jb\\rc\\u{7}d\\0e\\nf\\tg\\u{9b}h\\u{202e}i"
        );
    }

    #[test]
    fn text_of_any_language_stays_as_it_is() {
        let text = "Công ty Tiếng Việt · 株式会社 · क्\u{200d}ष · 👩\u{200d}💻";
        assert!(matches!(clean(text), Cow::Borrowed(same) if same == text));
    }

    #[test]
    fn line_breaks_are_kept_on_request() {
        assert_eq!(clean_lines("a\n\tb\r\n"), "a\n    b\\r\n");
    }

    #[test]
    fn cutting_counts_columns_and_keeps_marks_with_their_letter() {
        assert_eq!(fit("tenant_acme", 8), "tenant_…");
        assert_eq!(fit("株式会社", 5), "株式…");
        assert_eq!(fit("株式会社", 4), "株…");
        // "ế" as e, circumflex, acute.
        assert_eq!(fit("tie\u{302}\u{301}ng", 4), "tie\u{302}\u{301}…");
        assert_eq!(fit("abc", 3), "abc");
        assert_eq!(fit("abc", 0), "");
        assert_eq!(skip_columns("tie\u{302}\u{301}ng", 3), "ng");
    }

    #[test]
    fn a_command_can_be_copied_into_a_shell() {
        assert_eq!(shell_word("--batches=5%,25%"), "--batches=5%,25%");
        assert_eq!(shell_word("a*"), "'a*'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn plurals_are_right() {
        assert_eq!(count(0, "schema"), "0 schemas");
        assert_eq!(count(1, "schema"), "1 schema");
        assert_eq!(count(2, "schema"), "2 schemas");
    }

    #[test]
    fn durations_have_the_largest_fitting_unit() {
        let ms = Duration::from_millis;
        assert_eq!(took(Duration::from_micros(300)), "< 1 ms");
        assert_eq!(took(ms(12)), "12 ms");
        assert_eq!(took(ms(1900)), "1.9 s");
        assert_eq!(took(ms(59_960)), "59.9 s");
        assert_eq!(took(ms(123_000)), "2 min 03 s");
        assert_eq!(took(ms(3_720_000)), "1 h 02 min");
        assert_eq!(total(ms(210)), "0.21 s");
        assert_eq!(whole(ms(12_900)), "12 s");
    }

    #[test]
    fn long_lists_name_the_first_and_count_the_rest() {
        assert_eq!(some_of(["a", "b", "c", "d"].into_iter(), 3), "a, b, c … (+1)");
        assert_eq!(some_of(["a", "b"].into_iter(), 3), "a, b");
    }
}
