//! Interned strings: task names, event names, marker texts.

use std::hash::Hasher;

use rustc_hash::{FxHashMap, FxHasher};

use crate::event::{Isa, StrId};
use crate::exits;

/// Ids from here on are short-lived: they belong to the batch of events being delivered by [`stream`](crate::stream).
const TRANSIENT: u32 = 1 << 31;

/// All strings of a trace, each kept once.
#[derive(Clone, Debug, Default)]
pub struct Strings {
    bytes: String,
    /// End of string n in `bytes`, for n from 1; string 0 is empty.
    ends: Vec<usize>,
    ids: FxHashMap<u64, u32>,
    passing: Vec<Box<str>>,
    exit_names: FxHashMap<(Option<Isa>, u32), StrId>,
    streaming: bool,
}

impl Strings {
    /// An interner that knows the empty string only.
    pub fn new() -> Self {
        Self::default()
    }

    /// The string of an id; empty for an id of another trace.
    pub fn get(&self, id: StrId) -> &str {
        if id.0 & TRANSIENT != 0 {
            return self.passing.get((id.0 & !TRANSIENT) as usize).map_or("", |s| s);
        }
        let Some(n) = (id.0 as usize).checked_sub(1) else { return "" };
        let Some(&end) = self.ends.get(n) else { return "" };
        let start = if n == 0 { 0 } else { self.ends[n - 1] };
        self.bytes.get(start..end).unwrap_or("")
    }

    /// The id of a string, new or known.
    pub fn intern(&mut self, s: &str) -> StrId {
        if s.is_empty() {
            return StrId::default();
        }
        let hash = hash(s);
        if let Some(&id) = self.ids.get(&hash)
            && self.get(StrId(id)) == s
        {
            return StrId(id);
        }
        if self.ends.len() as u32 >= TRANSIENT - 1 {
            return StrId::default();
        }
        self.bytes.push_str(s);
        self.ends.push(self.bytes.len());
        let id = self.ends.len() as u32;
        // On the (one in 2^64) collision the older string keeps the slot and the newer is merely stored twice.
        self.ids.entry(hash).or_insert(id);
        StrId(id)
    }

    /// Looks a string up without adding it.
    pub fn find(&self, s: &str) -> Option<StrId> {
        if s.is_empty() {
            return Some(StrId::default());
        }
        let id = StrId(*self.ids.get(&hash(s))?);
        (self.get(id) == s).then_some(id)
    }

    /// Interns text that hardly repeats (the fields of an untyped event): kept for one batch only while streaming.
    pub(crate) fn intern_passing(&mut self, s: &str) -> StrId {
        if !self.streaming || s.is_empty() {
            return self.intern(s);
        }
        self.passing.push(s.into());
        StrId((self.passing.len() as u32 - 1) | TRANSIENT)
    }

    /// Interned kernel name of an exit reason; empty where it has none.
    pub(crate) fn exit_name(&mut self, isa: Option<Isa>, reason: u32) -> StrId {
        if let Some(&id) = self.exit_names.get(&(isa, reason)) {
            return id;
        }
        let id = isa.and_then(|isa| exits::name(isa, reason)).map_or(StrId::default(), |n| self.intern(n));
        // Corrupt input may invent reasons without end.
        if self.exit_names.len() < 4096 {
            self.exit_names.insert((isa, reason), id);
        }
        id
    }

    /// From now on, passing strings live for a batch.
    pub(crate) fn set_streaming(&mut self) {
        self.streaming = true;
    }

    /// Ends the life of the passing strings.
    pub(crate) fn clear_passing(&mut self) {
        self.passing.clear();
    }

    /// Number of strings, without the empty one.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether only the empty string is known.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Memory it takes.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>() + self.ids.capacity() * 17
    }
}

fn hash(s: &str) -> u64 {
    let mut h = FxHasher::default();
    h.write(s.as_bytes());
    h.finish()
}
