//! What the spans of each address space add up to over time.

use std::collections::BTreeMap;

use mmuscope_replay::{Certainty, Fault, Shade, Span, State, Timeline, Vm, VmId, pages_of};

use super::{Clock, Options, map, memory};
use crate::{
    model::{LevelSeries, OverTime, PhaseReport, SpaceReport, StateSeries},
    svg::overview::STEPS,
    words,
};

/// Shades in the order in which they are stacked, from the bottom.
const STACK: [Shade; 5] =
    [Shade::Writable, Shade::ReadOnly, Shade::AccessTracked, Shade::Mmio, Shade::Removed];

/// Up to so many changes peaks are exact; beyond, they are the highest of as many samples.
const EXACT: usize = 4_000_000;

/// Sums of one address space.
#[derive(Default)]
pub(super) struct Sums {
    /// Change of the number of entries per shade in each stretch.
    entries: [Vec<i64>; 8],
    stale_entries: [Vec<i64>; 8],
    /// Change of present bytes per level.
    bytes: [Vec<i64>; 6],
    stale_bytes: [Vec<i64>; 6],
    zaps: Vec<u64>,
    /// Changes of present bytes, for the peak.
    steps: Vec<(u64, i64)>,
    /// Changes of entries per shade, for the peaks.
    shade_steps: Vec<(u64, u8, i8)>,
    /// Everything that ever mapped a page or marked MMIO.
    pub(super) leaves: Vec<map::Leaf>,
}

/// Sums of all address spaces.
pub(super) struct Spaces {
    spaces: BTreeMap<(VmId, u8), Sums>,
    step: u64,
}

/// Phases by the VM whose process marked them: those of one follow each other.
struct PhaseLists(BTreeMap<Option<u16>, Vec<(u64, usize)>>);

impl PhaseLists {
    fn new(phases: &[PhaseReport]) -> Self {
        let mut lists: BTreeMap<Option<u16>, Vec<(u64, usize)>> = BTreeMap::new();
        for (i, p) in phases.iter().enumerate() {
            lists.entry(p.vm).or_default().push((p.start, i));
        }
        Self(lists)
    }

    /// The phases that a moment of a VM lies in: one of its own process, one that another marked.
    fn at(&self, vm: VmId, t: u64) -> impl Iterator<Item = usize> + '_ {
        [Some(vm.0), None].into_iter().filter_map(move |v| {
            let list = self.0.get(&v)?;
            list.partition_point(|p| p.0 <= t).checked_sub(1).map(|i| list[i].1)
        })
    }
}

fn present(s: &Span) -> bool {
    s.state == State::Present
}

fn leaf(s: &Span) -> bool {
    matches!(s.state, State::Present | State::Mmio | State::Removed)
}

impl Spaces {
    /// Walks every span once; also fills in what happened in each phase.
    pub(super) fn new(timeline: &Timeline, clock: &Clock, phases: &mut [PhaseReport]) -> Self {
        let step = clock.duration().div_ceil(STEPS as u64).max(1);
        let mut out = Self { spaces: BTreeMap::new(), step };
        let lists = PhaseLists::new(phases);
        for entry in timeline.entries() {
            let sums = out.spaces.entry((entry.vm, entry.as_id)).or_default();
            let bytes = pages_of(entry.level).saturating_mul(4096) as i64;
            let level = usize::from(entry.level.min(5));
            let mut was_present = false;
            let mut seen = false;
            let mut ram = false;
            for z in timeline.zaps(entry.id) {
                let at = clock.rel(z.ts);
                bump(&mut sums.zaps, at, step);
                for p in lists.at(entry.vm, at) {
                    phases[p].zaps += 1;
                }
            }
            for s in timeline.spans(entry.id) {
                let start = clock.rel(s.start);
                if present(&s) && !was_present {
                    for p in lists.at(entry.vm, start) {
                        phases[p].installs += 1;
                    }
                }
                was_present = present(&s);
                if !leaf(&s) {
                    continue;
                }
                // A removed entry alone says nothing of a page: whole tables are swept with it when they are torn down.
                seen |= s.state != State::Removed;
                ram |= present(&s);
                let end = s.end.map(|e| clock.rel(e));
                sums.change(start, step, s.shade, 1);
                if let Some(e) = end {
                    sums.change(e, step, s.shade, -1);
                }
                if s.certainty == Certainty::Stale {
                    sums.stale(start, step, &s, level, bytes, 1);
                    if let Some(e) = end {
                        sums.stale(e, step, &s, level, bytes, -1);
                    }
                }
                if present(&s) {
                    sums.bytes(start, step, level, bytes);
                    if let Some(e) = end {
                        sums.bytes(e, step, level, -bytes);
                    }
                }
            }
            if seen {
                sums.leaves.push(map::Leaf { gfn: entry.gfn, level: entry.level, ram });
            }
        }
        for p in phases.iter_mut() {
            p.present_bytes = out
                .spaces
                .iter()
                .filter(|(k, _)| k.1 == 0 && p.vm.is_none_or(|v| v == k.0.0))
                .map(|(_, s)| s.bytes_at(p.end))
                .fold(0, u64::saturating_add);
        }
        for s in out.spaces.values_mut() {
            s.leaves.sort_unstable();
            s.leaves.dedup();
        }
        out
    }

    pub(super) fn of(
        &self,
        timeline: &Timeline,
        vm: &Vm,
        of_vm: &[&Fault],
        clock: &Clock,
        options: &Options,
    ) -> Vec<SpaceReport> {
        let at_end = timeline.memory(vm.id);
        let mut faults: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
        for f in of_vm {
            bump(faults.entry(f.as_id).or_default(), clock.rel(f.ts), self.step);
        }
        let mut ids: Vec<u8> = self
            .spaces
            .iter()
            .filter(|(k, s)| k.0 == vm.id && !s.leaves.is_empty())
            .map(|(k, _)| k.1)
            .collect();
        ids.extend(faults.keys());
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter()
            .map(|as_id| {
                let none = Sums::default();
                let sums = self.spaces.get(&(vm.id, as_id)).unwrap_or(&none);
                let mut over_time = sums.over_time(self.step);
                over_time.faults = faults.remove(&as_id).unwrap_or_default();
                over_time.faults.resize(STEPS, 0);
                let (memory, memory_at) = memory::memory(
                    timeline,
                    vm.id,
                    as_id,
                    &at_end,
                    over_time.peak_bytes,
                    clock.start + over_time.peak_at,
                );
                let memory_at = memory_at.then_some(over_time.peak_at);
                SpaceReport {
                    as_id,
                    over_time,
                    memory,
                    memory_at,
                    map: options
                        .pictures
                        .then(|| map::map(timeline, vm.id, as_id, &sums.leaves, clock))
                        .flatten(),
                }
            })
            .collect()
    }
}

impl Sums {
    fn change(&mut self, t: u64, step: u64, shade: Shade, by: i8) {
        add(&mut self.entries[shade as usize], t, step, i64::from(by));
        if self.shade_steps.len() < EXACT {
            self.shade_steps.push((t, shade as u8, by));
        }
    }

    fn bytes(&mut self, t: u64, step: u64, level: usize, by: i64) {
        add(&mut self.bytes[level], t, step, by);
        if self.steps.len() < EXACT {
            self.steps.push((t, by));
        }
    }

    fn stale(&mut self, t: u64, step: u64, s: &Span, level: usize, bytes: i64, by: i64) {
        add(&mut self.stale_entries[s.shade as usize], t, step, by);
        if present(s) {
            add(&mut self.stale_bytes[level], t, step, bytes * by);
        }
    }

    fn bytes_at(&self, t: u64) -> u64 {
        // What changes at the very end of a phase is part of the next one.
        self.steps.iter().filter(|s| s.0 < t).map(|s| s.1).sum::<i64>().max(0) as u64
    }

    fn over_time(&self, step: u64) -> OverTime {
        let mut steps = self.steps.clone();
        // At one moment, what goes makes room for what comes: a page that is only re-mapped is not there twice.
        steps.sort_unstable();
        let (mut at, mut peak, mut peak_at) = (0i64, 0i64, 0u64);
        for (t, by) in steps {
            at += by;
            if at > peak {
                (peak, peak_at) = (at, t);
            }
        }
        let mut peaks = [0i64; 8];
        let mut now = [0i64; 8];
        let mut shade_steps = self.shade_steps.clone();
        shade_steps.sort_unstable_by_key(|s| (s.0, s.2));
        for (_, shade, by) in shade_steps {
            let i = usize::from(shade);
            now[i] += i64::from(by);
            peaks[i] = peaks[i].max(now[i]);
        }
        let entries: Vec<StateSeries> = STACK
            .iter()
            .filter_map(|shade| {
                let counts = running(&self.entries[*shade as usize]);
                let peak =
                    (peaks[*shade as usize].max(0) as u64).max(counts.iter().copied().max().unwrap_or(0));
                (peak > 0).then(|| StateSeries {
                    state: mmuscope_analysis::visual::Visual::builtin().shade_style(*shade).id.clone(),
                    shade: *shade,
                    counts,
                    stale: running(&self.stale_entries[*shade as usize]),
                    peak,
                })
            })
            .collect();
        let present_bytes: Vec<LevelSeries> = (1u8..=5)
            .filter_map(|level| {
                let bytes = running(&self.bytes[usize::from(level)]);
                bytes.iter().any(|b| *b > 0).then(|| LevelSeries {
                    level,
                    size: words::level_size(level),
                    bytes,
                    stale: running(&self.stale_bytes[usize::from(level)]),
                })
            })
            .collect();
        let sampled = (0..STEPS)
            .map(|i| present_bytes.iter().map(|l| l.bytes[i]).fold(0, u64::saturating_add))
            .enumerate()
            .max_by_key(|s| s.1);
        let mut peak_bytes = peak.max(0) as u64;
        if let Some((i, b)) = sampled.filter(|s| s.1 > peak_bytes) {
            peak_bytes = b;
            peak_at = step.saturating_mul(i as u64 + 1);
        }
        let mut zaps = self.zaps.clone();
        zaps.resize(STEPS, 0);
        OverTime {
            step,
            entries,
            end_bytes: present_bytes
                .iter()
                .filter_map(|l| l.bytes.last())
                .fold(0, |a, b| a.saturating_add(*b)),
            end_stale_bytes: present_bytes
                .iter()
                .filter_map(|l| l.stale.last())
                .fold(0, |a, b| a.saturating_add(*b)),
            present_bytes,
            faults: Vec::new(),
            zaps,
            peak_bytes,
            peak_at,
        }
    }
}

fn slot(t: u64, step: u64) -> usize {
    ((t / step) as usize).min(STEPS - 1)
}

fn add(v: &mut Vec<i64>, t: u64, step: u64, by: i64) {
    if v.is_empty() {
        v.resize(STEPS, 0);
    }
    v[slot(t, step)] += by;
}

fn bump(v: &mut Vec<u64>, t: u64, step: u64) {
    if v.is_empty() {
        v.resize(STEPS, 0);
    }
    v[slot(t, step)] += 1;
}

fn running(changes: &[i64]) -> Vec<u64> {
    let mut at = 0i64;
    let mut out: Vec<u64> = changes
        .iter()
        .map(|c| {
            at += c;
            at.max(0) as u64
        })
        .collect();
    out.resize(STEPS, 0);
    out
}
