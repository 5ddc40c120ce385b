//! Moments and lengths of time as people type them.

use std::fmt;
use std::str::FromStr;

/// A moment as it is asked for: `1.5s`, `20ms`, `1500000` (nanoseconds), `end`, `start`, or the name of a phase (its beginning; `NAME:end` its end).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The first event.
    Start,
    /// After the last event.
    End,
    /// Nanoseconds since the first event, or on the trace's clock where times are absolute.
    At(u64),
    /// The first phase of this name: its beginning, or its end.
    Phase {
        /// Text of the mark.
        name: String,
        /// Its end instead of its beginning.
        end: bool,
    },
}

/// A text that is no time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotATime(String);

impl fmt::Display for NotATime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no time: write 1.5s, 20ms, 300us, a number of nanoseconds, start, end, or the name of a phase",
            self.0
        )
    }
}

impl std::error::Error for NotATime {}

/// Reads a length of time: a number with `s`, `ms`, `us`/`µs` or `ns`; without a unit, nanoseconds. Exact to the nanosecond.
pub fn parse_ns(s: &str) -> Result<u64, NotATime> {
    let wrong = || NotATime(s.to_string());
    let text = s.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let decimals: u32 = match unit.trim() {
        "" | "ns" => 0,
        "us" | "µs" => 3,
        "ms" => 6,
        "s" => 9,
        _ => return Err(wrong()),
    };
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return Err(wrong());
    }
    let scale = 10u64.pow(decimals);
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    // Digits below a nanosecond do not exist on any clock here.
    let kept: String = fraction.chars().chain(std::iter::repeat('0')).take(decimals as usize).collect();
    if fraction.len() > decimals as usize && fraction[decimals as usize..].bytes().any(|b| b != b'0') {
        return Err(wrong());
    }
    let part: u64 = if kept.is_empty() { 0 } else { kept.parse().map_err(|_| wrong())? };
    whole.checked_mul(scale).and_then(|w| w.checked_add(part)).ok_or_else(wrong)
}

impl FromStr for Moment {
    type Err = NotATime;
    fn from_str(s: &str) -> Result<Self, NotATime> {
        match s.trim() {
            "" => Err(NotATime(s.to_string())),
            "start" | "begin" => Ok(Self::Start),
            "end" => Ok(Self::End),
            t => match parse_ns(t) {
                Ok(ns) => Ok(Self::At(ns)),
                // A phase may have any name, but one that begins like a number is a mistyped time.
                Err(e) if t.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '-') => Err(e),
                Err(_) => Ok(match t.strip_suffix(":end") {
                    Some(name) => Self::Phase { name: name.to_string(), end: true },
                    None => Self::Phase { name: t.to_string(), end: false },
                }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact() {
        assert_eq!(parse_ns("1.5s"), Ok(1_500_000_000));
        assert_eq!(parse_ns("20ms"), Ok(20_000_000));
        assert_eq!(parse_ns("0.000000001s"), Ok(1));
        assert_eq!(parse_ns("3us"), Ok(3_000));
        assert_eq!(parse_ns("1_500"), Ok(1_500));
        assert_eq!(parse_ns("12 ms"), Ok(12_000_000));
        for wrong in ["", "s", "1.5", "1h", "1.2.3s", "-1s", "0.0000000001s", "99999999999999s"] {
            assert!(parse_ns(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_moment_may_be_a_phase() {
        assert_eq!("end".parse(), Ok(Moment::End));
        assert_eq!("1ms".parse(), Ok(Moment::At(1_000_000)));
        assert_eq!("thp-again".parse(), Ok(Moment::Phase { name: "thp-again".into(), end: false }));
        assert_eq!("race:end".parse(), Ok(Moment::Phase { name: "race".into(), end: true }));
        assert!("10q".parse::<Moment>().is_err());
        assert!("-5".parse::<Moment>().is_err());
    }
}
