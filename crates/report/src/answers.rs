//! What a [`Report`] says of itself: its time axis, its ids, its lists of phases.

use crate::model::{PhaseReport, Report};

impl Report {
    /// The first and the last time of the time axes.
    pub fn axis(&self) -> (u64, u64) {
        self.part.as_ref().map_or((0, self.recording.duration), |p| (p.start, p.end))
    }

    /// The length of the time axes.
    pub fn length(&self) -> u64 {
        let (start, end) = self.axis();
        end.saturating_sub(start)
    }

    /// The number of events that the numbers are of.
    pub fn event_count(&self) -> u64 {
        self.part.as_ref().map_or(self.recording.events, |p| p.events)
    }

    /// The id of an element.
    pub(crate) fn id(&self, name: impl std::fmt::Display) -> String {
        format!("{}{name}", self.anchor)
    }

    /// Phases in lists: one for each VM whose process marked some, and one for those that other processes marked. Each list comes with its
    /// heading, which is empty where there is only one VM.
    pub fn phase_lists(&self) -> Vec<(String, Vec<&PhaseReport>)> {
        let mut lists: Vec<(Option<u16>, Vec<&PhaseReport>)> = Vec::new();
        for p in &self.phases {
            // With one VM all phases are in one list.
            let of = p.vm.filter(|_| self.vms.len() > 1);
            match lists.iter_mut().find(|l| l.0 == of) {
                Some(l) => l.1.push(p),
                None => lists.push((of, vec![p])),
            }
        }
        lists.sort_by_key(|l| (l.0.is_none(), l.0));
        let name = |of: Option<u16>| match of {
            _ if self.vms.len() < 2 => String::new(),
            Some(n) => {
                self.vms.iter().find(|v| v.vm == n).map_or_else(|| format!("VM {n}"), |v| v.label(true))
            }
            None => "marked by no VM's process".to_owned(),
        };
        lists.into_iter().map(|(of, l)| (name(of), l)).collect()
    }
}
