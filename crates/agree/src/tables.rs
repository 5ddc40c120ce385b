//! The page tables of the TDP MMU, rebuilt from its change events in the plainest way.
//!
//! The main type is [`Tables`]; [`crate::naive`] feeds it every event. No event names the table of the entry that changes. Tables that cover
//! the same frames are distinguished by the value the entry held, by what the thread is doing, and afterwards by `kvm_mmu_set_spte`, which
//! names the physical page. Nothing here uses the replay or the layouts of `mmuscope-spte`.

use std::collections::{BTreeMap, HashMap, HashSet};

use mmuscope_trace::{Body, Event};

/// Host-physical address bits of an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What kind of entry a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Empty,
    Removed,
    Present,
    Mmio,
    Table,
}

#[derive(Debug)]
struct Table {
    vm: Option<u64>,
    as_id: u8,
    level: u8,
    base: u64,
    page: Option<u64>,
    /// The table existed before the trace began, so an entry of which no event was seen is not known.
    old: bool,
    /// The table was unlinked: nothing points to it any more.
    cut: bool,
    entries: HashMap<u64, u64>,
    children: HashMap<u64, usize>,
}

/// The last change that a thread made.
#[derive(Clone, Copy, Debug)]
struct Last {
    table: usize,
    index: u64,
    gfn: u64,
    level: u8,
    before: Option<u64>,
    new: u64,
}

/// All page tables that change events have shown, and the zaps counted so far.
#[derive(Debug)]
pub struct Tables {
    /// The kernel is 5.11 or 5.12, where no bit says that an entry is present. (REMOVED, later FROZEN, is 0x5a0, and 0x1a0 since 7.2.)
    early: bool,
    all: Vec<Table>,
    at: HashMap<(u8, u8, u64), Vec<usize>>,
    last: HashMap<u32, Last>,
    /// The levels of the roots that each thread made and has not filled yet.
    roots: HashMap<u32, Vec<u8>>,
    /// The tables that each thread unlinked and is tearing down.
    tearing: HashMap<u32, Vec<usize>>,
    /// The number of leaves that stopped mapping.
    pub zaps: u64,
}

impl Tables {
    /// Starts without any table; `early` is true for 5.11 and 5.12.
    #[must_use]
    pub fn new(early: bool) -> Self {
        Self {
            early,
            all: Vec::new(),
            at: HashMap::new(),
            last: HashMap::new(),
            roots: HashMap::new(),
            tearing: HashMap::new(),
            zaps: 0,
        }
    }

    fn kind(&self, value: u64, level: u8) -> Kind {
        let low = value & !(1 << 63);
        if low == 0 {
            return Kind::Empty;
        }
        let (removed, mmio) = if self.early {
            (value == 1 << 59, value >> 52 & 3 == 3)
        } else {
            (matches!(low, 0x5a0 | 0x1a0), value >> 11 & 1 == 0)
        };
        match (removed, mmio) {
            (true, _) => Kind::Removed,
            (_, true) => Kind::Mmio,
            _ if level > 1 && value >> 7 & 1 == 0 => Kind::Table,
            _ => Kind::Present,
        }
    }

    fn maps(&self, value: u64, level: u8) -> bool {
        matches!(self.kind(value, level), Kind::Present | Kind::Mmio)
    }

    /// Whether two values are equal apart from the bits that the CPU and the lockless fault path change.
    fn same(&self, a: u64, b: u64, level: u8) -> bool {
        let kind = self.kind(a, level);
        kind == self.kind(b, level)
            && match kind {
                Kind::Present | Kind::Table => a & ADDRESS == b & ADDRESS,
                Kind::Mmio => a == b,
                _ => true,
            }
    }

    /// Applies an event of a thread that belongs to `vm`.
    pub fn event(&mut self, e: &Event, vm: Option<u64>) {
        let Some(tid) = e.tid else { return };
        match e.body {
            Body::TdpSpteChanged { as_id, gfn, level, old_spte, new_spte } if (1..=5).contains(&level) => {
                self.change(tid, vm, (as_id, level, gfn), old_spte, new_spte);
            }
            Body::GetPage { page, created: true } if page.role.direct && page.role.level >= 4 => {
                // A table of level 4 below a root of level 5 is listed here too; linking it takes it out again.
                self.roots.entry(tid).or_default().push(page.role.level);
            }
            Body::SetSpte { gfn, spte, sptep, level, .. } => self.settle(tid, gfn, spte, sptep, level),
            Body::SplitHugePage { gfn, level, errno: 0, .. } => self.split(tid, gfn, level),
            Body::PrepareZapPage { .. } => {}
            _ => {
                self.tearing.remove(&tid);
            }
        }
    }

    fn add(
        &mut self,
        vm: Option<u64>,
        (as_id, level, base): (u8, u8, u64),
        page: Option<u64>,
        old: bool,
    ) -> usize {
        let t = self.all.len();
        let (entries, children) = (HashMap::new(), HashMap::new());
        self.all.push(Table { vm, as_id, level, base, page, old, cut: false, entries, children });
        self.at.entry((as_id, level, base)).or_default().push(t);
        t
    }

    /// The table that holds the entry `index` whose value was `old` before the change.
    fn find(&mut self, tid: u32, vm: Option<u64>, key: (u8, u8, u64), index: u64, old: u64) -> usize {
        let level = key.1;
        let empty = self.kind(old, level) == Kind::Empty;
        if empty && level >= 4 {
            let roots = self.roots.entry(tid).or_default();
            if let Some(i) = roots.iter().position(|l| *l == level) {
                roots.remove(i);
                return self.add(vm, key, None, false);
            }
        }
        let tearing = self.tearing.get(&tid).cloned().unwrap_or_default();
        let score = |t: &usize| {
            let table = &self.all[*t];
            let fits = match table.entries.get(&index) {
                Some(v) => self.same(*v, old, level),
                None => table.old || empty,
            };
            // Tables that this thread is tearing down are preferred, but never for an entry that is filled.
            (
                fits,
                tearing.contains(t) && (fits || !empty),
                !table.cut || !empty,
                table.entries.contains_key(&index),
                *t,
            )
        };
        let all = self.at.get(&key).map_or(&[][..], Vec::as_slice);
        let of_vm =
            all.iter().copied().filter(|t| vm.is_none() || self.all[*t].vm.is_none_or(|v| Some(v) == vm));
        match of_vm.max_by_key(score) {
            Some(t) => t,
            None => self.add(vm, key, None, true),
        }
    }

    fn change(&mut self, tid: u32, vm: Option<u64>, (as_id, level, gfn): (u8, u8, u64), old: u64, new: u64) {
        let base = gfn >> (9 * u32::from(level)) << (9 * u32::from(level));
        let index = gfn >> (9 * (u32::from(level) - 1)) & 511;
        let t = self.find(tid, vm, (as_id, level, base), index, old);
        // The present entries of a table that is cut off are traced one by one too, whatever is known of that table.
        let counted = self.all[t].cut && self.kind(old, level) == Kind::Mmio;
        if self.maps(old, level) && !counted && matches!(self.kind(new, level), Kind::Empty | Kind::Removed) {
            self.zaps += 1;
        }
        let before = self.all[t].entries.insert(index, new);
        self.last.insert(tid, Last { table: t, index, gfn, level, before, new });
        if self.kind(old, level) == Kind::Table
            && !self.same(old, new, level)
            && let Some(child) = self.all[t].children.remove(&index)
        {
            self.cut(tid, child);
        }
        if self.kind(new, level) == Kind::Table && !self.same(old, new, level) {
            if let Some(roots) = self.roots.get_mut(&tid)
                && let Some(i) = roots.iter().rposition(|l| *l + 1 == level)
            {
                roots.remove(i);
            }
            let vm = self.all[t].vm;
            let child = self.add(vm, (as_id, level - 1, gfn), Some(new & ADDRESS), false);
            self.all[t].children.insert(index, child);
        }
    }

    /// Unlinks a table with everything below it: its leaves map nothing any more.
    fn cut(&mut self, tid: u32, t: usize) {
        if std::mem::replace(&mut self.all[t].cut, true) {
            return;
        }
        // MMIO entries go without an event of their own where KVM holds its lock for writing.
        let level = self.all[t].level;
        let mmio = self.all[t].entries.values().filter(|v| self.kind(**v, level) == Kind::Mmio).count();
        self.zaps += mmio as u64;
        self.tearing.entry(tid).or_default().push(t);
        let children: Vec<usize> = self.all[t].children.values().copied().collect();
        for child in children {
            self.cut(tid, child);
        }
    }

    /// `kvm_mmu_set_spte` names the page of the thread's last change. If that page is another table, the change moves there.
    fn settle(&mut self, tid: u32, gfn: u64, spte: u64, sptep: u64, level: u8) {
        let Some(last) = self.last.remove(&tid) else { return };
        if (last.gfn, last.level) != (gfn, level) || !self.same(last.new, spte, level) {
            return;
        }
        let page = sptep & ADDRESS;
        match self.all[last.table].page {
            None => self.all[last.table].page = Some(page),
            Some(p) if p == page => {}
            Some(_) => {
                let t = &self.all[last.table];
                let key = (t.as_id, t.level, t.base);
                let all = self.at.get(&key).map_or(&[][..], Vec::as_slice);
                let Some(other) = all.iter().rev().copied().find(|o| self.all[*o].page == Some(page)) else {
                    return;
                };
                match last.before {
                    Some(v) => self.all[last.table].entries.insert(last.index, v),
                    None => self.all[last.table].entries.remove(&last.index),
                };
                self.all[other].entries.insert(last.index, last.new);
            }
        }
    }

    /// A huge page was split. The 512 entries of the new table are not traced one by one.
    fn split(&mut self, tid: u32, gfn: u64, level: u8) {
        let Some(last) = self.last.get(&tid).copied().filter(|l| (l.gfn, l.level) == (gfn, level)) else {
            return;
        };
        if let Some(child) = self.all[last.table].children.get(&last.index).copied() {
            // Any value that counts as a leaf of this level will do.
            let part = 1 << 11 | 1 << 7 | 7;
            self.all[child].entries.extend((0..512).map(|i| (i, part | 1 << 12)));
        }
    }

    /// The number of frames that are mapped at the end, each counted once: those of present entries, and those of MMIO entries alone.
    #[must_use]
    pub fn frames(&self) -> BTreeMap<(u64, u64), [u64; 2]> {
        let mut sets: BTreeMap<(u64, u64), [HashSet<u64>; 2]> = BTreeMap::new();
        for t in self.all.iter().filter(|t| !t.cut) {
            let sets = sets.entry((t.vm.unwrap_or(0), u64::from(t.as_id))).or_default();
            let shift = 9 * (u32::from(t.level) - 1);
            for (index, value) in &t.entries {
                let which = match self.kind(*value, t.level) {
                    Kind::Present => 0,
                    Kind::Mmio => 1,
                    _ => continue,
                };
                let first = t.base + (index << shift);
                sets[which].extend(first..first + (1 << shift));
            }
        }
        let count = |[present, mmio]: [HashSet<u64>; 2]| {
            [present.len() as u64, mmio.difference(&present).count() as u64]
        };
        sets.into_iter().map(|(space, s)| (space, count(s))).collect()
    }
}
