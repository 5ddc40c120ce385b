//! A naive model of KVM's page tables against the replay: random work by several vCPUs and VMs, told as each kernel era tells it.
//!
//! The model holds every table as 512 plain values and emits, for each step, the events the era's kernel emits (and none for what it does
//! silently). Where the kernel speaks the replay must hold exactly the model's leaves; where it is silent, or events are missing, nothing
//! it calls a fact may be false. This guards kernels and sequences that no recording shows.

use std::collections::BTreeMap;

use mmuscope_replay::fixture::{self, direct_page};
use mmuscope_replay::{Certainty, LayoutOverride, ReplayOptions, State, StateFilter, Timeline, VmId, replay};
use mmuscope_spte::{AdType, Layout, LayoutSpec, Leaf, State as Is};
use mmuscope_trace::{Body, Event, EventStore, FastPfResult, StrId, TaskInfo, Trace, VmGuess};
use proptest::prelude::*;

/// What a kernel tells.
#[derive(Clone, Copy, Debug)]
struct Era {
    layout: &'static str,
    /// `kvm_tdp_mmu_spte_changed`.
    changes: bool,
    /// `kvm_mmu_set_spte` comes twice, the first time (5.11) with the old value.
    doubled: bool,
    /// Atomic zaps are told as a freeze, and the release is not (5.12 to 6.9).
    freezes: bool,
    /// All roots are zapped in place rather than made obsolete (5.11, 5.12).
    in_place: bool,
    /// The lockless path fixes entries, with its own event only.
    fast: bool,
    /// mmu_notifier ranges are told.
    notifiers: bool,
    /// Huge pages come back in place of a table (6.13).
    recovers: bool,
    /// The legacy MMU: zapped pages are told.
    legacy: bool,
}

const SPEAKS: Era = Era {
    layout: "6.1/npt",
    changes: true,
    doubled: false,
    freezes: true,
    in_place: false,
    fast: true,
    notifiers: true,
    recovers: false,
    legacy: false,
};
const E5_11: Era = Era {
    layout: "5.11/npt",
    doubled: true,
    freezes: false,
    in_place: true,
    fast: false,
    notifiers: false,
    ..SPEAKS
};
const E5_12: Era = Era { layout: "5.12/npt", freezes: true, ..E5_11 };
const E6_10: Era = Era { layout: "6.12/npt", freezes: false, ..SPEAKS };
const E6_13: Era = Era { layout: "6.18/npt", recovers: true, ..E6_10 };
const E5_10: Era = Era { layout: "5.10/npt", changes: false, doubled: false, ..E5_11 };
const LEGACY: Era = Era { changes: false, legacy: true, ..SPEAKS };
const LEGACY_5_10: Era = Era { legacy: true, ..E5_10 };

/// One thing that happens. Frames are numbers of places that have something of everything.
#[derive(Clone, Debug)]
enum Op {
    Fault { vm: u8, vcpu: u8, place: u8, write: bool },
    Mmio { vm: u8, place: u8 },
    Unmap { vm: u8, place: u8, pages: u8 },
    Protect { vm: u8, place: u8, pages: u8 },
    Age { vm: u8, place: u8 },
    Touch { vm: u8, place: u8 },
    ZapAll { vm: u8 },
    Teardown { vm: u8, steps: u8 },
    Split { vm: u8, place: u8 },
    Recover { vm: u8, place: u8 },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let vm = 0..2u8;
    let op = prop_oneof![
        12 => (vm.clone(), 0..2u8, 0..48u8, any::<bool>())
            .prop_map(|(vm, vcpu, place, write)| Op::Fault { vm, vcpu, place, write }),
        2 => (vm.clone(), 0..4u8).prop_map(|(vm, place)| Op::Mmio { vm, place }),
        4 => (vm.clone(), 0..48u8, 1..6u8).prop_map(|(vm, place, pages)| Op::Unmap { vm, place, pages }),
        3 => (vm.clone(), 0..48u8, 1..12u8).prop_map(|(vm, place, pages)| Op::Protect { vm, place, pages }),
        1 => (vm.clone(), 0..48u8).prop_map(|(vm, place)| Op::Age { vm, place }),
        2 => (vm.clone(), 0..48u8).prop_map(|(vm, place)| Op::Touch { vm, place }),
        1 => vm.clone().prop_map(|vm| Op::ZapAll { vm }),
        3 => (vm.clone(), 1..4u8).prop_map(|(vm, steps)| Op::Teardown { vm, steps }),
        1 => (vm.clone(), 0..48u8).prop_map(|(vm, place)| Op::Split { vm, place }),
        1 => (vm, 0..48u8).prop_map(|(vm, place)| Op::Recover { vm, place }),
    ];
    prop::collection::vec(op, 1..160)
}

/// Frame of a place: two stretches of small pages, two of huge ones, one far up.
fn frame(place: u8) -> u64 {
    let n = u64::from(place % 12);
    match place / 12 {
        0 => n,
        1 => 0x200 + n,
        2 => 0x400 + n,
        _ => 0x4_0000 + n * 0x200,
    }
}

/// Whether the host backs the 2 MiB around a frame with one page.
fn huge(gfn: u64) -> bool {
    (0x400..0x600).contains(&gfn) || gfn == 0x4_0200
}

#[derive(Debug)]
struct Root {
    page: u64,
    valid: bool,
}

struct Vm {
    roots: Vec<Root>,
    /// How often the backing of each stretch of 512 frames changed.
    moved: BTreeMap<u64, u64>,
}

struct Kernel {
    era: Era,
    l: Layout,
    trace: Trace,
    ts: u64,
    mem: BTreeMap<u64, Box<[u64; 512]>>,
    free: Vec<u64>,
    vms: Vec<Vm>,
}

fn index(level: u8, gfn: u64) -> usize {
    (gfn >> (9 * (u32::from(level) - 1)) & 511) as usize
}

/// First frame of the table of a level.
fn base(level: u8, gfn: u64) -> u64 {
    let bits = 9 * u32::from(level);
    gfn >> bits << bits
}

impl Kernel {
    fn new(era: Era) -> Self {
        let l = LayoutSpec::named(era.layout).and_then(|s| s.resolve()).expect("a layout").layout;
        let mut trace = Trace::default();
        for vm in 0..2u32 {
            let pid = 100 + vm * 10;
            let tids: Vec<u32> = (pid..pid + 4).collect();
            trace.info.tasks.extend(tids.iter().map(|t| TaskInfo {
                tid: *t,
                pid: Some(pid),
                ..TaskInfo::default()
            }));
            trace.info.vms.push(VmGuess { pid: Some(pid), tids, ..VmGuess::default() });
        }
        let vms = (0..2).map(|_| Vm { roots: Vec::new(), moved: BTreeMap::new() }).collect();
        Self { era, l, trace, ts: 1_000_000, mem: BTreeMap::new(), free: Vec::new(), vms }
    }

    fn emit(&mut self, tid: u32, body: Body) {
        self.ts += 1000;
        let cpu = (tid % 3) as u16;
        let comm = StrId::default();
        self.trace.events.push(&Event { ts: self.ts, cpu, tid: Some(tid), pid: None, comm, body });
    }

    /// A page for a table; freed ones are taken first, as the kernel's allocator does.
    fn alloc(&mut self) -> u64 {
        let page = self.free.pop().unwrap_or((0x1_0000 + self.mem.len() as u64) << 12);
        self.mem.insert(page, Box::new([self.l.zapped; 512]));
        page
    }

    fn release(&mut self, page: u64) {
        self.mem.remove(&page);
        self.free.push(page);
    }

    fn main(vm: usize) -> u32 {
        100 + vm as u32 * 10
    }

    fn get_page(&mut self, tid: u32, level: u8, gfn: u64) {
        // The TDP MMU of 5.10 prints the level of the entry that will point to it.
        let printed = if self.era.changes || self.era.legacy || level == 4 { level } else { level + 1 };
        self.emit(tid, Body::GetPage { page: direct_page(printed, gfn), created: true });
    }

    fn at(&self, page: u64, level: u8, gfn: u64) -> u64 {
        self.mem[&page][index(level, gfn)]
    }

    /// Changes an entry, and tells it where this kernel does; `told` is what it tells the new value to be.
    fn change(&mut self, tid: u32, page: u64, level: u8, gfn: u64, new: u64, told: u64) {
        let i = index(level, gfn);
        let old = std::mem::replace(&mut self.mem.get_mut(&page).expect("a table")[i], new);
        if self.era.changes && old != told {
            let bits = 9 * (u32::from(level) - 1);
            let gfn = gfn >> bits << bits;
            self.emit(tid, Body::TdpSpteChanged { as_id: 0, gfn, level, old_spte: old, new_spte: told });
        }
    }

    fn set_event(&mut self, tid: u32, page: u64, level: u8, gfn: u64) {
        let spte = self.at(page, level, gfn);
        let sptep = page + index(level, gfn) as u64 * 8;
        self.emit(tid, fixture::set_spte(level, gfn, spte, sptep));
    }

    fn leaf(&self, vm: usize, level: u8, gfn: u64, write: bool) -> u64 {
        let first = gfn & !0x1ff;
        let moves = self.vms[vm].moved.get(&first).copied().unwrap_or(0);
        let pfn = 0x10_0000 * (vm as u64 + 1) + gfn + moves * 0x8000;
        self.l.leaf(&Leaf {
            pfn,
            r: true,
            w: write,
            x: true,
            xu: true,
            u: true,
            accessed: true,
            dirty: write,
            host_writable: true,
            mmu_writable: true,
            large: level > 1,
            ad_type: AdType::Enabled,
            memtype: 0,
            ignore_pat: false,
            suppress_ve: true,
            encrypted: false,
        })
    }

    fn valid_root(&self, vm: usize) -> Option<u64> {
        self.vms[vm].roots.iter().find(|r| r.valid).map(|r| r.page)
    }

    /// The valid root, which a vCPU makes before it enters the guest.
    fn root(&mut self, vm: usize, tid: u32) -> u64 {
        if let Some(r) = self.vms[vm].roots.iter().find(|r| r.valid) {
            return r.page;
        }
        let page = self.alloc();
        self.vms[vm].roots.insert(0, Root { page, valid: true });
        self.get_page(tid, 4, 0);
        page
    }

    /// The table a fault works in, made on the way; `None` where a huge page is met.
    fn walk(&mut self, vm: usize, tid: u32, gfn: u64, down_to: u8) -> Result<u64, (u64, u8)> {
        let mut page = self.root(vm, tid);
        for level in (down_to + 1..=4).rev() {
            let e = self.at(page, level, gfn);
            page = match self.l.state(e, level) {
                Is::Table => self.child(e),
                Is::Present => return Err((page, level)),
                _ => {
                    let child = self.alloc();
                    self.get_page(tid, level - 1, base(level - 1, gfn));
                    let link = self.l.table(child >> 12, AdType::Enabled);
                    self.change(tid, page, level, gfn, link, link);
                    child
                }
            };
        }
        Ok(page)
    }

    fn child(&self, link: u64) -> u64 {
        link & self.l.masks.base_addr_mask
    }

    fn fault(&mut self, vm: usize, vcpu: u32, gfn: u64, write: bool) {
        let tid = Self::main(vm) + 1 + vcpu;
        self.root(vm, tid);
        self.exit(tid, gfn, write);
        let level = if huge(gfn) { 2 } else { 1 };
        let (page, level) = match self.walk(vm, tid, gfn, level) {
            Ok(page) if level == 2 && self.l.state(self.at(page, 2, gfn), 2) == Is::Table => {
                (self.child(self.at(page, 2, gfn)), 1)
            }
            Ok(page) => (page, level),
            Err(at) => at,
        };
        let old = self.at(page, level, gfn);
        let bits = 9 * (u32::from(level) - 1);
        let first = gfn >> bits << bits;
        let new = self.leaf(vm, level, first, write);
        match self.l.state(old, level) {
            Is::Present if old & 2 != 0 || !write => {
                self.emit(tid, Body::SpteRequested { gfn, pfn: old >> 12 & 0xff_ffff, level, access: None });
                if self.era.changes || !self.era.legacy {
                    // Another vCPU was faster.
                    self.set_event(tid, page, level, first);
                }
            }
            Is::Present if self.era.fast => {
                let fixed = old | 2 | self.l.masks.dirty_mask;
                self.mem.get_mut(&page).expect("a table")[index(level, gfn)] = fixed;
                self.emit(
                    tid,
                    Body::FastPageFault {
                        vcpu,
                        cr2_or_gpa: gfn << 12,
                        error_code: 7,
                        sptep: None,
                        old_spte: old,
                        new_spte: fixed,
                        result: FastPfResult::Fixed,
                    },
                );
            }
            _ => {
                self.emit(tid, Body::SpteRequested { gfn, pfn: new >> 12 & 0xff_ffff, level, access: None });
                if self.era.doubled && self.era.layout == "5.11/npt" {
                    self.set_event(tid, page, level, first);
                }
                self.change(tid, page, level, gfn, new, new);
                if self.era.doubled && self.era.layout != "5.11/npt" {
                    self.set_event(tid, page, level, first);
                }
                self.set_event(tid, page, level, first);
            }
        }
        self.enter(tid, vcpu);
    }

    fn exit(&mut self, tid: u32, gfn: u64, write: bool) {
        self.emit(tid, fixture::exit());
        self.emit(tid, fixture::nested_fault(gfn, 4 | u64::from(write) << 1));
    }

    fn enter(&mut self, tid: u32, vcpu: u32) {
        self.emit(tid, fixture::entry(vcpu));
    }

    fn mmio(&mut self, vm: usize, gfn: u64) {
        let tid = Self::main(vm) + 1;
        self.root(vm, tid);
        self.exit(tid, gfn, true);
        if let Ok(page) = self.walk(vm, tid, gfn, 1) {
            let new = self.l.mmio(gfn, 6, 4);
            let mark = Body::MarkMmioSpte { sptep: None, gfn, access: 6, generation: 4 };
            let early = self.era.layout == "5.11/npt" || !self.era.changes;
            if self.l.is_mmio(self.at(page, 1, gfn)) {
                self.emit(tid, Body::HandleMmioPageFault { addr: 0, gfn, access: 6 });
            } else {
                if early {
                    self.emit(tid, mark);
                }
                self.change(tid, page, 1, gfn, new, new);
                if !early {
                    self.emit(tid, mark);
                }
                if !self.era.notifiers {
                    self.set_event(tid, page, 1, gfn);
                }
            }
        }
        self.enter(tid, 0);
    }

    /// Present leaves below a table: page, level, frame.
    fn leaves(&self, page: u64, level: u8, gfn: u64, out: &mut Vec<(u64, u8, u64)>) {
        for (i, e) in self.mem[&page].iter().enumerate() {
            let at = gfn + ((i as u64) << (9 * (u32::from(level) - 1)));
            match self.l.state(*e, level) {
                Is::Table => self.leaves(self.child(*e), level - 1, at, out),
                Is::Present | Is::Mmio => out.push((page, level, at)),
                _ => {}
            }
        }
    }

    fn each(&mut self, vm: usize, valid: bool, lo: u64, hi: u64) -> Vec<(u64, u8, u64, u64)> {
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

    fn unmap(&mut self, vm: usize, gfn: u64, pages: u64) {
        let tid = Self::main(vm);
        if self.era.notifiers {
            let hva = 0x7f00_0000_0000 + (gfn << 12);
            self.emit(tid, Body::UnmapHvaRange { start: hva, end: hva + (pages << 12) });
        }
        for (p, l, g, _) in self.each(vm, false, gfn, gfn + pages) {
            self.change(tid, p, l, g, self.l.zapped, self.l.zapped);
        }
        // The host maps other pages there from now on.
        for first in [gfn & !0x1ff, (gfn + pages - 1) & !0x1ff] {
            *self.vms[vm].moved.entry(first).or_default() += 1;
        }
        self.emit(tid, Body::UserspaceExit { reason: 1, errno: 0 });
    }

    fn protect(&mut self, vm: usize, gfn: u64, pages: u64) {
        let tid = Self::main(vm);
        for (p, l, g, e) in self.each(vm, true, gfn, gfn + pages) {
            if e & 2 != 0 {
                let new = e & !2 & !self.l.masks.dirty_mask;
                self.change(tid, p, l, g, new, new);
            }
        }
        self.emit(tid, Body::UserspaceExit { reason: 1, errno: 0 });
    }

    fn age(&mut self, vm: usize, gfn: u64, young: bool) {
        let a = self.l.masks.accessed_mask;
        for (p, l, g, e) in self.each(vm, false, gfn, gfn + 1) {
            if young {
                // By the CPU: no event.
                self.mem.get_mut(&p).expect("a table")[index(l, g)] = e | a;
            } else if e & a != 0 {
                self.change(Self::main(vm), p, l, g, e & !a, e & !a);
            }
        }
    }

    fn zap_all(&mut self, vm: usize) {
        let tid = Self::main(vm) + 3;
        // The lock that this is done under: what was obsolete before is gone by now.
        self.teardown(vm, usize::MAX);
        self.emit(tid, Body::ZapAllFast { mmu_valid_gen: 0, mmu_used_pages: 0 });
        if self.era.in_place && self.era.changes {
            if let Some(root) = self.valid_root(vm) {
                self.clear(tid, root, usize::MAX);
            }
            return;
        }
        for r in &mut self.vms[vm].roots {
            r.valid = false;
        }
        if self.era.legacy {
            self.teardown(vm, usize::MAX);
        }
    }

    /// Zaps what a root points to, so many tables of level 2 at most; returns whether it is empty.
    fn clear(&mut self, tid: u32, root: u64, mut steps: usize) -> bool {
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
                self.unlink(tid, p3, 3, g4 + (j << 18));
            }
            self.unlink(tid, root, 4, g4);
        }
        true
    }

    /// Cuts the link to a table and frees it with all that is below.
    fn unlink(&mut self, tid: u32, page: u64, level: u8, gfn: u64) {
        let child = self.child(self.at(page, level, gfn));
        let told = if self.era.freezes { self.l.removed.expect("frozen") } else { self.l.zapped };
        self.change(tid, page, level, gfn, self.l.zapped, told);
        self.remove(tid, child, level - 1, base(level - 1, gfn));
    }

    fn remove(&mut self, tid: u32, page: u64, level: u8, gfn: u64) {
        if self.era.changes || self.era.legacy {
            self.emit(tid, Body::PrepareZapPage { page: direct_page(level, gfn) });
        }
        for i in 0..512u64 {
            let at = gfn + (i << (9 * (u32::from(level) - 1)));
            let e = self.at(page, level, at);
            // 5.11 clears what is there; later kernels freeze all, empty ones too.
            let told = self.l.removed.unwrap_or(self.l.zapped);
            self.change(tid, page, level, at, told, told);
            if self.l.state(e, level) == Is::Table {
                self.remove(tid, self.child(e), level - 1, at);
            }
        }
        self.release(page);
    }

    fn teardown(&mut self, vm: usize, steps: usize) {
        let tid = Self::main(vm) + 3;
        while let Some(i) = self.vms[vm].roots.iter().position(|r| !r.valid) {
            let root = self.vms[vm].roots[i].page;
            if !self.clear(tid, root, steps) {
                return;
            }
            self.vms[vm].roots.remove(i);
            self.release(root);
        }
    }

    fn split(&mut self, vm: usize, gfn: u64) {
        if !self.era.fast {
            return;
        }
        let tid = Self::main(vm);
        let hit = self.each(vm, true, gfn, gfn + 1).into_iter().find(|(_, l, ..)| *l == 2);
        let Some((page, _, first, e)) = hit else { return };
        let child = self.alloc();
        self.get_page(tid, 1, first);
        for i in 0..512 {
            self.mem.get_mut(&child).expect("a table")[i] = (e & !self.l.large) + ((i as u64) << 12);
        }
        let link = self.l.table(child >> 12, AdType::Enabled);
        self.change(tid, page, 2, first, link, link);
        self.emit(tid, Body::SplitHugePage { gfn: first, spte: e, level: 2, errno: 0 });
    }

    fn recover(&mut self, vm: usize, gfn: u64) {
        if !huge(gfn) {
            return;
        }
        let tid = Self::main(vm);
        let first = gfn & !0x1ff;
        let Some(mut page) = self.valid_root(vm) else { return };
        for level in [4, 3] {
            let e = self.at(page, level, gfn);
            if self.l.state(e, level) != Is::Table {
                return;
            }
            page = self.child(e);
        }
        let e = self.at(page, 2, first);
        if self.l.state(e, 2) != Is::Table {
            return;
        }
        if self.era.recovers {
            let new = self.leaf(vm, 2, first, false);
            self.change(tid, page, 2, first, new, new);
            self.remove(tid, self.child(e), 1, first);
        } else {
            self.unlink(tid, page, 2, first);
        }
        self.emit(tid, Body::UserspaceExit { reason: 1, errno: 0 });
    }

    fn run(&mut self, ops: &[Op]) {
        for op in ops {
            match *op {
                Op::Fault { vm, vcpu, place, write } => {
                    self.fault(usize::from(vm), u32::from(vcpu), frame(place), write);
                }
                Op::Mmio { vm, place } => self.mmio(usize::from(vm), 0xfec0 + u64::from(place)),
                Op::Unmap { vm, place, pages } => self.unmap(usize::from(vm), frame(place), pages.into()),
                Op::Protect { vm, place, pages } => self.protect(usize::from(vm), frame(place), pages.into()),
                Op::Age { vm, place } => self.age(usize::from(vm), frame(place), false),
                Op::Touch { vm, place } => self.age(usize::from(vm), frame(place), true),
                Op::ZapAll { vm } => self.zap_all(usize::from(vm)),
                Op::Teardown { vm, steps } => self.teardown(usize::from(vm), steps.into()),
                Op::Split { vm, place } => self.split(usize::from(vm), frame(place)),
                Op::Recover { vm, place } => self.recover(usize::from(vm), frame(place)),
            }
        }
        let n = self.trace.events.len();
        self.trace.info.events = n as u64;
        self.trace.info.last_ts = self.ts;
    }

    fn still(&self, v: u64) -> u64 {
        if self.l.is_shadow_present(v) {
            v & !(self.l.masks.accessed_mask | self.l.masks.dirty_mask)
        } else if self.l.is_mmio(v) {
            v
        } else {
            // Empty or frozen: no leaf either way.
            0
        }
    }

    fn replay(&self, trace: &Trace) -> Timeline {
        let spec = LayoutSpec::named(self.era.layout).expect("a layout");
        replay(trace, &ReplayOptions { layout: LayoutOverride { spec }, ..ReplayOptions::default() })
    }

    /// The leaves of all trees: VM, level, frame and value.
    fn truth(&self) -> Vec<(u16, u8, u64, u64)> {
        let mut out = Vec::new();
        for (vm, v) in self.vms.iter().enumerate() {
            let mut all = Vec::new();
            v.roots.iter().for_each(|r| self.leaves(r.page, 4, 0, &mut all));
            out.extend(all.into_iter().map(|(p, l, g)| (vm as u16, l, g, self.still(self.at(p, l, g)))));
        }
        out.sort_unstable();
        out
    }

    /// What the replay calls a fact and the model does not hold.
    fn false_facts(&self, t: &Timeline) -> Vec<String> {
        t.state_at(t.range().1, &StateFilter::default())
            .into_iter()
            .filter_map(|(e, s)| {
                let (sptep, value) = (e.sptep?, s.spte?);
                let held = self.mem.get(&(sptep & !0xfff)).map(|p| p[(sptep >> 3 & 511) as usize]);
                // What was torn down is frozen until its memory is freed, which is some time later.
                let dying = held.is_none() && s.state == State::Removed;
                let right = dying || held.is_some_and(|h| self.still(h) == self.still(value));
                (s.certainty <= Certainty::Observed && !right).then(|| {
                    format!("{e:x?} {:x?} {} {:?}, model {held:x?}", s.spte, s.state.name(), s.reason)
                })
            })
            .collect()
    }
}

/// A trace without what `lose` says, noticed by each CPU with its next event (or at the end); the first `late` events unnoticed.
fn without(trace: &Trace, late: usize, lose: impl Fn(usize) -> bool) -> Trace {
    let mut events = EventStore::new();
    let mut lost = BTreeMap::<u16, u64>::new();
    let record =
        |e: Event, count| Event { tid: None, body: Body::Lost { count: Some(count), event: None }, ..e };
    for (i, e) in trace.events.iter().enumerate().skip(late) {
        if lose(i) {
            *lost.entry(e.cpu).or_default() += 1;
            continue;
        }
        if let Some(n) = lost.remove(&e.cpu) {
            events.push(&record(e, n));
        }
        events.push(&e);
    }
    if let Some(last) = trace.events.iter().last() {
        for (cpu, n) in lost {
            events.push(&record(Event { cpu, ..last }, n));
        }
    }
    let mut info = trace.info.clone();
    info.events = events.len() as u64;
    Trace { info, strings: trace.strings.clone(), events }
}

fn exact(era: Era, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut k = Kernel::new(era);
    k.run(ops);
    let t = k.replay(&k.trace);
    let mut ours: Vec<(u16, u8, u64, u64)> = t
        .state_at(t.range().1, &StateFilter::default())
        .into_iter()
        .filter(|(_, s)| matches!(s.state, State::Present | State::Mmio))
        .map(|(e, s)| (e.vm.0, e.level, e.gfn, k.still(s.spte.unwrap_or(0))))
        .collect();
    ours.sort_unstable();
    prop_assert_eq!(&ours, &k.truth(), "{:x?} and {:x?}", ours, k.truth());
    prop_assert_eq!(k.false_facts(&t), Vec::<String>::new());
    // The state at a moment is what replaying until then gives.
    let n = k.trace.events.len();
    if n > 8 {
        let part = without(&k.trace, 0, |_| false);
        let mut events = EventStore::new();
        part.events.range(0..n / 2).for_each(|e| events.push(&e));
        let at = events.ts(events.len() - 1);
        let half = k.replay(&Trace { events, ..part });
        let state = |t: &Timeline| {
            let mut v: Vec<(VmId, u8, u64, Option<u64>, State)> = t
                .state_at(at, &StateFilter::default())
                .into_iter()
                .map(|(e, s)| (e.vm, e.level, e.gfn, s.spte, s.state))
                .filter(|x| matches!(x.4, State::Present | State::Mmio | State::Table))
                .collect();
            v.sort_unstable_by_key(|x| (x.0, x.1, x.2, x.3));
            v
        };
        prop_assert_eq!(state(&t), state(&half));
    }
    Ok(())
}

fn honest(era: Era, ops: &[Op], seed: u64) -> Result<(), TestCaseError> {
    let mut k = Kernel::new(era);
    k.run(ops);
    let n = k.trace.events.len();
    let mix = |i: usize| {
        let mut x = (i as u64 ^ seed.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^= x >> 29;
        x.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
    };
    let at = seed as usize % n.max(1);
    let cpus: Vec<u16> = k.trace.events.iter().map(|e| e.cpu).collect();
    let cut = match seed % 5 {
        0 => without(&k.trace, 0, |_| false),
        1 => without(&k.trace, 0, |i| mix(i) % 16 == 0),
        2 => without(&k.trace, 0, |i| i >= at && i < at + n / 6),
        3 => without(&k.trace, 0, |i| i >= at && i < at + n / 3 && u64::from(cpus[i]) == seed / 5 % 3),
        _ => without(&k.trace, at, |_| false),
    };
    prop_assert_eq!(k.false_facts(&k.replay(&cut)), Vec::<String>::new());
    Ok(())
}

/// Enough to find what can be found in seconds; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(96);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn exact_5_11(ops in ops()) { exact(E5_11, &ops)?; }
    #[test]
    fn exact_5_12(ops in ops()) { exact(E5_12, &ops)?; }
    #[test]
    fn exact_5_13_to_6_9(ops in ops()) { exact(SPEAKS, &ops)?; }
    #[test]
    fn exact_6_10_to_6_12(ops in ops()) { exact(E6_10, &ops)?; }
    #[test]
    fn exact_6_13(ops in ops()) { exact(E6_13, &ops)?; }
    #[test]
    fn honest_5_10(ops in ops(), seed in any::<u64>()) { honest(E5_10, &ops, seed)?; }
    #[test]
    fn honest_legacy(ops in ops(), seed in any::<u64>()) { honest(LEGACY, &ops, seed)?; }
    #[test]
    fn honest_legacy_5_10(ops in ops(), seed in any::<u64>()) { honest(LEGACY_5_10, &ops, seed)?; }
    #[test]
    fn honest_after_losses_5_11(ops in ops(), seed in any::<u64>()) { honest(E5_11, &ops, seed)?; }
    #[test]
    fn honest_after_losses_6_1(ops in ops(), seed in any::<u64>()) { honest(SPEAKS, &ops, seed)?; }
    #[test]
    fn honest_after_losses_6_12(ops in ops(), seed in any::<u64>()) { honest(E6_10, &ops, seed)?; }
    #[test]
    fn honest_after_losses_6_18(ops in ops(), seed in any::<u64>()) { honest(E6_13, &ops, seed)?; }
}
