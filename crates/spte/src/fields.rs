//! The fields of an entry and which bits each has. Diagrams and field-by-field explanations use it; see [`Layout::bit_runs`].

use alloc::vec::Vec;

use crate::{Decoded, Format, GfnRule, Layout, MaskName, PresentRule, State, bits};

/// The kind of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "FieldKind::name says each")]
pub enum FieldKind {
    Unused,
    Address,
    Read,
    Write,
    Execute,
    UserExecute,
    NoExecute,
    User,
    Accessed,
    Dirty,
    PageSize,
    MemoryType,
    IgnorePat,
    HostWritable,
    MmuWritable,
    MmuPresent,
    AdType,
    SavedRead,
    SavedExecute,
    SavedUserExecute,
    SuppressVe,
    Encryption,
    PageState,
    MmioMark,
    Generation,
    Access,
    Gfn,
    L1tf,
    DisplacedGfn,
    Zapped,
    Removed,
}

impl FieldKind {
    /// The name of the field in words.
    pub const fn name(self) -> &'static str {
        match self {
            FieldKind::Unused => "unused",
            FieldKind::Address => "page frame",
            FieldKind::Read => "readable",
            FieldKind::Write => "writable",
            FieldKind::Execute => "executable",
            FieldKind::UserExecute => "user-executable",
            FieldKind::NoExecute => "no-execute",
            FieldKind::User => "user",
            FieldKind::Accessed => "accessed",
            FieldKind::Dirty => "dirty",
            FieldKind::PageSize => "page size",
            FieldKind::MemoryType => "memory type",
            FieldKind::IgnorePat => "ignore PAT",
            FieldKind::HostWritable => "host-writable",
            FieldKind::MmuWritable => "MMU-writable",
            FieldKind::MmuPresent => "MMU-present",
            FieldKind::AdType => "A/D type",
            FieldKind::SavedRead => "saved read",
            FieldKind::SavedExecute => "saved execute",
            FieldKind::SavedUserExecute => "saved user-execute",
            FieldKind::SuppressVe => "suppress #VE",
            FieldKind::Encryption => "encryption (C-bit)",
            FieldKind::PageState => "page state",
            FieldKind::MmioMark => "MMIO mark",
            FieldKind::Generation => "generation",
            FieldKind::Access => "access",
            FieldKind::Gfn => "guest frame",
            FieldKind::L1tf => "L1TF bits",
            FieldKind::DisplacedGfn => "displaced guest frame",
            FieldKind::Zapped => "zapped mark",
            FieldKind::Removed => "removed mark",
        }
    }

    /// A short name that fits into a diagram.
    pub const fn label(self) -> &'static str {
        match self {
            FieldKind::Unused => "",
            FieldKind::Address => "pfn",
            FieldKind::Read => "R",
            FieldKind::Write => "W",
            FieldKind::Execute => "X",
            FieldKind::UserExecute => "XU",
            FieldKind::NoExecute => "NX",
            FieldKind::User => "U",
            FieldKind::Accessed => "A",
            FieldKind::Dirty => "D",
            FieldKind::PageSize => "PS",
            FieldKind::MemoryType => "MT",
            FieldKind::IgnorePat => "IP",
            FieldKind::HostWritable => "HW",
            FieldKind::MmuWritable => "MW",
            FieldKind::MmuPresent => "MP",
            FieldKind::AdType => "AD",
            FieldKind::SavedRead => "sR",
            FieldKind::SavedExecute => "sX",
            FieldKind::SavedUserExecute => "sXU",
            FieldKind::SuppressVe => "VE",
            FieldKind::Encryption => "C",
            FieldKind::PageState => "own",
            FieldKind::MmioMark => "mark",
            FieldKind::Generation => "gen",
            FieldKind::Access => "acc",
            FieldKind::Gfn => "gfn",
            FieldKind::L1tf => "L1TF",
            FieldKind::DisplacedGfn => "gfn+",
            FieldKind::Zapped => "zap",
            FieldKind::Removed => "rem",
        }
    }

    /// The kernel variable that holds the mask, where there is one.
    pub const fn mask(self) -> Option<MaskName> {
        Some(match self {
            FieldKind::Address => MaskName::BaseAddr,
            FieldKind::Execute => MaskName::X,
            FieldKind::UserExecute => MaskName::Xu,
            FieldKind::NoExecute => MaskName::Nx,
            FieldKind::User => MaskName::User,
            FieldKind::Accessed => MaskName::Accessed,
            FieldKind::Dirty => MaskName::Dirty,
            FieldKind::HostWritable => MaskName::HostWritable,
            FieldKind::MmuWritable => MaskName::MmuWritable,
            FieldKind::Encryption => MaskName::MeValue,
            FieldKind::MmioMark => MaskName::MmioValue,
            FieldKind::Access => MaskName::MmioAccess,
            FieldKind::L1tf => MaskName::NonpresentOrRsvd,
            FieldKind::Gfn => MaskName::NonpresentOrRsvdLowerGfn,
            _ => return None,
        })
    }

    /// The kernel's constant or variable for the field.
    pub const fn kernel_name(self) -> &'static str {
        match self.mask() {
            Some(MaskName::BaseAddr) => "SPTE_BASE_ADDR_MASK",
            Some(mask) => mask.name(),
            None => match self {
                FieldKind::MemoryType => "VMX_EPT_MT_MASK",
                FieldKind::IgnorePat => "VMX_EPT_IPAT_BIT",
                FieldKind::MmuPresent => "SPTE_MMU_PRESENT_MASK",
                FieldKind::AdType => "SPTE_TDP_AD_MASK",
                FieldKind::SavedRead | FieldKind::SavedExecute | FieldKind::SavedUserExecute => {
                    "SHADOW_ACC_TRACK_SAVED_MASK"
                }
                FieldKind::SuppressVe => "VMX_EPT_SUPPRESS_VE_BIT",
                FieldKind::PageSize => "PT_PAGE_SIZE_MASK",
                FieldKind::Write => "PT_WRITABLE_MASK",
                FieldKind::Generation => "MMIO_SPTE_GEN_MASK",
                FieldKind::Zapped => "SHADOW_NONPRESENT_VALUE",
                FieldKind::Removed => "FROZEN_SPTE",
                _ => "",
            },
        }
    }
}

/// A run of bits of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRun {
    /// The highest bit, 0 to 63.
    pub high: u8,
    /// The lowest bit, 0 to 63.
    pub low: u8,
    /// The field that these bits are.
    pub kind: FieldKind,
}

impl BitRun {
    /// The bits as a mask at their place.
    pub const fn mask(&self) -> u64 {
        bits::range(self.high as u32, self.low as u32)
    }

    /// The bits of `raw`, shifted down to bit 0.
    pub const fn get(&self, raw: u64) -> u64 {
        (raw & self.mask()) >> self.low
    }
}

impl Layout {
    /// The runs of an entry in this state, from bit 63 down to bit 0, without a gap.
    pub fn bit_runs(&self, state: State, level: u8) -> Vec<BitRun> {
        let mut kinds = [FieldKind::Unused; 64];
        let mut paint = |mask: u64, kind: FieldKind| {
            for (bit, slot) in kinds.iter_mut().enumerate() {
                if mask >> bit & 1 != 0 {
                    *slot = kind;
                }
            }
        };
        self.paint(state, level, &mut paint);
        let mut runs: Vec<BitRun> = Vec::with_capacity(24);
        for bit in (0..64u8).rev() {
            let kind = kinds[usize::from(bit)];
            match runs.last_mut() {
                Some(run) if run.kind == kind => run.low = bit,
                _ => runs.push(BitRun { high: bit, low: bit, kind }),
            }
        }
        runs
    }

    /// The bits that are set in a decoded value and have no meaning in an entry of its state.
    pub(crate) fn unknown_bits(&self, d: &Decoded) -> u64 {
        let mut known = 0;
        self.paint(d.state, d.level, &mut |mask, _| known |= mask);
        d.raw & !known
    }

    /// Calls `paint` with the bits of each field that an entry in this state has. Where two fields have a bit in common, it is the later one's.
    fn paint(&self, state: State, level: u8, paint: &mut impl FnMut(u64, FieldKind)) {
        match state {
            State::Present | State::Table => self.paint_present(paint, state == State::Present, level),
            State::Mmio => self.paint_mmio(paint),
            State::Removed => paint(self.removed.unwrap_or(0), FieldKind::Removed),
            State::Nonpresent => paint(self.zapped, FieldKind::Zapped),
        }
    }

    fn paint_present(&self, paint: &mut impl FnMut(u64, FieldKind), leaf: bool, level: u8) {
        let m = &self.masks;
        paint(m.base_addr_mask, FieldKind::Address);
        paint(1, FieldKind::Read);
        paint(2, FieldKind::Write);
        if self.format == Format::Legacy {
            paint(4, FieldKind::User);
        }
        paint(m.x_mask, FieldKind::Execute);
        paint(m.xu_mask, FieldKind::UserExecute);
        paint(m.nx_mask, FieldKind::NoExecute);
        paint(m.accessed_mask, FieldKind::Accessed);
        paint(m.me_value, FieldKind::Encryption);
        paint(self.suppress_ve, FieldKind::SuppressVe);
        paint(self.ad_type.bits(), FieldKind::AdType);
        paint(self.page_state.bits(), FieldKind::PageState);
        if level > 1 {
            paint(self.large, FieldKind::PageSize);
        }
        if leaf {
            paint(m.dirty_mask, FieldKind::Dirty);
            paint(self.memtype.bits(), FieldKind::MemoryType);
            paint(self.ignore_pat, FieldKind::IgnorePat);
            let shift = u32::from(self.saved_shift);
            let saved = |mask: u64| (m.acc_track_mask & mask & !2).checked_shl(shift).unwrap_or(0);
            paint(saved(1), FieldKind::SavedRead);
            paint(saved(m.x_mask), FieldKind::SavedExecute);
            paint(saved(m.xu_mask), FieldKind::SavedUserExecute);
            paint(m.host_writable_mask, FieldKind::HostWritable);
            paint(m.mmu_writable_mask, FieldKind::MmuWritable);
        }
        if let PresentRule::AnyOf(mask) = self.present
            && mask.is_power_of_two()
        {
            paint(mask, FieldKind::MmuPresent);
        }
    }

    fn paint_mmio(&self, paint: &mut impl FnMut(u64, FieldKind)) {
        match self.mmio_gfn {
            GfnRule::Plain { .. } => paint(bits::range(51, 12), FieldKind::Gfn),
            GfnRule::Split { split, lower } => {
                paint(lower, FieldKind::Gfn);
                paint(split, FieldKind::L1tf);
                paint(split << GfnRule::SHIFT, FieldKind::DisplacedGfn);
            }
        }
        paint(self.generation.bits(), FieldKind::Generation);
        paint(self.mmio_access_read & 7, FieldKind::Access);
        paint(self.mmio_test_mask, FieldKind::MmioMark);
        // The MMIO value has marks that the MMIO test does not compare (P and bit 51 up to 5.12).
        paint(self.masks.vm_mmio_value & !self.mmio_access_read, FieldKind::MmioMark);
    }
}
