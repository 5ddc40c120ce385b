//! The program that runs inside a host of the lab: it is the host's `init`, runs the VMs of the workload, and dumps what the kernel holds. It is
//! one static program.
//!
//! As process 1 it sets the host up, runs the plan in `/lab/host.toml`, sends the results back and powers off. It can also be started by hand:
//!
//! ```text
//! mmuscope-lab-inside load [HOST.toml]        the workload's VM alone, on whatever /dev/kvm there is
//! mmuscope-lab-inside variables FILE          the kernel's mask variables
//! mmuscope-lab-inside tables TRACE.txt FILE   the page-table pages a text trace names
//! ```
#![allow(unsafe_code)] // KVM's ioctls, fork, mmap and mount have no safe form; nothing of this is part of the tool.

mod absent;
mod guest;
mod init;
mod kernel;
mod phases;
mod vm;

use std::{env, io::Write as _, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use mmuscope_lab::host::{Host, Workload};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::boot();
    }
    match run(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("lab: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["load", ref rest @ ..] => {
            let plan = match rest.first() {
                Some(p) => Host::load(Path::new(p))?.workload,
                None => Workload::default(),
            };
            let vm = phases::machine(&plan)?;
            phases::run(&vm, &plan)?;
            if rest.get(1) == Some(&"--stay") {
                // The VM must still exist when its tables are read, so it stays until the caller closes standard input.
                println!("DONE");
                std::io::stdout().flush()?;
                std::io::stdin().read_line(&mut String::new())?;
            }
            Ok(())
        }
        ["variables", to] => kernel::dump_variables(Path::new(to)),
        ["tables", trace, to] => {
            let (named, found) =
                kernel::dump_tables(Path::new(trace), Path::new(to)).context("dumping page tables")?;
            println!("{named} page-table pages named, {found} found");
            Ok(())
        }
        _ => bail!("usage: load [HOST.toml] | variables FILE | tables TRACE.txt FILE"),
    }
}
