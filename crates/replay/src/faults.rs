//! One record for each fault, joined per thread from exit to entry. No event says how a fault ended: that follows from what happened
//! between.

use mmuscope_trace::{Body, ErrorEncoding, Event, FastPfResult, Isa};

use crate::engine::Thread;
use crate::model::{Access, Outcome, Shade, State};
use crate::store::NONE;

/// VMX's exit reason for an EPT entry that cannot be: KVM's own, for MMIO.
const EPT_MISCONFIG: u32 = 49;
/// SVM's exit reason for a nested page fault.
const NPF: u32 = 0x400;
/// Exit reasons of faults: an exception in the guest, EPT violation and misconfiguration; #PF and nested page fault.
const VMX_FAULTS: [u32; 3] = [0, 48, EPT_MISCONFIG];
const SVM_FAULTS: [u32; 2] = [0x4e, NPF];
/// RSVD in the error code of a #PF or a nested page fault: reserved bits were found, which KVM sets in MMIO SPTEs only.
const PFERR_RSVD: u64 = 8;
/// No time difference.
const NO_DELTA: u32 = u32::MAX;

/// A fault, packed: there is one for every few events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    pub(crate) ts: u64,
    pub(crate) addr: u64,
    pub(crate) rip: u64,
    pub(crate) code: u64,
    /// Guest frame; `u64::MAX` where unknown.
    pub(crate) gfn: u64,
    pub(crate) event: u32,
    pub(crate) last_event: u32,
    /// From the exit to `ts`, and from `ts` to the end.
    pub(crate) exit_delta: u32,
    pub(crate) end_delta: u32,
    pub(crate) tid: u32,
    pub(crate) span: u32,
    pub(crate) retries: u16,
    pub(crate) vm: u16,
    pub(crate) errno: i16,
    pub(crate) vcpu: u16,
    pub(crate) outcome: Outcome,
    /// `level_wanted | level << 4`.
    pub(crate) levels: u8,
    pub(crate) encoding: u8,
    pub(crate) flags: u8,
}

impl Packed {
    pub(crate) const MMIO: u8 = 1;
    pub(crate) const HAS_CODE: u8 = 2;
    pub(crate) const HAS_RIP: u8 = 4;
    pub(crate) const GVA: u8 = 8;
    pub(crate) const GPA: u8 = 16;
    /// The CPU found an MMIO SPTE: RSVD in the error code, or an EPT misconfiguration.
    pub(crate) const HIT: u8 = 32;

    pub(crate) fn end(&self) -> Option<u64> {
        (self.end_delta != NO_DELTA).then(|| self.ts + u64::from(self.end_delta))
    }
    pub(crate) fn exit(&self) -> Option<u64> {
        (self.exit_delta != NO_DELTA).then(|| self.ts.saturating_sub(u64::from(self.exit_delta)))
    }

    /// What the fault was for, from whichever encoding the code is in.
    pub(crate) fn access(&self) -> Access {
        let c = self.code;
        if self.flags & Self::HAS_CODE == 0 {
            return Access { ambiguous: self.flags & Self::MMIO == 0, ..Access::default() };
        }
        match self.encoding {
            0 => Access {
                read: c & 1 != 0,
                write: c & 2 != 0,
                fetch: c & 4 != 0,
                user: None,
                present: Some(c & 0x38 != 0),
                reserved: false,
                guest_table: c & 0x180 == 0x80,
                ambiguous: false,
            },
            e => Access {
                read: c & 0x12 == 0,
                write: c & 2 != 0,
                fetch: c & 0x10 != 0,
                user: Some(c & 4 != 0),
                present: Some(c & 1 != 0),
                // Of a code that may be an EPT qualification the bit may say that the page is readable.
                reserved: e != 3 && c & PFERR_RSVD != 0,
                guest_table: c >> 33 & 1 != 0,
                ambiguous: e == 3,
            },
        }
    }
}

/// The fault a thread is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    p: Packed,
    /// What an event said outright.
    outcome: Option<Outcome>,
    /// A leaf was installed or changed: a change event says so, or the legacy MMU's one event of an install.
    installed: bool,
    /// `kvm_mmu_set_spte` for the page that was asked for.
    set: bool,
    /// What was installed does not allow writes.
    protected: bool,
    /// KVM emulated the instruction.
    emulated: bool,
    /// An asynchronous page fault was queued.
    queued: bool,
    /// A walk of the guest's tables followed.
    walked: bool,
}

impl Open {
    /// How it ended, from what happened since it began.
    fn outcome(&self, tdp: bool) -> Outcome {
        let hit = self.p.flags & Packed::HIT != 0;
        let requested = self.p.levels & 15 != 0;
        match self.outcome {
            Some(o) => o,
            None if self.emulated && !self.installed => self.emulation(),
            None if self.installed => Outcome::Fixed,
            // The TDP MMU traces a change beside each install: without one, another vCPU had been faster.
            None if self.set && tdp => Outcome::Spurious,
            None if self.set => Outcome::Fixed,
            None if self.queued => Outcome::Async,
            // KVM finds a page it has just emulated an access to in a cache of the vCPU, which no event tells.
            None if hit && !requested => Outcome::MmioHit,
            // The legacy MMU works under its lock: what was asked for and not set was there already. The TDP MMU may have lost a race.
            None if requested && !tdp => Outcome::Spurious,
            None if !hit && self.p.flags & Packed::MMIO != 0 => Outcome::Emulated,
            None => Outcome::Retry,
        }
    }

    /// What is known of a fault whose end is not in the trace: an access to an MMIO SPTE that was emulated can end in no other way.
    fn so_far(&self) -> Packed {
        let outcome = match self.outcome {
            Some(o @ (Outcome::MmioHit | Outcome::MmioInstalled)) => o,
            None if self.emulated && !self.installed && self.p.flags & Packed::HIT != 0 => Outcome::MmioHit,
            _ => Outcome::Unfinished,
        };
        Packed { outcome, ..self.p }
    }

    /// The outcome of a fault whose instruction was emulated.
    fn emulation(&self) -> Outcome {
        if self.p.flags & Packed::HIT != 0 { Outcome::MmioHit } else { Outcome::Emulated }
    }

    /// Whether an entry is of the page that was asked for; any is while that is not known.
    fn is_for(&self, level: u8, gfn: u64) -> bool {
        let shift = 9 * u32::from(level.clamp(1, 6) - 1);
        self.p.gfn == u64::MAX || self.p.gfn >> shift == gfn >> shift
    }
}

/// A thread's exit that has not been followed by an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExitNote {
    ts: u64,
    rip: u64,
    some: bool,
    /// It is for a fault, as far as is known.
    faulted: bool,
    /// The exit itself says that an MMIO SPTE was hit, with its event and the guest physical address where it tells that: until a fault is made
    /// of it. No `kvm_page_fault` follows an EPT misconfiguration, nor a nested page fault of an eventfd's page (7.0 and later).
    mmio: Option<(u32, Option<u64>)>,
}

impl Default for ExitNote {
    fn default() -> Self {
        Self { ts: 0, rip: 0, some: false, faulted: true, mmio: None }
    }
}

/// What each thread carries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultState {
    open: Option<Open>,
    exit: ExitNote,
    /// Address, code and count of the last retried fault.
    last: (u64, u64, u16),
    /// It was seen to enter the guest: so its entries are recorded, and with them the ends of its faults.
    enters: bool,
}

impl FaultState {
    /// An entry was changed in this fault. That something was zapped, as a copy-on-write in the host does, mends nothing.
    pub(crate) fn changed(&mut self, span: u32, level: u8, shade: Shade) {
        if let Some(o) = &mut self.open
            && matches!(shade.state(), State::Present | State::Mmio)
        {
            o.installed |= shade.state() == State::Present;
            o.p.span = span;
            o.p.levels = o.p.levels & 15 | level << 4;
        }
    }
    /// An entry was set in this fault, in an MMU where the event of the install is the only one. Neighbours are set with it.
    pub(crate) fn changed_silently(&mut self, span: u32, level: u8, gfn: u64, shade: Shade) {
        if let Some(o) = &mut self.open
            && o.is_for(level, gfn)
            && !o.set
        {
            o.installed = true;
            o.protected = shade == Shade::ReadOnly;
            o.p.span = span;
            o.p.levels = o.p.levels & 15 | level << 4;
        }
    }
    /// Whether the thread is handling a fault, and for which frame.
    pub(crate) fn gfn(&self) -> Option<u64> {
        self.open.map(|o| o.p.gfn).filter(|g| *g != u64::MAX)
    }
    /// Whether the thread's entries into the guest are recorded.
    pub(crate) fn enters(&self) -> bool {
        self.enters
    }
    /// Whether the thread is between an exit from the guest and what follows it.
    pub(crate) fn runs(&self) -> bool {
        self.exit.some
    }
    /// Whether the thread is handling a fault.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }
    /// Page of the address that the open fault is for, and the fault's first event.
    pub(crate) fn page(&self) -> Option<(u64, u32)> {
        self.open.map(|o| (o.p.addr >> 12, o.p.event))
    }
    /// Page of the address of the open fault, if nothing was installed for it.
    pub(crate) fn unanswered(&self) -> Option<u64> {
        let o = self.open.filter(|o| !o.set && !o.installed && o.p.flags & Packed::MMIO == 0)?;
        Some(o.p.addr >> 12)
    }
    /// The open fault is for a write to a guest page, and nothing was installed for it, or nothing that allows the write: then it was
    /// emulated.
    #[allow(clippy::option_option, reason = "whether there is such a write, and whether its frame is known")]
    pub(crate) fn unanswered_write(&self) -> Option<Option<u64>> {
        let o = self.open?;
        let unanswered = !o.set && !o.installed || o.protected;
        (unanswered && o.p.access().write && o.p.flags & Packed::MMIO == 0).then(|| self.gfn())
    }
}

/// All faults so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultTracker {
    /// Those that ended, in the order of their ends.
    pub(crate) done: Vec<Packed>,
    /// Those that had not ended where the trace does, in the order of their beginnings.
    pub(crate) open: Vec<Packed>,
    /// Returns to user space are recorded.
    pub(crate) leaving_is_told: bool,
}

impl FaultTracker {
    /// Ends the fault of a thread before an event that is not part of it: when it ended, no event tells.
    pub(crate) fn leave(&mut self, th: &mut Thread, tdp: bool, ev: u32) {
        self.close(th, tdp, ev, None);
        th.fault.exit = ExitNote::default();
    }

    #[allow(clippy::too_many_arguments, reason = "everything a record starts with")]
    fn open(
        th: &mut Thread,
        vm: u16,
        ev: u32,
        ts: u64,
        addr: u64,
        gfn: Option<u64>,
        flags: u8,
        code: u64,
        encoding: u8,
        rip: Option<u64>,
    ) {
        let x = th.fault.exit;
        let exit_delta = if x.some {
            u32::try_from(ts.saturating_sub(x.ts)).map_or(NO_DELTA - 1, |d| d.min(NO_DELTA - 1))
        } else {
            NO_DELTA
        };
        let rip = rip.or(x.some.then_some(x.rip));
        let reserved = matches!(encoding, 1 | 2) && code & PFERR_RSVD != 0;
        let flags = if reserved || x.mmio.is_some() { flags | Packed::MMIO | Packed::HIT } else { flags };
        th.fault.open = Some(Open {
            p: Packed {
                ts,
                addr,
                rip: rip.unwrap_or(0),
                code,
                gfn: gfn.unwrap_or(u64::MAX),
                event: ev,
                last_event: ev,
                exit_delta,
                end_delta: NO_DELTA,
                tid: th.tid,
                span: NONE,
                retries: 0,
                vm,
                errno: 0,
                vcpu: th.vcpu.map_or(u16::MAX, |v| v.min(65534) as u16),
                outcome: Outcome::Unfinished,
                levels: 0,
                encoding,
                flags: flags | if rip.is_some() { Packed::HAS_RIP } else { 0 },
            },
            outcome: None,
            installed: false,
            set: false,
            protected: false,
            emulated: false,
            queued: false,
            walked: false,
        });
        th.fault.exit.mmio = None;
    }

    /// Ends the fault of a thread: at `end`, or at a moment that the trace does not tell.
    fn close(&mut self, th: &mut Thread, tdp: bool, ev: u32, end: Option<u64>) {
        let Some(mut o) = th.fault.open.take() else { return };
        o.p.last_event = ev;
        if let Some(ts) = end {
            o.p.end_delta =
                u32::try_from(ts.saturating_sub(o.p.ts)).map_or(NO_DELTA - 1, |d| d.min(NO_DELTA - 1));
        }
        o.p.outcome = o.outcome(tdp);
        let key = (o.p.addr >> 12, o.p.code);
        if th.fault.last.0 == key.0 && th.fault.last.1 == key.1 {
            o.p.retries = th.fault.last.2;
        }
        th.fault.last = if matches!(o.p.outcome, Outcome::Retry | Outcome::Async | Outcome::Spurious) {
            (key.0, key.1, o.p.retries.saturating_add(1))
        } else {
            (u64::MAX, 0, 0)
        };
        self.done.push(o.p);
    }

    /// Events were lost: no open fault can be told to its end.
    pub(crate) fn lost(&mut self, threads: &mut [Thread], ev: u32) {
        for th in threads {
            if let Some(o) = th.fault.open.take() {
                self.done.push(Packed { last_event: ev, ..o.so_far() });
            }
            th.fault.exit = ExitNote::default();
        }
    }

    /// Notes the faults that are going on where the trace ends, for now.
    pub(crate) fn note_open(&mut self, threads: &[Thread]) {
        self.open = threads.iter().filter_map(|t| t.fault.open.map(|o| o.so_far())).collect();
        self.open.sort_by_key(|p| p.event);
    }

    /// All there are: those that ended, then those that did not.
    pub(crate) fn all(&self) -> impl ExactSizeIterator<Item = (u32, &Packed)> + '_ {
        (0..(self.done.len() + self.open.len()) as u32).map(|i| (i, self.get(i)))
    }

    /// One of [`all`](Self::all).
    ///
    /// # Panics
    /// If there is none of this number.
    pub(crate) fn get(&self, i: u32) -> &Packed {
        let i = i as usize;
        self.done.get(i).unwrap_or_else(|| &self.open[i - self.done.len()])
    }

    pub(crate) fn step(&mut self, th: &mut Thread, vm: u16, tdp: bool, ev: u32, ts: u64, e: &Event) {
        match e.body {
            Body::Exit { rip, reason, isa, info1, info2, .. } => {
                // No entry since: the recording has none, so when the fault ended is not known.
                self.close(th, tdp, ev, None);
                let mmio = match (isa, reason) {
                    (Some(Isa::Vmx), Some(EPT_MISCONFIG)) => Some((ev, None)),
                    (Some(Isa::Svm), Some(NPF)) if info1.is_some_and(|c| c & PFERR_RSVD != 0) => {
                        Some((ev, info2))
                    }
                    _ => None,
                };
                let faulted = match (isa, reason) {
                    (Some(Isa::Vmx), Some(r)) => VMX_FAULTS.contains(&r),
                    (Some(Isa::Svm), Some(r)) => SVM_FAULTS.contains(&r),
                    _ => true,
                };
                th.fault.exit = ExitNote { ts, rip, some: true, faulted, mmio };
            }
            Body::PageFault { rip, address, error_code, encoding, .. } => {
                self.close(th, tdp, ev, None);
                let (enc, flags, gfn) = match encoding {
                    ErrorEncoding::EptQualification => (0, Packed::GPA, Some(address >> 12)),
                    ErrorEncoding::NestedPageFault => (1, Packed::GPA, Some(address >> 12)),
                    ErrorEncoding::PageFault => (2, Packed::GVA, None),
                    ErrorEncoding::Ambiguous => (3, Packed::GPA, Some(address >> 12)),
                };
                Self::open(th, vm, ev, ts, address, gfn, flags | Packed::HAS_CODE, error_code, enc, rip);
            }
            Body::HandleMmioPageFault { gfn, .. } => {
                self.mmio(th, vm, ev, ts, gfn, Some(Outcome::MmioHit));
            }
            // Synchronising shadow pages marks entries too, in a fault on another page or in no fault at all.
            Body::MarkMmioSpte { gfn, .. }
                if th.fault.open.map_or(th.fault.exit.faulted, |o| o.is_for(1, gfn)) =>
            {
                self.mmio(th, vm, ev, ts, gfn, Some(Outcome::MmioInstalled));
            }
            // VMX comes here from an EPT misconfiguration alone; a TDX guest asks for the access in a call.
            Body::FastMmio { gpa } => {
                let x = th.fault.exit;
                let hit = th.fault.open.is_some() || !x.some || x.mmio.is_some();
                let outcome = if hit { Outcome::MmioHit } else { Outcome::Emulated };
                self.mmio(th, vm, ev, ts, gpa >> 12, Some(outcome));
            }
            Body::Mmio { gpa, .. } | Body::VcpuMatchMmio { gpa, .. }
                if th.fault.open.is_some() || th.fault.exit.mmio.is_some() =>
            {
                self.mmio(th, vm, ev, ts, gpa >> 12, None);
                if let Some(o) = &mut th.fault.open {
                    o.emulated = true;
                }
            }
            Body::Entry { rip, .. } => {
                self.mmio_exit(th, vm);
                let x = th.fault.exit;
                if let (Some(o), Some(rip)) = (&mut th.fault.open, rip)
                    // What is tried again is where it was: no instruction is longer than 15 bytes.
                    && x.some
                    && matches!(rip.wrapping_sub(x.rip), 1..=15)
                    && (!o.installed || o.protected && o.p.access().write)
                    && matches!(o.outcome, None | Some(Outcome::Spurious))
                {
                    o.outcome = Some(o.emulation());
                }
                self.close(th, tdp, ev, Some(ts));
                th.fault.exit = ExitNote::default();
                th.fault.enters = true;
            }
            Body::UserspaceExit { reason, errno } => {
                self.leaving_is_told = true;
                self.mmio_exit(th, vm);
                if let Some(o) = &mut th.fault.open {
                    if errno < 0 && errno != -4 {
                        o.p.errno = errno.max(i32::from(i16::MIN)) as i16;
                        o.outcome = Some(Outcome::Error);
                    } else if reason == 39 {
                        o.outcome = Some(Outcome::MemoryFault);
                    } else if reason == 17 {
                        o.outcome = Some(Outcome::InternalError);
                    } else if reason == 6 {
                        o.p.flags |= Packed::MMIO;
                        o.emulated = true;
                    }
                }
                self.close(th, tdp, ev, Some(ts));
                th.fault.exit = ExitNote::default();
            }
            _ => {
                let Some(o) = &mut th.fault.open else { return };
                match e.body {
                    Body::SpteRequested { gfn, level, .. } => {
                        if o.outcome == Some(Outcome::MmioInstalled) && o.p.gfn != gfn {
                            o.outcome = None;
                            o.p.flags &= !Packed::MMIO;
                        }
                        o.p.gfn = gfn;
                        o.p.levels = o.p.levels & 0xf0 | level & 15;
                    }
                    // Prefetched neighbours are set too; the page that was asked for is what the fault is about.
                    Body::SetSpte { gfn, level, .. } if o.is_for(level, gfn) => {
                        o.set = true;
                        if o.p.gfn == u64::MAX {
                            o.p.gfn = gfn;
                        }
                        o.p.levels = o.p.levels & 15 | level << 4;
                    }
                    Body::FastPageFault { result, .. } => match result {
                        FastPfResult::Fixed => o.outcome = Some(Outcome::FixedFast),
                        FastPfResult::Spurious => o.outcome = Some(Outcome::Spurious),
                        FastPfResult::Emulate => o.outcome = Some(Outcome::Emulated),
                        _ => {}
                    },
                    Body::EmulateInsn { .. } => o.emulated = true,
                    Body::TryAsyncGetPage { .. } => o.queued = true,
                    // What KVM walks first in a fault of a nested guest are the tables that its hypervisor made for it, at the very address:
                    // which is the nested guest's, not one of this VM. An emulated access is walked at other addresses, or without U.
                    Body::PagetableWalk { addr, pferr } if !o.walked => {
                        o.walked = true;
                        let nested = o.p.encoding == 0 || o.p.encoding == 1 && pferr & 4 != 0;
                        let both = Packed::GPA | Packed::HAS_CODE;
                        if nested && addr == o.p.addr && o.p.flags & both == both && o.p.levels == 0 {
                            o.p.gfn = u64::MAX;
                            o.p.flags &= !Packed::GPA;
                        }
                        return;
                    }
                    Body::WalkerError { .. } | Body::NestedVmexit { .. } => o.outcome = Some(Outcome::Guest),
                    _ => return,
                }
                o.p.last_event = ev;
            }
        }
    }

    /// An MMIO event: the exit that led to it may have no `kvm_page_fault`.
    fn mmio(&mut self, th: &mut Thread, vm: u16, ev: u32, ts: u64, gfn: u64, outcome: Option<Outcome>) {
        if th.fault.open.is_none() {
            Self::open(th, vm, ev, ts, gfn << 12, Some(gfn), Packed::GPA, 0, 0, None);
        }
        if let Some(o) = &mut th.fault.open {
            o.p.flags |= Packed::MMIO;
            if o.p.gfn == u64::MAX {
                o.p.gfn = gfn;
            }
            o.outcome = outcome.or(o.outcome);
            o.p.last_event = ev;
        }
    }

    /// An exit that hit an MMIO SPTE and that no event followed: the vCPU remembered the page, or the events are not recorded.
    fn mmio_exit(&mut self, th: &mut Thread, vm: u16) {
        let ExitNote { ts, mmio: Some((ev, gpa)), .. } = th.fault.exit else { return };
        if th.fault.open.is_none() {
            let flags = if gpa.is_some() { Packed::GPA } else { 0 };
            Self::open(th, vm, ev, ts, gpa.unwrap_or(0), gpa.map(|a| a >> 12), flags, 0, 0, None);
        }
    }
}
