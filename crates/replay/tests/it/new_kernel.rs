//! What a new kernel takes: data files. `kernels/7.9.toml` says where its bits lie and what it traces, `kernels/7.9.format` is its own format
//! file of a tracepoint that got one field more. (The model in `model/` runs under the same file at random: `exact_7_9`, `honest_7_9`.)

use std::fs::File;

use mmuscope_replay::{LayoutOverride, ReplayOptions, State, StateFilter, Timeline, replay};
use mmuscope_spte::{Layout, LayoutSpec, Resolved, Unlink};
use mmuscope_testing::fixture;
use mmuscope_testing::write::dat_v6;
use mmuscope_trace::format::Format;
use mmuscope_trace::undecoded::{RawRecord, RawTrace};
use mmuscope_trace::{Body, ReadOptions, Trace};

fn spec() -> LayoutSpec {
    let text = include_str!("../kernels/7.9.toml");
    LayoutSpec { file: Some(("7.9.toml".into(), text.into())), ..LayoutSpec::default() }
}

/// Two pages are mapped and the second is write-protected; then the link to their table is cut, which this kernel traces before the entries.
const EVENTS: &str = "
    1  t1 tdp 4 0 empty T10
    +1 t1 tdp 3 0 empty T11
    +1 t1 tdp 2 0 empty T12
    +1 t1 tdp 1 4 empty W77
    +1 t1 tdp 1 5 empty W78
    +1 t1 tdp 1 5 W78 R78-d
    9  t2 tdp 2 0 T12 empty
    +1 t2 zappage 1 0
    +1 t2 tdp 1 4 W77 frozen
    +1 t2 tdp 1 5 R78-d frozen
";

/// The changes of a trace as that kernel records them.
fn recorded(trace: &Trace) -> Trace {
    let mut format = Format::parse(include_str!("../kernels/7.9.format")).expect("a format file");
    format.system = "kvmmmu".into();
    let mut raw = RawTrace::default();
    for e in &trace.events {
        let Body::TdpSpteChanged { as_id, gfn, level, old_spte, new_spte } = e.body else { continue };
        let pid = e.tid.expect("a thread");
        let mut data = vec![0; 48];
        let fields = [
            ("common_type", u64::from(format.id)),
            ("common_pid", pid.into()),
            ("gfn", gfn),
            ("root_hpa", 0xdead_b000),
            ("old_spte", old_spte),
            ("new_spte", new_spte),
            ("level", level.into()),
            ("as_id", as_id.into()),
        ];
        for (name, value) in fields {
            let f = format.field(name).expect("a field of the format");
            let at = f.offset as usize;
            data[at..at + f.size as usize].copy_from_slice(&value.to_le_bytes()[..f.size as usize]);
        }
        raw.records.push(RawRecord { cpu: 0, ts: e.ts, data });
    }
    raw.formats.push(format);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("trace.dat");
    dat_v6(&mut File::create(&path).expect("a file"), &raw, 1).expect("written");
    Trace::load(&[path], &ReadOptions::default()).expect("read")
}

fn held(t: &Timeline, ts: u64) -> Vec<(u8, u64, State, Option<u64>)> {
    let mut all: Vec<_> = t
        .state_at(ts, &StateFilter::default())
        .into_iter()
        .map(|(e, s)| (e.level, e.gfn, s.state, s.spte))
        .collect();
    all.sort_unstable_by_key(|x| (x.0, x.1));
    all
}

fn check(kernel: &Resolved, trace: &Trace) {
    let options = ReplayOptions { layout: LayoutOverride { spec: spec() }, ..ReplayOptions::default() };
    let t = replay(trace, &options);
    let first = t.range().0;
    let value = |word: &str, level| fixture::value(&kernel.layout, word, level, 0).expect("a word");
    let link = |word, level| (level, 0, State::Table, Some(value(word, level)));
    assert_eq!(
        held(&t, first + 5_000),
        [
            (1, 4, State::Present, Some(value("W77", 1))),
            (1, 5, State::Present, Some(value("R78-d", 1))),
            link("T12", 2),
            link("T11", 3),
            link("T10", 4),
        ]
    );
    let gone = (2, 0, State::Nonpresent, Some(value("empty", 2)));
    let left: Vec<_> = held(&t, t.range().1)
        .into_iter()
        .filter(|x| x.2 != State::Removed && x.2 != State::Unknown)
        .collect();
    assert_eq!(left, [gone, link("T11", 3), link("T10", 4)], "the link that is cut first takes its table");
    assert!(t.evidence().is_empty(), "{:?}", t.evidence());
}

#[test]
fn a_new_kernel_is_data() {
    let kernel = spec().resolve().expect("7.9.toml resolves");
    let before: Layout = LayoutSpec::named("7.2/npt").and_then(|s| s.resolve()).expect("7.2").layout;
    assert_eq!(kernel.traces.unlink, Unlink::First);
    let writable = fixture::value(&kernel.layout, "W77", 1, 4).expect("a word");
    assert_eq!(kernel.layout.decode(writable, 1).mmu_writable, Some(true));
    assert_eq!(before.decode(writable, 1).mmu_writable, Some(false), "the bit moved");
    let trace = fixture::trace_of(EVENTS, &kernel).expect("a fixture");
    check(&kernel, &trace);
    let read = recorded(&trace);
    assert_eq!(read.events.len() as u64 + 1, trace.info.events, "all but the page's zap");
    check(&kernel, &read);
}
