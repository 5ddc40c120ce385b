//! What the tests share: samples, small files made from them, and a form of events that can be compared across files.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::PathBuf;

use mmuscope_testing::write::{PerfStyle, dat_v6, perf_data};
use mmuscope_trace::undecoded::RawTrace;
use mmuscope_trace::{Body, Event, ReadOptions, Strings, Trace, event_name};

pub(crate) fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../samples").join(name)
}

pub(crate) fn load(name: &str) -> Trace {
    load_paths(&[sample(name)])
}

pub(crate) fn load_paths(paths: &[PathBuf]) -> Trace {
    Trace::load(paths, &ReadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn counts(t: &Trace) -> BTreeMap<String, u64> {
    let mut c = BTreeMap::new();
    for e in &t.events {
        *c.entry(event_name(&e.body, &t.strings).to_owned()).or_default() += 1;
    }
    c
}

/// An event in a form that does not depend on the ids of strings.
pub(crate) fn plain(e: &Event, s: &Strings) -> String {
    let body = match e.body {
        Body::Marker { text } => format!("Marker {}", s.text(text)),
        Body::Other { name, fields } => format!("Other {} {}", s.get(name), s.text(fields)),
        Body::Task { kind, tid, pid, comm } => format!("Task {kind:?} {tid} {pid:?} {}", s.get(comm)),
        Body::Exit { reason_name, .. } => {
            format!("{} {:?}", s.get(reason_name), Event { body: strip(e.body), ..*e }.body)
        }
        b => format!("{b:?}"),
    };
    format!("{} cpu{} {:?} {} {body}", e.ts, e.cpu, e.tid, s.get(e.comm))
}

fn strip(b: Body) -> Body {
    match b {
        Body::Exit { vcpu, reason, isa, rip, info1, info2, intr_info, error_code, requests, .. } => {
            Body::Exit {
                vcpu,
                reason,
                reason_name: mmuscope_trace::StrId::default(),
                isa,
                rip,
                info1,
                info2,
                intr_info,
                error_code,
                requests,
            }
        }
        b => b,
    }
}

/// The first `n` records of a sample's trace.dat, with some of every CPU.
pub(crate) fn small(n: usize) -> RawTrace {
    let mut raw = RawTrace::read_dat(&sample("6.1-npt/trace.dat")).unwrap();
    let mut all = std::mem::take(&mut raw.records);
    all.sort_by_key(|r| (r.ts, r.cpu));
    // Take the stretch in which the CPUs are busiest together.
    let other = |from: usize| all[from..from + n].iter().filter(|r| r.cpu != 0).count().min(n / 2);
    let from = (0..all.len() - n).step_by(n).max_by_key(|i| other(*i)).unwrap_or(0);
    raw.records = all[from..from + n].to_vec();
    raw.records.sort_by_key(|r| (r.cpu, r.ts));
    // Only formats that are used are included, so that every byte of a small file matters.
    let used: Vec<u32> =
        raw.records.iter().map(|r| u32::from(u16::from_le_bytes([r.data[0], r.data[1]]))).collect();
    raw.formats.retain(|f| used.contains(&f.id));
    raw
}

pub(crate) fn dat(raw: &RawTrace) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    dat_v6(&mut out, raw, 1).unwrap();
    out.into_inner()
}

pub(crate) fn perf(raw: &RawTrace, pipe: bool, zstd: bool) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    perf_data(&mut out, raw, 1, PerfStyle { pipe, zstd }).unwrap();
    out.into_inner()
}

/// Text as tracefs prints it.
pub(crate) fn text(lines: usize) -> String {
    let all = zstd::decode_all(std::fs::File::open(sample("6.1-npt/trace.txt.zst")).unwrap()).unwrap();
    let all = String::from_utf8(all).unwrap();
    let mut out = String::new();
    for l in all.lines().take(12).chain(all.lines().skip(30_000).take(lines)) {
        out.push_str(l);
        out.push('\n');
    }
    out
}
