//! From options to open events. Everything that can fail does so here, before anything is written or started. The main type is [`Recorder`].

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::rings::{self, Cpu, Plan};
use super::whole::obstacle;
use crate::attr::{self, Style};
use crate::filter::{self, Backend, Wanted};
use crate::host::{self, Fact, Gather, Host};
use crate::preamble::{EventDesc, Preamble};
use crate::probes;
use crate::scrub::{Hidden, Only, Sieve, anonymous_name};
use crate::sys;
use crate::tracefs::{self, Mounted, Tracefs, Tracepoint};
use crate::vms::{self, Vmm};
use crate::{Error, Probes, RecordOptions, Scope, When};

/// A recording that is ready to start.
pub(crate) struct Recorder<'a> {
    pub options: &'a RecordOptions,
    pub fs: Tracefs,
    pub plan: Plan,
    pub cpus: Vec<Cpu>,
    pub sieve: Sieve,
    pub host: Host,
    /// The facts about the recording itself.
    pub about: Vec<Fact>,
    /// The tasks by tid: `(pid, name)`.
    pub tasks: BTreeMap<u32, (u32, String)>,
    pub notes: Vec<String>,
}

/// Whether a kernel thread works on the memory of all processes. What it zaps belongs to the story of a VM, too.
fn works_for_all(comm: &str) -> bool {
    ["kswapd", "khugepaged", "ksmd", "kcompactd", "kvm-nx-lpage-re"].iter().any(|p| comm.starts_with(p))
}

/// Opens the directory of a cgroup that is given by path.
fn cgroup_dir(path: &Path) -> Result<OwnedFd, Error> {
    use rustix::fs::{Mode, OFlags, open};
    let relative = path.strip_prefix("/").unwrap_or(path);
    let mut places = vec![path.to_owned()];
    for base in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/perf_event"] {
        places.push(Path::new(base).join(relative));
    }
    let found = places.iter().filter(|p| p.is_absolute()).find(|p| p.join("cgroup.procs").exists());
    let Some(dir) = found else {
        return Err(Error::Usage(format!(
            "no cgroup {}\n  a VM's: /machine.slice/machine-qemu….scope (see /proc/PID/cgroup)",
            path.display()
        )));
    };
    open(dir, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::Read { path: dir.clone(), source: e.into() })
}

fn tgid(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// The threads of VMs that are not recorded.
fn others(vmms: &[Vmm], pid: u32) -> Vec<u32> {
    vmms.iter().filter(|v| v.pid != pid).flat_map(|v| v.threads.iter().map(|t| t.0)).collect()
}

struct Scoped {
    only: Option<Only>,
    not_tids: Vec<u32>,
    cgroup: Option<OwnedFd>,
    words: String,
}

fn scope(
    options: &RecordOptions,
    vmms: &[Vmm],
    tasks: &BTreeMap<u32, (u32, String)>,
) -> Result<Scoped, Error> {
    let for_all =
        || tasks.iter().filter(|(_, t)| works_for_all(&t.1)).map(|(tid, _)| *tid).collect::<HashSet<u32>>();
    Ok(match &options.scope {
        Scope::System => {
            Scoped { only: None, not_tids: Vec::new(), cgroup: None, words: "the whole system".into() }
        }
        Scope::Pid(pid) => {
            let Some(tgid) = tgid(*pid) else { return Err(Error::Usage(format!("no process {pid}"))) };
            Scoped {
                only: Some(Only { pid: tgid, tids: HashSet::new() }),
                not_tids: others(vmms, tgid),
                cgroup: None,
                words: format!("process {tgid}"),
            }
        }
        Scope::Vm(name) => {
            let vm = vms::select(vmms, name).map_err(Error::Usage)?;
            let mut tids = for_all();
            tids.extend(vm.kthreads.iter().map(|k| k.0));
            let called = if options.anonymise { String::new() } else { format!(" ({})", vm.comm) };
            Scoped {
                only: Some(Only { pid: vm.pid, tids }),
                not_tids: others(vmms, vm.pid),
                cgroup: None,
                words: format!(
                    "the VM of process {}{called}, its kernel threads and the memory management's",
                    vm.pid
                ),
            }
        }
        Scope::Cgroup(path) => Scoped {
            only: None,
            not_tids: Vec::new(),
            cgroup: Some(cgroup_dir(path)?),
            words: if options.anonymise { "a cgroup".into() } else { format!("cgroup {}", path.display()) },
        },
    })
}

/// Finds tracefs, or returns an error that says what is wrong.
pub(crate) fn open_tracefs() -> Result<Tracefs, Error> {
    match Tracefs::find() {
        (_, Some(fs)) => Ok(fs),
        (Mounted::Forbidden, None) => Err(Error::TracefsForbidden),
        (_, None) if !rustix::process::geteuid().is_root() => Err(Error::TracefsForbidden),
        (_, None) => Err(Error::NoTracefs),
    }
}

/// Opens all events, disabled.
pub(crate) fn prepare(options: &RecordOptions) -> Result<Recorder<'_>, Error> {
    let fs = open_tracefs()?;
    let chosen = tracefs::choose(&fs, &options.events)?;
    let tracepoints: Vec<Tracepoint> =
        chosen.events.iter().map(|(s, n)| fs.tracepoint(s, n)).collect::<Result<_, _>>()?;
    for (name, _) in &options.filters {
        if !tracepoints.iter().any(|t| t.name == *name || t.full_name() == *name) {
            return Err(Error::Usage(format!(
                "--filter names {name}, which is not recorded: add it to --events"
            )));
        }
    }
    let host = host::gather(Gather { maps: options.maps, anonymise: options.anonymise });
    let mut tasks = BTreeMap::new();
    scan_tasks(&mut tasks);
    let scoped = scope(options, &host.vmms, &tasks)?;
    let wanted = Wanted {
        gfn: options.gfn,
        user: &options.filters,
        mmu_exits_only: chosen.mmu_exits_only,
        backend: Backend::here(),
        not_tids: &scoped.not_tids,
    };
    let events: Vec<(Tracepoint, String)> = tracepoints
        .into_iter()
        .map(|t| {
            let f = filter::build(&t, &wanted);
            (t, f)
        })
        .collect();
    let online = host::online();
    let release = host.get("kernel.release").unwrap_or_default().to_owned();
    let changes_traced = fs.names("kvmmmu").iter().any(|n| n == "kvm_tdp_mmu_spte_changed");
    // Without installs there is nothing that a probe could be joined to.
    let installs = events.iter().any(|e| e.0.name == "kvm_mmu_set_spte");
    let asked = if installs || options.probes == Probes::On { options.probes } else { Probes::Off };
    let follow_slots = options.snapshot != When::OFF && obstacle(options).is_none();
    let chosen_probes = probes::choose(asked, &release, changes_traced, follow_slots);
    rings::want_files(
        (online.len() as u64 + 1) * ((events.len() + chosen_probes.probes.len()) as u64 + 8) + 256,
    );
    let counts_lost = rings::kernel_counts_lost();
    let mut ring = rings::ring_size(options.buffer, online.len(), host::total_mem_kb());
    let mut notes = chosen_probes.notes;
    let mut plan = Plan {
        events,
        probes: chosen_probes.probes,
        pmu: probes::pmu().unwrap_or_default(),
        style: Style { backward: options.flight, lost: counts_lost, watermark: (ring / 2) as u32 },
        ring,
        cgroup: scoped.cgroup,
    };
    // What a kernel has inlined, or has no longer, is named, too: what it does is then without an event.
    notes.extend(plan.try_probes().into_iter().map(|(name, e)| format!("{name} could not be set: {e}")));
    if !plan.probes.is_empty() {
        let set: Vec<_> = plan.probes.iter().map(|p| p.function.to_string_lossy()).collect();
        notes.push(format!("probes were set on {}", set.join(", ")));
    }
    let cpus = loop {
        match open_all(&plan, &online) {
            // The user asked for no size, so a smaller ring is tried.
            Err(Error::Refused { what, .. })
                if what.starts_with("a ring") && options.buffer.is_none() && ring > 128 << 10 =>
            {
                ring /= 2;
                plan.ring = ring;
                plan.style.watermark = (ring / 2) as u32;
            }
            other => break other?,
        }
    };
    if options.buffer.is_none() && ring < 512 << 10 {
        notes.push(format!(
            "rings are only {} KiB: the kernel does not let this user lock more (sysctl kernel.perf_event_mlock_kb, or cap_ipc_lock)",
            ring >> 10
        ));
    }
    let all: Vec<Tracepoint> = plan.events.iter().map(|e| e.0.clone()).collect();
    let sieve = Sieve::new(scoped.only, options.anonymise.then(Hidden::new), &all);
    let about = about(options, &plan, &scoped.words);
    Ok(Recorder { options, fs, plan, cpus, sieve, host, about, tasks, notes })
}

fn open_all(plan: &Plan, online: &[u32]) -> Result<Vec<Cpu>, Error> {
    let mut cpus = Vec::new();
    for &cpu in online {
        cpus.extend(rings::open(plan, cpu)?);
    }
    if cpus.is_empty() {
        return Err(Error::Usage("no CPU could be recorded: all went offline".into()));
    }
    Ok(cpus)
}

fn about(options: &RecordOptions, plan: &Plan, scope: &str) -> Vec<Fact> {
    let mut v: Vec<Fact> = Vec::new();
    let mut add = |k: &str, s: String| v.push((k.to_owned(), s));
    add("record.scope", scope.to_owned());
    add("record.events", plan.names().collect::<Vec<_>>().join(","));
    for p in &plan.probes {
        add("record.probe", p.fact());
    }
    for (tp, f) in plan.events.iter().filter(|e| !e.1.is_empty()) {
        add("record.filter", format!("{} {f}", tp.full_name()));
    }
    add("record.ring", format!("{} bytes a CPU", plan.ring));
    add(
        "record.lost_counts",
        if plan.style.lost {
            format!("exact per event (PERF_FORMAT_LOST {})", rings::COUNTS_LOST)
        } else {
            "from LOST records and hit counts".into()
        },
    );
    if options.flight {
        add("record.flight", "overwriting rings: only the newest events are here".into());
    }
    if let Some(t) = &options.trigger {
        add("record.trigger", t.text.clone());
    }
    if options.anonymise {
        add(
            "record.anonymised",
            "names, host name, command lines, guest instruction pointers and MMIO data are left out, host addresses are moved by an unknown distance".into(),
        );
    }
    v
}

/// Adds the tasks that exist now.
pub(crate) fn scan_tasks(tasks: &mut BTreeMap<u32, (u32, String)>) {
    for (pid, tid, comm) in vms::tasks(Path::new("/proc")) {
        tasks.insert(tid, (pid, comm));
    }
}

impl Recorder<'_> {
    /// The preamble of a capture that starts now.
    pub(crate) fn preamble(&self) -> Preamble {
        let (clock, real, mono) = host::clocks();
        let anonymise = self.options.anonymise;
        let get = |k: &str| self.host.get(k).unwrap_or_default().to_owned();
        let mut events = Vec::new();
        let ids = |i: usize| self.cpus.iter().filter(|c| c.translate.is_empty()).map(|c| c.ids[i]).collect();
        events.push(EventDesc {
            attr: sys::attr_bytes(&attr::dummy(self.plan.style)),
            name: "dummy:u".into(),
            ids: ids(0),
        });
        for (i, (tp, _)) in self.plan.events.iter().enumerate() {
            events.push(EventDesc {
                attr: sys::attr_bytes(&attr::tracepoint(tp.id, self.plan.style)),
                name: tp.full_name(),
                ids: ids(i + 1),
            });
        }
        for (i, p) in self.plan.probes.iter().enumerate() {
            events.push(EventDesc {
                attr: sys::attr_bytes(&attr::kprobe(self.plan.pmu, p.registers(), self.plan.style)),
                name: p.full_name(),
                ids: ids(self.plan.events.len() + i + 1),
            });
        }
        let mut facts = self.host.facts.clone();
        facts.extend(self.about.iter().cloned());
        facts.push(("clock.start".into(), clock));
        let (header_page, header_event) = self.fs.headers();
        let tasks = self
            .tasks
            .iter()
            .map(|(tid, (pid, comm))| {
                let name = if anonymise {
                    let mut b = [0u8; 16];
                    anonymous_name(*tid, &mut b);
                    String::from_utf8_lossy(&b).trim_end_matches('\0').to_owned()
                } else {
                    comm.clone()
                };
                (*pid, *tid, name)
            })
            .collect();
        Preamble {
            events,
            hostname: get("hostname"),
            release: get("kernel.release"),
            arch: get("kernel.machine"),
            cpu_desc: get("cpu.name"),
            cpuid: format!(
                "{},{},{},{}",
                get("cpu.vendor"),
                get("cpu.family"),
                get("cpu.model"),
                get("cpu.stepping")
            ),
            cpus_configured: host::configured(),
            cpus_online: self.cpus.iter().filter(|c| !c.gone).count() as u32,
            total_mem_kb: host::total_mem_kb(),
            cmdline: if anonymise { Vec::new() } else { self.options.argv.clone() },
            wall: (real, mono),
            header_page,
            header_event,
            formats: self.plan.events.iter().map(|e| (e.0.system.clone(), e.0.format.clone())).collect(),
            facts,
            tasks,
            compressed: self.options.compression.is_some(),
            level: self.options.compression.unwrap_or_default(),
        }
    }

    /// Starts the events of every CPU.
    pub(crate) fn enable(&self) -> Result<(), Error> {
        for c in &self.cpus {
            c.enable().map_err(|source| Error::System { what: "starting the events", source })?;
        }
        Ok(())
    }

    /// Follows CPUs that came online or went offline since the last call. The result is `Ok(true)` if any did.
    pub(crate) fn follow_hotplug(&mut self) -> Result<bool, Error> {
        let online = host::online();
        let mut changed = false;
        for c in &mut self.cpus {
            if !c.gone && !online.contains(&c.nr) {
                c.gone = true;
                changed = true;
                self.notes.push(format!("CPU {} went offline", c.nr));
            }
        }
        for &cpu in &online {
            if self.cpus.iter().any(|c| c.nr == cpu && !c.gone) {
                continue;
            }
            if let Some(mut new) = rings::open(&self.plan, cpu)? {
                // The head of the capture names the ids of the CPUs with which it started.
                if let Some(first) = self.cpus.first() {
                    new.translate = new.ids.iter().copied().zip(first.ids.iter().copied()).collect();
                }
                new.enable().map_err(|source| Error::System { what: "starting the events", source })?;
                self.notes.push(format!("CPU {cpu} came online and is recorded from then on"));
                self.cpus.push(new);
                changed = true;
            }
        }
        Ok(changed)
    }
}

/// The path of the n-th snapshot: `x.perf.data` → `x.3.perf.data`.
pub(crate) fn numbered(path: &Path, n: u32) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let (stem, rest) = match name.strip_suffix(".perf.data") {
        Some(stem) => (stem.to_owned(), ".perf.data".to_owned()),
        None => match name.rsplit_once('.') {
            Some((s, e)) if !s.is_empty() => (s.to_owned(), format!(".{e}")),
            _ => (name.clone(), String::new()),
        },
    };
    path.with_file_name(format!("{stem}.{n}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_snapshots() {
        assert_eq!(numbered(Path::new("/a/x.perf.data"), 3), Path::new("/a/x.3.perf.data"));
        assert_eq!(numbered(Path::new("x.data"), 1), Path::new("x.1.data"));
        assert_eq!(numbered(Path::new("x"), 1), Path::new("x.1"));
        assert_eq!(numbered(Path::new(".x"), 1), Path::new(".x.1"));
    }
}
