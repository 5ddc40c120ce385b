//! Where a text can be cut into pieces: at a line end, and not within an event that is broken over several lines.

use super::repair;

/// The most lines over which an event may be broken.
const LOOK: usize = 32;

/// Where the last event begins; `None` if none begins in the last lines, or only at the start.
pub(super) fn last_head(text: &[u8]) -> Option<usize> {
    let mut end = text.len();
    for _ in 0..LOOK {
        let line = text.get(..end)?.strip_suffix(b"\n")?;
        let start = line.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        if start == 0 {
            return None;
        }
        if repair::begins_event(&line[start..]) {
            return Some(start);
        }
        end = start;
    }
    None
}

/// Where the next event begins after the end of a line; that line end if none begins in the next lines.
pub(super) fn next_head(text: &[u8]) -> Option<usize> {
    let mut at = text.iter().position(|b| *b == b'\n')? + 1;
    let first = at;
    for _ in 0..LOOK {
        let Some(n) = memchr_newline(&text[at..]) else { break };
        if repair::begins_event(&text[at..at + n]) {
            return Some(at);
        }
        at += n + 1;
    }
    Some(first)
}

/// Cuts text into roughly equal parts, at line ends where events begin.
pub(super) fn split(text: &[u8], n: usize) -> Vec<&[u8]> {
    let mut parts = Vec::with_capacity(n);
    let mut rest = text;
    for left in (1..=n).rev() {
        let target = rest.len() / left;
        let cut = if left == 1 {
            rest.len()
        } else {
            next_head(&rest[target..]).map_or(rest.len(), |k| target + k)
        };
        let (a, b) = rest.split_at(cut);
        if !a.is_empty() {
            parts.push(a);
        }
        rest = b;
    }
    parts
}

/// Position of the first line end, eight bytes at a time.
pub(super) fn memchr_newline(s: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut at = 0;
    while let Some(chunk) = s.get(at..at + 8).and_then(|c| c.first_chunk::<8>()) {
        let x = u64::from_le_bytes(*chunk) ^ (ONES * 0x0a);
        let hit = x.wrapping_sub(ONES) & !x & (ONES << 7);
        if hit != 0 {
            return Some(at + hit.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    s[at..].iter().position(|b| *b == b'\n').map(|n| at + n)
}
