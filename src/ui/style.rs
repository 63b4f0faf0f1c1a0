//! Colours. No text depends on them.

/// Whether output is coloured: `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorChoice {
    /// On terminals, unless the environment says otherwise.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Colours text for one stream, or leaves it unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// Returns a style that colours text if `colour` is true.
    pub const fn new(colour: bool) -> Self {
        Self { colour }
    }

    /// Returns a style without colours.
    pub const fn plain() -> Self {
        Self::new(false)
    }

    /// Returns the text in the colour of success.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Returns the text in the colour of failure.
    pub fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// Returns the text in the colour of warnings.
    pub fn warning(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Returns the text in the colour of hints.
    pub fn advice(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// Returns the text dimmed.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, codes: &str, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("\u{1b}[{codes}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_text_stays_as_it_is() {
        assert_eq!(Style::plain().bad("x"), "x");
        assert_eq!(Style::new(true).bad("x"), "\u{1b}[1;31mx\u{1b}[0m");
    }
}
