//! Finds which processes are VMMs, which of their threads are vCPUs, and which kernel threads work for them. The main type is [`Vmm`].

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A process that holds an open KVM VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vmm {
    /// The process id.
    pub pid: u32,
    /// The process name.
    pub comm: String,
    /// The name of the guest in its command line (`-name`, `--id`), if there is one.
    pub guest: Option<String>,
    /// Its threads: `(tid, comm, vCPU number where the name shows it)`.
    pub threads: Vec<(u32, String, Option<u32>)>,
    /// The kernel threads that work for it: `(tid, comm)`.
    pub kthreads: Vec<(u32, String)>,
    /// Its descriptors, as `(fd, what it is)`: `anon_inode:kvm-vm`, `anon_inode:kvm-vcpu:0`, …
    pub fds: Vec<(u32, String)>,
    /// Its cgroup (v2 path), if it is in one.
    pub cgroup: Option<String>,
}

/// The vCPU number in the name that a VMM gives to a vCPU thread.
pub(crate) fn vcpu_of(comm: &str) -> Option<u32> {
    let number = |s: &str| s.trim().parse::<u32>().ok();
    if let Some(rest) = comm.strip_prefix("CPU ") {
        return number(rest.strip_suffix("/KVM").unwrap_or(rest)); // QEMU
    }
    // These are the names in Firecracker, Cloud Hypervisor, crosvm, libkrun and kvmtool.
    for prefix in ["fc_vcpu", "vcpu", "crosvm_vcpu", "kvm-vcpu-"] {
        if let Some(rest) = comm.strip_prefix(prefix) {
            return number(rest);
        }
    }
    None
}

/// The process id of the VMM in the name of a kernel thread: `kvm-nx-lpage-recovery-4242`, `vhost-4242`, `kvm-pit/4242`.
pub(crate) fn works_for(comm: &str) -> Option<u32> {
    ["kvm-nx-lpage-recovery-", "vhost-", "kvm-pit/"].iter().find_map(|p| comm.strip_prefix(p)?.parse().ok())
}

/// The guest's name in a VMM's command line (arguments separated by NUL).
pub(crate) fn guest_name(cmdline: &[u8]) -> Option<String> {
    let args: Vec<String> =
        cmdline.split(|&b| b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
    for (i, a) in args.iter().enumerate() {
        let (flag, value) = match a.split_once('=') {
            Some((f, v)) if matches!(f, "--id" | "--name") => (f, Some(v.to_owned())),
            _ => (a.as_str(), args.get(i + 1).cloned()),
        };
        if !matches!(flag, "-name" | "--name" | "--id" | "-id") {
            continue;
        }
        let value = value?;
        // QEMU has guest=NAME,debug-threads=on.
        let first = value
            .split(',')
            .find_map(|p| p.strip_prefix("guest="))
            .unwrap_or_else(|| value.split(',').next().unwrap_or_default());
        return (!first.is_empty()).then(|| first.to_owned());
    }
    None
}

fn comm(dir: &Path) -> String {
    fs::read_to_string(dir.join("comm")).map(|s| s.trim_end_matches('\n').to_owned()).unwrap_or_default()
}

fn numbers(dir: &Path) -> Vec<u32> {
    let Ok(d) = fs::read_dir(dir) else { return Vec::new() };
    let mut v: Vec<u32> = d.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    v.sort_unstable();
    v
}

/// The threads of a process: `(tid, comm)`.
pub(crate) fn threads(proc: &Path, pid: u32) -> Vec<(u32, String)> {
    let dir = proc.join(pid.to_string()).join("task");
    numbers(&dir).into_iter().map(|t| (t, comm(&dir.join(t.to_string())))).collect()
}

/// All tasks that exist: `(pid, tid, comm)`.
pub(crate) fn tasks(proc: &Path) -> Vec<(u32, u32, String)> {
    numbers(proc)
        .into_iter()
        .flat_map(|p| threads(proc, p).into_iter().map(move |(t, c)| (p, t, c)))
        .collect()
}

/// Searches /proc. A process whose descriptors this user may not read is not found.
pub fn find() -> Vec<Vmm> {
    find_in(Path::new("/proc"))
}

pub(crate) fn find_in(proc: &Path) -> Vec<Vmm> {
    let mut out: Vec<Vmm> = Vec::new();
    let mut workers: Vec<(u32, u32, String)> = Vec::new();
    for pid in numbers(proc) {
        let dir = proc.join(pid.to_string());
        let name = comm(&dir);
        if let Some(vmm) = works_for(&name) {
            workers.push((vmm, pid, name));
            continue;
        }
        let fds: Vec<(u32, String)> = numbers(&dir.join("fd"))
            .into_iter()
            .filter_map(|fd| {
                let link = fs::read_link(dir.join("fd").join(fd.to_string())).ok()?;
                let link = link.to_str()?;
                (link.starts_with("anon_inode:kvm") || link == "/dev/kvm").then(|| (fd, link.to_owned()))
            })
            .collect();
        if !fds.iter().any(|f| f.1.starts_with("anon_inode:kvm-vm")) {
            continue;
        }
        let cgroup = fs::read_to_string(dir.join("cgroup"))
            .ok()
            .and_then(|s| s.lines().find_map(|l| l.strip_prefix("0::").map(str::to_owned)));
        out.push(Vmm {
            pid,
            comm: name,
            guest: fs::read(dir.join("cmdline")).ok().and_then(|c| guest_name(&c)),
            threads: threads(proc, pid).into_iter().map(|(t, c)| (t, c.clone(), vcpu_of(&c))).collect(),
            kthreads: Vec::new(),
            fds,
            cgroup,
        });
    }
    for (vmm, tid, name) in workers {
        if let Some(v) = out.iter_mut().find(|v| v.pid == vmm) {
            v.kthreads.push((tid, name));
        }
    }
    out
}

/// The one VMM that a pid or a name means. `Err` lists the VMMs that exist.
pub(crate) fn select<'a>(vmms: &'a [Vmm], what: &str) -> Result<&'a Vmm, String> {
    let list = || {
        if vmms.is_empty() {
            "no process with a KVM VM is visible".to_owned()
        } else {
            let all: Vec<String> = vmms
                .iter()
                .map(|v| {
                    format!(
                        "{} ({}{})",
                        v.pid,
                        v.comm,
                        v.guest.as_ref().map_or(String::new(), |g| format!(", {g}"))
                    )
                })
                .collect();
            format!("there are: {}", all.join(", "))
        }
    };
    if let Ok(pid) = what.parse::<u32>() {
        return vmms
            .iter()
            .find(|v| v.pid == pid || v.threads.iter().any(|t| t.0 == pid))
            .ok_or_else(|| format!("no VM in process {pid}; {}", list()));
    }
    let exact: Vec<&Vmm> =
        vmms.iter().filter(|v| v.guest.as_deref() == Some(what) || v.comm == what).collect();
    let hits: Vec<&Vmm> = if exact.is_empty() {
        vmms.iter()
            .filter(|v| v.guest.as_deref().is_some_and(|g| g.contains(what)) || v.comm.contains(what))
            .collect()
    } else {
        exact
    };
    match hits.as_slice() {
        [one] => Ok(one),
        [] => Err(format!("no VM is called {what:?}; {}", list())),
        many => {
            let pids: BTreeSet<u32> = many.iter().map(|v| v.pid).collect();
            Err(format!("{what:?} names {} VMs: give one of the pids {pids:?}", many.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_of_vcpu_threads_and_workers() {
        assert_eq!(vcpu_of("CPU 11/KVM"), Some(11));
        assert_eq!(vcpu_of("fc_vcpu 3"), Some(3));
        assert_eq!(vcpu_of("vcpu0"), Some(0));
        assert_eq!(vcpu_of("IO mon_iothread"), None);
        assert_eq!(works_for("kvm-nx-lpage-recovery-4242"), Some(4242));
        assert_eq!(works_for("vhost-17"), Some(17));
        assert_eq!(works_for("kvm-nx-lpage-re"), None);
    }

    #[test]
    fn guest_names_in_command_lines() {
        assert_eq!(
            guest_name(b"/usr/bin/qemu-system-x86_64\0-name\0guest=web-1,debug-threads=on\0-m\x001024\0")
                .as_deref(),
            Some("web-1")
        );
        assert_eq!(guest_name(b"qemu\0-name\0db\0").as_deref(), Some("db"));
        assert_eq!(guest_name(b"firecracker\0--id=abc\0--api-sock\0x\0").as_deref(), Some("abc"));
        assert_eq!(guest_name(b"firecracker\0--id\0abc").as_deref(), Some("abc"));
        assert_eq!(guest_name(b"qemu\0-name"), None);
    }

    #[test]
    fn a_vmm_in_proc() {
        let d = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let p = d.path().join(path);
            fs::create_dir_all(p.parent().unwrap()).unwrap();
            fs::write(p, text).unwrap();
        };
        write("42/comm", "qemu-system-x86\n");
        write("42/cmdline", "qemu\0-name\0guest=web\0");
        write("42/cgroup", "1:cpu:/x\n0::/machine.slice/machine-qemu.scope\n");
        write("42/task/42/comm", "qemu-system-x86\n");
        write("42/task/43/comm", "CPU 0/KVM\n");
        write("99/comm", "vhost-42\n");
        write("7/comm", "sh\n");
        fs::create_dir_all(d.path().join("42/fd")).unwrap();
        symlink("anon_inode:kvm-vm", d.path().join("42/fd/9")).unwrap();
        symlink("anon_inode:kvm-vcpu:0", d.path().join("42/fd/10")).unwrap();
        let v = find_in(d.path());
        assert_eq!(v.len(), 1);
        assert_eq!(v[0].threads[1], (43, "CPU 0/KVM".into(), Some(0)));
        assert_eq!(v[0].kthreads, [(99, "vhost-42".to_owned())]);
        assert_eq!(v[0].guest.as_deref(), Some("web"));
        assert_eq!(v[0].cgroup.as_deref(), Some("/machine.slice/machine-qemu.scope"));
        assert_eq!(select(&v, "web").unwrap().pid, 42);
        assert_eq!(select(&v, "43").unwrap().pid, 42);
        assert!(select(&v, "nope").unwrap_err().contains("42 (qemu-system-x86, web)"));
    }
}
