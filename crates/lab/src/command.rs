//! The command line of the lab, `cargo xtask lab …`. The main function is [`main`].

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    cost, fetch,
    host::Host,
    matrix,
    run::{Begin, Run, example, home, hosts, inside, work},
};

const USAGE: &str = "\
cargo xtask lab list                          the hosts
cargo xtask lab boot HOST [OUT] [options]     boots one; its trace and the truth land in OUT (default: the lab's work folder)
cargo xtask lab record HOST [OUT] [options]   the same with mmuscope's own recorder watching: its capture comes back too
cargo xtask lab matrix [ROW …] [options]      records hosts so, one after the other, and prints what is known of each, as a table
cargo xtask lab cost [HOST …] [options]       what recording costs the guest, and the recorder, as a table
cargo xtask lab check [DIR …]                 replays traces and compares the result with the truth beside them
cargo xtask lab load [--set NAME=VALUE]       the workload alone, on this machine's /dev/kvm
cargo xtask lab kernels                       kernels that Debian's pool has today

options of boot, record, matrix and cost:
  --set NAME=VALUE     change the host: kvm.NAME and vendor.NAME are module parameters, workload.NAME and plain names its fields
  --add FILE=/PATH     put a file into the host (programs bring their libraries); /bin/cmd runs with --set record=['cmd']
  --timeout SECONDS    end the emulator after that (default 300; Bochs 1500)
  --keep               keep trace.txt and perf.data uncompressed as well
  --mmuscope FILE      the recorder, instead of one that is built first
  --boots N            of cost: how many times each is booted (default 3)

ROW is a host with settings, `late` for a recorder that begins in the middle, and `without-btf` for one that sees no BTF of the kernel:
6.18-npt+vendor.npt=0+late
HOST is a name from the list or a file. The work folder is target/lab, or $MMUSCOPE_LAB.";

/// Runs the lab's command line (without the word `lab`).
pub fn main(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let args: Vec<String> = args
        .into_iter()
        .map(OsString::into_string)
        .collect::<Result<_, _>>()
        .map_err(|a| anyhow::anyhow!("{} is not text", a.display()))?;
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => list(),
        ["kernels"] => {
            let names = fetch::available(&work()?)?.join("\n");
            Ok(writeln!(io::stdout(), "{names}")?)
        }
        ["boot", host, ref rest @ ..] => Run::parse(host, rest)?.boot(),
        ["record", host, ref rest @ ..] => {
            let mut run = Run::parse(host, rest)?;
            run.record_ourselves("--events all", Begin::First, true)?;
            run.boot()
        }
        ["matrix", ref rest @ ..] => matrix::run(rest),
        ["cost", ref rest @ ..] => cost::run(rest),
        ["check", ref dirs @ ..] => check(dirs),
        ["load", ref rest @ ..] => load(rest),
        ["help" | "--help" | "-h"] | [] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("{USAGE}"),
    }
}

fn list() -> Result<()> {
    let mut out = io::stdout().lock();
    for (name, path) in hosts()? {
        writeln!(out, "{name:<22} {}", Host::load(&path)?.about)?;
    }
    Ok(())
}

/// Runs the comparison, which is an example of this package so that the lab itself need not build the replay.
fn check(dirs: &[&str]) -> Result<()> {
    let folders = if dirs.is_empty() {
        vec![home().join("../../samples")]
    } else {
        dirs.iter().map(PathBuf::from).collect()
    };
    example("check_truth", folders, "the replay and the kernel's truth differ")
}

fn load(rest: &[&str]) -> Result<()> {
    let mut host: Host = toml::from_str("about = 'this machine'\nkernel = 'its own'")?;
    // A PVM host runs only guests at CPL 3; every other host runs those, too.
    host.set("workload.guest=user")?;
    let mut words = rest.iter();
    while let Some(&word) = words.next() {
        match (word, words.next()) {
            ("--set", Some(setting)) => host.set(setting)?,
            _ => bail!("{USAGE}"),
        }
    }
    let file = work()?.join("load.toml");
    fs::write(&file, host.to_toml()?)?;
    let status = Command::new(inside()?).arg("load").arg(&file).status()?;
    if !status.success() {
        bail!("the workload failed: {status}");
    }
    Ok(())
}
