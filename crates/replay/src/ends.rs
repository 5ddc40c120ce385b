//! Where things end that no event says the end of: a fault ([`after`]) and a phase ([`phases`]). Rules without state; the engine asks the first
//! for each event of a thread, the timeline the second when it is sealed.

use mmuscope_spte::{Decoded, Layout, State, WriteLoss, write_loss};
use mmuscope_trace::{Body, StrId, Trace};

use crate::keys::key_of;
use crate::model::{Phase, VmId, pages_of};

/// What an event is to the fault that its thread was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// It may be part of it.
    No,
    /// It is not part of it, but may have come before the thread entered the guest again.
    Over,
    /// The thread had left KVM before.
    Left,
}

/// Whether an invalidated range of the host's memory may be that of one page of the host: what breaks copy-on-write, migrates or reclaims a
/// page invalidates. More is `fork`, `madvise`, `munmap` and their like.
pub(crate) fn is_one_page(start: u64, end: u64) -> bool {
    let size = end.saturating_sub(start);
    matches!(size, 0x1000 | 0x20_0000 | 0x4000_0000) && start.is_multiple_of(size)
}

/// Whether a leaf lost its Writable (or Dirty) bit as dirty logging takes it: so that the next write is seen, and may set it again.
pub(crate) fn is_logged(l: &Layout, level: u8, old: u64, new: u64) -> bool {
    if (l.state(old, level), l.state(new, level)) != (State::Present, State::Present) {
        return false;
    }
    let (a, b) = (l.decode(old, level), l.decode(new, level));
    let lost = |f: fn(&Decoded) -> Option<bool>| f(&a) == Some(true) && f(&b) == Some(false);
    let dirty_only = a.pfn == b.pfn && a.w == b.w && lost(|d| d.dirty) && !lost(|d| d.accessed);
    write_loss(&a, &b) == Some(WriteLoss::Logging) || dirty_only && b.access_tracked != Some(true)
}

/// What an event is to a fault on frame `fault` that its thread was in; `notifying`: the event before it invalidated a range of the
/// host's memory; `leaving_is_traced`: returns to user space are recorded.
pub(crate) fn after(
    l: &Layout,
    body: &Body,
    fault: Option<u64>,
    notifying: bool,
    leaving_is_traced: bool,
) -> Ends {
    match *body {
        Body::Marker { .. }
        | Body::ZapAllFast { .. }
        | Body::DirtyRingReset { .. }
        | Body::SetMemAttributes { .. } => Ends::Left,
        // A fault splits the huge page it hits; dirty logging splits them all.
        Body::SplitHugePage { gfn, level, .. } => match fault {
            Some(f) if f / pages_of(level) != gfn / pages_of(level) => Ends::Left,
            _ => Ends::No,
        },
        // On the way back into the guest a thread may do other work (NUMA balancing); had it left KVM, that would be recorded.
        Body::UnmapHvaRange { start, end } if !is_one_page(start, end) => {
            if leaving_is_traced {
                Ends::Over
            } else {
                Ends::Left
            }
        }
        Body::TdpSpteChanged { level, gfn, old_spte, new_spte, .. } => {
            let gone = l.state(old_spte, level) != State::Nonpresent
                && matches!(l.state(new_spte, level), State::Nonpresent | State::Removed);
            // In its own way a fault finds a huge page that it replaces by a table, or the other way round.
            let own = fault.is_none_or(|f| key_of(0, level, f) == key_of(0, level, gfn));
            if is_logged(l, level, old_spte, new_spte) {
                Ends::Left
            } else if gone && !notifying && !own {
                Ends::Over
            } else {
                Ends::No
            }
        }
        _ => Ends::No,
    }
}

/// What was written to `trace_marker`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MarkerNote {
    pub(crate) ev: u32,
    pub(crate) ts: u64,
    pub(crate) text: StrId,
    /// The VM that its writer is of.
    pub(crate) vm: Option<u16>,
}

/// The stretches between markers. Those of one VM's process follow each other, and so do those of all others.
pub(crate) fn phases(trace: &Trace, markers: &[MarkerNote], end: u64) -> Vec<Phase> {
    let mut next: Vec<(Option<u16>, u64)> = Vec::new();
    let mut out: Vec<Phase> = Vec::with_capacity(markers.len());
    for m in markers.iter().rev() {
        let until = if let Some(n) = next.iter_mut().find(|n| n.0 == m.vm) {
            std::mem::replace(&mut n.1, m.ts)
        } else {
            next.push((m.vm, m.ts));
            end
        };
        out.push(Phase {
            text: trace.strings.get(m.text).trim_end().to_owned(),
            start: m.ts,
            end: until,
            event: m.ev,
            vm: m.vm.map(VmId),
        });
    }
    out.reverse();
    out
}
