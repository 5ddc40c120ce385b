//! Compares `perf record` with the collector on one machine, with the same VM workload and the same ring memory:
//! `bench_record [SECONDS] [KIB OF RING PER CPU]`.
//!
//! It needs root, /dev/kvm and perf; build it with --release. For each recorder it prints events, lost events, the recorder's CPU time per
//! event, bytes per event, and how fast the guest was (pages touched, relative to a run that nobody records).

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

fn example(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let mut p = std::env::current_exe()?;
    p.set_file_name(name);
    Ok(p)
}

/// Waits for a child and returns the CPU seconds it and its threads used (10 ms steps).
fn cpu_seconds(mut child: Child) -> Result<f64, Box<dyn Error>> {
    let pid = Pid::from_raw(child.id().try_into()?).ok_or("no pid")?;
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    // The child has exited but was not waited for yet, so its times can still be read.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    child.wait()?;
    let after = stat.rsplit_once(')').ok_or("no stat")?.1;
    let ticks: f64 =
        after.split_ascii_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

struct Run {
    name: &'static str,
    events: u64,
    lost: u64,
    cpu: f64,
    bytes: u64,
    pages: f64,
}

/// The number of pages a second that the guest touches.
fn load(seconds: f64) -> Result<f64, Box<dyn Error>> {
    let out = Command::new(example("vm_load")?).arg(seconds.to_string()).output()?;
    let text = String::from_utf8(out.stdout)?;
    let rate =
        text.split(", ").nth(1).and_then(|t| t.split(' ').next()).ok_or("vm_load does not run here")?;
    Ok(rate.parse()?)
}

/// The samples that perf finds in a file, and the lost ones.
fn count(file: &Path) -> Result<(u64, u64), Box<dyn Error>> {
    let out = Command::new("perf").args(["report", "-D", "-i"]).arg(file).stderr(Stdio::null()).output()?;
    let (mut samples, mut lost) = (0, 0);
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        if line.contains("PERF_RECORD_SAMPLE") {
            samples += 1;
        } else if let Some((_, n)) =
            line.split_once("PERF_RECORD_LOST: ").or_else(|| line.split_once("PERF_RECORD_LOST "))
        {
            // The line is `id:3f: lost:20` or `lost 20`.
            let n = n.rsplit([':', ' ']).next().unwrap_or_default();
            lost += n.trim().parse::<u64>().unwrap_or(0);
        }
    }
    Ok((samples, lost))
}

fn run(name: &'static str, seconds: f64, mut recorder: Command, file: &Path) -> Result<Run, Box<dyn Error>> {
    let child = recorder.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    sleep(Duration::from_millis(1200));
    let pages = load(seconds)?;
    sleep(Duration::from_millis(300));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    let cpu = cpu_seconds(child)?;
    let bytes = std::fs::metadata(file)?.len();
    let (events, lost) = count(file)?;
    std::fs::remove_file(file)?;
    Ok(Run { name, events, lost, cpu, bytes, pages })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let seconds: f64 = args.next().map_or(Ok(4.0), |a| a.parse())?;
    let kib: u64 = args.next().map_or(Ok(256), |a| a.parse())?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("x.data");
    let perf = |extra: &[&str]| {
        let mut c = Command::new("perf");
        c.args(["record", "-q", "-a", "-B", "-N", "-m", &(kib / 4).to_string(), "-e", "kvmmmu:*"])
            .args(extra)
            .arg("-o")
            .arg(&file);
        c
    };
    let ours = |events: &str| -> Result<Command, Box<dyn Error>> {
        let mut c = Command::new(example("collect")?);
        c.args(["-q", "--buffer", &format!("{kib}k"), "-e", events, "-o"]).arg(&file);
        Ok(c)
    };
    // The first run warms the machine up; the base is the mean of one run before and one after.
    load(seconds / 2.0)?;
    let before = load(seconds)?;
    let runs = [
        run("perf record", seconds, perf(&[]), &file)?,
        run("perf record -z", seconds, perf(&["-z"]), &file)?,
        run("mmuscope, same events", seconds, ours("kvmmmu:*")?, &file)?,
        run("mmuscope, default", seconds, ours("mmu")?, &file)?,
    ];
    let base = f64::midpoint(before, load(seconds)?);
    println!("{kib} KiB of ring a CPU, {seconds} s, guest alone touches {base:.0} pages a second");
    println!(
        "{:<24}{:>12}{:>12}{:>14}{:>14}{:>14}",
        "recorder", "events", "lost", "CPU ns/event", "bytes/event", "guest speed"
    );
    for r in runs {
        let n = r.events.max(1) as f64;
        println!(
            "{:<24}{:>12}{:>12}{:>14.0}{:>14.2}{:>13.1}%",
            r.name,
            r.events,
            r.lost,
            r.cpu * 1e9 / n,
            r.bytes as f64 / n,
            r.pages * 100.0 / base
        );
    }
    Ok(())
}
