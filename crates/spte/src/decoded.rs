//! The meaning of a decoded value: [`Decoded`] and the enums in it. [`crate::Layout::decode`] makes it, and every face reads it.

/// State of a page-table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// The entry was zapped or never filled; also any word that has none of the other states ([`Decoded::nonzero_nonpresent`]).
    Nonpresent,
    /// The entry is a leaf and maps a page.
    Present,
    /// The entry is present and points to a lower table.
    Table,
    /// The entry is an MMIO SPTE, which caches that the frame is emulated MMIO.
    Mmio,
    /// The entry is frozen while the TDP MMU changes it: the kernel calls it REMOVED (5.12 to 6.10) or FROZEN (since 6.11).
    Removed,
}

impl State {
    /// The word for this state in the tables, the UI and the command line.
    pub const fn name(self) -> &'static str {
        match self {
            State::Nonpresent => "nonpresent",
            State::Present => "present",
            State::Table => "table",
            State::Mmio => "mmio",
            State::Removed => "removed",
        }
    }
}

/// How Accessed and Dirty are tracked for an entry (`SPTE_TDP_AD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdType {
    /// Hardware A/D bits track both.
    Enabled,
    /// There are no hardware A/D bits: access tracking stands for Accessed, write protection for Dirty.
    Disabled,
    /// Accessed is a hardware bit, dirty logging uses write protection (entries of a nested guest under PML).
    WrprotOnly,
    /// The field holds 3, which no kernel writes into a present entry.
    Reserved,
}

impl AdType {
    /// The word for this type in the tables and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            AdType::Enabled => "enabled",
            AdType::Disabled => "disabled",
            AdType::WrprotOnly => "wrprot_only",
            AdType::Reserved => "reserved",
        }
    }

    /// The number that the field holds, 0 to 3.
    pub const fn value(self) -> u64 {
        match self {
            AdType::Enabled => 0,
            AdType::Disabled => 1,
            AdType::WrprotOnly => 2,
            AdType::Reserved => 3,
        }
    }
}

/// A decoded SPTE. `None` means "does not apply here", never "unknown".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The value, as the kernel wrote it.
    pub raw: u64,
    /// The level at which it was read: 1 = 4 KiB, 2 = 2 MiB, 3 = 1 GiB, 4, 5.
    pub level: u8,
    /// State of the entry.
    pub state: State,
    /// The host frame of a leaf, or of the table that the entry points to.
    pub pfn: Option<u64>,
    /// The guest frame in an MMIO SPTE, as this kernel reads it back.
    pub gfn: Option<u64>,
    /// The guest may read (bit 0).
    pub r: Option<bool>,
    /// The guest may write (bit 1).
    pub w: Option<bool>,
    /// The guest may execute; since 7.2 on EPT, in supervisor mode.
    pub x: Option<bool>,
    /// The guest may execute in user mode (EPT since 7.2).
    pub xu: Option<bool>,
    /// User code may access the page (legacy format only).
    pub u: Option<bool>,
    /// The page was accessed, as `is_accessed_spte` answers.
    pub accessed: Option<bool>,
    /// The page was written, as `is_dirty_spte` answers.
    pub dirty: Option<bool>,
    /// How Accessed and Dirty are tracked.
    pub ad_type: Option<AdType>,
    /// The host maps the page writable.
    pub host_writable: Option<bool>,
    /// KVM may make the entry writable without the MMU lock.
    pub mmu_writable: Option<bool>,
    /// The permissions are taken away so that the next access faults; see [`Decoded::restored`].
    pub access_tracked: Option<bool>,
    /// Memory type (EPT): 0 UC, 1 WC, 4 WT, 5 WP, 6 WB.
    pub memtype: Option<u8>,
    /// The guest's PAT is ignored (EPT).
    pub ignore_pat: Option<bool>,
    /// Suppress #VE (EPT since 6.10).
    pub suppress_ve: Option<bool>,
    /// The host's SME encryption bit (C-bit) is set (legacy format).
    pub encrypted: Option<bool>,
    /// Ownership of the page under pKVM: 0 none, 1 owned, 2 shared and owned, 3 shared and borrowed.
    pub page_state: Option<u8>,
    /// The memslot generation in an MMIO SPTE, as this kernel reads it back.
    pub mmio_generation: Option<u32>,
    /// The ACC bits in an MMIO SPTE: 2 write, 4 user.
    pub mmio_access: Option<u8>,
    /// The value that the entry gets when access tracking ends.
    pub restored: Option<u64>,
    /// The reserved bits that are set although they must be clear; 0 in a sound entry.
    pub reserved_bits: u64,
    /// The memory type or the combination of permissions is invalid (EPT misconfiguration).
    pub bad_mt_xwr: bool,
    /// The entry is not present, and its value is neither zero nor that of a zapped entry.
    pub nonzero_nonpresent: bool,
    /// The entry was copied from the host's own page table (PVM).
    pub host_entry: bool,
    /// The entry is a leaf above level 1.
    pub large: bool,
    /// The fast path would fix a write fault on this entry without the MMU lock.
    pub fast_write_fixable: bool,
}

impl Decoded {
    pub(crate) const fn empty(raw: u64, level: u8, state: State) -> Self {
        Self {
            raw,
            level,
            state,
            pfn: None,
            gfn: None,
            r: None,
            w: None,
            x: None,
            xu: None,
            u: None,
            accessed: None,
            dirty: None,
            ad_type: None,
            host_writable: None,
            mmu_writable: None,
            access_tracked: None,
            memtype: None,
            ignore_pat: None,
            suppress_ve: None,
            encrypted: None,
            page_state: None,
            mmio_generation: None,
            mmio_access: None,
            restored: None,
            reserved_bits: 0,
            bad_mt_xwr: false,
            nonzero_nonpresent: false,
            host_entry: false,
            large: false,
            fast_write_fixable: false,
        }
    }

    /// Whether the format of the entry is invalid: reserved bits are set, or the memory type or permissions are bad.
    pub const fn is_malformed(&self) -> bool {
        self.reserved_bits != 0 || self.bad_mt_xwr
    }

    /// The number of bytes that a leaf maps at this level; 0 for any other entry.
    pub const fn size(&self) -> u64 {
        match self.state {
            State::Present => match self.level {
                0 | 1 => 1 << 12,
                2 => 1 << 21,
                3 => 1 << 30,
                4 => 1 << 39,
                _ => 1 << 48,
            },
            _ => 0,
        }
    }
}
