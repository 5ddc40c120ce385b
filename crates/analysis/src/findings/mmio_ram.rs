//! The rule `ram-to-mmio`: a frame that was memory is MMIO now.

use super::moment::At;
use super::words::ranges;
use super::{Finding, Rule, Seen, Severity, Sure, counted};
use mmuscope_trace::Body;
use std::collections::BTreeMap;

/// Most frames that are followed.
const MOST: usize = 1 << 16;

pub(super) static RULE: Rule = Rule {
    id: "ram-to-mmio",
    severity: Severity::Warning,
    seen: "`mark_mmio_spte` names a frame of which an earlier event shows that it was present in the same VM",
    why: "the memory slot behind the frame was deleted, moved or made smaller, and the guest still uses the frame: its accesses are emulated, reads \
          get what the VMM answers, and writes are lost unless the VMM does something about them",
    remedy: "look at the VMM's memory-slot ioctls just before the first event. Firmware that remaps ROMs, and guests that move a device's BAR, do \
             this on purpose",
    refuted: "the frame lies in a device's window by now, and the guest means the device",
    find,
};

/// First `mark_mmio_spte` of each frame.
#[derive(Debug, Default)]
pub(super) struct Ram {
    marked: BTreeMap<(u16, u64), (u64, u32)>,
}

impl Ram {
    pub(super) fn event(&mut self, at: &At<'_>, body: &Body) {
        if let Body::MarkMmioSpte { gfn, .. } = *body
            && self.marked.len() < MOST
        {
            self.marked.entry((at.vm, gfn)).or_insert((at.ts, at.event));
        }
    }
}

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let mut by_vm: BTreeMap<u16, Vec<(u64, u64, u32)>> = BTreeMap::new();
    for ((vm, gfn), (ts, event)) in &seen.noted.ram.marked {
        if seen.was_present(*vm, *gfn, *event) {
            by_vm.entry(*vm).or_default().push((*gfn, *ts, *event));
        }
    }
    by_vm.into_iter().map(|(vm, frames)| one(vm, &frames)).collect()
}

fn one(vm: u16, frames: &[(u64, u64, u32)]) -> Finding {
    let title = format!(
        "{} were memory, and are MMIO since: gfn {}",
        counted(frames.len() as u64, "frame"),
        ranges(frames.iter().map(|f| f.0))
    );
    let mut out = Finding::new(&RULE, title);
    let mut events: Vec<(u64, u32)> = frames.iter().map(|(_, ts, event)| (*ts, *event)).collect();
    events.sort_unstable();
    out.see_all(events);
    (out.vm, out.gfn, out.sure) = (Some(vm), (frames.len() == 1).then_some(frames[0].0), Sure::Likely);
    out
}
