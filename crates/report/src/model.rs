//! [`Report`]: what a report says, as plain data. HTML, Markdown and JSON are three ways to write it down.
//!
//! Field names are those of the JSON, and scripts rely on them. Times are u64 nanoseconds since the first event, durations are u64
//! nanoseconds, sizes are bytes, unless a field says otherwise.

use std::collections::BTreeMap;

use mmuscope_analysis::findings::Finding;
use mmuscope_replay::{Certainty, MemoryKind, Shade};
use mmuscope_trace::Losses;
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{json, words};

pub use crate::counted::{CountReport, CountedReport};
pub use crate::frames::FrameRange;
pub use crate::notes::NoteReport;
pub use crate::part::PartReport;
pub use crate::picture::{MapPicture, MapSegment};
pub use crate::slots::{OutsideReport, SlotReport};

/// Name and version of the JSON's shape. Fields may be added to a version, never renamed or removed.
pub const SCHEMA: &str = "mmuscope-report/1";

/// A finished report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// The program that wrote the report and its version.
    pub generator: String,
    /// Title of the page, one line.
    pub title: String,
    /// The part of the trace that the report keeps to; `null` where it is all of it.
    pub part: Option<PartReport>,
    /// Comes before every id of an element, so that several reports can stand on one page.
    #[serde(skip)]
    pub anchor: String,
    /// What happened in a few sentences, one string per paragraph.
    pub story: Vec<String>,
    /// Findings, the most severe first, and of equal severity those that cost most.
    pub stands_out: Vec<Finding>,
    /// The trace itself: files, host, clock, losses.
    pub recording: Recording,
    /// Virtual machines, the busiest first.
    pub vms: Vec<VmReport>,
    /// Phases of the workload, begun by texts that were written to trace_marker; in time order.
    pub phases: Vec<PhaseReport>,
    /// Moments at which the recorder lost events, in time order.
    pub lost: Vec<LostReport>,
    /// Number of events of each name, the most frequent first.
    pub events: Vec<EventCount>,
    /// Disagreements between events, by kind, the most frequent kind first.
    pub evidence: Vec<EvidenceReport>,
    /// Events from which the page tables are known and that were not, or may not have been, recorded.
    pub unrecorded: Vec<UnrecordedReport>,
    /// Snapshots of KVM's own memory, held against what the trace had shown until then.
    pub snapshots: Vec<SnapshotReport>,
    /// Notes of the reader, in the order of their moments.
    pub notes: Vec<NoteReport>,
}

/// A snapshot of KVM's own memory. The counts are of entries that are not empty.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SnapshotReport {
    /// When it began, in nanoseconds since the start of the trace.
    pub start: u64,
    /// How many page tables were read.
    pub tables: u64,
    /// How many entries hold what the trace had shown.
    pub equal: u64,
    /// How many entries were not known until then.
    pub settled: u64,
    /// How many entries hold something else than the trace had shown.
    pub differ: u64,
    /// The same in words.
    pub text: String,
}

/// A kind of event that the trace lacks, or may lack.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UnrecordedReport {
    /// Name of the event.
    pub event: &'static str,
    /// `not recorded`, or `not known to have been recorded`.
    pub coverage: &'static str,
    /// What is not known without this event, as a clause.
    pub without: &'static str,
}

/// The trace: files, host, clock, losses.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Recording {
    /// Input files.
    pub files: Vec<FileReport>,
    /// Format of the trace, such as `trace.dat v7`.
    pub format: String,
    /// The kernel's name of the clock; empty where the format does not say.
    pub clock: String,
    /// What one unit of the clock is: `nanoseconds`, `cycles` or `ordinal` (a counter of events).
    pub clock_unit: &'static str,
    /// Smallest step between two time stamps, in nanoseconds.
    pub resolution_ns: u32,
    /// Time of the first event on the trace's own clock, in nanoseconds.
    pub first_event_absolute: u64,
    /// Time from the first event to the last.
    pub duration: u64,
    /// Number of events.
    pub events: u64,
    /// Whether events were lost or part of the input could not be read.
    pub partial: bool,
    /// Facts about the host, in the order in which a page lists them.
    pub host: Vec<Fact>,
    /// Parameters of the kernel's modules (`kvm.mmio_caching`) and their values.
    pub params: BTreeMap<String, String>,
    /// What the recorder lost, summed up.
    pub lost: LostTotal,
    /// Places of the input that could not be read, one sentence each.
    pub damage: Vec<String>,
    /// Remarks on the recording, one sentence each.
    pub notes: Vec<String>,
    /// Which variants of the tracepoints the kernel has, and how that is known.
    pub dialect: Vec<LayoutPart>,
}

/// One input file.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Path of the file, or the name of a stream.
    pub path: String,
    /// Format and compression of the file.
    pub format: String,
    /// Size of the file as stored; 0 for a stream.
    pub bytes: u64,
}

/// A fact about the host.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// Name of the fact, such as `kernel`.
    pub name: String,
    /// Value of the fact.
    pub value: String,
}

/// Events that the recorder lost.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LostTotal {
    /// What the numbers below say, in one answer.
    #[serde(skip)]
    pub losses: Losses,
    /// Whether the format records losses, so that zero losses mean that nothing was lost.
    pub known: bool,
    /// Number of lost events; `null` where a loss was not counted.
    pub events: Option<u64>,
    /// Number of moments at which events were lost.
    pub moments: u64,
    /// Number of lost events by CPU, where counted.
    pub per_cpu: BTreeMap<u16, u64>,
    /// Number of lost events by event name, where counted.
    pub per_event: BTreeMap<String, u64>,
}

/// One moment at which events were lost.
#[derive(Clone, Debug, Serialize)]
pub struct LostReport {
    /// CPU whose events were lost; `null` where that is not known.
    pub cpu: Option<u16>,
    /// Time of the CPU's last event before the loss.
    pub start: u64,
    /// Time at which the loss was noticed.
    pub end: u64,
    /// Number of lost events, where counted.
    pub count: Option<u64>,
}

/// A phase of the workload.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseReport {
    /// Text of the marker that begins the phase.
    pub text: String,
    /// Time of the marker.
    pub start: u64,
    /// Time of the next marker of the same process, or the end of the trace.
    pub end: u64,
    /// Number of faults in the phase.
    pub faults: u64,
    /// Number of leaves that became present in the phase.
    pub installs: u64,
    /// Number of leaves that were zapped in the phase.
    pub zaps: u64,
    /// Bytes of guest memory present at the end of the phase; `null` where the report keeps to some guest frames.
    pub present_bytes: Option<u64>,
    /// VM whose process wrote the marker, and to which all numbers here refer; `null` where another process wrote it: then they refer to all
    /// VMs.
    pub vm: Option<u16>,
    /// Time of the faults that begin in the phase, in nanoseconds; `null` where entries into the guest were not recorded.
    pub fault_time: Option<u64>,
    /// Number of leaves that became read-only in the phase, having been writable.
    pub write_protected: u64,
    /// Number of leaves that became writable in the phase, having been read-only.
    pub made_writable: u64,
}

/// How often events of one name were recorded.
#[derive(Clone, Debug, Serialize)]
pub struct EventCount {
    /// Name of the event.
    pub event: String,
    /// Number of events of this name.
    pub count: u64,
}

/// A kind of disagreement between events, with its first instances.
#[derive(Clone, Debug, Serialize)]
pub struct EvidenceReport {
    /// The disagreement in words.
    pub kind: String,
    /// Number of instances.
    pub count: u64,
    /// Number of these instances that came after lost events, so that they prove nothing.
    pub after_loss: u64,
    /// The first instances, at most eight.
    pub first: Vec<EvidenceCase>,
}

/// One instance of a disagreement.
#[derive(Clone, Debug, Serialize)]
pub struct EvidenceCase {
    /// Time of the event that disagrees.
    pub ts: u64,
    /// Number of the VM.
    pub vm: u16,
    /// Address space: 0 is the normal one, 1 is SMM.
    pub as_id: u8,
    /// Level of the entry, 1 (4K) to 5.
    pub level: u8,
    /// First guest frame that the entry covers.
    #[serde(serialize_with = "json::hex")]
    pub gfn: u64,
    /// Value that earlier events lead to, where it is known.
    #[serde(serialize_with = "json::maybe_hex")]
    pub expected: Option<u64>,
    /// Value that the event shows, where it has one.
    #[serde(serialize_with = "json::maybe_hex")]
    pub found: Option<u64>,
}

/// One virtual machine.
#[derive(Clone, Debug, Serialize)]
pub struct VmReport {
    /// Number of the VM in this trace, from 0.
    pub vm: u16,
    /// Name of the VMM's process.
    pub name: String,
    /// Process id of the VMM.
    pub pid: Option<u32>,
    /// The MMU of KVM that the VM uses, in words.
    pub mmu: String,
    /// How it is known which threads belong to the VM, in words.
    pub provenance: String,
    /// vCPUs and other threads that faulted, by number.
    pub vcpus: Vec<VcpuReport>,
    /// The layout under which the VM's SPTEs are read.
    pub layout: LayoutReport,
    /// Address spaces of the VM, the normal one first.
    pub spaces: Vec<SpaceReport>,
    /// Faults of the VM.
    pub faults: FaultReport,
    /// Pages with the most faults, in descending order.
    pub top_faults: Vec<PageReport>,
    /// Pages with the most zaps, in descending order.
    pub top_zaps: Vec<PageReport>,
    /// Ranges that MMIO accesses went to, the busiest first.
    pub mmio: Vec<MmioReport>,
    /// Exits, zaps and huge pages by cause.
    pub counted: CountedReport,
    /// Faults on frames of no memory slot; `null` where the slots are not known.
    pub outside_slots: Option<OutsideReport>,
    /// When and by whom the VM was torn down; `null` where the trace does not show that.
    pub torn_down: Option<TeardownReport>,
}

impl VmReport {
    /// How every part of a report calls the VM: by the name of its VMM, and with its number where there are several VMs.
    pub fn label(&self, several: bool) -> String {
        if several { format!("VM {} ({})", self.vm, self.name) } else { self.name.clone() }
    }
}

/// The end of a VM: all its page tables were zapped in one go.
#[derive(Clone, Debug, Serialize)]
pub struct TeardownReport {
    /// Time of the first zap of the teardown.
    pub start: u64,
    /// Time of the last zap of the teardown.
    pub end: u64,
    /// Thread that zapped.
    pub tid: u32,
    /// Who tore the VM down, in words.
    pub by: String,
}

/// One vCPU, or a thread that faulted without being known as one.
#[derive(Clone, Debug, Serialize)]
pub struct VcpuReport {
    /// Number of the vCPU, as KVM counts them; `null` where no event names it.
    pub vcpu: Option<u32>,
    /// Thread id.
    pub tid: u32,
    /// Name of the thread.
    pub name: String,
    /// Number of faults of the thread.
    pub faults: u64,
    /// Median time of a fault, where measured.
    pub p50: Option<u64>,
    /// 99th percentile of the time of a fault, where measured.
    pub p99: Option<u64>,
    /// Sum of the times of all faults.
    pub total: u64,
}

/// The layout under which SPTEs are read, and how it is known.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LayoutReport {
    /// Name of the layout, such as `E10/ept`.
    pub id: String,
    /// How sure the choice of the layout is, in words.
    pub confidence: String,
    /// The parts of the layout, each with its source.
    pub parts: Vec<LayoutPart>,
    /// Names of other layouts that fit what the trace shows.
    pub alternatives: Vec<String>,
    /// Remarks on the layout.
    pub notes: Vec<String>,
}

/// A fact with its source.
#[derive(Clone, Debug, Serialize)]
pub struct LayoutPart {
    /// Name of the fact, such as `MMIO mask`.
    pub name: String,
    /// Value of the fact.
    pub value: String,
    /// Kind of source: `measured`, `given`, `inferred` or `assumed`; empty where the value stands in the trace itself.
    pub provenance: String,
    /// What the value follows from, in words.
    pub why: String,
}

/// One address space of a VM.
#[derive(Clone, Debug, Serialize)]
pub struct SpaceReport {
    /// Number of the address space: 0 is the normal one, 1 is SMM.
    pub as_id: u8,
    /// Numbers of entries, bytes, faults and zaps over time.
    pub over_time: OverTime,
    /// Guest frames as ranges of one state.
    pub memory: Vec<MemoryReport>,
    /// Time of `memory` where it is not the end of the trace: a VM that is gone by then is shown when most memory was present.
    pub memory_at: Option<u64>,
    /// The memory slots at the end of the trace and the holes between them, by frame; empty where the trace does not show them.
    pub slots: Vec<SlotReport>,
    /// The map, where pictures are wanted and something was mapped.
    #[serde(skip)]
    pub map: Option<MapPicture>,
}

/// One address space over time. The trace is cut into stretches of equal length; every list has one element per stretch.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OverTime {
    /// Length of one stretch of time.
    pub step: u64,
    /// Number of leaves in each state at the ends of the stretches; a state that never occurs has no element.
    pub entries: Vec<StateSeries>,
    /// Bytes of guest memory present by page size, at the ends of the stretches.
    pub present_bytes: Vec<LevelSeries>,
    /// Number of faults in each stretch.
    pub faults: Vec<u64>,
    /// Number of guest frames on which the first fault of the trace, or of the part of it, lies in the stretch.
    pub first_faults: Vec<u64>,
    /// Number of leaves zapped in each stretch.
    pub zaps: Vec<u64>,
    /// Most bytes of guest memory present at any time. Here and below each frame counts once, however many entries map it.
    pub peak_bytes: u64,
    /// Time at which `peak_bytes` were present.
    pub peak_at: u64,
    /// Whether `peak_bytes` is only the most of the ends of all stretches: of a part of a trace, no more may be known.
    pub peak_sampled: bool,
    /// Bytes of guest memory present at the end of the trace.
    pub end_bytes: u64,
    /// Those of `end_bytes` whose entries are stale: they may have changed without an event.
    pub end_stale_bytes: u64,
}

/// Number of entries of one state over time.
#[derive(Clone, Debug, Serialize)]
pub struct StateSeries {
    /// The state; its id in the visual language (`read-only`) in JSON.
    #[serde(rename = "state", serialize_with = "json::shade_id")]
    pub shade: Shade,
    /// Number of entries at the end of each stretch.
    pub counts: Vec<u64>,
    /// Number of those entries that are stale: they may have changed without an event.
    pub stale: Vec<u64>,
    /// Most entries at any time, also between the ends of the stretches.
    pub peak: u64,
}

/// Bytes of guest memory present in pages of one size over time.
#[derive(Clone, Debug)]
pub struct LevelSeries {
    /// Level of the entries, 1 to 5. JSON has the page size (`4K`, `2M`, `1G` …) beside it.
    pub level: u8,
    /// Bytes present at the end of each stretch.
    pub bytes: Vec<u64>,
    /// Those bytes whose entries are stale.
    pub stale: Vec<u64>,
}

impl Serialize for LevelSeries {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut out = to.serialize_struct("LevelSeries", 4)?;
        out.serialize_field("level", &self.level)?;
        out.serialize_field("size", words::page_size(self.level))?;
        out.serialize_field("bytes", &self.bytes)?;
        out.serialize_field("stale", &self.stale)?;
        out.end()
    }
}

/// The faults of a VM.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FaultReport {
    /// Number of faults.
    pub total: u64,
    /// Number of different guest frames that faulted.
    pub frames: u64,
    /// Whether entries into the guest were recorded, so that the times of faults are known.
    pub timed: bool,
    /// Times of all faults.
    pub latency: Latency,
    /// Faults by outcome, the most frequent first.
    pub outcomes: Vec<FaultClass>,
    /// Faults by kind of access, the most frequent first.
    pub accesses: Vec<FaultClass>,
    /// Histogram of the times of faults. Bins are adjacent; the edges are 2^(i/4) nanoseconds, rounded up.
    pub histogram: Vec<HistogramBin>,
}

/// One bin of the histogram of the times of faults.
#[derive(Clone, Debug, Serialize)]
pub struct HistogramBin {
    /// Shortest time of the bin.
    pub from: u64,
    /// Shortest time of the next bin.
    pub to: u64,
    /// Number of faults in the bin, by index into [`FaultReport::outcomes`].
    pub counts: Vec<u64>,
}

/// How long faults took, from the exit to the next entry into the guest.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Latency {
    /// Number of faults whose end is known; all times below refer to them.
    pub measured: u64,
    /// Median time.
    pub p50: Option<u64>,
    /// 90th percentile of the times.
    pub p90: Option<u64>,
    /// 99th percentile of the times.
    pub p99: Option<u64>,
    /// Longest time.
    pub max: Option<u64>,
    /// Sum of the times.
    pub total: u64,
}

/// The faults of one outcome, or of one kind of access.
#[derive(Clone, Debug, Serialize)]
pub struct FaultClass {
    /// Name of the outcome or of the kind of access.
    pub name: String,
    /// Explanation of the outcome; empty for kinds of access.
    pub about: &'static str,
    /// Number of faults.
    pub count: u64,
    /// How long these faults took.
    pub latency: Latency,
}

/// A busy page with its story.
#[derive(Clone, Debug, Serialize)]
pub struct PageReport {
    /// Address space: 0 is the normal one, 1 is SMM.
    pub as_id: u8,
    /// First guest frame of the page.
    #[serde(serialize_with = "json::hex")]
    pub gfn: u64,
    /// Guest-physical address of that frame.
    #[serde(serialize_with = "json::hex")]
    pub gpa: u64,
    /// Level of the page, 1 to 5; the page size (`4K`, `2M`, `1G` …) in JSON.
    #[serde(rename = "size", serialize_with = "json::page_size")]
    pub level: u8,
    /// Number of faults or zaps of the page, depending on the list.
    pub count: u64,
    /// Time of the first of them.
    pub first: u64,
    /// Time of the last of them.
    pub last: u64,
    /// The life of the page in one sentence.
    pub headline: String,
    /// The life of the page, line by line.
    pub story: Vec<StoryReport>,
    /// Number of lines that are left out of the middle of the story.
    pub omitted: u64,
    /// Number of lines of the story before those that are left out.
    pub omitted_after: u64,
    /// Remarks after the story: how long the page was in each state, what is not known.
    pub notes: Vec<String>,
}

/// One line of a page's story.
#[derive(Clone, Debug, Serialize)]
pub struct StoryReport {
    /// Time of the line.
    pub ts: u64,
    /// Thread that did it: `vcpu 0 (load-111)`.
    pub who: String,
    /// What happened, in a sentence.
    pub text: String,
    /// State of the page from then on; `null` where the line does not change it.
    #[serde(rename = "state", serialize_with = "json::maybe_shade")]
    pub shade: Option<Shade>,
    /// How surely the state is known: `exact`, `observed`, `implied`, `assumed` or `stale` in JSON.
    #[serde(serialize_with = "json::maybe_certainty")]
    pub certainty: Option<Certainty>,
}

/// A range of guest frames that MMIO accesses went to.
#[derive(Clone, Debug, Serialize)]
pub struct MmioReport {
    /// The range; its fields stand among the others in JSON.
    #[serde(flatten)]
    pub frames: FrameRange,
    /// Device that lies there on most PCs, guessed from the address alone.
    pub usually: Option<String>,
    /// Number of accesses: each read and write by KVM's emulator once; `null` where no event of such accesses was recorded.
    pub accesses: Option<u64>,
    /// Number of faults that were MMIO accesses.
    pub faults: u64,
    /// Number of MMIO SPTEs that were installed.
    pub installs: u64,
    /// Time of the first access, fault or installation.
    pub first: u64,
    /// Time of the last access, fault or installation.
    pub last: u64,
    /// Lowest and highest MMIO generation in the SPTEs.
    pub generations: Option<(u32, u32)>,
}

/// A range of guest frames in one state.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryReport {
    /// The range; its fields stand among the others in JSON.
    #[serde(flatten)]
    pub frames: FrameRange,
    /// What the range is: `ram` (mapped), `gone` (was mapped before, is not mapped now) or `mmio` in JSON.
    #[serde(serialize_with = "json::memory_kind")]
    pub kind: MemoryKind,
    /// State of the entries of the range; its name in JSON.
    #[serde(rename = "state", serialize_with = "json::shade_name")]
    pub shade: Shade,
    /// Level of the entries, 1 to 5, or 0 where they differ; the page size (`4K`, `2M`, `1G` …) or `mixed` in JSON.
    #[serde(rename = "size", serialize_with = "json::page_size")]
    pub level: u8,
    /// Weakest certainty among the entries; `exact`, `observed`, `implied`, `assumed` or `stale` in JSON.
    #[serde(serialize_with = "json::certainty")]
    pub certainty: Certainty,
    /// Number of entries.
    pub entries: u64,
    /// A guess at the memslot: ranges of one number have no MMIO and no long untouched stretch between them; `null` for MMIO and where no
    /// guess was made.
    pub slot: Option<u32>,
}

/// Number of lines that are kept from the end of a story when its middle is left out.
pub(crate) const TAIL: usize = 4;
