//! What a value turned out to mean.

/// State of a page-table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Zapped or never filled; also any word that is neither of the others ([`Decoded::nonzero_nonpresent`]).
    Nonpresent,
    /// A leaf that maps a page.
    Present,
    /// Present, points to a lower table.
    Table,
    /// MMIO SPTE: caches that the frame is emulated MMIO.
    Mmio,
    /// REMOVED (5.12 to 6.10), FROZEN (since 6.11).
    Removed,
}

impl State {
    /// The word of the tables, the UI and the command line.
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
    /// By hardware A/D bits.
    Enabled,
    /// Without: accessed by access tracking, dirty by write protection.
    Disabled,
    /// Accessed by hardware, dirty by write protection (entries of a nested guest under PML).
    WrprotOnly,
    /// Value 3, which no kernel gives to a present entry.
    Reserved,
}

impl AdType {
    /// The word of the tables and the command line.
    pub const fn name(self) -> &'static str {
        match self {
            AdType::Enabled => "enabled",
            AdType::Disabled => "disabled",
            AdType::WrprotOnly => "wrprot_only",
            AdType::Reserved => "reserved",
        }
    }

    /// The number in the field.
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
    /// The value.
    pub raw: u64,
    /// Level it was read at: 1 = 4 KiB, 2 = 2 MiB, 3 = 1 GiB, 4, 5.
    pub level: u8,
    /// State of the entry.
    pub state: State,
    /// Host frame of a leaf, or of the table an entry points to.
    pub pfn: Option<u64>,
    /// Guest frame an MMIO SPTE holds, as this kernel reads it.
    pub gfn: Option<u64>,
    /// Readable (b0).
    pub r: Option<bool>,
    /// Writable (b1).
    pub w: Option<bool>,
    /// Executable; from 7.2 on EPT: in supervisor mode.
    pub x: Option<bool>,
    /// User-executable (EPT since 7.2).
    pub xu: Option<bool>,
    /// User-accessible (legacy format only).
    pub u: Option<bool>,
    /// Accessed, as `is_accessed_spte` answers.
    pub accessed: Option<bool>,
    /// Dirty, as `is_dirty_spte` answers.
    pub dirty: Option<bool>,
    /// How A and D are tracked.
    pub ad_type: Option<AdType>,
    /// The host maps the page writable.
    pub host_writable: Option<bool>,
    /// KVM may make the entry writable without the MMU lock.
    pub mmu_writable: Option<bool>,
    /// Permissions are taken away to see the next access; see [`Decoded::restored`].
    pub access_tracked: Option<bool>,
    /// Memory type (EPT): 0 UC, 1 WC, 4 WT, 5 WP, 6 WB.
    pub memtype: Option<u8>,
    /// The guest's PAT is ignored (EPT).
    pub ignore_pat: Option<bool>,
    /// Suppress #VE (EPT since 6.10).
    pub suppress_ve: Option<bool>,
    /// The host's SME encryption bit is set (legacy format).
    pub encrypted: Option<bool>,
    /// pKVM: 0 none, 1 owned, 2 shared and owned, 3 shared and borrowed.
    pub page_state: Option<u8>,
    /// Memslot generation in an MMIO SPTE, as this kernel reads it.
    pub mmio_generation: Option<u32>,
    /// Access bits in an MMIO SPTE.
    pub mmio_access: Option<u8>,
    /// Value after access tracking ends.
    pub restored: Option<u64>,
    /// Reserved bits that are set and should not be.
    pub reserved_bits: u64,
    /// Bad memory type or permission combination (EPT misconfiguration).
    pub bad_mt_xwr: bool,
    /// Not present, yet neither zero nor the value of a zapped entry.
    pub nonzero_nonpresent: bool,
    /// PVM: an entry copied from the host's own page table.
    pub host_entry: bool,
    /// A leaf above level 1.
    pub large: bool,
    /// A write fault here would be fixed without the MMU lock.
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

    /// Whether hardware would fault on the entry's format: reserved bits or a bad memory type.
    pub const fn is_malformed(&self) -> bool {
        self.reserved_bits != 0 || self.bad_mt_xwr
    }

    /// Bytes a leaf maps at this level, 0 for everything else.
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
