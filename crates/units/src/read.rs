//! Parsing of times, sizes, numbers and guest frames as people type them. The rules are in the table of the crate's first page.

use std::fmt;

/// The error for a text that is not a time. Its message shows how a time is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotATime(pub String);

impl fmt::Display for NotATime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no time: write 1.5s, 20ms, 300us or 50ns; without a unit it is in seconds", self.0)
    }
}

impl std::error::Error for NotATime {}

/// Reads a time as nanoseconds: a number with `ns`, `us`/`µs`, `ms`, `s`, `m`/`min` or `h`; a number without a unit is in seconds. The
/// result is exact: a number that is not a whole count of nanoseconds is refused.
pub fn time(text: &str) -> Result<u64, NotATime> {
    let wrong = || NotATime(text.to_owned());
    let t = text.trim();
    let split = t.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(t.len());
    let (digits, unit) = t.split_at(split);
    let scale: u64 = match unit.trim() {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "" | "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(wrong()),
    };
    scaled(digits, scale).ok_or_else(wrong)
}

/// Multiplies `digits` (a decimal number, perhaps with a point) by `scale`. The result is `None` where the product is not a whole number.
fn scaled(digits: &str, scale: u64) -> Option<u64> {
    let digits = digits.replace('_', "");
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() && !digits.contains('.') || digits == "." {
        return None;
    }
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    // 15 decimals are enough for every unit of time or size; more could overflow the arithmetic below.
    if !plain(whole) || !plain(fraction) || fraction.len() > 15 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = part * u128::from(scale);
    let below = 10u128.pow(fraction.len() as u32);
    if !part.is_multiple_of(below) {
        return None;
    }
    whole.checked_mul(scale)?.checked_add((part / below).try_into().ok()?)
}

/// Reads an amount of memory as bytes: `65536`, `64k`, `8M`, `2GiB`; units are powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let t = text.trim();
    let split = t.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(t.len());
    let (digits, unit) = t.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("`{text}` is not a size: its unit is none of k, M, G and T")),
    };
    scaled(digits, 1 << shift).ok_or_else(|| format!("`{text}` is not a size: write 64k, 8M or 2G"))
}

/// Reads a number: hex with `0x`, decimal with `0d`, else as `hex` says. Digits may be grouped with `_`.
pub fn number(text: &str, hex: bool) -> Option<u64> {
    let t = text.trim().replace('_', "");
    let prefix = |p: &str| t.get(..2).filter(|s| s.eq_ignore_ascii_case(p)).and_then(|_| t.get(2..));
    let (digits, radix) = match (prefix("0x"), prefix("0d")) {
        (Some(digits), _) => (digits, 16),
        (_, Some(digits)) => (digits, 10),
        _ => (t.as_str(), if hex { 16 } else { 10 }),
    };
    // `from_str_radix` would take a sign.
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// Reads a guest frame: hex with or without `0x`, decimal with `0d`.
pub fn frame(text: &str) -> Option<u64> {
    number(text, true)
}

/// Reads a guest frame or a range of them, and returns the first frame and one past the last: `7c00`, `100-1ff` (both included),
/// `100+16` (16 frames). With `decimal`, numbers without a prefix are decimal.
pub fn frames(text: &str, decimal: bool) -> Result<(u64, u64), String> {
    let wrong = || {
        let kind = if decimal { "no decimal frame" } else { "no frame" };
        format!(
            "`{text}` is {kind}: write 7c00 or 0x7c00 (hex), 0d31744 (decimal), a range 100-1ff, or 100+16 for 16 frames"
        )
    };
    let one = |s: &str| number(s, !decimal).ok_or_else(wrong);
    if let Some((a, n)) = text.split_once('+') {
        let (a, n) = (one(a)?, number(n, false).ok_or_else(wrong)?);
        return a.checked_add(n).filter(|end| *end > a).map(|end| (a, end)).ok_or_else(wrong);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (a, b) = (one(first)?, one(last)?);
    if b < a {
        return Err(wrong());
    }
    Ok((a, b.checked_add(1).ok_or_else(wrong)?))
}

/// Frames as the user typed them. They are read once it is known whether numbers without a prefix are decimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames(String);

impl Frames {
    /// Returns the first frame and one past the last.
    pub fn get(&self, decimal: bool) -> Result<(u64, u64), String> {
        frames(&self.0, decimal)
    }
}

impl std::str::FromStr for Frames {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        // Every decimal text is also a hex text, so hex is tried first: its error names what is wrong with either.
        frames(s, false).or_else(|e| frames(s, true).map_err(|_| e))?;
        Ok(Self(s.to_owned()))
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_and_in_seconds_without_a_unit() {
        for (text, ns) in [
            ("1.5s", 1_500_000_000),
            ("1.5", 1_500_000_000),
            ("2", 2_000_000_000),
            (".5", 500_000_000),
            ("0.201985000", 201_985_000),
            ("12345.678901234", 12_345_678_901_234),
            ("20ms", 20_000_000),
            ("0.000000001s", 1),
            ("3us", 3_000),
            ("3.41 µs", 3_410),
            ("1_500ns", 1_500),
            ("12 ms", 12_000_000),
            ("5m", 300_000_000_000),
            ("1.5 min", 90_000_000_000),
            ("2h", 7_200_000_000_000),
        ] {
            assert_eq!(time(text), Ok(ns), "{text}");
        }
        for wrong in ["", "s", ".", "1d", "1.2.3s", "-1s", "+1", "0.0000000001s", "1.5ns", "99999999999999s"]
        {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, n) in [
            ("123", 123),
            ("64k", 65536),
            ("100K", 102_400),
            ("8M", 8 << 20),
            ("1.5M", 3 << 19),
            ("2GiB", 2 << 30),
            ("17.5 MiB", 35 << 19),
            ("512B", 512),
        ] {
            assert_eq!(size(text), Ok(n), "{text}");
        }
        for wrong in ["M", "", "-1", "1x", "1kk", "1e3"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn frames_are_hex_and_ranges_include_their_end() {
        for (text, range) in [
            ("0x7c00", (0x7c00, 0x7c01)),
            ("7c00", (0x7c00, 0x7c01)),
            ("2001", (0x2001, 0x2002)),
            ("0d2001", (2001, 2002)),
            ("0XFEE00", (0xfee00, 0xfee01)),
            ("100-1ff", (0x100, 0x200)),
            ("0x100-0x1ff", (0x100, 0x200)),
            ("100+16", (0x100, 0x110)),
            ("100+0x16", (0x100, 0x116)),
        ] {
            assert_eq!(frames(text, false), Ok(range), "{text}");
        }
        assert_eq!(frames("2001-2010", true), Ok((2001, 2011)));
        assert_eq!(frames("0x2001", true), Ok((0x2001, 0x2002)));
        for wrong in [
            "",
            "xyz",
            "0x",
            "5-4",
            "1+0",
            "+5",
            "-5",
            "0xffffffffffffffff+1",
            "1-2-3",
            "0d1f",
            "ffffffffffffffff",
        ] {
            assert!(frames(wrong, false).is_err(), "{wrong}");
        }
        assert!(frames("7c00", true).is_err());
        assert!("7c00".parse::<Frames>().is_ok_and(|f| f.get(true).is_err()));
    }
}
