//! A small report made by hand, for tests: hostile names, losses, every kind of table.

use mmuscope_analysis::visual::{RasterOptions, Theme, Visual, raster_with};
use mmuscope_replay::{Cell, Certainty, MapImage, MapQuery, MemoryKind, Shade, VmId};
use mmuscope_trace::Losses;

use crate::{model::*, png, story, svg::overview};

/// A name that tries to break out of HTML, Markdown and a terminal.
pub(crate) const HOSTILE: &str =
    "</title></text><script>alert(1)</script>\"'&<img src=x>|`*_[a](b)\u{202e}\n# h";

pub(crate) fn empty() -> Report {
    let mut r = Report {
        schema: SCHEMA,
        generator: "mmuscope 0.1.0".into(),
        title: "An empty trace".into(),
        part: None,
        anchor: String::new(),
        story: Vec::new(),
        stands_out: Vec::new(),
        recording: Recording {
            format: "tracefs text".into(),
            clock_unit: "nanoseconds",
            resolution_ns: 1000,
            ..Recording::default()
        },
        vms: Vec::new(),
        phases: Vec::new(),
        lost: Vec::new(),
        events: Vec::new(),
        evidence: Vec::new(),
        unrecorded: Vec::new(),
        snapshots: Vec::new(),
        notes: Vec::new(),
    };
    r.story = story::story(&r);
    r
}

fn latency(n: u64) -> Latency {
    Latency {
        measured: n,
        p50: Some(28_000),
        p90: Some(81_500),
        p99: Some(1_200_000),
        max: Some(4_100_000),
        total: 95_000_000,
    }
}

fn map() -> MapPicture {
    let (cols, h) = (overview::PLOT as usize, 60usize);
    let mut cells = vec![Cell::default(); cols * h];
    for (i, c) in cells.iter_mut().enumerate() {
        let (x, y) = (i % cols, i / cols);
        let shade = if x < 100 {
            Shade::Unknown
        } else if y < 20 {
            Shade::Writable
        } else if y < 40 {
            Shade::ReadOnly
        } else {
            Shade::Mmio
        };
        c.counts[shade as usize] = 1;
    }
    let query = MapQuery { vm: VmId(0), as_id: 0, t0: 0, t1: 100, y0: 0., y1: 60., cols, rows: h };
    let image = MapImage { query, cols, rows: h, cells, exact: true };
    let draw = |t| {
        png::encode(&raster_with(Visual::builtin(), &image, &RasterOptions::new(t, 1))).unwrap_or_default()
    };
    MapPicture {
        width: overview::PLOT,
        height: 60,
        segments: vec![
            MapSegment { gfn_start: 0xfee00, gfn_end: 0xfee01, top: 0, height: 17, fold_below: 0xf0000 },
            MapSegment { gfn_start: 0, gfn_end: 0x4000, top: 30, height: 30, fold_below: 0 },
        ],
        light: draw(Theme::Light),
        dark: draw(Theme::Dark),
        shades: vec![Shade::Writable, Shade::ReadOnly, Shade::Mmio],
        stale: true,
        assumed: true,
        large: true,
        column: 1_000_000,
        merged: 12,
    }
}

fn over_time() -> OverTime {
    let steps = 10usize;
    let ramp = |k: u64| (0..steps as u64).map(|i| i * k).collect::<Vec<_>>();
    OverTime {
        step: 98_100_000,
        entries: vec![
            StateSeries { shade: Shade::Writable, counts: ramp(100), stale: ramp(20), peak: 950 },
            StateSeries { shade: Shade::Mmio, counts: vec![3; steps], stale: vec![0; steps], peak: 3 },
        ],
        present_bytes: vec![
            LevelSeries { level: 1, bytes: ramp(100 * 4096), stale: ramp(4096) },
            LevelSeries {
                level: 2,
                bytes: vec![0, 0, 0, 0, 0, 2 << 20, 4 << 20, 64 << 20, 64 << 20, 64 << 20],
                stale: vec![0; steps],
            },
        ],
        faults: vec![400, 300, 120, 60, 60, 40, 20, 20, 9, 5],
        first_faults: vec![400, 250, 100, 40, 20, 2, 0, 0, 0, 0],
        zaps: vec![0, 0, 250, 10, 0, 0, 0, 0, 0, 3],
        peak_bytes: 71_000_000,
        peak_at: 800_000_000,
        peak_sampled: false,
        end_bytes: 70_795_264,
        end_stale_bytes: 4096,
    }
}

fn page() -> PageReport {
    PageReport {
        as_id: 0,
        gfn: 0x1234,
        gpa: 0x123_4000,
        level: 1,
        count: 17,
        first: 1_000_000,
        last: 900_000_000,
        headline: "17 faults, 3 installs; present for 812 ms of 981 ms".into(),
        story: vec![
            StoryReport {
                ts: 1_000_000,
                who: format!("vcpu 0 ({HOSTILE})"),
                text: "write fault at 0x1234abc; a writable 4K page was installed".into(),
                shade: Some(Shade::Writable),
                certainty: Some(Certainty::Exact),
            },
            StoryReport {
                ts: 2_000_000,
                who: "vcpu 1".into(),
                text: "zapped".into(),
                shade: Some(Shade::Nonpresent),
                certainty: Some(Certainty::Assumed),
            },
        ],
        omitted: 0,
        omitted_after: 0,
        notes: vec![format!("a note about {HOSTILE}")],
    }
}

fn part(name: &str, value: &str, provenance: &str, why: &str) -> LayoutPart {
    LayoutPart { name: name.into(), value: value.into(), provenance: provenance.into(), why: why.into() }
}

fn recording() -> Recording {
    Recording {
        files: vec![FileReport {
            path: format!("/tmp/{HOSTILE}.dat"),
            format: "trace.dat v7".into(),
            bytes: 1_562_676,
        }],
        format: "trace.dat v7".into(),
        clock: "local".into(),
        clock_unit: "nanoseconds",
        resolution_ns: 1,
        first_event_absolute: 8_241_908_000,
        duration: 981_000_000,
        events: 44_683,
        partial: true,
        host: vec![
            Fact { name: "kernel".into(), value: "6.12.107".into() },
            Fact { name: HOSTILE.into(), value: HOSTILE.into() },
        ],
        params: [(HOSTILE.to_owned(), HOSTILE.to_owned())].into(),
        lost: LostTotal {
            losses: Losses::Counted { events: 1234, moments: 2 },
            known: true,
            events: Some(1234),
            moments: 2,
            per_cpu: [(0, 1000), (1, 234)].into(),
            per_event: [(HOSTILE.to_owned(), 5)].into(),
        },
        damage: vec![format!("{HOSTILE}: byte 77: expected a page header")],
        notes: vec![HOSTILE.into()],
        dialect: vec![part("role word", HOSTILE, "inferred", HOSTILE)],
    }
}

fn phases() -> Vec<PhaseReport> {
    vec![
        PhaseReport {
            text: "boot".into(),
            start: 0,
            end: 500_000_000,
            faults: 940,
            installs: 800,
            zaps: 250,
            present_bytes: Some(4 << 20),
            vm: None,
            fault_time: Some(9_400_000),
            write_protected: 12,
            made_writable: 3,
        },
        PhaseReport {
            text: HOSTILE.into(),
            start: 500_000_000,
            end: 501_000_000,
            faults: 1,
            installs: 1,
            zaps: 0,
            present_bytes: Some(6 << 20),
            vm: None,
            fault_time: None,
            write_protected: 0,
            made_writable: 0,
        },
        PhaseReport {
            text: "dirty-log".into(),
            start: 501_000_000,
            end: 981_000_000,
            faults: 93,
            installs: 60,
            zaps: 13,
            present_bytes: Some(70_795_264),
            vm: None,
            fault_time: Some(1_100_000),
            write_protected: 40,
            made_writable: 38,
        },
    ]
}

fn counted() -> CountedReport {
    let row = |name: &str, count, total, bytes| CountReport {
        name: name.into(),
        count,
        total,
        p50: total,
        p99: total,
        max: total,
        vmm: None,
        bytes,
    };
    CountedReport {
        time: Some(vec![row("in the guest", 20, Some(500_000_000), None)]),
        exits: Some(vec![row(HOSTILE, 18, Some(30_000_000), None), row("npf", 2, None, None)]),
        zaps: vec![row("mmu_notifier", 250, None, None), row("not recorded", 13, None, None)],
        huge: vec![row("lost: the host invalidated them (mmu_notifier)", 2, None, Some(4 << 20))],
        missing: vec![HOSTILE.into()],
    }
}

fn vm() -> VmReport {
    let fault = |name: &str, about, n| FaultClass { name: name.into(), about, count: n, latency: latency(n) };
    VmReport {
        vm: 0,
        name: HOSTILE.into(),
        pid: Some(170),
        mmu: "TDP MMU".into(),
        provenance: format!("threads {HOSTILE}"),
        vcpus: vec![
            VcpuReport {
                vcpu: Some(0),
                tid: 172,
                name: HOSTILE.into(),
                faults: 900,
                p50: Some(28_000),
                p99: Some(1_200_000),
                total: 80_000_000,
            },
            VcpuReport {
                vcpu: None,
                tid: 173,
                name: "load".into(),
                faults: 134,
                p50: None,
                p99: None,
                total: 0,
            },
        ],
        layout: LayoutReport {
            id: "D/npt".into(),
            confidence: "certain".into(),
            parts: vec![
                part("MMIO mask", "0x8000000000001", "inferred", "11 mark_mmio_spte events"),
                part("host-writable", "bit 9", "assumed", HOSTILE),
            ],
            alternatives: vec![HOSTILE.into()],
            notes: vec![HOSTILE.into()],
        },
        spaces: vec![SpaceReport {
            as_id: 0,
            over_time: over_time(),
            memory: vec![MemoryReport {
                frames: FrameRange::new(0, 0x4000),
                kind: MemoryKind::Ram,
                shade: Shade::Writable,
                level: 2,
                certainty: Certainty::Exact,
                entries: 32,
                slot: Some(0),
            }],
            memory_at: None,
            slots: vec![SlotReport {
                frames: FrameRange::new(0, 0x4000),
                slot: Some(0),
                usually: "RAM".into(),
                hva: Some(0x7f00_0000_0000),
                dirty_logging: true,
                read_only: false,
            }],
            map: Some(map()),
        }],
        faults: FaultReport {
            total: 1034,
            frames: 812,
            timed: true,
            latency: latency(1034),
            outcomes: vec![fault("fixed", "an entry was installed", 900), fault("mmio-hit", "emulated", 134)],
            accesses: vec![fault("write", "", 1000), fault("read", "", 34)],
            histogram: vec![
                HistogramBin { from: 16_384, to: 19_484, counts: vec![500, 0] },
                HistogramBin { from: 19_484, to: 23_170, counts: vec![400, 134] },
            ],
        },
        top_faults: vec![page()],
        top_zaps: vec![page()],
        mmio: vec![MmioReport {
            frames: FrameRange::new(0xfee00, 0xfee01),
            usually: Some("local APIC".into()),
            accesses: Some(1774),
            faults: 1500,
            installs: 11,
            first: 1_000,
            last: 970_000_000,
            generations: Some((40, 0x5a)),
        }],
        counted: counted(),
        outside_slots: Some(OutsideReport { known: 1034, faults: 134, frames: 1 }),
        torn_down: None,
    }
}

pub(crate) fn sample() -> Report {
    let mut r = empty();
    r.title = format!("{HOSTILE} on Linux 6.12.107");
    r.recording = recording();
    r.phases = phases();
    r.lost = vec![
        LostReport { cpu: Some(0), start: 300_000_000, end: 340_000_000, count: Some(1000) },
        LostReport { cpu: Some(1), start: 700_000_000, end: 700_000_000, count: None },
    ];
    r.events = vec![
        EventCount { event: "kvm_tdp_mmu_spte_changed".into(), count: 40_000 },
        EventCount { event: HOSTILE.into(), count: 4683 },
    ];
    r.evidence = vec![EvidenceReport {
        kind: "the old value is not the last new value".into(),
        count: 3,
        after_loss: 2,
        first: vec![EvidenceCase {
            ts: 350_000_000,
            vm: 0,
            as_id: 0,
            level: 1,
            gfn: 0x12,
            expected: Some(0x5a0),
            found: Some(0),
        }],
    }];
    r.vms = vec![vm()];
    r.story = story::story(&r);
    r
}
