//! What becomes of a test whose need is not met.

use crate::need;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Mutex;

/// The environment variable that names what must be there, separated by commas.
pub const REQUIRE: &str = "MMUSCOPE_REQUIRE";
/// The environment variable that names the file that gets a line for each skipped test.
pub const SKIP_FILE: &str = "MMUSCOPE_SKIPPED";

/// A test that did not run, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skip {
    /// The name of the need that was not met.
    pub need: String,
    /// Why it was not met.
    pub why: String,
    /// The package of the test.
    pub package: String,
    /// The test, with its modules.
    pub test: String,
}

impl Skip {
    /// As a line of the file, whose fields are separated by tabs.
    pub fn line(&self) -> String {
        let all = [&self.need, &self.why, &self.package, &self.test];
        all.map(|f| f.replace(['\t', '\n'], " ")).join("\t") + "\n"
    }

    /// Reads a line of the file; `None` if it is none.
    pub fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.trim_end_matches('\n').split('\t').collect();
        let [need, why, package, test] = fields.as_slice() else { return None };
        let own = |s: &&str| (*s).to_owned();
        Some(Self { need: own(need), why: own(why), package: own(package), test: own(test) })
    }
}

/// Each need is probed once in a process.
static PROBED: Mutex<BTreeMap<&str, Result<(), String>>> = Mutex::new(BTreeMap::new());

/// Whether the machine has what this test needs. If not, that is on record in the file of [`SKIP_FILE`].
///
/// # Panics
///
/// If [`REQUIRE`] names a need that is not met, if there is no need of this name, or if the record cannot be written.
pub fn ask(name: &str, package: &str, test: &str) -> bool {
    let need = need(name);
    let probed = PROBED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .entry(need.name)
        .or_insert_with(|| need.probe())
        .clone();
    let Err(why) = probed else { return true };
    let required = std::env::var(REQUIRE).unwrap_or_default();
    let skip = Skip { need: name.into(), why, package: package.into(), test: test.into() };
    if let Err(e) = refuse(&skip, &required) {
        panic!("{e}");
    }
    match std::env::var_os(SKIP_FILE) {
        None => eprintln!(
            "SKIPPED {test} ({package}): it needs {name} ({}): {}. To get it: {}",
            need.purpose,
            skip.why,
            need.install()
        ),
        Some(file) => {
            let mut options = std::fs::OpenOptions::new();
            let opened = options.append(true).create(true).open(&file);
            // One write, so that lines of tests that run at the same time do not mix.
            let written = opened.and_then(|mut f| f.write_all(skip.line().as_bytes()));
            written.unwrap_or_else(|e| panic!("{SKIP_FILE}={}: {e}", file.display()));
        }
    }
    false
}

/// An error if the need of a test that cannot run is a required one.
fn refuse(skip: &Skip, required: &str) -> Result<(), String> {
    let names: Vec<&str> = required.split(',').map(str::trim).filter(|n| !n.is_empty()).collect();
    // A misspelled name would require nothing.
    for n in &names {
        need(n);
    }
    if names.contains(&skip.need.as_str()) {
        let how = need(&skip.need).install();
        return Err(format!(
            "{REQUIRE} names {}, and it is not here: {}. To get it: {how}",
            skip.need, skip.why
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip() -> Skip {
        Skip {
            need: "perf".into(),
            why: "perf: No such file\nor directory".into(),
            package: "mmuscope-trace".into(),
            test: "main::tools::counts".into(),
        }
    }

    #[test]
    fn what_is_required_is_not_skipped() {
        assert_eq!(refuse(&skip(), ""), Ok(()));
        assert_eq!(refuse(&skip(), "kvm,trace-cmd"), Ok(()));
        let e = refuse(&skip(), "kvm, perf").unwrap_err();
        assert!(e.contains("No such file") && e.contains("apt-get install linux-perf"), "{e}");
    }

    #[test]
    #[should_panic(expected = "`perv` is no need")]
    fn a_misspelled_requirement_is_an_error() {
        refuse(&skip(), "perv").ok();
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let mut one = skip();
        assert_eq!(one.line().lines().count(), 1);
        one.why = one.why.replace('\n', " ");
        assert_eq!(Skip::parse(&one.line()), Some(one));
        assert_eq!(Skip::parse("perf"), None);
    }
}
