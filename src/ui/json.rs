//! JSON whose strings cannot act on a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use super::text::is_hostile;

/// Writes a value as one indented document with a line break at its end.
pub fn write_document(out: &mut impl Write, document: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(Harmless(&mut *out), document)?;
    out.write_all(b"\n")
}

/// Passes on what a serializer writes, as [`harmless`] text.
struct Harmless<W>(W);

impl<W: Write> Write for Harmless<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A serializer writes whole pieces of a string, never half a character.
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        self.0.write_all(harmless(Cow::Borrowed(text)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Returns a value as JSON on one line.
pub(super) fn encode(value: &impl Serialize) -> io::Result<String> {
    Ok(harmless(serde_json::to_string(value)?.into()).into_owned())
}

/// JSON lets a terminal's control characters through above U+001F; they are escaped here,
/// which means the same to a program. Outside strings there are none but line breaks.
fn harmless(json: Cow<'_, str>) -> Cow<'_, str> {
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
