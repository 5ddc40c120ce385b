//! [`PartReport`]: the part of a trace that a report keeps to, where it was asked for one, and how every format says so.

use mmuscope_analysis::part::Part;
use serde::Serialize;

use crate::json;

/// The part of the trace that a report keeps to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PartReport {
    /// The part in words.
    pub text: String,
    /// The part as options of mmuscope's commands.
    pub options: String,
    /// Where it begins, in nanoseconds since the first event of the trace.
    pub start: u64,
    /// Where it ends, in nanoseconds since the first event of the trace.
    pub end: u64,
    /// Number of the VM; `null` where all are asked for.
    pub vm: Option<u16>,
    /// First of the guest frames; `null` where all are asked for.
    #[serde(serialize_with = "json::maybe_hex")]
    pub gfn_start: Option<u64>,
    /// One past the last of the guest frames; `null` where all are asked for.
    #[serde(serialize_with = "json::maybe_hex")]
    pub gfn_end: Option<u64>,
    /// Number of events in the part.
    pub events: u64,
    /// Whether a time was asked for.
    #[serde(skip)]
    pub timed: bool,
}

impl PartReport {
    /// `None` where the part is all of the trace. `first` is the time of the first event, `start` and `end` are those of the part.
    pub(crate) fn new(part: &Part, first: u64, (start, end): (u64, u64), events: u64) -> Option<Self> {
        (!part.is_all()).then(|| Self {
            text: part.words(first),
            options: part.options(first),
            start,
            end,
            vm: part.vm,
            gfn_start: part.gfns.map(|g| g.0),
            gfn_end: part.gfns.map(|g| g.1),
            events,
            timed: part.from.is_some() || part.to.is_some(),
        })
    }

    /// What the head of a report says of it.
    pub(crate) fn words(&self) -> String {
        let mut out = format!(
            "This is a part of the trace: {}. Numbers, figures and tables are of this part, and its end is the end of this part; times still count \
             from the first event of the trace. Findings are those of the whole trace that show here, with their whole counts, times and costs, \
             and the sentence beside a busy page is of its whole life.",
            self.text
        );
        if self.gfn_start.is_some() {
            out.push_str(
                " How much memory is present is known of a whole address space only, and exits are of no frame: they are left out.",
            );
        }
        out
    }

    /// The options with which a command gives the same part.
    pub(crate) fn options_of(&self, command: &str) -> String {
        let vm = self.vm.map(|vm| format!("--vm {vm}")).unwrap_or_default();
        match command.split(' ').next().unwrap_or_default() {
            "view" => self.options.replace("--gfn", "--frames"),
            "memory" if self.timed => format!("--at {}ns {vm}", self.end).trim_end().to_owned(),
            "memory" | "page" => vm,
            _ => self.options.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_gets_the_options_that_it_has() {
        let part = Part { from: Some(5_000), to: Some(9_000), vm: Some(1), gfns: Some((0x10, 0x20)) };
        let p = PartReport::new(&part, 1_000, (4_000, 8_000), 7).expect("a part");
        let of = |command| p.options_of(command);
        assert_eq!(of("faults"), "--from 4000ns --to 8000ns --vm 1 --gfn 0x10-0x1f");
        assert_eq!(of("view"), "--from 4000ns --to 8000ns --vm 1 --frames 0x10-0x1f");
        assert_eq!((of("memory"), of("page 10")), ("--at 8000ns --vm 1".into(), "--vm 1".into()));
        assert!(
            p.words().contains("from 0.000004 s to 0.000008 s, VM 1, guest frames 0x10–0x1f"),
            "{}",
            p.words()
        );
        assert!(PartReport::new(&Part::default(), 0, (0, 1), 7).is_none());
    }
}
