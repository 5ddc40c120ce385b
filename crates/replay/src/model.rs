//! The result of a replay: page-table entries over time, as plain data.
//!
//! Identifiers are small integers into the [`Timeline`](crate::Timeline) that made them. Times are absolute nanoseconds on the trace's
//! clock; event numbers index the trace's event store.

use std::borrow::Cow;

/// One VM of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct VmId(pub u16);
/// One page-table page during one life (a recycled page is a new table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u32);
/// One entry of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u32);
/// One fault record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultId(pub u32);
/// Index of an event in the trace.
pub type EventIx = u32;

/// State of an entry during a span: what the decoder says of its value, plus the one thing only a replay knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// No event has shown it yet. Never the same as not present.
    Unknown,
    /// Zapped or never filled.
    Nonpresent,
    /// A leaf that maps a page.
    Present,
    /// Points to a lower table.
    Table,
    /// MMIO SPTE.
    Mmio,
    /// REMOVED / FROZEN.
    Removed,
}

impl State {
    /// The word for it, as every face of the tool prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Nonpresent => "nonpresent",
            Self::Present => "present",
            Self::Table => "table",
            Self::Mmio => "mmio",
            Self::Removed => "removed",
        }
    }
}

/// How a span is known (`trace-abi` rules; see docs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Certainty {
    /// An event stated the value.
    Exact,
    /// The kernel re-read the value when it traced.
    Observed,
    /// Follows from another event (split children, a zapped parent).
    Implied,
    /// From a rule about this kernel.
    Assumed,
    /// Was known; a silent change is possible since.
    Stale,
}

impl Certainty {
    /// The word for it, as every face of the tool prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Observed => "observed",
            Self::Implied => "implied",
            Self::Assumed => "assumed",
            Self::Stale => "stale",
        }
    }
}

/// What one picture cell or one colour stands for: the states of the visual language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Shade {
    /// No event has shown it yet.
    Unknown,
    /// Zapped or never filled.
    Nonpresent,
    /// Present, writable.
    Writable,
    /// Present, read-only or write-protected.
    ReadOnly,
    /// Present, access-tracked.
    AccessTracked,
    /// MMIO.
    Mmio,
    /// Removed / frozen.
    Removed,
    /// Points to a lower table (tree and page views only).
    Table,
}

impl Shade {
    /// All shades, in the order of their numbers.
    pub const ALL: [Shade; 8] = [
        Shade::Unknown,
        Shade::Nonpresent,
        Shade::Writable,
        Shade::ReadOnly,
        Shade::AccessTracked,
        Shade::Mmio,
        Shade::Removed,
        Shade::Table,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Nonpresent => "nonpresent",
            Self::Writable => "present, writable",
            Self::ReadOnly => "present, read-only",
            Self::AccessTracked => "access-tracked",
            Self::Mmio => "mmio",
            Self::Removed => "removed",
            Self::Table => "table",
        }
    }

    /// The state it belongs to.
    pub const fn state(self) -> State {
        match self {
            Self::Unknown => State::Unknown,
            Self::Nonpresent => State::Nonpresent,
            Self::Writable | Self::ReadOnly | Self::AccessTracked => State::Present,
            Self::Mmio => State::Mmio,
            Self::Removed => State::Removed,
            Self::Table => State::Table,
        }
    }
}

/// Number of one span in its [`Timeline`](crate::Timeline) (the implied first span of an entry has none).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub u32);

/// A stretch of time in which one entry held one state and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its number; `None` for the span before the first event of an entry.
    pub id: Option<SpanId>,
    /// Whose.
    pub entry: EntryId,
    /// When it began.
    pub start: u64,
    /// When it ended; `None` while it lasts at the end of the trace.
    pub end: Option<u64>,
    /// State of the entry.
    pub state: State,
    /// The state's shade (present ones by permission).
    pub shade: Shade,
    /// Raw value; `None` where only the state is known (an unknown entry).
    pub spte: Option<u64>,
    /// How it is known.
    pub certainty: Certainty,
    /// Why, where the certainty is not `Exact`: see [`Reason::words`].
    pub reason: Reason,
    /// Event that began it.
    pub opened_by: Option<EventIx>,
    /// Event that ended it.
    pub closed_by: Option<EventIx>,
}

impl Span {
    /// Whether it lasts at `t`.
    pub fn covers(&self, t: u64) -> bool {
        self.start <= t && self.end.is_none_or(|e| t < e)
    }
}

/// Why a span is known as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum Reason {
    /// An event stated it.
    Stated,
    /// The kernel re-read the entry when it traced `kvm_mmu_set_spte`.
    Reread,
    /// `fast_page_fault` stored it without another event.
    FastFault,
    /// A huge page was split; the children are not traced.
    Split,
    /// The table was new, so the entry was empty.
    NewTable,
    /// The entry was frozen; this kernel does not trace the release.
    Unfrozen,
    /// `mark_mmio_spte` told that an MMIO SPTE was installed, but not its value.
    MarkMmio,
    /// `prepare_zap_page` destroyed the table.
    PageZapped,
    /// This kernel does not trace zaps, write-protection and aging.
    SilentKernel,
    /// An mmu_notifier range was invalidated since, which may have hit this page.
    Notifier,
    /// All roots became obsolete since.
    ZapAll,
    /// The page of this entry was synchronised with the guest's table since.
    Synced,
    /// Events were lost since.
    Lost,
    /// The old value of a later event did not fit: something happened that the trace does not show.
    Contradicted,
    /// Two tables fit the event and nothing decided between them.
    Ambiguous,
    /// No event has shown it yet.
    NeverSeen,
    /// The guest's table that this page shadows may have been written since.
    GuestTable,
    /// A fault found it missing.
    Faulted,
    /// The old value of the event that ended it.
    OldValue,
    /// The trace does not hold all that came before, so that the change may have been in another table.
    Incomplete,
    /// Mapped so when seen; the MMU does not trace write-protection.
    MaybeProtected,
}

impl Reason {
    /// The reason in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Stated => "an event stated the value",
            Self::Reread => "kvm_mmu_set_spte re-read the entry",
            Self::FastFault => "fast_page_fault stored it; no other event shows this",
            Self::Split => "a huge page was split: the kernel traces the split, not its 512 children",
            Self::NewTable => "a new table starts empty",
            Self::Unfrozen => "this kernel does not trace un-freezing: assumed empty since",
            Self::MarkMmio => "mark_mmio_spte tells that an MMIO SPTE was installed, not its value",
            Self::PageZapped => "kvm_mmu_prepare_zap_page destroyed the page-table page",
            Self::SilentKernel => {
                "this MMU does not trace zaps, write-protection and aging: unverified since"
            }
            Self::Notifier => {
                "an mmu_notifier range was invalidated since and may have hit this page; this MMU does not trace the zap"
            }
            Self::ZapAll => "all roots became obsolete since (kvm_mmu_zap_all_fast)",
            Self::Synced => {
                "the shadow page was synchronised with the guest's table since; this is not traced entry by entry"
            }
            Self::Lost => "events were lost since",
            Self::Contradicted => {
                "a later event's old value does not fit: something happened that the trace does not show"
            }
            Self::Ambiguous => "two page tables fit the event; nothing in the trace decides between them",
            Self::NeverSeen => "no event has shown it yet",
            Self::GuestTable => "the guest page table that this page shadows may have been written since",
            Self::Faulted => "a fault found it not present",
            Self::OldValue => "old value of the event that changed it",
            Self::MaybeProtected => {
                "mapped to this frame, and writable when seen; this MMU does not trace write-protection, so that it still is writable is assumed"
            }
            Self::Incomplete => {
                "the trace does not hold all that came before (it began later, or events were lost): the change may have been in another page table"
            }
        }
    }
}

/// One entry: its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// VM.
    pub vm: VmId,
    /// Address space (1 = SMM).
    pub as_id: u8,
    /// 1 = 4 KiB … 5.
    pub level: u8,
    /// First guest frame it covers.
    pub gfn: u64,
    /// The table it lies in.
    pub table: TableId,
    /// Host-physical address of the entry, where any event told the table's page.
    pub sptep: Option<u64>,
}

impl Entry {
    /// How many guest frames it covers.
    pub const fn pages(&self) -> u64 {
        pages_of(self.level)
    }
}

/// How many 4 KiB frames an entry of `level` covers.
pub const fn pages_of(level: u8) -> u64 {
    if level <= 1 {
        1
    } else if level >= 6 {
        1 << 45
    } else {
        1 << (9 * (level as u32 - 1))
    }
}

/// One page-table page during one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its id.
    pub id: TableId,
    /// VM.
    pub vm: VmId,
    /// Address space.
    pub as_id: u8,
    /// Level of its entries.
    pub level: u8,
    /// First guest frame it covers.
    pub gfn: u64,
    /// Host-physical address of the page, where an event told it.
    pub page: Option<u64>,
    /// The entry that points to it; `None` for roots and where unknown.
    pub parent: Option<EntryId>,
    /// Event that linked it (or first named it).
    pub start: Option<EventIx>,
    /// Event that unlinked it; `None` while it lives.
    pub end: Option<EventIx>,
    /// Its first moment is known: entries not seen since are empty, not unknown.
    pub born: bool,
    /// A TDP MMU table (or a direct shadow page): its entries' frames follow from their index.
    pub direct: bool,
    /// A TDX mirror table.
    pub mirror: bool,
}

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

/// Entries per shade and level at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// `entries[shade][level]`; level 0 is not used.
    pub entries: [[u64; 6]; 8],
}

impl Counts {
    /// Entries of a shade, all levels.
    pub fn total(&self, shade: Shade) -> u64 {
        self.entries[shade as usize].iter().sum()
    }
    /// Entries of a state, all levels.
    pub fn state(&self, state: State) -> u64 {
        Shade::ALL.iter().filter(|s| s.state() == state).map(|s| self.total(*s)).sum()
    }
    /// Bytes of guest memory that the entries of a shade cover.
    pub fn bytes(&self, shade: Shade) -> u64 {
        self.entries[shade as usize]
            .iter()
            .enumerate()
            .map(|(l, n)| n.saturating_mul(pages_of(l as u8).saturating_mul(4096)))
            .fold(0, u64::saturating_add)
    }
    /// Entries of a shade at a level.
    pub fn at(&self, shade: Shade, level: u8) -> u64 {
        self.entries[shade as usize].get(level as usize).copied().unwrap_or(0)
    }
}

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
    /// The entry already allowed the access (another vCPU was faster).
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
    /// vCPU number, where any event of the thread told it.
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
    /// Address space, where an event told it.
    pub as_id: u8,
    /// Access.
    pub access: Access,
    /// Raw error code of `kvm_page_fault`.
    pub error_code: Option<u64>,
    /// Outcome.
    pub outcome: Outcome,
    /// Entry that was installed, changed or hit.
    pub entry: Option<EntryId>,
    /// Level that was wanted (`kvm_mmu_spte_requested`).
    pub level_wanted: Option<u8>,
    /// Level that was installed.
    pub level: Option<u8>,
    /// Host frame that was found.
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

/// A GFN range that MMIO accesses went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioRange {
    /// VM.
    pub vm: VmId,
    /// First frame.
    pub gfn_start: u64,
    /// One past the last.
    pub gfn_end: u64,
    /// `kvm_mmio`, fast MMIO and MMIO faults.
    pub accesses: u64,
    /// MMIO SPTEs installed.
    pub installs: u64,
    /// First access.
    pub first: u64,
    /// Last access.
    pub last: u64,
    /// Lowest and highest MMIO generation seen.
    pub generations: Option<(u32, u32)>,
}

/// What a stretch of guest frames is at the end of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemoryKind {
    /// Mapped RAM.
    Ram,
    /// Was mapped, is not now.
    Gone,
    /// MMIO.
    Mmio,
}

/// A stretch of guest frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// VM.
    pub vm: VmId,
    /// Address space.
    pub as_id: u8,
    /// First frame.
    pub gfn_start: u64,
    /// One past the last.
    pub gfn_end: u64,
    /// What it is.
    pub kind: MemoryKind,
    /// Level of the entries (0: mixed).
    pub level: u8,
    /// Shade of the entries.
    pub shade: Shade,
    /// Worst certainty within.
    pub certainty: Certainty,
    /// Entries in it.
    pub entries: u64,
    /// Number of the memslot that the pattern of host frames and permissions suggests.
    pub slot: u32,
}

/// Something that does not fit, kept for findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What.
    pub kind: EvidenceKind,
    /// When.
    pub ts: u64,
    /// The event that told.
    pub event: EventIx,
    /// VM.
    pub vm: VmId,
    /// Entry concerned.
    pub entry: Option<EntryId>,
    /// Address space.
    pub as_id: u8,
    /// Level.
    pub level: u8,
    /// Frame.
    pub gfn: u64,
    /// Value that was expected.
    pub expected: Option<u64>,
    /// Value that was seen.
    pub found: Option<u64>,
    /// Events were lost before, so this proves nothing about the kernel.
    pub after_loss: bool,
}

/// Kinds of [`Evidence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum EvidenceKind {
    /// Old value of an event is not the last new value.
    OldValue,
    /// `kvm_mmu_set_spte` disagrees with the change event.
    SetSpte,
    /// `fast_page_fault` disagrees.
    FastFault,
    /// Index of the entry in its table does not match its frame.
    Index,
    /// A present leaf was replaced by another present leaf with another pfn.
    PfnChanged,
    /// A nonpresent value became another nonpresent value that is neither MMIO nor removed.
    NonpresentChanged,
    /// The frame is not aligned to its level.
    Misaligned,
    /// An entry changed although nothing links its table.
    Orphan,
    /// Removed, and faults keep coming that find it so.
    StuckRemoved,
    /// A table page is linked from two places at once.
    TableShared,
    /// An event arrived after one that must have followed it (a race between CPUs); put right.
    Reordered,
    /// Two tables fit an event.
    Ambiguous,
    /// An entry changed inside a table that was already torn down.
    DeadTable,
    /// Writable without MMU-writable.
    WritableBits,
}

impl EvidenceKind {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::OldValue => "the old value is not the last new value",
            Self::SetSpte => "kvm_mmu_set_spte shows another value than the change event",
            Self::FastFault => "fast_page_fault shows another value than the last change",
            Self::Index => "the entry's index in its table does not match its frame",
            Self::PfnChanged => "a present leaf was replaced by a present leaf with another host frame",
            Self::NonpresentChanged => {
                "a nonpresent value was replaced by another that is neither MMIO nor removed"
            }
            Self::Misaligned => "the frame is not aligned to its level",
            Self::Orphan => "an entry changed although nothing links its table",
            Self::StuckRemoved => "the entry stays removed while faults on it keep coming",
            Self::TableShared => "one page-table page is linked from two places",
            Self::Reordered => "events of two CPUs came in the other order than the changes; put right",
            Self::Ambiguous => "two page tables fit the event",
            Self::DeadTable => "an entry changed in a table that was already torn down",
            Self::WritableBits => "writable, but not marked MMU-writable",
        }
    }
}

/// Who acted in a [`StoryLine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoryLine {
    /// When.
    pub ts: u64,
    /// The event.
    pub event: Option<EventIx>,
    /// Who: `vcpu 0 (load-111)`.
    pub who: String,
    /// What happened, in a sentence.
    pub text: String,
    /// State from then on.
    pub shade: Option<Shade>,
    /// Certainty.
    pub certainty: Option<Certainty>,
}

/// The life of one guest page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageStory {
    /// VM.
    pub vm: VmId,
    /// Address space.
    pub as_id: u8,
    /// Frame.
    pub gfn: u64,
    /// One sentence.
    pub headline: String,
    /// In time order.
    pub lines: Vec<StoryLine>,
    /// Faults on it.
    pub faults: Vec<FaultId>,
    /// Closing remarks: how long in each state, what is not known.
    pub notes: Vec<String>,
}

/// Which entries a question is about; `None` matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StateFilter {
    /// VM.
    pub vm: Option<VmId>,
    /// Address space.
    pub as_id: Option<u8>,
    /// Level.
    pub level: Option<u8>,
    /// First frame and one past the last: entries that overlap.
    pub gfns: Option<(u64, u64)>,
    /// State.
    pub state: Option<State>,
}

/// Which spans a question is about; `None` matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SpanFilter {
    /// VM.
    pub vm: Option<VmId>,
    /// Address space.
    pub as_id: Option<u8>,
    /// Level.
    pub level: Option<u8>,
    /// First frame and one past the last: entries that overlap.
    pub gfns: Option<(u64, u64)>,
    /// Spans that overlap this time range.
    pub time: Option<(u64, u64)>,
}

/// One bucket of a [`series`](crate::Timeline::series).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Bin {
    /// Events in it.
    pub count: u64,
    /// Most in any sub-bucket (so that a zoomed-out picture keeps its spikes).
    pub max: u64,
    /// First event in it.
    pub first_event: Option<EventIx>,
}

/// What a [`series`](crate::Timeline::series) counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SeriesKind {
    /// All events.
    Events,
    /// Events of one name, such as `kvm_exit`.
    Event(Cow<'static, str>),
    /// Faults of all vCPUs.
    Faults,
    /// Faults of one thread.
    FaultsOf(u32),
    /// Changes of entries.
    Changes,
    /// Zaps: a present entry becomes nonpresent or removed.
    Zaps,
    /// Lost events.
    Lost,
}

/// A page and how often something happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopPage {
    /// VM.
    pub vm: VmId,
    /// Address space.
    pub as_id: u8,
    /// Frame.
    pub gfn: u64,
    /// Level (1 for faults).
    pub level: u8,
    /// How often.
    pub count: u64,
    /// First time.
    pub first: u64,
    /// Last time.
    pub last: u64,
}

/// What a picture is asked for: one address space, a time window and a window of axis units ([`GfnAxis`](crate::GfnAxis)).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapQuery {
    /// VM.
    pub vm: VmId,
    /// Address space.
    pub as_id: u8,
    /// First moment.
    pub t0: u64,
    /// One past the last moment.
    pub t1: u64,
    /// First axis unit.
    pub y0: f64,
    /// One past the last axis unit.
    pub y1: f64,
    /// Cells across.
    pub cols: usize,
    /// Cells up.
    pub rows: usize,
}

/// One cell of a [`MapImage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Cell {
    /// Entries of each shade that the cell shows, 255 meaning that many or more (index: `Shade as usize`).
    pub counts: [u8; 8],
    /// Changes that fall into the cell (saturating).
    pub changes: u16,
    /// [`Cell::STALE`] and [`Cell::ASSUMED`].
    pub flags: u8,
    /// The shade most entries of the cell hold; removed and mmio win over others so that a short one does not vanish.
    pub shade: u8,
    /// One span of the cell plus one (0: none): see [`Cell::span`].
    pub rep: u32,
}

impl Cell {
    /// Something in the cell is stale.
    pub const STALE: u8 = 1;
    /// Something in the cell is assumed or implied.
    pub const ASSUMED: u8 = 2;
    /// Something in the cell is a huge page.
    pub const HUGE: u8 = 4;

    /// Entries that the cell stands for.
    pub fn merged(&self) -> u32 {
        self.counts.iter().map(|c| u32::from(*c)).sum()
    }
    /// Nothing is known here.
    pub fn is_unknown(&self) -> bool {
        self.counts == [0; 8]
    }
    /// The dominant shade.
    pub fn shade(&self) -> Shade {
        Shade::ALL[usize::from(self.shade & 7)]
    }
    /// Whether anything is stale.
    pub fn stale(&self) -> bool {
        self.flags & Self::STALE != 0
    }
    /// Whether anything is assumed or implied.
    pub fn assumed(&self) -> bool {
        self.flags & Self::ASSUMED != 0
    }
    /// Whether anything is a huge page.
    pub fn huge(&self) -> bool {
        self.flags & Self::HUGE != 0
    }
    /// A span that the cell shows.
    pub fn span(&self) -> Option<SpanId> {
        self.rep.checked_sub(1).map(SpanId)
    }
}

/// The time x GFN picture as cells, row 0 at the lowest axis unit.
#[derive(Clone, Debug, PartialEq)]
pub struct MapImage {
    /// What was asked.
    pub query: MapQuery,
    /// Cells across.
    pub cols: usize,
    /// Cells up.
    pub rows: usize,
    /// `rows * cols` cells, row by row.
    pub cells: Vec<Cell>,
    /// Every cell is at the resolution asked for; `false` where a coarser level of the pyramid was used.
    pub exact: bool,
}

impl MapImage {
    /// The cell at a column and row.
    pub fn at(&self, col: usize, row: usize) -> Option<&Cell> {
        if col < self.cols { self.cells.get(row.checked_mul(self.cols)?.checked_add(col)?) } else { None }
    }
}
