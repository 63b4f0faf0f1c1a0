//! JSON whose strings cannot act on a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use super::text::is_hostile;

/// Writes a value as an indented document that ends in a line break.
pub fn write_document(out: &mut impl Write, document: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(EscapingWriter(&mut *out), document)?;
    out.write_all(b"\n")
}

/// Escapes what a serializer writes; see [`escape`].
struct EscapingWriter<W>(W);

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A serializer writes whole pieces of a string, never half a character.
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        self.0.write_all(escape(Cow::Borrowed(text)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Returns a value as JSON on one line.
pub(super) fn encode(value: &impl Serialize) -> io::Result<String> {
    Ok(escape(serde_json::to_string(value)?.into()).into_owned())
}

/// Escapes control characters above U+001F, which JSON allows in strings but a terminal could act
/// on.
fn escape(json: Cow<'_, str>) -> Cow<'_, str> {
    let acts = |c: char| c != '\n' && is_hostile(c);
    if !json.contains(acts) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if acts(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out.into()
}
