//! [`TableRec`]: one table, and what is known of it.

use super::{CHUNKS, NONE};
use crate::keys::{EntryIx, SpanIx, TableIx};

/// One table while and after it lives. What most events need comes first, in one line of the cache.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(crate) struct TableRec {
    pub(crate) gfn: u64,
    /// Host-physical page; 0 where unknown.
    pub(crate) page: u64,
    pub(super) chunks: Option<Box<[u32; CHUNKS]>>,
    /// Entry that points to it.
    pub(crate) parent: EntryIx,
    /// Table at the top of its tree.
    pub(crate) root: TableIx,
    /// Unlinked: what it holds is no longer reachable.
    pub(crate) detach_ev: u32,
    /// The first span that was recorded after it was unlinked: those from there on are those of its teardown.
    pub(crate) detach_sp: SpanIx,
    /// Its memory is free: `removed` entries end too.
    pub(crate) dead_ev: u32,
    pub(crate) vm: u16,
    pub(crate) as_id: u8,
    pub(crate) level: u8,
    pub(crate) born: bool,
    pub(crate) direct: bool,
    pub(crate) mirror: bool,
    /// Events were lost while it lived: what no event has shown since is not known.
    pub(crate) lossy: bool,
    /// Where the trace does not hold all that came before: a fault was seen to work on it, and nothing that ends it since.
    pub(crate) alive: bool,
    /// Of an MMU whose zaps are not traced.
    pub(crate) silent: bool,
    /// Another table of its place was known before: it may be that one, taken for gone.
    pub(crate) again: bool,
    /// It was read in the kernel's memory: what no event has shown since is as it was then.
    pub(crate) read: bool,
    /// Every value known of its entries is stale since the last loss: nothing was learned of any of them since.
    pub(crate) doubted: bool,
    /// It is in [`Unlinked`](super::unlinked::Unlinked).
    pub(super) listed: bool,
    pub(crate) start_ev: u32,
    pub(crate) start_ts: u64,
    pub(crate) detach_ts: u64,
    pub(crate) dead_ts: u64,
    /// Value of an empty entry, for the time before an entry's first event.
    pub(crate) empty: u64,
    /// Chunk of free entries that has room, and how many it holds.
    pub(super) open_free: (u32, u8),
    /// All chunks of free entries.
    pub(super) free: Vec<u32>,
}

impl TableRec {
    pub(crate) fn new(vm: u16, as_id: u8, level: u8, gfn: u64, ev: u32, ts: u64) -> Self {
        Self {
            vm,
            as_id,
            level,
            born: false,
            direct: true,
            mirror: false,
            lossy: false,
            alive: false,
            silent: false,
            again: false,
            read: false,
            doubted: false,
            listed: false,
            gfn,
            page: 0,
            parent: EntryIx::NONE,
            root: TableIx::NONE,
            start_ev: ev,
            detach_ev: NONE,
            detach_sp: SpanIx::NONE,
            dead_ev: NONE,
            start_ts: ts,
            detach_ts: u64::MAX,
            dead_ts: u64::MAX,
            empty: 0,
            chunks: None,
            open_free: (NONE, 0),
            free: Vec::new(),
        }
    }
    pub(crate) fn attached(&self) -> bool {
        self.detach_ev == NONE
    }
}
