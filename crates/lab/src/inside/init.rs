//! Process 1 of the host: it sets the host up, runs the workload, takes the truth and sends the results back.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use mmuscope_lab::host::{Emulator, Host, Recorder, Workload};

use crate::{kernel, vm::check};

const TRACING: &str = "/sys/kernel/tracing";
/// The text trace to which the truth belongs has a buffer of its own, so that other recorders can watch the same run.
const BUFFER: &str = "/sys/kernel/tracing/instances/lab";
const RESULT: &str = "/tmp/o";
/// The events of the `kvm` group that are recorded; the `kvmmmu` group is recorded as a whole.
const KVM_EVENTS: [&str; 18] = [
    "kvm_page_fault",
    "kvm_unmap_hva_range",
    "kvm_set_spte_hva",
    "kvm_age_hva",
    "kvm_test_age_hva",
    "kvm_age_page",
    "kvm_exit",
    "kvm_entry",
    "kvm_mmio",
    "vcpu_match_mmio",
    "kvm_userspace_exit",
    "kvm_smm_transition",
    "kvm_try_async_get_page",
    "kvm_async_pf_completed",
    "kvm_async_pf_not_present",
    "kvm_async_pf_ready",
    "kvm_async_pf_repeated_fault",
    "kvm_pml_full",
];

/// Does everything and powers the host off; it never returns.
pub(crate) fn boot() -> ! {
    let done = host();
    match &done {
        Ok(()) => println!("LAB-DONE"),
        Err(e) => println!("LAB-FAILED {e:#}"),
    }
    // SAFETY: plain system calls without pointers.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    loop {
        thread::park();
    }
}

fn mount(kind: &str, at: &str) -> Result<()> {
    fs::create_dir_all(at)?;
    let (kind_c, at_c) = (CString::new(kind)?, CString::new(at)?);
    // SAFETY: strings that end in NUL and live through the call; none of these file systems takes data.
    check(unsafe { libc::mount(kind_c.as_ptr(), at_c.as_ptr(), kind_c.as_ptr(), 0, std::ptr::null()) }, at)
}

/// Runs the phases in a VM of its own, in a guest that is a KVM host, too.
fn nested() -> Result<()> {
    for (kind, at) in [("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")] {
        mount(kind, at)?;
    }
    load_modules(&Host::load(Path::new("/lab/host.toml"))?)?;
    let mut vm = Command::new("/init")
        .args(["load", "/lab/host.toml", "--stay"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let out = BufReader::new(vm.stdout.take().context("no pipe")?);
    for line in out.lines() {
        let line = line?;
        println!("nested: {line}.");
        if line == "DONE" {
            // The VM ends when its standard input is closed, so it is kept open.
            std::mem::forget(vm);
            return Ok(());
        }
    }
    bail!("the nested VM ended early")
}

/// The part of the guest: it uses some memory, gives some back, and stays.
fn inside_linux() -> ! {
    if Path::new("/lab/host.toml").exists() {
        let ran = nested();
        println!("lab guest {ran:?}");
    }
    let mut blocks: Vec<Vec<u8>> = (0..80).map(|i| vec![i; 1 << 20]).collect();
    blocks.truncate(30);
    blocks.extend((0..20).map(|i| vec![i; 1 << 20]));
    println!("lab guest {} DONE", blocks.iter().map(Vec::len).sum::<usize>());
    loop {
        thread::park();
    }
}

fn host() -> Result<()> {
    mount("proc", "/proc")?;
    if fs::read_to_string("/proc/cmdline")?.contains("lab-guest") {
        inside_linux();
    }
    for (kind, at) in [
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tracefs", TRACING),
        ("debugfs", "/sys/kernel/debug"),
    ] {
        mount(kind, at)?;
    }
    fs::create_dir_all(RESULT)?;
    let host = Host::load(Path::new("/lab/host.toml"))?;
    load_modules(&host)?;
    facts()?;
    if host.workload.phases.iter().any(|p| p == "swap") {
        swap_on();
    }
    match host.workload.backing {
        mmuscope_lab::host::Backing::Hugetlb2m => {
            fs::write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "100")?;
        }
        mmuscope_lab::host::Backing::Hugetlb1g => {
            fs::write("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "1")?;
        }
        mmuscope_lab::host::Backing::Anonymous => {
            if host.workload.phases.iter().any(|p| p == "misaligned") {
                fs::write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "8")?;
            }
        }
    }
    let ran = record(&host);
    let log = Command::new("/bin/busybox").arg("dmesg").output()?;
    fs::write(format!("{RESULT}/dmesg.txt"), log.stdout)?;
    match host.emulator {
        Emulator::Qemu => run("/bin/busybox", &["tar", "cf", "/dev/vda", "-C", RESULT, "."])?,
        Emulator::Bochs => {
            let mut tar = Command::new("/bin/busybox")
                .args(["tar", "cz", "-C", RESULT, "."])
                .stdout(Stdio::piped())
                .spawn()?;
            let mut out = tar.stdout.take().context("no pipe from tar")?;
            port_e9(&mut out)?;
            tar.wait()?;
        }
    }
    ran
}

/// Sends everything to port 0xe9, which Bochs writes to its own standard output.
fn port_e9(from: &mut impl std::io::Read) -> Result<()> {
    // SAFETY: asks for the right to use ports; no memory is involved.
    check(unsafe { libc::iopl(3) }, "iopl")?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        // SAFETY: writes `n` initialised bytes to the port; the registers the instruction changes are declared.
        unsafe {
            std::arch::asm!("rep outsb", in("dx") 0xe9u16, inout("rsi") buffer.as_ptr() => _, inout("rcx") n => _, options(readonly, nostack));
        };
    }
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let status = Command::new(program).args(args).status().with_context(|| program.to_owned())?;
    if !status.success() {
        bail!("{program} {}: {status}", args.join(" "));
    }
    Ok(())
}

/// Loads the modules in the order that the initrd's maker determined; each line of the list is a file and its name.
fn load_modules(host: &Host) -> Result<()> {
    for line in fs::read_to_string("/lab/modules")?.lines() {
        let name = Path::new(line).file_stem().unwrap_or_default().to_string_lossy().replace('_', "-");
        let params = match name.as_str() {
            "kvm" => Some(&host.kvm),
            "kvm-amd" | "kvm-intel" => Some(&host.vendor),
            _ => None,
        };
        let words: Vec<String> = params.into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
        let (image, words) =
            (fs::read(line).with_context(|| line.to_owned())?, CString::new(words.join(" "))?);
        // SAFETY: the kernel copies the image and the NUL-terminated words before the call returns.
        let result =
            unsafe { libc::syscall(libc::SYS_init_module, image.as_ptr(), image.len(), words.as_ptr()) };
        if let Err(e) = check(result as i32, &name) {
            // A driver that is built in, or has no device here, is not needed; KVM is.
            if name.starts_with("kvm") {
                return Err(e);
            }
        }
    }
    Ok(())
}

/// Writes the facts about the host that a reader of the trace needs.
fn facts() -> Result<()> {
    for f in ["cpuinfo", "version", "cmdline"] {
        fs::copy(format!("/proc/{f}"), format!("{RESULT}/{f}"))?;
    }
    fs::copy("/lab/host.toml", format!("{RESULT}/host.toml"))?;
    let mut params = Vec::new();
    for module in ["kvm", "kvm_amd", "kvm_intel"] {
        let Ok(dir) = fs::read_dir(format!("/sys/module/{module}/parameters")) else { continue };
        let mut files: Vec<PathBuf> = dir.filter_map(|e| Some(e.ok()?.path())).collect();
        files.sort();
        for f in files {
            if let Ok(value) = fs::read_to_string(&f) {
                params.push(format!("{}:{}\n", f.display(), value.trim_end()));
            }
        }
    }
    fs::write(format!("{RESULT}/params.txt"), params.concat())?;
    kernel::dump_variables(Path::new(&format!("{RESULT}/kvars.txt")))?;
    let formats = format!(
        "cd {TRACING}/events && tar cf {RESULT}/formats.tar kvmmmu/*/format kvm/*/format header_page header_event"
    );
    run("/bin/busybox", &["sh", "-c", &formats])
}

/// Makes the second disk swap space.
fn swap_on() {
    let on = run("/bin/busybox", &["mkswap", "/dev/vdb"])
        .and_then(|()| run("/bin/busybox", &["swapon", "/dev/vdb"]));
    if let Err(e) = on {
        println!("SKIP swap: {e:#}");
    }
}

fn events(prefix: &str) -> Vec<String> {
    let known = KVM_EVENTS.iter().filter(|e| Path::new(&format!("{TRACING}/events/kvm/{e}")).is_dir());
    known.map(|e| format!("{prefix}{e}")).collect()
}

/// Runs the workload while all recorders watch, takes the truth while its VMs are alive, and then ends them.
fn record(host: &Host) -> Result<()> {
    if host.truth {
        start_text(host)?;
    }
    let recorders = start_recorders(host)?;
    let ran = workload(host);
    if host.truth {
        take_truth()?;
    }
    for (name, mut child) in recorders {
        // SAFETY: a signal to a child of ours that has not been waited for.
        check(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, "ending a recorder")?;
        println!("RECORDER {name}: {}", child.wait()?);
    }
    for vm in ran? {
        vm.end()?;
    }
    Ok(())
}

fn set(file: &str, value: &str) -> Result<()> {
    fs::write(format!("{BUFFER}/{file}"), value).with_context(|| file.to_owned())
}

/// Starts the text trace with which the truth is taken.
fn start_text(host: &Host) -> Result<()> {
    fs::create_dir(BUFFER).context("a trace buffer of our own")?;
    set("tracing_on", "0")?;
    set("buffer_size_kb", "60000")?;
    if host.record_tgid {
        // With it the text has a column for the process. Where the option is depends on the kernel.
        let _ = set("options/record-tgid", "1")
            .or_else(|_| Ok::<_, anyhow::Error>(fs::write(format!("{TRACING}/options/record-tgid"), "1")?));
    }
    set("events/kvmmmu/enable", "1")?;
    for e in events("") {
        set(&format!("events/kvm/{e}/enable"), "1")?;
    }
    set("tracing_on", "1")
}

/// Ends the text trace, and copies it, the tables that it names, and KVM's counters.
fn take_truth() -> Result<()> {
    // These would change the tables of idle VMs between the end of the trace and the copy: access sampling (on by default in 7.x), page merging, the
    // NX recovery worker.
    for (file, value) in [
        ("/sys/module/damon_stat/parameters/enabled", "N"),
        ("/sys/kernel/mm/ksm/run", "0"),
        ("/sys/module/kvm/parameters/nx_huge_pages_recovery_ratio", "0"),
    ] {
        let _ = fs::write(file, value);
    }
    let _ = set("tracing_on", "0");
    let _ = fs::write(format!("{TRACING}/tracing_on"), "0");
    let text = format!("{RESULT}/trace.txt");
    fs::copy(format!("{BUFFER}/trace"), &text).context("copying the text trace")?;
    let mut stats = String::new();
    for cpu in 0.. {
        let Ok(s) = fs::read_to_string(format!("{BUFFER}/per_cpu/cpu{cpu}/stats")) else { break };
        stats += &s;
    }
    fs::write(format!("{RESULT}/stats.txt"), stats)?;
    let (named, found) = kernel::dump_tables(Path::new(&text), Path::new(&format!("{RESULT}/ptpages.bin")))?;
    kernel::dump_counters(Path::new(&format!("{RESULT}/kvmstats.txt")))?;
    println!("TRUTH {named} page-table pages named, {found} found");
    Ok(())
}

fn start_recorders(host: &Host) -> Result<Vec<(&'static str, Child)>> {
    let mut started = Vec::new();
    for r in &host.record {
        let (name, mut command, ready) = match r {
            Recorder::Dat => {
                fs::write(format!("{TRACING}/tracing_on"), "1")?;
                let mut c = Command::new("/bin/trace-cmd");
                c.args(["record", "-q", "-b", "20000", "-e", "kvmmmu"]);
                for e in events("kvm:") {
                    c.args(["-e", &e]);
                }
                c.args(["-o", "trace.dat"]);
                ("trace-cmd", c, "trace.dat.cpu0")
            }
            Recorder::Perf => {
                let mut c = Command::new("/bin/perf");
                c.args(["record", "-q", "-a", "-m", "4096", "-e", "kvmmmu:*"]);
                for e in events("kvm:") {
                    c.args(["-e", &e]);
                }
                c.args(["-o", "perf.data"]);
                ("perf", c, "perf.data")
            }
            Recorder::Cmd => ("cmd", Command::new("/bin/cmd"), "cmd-ready"),
        };
        let log = File::create(format!("{RESULT}/{name}.log"))?;
        let child = command
            .current_dir(RESULT)
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .context(name)?;
        wait_until_watching(child.id(), ready);
        started.push((name, child));
    }
    Ok(started)
}

/// Waits until a recorder watches: its file exists, and it opens no more events (each is a file descriptor).
fn wait_until_watching(pid: u32, file: &str) {
    let end = Instant::now() + Duration::from_mins(10);
    let (mut open, mut steady) = (0, 0);
    while Instant::now() < end && (steady < 12 || !Path::new(RESULT).join(file).exists()) {
        thread::sleep(Duration::from_millis(150));
        let now = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        steady = if now == open { steady + 1 } else { 0 };
        open = now;
    }
}

/// The process of a VM.
struct Vm {
    role: &'static str,
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Vm {
    fn start(role: &'static str, plan: &Workload) -> Result<Self> {
        // The process is named after its role, which becomes the task name in the trace.
        let (program, file) = (format!("/bin/vm-{role}"), format!("/lab/{role}.toml"));
        let _ = std::os::unix::fs::symlink("/init", &program);
        let host = Host { workload: plan.clone(), ..Host::load(Path::new("/lab/host.toml"))? };
        fs::write(&file, host.to_toml()?)?;
        let mut child = Command::new(program)
            .args(["load", &file, "--stay"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().context("no pipe")?);
        let (tx, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                println!("{role}: {line}");
                if tx.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { role, child, lines })
    }

    fn wait_for(&self, line: &str) -> Result<()> {
        // Bochs is slow. A host that never answers is ended from outside.
        let patience = Duration::from_mins(20);
        while let Ok(got) = self.lines.recv_timeout(patience) {
            if got == line {
                return Ok(());
            }
        }
        bail!("vm-{} ended before it said {line}", self.role)
    }

    /// A line `tid pid comm` for each of its threads.
    fn threads(&self) -> String {
        let pid = self.child.id();
        let mut out = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            out.push(format!("{} {pid} {}\n", entry.file_name().to_string_lossy(), comm.trim_end()));
        }
        out.concat()
    }

    fn end(mut self) -> Result<()> {
        if self.role == "linux" {
            self.child.kill()?;
        }
        if let Some(mut pipe) = self.child.stdin.take() {
            let _ = pipe.write_all(b"\n");
        }
        self.child.wait()?;
        Ok(())
    }
}

/// Runs the VMs of the plan to the end of their phases; they are alive when this returns.
fn workload(host: &Host) -> Result<Vec<Vm>> {
    let plan = &host.workload;
    let mut vms = Vec::new();
    let mut threads = String::new();
    if plan.linux {
        vms.push(linux_guest(plan.vcpus)?);
    } else {
        if plan.killed_vm {
            let forever = Workload {
                race_ms: 1_000_000,
                phases: vec!["touch".into(), "mmio".into(), "huge".into(), "race".into()],
                ..plan.clone()
            };
            let mut killed = Vm::start("killed", &forever)?;
            killed.wait_for("PHASE race")?;
            let (ms, pid) = (plan.race_ms, killed.child.id() as i32);
            threads += &killed.threads();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(ms));
                // SAFETY: a signal to a child that is waited for only afterwards, here.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                let _ = killed.child.wait();
                crate::phases::mark("vm-killed");
            });
        }
        vms.push(Vm::start("main", plan)?);
        if plan.second_vm {
            vms.push(Vm::start("second", plan)?);
        }
    }
    for vm in &vms {
        vm.wait_for("DONE")?;
        threads += &vm.threads();
    }
    fs::write(format!("{RESULT}/tasks.txt"), threads)?;
    // By then, the memory of a killed VM has been given back.
    thread::sleep(Duration::from_millis(if plan.killed_vm { plan.race_ms + 500 } else { 50 }));
    Ok(vms)
}

/// Boots a whole Linux in a VM: QEMU, the host's own kernel, and this program as its init, which sees the word `lab-guest`.
fn linux_guest(vcpus: u32) -> Result<Vm> {
    let mut child = Command::new("/bin/qemu-system-x86_64")
        .args([
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-smp",
            &vcpus.to_string(),
            "-m",
            "384",
            "-nographic",
            "-nodefaults",
            "-no-reboot",
            "-L",
            "/lab/bios",
        ])
        .args(["-kernel", "/lab/bzImage", "-initrd", "/lab/guest.cpio", "-serial", "stdio"])
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check lab-guest"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("qemu")?;
    let mut out = child.stdout.take().context("no pipe")?;
    let (tx, lines) = mpsc::channel();
    thread::spawn(move || {
        // The lines of a serial console end in CR LF, and the last one may have no end.
        let (mut byte, mut line) = ([0], Vec::new());
        while out.read_exact(&mut byte).is_ok() {
            if byte[0] != b'\n' {
                line.push(byte[0]);
                continue;
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            println!("guest: {text}");
            line.clear();
            if tx.send(text.rsplit(' ').next().unwrap_or_default().to_owned()).is_err() {
                break;
            }
        }
    });
    Ok(Vm { role: "linux", child, lines })
}
