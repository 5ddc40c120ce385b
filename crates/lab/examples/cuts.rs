//! Looks for false facts in traces that begin late or end early: `cuts [--seeds N] [--seed N [--gfn HEX]] [--all] FILE|DIR…`.
//!
//! It cuts every recording at both ends, at N random places each (200 by default), replays the part, and compares the result with what the
//! replay of the whole trace says about the same moment. These are differences:
//!
//! - an entry that the part calls exact or observed, where the whole trace knows that it held something else or nothing, or is less certain
//!   (recording less must not give more certainty);
//! - the value that an entry is said to have held before its first event, where it held something else;
//! - a zap that the whole trace does not have;
//! - a fault that ends within the part, and in another way;
//! - a page that the part calls "not mapped" at its end, and that was mapped; an entry that it calls stuck, and that was not.
//!
//! Accessed and Dirty bits are set without an event and are not compared. The layout is that of the whole trace, because the question is what the
//! tables held and not what a value means. `--seed N` makes that cut only, and `--gfn HEX` prints everything about one frame in it.

mod parts;

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use mmuscope_replay::{
    Certainty, Entry, EvidenceKind, Fault, LayoutOverride, Outcome, Reason, ReplayOptions, Span, State,
    StateFilter, Timeline, Vm, VmId, replay,
};
use mmuscope_trace::{Body, ReadOptions, Trace};
use parts::{Random, part_of, print_frame, words};

/// The number of moments of each part that are compared, including its end.
const MOMENTS: usize = 4;
/// The number of pages of each part whose story is compared.
const STORIES: usize = 12;
/// The number of differences that are printed for each recording.
const SHOWN: usize = 12;
/// The number of events within which equal tables are torn down together: 5.10 frees the pages of its roots one after the other, six for each root of
/// a Linux guest that boots.
const BURST: u32 = 64;
/// The names of recordings in a folder. The first that exists is taken, because they all record the same run.
const RECORDINGS: [&str; 6] =
    ["trace.txt.zst", "trace.txt", "trace.dat", "mmuscope.perf.data", "perf.data.zst", "perf.data"];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            eprintln!("cuts: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let (mut seeds, mut all, mut gfn, mut files) = (1..=200, false, None, Vec::new());
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seeds" => seeds = 1..=args.next().context("--seeds N")?.parse().context("--seeds N")?,
            "--seed" => {
                let n: u64 = args.next().context("--seed N")?.parse().context("--seed N")?;
                seeds = n..=n;
            }
            "--gfn" => {
                let hex = args.next().context("--gfn HEX")?;
                gfn = Some(u64::from_str_radix(hex.trim_start_matches("0x"), 16).context("--gfn HEX")?);
            }
            "--all" => all = true,
            _ => recordings(Path::new(&arg), all, &mut files)?,
        }
    }
    if files.is_empty() {
        bail!("no recording there: name a trace, or a folder with one of {}", RECORDINGS.join(", "));
    }
    let (mut good, mut differences) = (true, 0);
    for file in files {
        let trace = Trace::load(std::slice::from_ref(&file), &ReadOptions::default())
            .with_context(|| file.display().to_string())?;
        let whole = Whole::new(trace);
        let mut check = Check { whole: &whole, seed: 0, loose: false, first: 0, facts: 0, wrong: Vec::new() };
        for seed in seeds.clone() {
            check.cut(seed, gfn);
        }
        let ok = check.wrong.is_empty();
        println!(
            "{} {}: {} cuts, {} facts compared, {} differences",
            if ok { "ok  " } else { "FAIL" },
            file.display(),
            seeds.clone().count(),
            check.facts,
            check.wrong.len()
        );
        for w in check.wrong.iter().take(SHOWN) {
            println!("     {w}");
        }
        differences += check.wrong.len();
        good &= ok;
    }
    println!("{differences} differences");
    Ok(good)
}

fn recordings(path: &Path, all: bool, to: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        to.push(path.to_owned());
        return Ok(());
    }
    let here = RECORDINGS.iter().map(|f| path.join(f)).filter(|f| f.exists());
    to.extend(here.take(if all { usize::MAX } else { 1 }));
    let mut below: Vec<PathBuf> = fs::read_dir(path)
        .with_context(|| path.display().to_string())?
        .map(|e| Ok(e?.path()))
        .collect::<Result<_>>()?;
    below.retain(|p| p.is_dir());
    below.sort();
    below.iter().try_for_each(|p| recordings(p, all, to))
}

/// The place of an entry: VM, address space, level, first frame.
type Place = (VmId, u8, u8, u64);

fn place(vm: VmId, e: &Entry) -> Place {
    (vm, e.as_id, e.level, e.gfn)
}

/// The VM of the whole trace that a VM of a part corresponds to; 0 for each where that is not known.
fn whose(vms: Option<&HashMap<VmId, VmId>>, vm: VmId) -> VmId {
    vms.and_then(|v| v.get(&vm).copied()).unwrap_or_default()
}

fn name((vm, as_id, level, gfn): Place) -> String {
    format!("vm {} as {as_id} level {level} gfn {gfn:#x}", vm.0)
}

/// The whole trace with its replay.
struct Whole {
    trace: Trace,
    timeline: Timeline,
    options: ReplayOptions,
    /// The bits that the CPU sets without an event.
    untraced_bits: u64,
    /// The numbers of the events that zap each place, in order.
    zaps: BTreeMap<Place, Vec<u32>>,
    /// The same, with all VMs together.
    loose_zaps: BTreeMap<Place, Vec<u32>>,
    /// The faults of each thread, in order.
    faults: HashMap<u32, Vec<Fault>>,
    stuck: Vec<u32>,
}

impl Whole {
    fn new(trace: Trace) -> Self {
        let timeline = replay(&trace, &ReplayOptions::default());
        let layout = timeline.layout(VmId(0));
        let masks = &layout.layout.masks;
        let untraced_bits = masks.accessed_mask | masks.dirty_mask;
        let options = ReplayOptions {
            layout: LayoutOverride { spec: layout.spec.clone() },
            ..ReplayOptions::default()
        };
        let mut faults: HashMap<u32, Vec<Fault>> = HashMap::new();
        for f in timeline.faults() {
            faults.entry(f.tid).or_default().push(f);
        }
        for of_thread in faults.values_mut() {
            of_thread.sort_by_key(|f| f.event);
        }
        let stuck = stuck(&timeline, 0);
        Self {
            loose_zaps: zaps(&timeline, 0, |_| VmId(0)),
            zaps: zaps(&timeline, 0, |vm| vm),
            trace,
            untraced_bits,
            options,
            faults,
            stuck,
            timeline,
        }
    }
}

/// The numbers of the events that zap each place, counted from the first event of the whole trace.
fn zaps(t: &Timeline, first: u32, vm: impl Fn(VmId) -> VmId) -> BTreeMap<Place, Vec<u32>> {
    let mut out: BTreeMap<Place, Vec<u32>> = BTreeMap::new();
    for e in t.entries() {
        for z in t.zaps(e.id) {
            out.entry(place(vm(e.vm), &e)).or_default().push(z.event + first);
        }
    }
    for events in out.values_mut() {
        events.sort_unstable();
    }
    out
}

fn stuck(t: &Timeline, first: u32) -> Vec<u32> {
    let stuck = t.evidence().iter().filter(|e| e.kind == EvidenceKind::StuckRemoved);
    stuck.map(|e| e.event + first).collect()
}

struct Check<'a> {
    whole: &'a Whole,
    seed: u64,
    /// Whether VMs cannot be matched and are not compared.
    loose: bool,
    /// The number in the whole trace of the part's first event.
    first: u32,
    facts: u64,
    wrong: Vec<String>,
}

impl Check<'_> {
    /// Where a part begins and ends: both at random, or one of them as in the whole trace.
    fn range(&self, seed: u64) -> Range<usize> {
        let events = &self.whole.trace.events;
        let n = events.len() as u64;
        let mut random = Random::new(seed);
        let (a, b) = (random.below(n), random.below(n));
        let (a, b) = match seed % 4 {
            0 => (a, n),
            1 => (0, b),
            _ => (a.min(b), a.max(b) + 1),
        };
        // The part ends between two instants, because a moment includes all of its events.
        let b = if b < n { events.first_at_or_after(events.ts(b as usize)) } else { n as usize };
        a as usize..b
    }

    fn cut(&mut self, seed: u64, gfn: Option<u64>) {
        let range = self.range(seed);
        if range.len() < 2 {
            return;
        }
        (self.seed, self.first) = (seed, range.start as u32);
        let part = part_of(&self.whole.trace, range.clone());
        let timeline = replay(&part, &self.whole.options);
        if let Some(gfn) = gfn {
            println!("events {range:?} of {}", self.whole.trace.events.len());
            print_frame(&part, &timeline, gfn);
            println!("the whole trace:");
            print_frame(&self.whole.trace, &self.whole.timeline, gfn);
        }
        let vms = self.vms(&timeline);
        let vms = vms.as_ref();
        self.loose = vms.is_none();
        for i in 1..=MOMENTS {
            let at = part.events.len() * i / MOMENTS;
            let ts = part.events.ts(at.saturating_sub(1));
            let next = self.whole.trace.events.ts((range.start + at).min(self.whole.trace.events.len() - 1));
            // Compare between two instants, and after all events.
            if next > ts || range.start + at == self.whole.trace.events.len() {
                self.entries(&timeline, vms, ts);
            }
        }
        self.openings(&timeline, vms);
        self.faults(&timeline);
        self.zapped(&timeline, vms);
        self.stories(&part, &timeline, vms);
        for e in stuck(&timeline, self.first) {
            if !self.whole.stuck.contains(&e) {
                self.differ(&format!("event {e}: called stuck"));
            }
        }
    }

    fn differ(&mut self, what: &str) {
        self.wrong.push(format!("seed {}: {what}", self.seed));
    }

    /// The VMs of the part matched by their threads with those of the whole trace. The result is `None` where the part has other VMs, which are
    /// guessed in a text without processes; then what tables hold is compared, but not to which VM they belong.
    fn vms(&self, t: &Timeline) -> Option<HashMap<VmId, VmId>> {
        let whole = self.whole.timeline.vms();
        let tids = |v: &Vm| v.vcpus.iter().map(|c| c.tid).collect::<Vec<_>>();
        let mut out: HashMap<VmId, VmId> = HashMap::new();
        if t.vms().len() < whole.len() {
            return None;
        }
        for v in t.vms() {
            let mine = tids(v);
            let of: Vec<&Vm> = match (v.pid, whole) {
                (Some(_), _) => whole.iter().filter(|w| w.pid == v.pid).collect(),
                (None, [one]) => vec![one],
                _ => whole.iter().filter(|w| tids(w).iter().any(|t| mine.contains(t))).collect(),
            };
            let [one] = of[..] else { return None };
            if out.values().any(|w| *w == one.id) {
                return None;
            }
            out.insert(v.id, one.id);
        }
        Some(out)
    }

    fn same(&self, a: Option<u64>, b: Option<u64>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => (a ^ b) & !self.whole.untraced_bits == 0,
            (a, b) => a == b,
        }
    }

    /// The entries of the whole trace at a moment, by place.
    fn truth(&self, ts: u64) -> HashMap<Place, Vec<(Entry, Span)>> {
        let mut out: HashMap<Place, Vec<(Entry, Span)>> = HashMap::new();
        for (e, s) in self.whole.timeline.state_at(ts, &StateFilter::default()) {
            let vm = if self.loose { VmId(0) } else { e.vm };
            out.entry(place(vm, &e)).or_default().push((e, s));
        }
        out
    }

    fn entries(&mut self, t: &Timeline, vms: Option<&HashMap<VmId, VmId>>, ts: u64) {
        let truth = self.truth(ts);
        for (e, s) in t.state_at(ts, &StateFilter::default()) {
            if s.certainty > Certainty::Observed {
                continue;
            }
            let vm = whose(vms, e.vm);
            self.facts += 1;
            let at = place(vm, &e);
            let here = truth.get(&at).map_or(&[][..], Vec::as_slice);
            // The same entry, where both sides know its address.
            let named: Vec<_> = here.iter().filter(|x| x.0.sptep.is_some() && x.0.sptep == e.sptep).collect();
            let rest: Vec<_> = here.iter().filter(|x| x.0.sptep.is_none() || e.sptep.is_none()).collect();
            let mut whose = if named.is_empty() { rest.iter() } else { named.iter() };
            let fits = |x: &&&(Entry, Span)| x.1.state == s.state && self.same(x.1.spte, s.spte);
            let empty = matches!(s.state, State::Nonpresent);
            let found = whose
                .clone()
                .find(fits)
                .or_else(|| whose.clone().find(|x| empty && x.1.state == State::Nonpresent));
            let stated = format!(
                "{} at {:x?} {} ns: {} {:x?} ({})",
                name(at),
                e.sptep,
                ts,
                s.state.name(),
                s.spte,
                words(&s)
            );
            match found {
                Some(x) if x.1.certainty == Certainty::Stale => {
                    let more = format!("{stated}; the whole trace is less sure ({})", words(&x.1));
                    self.differ(&more);
                }
                Some(_) => {}
                // The part has no entry where there is no table any more, or none that an event has shown.
                None if empty && whose.len() == 0 => {}
                None => {
                    let held: Vec<String> = whose
                        .by_ref()
                        .map(|x| format!("{} {:x?} ({})", x.1.state.name(), x.1.spte, words(&x.1)))
                        .collect();
                    self.differ(&format!("{stated}; the whole trace: [{}]", held.join(", ")));
                }
            }
        }
    }

    /// Compares what entries are said to have held before their first event.
    fn openings(&mut self, t: &Timeline, vms: Option<&HashMap<VmId, VmId>>) {
        let mut all: Vec<(Entry, Span)> = Vec::new();
        for e in t.entries() {
            let first = t.spans(e.id).next();
            all.extend(
                first
                    .filter(|s| s.reason == Reason::OldValue && s.end.is_some_and(|x| x > s.start))
                    .map(|s| (e, s)),
            );
        }
        // Most of these spans begin where the part does.
        let mut truths: HashMap<u64, HashMap<Place, Vec<(Entry, Span)>>> = HashMap::new();
        for (e, s) in all {
            let vm = whose(vms, e.vm);
            self.facts += 1;
            let at = place(vm, &e);
            // The moment before the part's first event, which may be at the same instant.
            let when = s.start;
            let truth = truths.entry(when).or_insert_with(|| self.truth(when));
            let held = |x: &(Entry, Span)| x.1.state == s.state && self.same(x.1.spte, s.spte);
            if !truth.get(&at).is_some_and(|v| v.iter().any(held)) {
                let known: Vec<String> = truth
                    .get(&at)
                    .into_iter()
                    .flatten()
                    .map(|x| format!("{} {:x?} ({})", x.1.state.name(), x.1.spte, words(&x.1)))
                    .collect();
                self.differ(&format!(
                    "{}: held {:x?} before its first event; the whole trace: [{}]",
                    name(at),
                    s.spte,
                    known.join(", ")
                ));
            }
        }
    }

    fn faults(&mut self, t: &Timeline) {
        for f in t.faults() {
            if matches!(f.outcome, Outcome::Unfinished | Outcome::Untold) || f.end_ts.is_none() {
                continue;
            }
            self.facts += 1;
            let event = f.event + self.first;
            // The whole trace has the same fault, or one that had begun before the cut.
            let of_thread = self.whole.faults.get(&f.tid).map_or(&[][..], Vec::as_slice);
            let before = of_thread.partition_point(|w| w.event <= event);
            let same = |w: &&Fault| w.event == event || w.event < self.first && w.last_event >= event;
            let Some(w) = of_thread[..before].last().filter(same) else {
                self.differ(&format!(
                    "fault at event {event}, {:x?} {}: the whole trace has none",
                    f.gfn,
                    f.outcome.name()
                ));
                continue;
            };
            let outcome = w.outcome == f.outcome || w.outcome == Outcome::Untold;
            let level = f.level.is_none() || w.level.is_none() || f.level == w.level;
            let gfn = f.gfn.is_none() || f.gfn == w.gfn;
            let pfn = f.pfn.is_none() || w.pfn.is_none() || f.pfn == w.pfn;
            if !(outcome && level && gfn && pfn) {
                let said = |f: &Fault| {
                    format!("{:x?} {} level {:?} pfn {:x?}", f.gfn, f.outcome.name(), f.level, f.pfn)
                };
                self.differ(&format!("fault at event {event}: {}; the whole trace: {}", said(&f), said(w)));
            }
        }
    }

    /// Whether two events are `kvm_mmu_prepare_zap_page` of the same level and frame: where two such tables live, neither says which it is.
    fn name_the_same(&self, a: u32, b: u32) -> bool {
        let page = |ev: u32| match self.whole.trace.events.get(ev as usize).body {
            Body::PrepareZapPage { page } => Some((page.role.level, page.gfn?)),
            _ => None,
        };
        page(a).is_some() && page(a) == page(b)
    }

    /// Whether a table that has the name of the one that event `ev` frees is freed by a later event up to `until`. The whole trace, which has
    /// seen both tables being made, then says of neither that it is gone before its thread goes on.
    fn frees_another(&self, ev: u32, until: u32) -> bool {
        (ev + 1..=until).any(|other| self.name_the_same(ev, other))
    }

    /// Compares zaps: each must be one of the whole trace, which may count it earlier, where the link to the table was cut.
    fn zapped(&mut self, t: &Timeline, vms: Option<&HashMap<VmId, VmId>>) {
        for (at, events) in zaps(t, self.first, |vm| whose(vms, vm)) {
            let zaps = if self.loose { &self.whole.loose_zaps } else { &self.whole.zaps };
            let mut known = zaps.get(&at).cloned().unwrap_or_default();
            for ev in events {
                self.facts += 1;
                let n = known.partition_point(|k| *k <= ev);
                if n > 0 {
                    known.remove(n - 1);
                } else if known.first().is_some_and(|k| *k <= ev + BURST && self.frees_another(ev, *k)) {
                    known.remove(0);
                } else {
                    self.differ(&format!(
                        "{}: zapped by event {ev}, which the whole trace does not have",
                        name(at)
                    ));
                }
            }
        }
    }

    fn stories(&mut self, part: &Trace, t: &Timeline, vms: Option<&HashMap<VmId, VmId>>) {
        if self.loose {
            return;
        }
        let end = t.range().1;
        let entries: Vec<Entry> = t.entries().filter(|e| e.level < 4).collect();
        let mut random = Random::new(self.seed);
        for _ in 0..STORIES.min(entries.len()) {
            let e = entries[random.below(entries.len() as u64) as usize];
            let vm = whose(vms, e.vm);
            self.facts += 1;
            let story = t.page_story(part, e.vm, e.as_id, e.gfn);
            if !story.headline.ends_with("not mapped") {
                continue;
            }
            let here = StateFilter {
                vm: Some(vm),
                as_id: Some(e.as_id),
                gfns: Some((e.gfn, e.gfn + 1)),
                ..StateFilter::default()
            };
            for (x, s) in self.whole.timeline.state_at(end, &here) {
                if matches!(s.state, State::Present | State::Mmio) && s.certainty < Certainty::Assumed {
                    self.differ(&format!(
                        "story of {:#x}: not mapped at the end; the whole trace: {} {:x?} ({})",
                        e.gfn,
                        name(place(vm, &x)),
                        s.spte,
                        words(&s)
                    ));
                }
            }
        }
    }
}
