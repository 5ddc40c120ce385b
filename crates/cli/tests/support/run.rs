//! Runs mmuscope with an input, for the test programs that paste text.

#[path = "../it/ends.rs"]
mod ends;

use ends::ends;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs mmuscope to its end with `input` on standard input.
pub(crate) fn run(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mmuscope"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mmuscope runs");
    // A program that needs no input may be gone already.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    ends(child, &format!("mmuscope {args:?}"))
}
