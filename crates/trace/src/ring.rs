//! Pages of the kernel's trace ring buffer (`trace_pipe_raw`, and the CPU data of trace.dat).
//!
//! ```text
//! page    u64 time stamp, long commit, data …
//!         commit: bytes of data (bits 0-29); bit 31: events were lost before this page; bit 30: their number, a long, follows the data
//! event   u32: type_len (bits 0-4), time delta (bits 5-31)
//!         1…28  data of type_len * 4 bytes          0   u32 length (itself included), data
//!         29    padding: delta 0: nothing more; else u32 length, skipped, but its delta counts
//!         30    time extend: u32, delta |= u32 << 27        31   absolute: low 59 bits of the time
//! ```

use crate::records::PageHead;

const COMMIT_MASK: u64 = 0x3fff_ffff;
const MISSED_STORED: u64 = 1 << 30;
const MISSED: u64 = 1 << 31;

/// The position in one page's records.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PageWalk {
    at: usize,
    end: usize,
    ts: u64,
}

/// Events lost before a page, with their number where the kernel stored it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missed {
    pub(crate) count: Option<u64>,
}

/// The start of a page: the loss before it, and the position of its first record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageStart {
    pub(crate) walk: PageWalk,
    /// The events that were lost before this page, if any were.
    pub(crate) lost: Option<Missed>,
}

/// A mistake inside a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadPage {
    /// The offset in the page.
    pub(crate) at: usize,
    pub(crate) expected: &'static str,
}

fn long(page: &[u8], at: usize, size: usize) -> Option<u64> {
    let d = page.get(at..)?;
    if size == 4 {
        d.first_chunk().map(|c| u32::from_le_bytes(*c).into())
    } else {
        d.first_chunk().map(|c| u64::from_le_bytes(*c))
    }
}

/// Reads the head of a page.
pub(crate) fn open(page: &[u8], head: &PageHead) -> Result<PageStart, BadPage> {
    let short = BadPage { at: 0, expected: "a page head" };
    let ts = long(page, 0, 8).ok_or(short)?;
    let commit = long(page, head.commit, head.commit_size).ok_or(short)?;
    let len = (commit & COMMIT_MASK) as usize;
    let end = head.data + len;
    if end > page.len() {
        return Err(BadPage { at: head.commit, expected: "no more data than the page has room for" });
    }
    let lost = (commit & MISSED != 0).then(|| Missed {
        count: if commit & MISSED_STORED != 0 { long(page, end, head.commit_size) } else { None },
    });
    Ok(PageStart { walk: PageWalk { at: head.data, end, ts }, lost })
}

impl PageWalk {
    /// The next record: its time, and where its data are in the page.
    #[inline]
    pub(crate) fn next(&mut self, page: &[u8]) -> Result<Option<(u64, usize, usize)>, BadPage> {
        let bad = |at, expected| Err(BadPage { at, expected });
        while self.at + 4 <= self.end {
            let at = self.at;
            let Some(word) = word(page, at) else { return bad(at, "an event") };
            let (type_len, delta) = (word & 31, u64::from(word >> 5));
            match type_len {
                30 | 31 => {
                    let Some(high) = word_in(page, at + 4, self.end) else {
                        return bad(at, "the second half of a time stamp");
                    };
                    let v = delta | u64::from(high) << 27;
                    self.ts = if type_len == 30 {
                        self.ts.wrapping_add(v)
                    } else {
                        self.ts & !((1 << 59) - 1) | v & ((1 << 59) - 1)
                    };
                    self.at += 8;
                }
                29 => {
                    if delta == 0 {
                        self.at = self.end;
                        return Ok(None);
                    }
                    let Some(len) = word_in(page, at + 4, self.end) else {
                        return bad(at, "the length of a discarded event");
                    };
                    self.ts = self.ts.wrapping_add(delta);
                    self.at = at + 4 + len as usize;
                    if len < 4 || self.at > self.end {
                        return bad(at, "a discarded event within the page");
                    }
                }
                0 => {
                    let Some(len) = word_in(page, at + 4, self.end) else {
                        return bad(at, "the length of a long event");
                    };
                    let stop = at + 4 + len as usize;
                    if len < 4 || stop > self.end {
                        return bad(at, "a long event within the page");
                    }
                    self.ts = self.ts.wrapping_add(delta);
                    self.at = stop.next_multiple_of(4);
                    return Ok(Some((self.ts, at + 8, stop)));
                }
                n => {
                    let stop = at + 4 + n as usize * 4;
                    if stop > self.end {
                        return bad(at, "an event within the page");
                    }
                    self.ts = self.ts.wrapping_add(delta);
                    self.at = stop;
                    return Ok(Some((self.ts, at + 4, stop)));
                }
            }
        }
        Ok(None)
    }
}

#[inline]
fn word(page: &[u8], at: usize) -> Option<u32> {
    page.get(at..)?.first_chunk().map(|c| u32::from_le_bytes(*c))
}

#[inline]
fn word_in(page: &[u8], at: usize, end: usize) -> Option<u32> {
    if at + 4 > end { None } else { word(page, at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(events: &[u32], flags: u64, tail: &[u8]) -> Vec<u8> {
        let mut p = 1_000u64.to_le_bytes().to_vec();
        p.extend(((events.len() as u64 * 4) | flags).to_le_bytes());
        p.extend(events.iter().flat_map(|w| w.to_le_bytes()));
        p.extend(tail);
        p.resize(p.len().max(256), 0);
        p
    }

    fn walk(p: &[u8]) -> Result<Vec<(u64, usize)>, BadPage> {
        let mut w = open(p, &PageHead::default())?.walk;
        let mut out = Vec::new();
        while let Some((ts, a, b)) = w.next(p)? {
            out.push((ts, b - a));
        }
        Ok(out)
    }

    #[test]
    fn every_kind_of_record() {
        let d = |t: u32, delta: u32| t | delta << 5;
        let p = page(
            &[
                d(2, 5),
                1,
                2,
                d(30, 1),
                1,
                d(1, 0),
                7,
                d(29, 3),
                8,
                0,
                d(0, 1),
                12,
                1,
                2,
                d(31, 9),
                0,
                d(1, 2),
                7,
                d(29, 0),
                9,
            ],
            0,
            &[],
        );
        let big = 1_005 + (1 | 1 << 27);
        assert_eq!(walk(&p), Ok(vec![(1_005, 8), (big, 4), (big + 3 + 1, 8), (9 + 2, 4)]));
    }

    #[test]
    fn losses() {
        let d = 1 | 5 << 5;
        let p = page(&[d, 0], MISSED | MISSED_STORED, &77u64.to_le_bytes());
        assert_eq!(open(&p, &PageHead::default()).map(|s| s.lost), Ok(Some(Missed { count: Some(77) })));
        let p = page(&[d, 0], MISSED, &[]);
        assert_eq!(open(&p, &PageHead::default()).map(|s| s.lost), Ok(Some(Missed { count: None })));
    }

    #[test]
    fn broken_pages() {
        assert!(walk(&page(&[0x1c | 5 << 5, 0], 0, &[])).is_err());
        assert!(walk(&page(&[1 << 5, 3], 0, &[])).is_err());
        assert!(walk(&page(&[1 << 5, u32::MAX], 0, &[])).is_err());
        assert!(walk(&page(&[30], 0, &[])).is_err());
        assert!(walk(&[0; 10]).is_err());
        assert!(walk(&page(&[], COMMIT_MASK, &[])).is_err());
    }
}
