//! What is known about a recording besides its events. The main type is [`TraceInfo`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use mmuscope_snapshot::Piece;

use crate::schema::values::{Isa, StrId};

/// Everything that is known about a recording. It is plain data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceInfo {
    /// The files it was read from.
    pub files: Vec<FileInfo>,
    /// The format of the first file.
    pub format: FormatKind,
    /// The clock of the time stamps.
    pub clock: Clock,
    /// The resolution of the time stamps in nanoseconds: 1, or 1000 for text with microseconds.
    pub resolution_ns: u32,
    /// The recording host, as far as the files describe it.
    pub host: HostFacts,
    /// Every task that appears.
    pub tasks: Vec<TaskInfo>,
    /// Hints at which threads belong to one VM. They are neither the VMs of the trace nor numbered as those are: `mmuscope_replay::Attribution`
    /// finds both, from these and from the events.
    pub vm_hints: Vec<VmHint>,
    /// The events that the recorder lost.
    pub lost: LostSummary,
    /// The places that could not be read.
    pub damage: Vec<Damage>,
    /// What the recorder read in KVM's own memory, in the order of reading. [`Body::Snapshot`](crate::Body) says when each part was read.
    pub snapshots: Vec<Arc<Piece>>,
    /// Remarks that a reader of the trace should know, one sentence each.
    pub notes: Vec<String>,
    /// Which variants of the tracepoints the kernel has.
    pub dialect: Dialect,
    /// Event formats the files describe (also of events that never fired): name to field names.
    pub formats: BTreeMap<String, Vec<String>>,
    /// The events that can be in the trace, where the files say so.
    pub recorded: Option<RecordedEvents>,
    /// The time of the first event, in nanoseconds on the trace's clock.
    pub first_ts: u64,
    /// The time of the last event, in nanoseconds on the trace's clock.
    pub last_ts: u64,
    /// The number of events, including notes of losses, of damage and about tasks.
    pub events: u64,
}

impl TraceInfo {
    /// The damage in a few lines: places that differ only in their offset share a line.
    pub fn damage_lines(&self) -> Vec<String> {
        let mut kinds: Vec<(&Damage, u64, u64)> = Vec::new();
        for d in &self.damage {
            let same = |k: &&mut (&Damage, u64, u64)| {
                (&k.0.file, &k.0.expected, k.0.resumed) == (&d.file, &d.expected, d.resumed)
            };
            match kinds.iter_mut().find(same) {
                Some(k) => {
                    k.1 += 1;
                    k.2 = d.offset;
                }
                None => kinds.push((d, 0, d.offset)),
            }
        }
        let line = |(d, more, last): (&Damage, u64, u64)| match more {
            0 => d.to_string(),
            1 => format!("{d}; and once more, at byte {last}"),
            n => format!("{d}; and so at {n} more places, the last at byte {last}"),
        };
        kinds.into_iter().map(line).collect()
    }

    /// What is known of lost events.
    pub fn losses(&self) -> Losses {
        match (self.lost.total, self.lost.moments) {
            (Some(events), moments) if events > 0 => Losses::Counted { events, moments },
            (_, moments) if moments > 0 => Losses::Uncounted { moments },
            _ if !self.damage.is_empty() => Losses::Unreadable,
            _ if self.lost.known => Losses::None,
            _ => Losses::Unknown,
        }
    }

    /// Whether something was lost or unreadable, so that everything derived from the events is partial.
    pub fn is_partial(&self) -> bool {
        !self.damage.is_empty() || self.lost.moments > 0 || self.lost.total.is_some_and(|n| n > 0)
    }
}

/// The events that can be in a trace, by name without system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedEvents {
    /// The names of the events; no other event was recorded.
    pub names: BTreeSet<String>,
    /// Whether the recorder was asked for all of these. In a trace.dat they are the events with a format, which are more than were recorded.
    pub all: bool,
}

/// One input file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileInfo {
    /// The path, or the name that the caller gave to bytes.
    pub path: PathBuf,
    /// The format as which its content was recognised.
    pub kind: FormatKind,
    /// The compression of the whole file.
    pub compression: Compression,
    /// The compression inside it: of perf's records (`perf record -z`, and mmuscope's own captures) or of trace.dat's pages.
    pub inside: Compression,
    /// The stored size in bytes; 0 for a stream.
    pub size: u64,
}

/// Kinds of traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum FormatKind {
    /// A perf.data in file mode.
    PerfFile,
    /// A perf.data in pipe mode (`perf record -o -`; also mmuscope's own captures).
    PerfPipe,
    /// A directory of `perf record --threads`.
    PerfDir,
    /// A trace.dat of trace-cmd, version 6.
    TraceDatV6,
    /// A trace.dat of trace-cmd, version 7.
    TraceDatV7,
    /// Pages of `trace_pipe_raw`.
    RawPages,
    /// The text of tracefs (`trace`, `trace_pipe`).
    #[default]
    FtraceText,
    /// The text of `trace-cmd report`.
    TraceCmdText,
    /// The text of `perf script`.
    PerfScriptText,
    /// The text of `perf trace`.
    PerfTraceText,
}

impl FormatKind {
    /// Whether the format is text.
    pub fn is_text(self) -> bool {
        matches!(self, Self::FtraceText | Self::TraceCmdText | Self::PerfScriptText | Self::PerfTraceText)
    }
}

impl fmt::Display for FormatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PerfFile => "perf.data",
            Self::PerfPipe => "perf.data (pipe)",
            Self::PerfDir => "perf.data (directory)",
            Self::TraceDatV6 => "trace.dat v6",
            Self::TraceDatV7 => "trace.dat v7",
            Self::RawPages => "raw ring pages",
            Self::FtraceText => "tracefs text",
            Self::TraceCmdText => "trace-cmd report text",
            Self::PerfScriptText => "perf script text",
            Self::PerfTraceText => "perf trace text",
        })
    }
}

/// Compression of a file or in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not compressed.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// xz.
    Xz,
    /// zlib (inside trace.dat only).
    Zlib,
}

/// The clock of the time stamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The kernel's name (`local`, `global`, `mono`, `x86-tsc`, `CLOCK_MONOTONIC`, `sched_clock` …); empty where the format does not say.
    pub name: String,
    /// The unit of its numbers.
    pub unit: ClockUnit,
}

impl Default for Clock {
    fn default() -> Self {
        Self { name: String::new(), unit: ClockUnit::Nanoseconds }
    }
}

/// Units of a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ClockUnit {
    /// The unit is a nanosecond.
    #[default]
    Nanoseconds,
    /// The unit is a CPU cycle, so differences are not times.
    Cycles,
    /// The numbers only give an order (`counter`, `uptime`).
    Ordinal,
}

impl ClockUnit {
    /// The unit of an ftrace clock.
    pub fn of_ftrace(name: &str) -> Self {
        match name {
            "x86-tsc" | "ppc-tb" => Self::Cycles,
            "counter" | "uptime" => Self::Ordinal,
            _ => Self::Nanoseconds,
        }
    }
}

/// The vendor of the host's CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// Intel, or a compatible CPU with VMX (Zhaoxin, Centaur).
    Intel,
    /// AMD, or a compatible CPU with SVM (Hygon).
    Amd,
    /// Another vendor.
    Other,
}

impl Vendor {
    /// Recognises a CPUID vendor string, or a `cpuid` or `cpudesc` text that contains one.
    pub fn parse(s: &str) -> Option<Self> {
        let has = |w: &str| s.contains(w);
        if has("GenuineIntel") || has("CentaurHauls") || has("Shanghai") || has("Intel") {
            Some(Self::Intel)
        } else if has("AuthenticAMD") || has("HygonGenuine") || has("AMD") {
            Some(Self::Amd)
        } else if s.trim().is_empty() {
            None
        } else {
            Some(Self::Other)
        }
    }
}

/// What mmuscope's recorder last wrote about itself while it recorded, in the fact `recorder.now`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecorderNow {
    /// The number of events taken from the rings by then.
    pub events: u64,
    /// The number of events that the rings had reported as lost by then.
    pub lost: u64,
    /// How full the fullest ring was lately, in percent.
    pub ring: f64,
    /// The CPU time of the recorder lately, in percent of one CPU.
    pub cpu: f64,
}

/// The recording host. A fact is present only if the file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Kernel release (`uname -r`).
    pub os_release: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Machine (`x86_64`).
    pub arch: Option<String>,
    /// CPU model text.
    pub cpu_desc: Option<String>,
    /// `vendor,family,model,stepping`, as perf writes it.
    pub cpuid: Option<String>,
    /// CPU vendor.
    pub vendor: Option<Vendor>,
    /// CPU family.
    pub cpu_family: Option<u32>,
    /// CPU model.
    pub cpu_model: Option<u32>,
    /// CPU stepping.
    pub cpu_stepping: Option<u32>,
    /// The command that recorded.
    pub cmdline: Option<String>,
    /// The tool that recorded, with its version.
    pub tool: Option<String>,
    /// CPUs online at recording.
    pub nr_cpus: Option<u32>,
    /// Bytes in a `long` of the kernel.
    pub long_size: Option<u8>,
    /// Module parameters, `kvm.tdp_mmu` → `Y`.
    pub params: BTreeMap<String, String>,
    /// The kernel's own variables by name, such as `shadow_mmio_mask`.
    pub masks: BTreeMap<String, u64>,
    /// All other facts in the file about the host, as pairs of key and text.
    pub facts: Vec<(String, String)>,
}

impl HostFacts {
    /// What the recorder last wrote about itself, if it is mmuscope's and the capture was written while somebody could watch it.
    pub fn recorder_now(&self) -> Option<RecorderNow> {
        let text = &self.facts.iter().rev().find(|f| f.0 == "recorder.now")?.1;
        let mut now = RecorderNow::default();
        let mut words = text.split(' ');
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            match name {
                "events" => now.events = value.parse().ok()?,
                "lost" => now.lost = value.parse().ok()?,
                "ring" => now.ring = value.parse().ok()?,
                "cpu" => now.cpu = value.parse().ok()?,
                _ => {}
            }
        }
        Some(now)
    }

    /// Sets vendor, family, model and stepping from perf's `vendor,family,model,stepping`.
    pub(crate) fn set_cpuid(&mut self, s: &str) {
        let mut parts = s.split(',');
        self.vendor = parts.next().and_then(Vendor::parse);
        self.cpu_family = parts.next().and_then(|p| p.trim().parse().ok());
        self.cpu_model = parts.next().and_then(|p| p.trim().parse().ok());
        self.cpu_stepping = parts.next().and_then(|p| p.trim().parse().ok());
        self.cpuid = Some(s.to_owned());
    }

    /// Takes every fact from `other` that is missing here.
    pub(crate) fn fill_from(&mut self, other: Self) {
        macro_rules! fill {
            ($($f:ident),*) => { $( if self.$f.is_none() { self.$f = other.$f; } )* };
        }
        fill!(
            os_release,
            hostname,
            arch,
            cpu_desc,
            cpuid,
            vendor,
            cpu_family,
            cpu_model,
            cpu_stepping,
            cmdline,
            tool,
            nr_cpus,
            long_size
        );
        for (k, v) in other.params {
            self.params.entry(k).or_insert(v);
        }
        for (k, v) in other.masks {
            self.masks.entry(k).or_insert(v);
        }
        for fact in other.facts {
            if !self.facts.contains(&fact) {
                self.facts.push(fact);
            }
        }
    }
}

/// A thread that appears in the trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskInfo {
    /// Thread id.
    pub tid: u32,
    /// The process id, where the trace has it.
    pub pid: Option<u32>,
    /// The last name that was seen.
    pub comm: StrId,
    /// The vCPU it runs, if it is a vCPU thread; the first where it runs several.
    pub vcpu_id: Option<u32>,
    /// Whether it ran more than one vCPU, so that an event of its that names none may be of any.
    pub several_vcpus: bool,
    /// How process and vCPU are known, in words.
    pub provenance: String,
}

/// Threads that seem to belong to one virtual machine, by their process or by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmHint {
    /// The process id of its VMM, where known.
    pub pid: Option<u32>,
    /// A name for people: the task name of the VMM, or the recorded name of a guest.
    pub name: String,
    /// All threads that belong to it.
    pub tids: Vec<u32>,
    /// Its vCPU threads as (thread id, vCPU id).
    pub vcpus: Vec<(u32, u32)>,
    /// How the grouping is known, in words. Without a process it is a guess, which what the page tables show may contradict.
    pub provenance: String,
}

/// A summary of what the recorder lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostSummary {
    /// Whether the input would show it if events had been lost. A text shows it only with events and the head that its tool prints.
    pub known: bool,
    /// The number of lost events, where every loss was counted.
    pub total: Option<u64>,
    /// The number of places in the event stream where events were lost (each is a [`Body::Lost`](crate::Body::Lost)).
    pub moments: u64,
    /// The counted losses for each CPU.
    pub per_cpu: BTreeMap<u16, u64>,
    /// The counted losses for each event, where the format counts them so.
    pub per_event: BTreeMap<String, u64>,
}

/// What is known of lost events, in one answer ([`TraceInfo::losses`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Losses {
    /// No event was lost.
    None,
    /// So many events were lost, at so many places of the event stream.
    Counted {
        /// The number of events.
        events: u64,
        /// The number of places.
        moments: u64,
    },
    /// Events were lost at so many places of the event stream, and at some of them they were not counted.
    Uncounted {
        /// The number of places.
        moments: u64,
    },
    /// A part could not be read, which may have held events or notes of losses.
    Unreadable,
    /// The recording does not say whether events were lost.
    #[default]
    Unknown,
}

impl Losses {
    /// Why it is not known whether events were lost, as a sentence without its full stop; `None` where it is known.
    pub fn unknown(self) -> Option<&'static str> {
        match self {
            Losses::Unreadable => {
                Some("a part of the recording could not be read, which may have held events")
            }
            Losses::Unknown => Some("the recording does not say whether events were lost"),
            Losses::None | Losses::Counted { .. } | Losses::Uncounted { .. } => None,
        }
    }
}

/// A place that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The byte offset in it (in the decompressed content, for a compressed file).
    pub offset: u64,
    /// What was expected there.
    pub expected: String,
    /// What was found, and what it means for the result.
    pub message: String,
    /// Whether reading continued after it.
    pub resumed: bool,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: byte {}: expected {}: {}",
            self.file.display(),
            self.offset,
            self.expected,
            self.message
        )
    }
}

/// A value with its origin in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// The origin of the value.
    pub from: String,
}

/// Which variants of the tracepoints the recording kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// The layout of the role word.
    pub role: Option<Sourced<RoleWord>>,
    /// The numbers of `RET_PF_*`.
    pub ret_pf: Option<Sourced<RetPf>>,
    /// The instruction set of the exits that were seen.
    pub isa: Option<Sourced<Isa>>,
    /// What the letter `u` of `kvm_mmu_set_spte` can show.
    pub set_spte_user: Option<Sourced<UserLetter>>,
    /// `kvm_page_fault` has a vCPU and a 64-bit error code (since 6.1).
    pub long_page_fault: Option<Sourced<bool>>,
}

/// The layouts of `union kvm_mmu_page_role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleWord {
    /// Bit 4 is `cr4_pae` (up to 5.0).
    Cr4Pae,
    /// Bit 4 is `gpte_is_8_bytes` (5.1 to 5.16).
    GpteIs8Bytes,
    /// Bit 4 is `has_4_byte_gpte` (5.17 to 7.1).
    Has4ByteGpte,
    /// `access` has four bits, beginning with R. `invalid`, `efer_nx` and `cr0_wp` are one bit higher, and the bits from 15 up where they were
    /// (since 7.2).
    AccessRead,
}

/// The numbers of `RET_PF_*` in one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetPf {
    /// The number of RET_PF_RETRY.
    pub retry: i32,
    /// The number of RET_PF_EMULATE.
    pub emulate: i32,
    /// The number of RET_PF_INVALID.
    pub invalid: i32,
    /// The number of RET_PF_FIXED.
    pub fixed: i32,
    /// The number of RET_PF_SPURIOUS.
    pub spurious: i32,
}

/// What the user letter of `kvm_mmu_set_spte` can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserLetter {
    /// `u`, `-`, or nothing where the paging mode has no user bit.
    OrAbsent,
    /// `u` or `-` (7.2 and later).
    Plain,
}
