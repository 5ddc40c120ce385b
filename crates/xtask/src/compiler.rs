//! The compiler that `cargo xtask test` gives cargo for the crates of this workspace: clippy and rustdoc look at each crate while it is compiled.
//!
//! `cargo clippy` and `cargo doc` would first check all 350 dependencies, which are then compiled again for the tests: a third of the time that a
//! build from nothing takes. Here they are compiled once. Cargo calls `RUSTC_WORKSPACE_WRAPPER RUSTC ARGUMENT …`, and this program, under the name
//! [`NAME`], is that wrapper. What it compiles, cargo keeps apart from what `cargo test` alone compiles.
//!
//! Each source file is read by clippy once. Where a crate is compiled with its tests, and for examples and programs, clippy's driver is the compiler.
//! It leaves out rustc's own optimisations of MIR, and tests and examples are not optimised at all ([`Crate::as_tested`]). The libraries that they
//! call rustc compiles as the profile says; it knows no lint of clippy's, but its own warnings are errors there, too.

use crate::run::{cargo, root};
use anyhow::{Context, Result};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Output};
use std::{fs, thread};

/// The name under which this program is the wrapper.
const NAME: &str = "checking-rustc";

/// How clippy's driver is given `-D warnings`. The driver notes that what it compiles depends on this variable, and cargo, which compares the note
/// with its own environment, would compile everything again each time if it did not have it, too.
const CLIPPY_ARGS: (&str, &str) = ("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");

/// The cargo that builds and runs the tests of the workspace with this program as the wrapper. What it builds it builds once and keeps apart:
/// incremental state would only cost disk and time, and line tables, which only backtraces print, a seventh of what the libraries take.
pub(crate) fn checking_cargo(args: &[&str]) -> Result<Command> {
    let mut c = cargo(args);
    c.env("RUSTC_WORKSPACE_WRAPPER", install()?)
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env(CLIPPY_ARGS.0, CLIPPY_ARGS.1);
    Ok(c)
}

/// Copies this program to where cargo looks for the wrapper: cargo replaces the original while it builds the workspace. Cargo compiles anew
/// when the path changes, so the path changes with clippy's configuration.
fn install() -> Result<PathBuf> {
    let mut config = DefaultHasher::new();
    fs::read(root().join("clippy.toml")).context("clippy.toml")?.hash(&mut config);
    let dir = root().join(format!("target/tools/{NAME}-{:016x}", config.finish()));
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let (wrapper, new) = (dir.join(NAME), dir.join("new"));
    // By its path it cannot be found any more once cargo has built it anew.
    fs::copy("/proc/self/exe", &new).with_context(|| format!("this program to {}", new.display()))?;
    fs::rename(&new, &wrapper).with_context(|| wrapper.display().to_string())?;
    Ok(wrapper)
}

/// Whether this process was started as the wrapper.
pub(crate) fn is_wrapper() -> bool {
    std::env::args_os().next().is_some_and(|own| Path::new(&own).file_name().is_some_and(|n| n == NAME))
}

/// Compiles as cargo asks, with the checks that the crate needs. A finding of clippy or rustdoc fails the compilation.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let Some((rustc, args)) = args.split_first() else {
        eprintln!("{NAME}: cargo names no compiler");
        return ExitCode::from(2);
    };
    let rustc = Path::new(rustc);
    // Cargo also asks the compiler for its version and its targets.
    let Some(of) = Crate::of(args) else { return ended(Command::new(rustc).args(args).status(), rustc) };
    let driver = sibling(rustc, "clippy-driver");
    if !of.is_documented() {
        return ended(Command::new(&driver).arg(rustc).args(of.as_tested()).status(), &driver);
    }
    let mut rustdoc = Command::new(sibling(rustc, "rustdoc"));
    rustdoc.args(of.for_rustdoc());
    let documenting = thread::spawn(move || rustdoc.output());
    let compiled = if of.is_program() {
        ended(Command::new(&driver).arg(rustc).args(args).status(), &driver)
    } else {
        ended(Command::new(rustc).args(args).arg("-Dwarnings").status(), rustc)
    };
    let Ok(documented) = documenting.join() else { return ExitCode::FAILURE };
    if passed(documented) { compiled } else { ExitCode::FAILURE }
}

/// The exit status of a compiler, as this program's own.
fn ended(status: std::io::Result<ExitStatus>, program: &Path) -> ExitCode {
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!(
                "{NAME}: {} cannot be run: {e}; `rustup component add clippy` installs clippy-driver",
                program.display()
            );
            ExitCode::FAILURE
        }
    }
}

/// Hands on what rustdoc printed. Returns whether it found nothing.
fn passed(output: std::io::Result<Output>) -> bool {
    match output {
        Ok(o) => {
            std::io::stderr().write_all(&o.stderr).ok();
            o.status.success()
        }
        Err(e) => {
            eprintln!("{NAME}: rustdoc cannot be run: {e}");
            false
        }
    }
}

/// A tool beside the compiler: found by its name where the compiler is found by its own.
fn sibling(rustc: &Path, name: &str) -> PathBuf {
    rustc.with_file_name(name)
}

/// A crate that cargo wants compiled, by the arguments of the compiler.
struct Crate<'a> {
    args: &'a [String],
    out: &'a Path,
}

impl<'a> Crate<'a> {
    /// None where cargo only asks the compiler about itself.
    fn of(args: &'a [String]) -> Option<Self> {
        let out = args.iter().position(|a| a == "--out-dir").and_then(|at| args.get(at + 1))?;
        Some(Self { args, out: Path::new(out) })
    }

    /// Whether it is a library or a program, which have a page of documentation, and not tests, an example or a build script.
    fn is_documented(&self) -> bool {
        let example = self.out.ends_with("examples");
        (self.is_program() || self.named("--crate-type") == Some("lib")) && !self.is_tests() && !example
    }

    /// Whether it is a program of its package, or an example.
    fn is_program(&self) -> bool {
        self.named("--crate-type") == Some("bin") && self.named("--crate-name") != Some("build_script_build")
    }

    /// The argument after this one.
    fn named(&self, option: &str) -> Option<&str> {
        let at = self.args.iter().position(|a| a == option)?;
        self.args.get(at + 1).map(String::as_str)
    }

    fn is_tests(&self) -> bool {
        self.args.iter().any(|a| a == "--test")
    }

    /// The arguments for clippy's driver as the compiler: cargo's, but nothing is optimised. Tests and examples call libraries that are, and to
    /// optimise a second copy of each library takes longer than its own tests run.
    fn as_tested(&self) -> Vec<String> {
        let plain = |a: &String| if a.starts_with("opt-level=") { "opt-level=0" } else { a }.to_owned();
        self.args.iter().map(plain).collect()
    }

    /// The arguments for rustdoc: what it takes of the compiler's.
    fn for_rustdoc(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut args = self.args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--crate-name" | "--crate-type" | "--extern" | "-L" | "--cfg" | "--check-cfg"
                | "--cap-lints" => {
                    out.push(arg.clone());
                    out.extend(args.next().cloned());
                }
                "--out-dir" | "-C" => {
                    args.next();
                }
                a if a.starts_with("--edition=") || a.starts_with("--error-format=") => out.push(arg.clone()),
                a if a.starts_with("--json=") => out.push(without_artifacts(a)),
                a if Path::new(a).extension().is_some_and(|e| e == "rs") => out.push(arg.clone()),
                _ => {}
            }
        }
        out.extend(["--out-dir".to_owned(), root().join("target/doc").display().to_string()]);
        out.extend(["-D", "warnings"].map(str::to_owned));
        if self.args.iter().any(|a| a == "bin") {
            out.push("--document-private-items".to_owned());
        }
        out
    }
}

/// `--json=diagnostic-rendered-ansi,artifacts` without `artifacts`.
fn without_artifacts(arg: &str) -> String {
    let kept: Vec<&str> =
        arg.trim_start_matches("--json=").split(',').filter(|k| *k != "artifacts").collect();
    format!("--json={}", kept.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cargo calls the compiler for a library, shortened.
    const LIBRARY: &str = "--crate-name lib --edition=2024 src/lib.rs --error-format=json \
        --json=diagnostic-rendered-ansi,artifacts,future-incompat --crate-type lib --emit=dep-info,metadata,link -C opt-level=2 \
        -C incremental=/target/inc --cfg feature=\"std\" --check-cfg cfg(docsrs) --warn=missing_docs -C metadata=12 \
        --out-dir /target/debug/deps -L dependency=/target/debug/deps --extern serde=/target/debug/deps/libserde.rmeta";

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn tests_are_compiled_as_cargo_says_but_not_optimised() {
        let tests = format!("{LIBRARY} --test");
        let given = Crate::of(&words(&tests)).expect("a crate").as_tested();
        assert_eq!(given, words(&tests.replace("opt-level=2", "opt-level=0")));
    }

    #[test]
    fn rustdoc_is_given_what_it_takes() {
        let args = words(LIBRARY);
        let given = Crate::of(&args).expect("a crate").for_rustdoc();
        let wanted = "--crate-name lib --edition=2024 src/lib.rs --error-format=json --json=diagnostic-rendered-ansi,future-incompat \
            --crate-type lib --cfg feature=\"std\" --check-cfg cfg(docsrs) -L dependency=/target/debug/deps \
            --extern serde=/target/debug/deps/libserde.rmeta";
        let written = format!(" --out-dir {} -D warnings", root().join("target/doc").display());
        assert_eq!(given, words(&(wanted.to_owned() + &written)));
    }

    #[test]
    fn libraries_and_programs_are_documented_and_questions_are_no_crates() {
        let documented = |text: &str| Crate::of(&words(text)).is_some_and(|c| c.is_documented());
        assert!(documented(LIBRARY));
        assert!(documented("--crate-name p --crate-type bin --out-dir /target/debug/deps"));
        assert!(!documented("--crate-name it --test --out-dir /target/debug/deps"));
        assert!(!documented("--crate-name cuts --crate-type bin --out-dir /target/debug/examples"));
        assert!(!documented(
            "--crate-name build_script_build --crate-type bin --out-dir /target/debug/build/x"
        ));
        assert!(Crate::of(&words("-vV")).is_none());
        assert!(Crate::of(&words("- --crate-name ___ --print=file-names")).is_none());
    }
}
