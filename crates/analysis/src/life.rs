//! [`fold`]: the life of a page with its repetitions in one line each. The viewer shows it so; the events stay as they are.

use std::ops::Range;

use mmuscope_replay::StoryLine;
use mmuscope_units::{count, duration};

/// Fewer lines that say the same are shown one by one.
const LEAST: usize = 3;

/// A part of a life: one line, or several in a row that say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// Its lines, by their numbers in the life.
    pub lines: Range<usize>,
    /// What the lines say together, where there are several.
    pub text: Option<String>,
}

/// What a line says, without what differs from one try of a fault to the next: the number of the try and how long it took.
fn gist(text: &str) -> &str {
    let end = |mark: &str| text.find(mark).unwrap_or(text.len());
    &text[..end(", try ").min(end(", took "))]
}

/// Folds lines that the same thread caused directly one after another and that say the same.
pub fn fold(lines: &[StoryLine]) -> Vec<Fold> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(first) = lines.get(at) {
        let same = |l: &&StoryLine| l.who == first.who && gist(&l.text) == gist(&first.text);
        let n = lines[at..].iter().take_while(same).count();
        if n < LEAST {
            out.push(Fold { lines: at..at + 1, text: None });
            at += 1;
            continue;
        }
        let span = lines[at + n - 1].ts.saturating_sub(first.ts);
        let text = format!("{} × {} in {}", gist(&first.text), count(n as u64), duration(span));
        out.push(Fold { lines: at..at + n, text: Some(text) });
        at += n;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(ts: u64, who: &str, text: &str) -> StoryLine {
        StoryLine {
            ts,
            event: None,
            who: who.to_owned(),
            text: text.to_owned(),
            shade: None,
            certainty: None,
        }
    }

    #[test]
    fn tries_of_one_fault_are_one_line_and_other_lines_stay() {
        let lines = [
            line(0, "vCPU 1", "read fault at rip 0x8032: fixed, 4K, took 33 µs"),
            line(1_000, "vCPU 1", "write fault at rip 0x8022: retry, took 31 µs"),
            line(2_000, "vCPU 1", "write fault at rip 0x8022: retry, try 2, took 14 µs"),
            line(5_000, "vCPU 1", "write fault at rip 0x8022: retry, try 3, took 9 µs"),
            line(6_000, "vCPU 0", "write fault at rip 0x8022: retry, try 2, took 9 µs"),
            line(7_000, "vCPU 1", "write fault at rip 0x8022: retry, try 4, took 9 µs"),
            line(8_000, "vCPU 1", "write fault at rip 0x8022: fixed, 4K, try 5, took 9 µs"),
        ];
        let parts = fold(&lines);
        let shape: Vec<Range<usize>> = parts.iter().map(|p| p.lines.clone()).collect();
        assert_eq!(shape, [0..1, 1..4, 4..5, 5..6, 6..7]);
        assert_eq!(parts[1].text.as_deref(), Some("write fault at rip 0x8022: retry × 3 in 4 µs"));
        assert!(parts.iter().enumerate().all(|(i, p)| i == 1 || p.text.is_none()));
    }
}
