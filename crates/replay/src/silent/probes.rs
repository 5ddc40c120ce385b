//! Kprobes on what the silent MMUs do without an event: [`Engine::probe_update`] and [`Engine::probe_clear`] are called for the functions of KVM
//! through which every leaf of a shadow or legacy MMU changes ([`mmuscope_trace::Body::ProbeSpteUpdate`]). Where they are recorded,
//! (`Engine::probed` of `shown`), an entry is what its last event says until the next one, and the rules about what may happen in silence do not apply to it
//! (`Engine::shows_in_probes`). Nothing here makes a table: an entry is known by the event that installed it, or by a snapshot.
//!
//! The probes do not show MMIO entries that go, what `change_pte` puts into an entry, nor links to tables; those stay under the rules.

use mmuscope_spte::State as SpteState;

use crate::engine::Engine;
use crate::keys::EntryIx;
use crate::model::{Certainty, Reason, Shade};
use crate::moment::At;

impl Engine {
    /// An entry is set to a value. The one that installs it is followed by `kvm_mmu_set_spte`, which also names the frame.
    pub(crate) fn probe_update(&mut self, at: At, sptep: u64, new: u64) {
        self.silent.set_by_probe = Some((self.threads[at.th].tid, sptep, new));
        let Some(entry) = self.probed_entry(at, sptep) else { return };
        let place = self.store.place(entry);
        let (vm, level) = (self.store.tables[place.table].vm, place.level);
        let shade = self.shade(new, level);
        self.set_to(entry, at.ev, new, shade, (Certainty::Exact, Reason::Stated));
        if self.layout.state(new, level) == SpteState::Present {
            let known = self.known(entry);
            self.silent.fresh.entry(vm).or_default().insert(known);
        }
    }

    /// An entry is emptied.
    pub(crate) fn probe_clear(&mut self, at: At, sptep: u64) {
        let Some(entry) = self.probed_entry(at, sptep) else { return };
        if self
            .store
            .now(entry)
            .is_some_and(|(_, m)| m.shade == Shade::Nonpresent && m.certainty == Certainty::Exact)
        {
            return;
        }
        if self.silent.exchanging.contains(&self.threads[at.th].tid) {
            // `change_pte` empties the entry and then sets the new page, which no event shows.
            self.forget(entry);
            self.store.push(entry, at.ev, None, Shade::Unknown, Certainty::Stale, Reason::Notifier);
            return;
        }
        self.forget(entry);
        let zapped = self.layout.zapped;
        self.store.push(entry, at.ev, Some(zapped), Shade::Nonpresent, Certainty::Exact, Reason::Stated);
        self.holds_no_mapping(at, entry);
    }

    /// The entry at a virtual address, in a table that still is one. Before the first install shows where the physical address lies, each entry that
    /// may be meant is known no longer: a snapshot shows entries before that.
    fn probed_entry(&mut self, at: At, sptep: u64) -> Option<EntryIx> {
        let Some(distance) = self.virt_minus_phys else {
            for (_, e) in self.silent.may_lie_at(sptep) {
                self.stale_now(e, at.ev, Reason::Ambiguous);
            }
            return None;
        };
        let phys = sptep.wrapping_sub(distance) & !7;
        let entry = self.silent.slots.get(&phys).copied()?;
        self.store.tables[self.store.place(entry).table].attached().then_some(entry)
    }

    /// `kvm_mmu_set_spte` names by its physical address the entry that the same thread just set by its virtual one: they differ by one constant.
    pub(super) fn learn_virt_from_probe(&mut self, at: At, sptep: u64, spte: u64) {
        let set = self.silent.set_by_probe.take();
        if self.virt_minus_phys.is_none()
            && let Some((tid, virt, new)) = set
            && tid == self.threads[at.th].tid
            && new == spte
        {
            self.learn_distance(virt, sptep);
        }
    }
}
