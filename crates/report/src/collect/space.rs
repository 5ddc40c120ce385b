//! [`Spaces`]: numbers of entries, bytes, faults and zaps of each address space over time.

use std::collections::{BTreeMap, HashSet};

use mmuscope_replay::{Certainty, Counts, Fault, Shade, Span, State, Timeline, Vm, VmId};

use super::{Clock, Options, map, memory};
use crate::{
    model::{LevelSeries, OverTime, PhaseReport, SpaceReport, StateSeries},
    svg::overview::STEPS,
};
use mmuscope_analysis::part::Part;

/// Shades in the order in which they are stacked, from the bottom.
const STACK: [Shade; 5] =
    [Shade::Writable, Shade::ReadOnly, Shade::AccessTracked, Shade::Mmio, Shade::Removed];

/// Up to this many changes of entries, peaks are exact; beyond it, a peak is the highest value at the end of a stretch or among the changes
/// so far.
const EXACT: usize = 4_000_000;

/// Sums of one address space.
#[derive(Default)]
pub(super) struct Sums {
    /// Change of the number of stale entries in each stretch, by shade.
    stale_entries: [Vec<i64>; 8],
    zaps: Vec<u64>,
    /// Whether `shade_steps` holds all changes.
    cut: bool,
    /// Changes of the number of entries as time, shade and +1 or -1, for the peaks.
    shade_steps: Vec<(u64, u8, i8)>,
    /// All entries that mapped a page or marked MMIO at some time.
    pub(super) leaves: Vec<map::Leaf>,
}

/// Sums of all address spaces.
pub(super) struct Spaces {
    each: BTreeMap<(VmId, u8), Sums>,
    step: u64,
    /// The time from the first event to the beginning of the stretches.
    origin: u64,
}

/// Start and place of each phase, by the VM whose process marked it. Phases of one list do not overlap.
struct PhaseLists(BTreeMap<Option<u16>, Vec<(u64, usize)>>);

impl PhaseLists {
    fn new(phases: &[PhaseReport]) -> Self {
        let mut lists: BTreeMap<Option<u16>, Vec<(u64, usize)>> = BTreeMap::new();
        for (i, p) in phases.iter().enumerate() {
            lists.entry(p.vm).or_default().push((p.start, i));
        }
        Self(lists)
    }

    /// The phases that a time of a VM lies in: at most one that its process marked and one that another process marked.
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
    /// Walks all spans once, and also fills in the numbers of each phase.
    pub(super) fn new(
        timeline: &Timeline,
        faults: &[Fault],
        clock: &Clock,
        phases: &mut [PhaseReport],
        part: &Part,
    ) -> Self {
        let step = clock.duration().div_ceil(STEPS as u64).max(1);
        let origin = clock.start - clock.first;
        let mut out = Self { each: BTreeMap::new(), step, origin };
        let lists = PhaseLists::new(phases);
        for f in faults {
            for p in lists.at(f.vm, clock.rel(f.ts)) {
                phases[p].faults += 1;
                phases[p].fault_time = phases[p].fault_time.map(|t| t + f.duration().unwrap_or(0));
            }
        }
        for entry in timeline.entries().filter(|e| part.entry(e)) {
            let sums = out.each.entry((entry.vm, entry.as_id)).or_default();
            let mut was_present = false;
            let mut before = None;
            let mut seen = false;
            let mut ram = false;
            for z in timeline.zaps(entry.id).filter(|z| part.holds(z.ts)) {
                let at = clock.rel(z.ts);
                bump(&mut sums.zaps, at - origin, step);
                for p in lists.at(entry.vm, at) {
                    phases[p].zaps += 1;
                }
            }
            for s in timeline.spans(entry.id) {
                // What begins after the part is none of it; what began before holds when the part begins.
                if s.start > clock.end {
                    break;
                }
                let (start, begins) = (clock.rel(s.start), part.holds(s.start));
                if present(&s) && !was_present && begins {
                    for p in lists.at(entry.vm, start) {
                        phases[p].installs += 1;
                    }
                }
                for p in lists.at(entry.vm, start).filter(|_| begins) {
                    phases[p].write_protected +=
                        u64::from((before, s.shade) == (Some(Shade::Writable), Shade::ReadOnly));
                    phases[p].made_writable +=
                        u64::from((before, s.shade) == (Some(Shade::ReadOnly), Shade::Writable));
                }
                before = Some(s.shade);
                was_present = present(&s);
                if !leaf(&s) || s.end.is_some_and(|e| e <= clock.start && clock.start > clock.first) {
                    continue;
                }
                // A removed entry alone does not show that a page was mapped: teardown writes REMOVED into all entries of a table.
                seen |= s.state != State::Removed;
                ram |= present(&s);
                let end = s.end.filter(|e| *e <= clock.end).map(|e| clock.rel(e));
                sums.change(start, s.shade, 1);
                if let Some(e) = end {
                    sums.change(e, s.shade, -1);
                }
                if s.certainty == Certainty::Stale {
                    add(&mut sums.stale_entries[s.shade as usize], start - origin, step, 1);
                    if let Some(e) = end {
                        add(&mut sums.stale_entries[s.shade as usize], e - origin, step, -1);
                    }
                }
            }
            if seen {
                sums.leaves.push(map::Leaf { gfn: entry.gfn, level: entry.level, ram });
            }
        }
        for p in phases.iter_mut() {
            // A change at the time the next phase begins belongs to the next phase.
            let last = clock.end - clock.first;
            let at = clock.first + if p.end < last { p.end.saturating_sub(1) } else { p.end };
            let vms = timeline.vms().iter().filter(|vm| p.vm.is_none_or(|v| v == vm.id.0));
            let vms = vms.filter(|vm| part.holds_vm(vm.id.0));
            let bytes = vms.map(|vm| timeline.counts_of(vm.id, 0, at).present_bytes(None));
            p.present_bytes = part.gfns.is_none().then(|| bytes.fold(0, u64::saturating_add));
        }
        for s in out.each.values_mut() {
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
        let part = &options.part;
        let at_end =
            if part.to.is_some() { timeline.memory_at(vm.id, clock.end) } else { timeline.memory(vm.id) };
        let mut faults: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
        // Frames that no fault of the trace was on before: how fast the guest's use of memory grows, as far as faults show it.
        let mut first: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
        let mut in_order: Vec<(u64, u8, u64)> =
            of_vm.iter().filter_map(|f| Some((f.ts, f.as_id, f.gfn?))).collect();
        in_order.sort_unstable();
        let mut seen = HashSet::new();
        for (ts, as_id, gfn) in in_order {
            if seen.insert((as_id, gfn)) {
                bump(first.entry(as_id).or_default(), clock.rel(ts) - self.origin, self.step);
            }
        }
        for f in of_vm {
            bump(faults.entry(f.as_id).or_default(), clock.rel(f.ts) - self.origin, self.step);
        }
        let mut ids: Vec<u8> = self
            .each
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
                let sums = self.each.get(&(vm.id, as_id)).unwrap_or(&none);
                let mut over_time = match part.gfns {
                    None => sums.over_time(timeline, (vm.id, as_id), clock, self.step),
                    Some(_) => sums.of_frames(clock, self.step),
                };
                over_time.faults = faults.remove(&as_id).unwrap_or_default();
                over_time.faults.resize(STEPS, 0);
                over_time.first_faults = first.remove(&as_id).unwrap_or_default();
                over_time.first_faults.resize(STEPS, 0);
                let (memory, memory_at) = match part.gfns {
                    None => memory::memory(
                        timeline,
                        vm.id,
                        as_id,
                        &at_end,
                        over_time.peak_bytes,
                        clock.first + over_time.peak_at,
                    ),
                    Some(gfns) => (memory::of_frames(timeline, (vm.id, as_id), clock.end, gfns), false),
                };
                let memory_at = memory_at.then_some(over_time.peak_at);
                SpaceReport {
                    as_id,
                    over_time,
                    memory,
                    memory_at,
                    slots: crate::slots::slots(timeline, vm.id, as_id, clock.end, part),
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
    fn change(&mut self, t: u64, shade: Shade, by: i8) {
        if self.shade_steps.len() < EXACT {
            self.shade_steps.push((t, shade as u8, by));
        } else {
            self.cut = true;
        }
    }

    fn over_time(&self, timeline: &Timeline, (vm, as_id): (VmId, u8), clock: &Clock, step: u64) -> OverTime {
        // The value of a stretch is the one just before the next stretch begins; that of the last one is the one at the end.
        let at = |i: usize| {
            if i + 1 < STEPS { (clock.start + (i as u64 + 1) * step).saturating_sub(1) } else { clock.end }
        };
        let counts: Vec<Counts> =
            (0..STEPS).map(|i| timeline.counts_of(vm, as_id, at(i).min(clock.end))).collect();
        let (peak_at, peak_bytes, peak_sampled) = match timeline.peak(vm, as_id) {
            None => (clock.start, 0, false),
            Some((at, bytes)) if (clock.start..=clock.end).contains(&at) => (at, bytes, false),
            Some(_) => {
                let all = std::iter::once(clock.start).chain((0..STEPS).map(|i| at(i).min(clock.end)));
                let of = |t: u64| (timeline.counts_of(vm, as_id, t).present_bytes(None), t);
                // Of equal moments, the first.
                let most = all.map(of).max_by_key(|(bytes, t)| (*bytes, std::cmp::Reverse(*t)));
                most.map_or((clock.start, 0, true), |(bytes, t)| (t, bytes, true))
            }
        };
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
                let counts: Vec<u64> = counts.iter().map(|c| c.total(*shade)).collect();
                let peak =
                    (peaks[*shade as usize].max(0) as u64).max(counts.iter().copied().max().unwrap_or(0));
                (peak > 0).then(|| StateSeries {
                    shade: *shade,
                    counts,
                    stale: running(&self.stale_entries[*shade as usize]),
                    peak,
                })
            })
            .collect();
        let series = |f: &dyn Fn(&Counts) -> u64| counts.iter().map(f).collect::<Vec<u64>>();
        let present_bytes: Vec<LevelSeries> = (1u8..=5)
            .filter_map(|level| {
                let bytes = series(&|c| c.present_bytes(Some(level)));
                bytes.iter().any(|b| *b > 0).then(|| LevelSeries {
                    level,
                    bytes,
                    stale: series(&|c| c.stale_bytes(Some(level))),
                })
            })
            .collect();
        let mut zaps = self.zaps.clone();
        zaps.resize(STEPS, 0);
        OverTime {
            step,
            entries,
            end_bytes: counts.last().map_or(0, |c| c.present_bytes(None)),
            end_stale_bytes: counts.last().map_or(0, |c| c.stale_bytes(None)),
            present_bytes,
            faults: Vec::new(),
            first_faults: Vec::new(),
            zaps,
            peak_bytes,
            peak_at: clock.rel(peak_at),
            peak_sampled,
        }
    }

    /// Numbers over time of some frames only: entries by state, and zaps. How many bytes of them are present is not summed up, since several
    /// entries may map one frame.
    fn of_frames(&self, clock: &Clock, step: u64) -> OverTime {
        let mut zaps = self.zaps.clone();
        zaps.resize(STEPS, 0);
        let mut out = OverTime { step, zaps, ..OverTime::default() };
        // Part of the changes makes no sums.
        if self.cut {
            return out;
        }
        let mut steps = self.shade_steps.clone();
        steps.sort_unstable_by_key(|s| (s.0, s.2));
        let origin = clock.start - clock.first;
        for shade in STACK {
            let (mut now, mut peak, mut counts) = (0i64, 0i64, Vec::with_capacity(STEPS));
            let mut own = steps.iter().filter(|s| s.1 == shade as u8).peekable();
            for i in 0..STEPS {
                let end = if i + 1 < STEPS { origin + (i as u64 + 1) * step } else { u64::MAX };
                while let Some((_, _, by)) = own.next_if(|s| s.0 < end) {
                    now += i64::from(*by);
                    peak = peak.max(now);
                }
                counts.push(now.max(0) as u64);
            }
            if peak > 0 {
                let stale = running(&self.stale_entries[shade as usize]);
                out.entries.push(StateSeries { shade, counts, stale, peak: peak as u64 });
            }
        }
        out
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
