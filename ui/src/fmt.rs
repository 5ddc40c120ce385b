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

/// An error of the window's library without the place in its source, which is a path of the machine that built the program.
pub(crate) fn without_source(text: &str) -> String {
    let begin = text
        .find(" at ")
        .filter(|at| text[at + 4..].split(':').next().is_some_and(|p| p.rsplit('.').next() == Some("rs")));
    let cut = begin.and_then(|at| Some((at, at + 4 + text[at + 4..].find(": ")?)));
    let text = cut.map_or_else(|| text.to_owned(), |(from, to)| format!("{}{}", &text[..from], &text[to..]));
    text.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_no_path_of_the_machine_that_built_the_program() {
        let text = "winit EventLoopError: os error at /root/.cargo/registry/src/i-1/winit-0.30.13/src/linux/mod.rs:765: neither WAYLAND_DISPLAY nor DISPLAY is set.";
        let plain = "winit EventLoopError: os error: neither WAYLAND_DISPLAY nor DISPLAY is set";
        assert_eq!(without_source(text), plain);
        assert_eq!(without_source("no OpenGL at 1.5 GHz: x"), "no OpenGL at 1.5 GHz: x");
    }

    #[test]
    fn control_characters_cannot_leave_the_line() {
        assert_eq!(clean("a\nb\u{1b}[31m"), "a\u{fffd}b\u{fffd}[31m");
    }
}
