//! Reading a trace.dat v7 that was cut. Its index stood at the end, so what is left is found by going from section to section.
//!
//! The section of a buffer does not say which of its bytes belong to which CPU. The part of each CPU begins at a page boundary. A compressed
//! part states how many chunks it has; in an uncompressed buffer, the time runs back where the next CPU begins. The parts are numbered from
//! CPU 0. Because CPUs without events have no part, these numbers are assumed.

use crate::blob::Blob;
use crate::input::Source;

/// The most sections that are looked at.
const MAX_SECTIONS: usize = 4096;
/// The most CPUs into which one buffer is split.
const MAX_CPUS: usize = 8192;

/// The head of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) id: u16,
    pub(super) compressed: bool,
    /// The offset of the section's bytes.
    pub(super) at: u64,
    pub(super) size: u64,
}

/// Reads the head of the section at `at`.
pub(super) fn section(source: &Source, at: u64) -> Option<Section> {
    let head = source.bytes(at, 16)?;
    let mut b = Blob::new(&head);
    let (id, flags, _, size) = (b.u16()?, b.u16()?, b.u32()?, b.u64()?);
    Some(Section { id, compressed: flags & 1 != 0, at: at + 16, size })
}

/// The sections in the file from `at` on; the last one may be cut.
pub(super) fn sections(source: &Source, mut at: u64) -> Vec<Section> {
    let mut all = Vec::new();
    while let Some(s) = section(source, at).filter(|s| matches!(s.id, 0 | 3 | 15..=22)) {
        if all.len() >= MAX_SECTIONS {
            break;
        }
        let end = s.at.saturating_add(s.size);
        all.push(s);
        if s.size == 0 || end >= source.len() {
            break;
        }
        at = end;
    }
    all
}

/// Splits the section of a buffer into the parts of CPUs: CPU, offset and size.
pub(super) fn cpus(source: &Source, s: &Section, page_size: u64, compressed: bool) -> Vec<(u32, u64, u64)> {
    let end = if s.size == 0 { source.len() } else { s.at.saturating_add(s.size).min(source.len()) };
    let mut out: Vec<(u32, u64, u64)> = Vec::new();
    let mut at = s.at.next_multiple_of(page_size);
    while at < end && out.len() < MAX_CPUS {
        let to =
            if compressed { after_chunks(source, at, end) } else { after_pages(source, at, end, page_size) };
        out.push((out.len() as u32, at, to - at));
        at = to.next_multiple_of(page_size);
    }
    out
}

fn after_chunks(source: &Source, at: u64, end: u64) -> u64 {
    let Some(n) = word(source, at, 4) else { return end };
    let mut to = at + 4;
    for _ in 0..n {
        let Some(csize) = word(source, to, 4).filter(|_| to < end) else { return end };
        to = to.saturating_add(8 + csize);
    }
    to.min(end)
}

fn after_pages(source: &Source, at: u64, end: u64, page_size: u64) -> u64 {
    let mut last = 0;
    let mut to = at;
    while to < end {
        match word(source, to, 8) {
            Some(ts) if ts >= last => last = ts,
            _ => break,
        }
        to += page_size;
    }
    to.clamp(at + 1, end)
}

fn word(source: &Source, at: u64, len: u64) -> Option<u64> {
    let d = source.bytes(at, len)?;
    Some(d.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}
