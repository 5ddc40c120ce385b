//! What is known about a recording besides its events.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use crate::event::{Isa, StrId};

/// Everything known about a recording. Plain data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceInfo {
    /// The files it was read from.
    pub files: Vec<FileInfo>,
    /// Format of the first file.
    pub format: FormatKind,
    /// The clock of the time stamps.
    pub clock: Clock,
    /// Steps of the time stamps: 1, or 1000 for text with microseconds.
    pub resolution_ns: u32,
    /// The recording host, as far as the files say.
    pub host: HostFacts,
    /// Every task that appears.
    pub tasks: Vec<TaskInfo>,
    /// Virtual machines, as far as threads and processes tell.
    pub vms: Vec<VmGuess>,
    /// What the recorder lost.
    pub lost: LostSummary,
    /// What could not be read.
    pub damage: Vec<Damage>,
    /// Things a reader should know, one sentence each.
    pub notes: Vec<String>,
    /// Which variants of the tracepoints the kernel has.
    pub dialect: Dialect,
    /// Event formats the files describe (also of events that never fired): name to field names.
    pub formats: BTreeMap<String, Vec<String>>,
    /// Which events can be in it, where the files say it.
    pub recorded: Option<RecordedEvents>,
    /// Time of the first event.
    pub first_ts: u64,
    /// Time of the last event.
    pub last_ts: u64,
    /// Number of events, notes of loss and damage included.
    pub events: u64,
}

impl TraceInfo {
    /// The damage in few lines: places that differ by their offset only are one.
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

    /// Whether something was lost or unreadable, so that everything derived from the events is partial.
    pub fn is_partial(&self) -> bool {
        !self.damage.is_empty() || self.lost.moments > 0 || self.lost.total.is_some_and(|n| n > 0)
    }
}

/// The events that a recorder was asked for, by name without system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedEvents {
    /// No others were recorded.
    pub names: BTreeSet<String>,
    /// All of these were: trace.dat holds the formats of more events than were recorded.
    pub all: bool,
}

/// One input file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileInfo {
    /// Its path, or the name the caller gave to bytes.
    pub path: PathBuf,
    /// What its content was recognised as.
    pub kind: FormatKind,
    /// Compression around it.
    pub compression: Compression,
    /// Compression inside it: of perf's records (`perf record -z`, and mmuscope's own captures) or trace.dat's pages.
    pub inside: Compression,
    /// Size in bytes as stored; 0 for a stream.
    pub size: u64,
}

/// Kinds of traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum FormatKind {
    /// perf.data, file mode.
    PerfFile,
    /// perf.data, pipe mode (`perf record -o -`; also mmuscope's own captures).
    PerfPipe,
    /// Directory of `perf record --threads`.
    PerfDir,
    /// trace-cmd, version 6.
    TraceDatV6,
    /// trace-cmd, version 7.
    TraceDatV7,
    /// Pages of `trace_pipe_raw`.
    RawPages,
    /// Text of tracefs (`trace`, `trace_pipe`).
    #[default]
    FtraceText,
    /// Text of `trace-cmd report`.
    TraceCmdText,
    /// Text of `perf script`.
    PerfScriptText,
    /// Text of `perf trace`.
    PerfTraceText,
}

impl FormatKind {
    /// Whether it is text.
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
    /// None.
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

/// The clock of the stamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The kernel's name (`local`, `global`, `mono`, `x86-tsc`, `CLOCK_MONOTONIC`, `sched_clock` …); empty where the format does not say.
    pub name: String,
    /// What one unit of it is.
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
    /// Nanoseconds.
    #[default]
    Nanoseconds,
    /// CPU cycles: durations are not times.
    Cycles,
    /// Only an order (`counter`, `uptime`).
    Ordinal,
}

impl ClockUnit {
    /// Unit of an ftrace clock.
    pub fn of_ftrace(name: &str) -> Self {
        match name {
            "x86-tsc" | "ppc-tb" => Self::Cycles,
            "counter" | "uptime" => Self::Ordinal,
            _ => Self::Nanoseconds,
        }
    }
}

/// CPU vendor of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// Intel (and compatible VMX: Zhaoxin, Centaur).
    Intel,
    /// AMD (and compatible SVM: Hygon).
    Amd,
    /// Another.
    Other,
}

impl Vendor {
    /// From a CPUID vendor string or a `cpuid`/`cpudesc` text that starts with or holds one.
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

/// The recording host. Each fact only if the file carries it.
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
    /// The kernel's own variables, `shadow_mmio_mask` → value.
    pub masks: BTreeMap<String, u64>,
    /// Everything else the file says about the host, in its words.
    pub facts: Vec<(String, String)>,
}

impl HostFacts {
    /// Fills vendor, family, model and stepping out of perf's `vendor,family,model,stepping`.
    pub(crate) fn set_cpuid(&mut self, s: &str) {
        let mut parts = s.split(',');
        self.vendor = parts.next().and_then(Vendor::parse);
        self.cpu_family = parts.next().and_then(|p| p.trim().parse().ok());
        self.cpu_model = parts.next().and_then(|p| p.trim().parse().ok());
        self.cpu_stepping = parts.next().and_then(|p| p.trim().parse().ok());
        self.cpuid = Some(s.to_owned());
    }

    /// Takes over what `other` knows and `self` does not.
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
    /// Process id, where the trace says it.
    pub pid: Option<u32>,
    /// Last name seen.
    pub comm: StrId,
    /// The vCPU it runs, if it is a vCPU thread.
    pub vcpu_id: Option<u32>,
    /// How that is known.
    pub provenance: String,
}

/// A virtual machine, as threads and processes suggest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmGuess {
    /// Process id of its monitor, where known.
    pub pid: Option<u32>,
    /// A name for people: the monitor's task name or a guest's recorded name.
    pub name: String,
    /// All threads that belong to it.
    pub tids: Vec<u32>,
    /// Its vCPU threads: (tid, vcpu_id).
    pub vcpus: Vec<(u32, u32)>,
    /// How the grouping is known.
    pub provenance: String,
    /// The threads were put together for want of better knowledge: what the page tables show may say otherwise.
    pub is_guess: bool,
}

/// What the recorder lost, summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostSummary {
    /// Whether the format can say at all that nothing was lost.
    pub known: bool,
    /// Events lost altogether, where every loss was counted.
    pub total: Option<u64>,
    /// Moments of loss in the event stream (each a [`Body::Lost`](crate::Body::Lost)).
    pub moments: u64,
    /// Counted losses per CPU.
    pub per_cpu: BTreeMap<u16, u64>,
    /// Counted losses per event, where the format counts so.
    pub per_event: BTreeMap<String, u64>,
}

/// A place that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Byte offset in it (in the decompressed content, for a compressed file).
    pub offset: u64,
    /// What was expected there.
    pub expected: String,
    /// What was found, and what it means for the result.
    pub message: String,
    /// Whether reading went on after it.
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

/// A value with where it comes from, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub from: String,
}

/// Which variants of the tracepoints the recording kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// Layout of the role word.
    pub role: Option<Sourced<RoleWord>>,
    /// Numbers of `RET_PF_*`.
    pub ret_pf: Option<Sourced<RetPf>>,
    /// Instruction set of the exits seen.
    pub isa: Option<Sourced<Isa>>,
    /// What `u` of `kvm_mmu_set_spte` can say.
    pub set_spte_user: Option<Sourced<UserLetter>>,
    /// `kvm_page_fault` has a vCPU and a 64-bit error code (since 6.1).
    pub long_page_fault: Option<Sourced<bool>>,
}

/// Layouts of `union kvm_mmu_page_role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleWord {
    /// Bit 4 is `cr4_pae` (up to 5.0).
    Cr4Pae,
    /// Bit 4 is `gpte_is_8_bytes` (5.1 to 5.16).
    GpteIs8Bytes,
    /// Bit 4 is `has_4_byte_gpte` (5.17 to 7.1).
    Has4ByteGpte,
    /// `access` has four bits, from R up, and what follows is one bit higher (7.2).
    AccessRead,
}

/// Numbers of `RET_PF_*` in one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetPf {
    /// RET_PF_RETRY.
    pub retry: i32,
    /// RET_PF_EMULATE.
    pub emulate: i32,
    /// RET_PF_INVALID.
    pub invalid: i32,
    /// RET_PF_FIXED.
    pub fixed: i32,
    /// RET_PF_SPURIOUS.
    pub spurious: i32,
}

/// What the user letter of `kvm_mmu_set_spte` can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserLetter {
    /// `u`, `-`, or nothing where the paging mode has no user bit.
    OrAbsent,
    /// `u` or `-` (7.2 and later).
    Plain,
}
