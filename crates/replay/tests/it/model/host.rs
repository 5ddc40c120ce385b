//! What the host does to the tables: its mmu_notifiers, the VMM's ioctls, the zapping of trees.

use mmuscope_spte::{Mode, Resize, State as Is, Unlink, ZapAll};
use mmuscope_trace::Body;

use super::kernel::{Kernel, base};
use super::ops::{frame, huge};

impl Kernel {
    /// Leaves below a table: page, level, frame.
    pub(crate) fn leaves(&self, page: u64, level: u8, gfn: u64, out: &mut Vec<(u64, u8, u64)>) {
        for (i, e) in self.mem[&page].iter().enumerate() {
            let at = gfn + ((i as u64) << (9 * (u32::from(level) - 1)));
            match self.l.state(*e, level) {
                Is::Table => self.leaves(self.child(*e), level - 1, at, out),
                Is::Present | Is::Mmio => out.push((page, level, at)),
                _ => {}
            }
        }
    }

    /// Present leaves of a range, with their values, in the valid trees or in all.
    fn each(&self, vm: usize, valid: bool, lo: u64, hi: u64) -> Vec<(u64, u8, u64, u64)> {
        let mut all = Vec::new();
        for r in self.vms[vm].roots.iter().filter(|r| r.valid || !valid) {
            self.leaves(r.page, 4, 0, &mut all);
        }
        all.into_iter()
            .map(|(p, l, g)| (p, l, g, self.at(p, l, g)))
            .filter(|(_, l, g, e)| {
                self.l.state(*e, *l) == Is::Present && *g < hi && lo < *g + (1 << (9 * (u32::from(*l) - 1)))
            })
            .collect()
    }

    fn done(&mut self, vm: usize) {
        self.emit(Self::main(vm), Body::UserspaceExit { reason: 1, errno: 0 });
    }

    /// The mmu_notifier: a range is gone from the host's tables.
    pub(crate) fn invalidate(&mut self, vm: usize, tid: u32, gfn: u64, pages: u64) {
        if self.traces.notifiers {
            let hva = 0x7f00_0000_0000 + (gfn << 12);
            self.emit(tid, Body::UnmapHvaRange { start: hva, end: hva + (pages << 12) });
        }
        for (p, l, g, _) in self.each(vm, false, gfn, gfn + pages) {
            self.change(tid, p, l, g, self.l.zapped);
        }
    }

    pub(crate) fn unmap(&mut self, vm: usize, gfn: u64, pages: u64) {
        self.invalidate(vm, Self::main(vm), gfn, pages);
        // The host maps other pages there from now on: new ones, or those of zeroes.
        for first in [gfn & !0x1ff, (gfn + pages - 1) & !0x1ff] {
            *self.vms[vm].moved.entry(first).or_default() += 1;
        }
        self.vms[vm].owned.retain(|g| !(gfn..gfn + pages).contains(g));
        self.done(vm);
    }

    /// Dirty logging: by write-protection, or by the Dirty bit.
    pub(crate) fn protect(&mut self, vm: usize, gfn: u64, pages: u64, write: bool) {
        let tid = Self::main(vm);
        let d = self.l.masks.dirty_mask;
        for (p, l, g, e) in self.each(vm, true, gfn, gfn + pages) {
            if write && e & 2 != 0 {
                self.change(tid, p, l, g, e & !2 & !d);
            } else if !write && e & 2 != 0 && e & d != 0 {
                self.change(tid, p, l, g, e & !d);
            }
        }
        self.done(vm);
    }

    pub(crate) fn age(&mut self, vm: usize, gfn: u64) {
        let tid = Self::main(vm);
        let a = self.l.masks.accessed_mask;
        if self.traces.notifiers {
            let hva = 0x7f00_0000_0000 + (gfn << 12);
            self.emit(tid, Body::AgeHva { start: hva, end: hva + 0x1000 });
        }
        for (p, l, g, e) in self.each(vm, false, gfn, gfn + 1) {
            if self.l.mode == Mode::EptNoAd {
                if e & 7 != 0 {
                    self.change(tid, p, l, g, self.l.track(e));
                }
            } else if e & a != 0 {
                self.change(tid, p, l, g, e & !a);
            }
        }
    }

    /// By the CPU: no event.
    pub(crate) fn touch(&mut self, vm: usize, gfn: u64) {
        for (p, l, g, e) in self.each(vm, false, gfn, gfn + 1) {
            if self.l.mode != Mode::EptNoAd {
                self.store(p, l, g, e | self.l.masks.accessed_mask);
            }
        }
    }

    pub(crate) fn zap_all(&mut self, vm: usize) {
        let tid = Self::main(vm) + 3;
        // The lock that this is done under: what was obsolete before is gone by now.
        self.teardown(vm, usize::MAX);
        self.emit(tid, Body::ZapAllFast { mmu_valid_gen: 0, mmu_used_pages: 0 });
        if self.traces.zap_all == ZapAll::InPlace && self.changes() {
            for i in 0..self.vms[vm].roots.len() {
                let root = self.vms[vm].roots[i].page;
                self.clear(tid, root, usize::MAX, false);
            }
            return;
        }
        // Memslots are of shared memory and private alike, mirrors are never made obsolete.
        for r in self.vms[vm].roots.iter_mut().filter(|r| !r.mirror) {
            r.valid = false;
        }
        if self.legacy() {
            self.teardown(vm, usize::MAX);
        }
    }

    /// Zaps what a root points to, so many tables of level 2 at most; returns whether it is empty.
    fn clear(&mut self, tid: u32, root: u64, mut steps: usize, shared: bool) -> bool {
        for i in 0..512u64 {
            let e4 = self.mem[&root][i as usize];
            if self.l.state(e4, 4) != Is::Table {
                continue;
            }
            let (p3, g4) = (self.child(e4), i << 27);
            for j in 0..512u64 {
                let e3 = self.mem[&p3][j as usize];
                if self.l.state(e3, 3) != Is::Table {
                    continue;
                }
                if steps == 0 {
                    return false;
                }
                steps -= 1;
                self.unlink(tid, p3, 3, g4 + (j << 18), shared);
            }
            self.unlink(tid, root, 4, g4, shared);
        }
        true
    }

    /// Cuts the link to a table and frees it with all that is below, under the shared lock or alone.
    pub(crate) fn unlink(&mut self, tid: u32, page: u64, level: u8, gfn: u64, shared: bool) {
        let told = if self.traces.freeze && shared { self.l.removed.expect("frozen") } else { self.l.zapped };
        self.replace(tid, page, level, gfn, self.l.zapped, told, shared);
    }

    fn replace(&mut self, tid: u32, page: u64, level: u8, gfn: u64, new: u64, told: u64, shared: bool) {
        let old = self.store(page, level, gfn, new);
        let of = self.of[&page];
        if self.traces.unlink == Unlink::First {
            self.tell(tid, of, level, gfn, old, told);
        }
        self.remove(tid, self.child(old), level - 1, base(level - 1, gfn), shared);
        if self.traces.unlink == Unlink::Last {
            self.tell(tid, of, level, gfn, old, told);
        }
    }

    fn remove(&mut self, tid: u32, page: u64, level: u8, gfn: u64, shared: bool) {
        let of = self.of[&page];
        if self.traces.page_zaps || self.legacy() {
            let page = self.page(level, gfn, of);
            self.emit(tid, Body::PrepareZapPage { page });
        }
        for i in 0..512u64 {
            let at = gfn + (i << (9 * (u32::from(level) - 1)));
            let e = self.at(page, level, at);
            // Alone, the kernel passes by what is not present.
            if !shared && self.l.removed.is_some() && !self.l.is_shadow_present(e) {
                continue;
            }
            // 5.11 clears what is there; later kernels freeze all, empty ones too.
            let told = self.l.removed.unwrap_or(self.l.zapped);
            self.store(page, level, at, told);
            if self.traces.unlink == Unlink::First {
                self.tell(tid, of, level, at, e, told);
            }
            if self.l.state(e, level) == Is::Table {
                self.remove(tid, self.child(e), level - 1, at, shared);
            }
            if self.traces.unlink == Unlink::Last {
                self.tell(tid, of, level, at, e, told);
            }
        }
        self.release(page);
    }

    pub(crate) fn teardown(&mut self, vm: usize, steps: usize) {
        let tid = Self::main(vm) + 3;
        while let Some(i) = self.vms[vm].roots.iter().position(|r| !r.valid) {
            let root = self.vms[vm].roots[i].page;
            if !self.clear(tid, root, steps, true) {
                return;
            }
            self.vms[vm].roots.remove(i);
            self.release(root);
        }
    }

    /// The VMM ends: its trees go at once, and the host has their pages for others.
    pub(crate) fn die(&mut self, vm: usize) {
        // Where neither zaps nor pages are shown, nothing shows a VM's end.
        if !self.changes() && !self.legacy() {
            return;
        }
        let tid = Self::main(vm);
        for i in 0..self.vms[vm].roots.len() {
            let root = self.vms[vm].roots[i].page;
            self.clear(tid, root, usize::MAX, false);
            self.release(root);
        }
        self.vms[vm].roots.clear();
        self.vms[vm].dead = true;
    }

    /// A memslot deleted with the quirk off: its leaves are zapped, the trees stay.
    pub(crate) fn delete_slot(&mut self, vm: usize, gfn: u64, pages: u64) {
        if !self.traces.slot_leaves || !self.changes() {
            return;
        }
        for (p, l, g, _) in self.each(vm, false, gfn, gfn + pages) {
            self.change(Self::main(vm), p, l, g, self.l.zapped);
        }
        self.done(vm);
    }

    /// Before dirty logging.
    pub(crate) fn split(&mut self, vm: usize, gfn: u64) {
        if !self.traces.eager_splits {
            return;
        }
        let hit = self.each(vm, true, gfn, gfn + 1).into_iter().find(|(_, l, ..)| *l == 2);
        if let Some((page, _, first, _)) = hit {
            self.split_at(vm, Self::main(vm), page, first);
        }
    }

    /// The entry that points to the small pages of a stretch in a valid tree, if there is one.
    fn broken_up(&self, vm: usize, gfn: u64) -> Option<u64> {
        let mut page = self.valid_root(vm, (0, false)).filter(|_| huge(gfn))?;
        for level in [4, 3] {
            let e = self.at(page, level, gfn);
            if self.l.state(e, level) != Is::Table {
                return None;
            }
            page = self.child(e);
        }
        (self.l.state(self.at(page, 2, gfn), 2) == Is::Table).then_some(page)
    }

    /// Dirty logging is over.
    pub(crate) fn recover(&mut self, vm: usize, gfn: u64) {
        let Some(page) = self.broken_up(vm, gfn) else { return };
        let (tid, first) = (Self::main(vm), gfn & !0x1ff);
        if self.traces.recovery == Resize::InPlace {
            let new = self.leaf(vm, 2, first, false);
            self.replace(tid, page, 2, first, new, new, true);
        } else {
            self.unlink(tid, page, 2, first, true);
        }
        self.done(vm);
    }

    /// A kernel thread zaps what was broken up to be executable.
    pub(crate) fn recover_nx(&mut self, vm: usize, gfn: u64) {
        let Some(page) = self.broken_up(vm, gfn) else { return };
        self.unlink(Self::main(vm) + 4, page, 2, gfn & !0x1ff, false);
        self.done(vm);
    }
}

/// Places of the model have something of everything.
#[test]
fn places() {
    let frames: Vec<u64> = (0..48).map(frame).collect();
    assert!(frames.iter().any(|g| huge(*g)) && frames.iter().any(|g| super::ops::anonymous(*g)));
}
