//! Taking a snapshot: [`take`] finds what it needs of the host and reads every VM into a [`Shot`].

use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader};

use mmuscope_snapshot::{Packer, Piece, SlotList, Vm};

use super::shape::Shape;
use super::tables::{Bits, Walk};
use super::vm;
use crate::host::monotonic;
use crate::kcore::{Kcore, Memory};
use crate::kernelvars::{self, KernelVars};
use crate::scrub::Hidden;
use crate::types::Types;

/// A snapshot, as records for a capture.
#[derive(Clone, Debug, Default)]
pub struct Shot {
    /// The bodies of the records that carry it.
    pub records: Vec<Vec<u8>>,
    /// Each VM that was read.
    pub vms: Vec<Seen>,
    /// What could not be read of the host.
    pub notes: Vec<String>,
    /// How long it took, in nanoseconds.
    pub took: u64,
}

impl fmt::Display for Shot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = mmuscope_units::duration(self.took);
        match self.vms.as_slice() {
            [] => write!(f, "snapshot: no VM runs")?,
            vms => {
                write!(f, "snapshot of KVM's tables in {time}: ")?;
                for (i, v) in vms.iter().enumerate() {
                    let between = if i > 0 { "; " } else { "" };
                    let name = if v.name.is_empty() { String::new() } else { format!(" ({})", v.name) };
                    write!(
                        f,
                        "{between}process {}{name}, {} vCPUs, {} memory slots, {} tables",
                        v.pid, v.vcpus, v.slots, v.tables
                    )?;
                    if !v.complete {
                        f.write_str(", not all")?;
                    }
                    if v.torn > 0 {
                        write!(f, ", {} left out because they changed meanwhile", v.torn)?;
                    }
                }
            }
        }
        self.notes.iter().try_for_each(|n| write!(f, "; {n}"))
    }
}

/// What was read of one VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The process that made it.
    pub pid: u32,
    /// The name of that process.
    pub name: String,
    /// How many vCPUs it has.
    pub vcpus: usize,
    /// How many memory slots it has.
    pub slots: usize,
    /// How many page tables were read.
    pub tables: usize,
    /// How many of them are shadow pages, those of the legacy MMU among them.
    pub shadow: usize,
    /// How many were left out because they changed meanwhile.
    pub torn: usize,
    /// Whether all of its tables were read.
    pub complete: bool,
}

/// The address of a variable of the kernel or of kvm.
fn symbol(name: &str) -> Option<u64> {
    let file = fs::File::open("/proc/kallsyms").ok()?;
    BufReader::new(file).lines().map_while(Result::ok).find_map(|l| {
        let mut w = l.split_ascii_whitespace();
        let (address, _, own) = (w.next()?, w.next()?, w.next()?);
        let of_kvm = matches!(w.next(), None | Some("[kvm]"));
        (own == name && of_kvm).then(|| u64::from_str_radix(address, 16).ok()).flatten().filter(|a| *a != 0)
    })
}

/// The bits that this host's entries have for MMIO and encryption.
fn bits(vars: &KernelVars) -> Bits {
    let mask = |n: &str| vars.masks.get(n).copied();
    let pair = |m: &str, v: &str| Some((mask(m)?, mask(v)?));
    Bits {
        mmio: pair("shadow_mmio_mask", "shadow_mmio_value")
            .or_else(|| mask("shadow_mmio_mask").map(|m| (m, m))),
        not_page: mask("shadow_me_mask").unwrap_or_default() | mask("sme_me_mask").unwrap_or_default(),
    }
}

/// Everything that a snapshot needs of the running host. To find it takes longer than to read a VM, and nothing of it changes while kvm is loaded.
pub(crate) struct Host {
    shape: Shape,
    vm_list: u64,
    core: Kcore<fs::File>,
    bits: Bits,
}

impl Host {
    /// Finds it. `Err` says in words what this host lacks.
    pub(crate) fn find() -> Result<Self, String> {
        if cfg!(not(target_arch = "x86_64")) {
            return Err("page tables are only read on x86-64 hosts".into());
        }
        let core = Kcore::open().map_err(|e| kernelvars::kcore_reason(&e))?;
        let vmlinux = fs::read("/sys/kernel/btf/vmlinux")
            .map_err(|e| format!("/sys/kernel/btf/vmlinux: {e} (kernel without CONFIG_DEBUG_INFO_BTF)"))?;
        let module = fs::read("/sys/kernel/btf/kvm").ok();
        let types = Types::new(&vmlinux, module.as_deref())
            .ok_or("/sys/kernel/btf/vmlinux is not in a form of BTF that is known")?;
        let shape = Shape::of(&types)?;
        let vm_list = symbol("vm_list")
            .ok_or("/proc/kallsyms does not show vm_list (kernel.kptr_restrict, or kvm is not loaded)")?;
        Ok(Self { shape, vm_list, core, bits: bits(&kernelvars::read()) })
    }

    /// Reads the VMs that `wanted` accepts by their process, without names and with moved host addresses if the recording is `hidden`. `all_on` is
    /// when all events of a recording were on that begins with it.
    pub(crate) fn take(
        &self,
        wanted: &dyn Fn(u32) -> bool,
        hidden: Option<Hidden>,
        all_on: Option<u64>,
    ) -> Shot {
        read(&self.core, &self.shape, self.bits, self.vm_list, (wanted, hidden), all_on)
    }

    /// Reads the memory slots of those VMs, and nothing else of them.
    pub(crate) fn slots(&self, wanted: &dyn Fn(u32) -> bool, hidden: Option<Hidden>) -> Shot {
        let Self { shape, vm_list, core, .. } = self;
        let mut pack = Packer::default();
        for kvm in vm::vms(core, shape, *vm_list).0 {
            if !wanted(vm::pid(core, shape, kvm)) {
                continue;
            }
            let mut notes = Vec::new();
            let vm = hide(vm::describe(core, shape, kvm, &mut notes), hidden);
            // What could not be read is not known to be gone.
            if notes.is_empty() {
                for p in &SlotList::pieces(vm.at, vm.pid, &vm.slots) {
                    pack.push(p);
                }
            }
        }
        Shot { records: pack.records(), ..Shot::default() }
    }
}

/// Whether this host allows snapshots. `Err` says in words why not.
pub fn possible() -> Result<(), String> {
    Host::find().map(drop)
}

/// Whether any VM of this host has shadow pages now: of a nested guest, or because its MMU has no other. `false` where that cannot be read.
pub(crate) fn shadow_pages() -> bool {
    let Ok(Host { shape, vm_list, core, .. }) = Host::find() else { return false };
    vm::vms(&core, &shape, vm_list).0.into_iter().any(|kvm| {
        let head = kvm.wrapping_add(shape.active);
        core.pointer(head).is_some_and(|first| first != head)
    })
}

/// A VM as a recording shows it that is `hidden`.
fn hide(mut vm: Vm, hidden: Option<Hidden>) -> Vm {
    if let Some(h) = hidden {
        vm.name.clear();
        vm.slots.iter_mut().for_each(|s| s.hva = h.address(s.hva));
    }
    vm
}

pub(super) fn read(
    memory: &impl Memory,
    shape: &Shape,
    bits: Bits,
    vm_list: u64,
    (wanted, hidden): (&dyn Fn(u32) -> bool, Option<Hidden>),
    all_on: Option<u64>,
) -> Shot {
    let begin = monotonic();
    let mut pack = Packer::default();
    let mut shot = Shot::default();
    pack.push(&Piece::Begin { at: begin, all_on });
    let (vms, whole) = vm::vms(memory, shape, vm_list);
    if !whole {
        shot.notes.push("the list of VMs changed while it was read".into());
    }
    for kvm in vms {
        if !wanted(vm::pid(memory, shape, kvm)) {
            continue;
        }
        let mut notes = Vec::new();
        let mut vm = hide(vm::describe(memory, shape, kvm, &mut notes), hidden);
        let (at, pid, name, vcpus, slots) = (vm.at, vm.pid, vm.name.clone(), vm.vcpus.len(), vm.slots.len());
        let many = if slots > SlotList::MOST { std::mem::take(&mut vm.slots) } else { Vec::new() };
        pack.push(&Piece::Vm(vm));
        if !many.is_empty() {
            for p in &SlotList::pieces(at, pid, &many) {
                pack.push(p);
            }
        }
        let found = Walk::new(memory, shape, bits).run(kvm, &mut |t| pack.push(&Piece::Table(Box::new(t))));
        let (complete, tables, shadow, torn) = (found.complete(), found.tables, found.shadow, found.torn);
        notes.extend(found.notes);
        if torn > 0 {
            let tables = mmuscope_units::counted(torn as u64, "table", "tables");
            notes.push(format!("{tables} changed while being read and left out"));
        }
        pack.push(&Piece::VmEnd { at: monotonic(), complete, notes });
        shot.vms.push(Seen { pid, name, vcpus, slots, tables, shadow, torn, complete });
    }
    let end = monotonic();
    pack.push(&Piece::End { at: end, notes: shot.notes.clone() });
    shot.records = pack.records();
    shot.took = end - begin;
    shot
}
