//! The beginning of what a server says, for messages.

use core::fmt;

/// Most bytes of an [`Excerpt`].
pub const EXCERPT: usize = 88;

/// How much of a text is looked at to find something that can be shown.
const SCANNED: usize = 4096;

/// The mark of a text that goes on.
const MORE: &str = "…";

/// The beginning of a text from elsewhere, fit for one line of a log: without markup, control characters and surplus white
/// space. Empty if there is none, or it is not UTF-8.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Excerpt(heapless::String<EXCERPT>);

impl Excerpt {
    /// Of nothing.
    pub const EMPTY: Self = Self(heapless::String::new());

    /// Of a text. HTML, as proxies and web servers answer it, is reduced to what a browser would show.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        let scanned = text.get(..SCANNED).unwrap_or(text);
        let text = match core::str::from_utf8(scanned) {
            Ok(text) => text,
            // Cut in the middle of a character.
            Err(error) if error.error_len().is_none() => scanned
                .get(..error.valid_up_to())
                .and_then(|valid| core::str::from_utf8(valid).ok())
                .unwrap_or_default(),
            Err(_) => "",
        };
        let mut excerpt = Self::default();
        if text.trim_start().starts_with('<') {
            let _ = visible(text).all(|part| excerpt.append(part));
        } else {
            excerpt.append(text);
        }
        excerpt
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing to show.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the words of a text, as long as there is room for them.
    fn append(&mut self, text: &str) -> bool {
        text.split(|c: char| c.is_whitespace() || c.is_control())
            .filter(|word| !word.is_empty())
            .all(|word| self.push(" ", word))
    }

    /// Adds a word, with `separator` before it unless it is the first. If there is no room for all of it, adds what fits,
    /// and the mark that there was more.
    pub(super) fn push(&mut self, separator: &str, word: &str) -> bool {
        let separator = if self.is_empty() { "" } else { separator };
        for c in separator.chars().chain(word.chars()) {
            let left = EXCERPT.saturating_sub(self.0.len());
            if left < c.len_utf8().saturating_add(MORE.len()) {
                // There is always room for the mark.
                let _ = self.0.push_str(MORE);
                return false;
            }
            let _ = self.0.push(c);
        }
        true
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Excerpt {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{}", self.as_str());
    }
}

/// The parts of HTML between its tags, apart from style sheets, scripts and comments.
fn visible(html: &str) -> impl Iterator<Item = &str> {
    let mut rest = html;
    core::iter::from_fn(move || {
        let (part, behind) = rest.split_once('<').unwrap_or((rest, ""));
        if part.is_empty() && behind.is_empty() {
            return None;
        }
        let end = if behind.starts_with("!--") {
            "-->"
        } else if starts_with(behind, "style") {
            "</style>"
        } else if starts_with(behind, "script") {
            "</script>"
        } else {
            ">"
        };
        rest = behind.split_once(end).map_or("", |(_, rest)| rest);
        Some(part)
    })
}

fn starts_with(text: &str, name: &str) -> bool {
    text.get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_shown_of_answers() {
        let long = "word ".repeat(40);
        for (text, shown) in [
            ("", ""),
            ("  bad \r\n\t request\0 ", "bad request"),
            (r#"{"error":"x <y>"}"#, r#"{"error":"x <y>"}"#),
            (
                "<!DOCTYPE html>\n<html><head><style>a{}</style><title>502 Bad\nGateway</title></head>\
                 <!-- <b>x</b> --><body><center>nginx</center></body></html>",
                "502 Bad Gateway nginx",
            ),
            ("<html", ""),
            ("<style>x", ""),
            (
                &long,
                "word word word word word word word word word word word word word word word word word …",
            ),
        ] {
            assert_eq!(Excerpt::new(text.as_bytes()).as_str(), shown, "{text}");
        }
        assert!(Excerpt::new(b"\x30\x82\xff\xfe").is_empty());
        let mut cut = "x".repeat(SCANNED - 1);
        cut.push('é');
        assert!(Excerpt::new(cut.as_bytes()).as_str().ends_with("x…"));
    }

    proptest! {
        #[test]
        fn an_excerpt_is_one_line_within_its_limit(text: Vec<u8>, tail in "[<>! a-zé/-]{0,200}") {
            for bytes in [&text[..], tail.as_bytes()] {
                let excerpt = Excerpt::new(bytes);
                prop_assert!(excerpt.as_str().len() <= EXCERPT);
                prop_assert!(!excerpt.as_str().chars().any(char::is_control));
            }
        }
    }
}
