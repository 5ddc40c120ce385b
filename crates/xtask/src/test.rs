//! `cargo xtask test`: every check of the repository, cheapest first, the tests last.

use crate::compiler::checking_cargo;
use crate::run::{built_example, cargo, show};
use crate::{samples, tested, tools};
use anyhow::Result;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// How often a long step prints that it is still running.
const BEAT: Duration = Duration::from_mins(1);

/// A check: its title, and the function that runs it.
type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 10] = [
    ("what the checks use: Debian packages, DuckDB, typos, cargo-deny, cargo-shear", tools::install),
    ("formatting", || show(&mut cargo(&["fmt", "--all", "--check"]))),
    ("samples", samples::check),
    ("spelling", || show(&mut tools::TYPOS.command(&[]))),
    ("licences, banned and doubled crates", || {
        show(&mut tools::DENY.command(&["check", "bans", "licenses", "sources"]))
    }),
    ("unused dependencies", || show(&mut tools::SHEAR.command(&[]))),
    ("mmuscope-spte without an allocator", || {
        show(&mut cargo(&["check", "--package", "mmuscope-spte", "--no-default-features"]))
    }),
    (
        "building the tests, with clippy and documentation (the longest step where nothing is built yet)",
        || show(&mut checking_cargo(&["test", "--workspace", "--no-run"])?),
    ),
    ("running the tests", tested::run),
    ("cutting the samples at random", || show(built_example("cuts")?.args(["--seeds", CUTS, "samples"]))),
];

/// The number of random cuts of each sample: with this many, a debug build takes 10 seconds for 12 samples.
const CUTS: &str = "12";

/// Runs every check.
pub(crate) fn test() -> Result<()> {
    let start = Instant::now();
    for (i, (name, check)) in STEPS.iter().enumerate() {
        step(&format!("step {} of {}: {name}", i + 1, STEPS.len()), start, *check)?;
    }
    eprintln!("\nevery check passed in {}", took(start.elapsed()));
    Ok(())
}

/// Runs one check, and prints its title, how long it took, and once a minute that it is still running.
fn step(title: &str, start: Instant, check: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("\n=== {title} (after {})", took(start.elapsed()));
    let begun = Instant::now();
    let (done, running) = std::sync::mpsc::channel::<()>();
    let result = std::thread::scope(|scope| {
        scope.spawn(move || {
            while running.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                let (here, all) = (took(begun.elapsed()), took(start.elapsed()));
                eprintln!("=== {title}: still running after {here}, {all} in all");
            }
        });
        let result = check();
        drop(done);
        result
    });
    let how = if result.is_ok() { "done" } else { "FAILED" };
    eprintln!("=== {title}: {how} in {}", took(begun.elapsed()));
    result
}

/// Formats `75 s` as `1 min 15 s`.
fn took(time: Duration) -> String {
    match (time.as_secs() / 60, time.as_secs() % 60) {
        (0, s) => format!("{s} s"),
        (m, s) => format!("{m} min {s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_people() {
        assert_eq!(took(Duration::from_secs(59)), "59 s");
        assert_eq!(took(Duration::from_secs(3675)), "61 min 15 s");
    }

    #[test]
    fn a_step_hands_on_how_it_went() {
        assert!(step("step 1 of 2: fine", Instant::now(), || Ok(())).is_ok());
        let failed = step("step 2 of 2: not fine", Instant::now(), || anyhow::bail!("deliberate"));
        assert_eq!(failed.unwrap_err().to_string(), "deliberate");
    }
}
