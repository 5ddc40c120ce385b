//! Texts that hardly repeat (the fields of untyped events), stored compressed and formatted on demand. The main type is [`Texts`].
//!
//! Pieces are collected into chunks of about [`CHUNK`] bytes, which are compressed when they are full. One chunk at a time is held
//! decompressed, so that reading the texts in order costs little.

use std::fmt;
use std::sync::{Arc, Mutex};

use crate::describe::describe;
use crate::format::Format;

/// The number of bytes of a chunk before compression.
const CHUNK: usize = 32 << 10;
/// The compression level of zstd: the fastest of its regular ones, which are 1 to 22.
const LEVEL: i32 = 1;

/// A piece of text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Piece<'a> {
    /// A text in UTF-8.
    Text(&'a str),
    /// A record, to be described by its format.
    Record(&'a Arc<Format>, &'a [u8]),
}

#[derive(Clone)]
struct Chunk {
    first: u32,
    len: u32,
    data: Arc<[u8]>,
}

/// A decompressed chunk: its number, its bytes, and where each piece begins.
type Open = (usize, Vec<u8>, Vec<u32>);

/// All texts.
#[derive(Default)]
pub(crate) struct Texts {
    chunks: Vec<Chunk>,
    formats: Vec<Arc<Format>>,
    packed: usize,
    /// The chunk that is being filled. Each piece is a u16 (0 for text, else the number of a format plus one), a u32 length, and the bytes.
    tail: Vec<u8>,
    tail_starts: Vec<u32>,
    count: u32,
    open: Mutex<Option<Open>>,
}

impl Clone for Texts {
    fn clone(&self) -> Self {
        Self {
            chunks: self.chunks.clone(),
            formats: self.formats.clone(),
            packed: self.packed,
            tail: self.tail.clone(),
            tail_starts: self.tail_starts.clone(),
            count: self.count,
            open: Mutex::default(),
        }
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Texts").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Texts {
    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    pub(crate) fn clear(&mut self) {
        if self.count > 0 {
            *self = Self { formats: std::mem::take(&mut self.formats), ..Self::default() };
        }
    }

    /// Appends a piece and returns its number.
    pub(crate) fn push(&mut self, piece: Piece<'_>) -> u32 {
        let (how, bytes) = match piece {
            Piece::Text(t) => (0, t.as_bytes()),
            Piece::Record(f, bytes) => (self.number(f) + 1, bytes),
        };
        self.tail_starts.push(self.tail.len() as u32);
        self.tail.extend(how.to_le_bytes());
        self.tail.extend((bytes.len() as u32).to_le_bytes());
        self.tail.extend(bytes);
        self.count += 1;
        if self.tail.len() >= CHUNK {
            let data: Arc<[u8]> = match zstd::bulk::compress(&self.tail, LEVEL) {
                Ok(d) if d.len() < self.tail.len() => d.into(),
                _ => self.tail.as_slice().into(),
            };
            self.packed += data.len();
            let first = self.count - self.tail_starts.len() as u32;
            self.chunks.push(Chunk { first, len: self.tail.len() as u32, data });
            self.tail.clear();
            self.tail_starts.clear();
        }
        self.count - 1
    }

    fn number(&mut self, f: &Arc<Format>) -> u16 {
        // The last ones are tried first: a trace has few formats without types, and they come one after the other.
        if let Some(i) = self.formats.iter().rposition(|g| Arc::ptr_eq(f, g)) {
            return i as u16;
        }
        if self.formats.len() >= usize::from(u16::MAX) - 1 {
            return 0;
        }
        self.formats.push(Arc::clone(f));
        self.formats.len() as u16 - 1
    }

    /// The text of a piece; empty for a number that does not exist.
    pub(crate) fn get(&self, n: u32) -> String {
        let tail_first = self.count - self.tail_starts.len() as u32;
        if n >= tail_first {
            let start = self.tail_starts.get((n - tail_first) as usize);
            return start.map_or(String::new(), |s| self.piece(&self.tail, *s as usize));
        }
        let i = self.chunks.partition_point(|c| c.first <= n).saturating_sub(1);
        let Some(chunk) = self.chunks.get(i) else { return String::new() };
        let Ok(mut open) = self.open.lock() else { return String::new() };
        let is_open = open.as_ref().is_some_and(|o| o.0 == i);
        if !is_open {
            *open = unpack(chunk).map(|(bytes, starts)| (i, bytes, starts));
        }
        let Some((_, bytes, starts)) = &*open else { return String::new() };
        starts.get((n - chunk.first) as usize).map_or(String::new(), |s| self.piece(bytes, *s as usize))
    }

    fn piece(&self, data: &[u8], at: usize) -> String {
        let Some((how, bytes)) = piece_at(data, at) else { return String::new() };
        match usize::from(how).checked_sub(1) {
            None => String::from_utf8_lossy(bytes).into_owned(),
            Some(f) => self.formats.get(f).map_or(String::new(), |f| describe(f, bytes)),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.packed
            + self.tail.capacity()
            + self.tail_starts.capacity() * 4
            + self.chunks.capacity() * size_of::<Chunk>()
    }
}

fn piece_at(data: &[u8], at: usize) -> Option<(u16, &[u8])> {
    let how = u16::from_le_bytes(*data.get(at..)?.first_chunk()?);
    let len = u32::from_le_bytes(*data.get(at + 2..)?.first_chunk()?);
    Some((how, data.get(at + 6..)?.get(..len as usize)?))
}

fn unpack(chunk: &Chunk) -> Option<(Vec<u8>, Vec<u32>)> {
    let len = chunk.len as usize;
    let bytes = if chunk.data.len() == len {
        chunk.data.to_vec()
    } else {
        zstd::bulk::decompress(&chunk.data, len).ok()?
    };
    let mut starts = Vec::new();
    let mut at = 0;
    while let Some((_, piece)) = piece_at(&bytes, at) {
        starts.push(at as u32);
        at += 6 + piece.len();
    }
    Some((bytes, starts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_comes_back() {
        let mut t = Texts::default();
        let text = |n: u32| format!("prev_comm=task{} prev_pid={n} {}", n % 7, "x".repeat(n as usize % 300));
        for n in 0..20_000 {
            assert_eq!(t.push(Piece::Text(&text(n))), n);
        }
        for n in [0, 1, 19_999, 19_998, 10_000, 1, 9_999, 5, 19_990] {
            assert_eq!(t.get(n), text(n));
        }
        assert_eq!(t.get(20_000), "");
        assert!(t.heap_bytes() < 20_000 * 40, "{}", t.heap_bytes());
        assert_eq!(t.clone().get(12_345), text(12_345));
    }

    #[test]
    fn a_record_is_described_when_it_is_asked_for() {
        let format = Format::parse(
            "name: x\nID: 7\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
             \tfield:int n;\toffset:4;\tsize:4;\tsigned:1;\n\tfield:char c[4];\toffset:8;\tsize:4;\tsigned:1;\n\nprint fmt: \"\"\n",
        )
        .map(Arc::new)
        .expect("it parses");
        let mut t = Texts::default();
        let n = t.push(Piece::Record(&format, b"\x07\0\0\0\xfe\xff\xff\xffab\0\0"));
        assert_eq!(t.get(n), "n=-2 c=ab");
    }
}
