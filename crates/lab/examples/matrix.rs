//! What recordings of lab hosts know at their end, as a table: `matrix [--late] DIR…`. Each folder is one that `cargo xtask lab record` made.
//!
//! For each host it says how many entries that map something the replay knows (exact or observed), of how many that it lists; how many of the
//! known ones hold the same in the kernel's memory (`ptpages.bin`), apart from what the CPU sets; how many present leaves KVM counts
//! (`kvmstats.txt`) and the replay has; and how many entries a snapshot had to settle. A row is exact if nothing differs, nothing present is
//! unknown, and both counts are equal. A recording that cannot be read is named,
//! and the others go on. The exit status is 1 if any row is not exact.

use std::{env, fs, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use mmuscope_lab::truth;
use mmuscope_replay::{Certainty, ReplayOptions, State, StateFilter, replay};
use mmuscope_trace::{ReadOptions, Trace};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            eprintln!("matrix: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let (mut title, mut dirs) = ("host", Vec::new());
    for arg in env::args().skip(1) {
        match arg.as_str() {
            "--late" => title = "host, attached in the middle",
            _ => dirs.push(arg),
        }
    }
    if dirs.is_empty() {
        bail!("name folders that `cargo xtask lab record` made");
    }
    println!(
        "| {title} | MMU | events | known | equal in memory | present, KVM counts | settled by snapshots | |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |");
    let mut good = true;
    for dir in &dirs {
        match Row::of(Path::new(dir)) {
            Ok(row) => {
                good &= row.exact();
                println!("{row}");
            }
            Err(e) => {
                good = false;
                eprintln!("{dir}: {e:#}");
                println!("| {} | | | | | | | NOT READ |", name(Path::new(dir)));
            }
        }
    }
    Ok(good)
}

fn name(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What one recording knows at its end.
struct Row {
    host: String,
    mmu: String,
    events: u64,
    /// Entries that map something, and how many of them are known.
    mapped: u64,
    known: u64,
    /// Of those whose page is in the copy of memory: how many are equal, how many not.
    equal: u64,
    differ: u64,
    /// Present leaves of the replay, and those that KVM counts.
    present: u64,
    counted: Option<u64>,
    /// Entries that snapshots settled.
    settled: u64,
}

impl Row {
    fn of(dir: &Path) -> Result<Self> {
        let trace = Trace::load(&[dir.join("mmuscope.perf.data")], &ReadOptions::default())?;
        let t = replay(&trace, &ReplayOptions::default());
        let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let ept = text("params.txt")
            .lines()
            .any(|l| matches!(l.rsplit_once("/parameters/ept:"), Some((_, "Y" | "1"))));
        let untraced: u64 = if ept { 0x300 } else { 0x60 };
        let pages = truth::read_pages(&fs::read(dir.join("ptpages.bin")).context("ptpages.bin")?);
        let counts: Vec<u64> = text("kvmstats.txt")
            .lines()
            .filter_map(|l| l.strip_prefix("pages_")?.split_once(':')?.1.trim().parse().ok())
            .collect();
        let kinds: Vec<&str> = t.vms().iter().map(|v| v.kind.name()).collect();
        let mut row = Self {
            host: name(dir),
            mmu: kinds.join(" + "),
            events: trace.events.iter().filter(|e| e.body.is_event()).count() as u64,
            mapped: 0,
            known: 0,
            equal: 0,
            differ: 0,
            present: 0,
            counted: (!counts.is_empty()).then(|| counts.iter().sum()),
            settled: t.snapshots().iter().map(|s| s.settled).sum(),
        };
        for (e, s) in t.state_at(t.range().1, &StateFilter::default()) {
            if !matches!(s.state, State::Present | State::Mmio) {
                continue;
            }
            row.mapped += 1;
            row.present += u64::from(s.state == State::Present);
            if s.certainty > Certainty::Observed {
                continue;
            }
            row.known += 1;
            if let (Some(sptep), Some(value)) = (e.sptep, s.spte)
                && let Some(page) = pages.get(&(sptep & !0xfff))
            {
                let same = (page[(sptep & 0xfff) as usize / 8] ^ value) & !untraced == 0;
                *(if same { &mut row.equal } else { &mut row.differ }) += 1;
            }
        }
        Ok(row)
    }

    fn exact(&self) -> bool {
        self.differ == 0
            && self.known == self.mapped
            && self.equal > 0
            && self.counted.is_none_or(|n| n == self.present)
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, mmu, events, mapped, known, equal, differ, present, counted, settled } = self;
        let counted = counted.map_or("not recorded".to_owned(), |n| n.to_string());
        let verdict = if self.exact() { "exact" } else { "NOT EXACT" };
        let equal = if *differ > 0 { format!("{equal}, {differ} differ") } else { equal.to_string() };
        write!(
            f,
            "| {host} | {mmu} | {events} | {known} of {mapped} | {equal} | {present}, {counted} | {settled} | {verdict} |"
        )
    }
}
