//! How a need is probed.

use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A way to look whether the machine has something.
#[derive(Debug)]
pub(crate) enum Probe {
    /// Programs of these names are in `PATH`.
    Programs(&'static [&'static str]),
    /// A program runs with these arguments and succeeds.
    Runs(&'static str, &'static [&'static str]),
    /// An example of this repository, which cargo builds beside the tests, runs with these arguments and succeeds.
    Example(&'static str, &'static [&'static str]),
    /// A file can be opened for reading and writing.
    Opens(&'static str),
    /// A path exists.
    Exists(&'static str),
    /// Anything else.
    Function(fn() -> Result<(), String>),
}

impl Probe {
    pub(crate) fn run(&self) -> Result<(), String> {
        match self {
            Self::Programs(all) => match all.iter().find(|p| !have(p)) {
                Some(p) => Err(format!("no program {p}")),
                None => Ok(()),
            },
            Self::Runs(program, args) => succeeds(Command::new(program).args(*args)),
            Self::Example(name, args) => succeeds(Command::new(example(name)?).args(*args)),
            Self::Opens(path) => match OpenOptions::new().read(true).write(true).open(path) {
                Ok(_) => Ok(()),
                Err(e) => Err(format!("{path}: {e}")),
            },
            Self::Exists(path) => match std::fs::metadata(path) {
                Ok(_) => Ok(()),
                Err(e) => Err(format!("{path}: {e}")),
            },
            Self::Function(f) => f(),
        }
    }
}

/// Whether a program of this name is in `PATH`.
pub fn have(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|p| std::env::split_paths(&p).any(|d| d.join(program).is_file()))
}

/// A Python that finds what `cargo xtask test` installed for it, in `target/tools` of the repository.
pub fn python() -> Command {
    let mut c = Command::new("python3");
    c.env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools"));
    c
}

/// Runs a probe, quietly; the error ends with what the program said last.
fn succeeds(c: &mut Command) -> Result<(), String> {
    let name = c.get_program().to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned();
    let out = c.stdin(Stdio::null()).output().map_err(|e| format!("{name}: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let last = said.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("it said nothing").trim();
    Err(format!("{name}: {}: {last}", out.status))
}

/// Where cargo puts examples: in a folder beside the one of this program, or of a folder above.
fn example(name: &str) -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    exe.ancestors()
        .skip(1)
        .map(|d| d.join("examples").join(name))
        .find(|p| p.is_file())
        .ok_or_else(|| format!("the example {name} is not built"))
}

pub(crate) fn root() -> Result<(), String> {
    match std::fs::metadata("/proc/self") {
        Ok(m) if m.uid() == 0 => Ok(()),
        Ok(m) => Err(format!("the user is {}, not root", m.uid())),
        Err(e) => Err(format!("/proc/self: {e}")),
    }
}

/// The user nobody has this number everywhere.
const NOBODY: u32 = 65534;

pub(crate) fn nobody() -> Result<(), String> {
    // Every program that probes (tests, xtask) takes this argument and does nothing else. By this name it is found, too, when it was built anew
    // since it started, as cargo xtask test does with its own.
    succeeds(Command::new("/proc/self/exe").arg("--help").uid(NOBODY).gid(NOBODY))
}

pub(crate) fn mount() -> Result<(), String> {
    // In a mount namespace of its own, which ends with the program: nothing is left, and nobody else sees it.
    succeeds(Command::new("unshare").args("--mount mount -t tmpfs -o size=64k nodev /tmp".split(' ')))
}

pub(crate) fn perf() -> Result<(), String> {
    succeeds(Command::new("perf").arg("--version"))?;
    // Without this library, which some distributions leave out, perf script prints no tracepoints. Older ones always have it.
    let out = Command::new("perf").args(["version", "--build-options"]).stdin(Stdio::null()).output();
    let options = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    match options.lines().find(|l| l.contains("libtraceevent") && l.to_lowercase().contains("[ off")) {
        Some(_) => Err("this perf is built without libtraceevent".into()),
        None => Ok(()),
    }
}

pub(crate) fn duckdb() -> Result<(), String> {
    succeeds(python().args(["-c", "import duckdb"]))
}
