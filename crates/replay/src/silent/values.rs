//! Values of entries as installs, probes and snapshots show them, and where entries lie: by their physical address, by their virtual one, or by
//! their frame alone. Nothing here doubts a value.

use crate::engine::Engine;
use crate::keys::{EntryIx, SpanIx};
use crate::model::{Certainty, Reason, Shade, State};
use crate::moment::At;

impl Engine {
    /// An entry is set to a value, which a probe may have stated already; gives the span that has it.
    pub(super) fn set_to(
        &mut self,
        entry: EntryIx,
        ev: u32,
        value: u64,
        shade: Shade,
        how: (Certainty, Reason),
    ) -> SpanIx {
        if let Some(last) = self.store.last_span(entry)
            && self.store.now(entry).is_some_and(|(v, m)| v == value && m.certainty == Certainty::Exact)
        {
            return last;
        }
        self.forget(entry);
        let remaps = self.remaps(entry, shade, Some(value));
        let span = self.store.push(entry, ev, Some(value), shade, how.0, how.1);
        if remaps {
            self.store.mark_remapped(span);
        }
        span
    }

    /// Whether what is installed is another mapping than the entry held when last seen: KVM replaces none by another, so that one was zapped.
    pub(super) fn remaps(&self, entry: EntryIx, shade: Shade, value: Option<u64>) -> bool {
        let Some((old, m)) = self.store.now(entry) else { return false };
        match (m.shade.state(), shade.state()) {
            (State::Present, State::Present) => {
                m.has_value && value.is_some_and(|v| self.pfn_bits(v) != self.pfn_bits(old))
            }
            (State::Present, State::Mmio) | (State::Mmio, State::Present) => true,
            _ => false,
        }
    }

    /// Virtual and physical addresses of entries differ by one constant (`page_offset_base`, aligned to a GiB), which the two addresses of one
    /// entry give. Returns whether these can be of one entry.
    pub(crate) fn learn_distance(&mut self, virt: u64, phys: u64) -> bool {
        let distance = virt.wrapping_sub(phys);
        let aligned = distance & 0x3fff_ffff == 0;
        if aligned && self.virt_minus_phys.is_none() {
            self.virt_minus_phys = Some(distance);
        }
        aligned
    }

    /// The MMIO entry of a frame, which `mark_mmio_spte` named by its frame alone, is the one whose place is known from here on.
    pub(super) fn place_is_known(&mut self, at: At, gfn: u64) {
        if let Some(e) = self.silent.mmio.remove(&(at.vm, gfn)) {
            self.forget(e);
            let (zapped, ev) = (self.layout.zapped, at.ev);
            self.store.push(e, ev, Some(zapped), Shade::Nonpresent, Certainty::Implied, Reason::Contradicted);
        }
    }

    /// Whether this thread made, or looked up, a shadow page of this level and has not filled it yet.
    pub(crate) fn makes_shadow_page(&self, at: At, level: u8) -> bool {
        let tid = self.threads[at.th].tid;
        let made = self.silent.made.get(&tid).into_iter().flatten();
        made.into_iter().map(|m| &m.key).any(|k| k.vm == at.vm && k.role.level == level && !k.role.direct)
    }
}
