//! Replays recordings and compares the result with what the kernel's memory held:
//! `check_truth [--share] [--prefix] [--lossy] [--seeds N] [--all] DIR…`.
//!
//! It checks every folder below the given ones that has a recording and some truth beside it:
//!
//! - TDP MMU (`truth-leaves.csv`): the present and MMIO leaves of both sides are the same, value for value, apart from Accessed and Dirty;
//! - any MMU (`ptpages.bin`): every entry that the replay calls exact or observed, and not stale, holds the same in the kernel;
//! - the counts of present leaves agree with KVM's own (`kvmstats.txt`);
//! - with `--lossy` (`--seeds N`, 9 by default), the same holds when events are missing: long and short runs of events of one CPU or of all
//!   CPUs, at the start and at the end, single events, many whole buffers, or the beginning because the recorder started late. It also
//!   prints how many facts are left;
//! - with `--share`, how many of the entries that map something at the end are known, and why the others are not;
//! - with `--prefix`, the state at a third and at two thirds of the trace is the one that replaying only that much of the trace gives.
//!
//! `--seed N` runs that one loss only, and `--gfn HEX` prints everything about one frame in it (or in the whole trace).
//!
//! `none` means that the folder has nothing to compare with. The truth belongs to the end of `trace.txt.zst`; where the lab made the folder
//! (it then has `tasks.txt`), it belongs to the other recordings, too, which `--all` includes.

mod parts;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use mmuscope_lab::truth::{self, Pages, Tasks};
use mmuscope_replay::{
    Certainty, Entry, MmuKind, Reason, ReplayOptions, Span, State, StateFilter, Timeline, replay,
};
use mmuscope_trace::{Body, Event, EventStore, ReadOptions, Trace};
use parts::words;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            eprintln!("check_truth: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let (mut prefix, mut share, mut lossy, mut all, mut dirs) = (false, false, 0, false, Vec::new());
    let (mut one, mut gfn) = (None, None);
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--prefix" => prefix = true,
            "--share" => share = true,
            "--lossy" => lossy = lossy.max(9),
            "--seeds" => lossy = args.next().context("--seeds N")?.parse().context("--seeds N")?,
            "--seed" => one = Some(args.next().context("--seed N")?.parse().context("--seed N")?),
            "--gfn" => {
                let hex = args.next().context("--gfn HEX")?;
                gfn = Some(u64::from_str_radix(hex.trim_start_matches("0x"), 16).context("--gfn HEX")?);
            }
            "--all" => all = true,
            _ => folders(Path::new(&arg), &mut dirs)?,
        }
    }
    if dirs.is_empty() {
        bail!("no folder with a recording and truth");
    }
    dirs.sort();
    let mut good = true;
    for dir in dirs {
        let mut files = vec!["trace.txt.zst", "trace.txt", "mmuscope.perf.data"];
        if all && dir.join("tasks.txt").exists() {
            files.extend(["trace.dat", "perf.data.zst", "perf.data"]);
        }
        for file in files.into_iter().map(|f| dir.join(f)).filter(|f| f.exists()) {
            let mut check = Check::new(&dir, &file).with_context(|| file.display().to_string())?;
            let compared =
                check.leaves.is_some() || !check.pages.is_empty() || check.counters.contains_key("pages_4k");
            check.run(prefix);
            if let Some(gfn) = gfn {
                check.print(one, gfn);
            }
            if lossy > 0 || one.is_some() {
                check.lossy(one.map_or(1..=lossy, |n| n..=n));
            }
            let name = format!(
                "{}/{}",
                dir.file_name().unwrap_or_default().to_string_lossy(),
                file.file_name().unwrap_or_default().to_string_lossy()
            );
            if share && !check.pages.is_empty() {
                check.share();
            }
            let ok = check.wrong.is_empty();
            println!(
                "{} {name}: {}",
                match (ok, compared) {
                    (false, _) => "FAIL",
                    (true, true) => "ok  ",
                    (true, false) => "none",
                },
                check.said.join("; ")
            );
            for w in check.wrong.iter().take(12) {
                println!("     {w}");
            }
            if check.wrong.len() > 12 {
                println!("     … {} in all", check.wrong.len());
            }
            good &= ok;
        }
    }
    Ok(good)
}

fn folders(dir: &Path, to: &mut Vec<PathBuf>) -> Result<()> {
    if dir.join("truth-leaves.csv").exists()
        || dir.join("ptpages.bin").exists()
        || dir.join("kvmstats.txt").exists()
    {
        to.push(dir.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            folders(&path, to)?;
        }
    }
    Ok(())
}

/// The place of a leaf: process of the VM (0: not known), address space (0 too), level, first frame.
type Place = (u32, u32, u8, u64);

struct Check {
    trace: Trace,
    timeline: Timeline,
    leaves: Option<BTreeMap<Place, Vec<u64>>>,
    by_vm: bool,
    pages: Pages,
    tasks: Tasks,
    counters: BTreeMap<String, u64>,
    /// The bits that the CPU sets without an event.
    untraced_bits: u64,
    /// The number of entries that the replay states as fact, and that are right.
    facts: u64,
    /// How many of those map something.
    mapped: u64,
    /// For each reason why an entry is not a fact: how many of them are right nevertheless, and how many are wrong.
    why: BTreeMap<Reason, (u64, u64)>,
    said: Vec<String>,
    wrong: Vec<String>,
}

impl Check {
    fn new(dir: &Path, file: &Path) -> Result<Self> {
        let trace = Trace::load(&[file.to_owned()], &ReadOptions::default())?;
        let timeline = replay(&trace, &ReplayOptions::default());
        let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let params = text("params.txt");
        let ept = params.lines().any(|l| matches!(l.rsplit_once("/parameters/ept:"), Some((_, "Y" | "1"))));
        let hex = |w: &str| u64::from_str_radix(w.trim_start_matches("0x"), 16).unwrap_or(u64::MAX);
        let mut leaves: BTreeMap<Place, Vec<u64>> = BTreeMap::new();
        let (trees, plain) = (text("truth-trees.csv"), text("truth-leaves.csv"));
        let by_vm = !trees.is_empty();
        for line in trees.lines().skip(1) {
            if let [pid, as_id, level, gfn, spte] = line.trim().split(',').collect::<Vec<_>>()[..] {
                leaves
                    .entry((pid.parse()?, as_id.parse()?, level.parse()?, hex(gfn)))
                    .or_default()
                    .push(hex(spte));
            }
        }
        for line in if by_vm { "" } else { &plain }.lines() {
            if let [level, gfn, spte] = line.trim().split(',').collect::<Vec<_>>()[..] {
                leaves.entry((0, 0, level.parse()?, hex(gfn))).or_default().push(hex(spte));
            }
        }
        let counters = text("kvmstats.txt")
            .lines()
            .filter_map(|l| l.split_once(':').and_then(|(k, v)| Some((k.to_owned(), v.parse().ok()?))))
            .collect();
        Ok(Self {
            trace,
            timeline,
            leaves: (!leaves.is_empty()).then_some(leaves),
            by_vm,
            pages: truth::read_pages(&fs::read(dir.join("ptpages.bin")).unwrap_or_default()),
            tasks: truth::read_tasks(&text("tasks.txt")),
            counters,
            untraced_bits: if ept { 0x300 } else { 0x60 },
            facts: 0,
            mapped: 0,
            why: BTreeMap::new(),
            said: Vec::new(),
            wrong: Vec::new(),
        })
    }

    fn run(&mut self, prefix: bool) {
        let (_, end) = self.timeline.range();
        let state = self.timeline.state_at(end, &StateFilter::default());
        let kinds: Vec<&str> = self.timeline.vms().iter().map(|v| v.kind.name()).collect();
        self.said.push(format!("{} events, {}", self.trace.events.len(), kinds.join("+")));
        if let Some(truth) = self.leaves.take() {
            self.trees(&state, &truth);
        }
        self.entries(&state);
        self.count(&state);
        if prefix {
            for part in 1..3 {
                self.prefix(self.trace.events.len() * part / 3);
            }
        }
    }

    fn pid(&self, e: &Entry) -> u32 {
        // A trace that names only threads still shows to which VM they belong.
        let Some(vm) = self.timeline.vms().iter().find(|v| v.id == e.vm) else { return 0 };
        vm.pid.or_else(|| vm.vcpus.iter().find_map(|c| self.tasks.get(&c.tid).copied())).unwrap_or(0)
    }

    /// Compares the leaves of the live trees in both directions.
    fn trees(&mut self, state: &[(Entry, Span)], truth: &BTreeMap<Place, Vec<u64>>) {
        let mut ours: BTreeMap<Place, Vec<(u64, String)>> = BTreeMap::new();
        // A trace of one VM need not name its process.
        let one = self.timeline.vms().len() == 1;
        let only = truth.keys().next().map_or(0, |k| k.0);
        for (e, s) in state.iter().filter(|(_, s)| matches!(s.state, State::Present | State::Mmio)) {
            if !self.timeline.table(e.table).direct {
                // This is a shadow page beside the trees, which belongs to a nested guest.
                continue;
            }
            let place = if self.by_vm {
                (if one { only } else { self.pid(e) }, u32::from(e.as_id), e.level, e.gfn)
            } else {
                (0, 0, e.level, e.gfn)
            };
            ours.entry(place).or_default().push((s.spte.unwrap_or(u64::MAX), words(s)));
        }
        let mut agreed = 0;
        let places: BTreeSet<&Place> = ours.keys().chain(truth.keys()).collect();
        for &&place in &places {
            let none = Vec::new();
            let kernel: Vec<u64> =
                truth.get(&place).into_iter().flatten().map(|v| v & !self.untraced_bits).collect();
            let mut rest = kernel.clone();
            for (value, how) in ours.get(&place).unwrap_or(&none) {
                if let Some(at) = rest.iter().position(|v| *v == value & !self.untraced_bits) {
                    rest.remove(at);
                    agreed += 1;
                } else {
                    self.wrong
                        .push(format!("leaf {}: replay {value:#x} ({how}), kernel {kernel:x?}", name(place)));
                }
            }
            for value in rest {
                // A leaf with another value was reported above; this one is missing in the replay.
                if ours.get(&place).is_none_or(|o| o.len() < kernel.len()) {
                    self.wrong
                        .push(format!("leaf {}: kernel {value:#x}, missing in the replay", name(place)));
                }
            }
        }
        self.said.push(format!("{agreed} leaves agree"));
    }

    /// Compares each entry whose place is known with the copy of its page, so that no false fact is stated.
    fn entries(&mut self, state: &[(Entry, Span)]) {
        if self.pages.is_empty() {
            return;
        }
        let (mut right, mut mapped, mut mapped_only) = (0u64, 0, 0u64);
        let (mut unsure_right, mut unsure_wrong, mut elsewhere) = (0, 0, 0);
        self.why.clear();
        for (e, s) in state {
            let (Some(sptep), Some(value)) = (e.sptep, s.spte) else { continue };
            let Some(page) = self.pages.get(&(sptep & !0xfff)) else {
                elsewhere += 1;
                continue;
            };
            let kernel = page[(sptep & 0xfff) as usize / 8];
            let same = (kernel ^ value) & !self.untraced_bits == 0;
            // That the entry is writable is an assumption here; that it maps a page, and which, is a fact.
            let writable = 2 | if self.untraced_bits == 0x300 { 3 << 57 } else { 0x600 };
            if s.reason == Reason::MaybeProtected {
                if (kernel ^ value) & !self.untraced_bits & !writable == 0 {
                    mapped_only += 1;
                } else {
                    self.wrong.push(format!(
                        "entry {} at {sptep:#x}: replay {value:#x} ({}), kernel {kernel:#x}",
                        name((0, u32::from(e.as_id), e.level, e.gfn)),
                        words(s)
                    ));
                }
                continue;
            }
            match (s.certainty, same) {
                (Certainty::Exact | Certainty::Observed, true) => {
                    right += 1;
                    mapped += u64::from(matches!(s.state, State::Present | State::Mmio));
                }
                (Certainty::Exact | Certainty::Observed, false) => self.wrong.push(format!(
                    "entry {} at {sptep:#x}: replay {value:#x} {} ({}), kernel {kernel:#x}",
                    name((0, u32::from(e.as_id), e.level, e.gfn)),
                    s.state.name(),
                    words(s)
                )),
                (_, same) => {
                    *(if same { &mut unsure_right } else { &mut unsure_wrong }) += 1;
                    if matches!(s.state, State::Present | State::Mmio) {
                        let why = self.why.entry(s.reason).or_default();
                        *(if same { &mut why.0 } else { &mut why.1 }) += 1;
                    }
                }
            }
        }
        (self.facts, self.mapped) = (right + mapped_only, mapped + mapped_only);
        self.said.push(format!("entries: {right} facts right and {mapped_only} but for W, of the unsure {unsure_right} right {unsure_wrong} wrong, {elsewhere} in no copied page"));
    }

    /// Prints how much of what is mapped at the end is known, and why the rest is not.
    fn share(&mut self) {
        let right: u64 = self.why.values().map(|w| w.0).sum();
        let all = self.mapped + right;
        let kvm: u64 =
            ["pages_4k", "pages_2m", "pages_1g"].iter().filter_map(|c| self.counters.get(*c)).sum();
        let mut why: Vec<_> = self.why.iter().filter(|(_, w)| w.0 > 0).collect();
        why.sort_by_key(|(_, w)| std::cmp::Reverse(w.0));
        let why: Vec<String> = why.iter().map(|(r, w)| format!("{r:?} {} ({} wrong)", w.0, w.1)).collect();
        self.said = vec![format!(
            "known {} of {all} that map something and are right, {} % (KVM counts {kvm} present leaves); not known: {}",
            self.mapped,
            self.mapped * 100 / all.max(1),
            why.join(", ")
        )];
    }

    /// Checks that facts are true when events are missing.
    fn lossy(&mut self, seeds: std::ops::RangeInclusive<u64>) {
        if self.pages.is_empty() {
            return;
        }
        let (whole, mapped) = (self.facts, self.mapped);
        let mut kept_mapped = 0;
        let (mut runs, mut kept) = (0, 0);
        for seed in seeds {
            let Some((shape, part)) = self.without(seed) else { continue };
            let before = self.wrong.len();
            let lost = self.trace.events.len() - part.events.len();
            let timeline = std::mem::replace(&mut self.timeline, replay(&part, &ReplayOptions::default()));
            let state = self.timeline.state_at(self.timeline.range().1, &StateFilter::default());
            self.entries(&state);
            self.timeline = timeline;
            self.said.pop();
            runs += 1;
            kept += self.facts;
            kept_mapped += self.mapped;
            for w in &mut self.wrong[before..] {
                w.insert_str(0, &format!("lossy {seed} ({shape}, {lost} of {}): ", self.trace.events.len()));
            }
        }
        (self.facts, self.mapped) = (whole, mapped);
        self.said.push(format!(
            "{runs} lossy runs: {} facts right on average, {} % of the whole trace's ({} % of those that map something)",
            kept / runs.max(1),
            kept * 100 / (runs * whole).max(1),
            kept_mapped * 100 / (runs * mapped).max(1),
        ));
    }

    /// Prints everything about one frame, in a run with losses or in the whole trace: its events, and what the replay made of them.
    fn print(&self, seed: Option<u64>, gfn: u64) {
        let without = seed.and_then(|s| self.without(s));
        let trace = without.as_ref().map_or(&self.trace, |w| &w.1);
        let timeline = replay(trace, &ReplayOptions::default());
        parts::print_frame(trace, &timeline, gfn);
    }

    /// The trace without some of its events, as recorders lose them; `None` where a loss would never be noticed.
    fn without(&self, seed: u64) -> Option<(&'static str, Trace)> {
        let mut random = parts::Random::new(seed);
        let mut below = |n: u64| random.below(n);
        let total = self.trace.events.len() as u64;
        let cpus = self.trace.events.iter().map(|e| u64::from(e.cpu) + 1).max().unwrap_or(1);
        // Each gap is its first event, the number of events, and their CPU (`None`: all CPUs).
        let mut gaps: Vec<(u64, u64, Option<u16>)> = Vec::new();
        let mut one_in = 0;
        // A recorder that starts late does not report the earlier events as lost.
        let mut late = 0;
        let shape = match seed % 9 {
            0 => {
                gaps.push((below(total), total / 20 + below(total / 4), Some(below(cpus) as u16)));
                "long gap"
            }
            1 | 2 => {
                // There are three losses, the last of them near the end, where few events follow that could show what was lost.
                for n in [total / 4, total / 2, total / 8] {
                    gaps.push((total - n - below(n / 2), 20 + below(total / 50), Some(below(cpus) as u16)));
                }
                "three gaps"
            }
            3 => {
                for _ in 0..=below(3) {
                    gaps.push((below(total), 20 + below(total / 20), None));
                }
                "gaps on all CPUs"
            }
            4 => {
                late = below(total * 9 / 10);
                "late start"
            }
            5 => {
                gaps.push((0, below(total * 9 / 10), Some(below(cpus) as u16)));
                gaps.push((0, below(total / 2), None));
                "start lost"
            }
            6 => {
                let n = 20 + below(total / 4);
                gaps.push((total - n, n - n.min(8 + below(n / 8)), Some(below(cpus) as u16)));
                "near the end"
            }
            7 => {
                one_in = 1 << (4 + below(9));
                "single events"
            }
            _ => {
                // Many pages of a ring buffer are lost.
                for _ in 0..4 + below(30) {
                    gaps.push((below(total), 60 + below(200), Some(below(cpus) as u16)));
                }
                "whole buffers"
            }
        };
        let (mut part, mut lost) = (EventStore::new(), BTreeMap::<u16, u64>::new());
        for (i, e) in self.trace.events.iter().enumerate() {
            let i = i as u64;
            let hit = |&(at, len, cpu): &(u64, u64, Option<u16>)| {
                cpu.is_none_or(|c| e.cpu == c) && i >= at && i < at + len
            };
            if i < late {
                continue;
            }
            if gaps.iter().any(hit) || one_in > 0 && below(one_in) == 0 {
                *lost.entry(e.cpu).or_default() += 1;
                continue;
            }
            if let Some(count) = lost.remove(&e.cpu) {
                // The recorder notices the loss with the first event that finds room again.
                part.push(&Event {
                    tid: None,
                    pid: None,
                    body: Body::Lost { count: Some(count), event: None },
                    ..e
                });
            }
            part.push(&e);
        }
        // A recorder that stops reports its last losses at the end.
        if let Some(last) = self.trace.events.iter().last() {
            for (cpu, count) in lost {
                part.push(&Event {
                    cpu,
                    tid: None,
                    pid: None,
                    body: Body::Lost { count: Some(count), event: None },
                    ..last
                });
            }
        }
        if part.len() < 2 {
            return None;
        }
        let mut info = self.trace.info.clone();
        info.events = part.len() as u64;
        info.first_ts = part.ts(0);
        Some((shape, Trace { info, strings: self.trace.strings.clone(), events: part }))
    }

    /// Compares the number of present leaves of each size with KVM's counters.
    fn count(&mut self, state: &[(Entry, Span)]) {
        let counted = self.timeline.vms().iter().all(|v| v.kind == MmuKind::Tdp);
        for (level, counter) in [(1, "pages_4k"), (2, "pages_2m"), (3, "pages_1g")] {
            let Some(&kvm) = self.counters.get(counter) else { continue };
            let present = state.iter().filter(|(e, s)| e.level == level && s.state == State::Present);
            let (mut sure, mut stale) = (0, 0);
            for (_, s) in present {
                if s.certainty == Certainty::Stale { stale += 1 } else { sure += 1 }
            }
            if counted && sure + stale != kvm {
                self.wrong.push(format!("{counter}: replay {sure} and {stale} stale, kernel {kvm}"));
            } else if sure > kvm {
                self.wrong.push(format!("{counter}: replay is sure of {sure}, kernel has only {kvm}"));
            }
            if kvm > 0 {
                self.said.push(format!("{counter} {sure}+{stale} stale of {kvm}"));
            }
        }
    }

    /// Checks that replaying only the first events gives the state that the whole replay has for that moment.
    fn prefix(&mut self, events: usize) {
        let ts = self.trace.events.ts(events);
        // Events of the same instant are kept together.
        let events = self.trace.events.first_at_or_after(ts);
        if events == 0 {
            return;
        }
        let at = self.trace.events.ts(events - 1);
        let part = parts::part_of(&self.trace, 0..events);
        let shorter = replay(&part, &ReplayOptions::default());
        let known = |t: &Timeline| -> BTreeMap<_, BTreeSet<_>> {
            let mut all: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
            for (e, s) in t.state_at(at, &StateFilter::default()) {
                if matches!(s.state, State::Present | State::Mmio) && s.certainty < Certainty::Assumed {
                    all.entry((e.as_id, e.level, e.gfn)).or_default().insert(s.spte);
                }
            }
            all
        };
        let (whole, shorter) = (known(&self.timeline), known(&shorter));
        let places: BTreeSet<_> = whole.keys().chain(shorter.keys()).collect();
        let different: Vec<_> = places.iter().filter(|p| whole.get(**p) != shorter.get(**p)).collect();
        self.said.push(format!("prefix of {events}: {} places, {} differ", places.len(), different.len()));
        for p in different.into_iter().take(4) {
            self.wrong.push(format!(
                "prefix of {events}: as {} level {} gfn {:#x}: whole {:x?}, prefix {:x?}",
                p.0,
                p.1,
                p.2,
                whole.get(*p),
                shorter.get(*p)
            ));
        }
    }
}

fn name((pid, as_id, level, gfn): Place) -> String {
    format!("pid {pid} as {as_id} level {level} gfn {gfn:#x}")
}
