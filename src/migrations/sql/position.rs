//! Converts byte offsets to lines and columns, both counted from 1.

use crate::domain::script::Location;

/// Returns the location of a byte. An offset past the end is the end.
pub(crate) fn location_of_byte(text: &str, byte: usize) -> Location {
    let byte = text.floor_char_boundary(byte.min(text.len()));
    let before = &text[..byte];
    let line_start = before.rfind('\n').map_or(0, |line_end| line_end + 1);
    let line = text[line_start..].split('\n').next().unwrap_or_default();
    Location {
        line: before.bytes().filter(|&b| b == b'\n').count() + 1,
        column: Some(before[line_start..].chars().count() + 1),
        text: line.to_owned(),
    }
}

/// Returns the byte of a position as the server reports it: in characters, from 1.
pub(crate) fn byte_of_position(text: &str, position: usize) -> usize {
    text.char_indices().nth(position.saturating_sub(1)).map_or(text.len(), |(byte, _)| byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_characters_and_lines_count_from_one() {
        let text = "chọn giá;\n  lỗi here\n";
        let location = location_of_byte(text, byte_of_position(text, 17));
        assert_eq!(
            (location.line, location.column, location.text.as_str()),
            (2, Some(7), "  lỗi here")
        );
        assert_eq!(location_of_byte(text, 0).column, Some(1));
    }

    #[test]
    fn a_position_past_the_end_is_the_end() {
        let text = "select (";
        let location = location_of_byte(text, byte_of_position(text, 99));
        assert_eq!((location.line, location.column), (1, Some(9)));
        assert_eq!(byte_of_position(text, 0), 0, "the server never says 0; no panic if it does");
    }
}
