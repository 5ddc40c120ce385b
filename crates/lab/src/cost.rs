//! `lab cost`: what recording costs. The function is [`run`].
//!
//! Each host is booted several times without a recorder, and as often with each way of recording. Its one CPU runs everything, and its time passes
//! by the instructions that it executes, so that the result does not depend on this machine: it is how many instructions the host executes from
//! the beginning to the end of the guest's work, those of the recorder among them.

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context, Result};

use crate::run::{Begin, Run, work};

/// Ways to record: what the table says, and the options; without options nothing records.
const WAYS: &[(&str, Option<&str>)] = &[
    ("nothing", None),
    ("events", Some("--probes off --snapshot off")),
    ("events and probes", Some("--probes on --snapshot off")),
    ("events and a snapshot every second", Some("--probes off --snapshot 'every 1s'")),
    ("`record --events all`", Some("--events all")),
];
/// The hosts where none is named.
const HOSTS: &[&str] = &["6.12-npt", "6.12-shadow64", "6.12-legacy"];
/// Phases that take as long as the host file says, whatever else happens.
const TIMED: [&str; 7] = ["cow", "race", "race-slots", "race-dirty", "race-tables", "recovery", "rest"];

/// What one boot took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Took {
    /// Instructions while the guest worked.
    work: u64,
    events: u64,
    /// The recorder's CPU time for each event, in nanoseconds of the host, which are instructions.
    per_event: u64,
}

/// Boots, and prints the table.
pub(crate) fn run(rest: &[&str]) -> Result<()> {
    let named = rest.iter().take_while(|w| !w.starts_with('-')).count();
    let (hosts, options) = rest.split_at(named);
    let hosts = if hosts.is_empty() { HOSTS } else { hosts };
    let mut out = std::io::stdout();
    writeln!(out, "| host | recorded | the guest's work takes | events | recorder, instructions an event |")?;
    writeln!(out, "| --- | --- | ---: | ---: | ---: |")?;
    for name in hosts {
        let mut nothing = 0;
        for (words, how) in WAYS {
            let took = several(name, options, *how).with_context(|| format!("{name}, {words}"))?;
            if how.is_none() {
                nothing = took.work;
            }
            writeln!(out, "{}", row(name, words, took, nothing))?;
        }
    }
    Ok(())
}

fn row(host: &str, words: &str, took: Took, nothing: u64) -> String {
    let share = took.work as f64 / nothing.max(1) as f64;
    let work = format!("{:.1} million instructions, {share:.2} ×", took.work as f64 / 1e6);
    let none = took.events == 0;
    let dash = |n: u64| if none { "-".to_owned() } else { n.to_string() };
    format!("| {host} | {words} | {work} | {} | {} |", dash(took.events), dash(took.per_event))
}

/// The medians of several boots.
fn several(name: &str, options: &[&str], how: Option<&str>) -> Result<Took> {
    let mut run = Run::parse(name, options)?;
    (run.host.truth, run.host.count_instructions, run.host.cpus) = (false, true, 1);
    run.host.workload.phases.retain(|p| !TIMED.contains(&p.as_str()));
    run.out = work()?.join("cost").join(&run.name);
    if let Some(options) = how {
        run.record_ourselves(options, Begin::First, true)?;
    }
    let mut took = Vec::new();
    for _ in 0..run.boots.max(1) {
        run.boot()?;
        took.push(one(&run.out)?);
    }
    let of = |what: fn(&Took) -> u64| median(took.iter().map(what).collect());
    Ok(Took { work: of(|t| t.work), events: of(|t| t.events), per_event: of(|t| t.per_event) })
}

fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

fn one(dir: &Path) -> Result<Took> {
    let console = String::from_utf8_lossy(&fs::read(dir.join("console.txt"))?).into_owned();
    let log = fs::read_to_string(dir.join("cmd.log")).unwrap_or_default();
    read(&console, &log)
}

/// Reads what the workload and the recorder say of themselves.
fn read(console: &str, log: &str) -> Result<Took> {
    let took = console.lines().filter_map(|l| {
        let (phase, ns) = l.trim_end().strip_prefix("main: TOOK ")?.split_once(' ')?;
        (!TIMED.contains(&phase)).then(|| ns.parse::<u64>().ok()).flatten()
    });
    let work = took.reduce(|a, b| a + b).context("the console does not say how long the phases took")?;
    let number = |before: &str, after: &str| -> u64 {
        let found = log.lines().find_map(|l| l.split_once(before)?.1.split_once(after));
        found.and_then(|(n, _)| n.replace(',', "").parse().ok()).unwrap_or_default()
    };
    Ok(Took { work, events: number("recorded ", " events"), per_event: number("CPU time, ", " ns an event") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_boot_says_of_itself_is_read() -> Result<()> {
        let console =
            "main: PHASE touch\nmain: TOOK touch 2000000\r\nmain: TOOK race 900\nmain: TOOK huge 500000\n";
        let log = "recorded 49,417 events in 33.513 s: kvm_entry 4,555\nrecorder: 33.942 s of CPU time, 686850 ns an event; ended\n";
        let took = read(console, log)?;
        assert_eq!(took, Took { work: 2_500_000, events: 49_417, per_event: 686_850 });
        assert_eq!(
            row("h", "events", took, 2_000_000),
            "| h | events | 2.5 million instructions, 1.25 × | 49417 | 686850 |"
        );
        assert!(read("LAB-DONE", log).is_err());
        assert_eq!(
            row("h", "nothing", read(console, "")?, 2_500_000),
            "| h | nothing | 2.5 million instructions, 1.00 × | - | - |"
        );
        Ok(())
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!((median(vec![9, 1, 5]), median(vec![])), (5, 0));
    }
}
