//! The evidence that callers gather: values with what is known about them, the walks they belong to, and facts that texts, events and
//! hosts state. The main type is [`Evidence`]; it holds the input of [`crate::infer::judge`] and never judges anything itself.

use alloc::{string::String, vec::Vec};

use crate::{Era, Format, Kernel, Layout, Mode, Vendor, eras};

/// What is known about an entry besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Role {
    /// Nothing is known.
    #[default]
    Unknown,
    /// The entry maps a page.
    Leaf,
    /// `kvm_mmu_set_spte` named the entry: it is a leaf; up to 5.12 the event is emitted for MMIO SPTEs as well.
    Installed,
    /// The entry points to a table.
    Table,
    /// The entry was zapped, or the value is the old value of an entry that is filled for the first time.
    Empty,
    /// The entry was frozen (REMOVED).
    Frozen,
    /// The entry is an MMIO SPTE (`mark_mmio_spte`, `check_mmio_spte`).
    Mmio {
        /// The guest frame, where an event or the fault address names it.
        gfn: Option<u64>,
        /// The generation, where an event names it.
        generation: Option<u32>,
    },
}

/// The permission letters that `kvm_mmu_set_spte` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letters {
    /// Whether `r` is printed.
    pub r: bool,
    /// Whether `w` is printed.
    pub w: bool,
    /// Whether `x` is printed.
    pub x: bool,
    /// Whether `u` is printed; `None` where the kernel prints nothing in its place.
    pub u: Option<bool>,
}

/// A value seen on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Value {
    /// The value.
    pub raw: u64,
    /// The level of its entry, 1 to 5, where known.
    pub level: Option<u8>,
    /// What is known about its entry.
    pub role: Role,
    /// The letters that the kernel printed beside it.
    pub letters: Option<Letters>,
    /// The reserved mask that the kernel printed beside it (`rsvd bits`).
    pub printed_mask: Option<u64>,
    /// How often a similar entry was seen, in steps: 0 for once, 1 for a few times, 3 for hundreds of times.
    pub often: u8,
}

impl Value {
    /// A value about which nothing else is known.
    pub const fn bare(raw: u64) -> Self {
        Self { raw, level: None, role: Role::Unknown, letters: None, printed_mask: None, often: 0 }
    }

    /// A value whose level is known.
    pub const fn at(raw: u64, level: u8) -> Self {
        Self { level: Some(level), ..Self::bare(raw) }
    }
}

/// The level at which walks begin. The four entries of a PAE root are not SPTEs.
pub fn walk_start(layout: &Layout) -> u8 {
    if layout.root_level <= 3 { 2 } else { layout.root_level }
}

/// A walk that a text dumps, from the root down.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Walk {
    /// Its values, as indices into [`Evidence::values`].
    pub values: Vec<usize>,
    /// The address that faulted: guest-physical under TDP, guest-virtual under shadow paging.
    pub address: Option<u64>,
    /// The text says that the kernel found reserved bits set in this walk.
    pub reserved: bool,
    /// The CPU reported a malformed entry in this walk, and the text does not say what the kernel found.
    pub misconfigured: bool,
    /// The dump may be the one of 5.10.0, which also prints an array slot above the walk that nothing wrote.
    pub unwritten_slots: bool,
}

impl Walk {
    /// Whether an entry of this level stands in the slot that the dump of 5.10.0 prints and the walk never wrote: it begins one level above the
    /// walk where the root is PAE, or where the CPU has a level more than the guest's tables.
    pub fn is_slot(&self, level: u8, layout: &Layout) -> bool {
        self.unwritten_slots && level == walk_start(layout) + 1
    }
}

/// A set of paging modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes(u16);

impl Modes {
    /// The set of these modes.
    pub const fn of(modes: &[Mode]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < modes.len() {
            bits |= 1 << modes[at] as u16;
            at += 1;
        }
        Self(bits)
    }

    /// The set of all modes for which `keep` is true.
    pub fn that(keep: impl Fn(Mode) -> bool) -> Self {
        Mode::ALL.into_iter().filter(|&m| keep(m)).fold(Self(0), |set, m| Self(set.0 | 1 << m as u16))
    }

    /// The modes of a host with EPT or NPT: tables that the CPU walks for guest-physical addresses, and the shadow tables for nested guests.
    pub fn tdp() -> Self {
        Self::that(|m| m.is_tdp() || m.is_nested() || m == Mode::Pkvm)
    }

    /// The modes whose entries have the EPT format.
    pub fn ept() -> Self {
        Self::that(|m| m.format() == Format::Ept)
    }

    /// The modes that a CPU of this vendor can have.
    pub fn vendor(vendor: Vendor) -> Self {
        Self::that(|m| vendor_has(vendor, m))
    }

    /// Whether the set contains a mode.
    pub const fn has(self, mode: Mode) -> bool {
        self.0 >> mode as u16 & 1 != 0
    }
}

pub(super) const fn vendor_has(vendor: Vendor, mode: Mode) -> bool {
    match vendor {
        Vendor::Intel => !matches!(mode, Mode::Npt | Mode::NestedNpt),
        Vendor::Amd => !matches!(mode.format(), Format::Ept),
    }
}

/// What a fact says about the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The kernel is one of these releases, from the first to the last.
    Releases((u16, u16), (u16, u16)),
    /// The kernel names this release. Distributions backport, so the values weigh more.
    Kernel(Kernel),
    /// The paging mode is one of these.
    Modes(Modes),
}

/// A fact that does not come from the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it says about the layout.
    pub claim: Claim,
    /// The observation, in words: `kvm_exit reasons are those of SVM`.
    pub why: String,
    /// The weight of the fact; see the constants of [`Fact`].
    pub points: i32,
}

impl Fact {
    /// The weight of a release string.
    pub const RELEASE: i32 = 32;
    /// The weight of how a line is worded.
    pub const WORDING: i32 = 40;
    /// The weight of what events show of the paging mode, or of the release because they exist.
    pub const EVENTS: i32 = 60;
    /// The weight of what the host itself states: module parameters, type definitions.
    pub const HOST: i32 = 120;

    /// Whether a layout of this era (an index into `eras`) and mode agrees with the fact.
    pub fn agrees(&self, at: usize, eras: &[Era], mode: Mode) -> bool {
        match self.claim {
            // Releases before the oldest era are read by its rules, as nothing nearer is known.
            Claim::Releases(_, last) if is_before(last, eras) => at == 0,
            Claim::Releases(first, last) => eras.get(at).is_none_or(|e| e.first <= last && e.last >= first),
            Claim::Kernel(kernel) => eras::era_of(&kernel, eras, &mut Vec::new()) == at,
            Claim::Modes(modes) => modes.has(mode),
        }
    }
}

/// Whether a release is older than every era.
pub(super) fn is_before(release: (u16, u16), eras: &[Era]) -> bool {
    eras.first().is_some_and(|e| release < e.first)
}

/// Everything known about the entries of one host.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Evidence {
    /// The values.
    pub values: Vec<Value>,
    /// The walks that were dumped.
    pub walks: Vec<Walk>,
    /// The facts that do not come from the values.
    pub facts: Vec<Fact>,
}

impl Evidence {
    /// Evidence that consists of values only.
    pub fn of(values: impl IntoIterator<Item = Value>) -> Self {
        Self { values: values.into_iter().collect(), ..Self::default() }
    }

    /// Adds a fact. A fact that is already there is not counted twice.
    pub fn fact(&mut self, claim: Claim, points: i32, why: impl Into<String>) {
        if !self.facts.iter().any(|f| f.claim == claim) {
            self.facts.push(Fact { claim, why: why.into(), points });
        }
    }

    /// The CPU vendor that the facts name, if they name one only.
    pub fn vendor(&self) -> Option<Vendor> {
        let named = |v: Vendor| self.facts.iter().any(|f| f.claim == Claim::Modes(Modes::vendor(v)));
        match (named(Vendor::Intel), named(Vendor::Amd)) {
            (true, false) => Some(Vendor::Intel),
            (false, true) => Some(Vendor::Amd),
            _ => None,
        }
    }

    /// The kernel that the facts name, if any does.
    pub fn kernel(&self) -> Option<Kernel> {
        self.facts.iter().find_map(|f| match f.claim {
            Claim::Kernel(kernel) => Some(kernel),
            _ => None,
        })
    }
}
