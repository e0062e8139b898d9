//! The labels of a sample in the Prometheus text format.

use std::borrow::Cow;

/// The labels of a sample; what is left of the text begins with `}` when they were well formed.
pub(super) struct Labels<'a> {
    pub rest: &'a str,
}

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = self.rest.trim_start_matches([',', ' ']);
        if self.rest.starts_with('}') {
            return None;
        }
        let (name, rest) = self.rest.split_once('=')?;
        let rest = rest.trim_start().strip_prefix('"')?;
        let end = closing_quote(rest)?;
        self.rest = &rest[end + 1..];
        Some((name.trim(), &rest[..end]))
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

/// A label's value without its escapes.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => {}
            },
            other => plain.push(other),
        }
    }
    Cow::Owned(plain)
}
