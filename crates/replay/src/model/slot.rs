//! Memory slots over time, and what they say of a guest frame.

use super::VmId;

/// A memory slot of a VM for as long as it stayed what it was: one whose flags change ends, and another begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemSlot {
    /// Its VM.
    pub vm: VmId,
    /// Address space: 0, or 1 for SMM.
    pub as_id: u8,
    /// Number of the slot in its address space.
    pub id: u16,
    /// First guest frame.
    pub gfn: u64,
    /// Number of guest frames; at least one.
    pub pages: u64,
    /// Host-virtual address of the first frame; `None` where the recording leaves it out.
    pub hva: Option<u64>,
    /// `KVM_MEM_*`: bit 0 dirty logging, bit 1 read-only, bit 2 guest_memfd.
    pub flags: u32,
    /// When it was first known to be there, in nanoseconds on the trace's clock.
    pub start: u64,
    /// When it was first known to be there no more; `None` if it never was.
    pub end: Option<u64>,
    /// How it is known.
    pub known: SlotKnown,
}

impl MemSlot {
    /// One past the last guest frame.
    pub const fn end_gfn(&self) -> u64 {
        self.gfn.saturating_add(self.pages)
    }

    /// Whether it is there at a time.
    pub fn at(&self, ts: u64) -> bool {
        self.start <= ts && self.end.is_none_or(|e| ts < e)
    }

    /// Whether writes to it are logged (`KVM_MEM_LOG_DIRTY_PAGES`).
    pub const fn dirty_logging(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Whether writes of the guest leave for the VMM (`KVM_MEM_READONLY`).
    pub const fn read_only(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Whether private memory of it comes from a guest_memfd (`KVM_MEM_GUEST_MEMFD`).
    pub const fn guest_memfd(&self) -> bool {
        self.flags & 4 != 0
    }
}

/// How a memory slot is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKnown {
    /// The recorder read it in KVM's own memory.
    Read,
    /// The VMM asked for it, and no later reading of KVM's memory shows that KVM made it.
    Requested,
}

impl SlotKnown {
    /// The word for it on every face.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Requested => "requested",
        }
    }
}

/// What the memory slots say of a guest frame at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotAt<'a> {
    /// It is a frame of this slot.
    In(&'a MemSlot),
    /// All slots are known, and it is in none of them: what the guest does there is MMIO.
    Outside,
    /// The slots of that time are not known.
    NotKnown,
}
