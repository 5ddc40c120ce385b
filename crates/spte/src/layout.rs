//! A resolved layout: plain masks and rules, and the decoding itself.
//!
//! Nothing here allocates, branches on data more than it must, or fails: every 64-bit value at every level has a reading.

use crate::{AdType, Decoded, Format, Masks, Mode, State, bits, mmio};

/// Name of a layout, such as `E10/ept`, held in place so that a [`Layout`] stays plain data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    text: [u8; Name::CAPACITY],
    len: u8,
}

impl Name {
    /// Longest name kept; what is longer is cut at a character boundary.
    pub const CAPACITY: usize = 38;

    /// Keeps `text`.
    pub fn new(text: &str) -> Self {
        let mut end = text.len().min(Self::CAPACITY);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut kept = [0; Self::CAPACITY];
        kept[..end].copy_from_slice(&text.as_bytes()[..end]);
        Self { text: kept, len: end as u8 }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.text[..usize::from(self.len)]).unwrap_or("")
    }
}

impl core::fmt::Debug for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self.as_str(), f)
    }
}

impl core::fmt::Display for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How the kernel tells that an entry maps or points to something (`is_shadow_present_pte`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresentRule {
    /// Up to 5.12: whatever is not zero, not MMIO and not removed.
    NotSpecial,
    /// Any of these bits: since 5.13 the MMU-present bit.
    AnyOf(u64),
}

/// How Accessed and Dirty are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdRule {
    /// The hardware bits where the entry's A/D type allows them, else "not access-tracked" and "writable" (up to 6.12).
    ByType,
    /// The bits themselves: software keeps them where hardware does not (since 6.13).
    Bits,
}

/// When a write-protected leaf may be made writable without the MMU lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixRule {
    /// Host-writable and MMU-writable both set (up to 5.16).
    HostAndMmu,
    /// MMU-writable alone (since 5.17; host-writable is implied).
    Mmu,
    /// Never: the tables are not KVM's to fix.
    Never,
}

/// What the bits of an SPTE mean on one host. Plain data without heap; see [`LayoutSpec`](crate::LayoutSpec) for how it is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    /// `E10/ept`, or the name of a user's file.
    pub name: Name,
    /// Paging mode.
    pub mode: Mode,
    /// Entry format of the hardware.
    pub format: Format,
    /// Level of the root (3 for PAE, else 4 or 5).
    pub root_level: u8,
    /// The kernel's mask variables.
    pub masks: Masks,
    /// Present test.
    pub present: PresentRule,
    /// Value of a zapped or never filled entry (`SHADOW_NONPRESENT_VALUE`).
    pub zapped: u64,
    /// `REMOVED_SPTE`, since 6.11 `FROZEN_SPTE`; `None` where the kernel has none.
    pub removed: Option<u64>,
    /// Page-size bit.
    pub large: u64,
    /// The A/D type field.
    pub ad_type: bits::Field,
    /// How far Read and Execute are shifted up while an entry is access-tracked.
    pub saved_shift: u8,
    /// Memory type field (EPT).
    pub memtype: bits::Field,
    /// Ignore-PAT bit (EPT).
    pub ignore_pat: u64,
    /// Suppress-#VE bit (EPT since 6.10), else 0.
    pub suppress_ve: u64,
    /// What `is_mmio_spte` compares: `raw & mmio_test_mask == mmio_test_value`.
    pub mmio_test_mask: u64,
    /// See [`Layout::mmio_test_mask`].
    pub mmio_test_value: u64,
    /// Bits of the access a MMIO SPTE gives back.
    pub mmio_access_read: u64,
    /// Where the generation goes and comes from.
    pub generation: mmio::Generation,
    /// How a MMIO SPTE keeps its frame number.
    pub mmio_gfn: mmio::GfnRule,
    /// Reserved bits: `reserved[page size bit][level]`.
    pub reserved: [[u64; 6]; 2],
    /// Bit n: a present entry whose low six bits are n has a bad memory type or permission combination (EPT).
    pub bad_mt_xwr: u64,
    /// How A and D are read.
    pub ad_rule: AdRule,
    /// When a write fault is fixable on the fast path.
    pub fix_rule: FixRule,
    /// Root-level entries with P set and the present bit clear map the host kernel (PVM).
    pub host_entries_at_root: bool,
    /// pKVM: field that holds the page's ownership state, else empty.
    pub page_state: bits::Field,
}

impl Layout {
    /// Name of the layout.
    pub fn id(&self) -> &str {
        self.name.as_str()
    }

    /// `is_mmio_spte`.
    #[inline]
    pub fn is_mmio(&self, raw: u64) -> bool {
        self.masks.enable_mmio_caching & (raw & self.mmio_test_mask == self.mmio_test_value)
    }

    /// `is_removed_spte` / `is_frozen_spte`.
    #[inline]
    pub fn is_removed(&self, raw: u64) -> bool {
        self.removed == Some(raw)
    }

    /// `is_shadow_present_pte`.
    #[inline]
    pub fn is_shadow_present(&self, raw: u64) -> bool {
        match self.present {
            PresentRule::AnyOf(bits) => raw & bits != 0,
            PresentRule::NotSpecial => (raw != 0) & !self.is_mmio(raw) & !self.is_removed(raw),
        }
    }

    /// State of an entry with this value at this level (1 = 4 KiB; anything below counts as 1).
    #[inline]
    pub fn state(&self, raw: u64, level: u8) -> State {
        if self.is_shadow_present(raw) {
            if (level <= 1) | (raw & self.large != 0) { State::Present } else { State::Table }
        } else if self.is_removed(raw) {
            State::Removed
        } else if self.is_mmio(raw) {
            State::Mmio
        } else {
            State::Nonpresent
        }
    }

    /// A/D type of a shadow-present value.
    #[inline]
    pub fn ad_type(&self, raw: u64) -> AdType {
        match self.ad_type.get(raw) {
            0 => AdType::Enabled,
            1 => AdType::Disabled,
            2 => AdType::WrprotOnly,
            _ => AdType::Reserved,
        }
    }

    /// Bits that hold saved permissions of an access-tracked entry.
    pub fn saved_mask(&self) -> u64 {
        (self.masks.acc_track_mask & !bits::bit(1)).checked_shl(u32::from(self.saved_shift)).unwrap_or(0)
    }

    /// `restore_acc_track_spte`: the value with the saved Read and Execute back in place. Write is never saved.
    #[inline]
    pub fn restore(&self, raw: u64) -> u64 {
        let saved = self.saved_mask();
        (raw & !self.masks.acc_track_mask & !saved)
            | (raw & saved).checked_shr(u32::from(self.saved_shift)).unwrap_or(0)
    }

    /// `mark_spte_for_access_track`: the value with Read and Execute saved and all permissions gone.
    pub fn track(&self, raw: u64) -> u64 {
        let keep = (raw & self.masks.acc_track_mask & !bits::bit(1))
            .checked_shl(u32::from(self.saved_shift))
            .unwrap_or(0);
        let software_accessed = if self.ad_rule == AdRule::Bits { self.masks.accessed_mask } else { 0 };
        (raw & !self.masks.acc_track_mask & !software_accessed) | keep
    }

    /// Offending reserved bits of a shadow-present value (`is_rsvd_spte` without the memory type rule).
    #[inline]
    pub fn reserved_bits(&self, raw: u64, level: u8) -> u64 {
        raw & self.reserved_mask(raw, level)
    }

    /// The reserved mask that applies: the number kernels since 5.13 print as `rsvd bits`.
    #[inline]
    pub fn reserved_mask(&self, raw: u64, level: u8) -> u64 {
        // The page-size bit is b7 in both formats; hardware, not the layout, fixes it.
        self.reserved[(raw >> 7 & 1) as usize][usize::from(level.clamp(1, 5))]
    }

    /// Whether the CPU would refuse a decoded entry. Of what the kernel's check counts as reserved, NX under NPT is none to the CPU
    /// (kernels up to 5.19 counted it).
    #[inline]
    pub fn refuses(&self, d: &Decoded) -> bool {
        let harmless = if self.mode == Mode::Npt { self.masks.nx_mask } else { 0 };
        (d.reserved_bits & !harmless != 0) | d.bad_mt_xwr
    }

    /// Whether memory type and permissions form a combination EPT hardware refuses.
    #[inline]
    pub fn bad_mt_xwr(&self, raw: u64) -> bool {
        // From 7.2 user-execute counts as execute; the mask is 0 before.
        let exec = if raw & self.masks.xu_mask != 0 { 4 } else { 0 };
        self.bad_mt_xwr >> ((raw | exec) & 0x3f) & 1 != 0
    }

    /// `is_executable_pte`.
    #[inline]
    pub fn is_executable(&self, raw: u64) -> bool {
        raw & (self.masks.x_mask | self.masks.nx_mask) == self.masks.x_mask
    }

    /// Whether a leaf could be made writable without the MMU lock.
    #[inline]
    pub fn is_fixable(&self, raw: u64) -> bool {
        let mmu = raw & self.masks.mmu_writable_mask != 0;
        match self.fix_rule {
            FixRule::HostAndMmu => mmu & (raw & self.masks.host_writable_mask != 0),
            FixRule::Mmu => mmu,
            FixRule::Never => false,
        }
    }

    /// What `raw` means in an entry of `level`. Never panics, never allocates.
    ///
    /// Attributes are gated as the kernel gates them: nothing but the state is read from an entry that is not shadow-present, and
    /// host-/MMU-writable, Accessed and Dirty only from leaves.
    #[inline]
    pub fn decode(&self, raw: u64, level: u8) -> Decoded {
        if self.is_shadow_present(raw) {
            self.decode_present(raw, level)
        } else if self.is_removed(raw) {
            Decoded::empty(raw, level, State::Removed)
        } else if self.is_mmio(raw) {
            Decoded {
                gfn: Some(self.mmio_gfn.get(raw)),
                mmio_generation: Some(self.generation.get(raw)),
                mmio_access: Some((raw & self.mmio_access_read) as u8),
                ..Decoded::empty(raw, level, State::Mmio)
            }
        } else {
            Decoded {
                nonzero_nonpresent: (raw != 0) & (raw != self.zapped),
                host_entry: self.host_entries_at_root & (level == self.root_level) & (raw & 1 != 0),
                ..Decoded::empty(raw, level, State::Nonpresent)
            }
        }
    }

    /// Leaves and table entries in one straight line: which of the two an entry is, is not worth a mispredicted branch.
    #[inline]
    fn decode_present(&self, raw: u64, level: u8) -> Decoded {
        let m = &self.masks;
        let leaf = (level <= 1) | (raw & self.large != 0);
        let ept = self.format == Format::Ept;
        let ad_type = self.ad_type(raw);
        let disabled = ad_type == AdType::Disabled;
        let by_type = disabled & (self.ad_rule == AdRule::ByType);
        let tracked = leaf & disabled & (raw & m.acc_track_mask == 0);
        let writable = raw & 2 != 0;
        let accessed_mask = bits::when(!by_type, m.accessed_mask);
        let dirty_mask = bits::when(!by_type, m.dirty_mask);
        let has_writable = leaf & (m.host_writable_mask | m.mmu_writable_mask != 0);
        Decoded {
            raw,
            level,
            state: if leaf { State::Present } else { State::Table },
            pfn: Some((raw & m.base_addr_mask) >> 12),
            gfn: None,
            r: Some(raw & 1 != 0),
            w: Some(writable),
            x: Some(self.is_executable(raw)),
            xu: (m.xu_mask != 0).then_some(raw & m.xu_mask != 0),
            u: (!ept).then_some(raw & 4 != 0),
            accessed: leaf.then_some((raw & accessed_mask != 0) | ((accessed_mask == 0) & !tracked)),
            dirty: leaf.then_some((raw & dirty_mask != 0) | ((dirty_mask == 0) & writable)),
            ad_type: (!self.ad_type.is_empty()).then_some(ad_type),
            host_writable: has_writable.then_some(raw & m.host_writable_mask != 0),
            mmu_writable: has_writable.then_some(raw & m.mmu_writable_mask != 0),
            access_tracked: leaf.then_some(tracked),
            memtype: ept.then_some(self.memtype.get(raw) as u8),
            ignore_pat: ept.then_some(raw & self.ignore_pat != 0),
            suppress_ve: (self.suppress_ve != 0).then_some(raw & self.suppress_ve != 0),
            encrypted: (!ept).then_some(raw & m.me_value != 0),
            page_state: (!self.page_state.is_empty()).then_some(self.page_state.get(raw) as u8),
            mmio_generation: None,
            mmio_access: None,
            restored: tracked.then(|| self.restore(raw)),
            reserved_bits: self.reserved_bits(raw, level),
            bad_mt_xwr: self.bad_mt_xwr(raw),
            nonzero_nonpresent: false,
            host_entry: false,
            large: leaf & (level > 1),
            fast_write_fixable: leaf & self.is_fixable(raw) & !writable,
        }
    }

    /// The value a leaf with these attributes has. Fields the layout lacks are ignored; the inverse of [`Layout::decode`] for the rest.
    pub fn leaf(&self, leaf: &Leaf) -> u64 {
        let m = &self.masks;
        let mut raw = (leaf.pfn << 12) & m.base_addr_mask;
        raw |= self.permissions(leaf.r, leaf.w, leaf.x, leaf.xu, leaf.u);
        raw |= bits::when(leaf.accessed, m.accessed_mask) | bits::when(leaf.dirty, m.dirty_mask);
        raw |= bits::when(leaf.host_writable, m.host_writable_mask);
        raw |= bits::when(leaf.mmu_writable, m.mmu_writable_mask);
        raw |= self.ad_type.put(leaf.ad_type.value()) | bits::when(leaf.large, self.large);
        raw |= self.present_bits();
        match self.format {
            Format::Ept => {
                raw |= self.memtype.put(u64::from(leaf.memtype));
                raw |= bits::when(leaf.ignore_pat, self.ignore_pat);
                raw |= bits::when(leaf.suppress_ve, self.suppress_ve);
            }
            Format::Legacy => raw |= bits::when(leaf.encrypted, m.me_value),
        }
        raw
    }

    /// The value of an entry that points to the table at `pfn`, as the kernel makes it (`make_nonleaf_spte`).
    pub fn table(&self, pfn: u64, ad_type: AdType) -> u64 {
        let m = &self.masks;
        let accessed = if ad_type == AdType::Disabled { 0 } else { m.accessed_mask };
        ((pfn << 12) & m.base_addr_mask)
            | self.permissions(true, true, true, true, true)
            | accessed
            | self.present_bits()
            | self.suppress_ve
            | m.me_value
            | self.ad_type.put(ad_type.value())
    }

    /// The value of an MMIO SPTE (`make_mmio_spte`), generation bugs of the kernel included.
    pub fn mmio(&self, gfn: u64, access: u8, generation: u32) -> u64 {
        self.masks.vm_mmio_value
            | (u64::from(access) & self.masks.mmio_access_mask)
            | self.generation.put(generation)
            | self.mmio_gfn.put(gfn)
    }

    fn present_bits(&self) -> u64 {
        match self.present {
            // Of several bits (pKVM: any permission) none may be set on its own account.
            PresentRule::AnyOf(bits) if bits.is_power_of_two() => bits,
            _ => 0,
        }
    }

    #[allow(clippy::fn_params_excessive_bools, reason = "five permissions are five flags")]
    fn permissions(&self, r: bool, w: bool, x: bool, xu: bool, u: bool) -> u64 {
        let exec = bits::when(x, self.masks.x_mask) | bits::when(!x, self.masks.nx_mask);
        let user = bits::when(u && self.format == Format::Legacy, 4);
        bits::when(r, 1) | bits::when(w, 2) | exec | bits::when(xu, self.masks.xu_mask) | user
    }
}

/// Attributes of a leaf for [`Layout::leaf`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of `Decoded`, described there")]
pub struct Leaf {
    pub pfn: u64,
    pub r: bool,
    pub w: bool,
    pub x: bool,
    pub xu: bool,
    pub u: bool,
    pub accessed: bool,
    pub dirty: bool,
    pub host_writable: bool,
    pub mmu_writable: bool,
    pub large: bool,
    pub ad_type: AdType,
    pub memtype: u8,
    pub ignore_pat: bool,
    pub suppress_ve: bool,
    pub encrypted: bool,
}
