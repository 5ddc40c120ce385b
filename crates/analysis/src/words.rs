//! Numbers and foreign text as people read them.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A moment since the first event: `1.234567890 s` without the unit, so that columns line up.
pub fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

/// A moment on the trace's clock.
pub fn clock(ns: u64) -> String {
    seconds(ns)
}

/// A length of time with the unit that fits: `820 ns`, `3.41 us`, `12.0 ms`, `1.50 s`.
pub fn duration(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

/// A number of bytes as page sizes are written: `4K`, `2M`, `1G`; whole units only where they are whole.
pub fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    for (unit, name) in UNITS {
        if n >= unit {
            return if n.is_multiple_of(unit) {
                format!("{}{name}", n / unit)
            } else {
                format!("{:.1}{name}", n as f64 / unit as f64)
            };
        }
    }
    format!("{n}")
}

/// A count with its thousands apart: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// Text from a trace, safe for a terminal: control characters (and what could reorder or hide text) are shown as escapes.
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
    fn people_read_units() {
        assert_eq!(seconds(1_234_567_890), "1.234567890");
        assert_eq!(duration(820), "820 ns");
        assert_eq!(duration(3_412), "3.41 us");
        assert_eq!(duration(12_040_000), "12.0 ms");
        assert_eq!(duration(90_000_000_000), "90.0 s");
        assert_eq!((bytes(4096), bytes(2 << 20), bytes(1 << 30)), ("4K".into(), "2M".into(), "1G".into()));
        assert_eq!(bytes(6144), "6K");
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
    }

    #[test]
    fn a_task_name_cannot_drive_the_terminal() {
        assert_eq!(printable("CPU 0/KVM"), "CPU 0/KVM");
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("x\u{202e}y"), "x\\u{202e}y");
    }
}
