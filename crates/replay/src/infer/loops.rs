//! Faults and installs that come again and again without an effect: traits of known bugs.

use mmuscope_spte::bugs::Trait;
use mmuscope_trace::{Body, Event, FastPfResult};
use rustc_hash::FxHashMap;

/// The frame of the reset vector, which a guest executes first.
const RESET_VECTOR: u64 = 0xf_ffff;

/// A fault of one thread, as far as it went.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    frame: u64,
    code: u64,
    /// Something was done for it, or it was not a plain retry.
    served: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Loops {
    open: FxHashMap<u32, Open>,
    /// Like faults in a row after which the vCPU went on with nothing installed.
    row: FxHashMap<u32, (Open, u32)>,
    longest: u32,
    /// Faults in a row that the fast path found allowed already.
    spurious: FxHashMap<u32, (u64, u32)>,
    most_spurious: u32,
    /// Installs of the reset vector's frame, and of any other.
    reset: u32,
    others: u32,
}

impl Loops {
    pub(super) fn event(&mut self, e: &Event) {
        match e.body {
            Body::SetSpte { gfn: RESET_VECTOR, .. } => self.reset += 1,
            Body::SetSpte { .. } => self.others += 1,
            _ => {}
        }
        let Some(tid) = e.tid else { return };
        if let Body::FastPageFault { cr2_or_gpa, result, .. } = e.body {
            let row = self.spurious.entry(tid).or_default();
            *row = match *row {
                _ if result != FastPfResult::Spurious => (0, 0),
                (frame, n) if frame == cr2_or_gpa >> 12 => (frame, n + 1),
                _ => (cr2_or_gpa >> 12, 1),
            };
            self.most_spurious = self.most_spurious.max(row.1);
        }
        match e.body {
            Body::PageFault { address, error_code, .. } => {
                self.open.insert(tid, Open { frame: address >> 12, code: error_code, served: false });
            }
            Body::Entry { .. } => {
                let Some(open) = self.open.remove(&tid) else { return };
                let row = self.row.entry(tid).or_default();
                *row = match *row {
                    _ if open.served => (open, 0),
                    (last, n) if n > 0 && (last.frame, last.code) == (open.frame, open.code) => (open, n + 1),
                    _ => (open, 1),
                };
                self.longest = self.longest.max(row.1);
            }
            // What the exit path of a fault records without doing anything for it.
            Body::Exit { .. }
            | Body::FastPageFault { result: FastPfResult::Invalid, .. }
            | Body::PagetableWalk { .. }
            | Body::PagingElement { .. }
            | Body::Task { .. }
            | Body::Marker { .. } => {}
            _ => {
                if let Some(open) = self.open.get_mut(&tid) {
                    open.served = true;
                }
            }
        }
    }

    pub(super) fn traits(&self) -> Vec<Trait> {
        let mut seen = Vec::new();
        // The fetch of the first instruction: a guest that gets on maps other frames at once.
        if self.reset >= 3 && self.others == 0 {
            seen.push(Trait::StuckAtReset);
        }
        // Two retries in a row are common under an mmu_notifier; the text may show no more of a loop.
        if self.longest >= 2 && self.reset + self.others == 0 {
            seen.push(Trait::FaultLoop);
        }
        // Once is common: two vCPUs fault on one page. Three times in a row is a CPU that does not see the entry.
        if self.most_spurious >= 3 {
            seen.push(Trait::SpuriousLoop);
        }
        seen
    }
}
