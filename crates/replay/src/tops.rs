//! The pages with the most of something.

use rustc_hash::FxHashMap;

use crate::model::{TopPage, VmId};
use crate::timeline::Timeline;
use crate::zaps::zaps_of;

impl Timeline {
    /// Frames with the most faults.
    pub fn top_faults(&self, n: usize) -> Vec<TopPage> {
        let mut m: FxHashMap<(u16, u64), TopPage> = FxHashMap::default();
        for (_, f) in self.engine.faults.all() {
            if f.gfn == u64::MAX {
                continue;
            }
            let p = m.entry((f.vm, f.gfn)).or_insert(TopPage {
                vm: VmId(f.vm),
                as_id: 0,
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

    /// Entries zapped most often: leaves, present or MMIO, that stopped mapping, on their own or with their table, each once.
    pub fn top_zaps(&self, n: usize) -> Vec<TopPage> {
        let s = self.store();
        let mut m: FxHashMap<(u16, u8, u8, u64), TopPage> = FxHashMap::default();
        for e in (0..s.slots()).filter(|e| s.used(*e)) {
            for z in zaps_of(s, e) {
                let ts = z.ts;
                let p = s.place(e);
                let t = &s.tables[p.table as usize];
                let x = m.entry((t.vm, t.as_id, p.level, p.gfn)).or_insert(TopPage {
                    vm: VmId(t.vm),
                    as_id: t.as_id,
                    gfn: p.gfn,
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
        top(m.into_values().collect(), n)
    }
}

pub(crate) fn top(mut v: Vec<TopPage>, n: usize) -> Vec<TopPage> {
    v.sort_by(|a, b| {
        b.count.cmp(&a.count).then(a.vm.cmp(&b.vm)).then(a.gfn.cmp(&b.gfn)).then(a.level.cmp(&b.level))
    });
    v.truncate(n);
    v
}
