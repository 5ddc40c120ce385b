//! Puts together lines that a mail program, a bug tracker or a terminal broke. The main function is [`whole`].
//!
//! A line is the rest of the one before it in three cases: the event that begins there can be read only with it; the event has more fields
//! with it; or the line before was broken where a program that wraps at a width breaks, because the next word would not have fitted. In any
//! other case it is a line of its own.

use super::clean::{self, Line, Mended};
use super::{grep, head, headless};
use crate::event::Body;

/// What the reader makes of a line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reading {
    /// The line is not an event.
    Nothing,
    /// The line is an event that lacks some fields.
    Unread,
    /// The line is an event without a typed form, so that any text fits it.
    Untyped,
    /// The line is a complete event.
    Typed(Body),
}

/// A line that was put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) text: String,
    /// The offset at which its first part begins, and the number of that line from 0.
    pub(crate) at: usize,
    pub(crate) number: usize,
}

/// The most lines after the first of an event that may be its rest.
const MOST_PARTS: usize = 12;
/// The most lines over which a head may be broken.
const HEAD_PARTS: usize = 3;
/// The number of breaks that are examined to find the width.
const MOST_BREAKS: usize = 1000;

/// How the breaks were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// Lines were broken at blanks, which were removed.
    Blank,
    /// Lines were broken wherever the column was full.
    Column,
}

/// The lines of a text, cleaned and put together.
pub(crate) fn whole(text: &[u8], reads: &mut dyn FnMut(&str) -> Reading, mended: &mut Mended) -> Vec<Whole> {
    let mut lines = clean::lines(text, mended);
    grep::strip(&mut lines, mended);
    let join = Join::new(&lines);
    let mut joined = 0;
    let mut out = join.all(Break::Blank, reads, &mut joined);
    if join.may_be_columns() {
        let mut other = 0;
        let by_column = join.all(Break::Column, reads, &mut other);
        if doubts(&by_column, reads) < doubts(&out, reads) {
            (out, joined) = (by_column, other);
        }
    }
    mended.joined += joined;
    out
}

/// Two counts: the lines that cannot be read as typed events, and the lines whose last word has no effect.
fn doubts(lines: &[Whole], reads: &mut dyn FnMut(&str) -> Reading) -> (usize, usize) {
    let (mut unread, mut idle) = (0, 0);
    for line in lines {
        let reading = reads(&line.text);
        unread += usize::from(!matches!(reading, Reading::Typed(_)) && !line.text.is_empty());
        if let (Reading::Typed(_), Some((before, _))) = (&reading, line.text.rsplit_once(' ')) {
            idle += usize::from(reads(before) == reading);
        }
    }
    (unread, idle)
}

struct Join<'a> {
    lines: &'a [Line],
    /// Whether an event begins in each line. It may need the next lines to be read.
    starts: Vec<bool>,
    /// The column at which lines were broken.
    width: Option<usize>,
}

impl<'a> Join<'a> {
    fn new(lines: &'a [Line]) -> Self {
        let mut starts: Vec<bool> = (0..lines.len()).map(|i| begins(lines, i)).collect();
        // In a text with heads, the name of an event may begin a line because the head before it was wrapped.
        if !starts.contains(&true) {
            starts = lines.iter().map(|l| headless::parse(l.text.as_bytes()).is_some()).collect();
        }
        let mut join = Self { lines, starts, width: None };
        join.width = join.find_width();
        join
    }

    /// Whether a line can be the rest of the one before.
    fn is_rest(&self, n: usize) -> bool {
        n > 0 && self.lines.get(n).is_some_and(|l| !self.starts[n] && !l.stamped && !is_apart(&l.text))
    }

    /// The breaks within events: the column of each break, and the column it would be at with the first word of the next line. Tools align text
    /// after a colon, so that more than one blank may be missing there; `aligned` says whether such breaks are included.
    fn breaks(&self, aligned: bool) -> impl Iterator<Item = (usize, usize)> + '_ {
        let mut inside = false;
        (0..self.lines.len()).filter_map(move |n| {
            inside = self.starts[n] || inside && self.is_rest(n);
            (inside && self.is_rest(n + 1) && (aligned || !self.is_aligned(n))).then(|| self.columns(n))
        })
    }

    fn is_aligned(&self, n: usize) -> bool {
        self.lines[n].text.trim_end().ends_with(':')
    }

    fn columns(&self, n: usize) -> (usize, usize) {
        let first = self.lines[n + 1].text.split_whitespace().next().unwrap_or_default();
        let width = self.lines[n].width;
        (width, width + 1 + first.chars().count())
    }

    fn find_width(&self) -> Option<usize> {
        let breaks: Vec<(usize, usize)> = self.breaks(false).take(MOST_BREAKS).collect();
        let fits = |w: usize| breaks.iter().filter(|(a, b)| *a <= w && *b > w).count();
        let mut columns: Vec<usize> = breaks.iter().flat_map(|(a, b)| [*a, *b - 1]).collect();
        columns.sort_unstable();
        columns.dedup();
        // A line that is longer and has a blank was not broken at this width.
        let mut long: Vec<usize> =
            self.lines.iter().filter(|l| l.text.trim().contains(' ')).map(|l| l.width).collect();
        long.sort_unstable();
        let longer = |w: usize| long.len() - long.partition_point(|l| *l <= w);
        columns.retain(|w| longer(*w) * 10 <= self.lines.len());
        let (count, width) = columns.into_iter().map(|w| (fits(w), w)).max()?;
        (count >= 2 && count * 10 >= breaks.len() * 8).then_some(width)
    }

    /// Whether a line ends where a program that wraps at this width breaks.
    fn is_full(&self, n: usize) -> bool {
        let (a, b) = self.columns(n);
        self.width.is_some_and(|w| a <= w && (b > w || self.is_aligned(n)))
    }

    /// Whether at least about half of the breaks are in one column, as a terminal makes them. Blanks before a break are missing.
    fn may_be_columns(&self) -> bool {
        let widths: Vec<usize> = self.breaks(true).take(MOST_BREAKS).map(|(a, _)| a).collect();
        let most = widths.iter().copied().max().unwrap_or(0);
        let full = widths.iter().filter(|w| **w == most).count();
        full * 10 > widths.len() * 4
    }

    fn all(&self, how: Break, reads: &mut dyn FnMut(&str) -> Reading, joined: &mut u64) -> Vec<Whole> {
        let full = self.breaks(true).take(MOST_BREAKS).map(|(a, _)| a).max().unwrap_or(0);
        // One line that ends at a column is no sign of a terminal: what follows a whole event may be prose.
        let many = self.breaks(true).take(MOST_BREAKS).filter(|(a, _)| *a == full).count() > 1;
        let mut out = Vec::with_capacity(self.lines.len());
        let mut n = 0;
        while let Some(line) = self.lines.get(n) {
            let mut text = line.text.clone();
            let mut end = n + 1;
            if self.starts[n] {
                let mut reading = reads(&text);
                let mut longer = text.clone();
                for next in n + 1..n + 1 + MOST_PARTS {
                    if !self.is_rest(next) {
                        break;
                    }
                    let at_column = how == Break::Column
                        && self.lines[next - 1].width == full
                        && (many || !matches!(reading, Reading::Typed(_)));
                    if !at_column {
                        longer.push(' ');
                    }
                    let part = &self.lines[next].text;
                    longer.push_str(if at_column { part } else { part.trim_start() });
                    let more = reads(&longer);
                    if at_column || self.is_full(next - 1) || says_more(&reading, &more) {
                        text.clone_from(&longer);
                        end = next + 1;
                        reading = more;
                    }
                }
            } else if wants_more(&text) && self.is_rest(n + 1) {
                // This is a line of a log that stops where a value is expected.
                text.push(' ');
                text.push_str(self.lines[n + 1].text.trim_start());
                end = n + 2;
            }
            *joined += (end - n - 1) as u64;
            out.push(Whole { text, at: line.at, number: line.number });
            n = end;
        }
        out
    }
}

/// Whether an event has more fields with the text that follows it.
fn says_more(alone: &Reading, with: &Reading) -> bool {
    match (alone, with) {
        (Reading::Nothing, Reading::Unread)
        | (Reading::Nothing | Reading::Unread, Reading::Untyped | Reading::Typed(_)) => true,
        (Reading::Typed(Body::Marker { .. }), _) => false,
        (Reading::Typed(a), Reading::Typed(b)) => a != b,
        _ => false,
    }
}

/// Whether a line of a log ends where a value is expected.
fn wants_more(text: &str) -> bool {
    const KEYS: [&str; 9] =
        ["spte", "level", "bits", "addr", "old_spte", "new_spte", "gfn", "as_id", "hierarchy"];
    let t = text.trim_end();
    if !t.contains("spte") && !t.contains("rsvd") && !t.contains("gfn") {
        return false;
    }
    if t.ends_with(['=', ',']) {
        return true;
    }
    let word = t.trim_end_matches([':', ' ']).rsplit(' ').next().unwrap_or_default();
    KEYS.contains(&word) && !t.ends_with("hierarchy:")
}

/// Whether the head of an event begins in this line. It may need the next lines, none of which has a head of its own.
fn begins(lines: &[Line], n: usize) -> bool {
    let line = &lines[n];
    if is_head(&line.text) {
        return true;
    }
    if is_apart(&line.text) || !line.text.contains(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let mut text = line.text.clone();
    for end in n + 1..n + HEAD_PARTS {
        let Some(next) = lines.get(end) else { return false };
        if next.stamped || is_apart(&next.text) || is_head(&next.text) {
            return false;
        }
        text.push(' ');
        text.push_str(next.text.trim_start());
        if is_head(&text) {
            // The head begins in the latest line with which it is complete.
            return !(n + 1..=end).any(|later| {
                let rest: Vec<&str> = lines[later..=end].iter().map(|l| l.text.trim()).collect();
                is_head(&rest.join(" "))
            });
        }
    }
    false
}

/// The longest name of a task, in characters.
pub(crate) const COMM: usize = 15;

/// Whether the task in a head can be a real one.
pub(crate) fn is_head(text: &str) -> bool {
    head::parse(text.as_bytes()).is_some_and(|h| h.comm.len() <= COMM)
}

/// Whether a line of a text has the head of an event.
pub(crate) fn begins_event(line: &[u8]) -> bool {
    head::parse(line.trim_ascii_end()).is_some()
        || clean::lines(line, &mut Mended::default()).first().is_some_and(|l| is_head(&l.text))
}

/// The first head in a text that is not as its tool printed it.
pub(crate) fn first_head(text: &[u8]) -> Option<String> {
    let lines = clean::lines(text, &mut Mended::default());
    let n = (0..lines.len()).find(|n| begins(&lines, *n))?;
    let mut head = String::new();
    for line in &lines[n..] {
        head.push_str(line.text.trim_start());
        if is_head(&head) {
            return Some(head);
        }
        head.push(' ');
    }
    None
}

/// Whether a line stands for itself, or separates what is around it.
pub(crate) fn is_apart(text: &str) -> bool {
    let t = text.trim();
    t.is_empty() || is_noise(t) || is_stack(t)
}

/// Whether a line is one that tools, shells and people leave between events.
pub(crate) fn is_noise(t: &str) -> bool {
    t.starts_with('#')
        || t.starts_with("cpus=")
        || t.starts_with("version = ")
        || t.starts_with("```")
        || t.starts_with("CPU:") && t.ends_with(']')
        || t.starts_with("CPU ") && t.ends_with(" is empty")
        || t.len() > 1 && t.bytes().all(|b| matches!(b, b'-' | b'.' | b'=' | b'*' | b'~' | b'_'))
        || is_cut(t)
}

/// Whether a line is a mark that others were left out: what people write for that, and what `grep -C` prints between its matches.
pub(crate) fn is_cut(t: &str) -> bool {
    let t = t.trim_matches(|c| matches!(c, '[' | ']' | '(' | ')' | '<' | '>'));
    t == "--" || t == "…" || t.eq_ignore_ascii_case("snip") || t.len() > 1 && t.bytes().all(|b| b == b'.')
}

/// Whether a line belongs to a stack trace: ` => symbol` of ftrace; an address, a symbol and a file of perf.
pub(crate) fn is_stack(t: &str) -> bool {
    if t.starts_with("=> ") {
        return true;
    }
    let mut words = t.split_whitespace();
    let address = words.next().is_some_and(|w| w.len() >= 4 && w.bytes().all(|b| b.is_ascii_hexdigit()));
    address && words.next().is_some() && t.ends_with(')')
}
