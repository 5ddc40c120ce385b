//! Ranges of frames that behave as MMIO.

use rustc_hash::FxHashMap;

use crate::model::{MmioRange, VmId};
use crate::timeline::Timeline;

impl Timeline {
    pub(crate) fn note_mmio(&mut self, e: &mmuscope_trace::Event) {
        use mmuscope_trace::Body;
        let (gfn, access, install, generation) = match e.body {
            Body::Mmio { gpa, .. } | Body::FastMmio { gpa } => (gpa >> 12, 1, 0, None),
            Body::HandleMmioPageFault { gfn, .. } => (gfn, 1, 0, None),
            Body::MarkMmioSpte { gfn, generation, .. } => (gfn, 0, 1, Some(generation)),
            _ => return,
        };
        let vm = e.tid.and_then(|t| self.engine.vms.of_tid(t)).unwrap_or(0);
        let r = self.mmio_seen.entry((vm, gfn)).or_insert(MmioRange {
            vm: VmId(vm),
            gfn_start: gfn,
            gfn_end: gfn.saturating_add(1),
            accesses: 0,
            installs: 0,
            first: e.ts,
            last: e.ts,
            generations: None,
        });
        r.accesses += access;
        r.installs += install;
        r.last = e.ts;
        if let Some(g) = generation {
            r.generations = Some(r.generations.map_or((g, g), |(a, b)| (a.min(g), b.max(g))));
        }
    }

    /// Where MMIO accesses went.
    pub fn mmio_ranges(&self) -> &[MmioRange] {
        &self.mmio
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
    let per_page = a.accesses / n;
    let close = per_page.max(b.accesses) <= per_page.min(b.accesses).saturating_mul(4).max(4);
    close && (a.installs == 0) == (b.installs == 0)
}

pub(crate) fn merge_mmio(seen: &FxHashMap<(u16, u64), MmioRange>) -> Vec<MmioRange> {
    let mut v: Vec<MmioRange> = seen.values().copied().collect();
    v.sort_by_key(|r| (r.vm, r.gfn_start));
    let mut out: Vec<MmioRange> = Vec::new();
    for r in v {
        match out.last_mut() {
            Some(l) if l.vm == r.vm && l.gfn_end >= r.gfn_start && alike(l, &r) => {
                l.gfn_end = l.gfn_end.max(r.gfn_end);
                l.accesses += r.accesses;
                l.installs += r.installs;
                l.first = l.first.min(r.first);
                l.last = l.last.max(r.last);
                l.generations = match (l.generations, r.generations) {
                    (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
                    (a, b) => a.or(b),
                };
            }
            _ => out.push(r),
        }
    }
    out
}
