//! Real recordings on this machine's /dev/kvm, compared with perf.

#![allow(clippy::unwrap_used)] // a test may panic: also its helpers

#[path = "../../../cli/tests/it/ends.rs"]
mod ends;
mod support;

use ends::{output, succeeds};
use mmuscope_needs::{met, needs};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::*;

/// Ends a test where no VM can be recorded, or where the other needs are not met.
macro_rules! needs_recording {
    ($($more:expr),*) => {
        needs!("kvm", "kvmmmu", "guest", "record" $(, $more)*)
    };
}

const BOTH: &str = "kvm_mmu_set_spte,kvm_mmu_spte_requested,kvm_mmu_get_page,kvm_mmu_prepare_zap_page,kvm_page_fault,kvm_entry,\
                    kvm_userspace_exit,kvm_unmap_hva_range,kvm_mmio,kvm_mmu_paging_element";

#[test]
fn counts_equal_perfs_on_the_same_run() {
    needs_recording!("perf");
    let _alone = alone();
    let d = tempfile::tempdir().unwrap();
    let (ours, theirs) = (d.path().join("ours"), d.path().join("theirs"));
    let events: Vec<String> = BOTH
        .split(',')
        .map(|n| {
            let s = if Path::new("/sys/kernel/tracing/events/kvmmmu").join(n).exists() {
                "kvmmmu"
            } else {
                "kvm"
            };
            format!("{s}:{n}")
        })
        .collect();
    // The collector runs outside of perf: it sees all that perf sees, and perf's start and end lie within its time.
    let out = output(
        collect(&["-e", BOTH, "--buffer", "16M", "-o"])
            .arg(&ours)
            .args(["--", "perf", "record", "-q", "-a", "-m", "4096", "-e", &events.join(","), "-o"])
            .arg(&theirs)
            .arg("--")
            .arg(example("vm_load"))
            .arg("0.2"),
    )
    .unwrap();
    assert!(out.status.success(), "{}", stderr(&out));
    assert!(stderr(&out).contains("lost: nothing"), "{}", stderr(&out));
    // Both see the mmu_notifier events of other VMs; those from before perf started are only in ours.
    let (a, b) = (perf_counts(&ours), perf_counts(&theirs));
    assert!(a.get("kvmmmu:kvm_mmu_set_spte").is_some_and(|n| *n > 500), "{a:?}");
    assert_eq!(a, b, "ours left, perf's right");
    let p = parse(&fs::read(&ours).unwrap());
    assert_eq!(p.samples() as u64, a.values().sum::<u64>(), "perf reads every sample of ours");
    assert_eq!(p.rest, 0);
    assert_eq!(p.fact("lost.total"), Some("0"));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(p.fact("kernel.release"), Some(release.trim()));
    assert!(p.names.values().any(|n| n == "kvmmmu:kvm_mmu_set_spte"));
}

#[test]
fn killed_at_any_moment_the_capture_is_readable() {
    needs_recording!();
    let _alone = alone();
    let with_perf = met!("perf");
    let rounds: u32 = std::env::var("MMUSCOPE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let d = tempfile::tempdir().unwrap();
    let mut load = Guard::load();
    let mut seed = 0x9e37_79b9u32;
    let mut with_samples = 0;
    for round in 0..rounds {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let file = d.path().join(format!("k{round}"));
        if load.ended() {
            load = Guard::load();
        }
        let child = Guard::new(collect(&["-q", "--buffer", "512k", "-o"]).arg(&file));
        wait_for("the capture's head", || fs::metadata(&file).is_ok_and(|m| m.len() > 0));
        sleep(Duration::from_micros(u64::from(seed % 400_000)));
        drop(child);
        let bytes = fs::read(&file).unwrap();
        let p = parse(&bytes);
        with_samples += u32::from(p.samples() > 0);
        if with_perf {
            let n: u64 = perf_counts(&file).values().sum();
            assert_eq!(n, p.samples() as u64, "round {round}: perf reads what was flushed");
        }
        fs::remove_file(&file).unwrap();
    }
    drop(load);
    assert!(
        with_samples * 2 > rounds,
        "only {with_samples} of {rounds} captures had events: the test tests nothing"
    );
}

#[test]
fn losses_are_counted_and_placed() {
    needs_recording!();
    let _alone = alone();
    let d = tempfile::tempdir().unwrap();
    let file = d.path().join("x");
    let load = Guard::load();
    // The rings are tiny, and the recorder is stopped for a while.
    let child = Guard::new(collect(&["--buffer", "64k", "-o"]).arg(&file).stderr(Stdio::piped()));
    wait_for("events", || fs::metadata(&file).is_ok_and(|m| m.len() > 80_000));
    child.signal("STOP");
    sleep(Duration::from_millis(300));
    child.signal("CONT");
    sleep(Duration::from_millis(200));
    child.signal("INT");
    let out = child.output();
    drop(load);
    let text = stderr(&out);
    assert!(out.status.success(), "{:?} {text}", out.status);
    assert!(text.contains("LOST: ") && text.contains("CPU "), "{text}");
    let p = parse(&fs::read(&file).unwrap());
    let sum = |kind: u32, at: usize| -> u64 {
        p.records.iter().filter(|r| r.kind == kind).map(|r| u64_at(&r.body, at)).sum()
    };
    let total: u64 = p.fact("lost.total").unwrap().parse().unwrap();
    assert!(total > 0);
    assert_eq!(sum(2, 8), total, "LOST records hold every loss at its place");
    assert_eq!(sum(13, 0), total, "LOST_SAMPLES records hold the same per event");
}

#[test]
fn the_flight_recorder_saves_on_request() {
    needs_recording!();
    let _alone = alone();
    let d = tempfile::tempdir().unwrap();
    let name = |n: u32| d.path().join(format!("f.{n}.perf.data"));
    let load = Guard::load();
    let child = Guard::new(
        collect(&[
            "--flight",
            "--buffer",
            "256k",
            "--trigger",
            "faults(vm) > 100000000/1s or event kvm_mmu_zap_all_fast",
            "-o",
        ])
        .arg(d.path().join("f.perf.data"))
        .stderr(Stdio::piped()),
    );
    wait_for("the start", || {
        fs::read_to_string(format!("/proc/{}/maps", child.id())).is_ok_and(|m| m.contains("perf_event"))
    });
    sleep(Duration::from_millis(600));
    child.signal("USR1");
    wait_for("the first snapshot", || name(1).exists());
    sleep(Duration::from_millis(700));
    // At its end, this VM deletes a memory slot, which zaps all its page tables at once. That fires the trigger.
    assert!(output(Command::new(example("vm_load")).arg("0")).unwrap().status.success());
    wait_for("the triggered snapshot", || name(2).exists());
    sleep(Duration::from_millis(100));
    child.signal("INT");
    let out = child.output();
    drop(load);
    let text = stderr(&out);
    assert!(out.status.success(), "{text}");
    assert!(text.contains("SIGUSR1") && text.contains("trigger: event kvm_mmu_zap_all_fast"), "{text}");
    for n in 1..=3 {
        let bytes = fs::read(name(n)).unwrap_or_else(|e| panic!("snapshot {n}: {e}; {text}"));
        let p = parse(&bytes);
        assert!(p.samples() > 500, "snapshot {n} has {} events", p.samples());
        // The events of every CPU are in order, oldest first.
        let mut last: HashMap<u32, u64> = HashMap::new();
        for r in p.records.iter().filter(|r| r.kind == 9) {
            let (time, cpu) = (u64_at(&r.body, 16), u32_at(&r.body, 24));
            let before = last.insert(cpu, time).unwrap_or(0);
            assert!(before <= time, "snapshot {n}: CPU {cpu} goes back in time");
        }
        // It holds the newest events, up to the moment of the trigger.
        let trigger: u64 = p.fact("record.trigger_time").unwrap().parse().unwrap();
        let newest = last.values().copied().max().unwrap();
        assert!(newest <= trigger + 5_000_000 && trigger < newest + 200_000_000, "{newest} {trigger}");
        if met!("perf") {
            assert_eq!(perf_counts(&name(n)).values().sum::<u64>(), p.samples() as u64);
        }
    }
}

#[test]
fn a_full_disk_ends_the_recording_readably() {
    needs_recording!("mount");
    let _alone = alone();
    let d = tempfile::tempdir().unwrap();
    assert!(succeeds(Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "nodev"]).arg(d.path())));
    let file = d.path().join("x");
    let out = output(collect(&["-e", "all", "-o"]).arg(&file).arg("--").arg(example("vm_load")).arg("1.5"));
    let bytes = fs::read(&file);
    succeeds(Command::new("umount").arg(d.path()));
    let (out, bytes) = (out.unwrap(), bytes.unwrap());
    assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
    assert!(stderr(&out).contains("the disk is full"), "{}", stderr(&out));
    assert!(parse(&bytes).samples() > 1000);
}

#[test]
fn a_pipe_carries_the_capture_and_nothing_else() {
    needs_recording!();
    let _alone = alone();
    // The command prints to its standard output, which must not get into the capture.
    let out = output(collect(&["-q", "-o", "-", "--"]).arg(example("vm_load")).arg("0.1")).unwrap();
    assert!(out.status.success(), "{}", stderr(&out));
    assert!(stderr(&out).contains("touched"));
    let p = parse(&out.stdout);
    assert!(p.samples() > 500 && p.rest == 0);
    // A reader that closes the pipe ends the recording without an error.
    let mut child = Guard::new(collect(&["-o", "-"]).stdout(Stdio::piped()).stderr(Stdio::piped()));
    first_bytes(&mut child);
    let load = Guard::load();
    wait_for("the end", || child.ended());
    drop(load);
    let out = child.output();
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    // This is noticed even when nothing happens that would have to be written.
    let mut child =
        Guard::new(collect(&["-e", "kvm_set_irq", "-o", "-"]).stdout(Stdio::piped()).stderr(Stdio::piped()));
    first_bytes(&mut child);
    wait_for("the end without events", || child.ended());
    assert_eq!(child.output().status.code(), Some(0));
}

/// Whoever reads the pipe: a recording ends when it is asked to, and reports what did not reach the reader.
#[test]
fn a_reader_that_does_not_read_does_not_hold_the_recording_up() {
    needs_recording!();
    let _alone = alone();
    let load = Guard::new(Command::new(example("vm_load")).arg("20").stdout(Stdio::null()));
    let begun = Instant::now();
    let mut child = Guard::new(
        collect(&["--no-compress", "--duration", "1s", "--buffer", "1M", "-o", "-"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    // The pipe is held open and never read.
    let pipe = child.0.as_mut().unwrap().stdout.take().unwrap();
    wait_for("the end of the recording", || child.ended());
    let took = begun.elapsed();
    drop((pipe, load));
    let out = child.output();
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert!(took > Duration::from_secs(1), "{took:?}");
    let number = |after: &str| -> u64 {
        let (_, rest) = said.split_once(after).unwrap_or_else(|| panic!("no {after:?} in {said}"));
        rest.split(' ').next().unwrap().replace(',', "").parse().unwrap()
    };
    // A pipe holds 64 KiB, so all but a few hundred events of 80 bytes were not delivered.
    let (recorded, left) = (number("recorded "), number("NOT DELIVERED: up to "));
    assert!(recorded > 2000 && left <= recorded && left + 1000 > recorded, "{said}");
    assert!(said.contains("ended because the time was over") && !said.contains("lost: nothing"), "{said}");
}

/// A reader that is slower than the events for a while gets all of them, or finds the kernel's records of the losses.
#[test]
fn a_reader_that_lags_gets_the_whole_capture() {
    needs_recording!();
    let _alone = alone();
    let load = Guard::new(Command::new(example("vm_load")).arg("20").stdout(Stdio::null()));
    let child =
        Guard::new(collect(&["--duration", "1s", "-o", "-"]).stdout(Stdio::piped()).stderr(Stdio::piped()));
    // Nothing is read until the time is nearly over.
    sleep(Duration::from_millis(900));
    let out = child.output();
    drop(load);
    let said = stderr(&out);
    let p = parse(&out.stdout);
    assert!(p.rest == 0 && p.samples() > 2000, "{} samples, {} bytes left", p.samples(), p.rest);
    assert!(p.facts.iter().any(|(k, v)| k == "record.end" && v == "the time was over"), "{said}");
    let (_, rest) = said.split_once("recorded ").unwrap();
    let recorded: usize = rest.split(' ').next().unwrap().replace(',', "").parse().unwrap();
    assert_eq!(p.samples(), recorded, "{said}");
    // Whoever watches sees how the recorder does: events, losses, the ring that is fullest, its CPU time.
    let now: Vec<&str> = p.fact("recorder.now").expect("the recorder's own state").split(' ').collect();
    let ["events", events, "lost", lost, "ring", ring, "cpu", cpu] = now[..] else { panic!("{now:?}") };
    assert!((1..=recorded).contains(&events.parse::<usize>().unwrap()) && lost == "0", "{now:?}");
    let percent = |s: &str| s.parse::<f64>().unwrap();
    assert!((0.0..=100.0).contains(&percent(ring)) && percent(cpu) > 0.0, "{now:?}");
}

#[test]
fn one_process_among_others() {
    needs_recording!();
    let _alone = alone();
    let (wanted, other) = (Guard::load(), Guard::load());
    sleep(Duration::from_millis(200));
    let d = tempfile::tempdir().unwrap();
    let file = d.path().join("x");
    let pid = wanted.id();
    let out =
        output(collect(&["--vm", &pid.to_string(), "--duration", "300ms", "--anonymise", "-o"]).arg(&file))
            .unwrap();
    let other_pid = other.id();
    drop((wanted, other));
    assert!(out.status.success(), "{}", stderr(&out));
    let p = parse(&fs::read(&file).unwrap());
    let mut pids: BTreeMap<u32, u32> = BTreeMap::new();
    for r in p.records.iter().filter(|r| r.kind == 9) {
        *pids.entry(u32_at(&r.body, 8)).or_default() += 1;
    }
    assert!(pids.get(&pid).is_some_and(|n| *n > 100), "{pids:?}");
    assert!(!pids.contains_key(&other_pid), "{pids:?}");
    // The capture is anonymised, so there are no names.
    for r in p.records.iter().filter(|r| r.kind == 3) {
        let name = String::from_utf8_lossy(&r.body[8..r.body.len() - 24]).into_owned();
        assert!(name.starts_with("task-"), "{name}");
    }
    assert!(p.fact("hostname").is_none() && p.fact("kernel.cmdline").is_none());
    assert!(!p.facts.iter().any(|f| f.1.contains("vm_load")), "{:?}", p.facts);
}

#[test]
fn filters_reach_the_kernel() {
    needs_recording!();
    let _alone = alone();
    let d = tempfile::tempdir().unwrap();
    let file = d.path().join("x");
    let out = output(
        collect(&["-e", "kvm_mmu_set_spte", "--gfn", "0x410-0x41f", "-o"])
            .arg(&file)
            .arg("--")
            .arg(example("vm_load"))
            .arg("0.05"),
    )
    .unwrap();
    assert!(out.status.success(), "{}", stderr(&out));
    let p = parse(&fs::read(&file).unwrap());
    // gfn is at offset 8 of the raw record, which starts at 36 in the body (tracefs format of every kernel with this event).
    let gfns: Vec<u64> = p.records.iter().filter(|r| r.kind == 9).map(|r| u64_at(&r.body, 36 + 8)).collect();
    assert!(!gfns.is_empty());
    assert!(gfns.iter().all(|g| (0x410..=0x41f).contains(g)), "{gfns:x?}");
    let bad = output(collect(&["--filter", "kvm_mmu_set_spte:nonsense == 1", "-o"]).arg(&file)).unwrap();
    assert_eq!(bad.status.code(), Some(2));
    assert!(stderr(&bad).contains("nonsense") && stderr(&bad).contains("gfn, spte"), "{}", stderr(&bad));
}

#[test]
fn an_ordinary_user_learns_what_is_missing() {
    needs!("root", "setpriv");
    // Other users may not be able to enter the build directory, so a temporary one is used.
    let d = tempfile::tempdir().unwrap();
    let exe = d.path().join("collect");
    fs::copy(example("collect"), &exe).unwrap();
    for p in [d.path(), &exe] {
        fs::set_permissions(p, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let nobody = |args: &[&str]| {
        output(
            Command::new("setpriv")
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(&exe)
                .args(args)
                .current_dir("/"),
        )
        .unwrap()
    };
    let out = nobody(&["doctor"]);
    assert_eq!(out.status.code(), Some(2));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.lines().count() < 40, "one screen");
    assert!(
        text.contains("BAD") && text.contains("mend: run as root") && text.contains("cannot be recorded"),
        "{text}"
    );
    let out = nobody(&["-o", "/tmp/never"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("run as root"), "{}", stderr(&out));
}
