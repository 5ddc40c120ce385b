//! Documentation that is checked without building every dependency a second time.
//!
//! `cargo doc` wants the metadata of all dependencies, which it cannot take from what the tests were built with: from nothing that costs as much as
//! building them. `cargo test --doc` does use what the tests were built with, and hands each library to the program that `RUSTDOC` names. In this
//! step that is xtask itself, which passes the library on to the real `rustdoc` to be documented instead of tested.

use crate::lint::{linted, sysroot};
use crate::run::{cargo, lean, show};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::process::{Command, ExitCode};

/// The variable that makes this program stand in for `rustdoc`: the path of the real one.
const REAL: &str = "XTASK_RUSTDOC";

/// Documents every library; a warning is an error.
pub(crate) fn check() -> Result<()> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let mut c = lean(cargo(&["test", "--workspace", "--doc", "--quiet"]));
    show(linted(&mut c)?.env("RUSTDOC", own).env(REAL, sysroot()?.join("bin/rustdoc")))
}

/// What the program does where it was called as `rustdoc`; `None` where it was not.
pub(crate) fn stand_in() -> Option<ExitCode> {
    let real = std::env::var_os(REAL)?;
    let status = Command::new(&real).args(documenting(std::env::args_os().skip(1).collect())).status();
    Some(match status {
        Ok(s) => ExitCode::from(s.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)),
        Err(e) => {
            eprintln!("xtask: cannot run {}: {e}", real.display());
            ExitCode::FAILURE
        }
    })
}

/// The arguments of `rustdoc --test` made into those that document the same library. Any others, as of `rustdoc -vV`, stay what they are.
fn documenting(args: Vec<OsString>) -> Vec<OsString> {
    if !args.iter().any(|a| a == "--test") {
        return args;
    }
    let mut kept: Vec<OsString> = ["-D", "warnings", "--out-dir", "target/doc"].map(OsString::from).into();
    let mut args = args.into_iter();
    while let Some(a) = args.next() {
        let text = a.to_string_lossy();
        match text.as_ref() {
            "--test" | "--no-run" | "--nocapture" => {}
            // Each has a value.
            "--test-run-directory" | "--test-args" | "--test-runtool" | "--test-runtool-arg" => {
                args.next();
            }
            _ => kept.push(a),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_documented_instead_of_tested() {
        let words = |s: &str| s.split(' ').map(OsString::from).collect::<Vec<_>>();
        let test =
            "--edition=2024 --crate-name units --test src/lib.rs --test-run-directory /here --extern a=b";
        let doc =
            "-D warnings --out-dir target/doc --edition=2024 --crate-name units src/lib.rs --extern a=b";
        assert_eq!(documenting(words(test)), words(doc));
        assert_eq!(documenting(words("-vV")), words("-vV"));
    }
}
