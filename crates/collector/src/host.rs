//! The facts about the host that a capture needs, so that its values have the same meaning on any other machine. The main function is
//! [`gather`]; `record` and `doctor` call it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use crate::vms::Vmm;
use crate::{btf, kernelvars, sys, vms};

/// A fact, as key and value.
pub type Fact = (String, String);

/// What was gathered about a host.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The facts, in the order in which they are written.
    pub facts: Vec<Fact>,
    /// The VMMs that were found.
    pub vmms: Vec<Vmm>,
}

impl Host {
    /// The value of a fact.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.facts.iter().find(|f| f.0 == key).map(|f| f.1.as_str())
    }
}

/// What to gather and what to leave out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gather {
    /// Whether to include the memory maps of the VMMs.
    pub maps: bool,
    /// Whether to leave out names that identify people, guests or the machine.
    pub anonymise: bool,
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|s| s.trim().to_owned()).filter(|s| !s.is_empty())
}

/// The fields of the first CPU in /proc/cpuinfo.
pub(crate) fn cpuinfo(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .take_while(|l| !l.trim().is_empty())
        .filter_map(|l| l.split_once(':'))
        .map(|(k, v)| (k.trim(), v.trim()))
        .collect()
}

/// Parses a list such as `0-3,6`.
pub(crate) fn cpu_list(text: &str) -> Vec<u32> {
    let mut out = Vec::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(a), Ok(b)) = (a.trim().parse::<u32>(), b.trim().parse::<u32>())
            && a <= b
            && b - a < 1 << 16
        {
            out.extend(a..=b);
        }
    }
    out
}

/// How many CPUs the machine has, online or not.
pub(crate) fn configured() -> u32 {
    let list = fs::read_to_string("/sys/devices/system/cpu/present").unwrap_or_default();
    (cpu_list(&list).len() as u32).max(1)
}

/// The size of its memory in KiB.
pub(crate) fn total_mem_kb() -> u64 {
    fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|s| {
            s.lines().find_map(|l| l.strip_prefix("MemTotal:")?.split_ascii_whitespace().next()?.parse().ok())
        })
        .unwrap_or_default()
}

/// The CPUs that are online now.
pub(crate) fn online() -> Vec<u32> {
    let list = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let v = cpu_list(&list);
    if v.is_empty() { vec![0] } else { v }
}

/// The word in brackets of a setting such as `always [x] never`.
fn selected(text: &str) -> &str {
    text.split_once('[').and_then(|(_, r)| r.split_once(']')).map_or(text, |(s, _)| s)
}

fn ns(id: ClockId) -> u64 {
    let t = clock_gettime(id);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// The present time of CLOCK_MONOTONIC in nanoseconds.
pub(crate) fn monotonic() -> u64 {
    ns(ClockId::Monotonic)
}

/// The clocks at one moment: `(text for a fact, realtime, monotonic)`. Of three readings, the one that took the least time is used.
pub(crate) fn clocks() -> (String, u64, u64) {
    let mut best: Option<(u64, String, u64, u64)> = None;
    for _ in 0..3 {
        let before = monotonic();
        let (real, raw, boot) = (ns(ClockId::Realtime), ns(ClockId::MonotonicRaw), ns(ClockId::Boottime));
        let after = monotonic();
        let mono = before + (after - before) / 2;
        if best.as_ref().is_none_or(|b| after - before < b.0) {
            let text = format!("monotonic={mono} monotonic_raw={raw} boottime={boot} realtime={real}");
            best = Some((after - before, text, real, mono));
        }
    }
    best.map(|b| (b.1, b.2, b.3)).unwrap_or_default()
}

/// The parameters of the kvm modules: `kvm.tdp_mmu` → `Y`.
pub(crate) fn parameters(sys_module: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let Ok(dir) = fs::read_dir(sys_module) else { return out };
    for m in dir.filter_map(Result::ok) {
        let Ok(module) = m.file_name().into_string() else { continue };
        if module != "kvm" && !module.starts_with("kvm_") {
            continue;
        }
        let Ok(params) = fs::read_dir(m.path().join("parameters")) else { continue };
        for p in params.filter_map(Result::ok) {
            if let (Ok(name), Some(value)) = (p.file_name().into_string(), read(p.path())) {
                out.insert(format!("{module}.{name}"), value);
            }
        }
    }
    out
}

/// Gathers all facts.
pub fn gather(g: Gather) -> Host {
    let mut f: Vec<Fact> = Vec::new();
    let mut add = |k: &str, v: String| f.push((k.to_owned(), v));
    add("facts.version", "1".into());
    add("mmuscope.version", env!("CARGO_PKG_VERSION").into());
    let uname = rustix::system::uname();
    add("kernel.release", uname.release().to_string_lossy().into_owned());
    add("kernel.version", uname.version().to_string_lossy().into_owned());
    add("kernel.machine", uname.machine().to_string_lossy().into_owned());
    if !g.anonymise {
        add("hostname", uname.nodename().to_string_lossy().into_owned());
        if let Some(c) = read("/proc/cmdline") {
            add("kernel.cmdline", c);
        }
    }
    cpu_facts(&mut add);
    for (k, v) in parameters(Path::new("/sys/module")) {
        add(&format!("param.{k}"), v);
    }
    kernel_facts(g, &mut add);
    for (key, path) in [
        ("setting.thp", "/sys/kernel/mm/transparent_hugepage/enabled"),
        ("setting.thp_shmem", "/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        ("setting.ksm", "/sys/kernel/mm/ksm/run"),
        ("setting.numa_balancing", "/proc/sys/kernel/numa_balancing"),
        ("setting.lru_gen", "/sys/kernel/mm/lru_gen/enabled"),
    ] {
        if let Some(v) = read(path) {
            add(key, selected(&v).to_owned());
        }
    }
    let vmms = vms::find();
    for v in &vmms {
        vmm_facts(v, g, &mut add);
    }
    Host { facts: f, vmms }
}

/// Adds the facts about the CPU: /proc/cpuinfo, CPUID, which CPUs are online.
fn cpu_facts(add: &mut impl FnMut(&str, String)) {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpuinfo(&text);
    for (key, field) in [
        ("cpu.vendor", "vendor_id"),
        ("cpu.family", "cpu family"),
        ("cpu.model", "model"),
        ("cpu.stepping", "stepping"),
        ("cpu.name", "model name"),
        ("cpu.microcode", "microcode"),
        ("cpu.bugs", "bugs"),
        ("cpu.flags", "flags"),
        ("cpu.vmx_flags", "vmx flags"),
    ] {
        if let Some(v) = cpu.get(field) {
            add(key, (*v).to_owned());
        }
    }
    if let Some(bits) = cpu.get("address sizes").and_then(|s| s.split(' ').next()) {
        add("cpu.phys_bits", bits.to_owned());
    }
    for (leaf, registers) in [(0x8000_0008u32, &[0usize, 1][..]), (0x8000_001f, &[0, 1]), (0x8000_000a, &[3])]
    {
        if let Some(r) = sys::cpuid(leaf, 0) {
            for &i in registers {
                add(
                    &format!("cpuid.{leaf:#010x}.{}", ["eax", "ebx", "ecx", "edx"][i]),
                    format!("{:#x}", r[i]),
                );
            }
            if leaf == 0x8000_0008 {
                add("cpu.maxphyaddr", (r[0] & 0xff).to_string());
            }
        }
    }
    if let Some(v) = read("/sys/devices/system/cpu/online") {
        add("cpu.online", v);
    }
}

/// Adds what the running kernel's memory and BTF hold: masks, other variables, the role word, the numbers of RET_PF_*.
fn kernel_facts(g: Gather, add: &mut impl FnMut(&str, String)) {
    let vars = kernelvars::read();
    for (k, v) in &vars.masks {
        add(&format!("mask.{k}"), format!("{v:#018x}"));
    }
    for (k, v) in &vars.vars {
        // An anonymised capture must not show where kernel memory is mapped.
        if *k == "page_offset_base" {
            if !g.anonymise {
                add("var.page_offset_base", format!("{v:#x}"));
            }
        } else {
            add(&format!("var.{k}"), v.to_string());
        }
    }
    for (k, why) in &vars.unread {
        add(&format!("unread.{k}"), why.clone());
    }
    let d = btf::read();
    if let Some(r) = d.role {
        add("btf.role", r);
    }
    if let Some(r) = d.ret_pf {
        add("btf.ret_pf", r);
    }
}

/// Adds the facts about one VMM: its threads, its kernel threads, its descriptors and, if asked for, its memory maps.
fn vmm_facts(v: &Vmm, g: Gather, add: &mut impl FnMut(&str, String)) {
    let name = |s: &str| if g.anonymise { "-".to_owned() } else { s.to_owned() };
    add("vm", format!("{} {}", v.pid, name(&v.comm)));
    if let (Some(n), false) = (&v.guest, g.anonymise) {
        add("vm.name", format!("{} {n}", v.pid));
    }
    for (tid, comm, vcpu) in &v.threads {
        if let Some(n) = vcpu {
            add("vcpu", format!("{} {tid} {n} {}", v.pid, name(comm)));
        }
    }
    for (tid, comm) in &v.kthreads {
        add("kthread", format!("{} {tid} {comm}", v.pid));
    }
    for (fd, what) in &v.fds {
        add("kvmfd", format!("{} {fd} {what}", v.pid));
    }
    if g.maps
        && !g.anonymise
        && let Ok(maps) = fs::read_to_string(format!("/proc/{}/maps", v.pid))
    {
        for line in maps.lines() {
            add("maps", format!("{} {line}", v.pid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(cpu_list("0-3,6\n"), [0, 1, 2, 3, 6]);
        assert_eq!(cpu_list("0\n"), [0]);
        assert_eq!(cpu_list("3-1,x"), [0u32; 0]);
    }

    #[test]
    fn the_first_cpu_counts() {
        let c = cpuinfo(
            "vendor_id\t: AuthenticAMD\ncpu family\t: 26\nbugs\t\t: a b\naddress sizes\t: 48 bits physical, 48 bits virtual\n\nvendor_id\t: X\n",
        );
        assert_eq!(c["vendor_id"], "AuthenticAMD");
        assert_eq!(c["cpu family"], "26");
        assert_eq!(c["address sizes"], "48 bits physical, 48 bits virtual");
    }

    #[test]
    fn a_choice_among_settings() {
        assert_eq!(selected("always [madvise] never"), "madvise");
        assert_eq!(selected("0"), "0");
    }

    #[test]
    fn parameters_of_the_kvm_modules_only() {
        let d = tempfile::tempdir().unwrap();
        for (m, p, v) in [("kvm", "tdp_mmu", "Y\n"), ("kvm_amd", "npt", "1\n"), ("ext4", "x", "1\n")] {
            let dir = d.path().join(m).join("parameters");
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(p), v).unwrap();
        }
        let p = parameters(d.path());
        assert_eq!(p.len(), 2);
        assert_eq!(p["kvm.tdp_mmu"], "Y");
        assert_eq!(p["kvm_amd.npt"], "1");
    }

    #[test]
    fn clock_pairs_advance() {
        let (text, real, mono) = clocks();
        assert!(real > 1_600_000_000_000_000_000 && mono > 0);
        assert!(text.starts_with(&format!("monotonic={mono} ")));
        assert!(clocks().2 >= mono);
    }
}
