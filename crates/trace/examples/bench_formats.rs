//! Compares the speed of the readers with the tools people use, on one large file each, in one run: `cargo xtask bench formats`.
//!
//! `bench_formats [--events N] [--dir DIR] [--sample trace.dat]` makes a trace.dat v6, a perf.data and a tracefs text of about N events by
//! repeating the sample with shifted times, reads each with mmuscope (load into the packed store, and as a stream) and, if they are
//! installed, with `trace-cmd report` and `perf script`. The ratios are of whole programs, from start to end. With `--dir` the files stay
//! there; with `--write` they are only written, each with all events. `--small OUT N` writes a trace.dat of the first N records instead (fixtures).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mmuscope_testing::write::{PerfStyle, dat_v6, perf_data};
use mmuscope_trace::undecoded::RawTrace;
use mmuscope_trace::{Event, ReadOptions, Strings, Trace, stream};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let mut events = 5_000_000u64;
    let scratch = tempfile::tempdir()?;
    let mut dir = scratch.path().to_path_buf();
    let mut sample = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../samples/6.1-npt/trace.dat");
    let mut small = None;
    let mut only_write = false;
    let mut args = std::env::args().skip(1);
    while let Some(a) = args.next() {
        let mut value = || args.next().ok_or(format!("{a} needs a value"));
        match a.as_str() {
            "--events" => events = value()?.parse()?,
            "--dir" => dir = value()?.into(),
            "--sample" => sample = value()?.into(),
            "--write" => only_write = true,
            "--load" => return in_a_process(&PathBuf::from(value()?)),
            "--small" => small = Some((PathBuf::from(value()?), value()?.parse::<usize>()?)),
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    let mut raw = RawTrace::read_dat(&sample)?;
    if let Some((out, n)) = small {
        raw.records.sort_by_key(|r| (r.ts, r.cpu));
        // Take the stretch in which the CPUs are busiest together, and only the formats that it needs.
        let all = std::mem::take(&mut raw.records);
        let other = |from: usize| all[from..from + n].iter().filter(|r| r.cpu != 0).count().min(n / 2);
        let from = (0..all.len().saturating_sub(n)).step_by(n).max_by_key(|i| other(*i)).unwrap_or(0);
        raw.records = all[from..].iter().take(n).cloned().collect();
        raw.records.sort_by_key(|r| (r.cpu, r.ts));
        let used = |id: u32| {
            raw.records
                .iter()
                .any(|r| r.data.first_chunk().is_some_and(|c| u32::from(u16::from_le_bytes(*c)) == id))
        };
        raw.formats = raw.formats.iter().filter(|f| used(f.id)).cloned().collect();
        dat_v6(&mut BufWriter::new(File::create(out)?), &raw, 1)?;
        return Ok(());
    }
    std::fs::create_dir_all(&dir)?;
    let times = events.div_ceil(raw.records.len() as u64).max(1);
    let total = times * raw.records.len() as u64;
    println!("{total} events: {} records of {} repeated {times} times", raw.records.len(), sample.display());

    let dat = dir.join("large.dat");
    dat_v6(&mut BufWriter::new(File::create(&dat)?), &raw, times)?;
    if only_write {
        let style = PerfStyle::default();
        perf_data(&mut BufWriter::new(File::create(dir.join("large.perf.data"))?), &raw, times, style)?;
        write_text(&dat, &dir.join("large.txt"), total)?;
        return Ok(());
    }
    let own = measure("trace.dat v6", &dat, total)?;
    tool("trace-cmd report", Command::new("trace-cmd").args(["report", "-N"]).arg(&dat), total, own);

    let perf = dir.join("large.perf.data");
    perf_data(&mut BufWriter::new(File::create(&perf)?), &raw, times, PerfStyle::default())?;
    let own = measure("perf.data", &perf, total)?;
    tool("perf script", Command::new("perf").args(["script", "-f", "-i"]).arg(&perf), total, own);

    let packed = dir.join("large-zstd.perf.data");
    perf_data(
        &mut BufWriter::new(File::create(&packed)?),
        &raw,
        times,
        PerfStyle { pipe: true, zstd: true },
    )?;
    measure("perf.data, pipe, zstd", &packed, total)?;

    let text = dir.join("large.txt");
    let lines = write_text(&dat, &text, total.min(2_000_000))?;
    measure("tracefs text", &text, lines)?;
    let one = timed(|| load(&text, 1))?;
    println!("{:28} {:6.2} M lines/s on one core", "tracefs text", lines as f64 / one.as_secs_f64() / 1e6);
    Ok(())
}

fn timed<T>(
    f: impl FnOnce() -> Result<T, Box<dyn std::error::Error>>,
) -> Result<Duration, Box<dyn std::error::Error>> {
    let start = Instant::now();
    f()?;
    Ok(start.elapsed())
}

fn load(path: &Path, threads: usize) -> Result<Trace, Box<dyn std::error::Error>> {
    Ok(Trace::load(&[path.to_path_buf()], &ReadOptions { threads, ..ReadOptions::default() })?)
}

/// Does what `--load` asks for in a program of its own, because the tools are programs of their own, too.
fn in_a_process(path: &Path) -> Outcome {
    println!("{}", load(path, 0)?.events.len());
    Ok(())
}

/// Loads and streams a file, and returns the time of a program that loads it, from its start to its end.
fn measure(name: &str, path: &Path, events: u64) -> Result<Duration, Box<dyn std::error::Error>> {
    let mut memory = 0.0;
    let mut read = 0;
    let loaded = timed(|| {
        let t = load(path, 0)?;
        read = t.events.len() as u64;
        memory = (t.events.heap_bytes() + t.strings.heap_bytes()) as f64 / read.max(1) as f64;
        Ok(())
    })?;
    if read != events {
        return Err(format!("{name}: {read} events of {events}").into());
    }
    let mut seen = 0u64;
    let streamed = timed(|| {
        stream(&[path.to_path_buf()], &ReadOptions::default(), &mut |_: &Event, _: &Strings| {
            seen += 1;
            ControlFlow::Continue(())
        })?;
        Ok(())
    })?;
    let whole = timed(|| {
        let out = Command::new(std::env::current_exe()?).arg("--load").arg(path).output()?;
        let read: u64 = String::from_utf8_lossy(&out.stdout).trim().parse()?;
        if read == events { Ok(()) } else { Err(format!("{name}: {read} events of {events}").into()) }
    })?;
    let rate = |d: Duration| events as f64 / d.as_secs_f64() / 1e6;
    println!(
        "{name:28} {:6.2} M events/s loaded ({:.2} as a program), {:6.2} M/s streamed, {memory:.1} bytes of memory an event",
        rate(loaded),
        rate(whole),
        rate(streamed)
    );
    Ok(whole)
}

/// Runs a tool over the same file and discards its output.
fn tool(name: &str, command: &mut Command, events: u64, own: Duration) {
    let start = Instant::now();
    match command.stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(s) if s.success() => {
            let took = start.elapsed();
            println!(
                "{name:28} {:6.2} M events/s: mmuscope is {:.1} times as fast",
                events as f64 / took.as_secs_f64() / 1e6,
                took.as_secs_f64() / own.as_secs_f64()
            );
        }
        Ok(s) => println!("{name:28} failed ({s})"),
        Err(e) => println!("{name:28} not there ({e}): install it to compare"),
    }
}

/// Writes the text that tracefs would print for a trace, for the events that the sample has.
fn write_text(dat: &Path, out: &Path, lines: u64) -> Result<u64, Box<dyn std::error::Error>> {
    use mmuscope_trace::Body;
    let mut w = BufWriter::new(File::create(out)?);
    writeln!(w, "# tracer: nop\n#")?;
    let mut n = 0;
    let mut failed = None;
    stream(&[dat.to_path_buf()], &ReadOptions::default(), &mut |e: &Event, s: &Strings| {
        let body = match e.body {
            Body::TdpSpteChanged { as_id, gfn, level, old_spte, new_spte } => {
                format!(
                    "kvm_tdp_mmu_spte_changed: as id {as_id} gfn {gfn:x} level {level} old_spte {old_spte:x} new_spte {new_spte:x}"
                )
            }
            Body::SetSpte { gfn, spte, sptep, level, .. } => {
                format!("kvm_mmu_set_spte: gfn {gfn:x} spte {spte:x} (rwxu) level {level} at {sptep:x}")
            }
            Body::SpteRequested { gfn, pfn, level, .. } => {
                format!("kvm_mmu_spte_requested: gfn {gfn:x} pfn {pfn:x} level {level}")
            }
            Body::Exit { rip, info1, info2, .. } => format!(
                "kvm_exit: vcpu 0 reason npf rip {rip:#x} info1 {:#018x} info2 {:#018x} intr_info 0x00000000 error_code 0x00000000",
                info1.unwrap_or(0),
                info2.unwrap_or(0)
            ),
            Body::Entry { vcpu, rip, .. } => format!("kvm_entry: vcpu {vcpu}, rip {:#x}", rip.unwrap_or(0)),
            Body::PageFault { rip, address, error_code, .. } => {
                format!(
                    "kvm_page_fault: vcpu 0 rip {:#x} address {address:#018x} error_code {error_code:#x}",
                    rip.unwrap_or(0)
                )
            }
            _ => "kvm_mmu_paging_element: pte 10027 level 3".to_owned(),
        };
        let line = writeln!(
            w,
            "{:>16}-{:<7} [{:03}] ...1. {:5}.{:06}: {body}",
            s.get(e.comm),
            e.tid.unwrap_or(0),
            e.cpu,
            e.ts / 1_000_000_000,
            e.ts / 1000 % 1_000_000
        );
        n += 1;
        failed = line.err();
        if n >= lines || failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    w.flush()?;
    match failed {
        Some(e) => Err(e.into()),
        None => Ok(n),
    }
}
