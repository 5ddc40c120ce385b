//! [`Report::new`]: from a replayed trace to the data of a report. It never formats a number; that is done where the report is written.

mod faults;
mod map;
mod memory;
mod recording;
mod space;

use mmuscope_analysis::findings::{self, Finding};
use mmuscope_analysis::life;
use mmuscope_analysis::part::Part;
use mmuscope_analysis::session::Note;
use mmuscope_analysis::snapshots::sentence;
use mmuscope_analysis::stat::{Query, Tally};
use mmuscope_replay::{Evidence, Fault, PageStory, StoryLine, Timeline, TopPage, Vm, VmId, pages_of};
use mmuscope_trace::Trace;

use crate::{
    frames::gpa_of,
    model::{
        CountedReport, EvidenceCase, EvidenceReport, FrameRange, LayoutPart, LayoutReport, LostReport,
        MmioReport, PageReport, PartReport, PhaseReport, Report, SCHEMA, SnapshotReport, StoryReport, TAIL,
        TeardownReport, UnrecordedReport, VmReport,
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
    /// The part of the trace to keep to.
    pub part: Part,
    /// Notes of a reader, in the order of their moments.
    pub notes: Vec<Note>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            title: None,
            pages: 10,
            story_lines: 24,
            pictures: true,
            vms: 8,
            part: Part::default(),
            notes: Vec::new(),
        }
    }
}

/// Most characters of a name of a trace. Names are cut here, so that no part of a report has to.
const NAME: usize = 80;
/// Most lines of a story that are looked at: folded, they are the few that a page shows. Each takes a look back for who was behind it.
const LINES: usize = 400;

impl Report {
    /// Gathers the data of the report of a trace.
    pub fn new(trace: &Trace, timeline: &Timeline, options: &Options) -> Report {
        let (part, clock) = (&options.part, Clock::new(trace, timeline, &options.part));
        let faults = timeline.faults_by_event();
        // What passes over all events goes on beside what the pictures and stories need.
        let (mut report, (stands_out, stat)) = std::thread::scope(|s| {
            let tally = s.spawn(|| Tally::new(trace, timeline, &faults, &Query::of(part)));
            let survey = s.spawn(|| {
                let survey = findings::survey_with(trace, timeline, &faults);
                let stat = joined(tally).with(&survey);
                (stands_out(trace, survey.findings, &clock, part), stat)
            });
            (Self::without_findings(trace, timeline, options, &clock, &faults), joined(survey))
        });
        for vm in &mut report.vms {
            vm.counted = CountedReport::new(&stat, vm.vm);
        }
        report.stands_out = stands_out;
        report.story = story::story(&report);
        report
    }

    /// All but the findings, what is counted by cause, and the story.
    fn without_findings(
        trace: &Trace,
        timeline: &Timeline,
        options: &Options,
        clock: &Clock,
        faults: &[Fault],
    ) -> Report {
        let part = &options.part;
        let mut vms: Vec<&Vm> = timeline.vms().iter().filter(|v| part.holds_vm(v.id.0)).collect();
        let events = recording::events(trace, timeline.attribution(), part);
        let timed = findings::faults_are_timed(trace, timeline);
        let mut faults = findings::timed_faults(trace, timeline, faults);
        if !part.is_all() {
            faults.to_mut().retain(|f| part.fault(f));
        }
        let busy = |vm: &Vm| faults.iter().filter(|f| f.vm == vm.id).count();
        vms.sort_by_cached_key(|vm| (std::cmp::Reverse(busy(vm)), vm.id));
        let mut phases = phases(timeline, timed, clock, part);
        let spaces = space::Spaces::new(timeline, &faults, clock, &mut phases, part);
        let counted = events.iter().map(|e| e.count).sum();
        let mut report = Report {
            schema: SCHEMA,
            generator: format!("mmuscope {}", env!("CARGO_PKG_VERSION")),
            title: options.title.clone().unwrap_or_else(|| title(trace, &vms, &faults)),
            part: PartReport::new(
                part,
                clock.first,
                (clock.start - clock.first, clock.end - clock.first),
                counted,
            ),
            anchor: String::new(),
            story: Vec::new(),
            stands_out: Vec::new(),
            recording: recording::recording(
                trace,
                &Clock::new(trace, timeline, &Part::default()),
                if part.is_all() { counted } else { timeline.event_count() },
            ),
            vms: vms
                .iter()
                .take(options.vms)
                .map(|vm| {
                    machine(
                        &Machine { trace, timeline, faults: &faults, clock, spaces: &spaces, options, timed },
                        vm,
                    )
                })
                .collect(),
            phases,
            lost: timeline
                .lost()
                .iter()
                .filter(|l| l.start <= clock.end && clock.start <= l.end)
                .map(|l| LostReport {
                    cpu: l.cpu,
                    start: clock.rel(l.start),
                    end: clock.rel(l.end),
                    count: l.count,
                })
                .collect(),
            events,
            evidence: evidence(timeline, clock, part),
            unrecorded: timeline
                .unrecorded()
                .iter()
                .map(|u| UnrecordedReport { event: u.event, coverage: u.coverage.name(), without: u.without })
                .collect(),
            snapshots: snapshots(timeline, clock, part),
            notes: options.notes.iter().map(Into::into).collect(),
        };
        // What could not be read is among them, and no loss.
        let lost = report.lost.len().saturating_sub(trace.info.damage.len()) as u64;
        report.recording.lost.moments = report.recording.lost.moments.max(lost);
        if let Some(rest) = vms.len().checked_sub(options.vms).filter(|n| *n > 0) {
            report.recording.notes.push(format!(
                "{} with fewer faults are left out of this report",
                words::counted(rest as u64, "more VM", "more VMs")
            ));
        }
        report
    }
}

/// What a thread returns; where it panicked, this thread does.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The findings, with times as the report counts them.
fn stands_out(trace: &Trace, mut all: Vec<Finding>, clock: &Clock, part: &Part) -> Vec<Finding> {
    all.retain(|f| part.is_all() || part.finding(trace, f));
    for fact in &mut all {
        // A finding is of the whole trace, also in the report of a part.
        let rel = |t: u64| t.saturating_sub(clock.first);
        (fact.first, fact.last) = (rel(fact.first), rel(fact.last));
        fact.title = words::one_line(&fact.title, 800);
    }
    all
}

/// The time axis of a report: first and last time on the trace's clock, in nanoseconds.
pub(crate) struct Clock {
    /// The first event of the trace, from which times count.
    pub(crate) first: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Clock {
    fn new(trace: &Trace, timeline: &Timeline, part: &Part) -> Self {
        if trace.events.is_empty() {
            return Self { first: 0, start: 0, end: 0 };
        }
        let (first, last) = timeline.range();
        let last = last.max(first);
        let start = part.from.unwrap_or(first).clamp(first, last);
        Self { first, start, end: part.to.unwrap_or(last).clamp(start, last) }
    }

    /// Nanoseconds from the first event to `t`, within the axis.
    pub(crate) fn rel(&self, t: u64) -> u64 {
        t.clamp(self.start, self.end) - self.first
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
fn phases(timeline: &Timeline, timed: bool, clock: &Clock, part: &Part) -> Vec<PhaseReport> {
    timeline
        .phases()
        .iter()
        .filter(|p| p.start <= clock.end && clock.start <= p.end)
        .filter(|p| p.vm.is_none_or(|vm| part.holds_vm(vm.0)))
        .map(|p| PhaseReport {
            text: words::one_line(&p.text, 160),
            start: clock.rel(p.start),
            end: clock.rel(p.end),
            faults: 0,
            installs: 0,
            zaps: 0,
            present_bytes: None,
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
    let part = &options.part;
    let all = part.is_all();
    let many = if timeline.vms().len() > 1 || !all { usize::MAX } else { options.pages };
    let within = (part.from.is_some() || part.to.is_some()).then_some((clock.start, clock.end));
    let own = |pages: Vec<TopPage>| {
        let here =
            |p: &TopPage| p.vm == vm.id && part.holds_frames(p.gfn, p.gfn.saturating_add(pages_of(p.level)));
        pages.into_iter().filter(here).take(options.pages).collect::<Vec<_>>()
    };
    let mut top_faults = own(timeline.top_faults_within(within, many));
    top_faults.retain(|p| p.count > 1);
    // One pass over the events finds what names the pages of both lists.
    let both = [top_faults.as_slice(), &own(timeline.top_zaps_within(within, many))].concat();
    let (mut stories, spaces) = std::thread::scope(|s| {
        let pages = s.spawn(|| pages(from, vm.id, &both));
        let spaces = from.spaces.of(timeline, vm, &faults, clock, options);
        (joined(pages), spaces)
    });
    let top_zaps = stories.split_off(top_faults.len());
    VmReport {
        vm: vm.id.0,
        name: vm_name(from.trace, vm, from.faults),
        pid: vm.pid,
        mmu: vm.kind.name().to_owned(),
        provenance: words::one_line(&vm.provenance, 300),
        vcpus: faults::vcpus(from.trace, vm, &faults),
        layout: layout(timeline, vm.id),
        spaces,
        faults: faults::faults(&faults, from.timed),
        top_faults: stories,
        top_zaps,
        mmio: mmio(from, vm.id),
        counted: CountedReport::default(),
        outside_slots: crate::slots::outside_slots(timeline, vm.id, part),
        torn_down: vm.ended.as_ref().filter(|e| e.start <= clock.end && clock.start <= e.end).map(|e| {
            TeardownReport {
                start: clock.rel(e.start),
                end: clock.rel(e.end),
                tid: e.tid,
                by: words::one_line(&e.by(), 300),
            }
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
    let part = &from.options.part;
    let whole = part.from.is_none() && part.to.is_none();
    // Folding makes of many lines a few.
    let asked = if whole { most.max(LINES) } else { usize::MAX };
    let stories = from.timeline.page_stories(from.trace, vm, &places, (asked, TAIL * 8));
    let cut = |(mut story, mut omitted): (PageStory, usize)| {
        story.lines.retain(|l| part.holds(l.ts));
        let mut head = std::mem::take(&mut story.lines);
        // Where the middle is left out already, both ends are folded on their own.
        let end = if omitted > 0 { head.len().saturating_sub(TAIL * 8) } else { head.len() };
        let mut tail = folded(&head.split_off(end));
        head = folded(&head);
        if omitted == 0 && head.len() > most {
            tail = head.split_off(head.len() - TAIL);
        }
        if omitted > 0 || !tail.is_empty() {
            omitted += head.len().saturating_sub(most - TAIL) + tail.len().saturating_sub(TAIL);
            head.truncate(most - TAIL);
            tail.drain(..tail.len().saturating_sub(TAIL));
        }
        let gap = head.len();
        head.extend(tail);
        story.lines = head;
        (story, omitted, gap)
    };
    let stories: Vec<_> = stories.into_iter().map(cut).collect();
    top.iter()
        .zip(stories)
        .map(|(p, (story, omitted, gap))| page(from.clock, p, &story, (omitted, gap)))
        .collect()
}

/// A story in which what was done again and again is one line, as the viewer shows it.
fn folded(lines: &[StoryLine]) -> Vec<StoryLine> {
    let one = |part: life::Fold| {
        let (first, last) = (lines.get(part.lines.start)?, lines.get(part.lines.end.checked_sub(1)?)?);
        let text = part.text.unwrap_or_else(|| first.text.clone());
        Some(StoryLine { text, shade: last.shade, certainty: last.certainty, ..first.clone() })
    };
    life::fold(lines).into_iter().filter_map(one).collect()
}

fn page(clock: &Clock, p: &TopPage, story: &PageStory, (omitted, gap): (usize, usize)) -> PageReport {
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
        omitted_after: gap as u64,
        notes: story.notes.iter().map(|n| words::one_line(n, 400)).collect(),
    }
}

/// The story in one sentence, without the frame, which the page shows beside it.
fn headline(story: &PageStory) -> String {
    let prefix = format!("gfn {:#x}: ", story.gfn);
    words::one_line(story.headline.strip_prefix(&prefix).unwrap_or(&story.headline), 400)
}

fn mmio(from: &Machine<'_>, vm: VmId) -> Vec<MmioReport> {
    let Machine { timeline, clock, options, .. } = *from;
    let within;
    let all = if options.part.is_all() {
        timeline.mmio_ranges()
    } else {
        let time = (clock.start, clock.end);
        within = timeline.mmio_ranges_within(from.trace, time, options.part.gfns);
        &within
    };
    let mut out: Vec<_> = all.iter().filter(|m| m.vm == vm).collect();
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

fn snapshots(timeline: &Timeline, clock: &Clock, part: &Part) -> Vec<SnapshotReport> {
    timeline
        .snapshots()
        .iter()
        .filter(|s| part.holds(s.start))
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

fn evidence(timeline: &Timeline, clock: &Clock, part: &Part) -> Vec<EvidenceReport> {
    let mut out: Vec<EvidenceReport> = Vec::new();
    let here = |e: &&Evidence| part.holds(e.ts) && part.holds_vm(e.vm.0) && part.holds_frame(e.gfn);
    for e in timeline.evidence().iter().filter(here) {
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
