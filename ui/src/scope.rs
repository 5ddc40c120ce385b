//! [`Scopes`]: the part of the trace that the tables are about: a stretch of time, guest frames, a vCPU. Each narrowing is a step that can be
//! gone back on, which `panels::crumbs` draws. The view of the map moves freely and does not change it.

use mmuscope_replay::VmId;
use mmuscope_trace::Event;

use crate::capture::Capture;
use crate::fmt;

/// Guest frames of one address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frames {
    /// VM.
    pub(crate) vm: VmId,
    /// Address space.
    pub(crate) as_id: u8,
    /// First frame.
    pub(crate) first: u64,
    /// Last frame.
    pub(crate) last: u64,
}

impl Frames {
    /// Whether frames (the first, and one past the last) have any of these.
    pub(crate) fn overlap(&self, first: u64, end: u64) -> bool {
        first <= self.last && self.first < end
    }
}

/// A part of the trace; what is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// First and last time, in nanoseconds since the first event.
    pub(crate) time: Option<(u64, u64)>,
    /// Guest frames.
    pub(crate) frames: Option<Frames>,
    /// Thread of a vCPU.
    pub(crate) tid: Option<u32>,
}

impl Scope {
    /// Whether nothing is left out.
    pub(crate) fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// First and last time on the trace's clock, where it is limited.
    pub(crate) fn times(&self, cap: &Capture) -> Option<(u64, u64)> {
        self.time.map(|(a, b)| (cap.start().saturating_add(a), cap.start().saturating_add(b)))
    }

    /// First and last frame, where frames of this address space are limited; no frame at all passes in another one.
    pub(crate) fn gfns(&self, vm: VmId, as_id: u8) -> Option<(u64, u64)> {
        self.frames.map(|f| if (f.vm, f.as_id) == (vm, as_id) { (f.first, f.last) } else { (1, 0) })
    }

    /// Whether a stretch of time on the trace's clock reaches into the scope.
    pub(crate) fn has_time(&self, cap: &Capture, from: u64, to: u64) -> bool {
        self.times(cap).is_none_or(|(a, b)| from <= b && a <= to)
    }

    /// Whether an event is in the frames and of the thread. Its time is not looked at.
    pub(crate) fn has_event(&self, cap: &Capture, e: &Event) -> bool {
        if self.tid.is_some_and(|t| e.tid != Some(t)) {
            return false;
        }
        let Some(f) = self.frames else { return true };
        let Some((first, end)) = e.body.covers() else { return false };
        if !f.overlap(first, end) {
            return false;
        }
        let owner = cap.whose().owner(e);
        owner.vm == Some(f.vm) && owner.as_id.is_none_or(|a| a == f.as_id)
    }

    /// What of it is limited beside what another one limits, in a few words.
    fn words(&self, cap: &Capture, before: &Scope) -> String {
        let mut out: Vec<String> = Vec::new();
        if let Some((a, b)) = self.time.filter(|_| self.time != before.time) {
            let step = (b.saturating_sub(a) as f64 / 50.0).max(1.0);
            out.push(format!("{} – {}", fmt::time_at(a as f64, step), fmt::time_at(b as f64, step)));
        }
        if let Some(f) = self.frames.filter(|_| self.frames != before.frames) {
            let range = mmuscope_units::gfn_range(f.first, f.last.saturating_add(1));
            out.push(if cap.spaces().len() > 1 { format!("VM {} {range}", f.vm.0) } else { range });
        }
        if let Some(tid) = self.tid.filter(|_| self.tid != before.tid) {
            out.push(thread_words(cap, tid));
        }
        if out.is_empty() { "the same".to_owned() } else { out.join(", ") }
    }
}

/// The name of a vCPU by its thread.
pub(crate) fn thread_words(cap: &Capture, tid: u32) -> String {
    let of = cap.timeline.vms().iter().find_map(|v| {
        let c = v.vcpus.iter().find(|c| c.tid == tid)?;
        Some((v.id.0, c.vcpu_id?))
    });
    match of {
        Some((vm, id)) if cap.timeline.vms().len() > 1 => format!("VM {vm} vCPU {id}"),
        Some((_, id)) => format!("vCPU {id}"),
        None => format!("thread {tid}"),
    }
}

/// The scope and the wider ones that it was narrowed from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scopes {
    steps: Vec<Scope>,
}

impl Scopes {
    /// The scope of the tables.
    pub(crate) fn now(&self) -> Scope {
        self.steps.last().copied().unwrap_or_default()
    }

    /// All steps, the widest first.
    pub(crate) fn steps(&self) -> &[Scope] {
        &self.steps
    }

    /// Number of steps from the whole trace.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Narrows the scope by what another limits: each limit of it replaces the one so far.
    pub(crate) fn narrow(&mut self, by: Scope) {
        let now = self.now();
        let next =
            Scope { time: by.time.or(now.time), frames: by.frames.or(now.frames), tid: by.tid.or(now.tid) };
        if next != now {
            self.steps.push(next);
        }
    }

    /// Goes back to the scope after so many steps.
    pub(crate) fn back_to(&mut self, steps: usize) {
        self.steps.truncate(steps);
    }

    /// Each step as words, the widest first.
    pub(crate) fn words(&self, cap: &Capture) -> Vec<String> {
        let before = std::iter::once(Scope::default()).chain(self.steps.iter().copied());
        self.steps.iter().zip(before).map(|(s, before)| s.words(cap, &before)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_keeps_what_it_does_not_limit_and_can_be_gone_back_on() {
        let mut s = Scopes::default();
        assert!(s.now().is_all());
        s.narrow(Scope { time: Some((10, 20)), ..Scope::default() });
        s.narrow(Scope { tid: Some(7), ..Scope::default() });
        s.narrow(Scope { tid: Some(7), ..Scope::default() });
        assert_eq!(s.len(), 2, "what limits nothing further is no step");
        assert_eq!(s.now(), Scope { time: Some((10, 20)), tid: Some(7), frames: None });
        s.narrow(Scope { time: Some((12, 15)), ..Scope::default() });
        assert_eq!(s.now().time, Some((12, 15)));
        s.back_to(1);
        assert_eq!(s.now(), Scope { time: Some((10, 20)), ..Scope::default() });
        s.back_to(0);
        assert!(s.now().is_all());
    }

    #[test]
    fn frames_of_another_address_space_do_not_pass() {
        let f = Frames { vm: VmId(1), as_id: 0, first: 0x100, last: 0x1ff };
        let s = Scope { frames: Some(f), ..Scope::default() };
        assert_eq!(s.gfns(VmId(1), 0), Some((0x100, 0x1ff)));
        let (first, last) = s.gfns(VmId(0), 0).expect("limited");
        assert!(first > last, "an empty range");
        assert!(
            f.overlap(0, 0x101)
                && f.overlap(0x1ff, 0x200)
                && !f.overlap(0x200, 0x300)
                && !f.overlap(0, 0x100)
        );
    }
}
