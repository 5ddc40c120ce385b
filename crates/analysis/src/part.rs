//! [`Part`]: the part of a trace that somebody asks for, a stretch of time of one VM's guest frames, and what belongs to it. `report` and `check`
//! narrow with it. What a command prints of all options is in its own words; here is what they mean.

use crate::events::EventFilter;
use crate::findings::Finding;
use mmuscope_replay::{Entry, Fault};
use mmuscope_trace::Trace;
use mmuscope_units::{gfn_range, moment};
use std::fmt::Write as _;

/// Part of a trace. What is `None` lets everything pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Earliest time, in nanoseconds on the trace's clock.
    pub from: Option<u64>,
    /// Latest time, included, in nanoseconds on the trace's clock.
    pub to: Option<u64>,
    /// Number of the VM.
    pub vm: Option<u16>,
    /// Guest frames: the first and one past the last.
    pub gfns: Option<(u64, u64)>,
}

impl Part {
    /// Whether it is all of the trace.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a time belongs to it.
    pub fn holds(&self, ts: u64) -> bool {
        self.from.is_none_or(|f| f <= ts) && self.to.is_none_or(|t| ts <= t)
    }

    /// Whether a VM belongs to it.
    pub fn holds_vm(&self, vm: u16) -> bool {
        self.vm.is_none_or(|v| v == vm)
    }

    /// Whether one of the frames from `start` up to before `end` belongs to it.
    pub fn holds_frames(&self, start: u64, end: u64) -> bool {
        self.gfns.is_none_or(|(a, b)| start < b && a < end)
    }

    /// Whether a guest frame belongs to it. Traces may name any number, also the largest.
    pub fn holds_frame(&self, gfn: u64) -> bool {
        self.gfns.is_none_or(|(a, b)| (a..b).contains(&gfn))
    }

    /// Whether a fault belongs to it, by when it begins. One whose frame no event names is of no frame.
    pub fn fault(&self, f: &Fault) -> bool {
        let frame = f.gfn.map_or(self.gfns.is_none(), |g| self.holds_frame(g));
        self.holds(f.ts) && self.holds_vm(f.vm.0) && frame
    }

    /// Whether an entry belongs to it.
    pub fn entry(&self, e: &Entry) -> bool {
        self.holds_vm(e.vm.0) && self.holds_frames(e.gfn, e.gfn.saturating_add(e.pages()))
    }

    /// The events that belong to it, as `mmuscope events` prints them.
    pub fn events(&self) -> EventFilter {
        EventFilter {
            from: self.from,
            to: self.to,
            vms: self.vm.into_iter().map(u32::from).collect(),
            gfns: self.gfns.into_iter().collect(),
            ..EventFilter::default()
        }
    }

    /// Whether a finding of the whole trace shows in it: it is of this VM or of none, and one of its events is of these frames and of this time.
    /// Of a finding with more events than are listed, the first and the last time stand for all of them, and the listed ones for the frames.
    pub fn finding(&self, trace: &Trace, f: &Finding) -> bool {
        if f.vm.is_some_and(|vm| !self.holds_vm(vm)) || f.gfn.is_some_and(|g| !self.holds_frame(g)) {
            return false;
        }
        let all = f.count <= f.events.len() as u64;
        let frames = self.gfns.filter(|_| f.gfn.is_none());
        let shows = |n: &u64| {
            let e = trace.events.get(usize::try_from(*n).unwrap_or(usize::MAX));
            let here = frames.is_none_or(|(a, b)| e.body.covers().is_some_and(|(c, d)| c < b && a < d));
            here && (!all || self.holds(e.ts))
        };
        let within = self.from.is_none_or(|t| t <= f.last) && self.to.is_none_or(|t| f.first <= t);
        within && (f.events.is_empty() && frames.is_none() || f.events.iter().any(shows))
    }

    /// In words, with times since `first`; nothing where it is all of the trace.
    pub fn words(&self, first: u64) -> String {
        let at = |t: u64| moment(t.saturating_sub(first));
        let mut parts = Vec::new();
        match (self.from, self.to) {
            (Some(a), Some(b)) => parts.push(format!("from {} to {}", at(a), at(b))),
            (Some(a), None) => parts.push(format!("from {} on", at(a))),
            (None, Some(b)) => parts.push(format!("up to {}", at(b))),
            (None, None) => {}
        }
        parts.extend(self.vm.map(|vm| format!("VM {vm}")));
        parts.extend(self.gfns.map(|(a, b)| format!("guest frames {}", gfn_range(a, b))));
        parts.join(", ")
    }

    /// As options of a command, with times since `first`: `--from 1200ns --vm 1 --gfn 0x100-0x1ff`.
    pub fn options(&self, first: u64) -> String {
        let at = |t: u64| t.saturating_sub(first);
        let mut out = String::new();
        // Writing to a string cannot fail.
        if let Some(t) = self.from {
            let _ = write!(out, " --from {}ns", at(t));
        }
        if let Some(t) = self.to {
            let _ = write!(out, " --to {}ns", at(t));
        }
        if let Some(vm) = self.vm {
            let _ = write!(out, " --vm {vm}");
        }
        if let Some((a, b)) = self.gfns {
            let _ = write!(out, " --gfn {a:#x}-{:#x}", b.saturating_sub(1));
        }
        out.trim_start().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::find;
    use mmuscope_replay::{ReplayOptions, replay};
    use mmuscope_testing::fixture;

    const PART: Part =
        Part { from: Some(2_000_000), to: Some(3_500_000), vm: Some(1), gfns: Some((0x10, 0x20)) };

    #[test]
    fn words_and_options_are_those_of_the_commands() {
        assert_eq!(PART.words(1_000_000), "from 0.001 s to 0.0025 s, VM 1, guest frames 0x10–0x1f");
        assert_eq!(PART.options(1_000_000), "--from 1000000ns --to 2500000ns --vm 1 --gfn 0x10-0x1f");
        assert_eq!(mmuscope_units::time("1000000ns"), Ok(1_000_000));
        assert_eq!(mmuscope_units::frames("0x10-0x1f", false), Ok((0x10, 0x20)));
        assert_eq!((Part::default().words(5), Part::default().options(5)), (String::new(), String::new()));
        assert!(Part::default().is_all());
    }

    #[test]
    fn both_ends_of_a_stretch_belong_to_it() {
        let times = [1_999_999, 2_000_000, 3_500_000, 3_500_001];
        assert_eq!(times.map(|t| PART.holds(t)), [false, true, true, false]);
        let frames = [(0xf, 0x10), (0xf, 0x11), (0, 0x200), (0x1f, 0x20), (0x20, 0x21)];
        assert_eq!(frames.map(|(a, b)| PART.holds_frames(a, b)), [false, true, true, true, false]);
        assert!(!PART.holds_frame(u64::MAX) && Part::default().holds_frame(u64::MAX));
    }

    #[test]
    fn a_finding_belongs_where_its_events_are() {
        // One thread faults on frame 5 again and again, with one error code, and nothing is installed.
        let mut text = "layout C/npt\n1 t1 root\n+1 t1 entry 0\n".to_owned();
        for _ in 0..20 {
            text.push_str("+9000 t1 exit\n+1 t1 fault 5 w\n+1 t1 entry 0\n");
        }
        let trace = fixture::trace(&text).expect("lines of the language");
        let t = replay(&trace, &ReplayOptions::default());
        let found = find(&trace, &t);
        let f = found.iter().find(|f| f.id == "fault-loop").expect("a loop of faults");
        let shows = |part: Part| part.finding(&trace, f);
        assert!(shows(Part::default()));
        let gfns = |a, b| Part { gfns: Some((a, b)), ..Part::default() };
        assert_eq!([shows(gfns(5, 6)), shows(gfns(6, 9))], [true, false]);
        let vm = |n| Part { vm: Some(n), ..Part::default() };
        assert_eq!([shows(vm(0)), shows(vm(1))], [true, false]);
        // Between two of its faults is none of them.
        let between =
            Part { from: Some(f.first + 1_000_000), to: Some(f.first + 2_000_000), ..Part::default() };
        let around = Part { to: Some(f.first + 10_000_000), ..between };
        assert_eq!([shows(between), shows(around)], [false, true]);
        assert!(!shows(Part { from: Some(f.last + 1), ..Part::default() }));
    }
}
