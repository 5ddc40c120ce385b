//! Several readers as one. Events come in order of time; each reader keeps its own order, and equal times come in the order of the files.

use std::collections::VecDeque;

use crate::error::Error;
use crate::event::Event;
use crate::info::{Compression, TraceInfo};
use crate::reader::{BATCH, Cx, Reader};

struct Part {
    reader: Box<dyn Reader>,
    waiting: VecDeque<Event>,
    batch: Vec<Event>,
    ended: bool,
}

/// The merged readers.
pub(crate) struct Merge {
    parts: Vec<Part>,
}

impl Merge {
    pub(crate) fn new(readers: Vec<Box<dyn Reader>>) -> Self {
        let parts = readers
            .into_iter()
            .map(|reader| Part { reader, waiting: VecDeque::new(), batch: Vec::new(), ended: false })
            .collect();
        Self { parts }
    }
}

impl Reader for Merge {
    fn read(&mut self, out: &mut Vec<Event>, cx: &mut Cx) -> Result<bool, Error> {
        while out.len() < BATCH {
            for p in &mut self.parts {
                while p.waiting.is_empty() && !p.ended {
                    p.ended = !p.reader.read(&mut p.batch, cx)?;
                    p.waiting.extend(p.batch.drain(..));
                }
            }
            let heads =
                self.parts.iter().enumerate().filter_map(|(i, p)| p.waiting.front().map(|e| (e.ts, i)));
            let Some((_, first)) = heads.min() else { return Ok(false) };
            let limit = self
                .parts
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != first)
                .filter_map(|(i, p)| p.waiting.front().map(|e| (e.ts, i)))
                .min()
                .unwrap_or((u64::MAX, usize::MAX));
            // Take the events of the first part, up to the next event of another part.
            let p = &mut self.parts[first];
            while let Some(e) = p.waiting.front() {
                if (e.ts, first) > limit || out.len() >= BATCH {
                    break;
                }
                out.push(*e);
                p.waiting.pop_front();
            }
        }
        Ok(true)
    }

    fn describe(&mut self, info: &mut TraceInfo, cx: &mut Cx) {
        for (i, p) in self.parts.iter_mut().enumerate() {
            let mut one = TraceInfo::default();
            p.reader.describe(&mut one, cx);
            if i == 0 {
                *info = one;
                continue;
            }
            if info.clock != one.clock {
                info.notes.push(format!(
                    "The files were recorded with different clocks ({:?} and {:?}): their events are in no reliable order. Record all with one: \
                     trace-cmd record -C mono",
                    info.clock.name, one.clock.name
                ));
            }
            info.resolution_ns = info.resolution_ns.max(one.resolution_ns);
            info.host.fill_from(one.host);
            info.tasks.extend(one.tasks);
            info.lost.known &= one.lost.known;
            info.notes.extend(one.notes);
            info.recorded = info.recorded.take().zip(one.recorded).map(|(mut a, b)| {
                // An event that only one of them recorded is missing in the other.
                a.all &= b.all && a.names == b.names;
                a.names.extend(b.names);
                a
            });
            for (k, v) in one.formats {
                info.formats.entry(k).or_insert(v);
            }
            let d = &mut info.dialect;
            d.role = d.role.take().or(one.dialect.role);
            d.ret_pf = d.ret_pf.take().or(one.dialect.ret_pf);
            d.set_spte_user = d.set_spte_user.take().or(one.dialect.set_spte_user);
            d.long_page_fault = d.long_page_fault.take().or(one.dialect.long_page_fault);
        }
    }

    fn inside(&self, out: &mut Vec<Compression>) {
        for p in &self.parts {
            p.reader.inside(out);
        }
    }

    fn describe_early(&mut self, info: &mut TraceInfo) {
        for p in &mut self.parts {
            let mut one = TraceInfo::default();
            p.reader.describe_early(&mut one);
            info.host.fill_from(one.host);
        }
    }
}
