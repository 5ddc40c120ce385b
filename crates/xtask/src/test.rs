//! `cargo xtask test`: every check of the repository, cheapest first, the tests last.

use crate::run::{at_root, cargo, have, lab_example, output, root, show};
use crate::samples;
use anyhow::Result;
use std::process::Command;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// Debian packages that checks use, and what for. Building mmuscope itself needs only a Rust toolchain and a C compiler.
const PACKAGES: [(&str, &str); 7] = [
    ("libgl1-mesa-dri", "the viewer's window without a graphics card"),
    ("mesa-vulkan-drivers", "pictures of the viewer in tests"),
    ("xvfb", "a display for the viewer"),
    ("xauth", "a display for the viewer"),
    ("x11-utils", "what the viewer's window says, from outside"),
    ("trace-cmd", "a second opinion on trace.dat"),
    ("linux-perf", "a second opinion on perf.data"),
];

/// From the Python package registry.
const DUCKDB: &str = "duckdb>=1.1";

/// How often a long step prints that it is still running.
const BEAT: Duration = Duration::from_mins(1);

/// A check: its title, and the function that runs it.
type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 10] = [
    ("what the checks use: Debian packages, DuckDB", || {
        packages();
        duckdb();
        Ok(())
    }),
    ("formatting", || show(&mut cargo(&["fmt", "--all", "--check"]))),
    ("samples", samples::check),
    ("spelling", spelling),
    ("licences and banned crates", deny),
    ("clippy (builds everything once)", || {
        show(&mut lean(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])))
    }),
    ("documentation", || {
        show(lean(cargo(&["doc", "--workspace", "--no-deps"])).env("RUSTDOCFLAGS", "-D warnings"))
    }),
    ("building the tests (the longest step where nothing is built yet)", || {
        show(&mut lean(cargo(&["test", "--workspace", "--no-run"])))
    }),
    ("running the tests", || show(&mut lean(cargo(&["test", "--workspace", "--no-fail-fast"])))),
    ("cutting the samples at random", || show(lean(lab_example("cuts")).args(["--seeds", CUTS, "samples"]))),
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

fn spelling() -> Result<()> {
    if have("typos") {
        return show(&mut at_root("typos", &[]));
    }
    skipped("spelling: the program typos is not installed (cargo install typos-cli)");
    Ok(())
}

fn deny() -> Result<()> {
    if have("cargo-deny") {
        return show(&mut cargo(&["deny", "check", "bans", "licenses", "sources"]));
    }
    skipped(
        "licences and banned crates: cargo-deny is not installed (cargo install cargo-deny); a test bans the worst by name",
    );
    Ok(())
}

/// CI never builds anything twice, so incremental state would only cost disk and time.
fn lean(mut c: Command) -> Command {
    if std::env::var_os("CI").is_some() {
        c.env("CARGO_INCREMENTAL", "0");
    }
    c
}

fn skipped(what: &str) {
    eprintln!("\nSKIPPED {what}");
}

/// Installs the missing Debian packages where this user may, and names them otherwise. Tests whose tools are missing skip by themselves.
fn packages() {
    if !have("dpkg-query") {
        eprintln!(
            "not a Debian system: tests that need {} skip where it is missing",
            names(&PACKAGES.map(|p| p.0))
        );
        return;
    }
    let missing: Vec<_> = PACKAGES.iter().filter(|(p, _)| !installed(p)).collect();
    if missing.is_empty() {
        return;
    }
    let list: Vec<&str> = missing.iter().map(|(p, _)| *p).collect();
    let is_root = output(Command::new("id").arg("-u")).is_ok_and(|s| s.trim() == "0");
    if is_root {
        eprintln!("installing Debian packages that the checks use: {}", names(&list));
        let apt = |args: &[&str]| show(at_root("apt-get", args).env("DEBIAN_FRONTEND", "noninteractive"));
        let mut install = vec!["install", "-y", "-q", "--no-install-recommends"];
        install.extend(&list);
        if let Err(e) = apt(&["update", "-q"]).and_then(|()| apt(&install)) {
            skipped(&format!("installing {}: {e:#}; tests that need them skip", names(&list)));
        }
    } else {
        for (package, what_for) in missing {
            skipped(&format!("{what_for}: needs the Debian package {package}"));
        }
        eprintln!("to install them: apt-get install {}", list.join(" "));
    }
}

/// Installs DuckDB, an independent reader of Parquet, from its package registry into `target/tools`, where a test finds it.
fn duckdb() {
    let tools = root().join("target/tools");
    let there = |c: &mut Command| output(c.env("PYTHONPATH", &tools).args(["-c", "import duckdb"])).is_ok();
    if there(&mut Command::new("python3")) {
        return;
    }
    let mut pip =
        at_root("python3", &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
    pip.args(["--root-user-action=ignore", "--target"]).arg(&tools).arg(DUCKDB);
    if let Err(e) = show(&mut pip) {
        skipped(&format!("reading Parquet with DuckDB: it cannot be installed: {e:#}"));
    }
}

fn installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["-W", "-f=${Status}", package]))
        .is_ok_and(|s| s.trim() == "install ok installed")
}

fn names(list: &[&str]) -> String {
    list.join(", ")
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
