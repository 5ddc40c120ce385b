//! What a story says of a page as a whole: its headline, and the notes below it.

use mmuscope_units::{duration, level_size};

use super::naming::{self, Naming};
use super::{Held, Tally};
use crate::keys::EntryIx;
use crate::model::{Certainty, EntryId, MemSlot, Shade, SlotAt, SlotKnown, Snapshot, State, VmId};
use crate::timeline::Timeline;

impl Timeline {
    pub(super) fn headline(
        &self,
        vm: VmId,
        as_id: u8,
        gfn: u64,
        faults: usize,
        tally: &Tally,
        silent: bool,
    ) -> String {
        if silent && self.is_picture() {
            return format!("gfn {gfn:#x}: {}", self.unmapped(vm, as_id, gfn));
        }
        if silent {
            return format!("gfn {gfn:#x}: never seen");
        }
        let end = self.range().1;
        let now = self
            .entries_at(vm, as_id, gfn)
            .into_iter()
            .filter_map(|id| self.span_at(id, end).map(|s| (self.entry(id), s)))
            .filter(|(_, s)| matches!(s.state, State::Present | State::Mmio | State::Removed))
            .max_by_key(|(e, s)| (s.state != State::Removed, s.start, std::cmp::Reverse(e.level)));
        let mut parts = vec![format!("{faults} fault{}", plural(faults as u64))];
        for (n, what) in [
            (tally.mapped, "mapped"),
            (tally.mmio, "MMIO entry installed"),
            (tally.protected, "write-protected"),
            (tally.again, "made writable again"),
        ] {
            if n > 0 {
                parts.push(format!("{what} {}", times(n)));
            }
        }
        let levels: Vec<(usize, u64)> =
            tally.zapped.iter().copied().enumerate().filter(|(_, n)| *n > 0).collect();
        if !levels.is_empty() {
            let mut text = format!("zapped {}", times(levels.iter().map(|(_, n)| n).sum()));
            if levels.len() > 1 {
                let each: Vec<String> =
                    levels.iter().map(|(l, n)| format!("{} {}", level_size(*l as u8), times(*n))).collect();
                text.push_str(&format!(" (as {})", each.join(", as ")));
            }
            if tally.remapped > 0 {
                text.push_str(&format!(
                    ", remapped {} to another host page: copy-on-write or the zero page",
                    times(tally.remapped)
                ));
            }
            parts.push(text);
        }
        let torn_down = self.vms().iter().any(|v| v.id == vm && v.ended.is_some());
        // What is frozen in a table of a VM that is gone is gone with it.
        let end = match now.filter(|(_, s)| !torn_down || s.state != State::Removed) {
            Some((e, s)) => {
                let of = if e.level > 1 && s.state == State::Present {
                    format!(" as part of a {} page", level_size(e.level))
                } else {
                    String::new()
                };
                format!("{}{of} ({})", s.shade.name(), s.certainty.name())
            }
            None if torn_down => "not mapped: the VM was torn down".to_owned(),
            None => self.unmapped(vm, as_id, gfn).to_owned(),
        };
        format!("gfn {gfn:#x}: {}; at the end {end}", parts.join(", "))
    }

    /// What is known at the end of a page that nothing is known to map: that takes an event that says so, of its entry, or of the table that
    /// this was in.
    fn unmapped(&self, vm: VmId, as_id: u8, gfn: u64) -> &'static str {
        let end = self.range().1;
        let empty = |id: EntryId| {
            // Shadow pages beside it may map the same frame, each for itself.
            let table = &self.store().tables[self.store().table_of(id.into())];
            if table.silent || !table.direct {
                return false;
            }
            let ended = self.spans(id).last();
            let at_end = self.span_at(id, end);
            if let Some(s) = at_end {
                return s.state == State::Nonpresent && s.certainty != Certainty::Stale;
            }
            // It went with its table. Where the link to that was cut before the trace, what replaced it is not known.
            let linked = table.parent != EntryIx::NONE;
            linked && ended.is_some_and(|s| s.state != State::Unknown && s.end.is_some())
        };
        // All tables of that moment were read, and none of them maps it.
        let whole = |s: &Snapshot| s.incomplete == 0 && s.notes.is_empty();
        let picture = self.is_picture() && self.snapshots().iter().all(whole);
        let known = picture || self.complete(vm) || self.entries_at(vm, as_id, gfn).into_iter().any(empty);
        if known {
            "not mapped"
        } else if self.is_picture() {
            "not known: no table that was read shows it"
        } else {
            "not known: no event shows it"
        }
    }

    pub(super) fn notes(
        &self,
        vm: VmId,
        as_id: u8,
        gfn: u64,
        tally: &Tally,
        naming: &[Naming],
    ) -> Vec<String> {
        let (origin, end) = self.range();
        let total = end.saturating_sub(origin).max(1);
        let mut notes = Vec::new();
        let (held, twice) = by_moment(&tally.held);
        for s in [Shade::Writable, Shade::ReadOnly, Shade::AccessTracked, Shade::Mmio, Shade::Removed] {
            let t = held[s as usize];
            if t > 0 && !self.is_picture() {
                let share = t as f64 * 100.0 / total as f64;
                notes.push(format!("{}: {} in all, {share:.1} % of the trace", s.name(), duration(t)));
            }
        }
        if twice > 0 && !self.is_picture() {
            notes.push(format!(
                "several page tables map this frame at once, for {} in all: such a moment is counted once, by what was set last",
                duration(twice)
            ));
        }
        for r in self.mmio_ranges().iter().filter(|r| r.vm == vm && r.gfn_start <= gfn && gfn < r.gfn_end) {
            let accesses = r.accesses.map_or("accesses not recorded".to_owned(), |n| format!("{n} accesses"));
            notes.push(format!(
                "part of the MMIO range {:#x}..{:#x}: {accesses}, {} MMIO faults, {} MMIO entries installed",
                r.gfn_start, r.gfn_end, r.faults, r.installs
            ));
        }
        notes.extend(self.slot_notes(vm, as_id, gfn));
        if tally.untraced {
            notes.push(
                "this MMU does not trace zaps, write-protection and aging: after each line the entry is unverified until the next"
                    .to_owned(),
            );
        }
        if tally.maybe {
            notes.push(
                "this MMU does not trace write-protection: that a writable entry still is writable is assumed once its thread went on"
                    .to_owned(),
            );
        }
        if let Some(end) = self.vms().iter().find(|v| v.id == vm).and_then(|v| v.ended.as_ref()) {
            notes.push(format!(
                "the VM was torn down {} after the first event, by {}",
                duration(end.start.saturating_sub(origin)),
                end.by()
            ));
        }
        notes.push(match naming {
            [] if self.is_picture() => "a snapshot: one moment, and no events".to_owned(),
            [] => "no event names this page".to_owned(),
            [_] => format!("one event names this page, or what it is in: {}", naming::count(naming)),
            n => format!("{} events name this page, or what it is in: {}", n.len(), naming::count(n)),
        });
        notes
    }
}

impl Timeline {
    /// The memory slots that a frame was in, or that it was in none.
    fn slot_notes(&self, vm: VmId, as_id: u8, gfn: u64) -> Vec<String> {
        const MOST: usize = 4;
        let (origin, end) = self.range();
        let after = |ts: u64| duration(ts.saturating_sub(origin));
        let of = |s: &&MemSlot| s.vm == vm && s.as_id == as_id && s.gfn <= gfn && gfn < s.end_gfn();
        let mut slots = self.slots().iter().filter(of);
        let mut notes: Vec<String> = slots
            .by_ref()
            .take(MOST)
            .map(|s| {
                let host = s.hva.map(|h| h.wrapping_add((gfn - s.gfn) << 12));
                let host = host.map_or_else(String::new, |h| format!(", host address {h:#x}"));
                let asked = if s.known == SlotKnown::Requested { " (as the VMM asked for it)" } else { "" };
                let until = s.end.map_or_else(String::new, |e| format!(", until {}", after(e)));
                let from =
                    if s.start > origin { format!("; from {}", after(s.start)) } else { String::new() };
                let flags = [(s.dirty_logging(), ", writes are logged"), (s.read_only(), ", read-only")];
                let flags: String = flags.iter().filter(|f| f.0).map(|f| f.1).collect();
                let (id, first, last) = (s.id, s.gfn, s.end_gfn() - 1);
                format!(
                    "in memory slot {id}, frames {first:#x} to {last:#x}{host}{flags}{asked}{from}{until}"
                )
            })
            .collect();
        let more = slots.count();
        if more > 0 {
            notes.push(format!("in {more} more memory slots, one after the other"));
        }
        if self.slot_at(vm, as_id, gfn, end) == SlotAt::Outside {
            notes.push(
                "in no memory slot at the end of the trace: what the guest does there is MMIO, handled by KVM or the VMM".to_owned(),
            );
        }
        notes
    }
}

/// How long each shade was held, every moment counted once: by what is not in doubt, and of that by what was set last. And for how long
/// several tables held something.
fn by_moment(held: &[Held]) -> ([u64; 8], u64) {
    let lasting = held.iter().enumerate().filter(|(_, h)| h.start < h.end);
    let mut edges: Vec<(u64, bool, usize)> =
        lasting.flat_map(|(i, h)| [(h.start, true, i), (h.end, false, i)]).collect();
    edges.sort_unstable();
    let mut on: Vec<usize> = Vec::new();
    let (mut sums, mut twice, mut at) = ([0; 8], 0, 0);
    for (t, begins, i) in edges {
        if let Some(best) = on.iter().map(|i| &held[*i]).max_by_key(|h| (!h.stale, h.start)) {
            sums[best.shade as usize] += t - at;
            let other = |i: &usize| held[*i].table != best.table && !held[*i].stale;
            if !best.stale && on.iter().any(other) {
                twice += t - at;
            }
        }
        at = t;
        if begins {
            on.push(i);
        } else {
            on.retain(|x| *x != i);
        }
    }
    (sums, twice)
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}

fn times(n: u64) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}
