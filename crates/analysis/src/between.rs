//! [`between`]: what two moments of one address space differ in: frames that were mapped, zapped, protected, split, merged, and by what.

use crate::findings::{Cause, CauseKind};
use mmuscope_replay::{Certainty, EventIx, Fault, Shade, Span, State, StateFilter, Timeline, VmId, pages_of};
use mmuscope_trace::Trace;
use rustc_hash::FxHashMap as HashMap;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Which moments are compared, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moments {
    /// VM.
    pub vm: VmId,
    /// Address space.
    pub as_id: u8,
    /// The earlier moment, in nanoseconds on the trace's clock.
    pub from: u64,
    /// The later moment, in nanoseconds on the trace's clock.
    pub to: u64,
}

/// How a frame at the later moment differs from the earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ChangeKind {
    /// It was not mapped and is.
    Mapped,
    /// It is mapped; what it was before is not known.
    FirstSeen,
    /// It was mapped, or MMIO, and is not.
    Zapped,
    /// It is mapped to another host frame.
    Moved,
    /// A smaller entry maps it.
    Split,
    /// A larger entry maps it.
    Merged,
    /// It was writable and is not.
    Protected,
    /// It was not writable and is.
    MadeWritable,
    /// It is access-tracked, or is not any more.
    Aged,
    /// An MMIO SPTE marks it.
    Mmio,
    /// Its entry is frozen (removed).
    Frozen,
    /// It was known what it holds, and is not any more.
    LostSight,
}

impl ChangeKind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 12] = [
        Self::Mapped,
        Self::FirstSeen,
        Self::Zapped,
        Self::Moved,
        Self::Split,
        Self::Merged,
        Self::Protected,
        Self::MadeWritable,
        Self::Aged,
        Self::Mmio,
        Self::Frozen,
        Self::LostSight,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mapped => "mapped",
            Self::FirstSeen => "first seen",
            Self::Zapped => "zapped",
            Self::Moved => "moved",
            Self::Split => "split",
            Self::Merged => "merged",
            Self::Protected => "protected",
            Self::MadeWritable => "made writable",
            Self::Aged => "aging",
            Self::Mmio => "became mmio",
            Self::Frozen => "frozen",
            Self::LostSight => "not known now",
        }
    }

    /// What it means, in a sentence without a full stop.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Mapped => "was not mapped at A and is at B",
            Self::FirstSeen => "is mapped at B; what it was at A is not known",
            Self::Zapped => "was mapped, or MMIO, at A and is not at B",
            Self::Moved => "is mapped to another host frame at B",
            Self::Split => "is mapped by a smaller entry at B",
            Self::Merged => "is mapped by a larger entry at B",
            Self::Protected => "was writable at A and is not at B",
            Self::MadeWritable => "was not writable at A and is at B",
            Self::Aged => "is access-tracked at one of the moments only",
            Self::Mmio => "is MMIO at B and was not at A",
            Self::Frozen => "its entry is frozen (removed) at B",
            Self::LostSight => "was known at A; what it is at B is not",
        }
    }
}

/// What made the last change of a frame before the later moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum By {
    /// Part of a cause.
    Cause(CauseKind),
    /// A fault: `read`, `write`, `fetch` or `unknown`.
    Fault(&'static str),
    /// An event outside of both.
    Event,
    /// No event shows it.
    NotTraced,
}

impl By {
    /// In words.
    pub fn words(self) -> String {
        match self {
            Self::Cause(kind) => kind.name().to_owned(),
            Self::Fault("unknown") => "faults".to_owned(),
            Self::Fault(access) => format!("{access} faults"),
            Self::Event => "another event".to_owned(),
            Self::NotTraced => "not traced".to_owned(),
        }
    }
}

/// What a frame holds at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its shade.
    pub shade: Shade,
    /// Level of the entry: 1 is 4K, 2 is 2M, 3 is 1G; 0 where no entry is known, and none can be.
    pub level: u8,
    /// How it is known.
    pub certainty: Certainty,
}

/// A range of frames that differ alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// First frame.
    pub gfn_start: u64,
    /// One past the last frame.
    pub gfn_end: u64,
    /// How they differ.
    pub kind: ChangeKind,
    /// What they held at the earlier moment; `None` where that is not known.
    pub before: Option<Held>,
    /// What they hold at the later moment; `None` where that is not known.
    pub after: Option<Held>,
    /// What made the last change.
    pub by: By,
    /// The event of the last change of the first frame, where one shows it.
    pub event: Option<EventIx>,
}

impl Changed {
    /// The weaker certainty of both moments.
    pub fn certainty(&self) -> Option<Certainty> {
        self.before.iter().chain(&self.after).map(|h| h.certainty).max()
    }

    /// Number of frames.
    pub const fn frames(&self) -> u64 {
        self.gfn_end - self.gfn_start
    }
}

/// The difference of two moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Between {
    /// The ranges that differ, lowest first.
    pub rows: Vec<Changed>,
    /// Number of faults after the earlier moment and up to the later one.
    pub faults: u64,
    /// Number of zaps after the earlier moment and up to the later one; what was mapped again is not among the ranges.
    pub zaps: u64,
}

impl Between {
    /// The kinds that occur, each with its number of ranges and of frames.
    pub fn by_kind(&self) -> Vec<(ChangeKind, u64, u64)> {
        sums(&self.rows, |r| r.kind)
    }

    /// What made the changes, each with its number of ranges and of frames.
    pub fn by_cause(&self) -> Vec<(By, u64, u64)> {
        sums(&self.rows, |r| r.by)
    }

    /// The ranges as CSV, with a line of names.
    pub fn csv(&self, moments: &Moments) -> String {
        let mut out = String::from(
            "vm,as_id,gfn_start,gfn_end,bytes,change,before,level_before,after,level_after,certainty,by,event\n",
        );
        let level =
            |h: Option<Held>| h.filter(|h| h.level > 0).map_or_else(String::new, |h| h.level.to_string());
        for r in &self.rows {
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "{},{},{:#x},{:#x},{},{},\"{}\",{},\"{}\",{},{},{},{}",
                moments.vm.0,
                moments.as_id,
                r.gfn_start,
                r.gfn_end,
                r.frames().saturating_mul(4096),
                r.kind.name(),
                shade(r.before),
                level(r.before),
                shade(r.after),
                level(r.after),
                r.certainty().map_or("", Certainty::name),
                r.by.words(),
                r.event.map_or_else(String::new, |e| e.to_string()),
            );
        }
        out
    }
}

/// The word for what a frame holds: `unknown` where that is not known.
pub fn shade(held: Option<Held>) -> &'static str {
    held.map_or("unknown", |h| h.shade.name())
}

fn sums<K: Ord + Copy>(rows: &[Changed], key: impl Fn(&Changed) -> K) -> Vec<(K, u64, u64)> {
    let mut by: BTreeMap<K, (u64, u64)> = BTreeMap::new();
    for r in rows {
        let sum = by.entry(key(r)).or_default();
        sum.0 += 1;
        sum.1 += r.frames();
    }
    by.into_iter().map(|(k, (ranges, frames))| (k, ranges, frames)).collect()
}

/// One entry that says something of its frames.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u64,
    end: u64,
    held: Held,
    /// Host frame of the first of the piece's frames, where it maps one.
    pfn: Option<u64>,
    span: Span,
}

impl Piece {
    /// The host frame minus the guest frame, which is the same for all frames of an entry.
    fn distance(&self, of: &Self) -> Option<u64> {
        Some(self.pfn?.wrapping_sub(of.start))
    }

    /// How little it says: what is known before what is stale; then present, MMIO, removed, nonpresent; then the larger page.
    fn rank(&self) -> (bool, u8, std::cmp::Reverse<u8>) {
        let by = match self.held.shade.state() {
            State::Present => self.held.shade as u8,
            State::Mmio => 10,
            State::Removed => 11,
            _ => 12,
        };
        // An empty entry of one page table says nothing against a page in another.
        (self.held.certainty == Certainty::Stale && by < 12, by, std::cmp::Reverse(self.held.level))
    }
}

/// What every frame of an address space holds at a moment, as pieces in order that do not overlap. Frames between them are not known.
fn pieces(timeline: &Timeline, vm: VmId, as_id: u8, t: u64) -> Vec<Piece> {
    let filter = StateFilter { vm: Some(vm), as_id: Some(as_id), ..StateFilter::default() };
    let mut all: Vec<Piece> = timeline
        .state_at(t, &filter)
        .into_iter()
        .filter(|(_, s)| !matches!(s.state, State::Unknown | State::Table))
        .map(|(e, span)| Piece {
            start: e.gfn,
            end: e.gfn.saturating_add(pages_of(e.level)),
            held: Held { shade: span.shade, level: e.level, certainty: span.certainty },
            pfn: (span.state == State::Present).then(|| timeline.decode(&e, &span)?.pfn).flatten(),
            span,
        })
        .collect();
    all.sort_by_key(|p| p.start);
    let mut edges: Vec<u64> = all.iter().flat_map(|p| [p.start, p.end]).collect();
    edges.sort_unstable();
    edges.dedup();
    let (mut out, mut active, mut next): (Vec<Piece>, Vec<Piece>, usize) = (Vec::new(), Vec::new(), 0);
    for pair in edges.windows(2) {
        active.retain(|p| p.end > pair[0]);
        while let Some(p) = all.get(next).filter(|p| p.start <= pair[0]) {
            active.push(*p);
            next += 1;
        }
        let Some(best) = active.iter().min_by_key(|p| p.rank()) else { continue };
        match out.last_mut() {
            Some(l) if l.end == pair[0] && l.span == best.span => l.end = pair[1],
            _ => {
                let pfn = best.pfn.map(|f| f.wrapping_add(pair[0] - best.start));
                out.push(Piece { start: pair[0], end: pair[1], pfn, ..*best });
            }
        }
    }
    out
}

/// How two moments of a frame differ; `None` where they do not.
fn kind(a: Option<&Piece>, b: Option<&Piece>) -> Option<ChangeKind> {
    let state = |p: Option<&Piece>| p.map_or(State::Unknown, |p| p.held.shade.state());
    let mapped = |s: State| matches!(s, State::Present | State::Mmio);
    match (state(a), state(b)) {
        (State::Present, State::Present) => both_present(a?, b?),
        (State::Unknown, State::Present) => Some(ChangeKind::FirstSeen),
        (_, State::Present) => Some(ChangeKind::Mapped),
        (State::Mmio, State::Mmio) | (State::Removed, State::Removed) => None,
        (_, State::Mmio) => Some(ChangeKind::Mmio),
        (_, State::Removed) => Some(ChangeKind::Frozen),
        (s, State::Unknown) if mapped(s) => Some(ChangeKind::LostSight),
        (s, _) if mapped(s) => Some(ChangeKind::Zapped),
        _ => None,
    }
}

fn both_present(a: &Piece, b: &Piece) -> Option<ChangeKind> {
    if let (Some(x), Some(y)) = (a.distance(a), b.distance(b))
        && x != y
    {
        return Some(ChangeKind::Moved);
    }
    match a.held.level.cmp(&b.held.level) {
        std::cmp::Ordering::Greater => return Some(ChangeKind::Split),
        std::cmp::Ordering::Less => return Some(ChangeKind::Merged),
        std::cmp::Ordering::Equal => {}
    }
    match (a.held.shade, b.held.shade) {
        (x, y) if x == y => None,
        (Shade::AccessTracked, _) | (_, Shade::AccessTracked) => Some(ChangeKind::Aged),
        (Shade::Writable, _) => Some(ChangeKind::Protected),
        (_, Shade::Writable) => Some(ChangeKind::MadeWritable),
        _ => None,
    }
}

/// The causes and faults of each thread, in the order of their events.
pub(crate) struct Who<'a> {
    causes: HashMap<u32, Vec<&'a Cause>>,
    /// First and last event, and the word for the access: all that is asked of a fault, of which there may be millions.
    faults: HashMap<u32, Vec<(EventIx, EventIx, &'static str)>>,
}

impl<'a> Who<'a> {
    pub(crate) fn new(
        causes: impl IntoIterator<Item = &'a Cause>,
        faults: impl IntoIterator<Item = Fault>,
    ) -> Self {
        let mut who = Self { causes: HashMap::default(), faults: HashMap::default() };
        for c in causes {
            who.causes.entry(c.tid).or_default().push(c);
        }
        for f in faults {
            who.faults.entry(f.tid).or_default().push((f.event, f.last_event, f.access.name()));
        }
        who.causes.values_mut().for_each(|v| v.sort_by_key(|c| c.event));
        who.faults.values_mut().for_each(|v| v.sort_unstable());
        who
    }

    /// What an event was part of.
    pub(crate) fn of(&self, trace: &Trace, event: Option<EventIx>) -> By {
        let Some(event) = event else { return By::NotTraced };
        self.by(trace.events.get(event as usize).tid, event)
    }

    /// What an event of a thread was part of.
    pub(crate) fn by(&self, tid: Option<u32>, event: EventIx) -> By {
        let Some(tid) = tid else { return By::Event };
        let cause = self.causes.get(&tid).and_then(|all| {
            let n = all.partition_point(|c| c.event <= event);
            all[..n].iter().rev().take(4).find(|c| c.holds(tid, event))
        });
        if let Some(c) = cause {
            return By::Cause(c.kind());
        }
        let fault = self.faults.get(&tid).and_then(|all| {
            let n = all.partition_point(|f| f.0 <= event).checked_sub(1)?;
            all.get(n).filter(|f| event <= f.1)
        });
        fault.map_or(By::Event, |f| By::Fault(f.2))
    }
}

/// Compares two moments. `causes` are those of [`findings::survey`](crate::findings::survey).
pub fn between(trace: &Trace, timeline: &Timeline, causes: &[Cause], moments: &Moments) -> Between {
    let Moments { vm, as_id, from, to } = *moments;
    let (earlier, later) = (pieces(timeline, vm, as_id, from), pieces(timeline, vm, as_id, to));
    let unseen = timeline.unseen(vm) == Shade::Nonpresent;
    let who = Who::new(causes, timeline.faults().filter(|f| f.vm == vm && f.ts <= to));
    let mut edges: Vec<u64> = earlier.iter().chain(&later).flat_map(|p| [p.start, p.end]).collect();
    edges.sort_unstable();
    edges.dedup();
    let mut out = Between::default();
    let (mut next_earlier, mut next_later) = (0, 0);
    for pair in edges.windows(2) {
        let at = |all: &[Piece], n: &mut usize| {
            while all.get(*n).is_some_and(|p| p.end <= pair[0]) {
                *n += 1;
            }
            all.get(*n).filter(|p| p.start <= pair[0]).map(|p| Piece {
                start: pair[0],
                pfn: p.pfn.map(|f| f.wrapping_add(pair[0] - p.start)),
                ..*p
            })
        };
        let (before, after) = (at(&earlier, &mut next_earlier), at(&later, &mut next_later));
        let Some(mut kind) = kind(before.as_ref(), after.as_ref()) else { continue };
        // What no event has shown is empty where every table of the VM was seen.
        kind = match kind {
            ChangeKind::FirstSeen if unseen => ChangeKind::Mapped,
            ChangeKind::LostSight if unseen => ChangeKind::Zapped,
            k => k,
        };
        let event = match (&before, &after) {
            (_, Some(p)) if p.span.start > from => p.span.opened_by,
            (Some(p), _) => p.span.closed_by,
            (None, Some(p)) => p.span.opened_by,
            (None, None) => None,
        };
        let empty = Held { shade: Shade::Nonpresent, level: 0, certainty: Certainty::Implied };
        let held = |p: &Option<Piece>| p.as_ref().map(|p| p.held).or(unseen.then_some(empty));
        push(
            &mut out.rows,
            Changed {
                gfn_start: pair[0],
                gfn_end: pair[1],
                kind,
                before: held(&before),
                after: held(&after),
                by: who.of(trace, event),
                event,
            },
        );
    }
    let inside = |ts: u64| from < ts && ts <= to;
    out.faults = timeline.faults().filter(|f| f.vm == vm && f.as_id == as_id && inside(f.ts)).count() as u64;
    let of = |z: &mmuscope_replay::Zap| {
        let e = timeline.entry(z.entry);
        (e.vm, e.as_id) == (vm, as_id)
    };
    out.zaps = timeline.all_zaps().filter(|z| inside(z.ts) && of(z)).count() as u64;
    out
}

/// Appends a range, or joins it to the last one where both differ alike.
fn push(rows: &mut Vec<Changed>, r: Changed) {
    match rows.last_mut() {
        Some(l)
            if l.gfn_end == r.gfn_start
                && (l.kind, l.before, l.after, l.by) == (r.kind, r.before, r.after, r.by) =>
        {
            l.gfn_end = r.gfn_end;
        }
        _ => rows.push(r),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::survey;
    use mmuscope_replay::{ReplayOptions, replay};
    use mmuscope_testing::fixture;

    const TEXT: &str = "\
layout C/npt
kernel 6.1.0
vm 1 t1 t9
1 t1 root
+1 t1 entry 0
+1 t1 exit
+1 t1 page 3 0
+1 t1 tdp 4 0 empty T11
+1 t1 page 2 0
+1 t1 tdp 3 0 empty T12
+1 t1 page 1 0
+1 t1 tdp 2 0 empty T13
+1 t1 tdp 2 400 empty W400/2
+1 t1 tdp 1 4 empty W54
+1 t1 tdp 1 5 empty W55
+1 t1 tdp 1 6 empty W56
+1 t1 tdp 1 8 empty W58
+1 t1 entry 0
100 t9 tdp 1 4 W54 R54
+1 t9 unmap 7f0000005000 7f0000006000
+1 t9 tdp 1 5 W55 empty
+1 t9 kvm_pml_full vcpu 0: PML full
+1 t1 exit
+1 t1 fault 7 w
+1 t1 tdp 1 7 empty W57
+1 t1 entry 0
+1 t9 tdp 1 6 W56 empty
+1 t1 exit
+1 t1 fault 6 r
+1 t1 tdp 1 6 empty W66
+1 t1 entry 0
+1 t1 page 1 400
+1 t1 tdp 2 400 W400/2 T20
+1 t1 tdp 1 400 empty W400
+1 t9 tdp 1 8 W58 empty
+1 t1 exit
+1 t1 fault 8 r
+1 t1 tdp 1 8 empty W58
+1 t1 entry 0
";

    #[test]
    fn each_kind_of_change_has_its_cause() {
        let trace = fixture::trace(TEXT).expect("lines of the language");
        let t = replay(&trace, &ReplayOptions::default());
        let causes = survey(&trace, &t).causes;
        let moments = Moments { vm: VmId(0), as_id: 0, from: t.range().0 + 50_000, to: t.range().1 };
        let b = between(&trace, &t, &causes, &moments);
        let rows: Vec<_> = b.rows.iter().map(|r| (r.gfn_start, r.gfn_end, r.kind, r.by)).collect();
        let notifier = By::Cause(CauseKind::Notifier);
        assert!(rows.contains(&(4, 5, ChangeKind::Protected, By::Event)), "{rows:?}");
        assert!(rows.contains(&(5, 6, ChangeKind::Zapped, notifier)), "{rows:?}");
        assert!(rows.contains(&(6, 7, ChangeKind::Moved, By::Fault("read"))), "{rows:?}");
        assert!(rows.contains(&(7, 8, ChangeKind::Mapped, By::Fault("write"))), "{rows:?}");
        // Zapped, and mapped again as it was: no difference, but a zap.
        assert!(!rows.iter().any(|r| r.0 <= 8 && 8 < r.1), "{rows:?}");
        // The split entry points to a table, which is no zap.
        assert_eq!((b.faults, b.zaps), (3, 3));
        let split: Vec<_> = rows.iter().filter(|r| r.2 == ChangeKind::Split).collect();
        assert_eq!(split.iter().map(|r| r.0).min(), Some(0x400), "{rows:?}");
        let csv = b.csv(&moments);
        assert_eq!(csv.lines().count(), b.rows.len() + 1);
        assert!(
            csv.contains(
                "0,0,0x5,0x6,4096,zapped,\"present, writable\",1,\"nonpresent\",1,exact,mmu_notifier,"
            ),
            "{csv}"
        );
        let nothing = Moments { from: moments.to, ..moments };
        assert_eq!(between(&trace, &t, &causes, &nothing), Between::default());
    }

    #[test]
    fn causes_have_their_times_threads_and_words() {
        let trace = fixture::trace(TEXT).expect("lines of the language");
        let t = replay(&trace, &ReplayOptions::default());
        let causes = survey(&trace, &t).causes;
        let of: Vec<&Cause> = causes.iter().filter(|c| c.kind() == CauseKind::Notifier).collect();
        let [c] = of[..] else { panic!("{causes:?}") };
        let begun = t.range().0;
        // It is over when the thread goes on to something else, two microseconds later.
        assert_eq!((c.start - begun, c.end.map(|e| e - begun)), (100_000, Some(102_000)));
        assert_eq!((c.vm, c.tid, c.gfns), (Some(VmId(0)), 9, Some((5, 5))));
        let text = c.text(&trace);
        assert!(
            text.contains("0x7f0000005000 to 0x7f0000006000 (4 KiB)") && text.contains("1 entry zapped"),
            "{text}"
        );
        let lost = causes.iter().find(|c| c.kind() == CauseKind::HugeLost).expect("a huge page was split");
        assert_eq!(lost.gfns, Some((0x400, 0x5ff)));
    }
}
