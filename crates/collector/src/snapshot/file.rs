//! A capture that holds a snapshot and no events. The main function is [`write()`]; the command line calls it for `mmuscope snapshot`.

use std::io::Write;
use std::path::Path;

use super::shot::{Host, Shot};
use crate::capture::{Capture, create};
use crate::host::{self, Gather, monotonic};
use crate::preamble::{self, Preamble};
use crate::scrub::Hidden;
use crate::{Error, Output, vms};

/// What to read and where to write it.
#[derive(Clone, Debug)]
pub struct SnapshotOptions {
    /// Where the capture is written.
    pub output: Output,
    /// A VM by its VMM's pid or name; `None` for all.
    pub vm: Option<String>,
    /// Whether to leave out what identifies people, guests or the machine.
    pub anonymise: bool,
}

/// Reads the tables of the VMs and writes a capture with them and with the facts about the host.
pub fn write(o: &SnapshotOptions) -> Result<Shot, Error> {
    let host = host::gather(Gather { maps: false, anonymise: o.anonymise });
    let pid = match &o.vm {
        Some(name) => Some(vms::select(&host.vmms, name).map_err(Error::Usage)?.pid),
        None => None,
    };
    let (clock, real, mono) = host::clocks();
    let kernel = Host::find().map_err(|why| Error::Refused {
        what: "KVM's tables cannot be read".into(),
        why,
        mend: "`mmuscope doctor` shows what a snapshot needs and what this host has".into(),
    })?;
    let hidden = o.anonymise.then(Hidden::new);
    let shot = kernel.take(&|p| pid.is_none_or(|own| own == p), hidden, Some(monotonic()));
    let get = |k: &str| host.get(k).unwrap_or_default().to_owned();
    let mut facts = host.facts.clone();
    facts.push(("clock.start".into(), clock));
    let preamble = Preamble {
        hostname: get("hostname"),
        release: get("kernel.release"),
        arch: get("kernel.machine"),
        cpu_desc: get("cpu.name"),
        cpuid: ["cpu.vendor", "cpu.family", "cpu.model", "cpu.stepping"].map(get).join(","),
        cpus_configured: host::configured(),
        cpus_online: host::online().len() as u32,
        total_mem_kb: host::total_mem_kb(),
        wall: (real, mono),
        facts,
        compressed: true,
        level: 1,
        ..Preamble::default()
    };
    let (out, path): (Box<dyn Write>, &Path) = match &o.output {
        Output::File(p) => (Box::new(create(p)?), p),
        Output::Stdout => (Box::new(std::io::stdout().lock()), Path::new("standard output")),
    };
    let fail = |source| Error::Write { path: path.to_owned(), source };
    let mut capture = Capture::start(out, &preamble).map_err(fail)?;
    let mut records = Vec::new();
    for body in &shot.records {
        preamble::snapshot(&mut records, body);
    }
    capture.plain(&records);
    capture.finish(&[("clock.end".into(), host::clocks().0)]).map_err(fail)?;
    Ok(shot)
}
