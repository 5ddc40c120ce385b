//! VMs and their vCPUs, and what the trace tells of its own course: phases and losses.

use super::{EventIx, VmId};

/// Which MMU a VM's events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum MmuKind {
    /// Nothing tells yet.
    #[default]
    Unknown,
    /// TDP MMU with change events (5.11 and later).
    Tdp,
    /// Two-dimensional paging without change events (TDP MMU of 5.10, or the legacy MMU in direct mode).
    Direct,
    /// Shadow paging.
    Shadow,
    /// TDP MMU for the guest, shadow pages for its nested guests.
    Mixed,
}

impl MmuKind {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Tdp => "TDP MMU",
            Self::Direct => "direct MMU without change events",
            Self::Shadow => "shadow MMU",
            Self::Mixed => "TDP MMU and shadow pages",
        }
    }
}

/// One vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vcpu {
    /// Its thread.
    pub tid: u32,
    /// KVM's number for it, where an event told.
    pub vcpu_id: Option<u32>,
    /// Name of the thread.
    pub comm: String,
}

/// One VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// Its id.
    pub id: VmId,
    /// Process id of its VMM, where known.
    pub pid: Option<u32>,
    /// Name of its VMM.
    pub comm: String,
    /// Its vCPUs.
    pub vcpus: Vec<Vcpu>,
    /// Address spaces that events named.
    pub as_ids: Vec<u8>,
    /// Its MMU.
    pub kind: MmuKind,
    /// First event.
    pub start: u64,
    /// Last event.
    pub end: u64,
    /// How the grouping was decided, in words.
    pub provenance: String,
}

/// A stretch between two marker texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// What was written to trace_marker.
    pub text: String,
    /// When.
    pub start: u64,
    /// Next marker, or the end of the trace.
    pub end: u64,
    /// The marker's event.
    pub event: EventIx,
}

/// Events lost on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostSpan {
    /// CPU; `None` where the format does not say.
    pub cpu: Option<u16>,
    /// Last event of that CPU before.
    pub start: u64,
    /// The moment the loss was noticed.
    pub end: u64,
    /// How many, where known.
    pub count: Option<u64>,
    /// The record that told.
    pub event: EventIx,
}
