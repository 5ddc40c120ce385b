//! The pages with the most of something.

use mmuscope_trace::Trace;
use rustc_hash::FxHashMap;

use crate::mmio::MmioSeen;
use crate::model::{MmioRange, TopPage, VmId, pages_of};
use crate::timeline::Timeline;
use crate::zaps::zaps_of;

impl Timeline {
    /// Frames with the most MMIO accesses; none where [no event shows them](Self::mmio_accesses_traced).
    pub fn top_mmio(&self, n: usize) -> Vec<TopPage> {
        top(self.mmio_seen.accessed().collect(), n)
    }

    /// [`mmio_ranges`](Self::mmio_ranges) of a stretch of time, both ends included, and of the frames from the first up to before the second.
    pub fn mmio_ranges_within(
        &self,
        trace: &Trace,
        (from, to): (u64, u64),
        gfns: Option<(u64, u64)>,
    ) -> Vec<MmioRange> {
        let end = trace.events.first_at_or_after(to.saturating_add(1)).min(self.events());
        let events = trace.events.range(0..end).filter_map(|e| Some((self.attribution().vm(&e)?, e)));
        let faults = self.engine.faults.all().map(|f| f.1).filter(|f| (from..=to).contains(&f.ts));
        MmioSeen::ranges_within(events, faults, from, gfns, self.mmio_accesses_traced())
    }

    /// Frames with the most faults.
    pub fn top_faults(&self, n: usize) -> Vec<TopPage> {
        self.top_faults_within(None, n)
    }

    /// [`top_faults`](Self::top_faults) among those from the first of two times to the second, both included.
    pub fn top_faults_within(&self, time: Option<(u64, u64)>, n: usize) -> Vec<TopPage> {
        let mut m: FxHashMap<(u16, u8, u64), TopPage> = FxHashMap::default();
        for (_, f) in self.engine.faults.all() {
            if f.gfn == u64::MAX || !inside(time, f.ts) {
                continue;
            }
            let as_id = self.as_id_of(f);
            let p = m.entry((f.vm, as_id, f.gfn)).or_insert(TopPage {
                vm: VmId(f.vm),
                as_id,
                gfn: f.gfn,
                level: 1,
                count: 0,
                first: f.ts,
                last: f.ts,
            });
            p.count += 1;
            p.first = p.first.min(f.ts);
            p.last = p.last.max(f.ts);
        }
        top(m.into_values().collect(), n)
    }

    /// Frames zapped most often, by whichever entries covered them: leaves, present or MMIO, that stopped mapping, on their own or with their
    /// table, each once. Of the frames of a large page the first is listed, and those that smaller entries zapped too; the level is that of
    /// the most zaps.
    pub fn top_zaps(&self, n: usize) -> Vec<TopPage> {
        self.top_zaps_within(None, n)
    }

    /// [`top_zaps`](Self::top_zaps) among those from the first of two times to the second, both included.
    pub fn top_zaps_within(&self, time: Option<(u64, u64)>, n: usize) -> Vec<TopPage> {
        let s = self.store();
        let mut own: FxHashMap<(u16, u8, u8, u64), TopPage> = FxHashMap::default();
        for e in s.entries_from(0) {
            for z in zaps_of(s, e).filter(|z| inside(time, z.ts)) {
                let ts = z.ts;
                let p = s.place(e);
                let t = &s.tables[p.table];
                let gfn = p.gfn / pages_of(p.level) * pages_of(p.level);
                let x = own.entry((t.vm, t.as_id, p.level, gfn)).or_insert(TopPage {
                    vm: VmId(t.vm),
                    as_id: t.as_id,
                    gfn,
                    level: p.level,
                    count: 0,
                    first: ts,
                    last: ts,
                });
                x.count += 1;
                x.first = x.first.min(ts);
                x.last = x.last.max(ts);
            }
        }
        let mut frames: FxHashMap<(u16, u8, u64), TopPage> = FxHashMap::default();
        for (vm, as_id, _, gfn) in own.keys().copied() {
            if frames.contains_key(&(vm, as_id, gfn)) {
                continue;
            }
            // Of every size that covers the frame, the most frequent first.
            let of = |level| own.get(&(vm, as_id, level, gfn / pages_of(level) * pages_of(level)));
            let mut all: Vec<&TopPage> = (1..=6u8).filter_map(of).collect();
            all.sort_by_key(|p| (std::cmp::Reverse(p.count), p.level));
            let sum = all.iter().copied().copied().reduce(|a, b| TopPage {
                count: a.count + b.count,
                first: a.first.min(b.first),
                last: a.last.max(b.last),
                ..a
            });
            if let Some(p) = sum {
                frames.insert((vm, as_id, gfn), TopPage { gfn, ..p });
            }
        }
        top(frames.into_values().collect(), n)
    }

    /// How many zaps there were, in every address space of every VM.
    pub fn zap_count(&self) -> u64 {
        self.all_zaps().count() as u64
    }
}

fn inside(time: Option<(u64, u64)>, ts: u64) -> bool {
    time.is_none_or(|(from, to)| (from..=to).contains(&ts))
}

pub(crate) fn top(mut v: Vec<TopPage>, n: usize) -> Vec<TopPage> {
    v.sort_by_key(|p| (std::cmp::Reverse(p.count), p.vm, p.as_id, p.gfn, p.level));
    v.truncate(n);
    v
}
