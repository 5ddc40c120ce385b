//! Batches of records in time order that are not decoded yet. The main type is [`RawBatch`]; the binary readers fill it.
//!
//! One thread walks the pages and records and puts the CPUs in order, which is little work. Decoding the records and packing the events is
//! most of the work. It needs only the batch, and all threads do it ([`load`](crate::load)).

use std::sync::Arc;

use crate::describe::SLACK;
use crate::event::{Body, Event};
use crate::exits::ExitNames;
use crate::records::Formats;
use crate::store::Whos;

/// One record, or a body that needed no record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) ts: u64,
    /// The number of its CPU and task in [`Whos`].
    pub(crate) who: u32,
    /// The offset of its bytes, or the number of the note.
    at: u32,
    /// The number of its format.
    how: u16,
}

/// [`Item::how`] of a note.
const NOTE: u16 = u16::MAX;

/// Records in time order.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawBatch {
    pub(crate) items: Vec<Item>,
    bytes: Vec<u8>,
    notes: Vec<Body>,
    pub(crate) formats: Arc<Formats>,
    pub(crate) exits: Arc<ExitNames>,
}

impl RawBatch {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Empties the batch and sets the formats of the records that follow.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.bytes.clear();
        self.notes.clear();
    }

    /// Appends a record; `how` is what [`Formats::classify`] returned for it.
    #[inline]
    pub(crate) fn record(&mut self, ts: u64, who: u32, how: u16, record: &[u8]) {
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(record);
        self.items.push(Item { ts, who, at, how });
    }

    /// Appends a body.
    pub(crate) fn note(&mut self, ts: u64, who: u32, body: Body) {
        let at = self.notes.len() as u32;
        self.notes.push(body);
        self.items.push(Item { ts, who, at, how: NOTE });
    }

    /// Ends the batch, so that its bytes can be decoded.
    pub(crate) fn seal(&mut self) {
        self.bytes.extend_from_slice(&[0; SLACK]);
    }

    /// The body of an item that is a note.
    #[inline]
    pub(crate) fn note_of(&self, item: &Item) -> Option<&Body> {
        if item.how == NOTE { self.notes.get(item.at as usize) } else { None }
    }

    /// The body of an item of a sealed batch.
    #[inline]
    pub(crate) fn body(&self, item: &Item) -> Body {
        if item.how == NOTE {
            return self.notes.get(item.at as usize).copied().unwrap_or(Body::Damage { index: u32::MAX });
        }
        let record = self.bytes.get(item.at as usize..).unwrap_or(&[]);
        self.formats.decode(item.how, record, &self.exits)
    }

    /// Moves the items from `n` on to an empty batch. This must happen before sealing.
    pub(crate) fn split_off(&mut self, n: usize, to: &mut Self) {
        to.formats = Arc::clone(&self.formats);
        to.exits = Arc::clone(&self.exits);
        let first = self.items.get(n..).unwrap_or(&[]).iter().find(|i| i.how != NOTE).map(|i| i.at);
        let from = first.map_or(self.bytes.len(), |at| at as usize);
        for item in self.items.drain(n.min(self.items.len())..) {
            if item.how == NOTE {
                let body = self.notes.get(item.at as usize).copied();
                to.note(item.ts, item.who, body.unwrap_or(Body::Damage { index: u32::MAX }));
            } else {
                to.items.push(Item { at: item.at - from as u32, ..item });
            }
        }
        to.bytes.extend_from_slice(&self.bytes[from..]);
        self.bytes.truncate(from);
    }

    /// Decodes all records.
    pub(crate) fn events(&mut self, whos: &Whos, out: &mut Vec<Event>) {
        self.seal();
        out.extend(self.items.iter().map(|i| whos.get(i.who).event(i.ts, self.body(i))));
    }
}
