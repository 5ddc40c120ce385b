//! The result of a recording. The main type is [`Summary`]; `record` prints it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Why the recording ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The command ended, with this status in words.
    Command(String),
    /// The time given with `--duration` was over.
    Duration,
    /// The size given with `--max-size` was reached.
    Size,
    /// A signal of this name came.
    Signal(&'static str),
    /// The reader of standard output closed it.
    ReaderGone,
    /// Writing failed: the capture holds what was written before.
    WriteFailed(String),
    /// All snapshots that were asked for have been taken.
    Snapshots,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(s) => write!(f, "the command ended ({s})"),
            Self::Duration => f.write_str("the time was over"),
            Self::Size => f.write_str("the size was reached"),
            Self::Signal(s) => f.write_str(s),
            Self::ReaderGone => f.write_str("the reader went away"),
            Self::WriteFailed(e) => write!(f, "writing failed: {e}"),
            Self::Snapshots => f.write_str("all snapshots were taken"),
        }
    }
}

/// How often one event was recorded and lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventCount {
    /// The full name of the event: `kvmmmu:kvm_mmu_set_spte`.
    pub name: String,
    /// The number of records that reached the ring.
    pub recorded: u64,
    /// The number of records that did not.
    pub lost: u64,
}

/// The result of a recording.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Why it ended.
    pub ended: Ended,
    /// How long it took.
    pub time: Duration,
    /// The events that were recorded, with their counts.
    pub events: Vec<EventCount>,
    /// The number of lost events in total; `None` where the rings overwrite (flight recorder).
    pub lost: Option<u64>,
    /// The CPUs that lost events, with how many.
    pub lost_by_cpu: Vec<(u32, u64)>,
    /// The most events at the end that were recorded and did not reach the reader of standard output, because it did not take them.
    pub left_behind: u64,
    /// The number of bytes of records before compression.
    pub raw: u64,
    /// The number of bytes written.
    pub written: u64,
    /// The files written; empty for standard output.
    pub files: Vec<PathBuf>,
    /// The CPU time of the recorder itself.
    pub cpu: Duration,
    /// What the snapshots of KVM's tables hold, or why there are none, one sentence each.
    pub snapshots: Vec<String>,
    /// How many snapshots of KVM's tables the capture holds.
    pub taken: u32,
    /// Other remarks, one sentence each.
    pub notes: Vec<String>,
}

impl Summary {
    /// The number of events that reached the rings.
    pub fn recorded(&self) -> u64 {
        self.events.iter().map(|e| e.recorded).sum()
    }
}

pub(crate) use mmuscope_units::{bytes, count as grouped};

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.recorded();
        write!(f, "recorded {} events in {:.3} s", grouped(n), self.time.as_secs_f64())?;
        let mut top: Vec<&EventCount> = self.events.iter().filter(|e| e.recorded > 0).collect();
        top.sort_by_key(|e| std::cmp::Reverse(e.recorded));
        if !top.is_empty() {
            let short = |e: &&EventCount| {
                format!("{} {}", e.name.split_once(':').map_or(e.name.as_str(), |n| n.1), grouped(e.recorded))
            };
            let named: Vec<String> = top.iter().take(4).map(short).collect();
            write!(f, ": {}", named.join(", "))?;
            if top.len() > 4 {
                write!(f, ", {} more kinds", top.len() - 4)?;
            }
        }
        writeln!(f)?;
        match self.lost {
            Some(0) if self.left_behind > 0 => {}
            Some(0) => writeln!(f, "lost: nothing")?,
            Some(lost) => {
                let share = lost as f64 * 100.0 / (lost + n).max(1) as f64;
                writeln!(f, "LOST: {} events ({share:.2} % of all)", grouped(lost))?;
                let cpus: Vec<String> =
                    self.lost_by_cpu.iter().map(|(c, n)| format!("CPU {c}: {}", grouped(*n))).collect();
                writeln!(f, "  where: {}", cpus.join(", "))?;
                let mut by: Vec<&EventCount> = self.events.iter().filter(|e| e.lost > 0).collect();
                by.sort_by_key(|e| std::cmp::Reverse(e.lost));
                let by: Vec<String> = by.iter().map(|e| format!("{} {}", e.name, grouped(e.lost))).collect();
                writeln!(f, "  what: {}", by.join(", "))?;
                writeln!(
                    f,
                    "  to lose less: bigger rings (--buffer), fewer events (--events, --gfn, --filter), a faster disk"
                )?;
            }
            None => writeln!(f, "lost: not known (the flight recorder keeps only the newest events)")?,
        }
        if self.left_behind > 0 {
            writeln!(
                f,
                "NOT DELIVERED: up to {} of the last events: the reader of standard output did not take them in time",
                grouped(self.left_behind)
            )?;
        }
        let to = match self.files.as_slice() {
            [] => "standard output".to_owned(),
            files => files.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "),
        };
        write!(f, "{to}: {}", bytes(self.written))?;
        if n > 0 && self.lost.is_some() {
            write!(
                f,
                " ({:.1} bytes an event, {:.1} before compression)",
                self.written as f64 / n as f64,
                self.raw as f64 / n as f64
            )?;
        }
        writeln!(f)?;
        write!(f, "recorder: {:.3} s of CPU time", self.cpu.as_secs_f64())?;
        if n > 0 && self.lost.is_some() {
            write!(f, ", {:.0} ns an event", self.cpu.as_nanos() as f64 / n as f64)?;
        }
        writeln!(f, "; ended because {}", self.ended)?;
        for s in &self.snapshots {
            writeln!(f, "{s}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(lost: Option<u64>) -> Summary {
        Summary {
            ended: Ended::Duration,
            time: Duration::from_millis(1500),
            events: vec![
                EventCount {
                    name: "kvmmmu:kvm_mmu_set_spte".into(),
                    recorded: 1_234_567,
                    lost: lost.unwrap_or(0),
                },
                EventCount { name: "kvm:kvm_entry".into(), recorded: 0, lost: 0 },
            ],
            lost,
            lost_by_cpu: vec![(3, lost.unwrap_or(0))],
            left_behind: 0,
            raw: 100,
            written: 50,
            files: vec!["x".into()],
            cpu: Duration::from_millis(10),
            snapshots: Vec::new(),
            taken: 0,
            notes: Vec::new(),
        }
    }

    #[test]
    fn it_always_says_what_was_lost() {
        assert!(summary(Some(0)).to_string().contains("\nlost: nothing\n"));
        let s = summary(Some(1000)).to_string();
        assert!(s.contains("LOST: 1,000 events (0.08 % of all)"), "{s}");
        assert!(s.contains("CPU 3: 1,000") && s.contains("what: kvmmmu:kvm_mmu_set_spte 1,000"), "{s}");
        assert!(summary(None).to_string().contains("lost: not known"));
        let s = Summary { left_behind: 1234, ..summary(Some(0)) }.to_string();
        assert!(s.contains("NOT DELIVERED: up to 1,234 of the last events"), "{s}");
    }
}
