//! [`News`]: what has happened to spans and entries that the last sealing already knew, so that the next one costs what is new and not what
//! there is. [`Store::push`] notes it, [`Store::seal`] and the axis take it. While a trace is replayed for the first time nothing is noted.

use super::Store;
use crate::keys::{SpanIx, TableIx};

/// What the last sealing knew, and what has changed of it since.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    /// Sealed spans that another one of the same entry follows now.
    pub(super) followed: Vec<SpanIx>,
    /// Tables in [`Store::detaches`] and [`Store::deaths`] whose entries' ends are known.
    pub(super) detaches: usize,
    pub(super) deaths: usize,
    /// Chunks that are on the axis, and those of them that have leaves which are not.
    chunks: usize,
    leaves: Vec<u32>,
}

impl News {
    /// An entry of a chunk mapped something for the first time.
    #[inline]
    pub(super) fn leaf(&mut self, chunk: usize) {
        if chunk < self.chunks {
            self.leaves.push(chunk as u32);
        }
    }
}

impl Store {
    /// The sealed spans that may have ended since.
    pub(super) fn take_ended(&mut self, sealed: SpanIx) -> Vec<SpanIx> {
        let mut ended = std::mem::take(&mut self.news.followed);
        let tables: Vec<TableIx> = self.detaches[self.news.detaches..]
            .iter()
            .chain(&self.deaths[self.news.deaths..])
            .copied()
            .collect();
        (self.news.detaches, self.news.deaths) = (self.detaches.len(), self.deaths.len());
        for table in tables {
            let unlinked = self.tables[table].detach_sp;
            for e in self.table_entries(table) {
                ended.extend(self.last_before(e, unlinked));
                ended.extend(self.last_span(e));
            }
        }
        ended.retain(|s| *s < sealed);
        ended.sort_unstable();
        ended.dedup();
        ended
    }

    /// The chunks with leaves that were not there when this was last asked; all of them if `anew`.
    pub(crate) fn take_leafy(&mut self, anew: bool) -> Vec<u32> {
        let mut chunks = std::mem::take(&mut self.news.leaves);
        if anew {
            self.news.chunks = 0;
            chunks.clear();
        }
        chunks.sort_unstable();
        chunks.dedup();
        chunks.extend(self.news.chunks as u32..self.leafy.len() as u32);
        self.news.chunks = self.leafy.len();
        chunks
    }
}
