//! [`parse`]: reads what was typed into the go-to box: a time, a guest frame, a guest-physical address or an event.

/// A place in the trace that the user wants to see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    /// A time, in nanoseconds since the first event.
    Time(f64),
    /// A guest frame number.
    Gfn(u64),
    /// The number of an event in the trace, from 0.
    Event(u64),
    /// The start of the trace.
    Start,
    /// The end of the trace.
    End,
    /// A stretch of time, in nanoseconds since the first event.
    Times(f64, f64),
    /// Guest frames: the first and the last.
    Gfns(u64, u64),
}

/// Examples of places, for error messages.
pub(crate) const HINT: &str =
    "1.5s  ·  0.3s-0.7s  ·  gfn 0x1a2b  ·  0x100-0x1ff  ·  gpa 0xfee00000  ·  #123  ·  end";

/// Reads one place. The error says what can be typed.
pub(crate) fn parse(text: &str) -> Result<Place, String> {
    let t = text.trim();
    let lower = t.to_ascii_lowercase();
    let after = |words: &[&str]| {
        words.iter().find_map(|w| {
            let rest = lower.strip_prefix(w)?;
            let rest = rest.trim_start_matches([' ', '=', ':']);
            (!rest.is_empty()).then(|| rest.to_owned())
        })
    };
    if lower.is_empty() {
        return Err(format!("type a place: {HINT}"));
    }
    match lower.as_str() {
        "end" | "last" => return Ok(Place::End),
        "start" | "begin" | "first" => return Ok(Place::Start),
        _ => {}
    }
    if let Some(range) = range(&lower) {
        return range;
    }
    if let Some(rest) = after(&["gfn", "page", "frame"]) {
        return mmuscope_units::frame(&rest)
            .map(Place::Gfn)
            .ok_or_else(|| format!("“{rest}” is not a guest frame: try gfn 0x1a2b"));
    }
    if let Some(rest) = after(&["gpa", "address"]) {
        return mmuscope_units::frame(&rest)
            .map(|a| Place::Gfn(a >> 12))
            .ok_or_else(|| format!("“{rest}” is not a guest-physical address: try gpa 0xfee00000"));
    }
    if let Some(rest) = after(&["#", "event"]) {
        let digits: String = rest.chars().filter(|c| !matches!(c, ',' | '_')).collect();
        return digits
            .parse()
            .map(Place::Event)
            .map_err(|_| format!("“{rest}” is not the number of an event: try #123"));
    }
    if let Some(rest) = after(&["time", "t", "@"])
        && let Some(ns) = time(&rest)
    {
        return Ok(Place::Time(ns));
    }
    if lower.starts_with("0x") || lower.starts_with("0d") {
        return mmuscope_units::frame(&lower).map(Place::Gfn).ok_or_else(|| format!("“{t}” is not a number"));
    }
    time(&lower).map(Place::Time).ok_or_else(|| format!("“{t}” is not understood; try {HINT}"))
}

/// Reads two places with a hyphen between them: two times (`0.3s-0.7s`) or two frames (`0x100-0x1ff`). `None` if it is no range.
fn range(lower: &str) -> Option<Result<Place, String>> {
    let words = ["gfn", "page", "frame"];
    let named =
        words.iter().find_map(|w| lower.strip_prefix(w)).map(|r| r.trim_start_matches([' ', '=', ':']));
    let (a, b) = named.unwrap_or(lower).split_once('-')?;
    let (a, b) = (a.trim(), b.trim());
    if a.is_empty() || b.is_empty() {
        return None;
    }
    if named.is_some() || a.starts_with("0x") || a.starts_with("0d") {
        let (Some(from), Some(to)) = (mmuscope_units::frame(a), mmuscope_units::frame(b)) else {
            return Some(Err(format!("“{lower}” is no range of guest frames: try 0x100-0x1ff")));
        };
        return Some(Ok(Place::Gfns(from.min(to), from.max(to))));
    }
    // `0.3-0.7s`: the unit at the end is that of both.
    let unit = b.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let from = if a.ends_with(|c: char| c.is_ascii_digit()) { time(&format!("{a}{unit}")) } else { time(a) };
    match (from, time(b)) {
        (Some(from), Some(to)) => Some(Ok(Place::Times(from.min(to), from.max(to)))),
        _ => Some(Err(format!("“{lower}” is no stretch of time: try 0.3s-0.7s"))),
    }
}

/// Reads a time as `mmuscope_units` does, in nanoseconds: `1.5s`, `20 ms`, `12us`; a number without a unit is in seconds.
pub(crate) fn time(text: &str) -> Option<f64> {
    mmuscope_units::time(text).ok().map(|ns| ns as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_as_people_type_them() {
        for (text, place) in [
            ("1.5s", Place::Time(1.5e9)),
            ("  20 ms ", Place::Time(20e6)),
            ("t=12us", Place::Time(12e3)),
            ("1.25", Place::Time(1.25e9)),
            ("2", Place::Time(2e9)),
            ("1250ns", Place::Time(1250.0)),
            ("gfn 0x1a2b", Place::Gfn(0x1a2b)),
            ("GFN=fee00", Place::Gfn(0xfee00)),
            ("gfn 2001", Place::Gfn(0x2001)),
            ("gfn 0d2001", Place::Gfn(2001)),
            ("0d100", Place::Gfn(100)),
            ("gpa 2001000", Place::Gfn(0x2001)),
            ("0xfee00", Place::Gfn(0xfee00)),
            ("gpa 0xfee00123", Place::Gfn(0xfee00)),
            ("#1,234", Place::Event(1234)),
            ("event 7", Place::Event(7)),
            ("0.3s-0.7s", Place::Times(3e8, 7e8)),
            ("0.3-0.7s", Place::Times(3e8, 7e8)),
            ("20 - 10 ms", Place::Times(1e7, 2e7)),
            ("1-2", Place::Times(1e9, 2e9)),
            ("0x100-0x1ff", Place::Gfns(0x100, 0x1ff)),
            ("gfn 100-1ff", Place::Gfns(0x100, 0x1ff)),
            ("end", Place::End),
            ("Start", Place::Start),
        ] {
            assert_eq!(parse(text), Ok(place), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_says_what_would_be() {
        for text in [
            "",
            "gfn",
            "gfn xyz",
            "tomorrow",
            "-3s",
            "1s-x",
            "0x10-zz",
            "#x",
            "0xg",
            "nan",
            "gfn 0xffffffffffffffffff",
        ] {
            let e = parse(text).expect_err(text);
            assert!(e.len() > 10, "{text}: {e}");
        }
    }
}
