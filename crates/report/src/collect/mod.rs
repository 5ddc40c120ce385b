//! [`Report::new`]: from a replayed trace to the data of a report. It never formats a number; that is done where the report is written.

mod faults;
mod map;
mod memory;
mod recording;
mod space;

use mmuscope_analysis::findings::{self, Finding};
use mmuscope_analysis::session::Note;
use mmuscope_analysis::snapshots::sentence;
use mmuscope_replay::{Fault, PageStory, Timeline, TopPage, Vm, VmId};
use mmuscope_trace::Trace;

use crate::{
    frames::gpa_of,
    model::{
        EvidenceCase, EvidenceReport, FrameRange, LayoutPart, LayoutReport, LostReport, MmioReport,
        PageReport, PhaseReport, Report, SCHEMA, SnapshotReport, StoryReport, TAIL, TeardownReport,
        UnrecordedReport, VmReport,
    },
    story, words,
};

/// What a report contains.
#[derive(Clone, Debug)]
pub struct Options {
    /// Title of the page; `None` makes one from the VM and the kernel.
    pub title: Option<String>,
    /// Most pages in each list of busiest pages.
    pub pages: usize,
    /// Most lines of a page's story; the middle of a longer one is left out.
    pub story_lines: usize,
    /// Whether the maps are drawn. Markdown and JSON do not contain them.
    pub pictures: bool,
    /// Most VMs that get sections of their own; those with the most faults come first.
    pub vms: usize,
    /// Notes of a reader, in the order of their moments.
    pub notes: Vec<Note>,
}

impl Default for Options {
    fn default() -> Self {
        Self { title: None, pages: 10, story_lines: 24, pictures: true, vms: 8, notes: Vec::new() }
    }
}

/// Most characters of a name of a trace. Names are cut here, so that no part of a report has to.
const NAME: usize = 80;

impl Report {
    /// Gathers the data of the report of a trace.
    pub fn new(trace: &Trace, timeline: &Timeline, options: &Options) -> Report {
        let clock = Clock::new(trace, timeline);
        let mut vms: Vec<&Vm> = timeline.vms().iter().collect();
        let mut faults: Vec<Fault> = timeline.faults().collect();
        let events = recording::events(trace);
        let timed = findings::faults_are_timed(trace, timeline);
        if !timed {
            for f in &mut faults {
                f.end_ts = None;
            }
        }
        let busy = |vm: &Vm| faults.iter().filter(|f| f.vm == vm.id).count();
        vms.sort_by_cached_key(|vm| (std::cmp::Reverse(busy(vm)), vm.id));
        let mut phases = phases(timeline, timed, &clock);
        let spaces = space::Spaces::new(timeline, &faults, &clock, &mut phases);
        let mut report = Report {
            schema: SCHEMA,
            generator: format!("mmuscope {}", env!("CARGO_PKG_VERSION")),
            title: options.title.clone().unwrap_or_else(|| title(trace, &vms, &faults)),
            story: Vec::new(),
            stands_out: stands_out(trace, timeline, &clock),
            recording: recording::recording(trace, &clock, events.iter().map(|e| e.count).sum()),
            vms: vms
                .iter()
                .take(options.vms)
                .map(|vm| {
                    machine(
                        &Machine {
                            trace,
                            timeline,
                            faults: &faults,
                            clock: &clock,
                            spaces: &spaces,
                            options,
                            timed,
                        },
                        vm,
                    )
                })
                .collect(),
            phases,
            lost: timeline
                .lost()
                .iter()
                .map(|l| LostReport {
                    cpu: l.cpu,
                    start: clock.rel(l.start),
                    end: clock.rel(l.end),
                    count: l.count,
                })
                .collect(),
            events,
            evidence: evidence(timeline, &clock),
            unrecorded: timeline
                .unrecorded()
                .iter()
                .map(|u| UnrecordedReport { event: u.event, coverage: u.coverage.name(), without: u.without })
                .collect(),
            snapshots: snapshots(timeline, &clock),
            notes: options.notes.iter().map(Into::into).collect(),
        };
        report.recording.lost.moments = report.recording.lost.moments.max(report.lost.len() as u64);
        if let Some(rest) = vms.len().checked_sub(options.vms).filter(|n| *n > 0) {
            report.recording.notes.push(format!(
                "{} with fewer faults are left out of this report",
                words::counted(rest as u64, "more VM", "more VMs")
            ));
        }
        report.story = story::story(&report);
        report
    }
}

/// The findings, with times as the report counts them.
fn stands_out(trace: &Trace, timeline: &Timeline, clock: &Clock) -> Vec<Finding> {
    let mut all = findings::find(trace, timeline);
    for fact in &mut all {
        (fact.first, fact.last) = (clock.rel(fact.first), clock.rel(fact.last));
        fact.title = words::one_line(&fact.title, 800);
    }
    all
}

/// The time axis of a report: first and last time on the trace's clock, in nanoseconds.
pub(crate) struct Clock {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Clock {
    fn new(trace: &Trace, timeline: &Timeline) -> Self {
        if trace.events.is_empty() {
            return Self { start: 0, end: 0 };
        }
        let (a, b) = timeline.range();
        Self { start: a, end: b.max(a) }
    }

    /// Nanoseconds from the first event to `t`, within the trace.
    pub(crate) fn rel(&self, t: u64) -> u64 {
        t.clamp(self.start, self.end) - self.start
    }

    pub(crate) fn duration(&self) -> u64 {
        self.end - self.start
    }
}

fn title(trace: &Trace, vms: &[&Vm], faults: &[Fault]) -> String {
    let on = trace
        .info
        .host
        .os_release
        .as_deref()
        .map(|r| format!(" on Linux {}", words::one_line(r, NAME)))
        .unwrap_or_default();
    match vms {
        [] => match trace.info.files.first() {
            Some(f) => words::one_line(&f.path.display().to_string(), NAME),
            None => "A trace".to_owned(),
        },
        [one] => format!("{}{on}", vm_name(trace, one, faults)),
        many => format!("{}{on}", words::counted(many.len() as u64, "VM", "VMs")),
    }
}

/// Name of the VMM's process, or of a thread that faulted where no event names the process.
fn vm_name(trace: &Trace, vm: &Vm, faults: &[Fault]) -> String {
    let own = Some(words::one_line(&vm.comm, NAME)).filter(|n| !n.is_empty());
    own.or_else(|| {
        faults.iter().filter(|f| f.vm == vm.id).map(|f| thread_name(trace, f.tid)).find(|n| !n.is_empty())
    })
    .unwrap_or_else(|| format!("VM {}", vm.id.0))
}

fn thread_name(trace: &Trace, tid: u32) -> String {
    let task = trace.info.tasks.iter().find(|t| t.tid == tid);
    task.map(|t| words::one_line(trace.strings.get(t.comm), NAME)).unwrap_or_default()
}

/// The phases; what happened in each is counted by [`space::Spaces`].
fn phases(timeline: &Timeline, timed: bool, clock: &Clock) -> Vec<PhaseReport> {
    timeline
        .phases()
        .iter()
        .map(|p| PhaseReport {
            text: words::one_line(&p.text, 160),
            start: clock.rel(p.start),
            end: clock.rel(p.end),
            faults: 0,
            installs: 0,
            zaps: 0,
            present_bytes: 0,
            vm: p.vm.map(|v| v.0),
            fault_time: timed.then_some(0),
            write_protected: 0,
            made_writable: 0,
        })
        .collect()
}

/// The sources of the report of a VM.
struct Machine<'a> {
    trace: &'a Trace,
    timeline: &'a Timeline,
    faults: &'a [Fault],
    clock: &'a Clock,
    spaces: &'a space::Spaces,
    options: &'a Options,
    /// Whether the times of faults are known.
    timed: bool,
}

fn machine(from: &Machine<'_>, vm: &Vm) -> VmReport {
    let Machine { timeline, clock, options, .. } = *from;
    let faults: Vec<_> = from.faults.iter().filter(|f| f.vm == vm.id).collect();
    // The replay's lists are over all VMs, so that the pages of a quiet VM may only be far down.
    let many = if timeline.vms().len() > 1 { usize::MAX } else { options.pages };
    let own = |pages: Vec<TopPage>| {
        pages.into_iter().filter(|p| p.vm == vm.id).take(options.pages).collect::<Vec<_>>()
    };
    let mut top_faults = own(timeline.top_faults(many));
    top_faults.retain(|p| p.count > 1);
    VmReport {
        vm: vm.id.0,
        name: vm_name(from.trace, vm, from.faults),
        pid: vm.pid,
        mmu: vm.kind.name().to_owned(),
        provenance: words::one_line(&vm.provenance, 300),
        vcpus: faults::vcpus(from.trace, vm, &faults),
        layout: layout(timeline, vm.id),
        spaces: from.spaces.of(timeline, vm, &faults, clock, options),
        faults: faults::faults(&faults, from.timed),
        top_faults: pages(from, vm.id, &top_faults),
        top_zaps: pages(from, vm.id, &own(timeline.top_zaps(many))),
        mmio: mmio(timeline, vm.id, clock),
        outside_slots: crate::slots::outside_slots(timeline, vm.id),
        torn_down: vm.ended.as_ref().map(|e| TeardownReport {
            start: clock.rel(e.start),
            end: clock.rel(e.end),
            tid: e.tid,
            by: words::one_line(&e.by(), 300),
        }),
    }
}

fn layout(timeline: &Timeline, vm: VmId) -> LayoutReport {
    let info = timeline.layout(vm);
    let line = |s: &str| words::one_line(s, 300);
    LayoutReport {
        id: line(info.layout.id()),
        confidence: confidence(info.confidence).to_owned(),
        parts: info
            .parts
            .iter()
            .map(|p| LayoutPart {
                name: line(&p.what),
                value: line(&p.value),
                provenance: p.from.name().to_owned(),
                why: line(&p.why),
            })
            .collect(),
        alternatives: info.alternatives.iter().map(|a| line(a)).collect(),
        notes: info.resolved.notes.iter().map(|n| line(n)).collect(),
    }
}

fn confidence(c: f32) -> &'static str {
    if c >= 0.95 {
        "certain"
    } else if c >= 0.75 {
        "very likely"
    } else if c > 0.5 {
        "likely"
    } else if c >= 0.25 {
        "one of several that fit equally"
    } else {
        "a guess"
    }
}

fn pages(from: &Machine<'_>, vm: VmId, top: &[TopPage]) -> Vec<PageReport> {
    // The middle of a long story is left out; its beginning and its end are kept.
    let most = from.options.story_lines.max(TAIL + 1);
    let places: Vec<(u8, u64)> = top.iter().map(|p| (p.as_id, p.gfn)).collect();
    let stories = from.timeline.page_stories(from.trace, vm, &places, (most, TAIL));
    top.iter().zip(stories).map(|(p, (story, omitted))| page(from.clock, p, &story, omitted)).collect()
}

fn page(clock: &Clock, p: &TopPage, story: &PageStory, omitted: usize) -> PageReport {
    PageReport {
        as_id: p.as_id,
        gfn: p.gfn,
        gpa: gpa_of(p.gfn),
        level: p.level,
        count: p.count,
        first: clock.rel(p.first),
        last: clock.rel(p.last),
        headline: headline(story),
        story: story
            .lines
            .iter()
            .map(|l| StoryReport {
                ts: clock.rel(l.ts),
                who: words::one_line(&l.who, NAME),
                text: words::one_line(&l.text, 400),
                shade: l.shade,
                certainty: l.certainty,
            })
            .collect(),
        omitted: omitted as u64,
        notes: story.notes.iter().map(|n| words::one_line(n, 400)).collect(),
    }
}

/// The story in one sentence, without the frame, which the page shows beside it.
fn headline(story: &PageStory) -> String {
    let prefix = format!("gfn {:#x}: ", story.gfn);
    words::one_line(story.headline.strip_prefix(&prefix).unwrap_or(&story.headline), 400)
}

fn mmio(timeline: &Timeline, vm: VmId, clock: &Clock) -> Vec<MmioReport> {
    let mut out: Vec<_> = timeline.mmio_ranges().iter().filter(|m| m.vm == vm).collect();
    out.sort_by_key(|m| (std::cmp::Reverse((m.accesses, m.faults)), m.gfn_start));
    out.iter()
        .map(|m| MmioReport {
            frames: FrameRange::new(m.gfn_start, m.gfn_end),
            usually: mmuscope_analysis::places::usually_in(m.gfn_start, m.gfn_end),
            accesses: m.accesses,
            faults: m.faults,
            installs: m.installs,
            first: clock.rel(m.first),
            last: clock.rel(m.last),
            generations: m.generations,
        })
        .collect()
}

fn snapshots(timeline: &Timeline, clock: &Clock) -> Vec<SnapshotReport> {
    timeline
        .snapshots()
        .iter()
        .map(|s| SnapshotReport {
            start: clock.rel(s.start),
            tables: s.tables,
            equal: s.equal,
            settled: s.settled,
            differ: s.differ,
            text: sentence(s),
        })
        .collect()
}

fn evidence(timeline: &Timeline, clock: &Clock) -> Vec<EvidenceReport> {
    let mut out: Vec<EvidenceReport> = Vec::new();
    for e in timeline.evidence() {
        let kind = e.kind.words();
        let at = out.iter().position(|r| r.kind == kind).unwrap_or_else(|| {
            out.push(EvidenceReport { kind: kind.to_owned(), count: 0, after_loss: 0, first: Vec::new() });
            out.len() - 1
        });
        let r = &mut out[at];
        r.count += 1;
        r.after_loss += u64::from(e.after_loss);
        if r.first.len() < 8 {
            r.first.push(EvidenceCase {
                ts: clock.rel(e.ts),
                vm: e.vm.0,
                as_id: e.as_id,
                level: e.level,
                gfn: e.gfn,
                expected: e.expected,
                found: e.found,
            });
        }
    }
    out.sort_by_key(|r| std::cmp::Reverse(r.count));
    out
}
