//! Where an entry lies: the [`Key`] of its table and its index there, which follow from level and frame. Whoever looks a table up by place
//! asks here; nothing here knows what a table holds.
//!
//! Tables, entries, spans and threads are found by small integers, each of a type of its own ([`TableIx`], [`EntryIx`], [`SpanIx`],
//! [`ThreadIx`]), so that none is taken for another, and nothing but its own kind indexes a [`Column`].

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use crate::model::{EntryId, SpanId, TableId};

/// Where tables of a moment are found: address space, level, first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) as_id: u8,
    pub(crate) level: u8,
    pub(crate) gfn: u64,
}

/// The table an entry at `gfn` lies in.
pub(crate) fn key_of(as_id: u8, level: u8, gfn: u64) -> Key {
    let span = 9 * u32::from(level.clamp(1, 6));
    Key { as_id, level, gfn: if span >= 64 { 0 } else { gfn >> span << span } }
}

/// Index of an entry in its table.
pub(crate) fn index_of(level: u8, gfn: u64) -> u16 {
    (gfn >> (9 * (u32::from(level.clamp(1, 6)) - 1)) & 511) as u16
}

/// Entries per chunk: the store makes entries in chunks of so many.
pub(crate) const CHUNK: usize = 16;

/// A number that finds a thing of one kind in a [`Column`], and nothing of another kind.
pub(crate) trait Ix: Copy {
    /// The number of the thing at this position.
    fn nth(position: usize) -> Self;
    /// The position of the thing in its column.
    fn position(self) -> usize;
}

/// Defines an index of four bytes. Where there is a `NONE`, it is the number of nothing, and beyond the end of every column.
macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(transparent)]
        pub(crate) struct $name(pub(crate) u32);

        impl Ix for $name {
            #[inline]
            fn nth(position: usize) -> Self {
                Self(position as u32)
            }
            #[inline]
            fn position(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index! {
    /// Number of a table among all tables of the store.
    TableIx
}
index! {
    /// Number of an entry among all entries of the store, which is that of its [`EntryId`](crate::model::EntryId).
    EntryIx
}
index! {
    /// Number of a span among all spans of the store, in the order of the events that opened them, and so also a position in time: how many
    /// spans began before. It is the number of its [`SpanId`](crate::model::SpanId).
    SpanIx
}
index! {
    /// Number of a thread among all threads.
    ThreadIx
}

/// Nothing.
impl Default for TableIx {
    fn default() -> Self {
        Self::NONE
    }
}

/// Where whoever goes through all spans begins.
impl Default for SpanIx {
    fn default() -> Self {
        Self::FIRST
    }
}

impl TableIx {
    /// No table.
    pub(crate) const NONE: Self = Self(u32::MAX);

    /// The same table for whoever asks from outside.
    pub(crate) fn id(self) -> TableId {
        TableId(self.0)
    }
}

impl From<EntryId> for EntryIx {
    fn from(id: EntryId) -> Self {
        Self(id.0)
    }
}

impl From<SpanId> for SpanIx {
    fn from(id: SpanId) -> Self {
        Self(id.0)
    }
}

impl From<TableId> for TableIx {
    fn from(id: TableId) -> Self {
        Self(id.0)
    }
}

impl EntryIx {
    /// No entry.
    pub(crate) const NONE: Self = Self(u32::MAX);

    /// The entry at a place of a chunk.
    #[inline]
    pub(crate) fn in_chunk(chunk: u32, place: u32) -> Self {
        Self(chunk * CHUNK as u32 + place)
    }

    /// The number of its chunk.
    #[inline]
    pub(crate) fn chunk(self) -> usize {
        self.0 as usize / CHUNK
    }

    /// Its place in its chunk, from 0 to 15.
    #[inline]
    pub(crate) fn place(self) -> u32 {
        self.0 % CHUNK as u32
    }

    /// The same entry for whoever asks from outside.
    pub(crate) fn id(self) -> EntryId {
        EntryId(self.0)
    }
}

impl SpanIx {
    /// No span.
    pub(crate) const NONE: Self = Self(u32::MAX);

    /// The first of all.
    pub(crate) const FIRST: Self = Self(0);

    /// The span that was recorded `n` spans later.
    #[inline]
    pub(crate) fn plus(self, n: u32) -> Self {
        Self(self.0.saturating_add(n))
    }

    /// How many spans were recorded from another one up to this.
    #[inline]
    pub(crate) fn since(self, earlier: Self) -> u32 {
        self.0 - earlier.0
    }

    /// The spans from this one up to another, which is not included.
    #[inline]
    pub(crate) fn upto(self, end: Self) -> impl Iterator<Item = Self> + use<> {
        (self.0..end.0).map(Self)
    }

    /// The span as the one that stands for a cell of a picture: its number plus one, since 0 is for no span there.
    #[inline]
    pub(crate) fn rep(self) -> u32 {
        self.0 + 1
    }

    /// The same span for whoever asks from outside.
    pub(crate) fn id(self) -> SpanId {
        SpanId(self.0)
    }
}

/// The things of one kind by their number: a `Vec` that only this kind of number indexes. Where positions are meant (a stretch of a column, a
/// search), [`slice`](Column::slice) gives them.
#[derive(Clone, Debug)]
#[repr(transparent)]
pub(crate) struct Column<I, T> {
    all: Vec<T>,
    kind: PhantomData<I>,
}

impl<I, T> Default for Column<I, T> {
    fn default() -> Self {
        Self { all: Vec::new(), kind: PhantomData }
    }
}

impl<I: Ix, T> Column<I, T> {
    /// Adds a thing at the end, and gives its number.
    #[inline]
    pub(crate) fn push(&mut self, thing: T) -> I {
        self.all.push(thing);
        I::nth(self.all.len() - 1)
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    #[inline]
    pub(crate) fn get(&self, i: I) -> Option<&T> {
        self.all.get(i.position())
    }

    /// The number of the first thing of which this is false; it must be true of all before.
    #[inline]
    pub(crate) fn partition_point(&self, is: impl FnMut(&T) -> bool) -> I {
        I::nth(self.all.partition_point(is))
    }

    /// All things with their numbers.
    pub(crate) fn numbered(&self) -> impl ExactSizeIterator<Item = (I, &T)> + '_ {
        self.all.iter().enumerate().map(|(i, t)| (I::nth(i), t))
    }

    #[inline]
    pub(crate) fn slice(&self) -> &[T] {
        &self.all
    }

    #[inline]
    pub(crate) fn slice_mut(&mut self) -> &mut [T] {
        &mut self.all
    }

    /// Makes the column `len` long; what is new holds `thing`.
    pub(crate) fn resize(&mut self, len: usize, thing: T)
    where
        T: Clone,
    {
        self.all.reserve_exact(len.saturating_sub(self.all.len()));
        self.all.resize(len, thing);
    }

    /// Bytes of memory that the column takes, without what its things own.
    pub(crate) fn heap(&self) -> usize {
        self.all.capacity() * size_of::<T>()
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.all.shrink_to_fit();
    }
}

impl<I, T> Extend<T> for Column<I, T> {
    fn extend<A: IntoIterator<Item = T>>(&mut self, things: A) {
        self.all.extend(things);
    }
}

impl<I: Ix, T> Index<I> for Column<I, T> {
    type Output = T;
    #[inline]
    fn index(&self, i: I) -> &T {
        &self.all[i.position()]
    }
}

impl<I: Ix, T> IndexMut<I> for Column<I, T> {
    #[inline]
    fn index_mut(&mut self, i: I) -> &mut T {
        &mut self.all[i.position()]
    }
}
