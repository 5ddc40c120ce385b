//! What a report says, as plain data: HTML, Markdown and JSON are three ways to write it down.
//!
//! Field names are the JSON's: scripts rely on them. Times are nanoseconds since the first event unless a name says otherwise.

use std::collections::BTreeMap;

use mmuscope_analysis::standout::StandOut;
use mmuscope_replay::Shade;
use serde::Serialize;

/// Version of the JSON's shape. Fields may be added to a version, never renamed or taken away.
pub const SCHEMA: &str = "mmuscope-report/1";

/// A finished report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The program and its version.
    pub generator: String,
    /// One line.
    pub title: String,
    /// The story in words, a paragraph each.
    pub story: Vec<String>,
    /// What stands out, what matters most first.
    pub stands_out: Vec<StandOut>,
    /// What was recorded, where and how.
    pub recording: Recording,
    /// Virtual machines, the busiest first.
    pub vms: Vec<VmReport>,
    /// What was written to trace_marker.
    pub phases: Vec<PhaseReport>,
    /// Moments at which the recorder lost events.
    pub lost: Vec<LostReport>,
    /// Events by name, the most frequent first.
    pub events: Vec<EventCount>,
    /// What does not fit together, by kind.
    pub evidence: Vec<EvidenceReport>,
    /// Events that the page tables are known by, and that were not, or may not have been, recorded.
    pub unrecorded: Vec<UnrecordedReport>,
}

/// A class of events that is missing.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UnrecordedReport {
    /// The event.
    pub event: &'static str,
    /// `not recorded`, or `not known to have been recorded`.
    pub coverage: &'static str,
    /// What is not known without it.
    pub without: &'static str,
}

impl Report {
    /// Phases, a list for each VM whose process marked them and one for those that other processes marked, each with what it is of: nothing
    /// where there is one VM.
    pub fn phase_lists(&self) -> Vec<(String, Vec<&PhaseReport>)> {
        let mut lists: Vec<(Option<u16>, Vec<&PhaseReport>)> = Vec::new();
        for p in &self.phases {
            // With one VM there is nothing to tell apart.
            let of = p.vm.filter(|_| self.vms.len() > 1);
            match lists.iter_mut().find(|l| l.0 == of) {
                Some(l) => l.1.push(p),
                None => lists.push((of, vec![p])),
            }
        }
        lists.sort_by_key(|l| (l.0.is_none(), l.0));
        let name = |of: Option<u16>| match of {
            _ if self.vms.len() < 2 => String::new(),
            Some(n) => {
                self.vms.iter().find(|v| v.vm == n).map_or_else(|| format!("VM {n}"), |v| v.label(true))
            }
            None => "marked by no VM's process".to_owned(),
        };
        lists.into_iter().map(|(of, l)| (name(of), l)).collect()
    }
}

/// What was recorded.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Recording {
    /// Input files.
    pub files: Vec<FileReport>,
    /// Format of the trace.
    pub format: String,
    /// The kernel's name of the clock; empty where the format does not say.
    pub clock: String,
    /// What a unit of the clock is: `nanoseconds`, `cycles` or `ordinal`.
    pub clock_unit: &'static str,
    /// Steps of the time stamps in nanoseconds.
    pub resolution_ns: u32,
    /// Time of the first event on the trace's own clock.
    pub first_event_absolute: u64,
    /// From the first event to the last.
    pub duration: u64,
    /// Events.
    pub events: u64,
    /// Something was lost or could not be read.
    pub partial: bool,
    /// Facts about the host: name and value, in the order of reading.
    pub host: Vec<Fact>,
    /// Module parameters.
    pub params: BTreeMap<String, String>,
    /// Sum of what was lost.
    pub lost: LostTotal,
    /// What could not be read.
    pub damage: Vec<String>,
    /// What the reader of the trace should know.
    pub notes: Vec<String>,
    /// Variants of the tracepoints: name, value and where that comes from.
    pub dialect: Vec<LayoutPart>,
}

/// One input file.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Path or name.
    pub path: String,
    /// Format and compression.
    pub format: String,
    /// Size as stored.
    pub bytes: u64,
}

/// Something known about the host.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// What.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What the recorder lost, summed up.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LostTotal {
    /// Whether the format can say at all that nothing was lost.
    pub known: bool,
    /// How many events, where every loss was counted.
    pub events: Option<u64>,
    /// How many moments of loss.
    pub moments: u64,
    /// Per CPU, where counted.
    pub per_cpu: BTreeMap<u16, u64>,
    /// Per event name, where counted.
    pub per_event: BTreeMap<String, u64>,
}

/// One moment of loss.
#[derive(Clone, Debug, Serialize)]
pub struct LostReport {
    /// CPU.
    pub cpu: Option<u16>,
    /// Last event of the CPU before.
    pub start: u64,
    /// When the loss was noticed.
    pub end: u64,
    /// How many, where known.
    pub count: Option<u64>,
}

/// A phase of the workload.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseReport {
    /// The marker's text.
    pub text: String,
    /// When.
    pub start: u64,
    /// Until the next marker of the same process or the end.
    pub end: u64,
    /// Faults in it.
    pub faults: u64,
    /// Leaves that appeared.
    pub installs: u64,
    /// Leaves that were zapped.
    pub zaps: u64,
    /// Bytes present at its end.
    pub present_bytes: u64,
    /// The VM whose process wrote the marker, and of which alone the numbers are; `null` where another process did: then they are of all.
    pub vm: Option<u16>,
}

/// How often an event was recorded.
#[derive(Clone, Debug, Serialize)]
pub struct EventCount {
    /// Name.
    pub event: String,
    /// How often.
    pub count: u64,
}

/// A kind of disagreement, with its first instances.
#[derive(Clone, Debug, Serialize)]
pub struct EvidenceReport {
    /// In words.
    pub kind: String,
    /// How often.
    pub count: u64,
    /// Of these, how many after events were lost, so that they prove nothing.
    pub after_loss: u64,
    /// The first few.
    pub first: Vec<EvidenceCase>,
}

/// One disagreement.
#[derive(Clone, Debug, Serialize)]
pub struct EvidenceCase {
    /// When.
    pub ts: u64,
    /// VM.
    pub vm: u16,
    /// Address space.
    pub as_id: u8,
    /// Level.
    pub level: u8,
    /// Frame.
    pub gfn: String,
    /// What was expected.
    pub expected: Option<String>,
    /// What was found.
    pub found: Option<String>,
}

/// One virtual machine.
#[derive(Clone, Debug, Serialize)]
pub struct VmReport {
    /// Its number in this trace.
    pub vm: u16,
    /// Name of its VMM.
    pub name: String,
    /// Process id of its VMM.
    pub pid: Option<u32>,
    /// Which MMU of KVM it uses.
    pub mmu: String,
    /// How the threads were put together.
    pub provenance: String,
    /// vCPUs.
    pub vcpus: Vec<VcpuReport>,
    /// How its SPTEs are read.
    pub layout: LayoutReport,
    /// Address spaces, the normal one first.
    pub spaces: Vec<SpaceReport>,
    /// Faults.
    pub faults: FaultReport,
    /// Pages with the most faults.
    pub top_faults: Vec<PageReport>,
    /// Pages with the most zaps.
    pub top_zaps: Vec<PageReport>,
    /// Where MMIO accesses went.
    pub mmio: Vec<MmioReport>,
    /// That, when and by whom it was torn down, where the trace shows it.
    pub torn_down: Option<TeardownReport>,
}

impl VmReport {
    /// How every part of a report calls it: by the name of its VMM, and by its number where there are several.
    pub fn label(&self, several: bool) -> String {
        if several { format!("VM {} ({})", self.vm, self.name) } else { self.name.clone() }
    }
}

/// The end of a VM: all of its page tables were zapped in one go.
#[derive(Clone, Debug, Serialize)]
pub struct TeardownReport {
    /// First zap of it.
    pub start: u64,
    /// Last zap of it.
    pub end: u64,
    /// Thread that did it.
    pub tid: u32,
    /// By whom, in words.
    pub by: String,
}

/// One vCPU.
#[derive(Clone, Debug, Serialize)]
pub struct VcpuReport {
    /// KVM's number.
    pub vcpu: Option<u32>,
    /// Thread.
    pub tid: u32,
    /// Name of the thread.
    pub name: String,
    /// Its faults.
    pub faults: u64,
    /// Half of them took at most so long.
    pub p50: Option<u64>,
    /// 99 % of them took at most so long.
    pub p99: Option<u64>,
    /// All of them together took so long.
    pub total: u64,
}

/// How SPTEs are read, and how that is known.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LayoutReport {
    /// Name of the layout.
    pub id: String,
    /// How sure the choice is, in words.
    pub confidence: String,
    /// Each part.
    pub parts: Vec<LayoutPart>,
    /// Other layouts that fit.
    pub alternatives: Vec<String>,
    /// Remarks.
    pub notes: Vec<String>,
}

/// A fact with its source.
#[derive(Clone, Debug, Serialize)]
pub struct LayoutPart {
    /// What.
    pub name: String,
    /// Its value.
    pub value: String,
    /// `measured`, `given`, `inferred` or `assumed`.
    pub provenance: String,
    /// What it follows from.
    pub why: String,
}

/// One address space of a VM.
#[derive(Clone, Debug, Serialize)]
pub struct SpaceReport {
    /// Its number; 1 is SMM's.
    pub as_id: u8,
    /// How its entries developed.
    pub over_time: OverTime,
    /// Its frames as ranges.
    pub memory: Vec<MemoryReport>,
    /// The moment that `memory` shows where that is not the end: a VM that is gone at the end is shown when it had most memory.
    pub memory_at: Option<u64>,
    /// The picture.
    #[serde(skip)]
    pub map: Option<MapPicture>,
}

/// Entries of one address space over time, sampled at the ends of equal stretches.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OverTime {
    /// Length of one stretch.
    pub step: u64,
    /// Leaves per state; states that never occur are left out.
    pub entries: Vec<StateSeries>,
    /// Present bytes per page size.
    pub present_bytes: Vec<LevelSeries>,
    /// Faults in each stretch.
    pub faults: Vec<u64>,
    /// Leaves zapped in each stretch.
    pub zaps: Vec<u64>,
    /// Most bytes of guest memory present at any moment; here and below each frame counts once, however many entries map it.
    pub peak_bytes: u64,
    /// When that was.
    pub peak_at: u64,
    /// Bytes present at the end.
    pub end_bytes: u64,
    /// Of these, bytes whose entries may have changed without an event.
    pub end_stale_bytes: u64,
}

/// Entries of one state.
#[derive(Clone, Debug, Serialize)]
pub struct StateSeries {
    /// The state's id in the visual language.
    pub state: String,
    /// Which it is.
    #[serde(skip)]
    pub shade: Shade,
    /// Entries at the end of each stretch.
    pub counts: Vec<u64>,
    /// Of these, stale ones: they may have changed without an event.
    pub stale: Vec<u64>,
    /// Most at any moment, between samples as well.
    pub peak: u64,
}

/// Present bytes of one page size.
#[derive(Clone, Debug, Serialize)]
pub struct LevelSeries {
    /// Level.
    pub level: u8,
    /// `4K`, `2M` …
    pub size: &'static str,
    /// Bytes at the end of each stretch.
    pub bytes: Vec<u64>,
    /// Of these, stale ones.
    pub stale: Vec<u64>,
}

/// Faults of a VM.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FaultReport {
    /// How many.
    pub total: u64,
    /// Different frames they hit.
    pub frames: u64,
    /// Entries into the guest were recorded, so that it is known how long faults took.
    pub timed: bool,
    /// Latency of all of them.
    pub latency: Latency,
    /// By outcome.
    pub outcomes: Vec<FaultClass>,
    /// By access.
    pub accesses: Vec<FaultClass>,
    /// Latency histogram: bucket `i` holds faults of `[2^(i/4), 2^((i+1)/4))` nanoseconds per outcome (index into `outcomes`).
    pub histogram: Vec<HistogramBin>,
}

/// One bar of the latency histogram.
#[derive(Clone, Debug, Serialize)]
pub struct HistogramBin {
    /// From so many nanoseconds.
    pub from: u64,
    /// To so many.
    pub to: u64,
    /// Faults, by index into [`FaultReport::outcomes`].
    pub counts: Vec<u64>,
}

/// How long faults took, from exit to entry.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Latency {
    /// Faults whose end is known.
    pub measured: u64,
    /// Median.
    pub p50: Option<u64>,
    /// 90th percentile.
    pub p90: Option<u64>,
    /// 99th percentile.
    pub p99: Option<u64>,
    /// Longest.
    pub max: Option<u64>,
    /// Sum.
    pub total: u64,
}

/// Faults of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct FaultClass {
    /// Which.
    pub name: String,
    /// What that means.
    pub about: &'static str,
    /// How many.
    pub count: u64,
    /// How long.
    pub latency: Latency,
}

/// A page with its story.
#[derive(Clone, Debug, Serialize)]
pub struct PageReport {
    /// Address space.
    pub as_id: u8,
    /// Frame.
    pub gfn: String,
    /// Its guest physical address.
    pub gpa: String,
    /// Page size.
    pub size: &'static str,
    /// How often.
    pub count: u64,
    /// First time.
    pub first: u64,
    /// Last time.
    pub last: u64,
    /// One sentence.
    pub headline: String,
    /// The life of the page.
    pub story: Vec<StoryReport>,
    /// Lines of the story that are left out after the first ones.
    pub omitted: u64,
    /// Closing remarks.
    pub notes: Vec<String>,
}

/// One line of a page's story.
#[derive(Clone, Debug, Serialize)]
pub struct StoryReport {
    /// When.
    pub ts: u64,
    /// Who.
    pub who: String,
    /// What happened.
    pub text: String,
    /// State from then on.
    pub state: Option<String>,
    /// The same, for drawing.
    #[serde(skip)]
    pub shade: Option<Shade>,
    /// How that is known.
    pub certainty: Option<&'static str>,
}

/// A range that MMIO accesses went to.
#[derive(Clone, Debug, Serialize)]
pub struct MmioReport {
    /// First frame.
    pub gfn_start: String,
    /// Last frame.
    pub gfn_last: String,
    /// Guest physical address of the first frame.
    pub gpa: String,
    /// Bytes.
    pub bytes: u64,
    /// What lies there on most PCs; a guess from the address alone.
    pub usually: Option<String>,
    /// Accesses: reads and writes of KVM's emulator, each once; `null` where the trace has no event of them.
    pub accesses: Option<u64>,
    /// Faults that were MMIO.
    pub faults: u64,
    /// MMIO SPTEs installed.
    pub installs: u64,
    /// First access, fault or installation.
    pub first: u64,
    /// Last one.
    pub last: u64,
    /// Lowest and highest MMIO generation.
    pub generations: Option<(u32, u32)>,
}

/// A range of guest frames as it is at the end of the trace.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryReport {
    /// First frame.
    pub gfn_start: String,
    /// Last frame.
    pub gfn_last: String,
    /// Guest physical address of the first frame.
    pub gpa: String,
    /// Bytes.
    pub bytes: u64,
    /// `ram`, `gone` or `mmio`.
    pub kind: &'static str,
    /// State of its entries.
    pub state: String,
    /// The same, for drawing.
    #[serde(skip)]
    pub shade: Shade,
    /// Page size of its entries; `mixed` where they differ.
    pub size: &'static str,
    /// Worst certainty within.
    pub certainty: &'static str,
    /// Entries.
    pub entries: u64,
    /// A guess at the memslot: ranges of one number have no MMIO and no long untouched stretch between them; `null` for MMIO, and where that
    /// was not looked at.
    pub slot: Option<u32>,
}

/// The time x GFN picture of one address space.
#[derive(Clone, Debug)]
pub struct MapPicture {
    /// Pixels across, folds and all.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Stretches of the GFN space from the top of the picture down, so the highest frames first.
    pub segments: Vec<MapSegment>,
    /// PNG for light pages.
    pub light: Vec<u8>,
    /// PNG for dark pages.
    pub dark: Vec<u8>,
    /// States that occur in it.
    pub shades: Vec<Shade>,
    /// Some of it is stale.
    pub stale: bool,
    /// Some of it is assumed or implied.
    pub assumed: bool,
    /// Some of it is a leaf of 2 MiB or more.
    pub large: bool,
    /// Nanoseconds that a column stands for.
    pub column: u64,
    /// Most entries that one pixel stands for.
    pub merged: u32,
}

/// A stretch of the GFN space that is drawn without a break.
#[derive(Clone, Debug)]
pub struct MapSegment {
    /// First frame.
    pub gfn_start: u64,
    /// One past the last.
    pub gfn_end: u64,
    /// Distance from the top of the picture.
    pub top: u32,
    /// Pixels.
    pub height: u32,
    /// Frames left out below it, down to the next stretch (or to frame 0).
    pub fold_below: u64,
}
