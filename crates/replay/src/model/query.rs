//! What can be asked, and what counts as an answer.

use std::borrow::Cow;

use super::{EventIx, Shade, State, VmId, pages_of};

/// Which entries a question is about; `None` matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StateFilter {
    /// VM.
    pub vm: Option<VmId>,
    /// Address space.
    pub as_id: Option<u8>,
    /// Level.
    pub level: Option<u8>,
    /// First frame and one past the last: entries that overlap.
    pub gfns: Option<(u64, u64)>,
    /// State.
    pub state: Option<State>,
}

/// Which spans a question is about; `None` matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SpanFilter {
    /// VM.
    pub vm: Option<VmId>,
    /// Address space.
    pub as_id: Option<u8>,
    /// Level.
    pub level: Option<u8>,
    /// First frame and one past the last: entries that overlap.
    pub gfns: Option<(u64, u64)>,
    /// Spans that overlap this time range.
    pub time: Option<(u64, u64)>,
}

/// Entries per shade and level at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// `entries[shade][level]`; level 0 is not used.
    pub entries: [[u64; 6]; 8],
}

impl Counts {
    /// Entries of a shade, all levels.
    pub fn total(&self, shade: Shade) -> u64 {
        self.entries[shade as usize].iter().sum()
    }
    /// Entries of a state, all levels.
    pub fn state(&self, state: State) -> u64 {
        Shade::ALL.iter().filter(|s| s.state() == state).map(|s| self.total(*s)).sum()
    }
    /// Bytes of guest memory that the entries of a shade cover.
    pub fn bytes(&self, shade: Shade) -> u64 {
        self.entries[shade as usize]
            .iter()
            .enumerate()
            .map(|(l, n)| n.saturating_mul(pages_of(l as u8).saturating_mul(4096)))
            .fold(0, u64::saturating_add)
    }
    /// Entries of a shade at a level.
    pub fn at(&self, shade: Shade, level: u8) -> u64 {
        self.entries[shade as usize].get(level as usize).copied().unwrap_or(0)
    }
}

/// One bucket of a [`series`](crate::Timeline::series).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Bin {
    /// Events in it.
    pub count: u64,
    /// Most in any sub-bucket (so that a zoomed-out picture keeps its spikes).
    pub max: u64,
    /// First event in it.
    pub first_event: Option<EventIx>,
}

/// What a [`series`](crate::Timeline::series) counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SeriesKind {
    /// All events.
    Events,
    /// Events of one name, such as `kvm_exit`.
    Event(Cow<'static, str>),
    /// Faults of all vCPUs.
    Faults,
    /// Faults of one thread.
    FaultsOf(u32),
    /// Changes of entries.
    Changes,
    /// Zaps: a leaf, present or MMIO, stops mapping, on its own or with its table; each once, when it leaves the live tables.
    Zaps,
    /// Lost events.
    Lost,
}

/// A page and how often something happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopPage {
    /// VM.
    pub vm: VmId,
    /// Address space.
    pub as_id: u8,
    /// Frame.
    pub gfn: u64,
    /// Level (1 for faults).
    pub level: u8,
    /// How often.
    pub count: u64,
    /// First time.
    pub first: u64,
    /// Last time.
    pub last: u64,
}
