//! [`Noted`]: what one pass over the events gathers for the rules.

use super::aging::Aging;
use super::async_pf::AsyncFaults;
use super::cause::{Cause, What};
use super::dirty::Logging;
use super::huge::Sizes;
use super::invariants::OddValues;
use super::mmio_generation::Checks;
use super::mmio_ram::Ram;
use super::moment::{At, Change};
use super::nx::Recovery;
use super::ranges::{Range, Ranges};
use super::reserved::Walks;
use super::rings::Rings;
use super::rmp::Rmp;
use super::shadow::Shadows;
use super::split::Splits;
use super::zap_all::Churn;
use mmuscope_replay::{Attribution, Timeline, VmId};
use mmuscope_spte::{Layout, State};
use mmuscope_trace::{Body, Event, Isa, Strings, Trace, event_name};
use rustc_hash::FxHashMap as HashMap;

/// Most pages, and most threads, that are followed.
const MOST: usize = 1 << 14;

/// The mmu_notifier events of one thread about one host page. `first` and `last` are nanoseconds on the trace's clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Notifier {
    pub(super) unmaps: u64,
    pub(super) sets: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) events: Vec<u32>,
    pub(super) comm: String,
}

/// Consecutive kvm_mmu_spte_requested events of one thread for one frame.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    pub(super) tid: u32,
    pub(super) gfn: u64,
    pub(super) level: u8,
    pub(super) asked: Vec<(u64, u32)>,
    /// Number of installs in an entry of that frame, all of the same `value`.
    pub(super) sets: u64,
    pub(super) value: Option<u64>,
    /// Whether an entry was zapped, or set to another value, since the first request, so that asking again has a reason.
    pub(super) changed: bool,
}

/// An exit with which a vCPU stops for good, and what the thread did before it.
#[derive(Clone, Debug, Default)]
pub(super) struct End {
    pub(super) ts: u64,
    pub(super) event: u32,
    pub(super) tid: u32,
    pub(super) vcpu: Option<u32>,
    pub(super) rip: Option<u64>,
    /// The address and error code of an access that the guest's own page tables refused when KVM walked them.
    pub(super) walk: Option<(u64, u32)>,
    /// Whether an exception was injected into the guest after that walk.
    pub(super) injected: bool,
    /// Guest instruction pointer of the emulation that failed before.
    pub(super) failed: Option<u64>,
}

/// What a thread did since its last exit.
#[derive(Clone, Debug, Default)]
struct Thread {
    vcpu: Option<u32>,
    rip: Option<u64>,
    walk: Option<u64>,
    refused: Option<(u64, u32)>,
    injected: bool,
    failed: Option<u64>,
    requests: Requests,
    last_exit: u32,
}

/// What the rules need to know of the events.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) ranges: Ranges,
    pub(super) logging: Logging,
    pub(super) sizes: Sizes,
    pub(super) churn: Churn,
    pub(super) walks: Walks,
    pub(super) checks: Checks,
    pub(super) ram: Ram,
    pub(super) recovery: Recovery,
    pub(super) shadows: Shadows,
    pub(super) rings: Rings,
    pub(super) rmp: Rmp,
    pub(super) splits: Splits,
    pub(super) async_faults: AsyncFaults,
    pub(super) aging: Aging,
    /// The VMM's requests to make, change, move or delete a memory slot.
    pub(super) slots: Vec<Cause>,
    pub(super) odd: OddValues,
    pub(super) notifier: HashMap<(u32, u64), Notifier>,
    /// Number of mmu_notifier events by thread.
    pub(super) notifiers: HashMap<u32, u64>,
    pub(super) requests: Vec<Requests>,
    pub(super) triple: Vec<End>,
    pub(super) internal: Vec<End>,
    /// Whether an event shows page tables of five levels.
    pub(super) five_levels: bool,
    threads: HashMap<u32, Thread>,
    /// When each VM that ends is torn down.
    ends: HashMap<u16, u64>,
}

impl Noted {
    pub(super) fn gather(trace: &Trace, timeline: &Timeline) -> Self {
        let mut noted = Self { churn: Churn::of(timeline), ..Self::default() };
        let (layout, whose) = (&timeline.layout(VmId(0)).layout, timeline.attribution());
        noted.ends = timeline.vms().iter().filter_map(|v| Some((v.id.0, v.ended.as_ref()?.start))).collect();
        // What was not replayed is no evidence.
        for (n, e) in trace.events.iter().enumerate().take(timeline.events()) {
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            let e = timeline.counts_as(n, e);
            noted.event(n, &e, &trace.strings);
            noted.watch(n, &e, &trace.strings, layout, whose);
        }
        let open: Vec<Requests> =
            noted.threads.values_mut().map(|t| std::mem::take(&mut t.requests)).collect();
        for r in open {
            noted.end_of_requests(r);
        }
        noted.requests.sort_by_key(|r| r.asked.first().map(|(_, event)| *event));
        noted
    }

    /// Number of the event of a thread's last exit; 0 where there is none.
    pub(super) fn last_exit(&self, tid: u32) -> u32 {
        self.threads.get(&tid).map_or(0, |t| t.last_exit)
    }

    fn event(&mut self, n: u32, e: &Event, strings: &Strings) {
        let Some(tid) = e.tid else { return };
        match e.body {
            Body::UnmapHvaRange { start, .. } => self.notified(tid, n, e, strings, start, false),
            Body::SetSpteHva { hva } => self.notified(tid, n, e, strings, hva, true),
            Body::TdpSpteChanged { level, .. } => {
                self.five_levels |= level == 5;
                self.changed();
            }
            Body::GetPage { page, .. } => self.five_levels |= page.role.level == 5,
            Body::PrepareZapPage { .. } | Body::ZapAllFast { .. } => self.changed(),
            Body::SpteRequested { gfn, level, .. } => self.requested(tid, n, e.ts, gfn, level),
            Body::SetSpte { gfn, spte, .. } => {
                if let Some(t) = self.threads.get_mut(&tid).filter(|t| t.requests.gfn == gfn) {
                    let r = &mut t.requests;
                    r.changed |= r.value.is_some_and(|v| v != spte);
                    r.value = Some(spte);
                    r.sets += 1;
                }
            }
            _ => self.of_vcpu(tid, n, e, strings),
        }
    }

    /// Shows an event to the watchers of the rules.
    fn watch(&mut self, event: u32, e: &Event, strings: &Strings, layout: &Layout, whose: &Attribution) {
        let (ts, Some(tid)) = (e.ts, e.tid) else { return };
        let part_of_a_zap = matches!(e.body, Body::TdpSpteChanged { .. } | Body::PrepareZapPage { .. });
        if !part_of_a_zap && !e.body.kind().is_midway() {
            self.ranges.close(tid, event, ts);
            self.churn.close(tid);
        }
        let vm = |whose: &Attribution| whose.vm(e).map_or(0, |v| v.0);
        match e.body {
            // Most events: nothing is looked up for them.
            Body::Exit { .. } | Body::Entry { .. } | Body::Other { .. } | Body::Marker { .. } => return,
            Body::TdpSpteChanged { as_id, gfn, level, old_spte, new_spte } => {
                let (old, new) = (layout.decode(old_spte, level), layout.decode(new_spte, level));
                let c = Change { event, ts, tid, vm: vm(whose), as_id, level, gfn, old, new };
                self.change(&c, strings.get(e.comm), layout);
                return;
            }
            _ => {}
        }
        let at = At { event, ts, tid, vm: vm(whose), comm: strings.get(e.comm) };
        if let Body::UnmapHvaRange { start, end } = e.body {
            let range = Range {
                event,
                ts,
                tid,
                vm: at.vm,
                start,
                end,
                zapped: None,
                zaps: 0,
                last: None,
                closed: None,
            };
            self.ranges.begin(range);
        }
        if let Body::ProbeSetMemoryRegion { slot, gpa, size, .. } = e.body
            && self.slots.len() < MOST
        {
            self.slots.push(Cause::new(tid, (ts, event), What::Slots { slot, gpa, size }));
        }
        if let Body::ProbeSpteClear { .. } = e.body {
            self.ranges.cleared(&at);
        }
        self.logging.event(&at, &e.body, layout);
        self.sizes.event(&at, &e.body);
        self.aging.event(&at, &e.body, layout);
        self.churn.event(&at, &e.body);
        self.walks.event(&at, &e.body);
        self.checks.event(&at, &e.body);
        self.ram.event(&at, &e.body);
        self.shadows.event(&at, &e.body);
        self.rings.event(&at, &e.body);
        self.rmp.event(&at, &e.body);
        self.splits.event(&at, &e.body);
        self.async_faults.event(&at, &e.body);
    }

    /// Shows a change to the watchers of changes.
    fn change(&mut self, c: &Change, comm: &str, layout: &Layout) {
        let odd = || (c.vm, c.event, c.ts, c.gfn, c.level, c.new.raw);
        if c.new.state == State::Present && c.new.w == Some(true) && c.new.host_writable == Some(false) {
            self.odd.host_writable.push(odd());
        }
        if matches!(c.new.state, State::Present | State::Table) && layout.refuses(&c.new) {
            self.odd.refused.push(odd());
        }
        // What is zapped at a VM's end is no loss to it.
        if self.ends.get(&c.vm).is_some_and(|end| c.ts >= *end) {
            return;
        }
        self.ranges.change(c);
        self.logging.change(c, comm);
        self.sizes.change(c, self.ranges.of(c.tid).is_some(), comm);
        self.churn.change(c);
        self.recovery.change(c, comm);
    }

    fn thread(&mut self, tid: u32) -> Option<&mut Thread> {
        if self.threads.len() >= MOST && !self.threads.contains_key(&tid) {
            return None;
        }
        Some(self.threads.entry(tid).or_default())
    }

    fn of_vcpu(&mut self, tid: u32, n: u32, e: &Event, strings: &Strings) {
        let end = |t: &Thread| End {
            ts: e.ts,
            event: n,
            tid,
            vcpu: t.vcpu,
            rip: t.rip,
            walk: t.refused,
            injected: t.injected,
            failed: t.failed,
        };
        let Some(t) = self.thread(tid) else { return };
        match e.body {
            Body::Entry { vcpu, .. } => {
                t.vcpu = Some(vcpu);
                t.failed = None;
            }
            Body::Exit { vcpu, rip, isa, reason, .. } => {
                t.vcpu = vcpu.or(t.vcpu);
                t.rip = Some(rip);
                t.last_exit = n;
                let triple =
                    matches!((isa, reason), (Some(Isa::Vmx), Some(2)) | (Some(Isa::Svm), Some(0x7f)));
                let end = triple.then(|| end(t));
                (t.walk, t.refused, t.injected, t.failed) = (None, None, false, None);
                self.triple.extend(end.filter(|_| self.triple.len() < MOST));
            }
            Body::PagetableWalk { addr, .. } => t.walk = Some(addr),
            Body::WalkerError { pferr } => {
                (t.refused, t.injected) = (t.walk.map(|addr| (addr, pferr)), false);
            }
            Body::EmulateInsn { rip, failed } => t.failed = failed.then_some(rip),
            Body::UserspaceExit { reason: 17, errno: 0 } => {
                let end = end(t);
                self.internal.extend(Some(end).filter(|_| self.internal.len() < MOST));
            }
            Body::Other { .. } if event_name(&e.body, strings).ends_with("kvm_inj_exception") => {
                t.injected = t.refused.is_some();
            }
            _ => {}
        }
    }

    fn notified(&mut self, tid: u32, n: u32, e: &Event, strings: &Strings, hva: u64, set: bool) {
        self.changed();
        *self.notifiers.entry(tid).or_default() += 1;
        let key = (tid, hva >> 12);
        if self.notifier.len() >= MOST && !self.notifier.contains_key(&key) {
            return;
        }
        let one = self.notifier.entry(key).or_default();
        if one.events.is_empty() {
            one.first = e.ts;
            strings.get(e.comm).clone_into(&mut one.comm);
        }
        one.last = e.ts;
        one.unmaps += u64::from(!set);
        one.sets += u64::from(set);
        if one.events.len() < super::SHOWN {
            one.events.push(n);
        }
    }

    /// Notes for all threads that something was zapped, so that asking for a page again has a reason.
    fn changed(&mut self) {
        for t in self.threads.values_mut() {
            t.requests.changed |= t.requests.asked.len() > 1;
        }
    }

    fn requested(&mut self, tid: u32, n: u32, ts: u64, gfn: u64, level: u8) {
        let Some(t) = self.thread(tid) else { return };
        let mut ended = None;
        if t.requests.gfn != gfn || t.requests.asked.is_empty() || t.requests.changed {
            let fresh = Requests { tid, gfn, level, ..Requests::default() };
            ended = Some(std::mem::replace(&mut t.requests, fresh));
        }
        t.requests.asked.push((ts, n));
        if let Some(r) = ended {
            self.end_of_requests(r);
        }
    }

    fn end_of_requests(&mut self, r: Requests) {
        // A rule asks for at least three idle requests; shorter runs need not be kept.
        if r.asked.len() > 3 && self.requests.len() < MOST {
            self.requests.push(r);
        }
    }
}
