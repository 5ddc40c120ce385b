//! What a user can ask of a recording.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::trigger::Trigger;

/// Where the capture goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A file (for snapshots: the pattern of their names).
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// Whose events are recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    #[default]
    System,
    /// This process: its threads now and later.
    Pid(u32),
    /// A VM by its VMM's pid or name: the VMM's threads and the kernel threads that work for it.
    Vm(String),
    /// A cgroup, by path (absolute, or below the cgroup mount).
    Cgroup(PathBuf),
}

/// A recording.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// Where to.
    pub output: Output,
    /// Event sets and events, comma separated.
    pub events: String,
    /// Whose.
    pub scope: Scope,
    /// Recorded from start to end of this command.
    pub command: Vec<OsString>,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Stop when the capture has this many bytes.
    pub max_size: Option<u64>,
    /// Only these guest frames (first, last) in events that name one.
    pub gfn: Option<(u64, u64)>,
    /// In-kernel filters: event name and expression over its fields.
    pub filters: Vec<(String, String)>,
    /// Ring memory per CPU in bytes; `None` chooses.
    pub buffer: Option<u64>,
    /// zstd level; `None`: not compressed.
    pub compression: Option<i32>,
    /// The rings may be emptied at real-time priority, where the system allows it.
    pub realtime: bool,
    /// Memory maps of the VMMs.
    pub maps: bool,
    /// Leave out what identifies people, guests or the machine.
    pub anonymise: bool,
    /// Flight recorder: keep overwriting, save when told.
    pub flight: bool,
    /// When to save, besides SIGUSR1 and the end.
    pub trigger: Option<Trigger>,
    /// Keep recording this long after the trigger before saving.
    pub after: Duration,
    /// Stop after this many snapshots.
    pub snapshots: Option<u32>,
    /// No status line, no summary of a recording that lost nothing.
    pub quiet: bool,
    /// The command line, for the capture.
    pub argv: Vec<String>,
}

impl Default for RecordOptions {
    fn default() -> Self {
        Self {
            output: Output::File("mmuscope.perf.data".into()),
            events: "mmu".into(),
            scope: Scope::System,
            command: Vec::new(),
            duration: None,
            max_size: None,
            gfn: None,
            filters: Vec::new(),
            buffer: None,
            compression: Some(-1),
            realtime: true,
            maps: false,
            anonymise: false,
            flight: false,
            trigger: None,
            after: Duration::ZERO,
            snapshots: None,
            quiet: false,
            argv: Vec::new(),
        }
    }
}

/// A length of time as `mmuscope_units` reads it: `10`, `1.5s`, `200ms`, `5m`, `2h`; seconds where no unit is given.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    mmuscope_units::time(text).map(Duration::from_nanos).map_err(|e| e.to_string())
}

pub use mmuscope_units::size as parse_size;
