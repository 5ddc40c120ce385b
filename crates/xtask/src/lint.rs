//! Clippy that runs while a crate is built.
//!
//! `cargo clippy` wants the metadata of all dependencies, which it cannot take from what the tests are built with: from nothing that costs as much as
//! all the rest of the build. Here cargo builds with this program in the place of the compiler for the workspace's own crates, and it runs clippy's
//! driver on each before the compiler. (The driver could build as well, but turns the compiler's own optimisations off, which makes building and
//! running the tests slower.)

use crate::run::output;
use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitCode};

/// The variable that makes this program stand in for the compiler: the path of clippy's driver.
const DRIVER: &str = "XTASK_CLIPPY_DRIVER";

/// Lets a cargo command check the workspace's crates as it builds them, where a warning is an error. All commands of `cargo xtask test` that build
/// something go through here, because cargo keeps what it built in another way apart.
pub(crate) fn linted(c: &mut Command) -> Result<&mut Command> {
    let driver = sysroot()?.join("bin/clippy-driver");
    if !driver.exists() {
        bail!("{} is not there: `rustup component add clippy` installs it", driver.display());
    }
    let own = std::env::current_exe().context("cannot find this program")?;
    // The words that `cargo clippy -- -D warnings` hands to its driver.
    let deny = ["-D", "warnings"].map(|w| format!("{w}__CLIPPY_HACKERY__")).concat();
    Ok(c.env("RUSTC_WORKSPACE_WRAPPER", own).env(DRIVER, driver).env("CLIPPY_ARGS", deny))
}

/// Where the toolchain lies.
pub(crate) fn sysroot() -> Result<std::path::PathBuf> {
    let dir = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Path::new(dir.trim()).to_path_buf())
}

/// What the program does where it was called as the compiler: its first argument is then the path of the real one. `None` where it was not.
pub(crate) fn stand_in() -> Option<ExitCode> {
    let driver = std::env::var_os(DRIVER)?;
    let mut args = std::env::args_os().skip(1);
    let rustc = args.next().filter(|r| Path::new(r).file_stem() == Some(OsStr::new("rustc")))?;
    let args: Vec<OsString> = args.collect();
    if let Some(checked) = checking(&args) {
        let code = run(Command::new(driver).arg(&rustc).args(checked));
        if code != 0 {
            return Some(ExitCode::from(code));
        }
    }
    Some(ExitCode::from(run(Command::new(rustc).args(args))))
}

fn run(c: &mut Command) -> u8 {
    match c.status() {
        Ok(s) => s.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1),
        Err(e) => {
            eprintln!("xtask: cannot run {}: {e}", c.get_program().display());
            1
        }
    }
}

/// The arguments that make the driver check what these build: it writes nothing that cargo waits for. `None` where they build no crate, but ask the
/// compiler something.
fn checking(args: &[OsString]) -> Option<Vec<OsString>> {
    let has = |word: &str| args.iter().any(|a| a == word);
    if has("-vV") || has("-") || args.iter().any(|a| a.to_string_lossy().starts_with("--print")) {
        return None;
    }
    let mut out = Vec::new();
    let mut args = args.iter();
    while let Some(a) = args.next() {
        let text = a.to_string_lossy();
        if text.starts_with("--emit=") {
            out.push("--emit=metadata".into());
        } else if let Some(kinds) = text.strip_prefix("--json=") {
            // Of what is written cargo must hear from the compiler alone.
            let kinds: Vec<&str> = kinds.split(',').filter(|k| *k != "artifacts").collect();
            out.push(format!("--json={}", kinds.join(",")).into());
        } else if text == "--out-dir" {
            args.next();
            out.extend(["--out-dir".into(), "target/clippy".into()]);
        } else if text == "-C"
            && args.clone().next().is_some_and(|v| v.to_string_lossy().starts_with("incremental="))
        {
            args.next();
        } else {
            out.push(a.clone());
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_checks_what_the_compiler_builds() {
        let words = |s: &str| s.split(' ').map(OsString::from).collect::<Vec<_>>();
        let build = "--crate-name units --edition=2024 src/lib.rs --error-format=json --json=diagnostic-rendered-ansi,artifacts,future-incompat \
                     --crate-type lib --emit=dep-info,metadata,link -C opt-level=2 -C incremental=/here --out-dir /there --extern a=b";
        let check = "--crate-name units --edition=2024 src/lib.rs --error-format=json --json=diagnostic-rendered-ansi,future-incompat \
                     --crate-type lib --emit=metadata -C opt-level=2 --out-dir target/clippy --extern a=b";
        assert_eq!(checking(&words(build)), Some(words(check)));
        for question in ["-vV", "- --crate-name ___ --print=file-names", "--print=sysroot"] {
            assert_eq!(checking(&words(question)), None, "{question}");
        }
    }
}
