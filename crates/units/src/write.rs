//! Formatting of numbers, times, sizes and frames for people. The rules are in the table of the crate's first page.

/// The size that an entry of a level maps: `4K` (level 1), `2M`, `1G`, `512G`, `256T` (level 5); `?` for any other number.
pub fn level_size(level: u8) -> &'static str {
    match level {
        1 => "4K",
        2 => "2M",
        3 => "1G",
        4 => "512G",
        5 => "256T",
        _ => "?",
    }
}

/// Writes a count with thousands separated: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
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

/// A count in few letters, for axes: `950`, `12.3k`, `4M` (decimal units, without the space that an amount of memory has).
pub fn short_count(n: f64) -> String {
    let (v, unit) = if n >= 1e9 {
        (n / 1e9, "G")
    } else if n >= 1e6 {
        (n / 1e6, "M")
    } else if n >= 1e3 {
        (n / 1e3, "k")
    } else {
        (n, "")
    };
    let text = if v >= 100.0 || v.fract() < 0.05 { format!("{v:.0}") } else { format!("{v:.1}") };
    format!("{text}{unit}")
}

/// A length of time, given in nanoseconds, with three significant digits: `0 ns`, `850 ns`, `12.3 ms`, `9.81 s`, `2 min 5 s`.
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

/// Formats a number with three significant digits, without trailing zeroes after the point.
fn three(v: f64) -> String {
    let decimals = if v >= 99.95 {
        0
    } else if v >= 9.995 {
        1
    } else {
        2
    };
    trimmed(&format!("{v:.decimals$}")).to_owned()
}

/// Removes trailing zeroes after the point.
fn trimmed(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// A moment in nanoseconds as seconds with all nine decimals and no unit, so that columns line up: `1.234567890`.
pub fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

/// A moment on the trace's own clock. It is in seconds too, because traces print it so.
pub fn clock(ns: u64) -> String {
    seconds(ns)
}

/// A moment in prose, exact to the nanosecond and without trailing zeroes: `1.234567891 s`, `1.5 s`.
pub fn moment(ns: u64) -> String {
    format!("{} s", trimmed(&seconds(ns)))
}

/// Formats the moments of a list with the same number of decimals: at least three, and as many as make different neighbours look different:
/// `1.103 s`, or `1.103254 s` and `1.103261 s`. Equal neighbours need no more decimals than the others do. A moment after 0 is never
/// printed as zero.
pub fn moments(list: &[u64]) -> Vec<String> {
    let shown = |ns: u64, decimals: u32| ns / 10u64.pow(9 - decimals);
    let decimals = [3, 4, 5, 6, 7, 8]
        .into_iter()
        .find(|d| {
            list.windows(2).all(|w| w[0] == w[1] || shown(w[0], *d) != shown(w[1], *d))
                && list.iter().all(|ns| *ns == 0 || shown(*ns, *d) != 0)
        })
        .unwrap_or(9);
    list.iter()
        .map(|ns| {
            // The digits are cut, not rounded: a rounded moment could lie after its neighbour, or after the end of the trace.
            let digits = seconds(*ns);
            format!("{} s", &digits[..digits.len() - (9 - decimals as usize)])
        })
        .collect()
}

/// A time in nanoseconds with the unit of its own magnitude and as many digits as `step` needs, which is the distance in nanoseconds to
/// the next tick: `1.00002 s` where ticks are 20 µs apart.
pub fn time_with_step(ns: f64, step: f64) -> String {
    let (unit, size) = match ns.abs() {
        a if a >= 1e9 => ("s", 1e9),
        a if a >= 1e6 => ("ms", 1e6),
        a if a >= 1e3 => ("µs", 1e3),
        _ => ("ns", 1.0),
    };
    let digits = (-(step / size).max(1e-9).log10().floor()).clamp(0.0, 9.0) as usize;
    if ns == 0.0 { "0 s".to_owned() } else { format!("{:.digits$} {unit}", ns / size) }
}

/// An amount of memory in binary units with three significant digits: `4 KiB`, `1.5 MiB`, `64 MiB`.
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

/// The guest-physical address of a frame.
pub fn gpa(gfn: u64) -> String {
    format!("{:#x}", gfn.wrapping_shl(12))
}

/// `0x1000–0x1fff`, or one frame alone; `end` is one past the last.
pub fn gfn_range(start: u64, end: u64) -> String {
    if end <= start.saturating_add(1) { gfn(start) } else { format!("{}–{}", gfn(start), gfn(end - 1)) }
}

/// The addresses of the first and the last byte of frames, `0xfee00000–0xfee00fff`; `end` is one past the last frame.
pub fn gpa_range(start: u64, end: u64) -> String {
    let last = end.saturating_sub(1).max(start).wrapping_shl(12) | 0xfff;
    format!("{}–{last:#x}", gpa(start))
}

/// A raw SPTE value, always with 16 hex digits so that the bits of values in a column line up.
pub fn spte(v: u64) -> String {
    format!("0x{v:016x}")
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
        // A share that is not the whole is never shown as "100 %".
        format!("{:.0} %", p.min(99.0))
    }
}

/// How often something happened in a length of time of `ns` nanoseconds: `212 /s`, `3,450 /s`. `None` where no time passed.
pub fn rate(n: u64, ns: u64) -> Option<String> {
    (ns > 0).then(|| {
        let r = n as f64 * 1e9 / ns as f64;
        if r >= 100.0 { format!("{} /s", count(r.round() as u64)) } else { format!("{} /s", three(r)) }
    })
}

/// A word as a shell takes it, for command lines that are shown to be copied: in single quotes where it holds anything but letters, digits and
/// the signs of paths and options.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
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
        assert_eq!((short_count(950.0), short_count(12_300.0)), ("950".into(), "12.3k".into()));
        assert_eq!(short_count(4_000_000.0), "4M");
    }

    #[test]
    fn durations_have_three_digits_and_carry_into_the_next_unit() {
        for (ns, s) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1000, "1 µs"),
            (3_412, "3.41 µs"),
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
        // The largest time that a trace can hold is formatted, too.
        assert_eq!(duration(u64::MAX), "5124095 h 34 min");
    }

    #[test]
    fn moments_that_differ_look_different() {
        assert_eq!(seconds(1_234_567_890), "1.234567890");
        assert_eq!((moment(1_500_000_000), moment(0)), ("1.5 s".into(), "0 s".into()));
        assert_eq!(moments(&[0, 1_100_000_000]), ["0.000 s", "1.100 s"]);
        assert_eq!(moments(&[1_103_254_100, 1_103_261_900]), ["1.10325 s", "1.10326 s"]);
        assert_eq!(
            moments(&[1_000_000_001, 1_000_000_001, 1_000_000_002]),
            ["1.000000001 s", "1.000000001 s", "1.000000002 s"]
        );
        assert_eq!(moments(&[999_999_999]), ["0.999 s"], "a moment is not moved behind itself");
        assert_eq!(moments(&[1_000]), ["0.000001 s"]);
        assert!(moments(&[]).is_empty());
    }

    #[test]
    fn tick_labels_have_the_digits_their_step_needs() {
        assert_eq!(time_with_step(1_500_000_000.0, 500_000_000.0), "1.5 s");
        assert_eq!(time_with_step(2_000_000_000.0, 500_000_000.0), "2.0 s");
        assert_eq!(time_with_step(1_000_020_000.0, 20_000.0), "1.00002 s");
        assert_eq!(time_with_step(0.0, 1.0), "0 s");
        assert_eq!(time_with_step(20_000.0, 20_000.0), "20 µs");
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
    fn frames_are_hex() {
        assert_eq!(gfn_range(0xfee00, 0xfee01), "0xfee00");
        assert_eq!(gfn_range(0, 0x200), "0x0–0x1ff");
        assert_eq!(gpa_range(0xfee00, 0xfee01), "0xfee00000–0xfee00fff");
        assert_eq!(gpa_range(0xf_ffff_ffff_ffff, u64::MAX >> 12), "0xfffffffffffff000–0xffffffffffffffff");
        assert_eq!(gpa(0xfee00), "0xfee00000");
        assert_eq!(spte(0x6), "0x0000000000000006");
        assert_eq!(rate(500, 0), None);
        assert_eq!(rate(50, 2_000_000_000).as_deref(), Some("25 /s"));
    }

    #[test]
    fn a_shell_takes_words_as_they_are() {
        assert_eq!(shell_word("samples/6.1-npt/trace.dat"), "samples/6.1-npt/trace.dat");
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(shell_word(""), "''");
    }
}
