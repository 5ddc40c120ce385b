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

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// `10`, `1.5s`, `200ms`, `5m`, `2h`: seconds where no unit is given.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text.trim());
    let n: f64 = number.parse().map_err(|_| format!("{text:?} is not a time: write 10s, 200ms, 5m or 2h"))?;
    let scale = match unit {
        "" | "s" => 1.0,
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{unit:?} is no unit of time: write ns, us, ms, s, m or h")),
    };
    Duration::try_from_secs_f64(n * scale).map_err(|e| format!("{text:?}: {e}"))
}

/// `65536`, `64k`, `8M`, `2GiB`: powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text.trim());
    let n: f64 = number.parse().map_err(|_| format!("{text:?} is not a size: write 64k, 8M or 2G"))?;
    let shift = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("{unit:?} is no unit of size: write k, M or G")),
    };
    Ok((n * (1u64 << shift) as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_duration("1.5 m"), Ok(Duration::from_secs(90)));
        assert!(parse_duration("ten").is_err());
        assert!(parse_duration("10 parsecs").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("64k"), Ok(65536));
        assert_eq!(parse_size("8M"), Ok(8 << 20));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("123"), Ok(123));
        assert!(parse_size("M").is_err());
    }
}
