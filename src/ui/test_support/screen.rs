//! A terminal to look at in tests.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};

use indicatif::TermLike;

/// A terminal in memory, for indicatif and for what is written past it.
#[derive(Clone)]
pub(in crate::ui) struct Screen(Arc<Mutex<vt100::Parser>>);

pub(in crate::ui) const WIDTH: u16 = 70;

impl Screen {
    pub(in crate::ui) fn new() -> Self {
        let size = |n| NonZeroU16::new(n).unwrap();
        Self(Arc::new(Mutex::new(vt100::Parser::new(size(40), size(WIDTH), 0))))
    }

    fn feed(&self, text: &str) {
        self.0.lock().unwrap().process(text.as_bytes());
    }

    pub(in crate::ui) fn text(&self) -> String {
        let parser = self.0.lock().unwrap();
        let rows = parser.screen().rows(0, WIDTH);
        let rows: Vec<_> = rows.map(|row| row.trim_end().to_owned()).collect();
        rows.join("\n").trim_end().to_owned()
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Screen")
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A terminal's line discipline does this to a line feed.
        self.feed(&String::from_utf8_lossy(bytes).replace('\n', "\r\n"));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream whose reader has closed it.
#[derive(Debug)]
pub(in crate::ui) struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        WIDTH
    }
    fn height(&self) -> u16 {
        40
    }
    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.csi(n, 'A');
        Ok(())
    }
    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.csi(n, 'B');
        Ok(())
    }
    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.csi(n, 'C');
        Ok(())
    }
    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.csi(n, 'D');
        Ok(())
    }
    fn write_line(&self, text: &str) -> io::Result<()> {
        self.feed(&format!("{text}\r\n"));
        Ok(())
    }
    fn write_str(&self, text: &str) -> io::Result<()> {
        self.feed(text);
        Ok(())
    }
    fn clear_line(&self) -> io::Result<()> {
        self.feed("\r\u{1b}[2K");
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    /// A movement by nothing would be one by one.
    fn csi(&self, n: usize, what: char) {
        if n > 0 {
            self.feed(&format!("\u{1b}[{n}{what}"));
        }
    }
}
