//! Examines whether this host can be recorded, which command mends what is missing, and what a recording will not show on this kernel.
//! The main function is [`examine`]; `mmuscope doctor` calls it, and `record` asks it when something fails. It changes nothing.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;

use crate::attr::{self, Style};
use crate::host::{self, Gather, Host};
use crate::kernelvars;
use crate::record::rings;
use crate::sys::{self, Watch};
use crate::tracefs::{Mounted, Tracefs};
use crate::{Probes, untraced};

/// The result of one check, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything is as it should be.
    Ok,
    /// This is a remark; recording works.
    Note,
    /// Recording works, but something will be missing.
    Warn,
    /// Recording does not work.
    Bad,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The result of the check.
    pub level: Level,
    /// The name of what was checked.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// The command that mends it, or what else to do.
    pub mend: Option<String>,
}

/// The lines of the report.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The lines, in the order in which mending them is useful.
    pub lines: Vec<Line>,
}

impl Report {
    /// The exit status for scripts: 0 if everything can be recorded, 1 if something will be missing, 2 if recording does not work.
    pub fn status(&self) -> u8 {
        match self.lines.iter().map(|l| l.level).max() {
            Some(Level::Bad) => 2,
            Some(Level::Warn) => 1,
            _ => 0,
        }
    }

    /// The whole result in a sentence.
    pub fn verdict(&self) -> &'static str {
        match self.status() {
            0 => "this host can be recorded: mmuscope record",
            1 => "this host can be recorded (mmuscope record), with what is marked WARN missing",
            _ => "this host cannot be recorded until what is marked BAD is mended",
        }
    }

    /// The lines that prevent a recording.
    #[must_use]
    pub fn missing(mut self) -> Self {
        self.lines.retain(|l| l.level == Level::Bad);
        self
    }

    fn add(&mut self, level: Level, what: &'static str, found: impl Into<String>, mend: Option<&str>) {
        self.lines.push(Line { level, what, found: found.into(), mend: mend.map(str::to_owned) });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for l in &self.lines {
            let mark = match l.level {
                Level::Ok => "OK  ",
                Level::Note => "--  ",
                Level::Warn => "WARN",
                Level::Bad => "BAD ",
            };
            writeln!(f, "{mark}  {:<14}{}", l.what, l.found)?;
            if let Some(m) = &l.mend {
                writeln!(f, "                    mend: {m}")?;
            }
        }
        Ok(())
    }
}

/// Whether `CapEff` has this bit of CAP_*.
fn has_cap(status: &str, bit: u32) -> bool {
    status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
        .is_some_and(|v| v >> bit & 1 == 1)
}

const CAP_SYS_ADMIN: u32 = 21;
const CAP_IPC_LOCK: u32 = 14;
const CAP_PERFMON: u32 = 38;

/// The major and minor number of a kernel release.
pub(crate) fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn yes(v: Option<&str>) -> bool {
    matches!(v, Some("Y" | "1" | "y"))
}

/// Makes all checks.
pub fn examine() -> Report {
    let mut r = Report::default();
    let host = host::gather(Gather::default());
    privileges(&mut r);
    tracing(&mut r);
    kvm(&mut r, &host);
    memory(&mut r);
    variables(&mut r, &host);
    tables(&mut r);
    probes(&mut r, &host);
    modes(&mut r, &host);
    not_traced(&mut r, &host);
    r
}

fn privileges(r: &mut Report) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    let paranoid = paranoid.trim();
    let root = rustix::process::geteuid().is_root();
    let may = has_cap(&status, CAP_PERFMON) || has_cap(&status, CAP_SYS_ADMIN) || paranoid == "-1";
    let who = format!(
        "{}{}, kernel.perf_event_paranoid {}",
        if root { "root" } else { "an ordinary user" },
        if has_cap(&status, CAP_PERFMON) { " with CAP_PERFMON" } else { "" },
        if paranoid.is_empty() { "?" } else { paranoid }
    );
    // The kernel's answer to a real attempt counts more than what the capabilities suggest.
    let style = Style { backward: false, lost: false, watermark: 0 };
    let cpu = host::online().first().copied().unwrap_or(0);
    match sys::open(&attr::dummy(style), Watch::Cpu(cpu)) {
        Ok(_) if may => r.add(Level::Ok, "privileges", who, None),
        Ok(_) => r.add(
            Level::Bad,
            "privileges",
            format!("{who}: may count events but not read what they say"),
            Some("run as root: sudo mmuscope record …   or, once, as root: setcap cap_perfmon,cap_ipc_lock,cap_dac_read_search+ep $(command -v mmuscope)"),
        ),
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => r.add(
            Level::Bad,
            "privileges",
            "perf_event_open does not exist here (a container's seccomp filter, or no CONFIG_PERF_EVENTS)",
            Some("run mmuscope on the host itself, or the container with --privileged --pid=host"),
        ),
        Err(e) if may && matches!(e.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
            let seccomp = status.lines().any(|l| l.starts_with("Seccomp:") && !l.ends_with('0'));
            r.add(
                Level::Bad,
                "privileges",
                format!("{who}, but perf_event_open is refused ({e}){}", if seccomp { ": a seccomp filter is active (container?)" } else { "" }),
                Some("run mmuscope on the host itself, or the container with --privileged --pid=host"),
            );
        }
        Err(_) => r.add(
            Level::Bad,
            "privileges",
            format!("{who}: may not see other tasks' events"),
            Some("run as root: sudo mmuscope record …   or, once, as root: setcap cap_perfmon,cap_ipc_lock,cap_dac_read_search+ep $(command -v mmuscope)"),
        ),
    }
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        r.add(
            Level::Bad,
            "lockdown",
            "confidentiality: the kernel allows no tracing at all",
            Some("boot without lockdown=confidentiality (lockdown=integrity is fine)"),
        );
    } else {
        let mode = lockdown.split_once('[').and_then(|(_, m)| m.split_once(']')).map_or("none", |m| m.0);
        r.add(Level::Ok, "lockdown", mode, None);
    }
}

fn tracing(r: &mut Report) {
    let (mounted, fs) = Tracefs::find();
    let Some(tracefs) = fs else {
        let root = rustix::process::geteuid().is_root();
        match mounted {
            Mounted::Forbidden => r.add(
                Level::Bad,
                "tracefs",
                "mounted, but closed to this user",
                Some("run as root, or, as root: mount -o remount,gid=$(id -g) /sys/kernel/tracing"),
            ),
            _ => r.add(
                Level::Bad,
                "tracefs",
                "not mounted",
                Some(if root {
                    "mount -t tracefs nodev /sys/kernel/tracing"
                } else {
                    "as root: mount -t tracefs nodev /sys/kernel/tracing"
                }),
            ),
        }
        return;
    };
    r.add(
        Level::Ok,
        "tracefs",
        if mounted == Mounted::Debugfs { "/sys/kernel/debug/tracing" } else { "/sys/kernel/tracing" },
        None,
    );
    let mmu = tracefs.names("kvmmmu");
    let kvm = tracefs.names("kvm");
    if mmu.is_empty() && kvm.is_empty() {
        r.add(
            Level::Bad,
            "events",
            "no kvm events: KVM is not loaded (or built without tracepoints)",
            Some("as root: modprobe kvm_intel || modprobe kvm_amd"),
        );
        return;
    }
    if mmu.is_empty() {
        r.add(
            Level::Warn,
            "events",
            format!(
                "{} kvm events, but no kvmmmu events (not x86?): faults can be recorded, page tables cannot",
                kvm.len()
            ),
            None,
        );
        return;
    }
    let probe = mmu.iter().find(|n| *n == "kvm_mmu_set_spte").or_else(|| mmu.first());
    match probe.map(|n| tracefs.tracepoint("kvmmmu", n)) {
        Some(Ok(tp)) => {
            let style = Style { backward: false, lost: rings::kernel_counts_lost(), watermark: 0 };
            let cpu = host::online().first().copied().unwrap_or(0);
            match sys::open(&attr::tracepoint(tp.id, style), Watch::Cpu(cpu)) {
                Ok(_) => r.add(
                    Level::Ok,
                    "events",
                    format!(
                        "{} kvmmmu, {} kvm; {} opened on CPU {cpu}{}",
                        mmu.len(),
                        kvm.len(),
                        tp.full_name(),
                        if style.lost { "; lost events are counted exactly" } else { "" }
                    ),
                    None,
                ),
                Err(e) => {
                    r.add(Level::Bad, "events", format!("{} cannot be opened: {e}", tp.full_name()), None);
                }
            }
        }
        Some(Err(e)) => r.add(
            Level::Bad,
            "events",
            e.to_string(),
            Some("run as root, or give the binary cap_dac_read_search (the event ids are 0440 root)"),
        ),
        None => {}
    }
}

fn kvm(r: &mut Report, host: &Host) {
    let loaded: Vec<&str> = ["kvm_intel", "kvm_amd", "kvm_pvm"]
        .into_iter()
        .filter(|m| Path::new("/sys/module").join(m).exists())
        .collect();
    if !Path::new("/dev/kvm").exists() {
        r.add(
            Level::Bad,
            "kvm",
            "no /dev/kvm",
            Some("as root: modprobe kvm_intel || modprobe kvm_amd   (virtualisation must be on in the firmware)"),
        );
    } else if loaded.is_empty() {
        r.add(
            Level::Note,
            "kvm",
            "/dev/kvm is there; the vendor module is not one of kvm_intel, kvm_amd, kvm_pvm",
            None,
        );
    } else {
        r.add(Level::Ok, "kvm", loaded.join(", "), None);
    }
    if let Some((module, never)) = untraced::here() {
        let what = format!("{module} does not trace {}", never.join(", "));
        r.add(Level::Note, "not traced", format!("{what}: no faults and exits in recordings"), None);
        r.add(
            Level::Note,
            "triggers",
            "`faults …`, `fault-time` and `event` with one of these cannot fire on this host",
            Some("nothing can; triggers that can: exit, reserved-bits, zap-all, event kvm_mmu_spte_requested > N/TIME"),
        );
    }
    let root = rustix::process::geteuid().is_root();
    if host.vmms.is_empty() {
        let more = if root { "" } else { " visible to this user" };
        r.add(Level::Note, "VMs", format!("none running{more}: a recording may start before them"), None);
    } else {
        let list: Vec<String> = host
            .vmms
            .iter()
            .map(|v| {
                let vcpus = v.fds.iter().filter(|f| f.1.starts_with("anon_inode:kvm-vcpu")).count();
                let name = v.guest.as_ref().map_or(String::new(), |g| format!(" {g:?}"));
                format!("{} {}{name} ({vcpus} vCPUs)", v.pid, v.comm)
            })
            .collect();
        r.add(Level::Ok, "VMs", list.join(", "), None);
    }
}

fn memory(r: &mut Report) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kb = fs::read_to_string("/proc/sys/kernel/perf_event_mlock_kb").unwrap_or_default();
    if has_cap(&status, CAP_IPC_LOCK) {
        r.add(Level::Ok, "ring memory", "not limited (CAP_IPC_LOCK)", None);
    } else {
        r.add(
            Level::Warn,
            "ring memory",
            format!("limited to {} KiB a CPU (kernel.perf_event_mlock_kb)", kb.trim()),
            Some("as root: sysctl kernel.perf_event_mlock_kb=16384   or give the binary cap_ipc_lock"),
        );
    }
}

fn variables(r: &mut Report, host: &Host) {
    let masks = host.facts.iter().filter(|f| f.0.starts_with("mask.")).count();
    let unread: Vec<&str> =
        host.facts.iter().filter(|f| f.0.starts_with("unread.")).map(|f| f.1.as_str()).collect();
    if masks > 0 {
        r.add(
            Level::Ok,
            "SPTE masks",
            format!("{masks} read from the kernel: captures are decoded with measured masks"),
            None,
        );
        return;
    }
    let why = unread.first().copied().unwrap_or("no reason known");
    let mend = if why.contains("CONFIG_") || why.contains("lockdown") {
        "nothing needed: mmuscope infers the layout from CPU, parameters and the events themselves (or give --mask NAME=VALUE)"
    } else if why.contains("is kvm loaded") {
        "as root: modprobe kvm_intel || modprobe kvm_amd"
    } else {
        "record as root; without, mmuscope infers the layout"
    };
    let level = if rustix::process::geteuid().is_root() { Level::Note } else { Level::Warn };
    r.add(level, "SPTE masks", format!("not readable: {why}"), Some(mend));
    if let Err(e) = File::open("/proc/kcore")
        && !why.contains("kcore")
    {
        r.add(Level::Note, "", kernelvars::kcore_reason(&e), None);
    }
}

/// Whether KVM's own tables can be read, so that a recording knows what was mapped before it.
fn tables(r: &mut Report) {
    match crate::snapshot::possible() {
        Ok(()) => r.add(
            Level::Ok,
            "KVM's tables",
            "readable: recordings begin and end with a snapshot of what is mapped".to_owned(),
            None,
        ),
        Err(why) => r.add(
            Level::Note,
            "KVM's tables",
            format!("not readable: {why}"),
            Some("recordings work without; what was mapped before them is not known (record --snapshot off says so)"),
        ),
    }
}

/// Whether probes can show what an MMU does without an event.
fn probes(r: &mut Report, host: &Host) {
    const PARTLY: &str = "recordings work without; what shadow paging takes away is then known in part only";
    if crate::probes::pmu().is_some() {
        let release = host.get("kernel.release").unwrap_or_default();
        let missing = crate::probes::choose(Probes::On, release, true, true).notes;
        if missing.is_empty() {
            let text = "kprobes can be set: what shadow paging and old MMUs do without an event is recorded";
            r.add(Level::Ok, "probes", text.to_owned(), None);
        }
        for why in missing {
            r.add(Level::Note, "probes", why, Some(PARTLY));
        }
    } else {
        let text = "not there: the kernel has no kprobe PMU (CONFIG_KPROBE_EVENTS)";
        r.add(Level::Note, "probes", text.to_owned(), Some(PARTLY));
    }
}

/// Whether this kernel's TDP MMU has no `kvm_tdp_mmu_spte_changed`.
fn changes_untraced(host: &Host) -> bool {
    host.get("kernel.release").and_then(version).is_some_and(|v| v < (5, 11))
}

fn modes(r: &mut Report, host: &Host) {
    let p = |k: &str| host.get(&format!("param.{k}"));
    let mut say = |what: &'static str, v: Option<&str>, on: &str, off: &str| {
        if let Some(v) = v {
            r.add(
                Level::Note,
                what,
                if yes(Some(v)) { format!("on: {on}") } else { format!("off: {off}") },
                None,
            );
        }
    };
    let tdp = p("kvm_intel.ept").or_else(|| p("kvm_amd.npt"));
    say(
        "EPT/NPT",
        tdp,
        "guest memory is mapped by tables of its own",
        "shadow paging: page tables follow the guest's own, zaps are not traced",
    );
    say(
        "TDP MMU",
        p("kvm.tdp_mmu"),
        if changes_untraced(host) {
            "this kernel has no event for its SPTE changes, only for installs"
        } else {
            "SPTE changes are traced"
        },
        "the old MMU: only installs are traced",
    );
    say(
        "MMIO caching",
        p("kvm.mmio_caching"),
        "MMIO has SPTEs of its own",
        "every MMIO access faults as if nothing were mapped",
    );
    say(
        "EPT A/D bits",
        p("kvm_intel.eptad"),
        "the CPU sets Accessed/Dirty, and no event shows it",
        "access tracking makes real faults",
    );
    say("PML", p("kvm_intel.pml"), "dirty pages are logged by the CPU", "dirty logging write-protects");
    if let Some(v) = p("kvm.nx_huge_pages") {
        r.add(Level::Note, "NX huge pages", v.to_owned(), None);
    }
}

/// Adds what no event shows on this kernel.
fn not_traced(r: &mut Report, host: &Host) {
    let Some(release) = host.get("kernel.release").map(str::to_owned) else { return };
    let Some(v) = version(&release) else { return };
    let tdp_mmu = yes(host.get("param.kvm.tdp_mmu"));
    let tdp = host.get("param.kvm_intel.ept").or_else(|| host.get("param.kvm_amd.npt"));
    let shadow = !tdp_mmu || tdp.is_some_and(|t| !yes(Some(t))) || tdp.is_none();
    let mut list: Vec<&str> = Vec::new();
    if shadow {
        list.push("zaps, write-protection and aging of shadow page tables");
    }
    if tdp_mmu && changes_untraced(host) {
        list.push("every SPTE change except installs (this TDP MMU has no kvm_tdp_mmu_spte_changed)");
    }
    if tdp_mmu && ((5, 12)..(6, 10)).contains(&v) {
        list.push("the second half of a zap (REMOVED to empty)");
    }
    if v < (5, 13) {
        list.push("mmu_notifier ranges (no kvm_unmap_hva_range)");
    }
    if v < (5, 3) {
        list.push("installs (no kvm_mmu_set_spte)");
    }
    if v >= (5, 18) && tdp_mmu {
        list.push("the 512 entries of a split huge page");
    }
    list.push("Accessed/Dirty bits set by the CPU");
    r.add(Level::Note, "not traced", format!("on {release} no event shows: {}", list.join("; ")), None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(levels: &[Level]) -> Report {
        let mut r = Report::default();
        for l in levels {
            r.add(*l, "x", "y", Some("do this"));
        }
        r
    }

    #[test]
    fn status_for_scripts() {
        assert_eq!(report(&[Level::Ok, Level::Note]).status(), 0);
        assert_eq!(report(&[Level::Ok, Level::Warn]).status(), 1);
        assert_eq!(report(&[Level::Warn, Level::Bad, Level::Ok]).status(), 2);
        assert!(report(&[Level::Bad]).to_string().contains("mend: do this"));
    }

    #[test]
    fn capabilities() {
        let root = "CapInh:\t0\nCapEff:\t000001ffffffffff\n";
        assert!(has_cap(root, CAP_PERFMON) && has_cap(root, CAP_SYS_ADMIN));
        assert!(!has_cap("CapEff:\t0000000000000000\n", CAP_PERFMON));
        assert!(has_cap("CapEff:\t0000004000000000\n", CAP_PERFMON));
        assert!(!has_cap("", CAP_PERFMON));
    }

    #[test]
    fn releases() {
        assert_eq!(version("6.1.0-55-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("x"), None);
    }

    fn host(release: &str, params: &[(&str, &str)]) -> Host {
        let mut h = Host::default();
        h.facts.push(("kernel.release".into(), release.into()));
        h.facts.extend(params.iter().map(|p| (format!("param.{}", p.0), p.1.to_owned())));
        h
    }

    #[test]
    fn a_tdp_mmu_without_change_events_is_not_said_to_be_traced() {
        let say = |release: &str| {
            let mut r = Report::default();
            modes(&mut r, &host(release, &[("kvm.tdp_mmu", "Y")]));
            r.lines[0].found.clone()
        };
        assert_eq!(say("5.10.0-46"), "on: this kernel has no event for its SPTE changes, only for installs");
        assert_eq!(say("5.11.0"), "on: SPTE changes are traced");
    }

    #[test]
    fn what_is_not_traced() {
        let say = |h: &Host| {
            let mut r = Report::default();
            not_traced(&mut r, h);
            r.lines[0].found.clone()
        };
        let s = say(&host("5.10.0", &[("kvm.tdp_mmu", "Y"), ("kvm_amd.npt", "1")]));
        assert!(s.contains("no kvm_tdp_mmu_spte_changed") && s.contains("no kvm_unmap_hva_range"));
        let s = say(&host("6.1.0", &[("kvm.tdp_mmu", "Y"), ("kvm_intel.ept", "Y")]));
        assert!(s.contains("second half") && !s.contains("shadow"));
        let s = say(&host("6.18.0", &[("kvm.tdp_mmu", "Y"), ("kvm_amd.npt", "0")]));
        assert!(s.contains("shadow") && !s.contains("second half"));
    }
}
