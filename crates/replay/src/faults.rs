//! One record for each fault, joined per thread from exit to entry. No event says how a fault ended: that follows from what happened
//! between. The engine gives [`FaultTracker::step`] each event of a thread; the tracker never looks at tables.

pub(crate) mod state;

use mmuscope_trace::{Body, ErrorEncoding, Event, Isa};

use crate::keys::SpanIx;
use crate::model::Outcome;
use crate::threads::Thread;
use state::{ExitNote, NO_DELTA, NO_END, Open, PFERR_RSVD, Packed};

/// VMX's exit reason for an EPT entry that cannot be: KVM's own, for MMIO.
const EPT_MISCONFIG: u32 = 49;
/// SVM's exit reason for a nested page fault.
const NPF: u32 = 0x400;
/// Exit reasons of faults: an exception in the guest, EPT violation and misconfiguration; #PF and nested page fault.
const VMX_FAULTS: [u32; 3] = [0, 48, EPT_MISCONFIG];
const SVM_FAULTS: [u32; 2] = [0x4e, NPF];
/// All faults so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultTracker {
    /// Those that ended, in the order of their ends.
    pub(crate) done: Vec<Packed>,
    /// Those that had not ended where the trace does, in the order of their beginnings.
    pub(crate) open: Vec<Packed>,
    /// Returns to user space are recorded.
    pub(crate) leaving_is_traced: bool,
}

impl FaultTracker {
    /// Ends the fault of a thread before an event that is not part of it: no event shows when it ended.
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
                end_delta: NO_END,
                tid: th.tid,
                span: SpanIx::NONE,
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

    /// Ends the fault of a thread: at `end`, or at a moment that the trace does not show.
    fn close(&mut self, th: &mut Thread, tdp: bool, ev: u32, end: Option<u64>) {
        let Some(mut o) = th.fault.open.take() else { return };
        o.p.last_event = ev;
        if let Some(ts) = end {
            o.p.end_delta = ts.saturating_sub(o.p.ts).min(NO_END - 1);
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

    /// Events were lost before a moment: no fault that was open then can be followed to its end.
    pub(crate) fn lost(&mut self, threads: &mut [Thread], ev: u32, before: u64) {
        for th in threads {
            if let Some(o) = th.fault.open.take_if(|o| o.p.ts < before) {
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
                    // The fault itself names the instruction where the trace begins between exit and fault.
                    && let Some(from) = x.some.then_some(x.rip).or(o.p.rip())
                    // What is tried again is where it was: no instruction is longer than 15 bytes.
                    && matches!(rip.wrapping_sub(from), 1..=15)
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
                self.leaving_is_traced = true;
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
                if let Some(o) = &mut th.fault.open
                    && o.takes(&e.body)
                {
                    o.p.last_event = ev;
                }
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
