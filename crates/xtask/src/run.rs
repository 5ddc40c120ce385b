//! Running other programs; each command line is printed first.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// A command that runs at the top of the repository with an empty standard input.
pub(crate) fn at_root(program: &str, args: &[&str]) -> Command {
    let mut c = Command::new(program);
    c.args(args).current_dir(root()).stdin(Stdio::null());
    c
}

/// The cargo that runs this program.
pub(crate) fn cargo(args: &[&str]) -> Command {
    at_root(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()), args)
}

/// The command that builds and runs an example of the lab; the caller adds the arguments.
pub(crate) fn lab_example(name: &str) -> Command {
    cargo(&["run", "--quiet", "--package", "mmuscope-lab", "--example", name, "--"])
}

/// An example that is built, with the arguments that the caller adds.
pub(crate) fn built_example(name: &str) -> Result<Command> {
    let own = std::env::current_exe()?;
    Ok(at_root(&own.with_file_name("examples").join(name).to_string_lossy(), &[]))
}

/// Runs a command, showing it first; an exit status other than 0 is an error.
pub(crate) fn show(c: &mut Command) -> Result<()> {
    let line = words(c);
    eprintln!("\n$ {line}");
    let status = c.status().with_context(|| format!("cannot run {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// The standard output of a command that succeeds.
pub(crate) fn output(c: &mut Command) -> Result<String> {
    let line = words(c);
    let out = c.output().with_context(|| format!("cannot run {line}"))?;
    if !out.status.success() {
        bail!("{line}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// A command as it is shown: the name of the program without its folder, and the arguments.
pub(crate) fn words(c: &Command) -> String {
    let mut s = Path::new(c.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    for a in c.get_args() {
        s.push(' ');
        s.push_str(&a.to_string_lossy());
    }
    s
}
