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

/// What the page tables hold at one moment: entries, and the guest frames that they map.
///
/// A frame that several entries of an address space map is one frame, and what the best of them makes it: a known entry before a stale one,
/// then writable, read-only, access-tracked and MMIO, then the larger page. Frames of several address spaces or VMs are different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// `entries[shade][level]`; level 0 is not used.
    pub entries: [[u64; 6]; 8],
    /// `frames[shade][level]`: guest frames that are mapped so, each once; the level is that of the entry that counts.
    pub frames: [[u64; 6]; 8],
    /// `stale[level]`: how many of the present frames are only known from stale entries.
    pub stale: [u64; 6],
    /// How many of the MMIO frames are only known from stale entries.
    pub stale_mmio: u64,
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
    /// Bytes of guest memory of a shade: of its frames, each once, if it maps any; else what its entries would cover.
    pub fn bytes(&self, shade: Shade) -> u64 {
        if matches!(shade.state(), State::Present | State::Mmio) {
            return self.frames[shade as usize].iter().sum::<u64>().saturating_mul(4096);
        }
        self.entries[shade as usize]
            .iter()
            .enumerate()
            .map(|(l, n)| n.saturating_mul(pages_of(l as u8).saturating_mul(4096)))
            .fold(0, u64::saturating_add)
    }
    /// Bytes of guest memory that is present, each frame once: of one page size or (`None`) of all.
    pub fn present_bytes(&self, level: Option<u8>) -> u64 {
        let levels = |f: &[u64; 6]| match level {
            Some(l) => f.get(usize::from(l)).copied().unwrap_or(0),
            None => f.iter().sum(),
        };
        let shades = Shade::ALL.iter().filter(|s| s.state() == State::Present);
        shades.map(|s| levels(&self.frames[*s as usize])).sum::<u64>().saturating_mul(4096)
    }
    /// How much of [`present_bytes`](Self::present_bytes) is only known from stale entries.
    pub fn stale_bytes(&self, level: Option<u8>) -> u64 {
        let frames = match level {
            Some(l) => self.stale.get(usize::from(l)).copied().unwrap_or(0),
            None => self.stale.iter().sum(),
        };
        frames.saturating_mul(4096)
    }
    /// Adds those of another address space.
    pub(crate) fn add(&mut self, o: &Counts) {
        let all = |c: &Counts| {
            let (entries, frames) = (c.entries, c.frames);
            entries
                .into_iter()
                .chain(frames)
                .flatten()
                .chain(c.stale)
                .chain([c.stale_mmio])
                .collect::<Vec<_>>()
        };
        let other = all(o);
        let own = self.entries.iter_mut().chain(&mut self.frames).flatten();
        let own = own.chain(&mut self.stale).chain([&mut self.stale_mmio]);
        for (s, n) in own.zip(other) {
            *s = s.wrapping_add(n);
        }
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
