//! The TDP MMU, where every change of an entry is an event and none names its table. [`Engine::tdp_changed`] is called for each
//! `kvm_tdp_mmu_spte_changed`: `find` says in which table the change was made, `apply` what it does to it, `teardown` what the end of a table takes
//! with it, `reread` what events add that read an entry again, `doubt` what may be said where the trace does not hold all that came before. Below
//! these are `fit` (how a value fits an entry), `before` (what an entry held before a change), `detach` and `tables` (tables that end and begin).
//! Entries of other MMUs are never changed here, save those that `adopt` takes over when a VM turns out to have the TDP MMU.

mod adopt;
mod apply;
mod before;
mod change;
mod detach;
mod doubt;
mod find;
mod fit;
mod reread;
mod tables;
mod teardown;
pub(crate) mod unattributed;
mod unseen;

use crate::engine::Engine;
use crate::keys::{index_of, key_of};
use crate::model::{EvidenceKind, MmuKind};
use crate::moment::At;
use crate::tdp::change::{Change, Fit, Found};

impl Engine {
    pub(crate) fn tdp_changed(&mut self, at: At, as_id: u8, level: u8, gfn: u64, old: u64, new: u64) {
        let thread = &mut self.threads[at.th];
        let idle = thread.tearing.is_empty();
        thread.tears_reached &= !idle;
        thread.announced.retain(|a| (a.0 + 1, a.1) != (level, gfn));
        self.change(at, as_id, level, gfn, old, new);
        let thread = &mut self.threads[at.th];
        if idle && !thread.tearing.is_empty() {
            thread.tears_reached = !self.layout.is_removed(new);
        }
        thread.did_more_than_zap |= self.layout.is_shadow_present(new);
    }

    pub(crate) fn change(&mut self, at: At, as_id: u8, level: u8, gfn: u64, old: u64, new: u64) {
        if !at.nobodys() {
            self.silent_no_more(at);
            self.adopt(at);
            self.mmu_kind(at.vm, MmuKind::Tdp);
            self.vms.as_id(at.vm, as_id);
        }
        let c = Change { at, key: key_of(as_id, level, gfn), idx: index_of(level, gfn), gfn, old, new };
        if gfn & ((1 << (9 * (u32::from(level) - 1))) - 1) != 0 {
            self.note(EvidenceKind::Misaligned, &c, None, (None, Some(new)));
        }
        // Traced after its entries (7.2 and later): with the link cut, the teardown is complete.
        let th = at.th;
        if let Some(&top) = self.threads[th].tearing.first()
            && self.threads[th].unlinking.iter().any(|u| u.0 == top)
        {
            let r = &self.store.tables[top];
            if r.level + 1 == level && r.page == self.pfn_bits(old) {
                self.torn.push(th);
            }
        }
        if self.was_read(at, c.key, gfn, old, new) {
            return;
        }
        let careful = self.vms.careful_at(at);
        if self.fill_gap(&c, careful) {
            if careful {
                self.end_cut_page(&c);
            }
            return;
        }
        let found = self.find_table(&c, careful).map(|f| {
            // What fits one VM alone proves itself; what was empty fits any.
            let proves = f.fit == Fit::Exact && self.layout.is_shadow_present(old);
            Found { sure: f.sure && (proves || !self.vms.guessed()), ..f }
        });
        // Of which VM a thread is may be unknown; of which the table is, is not.
        let of_table = |f: Found| At { vm: self.store.tables[f.table].vm, ..at };
        let within = Change { at: found.map_or(at, of_table), ..c };
        if careful {
            self.threads[th].cut = c.cut_page(&self.layout).map(|_| (level - 1, gfn));
            if found.is_none_or(|f| !f.sure)
                && self.same(old, new, level)
                && self.layout.is_shadow_present(old)
            {
                // Accessed and Dirty bits: whichever entry it was, nothing else of it changed.
                self.doubt_volatile(&c);
                match found {
                    Some(f) if f.fit == Fit::Exact => self.apply_volatile(&c, f.table),
                    Some(f) if f.fit == Fit::Unknown => self.apply(&within, f, careful),
                    _ => {}
                }
                return;
            }
            self.doubt_others(&c, found);
        }
        if let Some(found) = found {
            self.apply(&within, found, careful);
        }
        // Another VM's entry of this place may be the one.
        if self.vms.may_be_another(at.vm) && found.is_none_or(|f| !f.sure) {
            self.unattributed.insert(level, gfn);
        }
        if careful {
            self.end_cut_page(&within);
        }
    }
}
