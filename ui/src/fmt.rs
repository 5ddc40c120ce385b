//! How the viewer writes numbers and texts of a trace. Numbers are written by `mmuscope_units`, for every face alike.

/// A length of time in nanoseconds, with a unit. Fractions of a nanosecond are cut off.
pub(crate) fn time(ns: f64) -> String {
    mmuscope_units::duration(ns.max(0.0) as u64)
}

/// A time since the first event in seconds, to the nanosecond: `1.234567890 s`.
pub(crate) fn exact(ns: u64) -> String {
    format!("{} s", mmuscope_units::seconds(ns))
}

pub(crate) use mmuscope_units::{
    bytes, count, counted as plural, gfn, gpa, gpa_range, level_size as level, short_count as short, spte,
    time_with_step as time_at,
};

/// A text of a trace on one line: control characters are replaced by U+FFFD, so that a task name can neither draw nor break lines.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_cannot_leave_the_line() {
        assert_eq!(clean("a\nb\u{1b}[31m"), "a\u{fffd}b\u{fffd}[31m");
    }
}
