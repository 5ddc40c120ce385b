//! [`FaultState`], what a thread carries of the fault it is in, and [`Packed`], the record that is made of it. Rules that change an entry say
//! so here ([`FaultState::changed`]); how a fault begins and ends is the tracker's business.

use mmuscope_trace::{Body, FastPfResult};

use crate::keys::SpanIx;
use crate::model::{Access, Outcome, Shade, State};

/// RSVD in the error code of a #PF or a nested page fault: reserved bits were found, which KVM sets in MMIO SPTEs only.
pub(super) const PFERR_RSVD: u64 = 8;
/// No time from the exit to the fault.
pub(super) const NO_DELTA: u32 = u32::MAX;
/// No time from the fault to its end. Faults can take minutes (userfaultfd), which 32 bits of nanoseconds do not hold.
pub(super) const NO_END: u64 = u64::MAX;

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
    /// From `ts` to the end.
    pub(crate) end_delta: u64,
    /// From the exit to `ts`.
    pub(crate) exit_delta: u32,
    pub(crate) tid: u32,
    pub(crate) span: SpanIx,
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
        (self.end_delta != NO_END).then(|| self.ts.saturating_add(self.end_delta))
    }
    /// The guest's instruction pointer.
    pub(crate) fn rip(&self) -> Option<u64> {
        (self.flags & Self::HAS_RIP != 0).then_some(self.rip)
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
    pub(super) p: Packed,
    /// What an event said outright.
    pub(super) outcome: Option<Outcome>,
    /// A leaf was installed or changed: a change event says so, or the legacy MMU's one event of an install.
    pub(super) installed: bool,
    /// `kvm_mmu_set_spte` for the page that was asked for.
    pub(super) set: bool,
    /// What was installed does not allow writes.
    pub(super) protected: bool,
    /// KVM emulated the instruction.
    pub(super) emulated: bool,
    /// An asynchronous page fault was queued.
    pub(super) queued: bool,
    /// A walk of the guest's tables followed.
    pub(super) walked: bool,
}

impl Open {
    /// How it ended, from what happened since it began.
    pub(super) fn outcome(&self, tdp: bool) -> Outcome {
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
            // KVM finds a page it has just emulated an access to in a cache of the vCPU, which no event shows.
            None if hit && !requested => Outcome::MmioHit,
            // The legacy MMU works under its lock: what was asked for and not set was there already. The TDP MMU may have lost a race.
            None if requested && !tdp => Outcome::Spurious,
            None if !hit && self.p.flags & Packed::MMIO != 0 => Outcome::Emulated,
            None => Outcome::Retry,
        }
    }

    /// What is known of a fault whose end is not in the trace: an access to an MMIO SPTE that was emulated can end in no other way.
    pub(super) fn so_far(&self) -> Packed {
        let outcome = match self.outcome {
            Some(o @ (Outcome::MmioHit | Outcome::MmioInstalled)) => o,
            None if self.emulated && !self.installed && self.p.flags & Packed::HIT != 0 => Outcome::MmioHit,
            _ => Outcome::Unfinished,
        };
        Packed { outcome, ..self.p }
    }

    /// The outcome of a fault whose instruction was emulated.
    pub(super) fn emulation(&self) -> Outcome {
        if self.p.flags & Packed::HIT != 0 { Outcome::MmioHit } else { Outcome::Emulated }
    }

    /// Takes in an event of the thread, if it says something about a fault.
    pub(super) fn takes(&mut self, body: &Body) -> bool {
        let o = self;
        match *body {
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
            }
            Body::WalkerError { .. } | Body::NestedVmexit { .. } => o.outcome = Some(Outcome::Guest),
            _ => return false,
        }
        true
    }

    /// Whether an entry is of the page that was asked for; any is while that is not known.
    pub(super) fn is_for(&self, level: u8, gfn: u64) -> bool {
        let shift = 9 * u32::from(level.clamp(1, 6) - 1);
        self.p.gfn == u64::MAX || self.p.gfn >> shift == gfn >> shift
    }
}

/// A thread's exit that has not been followed by an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExitNote {
    pub(super) ts: u64,
    pub(super) rip: u64,
    pub(super) some: bool,
    /// It is for a fault, as far as is known.
    pub(super) faulted: bool,
    /// The exit itself says that an MMIO SPTE was hit, with its event and the guest physical address where it has that: until a fault is made
    /// of it. No `kvm_page_fault` follows an EPT misconfiguration, nor a nested page fault of an eventfd's page (7.0 and later).
    pub(super) mmio: Option<(u32, Option<u64>)>,
}

impl Default for ExitNote {
    fn default() -> Self {
        Self { ts: 0, rip: 0, some: false, faulted: true, mmio: None }
    }
}

/// What each thread carries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultState {
    pub(super) open: Option<Open>,
    pub(super) exit: ExitNote,
    /// Address, code and count of the last retried fault.
    pub(super) last: (u64, u64, u16),
    /// It was seen to enter the guest: so its entries are recorded, and with them the ends of its faults.
    pub(super) enters: bool,
}

impl FaultState {
    /// An entry was changed in this fault. That something was zapped, as a copy-on-write in the host does, mends nothing.
    pub(crate) fn changed(&mut self, span: SpanIx, level: u8, shade: Shade) {
        if let Some(o) = &mut self.open
            && matches!(shade.state(), State::Present | State::Mmio)
        {
            o.installed |= shade.state() == State::Present;
            o.p.span = span;
            o.p.levels = o.p.levels & 15 | level << 4;
        }
    }
    /// An entry was set in this fault, in an MMU where the event of the install is the only one. Neighbours are set with it.
    pub(crate) fn changed_silently(&mut self, span: SpanIx, level: u8, gfn: u64, shade: Shade) {
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
