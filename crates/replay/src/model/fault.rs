//! Faults, from exit to entry.

use super::{EntryId, EventIx, FaultId, VmId};

/// What a fault was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Access {
    /// Read.
    pub read: bool,
    /// Write.
    pub write: bool,
    /// Instruction fetch.
    pub fetch: bool,
    /// User mode, where the encoding says it.
    pub user: Option<bool>,
    /// An entry was present (a permission fault), where the encoding says it.
    pub present: Option<bool>,
    /// A reserved bit was set (MMIO SPTE of the legacy format).
    pub reserved: bool,
    /// The access was to a guest page-table page rather than to the final address.
    pub guest_table: bool,
    /// The raw error code could be read in more than one way.
    pub ambiguous: bool,
}

impl Access {
    /// `read`, `write`, `fetch`, or `unknown`.
    pub const fn name(self) -> &'static str {
        if self.fetch {
            "fetch"
        } else if self.write {
            "write"
        } else if self.read {
            "read"
        } else {
            "unknown"
        }
    }
}

/// How a fault ended (no event says; inferred from what happened between exit and entry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum Outcome {
    /// An entry was installed or changed.
    Fixed,
    /// Fixed by the lockless path.
    FixedFast,
    /// The entry already allowed the access: another vCPU may have been faster, or the CPU does not see what the entry holds.
    Spurious,
    /// Nothing was done; the guest tries again.
    Retry,
    /// An asynchronous page fault was queued.
    Async,
    /// The instruction was emulated (MMIO, or a write to a protected page).
    Emulated,
    /// An MMIO SPTE was installed, then emulated.
    MmioInstalled,
    /// An MMIO SPTE was hit and the access emulated.
    MmioHit,
    /// The guest's own tables did not allow it: reflected to the guest.
    Guest,
    /// KVM_RUN returned an error.
    Error,
    /// KVM_RUN returned KVM_EXIT_MEMORY_FAULT.
    MemoryFault,
    /// KVM_RUN returned KVM_EXIT_INTERNAL_ERROR.
    InternalError,
    /// The trace ends, or events were lost, before the fault does.
    Unfinished,
    /// The trace has no event of installs (kernels before 5.3, or a recording that left them out): a fault that was fixed looks the same
    /// as one for which nothing was done.
    Untold,
}

impl Outcome {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::FixedFast => "fixed-fast",
            Self::Spurious => "spurious",
            Self::Retry => "retry",
            Self::Async => "async",
            Self::Emulated => "emulated",
            Self::MmioInstalled => "mmio-installed",
            Self::MmioHit => "mmio-hit",
            Self::Guest => "guest-fault",
            Self::Error => "error",
            Self::MemoryFault => "memory-fault",
            Self::InternalError => "internal-error",
            Self::Unfinished => "unfinished",
            Self::Untold => "untold",
        }
    }
}

/// One fault, from exit to entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its id.
    pub id: FaultId,
    /// VM.
    pub vm: VmId,
    /// vCPU number, where any event of the thread names it.
    pub vcpu: Option<u32>,
    /// Thread.
    pub tid: u32,
    /// When the fault was noticed (`kvm_page_fault`, or the MMIO event where there is none).
    pub ts: u64,
    /// The `kvm_exit` before it.
    pub exit_ts: Option<u64>,
    /// The next `kvm_entry` (or return to user space).
    pub end_ts: Option<u64>,
    /// Guest physical address, where known.
    pub gpa: Option<u64>,
    /// Guest virtual address, where known (shadow paging).
    pub gva: Option<u64>,
    /// Guest frame.
    pub gfn: Option<u64>,
    /// Address space, where an event names it.
    pub as_id: u8,
    /// Access.
    pub access: Access,
    /// Raw error code of `kvm_page_fault`.
    pub error_code: Option<u64>,
    /// Outcome.
    pub outcome: Outcome,
    /// Entry that was installed or changed, where one was.
    pub entry: Option<EntryId>,
    /// Level that was wanted (`kvm_mmu_spte_requested`).
    pub level_wanted: Option<u8>,
    /// Level that was installed.
    pub level: Option<u8>,
    /// Host frame that now is behind the guest frame, where one was mapped.
    pub pfn: Option<u64>,
    /// Faults at the same address by the same vCPU directly before this one.
    pub retries: u32,
    /// RIP of the guest.
    pub rip: Option<u64>,
    /// An MMIO access.
    pub mmio: bool,
    /// errno of the return to user space, where it ended so.
    pub errno: Option<i32>,
    /// `kvm_page_fault` (or the first event of the fault).
    pub event: EventIx,
    /// Last event of the fault.
    pub last_event: EventIx,
}

impl Fault {
    /// From the exit (or first event) to the entry.
    pub fn duration(&self) -> Option<u64> {
        self.end_ts.map(|e| e.saturating_sub(self.exit_ts.unwrap_or(self.ts)))
    }
}
