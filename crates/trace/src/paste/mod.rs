//! Finds SPTE values in pasted text: dmesg dumps, trace lines, debugger output, bare hex.
//!
//! The main function is [`scan`]; `decode` calls it. It knows where the kernel and common tools print SPTE values and takes those, with the
//! level, frame and role that the text names. It never takes numbers at other places (registers, pointers, addresses, entries of the TDX
//! module), and it never decodes a value.
//!
//! ```
//! let text = "[ 11.2] kvm: ------ spte = 0x600000123456b77 level = 1, rsvd bits = 0xfc00000000000";
//! let pasted = mmuscope_trace::paste::scan(text.as_bytes());
//! assert_eq!(pasted.values[0].value, 0x6000_0012_3456_b77);
//! assert_eq!(pasted.values[0].level, Some(1));
//! ```

mod forms;
mod scanner;
mod stated;
#[cfg(test)]
mod tests;
mod words;

use std::ops::RangeInclusive;

use mmuscope_units::counted;

use crate::text::{self, clean::Mended, repair::Whole};
use scanner::Scanner;
pub use stated::Stated;
pub use words::number;

/// What the text says about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Role {
    /// The text says nothing about it.
    #[default]
    Unknown,
    /// It is a leaf that was just installed.
    Leaf,
    /// It is one step of a walk from the root down.
    Walk,
    /// It is the value before a change.
    Old,
    /// It is the value after a change.
    New,
    /// It is an MMIO SPTE.
    Mmio,
    /// It is one word of a page-table page.
    Word,
}

/// The permission letters that `kvm_mmu_set_spte` printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Letters {
    /// Whether `r` is printed.
    pub r: bool,
    /// Whether `w` is printed.
    pub w: bool,
    /// Whether `x` is printed.
    pub x: bool,
    /// Whether `u` is printed; `None` where only three letters are printed.
    pub u: Option<bool>,
}

/// A value found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Found {
    /// The value.
    pub value: u64,
    /// The level of the entry, 1 to 5.
    pub level: Option<u8>,
    /// The guest frame of the entry.
    pub gfn: Option<u64>,
    /// What the text says about the entry.
    pub role: Role,
    /// The mask that the kernel printed as `rsvd bits`. It is the mask of reserved bits, not of those that are set.
    pub rsvd_mask: Option<u64>,
    /// The letters after the value.
    pub letters: Option<Letters>,
    /// The MMIO generation that the text names for it.
    pub generation: Option<u32>,
    /// The index in its table, 0 to 511.
    pub index: Option<u16>,
    /// The number of its line, from 1.
    pub line: u32,
    /// The group of values to which it belongs: an index into [`Pasted::groups`].
    pub group: usize,
}

/// The kind of text that a group of values came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Numbers alone.
    Bare,
    /// A dump of a walk that hit reserved bits.
    ReservedDump,
    /// A walk of the page tables, with levels; the text does not say what was wrong with it.
    Walk,
    /// A dump of a walk at a #VE.
    VeDump,
    /// The warning when an SPTE with reserved bits is made.
    ReservedWarning,
    /// "Invalid SPTE change" of the TDP MMU.
    InvalidChange,
    /// "Unexpected SPTE change" of the TDP MMU.
    UnexpectedChange,
    /// A warning about host- and MMU-writable.
    WritableWarning,
    /// An error of the shadow MMU's audit.
    Audit,
    /// A trace event.
    Event,
    /// The memory of a page table, printed by a debugger.
    Memory,
}

/// Values that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The kind of text.
    pub kind: Kind,
    /// The number of its first line, from 1.
    pub line: u32,
    /// The guest-physical or guest-virtual address that the text is about.
    pub address: Option<u64>,
    /// The name of the trace event.
    pub event: Option<String>,
}

impl Group {
    /// Whether the text is one that only the TDP MMU prints or traces.
    pub fn is_of_tdp_mmu(&self) -> bool {
        matches!(self.kind, Kind::InvalidChange | Kind::UnexpectedChange)
            || self.event.as_deref() == Some("kvm_tdp_mmu_spte_changed")
    }
}

/// What a text proves about the release of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clue {
    /// The releases that are possible.
    pub releases: RangeInclusive<(u16, u16)>,
    /// The words that prove it.
    pub why: &'static str,
}

/// The result of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pasted {
    /// The values, in the order of the text.
    pub values: Vec<Found>,
    /// The pieces of text they came from.
    pub groups: Vec<Group>,
    /// A kernel release the text names (`6.1.0-13-amd64 #1 Debian 6.1.55-1`).
    pub kernel: Option<String>,
    /// What the wording proves about the release.
    pub clues: Vec<Clue>,
    /// `intel` or `amd`, where the text names only one KVM module.
    pub vendor: Option<&'static str>,
    /// Sentences about numbers that look like entries but are not.
    pub left_alone: Vec<String>,
    /// How many lines are events without task, CPU and time, by the names of the events.
    pub headless: Vec<(String, u64)>,
    /// What the text states about paging apart from its values, each with the words that state it.
    pub stated: Vec<(Stated, String)>,
}

impl Pasted {
    /// The events without task, CPU and time, in words: `3 lines of kvm_exit and kvm_page_fault`. `None` where there are none.
    pub fn headless(&self) -> Option<String> {
        let names: Vec<&str> = self.headless.iter().map(|(name, _)| name.as_str()).collect();
        let lines = self.headless.iter().map(|(_, n)| n).sum();
        let names = match names.as_slice() {
            [] => return None,
            [one] => (*one).to_owned(),
            [some @ .., last] if some.len() <= NAMES => format!("{} and {last}", some.join(", ")),
            all => format!("{} and {} other events", all[..NAMES].join(", "), all.len() - NAMES),
        };
        Some(format!("{} of {names}", counted(lines, "line", "lines")))
    }

    /// The releases that all clues leave possible.
    pub fn releases(&self) -> Option<RangeInclusive<(u16, u16)>> {
        let mut clues = self.clues.iter().map(|c| c.releases.clone());
        let first = clues.next()?;
        Some(clues.fold(first, |a, b| *a.start().max(b.start())..=*a.end().min(b.end())))
    }
}

/// Most names of events in a message.
const NAMES: usize = 4;

/// The oldest release whose layout is known.
pub const OLDEST: (u16, u16) = (4, 13);
const NEWEST: (u16, u16) = (u16::MAX, 0);

/// The most values that are taken. A page-table page has 512 entries; a dump of a whole guest needs another tool.
pub const MOST: usize = 1 << 16;

/// Finds the SPTE values in a text.
pub fn scan(text: &[u8]) -> Pasted {
    let mut scanner = Scanner::default();
    let mut mended = Mended::default();
    let (mut at, mut lines) = (0, 0);
    while at < text.len() && scanner.out.values.len() < MOST {
        let end = text::piece_end(text, at);
        for line in unwrapped(text::mended_lines(&text[at..end], &mut mended)) {
            let n = u32::try_from(lines + line.number).unwrap_or(u32::MAX);
            scanner.line(&line.text, n.saturating_add(1));
            count_headless(&line.text, &mut scanner.out.headless);
            if scanner.out.values.len() >= MOST {
                break;
            }
        }
        lines += text[at..end].iter().map(|b| usize::from(*b == b'\n')).sum::<usize>();
        at = end;
    }
    scanner.out.left_alone.extend(mended.words());
    let text = text::escapes::plain(text);
    let text = String::from_utf8_lossy(&text);
    let (intel, amd) = (text.contains("kvm_intel"), text.contains("kvm_amd"));
    scanner.out.vendor = match (intel, amd) {
        (true, false) => Some("intel"),
        (false, true) => Some("amd"),
        _ if text.contains("handle_ept_misconfig")
            || text.contains("EPT_MISCONFIG")
            || text.contains("EPT: Misconfiguration") =>
        {
            Some("intel")
        }
        _ if text.contains("npf_interception") => Some("amd"),
        _ => None,
    };
    scanner.out.stated = stated::stated(&text);
    scanner.out
}

/// The number of characters of the column of irq flags in the lines of a text that tracefs printed, if all lines that have it agree. trace-cmd prints the
/// column by rules of its own; its reports begin with the number of CPUs, and it pads the names of events, which tracefs does not.
pub fn irq_flags(text: &[u8]) -> Option<usize> {
    let mut width = None;
    for line in text.split(|b| *b == b'\n') {
        if line.trim_ascii_start().starts_with(b"cpus=") {
            return None;
        }
        let Some(h) = text::head::parse(line).filter(|h| h.flags > 0 && h.system.is_none() && h.dash) else {
            continue;
        };
        if width.is_some_and(|w| w != h.flags) {
            return None;
        }
        width = Some(h.flags);
        let named = [h.event, b": ".as_slice()].concat();
        let at = line.windows(named.len()).position(|w| w == named);
        if at.is_some_and(|at| line[at + named.len()..].starts_with(b" ")) {
            return None;
        }
    }
    width
}

/// Counts a line that is an event without a head.
fn count_headless(line: &str, counts: &mut Vec<(String, u64)>) {
    let Some(h) = text::headless::parse(line.as_bytes()) else { return };
    let name = String::from_utf8_lossy(h.event);
    match counts.iter_mut().find(|(n, _)| *n == name) {
        Some((_, n)) => *n += 1,
        None => counts.push((name.into_owned(), 1)),
    }
}

/// Mail programs wrap lines at so many columns.
const WRAPPED: RangeInclusive<usize> = 64..=80;
/// Shorter lines are not wrapped.
const LONG: usize = 40;

/// Puts the lines together that a mail wrapped in front of a value or of `name=0x…`: the rest begins in the first column, is shorter, and its first word
/// had no room in the line before, which has words as well as numbers.
fn unwrapped(lines: Vec<Whole>) -> Vec<Whole> {
    let width = |l: &Whole| l.text.trim_end().chars().count();
    let widest = lines.iter().map(width).max().unwrap_or(0);
    if !WRAPPED.contains(&widest) {
        return lines;
    }
    let mut out: Vec<Whole> = Vec::with_capacity(lines.len());
    for line in lines {
        let word = line.text.split(' ').next().unwrap_or_default();
        let value =
            word.split_once('=').map_or(word, |(name, value)| if name.is_empty() { "" } else { value });
        let rest = value.starts_with("0x") && number(value).is_some();
        let before = out.last_mut().filter(|b| {
            let (w, first) = (width(b), b.text.trim_start().split(' ').next().unwrap_or_default());
            let of_words = number(first).is_none() && first.contains(|c: char| c.is_ascii_alphabetic());
            rest && of_words
                && b.text.contains("0x")
                && w >= LONG
                && w + 1 + word.len() > widest
                && width(&line) < w
        });
        match before {
            Some(before) => before.text = format!("{} {}", before.text.trim_end(), line.text),
            None => out.push(line),
        }
    }
    out
}
