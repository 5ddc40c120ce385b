//! `mmuscope record`: records a trace of this host.

use super::which::DecimalArg;
use crate::Outcome;
use crate::progress::{Watch, stopped};
use crate::room;
use anyhow::{Result, bail};
use mmuscope_analysis::snapshots::{difference, sentence};
use mmuscope_collector::trigger::Trigger;
use mmuscope_collector::{
    Ended, Error, Output, Probes, RecordOptions, Scope, When, parse_duration, parse_size,
};
use mmuscope_replay::ReplayOptions;
use mmuscope_trace::{Progress, ReadOptions};
use mmuscope_units::{Frames, bytes, count};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Record from this host: KVM's MMU events of every VM, with the facts needed to decode them anywhere
///
/// The capture is perf.data in its streaming form (perf script reads it too), readable up to the last flush whatever ends the recorder.
/// Only this recorder's own rings and events are used: nobody else's tracing is touched, and everything ends with this process.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Event sets: mmu (default) all kvmmmu events but the page walks, faults, entries, MMU exits, notifiers; faults; mmio; all.
Triggers:   reserved-bits   exit == internal_error|shutdown|memory_fault|error|efault|NUMBER   fault-time > 10ms
            faults > 10000/1s   faults(gfn) > 100/10ms   faults(vcpu) > …   faults(vm) > …   zap-all   zap-all > 3/s
            event NAME {FILTER} > N/TIME        any of them, joined by `or`

Examples:
  mmuscope record -o boot.perf.data -- qemu-system-x86_64 …
  mmuscope record --vm web-1 --duration 10s
  mmuscope record --flight --trigger 'faults(gfn) > 100/10ms or exit == internal_error'
  mmuscope record -o - | mmuscope view -")]
pub(crate) struct Args {
    /// Write the capture here; `-` is standard output. What was there is kept as FILE.old. With --flight, snapshots are numbered: FILE.1.…
    #[arg(short, long, value_name = "FILE", default_value = "mmuscope.perf.data")]
    output: PathBuf,

    /// Event sets and events, comma separated: `mmu`, `faults,kvm:kvm_msr`, `kvmmmu:*`, `mmu,-kvm_age_hva` (without that one)
    #[arg(short, long, value_name = "LIST", default_value = "mmu")]
    events: String,

    /// Only this process, with all its threads
    #[arg(short, long, value_name = "PID", group = "scope")]
    pid: Option<u32>,

    /// Only this VM, by its VMM's pid or name (`-name`, `--id`): the VMM's threads, its kernel threads and the memory management's
    #[arg(long, value_name = "PID|NAME", group = "scope")]
    vm: Option<String>,

    /// Only the tasks of this cgroup (`/machine.slice/machine-qemu….scope`)
    #[arg(long, value_name = "PATH", group = "scope")]
    cgroup: Option<PathBuf>,

    /// Stop after this time: 10s, 500ms, 5m; without a unit, seconds
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,

    /// Stop when the capture has this size (500M, 2G)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_size: Option<u64>,

    /// Only these guest frames (hex), in the events that name one: 7c00, 100-1ff, 100+16; filtered by the kernel
    #[arg(long, value_name = "GFN")]
    gfn: Option<Frames>,

    #[command(flatten)]
    decimal: DecimalArg,

    /// Filter an event in the kernel: `kvm_mmu_set_spte:level > 1`; may be repeated
    #[arg(long, value_name = "EVENT:EXPR", value_parser = parse_filter)]
    filter: Vec<(String, String)>,

    /// Ring memory per CPU (64M for storms); the default is 8M, less on hosts with many CPUs or little memory
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    buffer: Option<u64>,

    /// Empty the rings with high (nice -15) instead of real-time priority
    #[arg(long)]
    no_realtime: bool,

    /// zstd level of the capture, -7 (fastest) to 19 (smallest)
    #[arg(long, value_name = "LEVEL", default_value_t = -1, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-7..=19))]
    level: i32,

    /// Do not compress
    #[arg(long, conflicts_with = "level")]
    no_compress: bool,

    /// Flight recorder: keep only the newest events in memory; save a snapshot on --trigger, SIGUSR1, and at the end
    #[arg(short, long)]
    flight: bool,

    /// Save a snapshot when this happens (see below)
    #[arg(long, value_name = "CONDITION", requires = "flight")]
    trigger: Option<Trigger>,

    /// After the trigger, keep recording this long before saving
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "flight", default_value = "0")]
    after: Duration,

    /// End after this many snapshots
    #[arg(long, value_name = "N", requires = "flight")]
    snapshots: Option<u32>,

    /// When KVM's own tables and memory slots are read from the kernel's memory: off, start, end, `every 10s`, or several: start,end
    #[arg(long, value_name = "WHEN", default_value = "start,end", value_parser = When::parse)]
    snapshot: When,

    /// Kprobes on what an MMU does without an event: auto (where this host's MMU needs them), on, off
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = parse_probes)]
    probes: Probes,

    /// Switch the probes off when they are hit more often than this in a second; the default is 450,000 on two CPUs, less on more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    probe_limit: Option<u64>,

    /// Also store the memory maps of the VMMs (host addresses to files and guest memory)
    #[arg(long, conflicts_with = "anonymise")]
    maps: bool,

    /// Leave out names, host name, command lines, guest instruction pointers and MMIO data, and move host addresses
    #[arg(long)]
    anonymise: bool,

    /// No status line and no summary (losses and failures are still reported)
    #[arg(short, long)]
    quiet: bool,

    /// Record while this command runs (everything on the system, unless --pid, --vm or --cgroup narrow it)
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn parse_probes(text: &str) -> Result<Probes, String> {
    match text {
        "auto" => Ok(Probes::Auto),
        "on" => Ok(Probes::On),
        "off" => Ok(Probes::Off),
        _ => Err("write auto, on or off".into()),
    }
}

fn parse_filter(text: &str) -> Result<(String, String), String> {
    // The system's colon is followed by a name, the filter's by an expression.
    let bare = text.strip_prefix("kvm:").or_else(|| text.strip_prefix("kvmmmu:")).unwrap_or(text);
    let Some((event, expression)) = bare.split_once(':') else {
        return Err("write EVENT:EXPRESSION, as in kvm_mmu_set_spte:level > 1".into());
    };
    if event.trim().is_empty() || expression.trim().is_empty() {
        return Err("write EVENT:EXPRESSION, as in kvm_mmu_set_spte:level > 1".into());
    }
    Ok((event.trim().to_owned(), expression.trim().to_owned()))
}

impl Args {
    fn options(&self) -> Result<RecordOptions> {
        let scope = match (self.pid, &self.vm, &self.cgroup) {
            (Some(pid), ..) => Scope::Pid(pid),
            (_, Some(vm), _) => Scope::Vm(vm.clone()),
            (.., Some(path)) => Scope::Cgroup(path.clone()),
            _ => Scope::System,
        };
        Ok(RecordOptions {
            output: if self.output.as_os_str() == "-" {
                Output::Stdout
            } else {
                Output::File(self.output.clone())
            },
            events: self.events.clone(),
            scope,
            command: self.command.clone(),
            duration: self.duration,
            max_size: self.max_size,
            gfn: self.decimal.maybe(self.gfn.as_ref())?,
            filters: self.filter.clone(),
            buffer: self.buffer,
            realtime: !self.no_realtime,
            compression: (!self.no_compress).then_some(self.level),
            maps: self.maps,
            anonymise: self.anonymise,
            flight: self.flight,
            trigger: self.trigger.clone(),
            after: self.after,
            snapshots: self.snapshots,
            snapshot: self.snapshot,
            probes: self.probes,
            probe_limit: self.probe_limit,
            quiet: self.quiet,
            argv: std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect(),
        })
    }
}

/// Records a trace. The closing summary goes to standard error, because standard output may be the capture.
pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let summary = match mmuscope_collector::record(&a.options()?) {
        Ok(s) => s,
        Err(
            e @ (Error::Usage(_) | Error::UnknownEvent { .. } | Error::Command { .. } | Error::Write { .. }),
        ) => return Err(e.into()),
        Err(e) => {
            // An attempt stops at the first obstacle; the doctor finds all of them.
            let missing = mmuscope_collector::doctor::examine().missing();
            if missing.lines.is_empty() {
                return Err(e.into());
            }
            bail!("{e}\n\nWhat stands in the way here (mmuscope doctor shows everything):\n{missing}")
        }
    };
    let lost = summary.lost.is_some_and(|n| n > 0) || summary.left_behind > 0;
    let failed = matches!(summary.ended, Ended::WriteFailed(_));
    if !a.quiet || lost || failed {
        write!(std::io::stderr().lock(), "{summary}")?;
    }
    if !a.quiet && summary.taken > 0 {
        agreement(&summary.files, summary.recorded());
    }
    match summary.ended {
        Ended::WriteFailed(why) => bail!("{why}"),
        _ => Ok(Outcome::Fine),
    }
}

/// Says how the replay of a capture of so many events and the snapshots in it agree. Whatever prevents that is no failure of the recording.
fn agreement(files: &[PathBuf], events: u64) {
    if room::available().is_some_and(|room| room::of_events(events) > room) {
        let _ = writeln!(
            std::io::stderr().lock(),
            "not compared with the kernel's memory: {} events need about {} to be replayed; `mmuscope summary` compares where there is more memory",
            count(events),
            bytes(room::of_events(events))
        );
        return;
    }
    let progress = Arc::new(Progress::default());
    let read = ReadOptions { progress: Some(Arc::clone(&progress)), ..ReadOptions::default() };
    let replay = ReplayOptions { progress: Some(Arc::clone(&progress)), ..ReplayOptions::default() };
    let watch = Watch::new("comparing with the kernel's memory", progress);
    let Ok((_, timeline)) = mmuscope_replay::load(files, &read, &replay, None) else { return };
    drop(watch);
    // What was cut short says nothing about agreement.
    if stopped() {
        return;
    }
    let mut err = std::io::stderr().lock();
    for s in timeline.snapshots() {
        let _ = writeln!(err, "{}", sentence(&s));
        for d in s.differences.iter().take(10) {
            let _ = writeln!(err, "  {}", difference(d));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        assert_eq!(
            parse_filter("kvm_mmu_set_spte:level > 1"),
            Ok(("kvm_mmu_set_spte".into(), "level > 1".into()))
        );
        assert_eq!(
            parse_filter("kvm:kvm_exit:exit_reason==48"),
            Ok(("kvm_exit".into(), "exit_reason==48".into()))
        );
        assert!(parse_filter("kvm:kvm_exit").is_err());
        assert!(parse_filter("level > 1").is_err());
    }
}
