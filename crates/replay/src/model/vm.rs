//! VMs and their vCPUs, and what the trace shows of its own course: phases and losses.

use super::{EventIx, VmId};

/// Which MMU a VM's events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum MmuKind {
    /// No event shows it yet.
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
    /// KVM's number for it, where an event names it.
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
    /// That, when and by whom it was torn down, where the trace shows it.
    pub ended: Option<VmEnd>,
}

impl Vm {
    /// How many vCPUs it has, as far as events show. A vCPU may have run on several threads.
    pub fn vcpu_count(&self) -> usize {
        let mut ids: Vec<Option<u32>> = self.vcpus.iter().map(|v| v.vcpu_id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    }
}

/// The end of a VM: all of its page tables were zapped in one go, from the roots down, and nothing was built after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmEnd {
    /// First and last time of the teardown.
    pub start: u64,
    /// The last zap.
    pub end: u64,
    /// Its first event.
    pub event: EventIx,
    /// Its last event.
    pub last_event: EventIx,
    /// The thread that did it: the last to let go of the VM, by exiting or by closing it.
    pub tid: u32,
    /// Name of that thread.
    pub comm: String,
}

impl VmEnd {
    /// The kernel's own thread that recovers huge pages from the NX mitigation: it runs as long as the VM does, and holds it as others do.
    pub fn by_nx_recovery(&self) -> bool {
        self.comm.starts_with(NX_RECOVERY)
    }

    /// By whom, in words: `qemu-174, the last thread to let go of it`.
    pub fn by(&self) -> String {
        let who = if self.comm.is_empty() {
            format!("task {}", self.tid)
        } else {
            format!("{}-{}", self.comm, self.tid)
        };
        if self.by_nx_recovery() {
            // That it recovers huge pages is not what it does here.
            format!("{who}, the VM's own kernel thread, which happened to be the last to let go of it")
        } else {
            format!("{who}, the last thread to let go of it")
        }
    }
}

/// How names of the threads begin that recover huge pages from the NX mitigation (`kvm-nx-lpage-recovery-PID`, cut off at 15 letters).
pub(crate) const NX_RECOVERY: &str = "kvm-nx-";

/// A stretch between two marker texts of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// What was written to trace_marker.
    pub text: String,
    /// When.
    pub start: u64,
    /// Next marker of the same writer, or the end of the trace.
    pub end: u64,
    /// The marker's event.
    pub event: EventIx,
    /// The VM whose process wrote the marker; `None` where another process did: then it is about all.
    pub vm: Option<VmId>,
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
    /// The record that shows it.
    pub event: EventIx,
}
