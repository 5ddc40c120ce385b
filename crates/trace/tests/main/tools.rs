//! Counts and events against what `trace-cmd report` and `perf script` print for the same file.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use mmuscope_trace::Trace;

use crate::ends;
use crate::support::{counts, dat, load_paths, perf, sample, small};

fn output(program: &str, args: &[&str]) -> String {
    match ends::output(Command::new(program).args(args)) {
        Ok(o) if o.status.success() => String::from_utf8_lossy(&o.stdout).into_owned(),
        Ok(o) => panic!("{program} {args:?}: {}", String::from_utf8_lossy(&o.stderr)),
        Err(e) => panic!("{program}: {e}"),
    }
}

/// The number of events by name in a tool's text; the name is the word after the time.
fn by_name(text: &str) -> BTreeMap<String, u64> {
    let mut c = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let stamp =
            |w: &str| w.ends_with(':') && w.starts_with(|c: char| c.is_ascii_digit()) && w.contains('.');
        if !words.any(stamp) {
            continue;
        }
        let Some(name) = words.next() else { continue };
        let name = name.trim_end_matches(':');
        let name = name.rsplit(':').next().unwrap_or(name);
        let name = if name == "print" { "tracing_mark_write" } else { name };
        *c.entry(name.to_owned()).or_default() += 1;
    }
    c
}

fn own(t: &Trace) -> BTreeMap<String, u64> {
    let mut c = counts(t);
    for ours in ["comm", "fork", "exit", "lost", "damage"] {
        c.remove(ours);
    }
    c
}

fn temp(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut f = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut f, bytes).unwrap();
    f
}

fn trace_cmd(path: &Path) {
    let text = output("trace-cmd", &["report", "-N", path.to_str().unwrap()]);
    assert_eq!(own(&load_paths(&[path.to_path_buf()])), by_name(&text), "{}", path.display());
}

fn perf_script(path: &Path) {
    // perf reads only files of root or of the user who runs it.
    let text = output("perf", &["script", "-f", "-i", path.to_str().unwrap()]);
    let t = load_paths(&[path.to_path_buf()]);
    assert_eq!(own(&t), by_name(&text), "{}", path.display());
    assert!(!t.events.is_empty());
}

#[test]
fn trace_cmd_counts_the_same() {
    mmuscope_needs::needs!("trace-cmd");
    for name in
        ["6.1-npt/trace.dat", "6.1-ept-ad/trace.dat", "6.1-shadow32/trace.dat", "linux-boot/trace.dat"]
    {
        trace_cmd(&sample(name));
    }
    let p = temp(&dat(&small(500)));
    trace_cmd(p.path());
}

#[test]
fn perf_counts_the_same() {
    mmuscope_needs::needs!("perf");
    for name in [
        "6.1-npt/perf.data.zst",
        "6.1-npt/perf-pipe.data.zst",
        "6.1-ept-noad/perf.data.zst",
        "5.10-npt-tdp/perf.data.zst",
    ] {
        let bytes = zstd::decode_all(std::fs::File::open(sample(name)).unwrap()).unwrap();
        let p = temp(&bytes);
        perf_script(p.path());
    }
}

/// perf must be able to read what the writers of the tests and benchmarks write.
#[test]
fn what_we_write_is_what_perf_reads() {
    mmuscope_needs::needs!("perf");
    let raw = small(2_000);
    for (pipe, zstd) in [(false, false), (false, true), (true, false)] {
        let p = temp(&perf(&raw, pipe, zstd));
        perf_script(p.path());
    }
}

/// The plugin's text and the raw text of the same file give the same events, apart from the fields that they leave out.
#[test]
fn other_texts_of_trace_cmd() {
    mmuscope_needs::needs!("trace-cmd");
    let path = sample("6.1-npt/trace.dat");
    let whole = load_paths(std::slice::from_ref(&path));
    for args in [&["report"][..], &["report", "-R"], &["report", "-N", "-t"], &["report", "-N", "-l"]] {
        let mut all = args.to_vec();
        all.push(path.to_str().unwrap());
        let text = output("trace-cmd", &all);
        let t = Trace::from_text(&text).unwrap();
        assert_eq!((own(&t), t.info.damage.len()), (own(&whole), 0), "{args:?}");
        // The values of every change agree in both forms.
        let changes = |t: &Trace| -> Vec<mmuscope_trace::Body> {
            t.events
                .iter()
                .map(|e| e.body)
                .filter(|b| {
                    matches!(
                        b,
                        mmuscope_trace::Body::TdpSpteChanged { .. }
                            | mmuscope_trace::Body::SetSpte { .. }
                            | mmuscope_trace::Body::FastPageFault { .. }
                            | mmuscope_trace::Body::PageFault { .. }
                            | mmuscope_trace::Body::MarkMmioSpte { .. }
                            | mmuscope_trace::Body::UnmapHvaRange { .. }
                    )
                })
                .collect()
        };
        assert!(changes(&t) == changes(&whole), "{args:?}");
    }
}
