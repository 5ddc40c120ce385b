//! The options of a recording. The main type is [`RecordOptions`]; the command line fills it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::trigger::Trigger;

/// Where the capture is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A file (for snapshots, the pattern of their names).
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// The tasks whose events are recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All tasks of the host.
    #[default]
    System,
    /// This process: its threads now and later.
    Pid(u32),
    /// A VM by its VMM's pid or name: the VMM's threads and the kernel threads that work for it.
    Vm(String),
    /// A cgroup, by path (absolute, or below the cgroup mount).
    Cgroup(PathBuf),
}

/// Which probes a recording sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probes {
    /// Those that the MMUs of this host need.
    #[default]
    Auto,
    /// All that this kernel can have.
    On,
    /// None.
    Off,
}

/// A recording.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// Where the capture is written.
    pub output: Output,
    /// Names of event sets and events, separated by commas.
    pub events: String,
    /// The tasks whose events are recorded.
    pub scope: Scope,
    /// A command that is started with the recording and ends it; empty for none.
    pub command: Vec<OsString>,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Stop when the capture has this many bytes.
    pub max_size: Option<u64>,
    /// Record only these guest frames (first, last) in events that name one.
    pub gfn: Option<(u64, u64)>,
    /// Filters that the kernel applies: the name of an event, and an expression over its fields.
    pub filters: Vec<(String, String)>,
    /// The bytes of ring memory for each CPU; with `None` the recorder chooses.
    pub buffer: Option<u64>,
    /// The compression level of zstd; `None` for no compression.
    pub compression: Option<i32>,
    /// Whether the rings may be emptied at real-time priority, where the system allows it.
    pub realtime: bool,
    /// Whether to include the memory maps of the VMMs.
    pub maps: bool,
    /// Whether to leave out what identifies people, guests or the machine.
    pub anonymise: bool,
    /// Whether this is a flight recorder: the rings are overwritten, and saved on request.
    pub flight: bool,
    /// When the flight recorder saves, besides SIGUSR1 and the end.
    pub trigger: Option<Trigger>,
    /// How long recording continues after the trigger before it saves.
    pub after: Duration,
    /// Stop after this many snapshots.
    pub snapshots: Option<u32>,
    /// When KVM's tables are read from the kernel's memory.
    pub snapshot: When,
    /// Which kprobes are set for what the MMU does without an event.
    pub probes: Probes,
    /// After how many hits of probes in a second they are switched off; `None` for what the number of CPUs suggests.
    pub probe_limit: Option<u64>,
    /// Whether to print no status line, and no summary of a recording that lost nothing.
    pub quiet: bool,
    /// The command line, which is stored in the capture.
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
            snapshot: When::default(),
            probes: Probes::default(),
            probe_limit: None,
            quiet: false,
            argv: Vec::new(),
        }
    }
}

/// When snapshots are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// At the start of the recording.
    pub start: bool,
    /// At its end.
    pub end: bool,
    /// Again and again, after this time.
    pub every: Option<Duration>,
}

impl When {
    /// Never.
    pub const OFF: Self = Self { start: false, end: false, every: None };

    /// Parses `off`, or a list of `start`, `end` and `every TIME`. `Err` says what may be written.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut w = Self::OFF;
        if text.trim() == "off" {
            return Ok(w);
        }
        for part in text.split(',').map(str::trim) {
            match part {
                "start" => w.start = true,
                "end" => w.end = true,
                other => match other.strip_prefix("every").map(|t| crate::parse_duration(t.trim())) {
                    Some(Ok(t)) if t >= Duration::from_millis(100) => w.every = Some(t),
                    Some(Ok(_)) => return Err("snapshots are at least 100 ms apart".into()),
                    Some(Err(e)) => return Err(e),
                    None => {
                        return Err("write off, start, end, every 10s, or several of them: start,end".into());
                    }
                },
            }
        }
        Ok(w)
    }
}

impl Default for When {
    fn default() -> Self {
        Self { start: true, end: true, every: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_a_list() {
        let every = |t| When { every: Some(Duration::from_secs(t)), ..When::default() };
        assert_eq!(When::parse("off"), Ok(When::OFF));
        assert_eq!(When::parse("start,end"), Ok(When::default()));
        assert_eq!(When::parse("start, end, every 10s"), Ok(every(10)));
        for bad in ["", "begin", "every", "every 1ms", "start;end"] {
            assert!(When::parse(bad).is_err(), "{bad}");
        }
    }
}
