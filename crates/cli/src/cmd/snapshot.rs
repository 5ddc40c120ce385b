//! `mmuscope snapshot`: the page tables of the VMs of this host, now.

use crate::Outcome;
use anyhow::Result;
use mmuscope_collector::Output;
use mmuscope_collector::snapshot::{SnapshotOptions, write};
use std::io::Write;
use std::path::PathBuf;

/// Read the page tables and memory slots of running VMs from KVM's own memory, into a file that the other commands read like a trace
///
/// Nothing is traced and nothing is changed: the kernel's memory is read through /proc/kcore, and its BTF says where the structures lie. Needs root.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope snapshot --vm web-1 -o web-1.snap
  mmuscope state web-1.snap --at end
  mmuscope memory web-1.snap
  mmuscope report web-1.snap -o web-1.html")]
pub(crate) struct Args {
    /// Only this VM, by its VMM's pid or name (`-name`, `--id`)
    #[arg(long, value_name = "PID|NAME")]
    vm: Option<String>,

    /// Write the snapshot here; `-` is standard output. What was there is kept as FILE.old
    #[arg(short, long, value_name = "FILE", default_value = "mmuscope.snap")]
    output: PathBuf,

    /// Leave out names, host name and command lines, and move host addresses by an unknown distance
    #[arg(long)]
    anonymise: bool,
}

/// Takes a snapshot. What it holds is said on standard error, because standard output may be the snapshot.
pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let output = if a.output.as_os_str() == "-" { Output::Stdout } else { Output::File(a.output.clone()) };
    let shot = write(&SnapshotOptions { output, vm: a.vm.clone(), anonymise: a.anonymise })?;
    writeln!(std::io::stderr().lock(), "{shot}")?;
    Ok(if shot.vms.is_empty() { Outcome::No } else { Outcome::Fine })
}
