//! `cargo xtask bench`: ratios against common tools and against the targets, measured on this machine in one run.

use crate::run::{cargo, root, show};
use anyhow::{Result, bail};
use std::process::Command;

/// The name, package and program of each bench. The programs are examples, so that no build of the product contains them.
const BENCHES: [(&str, &str, &str); 5] = [
    ("decode", "mmuscope-spte", "throughput"),
    ("formats", "mmuscope-trace", "bench_formats"),
    ("replay", "mmuscope-replay", "bench_replay"),
    ("record", "mmuscope-collector", "bench_record"),
    ("view", "mmuscope-ui", "bench_view"),
];

/// The bench that is a test of the collector, because it reads memory that only tests can make.
const SNAPSHOT: &str = "snapshot";

/// Runs one bench with its arguments, or, without a name, each that needs no arguments.
pub(crate) fn bench(args: &[&str]) -> Result<()> {
    let Some((name, args)) = args.split_first() else {
        BENCHES.iter().try_for_each(|b| run(b, &[]))?;
        return snapshot(&[]);
    };
    if *name == SNAPSHOT {
        return snapshot(args);
    }
    match BENCHES.iter().find(|(n, ..)| n == name) {
        Some(b) => run(b, args),
        None => bail!("no bench `{name}`: one of {}, {SNAPSHOT}", BENCHES.map(|(n, ..)| n).join(", ")),
    }
}

/// Reads the tables of a guest of so many GiB (64 where nothing is named).
fn snapshot(args: &[&str]) -> Result<()> {
    eprintln!("\nbench {SNAPSHOT}");
    let test = ["test", "--release", "--package", "mmuscope-collector", "--lib", "--"];
    let mut c = cargo(&test);
    c.args(["snapshot::tests::large", "--nocapture"]);
    show(c.env("MMUSCOPE_BENCH_GIB", args.first().copied().unwrap_or("64")))
}

fn run((name, package, example): &(&str, &str, &str), args: &[&str]) -> Result<()> {
    eprintln!("\nbench {name}");
    // All examples of the package are built, because a bench may start another of them.
    show(&mut cargo(&["build", "--release", "--package", package, "--examples"]))?;
    show(Command::new(root().join("target/release/examples").join(example)).args(args).current_dir(root()))
}
