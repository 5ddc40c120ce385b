//! Interned strings: task names, event names, marker texts. The main type is [`Strings`].

use std::borrow::Cow;
use std::hash::Hasher;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};

use crate::exits::{self, ExitNames};
use crate::fields::Names;
use crate::format::Format;
use crate::schema::values::{Isa, StrId};
use crate::texts::{Piece, Texts};

/// Ids from here on belong to texts that hardly repeat. They are not interned but stored compressed; get them with [`Strings::text`]. While
/// [streaming](crate::stream), they are valid as long as the batch of events that is being delivered.
const TEXT: u32 = 1 << 31;

/// All strings of a trace, each stored once.
#[derive(Clone, Debug, Default)]
pub struct Strings {
    bytes: String,
    /// The end of string n in `bytes`, for n from 1; string 0 is empty.
    ends: Vec<usize>,
    ids: FxHashMap<u64, u32>,
    texts: Texts,
    exit_names: FxHashMap<(Option<Isa>, u32), StrId>,
    all_exit_names: Option<Arc<ExitNames>>,
    streaming: bool,
}

impl Names for Strings {
    fn exit_name(&mut self, isa: Option<Isa>, reason: u32) -> StrId {
        Self::exit_name(self, isa, reason)
    }
    fn text(&mut self, s: &str) -> StrId {
        self.intern_marker(s)
    }
}

impl Strings {
    /// An interner that holds only the empty string.
    pub fn new() -> Self {
        Self::default()
    }

    /// The string of an id; empty for an id of another trace. For markers and the fields of untyped events use [`text`](Self::text).
    pub fn get(&self, id: StrId) -> &str {
        let Some(n) = (id.0 as usize).checked_sub(1) else { return "" };
        let Some(&end) = self.ends.get(n) else { return "" };
        let start = if n == 0 { 0 } else { self.ends[n - 1] };
        self.bytes.get(start..end).unwrap_or("")
    }

    /// The string of any id. The fields of untyped events ([`Body::Other`](crate::Body::Other)) are formatted here on demand.
    pub fn text(&self, id: StrId) -> Cow<'_, str> {
        if id.0 & TEXT == 0 { self.get(id).into() } else { self.texts.get(id.0 & !TEXT).into() }
    }

    /// The id of a string, which is added if it is new.
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
        if self.ends.len() as u32 >= TEXT - 1 {
            return StrId::default();
        }
        self.bytes.push_str(s);
        self.ends.push(self.bytes.len());
        let id = self.ends.len() as u32;
        // On a collision (one in 2^64), the older string keeps the slot and the newer one is stored twice.
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

    /// Stores a text that hardly repeats.
    pub(crate) fn keep_text(&mut self, s: &str) -> StrId {
        if s.is_empty() { StrId::default() } else { self.keep(Piece::Text(s)) }
    }

    /// Stores a record as the fields of an untyped event.
    pub(crate) fn keep_record(&mut self, format: &Arc<Format>, record: &[u8]) -> StrId {
        self.keep(Piece::Record(format, record))
    }

    fn keep(&mut self, piece: Piece<'_>) -> StrId {
        if self.texts.len() >= TEXT - 1 {
            return StrId::default();
        }
        StrId(self.texts.push(piece) | TEXT)
    }

    /// Stores the text of a marker. While streaming it is not interned, because a program may write any number of them.
    pub(crate) fn intern_marker(&mut self, s: &str) -> StrId {
        if self.streaming { self.keep_text(s) } else { self.intern(s) }
    }

    /// The id in this store of a string in another store.
    pub(crate) fn take_over(&mut self, other: &Self, id: StrId) -> StrId {
        if id.0 & TEXT == 0 { self.intern(other.get(id)) } else { self.keep_text(&other.text(id)) }
    }

    /// The interned kernel name of an exit reason; empty where it has none.
    pub(crate) fn exit_name(&mut self, isa: Option<Isa>, reason: u32) -> StrId {
        if let Some(&id) = self.exit_names.get(&(isa, reason)) {
            return id;
        }
        let id = isa.and_then(|isa| exits::name(isa, reason)).map_or(StrId::default(), |n| self.intern(n));
        // Corrupt input may have any number of reasons.
        if self.exit_names.len() < 4096 {
            self.exit_names.insert((isa, reason), id);
        }
        id
    }

    /// The names of all exit reasons.
    pub(crate) fn all_exit_names(&mut self) -> Arc<ExitNames> {
        if let Some(all) = &self.all_exit_names {
            return Arc::clone(all);
        }
        let all = Arc::new(ExitNames::new(|name| self.intern(name)));
        self.all_exit_names = Some(Arc::clone(&all));
        all
    }

    /// From now on, texts that hardly repeat are dropped after each batch.
    pub(crate) fn set_streaming(&mut self) {
        self.streaming = true;
    }

    /// Drops the texts that hardly repeat.
    pub(crate) fn clear_passing(&mut self) {
        self.texts.clear();
    }

    /// The number of strings, without the empty one.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the store holds only the empty string.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The number of bytes of memory that it takes.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.ends.capacity() * size_of::<usize>()
            + self.ids.capacity() * 17
            + self.texts.heap_bytes()
    }
}

fn hash(s: &str) -> u64 {
    let mut h = FxHasher::default();
    h.write(s.as_bytes());
    h.finish()
}
