//! Compares a replay's end with the kernel's truth: `truth FOLDER …`, where a folder holds trace.txt.zst (or another trace) and
//! truth-leaves.csv, ptpages.bin or both.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use mmuscope_replay::{Certainty, ReplayOptions, State, StateFilter, replay};
use mmuscope_trace::{ReadOptions, Trace};

fn hex(s: &str) -> u64 {
    u64::from_str_radix(s.trim().trim_start_matches("0x"), 16).unwrap_or(0)
}

fn main() {
    for dir in std::env::args().skip(1) {
        let dir = PathBuf::from(dir);
        let files: Vec<PathBuf> = if dir.is_file() {
            vec![dir.clone()]
        } else {
            vec![dir.join("trace.txt.zst"), dir.join("trace.txt"), dir.join("trace.dat")]
        };
        for f in files.iter().filter(|f| f.exists()) {
            let trace = match Trace::load(std::slice::from_ref(f), &ReadOptions::default()) {
                Ok(t) => t,
                Err(e) => {
                    println!("{}: {e}", f.display());
                    continue;
                }
            };
            let t0 = std::time::Instant::now();
            let tl = replay(&trace, &ReplayOptions::default());
            let took = t0.elapsed();
            let l = tl.layout(mmuscope_replay::VmId(0));
            println!(
                "{}: {} events, {:.1} ms ({:.1} M/s), {:.1} B/event + {:.1} store, layout {} conf {:.2}, {} vms, {} faults",
                f.display(),
                trace.events.len(),
                took.as_secs_f64() * 1e3,
                trace.events.len() as f64 / took.as_secs_f64() / 1e6,
                tl.heap_bytes() as f64 / trace.events.len().max(1) as f64,
                trace.events.heap_bytes() as f64 / trace.events.len().max(1) as f64,
                l.layout.id(),
                l.confidence,
                tl.vms().len(),
                tl.fault_count()
            );
            for v in tl.vms() {
                if tl.vms().len() > 1 {
                    println!("   vm {v:?}");
                }
            }
            let mut kinds: HashMap<_, usize> = HashMap::new();
            for e in tl.evidence() {
                *kinds.entry(e.kind).or_default() += 1;
            }
            println!("   evidence {kinds:?}");
            for e in
                tl.evidence().iter().filter(|e| e.kind != mmuscope_replay::EvidenceKind::Reordered).take(4)
            {
                println!("     {e:x?}");
            }
            let st = tl.state_at(tl.range().1, &StateFilter::default());
            let mut by: HashMap<_, usize> = HashMap::new();
            for (_, s) in &st {
                *by.entry((s.state, s.certainty)).or_default() += 1;
            }
            println!("   end {by:?}");
            let mut why: HashMap<_, usize> = HashMap::new();
            for (_, s) in st.iter().filter(|(_, s)| s.certainty == Certainty::Stale) {
                *why.entry(s.reason).or_default() += 1;
            }
            println!("   stale {why:?}");
            let c = tl.counts_at(tl.range().1);
            for sh in mmuscope_replay::Shade::ALL {
                let n = st.iter().filter(|(_, s)| s.shade == sh).count() as u64;
                if c.total(sh) != n {
                    println!("   COUNTS differ for {sh:?}: {} in counts_at, {n} in state_at", c.total(sh));
                }
            }
            let ad = l.layout.masks.accessed_mask | l.layout.masks.dirty_mask;
            truth_leaves(&dir, &st, ad);
            if f.extension().is_none_or(|e| e != "dat") {
                ptpages(&dir, &st, ad);
            }
        }
    }
}

fn truth_leaves(dir: &Path, st: &[(mmuscope_replay::Entry, mmuscope_replay::Span)], ad: u64) {
    let Ok(text) = std::fs::read_to_string(dir.join("truth-leaves.csv")) else { return };
    let mask = |v: u64| if v >> 11 & 1 == 1 { v & !ad } else { v };
    let truth: BTreeSet<(u8, u64, u64)> = text
        .lines()
        .filter_map(|l| {
            let mut p = l.split(',');
            Some((p.next()?.trim().parse().ok()?, hex(p.next()?), mask(hex(p.next()?))))
        })
        .collect();
    let ours: BTreeSet<(u8, u64, u64)> = st
        .iter()
        .filter(|(_, s)| matches!(s.state, State::Present | State::Mmio))
        .map(|(e, s)| (e.level, e.gfn, mask(s.spte.unwrap_or(0))))
        .collect();
    let missing: Vec<_> = truth.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&truth).collect();
    println!(
        "   TRUTH {} leaves, ours {}: missing {} extra {}",
        truth.len(),
        ours.len(),
        missing.len(),
        extra.len()
    );
    for m in missing.iter().take(3) {
        println!("      missing {m:x?}");
    }
    for m in extra.iter().take(3) {
        println!("      extra {m:x?}");
    }
}

fn ptpages(dir: &Path, st: &[(mmuscope_replay::Entry, mmuscope_replay::Span)], ad: u64) {
    let Ok(b) = std::fs::read(dir.join("ptpages.bin")) else { return };
    let mut pages: HashMap<u64, Vec<u64>> = HashMap::new();
    for rec in b.chunks_exact(8 + 4096) {
        let q: Vec<u64> =
            rec.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default())).collect();
        pages.insert(q[0], q[1..].to_vec());
    }
    let (mut known, mut right, mut wrong, mut stale, mut stale_right, mut nowhere) = (0, 0, 0, 0, 0, 0);
    let mut shown = 0;
    for (e, s) in st {
        let (Some(p), Some(v)) = (e.sptep, s.spte) else { continue };
        let Some(page) = pages.get(&(p & !0xfff)) else {
            nowhere += 1;
            continue;
        };
        let truth = page[(p >> 3 & 511) as usize];
        let same = (truth ^ v) & !ad == 0;
        if matches!(s.certainty, Certainty::Exact | Certainty::Observed | Certainty::Implied) {
            known += 1;
            if same {
                right += 1;
            } else {
                wrong += 1;
                if shown < 4 {
                    shown += 1;
                    println!("      wrong {e:x?} {s:x?} truth {truth:x}");
                }
            }
        } else {
            stale += 1;
            stale_right += usize::from(same);
        }
    }
    println!(
        "   PTPAGES known {known} (right {right}, WRONG {wrong}), stale/assumed {stale} (of which still right {stale_right}), not dumped {nowhere}"
    );
}
