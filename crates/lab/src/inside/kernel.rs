//! Reads what the running kernel holds, its variables and its page-table pages, from /proc/kcore. The main type is [`Kcore`].

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use anyhow::{Context, Result, bail};

/// /proc/kcore, an ELF core file whose segments are the kernel's memory. Only 64-bit hosts are supported.
pub(crate) struct Kcore {
    file: File,
    segments: Vec<Segment>,
}

struct Segment {
    virt: u64,
    phys: u64,
    len: u64,
    offset: u64,
}

/// The kernel image and its modules lie above this address; the map of all memory lies below.
const IMAGE: u64 = 0xffff_ffff_8000_0000;

impl Kcore {
    pub(crate) fn open() -> Result<Self> {
        let file = File::open("/proc/kcore").context("/proc/kcore")?;
        let mut head = [0; 64];
        file.read_exact_at(&mut head, 0)?;
        if head[..5] != *b"\x7fELF\x02" {
            bail!("/proc/kcore is not a 64-bit core");
        }
        let at = |o: usize| u64::from_le_bytes(head[o..o + 8].try_into().unwrap_or_default());
        let (table, count) = (at(32), u16::from_le_bytes([head[56], head[57]]));
        let mut segments = Vec::new();
        for i in 0..u64::from(count) {
            let mut raw = [0; 56];
            file.read_exact_at(&mut raw, table + i * 56)?;
            let at = |o: usize| u64::from_le_bytes(raw[o..o + 8].try_into().unwrap_or_default());
            if raw[0] == 1 {
                segments.push(Segment { offset: at(8), virt: at(16), phys: at(24), len: at(40) });
            }
        }
        Ok(Self { file, segments })
    }

    /// Reads memory at a kernel-virtual address; the result is `false` if it cannot be read.
    pub(crate) fn read(&self, virt: u64, to: &mut [u8]) -> bool {
        self.segments
            .iter()
            .find(|s| virt >= s.virt && virt - s.virt + to.len() as u64 <= s.len)
            .is_some_and(|s| self.file.read_exact_at(to, s.offset + (virt - s.virt)).is_ok())
    }

    /// The address in the direct map of a physical page.
    fn direct(&self, phys: u64) -> Option<u64> {
        let s = self.segments.iter().find(|s| {
            s.virt < IMAGE && s.phys != u64::MAX && phys >= s.phys && phys - s.phys + 4096 <= s.len
        })?;
        Some(s.virt + (phys - s.phys))
    }

    /// The physical address of an address in the direct map.
    fn phys(&self, virt: u64) -> Option<u64> {
        let s = self
            .segments
            .iter()
            .find(|s| s.virt < IMAGE && s.phys != u64::MAX && virt >= s.virt && virt - s.virt < s.len)?;
        Some(s.phys + (virt - s.virt))
    }
}

/// Writes lines `name ok value` with the kernel's `shadow_*` variables and the few others that decide how SPTEs are made.
pub(crate) fn dump_variables(to: &Path) -> Result<()> {
    const MORE: [&str; 9] = [
        "kvm_mmu_page_role_shift",
        "tdp_enabled",
        "tdp_mmu_enabled",
        "tdp_root_level",
        "max_tdp_level",
        "max_huge_page_level",
        "enable_mmio_caching",
        "sme_me_mask",
        "page_offset_base",
    ];
    let core = Kcore::open()?;
    let mut out = BufWriter::new(File::create(to)?);
    for line in BufReader::new(File::open("/proc/kallsyms")?).lines() {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if !"bBdDrR".contains(kind) || !(name.starts_with("shadow_") || MORE.contains(&name)) {
            continue;
        }
        let mut value = [0; 8];
        let ok = u64::from_str_radix(address, 16).is_ok_and(|a| core.read(a, &mut value));
        writeln!(out, "{name} {} {:016x}", if ok { "ok" } else { "ERR" }, u64::from_le_bytes(value))?;
    }
    Ok(out.flush()?)
}

/// Copies every page-table page that a text trace names, as records of a physical address and 512 entries. It returns how many pages were
/// named, and how many were found.
pub(crate) fn dump_tables(trace: &Path, to: &Path) -> Result<(usize, usize)> {
    let core = Kcore::open()?;
    let mut pages = BTreeSet::new();
    for line in BufReader::new(File::open(trace)?).lines() {
        named_pages(&line?, |word| core.phys(word), &mut pages);
    }
    let mut out = BufWriter::new(File::create(to)?);
    let (mut found, mut page) = (0, [0; 4096]);
    for &p in &pages {
        if core.direct(p).is_some_and(|virt| core.read(virt, &mut page)) {
            out.write_all(&p.to_le_bytes())?;
            out.write_all(&page)?;
            found += 1;
        }
    }
    out.flush()?;
    Ok((pages.len(), found))
}

/// The page-table pages that one line of ftrace text names: the page that holds an SPTE, and the page to which a non-leaf SPTE points.
fn named_pages(line: &str, phys: impl Fn(u64) -> Option<u64>, pages: &mut BTreeSet<u64>) {
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    let word = |key: &str| {
        let rest = line.split_once(key)?.1.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        u64::from_str_radix(&rest[..end], 16).ok()
    };
    let level = word(" level ").unwrap_or(1);
    let mut child = |spte: u64| {
        if level > 1 && spte & 0x80 == 0 && spte & 7 != 0 {
            pages.insert(spte & ADDRESS);
        }
    };
    if line.contains("kvm_mmu_set_spte: ") {
        word(" spte ").into_iter().for_each(&mut child);
        pages.extend(word(" at ").map(|p| p & ADDRESS));
    } else if line.contains("kvm_tdp_mmu_spte_changed: ") {
        word(" new_spte ").into_iter().for_each(&mut child);
    } else if line.contains("mark_mmio_spte: ") {
        // The address is usable only where the trace shows it unhashed.
        pages.extend(word("sptep:").and_then(phys).map(|p| p & ADDRESS));
    } else if line.contains("fast_page_fault: ") {
        pages.extend(word(" sptep ").and_then(phys).map(|p| p & ADDRESS));
    }
    pages.remove(&0);
}

/// Writes KVM's own counters, one `name:value` a line; those of one VM under `PID-FD/`.
pub(crate) fn dump_counters(to: &Path) -> Result<()> {
    let root = Path::new("/sys/kernel/debug/kvm");
    let mut out = BufWriter::new(File::create(to)?);
    let mut folders = vec![root.to_owned()];
    let (mut at, mut lines) = (0, BTreeSet::new());
    while at < folders.len() {
        for entry in fs::read_dir(&folders[at]).with_context(|| folders[at].display().to_string())? {
            let path = entry?.path();
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            if path.is_dir() {
                // The folders of vCPUs have no counters of tables.
                if at == 0 {
                    folders.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                lines.extend(text.lines().map(|l| (at, format!("{name}:{l}"))));
            }
        }
        at += 1;
    }
    for (_, line) in lines {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_their_tables() {
        let mut pages = BTreeSet::new();
        for line in [
            "  vcpu0-1 [0] d..1 1.0: kvm_mmu_set_spte: gfn 101 spte 8000000004b01ee7 (rwxu) level 1 at 4b5d808",
            "  vcpu0-1 [0] d..1 1.0: kvm_tdp_mmu_spte_changed: as id 0 gfn 0 level 3 old_spte 0 new_spte 4c0e827",
            "  vcpu0-1 [0] d..1 1.0: kvm_tdp_mmu_spte_changed: as id 0 gfn 0 level 2 old_spte 0 new_spte 6c00ee7",
            "  vcpu0-1 [0] d..1 1.0: kvm_tdp_mmu_spte_changed: as id 0 gfn 0 level 2 old_spte 4c0f827 new_spte 80000000000005a0",
            "  vcpu0-1 [0] d..1 1.0: mark_mmio_spte: sptep:ffff888004d08000 gfn d0000 access 7 gen 6",
        ] {
            named_pages(line, |v| Some(v - 0xffff_8880_0000_0000), &mut pages);
        }
        assert_eq!(Vec::from_iter(pages), [0x4b5d000, 0x4c0e000, 0x4d08000]);
    }
}
