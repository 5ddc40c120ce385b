//! How a report writes numbers and texts. Numbers, times, sizes and frames are written by `mmuscope_units`, for every face alike.

use std::fmt::Write;

use mmuscope_replay::{MemoryKind, Shade};

pub use mmuscope_units::{
    bytes, count, counted, duration, gfn, gfn_range, gpa, level_size, moment, moments, percent, rate,
};

/// A time by itself, in seconds since the first event: `1.103 s`.
pub fn at(ns: u64) -> String {
    moments(&[ns]).concat()
}

/// Page size of a level, or `mixed` for 0, which stands for several levels.
pub fn page_size(level: u8) -> &'static str {
    if level == 0 { "mixed" } else { level_size(level) }
}

/// The numbers of the first events that show a fact.
pub fn events(events: &[u64]) -> String {
    const SHOWN: usize = 5;
    let first: Vec<String> = events.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if events.len() > SHOWN { " …" } else { "" };
    format!("(events {}{more})", first.join(", "))
}

/// Since when, how long and how often something happened: times are nanoseconds since the start of the trace.
pub fn when(count: u64, first: u64, last: u64) -> String {
    let times = counted(count, "event", "events");
    if first == last {
        format!("{times}, at {}", moment(first))
    } else {
        format!("{times}, from {} to {}", moment(first), moment(last))
    }
}

/// Name of an address space, by its number.
pub fn space_name(as_id: u8) -> &'static str {
    match as_id {
        0 => "Normal address space",
        1 => "SMM address space",
        _ => "Another address space",
    }
}

/// Short name of a state, for labels with little room.
pub fn short_name(shade: Shade) -> &'static str {
    match shade {
        Shade::Writable => "writable",
        Shade::ReadOnly => "read-only",
        Shade::AccessTracked => "access-tracked",
        Shade::Mmio => "MMIO",
        Shade::Removed => "removed",
        Shade::Table => "tables",
        Shade::Nonpresent => "nonpresent",
        Shade::Unknown => "unknown",
    }
}

/// Name of a kind of range of guest frames.
pub fn kind(kind: MemoryKind) -> &'static str {
    match kind {
        MemoryKind::Ram => "mapped RAM",
        MemoryKind::Gone => "was mapped",
        MemoryKind::Mmio => "MMIO",
        MemoryKind::Unseen => "",
    }
}

/// A value in hex: `0x5a0`.
pub fn hex(n: u64) -> String {
    format!("{n:#x}")
}

/// A list as prose: `a`, `a and b`, `a, b and c`.
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}

/// The text with its first letter in upper case.
pub fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// A text of a trace on one line of at most `max` characters: control characters become visible escapes, the rest is kept.
///
/// Bidirectional controls become escapes too, because they could make one name look like another.
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

/// A whole document with invisible characters turned into escapes: a last line of defence behind [`one_line`].
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
