//! What KVM's own memory held of a VM at one moment, and its form in a capture.
//!
//! The collector reads the kernel's memory and writes a row of [`Piece`]s with a [`Packer`]; the reader of captures takes them out again with
//! [`unpack`], and the replay takes each [`Table`] in at its moment. Nothing here touches a kernel, and nothing knows what an entry means.

mod codec;

use serde::{Deserialize, Serialize};

pub use codec::{Damaged, MAGIC, MOST, Packer, of_bytes, to_bytes, unpack};

/// One part of a snapshot. A snapshot is [`Piece::Begin`], for each VM a [`Piece::Vm`] and its [`Piece::Table`]s, and [`Piece::End`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// A snapshot begins.
    Begin {
        /// Time of the recording's clock in nanoseconds.
        at: u64,
        /// For the one that a recording begins with, when all events of the recording were on, in nanoseconds of its clock: before that the
        /// recorder switched them on one after another. `None` for later ones.
        all_on: Option<u64>,
    },
    /// A VM, as KVM's memory describes it. It comes before its tables.
    Vm(Vm),
    /// A page table of the VM that came last.
    Table(Box<Table>),
    /// Everything of the VM that came last was read.
    VmEnd {
        /// Time in nanoseconds.
        at: u64,
        /// Whether every table that its roots lead to was read. `false` where a limit was reached or memory could not be read.
        complete: bool,
        /// What was left out and why, in words.
        notes: Vec<String>,
    },
    /// The snapshot ends.
    End {
        /// Time in nanoseconds.
        at: u64,
        /// What could not be read of the host, in words.
        notes: Vec<String>,
    },
    /// All memory slots of a VM: where [`Vm::slots`] has not room for them, or because the VMM changed them.
    Slots(SlotList),
    /// The recorder stopped recording some of its events: they were too many for this host.
    Stopped {
        /// Time in nanoseconds.
        at: u64,
        /// The events, by their names without the system.
        events: Vec<String>,
    },
}

/// The memory slots of a VM, or a part of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotList {
    /// When they were read, in nanoseconds.
    pub at: u64,
    /// The process that made the VM; 0 where the kernel does not say.
    pub pid: u32,
    /// Whether the next piece has more of them.
    pub more: bool,
    /// The slots, at most [`SlotList::MOST`].
    pub slots: Vec<Slot>,
}

impl SlotList {
    /// The most slots of one piece, so that a record has room for it.
    pub const MOST: usize = 1000;

    /// The pieces that carry these slots.
    pub fn pieces(at: u64, pid: u32, slots: &[Slot]) -> Vec<Piece> {
        let parts = slots.len().div_ceil(Self::MOST).max(1);
        let part = |i: usize| {
            let slots = slots.iter().skip(i * Self::MOST).take(Self::MOST).copied().collect();
            Piece::Slots(Self { at, pid, more: i + 1 < parts, slots })
        };
        (0..parts).map(part).collect()
    }
}

/// A VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// When it was read, in nanoseconds.
    pub at: u64,
    /// The process that made it (`kvm.userspace_pid`); 0 where the kernel does not say.
    pub pid: u32,
    /// The name of that process.
    pub name: String,
    /// Its vCPUs.
    pub vcpus: Vec<Vcpu>,
    /// Its memory slots, by address space and first frame. Where there are more than [`SlotList::MOST`], none: they follow as [`Piece::Slots`].
    pub slots: Vec<Slot>,
}

/// A vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vcpu {
    /// Its number (`kvm_vcpu.vcpu_id`).
    pub number: u32,
    /// The thread that ran it last; `None` if none did yet.
    pub tid: Option<u32>,
}

/// A memory slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Address space: 0, or 1 for SMM.
    pub as_id: u8,
    /// Number of the slot in its address space.
    pub id: u16,
    /// First guest frame.
    pub gfn: u64,
    /// Number of guest frames.
    pub pages: u64,
    /// Host-virtual address of the first frame.
    pub hva: u64,
    /// `KVM_MEM_*`: bit 0 dirty logging, bit 1 read-only, bit 2 guest_memfd.
    pub flags: u32,
}

/// The MMU that a table belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mmu {
    /// The TDP MMU.
    Tdp,
    /// Shadow paging, or the legacy direct MMU.
    Shadow,
}

/// A page table, with all of its entries at the moment of reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The time before reading began, in nanoseconds.
    pub from: u64,
    /// The time after reading, in nanoseconds.
    pub to: u64,
    /// Host-physical address of the page.
    pub page: u64,
    /// The MMU that it belongs to.
    pub mmu: Mmu,
    /// Address space: 0, or 1 for SMM.
    pub as_id: u8,
    /// Level, 1 to 5.
    pub level: u8,
    /// First guest frame; of a shadow page of a guest's table, the frame of that table.
    pub gfn: u64,
    /// Whether entries stand for consecutive guest frames (not for the entries of a guest's table).
    pub direct: bool,
    /// Whether it is the root of a tree.
    pub root: bool,
    /// Whether its root is marked invalid: it is being torn down.
    pub invalid: bool,
    /// Whether it belongs to the mirror of a TDX guest's tables.
    pub mirror: bool,
    /// Whether it maps a nested guest.
    pub guest_mode: bool,
    /// The table that points to it, as host-physical page and index; `None` for roots and shadow pages.
    pub parent: Option<(u64, u16)>,
    /// The 512 entries.
    #[serde(with = "codec::deltas")]
    pub entries: Vec<u64>,
    /// The guest frame of each entry of a shadow page that is not direct; empty otherwise.
    #[serde(with = "codec::deltas")]
    pub gfns: Vec<u64>,
}
