//! [`hot_pages`]: the guest frames with the most faults, zaps and MMIO accesses, of the whole trace or of a stretch of it.
//!
//! Of the whole trace, the numbers are those of [`Timeline::top_faults`], [`Timeline::top_zaps`] and [`Timeline::top_mmio`], which `mmuscope
//! summary` and the report print.

use mmuscope_replay::{MmioAccesses, Timeline, TopPage, VmId, pages_of};
use mmuscope_trace::Trace;
use rustc_hash::FxHashMap as HashMap;

/// Which frames are asked about, and in what portions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HotQuery {
    /// The VM and address space; `None` is all of them.
    pub space: Option<(VmId, u8)>,
    /// First and last time, in nanoseconds on the trace's clock; `None` is the whole trace.
    pub time: Option<(u64, u64)>,
    /// Size of the portions: level 1 is one frame, 2 is 2 MiB, 3 is 1 GiB. Other levels count as 1.
    pub level: u8,
    /// First and last frame; `None` is all frames.
    pub gfns: Option<(u64, u64)>,
    /// The thread that faulted, accessed or zapped; `None` is all threads. Of one thread, the zap of a large page counts to its first frame.
    pub tid: Option<u32>,
}

/// What happened to a frame, or to all frames of an aligned range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotPage {
    /// VM.
    pub vm: VmId,
    /// Address space. MMIO accesses name none and count to address space 0.
    pub as_id: u8,
    /// The frame, or the first one of the range.
    pub gfn: u64,
    /// Number of frames in the range; 1 for a frame.
    pub frames: u64,
    /// Number of faults.
    pub faults: u64,
    /// Most faults of one vCPU at one address directly one after another; 0 where no fault is known.
    pub in_a_row: u64,
    /// Number of zaps: leaves, present or MMIO, that stopped mapping it. In a range, each entry counts by itself, to the range of its first frame.
    pub zaps: u64,
    /// Number of MMIO accesses.
    pub mmio: u64,
    /// Time of the first of all these, in nanoseconds on the trace's clock.
    pub first: u64,
    /// Time of the last of all these, in nanoseconds on the trace's clock.
    pub last: u64,
}

type Key = (VmId, u8, u64);

/// The portions that are counted so far.
struct Counting {
    query: HotQuery,
    frames: u64,
    pages: HashMap<Key, HotPage>,
}

impl Counting {
    fn page(&mut self, vm: VmId, as_id: u8, gfn: u64, (first, last): (u64, u64)) -> Option<&mut HotPage> {
        if self.query.space.is_some_and(|s| s != (vm, as_id))
            || self.query.gfns.is_some_and(|(from, to)| !(from..=to).contains(&gfn))
        {
            return None;
        }
        let gfn = gfn / self.frames * self.frames;
        let frames = self.frames;
        let fresh = HotPage { vm, as_id, gfn, frames, faults: 0, in_a_row: 0, zaps: 0, mmio: 0, first, last };
        let page = self.pages.entry((vm, as_id, gfn)).or_insert(fresh);
        (page.first, page.last) = (page.first.min(first), page.last.max(last));
        Some(page)
    }

    fn all(&mut self, of: Vec<TopPage>, add: impl Fn(&mut HotPage, u64)) {
        for p in of {
            if let Some(page) = self.page(p.vm, p.as_id, p.gfn, (p.first, p.last)) {
                add(page, p.count);
            }
        }
    }
}

/// The frames to which anything of the kind happened, those with the most faults first.
///
/// Whether accesses were recorded at all says [`Timeline::mmio_accesses_traced`]: where they were not, `mmio` is 0 and means nothing.
pub fn hot_pages(trace: &Trace, timeline: &Timeline, query: &HotQuery) -> Vec<HotPage> {
    let frames = if matches!(query.level, 2 | 3) { pages_of(query.level) } else { 1 };
    let mut counting = Counting { query: *query, frames, pages: HashMap::default() };
    match query.tid {
        None => counting.all(timeline.top_faults_within(query.time, usize::MAX), |p, n| p.faults += n),
        Some(tid) => faults_of(timeline, tid, &mut counting),
    }
    zaps(trace, timeline, &mut counting);
    match query.time {
        None if query.tid.is_some() => accesses(trace, timeline, timeline.range(), &mut counting),
        None => counting.all(timeline.top_mmio(usize::MAX), |p, n| p.mmio += n),
        Some(time) => accesses(trace, timeline, time, &mut counting),
    }
    for f in timeline.faults() {
        let inside = query.time.is_none_or(|(from, to)| (from..=to).contains(&f.ts));
        let inside = inside && query.tid.is_none_or(|t| t == f.tid);
        let inside = inside && query.gfns.is_none_or(|(a, b)| f.gfn.is_some_and(|g| (a..=b).contains(&g)));
        let page = f.gfn.map(|gfn| (f.vm, f.as_id, gfn / frames * frames));
        if let Some(p) = page.filter(|_| inside).and_then(|key| counting.pages.get_mut(&key)) {
            p.in_a_row = p.in_a_row.max(u64::from(f.retries) + 1);
        }
    }
    let mut out: Vec<HotPage> = counting.pages.into_values().collect();
    out.sort_by_key(|p| (std::cmp::Reverse((p.faults, p.zaps, p.mmio)), p.vm, p.as_id, p.gfn));
    out
}

fn faults_of(timeline: &Timeline, tid: u32, counting: &mut Counting) {
    let time = counting.query.time;
    for f in timeline.faults().filter(|f| f.tid == tid) {
        if time.is_some_and(|(from, to)| !(from..=to).contains(&f.ts)) {
            continue;
        }
        if let Some(p) = f.gfn.and_then(|gfn| counting.page(f.vm, f.as_id, gfn, (f.ts, f.ts))) {
            p.faults += 1;
        }
    }
}

fn zaps(trace: &Trace, timeline: &Timeline, counting: &mut Counting) {
    if counting.frames == 1 && counting.query.tid.is_none() {
        counting.all(timeline.top_zaps_within(counting.query.time, usize::MAX), |p, n| p.zaps += n);
        return;
    }
    for z in timeline.all_zaps() {
        if counting.query.time.is_some_and(|(from, to)| !(from..=to).contains(&z.ts)) {
            continue;
        }
        if counting.query.tid.is_some_and(|t| trace.events.get(z.event as usize).tid != Some(t)) {
            continue;
        }
        let e = timeline.entry(z.entry);
        if let Some(p) = counting.page(e.vm, e.as_id, e.gfn, (z.ts, z.ts)) {
            p.zaps += 1;
        }
    }
}

/// Counts the MMIO accesses of a stretch of time.
fn accesses(trace: &Trace, timeline: &Timeline, (from, to): (u64, u64), counting: &mut Counting) {
    // An access may have begun before the stretch, so all events up to its end pass.
    let mut seen = MmioAccesses::default();
    let end = trace.events.first_at_or_after(to.saturating_add(1)).min(timeline.events());
    for e in trace.events.range(0..end) {
        let Some(gpa) = seen.address(&e) else { continue };
        if e.ts < from || counting.query.tid.is_some_and(|t| e.tid != Some(t)) {
            continue;
        }
        if let Some(vm) = timeline.attribution().vm(&e)
            && let Some(p) = counting.page(vm, 0, gpa >> 12, (e.ts, e.ts))
        {
            p.mmio += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mmuscope_replay::{ReplayOptions, replay};
    use mmuscope_testing::fixture;

    const TEXT: &str = "\
layout C/npt
1 t1 root
+1 t1 entry 0
+1 t1 exit
+1 t1 page 3 0
+1 t1 tdp 4 0 empty T11
+1 t1 page 2 0
+1 t1 tdp 3 0 empty T12
+1 t1 page 1 0
+1 t1 tdp 2 0 empty T13
+1 t1 entry 0
100 t1 exit
+1 t1 fault 5 w
+1 t1 entry 0
+1 t1 exit
+1 t1 fault 5 w
+1 t1 tdp 1 5 empty W55
+1 t1 entry 0
200 t1 tdp 1 5 W55 empty
+1 t1 exit
+1 t1 fault 5 w
+1 t1 tdp 1 5 empty W55
+1 t1 entry 0
+1 t1 exit
+1 t1 kvm_mmio mmio unsatisfied-read len 4 gpa 0x7000 val 0x0
300 t1 kvm_mmio mmio read len 4 gpa 0x7000 val 0x1
+1 t1 kvm_mmio mmio write len 4 gpa 0x7000 val 0x1
+1 t1 tdp 1 5 W55 empty
";

    fn numbers(pages: &[HotPage]) -> Vec<(u64, u64, u64, u64, u64)> {
        pages.iter().map(|p| (p.gfn, p.faults, p.in_a_row, p.zaps, p.mmio)).collect()
    }

    #[test]
    fn frames_ranges_and_stretches_of_time_are_counted() {
        let trace = fixture::trace(TEXT).expect("lines of the language");
        let t = replay(&trace, &ReplayOptions::default());
        let of = |query: HotQuery| numbers(&hot_pages(&trace, &t, &query));
        // The read that user space answers is traced twice and is one access.
        assert_eq!(of(HotQuery::default()), [(5, 3, 2, 2, 0), (7, 0, 0, 0, 2)]);
        assert_eq!(of(HotQuery { level: 2, ..HotQuery::default() }), [(0, 3, 2, 2, 2)]);
        let first = t.range().0;
        let until = |a: u64, b: u64| HotQuery {
            time: Some((first - 1000 + a, first - 1000 + b)),
            ..HotQuery::default()
        };
        assert_eq!(of(until(0, 199_999)), [(5, 2, 2, 0, 0)]);
        // The read began before: only the write is of this stretch.
        assert_eq!(of(until(300_000, 400_000)), [(5, 0, 0, 1, 0), (7, 0, 0, 0, 1)]);
        let other = HotQuery { space: Some((VmId(0), 1)), ..HotQuery::default() };
        assert_eq!(of(other), []);
        let some = HotQuery { gfns: Some((6, 0x1ff)), ..HotQuery::default() };
        assert_eq!(of(some), [(7, 0, 0, 0, 2)]);
        assert_eq!(of(HotQuery { level: 2, ..some }), [(0, 0, 0, 0, 2)]);
        let tid = t.faults().next().expect("a fault").tid;
        assert_eq!(of(HotQuery { tid: Some(tid), ..HotQuery::default() }), of(HotQuery::default()));
        assert_eq!(of(HotQuery { tid: Some(tid + 99), ..HotQuery::default() }), []);
    }

    #[test]
    fn the_whole_trace_has_the_numbers_of_the_lists_that_the_report_prints() {
        let trace = fixture::trace(TEXT).expect("lines of the language");
        let t = replay(&trace, &ReplayOptions::default());
        let pages = hot_pages(&trace, &t, &HotQuery::default());
        let all = hot_pages(&trace, &t, &HotQuery { time: Some(t.range()), ..HotQuery::default() });
        assert_eq!(pages, all);
        let sum = |pages: Vec<TopPage>| pages.iter().map(|p| p.count).sum::<u64>();
        assert_eq!(pages.iter().map(|p| p.faults).sum::<u64>(), sum(t.top_faults(99)));
        assert_eq!(pages.iter().map(|p| p.zaps).sum::<u64>(), sum(t.top_zaps(99)));
        assert_eq!(pages.iter().map(|p| p.mmio).sum::<u64>(), sum(t.top_mmio(99)));
    }
}
