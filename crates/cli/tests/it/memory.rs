//! Commands that stream take no more memory for a trace seven times as long.

use crate::ends::{LONG, output};
use crate::root;
use mmuscope_testing::write::{PerfStyle, dat_v6, perf_data};
use mmuscope_trace::undecoded::RawTrace;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a command to its end; gives what it printed and the most memory it held, in KiB.
fn most_memory(args: &[&str], stdin: Option<&Path>) -> (usize, u64) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mmuscope"))
        .args(args)
        .stdin(stdin.map_or(Stdio::null(), |p| File::open(p).expect("the input").into()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("mmuscope starts");
    let mut out = child.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut n = 0;
        let mut buf = vec![0; 1 << 16];
        while let Ok(k @ 1..) = out.read(&mut buf) {
            n += k;
        }
        n
    });
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let until = Instant::now() + LONG;
    while child.try_wait().expect("it can be waited for").is_none() {
        if Instant::now() > until {
            child.kill().ok();
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let peak =
            text.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        most = most.max(peak.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(child.wait().expect("its status").success(), "{args:?}");
    (reader.join().expect("the reader"), most)
}

/// The same run, short and more than seven times as long.
fn grows_by(name: &str, make: impl Fn(&Path, u64) -> io::Result<()>, commands: &[&[&str]], piped: bool) {
    let dir = tempfile::tempdir().expect("a folder");
    let (short, long) = (dir.path().join("short"), dir.path().join("long"));
    make(&short, 4).expect("the short file");
    make(&long, 30).expect("the long file");
    for command in commands {
        let run = |path: &Path| {
            let file = if piped { "-" } else { path.to_str().expect("a plain name") };
            most_memory(&[command, &[file][..]].concat(), piped.then_some(path))
        };
        let ((printed, few), (more_printed, many)) = (run(&short), run(&long));
        assert!(
            printed > 500 && more_printed >= printed,
            "{name} {command:?}: {printed} and {more_printed} bytes"
        );
        // Held in memory, packed, the events would be 13 MiB more; unpacked, 240.
        assert!(
            many < few + (10 << 10),
            "{name} {command:?}: {few} KiB, and {many} KiB for seven times as much"
        );
    }
}

const COUNT: &[&str] = &["summary", "--no-replay"];
const FEW: &[&str] = &["events", "--event", "kvm_mmio", "-f", "csv"];

fn raw() -> RawTrace {
    RawTrace::read_dat(&root().join("samples/6.1-npt/trace.dat")).expect("the sample")
}

fn create(path: &Path) -> io::Result<BufWriter<File>> {
    File::create(path).map(BufWriter::new)
}

#[test]
fn trace_dat() {
    let raw = raw();
    grows_by("trace.dat", |p, n| dat_v6(&mut create(p)?, &raw, n), &[COUNT, FEW], false);
}

#[test]
fn perf_data_compressed_as_a_whole() {
    let raw = raw();
    let make = |p: &Path, n| {
        let mut all = io::Cursor::new(Vec::new());
        perf_data(&mut all, &raw, n, PerfStyle::default())?;
        zstd::stream::copy_encode(all.get_ref().as_slice(), create(p)?, 1)
    };
    grows_by("perf.data.zst", make, &[FEW], false);
}

#[test]
fn perf_data_through_a_pipe() {
    let raw = raw();
    let style = PerfStyle { pipe: true, zstd: false };
    grows_by("perf pipe", |p, n| perf_data(&mut create(p)?, &raw, n, style), &[COUNT], true);
}

#[test]
fn text() {
    let zst = File::open(root().join("samples/6.1-npt/trace.txt.zst")).expect("the sample");
    let text = zstd::decode_all(zst).expect("it decompresses");
    let make = |p: &Path, n| {
        let mut out = create(p)?;
        for _ in 0..n {
            out.write_all(&text)?;
        }
        Ok(())
    };
    grows_by("text", make, &[FEW], false);
}

#[test]
fn summary_replays_where_memory_allows_and_says_where_it_does_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("long.dat");
    // Larger than what is held in memory in any case: 45 MiB, 3 million events.
    dat_v6(&mut create(&file).expect("a file"), &raw(), 48).expect("the trace");
    let summary = |before: &str| {
        let out = output(
            Command::new("sh")
                .args(["-c", &format!("{before} exec \"$0\" summary \"$1\""), env!("CARGO_BIN_EXE_mmuscope")])
                .arg(&file),
        )
        .expect("sh runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("UTF-8")
    };
    let whole = summary("");
    assert!(whole.contains("at the end") && !whole.contains("Not replayed"), "{whole}");
    // Three million events at 200 bytes do not fit into half of this.
    let counted = summary("ulimit -v 900000;");
    assert!(counted.contains("Not replayed: 3,") && counted.contains(" are available"), "{counted}");
    assert!(counted.contains("most frequent: ") && !counted.contains("at the end"), "{counted}");
}
