//! Snapshots of memory that is made by hand, with structures as two kinds of kernels have them.

use std::collections::BTreeMap;

use mmuscope_snapshot::{Mmu, Slot, Table, Vcpu, unpack};

use mmuscope_snapshot::Piece;

use super::shape::Shape;
use super::shot::{Shot, read};
use super::tables::Bits;
use crate::kcore::Memory;
use crate::types::Types;
use crate::types::tests::Made;

/// Kernel addresses of the map of all RAM, and of other memory.
const RAM: u64 = 0xffff_8880_0000_0000;
const RAM_SIZE: u64 = 64 << 20;
const OTHER: u64 = 0xffff_c900_0000_0000;

/// Kernel memory: pages by address. Everything else cannot be read.
#[derive(Default)]
struct Fake {
    pages: BTreeMap<u64, Box<[u8; 4096]>>,
}

impl Fake {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        for (i, b) in bytes.iter().enumerate() {
            let a = at + i as u64;
            let page = self.pages.entry(a & !0xfff).or_insert_with(|| Box::new([0; 4096]));
            page[(a & 0xfff) as usize] = *b;
        }
    }

    fn word(&mut self, at: u64, v: u64) {
        self.put(at, &v.to_le_bytes());
    }

    fn half(&mut self, at: u64, v: u32) {
        self.put(at, &v.to_le_bytes());
    }

    /// A list: the head and the members, linked in a circle.
    fn ring(&mut self, nodes: &[u64]) {
        for (i, n) in nodes.iter().enumerate() {
            self.word(*n, nodes[(i + 1) % nodes.len()]);
            self.word(n + 8, nodes[(i + nodes.len() - 1) % nodes.len()]);
        }
    }
}

impl Memory for Fake {
    fn read(&self, virt: u64, to: &mut [u8]) -> bool {
        to.iter_mut().enumerate().all(|(i, b)| {
            let a = virt.wrapping_add(i as u64);
            self.pages.get(&(a & !0xfff)).is_some_and(|p| {
                *b = p[(a & 0xfff) as usize];
                true
            })
        })
    }

    fn direct(&self, phys: u64) -> Option<u64> {
        (phys < RAM_SIZE).then_some(RAM.wrapping_add(phys))
    }

    fn phys(&self, virt: u64) -> Option<u64> {
        virt.checked_sub(RAM).filter(|p| *p < RAM_SIZE)
    }
}

/// Structures as they are since 5.17: slots in a tree, vCPUs in an xarray.
fn modern() -> Vec<u8> {
    let mut m = Made::new();
    m.add("list_head", 16, &[("next", "u64", 0), ("prev", "u64", 8)])
        .add("rb_root", 8, &[("rb_node", "u64", 0)])
        .add("rb_node", 24, &[("parent", "u64", 0), ("rb_right", "u64", 8), ("rb_left", "u64", 16)])
        .add("xarray", 16, &[("xa_flags", "u32", 4), ("xa_head", "u64", 8)])
        .add("xa_node", 576, &[("shift", "u8", 0), ("slots", "u64[64]", 40)])
        .add("kvm_arch", 64, &[("active_mmu_pages", "list_head", 0), ("tdp_mmu_roots", "list_head", 32)])
        .add("kvm_memslots", 32, &[("gfn_tree", "rb_root", 8), ("node_idx", "u32", 16)])
        .add(
            "kvm_memory_slot",
            128,
            &[
                ("gfn_node", "rb_node[2]", 0),
                ("base_gfn", "u64", 48),
                ("npages", "u64", 56),
                ("userspace_addr", "u64", 64),
                ("flags", "u32", 72),
                ("id", "u16", 76),
            ],
        )
        .add(
            "kvm",
            256,
            &[
                ("memslots", "u64[2]", 0),
                ("vcpu_array", "xarray", 16),
                ("vm_list", "list_head", 32),
                ("arch", "kvm_arch", 64),
                ("userspace_pid", "u32", 128),
            ],
        )
        .add("upid", 16, &[("nr", "u32", 0), ("ns", "u64", 8)])
        .add("pid", 64, &[("numbers", "upid[1]", 48)])
        .add("kvm_vcpu", 64, &[("vcpu_id", "u32", 8), ("pid", "u64", 16)])
        .add("role", 4, &[("level", "u8", 0), ("direct", "u8", 1), ("invalid", "u8", 2), ("smm", "u8", 3)])
        .add(
            "kvm_mmu_page",
            64,
            &[
                ("link", "list_head", 0),
                ("role", "role", 16),
                ("gfn", "u64", 24),
                ("spt", "u64", 32),
                ("shadowed_translation", "u64", 40),
            ],
        );
    m.bytes()
}

mod large;

const VM_LIST: u64 = OTHER;
const KVM: u64 = OTHER + 0x1000;
const ROOT_SP: u64 = OTHER + 0x2000;
const SHADOW_SP: u64 = OTHER + 0x3000;

/// A VM with two slots, two vCPUs, a TDP tree of three tables and one shadow page.
fn host() -> Fake {
    let mut f = Fake::default();
    f.ring(&[VM_LIST, KVM + 32]);
    f.half(KVM + 128, 4242);
    // Two slots in the tree of address space 0, linked by their second node.
    let (slots, a, b) = (OTHER + 0x4000, OTHER + 0x4100, OTHER + 0x4200);
    f.word(KVM, slots);
    f.word(slots + 8, a + 24);
    f.half(slots + 16, 1);
    f.word(a + 24 + 8, b + 24);
    for (at, gfn, id) in [(a, 0u64, 1u32), (b, 0x100, 2)] {
        f.word(at + 48, gfn);
        f.word(at + 56, 0x100);
        f.word(at + 64, 0x7f00_0000_0000 + (gfn << 12));
        f.half(at + 72, 1);
        f.half(at + 76, id);
    }
    // Two vCPUs in a node of the xarray; the second never ran.
    let (node, v0, v1, pid) = (OTHER + 0x5000, OTHER + 0x5400, OTHER + 0x5500, OTHER + 0x5600);
    f.word(KVM + 16 + 8, node + 2);
    f.put(node, &[0]);
    f.word(node + 40, v0);
    f.word(node + 48, v1);
    f.put(node + 552, &[0; 24]);
    f.word(v0 + 16, pid);
    f.half(v1 + 8, 1);
    f.word(v1 + 16, 0);
    f.half(pid + 48, 777);
    f.put(pid + 60, &[0; 4]);
    // Root at page 0x10000, level 2 table below, then a level 1 table.
    f.ring(&[KVM + 64 + 32, ROOT_SP]);
    f.ring(&[KVM + 64, SHADOW_SP]);
    f.put(ROOT_SP + 16, &[3, 1, 0, 0]);
    f.word(ROOT_SP + 24, 0);
    f.word(ROOT_SP + 32, RAM + 0x10000);
    f.put(SHADOW_SP + 16, &[1, 0, 0, 1]);
    f.word(SHADOW_SP + 24, 0x99);
    f.word(SHADOW_SP + 32, RAM + 0x13000);
    f.word(SHADOW_SP + 40, RAM + 0x14000);
    for page in [0x10000u64, 0x11000, 0x12000, 0x13000, 0x14000] {
        f.put(RAM + page, &[0; 4096]);
    }
    f.word(RAM + 0x10000 + 8, 0x11000 | 7);
    f.word(RAM + 0x11000 + 16, 0x12000 | 7);
    // A large page, an entry that is frozen, and an MMIO entry are no links.
    f.word(RAM + 0x11000 + 24, 0x20_0000 | 0x87);
    f.word(RAM + 0x11000 + 32, 0x5a0);
    f.word(RAM + 0x11000 + 40, MMIO.1 | 0x1_3000);
    f.word(RAM + 0x12000 + 8 * 5, 0x15000 | 7);
    f.word(RAM + 0x13000, 0x16000 | 5);
    f.word(RAM + 0x14000, 0x1234 << 12 | 7);
    f
}

const MMIO: (u64, u64) = (1 << 51 | 1, 1 << 51 | 1);

fn snapshot(f: &Fake) -> (Shot, Vec<Piece>) {
    let btf = modern();
    let types = Types::new(&btf, None).expect("a BTF");
    let shape = Shape::of(&types).expect("all members");
    let bits = Bits { mmio: Some(MMIO), not_page: 0 };
    let shot = read(f, &shape, bits, VM_LIST, (&|_| true, None), Some(1));
    let pieces = shot.records.iter().flat_map(|r| unpack(r).expect("a record")).collect();
    (shot, pieces)
}

fn tables(pieces: &[Piece]) -> Vec<&Table> {
    pieces
        .iter()
        .filter_map(|p| match p {
            Piece::Table(t) => Some(&**t),
            _ => None,
        })
        .collect()
}

#[test]
fn a_vm_is_read_with_its_slots_vcpus_and_tables() {
    let (shot, pieces) = snapshot(&host());
    let Some(Piece::Vm(vm)) = pieces.get(1) else { panic!("{pieces:?}") };
    assert_eq!(vm.pid, 4242);
    assert_eq!(vm.vcpus, [Vcpu { number: 0, tid: Some(777) }, Vcpu { number: 1, tid: None }]);
    let slot =
        |id, gfn| Slot { as_id: 0, id, gfn, pages: 0x100, hva: 0x7f00_0000_0000 + (gfn << 12), flags: 1 };
    assert_eq!(vm.slots, [slot(1, 0), slot(2, 0x100)]);
    let t = tables(&pieces);
    let brief: Vec<_> = t.iter().map(|t| (t.page, t.level, t.gfn, t.parent, t.mmu)).collect();
    assert_eq!(
        brief,
        [
            (0x10000, 3, 0, None, Mmu::Tdp),
            (0x11000, 2, 1 << 18, Some((0x10000, 1)), Mmu::Tdp),
            (0x12000, 1, (1 << 18) + 2 * 512, Some((0x11000, 2)), Mmu::Tdp),
            (0x13000, 1, 0x99, None, Mmu::Shadow),
        ]
    );
    assert_eq!(t[2].entries[5], 0x15007);
    assert!(!t[3].direct && t[3].as_id == 1);
    assert_eq!(t[3].gfns[0], 0x1234);
    let Piece::VmEnd { complete: true, notes, .. } = &pieces[pieces.len() - 2] else { panic!("{pieces:?}") };
    assert_eq!(notes.len(), 1, "the slots of SMM are not there: {notes:?}");
    assert_eq!((shot.vms[0].tables, shot.vms[0].torn), (4, 0));
    assert!(shot.to_string().contains("process 4242"), "{shot}");
}

/// Memory in which one word is another one after a page was read.
struct Changing {
    before: Fake,
    /// The page whose reading makes it change.
    page: u64,
    /// Where the word lies, and what it becomes.
    word: (u64, u64),
    changed: std::cell::Cell<bool>,
}

impl Memory for Changing {
    fn read(&self, virt: u64, to: &mut [u8]) -> bool {
        let done = self.before.read(virt, to);
        if virt == self.page {
            self.changed.set(true);
        } else if self.changed.get() && virt == self.word.0 {
            to.copy_from_slice(&self.word.1.to_le_bytes());
        }
        done
    }

    fn direct(&self, phys: u64) -> Option<u64> {
        self.before.direct(phys)
    }

    fn phys(&self, virt: u64) -> Option<u64> {
        self.before.phys(virt)
    }
}

/// What is read of the host's VM where a word becomes another one after a page was read.
fn read_while(page: u64, word: (u64, u64)) -> super::shot::Seen {
    let btf = modern();
    let shape = Shape::of(&Types::new(&btf, None).expect("a BTF")).expect("all members");
    let m = Changing { before: host(), page, word, changed: false.into() };
    let bits = Bits { mmio: Some(MMIO), not_page: 0 };
    read(&m, &shape, bits, VM_LIST, (&|_| true, None), Some(1)).vms.swap_remove(0)
}

#[test]
fn a_table_whose_link_changes_meanwhile_is_left_out() {
    let vm = read_while(RAM + 0x12000, (RAM + 0x11000 + 16, 0));
    assert_eq!((vm.tables, vm.torn), (3, 1));
}

#[test]
fn a_root_that_is_freed_meanwhile_ends_its_tree() {
    // What `list_del_rcu` writes where the entry before was.
    let freed = (ROOT_SP + 8, 0xdead_0000_0000_0122);
    // The shadow page is in another list, and is there each time.
    for (page, tables) in [(RAM + 0x10000, 1), (RAM + 0x11000, 2), (RAM + 0x12000, 3), (0, 4)] {
        let vm = read_while(page, freed);
        assert_eq!((vm.tables, vm.torn), (tables, usize::from(page != 0)), "{page:#x}");
        assert_eq!(vm.complete, page == 0, "{page:#x}");
    }
}

#[test]
fn tables_that_lead_in_circles_and_outside_of_memory_end() {
    let mut f = host();
    // A link to its own root, one outside of RAM, and a list that never comes back to its head.
    f.word(RAM + 0x11000 + 48, 0x10000 | 7);
    f.word(RAM + 0x11000 + 56, RAM_SIZE | 7);
    f.word(SHADOW_SP, SHADOW_SP);
    let (shot, pieces) = snapshot(&f);
    assert_eq!(tables(&pieces).len(), 4);
    assert!(!shot.vms[0].complete);
    // Whatever the words are, reading ends.
    let places: Vec<u64> = f.pages.keys().copied().collect();
    for (i, page) in places.into_iter().enumerate() {
        for at in (0..512u64).step_by(7) {
            let mut g = host();
            g.word(
                page + 8 * at,
                [RAM + 0x10000, KVM, u64::MAX, OTHER + 0x5002, 0x12007][(i + at as usize) % 5],
            );
            let _ = snapshot(&g);
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let mut m = Made::new();
    m.add("kvm", 16, &[("memslots", "u64[2]", 0)]);
    let btf = m.bytes();
    let why = Shape::of(&Types::new(&btf, None).expect("a BTF")).map(drop);
    assert!(why.is_err_and(|w| w.contains("struct kvm")), "the structure is named");
}
