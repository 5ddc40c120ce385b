//! [`Shape`]: where the members lie of the structures that a snapshot reads. They come from the kernel's BTF; a structure that it lacks is taken
//! from [`KNOWN`], and each use of it is checked against what the memory holds.

use crate::kcore::Memory;
use crate::types::{Member, Types};

/// A place in a structure: byte offset, first bit, and width in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub at: u64,
    bit: u8,
    width: u8,
}

impl Field {
    const fn bytes(at: u64, bytes: u8) -> Self {
        Self { at, bit: 0, width: bytes * 8 }
    }

    const fn bits(at: u64, bit: u8, width: u8) -> Self {
        Self { at, bit, width }
    }

    fn of(m: Member) -> Self {
        match m.bits {
            (0, 0) => Self { at: m.at, bit: 0, width: (m.size.min(8) * 8) as u8 },
            (bit, width) => Self { at: m.at, bit, width },
        }
    }

    /// Its value in the structure at this address.
    pub(super) fn read(self, memory: &impl Memory, structure: u64) -> Option<u64> {
        let bytes = (usize::from(self.bit) + usize::from(self.width)).div_ceil(8).clamp(1, 8);
        let v = memory.number(structure.checked_add(self.at)?, bytes)? >> self.bit;
        Some(if self.width >= 64 { v } else { v & ((1 << self.width) - 1) })
    }

    /// Its value as a pointer into the kernel's half of the address space.
    pub(super) fn pointer(self, memory: &impl Memory, structure: u64) -> Option<u64> {
        memory.pointer(structure.checked_add(self.at)?)
    }
}

/// How a VM's memory slots are kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum SlotSet {
    /// An array behind the head, with the number of those in use (before 5.17).
    Array { used: Field, first: u64 },
    /// A tree by frame; each slot is in two, of which one is in use (5.17 and later).
    Tree { root: Field, which: Field, node: u64, node_size: u64 },
}

/// How a VM's vCPUs are kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum VcpuSet {
    /// An array of pointers (before 5.16).
    Array { at: u64, count: u64 },
    /// An xarray (5.16 and later): its head, and of its nodes the shift and the 64 pointers.
    Xarray { head: Field, shift: Field, slots: u64 },
}

/// The members of a memory slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotShape {
    pub size: u64,
    pub gfn: Field,
    pub pages: Field,
    pub hva: Field,
    pub flags: Field,
    pub id: Field,
}

/// The members of a `kvm_mmu_page`.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageShape {
    pub link: u64,
    pub gfn: Field,
    pub spt: Field,
    pub level: Field,
    pub direct: Field,
    pub invalid: Field,
    pub guest_mode: Option<Field>,
    pub smm: Field,
    pub mirror: Option<Field>,
    /// The guest frame of each entry: an array of frames (before 6.1), or of words with the frame above 12 bits of access.
    pub frames: Option<(Field, u32)>,
}

/// Where everything lies.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub vm_list: u64,
    pub pid: Option<Field>,
    /// Where the pointers to the slots of each address space lie, and how many there are.
    pub memslots: (u64, u64),
    pub slot_set: SlotSet,
    pub slot: SlotShape,
    pub vcpus: VcpuSet,
    pub vcpu_id: Field,
    pub vcpu_pid: Option<Field>,
    /// The number of a thread in the initial name space, in `struct pid`.
    pub pid_number: Option<u64>,
    pub tdp_roots: Option<u64>,
    pub active: u64,
    pub page: PageShape,
}

/// The structure of a shadow page where the kernel's BTF has none: in 5.10, whose modules have no BTF (arch/x86/kvm/mmu/mmu_internal.h).
const KNOWN: PageShape = PageShape {
    link: 0,
    gfn: Field::bytes(56, 8),
    spt: Field::bytes(64, 8),
    level: Field::bits(52, 0, 4),
    direct: Field::bits(52, 7, 1),
    invalid: Field::bits(53, 3, 1),
    guest_mode: Some(Field::bits(54, 1, 1)),
    smm: Field::bits(55, 0, 8),
    mirror: None,
    frames: Some((Field::bytes(72, 8), 0)),
};

impl Shape {
    /// Finds every member. `Err` names what the BTF lacks.
    pub(super) fn of(t: &Types<'_>) -> Result<Self, String> {
        let need = |structure: &str, path: &str| {
            t.member(structure, path)
                .ok_or_else(|| format!("the kernel's BTF has no member {path} of struct {structure}"))
        };
        let field = |structure: &str, path: &str| need(structure, path).map(Field::of);
        let maybe = |structure: &str, path: &str| t.member(structure, path).map(Field::of);
        let memslots = need("kvm", "memslots")?;
        let slot_set = match maybe("kvm_memslots", "gfn_tree.rb_node") {
            Some(root) => {
                let node = need("kvm_memory_slot", "gfn_node")?;
                SlotSet::Tree {
                    root,
                    which: field("kvm_memslots", "node_idx")?,
                    node: node.at,
                    node_size: node.size / node.count.max(1),
                }
            }
            None => SlotSet::Array {
                used: field("kvm_memslots", "used_slots")?,
                first: need("kvm_memslots", "memslots")?.at,
            },
        };
        let vcpus = if let Some(head) = maybe("kvm", "vcpu_array.xa_head") {
            let slots = need("xa_node", "slots")?.at;
            VcpuSet::Xarray { head, shift: field("xa_node", "shift")?, slots }
        } else {
            let m = need("kvm", "vcpus")?;
            VcpuSet::Array { at: m.at, count: m.count }
        };
        Ok(Self {
            vm_list: need("kvm", "vm_list")?.at,
            pid: maybe("kvm", "userspace_pid"),
            memslots: (memslots.at, memslots.count),
            slot_set,
            slot: SlotShape {
                size: t.size_of("kvm_memory_slot").unwrap_or_default(),
                gfn: field("kvm_memory_slot", "base_gfn")?,
                pages: field("kvm_memory_slot", "npages")?,
                hva: field("kvm_memory_slot", "userspace_addr")?,
                flags: field("kvm_memory_slot", "flags")?,
                id: field("kvm_memory_slot", "id")?,
            },
            vcpus,
            vcpu_id: field("kvm_vcpu", "vcpu_id")?,
            vcpu_pid: maybe("kvm_vcpu", "pid"),
            pid_number: t.member("pid", "numbers").map(|m| m.at),
            tdp_roots: t.member("kvm", "arch.tdp_mmu_roots").map(|m| m.at),
            active: need("kvm", "arch.active_mmu_pages")?.at,
            page: Self::page(t)?,
        })
    }

    fn page(t: &Types<'_>) -> Result<PageShape, String> {
        if t.size_of("kvm_mmu_page").is_none() {
            // Only a kernel that keeps vCPUs in an array is as old as the structure that is known.
            return if t.member("kvm", "vcpus").is_some() {
                Ok(KNOWN)
            } else {
                Err("the kernel's BTF has no struct kvm_mmu_page (kvm.ko without BTF)".into())
            };
        }
        let field = |path: &str| {
            t.member("kvm_mmu_page", path)
                .map(Field::of)
                .ok_or_else(|| format!("the kernel's BTF has no member {path} of struct kvm_mmu_page"))
        };
        let maybe = |path: &str| field(path).ok();
        Ok(PageShape {
            link: field("link")?.at,
            gfn: field("gfn")?,
            spt: field("spt")?,
            level: field("role.level")?,
            direct: field("role.direct")?,
            invalid: field("role.invalid")?,
            guest_mode: maybe("role.guest_mode"),
            smm: field("role.smm")?,
            mirror: maybe("role.is_mirror"),
            frames: maybe("shadowed_translation").map(|f| (f, 12)).or(maybe("gfns").map(|f| (f, 0))),
        })
    }
}
