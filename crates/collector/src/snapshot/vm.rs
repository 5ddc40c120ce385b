//! VMs, their vCPUs and memory slots as KVM's memory describes them. [`vms`] lists the VMs; nothing here reads page tables.

use std::collections::HashSet;

use mmuscope_snapshot::{Slot, Vcpu, Vm};

use super::shape::{Shape, SlotSet, VcpuSet};
use crate::host::monotonic;
use crate::kcore::Memory;

/// The most VMs, vCPUs of a VM, and slots of an address space that are read. KVM has no more vCPUs than 4096 and no more slots than 32767.
const MOST_VMS: usize = 4096;
const MOST_VCPUS: usize = 4096;
const MOST_SLOTS: usize = 32768;

/// The addresses of the structures that a list holds, from the address of its head; `link` is where the list's member lies in them.
pub(super) fn list(memory: &impl Memory, head: u64, link: u64, most: usize) -> (Vec<u64>, bool) {
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    let mut at = memory.pointer(head);
    while let Some(node) = at {
        if node == head {
            return (out, true);
        }
        if out.len() >= most || !seen.insert(node) {
            return (out, false);
        }
        out.push(node.wrapping_sub(link));
        at = memory.pointer(node);
    }
    // A head that was never set up is a list of nothing: 5.10 sets up the list of roots only with its TDP MMU.
    let unused = out.is_empty() && memory.number(head, 8) == Some(0);
    (out, unused)
}

/// The addresses of all VMs. `false` if the list could not be followed to its end.
pub(super) fn vms(memory: &impl Memory, s: &Shape, vm_list: u64) -> (Vec<u64>, bool) {
    list(memory, vm_list, s.vm_list, MOST_VMS)
}

/// The process that made a VM.
pub(super) fn pid(memory: &impl Memory, s: &Shape, kvm: u64) -> u32 {
    s.pid.and_then(|f| f.read(memory, kvm)).unwrap_or_default() as u32
}

/// What is known of one VM beside its tables.
pub(super) fn describe(memory: &impl Memory, s: &Shape, kvm: u64, notes: &mut Vec<String>) -> Vm {
    let pid = pid(memory, s, kvm);
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned();
    let mut slots = Vec::new();
    for as_id in 0..s.memslots.1.min(2) {
        match slots_of(memory, s, kvm, as_id) {
            Some(mut found) => slots.append(&mut found),
            None => notes.push(format!("the memory slots of address space {as_id} could not be read")),
        }
    }
    slots.sort_by_key(|x: &Slot| (x.as_id, x.gfn));
    Vm { at: monotonic(), pid, name, vcpus: vcpus(memory, s, kvm), slots }
}

fn slots_of(memory: &impl Memory, s: &Shape, kvm: u64, as_id: u64) -> Option<Vec<Slot>> {
    let set = memory.pointer(kvm.wrapping_add(s.memslots.0 + 8 * as_id))?;
    let addresses = match s.slot_set {
        SlotSet::Array { used, first } => {
            let n = used.read(memory, set)?.min(MOST_SLOTS as u64);
            (0..n).map(|i| set.wrapping_add(first + i * s.slot.size)).collect()
        }
        SlotSet::Tree { root, which, node, node_size } => {
            let node = node + which.read(memory, set)?.min(1) * node_size;
            tree(memory, root.read(memory, set)?)
                .into_iter()
                .map(|n| n.wrapping_sub(node))
                .collect::<Vec<_>>()
        }
    };
    addresses
        .into_iter()
        .map(|a| {
            let x = &s.slot;
            Some(Slot {
                as_id: as_id as u8,
                id: x.id.read(memory, a)? as u16,
                gfn: x.gfn.read(memory, a)?,
                pages: x.pages.read(memory, a)?,
                hva: x.hva.read(memory, a)?,
                flags: x.flags.read(memory, a)? as u32,
            })
        })
        // An array's last place, of no pages, stands for none.
        .filter(|x| x.is_none_or(|x| x.pages > 0))
        .collect()
}

/// The nodes of a red-black tree: after the word with the parent, a node has its right and its left child (include/linux/rbtree_types.h).
fn tree(memory: &impl Memory, root: u64) -> Vec<u64> {
    let (mut out, mut todo, mut seen) = (Vec::new(), vec![root], HashSet::new());
    while let Some(n) = todo.pop() {
        if n >> 47 != 0x1_ffff || out.len() >= MOST_SLOTS || !seen.insert(n) {
            continue;
        }
        out.push(n);
        todo.extend(
            [memory.number(n.wrapping_add(8), 8), memory.number(n.wrapping_add(16), 8)].into_iter().flatten(),
        );
    }
    out
}

fn vcpus(memory: &impl Memory, s: &Shape, kvm: u64) -> Vec<Vcpu> {
    let mut addresses = Vec::new();
    match s.vcpus {
        VcpuSet::Array { at, count } => {
            let n = count.min(MOST_VCPUS as u64);
            addresses.extend((0..n).map_while(|i| memory.pointer(kvm.wrapping_add(at + 8 * i))));
        }
        VcpuSet::Xarray { head, shift, slots } => {
            if let Some(entry) = head.read(memory, kvm) {
                xarray(memory, (shift.at, slots), entry, 0, &mut addresses);
            }
        }
    }
    let mut out: Vec<Vcpu> = addresses
        .into_iter()
        .filter_map(|v| {
            let number = s.vcpu_id.read(memory, v)? as u32;
            let tid = s
                .vcpu_pid
                .and_then(|f| f.pointer(memory, v))
                .and_then(|p| memory.number(p.wrapping_add(s.pid_number?), 4))
                .map(|n| n as u32)
                .filter(|n| *n != 0);
            Some(Vcpu { number, tid })
        })
        .collect();
    out.sort_by_key(|v| v.number);
    out
}

/// The pointers in an xarray: a head with its two low bits `10` points to a node, whose slots hold the same again (include/linux/xarray.h).
fn xarray(memory: &impl Memory, (shift, slots): (u64, u64), entry: u64, depth: u32, out: &mut Vec<u64>) {
    if entry & 3 != 2 {
        if entry.is_multiple_of(4) && entry >> 47 == 0x1_ffff && out.len() < MOST_VCPUS {
            out.push(entry);
        }
        return;
    }
    let node = entry - 2;
    if depth > 4 || node >> 47 != 0x1_ffff || memory.number(node.wrapping_add(shift), 1).is_none() {
        return;
    }
    for i in 0..64 {
        if let Some(e) = memory.number(node.wrapping_add(slots + 8 * i), 8).filter(|e| *e != 0) {
            xarray(memory, (shift, slots), e, depth + 1, out);
        }
    }
}
