//! Numbers and texts of a trace as people read them. Numbers are written by `mmuscope_units`, for every face alike.

use std::borrow::Cow;
use std::fmt::Write as _;

pub use mmuscope_units::{bytes, clock, count, counted, duration, gfn_range, moment, moments, seconds};

/// A text of a trace, made safe for a terminal: control characters, and characters that reorder or hide text, become escapes.
pub fn printable(s: &str) -> Cow<'_, str> {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if !s.chars().any(bad) {
        return Cow::Borrowed(s);
    }
    let mut out = String::with_capacity(s.len() + 8);
    for c in s.chars() {
        if bad(c) {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_name_cannot_drive_the_terminal() {
        assert_eq!(printable("CPU 0/KVM"), "CPU 0/KVM");
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("x\u{202e}y"), "x\\u{202e}y");
    }
}
