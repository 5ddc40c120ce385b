//! The types of the fields of events. Values are what the kernel recorded; nothing here interprets SPTE bits. A field that some kernels or formats
//! do not record is an `Option`; `None` means "this trace does not say", never zero.

/// A string interned in [`Strings`](crate::Strings) (task names, event names, marker texts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct StrId(pub u32);

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

/// What a [`Body::Task`](crate::Body::Task) reports.
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
