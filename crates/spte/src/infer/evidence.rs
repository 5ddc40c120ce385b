//! What callers gather: values with what is known of them, the walks they stand in, and facts that texts, events and hosts state.

use alloc::{string::String, vec::Vec};

use crate::{Era, Format, Kernel, Mode, Vendor, eras};

/// What is known about an entry besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Role {
    /// Nothing.
    #[default]
    Unknown,
    /// It maps a page.
    Leaf,
    /// `kvm_mmu_set_spte` named it: a leaf; up to 5.12 the event is emitted for MMIO SPTEs as well.
    Installed,
    /// It points to a table.
    Table,
    /// It was zapped, or is the old value of an entry filled for the first time.
    Empty,
    /// It was frozen (removed).
    Frozen,
    /// It is an MMIO SPTE (`mark_mmio_spte`, `check_mmio_spte`) of this frame and generation, where known.
    Mmio {
        /// Guest frame, where an event or the fault address tells it.
        gfn: Option<u64>,
        /// Generation, where an event tells it.
        generation: Option<u32>,
    },
}

/// The letters `kvm_mmu_set_spte` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letters {
    /// `r`.
    pub r: bool,
    /// `w`.
    pub w: bool,
    /// `x`.
    pub x: bool,
    /// `u`; `None` where nothing is printed for it.
    pub u: Option<bool>,
}

/// A value seen on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Value {
    /// The value.
    pub raw: u64,
    /// Level of its entry, where known.
    pub level: Option<u8>,
    /// What is known about the entry.
    pub role: Role,
    /// What the kernel printed about it.
    pub letters: Option<Letters>,
    /// The reserved mask that the kernel printed beside it (`rsvd bits`).
    pub printed_mask: Option<u64>,
    /// How often an entry like it was seen, in steps: 0 for once, 1 for a few times, 3 for hundreds.
    pub often: u8,
}

impl Value {
    /// A bare value.
    pub const fn bare(raw: u64) -> Self {
        Self { raw, level: None, role: Role::Unknown, letters: None, printed_mask: None, often: 0 }
    }

    /// A value at a level.
    pub const fn at(raw: u64, level: u8) -> Self {
        Self { level: Some(level), ..Self::bare(raw) }
    }
}

/// A walk that a text dumps, root first.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Walk {
    /// Its values: indices into [`Evidence::values`].
    pub values: Vec<usize>,
    /// The address that faulted: guest-physical under TDP, guest-virtual under shadow paging.
    pub address: Option<u64>,
    /// The text says that the kernel found reserved bits in it.
    pub reserved: bool,
    /// The dump is the one of 5.10, which prints array slots that the walk never wrote.
    pub unwritten_slots: bool,
}

/// A set of paging modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes(u16);

impl Modes {
    /// These modes.
    pub const fn of(modes: &[Mode]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < modes.len() {
            bits |= 1 << modes[at] as u16;
            at += 1;
        }
        Self(bits)
    }

    /// All modes of which `keep` holds.
    pub fn that(keep: impl Fn(Mode) -> bool) -> Self {
        Mode::ALL.into_iter().filter(|&m| keep(m)).fold(Self(0), |set, m| Self(set.0 | 1 << m as u16))
    }

    /// Tables that the CPU walks for guest-physical addresses, and the shadows that a nested guest adds to them: what a host with EPT or
    /// NPT has.
    pub fn tdp() -> Self {
        Self::that(|m| m.is_tdp() || m.is_nested() || m == Mode::Pkvm)
    }

    /// Entries in the EPT format.
    pub fn ept() -> Self {
        Self::that(|m| m.format() == Format::Ept)
    }

    /// Modes a CPU of this vendor can have.
    pub fn vendor(vendor: Vendor) -> Self {
        Self::that(|m| vendor_has(vendor, m))
    }

    /// Whether a mode is one of them.
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

/// What a fact says of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The kernel is one of these releases, first and last.
    Releases((u16, u16), (u16, u16)),
    /// The kernel calls itself this. Trees carry backports: values count more.
    Kernel(Kernel),
    /// The paging mode is one of these.
    Modes(Modes),
}

/// A fact besides the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it says.
    pub claim: Claim,
    /// Where it stands, in words: `kvm_exit reasons are those of SVM`.
    pub why: String,
    /// How much it counts; see the constants of [`Fact`].
    pub points: i32,
}

impl Fact {
    /// A release string.
    pub const RELEASE: i32 = 32;
    /// The wording of a line.
    pub const WORDING: i32 = 40;
    /// What events show of the paging mode, or of the release by being there at all.
    pub const EVENTS: i32 = 60;
    /// What the host itself said: module parameters, type definitions.
    pub const HOST: i32 = 120;

    /// Whether a layout of this era and mode agrees.
    pub fn agrees(&self, at: usize, eras: &[Era], mode: Mode) -> bool {
        match self.claim {
            Claim::Releases(first, last) => eras.get(at).is_none_or(|e| e.first <= last && e.last >= first),
            Claim::Kernel(kernel) => eras::era_of(&kernel, eras, &mut Vec::new()) == at,
            Claim::Modes(modes) => modes.has(mode),
        }
    }
}

/// Everything known about the entries of one host.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Evidence {
    /// Values.
    pub values: Vec<Value>,
    /// Walks that were dumped.
    pub walks: Vec<Walk>,
    /// Facts besides the values.
    pub facts: Vec<Fact>,
}

impl Evidence {
    /// Values and nothing else.
    pub fn of(values: impl IntoIterator<Item = Value>) -> Self {
        Self { values: values.into_iter().collect(), ..Self::default() }
    }

    /// Adds a fact; one that is there already is not counted twice.
    pub fn fact(&mut self, claim: Claim, points: i32, why: impl Into<String>) {
        if !self.facts.iter().any(|f| f.claim == claim) {
            self.facts.push(Fact { claim, why: why.into(), points });
        }
    }

    /// The kernel the facts name.
    pub fn kernel(&self) -> Option<Kernel> {
        self.facts.iter().find_map(|f| match f.claim {
            Claim::Kernel(kernel) => Some(kernel),
            _ => None,
        })
    }
}
