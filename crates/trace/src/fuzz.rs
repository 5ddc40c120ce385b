//! The bodies of the fuzz targets, one for each reader, which take arbitrary bytes. A reader may fail, but must not panic, hang, or allocate
//! out of proportion. `fuzz/` runs them under cargo-fuzz; the tests replay its corpus.

use std::io::Cursor;
use std::path::Path;

use crate::format::Format;
use crate::load::Trace;
use crate::perf::PerfReader;
use crate::reader::{Cx, ReadOptions, Reader};
use crate::records::PageHead;
use crate::ring;

/// The body of a target.
pub type Target = fn(&[u8]);

/// The names and bodies of all targets.
pub const TARGETS: &[(&str, Target)] = &[
    ("any", any),
    ("text", text),
    ("dat", dat),
    ("perf", perf),
    ("perf_records", perf_records),
    ("ring_page", ring_page),
    ("format", format),
];

fn load(data: Vec<u8>) {
    let opts = ReadOptions { threads: 1, ..ReadOptions::default() };
    if let Ok(t) = Trace::from_bytes_with(data, "fuzz", &opts) {
        let mut last = 0;
        for e in &t.events {
            assert!(e.ts >= last, "time ran back");
            last = e.ts;
        }
    }
}

/// Reads the bytes as whatever they are recognised as.
pub fn any(data: &[u8]) {
    load(data.to_vec());
}

/// Reads text, as a file and as a paste.
pub fn text(data: &[u8]) {
    let _ = Trace::from_text(&String::from_utf8_lossy(data));
    load([b"# tracer: nop\n", data].concat());
}

/// Reads a trace.dat of either version.
pub fn dat(data: &[u8]) {
    for version in [&b"6\0"[..], b"7\0"] {
        load([b"\x17\x08\x44tracing", version, data].concat());
    }
}

/// Reads a perf.data in file mode.
pub fn perf(data: &[u8]) {
    load([b"PERFILE2\x68\0\0\0\0\0\0\0", data].concat());
}

/// Reads records of perf.data without a head.
pub fn perf_records(data: &[u8]) {
    let mut cx = Cx::new(&ReadOptions { threads: 1, ..ReadOptions::default() });
    let mut r = PerfReader::records(
        Box::new(Cursor::new(data.to_vec())),
        Path::new("fuzz"),
        crate::FormatKind::PerfPipe,
        0,
    );
    let mut out = Vec::new();
    while let Ok(true) = r.read(&mut out, &mut cx) {
        out.clear();
    }
}

/// Reads one page of the ring buffer.
pub fn ring_page(data: &[u8]) {
    for head in [PageHead::default(), PageHead { commit: 8, commit_size: 4, data: 12 }] {
        let Ok(start) = ring::open(data, &head) else { continue };
        let mut walk = start.walk;
        while let Ok(Some((_, a, b))) = walk.next(data) {
            assert!(a <= b && b <= data.len());
        }
    }
}

/// Reads a format file.
pub fn format(data: &[u8]) {
    if let Some(f) = Format::parse(&String::from_utf8_lossy(data)) {
        let _ = f.hints();
    }
}
