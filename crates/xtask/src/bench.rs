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

/// Runs one bench with its arguments, or, without a name, each that needs no arguments.
pub(crate) fn bench(args: &[&str]) -> Result<()> {
    let Some((name, args)) = args.split_first() else {
        return BENCHES.iter().try_for_each(|b| run(b, &[]));
    };
    match BENCHES.iter().find(|(n, ..)| n == name) {
        Some(b) => run(b, args),
        None => bail!("no bench `{name}`: one of {}", BENCHES.map(|(n, ..)| n).join(", ")),
    }
}

fn run((name, package, example): &(&str, &str, &str), args: &[&str]) -> Result<()> {
    eprintln!("\nbench {name}");
    // All examples of the package are built, because a bench may start another of them.
    show(&mut cargo(&["build", "--release", "--package", package, "--examples"]))?;
    show(Command::new(root().join("target/release/examples").join(example)).args(args).current_dir(root()))
}
