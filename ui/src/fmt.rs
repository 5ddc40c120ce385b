//! Numbers for people: times, counts, sizes, frames. One place, so that every panel writes them alike.

/// A duration or a time since the first event, with the unit that fits it and at most `digits` decimals.
pub(crate) fn time(ns: f64, digits: usize) -> String {
    let (value, unit) = scaled(ns);
    trim(&format!("{value:.digits$}"), unit)
}

/// A time since the first event with the resolution that `step` (the distance to the next one of interest) needs.
pub(crate) fn time_at(ns: f64, step: f64) -> String {
    // The unit follows the magnitude of the time itself; the digits follow the step.
    let (value, main) = scaled(ns);
    let per_unit = match main {
        "s" => 1e9,
        "ms" => 1e6,
        "µs" => 1e3,
        _ => 1.0,
    };
    let step_units = (step / per_unit).max(1e-9);
    let digits = (-step_units.log10().floor()).clamp(0.0, 9.0) as usize;
    if ns == 0.0 { "0 s".to_owned() } else { format!("{value:.digits$} {main}") }
}

/// A time since the first event to the nanosecond, in seconds, digits grouped: `1.234 567 890 s`.
pub(crate) fn exact(ns: u64) -> String {
    let (s, rest) = (ns / 1_000_000_000, ns % 1_000_000_000);
    format!("{s}.{:03} {:03} {:03} s", rest / 1_000_000, rest / 1000 % 1000, rest % 1000)
}

fn scaled(ns: f64) -> (f64, &'static str) {
    let a = ns.abs();
    if a >= 1e9 {
        (ns / 1e9, "s")
    } else if a >= 1e6 {
        (ns / 1e6, "ms")
    } else if a >= 1e3 {
        (ns / 1e3, "µs")
    } else {
        (ns, "ns")
    }
}

fn trim(number: &str, unit: &str) -> String {
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number} {unit}")
}

/// A count with thousands separated: `12,345`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A count in few letters, for axes: `950`, `12.3k`, `4M`.
pub(crate) fn short(n: f64) -> String {
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

/// Bytes in binary units: `4 KiB`, `1.5 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    let mut v = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if v < 1024.0 {
            return trim(&format!("{v:.1}"), unit);
        }
        v /= 1024.0;
    }
    trim(&format!("{v:.1}"), "PiB")
}

/// A guest frame number.
pub(crate) fn gfn(gfn: u64) -> String {
    format!("0x{gfn:x}")
}

/// Guest-physical address of a frame.
pub(crate) fn gpa(gfn: u64) -> String {
    format!("0x{:x}", gfn.wrapping_shl(12))
}

/// A raw SPTE value, always 16 digits so that bits line up.
pub(crate) fn spte(v: u64) -> String {
    format!("0x{v:016x}")
}

pub(crate) use mmuscope_replay::level_size as level;

/// `1 entry`, `2 entries`.
pub(crate) fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// Text from a trace on one line: control characters made visible, so that a task name cannot draw or break lines.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_take_the_unit_that_fits() {
        assert_eq!(time(0.0, 3), "0 ns");
        assert_eq!(time(999.0, 3), "999 ns");
        assert_eq!(time(1500.0, 3), "1.5 µs");
        assert_eq!(time(2_000_000.0, 3), "2 ms");
        assert_eq!(time(1_234_567_890.0, 3), "1.235 s");
        assert_eq!(exact(1_234_567_890), "1.234 567 890 s");
    }

    #[test]
    fn tick_labels_have_the_digits_their_step_needs() {
        assert_eq!(time_at(1_500_000_000.0, 500_000_000.0), "1.5 s");
        assert_eq!(time_at(2_000_000_000.0, 500_000_000.0), "2.0 s");
        assert_eq!(time_at(1_000_020_000.0, 20_000.0), "1.00002 s");
        assert_eq!(time_at(0.0, 1.0), "0 s");
        assert_eq!(time_at(20_000.0, 20_000.0), "20 µs");
    }

    #[test]
    fn counts_and_sizes() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(short(12_300.0), "12.3k");
        assert_eq!(short(4_000_000.0), "4M");
        assert_eq!(bytes(4096), "4 KiB");
        assert_eq!(bytes(1_610_612_736), "1.5 GiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
    }

    #[test]
    fn control_characters_cannot_leave_the_line() {
        assert_eq!(clean("a\nb\u{1b}[31m"), "a\u{fffd}b\u{fffd}[31m");
    }
}
