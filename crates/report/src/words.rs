//! Numbers, times and sizes as people read them.
//!
//! Every face of a report writes them the same way: `1,234,567`, `12.3 ms`, `64 MiB`, `0xfee00`.

use std::fmt::Write;

/// `1234567` as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// `1 page`, `2 pages`, `1,024 pages`: a count with its noun.
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// Nanoseconds with three significant digits: `0 ns`, `850 ns`, `12.3 ms`, `9.81 s`, `2 min 5 s`.
pub fn duration(ns: u64) -> String {
    if ns < 1_000 {
        return format!("{ns} ns");
    }
    let x = ns as f64;
    // Rounding may carry into the next unit: 999,999 ns is 1 ms, not 1000 µs.
    for (unit, size) in [("µs", 1e3), ("ms", 1e6), ("s", 1e9)] {
        let v = x / size;
        if v < 999.5 && (unit != "s" || v < 119.5) {
            return format!("{} {unit}", three(v));
        }
    }
    let s = (x / 1e9).round() as u64;
    if s < 7200 {
        format!("{} min {} s", s / 60, s % 60)
    } else {
        format!("{} h {} min", s / 3600, s % 3600 / 60)
    }
}

/// Three significant digits, without trailing zeroes after the point.
fn three(v: f64) -> String {
    let decimals = if v >= 99.95 {
        0
    } else if v >= 9.995 {
        1
    } else {
        2
    };
    let s = format!("{v:.decimals$}");
    if s.contains('.') { s.trim_end_matches('0').trim_end_matches('.').to_owned() } else { s }
}

/// Bytes in binary units with three significant digits: `4 KiB`, `1.5 MiB`, `64 MiB`.
pub fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    let mut v = n as f64 / 1024.0;
    for unit in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if v < 999.5 {
            return format!("{} {unit}", three(v));
        }
        v /= 1024.0;
    }
    format!("{} EiB", three(v))
}

/// A guest frame number as the kernel's traces print it, with `0x`.
pub fn gfn(n: u64) -> String {
    format!("{n:#x}")
}

/// A frame as guest physical address.
pub fn gpa(gfn: u64) -> String {
    format!("{:#x}", gfn.wrapping_shl(12))
}

/// `0x1000–0x1fff`, or one frame alone; `end` is one past the last.
pub fn gfn_range(start: u64, end: u64) -> String {
    if end <= start + 1 { gfn(start) } else { format!("{}–{}", gfn(start), gfn(end - 1)) }
}

/// Share of a whole: `0 %`, `<0.1 %`, `3.4 %`, `57 %`, `100 %`.
pub fn percent(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return "0 %".to_owned();
    }
    if part == whole {
        return "100 %".to_owned();
    }
    let p = part as f64 * 100.0 / whole as f64;
    if p < 0.1 {
        "<0.1 %".to_owned()
    } else if p < 10.0 {
        format!("{p:.1} %")
    } else {
        // Not the whole, so not "100 %" either.
        format!("{:.0} %", p.min(99.0))
    }
}

/// Rate of something: `212 /s`, `3,450 /s`.
pub fn rate(n: u64, ns: u64) -> Option<String> {
    (ns > 0).then(|| {
        let r = n as f64 * 1e9 / ns as f64;
        if r >= 100.0 { format!("{} /s", count(r.round() as u64)) } else { format!("{} /s", three(r)) }
    })
}

pub use mmuscope_replay::level_size;

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
    fn counts_have_separators() {
        for (n, s) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(count(n), s);
        }
        assert_eq!(counted(1, "page", "pages"), "1 page");
        assert_eq!(counted(0, "page", "pages"), "0 pages");
    }

    #[test]
    fn durations_have_three_digits_and_carry_into_the_next_unit() {
        for (ns, s) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1000, "1 µs"),
            (12_345, "12.3 µs"),
            (999_499, "999 µs"),
            (999_999, "1 ms"),
            (12_300_000, "12.3 ms"),
            (8_290_000_000, "8.29 s"),
            (119_400_000_000, "119 s"),
            (125_000_000_000, "2 min 5 s"),
            (7_260_000_000_000, "2 h 1 min"),
        ] {
            assert_eq!(duration(ns), s, "{ns}");
        }
        // The largest time a trace can hold is still a time.
        assert_eq!(duration(u64::MAX), "5124095 h 34 min");
    }

    #[test]
    fn bytes_are_binary() {
        for (n, s) in [
            (0, "0 B"),
            (4096, "4 KiB"),
            (1 << 20, "1 MiB"),
            (64 << 20, "64 MiB"),
            ((1 << 30) - 1, "1 GiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(n), s, "{n}");
        }
    }

    #[test]
    fn shares_are_never_rounded_to_all_or_nothing() {
        for (a, b, s) in [
            (0, 5, "0 %"),
            (5, 5, "100 %"),
            (1, 100_000, "<0.1 %"),
            (99_999, 100_000, "99 %"),
            (1, 3, "33 %"),
            (34, 1000, "3.4 %"),
            (1, 0, "0 %"),
        ] {
            assert_eq!(percent(a, b), s);
        }
    }

    #[test]
    fn lists_and_ranges() {
        let l = |n: &[&str]| list(&n.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(l(&["a"]), "a");
        assert_eq!(l(&["a", "b", "c"]), "a, b and c");
        assert_eq!(gfn_range(0xfee00, 0xfee01), "0xfee00");
        assert_eq!(gfn_range(0, 0x200), "0x0–0x1ff");
        assert_eq!(gpa(0xfee00), "0xfee00000");
        assert_eq!(rate(500, 0), None);
        assert_eq!(rate(50, 2_000_000_000).as_deref(), Some("25 /s"));
    }

    #[test]
    fn texts_of_a_trace_stay_on_their_line() {
        assert_eq!(one_line("a\nb\x1b[31m", 40), "a b\\x1b[31m");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(one_line("x\u{202e}y", 9), "x\\u{202e}y");
    }
}
