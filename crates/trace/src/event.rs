//! The typed event model into which every format is read. The main type is [`Event`], with its [`Body`].
//!
//! Values are what the kernel recorded; nothing here interprets SPTE bits. A field that some kernels or formats do not record is an
//! `Option`; `None` means "this trace does not say", never zero.

/// A string interned in [`Strings`](crate::Strings) (task names, event names, marker texts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct StrId(pub u32);

/// One event: who, where, when, and what the tracepoint said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// Nanoseconds on the trace's clock ([`TraceInfo::clock`](crate::TraceInfo)), absolute. Text with microsecond stamps has `…000`.
    pub ts: u64,
    /// The CPU that recorded it.
    pub cpu: u16,
    /// Thread id (`common_pid`) of the task that was running; `None` where the format does not say (a lost-events note).
    pub tid: Option<u32>,
    /// Thread group id (process id) of that task, where the trace says it.
    pub pid: Option<u32>,
    /// Task name as recorded; [`StrId::default`] is the empty string, for unknown.
    pub comm: StrId,
    /// What the tracepoint recorded.
    pub body: Body,
}

/// Role of a shadow page (`union kvm_mmu_page_role`), normalised from whichever word layout or text the kernel used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Role {
    /// The raw 32-bit word, where the format carries it (binary; libtraceevent's unparsed fields).
    pub raw: Option<u32>,
    /// Level of the entries in this page: 1 = 4 KiB entries.
    pub level: u8,
    /// Size of a guest page-table entry in bytes (4 or 8); `None` where the format does not say.
    pub gpte_bytes: Option<u8>,
    /// Which part of a guest table with 4-byte entries this page shadows, 0 to 3.
    pub quadrant: u8,
    /// The page maps guest physical addresses directly (TDP, real mode, or part of a split guest huge page).
    pub direct: bool,
    /// ACC_READ (kernel 7.2 and later; `true` in older kernels, where every role is readable).
    pub r: bool,
    /// ACC_WRITE_MASK: writable.
    pub w: bool,
    /// ACC_USER_MASK: user-accessible.
    pub u: bool,
    /// ACC_EXEC_MASK: executable.
    pub x: bool,
    /// The page was zapped but is still a live root.
    pub invalid: bool,
    /// The guest's EFER.NX (`efer_nx`, earlier `nxe`).
    pub nxe: Option<bool>,
    /// A/D bits are disabled for this page's entries.
    pub ad_disabled: bool,
    /// The page belongs to the nested (L2) MMU; only binary traces say so.
    pub guest_mode: Option<bool>,
    /// The page belongs to the SMM address space; only binary traces say so.
    pub smm: Option<bool>,
    /// The page is a TDX mirror page (since 6.14); only binary traces say so.
    pub mirror: Option<bool>,
}

/// Fields common to the shadow-page events (`kvm_mmu_get_page` and its kin).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Page {
    /// First guest frame the page covers; `None` where the text dropped it (trace-cmd's kvm plugin).
    pub gfn: Option<u64>,
    /// The kind of page.
    pub role: Role,
    /// The kernel's `mmu_valid_gen`, where recorded (not in 5.2 and 5.3).
    pub mmu_valid_gen: Option<u64>,
    /// The root count (the raw reference count for TDP roots).
    pub root_count: i32,
    /// The page may be out of sync with the guest's table.
    pub unsync: bool,
}

/// The encoding of a `kvm_page_fault` error code, one of three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorEncoding {
    /// The exit qualification of an EPT violation (VMX, TDX): bit 0 read, 1 write, 2 fetch, 3..5 permissions found.
    EptQualification,
    /// The error code of a nested page fault (SVM): PFERR bits, guest *physical* address.
    NestedPageFault,
    /// The error code of a #PF (shadow paging): PFERR bits, guest *virtual* address.
    PageFault,
    /// More than one encoding fits and nothing in the trace decides.
    Ambiguous,
}

/// Result of the lockless fast path (`fast_page_fault.ret`), with the kernel's numbering already resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FastPfResult {
    /// The fast path did not handle the fault; the slow path follows.
    Invalid,
    /// The fast path fixed the SPTE.
    Fixed,
    /// The SPTE allowed the access already.
    Spurious,
    /// The fault is to be retried.
    Retry,
    /// The access is to be emulated.
    Emulate,
    /// Another number, as recorded.
    Other(i32),
}

/// The instruction set that a `kvm_exit` reason belongs to (field `isa`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Intel VMX (number 1).
    Vmx,
    /// AMD SVM (number 2).
    Svm,
    /// Another back-end such as PVM, by its number.
    Other(u32),
}

/// What a tracepoint recorded. Names and meanings are the kernel's (`include/trace/events/kvm.h`, `arch/x86/kvm/mmu/mmutrace.h`,
/// `arch/x86/kvm/trace.h`).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the tracepoints' own; each variant says what needs saying")]
pub enum Body {
    // ---- kvmmmu ----
    /// `kvm_mmu_pagetable_walk`: a software walk of guest page tables starts.
    PagetableWalk { addr: u64, pferr: u32 },
    /// `kvm_mmu_paging_element`: one guest PTE read in such a walk.
    PagingElement { pte: u64, level: u32 },
    /// `kvm_mmu_set_accessed_bit`: the walker set A in the guest PTE at this guest physical address.
    SetAccessedBit { gpa: u64 },
    /// `kvm_mmu_set_dirty_bit`: the walker set D in the guest PTE at this guest physical address.
    SetDirtyBit { gpa: u64 },
    /// `kvm_mmu_walker_error`: the walk ends in a fault for the guest.
    WalkerError { pferr: u32 },
    /// `kvm_mmu_get_page`: a page-table page was found (`created` false) or made. In the TDP MMU, the page is not linked yet.
    GetPage { page: Page, created: bool },
    /// `kvm_mmu_sync_page`: the page is brought up to date with the guest's table.
    SyncPage { page: Page },
    /// `kvm_mmu_unsync_page`: the guest's table becomes writable, so the page may be out of sync from now on.
    UnsyncPage { page: Page },
    /// `kvm_mmu_prepare_zap_page`: the page with all its entries is being destroyed.
    PrepareZapPage { page: Page },
    /// `mark_mmio_spte`. `sptep` is a kernel *virtual* address (`None` where text hashed it).
    MarkMmioSpte { sptep: Option<u64>, gfn: u64, access: u32, generation: u32 },
    /// `handle_mmio_page_fault`: the fault hit an MMIO SPTE of the current generation.
    HandleMmioPageFault { addr: u64, gfn: u64, access: u32 },
    /// `check_mmio_spte`: the generation of an MMIO SPTE is compared with the current one.
    CheckMmioSpte { spte: u64, kvm_gen: u32, spte_gen: u32 },
    /// `fast_page_fault`: the lockless path ended. `sptep` is a kernel *virtual* address (`None` where text hashed it).
    FastPageFault {
        vcpu: u32,
        cr2_or_gpa: u64,
        error_code: u64,
        sptep: Option<u64>,
        old_spte: u64,
        new_spte: u64,
        result: FastPfResult,
    },
    /// `kvm_mmu_zap_all_fast` (5.4 and later) or `kvm_mmu_invalidate_zap_all_pages` (before): all roots become obsolete.
    ZapAllFast { mmu_valid_gen: u64, mmu_used_pages: u32 },
    /// `kvm_mmu_set_spte`: a leaf was installed; the value is read again when the event is traced. `sptep` is a host *physical* address. `u` is
    /// `None` where the paging mode has no user bit or the format does not show it.
    SetSpte { gfn: u64, spte: u64, sptep: u64, level: u8, r: bool, w: bool, x: bool, u: Option<bool> },
    /// `kvm_mmu_spte_requested`: the slow path is about to map the frame. `access` (ACC bits) exists since 7.2.
    SpteRequested { gfn: u64, pfn: u64, level: u8, access: Option<u32> },
    /// `kvm_tdp_mmu_spte_changed`: an SPTE of the TDP MMU changed its value.
    TdpSpteChanged { as_id: u8, gfn: u64, level: u8, old_spte: u64, new_spte: u64 },
    /// `kvm_mmu_split_huge_page`: `spte` is the old huge SPTE, `level` its level, `errno` 0 or negative.
    SplitHugePage { gfn: u64, spte: u64, level: u8, errno: i32 },

    // ---- kvm ----
    /// `kvm_page_fault`: a guest fault is handled. Which address `address` is depends on `encoding`.
    PageFault { vcpu: Option<u32>, rip: Option<u64>, address: u64, error_code: u64, encoding: ErrorEncoding },
    /// `kvm_exit`. `isa` is `None` where only the name of the reason was recorded and the name belongs to no known back-end. `reason` is the raw
    /// number, or `None` where a text has a name that is not in the tables; `reason_name` is the name in the text.
    Exit {
        vcpu: Option<u32>,
        reason: Option<u32>,
        reason_name: StrId,
        isa: Option<Isa>,
        rip: u64,
        info1: Option<u64>,
        info2: Option<u64>,
        intr_info: Option<u32>,
        error_code: Option<u32>,
        requests: Option<u64>,
    },
    /// `kvm_entry`: a vCPU enters the guest.
    Entry {
        vcpu: u32,
        rip: Option<u64>,
        immediate_exit: Option<bool>,
        intr_info: Option<u32>,
        error_code: Option<u32>,
    },
    /// `kvm_userspace_exit`: KVM_RUN returns; `reason` is KVM_EXIT_*, `errno` negative on error (the kernel's text then leaves the reason
    /// out, which is 0 here).
    UserspaceExit { reason: u32, errno: i32 },
    /// `kvm_mmio`: `kind` 0 unsatisfied read, 1 read, 2 write.
    Mmio { kind: u32, len: u32, gpa: u64, val: u64 },
    /// `vcpu_match_mmio`: the emulator used the vCPU's one-entry MMIO cache.
    VcpuMatchMmio { gva: u64, gpa: u64, write: bool, gpa_match: bool },
    /// `kvm_fast_mmio`: an ioeventfd kick inside the exit handler.
    FastMmio { gpa: u64 },
    /// `kvm_unmap_hva_range`: an mmu_notifier invalidates this range of host virtual addresses.
    UnmapHvaRange { start: u64, end: u64 },
    /// `kvm_age_hva`: an mmu_notifier ages this range of host virtual addresses.
    AgeHva { start: u64, end: u64 },
    /// `kvm_test_age_hva`: an mmu_notifier asks whether the page at this host virtual address is young.
    TestAgeHva { hva: u64 },
    /// `kvm_set_spte_hva` (5.13 to 6.9): an mmu_notifier changes the page at this host virtual address.
    SetSpteHva { hva: u64 },
    /// `kvm_age_page` (up to 5.12): one page was aged.
    AgePage { hva: u64, gfn: u64, level: u8, young: bool },
    /// `kvm_try_async_get_page`, and `kvm_async_pf_repeated_fault` (`repeated`).
    TryAsyncGetPage { gva: u64, gfn: u64, repeated: bool },
    /// `kvm_async_pf_not_present` (`ready` false) and `kvm_async_pf_ready`.
    AsyncPf { token: u64, gva: u64, ready: bool },
    /// `kvm_async_pf_completed`: `address` is a host virtual address.
    AsyncPfCompleted { address: u64, gva: u64 },
    /// `kvm_pml_full`: the page-modification log of this vCPU is full.
    PmlFull { vcpu: u32 },
    /// `kvm_dirty_ring_push`: a page was added to the dirty ring.
    DirtyRingPush { index: i32, dirty_index: u32, reset_index: u32, slot: u32, offset: u64 },
    /// `kvm_dirty_ring_reset`: user space has collected entries of the dirty ring.
    DirtyRingReset { index: i32, dirty_index: u32, reset_index: u32 },
    /// `kvm_dirty_ring_exit`: the vCPU exits because its dirty ring is full.
    DirtyRingExit { vcpu: u32 },
    /// `kvm_nested_vmexit`: an exit while L2 ran. It comes whether KVM handles the exit itself or passes it to L1.
    NestedVmexit {
        vcpu: Option<u32>,
        reason: Option<u32>,
        isa: Option<Isa>,
        rip: Option<u64>,
        info1: Option<u64>,
        info2: Option<u64>,
    },
    /// `kvm_nested_vmenter` or `kvm_nested_vmrun`: the vCPU goes from L1 to L2. `nested_pgd` is L1's EPT or NPT pointer where recorded.
    NestedVmenter { rip: Option<u64>, nested_rip: Option<u64>, nested_pgd: Option<u64> },
    /// `kvm_rmp_fault` (SEV-SNP): a fault in the reverse map table.
    RmpFault { vcpu: u32, gpa: u64, pfn: u64, error_code: u64, rmp_level: i32, psmash_ret: i32 },
    /// `kvm_vm_set_mem_attributes`: memory attributes of the frames `start..end` change; bit 3 means private.
    SetMemAttributes { start: u64, end: u64, attributes: u64 },
    /// `kvm_smm_transition`: the vCPU enters or leaves system management mode.
    SmmTransition { vcpu: u32, smbase: u64, entering: bool },
    /// `kvm_emulate_insn`: an instruction is being emulated.
    EmulateInsn { rip: u64, failed: bool },

    // ---- everything else ----
    /// A text that was written to trace_marker (`tracing_mark_write`, `ftrace:print`). In a [`stream`](crate::stream), get it with
    /// [`Strings::text`](crate::Strings::text).
    Marker { text: StrId },
    /// The recorder lost events on `cpu` before this moment; `count` where it is known. `event` names the event where losses are counted per event.
    Lost { count: Option<u64>, event: Option<StrId> },
    /// Input that could not be read was skipped here (see [`TraceInfo::damage`](crate::TraceInfo)).
    Damage { index: u32 },
    /// A part of what the recorder read in KVM's own memory; `index` is its place in [`TraceInfo::snapshots`](crate::TraceInfo).
    Snapshot { index: u32 },
    /// A task appeared, was renamed or ended (perf COMM/FORK/EXIT, `sched_process_*`).
    Task { kind: TaskKind, tid: u32, pid: Option<u32>, comm: StrId },
    /// An event without a typed form: its `system:name` (or `name`), and its raw fields, which
    /// [`Strings::text`](crate::Strings::text) formats as `key=value`.
    Other { name: StrId, fields: StrId },
}

impl Body {
    /// Whether this is an event of the trace, recorded by a tracepoint or through trace_marker. Notes of losses, of damage, of snapshots and about tasks have
    /// a place and a number among the events, but no count of events includes them.
    pub const fn is_event(&self) -> bool {
        !matches!(self, Self::Lost { .. } | Self::Damage { .. } | Self::Snapshot { .. } | Self::Task { .. })
    }
}

/// What a [`Body::Task`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// The thread was started.
    Fork,
    /// The thread has this name from now on.
    Comm {
        /// The name changed because of execve.
        exec: bool,
    },
    /// The thread ended.
    Exit,
}
