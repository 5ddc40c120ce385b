//! The rule `guest-reserved-bit`: a walk of the guest's own page tables met a reserved bit.

use super::moment::At;
use super::{Finding, Rule, Seen, Severity, counted};
use mmuscope_trace::Body;
use rustc_hash::FxHashMap as HashMap;

/// RSVD in a #PF error code.
const RSVD: u32 = 8;

/// The frame in an entry and in an address, without the reserved bits that mark MMIO.
const FRAME: u64 = ((1 << 46) - 1) & !0xfff;

pub(super) static RULE: Rule = Rule {
    id: "guest-reserved-bit",
    severity: Severity::Warning,
    seen: "`kvm_mmu_walker_error` with RSVD (bit 3): KVM walked the guest's page tables and found a reserved bit set. An entry that holds the frame \
           it was looked up for is left out: so the MMIO SPTEs of a hypervisor in the guest look, which have reserved bits on purpose",
    why: "an entry of the guest's own tables is no valid one: its address is wider than the guest's MAXPHYADDR, NX is set while EFER.NX is off, or \
          the table was overwritten. The guest gets a #PF with RSVD (a nested guest an EPT misconfiguration), which guest kernels report as \
          corrupted page tables",
    remedy: "compare the guest's MAXPHYADDR (CPUID 0x80000008) with what the guest believes, above all after a migration between hosts; else look \
             for what overwrites the guest's tables",
    refuted: "the guest sets the bit on purpose, as hypervisors do for their own MMIO entries: then these come from a nested hypervisor",
    find,
};

/// A walk that failed.
#[derive(Clone, Copy, Debug)]
struct Failed {
    ts: u64,
    event: u32,
    vm: u16,
    addr: Option<u64>,
    /// The last entry that was read: value and level.
    entry: Option<(u64, u32)>,
    pferr: u32,
}

/// Walks of the guest's tables.
#[derive(Debug, Default)]
pub(super) struct Walks {
    open: HashMap<u32, (u64, Option<(u64, u32)>)>,
    failed: Vec<Failed>,
}

impl Walks {
    pub(super) fn event(&mut self, at: &At<'_>, body: &Body) {
        match *body {
            Body::PagetableWalk { addr, .. } => {
                self.open.insert(at.tid, (addr, None));
            }
            Body::PagingElement { pte, level } => {
                if let Some(walk) = self.open.get_mut(&at.tid) {
                    walk.1 = Some((pte, level));
                }
            }
            Body::WalkerError { pferr } => {
                let walk = self.open.remove(&at.tid);
                let (addr, entry) = (walk.map(|w| w.0), walk.and_then(|w| w.1));
                let mmio = addr.zip(entry).is_some_and(|(a, (pte, _))| pte & FRAME == a & FRAME);
                if pferr & RSVD != 0 && !mmio {
                    self.failed.push(Failed { ts: at.ts, event: at.event, vm: at.vm, addr, entry, pferr });
                }
            }
            _ => {}
        }
    }
}

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let one = |vm: u16| {
        let of: Vec<&Failed> = seen.noted.walks.failed.iter().filter(|f| f.vm == vm).collect();
        let first = of.first()?;
        let at = first.addr.map_or_else(String::new, |a| format!(" for {a:#x}"));
        let entry = first
            .entry
            .map_or_else(String::new, |(v, level)| format!(", in the entry {v:#x} of level {level}"));
        let title = format!(
            "{} of the guest's own page tables met a reserved bit; the first{at}{entry} (walk error {:#x})",
            counted(of.len() as u64, "walk"),
            first.pferr
        );
        let mut out = Finding::new(&RULE, title);
        out.vm = Some(vm);
        out.see_all(of.iter().map(|f| (f.ts, f.event)));
        Some(out)
    };
    seen.vms().filter_map(one).collect()
}
