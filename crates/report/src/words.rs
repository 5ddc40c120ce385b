//! Words of a report. Numbers, times, sizes and frames are written as `mmuscope_units` says, for every face alike.

use std::fmt::Write;

pub use mmuscope_units::{
    bytes, count, counted, duration, gfn, gfn_range, gpa, level_size, moment, moments, percent, rate,
};

/// A moment alone, in seconds since the first event: `1.103 s`.
pub fn at(ns: u64) -> String {
    moments(&[ns]).concat()
}

/// `a`, `a and b`, `a, b and c`.
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}

/// First letter upper case.
pub fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// A text out of a trace on one line of bounded length: control characters become visible, the rest is kept.
///
/// Bidirectional controls go as well: they could make one name look like another.
pub fn one_line(text: &str, max: usize) -> String {
    let mut out = String::new();
    for (n, c) in text.trim().chars().enumerate() {
        if n >= max {
            out.push('…');
            break;
        }
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c => push_visible(&mut out, c),
        }
    }
    out
}

/// A whole document with what a reader could not see made visible: a last line of defence behind [`one_line`].
pub(crate) fn visible(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        if c == '\n' { out.push(c) } else { push_visible(&mut out, c) }
    }
    out
}

fn push_visible(out: &mut String, c: char) {
    // Writing to a string cannot fail.
    match c {
        '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
        c if c.is_control() => {
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        }
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let l = |n: &[&str]| list(&n.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(l(&["a"]), "a");
        assert_eq!(l(&["a", "b", "c"]), "a, b and c");
    }

    #[test]
    fn texts_of_a_trace_stay_on_their_line() {
        assert_eq!(one_line("a\nb\x1b[31m", 40), "a b\\x1b[31m");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(one_line("x\u{202e}y", 9), "x\\u{202e}y");
    }
}
