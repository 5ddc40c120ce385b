//! The keys, numbers and letters of a line.

use super::Letters;
use crate::event::{TRACEPOINTS, Tracepoint};

/// Reads `(0x)?hex` at the start of a text, and returns the number and the rest of the text. Digits may be in groups: `0x8600_0001_2345_6b77`, and
/// WinDbg's `0x86000001`23456b77`.
pub(super) fn hex(text: &str) -> Option<(u64, &str)> {
    let prefixed = text.starts_with("0x") || text.starts_with("0X");
    let digits = if prefixed { &text[2..] } else { text };
    let run = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count();
    let mut end = run(digits);
    let mut value = String::from(&digits[..end]);
    while let Some(mark @ (b'_' | b'`')) = digits.as_bytes().get(end) {
        let group = run(&digits[end + 1..]);
        // Only whole groups continue a number: `0x10_max` is a name, and a backtick may end a quotation.
        let goes_on = match mark {
            b'_' => prefixed && matches!(group, 4 | 8) && !digits[end + 1 + group..].starts_with(is_of_name),
            _ => group == 8 && !value.is_empty(),
        };
        if !goes_on {
            break;
        }
        value.push_str(&digits[end + 1..=end + group]);
        end += 1 + group;
    }
    if value.is_empty() || value.len() > 16 {
        return None;
    }
    Some((u64::from_str_radix(&value, 16).ok()?, &digits[end..]))
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

/// Whether what follows the digits of a number belongs to it: nothing, the suffixes of C, the `h` of an assembler.
pub(super) fn is_suffix(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "" | "h" | "u" | "l" | "ul" | "ll" | "ull")
}

/// Reads a word that is only a number: `0x…` or at least four hex digits (or the single digit 0), with the suffix of a language if it has one.
pub fn number(word: &str) -> Option<u64> {
    let word = word.trim_matches(|c: char| matches!(c, ',' | ';' | '`' | '\'' | '"' | '(' | ')'));
    let (value, rest) = hex(word)?;
    let prefixed = word.starts_with("0x") || word.starts_with("0X");
    let long = word.len() - rest.len() >= 4 || word == "0";
    // Assemblers want a digit first, so that `beach` is no number.
    let suffixed =
        is_suffix(rest) && (rest.is_empty() || prefixed || word.starts_with(|c: char| c.is_ascii_digit()));
    (suffixed && (prefixed || long)).then_some(value)
}

/// Skips the address of an entry where its value follows: `rmap_printk` prints `spte %p %llx`. `%p` prints 16 digits without 0x (8 on 32-bit
/// kernels), hashed ones with an upper half of zeros, or a word where nothing can be hashed yet.
pub(super) fn behind_address(text: &str) -> &str {
    let Some((word, rest)) = text.split_once([' ', '\t']) else { return text };
    let digits = |n: usize| word.len() == n && word.bytes().all(|b| b.is_ascii_hexdigit());
    let is_address = match u64::from_str_radix(word, 16) {
        Ok(v) => digits(16) && (v >> 32 == 0 || is_pointer(v)) || digits(8) && v >= 0xc000_0000,
        Err(_) => matches!(word, "(ptrval)" | "(____ptrval____)" | "(null)"),
    };
    let rest = rest.trim_start();
    let next = rest.split([' ', '\t']).next().unwrap_or_default().trim_end_matches('.');
    if is_address && number(next).is_some() { rest } else { text }
}

/// Whether a number is an address of the kernel. No SPTE has all of its highest seven bits set.
pub(super) fn is_pointer(value: u64) -> bool {
    value >> 57 == 0x7f
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
    let mut names = TRACEPOINTS.iter().filter(|t| has_entry(t)).flat_map(|t| t.names);
    names.find(|e| line.contains(**e)).map(|e| (*e).to_owned())
}

/// Whether a line is of an event that has no entry's value or address.
pub(super) fn is_other_event(line: &str) -> bool {
    let mut names = TRACEPOINTS.iter().filter(|t| !has_entry(t)).flat_map(|t| t.names);
    names.any(|e| line.split_once(e).is_some_and(|(_, rest)| rest.starts_with(':')))
}

fn has_entry(t: &Tracepoint) -> bool {
    t.fields.iter().any(|f| matches!(f.column, Some("spte" | "old_spte" | "new_spte" | "sptep")))
}
