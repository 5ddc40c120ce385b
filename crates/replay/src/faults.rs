//! One record for each fault, joined per thread from exit to entry. No event says how a fault ended: that follows from what happened
//! between.

use mmuscope_trace::{Body, ErrorEncoding, Event, FastPfResult};

use crate::engine::Thread;
use crate::model::{Access, Outcome};
use crate::store::NONE;

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
                reserved: c & 8 != 0,
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
    outcome: Option<Outcome>,
    changed: bool,
    set: bool,
}

/// A thread's exit that has not been followed by an entry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExitNote {
    ts: u64,
    rip: u64,
    some: bool,
}

/// What each thread carries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultState {
    open: Option<Open>,
    exit: ExitNote,
    /// Host page whose copy-on-write this fault broke, while its guest frame is not known.
    pub(crate) cow: Option<u64>,
    /// Address, code and count of the last retried fault.
    last: (u64, u64, u16),
}

impl FaultState {
    /// An entry was changed in this fault.
    pub(crate) fn changed(&mut self, span: u32, level: u8) {
        if let Some(o) = &mut self.open {
            o.changed = true;
            o.p.span = span;
            o.p.levels = o.p.levels & 15 | level << 4;
        }
    }
    /// An entry was set in this fault, in an MMU where the event of the install is the only one.
    pub(crate) fn changed_silently(&mut self, span: u32, level: u8) {
        if let Some(o) = &mut self.open {
            o.p.span = span;
            o.p.levels = o.p.levels & 15 | level << 4;
        }
    }
    /// Whether the thread is handling a fault, and for which frame.
    pub(crate) fn gfn(&self) -> Option<u64> {
        self.open.map(|o| o.p.gfn).filter(|g| *g != u64::MAX)
    }
    /// Whether the thread is handling a fault.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }
    /// The open fault is for a write to a guest page, and nothing was installed for it.
    #[allow(clippy::option_option, reason = "whether there is such a write, and whether its frame is known")]
    pub(crate) fn unanswered_write(&self) -> Option<Option<u64>> {
        let o = self.open?;
        (!o.set && !o.changed && o.p.access().write && o.p.flags & Packed::MMIO == 0).then(|| self.gfn())
    }
}

/// All faults so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultTracker {
    pub(crate) done: Vec<Packed>,
}

impl FaultTracker {
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
            changed: false,
            set: false,
        });
    }

    fn close(&mut self, th: &mut Thread, ev: u32, ts: u64, ended: bool, fallback: Outcome) {
        let Some(mut o) = th.fault.open.take() else { return };
        o.p.last_event = ev;
        if ended {
            o.p.end_delta =
                u32::try_from(ts.saturating_sub(o.p.ts)).map_or(NO_DELTA - 1, |d| d.min(NO_DELTA - 1));
        }
        o.p.outcome = o.outcome.unwrap_or(if o.changed || o.set { Outcome::Fixed } else { fallback });
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
    pub(crate) fn lost(&mut self, threads: &mut [Thread], ev: u32, ts: u64) {
        for th in threads {
            self.close(th, ev, ts, false, Outcome::Unfinished);
            th.fault.exit = ExitNote::default();
        }
    }

    pub(crate) fn step(&mut self, th: &mut Thread, vm: u16, tdp: bool, ev: u32, ts: u64, e: &Event) {
        match e.body {
            Body::Exit { rip, .. } => {
                // No entry since: the recording has none, so when the fault ended is not known.
                self.close(th, ev, ts, false, Outcome::Retry);
                th.fault.exit = ExitNote { ts, rip, some: true };
            }
            Body::PageFault { rip, address, error_code, encoding, .. } => {
                self.close(th, ev, ts, false, Outcome::Retry);
                let (enc, flags, gfn) = match encoding {
                    ErrorEncoding::EptQualification => (0, Packed::GPA, Some(address >> 12)),
                    ErrorEncoding::NestedPageFault => (1, Packed::GPA, Some(address >> 12)),
                    ErrorEncoding::PageFault => (2, Packed::GVA, None),
                    ErrorEncoding::Ambiguous => (3, Packed::GPA, Some(address >> 12)),
                };
                Self::open(th, vm, ev, ts, address, gfn, flags | Packed::HAS_CODE, error_code, enc, rip);
            }
            Body::HandleMmioPageFault { gfn, .. } => {
                self.mmio(th, vm, ev, ts, gfn);
                if let Some(o) = &mut th.fault.open {
                    o.outcome = Some(Outcome::MmioHit);
                }
            }
            Body::MarkMmioSpte { gfn, .. } => {
                self.mmio(th, vm, ev, ts, gfn);
                if let Some(o) = &mut th.fault.open {
                    o.outcome = Some(Outcome::MmioInstalled);
                }
            }
            Body::FastMmio { gpa } => {
                self.mmio(th, vm, ev, ts, gpa >> 12);
                if let Some(o) = &mut th.fault.open {
                    o.outcome = Some(Outcome::Emulated);
                }
            }
            Body::Mmio { gpa, .. } if th.fault.open.is_some() => {
                if let Some(o) = &mut th.fault.open {
                    o.p.flags |= Packed::MMIO;
                    if o.p.gfn == u64::MAX {
                        o.p.gfn = gpa >> 12;
                    }
                    o.outcome = o.outcome.or(Some(Outcome::Emulated));
                    o.p.last_event = ev;
                }
            }
            Body::Entry { .. } => {
                self.close(th, ev, ts, true, Outcome::Retry);
                th.fault.exit = ExitNote::default();
            }
            Body::UserspaceExit { reason, errno } => {
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
                        o.outcome = o.outcome.or(Some(Outcome::Emulated));
                    }
                }
                self.close(th, ev, ts, true, Outcome::Retry);
            }
            _ => {
                let Some(o) = &mut th.fault.open else { return };
                match e.body {
                    Body::SpteRequested { gfn, level, .. } => {
                        o.p.gfn = gfn;
                        o.p.levels = o.p.levels & 0xf0 | level & 15;
                    }
                    Body::SetSpte { gfn, level, .. } => {
                        // Prefetched neighbours are set too; the page that was asked for is what the fault is about.
                        if o.p.gfn == u64::MAX
                            || o.p.gfn >> (9 * u32::from(level.clamp(1, 6) - 1))
                                == gfn >> (9 * u32::from(level.clamp(1, 6) - 1))
                        {
                            o.set = true;
                            if o.p.gfn == u64::MAX {
                                o.p.gfn = gfn;
                            }
                            o.p.levels = o.p.levels & 15 | level << 4;
                            if tdp && !o.changed {
                                o.outcome = o.outcome.or(Some(Outcome::Spurious));
                            }
                        }
                    }
                    Body::FastPageFault { result, .. } => match result {
                        FastPfResult::Fixed => o.outcome = Some(Outcome::FixedFast),
                        FastPfResult::Spurious => o.outcome = Some(Outcome::Spurious),
                        FastPfResult::Emulate => o.outcome = Some(Outcome::Emulated),
                        _ => {}
                    },
                    Body::EmulateInsn { .. } => {
                        o.outcome =
                            o.outcome.or(if o.changed || o.set { None } else { Some(Outcome::Emulated) })
                    }
                    Body::VcpuMatchMmio { .. } => {
                        o.p.flags |= Packed::MMIO;
                        o.outcome = o.outcome.or(Some(Outcome::Emulated));
                    }
                    Body::TryAsyncGetPage { .. } => o.outcome = Some(Outcome::Async),
                    Body::WalkerError { .. } | Body::NestedVmexit { .. } => o.outcome = Some(Outcome::Guest),
                    _ => return,
                }
                o.p.last_event = ev;
            }
        }
    }

    /// An MMIO event: the EPT misconfiguration that led to it has no `kvm_page_fault`.
    fn mmio(&mut self, th: &mut Thread, vm: u16, ev: u32, ts: u64, gfn: u64) {
        if th.fault.open.is_none() {
            Self::open(th, vm, ev, ts, gfn << 12, Some(gfn), Packed::GPA, 0, 0, None);
        }
        if let Some(o) = &mut th.fault.open {
            o.p.flags |= Packed::MMIO;
            if o.p.gfn == u64::MAX {
                o.p.gfn = gfn;
            }
            o.p.last_event = ev;
        }
    }
}
