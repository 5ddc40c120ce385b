//! [`fold`]: faults of a page's story that came to the same again and again become one line.

use std::collections::HashMap;

use mmuscope_replay::{Fault, Outcome, StoryLine};
use mmuscope_units::duration;

/// Fewer lines are shown one by one.
const MANY: usize = 3;

/// What two faults must have in common to be one line: thread, outcome, access and instruction.
type Key = (u32, Outcome, &'static str, Option<u64>);

/// Several faults that are one line.
struct Run {
    /// The place of its line.
    at: usize,
    lines: usize,
    first: u64,
    last: u64,
    took: Option<u64>,
}

/// Folds a story. `faults` are by their event, and hold at least those of the story's lines.
pub(super) fn fold(lines: Vec<StoryLine>, faults: &HashMap<u32, &Fault>) -> Vec<StoryLine> {
    let mut out: Vec<StoryLine> = Vec::with_capacity(lines.len());
    let mut runs: Vec<(Run, Vec<StoryLine>, Outcome, String)> = Vec::new();
    let mut open: HashMap<Key, usize> = HashMap::new();
    for line in lines {
        let fault = line.event.and_then(|e| faults.get(&e)).filter(|f| is_in_vain(f, &line));
        let Some(f) = fault else {
            // What changed between two faults may be why the next one comes to something else.
            open.clear();
            out.push(line);
            continue;
        };
        let key = (f.tid, f.outcome, f.access.name(), f.rip);
        let n = *open.entry(key).or_insert_with(|| {
            let run = Run { at: out.len(), lines: 0, first: line.ts, last: line.ts, took: None };
            runs.push((run, Vec::new(), f.outcome, line.text.clone()));
            out.push(line.clone());
            runs.len() - 1
        });
        let (run, own, ..) = &mut runs[n];
        run.lines += 1;
        run.last = line.ts;
        run.took = f.duration().map_or(run.took, |d| Some(run.took.unwrap_or(0) + d));
        own.push(line);
    }
    // From the back, so that the places before stay what they are.
    for (run, own, outcome, text) in runs.into_iter().rev() {
        if run.lines < MANY {
            out.splice(run.at..=run.at, own);
            continue;
        }
        let name = outcome.name();
        let head = text.split_once(&format!(": {name}")).map_or(text.as_str(), |t| t.0);
        let took = run.took.map_or_else(String::new, |t| format!(", {} in all", duration(t)));
        out[run.at].text = format!(
            "{head}: {name} × {} within {}{took}",
            mmuscope_units::count(run.lines as u64),
            duration(run.last - run.first)
        );
    }
    // Lines that were put back stand behind the first of their run.
    out.sort_by_key(|l| l.ts);
    out
}

/// A fault that changed nothing of the page.
fn is_in_vain(f: &Fault, line: &StoryLine) -> bool {
    line.shade.is_none()
        && f.level.is_none()
        && matches!(f.outcome, Outcome::Retry | Outcome::Spurious | Outcome::MmioHit | Outcome::Untold)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mmuscope_replay::{ReplayOptions, VmId, replay};
    use mmuscope_trace::Trace;
    use std::fmt::Write as _;

    #[test]
    fn the_same_fault_again_and_again_is_one_line() {
        let mut text = String::new();
        let mut us = 0;
        let mut line = |tid: u32, body: &str| {
            us += 4;
            writeln!(text, "vmm-{tid}  [001] ..... 5.{us:06}: {body}").expect("a string");
        };
        let fault = |vcpu: u32| {
            [
                format!(
                    "kvm_exit: vcpu {vcpu} reason EPT_VIOLATION rip 0x1000 info1 0x0000000000000182 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000"
                ),
                format!("kvm_page_fault: vcpu {vcpu} rip 0x1000 address 0x0000000000005000 error_code 0x182"),
                format!("kvm_entry: vcpu {vcpu}, rip 0x1000"),
            ]
        };
        for _ in 0..6 {
            for (tid, vcpu) in [(7, 0), (8, 1)] {
                fault(vcpu).iter().for_each(|e| line(tid, e));
            }
        }
        let [exit, page_fault, entry] = fault(0);
        let set = "kvm_mmu_set_spte: gfn 5 spte 600000001f4db77 (rwx-) level 1 at 55fe828";
        [&exit, &page_fault, set, &entry].iter().for_each(|e| line(7, e));
        let trace = Trace::from_text(&text).expect("a trace");
        let t = replay(&trace, &ReplayOptions::default());
        let story = t.page_story(&trace, VmId(0), 0, 5);
        let all: Vec<Fault> = t.faults().collect();
        let faults: HashMap<u32, &Fault> = all.iter().map(|f| (f.event, f)).collect();
        let before = story.lines.len();
        let folded = fold(story.lines, &faults);
        // Two vCPUs that take turns are a line each: of 12 lines, 2 are left.
        let times: Vec<&str> = folded.iter().map(|l| l.text.as_str()).filter(|t| t.contains('×')).collect();
        let text = "write fault at rip 0x1000: retry × 6 within 120 µs, 48 µs in all";
        assert_eq!(times, [text, text], "{folded:#?}");
        assert_eq!(folded.len(), before - 10);
        assert!(folded.windows(2).all(|w| w[0].ts <= w[1].ts));
        assert!(folded.last().is_some_and(|l| l.shade.is_some()), "{folded:#?}");
    }
}
