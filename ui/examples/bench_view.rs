//! Measures the viewer without a graphics card: `bench_view [MILLIONS of events, or a trace …]`. It prints how long the first picture and the whole trace
//! take, against a replay of the same file without a window, and the time that the thread of the window uses for a frame (median, 99th
//! percentile, worst), painting apart.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mmuscope_replay::{ReplayOptions, load};
use mmuscope_testing::write::{PerfStyle, perf_data};
use mmuscope_trace::ReadOptions;
use mmuscope_trace::undecoded::RawTrace;
use mmuscope_ui::bench::used_by_all;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() {
        args.push("10".to_owned());
    }
    let dir = tempfile::tempdir()?;
    for a in args {
        let file = match a.parse::<f64>() {
            Ok(millions) => made(dir.path(), (millions * 1e6) as u64)?,
            Err(_) => PathBuf::from(&a),
        };
        report(&file)?;
    }
    Ok(())
}

/// A perf.data of a real guest, repeated with shifted times until it has so many events.
fn made(dir: &Path, events: u64) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/6.1-npt/trace.dat");
    let raw = RawTrace::read_dat(&sample)?;
    let times = events.div_ceil(raw.records.len() as u64).max(1);
    let file = dir.join(format!("{events}.perf.data"));
    perf_data(&mut BufWriter::new(File::create(&file)?), &raw, times, PerfStyle::default())?;
    Ok(file)
}

fn report(file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (t0, used) = (Instant::now(), used_by_all());
    let plain = load(&[file.to_path_buf()], &ReadOptions::default(), &ReplayOptions::default(), None)?;
    let (alone, alone_used) = (t0.elapsed(), used_by_all().saturating_sub(used));
    drop(plain);
    let f = mmuscope_ui::bench::measure(file)?;
    println!(
        "{} events: first picture {:.2} s, all in {:.2} s = {:.2} x reading and replaying alone ({:.2} s); longest frame meanwhile {:.1} ms",
        f.events,
        f.first.as_secs_f64(),
        f.all.as_secs_f64(),
        f.all.as_secs_f64() / alone.as_secs_f64(),
        alone.as_secs_f64(),
        f.longest_reading.as_secs_f64() * 1e3,
    );
    // On a shared machine the clock says less than the time of the processors.
    println!(
        "  time of all processors: first picture {:.2} s, all in {:.2} s = {:.2} x reading and replaying alone ({:.2} s)",
        f.first_used.as_secs_f64(),
        f.all_used.as_secs_f64(),
        f.all_used.as_secs_f64() / alone_used.as_secs_f64(),
        alone_used.as_secs_f64(),
    );
    for (what, mut all) in f.frames {
        all.sort();
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let at = |p: usize| all.get(all.len() * p / 100).copied().map_or(0.0, ms);
        let worst = all.last().copied().map_or(0.0, ms);
        println!(
            "  {what:>10}: median {:.2} ms, 99 % {:.2} ms, worst {worst:.2} ms of {} frames",
            at(50),
            at(99),
            all.len()
        );
    }
    println!("  {:>10}: {} of 20 frames ask for another", "idle", f.idle);
    Ok(())
}
