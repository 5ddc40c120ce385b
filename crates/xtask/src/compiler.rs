//! The compiler that `cargo xtask test` gives cargo for the crates of this workspace: clippy and rustdoc look at each crate while rustc compiles it.
//!
//! `cargo clippy` and `cargo doc` would first check all 350 dependencies, which are then compiled again for the tests: a third of the time that a
//! build from nothing takes. Here they are compiled once. Cargo calls `RUSTC_WORKSPACE_WRAPPER RUSTC ARGUMENT …`, and this program, under the name
//! [`NAME`], is that wrapper. What it compiles, cargo keeps apart from what `cargo test` alone compiles.

use crate::run::{cargo, root};
use anyhow::{Context, Result};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::{fs, thread};

/// The name under which this program is the wrapper.
const NAME: &str = "checking-rustc";

/// The cargo that builds and runs the tests of the workspace with this program as the wrapper. What it builds it builds once and keeps apart:
/// incremental state would only cost disk and time.
pub(crate) fn checking_cargo(args: &[&str]) -> Result<Command> {
    let mut c = cargo(args);
    c.env("RUSTC_WORKSPACE_WRAPPER", install()?).env("CARGO_INCREMENTAL", "0");
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

/// Where clippy writes what nobody reads.
fn scratch() -> PathBuf {
    root().join("target/checked")
}

/// Whether this process was started as the wrapper.
pub(crate) fn is_wrapper() -> bool {
    std::env::args_os().next().is_some_and(|own| Path::new(&own).file_name().is_some_and(|n| n == NAME))
}

/// Compiles as cargo asks, and meanwhile lets clippy and rustdoc look at the crate. A finding of either fails the compilation.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let Some((rustc, args)) = args.split_first() else {
        eprintln!("{NAME}: cargo names no compiler");
        return ExitCode::from(2);
    };
    let rustc = Path::new(rustc);
    // Cargo also asks the compiler for its version and its targets.
    let of = Crate::of(args);
    let checks = of.as_ref().map_or(Vec::new(), |c| checks(rustc, c));
    let checking = thread::spawn(move || checks.into_iter().map(|mut c| c.output()).collect::<Vec<_>>());
    let mut compile = Command::new(rustc);
    compile.args(args);
    if of.is_some() {
        // Clippy prints the compiler's own warnings, too.
        compile.args(["--cap-lints", "allow"]);
    }
    let compiled = compile.status();
    let Ok(checked) = checking.join() else { return ExitCode::FAILURE };
    let mut fine = true;
    for output in checked {
        fine &= passed(output);
    }
    match compiled {
        Ok(status) if status.success() && fine => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{NAME}: {}: {e}", rustc.display());
            ExitCode::FAILURE
        }
    }
}

/// Hands on what a check printed. Returns whether it found nothing.
fn passed(output: std::io::Result<Output>) -> bool {
    match output {
        Ok(o) => {
            std::io::stderr().write_all(&o.stderr).ok();
            o.status.success()
        }
        Err(e) => {
            eprintln!(
                "{NAME}: clippy or rustdoc cannot be run: {e}; `rustup component add clippy` installs clippy"
            );
            false
        }
    }
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

    /// Whether it has a page of documentation of its own: a library or a program, not its tests.
    fn is_documented(&self) -> bool {
        let kind = self.args.iter().position(|a| a == "--crate-type").and_then(|at| self.args.get(at + 1));
        let name = self.args.iter().position(|a| a == "--crate-name").and_then(|at| self.args.get(at + 1));
        let example = self.out.ends_with("examples");
        kind.is_some_and(|k| k == "lib" || k == "bin")
            && !self.args.iter().any(|a| a == "--test")
            && name.is_some_and(|n| n != "build_script_build")
            && !example
    }

    /// The arguments for clippy: the compiler's, but it writes only the crate's metadata, to a folder where nobody looks for it. Cargo must not
    /// read that it is there.
    fn for_clippy(&self, scratch: &Path) -> Vec<String> {
        let mut out = Vec::new();
        let mut args = self.args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--out-dir" => {
                    args.next();
                    out.extend(["--out-dir".to_owned(), scratch.display().to_string()]);
                }
                "-C" => {
                    if let Some(value) = args.next().filter(|v| !v.starts_with("incremental=")) {
                        out.extend(["-C".to_owned(), value.clone()]);
                    }
                }
                a if a.starts_with("--emit=") => out.push("--emit=metadata".to_owned()),
                a if a.starts_with("--json=") => out.push(without_artifacts(a)),
                _ => out.push(arg.clone()),
            }
        }
        out
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
        out
    }
}

/// `--json=diagnostic-rendered-ansi,artifacts` without `artifacts`.
fn without_artifacts(arg: &str) -> String {
    let kept: Vec<&str> =
        arg.trim_start_matches("--json=").split(',').filter(|k| *k != "artifacts").collect();
    format!("--json={}", kept.join(","))
}

/// What looks at a crate.
fn checks(rustc: &Path, of: &Crate<'_>) -> Vec<Command> {
    // The compiler's siblings: found by their names where it is found by its own.
    let sibling = |name: &str| rustc.with_file_name(name);
    let scratch = scratch();
    // Where it cannot be made, clippy says so.
    fs::create_dir_all(&scratch).ok();
    let mut clippy = Command::new(sibling("clippy-driver"));
    clippy.arg(rustc).args(of.for_clippy(&scratch));
    // As cargo-clippy hands on `-- -D warnings`.
    clippy.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
    let mut all = vec![clippy];
    if of.is_documented() {
        let mut rustdoc = Command::new(sibling("rustdoc"));
        rustdoc.args(of.for_rustdoc()).arg("--out-dir").arg(root().join("target/doc"));
        rustdoc.args(["-D", "warnings"]);
        if of.args.iter().any(|a| a == "bin") {
            rustdoc.arg("--document-private-items");
        }
        all.push(rustdoc);
    }
    all
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
    fn clippy_writes_metadata_elsewhere_and_says_nothing_of_it() {
        let args = words(LIBRARY);
        let given = Crate::of(&args).expect("a crate").for_clippy(Path::new("/scratch"));
        let wanted = LIBRARY
            .replace("dep-info,metadata,link", "metadata")
            .replace(",artifacts", "")
            .replace(" -C incremental=/target/inc", "")
            .replace("--out-dir /target/debug/deps", "--out-dir /scratch");
        assert_eq!(given, words(&wanted));
    }

    #[test]
    fn rustdoc_is_given_what_it_takes() {
        let args = words(LIBRARY);
        let given = Crate::of(&args).expect("a crate").for_rustdoc();
        let wanted = "--crate-name lib --edition=2024 src/lib.rs --error-format=json --json=diagnostic-rendered-ansi,future-incompat \
            --crate-type lib --cfg feature=\"std\" --check-cfg cfg(docsrs) -L dependency=/target/debug/deps \
            --extern serde=/target/debug/deps/libserde.rmeta";
        assert_eq!(given, words(wanted));
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
