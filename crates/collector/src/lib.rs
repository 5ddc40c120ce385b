//! A live KVM host to a capture.
//!
//! [`record()`] opens the chosen tracepoints with `perf_event_open` into one ring per CPU of its own, drains them, and writes a perf.data
//! stream that also carries the host facts a decoder needs. [`doctor`] says whether that works here and, if not, how to mend it.
//! Nothing here touches the kernel's global trace buffer or anybody else's tracing; all events vanish with this process.

mod attr;
mod btf;
mod capture;
pub mod doctor;
mod feed;
mod filter;
pub mod host;
mod kernelvars;
mod options;
mod preamble;
mod rates;
pub mod record;
pub mod ring;
mod scrub;
mod sys;
pub mod tracefs;
pub mod trigger;
mod untraced;
pub mod vms;

pub use options::{Output, RecordOptions, Scope, parse_duration, parse_size};
pub use record::{Ended, Summary, record};

use std::io;
use std::path::PathBuf;

/// Why recording did not work. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// tracefs is not mounted.
    #[error("tracefs is not mounted\n  to mend it, as root: mount -t tracefs nodev /sys/kernel/tracing")]
    NoTracefs,
    /// tracefs is there but closed to this user.
    #[error(
        "tracefs is closed to this user\n  run as root (sudo mmuscope record …); `mmuscope doctor` shows the alternatives"
    )]
    TracefsForbidden,
    /// The kernel has no kvm events.
    #[error("this kernel shows no kvm events\n  load KVM, as root: modprobe kvm_intel || modprobe kvm_amd")]
    NoEvents,
    /// A name that matches no event.
    #[error(
        "no event is called {name:?}{like}\n  sets: mmu, faults, mmio, all; events: kvm_mmu_set_spte, kvm:kvm_*, -kvm_age_hva (leave out)"
    )]
    UnknownEvent {
        /// As given.
        name: String,
        /// Near misses, as the end of the sentence.
        like: String,
    },
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The output could not be made or written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
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
    /// An option that makes no sense here.
    #[error("{0}")]
    Usage(String),
    /// The command could not be started.
    #[error("cannot run {command}: {source}")]
    Command {
        /// Its name.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// Some other system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}
