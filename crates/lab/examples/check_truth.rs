//! Replays recordings and compares what comes out with what the kernel's memory held: `check_truth [--prefix] [--lossy] [--all] DIR…`.
//!
//! Every folder below the given ones that has a recording and some truth beside it is checked:
//!
//! - TDP MMU (`truth-leaves.csv`): the present and MMIO leaves of both sides are the same, value for value, Accessed and Dirty apart;
//! - any MMU (`ptpages.bin`): no entry that the replay states as exact or observed, and not stale, holds anything else in the kernel;
//! - counts of present leaves against KVM's own (`kvmstats.txt`);
//! - with `--lossy`: the same of facts when runs of events on one CPU are missing, as full rings lose them;
//! - with `--prefix`: the state at a third and two thirds of the trace is what replaying that much of the trace alone gives.
//!
//! `none`: there was nothing in the folder to compare with. Truth belongs to the end of `trace.txt.zst`; where the lab made the folder (`tasks.txt`), to the other recordings too, which `--all` includes.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use mmuscope_lab::truth::{self, Pages, Tasks};
use mmuscope_replay::{Certainty, Entry, MmuKind, ReplayOptions, Span, State, StateFilter, Timeline, replay};
use mmuscope_trace::{Body, Event, EventStore, ReadOptions, Trace};

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
    let (mut prefix, mut lossy, mut all, mut dirs) = (false, false, false, Vec::new());
    for arg in env::args().skip(1) {
        match arg.as_str() {
            "--prefix" => prefix = true,
            "--lossy" => lossy = true,
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
            if lossy {
                (1..4).for_each(|seed| check.lossy(seed));
            }
            let name = format!(
                "{}/{}",
                dir.file_name().unwrap_or_default().to_string_lossy(),
                file.file_name().unwrap_or_default().to_string_lossy()
            );
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

/// Where a leaf is: process of the VM (0: not known), address space (0 too), level, first frame.
type Place = (u32, u32, u8, u64);

struct Check {
    trace: Trace,
    timeline: Timeline,
    leaves: Option<BTreeMap<Place, Vec<u64>>>,
    by_vm: bool,
    pages: Pages,
    tasks: Tasks,
    counters: BTreeMap<String, u64>,
    /// Bits the CPU sets without an event.
    silent: u64,
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
            silent: if ept { 0x300 } else { 0x60 },
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
        // A trace that names threads only still tells whose they are.
        let Some(vm) = self.timeline.vms().iter().find(|v| v.id == e.vm) else { return 0 };
        vm.pid.or_else(|| vm.vcpus.iter().find_map(|c| self.tasks.get(&c.tid).copied())).unwrap_or(0)
    }

    /// Both directions: the leaves of the live trees.
    fn trees(&mut self, state: &[(Entry, Span)], truth: &BTreeMap<Place, Vec<u64>>) {
        let mut ours: BTreeMap<Place, Vec<(u64, String)>> = BTreeMap::new();
        // The trace of one VM need not know its process.
        let one = self.timeline.vms().len() == 1;
        let only = truth.keys().next().map_or(0, |k| k.0);
        for (e, s) in state.iter().filter(|(_, s)| matches!(s.state, State::Present | State::Mmio)) {
            if !self.timeline.table(e.table).direct {
                // A shadow page beside the trees: a nested guest's.
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
                truth.get(&place).into_iter().flatten().map(|v| v & !self.silent).collect();
            let mut rest = kernel.clone();
            for (value, how) in ours.get(&place).unwrap_or(&none) {
                if let Some(at) = rest.iter().position(|v| *v == value & !self.silent) {
                    rest.remove(at);
                    agreed += 1;
                } else {
                    self.wrong
                        .push(format!("leaf {}: replay {value:#x} ({how}), kernel {kernel:x?}", name(place)));
                }
            }
            for value in rest {
                // Not frozen for good, and not a leaf anybody calls present.
                if ours.get(&place).is_none_or(|o| o.len() < kernel.len()) {
                    self.wrong
                        .push(format!("leaf {}: kernel {value:#x}, missing in the replay", name(place)));
                }
            }
        }
        self.said.push(format!("{agreed} leaves agree"));
    }

    /// No false facts: each entry whose place is known, against the copy of its page.
    fn entries(&mut self, state: &[(Entry, Span)]) {
        if self.pages.is_empty() {
            return;
        }
        let (mut right, mut unsure_right, mut unsure_wrong, mut elsewhere) = (0, 0, 0, 0);
        for (e, s) in state {
            let (Some(sptep), Some(value)) = (e.sptep, s.spte) else { continue };
            let Some(page) = self.pages.get(&(sptep & !0xfff)) else {
                elsewhere += 1;
                continue;
            };
            let kernel = page[(sptep & 0xfff) as usize / 8];
            let same = (kernel ^ value) & !self.silent == 0;
            match (s.certainty, same) {
                (Certainty::Exact | Certainty::Observed, true) => right += 1,
                (Certainty::Exact | Certainty::Observed, false) => self.wrong.push(format!(
                    "entry {} at {sptep:#x}: replay {value:#x} {} ({}), kernel {kernel:#x}",
                    name((0, u32::from(e.as_id), e.level, e.gfn)),
                    s.state.name(),
                    words(s)
                )),
                (_, true) => unsure_right += 1,
                (_, false) => unsure_wrong += 1,
            }
        }
        self.said.push(format!("entries: {right} facts right, of the unsure {unsure_right} right {unsure_wrong} wrong, {elsewhere} in no copied page"));
    }

    /// Facts must stay facts when events are missing.
    fn lossy(&mut self, seed: u64) {
        let mut random = seed;
        let mut below = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n.max(1)
        };
        let total = self.trace.events.len() as u64;
        // Three losses; the last one late, when little is left to make up for it.
        let mut gaps: Vec<(u64, u64, u16)> = [total / 4, total / 2, total / 8]
            .iter()
            .map(|n| (total - n - below(*n / 2), 20 + below(total / 50), below(2) as u16))
            .collect();
        gaps.sort_unstable();
        let (mut part, mut lost) = (EventStore::new(), BTreeMap::<u16, u64>::new());
        for (i, e) in self.trace.events.iter().enumerate() {
            let i = i as u64;
            if gaps.iter().any(|&(at, len, cpu)| e.cpu == cpu && i >= at && i < at + len) {
                *lost.entry(e.cpu).or_default() += 1;
                continue;
            }
            if let Some(count) = lost.remove(&e.cpu) {
                // The recorder notices with the first event that finds room again.
                part.push(&Event {
                    tid: None,
                    pid: None,
                    body: Body::Lost { count: Some(count), event: None },
                    ..e
                });
            }
            part.push(&e);
        }
        if !lost.is_empty() {
            return;
        }
        let mut info = self.trace.info.clone();
        info.events = part.len() as u64;
        let part = Trace { info, strings: self.trace.strings.clone(), events: part };
        let before = self.wrong.len();
        let whole = std::mem::replace(&mut self.timeline, replay(&part, &ReplayOptions::default()));
        let state = self.timeline.state_at(self.timeline.range().1, &StateFilter::default());
        self.entries(&state);
        self.timeline = whole;
        for w in &mut self.wrong[before..] {
            w.insert_str(
                0,
                &format!("lossy {seed} ({} of {total} lost): ", total - part.events.len() as u64 + 3),
            );
        }
    }

    /// Present leaves per size.
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

    /// Replaying the first events only gives the state the whole replay has for that moment.
    fn prefix(&mut self, events: usize) {
        let ts = self.trace.events.ts(events);
        // Events of the same instant belong together.
        let events = self.trace.events.first_at_or_after(ts);
        if events == 0 {
            return;
        }
        let mut part = EventStore::new();
        for e in self.trace.events.range(0..events) {
            part.push(&e);
        }
        let at = self.trace.events.ts(events - 1);
        let mut info = self.trace.info.clone();
        (info.last_ts, info.events) = (at, events as u64);
        let part = Trace { info, strings: self.trace.strings.clone(), events: part };
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

fn words(s: &Span) -> String {
    format!("{}: {}", s.certainty.name(), s.reason.words())
}

fn name((pid, as_id, level, gfn): Place) -> String {
    format!("pid {pid} as {as_id} level {level} gfn {gfn:#x}")
}
