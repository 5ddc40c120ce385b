//! The page tables and what the vCPUs do to them.

use std::collections::{BTreeMap, BTreeSet};

use mmuscope_spte::{AdType, Layout, Leaf, MarkMmio, Mode, PageLevel, Resize, SetSpte, State as Is, Traces};
use mmuscope_testing::fixture::{self, direct_page};
use mmuscope_trace::{Body, Event, FastPfResult, Page, Role, StrId, TaskInfo, Trace, VmHint};

use super::ops::{Access, Era, Mmu, Op, anonymous, frame, huge};

/// The host's frame of zeroes.
const ZERO: u64 = 0xabc;

#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) page: u64,
    pub(crate) valid: bool,
    pub(crate) as_id: u8,
    pub(crate) mirror: bool,
}

#[derive(Default)]
pub(crate) struct Vm {
    pub(crate) roots: Vec<Root>,
    /// How often the backing of each stretch of 512 frames changed.
    pub(crate) moved: BTreeMap<u64, u64>,
    /// Anonymous frames that were written to.
    pub(crate) owned: BTreeSet<u64>,
    pub(crate) generation: u32,
    pub(crate) dead: bool,
}

/// A leaf: VM, address space, level, frame and value.
pub(crate) type Mapped = (u16, u8, u8, u64, u64);

pub(crate) struct Kernel {
    pub(crate) era: Era,
    pub(crate) l: Layout,
    pub(crate) traces: Traces,
    pub(crate) trace: Trace,
    pub(crate) ts: u64,
    /// The recording is binary: roles say which address space and whether a page mirrors one.
    pub(crate) binary: bool,
    /// Guests go into SMM.
    pub(crate) smm: bool,
    pub(crate) mem: BTreeMap<u64, Box<[u64; 512]>>,
    /// Address space of each table, and whether it mirrors one.
    pub(crate) of: BTreeMap<u64, (u8, bool)>,
    pub(crate) free: Vec<u64>,
    pub(crate) vms: Vec<Vm>,
    /// What was mapped at some moments.
    pub(crate) snaps: Vec<(u64, Vec<Mapped>)>,
}

pub(crate) fn index(level: u8, gfn: u64) -> usize {
    (gfn >> (9 * (u32::from(level) - 1)) & 511) as usize
}

/// First frame of the table of a level.
pub(crate) fn base(level: u8, gfn: u64) -> u64 {
    let bits = 9 * u32::from(level);
    gfn >> bits << bits
}

impl Kernel {
    pub(crate) fn new(era: Era, binary: bool) -> Self {
        let kernel = era.spec().resolve().expect("a layout");
        let mirror = era.mmu == Mmu::Mirror;
        let mut trace = Trace::default();
        for vm in 0..2u32 {
            let pid = 100 + vm * 10;
            let tids: Vec<u32> = (pid..pid + 5).collect();
            trace.info.tasks.extend(tids.iter().map(|t| TaskInfo {
                tid: *t,
                pid: Some(pid),
                ..TaskInfo::default()
            }));
            trace.info.vm_hints.push(VmHint { pid: Some(pid), tids, ..VmHint::default() });
        }
        Self {
            era,
            l: kernel.layout,
            traces: kernel.traces,
            trace,
            ts: 1_000_000,
            binary: binary || mirror,
            smm: !mirror,
            mem: BTreeMap::new(),
            of: BTreeMap::new(),
            free: Vec::new(),
            vms: (0..2).map(|_| Vm { generation: 4, ..Vm::default() }).collect(),
            snaps: Vec::new(),
        }
    }

    pub(crate) fn emit(&mut self, tid: u32, body: Body) {
        self.ts += 1000;
        let cpu = (tid % 3) as u16;
        let comm = StrId::default();
        self.trace.events.push(&Event { ts: self.ts, cpu, tid: Some(tid), pid: None, comm, body });
    }

    /// A page for a table; freed ones are taken first, as the kernel's allocator does.
    pub(crate) fn alloc(&mut self, of: (u8, bool)) -> u64 {
        let page = self.free.pop().unwrap_or((0x1_0000 + self.mem.len() as u64) << 12);
        self.mem.insert(page, Box::new([self.l.zapped; 512]));
        self.of.insert(page, of);
        page
    }

    pub(crate) fn release(&mut self, page: u64) {
        self.mem.remove(&page);
        self.free.push(page);
    }

    pub(crate) fn main(vm: usize) -> u32 {
        100 + vm as u32 * 10
    }

    pub(crate) fn page(&self, level: u8, gfn: u64, of: (u8, bool)) -> Page {
        let p = direct_page(level, gfn);
        let (smm, mirror) = if self.binary { (Some(of.0 == 1), Some(of.1)) } else { (None, None) };
        Page { role: Role { smm, mirror, ..p.role }, ..p }
    }

    pub(crate) fn get_page(&mut self, tid: u32, level: u8, gfn: u64, of: (u8, bool)) {
        let above = self.traces.page_level == PageLevel::Above && !self.legacy() && level != 4;
        let printed = level + u8::from(above);
        let page = self.page(printed, gfn, of);
        self.emit(tid, Body::GetPage { page, created: true });
    }

    pub(crate) fn at(&self, page: u64, level: u8, gfn: u64) -> u64 {
        self.mem[&page][index(level, gfn)]
    }

    /// Changes an entry without an event; what it held.
    pub(crate) fn store(&mut self, page: u64, level: u8, gfn: u64, new: u64) -> u64 {
        std::mem::replace(&mut self.mem.get_mut(&page).expect("a table")[index(level, gfn)], new)
    }

    pub(crate) fn legacy(&self) -> bool {
        self.era.mmu == Mmu::Legacy
    }

    /// Changes of entries are events: the legacy MMU has none.
    pub(crate) fn changes(&self) -> bool {
        self.traces.changes && !self.legacy()
    }

    /// Shows a change where this kernel does.
    pub(crate) fn tell(&mut self, tid: u32, of: (u8, bool), level: u8, gfn: u64, old: u64, told: u64) {
        if self.changes() && old != told {
            let bits = 9 * (u32::from(level) - 1);
            let gfn = gfn >> bits << bits;
            self.emit(tid, Body::TdpSpteChanged { as_id: of.0, gfn, level, old_spte: old, new_spte: told });
        }
    }

    pub(crate) fn change(&mut self, tid: u32, page: u64, level: u8, gfn: u64, new: u64) {
        let old = self.store(page, level, gfn, new);
        self.tell(tid, self.of[&page], level, gfn, old, new);
    }

    pub(crate) fn set_event(&mut self, tid: u32, page: u64, level: u8, gfn: u64) {
        let spte = self.at(page, level, gfn);
        let sptep = page + index(level, gfn) as u64 * 8;
        self.emit(tid, fixture::set_spte(level, gfn, spte, sptep));
    }

    /// The virtual address of an entry, where the recording has it: tracefs hashes it.
    fn virt(&self, page: u64, level: u8, gfn: u64) -> Option<u64> {
        self.binary.then(|| 0xffff_8880_0000_0000 + page + index(level, gfn) as u64 * 8)
    }

    pub(crate) fn ad_type(&self) -> AdType {
        if self.l.mode == Mode::EptNoAd { AdType::Disabled } else { AdType::Enabled }
    }

    pub(crate) fn leaf(&self, vm: usize, level: u8, gfn: u64, write: bool) -> u64 {
        let first = gfn & !0x1ff;
        let v = &self.vms[vm];
        let moves = v.moved.get(&first).copied().unwrap_or(0);
        let zero = level == 1 && !write && anonymous(gfn) && !v.owned.contains(&gfn);
        let pfn = if zero { ZERO } else { 0x10_0000 * (vm as u64 + 1) + gfn + moves * 0x8000 };
        let x = level == 1 || vm == 0;
        self.l.leaf(&Leaf {
            pfn,
            r: true,
            w: write,
            x,
            xu: x,
            u: true,
            accessed: true,
            dirty: write,
            host_writable: !zero,
            mmu_writable: !zero,
            large: level > 1,
            ad_type: self.ad_type(),
            memtype: 0,
            ignore_pat: false,
            suppress_ve: true,
            encrypted: false,
        })
    }

    pub(crate) fn link(&self, child: u64) -> u64 {
        self.l.table(child >> 12, self.ad_type())
    }

    pub(crate) fn child(&self, link: u64) -> u64 {
        link & self.l.masks.base_addr_mask
    }

    pub(crate) fn valid_root(&self, vm: usize, of: (u8, bool)) -> Option<u64> {
        let is = |r: &&Root| r.valid && (r.as_id, r.mirror) == of;
        self.vms[vm].roots.iter().find(is).map(|r| r.page)
    }

    /// The valid root, which a vCPU makes before it enters the guest.
    fn root(&mut self, vm: usize, tid: u32, of: (u8, bool)) -> u64 {
        if let Some(r) = self.valid_root(vm, of) {
            return r;
        }
        let page = self.alloc(of);
        self.vms[vm].roots.insert(0, Root { page, valid: true, as_id: of.0, mirror: of.1 });
        self.get_page(tid, 4, 0, of);
        page
    }

    /// The table a fault works in, made on the way; where a huge page is met, its table and level.
    fn walk(&mut self, vm: usize, tid: u32, gfn: u64, down_to: u8, of: (u8, bool)) -> Result<u64, (u64, u8)> {
        let mut page = self.root(vm, tid, of);
        for level in (down_to + 1..=4).rev() {
            let e = self.at(page, level, gfn);
            page = match self.l.state(e, level) {
                Is::Table => self.child(e),
                Is::Present => return Err((page, level)),
                _ => {
                    let child = self.alloc(of);
                    self.get_page(tid, level - 1, base(level - 1, gfn), of);
                    let link = self.link(child);
                    self.change(tid, page, level, gfn, link);
                    child
                }
            };
        }
        Ok(page)
    }

    fn fault(&mut self, vm: usize, vcpu: u32, gfn: u64, access: Access, smm: bool) {
        let tid = Self::main(vm) + 1 + vcpu;
        let of = (u8::from(smm), self.era.mmu == Mmu::Mirror && gfn.is_multiple_of(2) && !smm);
        let write = access == Access::Write;
        self.root(vm, tid, of);
        self.emit(tid, fixture::exit());
        let code = match access {
            Access::Read => 4,
            Access::Write => 6,
            Access::Fetch => 0x14,
        };
        self.emit(tid, fixture::nested_fault(gfn, code));
        self.resolve(vm, tid, vcpu, gfn, access, of);
        if write {
            self.vms[vm].owned.insert(gfn);
        }
        self.emit(tid, fixture::entry(vcpu));
    }

    fn resolve(&mut self, vm: usize, tid: u32, vcpu: u32, gfn: u64, access: Access, of: (u8, bool)) {
        let write = access == Access::Write;
        if write && anonymous(gfn) && !self.vms[vm].owned.contains(&gfn) {
            // The host copies the zero page first.
            self.invalidate(vm, tid, gfn, 1);
            self.vms[vm].owned.insert(gfn);
        }
        // Mirror trees hold small pages until they are promoted.
        let level = if huge(gfn) && !of.1 { 2 } else { 1 };
        let (mut page, mut level) = match self.walk(vm, tid, gfn, level, of) {
            Ok(page) if level == 2 && self.l.state(self.at(page, 2, gfn), 2) == Is::Table => {
                (self.child(self.at(page, 2, gfn)), 1)
            }
            Ok(page) => (page, level),
            Err(at) => at,
        };
        if level == 2 && access == Access::Fetch && vm == 1 {
            // Huge pages are not executable here: a smaller one is.
            self.emit(tid, Body::SpteRequested { gfn, pfn: 1, level: 2, access: None });
            page = self.break_up(vm, tid, page, gfn, of);
            level = 1;
        }
        let old = self.at(page, level, gfn);
        let bits = 9 * (u32::from(level) - 1);
        let first = gfn >> bits << bits;
        let new = self.leaf(vm, level, first, write);
        let tracked = self.l.mode == Mode::EptNoAd && old & 7 == 0;
        match self.l.state(old, level) {
            Is::Present if !tracked && (old & 2 != 0 || !write) => {
                self.emit(tid, Body::SpteRequested { gfn, pfn: old >> 12 & 0xff_ffff, level, access: None });
                if !self.legacy() {
                    // Another vCPU was faster.
                    self.set_event(tid, page, level, first);
                }
            }
            Is::Present
                if self.traces.fast_faults && (!write || old & self.l.masks.mmu_writable_mask != 0) =>
            {
                let restored = if tracked { self.l.restore(old) } else { old };
                let fixed = if write { restored | 2 | self.l.masks.dirty_mask } else { restored };
                self.store(page, level, gfn, fixed);
                self.emit(
                    tid,
                    Body::FastPageFault {
                        vcpu,
                        cr2_or_gpa: gfn << 12,
                        error_code: 7,
                        sptep: self.virt(page, level, gfn),
                        old_spte: old,
                        new_spte: fixed,
                        result: FastPfResult::Fixed,
                    },
                );
            }
            _ => {
                self.emit(tid, Body::SpteRequested { gfn, pfn: new >> 12 & 0xff_ffff, level, access: None });
                let (before, after) = match self.traces.set_spte {
                    _ if self.legacy() => (0, 1),
                    SetSpte::Never => (0, 0),
                    SetSpte::Once => (0, 1),
                    SetSpte::BeforeAndAfter => (1, 1),
                    SetSpte::Twice => (0, 2),
                };
                (0..before).for_each(|_| self.set_event(tid, page, level, first));
                self.change(tid, page, level, gfn, new);
                (0..after).for_each(|_| self.set_event(tid, page, level, first));
            }
        }
    }

    /// A fault needs small pages where a huge one is.
    fn break_up(&mut self, vm: usize, tid: u32, page: u64, gfn: u64, of: (u8, bool)) -> u64 {
        let first = gfn & !0x1ff;
        if self.l.state(self.at(page, 2, gfn), 2) != Is::Present {
            let child = self.alloc(of);
            self.get_page(tid, 1, first, of);
            let link = self.link(child);
            self.change(tid, page, 2, first, link);
            return child;
        }
        if self.traces.fault_splits == Resize::InPlace {
            return self.split_at(vm, tid, page, first);
        }
        let old = self.store(page, 2, first, self.l.zapped);
        let told = if self.traces.freeze { self.l.removed.expect("frozen") } else { self.l.zapped };
        self.tell(tid, of, 2, first, old, told);
        let child = self.alloc(of);
        self.get_page(tid, 1, first, of);
        let link = self.link(child);
        self.change(tid, page, 2, first, link);
        child
    }

    /// A huge page becomes a table of what it mapped.
    pub(crate) fn split_at(&mut self, vm: usize, tid: u32, page: u64, first: u64) -> u64 {
        let e = self.at(page, 2, first);
        let of = self.of[&page];
        let child = self.alloc(of);
        self.get_page(tid, 1, first, of);
        let mut small = e & !self.l.large;
        if vm == 1 {
            let tracked = self.l.mode == Mode::EptNoAd && small & 7 == 0;
            small = if tracked { self.l.restore(small) } else { small };
            small = (small & !self.l.masks.nx_mask) | self.l.masks.x_mask | self.l.masks.xu_mask;
            small = if tracked { self.l.track(small) } else { small };
        }
        for i in 0..512 {
            self.mem.get_mut(&child).expect("a table")[i] = small + ((i as u64) << 12);
        }
        let link = self.link(child);
        self.change(tid, page, 2, first, link);
        self.emit(tid, Body::SplitHugePage { gfn: first, spte: e, level: 2, errno: 0 });
        child
    }

    fn mmio(&mut self, vm: usize, gfn: u64) {
        let tid = Self::main(vm) + 1;
        let of = (0, false);
        self.root(vm, tid, of);
        self.emit(tid, fixture::exit());
        self.emit(tid, fixture::nested_fault(gfn, 6));
        if let Ok(page) = self.walk(vm, tid, gfn, 1, of) {
            let generation = self.vms[vm].generation;
            let new = self.l.mmio(gfn, 6, generation);
            let sptep = self.virt(page, 1, gfn);
            let mark = Body::MarkMmioSpte { sptep, gfn, access: 6, generation };
            let early = self.traces.mark_mmio == MarkMmio::Before || self.legacy();
            if self.at(page, 1, gfn) == new {
                self.emit(tid, Body::HandleMmioPageFault { addr: 0, gfn, access: 6 });
            } else {
                if early {
                    self.emit(tid, mark);
                }
                self.change(tid, page, 1, gfn, new);
                if !early {
                    self.emit(tid, mark);
                }
                if self.traces.mmio_set_spte {
                    self.set_event(tid, page, 1, gfn);
                }
            }
        }
        self.emit(tid, fixture::entry(0));
    }

    pub(crate) fn run(&mut self, ops: &[Op]) {
        for (i, op) in ops.iter().enumerate() {
            self.step(op);
            if i % 8 == 7 {
                self.snaps.push((self.ts, self.truth()));
            }
        }
        self.snaps.push((self.ts, self.truth()));
        self.trace.info.events = self.trace.events.len() as u64;
        self.trace.info.last_ts = self.ts;
    }

    fn step(&mut self, op: &Op) {
        let vm = match *op {
            Op::Fault { vm, .. }
            | Op::Mmio { vm, .. }
            | Op::Generation { vm }
            | Op::Unmap { vm, .. }
            | Op::Protect { vm, .. }
            | Op::Clean { vm, .. }
            | Op::Age { vm, .. }
            | Op::Touch { vm, .. }
            | Op::ZapAll { vm }
            | Op::Teardown { vm, .. }
            | Op::DeleteSlot { vm, .. }
            | Op::Split { vm, .. }
            | Op::Recover { vm, .. }
            | Op::RecoverNx { vm, .. }
            | Op::Die { vm } => usize::from(vm),
        };
        if self.vms[vm].dead {
            return;
        }
        match *op {
            Op::Fault { vcpu, place, access, smm, .. } => {
                self.fault(vm, u32::from(vcpu), frame(place), access, smm && self.smm);
            }
            Op::Mmio { place, .. } => self.mmio(vm, 0xfec0 + u64::from(place)),
            Op::Generation { .. } => self.vms[vm].generation += 2,
            Op::Unmap { place, pages, .. } => self.unmap(vm, frame(place), pages.into()),
            Op::Protect { place, pages, .. } => self.protect(vm, frame(place), pages.into(), true),
            Op::Clean { place, pages, .. } => self.protect(vm, frame(place), pages.into(), false),
            Op::Age { place, .. } => self.age(vm, frame(place)),
            Op::Touch { place, .. } => self.touch(vm, frame(place)),
            Op::ZapAll { .. } => self.zap_all(vm),
            Op::Teardown { steps, .. } => self.teardown(vm, steps.into()),
            Op::DeleteSlot { place, pages, .. } => self.delete_slot(vm, frame(place), pages.into()),
            Op::Split { place, .. } => self.split(vm, frame(place)),
            Op::Recover { place, .. } => self.recover(vm, frame(place)),
            Op::RecoverNx { place, .. } => self.recover_nx(vm, frame(place)),
            Op::Die { .. } => self.die(vm),
        }
    }

    /// A value without what the CPU sets on its own.
    pub(crate) fn still(&self, v: u64) -> u64 {
        if self.l.is_shadow_present(v) {
            v & !(self.l.masks.accessed_mask | self.l.masks.dirty_mask)
        } else if self.l.is_mmio(v) {
            v
        } else {
            // Empty or frozen: no leaf either way.
            0
        }
    }

    /// The leaves of all trees.
    fn truth(&self) -> Vec<Mapped> {
        let mut out = Vec::new();
        for (vm, v) in self.vms.iter().enumerate() {
            for r in &v.roots {
                let mut all = Vec::new();
                self.leaves(r.page, 4, 0, &mut all);
                let value = |p: u64, l, g| self.still(self.at(p, l, g));
                out.extend(all.into_iter().map(|(p, l, g)| (vm as u16, r.as_id, l, g, value(p, l, g))));
            }
        }
        out.sort_unstable();
        out
    }
}
