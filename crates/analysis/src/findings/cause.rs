//! [`Cause`]: something that changes many entries at once, or makes the guest fault on many, with when it went on. The viewer draws causes
//! as rows over its map; what gathers them are the rules' watchers, so that a finding and a row never differ.

use super::words::{counted, task};
use mmuscope_replay::VmId;
use mmuscope_trace::Trace;
use mmuscope_units::{bytes, gfn_range};

/// Causes of one kind and thread that are less than this many nanoseconds apart are one.
const APART: u64 = 10_000_000;

/// The kinds of causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CauseKind {
    /// `kvm_mmu_zap_all_fast`: all page tables became obsolete.
    ZapAll,
    /// The VMM asked KVM to make, change, move or delete a memory slot. Whether KVM did it is not traced.
    Slots,
    /// An mmu_notifier invalidated a range of host memory.
    Notifier,
    /// A round of dirty logging: entries were write-protected, or cleared of Dirty.
    DirtyLogging,
    /// Huge pages were split, or zapped and mapped by small ones.
    HugeLost,
    /// Small pages were collapsed to huge ones.
    HugeWon,
    /// The worker of the NX mitigation zapped what had been split.
    NxRecovery,
    /// The host looked which pages are in use.
    Aging,
    /// The VM was torn down.
    Teardown,
}

impl CauseKind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::ZapAll,
        Self::Slots,
        Self::Notifier,
        Self::DirtyLogging,
        Self::HugeLost,
        Self::HugeWon,
        Self::NxRecovery,
        Self::Aging,
        Self::Teardown,
    ];

    /// A short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZapAll => "zap-all",
            Self::Slots => "memory slots",
            Self::Notifier => "mmu_notifier",
            Self::DirtyLogging => "dirty logging",
            Self::HugeLost => "huge pages split",
            Self::HugeWon => "huge pages won",
            Self::NxRecovery => "NX recovery",
            Self::Aging => "aging",
            Self::Teardown => "teardown",
        }
    }
}

/// What is known of a cause beside its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    ZapAll { zapped: u64 },
    Slots { slot: Option<u32>, gpa: Option<u64>, size: Option<u64> },
    Notifier { start: u64, end: u64, zapped: u64 },
    Round { protected: u64, cleared: u64, bytes: u64, again: u64 },
    Sizes { count: u64, lost: bool, why: &'static str },
    Recovery { ranges: u64 },
    Aging { ranges: u64, bytes: u64 },
    Teardown,
}

/// Something that changed many entries at once, or made the guest fault on many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// VM; `None` where the trace does not show it.
    pub vm: Option<VmId>,
    /// Thread that did it.
    pub tid: u32,
    /// When it began, in nanoseconds on the trace's clock.
    pub start: u64,
    /// When it was over at the latest, in nanoseconds on the trace's clock; `None` where no later event of the thread shows it.
    pub end: Option<u64>,
    /// Number of the event that shows it.
    pub event: u32,
    /// Number of its last event.
    pub last_event: u32,
    /// First and last guest frame that it is known to have touched.
    pub gfns: Option<(u64, u64)>,
    pub(super) what: What,
}

impl Cause {
    pub(super) fn new(tid: u32, (start, event): (u64, u32), what: What) -> Self {
        Self { vm: None, tid, start, end: Some(start), event, last_event: event, gfns: None, what }
    }

    /// Its kind.
    pub fn kind(&self) -> CauseKind {
        match self.what {
            What::ZapAll { .. } => CauseKind::ZapAll,
            What::Slots { .. } => CauseKind::Slots,
            What::Notifier { .. } => CauseKind::Notifier,
            What::Round { .. } => CauseKind::DirtyLogging,
            What::Sizes { lost: true, .. } => CauseKind::HugeLost,
            What::Sizes { lost: false, .. } => CauseKind::HugeWon,
            What::Recovery { .. } => CauseKind::NxRecovery,
            What::Aging { .. } => CauseKind::Aging,
            What::Teardown => CauseKind::Teardown,
        }
    }

    /// Whether an event of a thread lies within it.
    pub fn holds(&self, tid: u32, event: u32) -> bool {
        self.tid == tid && (self.event..=self.last_event).contains(&event)
    }

    /// Takes in the next cause if both are one; whether they are.
    fn take_in(&mut self, next: &Self) -> bool {
        let near = next.start.saturating_sub(self.end.unwrap_or(self.start)) < APART;
        let one = (self.tid == next.tid && near).then_some((&mut self.what, next.what));
        match one {
            Some((What::Sizes { count, lost, why }, What::Sizes { count: n, lost: l, why: w }))
                if (*lost, *why) == (l, w) =>
            {
                *count += n;
            }
            Some((What::Recovery { ranges }, What::Recovery { ranges: n })) => *ranges += n,
            Some((What::Aging { ranges, bytes }, What::Aging { ranges: n, bytes: b })) => {
                *ranges += n;
                *bytes = bytes.saturating_add(b);
            }
            _ => return false,
        }
        (self.end, self.last_event) = (next.end, next.last_event);
        self.gfns = match (self.gfns, next.gfns) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
        true
    }

    /// What happened and who did it, in one line.
    pub fn text(&self, trace: &Trace) -> String {
        let comm = trace.strings.get(trace.events.get(self.event as usize).comm);
        let by = task(comm, self.tid);
        let words = match self.what {
            What::ZapAll { zapped: 0 } => format!("all page tables were made obsolete by {by}"),
            What::ZapAll { zapped } => {
                format!(
                    "all page tables were made obsolete by {by}, which went on to zap {}",
                    entries(zapped)
                )
            }
            What::Slots { slot, gpa, size } => {
                let slot = slot.map_or_else(|| "a memory slot".to_owned(), |n| format!("memory slot {n}"));
                match (gpa, size) {
                    (_, Some(0)) => format!("{by} asked to delete {slot}"),
                    (Some(gpa), Some(size)) => {
                        format!("{by} asked for {slot}: guest address {gpa:#x}, {}", bytes(size))
                    }
                    _ => format!("{by} asked for {slot}"),
                }
            }
            What::Notifier { start, end, zapped } => {
                let size = bytes(end.saturating_sub(start));
                let did = if zapped == 0 {
                    String::from("no zap is traced")
                } else {
                    format!("{} zapped", entries(zapped))
                };
                format!("host addresses {start:#x} to {end:#x} ({size}) were invalidated by {by}: {did}")
            }
            What::Round { protected, cleared, bytes: size, again } => {
                let of = match (protected, cleared) {
                    (n, 0) => format!("{} write-protected", entries(n)),
                    (0, n) => format!("{} cleared of Dirty", entries(n)),
                    (a, b) => format!("{} write-protected and {} cleared of Dirty", entries(a), entries(b)),
                };
                let again = mmuscope_units::count(again);
                format!(
                    "dirty logging by {by}: {of} ({}), {again} made writable again by faults",
                    bytes(size)
                )
            }
            What::Sizes { count, lost, why } => {
                let verb = if lost { "lost" } else { "won" };
                format!("{} {verb} by {by}: {why}", counted(count, "huge page"))
            }
            What::Recovery { ranges } => {
                format!("{} zapped by {by}, to be mapped by huge pages again", counted(ranges, "split range"))
            }
            What::Aging { ranges, bytes: size } => {
                format!("{} aged by {by} ({} of host memory)", counted(ranges, "range"), bytes(size))
            }
            What::Teardown => format!("the VM was torn down by {by}"),
        };
        match self.gfns {
            Some((first, last)) => {
                format!("{words}; guest frames {}", gfn_range(first, last.saturating_add(1)))
            }
            None => words,
        }
    }
}

fn entries(n: u64) -> String {
    if n == 1 { "1 entry".into() } else { format!("{} entries", mmuscope_units::count(n)) }
}

/// Sorts causes by time, and joins those of one kind and thread that follow each other closely.
pub(super) fn joined(mut all: Vec<Cause>) -> Vec<Cause> {
    all.sort_by_key(|c| (c.kind(), c.tid, c.start, c.event));
    let mut out = mmuscope_units::ranges::fold(all, Cause::take_in);
    out.sort_by_key(|c| (c.start, c.event));
    out
}
