//! The page tables of a VM. [`Walk`] reads every table below a root of the TDP MMU, and every shadow page.
//!
//! Nothing is locked, and the guest runs on. After a table is read, the entry that points to it is read again, and the list that its root is in: if
//! either changed, the table may have been freed meanwhile, and is left out. Events of the recording decide what happened during the reading.

use std::collections::HashSet;

use mmuscope_snapshot::{Mmu, Table};

use super::shape::Shape;
use super::vm::list;
use crate::host::monotonic;
use crate::kcore::Memory;

/// The number of entries of a table.
const ENTRIES: usize = 512;
/// The most tables of a VM that are read: those of 8 TiB in pages of 4 KiB.
const MOST_TABLES: usize = 4 << 20;
/// The bits of an entry in which its page lies; the kernel's other uses of bits 51 to 40 are masked by the host's width.
const PAGE: u64 = 0x000f_ffff_ffff_f000;
/// The bit that says that an entry above level 1 maps a large page.
const LARGE: u64 = 1 << 7;

/// By which bits the kinds of entries differ on this host.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bits {
    /// `shadow_mmio_mask` and `shadow_mmio_value`, where they could be read: entries that fit are no links.
    pub mmio: Option<(u64, u64)>,
    /// `shadow_me_mask` and like bits of an address that do not select a page.
    pub not_page: u64,
}

impl Bits {
    /// The page that an entry of a table at this level points to, if it points to a table.
    fn child(self, entry: u64, level: u8) -> Option<u64> {
        let mmio = self.mmio.is_some_and(|(mask, value)| mask != 0 && entry & mask == value);
        // Links allow reading, writing and executing (EPT), or are present, writable and for the user (NPT and shadow tables); the values that
        // stand for nothing, or for an entry that is frozen, have none of bits 0 to 2.
        let link = level > 1 && entry & 7 != 0 && entry & LARGE == 0 && !mmio;
        link.then_some(entry & PAGE & !self.not_page).filter(|p| *p != 0)
    }
}

/// What was read of a VM.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// How many tables were read.
    pub tables: usize,
    /// How many of them are shadow pages, those of the legacy MMU among them.
    pub shadow: usize,
    /// How many were left out because they changed while they were read.
    pub torn: usize,
    /// Why not everything was read.
    pub notes: Vec<String>,
    complete: bool,
}

impl Found {
    /// Whether every table was read.
    pub(super) fn complete(&self) -> bool {
        self.complete && self.notes.is_empty()
    }
}

/// Reads the tables of one VM.
pub(super) struct Walk<'a, M> {
    memory: &'a M,
    shape: &'a Shape,
    bits: Bits,
    seen: HashSet<u64>,
    found: Found,
}

/// The properties that all tables of a tree share.
#[derive(Clone, Copy, Debug)]
struct Tree {
    as_id: u8,
    invalid: bool,
    mirror: bool,
    guest_mode: bool,
}

/// A table that a walk has still to read.
#[derive(Clone, Copy, Debug)]
struct Next {
    page: u64,
    level: u8,
    gfn: u64,
    /// Page, index and value of the entry that points to it.
    parent: Option<(u64, u16, u64)>,
}

impl<'a, M: Memory> Walk<'a, M> {
    pub(super) fn new(memory: &'a M, shape: &'a Shape, bits: Bits) -> Self {
        let found = Found { complete: true, ..Found::default() };
        Self { memory, shape, bits, seen: HashSet::new(), found }
    }

    /// Reads all tables of the VM at this address and gives each to `to`.
    pub(super) fn run(mut self, kvm: u64, to: &mut dyn FnMut(Table)) -> Found {
        if let Some(at) = self.shape.tdp_roots {
            for sp in self.list(kvm.wrapping_add(at), "the list of the TDP MMU's roots") {
                self.tdp_root(sp, to);
            }
        }
        for sp in self.list(kvm.wrapping_add(self.shape.active), "the list of shadow pages") {
            self.shadow_page(sp, to);
        }
        self.found
    }

    fn list(&mut self, head: u64, what: &str) -> Vec<u64> {
        let (pages, whole) = list(self.memory, head, self.shape.page.link, MOST_TABLES);
        if !whole {
            self.found.notes.push(format!("{what} changed while it was read"));
        }
        pages
    }

    fn entries(&self, page: u64) -> Option<Vec<u64>> {
        let mut b = [0u8; 8 * ENTRIES];
        let read = self.memory.read(self.memory.direct(page)?, &mut b);
        read.then(|| {
            b.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap_or_default())).collect()
        })
    }

    /// What a `kvm_mmu_page` says: its page, level, and the tree it is in. `None` where the memory does not look like one.
    fn head(&self, sp: u64) -> Option<(u64, u8, u64, bool, Tree)> {
        let (m, s) = (self.memory, &self.shape.page);
        let spt = s.spt.pointer(m, sp)?;
        let page = m.phys(spt).filter(|p| p.is_multiple_of(4096))?;
        let level = s.level.read(m, sp).filter(|l| (1..=5).contains(l))? as u8;
        let on = |f: Option<super::shape::Field>| f.and_then(|f| f.read(m, sp)).is_some_and(|v| v != 0);
        let tree = Tree {
            as_id: u8::from(s.smm.read(m, sp)? != 0),
            invalid: s.invalid.read(m, sp)? != 0,
            mirror: on(s.mirror),
            guest_mode: on(s.guest_mode),
        };
        Some((page, level, s.gfn.read(m, sp)?, s.direct.read(m, sp)? != 0, tree))
    }

    /// Whether the root at `sp` is still in the list of roots, and lies in the same page. The kernel takes it off the list before it frees its tables.
    fn lives(&self, sp: u64, page: u64, level: u8) -> bool {
        let link = sp.wrapping_add(self.shape.page.link);
        let m = self.memory;
        // The list may change while it is looked at.
        let listed = (0..3).any(|_| {
            let next = m.pointer(link).and_then(|n| m.number(n.wrapping_add(8), 8));
            let before = m.pointer(link.wrapping_add(8)).and_then(|n| m.number(n, 8));
            next == Some(link) && before == Some(link)
        });
        listed && self.head(sp).is_some_and(|h| (h.0, h.1) == (page, level))
    }

    fn tdp_root(&mut self, sp: u64, to: &mut dyn FnMut(Table)) {
        let Some((page, level, gfn, _, tree)) = self.head(sp) else {
            self.found.notes.push("a root of the TDP MMU is not where it should be".into());
            return;
        };
        let mut to = |walk: &mut Self, t: Table| {
            let lives = walk.lives(sp, page, level);
            if lives {
                walk.found.tables += 1;
                to(t);
            } else {
                // What lies in these pages now is another's.
                walk.found.torn += 1;
                walk.found.notes.push("a root of the TDP MMU was freed while it was read".into());
            }
            lives
        };
        let mut todo = vec![Next { page, level, gfn, parent: None }];
        while let Some(n) = todo.pop() {
            if self.found.tables >= MOST_TABLES {
                self.found.notes.push(format!("more than {MOST_TABLES} tables"));
                return;
            }
            // A page is in one tree and once: whatever is there twice was freed and used again.
            if !self.seen.insert(n.page) {
                self.found.torn += 1;
                continue;
            }
            if !self.tdp_table(n, tree, &mut todo, &mut to) {
                return;
            }
        }
    }

    /// Reads a table and hands it to `to`, which says whether its root still lives; returns whether to go on.
    fn tdp_table(
        &mut self,
        n: Next,
        tree: Tree,
        todo: &mut Vec<Next>,
        to: &mut impl FnMut(&mut Self, Table) -> bool,
    ) -> bool {
        let from = monotonic();
        let Some(entries) = self.entries(n.page) else {
            self.found.notes.push(format!("the table at {:#x} could not be read", n.page));
            return true;
        };
        let end = monotonic();
        if let Some((page, index, value)) = n.parent {
            let now = self.memory.direct(page).and_then(|v| self.memory.number(v + 8 * u64::from(index), 8));
            if now.and_then(|v| self.bits.child(v, n.level + 1)) != self.bits.child(value, n.level + 1) {
                self.found.torn += 1;
                return true;
            }
        }
        let shift = 9 * u32::from(n.level - 1);
        for (i, e) in entries.iter().enumerate() {
            if let Some(page) = self.bits.child(*e, n.level) {
                let gfn = n.gfn.wrapping_add((i as u64) << shift);
                todo.push(Next { page, level: n.level - 1, gfn, parent: Some((n.page, i as u16, *e)) });
            }
        }
        let table = Table {
            from,
            to: end,
            page: n.page,
            mmu: Mmu::Tdp,
            as_id: tree.as_id,
            level: n.level,
            gfn: n.gfn,
            direct: true,
            root: n.parent.is_none(),
            invalid: tree.invalid,
            mirror: tree.mirror,
            guest_mode: tree.guest_mode,
            parent: n.parent.map(|p| (p.0, p.1)),
            entries,
            gfns: Vec::new(),
        };
        to(self, table)
    }

    fn shadow_page(&mut self, sp: u64, to: &mut dyn FnMut(Table)) {
        let from = monotonic();
        let before = self.head(sp);
        let Some((page, level, gfn, direct, tree)) = before else {
            self.found.torn += 1;
            return;
        };
        let entries = self.entries(page);
        let frames = if direct { None } else { self.frames(sp) };
        let now = self.head(sp);
        let same = now.is_some_and(|n| (n.0, n.1, n.2, n.3) == (page, level, gfn, direct));
        let Some(entries) = entries.filter(|_| same && self.seen.insert(page)) else {
            self.found.torn += 1;
            return;
        };
        self.found.tables += 1;
        self.found.shadow += 1;
        to(Table {
            from,
            to: monotonic(),
            page,
            mmu: Mmu::Shadow,
            as_id: tree.as_id,
            level,
            gfn,
            direct,
            root: false,
            invalid: tree.invalid,
            mirror: tree.mirror,
            guest_mode: tree.guest_mode,
            parent: None,
            entries,
            gfns: frames.unwrap_or_default(),
        });
    }

    /// The guest frame of each entry of a shadow page.
    fn frames(&self, sp: u64) -> Option<Vec<u64>> {
        let (field, shift) = self.shape.page.frames?;
        let mut b = [0u8; 8 * ENTRIES];
        let read = self.memory.read(field.pointer(self.memory, sp)?, &mut b);
        read.then(|| {
            b.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap_or_default()) >> shift).collect()
        })
    }
}
