//! Counts of events over time: sums of stretches, from the kind of each event (`kinds`), its spans and the faults.

use rustc_hash::FxHashMap;

use crate::faults::state::Packed;
use crate::keys::{Ix, SpanIx};
use crate::kinds::COUNT;
use crate::model::Bin;
use crate::store::Store;
use crate::zaps::{begins_with_zap, goes_with_table};

/// Events per stretch with a sum.
const BLOCK: usize = 4096;

/// Sums per stretch of events.
#[derive(Clone, Debug, Default)]
pub(crate) struct KindSums {
    /// Events of each kind before block b.
    before: Vec<[u32; COUNT]>,
}

impl KindSums {
    pub(crate) fn seal(&mut self, store: &Store) {
        let mut acc = self.before.last().copied().unwrap_or([0; COUNT]);
        if self.before.is_empty() {
            self.before.push(acc);
        }
        while self.before.len() * BLOCK <= store.ev_kind.len() {
            let b = self.before.len() - 1;
            for k in &store.ev_kind[b * BLOCK..(b + 1) * BLOCK] {
                acc[usize::from(*k).min(COUNT - 1)] += 1;
            }
            self.before.push(acc);
        }
    }

    /// Events of a kind before event `ev`.
    fn rank(&self, store: &Store, kind: u8, ev: usize) -> u64 {
        let b = (ev / BLOCK).min(self.before.len().saturating_sub(1));
        let Some(base) = self.before.get(b) else { return 0 };
        let rest =
            store.ev_kind[b * BLOCK..ev.min(store.ev_kind.len())].iter().filter(|k| **k == kind).count();
        u64::from(base[usize::from(kind).min(COUNT - 1)]) + rest as u64
    }

    fn first(&self, store: &Store, kind: u8, from: usize, to: usize) -> Option<u32> {
        store.ev_kind.get(from..to)?.iter().position(|k| *k == kind).map(|i| (from + i) as u32)
    }

    pub(crate) fn total(&self, store: &Store, kind: u8) -> u64 {
        self.rank(store, kind, store.ev_kind.len())
    }

    /// Buckets of equal width; `kind` `None` counts every event.
    pub(crate) fn bins(&self, store: &Store, kind: Option<u8>, t0: u64, t1: u64, n: usize) -> Vec<Bin> {
        let n = n.max(1);
        // Each bucket is looked at in four parts, so that its highest does not drown.
        let sub = 4;
        let edge = |i: usize| t0 + ((t1.saturating_sub(t0)) as u128 * i as u128 / (n * sub) as u128) as u64;
        let pos = |t: u64| if t == 0 { 0 } else { store.ev_ts.upto(t - 1) };
        let mut out = Vec::with_capacity(n);
        let mut at = pos(t0);
        let mut r_at = kind.map_or(at as u64, |k| self.rank(store, k, at));
        for i in 0..n {
            let mut bin = Bin::default();
            let start = at;
            for j in 1..=sub {
                let e = if i + 1 == n && j == sub { store.ev_ts.upto(t1) } else { pos(edge(i * sub + j)) }
                    .max(at);
                let r = kind.map_or(e as u64, |k| self.rank(store, k, e));
                let c = r - r_at;
                bin.count += c;
                bin.max = bin.max.max(c);
                at = e;
                r_at = r;
            }
            if bin.count > 0 {
                bin.first_event = match kind {
                    None => Some(start as u32),
                    Some(k) => self.first(store, k, start, at),
                };
            }
            out.push(bin);
        }
        out
    }

    pub(crate) fn heap(&self) -> usize {
        self.before.capacity() * 192
    }
}

/// Buckets of equal width over anything that can be counted up to a moment: `upto(t)` is how many there were before `t`, `first(a, b)` the
/// event of the first of number `a` to `b`. Each bucket is looked at in four parts, so that its highest does not drown.
fn bins_by<C: Clone>(
    upto: impl Fn(u64) -> C,
    count: impl Fn(&C, &C) -> u64,
    first: impl Fn(&C, &C) -> Option<u32>,
    t0: u64,
    t1: u64,
    n: usize,
) -> Vec<Bin> {
    let subs = n.max(1) as u128 * 4;
    let width = u128::from(t1.saturating_sub(t0).max(1));
    let mut at = upto(t0);
    let mut out = vec![Bin::default(); n.max(1)];
    let mut start = at.clone();
    for s in 0..subs {
        let edge = t0 + ((s + 1) * width).div_ceil(subs) as u64;
        let end = upto(if s + 1 == subs { t1.saturating_add(1) } else { edge });
        let c = count(&at, &end);
        let bin = &mut out[(s / 4) as usize];
        bin.count += c;
        bin.max = bin.max.max(c);
        if s % 4 == 3 {
            if bin.count > 0 {
                bin.first_event = first(&start, &end);
            }
            start.clone_from(&end);
        }
        at = end;
    }
    out
}

/// Spans with a sum of zaps.
const ZAP_BLOCK: usize = 256;

/// Faults by thread and zaps, as sums that buckets are cut from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    /// Events of the faults of each thread, in order.
    faults: FxHashMap<u32, Vec<u32>>,
    taken: usize,
    /// Zaps before each block of spans.
    zaps: Vec<u32>,
    /// Leaves that went with their tables, before each unlinking.
    torn: Vec<u32>,
}

impl Sums {
    pub(crate) fn seal(&mut self, store: &Store, faults: &[Packed]) {
        for f in &faults[self.taken.min(faults.len())..] {
            let v = self.faults.entry(f.tid).or_default();
            // A thread has one fault at a time.
            let at = v.partition_point(|e| *e <= f.event);
            v.insert(at, f.event);
        }
        self.taken = faults.len();
        let mut sum = self.zaps.last().copied().unwrap_or(0);
        if self.zaps.is_empty() {
            self.zaps.push(0);
        }
        while self.zaps.len() * ZAP_BLOCK <= store.spans_len() {
            let b = self.zaps.len() - 1;
            let block = SpanIx::nth(b * ZAP_BLOCK).upto(SpanIx::nth((b + 1) * ZAP_BLOCK));
            sum += block.filter(|i| begins_with_zap(store, *i)).count() as u32;
            self.zaps.push(sum);
        }
        let mut sum = self.torn.last().copied().unwrap_or(0);
        if self.torn.is_empty() {
            self.torn.push(0);
        }
        for t in &store.detaches[self.torn.len() - 1..] {
            let r = &store.tables[*t];
            sum += store.table_entries(*t).filter(|e| goes_with_table(store, r, *e)).count() as u32;
            self.torn.push(sum);
        }
    }

    /// What was recorded changed: zaps are counted anew.
    pub(crate) fn forget_zaps(&mut self) {
        self.zaps.clear();
        self.torn.clear();
    }

    /// Gives back what growing took in reserve.
    pub(crate) fn shrink(&mut self) {
        self.faults.values_mut().for_each(Vec::shrink_to_fit);
        self.zaps.shrink_to_fit();
        self.torn.shrink_to_fit();
    }

    /// Faults of one thread, or of all.
    pub(crate) fn fault_bins(
        &self,
        store: &Store,
        open: &[Packed],
        tid: Option<u32>,
        t0: u64,
        t1: u64,
        n: usize,
    ) -> Vec<Bin> {
        let open: Vec<u32> =
            open.iter().filter(|f| tid.is_none_or(|t| t == f.tid)).map(|f| f.event).collect();
        let mut lists: Vec<&Vec<u32>> = match tid {
            Some(t) => self.faults.get(&t).into_iter().collect(),
            None => self.faults.values().collect(),
        };
        lists.push(&open);
        // Where each list is at a moment.
        let upto = |t: u64| {
            let ev = events_before(store, t);
            lists.iter().map(|l| l.partition_point(|e| *e < ev)).collect::<Vec<_>>()
        };
        let count = |a: &Vec<usize>, b: &Vec<usize>| a.iter().zip(b).map(|(a, b)| (b - a) as u64).sum();
        let first = |a: &Vec<usize>, b: &Vec<usize>| {
            lists.iter().zip(a.iter().zip(b)).filter(|(_, (a, b))| a < b).map(|(l, (a, _))| l[*a]).min()
        };
        bins_by(upto, count, first, t0, t1, n)
    }

    /// Changes of entries, or only zaps.
    pub(crate) fn change_bins(&self, store: &Store, zap: bool, t0: u64, t1: u64, n: usize) -> Vec<Bin> {
        let spans_before = |t: u64| {
            let ev = events_before(store, t);
            store.s_ev.partition_point(|e| *e < ev)
        };
        if !zap {
            let first = |a: &SpanIx, _: &SpanIx| store.s_ev.get(*a).copied();
            return bins_by(spans_before, |a, b| u64::from(b.since(*a)), first, t0, t1, n);
        }
        let first = |a: &(SpanIx, u64, usize), b: &(SpanIx, u64, usize)| {
            // Blocks without any are passed over.
            let own = a.1 - u64::from(self.torn[a.2]);
            let block = self.zaps.partition_point(|z| u64::from(*z) <= own).saturating_sub(1);
            let from = a.0.max(SpanIx::nth(block * ZAP_BLOCK));
            let span = from.upto(b.0).find(|i| begins_with_zap(store, *i)).map(|i| store.s_ev[i]);
            let table = (a.2..b.2).find(|d| self.torn[*d] < self.torn[d + 1]);
            let table = table.map(|d| store.tables[store.detaches[d]].detach_ev);
            span.into_iter().chain(table).min()
        };
        let upto = |t: u64| {
            let ev = events_before(store, t);
            let p = store.s_ev.partition_point(|e| *e < ev);
            let b = (p.position() / ZAP_BLOCK).min(self.zaps.len().saturating_sub(1));
            let rest =
                SpanIx::nth(b * ZAP_BLOCK).upto(p).filter(|i| begins_with_zap(store, *i)).count() as u64;
            let d = store.detaches.partition_point(|t| store.tables[*t].detach_ev < ev);
            let torn = self.torn.get(d).copied().unwrap_or(0);
            (p, u64::from(self.zaps.get(b).copied().unwrap_or(0)) + rest + u64::from(torn), d)
        };
        bins_by(upto, |a, b| b.1 - a.1, first, t0, t1, n)
    }

    pub(crate) fn heap(&self) -> usize {
        (self.zaps.capacity() + self.torn.capacity()) * 4
            + self.faults.values().map(|v| v.capacity() * 4 + 40).sum::<usize>()
    }
}

fn events_before(store: &Store, t: u64) -> u32 {
    if t == 0 { 0 } else { store.ev_ts.upto(t - 1) as u32 }
}
