//! The keys, numbers and letters of a line.

use super::Letters;
use crate::event::{TRACEPOINTS, Tracepoint};

/// Reads `(0x)?hex` at the start of a text, and returns the number and the rest of the text.
pub(super) fn hex(text: &str) -> Option<(u64, &str)> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let end = digits.bytes().take_while(u8::is_ascii_hexdigit).count();
    if end == 0 || end > 16 {
        return None;
    }
    Some((u64::from_str_radix(&digits[..end], 16).ok()?, &digits[end..]))
}

/// Reads a number in hex, or in decimal where the tool prints raw fields.
pub(super) fn value(text: &str, decimal: bool) -> Option<(u64, &str)> {
    if decimal && !text.starts_with("0x") {
        let end = text.bytes().take_while(u8::is_ascii_digit).count();
        return Some((text[..end].parse().ok()?, &text[end..]));
    }
    hex(text)
}

/// Returns the text after `key` and after the signs between a key and its value.
pub(super) fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut from = 0;
    while let Some(at) = text[from..].find(key) {
        let start = from + at;
        let end = start + key.len();
        let before = text[..start].bytes().next_back();
        let starts = before.is_none_or(|b| !(b.is_ascii_alphanumeric() || b == b'_'));
        let rest = &text[end..];
        if starts && rest.starts_with([' ', '=', ':', '\t']) {
            return Some(rest.trim_start_matches([' ', '=', ':', '\t']));
        }
        from = end;
    }
    None
}

pub(super) fn level_in(text: &str) -> Option<u8> {
    let rest = after(text, "level")?;
    let digit = rest.bytes().next()?;
    (b'1'..=b'5').contains(&digit).then_some(digit - b'0')
}

pub(super) fn letters(text: &str) -> Option<Letters> {
    let inner = text.trim_start().strip_prefix('(')?.split_once(')')?.0;
    let bytes = inner.as_bytes();
    if !(3..=4).contains(&bytes.len()) || !inner.bytes().all(|b| b"rwxu-".contains(&b)) {
        return None;
    }
    Some(Letters {
        r: bytes[0] == b'r',
        w: bytes[1] == b'w',
        x: bytes[2] == b'x',
        u: bytes.get(3).map(|&b| b == b'u'),
    })
}

/// The name of the event in a trace line, for events that have an entry's value or address.
pub(super) fn event_of(line: &str) -> Option<String> {
    let has_entry = |t: &&Tracepoint| {
        t.fields.iter().any(|f| matches!(f.column, Some("spte" | "old_spte" | "new_spte" | "sptep")))
    };
    let mut names = TRACEPOINTS.iter().filter(has_entry).flat_map(|t| t.names);
    names.find(|e| line.contains(**e)).map(|e| (*e).to_owned())
}
