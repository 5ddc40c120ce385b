//! `cargo xtask bench`: ratios against the tools people use, on this machine, in one run.

use crate::run::{cargo, root, show};
use anyhow::Result;
use std::process::Command;

/// `bench record`: needs root, /dev/kvm and perf.
pub(crate) fn record(args: &[&str]) -> Result<()> {
    show(&mut cargo(&["build", "--release", "--package", "mmuscope-collector", "--examples"]))?;
    show(Command::new(root().join("target/release/examples/bench_record")).args(args))
}

/// `bench formats`: the tools are compared with where they are installed.
pub(crate) fn formats(args: &[&str]) -> Result<()> {
    show(&mut cargo(&["build", "--release", "--package", "mmuscope-trace", "--example", "bench_formats"]))?;
    show(Command::new(root().join("target/release/examples/bench_formats")).args(args))
}
