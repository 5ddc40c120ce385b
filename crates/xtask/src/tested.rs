//! The step that runs the tests: what the machine can do is required of them, and a table at the end says what did not run and why.

use crate::compiler::checking_cargo;
use crate::run::{root, words};
use anyhow::{Context, Result, bail};
use mmuscope_needs::{NEEDS, REQUIRE, SKIP_FILE, Skip};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::process::Stdio;

/// What test programs said of themselves.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// The lines of ignored tests.
    named: Vec<String>,
}

impl Counts {
    /// Takes in a line of a test program's output.
    fn add(&mut self, line: &str) {
        if let Some(test) = line.strip_prefix("test ").filter(|l| l.contains(" ... ignored")) {
            self.named.push(test.trim_end().to_owned());
        }
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        let number = |what: &str| -> u64 {
            let mut fields = rest.split([';', '.']).map(str::trim);
            fields.find_map(|f| f.strip_suffix(what)?.trim().parse().ok()).unwrap_or(0)
        };
        self.passed += number("passed");
        self.failed += number("failed");
        self.ignored += number("ignored");
    }
}

/// Runs every test of the workspace and prints the table.
pub(crate) fn run() -> Result<()> {
    let (here, missing): (Vec<_>, Vec<_>) =
        NEEDS.iter().map(|n| (n, n.probe())).partition(|(_, p)| p.is_ok());
    let required: Vec<&str> = here.iter().map(|(n, _)| n.name).collect();
    eprintln!("this machine has, so that no test may skip it: {}", required.join(", "));
    for (n, why) in &missing {
        eprintln!("this machine lacks {}: {}", n.name, why.as_ref().err().map_or("", String::as_str));
    }
    let file = root().join("target/skipped-tests");
    fs::write(&file, "").with_context(|| file.display().to_string())?;
    let mut c = checking_cargo(&["test", "--workspace", "--no-fail-fast"])?;
    c.env(REQUIRE, required.join(",")).env(SKIP_FILE, &file).stdout(Stdio::piped());
    let line = words(&c);
    eprintln!("\n$ {line}");
    let mut child = c.spawn().with_context(|| format!("cannot run {line}"))?;
    let mut counts = Counts::default();
    if let Some(out) = child.stdout.take() {
        let mut out = BufReader::new(out);
        let mut bytes = Vec::new();
        // What a test prints need not be text.
        while out.read_until(b'\n', &mut bytes)? > 0 {
            std::io::stdout().write_all(&bytes)?;
            counts.add(&String::from_utf8_lossy(&bytes));
            bytes.clear();
        }
    }
    let status = child.wait()?;
    let skips: BTreeSet<Skip> = fs::read_to_string(&file)
        .with_context(|| file.display().to_string())?
        .lines()
        .map(|l| Skip::parse(l).with_context(|| format!("{}: {l}", file.display())))
        .collect::<Result<_>>()?;
    eprintln!("\n{}", table(&counts, &skips));
    if !status.success() {
        bail!("{line}: {status}");
    }
    if counts.passed == 0 {
        bail!("{line}: no test ran");
    }
    Ok(())
}

/// What ran, and what did not and why. A skipped test passes for its own program; here it does not count as run.
fn table(counts: &Counts, skips: &BTreeSet<Skip>) -> String {
    let tests: BTreeSet<(&str, &str)> = skips.iter().map(|s| (s.package.as_str(), s.test.as_str())).collect();
    let skipped = tests.len() as u64;
    let mut s = format!(
        "tests: {} ran, of which {} failed; {skipped} skipped whole or in part; {} ignored\n",
        (counts.passed + counts.failed).saturating_sub(skipped),
        counts.failed,
        counts.ignored
    );
    for n in NEEDS {
        let mut of = skips.iter().filter(|k| k.need == n.name).peekable();
        let Some(first) = of.peek() else { continue };
        writeln!(s, "  skipped for lack of {} ({})", n.name, n.purpose).ok();
        writeln!(s, "    why: {}", first.why).ok();
        writeln!(s, "    to get it: {}", n.install()).ok();
        for skip in of {
            writeln!(s, "      {} {}", skip.package, skip.test).ok();
        }
    }
    for line in &counts.named {
        writeln!(s, "  {line}").ok();
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 3 tests
test a::one ... ok
test a::two ... FAILED
test a::three ... ignored, it takes an hour
test result: FAILED. 12 passed; 1 failed; 1 ignored; 0 measured; 2 filtered out; finished in 1.24s
     Running unittests src/lib.rs
test result: ok. 30 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn results_are_added_up() {
        let mut counts = Counts::default();
        OUTPUT.lines().for_each(|l| counts.add(l));
        let named = vec!["a::three ... ignored, it takes an hour".to_owned()];
        assert_eq!(counts, Counts { passed: 42, failed: 1, ignored: 1, named });
    }

    #[test]
    fn a_skipped_test_has_not_run() {
        let counts = Counts { passed: 42, failed: 1, ..Counts::default() };
        let skip = |need: &str, test: &str| Skip {
            need: need.into(),
            why: format!("no {need}"),
            package: "p".into(),
            test: test.into(),
        };
        // One test can lack two things.
        let skips = BTreeSet::from([skip("perf", "t::one"), skip("kvm", "t::one"), skip("perf", "t::two")]);
        let text = table(&counts, &skips);
        assert!(text.starts_with("tests: 41 ran, of which 1 failed; 2 skipped"), "{text}");
        for part in ["lack of perf", "why: no perf", "apt-get install linux-perf", "p t::one", "p t::two"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("trace-cmd"), "{text}");
    }
}
