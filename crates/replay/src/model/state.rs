//! What an entry holds, how that is known, and why.

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
    /// `mark_mmio_spte` shows that an MMIO SPTE was installed, but not its value.
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
    /// The events that would show a change were not, or may not have been, recorded.
    Unrecorded,
    /// The recorder read the entry in the kernel's own memory.
    Snapshot,
    /// An mmu_notifier range that was invalidated before the first event, or in events that were lost, may have hit this page since.
    UnseenNotifier,
    /// A page table may have been linked here, or unlinked, since; the MMU traces neither.
    Linked,
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
            Self::MarkMmio => "mark_mmio_spte shows that an MMIO SPTE was installed, not its value",
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
            Self::Snapshot => "the recorder read the entry in the kernel's own memory",
            Self::UnseenNotifier => {
                "an mmu_notifier range that was invalidated before the trace, or in events that were lost, may have hit this page; this MMU does not trace the zap"
            }
            Self::Linked => {
                "a page table may have been linked to this entry since, or unlinked; this MMU traces neither"
            }
            Self::NeverSeen => "no event has shown it yet",
            Self::GuestTable => "the guest page table that this page shadows may have been written since",
            Self::Faulted => "a fault found it not present",
            Self::OldValue => "old value of the event that changed it",
            Self::MaybeProtected => {
                "mapped to this frame, and writable when seen; this MMU does not trace write-protection, so that it still is writable is assumed"
            }
            Self::Unrecorded => {
                "events that would show a change were not, or may not have been, recorded: unverified since"
            }
            Self::Incomplete => {
                "the trace does not hold all that came before (it began later, or events were lost): the change may have been in another page table"
            }
        }
    }
}
