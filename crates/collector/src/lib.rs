//! Records a live KVM host into a capture.
//!
//! [`record()`] opens the chosen tracepoints with `perf_event_open` into one ring for each CPU, drains the rings, and writes a perf.data stream
//! that also has the facts about the host that a decoder needs. [`doctor`] says whether that works on this host and, if not, how to mend it.
//! The command line calls both. This crate never changes the kernel's global trace buffer or anybody else's tracing; all of its events
//! disappear with the process.

mod attr;
mod btf;
mod capture;
pub mod doctor;
mod feed;
mod filter;
pub mod host;
mod kcore;
mod kernelvars;
mod options;
mod preamble;
mod probes;
mod rates;
pub mod record;
pub mod ring;
mod scrub;
pub mod snapshot;
mod sys;
pub mod tracefs;
pub mod trigger;
mod types;
mod untraced;
pub mod vms;

pub use mmuscope_units::size as parse_size;
pub use options::{Output, Probes, RecordOptions, Scope, When};
pub use record::{Ended, Summary, record};

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Parses a length of time with the rules of `mmuscope_units`: `10`, `1.5s`, `200ms`, `5m`, `2h`; seconds where no unit is given.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    mmuscope_units::time(text).map(Duration::from_nanos).map_err(|e| e.to_string())
}

/// Why recording did not work. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// tracefs is not mounted.
    #[error("tracefs is not mounted\n  to mend it, as root: mount -t tracefs nodev /sys/kernel/tracing")]
    NoTracefs,
    /// tracefs is mounted, but this user may not read it.
    #[error(
        "tracefs is closed to this user\n  run as root (sudo mmuscope record …); `mmuscope doctor` shows the alternatives"
    )]
    TracefsForbidden,
    /// The kernel has no kvm events.
    #[error("this kernel shows no kvm events\n  load KVM, as root: modprobe kvm_intel || modprobe kvm_amd")]
    NoEvents,
    /// A name matches no event.
    #[error(
        "no event is called {name:?}{like}\n  sets: mmu, faults, mmio, all; events: kvm_mmu_set_spte, kvm:kvm_*, -kvm_age_hva (leave out)"
    )]
    UnknownEvent {
        /// The name as given.
        name: String,
        /// Similar names, as the end of the sentence.
        like: String,
    },
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The output file could not be made or written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The kernel does not let this user record.
    #[error("{what}: {why}\n  {mend}")]
    Refused {
        /// What was tried.
        what: String,
        /// The kernel's answer, in words.
        why: String,
        /// What helps.
        mend: String,
    },
    /// An option has no meaning here; the text says why.
    #[error("{0}")]
    Usage(String),
    /// The command could not be started.
    #[error("cannot run {command}: {source}")]
    Command {
        /// The name of the command.
        command: String,
        /// The system's error.
        source: io::Error,
    },
    /// Any other system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}
