//! Loading on all threads: one thread reads records in order ([`RawReader`]), and all threads decode and pack them, [`JOB`] blocks at a time.
//!
//! The meaning of an event can depend on earlier events (the encoding of a fault's error code on the exit that led to it). Therefore a job
//! returns the [`Fact`]s of its events. They are applied in the order of the jobs, and what they decide is set in the packed events.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use crate::assemble::{Assembler, Fact};
use crate::error::Error;
use crate::event::Body;
use crate::pack::{self, Packer};
use crate::raw::{Item, RawBatch};
use crate::reader::{BATCH, Cx, RawReader};
use crate::store::{BLOCK, Block, EventStore};

/// The number of blocks in a job: enough that passing it on costs little, few enough that its records stay in the cache.
const JOB: usize = 16;

const _: () = assert!(JOB * BLOCK == BATCH);

/// The records of some blocks, and later the packed blocks.
#[derive(Default)]
struct Job {
    number: u64,
    batch: RawBatch,
    blocks: Vec<Block>,
    facts: Vec<Found>,
    packer: Packer,
}

/// A fact and where its event is: the block of the job and the place in it.
struct Found {
    who: u32,
    block: u32,
    head: u32,
    fact: Fact,
}

impl Job {
    /// Decodes and packs the records.
    fn work(&mut self) {
        self.batch.seal();
        self.blocks.clear();
        self.facts.clear();
        for (block, items) in self.batch.items.chunks_exact(BLOCK).enumerate() {
            for item in items {
                let body = self.batch.body(item);
                let head = self.packer.put(item.ts, item.who, &body) as u32;
                if let Some(fact) = Fact::of_record(&body) {
                    self.facts.push(Found { who: item.who, block: block as u32, head, fact });
                }
            }
            let first_ts = self.packer.first_ts();
            self.blocks.push(Block { first_ts, data: self.packer.take() });
        }
    }
}

/// The part of loading that runs in order.
struct Order<'a> {
    asm: &'a mut Assembler,
    store: EventStore,
    /// The task of each pair of CPU and task, by its number.
    tasks: Vec<Option<u32>>,
    /// The number of items that were given out to be packed, and the CPU, task and time of the last one.
    handed: usize,
    who: u32,
    ts: u64,
}

impl Order<'_> {
    /// Looks at items before they are given out to be packed.
    fn hand_out(&mut self, batch: &mut RawBatch, cx: &Cx) {
        for i in 0..batch.items.len() {
            let Item { ts, who, .. } = batch.items[i];
            if who == self.who {
                self.asm.clock(ts);
            } else {
                self.who = who;
                let task = self.asm.arrives(ts, &cx.whos.get(who));
                if self.tasks.len() <= who as usize {
                    self.tasks.resize(who as usize + 1, None);
                }
                self.tasks[who as usize] = task;
            }
            if let Some(fact) = batch.note_of(&batch.items[i]).and_then(Fact::of) {
                let _ = self.asm.learn(None, cx.whos.get(who).cpu, &fact);
            }
            if ts < self.ts {
                self.store.stray(self.handed + i, ts);
                batch.items[i].ts = self.ts;
            } else {
                self.ts = ts;
            }
        }
        self.handed += batch.items.len();
        if let Some(p) = &cx.progress {
            p.events.fetch_add(batch.items.len() as u64, Ordering::Relaxed);
        }
    }

    /// Applies a packed job. Jobs must come in their order.
    fn take_in(&mut self, job: &mut Job) {
        for f in &job.facts {
            let task = self.tasks.get(f.who as usize).copied().flatten();
            if let Some(encoding) = self.asm.learn(task, 0, &f.fact)
                && let Some(b) = job.blocks.get_mut(f.block as usize)
                && let Some(data) = Arc::get_mut(&mut b.data)
            {
                pack::set_encoding(data, f.head as usize, encoding);
            }
        }
        for b in job.blocks.drain(..) {
            self.store.push_block(b);
        }
    }
}

/// A callback that gets the reader and everything so far after some more events.
pub(crate) type Show<'a> = dyn FnMut(&mut dyn RawReader, &mut Cx, &Assembler, &EventStore) + Send + 'a;

/// Loads all records.
pub(crate) fn load(
    reader: &mut dyn RawReader,
    asm: &mut Assembler,
    cx: &mut Cx,
    show: &mut Show<'_>,
) -> Result<EventStore, Error> {
    load_by(Job::work, reader, asm, cx, show)
}

fn load_by(
    work: fn(&mut Job),
    reader: &mut dyn RawReader,
    asm: &mut Assembler,
    cx: &mut Cx,
    show: &mut Show<'_>,
) -> Result<EventStore, Error> {
    let order = Order { asm, store: EventStore::new(), tasks: Vec::new(), handed: 0, who: u32::MAX, ts: 0 };
    if cx.threads > 1 {
        rayon::scope(|scope| run(work, reader, order, cx, show, Some(scope)))
    } else {
        run(work, reader, order, cx, show, None)
    }
}

/// A finished job, or the panic it ended in.
type Finished = std::thread::Result<Box<Job>>;

/// Works on a job on another thread. A panic is returned like a result; otherwise whoever waits for the job would wait for ever.
fn work_apart(work: fn(&mut Job), mut job: Box<Job>) -> Finished {
    catch_unwind(AssertUnwindSafe(move || {
        work(&mut job);
        job
    }))
}

fn run(
    work: fn(&mut Job),
    reader: &mut dyn RawReader,
    mut order: Order<'_>,
    cx: &mut Cx,
    show: &mut Show<'_>,
    scope: Option<&rayon::Scope<'_>>,
) -> Result<EventStore, Error> {
    let most = cx.threads * 3;
    let (done, finished) = mpsc::channel::<Finished>();
    // The jobs that are being worked on, the oldest first, each with its result once there is one.
    let mut out: VecDeque<Option<Box<Job>>> = VecDeque::new();
    let mut first = 0u64;
    let mut idle: Vec<Box<Job>> = Vec::new();
    let mut job: Box<Job> = Box::default();
    let mut more = true;
    while more {
        more = reader.read_raw(&mut job.batch, cx)?;
        if job.batch.len() < JOB * BLOCK && more {
            continue;
        }
        let mut next = idle.pop().unwrap_or_default();
        next.batch.clear();
        let whole = job.batch.len() / BLOCK * BLOCK;
        job.batch.split_off(whole, &mut next.batch);
        order.hand_out(&mut job.batch, cx);
        let mut ready = std::mem::replace(&mut job, next);
        match scope {
            None => {
                work(&mut ready);
                order.take_in(&mut ready);
                idle.push(ready);
            }
            Some(scope) => {
                ready.number = first + out.len() as u64;
                out.push_back(None);
                let done = done.clone();
                scope.spawn(move |_| {
                    // After an error, nobody waits for the result.
                    let _ = done.send(work_apart(work, ready));
                });
            }
        }
        while out.len() > if more { most } else { 0 } {
            // This thread also works while the others do.
            let result = finished.try_recv().ok().or_else(|| match rayon::yield_now() {
                Some(rayon::Yield::Executed) => None,
                _ => finished.recv().ok(),
            });
            let Some(result) = result else { continue };
            let result = result.unwrap_or_else(|panic| resume_unwind(panic));
            let at = (result.number - first) as usize;
            out[at] = Some(result);
            while let Some(Some(_)) = out.front() {
                if let Some(Some(mut job)) = out.pop_front() {
                    first += 1;
                    order.take_in(&mut job);
                    idle.push(job);
                }
            }
        }
        show(reader, cx, order.asm, &order.store);
    }
    // Less than one block is left.
    order.hand_out(&mut job.batch, cx);
    let Order { asm, mut store, tasks, .. } = order;
    let whos: Vec<u32> = job.batch.items.iter().map(|i| i.who).collect();
    let mut rest = Vec::new();
    job.batch.events(&cx.whos, &mut rest);
    store.set_whos(std::mem::take(&mut cx.whos));
    for (e, who) in rest.iter_mut().zip(whos) {
        if let Some(fact) = Fact::of_record(&e.body)
            && let Some(found) = asm.learn(tasks.get(who as usize).copied().flatten(), e.cpu, &fact)
            && let Body::PageFault { encoding, .. } = &mut e.body
        {
            *encoding = found;
        }
        store.push(e);
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, StrId};
    use crate::info::TraceInfo;
    use crate::reader::Reader;
    use crate::store::Who;
    use std::time::Duration;

    /// A reader that gives so many batches of notes.
    struct Batches(usize, RawBatch);

    impl Reader for Batches {
        fn read(&mut self, _: &mut Vec<Event>, _: &mut Cx) -> Result<bool, Error> {
            Ok(false)
        }
        fn describe(&mut self, _: &mut TraceInfo, _: &mut Cx) {}
    }

    impl RawReader for Batches {
        fn read_raw(&mut self, out: &mut RawBatch, cx: &mut Cx) -> Result<bool, Error> {
            let who = cx.whos.id(Who { cpu: 0, tid: None, pid: None, comm: StrId::default() });
            for _ in 0..BATCH {
                out.note(self.0 as u64, who, Body::Damage { index: 0 });
            }
            self.0 -= 1;
            Ok(self.0 > 0)
        }
        fn batch(&mut self) -> &mut RawBatch {
            &mut self.1
        }
    }

    fn load_with(threads: usize, work: fn(&mut Job)) -> std::thread::Result<usize> {
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| {
                let mut cx = Cx { threads, ..Cx::default() };
                let mut asm = Assembler::new(false);
                let mut reader = Batches(40, RawBatch::default());
                load_by(work, &mut reader, &mut asm, &mut cx, &mut |_, _, _, _| ()).map_or(0, |s| s.len())
            }));
            send.send(result).ok();
        });
        receive.recv_timeout(Duration::from_mins(1)).expect("loading ends")
    }

    #[test]
    fn a_worker_that_panics_ends_the_load_instead_of_keeping_it_waiting() {
        fn broken(job: &mut Job) {
            assert!(job.number != 7, "deliberate panic of a test");
            job.work();
        }
        assert_eq!(load_with(2, Job::work).ok(), Some(40 * BATCH));
        let panic = load_with(2, broken).expect_err("the panic goes on in the thread that loads");
        let text = panic.downcast_ref::<&str>().copied().unwrap_or_default();
        assert_eq!(text, "deliberate panic of a test");
        // On one thread, jobs have no numbers, so nothing panics.
        assert_eq!(load_with(1, broken).ok(), Some(40 * BATCH));
    }
}
