//! Corrects array expressions that the server prints in one way and parses in another.
//!
//! `status IN ('a', 'b')` on a `varchar` column is stored as an array of `varchar` that is cast to `text[]`, and
//! printed as `(ARRAY['a'::character varying, ...])::text[]`. When that is parsed, the cast is applied to each
//! element. A cast of the array to the elements' type in between prevents this, and is not stored itself.

use std::fmt::Write as _;

/// Returns the SQL with these casts added.
pub(super) fn with_element_types(sql: &str) -> String {
    const MARK: &str = "ARRAY[";
    let mut result = String::with_capacity(sql.len() + 64);
    let mut rest = sql;
    while let Some(before) = outside_quotes(rest, MARK) {
        result.push_str(&rest[..before]);
        rest = &rest[before..];
        let Some(array) = Array::read(&rest[MARK.len()..]) else {
            result.push_str(MARK);
            rest = &rest[MARK.len()..];
            continue;
        };
        let end = MARK.len() + array.length;
        let (text, behind) = (&rest[..end], &rest[end..]);
        if behind.starts_with(")::") {
            let _ = write!(result, "{text}::{}[]", array.element_type);
        } else if behind.starts_with("::") {
            let _ = write!(result, "({text}::{}[])", array.element_type);
        } else {
            result.push_str(text);
        }
        rest = behind;
    }
    result.push_str(rest);
    result
}

/// Returns the position of a word in a text, outside literals and quoted names.
fn outside_quotes(text: &str, word: &str) -> Option<usize> {
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match quote {
            Some(open) if letter == open => quote = None,
            None if letter == '\'' || letter == '"' => quote = Some(letter),
            None if text[at..].starts_with(word) => return Some(at),
            _ => {}
        }
    }
    None
}

/// An array constructor, from after its opening bracket.
struct Array<'a> {
    /// The length including the closing bracket.
    length: usize,
    /// The type of the elements.
    element_type: &'a str,
}

impl<'a> Array<'a> {
    /// Parses simple elements; `None` where one contains brackets, or none has a type.
    fn read(text: &'a str) -> Option<Self> {
        let mut quote = None;
        for (at, letter) in text.char_indices() {
            match quote {
                Some(open) if letter == open => quote = None,
                None if letter == '\'' || letter == '"' => quote = Some(letter),
                None if letter == '[' => return None,
                None if letter == ']' => {
                    let (_, element_type) = text[..at].rsplit_once("::")?;
                    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == ' ';
                    return element_type
                        .chars()
                        .all(plain)
                        .then_some(Self { length: at + 1, element_type });
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::with_element_types;

    #[test]
    fn a_cast_of_a_whole_array_stays_one() {
        for (printed, written) in [
            (
                "((status)::text = ANY ((ARRAY['a'::character varying, 'b]'::character varying])::text[]))",
                "((status)::text = ANY ((ARRAY['a'::character varying, 'b]'::character varying]::character varying[])::text[]))",
            ),
            (
                "status::text = ANY (ARRAY['a'::character varying]::text[])",
                "status::text = ANY ((ARRAY['a'::character varying]::character varying[])::text[])",
            ),
        ] {
            assert_eq!(with_element_types(printed), written);
        }
    }

    #[test]
    fn nothing_else_is_touched() {
        for text in [
            "a = ANY (ARRAY['a'::text, 'b'::text])",
            "a = 'ARRAY[''x''::character varying]::text[]'",
            "\"ARRAY[x::y]::\" > 0",
            "ARRAY[ARRAY[1, 2]]::int[]",
            "ARRAY[a, b]::text[]",
            "ARRAY['open",
            "",
        ] {
            assert_eq!(with_element_types(text), text);
        }
    }
}
