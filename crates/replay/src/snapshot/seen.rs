//! What the last events showed, for tables that may be in the middle of being read: [`Meanwhile`]. The engine's step notes each event here, and
//! [`super::meanwhile`] applies it to a table that was read.

use std::collections::VecDeque;

use mmuscope_trace::{Body, FastPfResult};

/// How long a table may take to be read, in nanoseconds: some microseconds on hardware, milliseconds in an emulator.
const READING: u64 = 1_000_000_000;
/// How many events are kept for that long.
const MOST: usize = 4096;

/// Events that a table may be behind of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meanwhile {
    seen: VecDeque<(u64, Seen)>,
}

/// What one event showed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    /// `fast_page_fault` stored a value into the entry at a virtual address.
    Fixed { sptep: u64, gfn: u64, old: u64, new: u64 },
    /// A probe showed that the entry at a virtual address is set to a value, or emptied.
    Set { sptep: u64, new: Option<u64> },
    /// `kvm_mmu_prepare_zap_page` of a page of this level for this frame.
    Zapped { level: u8, gfn: u64, direct: bool },
}

impl Meanwhile {
    /// Keeps what an event shows of entries or pages that may be in a table that is being read.
    #[inline]
    pub(crate) fn note(&mut self, ts: u64, body: &Body) {
        let seen = match *body {
            Body::FastPageFault {
                cr2_or_gpa,
                sptep: Some(sptep),
                old_spte: old,
                new_spte: new,
                result: FastPfResult::Fixed,
                ..
            } => Seen::Fixed { sptep, gfn: cr2_or_gpa >> 12, old, new },
            Body::ProbeSpteUpdate { sptep, new_spte, .. } => Seen::Set { sptep, new: Some(new_spte) },
            Body::ProbeSpteClear { sptep, .. } => Seen::Set { sptep, new: None },
            Body::PrepareZapPage { ref page } => {
                let Some(gfn) = page.gfn else { return };
                Seen::Zapped { level: page.role.level, gfn, direct: page.role.direct }
            }
            _ => return,
        };
        if self.seen.len() == MOST {
            self.seen.pop_front();
        }
        self.seen.push_back((ts, seen));
    }

    /// What was seen from a moment on.
    pub(super) fn since(&mut self, from: u64) -> Vec<Seen> {
        let old = from.saturating_sub(READING);
        while self.seen.front().is_some_and(|(ts, _)| *ts < old) {
            self.seen.pop_front();
        }
        self.seen.iter().filter(|(ts, _)| *ts >= from).map(|(_, seen)| *seen).collect()
    }
}
