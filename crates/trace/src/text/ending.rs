//! The last line of a file that does not end in a line end. Either it is whole, as of a text that was pasted, or the file was cut within it. The main
//! function is [`of`].

use super::repair::{self, Reading};
use super::{head, scan};
use crate::probed;
use crate::schema::tracepoint;

/// What such a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing can be missing that counts.
    Whole,
    /// It is a whole event, unless its last number or word is cut short.
    Open,
    /// A part of it is missing.
    Cut,
}

/// Judges the line by its form; `reads` says what a line is.
pub(super) fn of(line: &[u8], reads: &mut dyn FnMut(&[u8]) -> Reading) -> Ending {
    match reads(line) {
        Reading::Unread => Ending::Cut,
        Reading::Nothing if begins_event(line) => Ending::Cut,
        Reading::Nothing => Ending::Whole,
        // Without a name of its own it may be an event whose name is cut; the function tracer prints such lines.
        Reading::Untyped => match head::parse(line) {
            Some(h) if h.event.is_empty() && scan::find(h.rest, b" <-").is_none() => Ending::Cut,
            Some(h) if tracepoint(h.event).is_some_and(probed::is_probe) => Ending::Open,
            _ => Ending::Whole,
        },
        typed @ Reading::Typed(_) if is_closed(line, &typed, reads) => Ending::Whole,
        Reading::Typed(_) => Ending::Open,
    }
}

/// The columns of a task with its numbers, which come before the CPU.
const TASK: usize = 40;

/// Whether a line that cannot be read may be the beginning of an event: it has a CPU behind the number of a task, or only what may be a task behind the
/// blanks with which tools pad it.
fn begins_event(line: &[u8]) -> bool {
    let cpu = |at: usize| {
        let (before, behind) = (line[..at].trim_ascii_end(), &line[at + 1..]);
        let digits = behind.iter().take_while(|b| b.is_ascii_digit()).count();
        let task = before.len() < at && before.last().is_some_and(|b| b.is_ascii_digit() || *b == b')');
        task && matches!(behind.get(digits), Some(b']') | None)
    };
    let text = String::from_utf8_lossy(line);
    let task = || line.starts_with(b" ") && line.len() <= TASK && text.split_whitespace().count() <= 3;
    !repair::is_apart(&text) && (line.iter().enumerate().any(|(at, b)| *b == b'[' && cpu(at)) || task())
}

/// Whether nothing that could follow in the line would make another event of it.
fn is_closed(line: &[u8], typed: &Reading, reads: &mut dyn FnMut(&[u8]) -> Reading) -> bool {
    let line = line.trim_ascii_end();
    let Some(at) = line.iter().rposition(|b| *b == b' ') else { return false };
    let (before, last) = (line[..at].trim_ascii_end(), &line[at + 1..]);
    let key = before.rsplit(|b| *b == b' ').next().unwrap_or_default();
    let digits = last.strip_prefix(b"0x").unwrap_or(last);
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    match (key, last) {
        (_, [.., b')' | b']'] | b"new" | b"existing") => return true,
        // A number cannot be longer than this.
        _ if is_hex && digits.len() == 16 => return true,
        // The kernel prints it in eight digits.
        (b"error_code", [b'0', b'x', b'0', ..]) if is_hex && digits.len() == 8 => return true,
        // The kernel prints addresses of a process in fourteen.
        (b"--" | b"hva:", [b'0', b'x', b'0', ..]) if is_hex && digits.len() == 14 => return true,
        // These have one digit.
        (b"level" | b"spurious" | b"fixed" | b"valid", [b'0'..=b'9']) => return true,
        (_, [.., b]) if !b.is_ascii_alphanumeric() => return false,
        _ => {}
    }
    // The last word must count, and a further digit must not.
    reads(before) != *typed && reads(&[line, b"1"].concat()) == *typed
}

/// The most lines that are compared with the last one.
const MOST_COMPARED: usize = 4096;

/// Whether the last number of an event is as long as that of every other event of its kind, `others` being the lines before it from the last to the first.
/// A number that is cut short is shorter than it was.
pub(super) fn is_as_long_as(line: &[u8], others: &mut dyn Iterator<Item = &[u8]>) -> bool {
    let Some((event, own)) = last_number(line) else { return false };
    let alike = others.take(MOST_COMPARED).filter(|l| scan::find(l, event).is_some());
    let longest = alike.filter_map(last_number).filter(|(e, _)| *e == event).map(|(_, n)| n).max();
    longest.is_some_and(|n| own >= n)
}

/// The name of an event and the digits of the number at its end.
fn last_number(line: &[u8]) -> Option<(&[u8], usize)> {
    let h = head::parse(line.trim_ascii_end())?;
    let last = h.rest.rsplit(|b| *b == b' ').next()?;
    let digits = last.strip_prefix(b"0x").unwrap_or(last);
    digits.iter().all(u8::is_ascii_hexdigit).then_some((h.event, digits.len()))
}
