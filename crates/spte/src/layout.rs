//! A resolved layout and the decoding itself: plain masks and rules.
//!
//! The main type is [`Layout`]; a [`crate::LayoutSpec`] resolves to it, and every crate that reads SPTE values calls [`Layout::decode`].
//! Nothing here allocates or fails: every 64-bit value has a meaning at every level. The code has few branches on purpose.

use crate::{AdType, Decoded, Format, Masks, Mode, State, bits, mmio};

/// Name of a layout, such as `E10/ept`, held in place so that a [`Layout`] stays plain data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    text: [u8; Name::CAPACITY],
    len: u8,
}

impl Name {
    /// The longest name in bytes; a longer one is cut at a character boundary.
    pub const CAPACITY: usize = 38;

    /// Stores `text`.
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

/// How the kernel decides that an entry maps or points to something (`is_shadow_present_pte`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresentRule {
    /// Every value that is not zero, not MMIO and not removed is present (up to 5.12).
    NotSpecial,
    /// A value is present if any of these bits is set: since 5.13 the MMU-present bit.
    AnyOf(u64),
}

/// How Accessed and Dirty are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdRule {
    /// By the hardware bits where the entry's A/D type allows them, else by "not access-tracked" and "writable" (up to 6.12).
    ByType,
    /// By the bits themselves: software maintains them where hardware does not (since 6.13).
    Bits,
}

/// When a write-protected leaf may be made writable without the MMU lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixRule {
    /// If host-writable and MMU-writable are both set (up to 5.16).
    HostAndMmu,
    /// If MMU-writable is set (since 5.17, where it implies host-writable).
    Mmu,
    /// Never, because KVM does not own these tables.
    Never,
}

/// What the bits of an SPTE mean on one host. It is plain data without heap; [`LayoutSpec`](crate::LayoutSpec) explains how it is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    /// The name: `E10/ept`, or the name in a user's file.
    pub name: Name,
    /// The paging mode.
    pub mode: Mode,
    /// The entry format of the hardware.
    pub format: Format,
    /// The level of the root: 3 for PAE, else 4 or 5.
    pub root_level: u8,
    /// The kernel's mask variables.
    pub masks: Masks,
    /// The rule by which an entry is shadow-present.
    pub present: PresentRule,
    /// The value of a zapped or never filled entry (`SHADOW_NONPRESENT_VALUE`).
    pub zapped: u64,
    /// `REMOVED_SPTE`, since 6.11 `FROZEN_SPTE`; `None` where the kernel has none.
    pub removed: Option<u64>,
    /// The mask of the page-size bit.
    pub large: u64,
    /// The A/D type field.
    pub ad_type: bits::Field,
    /// The number of bits by which Read and Execute are shifted up while an entry is access-tracked.
    pub saved_shift: u8,
    /// The memory type field (EPT).
    pub memtype: bits::Field,
    /// The mask of the ignore-PAT bit (EPT).
    pub ignore_pat: u64,
    /// The mask of the suppress-#VE bit (EPT since 6.10), else 0.
    pub suppress_ve: u64,
    /// The mask under which `is_mmio_spte` compares: `raw & mmio_test_mask == mmio_test_value`.
    pub mmio_test_mask: u64,
    /// The value that `is_mmio_spte` compares with; see [`Layout::mmio_test_mask`].
    pub mmio_test_value: u64,
    /// The ACC bits that the kernel reads back from an MMIO SPTE.
    pub mmio_access_read: u64,
    /// Where the memslot generation is stored and how it is read back.
    pub generation: mmio::Generation,
    /// How an MMIO SPTE stores its guest frame number.
    pub mmio_gfn: mmio::GfnRule,
    /// The masks of reserved bits: `reserved[page size bit][level]`.
    pub reserved: [[u64; 6]; 2],
    /// Bit n: a present entry whose low six bits are n has a bad memory type or permission combination (EPT).
    pub bad_mt_xwr: u64,
    /// The rule by which Accessed and Dirty are read.
    pub ad_rule: AdRule,
    /// The rule by which the fast path may fix a write fault.
    pub fix_rule: FixRule,
    /// Root-level entries with P set and the present bit clear map the host kernel (PVM).
    pub host_entries_at_root: bool,
    /// The field that holds the page's ownership state under pKVM; empty in other modes.
    pub page_state: bits::Field,
}

impl Layout {
    /// The name of the layout.
    pub fn id(&self) -> &str {
        self.name.as_str()
    }

    /// The kernel's `is_mmio_spte`.
    #[inline]
    pub fn is_mmio(&self, raw: u64) -> bool {
        self.masks.enable_mmio_caching & (raw & self.mmio_test_mask == self.mmio_test_value)
    }

    /// The kernel's `is_removed_spte`, since 6.11 `is_frozen_spte`.
    #[inline]
    pub fn is_removed(&self, raw: u64) -> bool {
        self.removed == Some(raw)
    }

    /// The kernel's `is_shadow_present_pte`.
    #[inline]
    pub fn is_shadow_present(&self, raw: u64) -> bool {
        match self.present {
            PresentRule::AnyOf(bits) => raw & bits != 0,
            PresentRule::NotSpecial => (raw != 0) & !self.is_mmio(raw) & !self.is_removed(raw),
        }
    }

    /// Whether a value passes the MMIO test and carries MMU-present: two answers that exclude each other.
    pub fn is_mmio_and_present(&self, raw: u64) -> bool {
        self.present != PresentRule::NotSpecial && self.is_shadow_present(raw) && self.is_mmio(raw)
    }

    /// The state of an entry with this value at this level (1 = 4 KiB; anything below counts as 1).
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

    /// The A/D type of a shadow-present value.
    #[inline]
    pub fn ad_type(&self, raw: u64) -> AdType {
        match self.ad_type.get(raw) {
            0 => AdType::Enabled,
            1 => AdType::Disabled,
            2 => AdType::WrprotOnly,
            _ => AdType::Reserved,
        }
    }

    /// The bits that hold the saved permissions of an access-tracked entry.
    pub fn saved_mask(&self) -> u64 {
        (self.masks.acc_track_mask & !bits::bit(1)).checked_shl(u32::from(self.saved_shift)).unwrap_or(0)
    }

    /// The kernel's `restore_acc_track_spte`: the value with the saved Read and Execute back in place. Write is never saved.
    #[inline]
    pub fn restore(&self, raw: u64) -> u64 {
        let saved = self.saved_mask();
        (raw & !self.masks.acc_track_mask & !saved)
            | (raw & saved).checked_shr(u32::from(self.saved_shift)).unwrap_or(0)
    }

    /// The kernel's `mark_spte_for_access_track`: the value with Read and Execute saved and all permissions cleared.
    pub fn track(&self, raw: u64) -> u64 {
        let keep = (raw & self.masks.acc_track_mask & !bits::bit(1))
            .checked_shl(u32::from(self.saved_shift))
            .unwrap_or(0);
        let software_accessed = if self.ad_rule == AdRule::Bits { self.masks.accessed_mask } else { 0 };
        (raw & !self.masks.acc_track_mask & !software_accessed) | keep
    }

    /// The reserved bits that a shadow-present value has set (`is_rsvd_spte` without the rule about memory types).
    #[inline]
    pub fn reserved_bits(&self, raw: u64, level: u8) -> u64 {
        raw & self.reserved_mask(raw, level)
    }

    /// The reserved mask that applies to this value: kernels since 5.13 print it as `rsvd bits`.
    #[inline]
    pub fn reserved_mask(&self, raw: u64, level: u8) -> u64 {
        // The page-size bit is bit 7 in both formats, because hardware fixes it.
        self.reserved[(raw >> 7 & 1) as usize][usize::from(level.clamp(1, 5))]
    }

    /// Whether the CPU would refuse a decoded entry. The check of kernels up to 5.19 counts NX as reserved under NPT, but the CPU does not.
    #[inline]
    pub fn refuses(&self, d: &Decoded) -> bool {
        let harmless = if self.mode == Mode::Npt { self.masks.nx_mask } else { 0 };
        (d.reserved_bits & !harmless != 0) | d.bad_mt_xwr
    }

    /// Whether EPT hardware refuses this combination of memory type and permissions.
    #[inline]
    pub fn bad_mt_xwr(&self, raw: u64) -> bool {
        // Since 7.2, user-execute counts as execute; before that, the mask is 0.
        let exec = if raw & self.masks.xu_mask != 0 { 4 } else { 0 };
        self.bad_mt_xwr >> ((raw | exec) & 0x3f) & 1 != 0
    }

    /// The kernel's `is_executable_pte`.
    #[inline]
    pub fn is_executable(&self, raw: u64) -> bool {
        raw & (self.masks.x_mask | self.masks.nx_mask) == self.masks.x_mask
    }

    /// Whether the fast path could make a leaf writable without the MMU lock.
    #[inline]
    pub fn is_fixable(&self, raw: u64) -> bool {
        let mmu = raw & self.masks.mmu_writable_mask != 0;
        match self.fix_rule {
            FixRule::HostAndMmu => mmu & (raw & self.masks.host_writable_mask != 0),
            FixRule::Mmu => mmu,
            FixRule::Never => false,
        }
    }

    /// Decodes `raw` as an entry of `level`. It never panics and never allocates.
    ///
    /// Attributes are read only where the kernel reads them: only the state from an entry that is not shadow-present, and host-writable,
    /// MMU-writable, Accessed and Dirty only from leaves.
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

    /// Decodes leaves and table entries in the same straight code, because a branch between the two would often be mispredicted.
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

    /// Makes the value of a leaf with these attributes. It is the inverse of [`Layout::decode`]; fields that the layout lacks are ignored.
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

    /// Makes the value of an entry that points to the table at `pfn`, as the kernel's `make_nonleaf_spte` does.
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

    /// Makes the value of an MMIO SPTE as the kernel's `make_mmio_spte` does, with the kernel's generation bugs.
    pub fn mmio(&self, gfn: u64, access: u8, generation: u32) -> u64 {
        self.masks.vm_mmio_value
            | (u64::from(access) & self.masks.mmio_access_mask)
            | self.generation.put(generation)
            | self.mmio_gfn.put(gfn)
    }

    fn present_bits(&self) -> u64 {
        match self.present {
            // Where several bits count as present (pKVM: any permission), none of them has to be set by itself.
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

/// The attributes of a leaf for [`Layout::leaf`].
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
