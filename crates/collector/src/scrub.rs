//! Records that are not taken as they are: those of other VMs are left out, identifying fields are set to zero, and the ids of a CPU that came
//! online later are translated. The main type is [`Sieve`].

use std::collections::{HashMap, HashSet};
use std::io::Read as _;

use crate::ring::kind;
use crate::tracefs::Tracepoint;
use crate::vms;

/// The offset of the pid, and that of the raw bytes, in a sample with our sample_type.
const PID: usize = 16;
const TID: usize = 20;
const RAW: usize = 44;

/// The tasks whose records are kept.
#[derive(Clone, Debug)]
pub(crate) struct Only {
    pub pid: u32,
    /// Kernel threads that work for the VM, or for all processes.
    pub tids: HashSet<u32>,
}

/// What is done to each record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sieve {
    only: Option<Only>,
    /// The bytes of the raw record that are set to zero, by event type.
    zero: HashMap<u16, Vec<(usize, usize)>>,
    /// The offsets of host-virtual addresses in the raw record, by event type.
    addresses: HashMap<u16, Vec<usize>>,
    /// What an anonymised recording does to names and addresses.
    hidden: Option<Hidden>,
}

/// The fields that hold a guest's code addresses or data.
const GUEST_FIELDS: &[&str] =
    &["guest_rip", "rip", "nested_rip", "nested_pgd", "val", "insn", "data", "vmcb"];

/// How host-virtual addresses are hidden: all of a recording are moved by one distance, which is not kept anywhere. What lies beside each other, and
/// which guest memory an mmu_notifier range is, stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hidden {
    distance: u64,
}

impl Hidden {
    /// Huge pages of 2 MiB keep their alignment.
    const STEP: u64 = 2 << 20;
    /// User space ends here on x86-64 with four levels of page tables; what lies above is no address, but the end of everything.
    const USER: u64 = 1 << 47;

    /// A new distance, by chance.
    pub(crate) fn new() -> Self {
        let mut bytes = [0u8; 8];
        let filled = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
        let any = match filled {
            Ok(()) => u64::from_ne_bytes(bytes),
            // Without a source of chance the time of day must do.
            Err(_) => crate::host::monotonic().wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        // 25 bits, more than address space layout randomisation has at this size of step.
        Self { distance: (1 + (any >> 39)) * Self::STEP }
    }

    /// The address as the recording shows it.
    pub(crate) fn address(self, a: u64) -> u64 {
        if a == 0 || a > Self::USER { a } else { a + self.distance }
    }
}

/// The fields of an event that hold host-virtual addresses.
fn addresses(tp: &Tracepoint) -> &'static [&'static str] {
    match tp.name.as_str() {
        "kvm_async_pf_completed" => &["address"],
        n if n.contains("_hva") => &["start", "end", "hva"],
        _ => &["hva"],
    }
}

impl Sieve {
    pub(crate) fn new(only: Option<Only>, hidden: Option<Hidden>, events: &[Tracepoint]) -> Self {
        let (mut zero, mut moved) = (HashMap::new(), HashMap::new());
        if hidden.is_some() {
            for tp in events {
                let at: Vec<usize> = addresses(tp)
                    .iter()
                    .filter_map(|f| tp.field(f))
                    .filter(|f| f.1 == 8)
                    .map(|f| f.0)
                    .collect();
                if !at.is_empty() {
                    moved.insert(tp.id as u16, at);
                }
                let ranges: Vec<_> = GUEST_FIELDS.iter().filter_map(|f| tp.field(f)).collect();
                if !ranges.is_empty() {
                    zero.insert(tp.id as u16, ranges);
                }
            }
        }
        Self { only, zero, addresses: moved, hidden }
    }

    /// The process to which recording is limited, if it is.
    pub(crate) fn only_pid(&self) -> Option<u32> {
        self.only.as_ref().map(|o| o.pid)
    }

    /// How the recording hides names and addresses, if it does.
    pub(crate) fn hidden(&self) -> Option<Hidden> {
        self.hidden
    }

    /// Whether every record may be taken as it is.
    pub(crate) fn open(&self) -> bool {
        self.only.is_none() && self.hidden.is_none()
    }

    /// Changes a record in place; the result is `false` if it is to be left out. `ids` translates event ids.
    pub(crate) fn pass(&mut self, record: &mut [u8], ids: &HashMap<u64, u64>) -> bool {
        let Some(kind) = u32_at(record, 0) else { return false };
        if !ids.is_empty() {
            let at = if kind == kind::SAMPLE { 8 } else { record.len().saturating_sub(8) };
            if let Some(new) = u64_at(record, at).and_then(|old| ids.get(&old)) {
                record[at..at + 8].copy_from_slice(&new.to_ne_bytes());
            }
            if kind == kind::LOST
                && let Some(new) = u64_at(record, 8).and_then(|old| ids.get(&old))
            {
                record[8..16].copy_from_slice(&new.to_ne_bytes());
            }
        }
        match kind {
            kind::SAMPLE => {
                if let (Some(only), Some(pid), Some(tid)) =
                    (&self.only, u32_at(record, PID), u32_at(record, TID))
                    && pid != only.pid
                    && !only.tids.contains(&tid)
                {
                    return false;
                }
                if let Some(hidden) = self.hidden {
                    self.hide(record, hidden);
                }
            }
            kind::COMM => {
                let (Some(pid), Some(tid)) = (u32_at(record, 8), u32_at(record, 12)) else { return false };
                let end = record.len().saturating_sub(32).max(16);
                let Some(name) = record.get_mut(16..end) else { return false };
                if let Some(only) = &mut self.only {
                    let text = name.split(|&b| b == 0).next().unwrap_or_default();
                    if std::str::from_utf8(text).ok().and_then(vms::works_for) == Some(only.pid) {
                        only.tids.insert(tid);
                    }
                    if pid != only.pid && !only.tids.contains(&tid) {
                        return false;
                    }
                }
                if self.hidden.is_some() {
                    anonymous_name(tid, name);
                }
            }
            kind::FORK | kind::EXIT => {
                if let (Some(only), Some(pid), Some(tid)) =
                    (&self.only, u32_at(record, 8), u32_at(record, 16))
                    && pid != only.pid
                    && !only.tids.contains(&tid)
                {
                    return false;
                }
            }
            _ => {}
        }
        true
    }
}

impl Sieve {
    /// Takes out of a sample what an anonymised recording does not show.
    fn hide(&self, record: &mut [u8], hidden: Hidden) {
        let Some(ty) = record.get(RAW..RAW + 2).map(|t| u16::from_ne_bytes([t[0], t[1]])) else { return };
        for &(at, len) in self.zero.get(&ty).into_iter().flatten() {
            if let Some(field) = record.get_mut(RAW + at..RAW + at + len) {
                field.fill(0);
            }
        }
        for &at in self.addresses.get(&ty).into_iter().flatten() {
            if let Some(field) = record.get_mut(RAW + at..RAW + at + 8) {
                let own = field.try_into().map_or(0, u64::from_ne_bytes);
                field.copy_from_slice(&hidden.address(own).to_ne_bytes());
            }
        }
    }
}

/// Writes `task-4242`, or as much of it as fits.
pub(crate) fn anonymous_name(tid: u32, name: &mut [u8]) {
    let new = format!("task-{tid}");
    name.fill(0);
    let room = name.len().saturating_sub(1).min(new.len());
    name[..room].copy_from_slice(&new.as_bytes()[..room]);
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(b.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut r = kind.to_ne_bytes().to_vec();
        r.extend(0u16.to_ne_bytes());
        r.extend(((body.len() + 8) as u16).to_ne_bytes());
        r.extend(body);
        r
    }

    fn sample(id: u64, pid: u32, tid: u32, raw: &[u8]) -> Vec<u8> {
        let mut b = id.to_ne_bytes().to_vec();
        b.extend(pid.to_ne_bytes());
        b.extend(tid.to_ne_bytes());
        b.extend([0; 16]);
        b.extend((raw.len() as u32).to_ne_bytes());
        b.extend(raw);
        header(kind::SAMPLE, &b)
    }

    fn comm(pid: u32, tid: u32, name: &[u8; 16]) -> Vec<u8> {
        let mut b = pid.to_ne_bytes().to_vec();
        b.extend(tid.to_ne_bytes());
        b.extend(name);
        b.extend([0; 32]);
        header(kind::COMM, &b)
    }

    #[test]
    fn one_vm_and_its_workers() {
        let only = Only { pid: 42, tids: HashSet::from([7]) };
        let mut s = Sieve::new(Some(only), None, &[]);
        let none = HashMap::new();
        assert!(s.pass(&mut sample(1, 42, 43, &[0; 12]), &none));
        assert!(s.pass(&mut sample(1, 7, 7, &[0; 12]), &none));
        assert!(!s.pass(&mut sample(1, 8, 8, &[0; 12]), &none));
        // A worker that appears later is recognised by its name.
        assert!(s.pass(&mut comm(99, 99, b"vhost-42\0\0\0\0\0\0\0\0"), &none));
        assert!(s.pass(&mut sample(1, 99, 99, &[0; 12]), &none));
        assert!(!s.pass(&mut comm(5, 5, b"bash\0\0\0\0\0\0\0\0\0\0\0\0"), &none));
    }

    #[test]
    fn guest_addresses_and_names_go() {
        let format = "\tfield:unsigned long guest_rip;\toffset:8;\tsize:8;\tsigned:0;\n".to_owned();
        let tp = Tracepoint { system: "kvm".into(), name: "kvm_page_fault".into(), id: 300, format };
        let mut s = Sieve::new(None, Some(Hidden::new()), &[tp]);
        let none = HashMap::new();
        let mut raw = vec![0xffu8; 20];
        raw[..2].copy_from_slice(&300u16.to_ne_bytes());
        let mut r = sample(1, 42, 43, &raw);
        assert!(s.pass(&mut r, &none));
        assert_eq!(&r[RAW + 8..RAW + 16], [0; 8]);
        assert_eq!(&r[RAW + 16..RAW + 20], [0xff; 4]);
        let mut c = comm(42, 43, b"secret-guest\0\0\0\0");
        assert!(s.pass(&mut c, &none));
        assert_eq!(&c[16..32], b"task-43\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn host_addresses_move_all_by_one_distance() {
        // As a 6.1 kernel describes kvm_unmap_hva_range.
        let format = "\tfield:unsigned long start;\toffset:8;\tsize:8;\tsigned:0;\n\tfield:unsigned long end;\toffset:16;\tsize:8;\tsigned:0;\n"
            .to_owned();
        let tp = Tracepoint { system: "kvm".into(), name: "kvm_unmap_hva_range".into(), id: 301, format };
        let hidden = Hidden::new();
        let mut s = Sieve::new(None, Some(hidden), &[tp]);
        let slot = 0x7f57_2500_0000u64;
        let mut raw = 301u16.to_ne_bytes().to_vec();
        raw.extend([0; 6]);
        raw.extend((slot + 0x3000).to_ne_bytes());
        raw.extend(u64::MAX.to_ne_bytes());
        let mut r = sample(1, 42, 43, &raw);
        assert!(s.pass(&mut r, &HashMap::new()));
        let start = u64_at(&r, RAW + 8).expect("a start");
        assert_ne!(start, slot + 0x3000, "the host's address is not in the record");
        assert_eq!(start - hidden.address(slot), 0x3000, "the same page of the same slot");
        assert_eq!(start % (2 << 20), (slot + 0x3000) % (2 << 20));
        assert_eq!(u64_at(&r, RAW + 16), Some(u64::MAX), "no address, but the end of everything");
        assert_eq!(hidden.address(0), 0, "a slot without an address still has none");
    }

    #[test]
    fn ids_of_a_late_cpu() {
        let mut s = Sieve::default();
        let ids = HashMap::from([(100, 1)]);
        let mut r = sample(100, 1, 1, &[0; 4]);
        assert!(s.pass(&mut r, &ids));
        assert_eq!(u64_at(&r, 8), Some(1));
        let mut c = comm(1, 1, b"x\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let at = c.len() - 8;
        c[at..].copy_from_slice(&100u64.to_ne_bytes());
        assert!(s.pass(&mut c, &ids));
        assert_eq!(u64_at(&c, at), Some(1));
    }

    #[test]
    fn short_records_do_not_crash() {
        let mut s = Sieve::new(Some(Only { pid: 1, tids: HashSet::new() }), Some(Hidden::new()), &[]);
        for k in 0..20u32 {
            for len in [8, 16, 24, 40] {
                let mut r = header(k, &vec![0u8; len - 8]);
                s.pass(&mut r, &HashMap::from([(0, 1)]));
            }
        }
    }
}
