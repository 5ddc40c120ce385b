//! SPTE values out of pasted text: dmesg dumps, trace lines, debugger output, bare hex.
//!
//! The scanner knows where the kernel and the usual tools print SPTE values and takes those, with the level, frame and role the text
//! says. Numbers at other places (registers, pointers, addresses, entries of the TDX module) are left alone.
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

use crate::text::{self, clean::Mended};
use scanner::Scanner;
pub use stated::Stated;

/// What the text says an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Role {
    /// Nothing.
    #[default]
    Unknown,
    /// A leaf that was just installed.
    Leaf,
    /// One step of a walk from the root down.
    Walk,
    /// The value before a change.
    Old,
    /// The value after it.
    New,
    /// An MMIO SPTE.
    Mmio,
    /// One word of a page-table page.
    Word,
}

/// The letters `kvm_mmu_set_spte` printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Letters {
    /// `r`.
    pub r: bool,
    /// `w`.
    pub w: bool,
    /// `x`.
    pub x: bool,
    /// `u`; `None` where only three letters are printed.
    pub u: Option<bool>,
}

/// A value found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Found {
    /// The value.
    pub value: u64,
    /// Level of the entry.
    pub level: Option<u8>,
    /// Guest frame of the entry.
    pub gfn: Option<u64>,
    /// What it is.
    pub role: Role,
    /// What the kernel printed as `rsvd bits`: the mask, not the bits that offend.
    pub rsvd_mask: Option<u64>,
    /// Letters behind the value.
    pub letters: Option<Letters>,
    /// Generation the text gives for it.
    pub generation: Option<u32>,
    /// Index in its table.
    pub index: Option<u16>,
    /// The line it stands in, from 1.
    pub line: u32,
    /// Which values belong together: an index into [`Pasted::groups`].
    pub group: usize,
}

/// What kind of text a group of values came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bare numbers.
    Bare,
    /// A dump of a walk that hit reserved bits.
    ReservedDump,
    /// A walk of the page tables, with levels, of which the text does not say what was wrong with it.
    Walk,
    /// A #VE dump of a walk.
    VeDump,
    /// The warning at the creation of an SPTE with reserved bits.
    ReservedWarning,
    /// "Invalid SPTE change" of the TDP MMU.
    InvalidChange,
    /// "Unexpected SPTE change" of the TDP MMU.
    UnexpectedChange,
    /// A warning about host- and MMU-writable.
    WritableWarning,
    /// The shadow MMU's audit.
    Audit,
    /// A trace event.
    Event,
    /// Memory of a page table, out of a debugger.
    Memory,
}

/// Values that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Kind of text.
    pub kind: Kind,
    /// Line it begins at, from 1.
    pub line: u32,
    /// Guest-physical (or virtual) address the text is about.
    pub address: Option<u64>,
    /// Name of the trace event.
    pub event: Option<String>,
}

/// What a text proves about the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clue {
    /// Releases it can be.
    pub releases: RangeInclusive<(u16, u16)>,
    /// Why.
    pub why: &'static str,
}

/// The result of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pasted {
    /// Values, in the order of the text.
    pub values: Vec<Found>,
    /// The texts they came from.
    pub groups: Vec<Group>,
    /// A kernel release the text names (`6.1.0-13-amd64 #1 Debian 6.1.55-1`).
    pub kernel: Option<String>,
    /// What the wording proves about the release.
    pub clues: Vec<Clue>,
    /// `intel` or `amd`, where the text names only one KVM module.
    pub vendor: Option<&'static str>,
    /// Numbers that look like entries and are not, one sentence each.
    pub left_alone: Vec<String>,
    /// What the text states about paging beside its values, each with the words that say it.
    pub stated: Vec<(Stated, String)>,
}

impl Pasted {
    /// The releases all clues leave.
    pub fn releases(&self) -> Option<RangeInclusive<(u16, u16)>> {
        let mut clues = self.clues.iter().map(|c| c.releases.clone());
        let first = clues.next()?;
        Some(clues.fold(first, |a, b| *a.start().max(b.start())..=*a.end().min(b.end())))
    }
}

const OLDEST: (u16, u16) = (4, 13);
const NEWEST: (u16, u16) = (u16::MAX, 0);

/// Values beyond this many are not taken: a page-table page has 512, a dump of a whole guest is for another tool.
pub const MOST: usize = 1 << 16;

/// Finds the SPTE values of a text.
pub fn scan(text: &[u8]) -> Pasted {
    let mut scanner = Scanner::default();
    let mut mended = Mended::default();
    let (mut at, mut lines) = (0, 0);
    while at < text.len() && scanner.out.values.len() < MOST {
        let end = text::piece_end(text, at);
        for line in text::mended_lines(&text[at..end], &mut mended) {
            let n = u32::try_from(lines + line.number).unwrap_or(u32::MAX);
            scanner.line(&line.text, n.saturating_add(1));
            if scanner.out.values.len() >= MOST {
                break;
            }
        }
        lines += text[at..end].iter().map(|b| usize::from(*b == b'\n')).sum::<usize>();
        at = end;
    }
    scanner.out.left_alone.extend(mended.words());
    let text = String::from_utf8_lossy(text);
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

/// One word that is nothing but a number: `0x…` or at least four hex digits (`0` counts, too).
pub fn number(word: &str) -> Option<u64> {
    let word = word.trim_matches(|c: char| matches!(c, ',' | ';' | '`' | '\'' | '"' | '(' | ')'));
    let word =
        word.strip_suffix("ULL").or(word.strip_suffix("ull")).or(word.strip_suffix('L')).unwrap_or(word);
    if let Some(hex) = word.strip_prefix("0x").or(word.strip_prefix("0X")) {
        return u64::from_str_radix(&hex.replace('_', ""), 16).ok().filter(|_| !hex.is_empty());
    }
    if word == "0" {
        return Some(0);
    }
    let plain = (4..=16).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(word, 16).ok()).flatten()
}
