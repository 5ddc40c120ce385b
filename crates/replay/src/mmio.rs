//! Frames that behave as MMIO: accesses, faults and SPTEs.

use mmuscope_trace::{Body, Event};
use mmuscope_units::ranges;
use rustc_hash::FxHashMap;

use crate::faults::state::Packed;
use crate::model::{MmioRange, TopPage, VmId};

/// `kvm_mmio.type` of a read that the kernel cannot answer itself.
const UNSATISFIED: u32 = 0;
/// `kvm_mmio.type` of a read.
const READ: u32 = 1;

/// What an MMIO access is: one read or write that KVM's emulator makes (`kvm_mmio`), or one `kvm_fast_mmio`. A read that user space answers
/// is traced twice, as `unsatisfied-read` and, when KVM_RUN goes on, as `read`: it is one access, at the first of the two. An instruction
/// may make several, and an MMIO fault none, so faults are counted apart.
#[derive(Clone, Debug, Default)]
pub struct MmioAccesses {
    /// Threads that wait for user space, with the address they read.
    waiting: FxHashMap<u32, u64>,
}

impl MmioAccesses {
    /// The guest physical address of the access that an event begins.
    pub fn address(&mut self, e: &Event) -> Option<u64> {
        let (kind, gpa) = match e.body {
            Body::Mmio { kind, gpa, .. } => (kind, gpa),
            Body::FastMmio { gpa } => return Some(gpa),
            _ => return None,
        };
        let Some(tid) = e.tid else { return Some(gpa) };
        let waited = self.waiting.remove(&tid);
        if kind == UNSATISFIED {
            self.waiting.insert(tid, gpa);
        }
        (kind != READ || waited != Some(gpa)).then_some(gpa)
    }
}

/// What is known of the MMIO of a trace while it passes.
#[derive(Clone, Debug, Default)]
pub(crate) struct MmioSeen {
    accesses: MmioAccesses,
    pages: FxHashMap<(u16, u64), Page>,
    /// Faults that are counted.
    faults: usize,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    accesses: u64,
    faults: u64,
    installs: u64,
    first: u64,
    last: u64,
    generations: Option<(u32, u32)>,
}

impl MmioSeen {
    fn page(&mut self, vm: u16, gfn: u64, ts: u64) -> &mut Page {
        let p = self.pages.entry((vm, gfn)).or_insert(Page {
            accesses: 0,
            faults: 0,
            installs: 0,
            first: ts,
            last: ts,
            generations: None,
        });
        (p.first, p.last) = (p.first.min(ts), p.last.max(ts));
        p
    }

    fn fault(&mut self, f: &Packed) {
        if f.flags & Packed::MMIO != 0 && f.gfn != u64::MAX {
            self.page(f.vm, f.gfn, f.ts).faults += 1;
        }
    }

    /// Takes in an event of a VM's thread.
    pub(crate) fn note(&mut self, vm: u16, ts: u64, e: &Event) {
        if let Some(gpa) = self.accesses.address(e) {
            self.page(vm, gpa >> 12, ts).accesses += 1;
        } else if let Body::MarkMmioSpte { gfn, generation: g, .. } = e.body {
            let p = self.page(vm, gfn, ts);
            p.installs += 1;
            p.generations = Some(p.generations.map_or((g, g), |(a, b)| (a.min(g), b.max(g))));
        }
    }

    /// The ranges, with the faults that have ended since the last time and those that are open; `traced` is whether any event shows accesses.
    pub(crate) fn ranges(&mut self, done: &[Packed], open: &[Packed], traced: bool) -> Vec<MmioRange> {
        for f in &done[self.faults.min(done.len())..] {
            self.fault(f);
        }
        self.faults = done.len();
        if open.iter().any(|f| f.flags & Packed::MMIO != 0) {
            let mut seen = self.clone();
            for f in open {
                seen.fault(f);
            }
            return seen.merged(traced);
        }
        self.merged(traced)
    }

    /// The ranges of what happened from a time on, of the frames from the first up to before the second. `events` are those of VMs up to the end,
    /// each with its VM: an access may have begun before the time, so that all of them pass.
    pub(crate) fn ranges_within<'a>(
        events: impl Iterator<Item = (VmId, Event)>,
        faults: impl Iterator<Item = &'a Packed>,
        from: u64,
        gfns: Option<(u64, u64)>,
        traced: bool,
    ) -> Vec<MmioRange> {
        let mut seen = Self::default();
        for (vm, e) in events {
            if !matches!(e.body, Body::Mmio { .. } | Body::FastMmio { .. } | Body::MarkMmioSpte { .. }) {
                continue;
            }
            if e.ts >= from {
                seen.note(vm.0, e.ts, &e);
            } else {
                seen.accesses.address(&e);
            }
        }
        faults.for_each(|f| seen.fault(f));
        seen.pages.retain(|(_, gfn), _| gfns.is_none_or(|(a, b)| (a..b).contains(gfn)));
        seen.merged(traced)
    }

    /// Frames that were accessed.
    pub(crate) fn accessed(&self) -> impl Iterator<Item = TopPage> + '_ {
        let pages = self.pages.iter().filter(|(_, p)| p.accesses > 0);
        pages.map(|((vm, gfn), p)| TopPage {
            vm: VmId(*vm),
            as_id: 0,
            gfn: *gfn,
            level: 1,
            count: p.accesses,
            first: p.first,
            last: p.last,
        })
    }

    fn merged(&self, traced: bool) -> Vec<MmioRange> {
        let mut v: Vec<MmioRange> = self
            .pages
            .iter()
            .map(|((vm, gfn), p)| MmioRange {
                vm: VmId(*vm),
                gfn_start: *gfn,
                gfn_end: gfn.saturating_add(1),
                accesses: traced.then_some(p.accesses),
                faults: p.faults,
                installs: p.installs,
                first: p.first,
                last: p.last,
                generations: p.generations,
            })
            .collect();
        v.sort_by_key(|r| (r.vm, r.gfn_start));
        ranges::fold(v, |l, r| {
            let same = l.vm == r.vm && l.gfn_end >= r.gfn_start && alike(l, r);
            if same {
                l.gfn_end = l.gfn_end.max(r.gfn_end);
                l.accesses = l.accesses.zip(r.accesses).map(|(a, b)| a + b);
                l.faults += r.faults;
                l.installs += r.installs;
                l.first = l.first.min(r.first);
                l.last = l.last.max(r.last);
                l.generations = match (l.generations, r.generations) {
                    (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
                    (a, b) => a.or(b),
                };
            }
            same
        })
    }
}

/// Neighbouring pages that are used alike are one device's.
fn alike(a: &MmioRange, b: &MmioRange) -> bool {
    // I/O APIC, HPET and local APIC, where every PC has them: their neighbours are other devices.
    const FIXED: [u64; 3] = [0xfec00, 0xfed00, 0xfee00];
    if FIXED.iter().any(|f| b.gfn_start == *f || a.gfn_end == f + 1) {
        return false;
    }
    let n = a.gfn_end - a.gfn_start;
    let (a_used, b_used) = (a.accesses.unwrap_or(a.faults) / n, b.accesses.unwrap_or(b.faults));
    let close = a_used.max(b_used) <= a_used.min(b_used).saturating_mul(4).max(4);
    close && (a.installs == 0) == (b.installs == 0)
}
