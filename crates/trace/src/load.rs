//! Loading: from paths to a [`Trace`] in memory, or to a stream of events ([`stream`]).

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::assemble::Assembler;
use crate::error::Error;
use crate::event::Event;
use crate::info::{Compression, FileInfo, FormatKind, TraceInfo};
use crate::input::{self, Input, Source};
use crate::merge::Merge;
use crate::packing;
use crate::reader::{BATCH, Cx, ReadOptions, Reader};
use crate::sniff::Kind;
use crate::store::EventStore;
use crate::strings::Strings;
use crate::text::TextReader;

/// A whole trace in memory.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// What is known besides the events.
    pub info: TraceInfo,
    /// The strings that events refer to.
    pub strings: Strings,
    /// The events.
    pub events: EventStore,
}

/// Receives events in time order from [`stream`].
pub trait Sink {
    /// Receives one event. Texts of markers and of the fields of untyped events are valid during this call only; get them with
    /// [`Strings::text`].
    fn event(&mut self, e: &Event, strings: &Strings) -> ControlFlow<()>;
}

impl<F: FnMut(&Event, &Strings) -> ControlFlow<()>> Sink for F {
    fn event(&mut self, e: &Event, strings: &Strings) -> ControlFlow<()> {
        self(e, strings)
    }
}

impl Trace {
    /// Reads files into memory. Several files are one trace on one clock. `-` is standard input.
    pub fn load(paths: &[PathBuf], opts: &ReadOptions) -> Result<Self, Error> {
        let mut cx = context(opts)?;
        let reader = open_all(paths, &mut cx)?;
        load(reader, cx)
    }

    /// Reads files like [`load`](Self::load). Each time there are about `every` more events, it passes everything so far to `watch`, as a
    /// trace of its own; the first time much earlier, so that something can be shown at once, and then each time there are twice as many
    /// until that is `every` more. That costs little, because packed events are shared.
    ///
    /// Where the times of events run back, only the returned trace has them in order; the `true` that is returned with it says so.
    pub fn load_watched(
        paths: &[PathBuf],
        opts: &ReadOptions,
        every: usize,
        watch: &mut (dyn FnMut(Self) + Send),
    ) -> Result<(Self, bool), Error> {
        let mut cx = context(opts)?;
        let reader = open_all(paths, &mut cx)?;
        load_with(reader, cx, every.max(1), watch)
    }

    /// Reads the content of one file that is in memory.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>, name: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_bytes_with(bytes, name, &ReadOptions::default())
    }

    /// Reads the content of one file that is in memory, with options.
    pub fn from_bytes_with(
        bytes: impl Into<Arc<[u8]>>,
        name: impl AsRef<Path>,
        opts: &ReadOptions,
    ) -> Result<Self, Error> {
        let mut cx = context(opts)?;
        let input = input::source(Source::Bytes(bytes.into()), name.as_ref())?;
        let reader = reader_of(input, &mut cx, false)?;
        load(reader, cx)
    }

    /// Reads an input that is open already.
    pub(crate) fn from_input(input: Input, opts: &ReadOptions) -> Result<Self, Error> {
        let mut cx = context(opts)?;
        let reader = reader_of(input, &mut cx, false)?;
        load(reader, cx)
    }

    /// Reads text, for instance a pasted one: its last line counts even without a line end.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let mut cx = Cx::new(&ReadOptions::default());
        let input = input::source(Source::Bytes(text.as_bytes().into()), Path::new("text"))?;
        let reader = reader_of(input, &mut cx, true)?;
        load(reader, cx)
    }
}

/// Makes what readers share, with the formats that the caller gives.
fn context(opts: &ReadOptions) -> Result<Cx, Error> {
    let mut cx = Cx::new(opts);
    cx.formats = opts.formats.as_deref().map(crate::dir::formats).transpose()?.map(Arc::new);
    Ok(cx)
}

/// A reader, with what was known about its file when it was opened.
pub(crate) struct Opened {
    pub(crate) reader: Box<dyn Reader>,
    pub(crate) files: Vec<FileInfo>,
}

/// Opens all paths as one reader.
fn open_all(paths: &[PathBuf], cx: &mut Cx) -> Result<Opened, Error> {
    let mut all = Vec::new();
    for path in paths {
        all.push(open_one(path, cx)?);
    }
    if let Some(p) = &cx.progress {
        p.total.store(all.iter().flat_map(|o| &o.files).map(|f| f.size).sum(), Ordering::Relaxed);
    }
    let files: Vec<FileInfo> = all.iter().flat_map(|o| o.files.iter().cloned()).collect();
    let mut readers: Vec<Box<dyn Reader>> = all.into_iter().map(|o| o.reader).collect();
    let reader: Box<dyn Reader> = match readers.len() {
        0 => return Err(Error::NotFound { path: PathBuf::new() }),
        1 => readers.remove(0),
        _ => Box::new(Merge::new(readers)),
    };
    Ok(Opened { reader, files })
}

fn open_one(path: &Path, cx: &mut Cx) -> Result<Opened, Error> {
    if path.is_dir() {
        return crate::dir::open(path, cx);
    }
    reader_of(input::open(path)?, cx, false)
}

/// Makes the reader for an input.
pub(crate) fn reader_of(input: Input, cx: &mut Cx, whole: bool) -> Result<Opened, Error> {
    let Input { path, kind, compression, size, data, spilled } = input;
    cx.notes.extend(spilled.map(|s| format!("{}: {s}", path.display())));
    let (reader, kind): (Box<dyn Reader>, FormatKind) = match kind {
        Kind::Text(kind) => {
            let mut r = TextReader::new(path.clone(), kind, data.into_stream());
            if whole {
                r = r.whole();
            }
            (Box::new(r), kind)
        }
        k => crate::binary_reader(k, data, &path, cx)?,
    };
    Ok(Opened { reader, files: vec![FileInfo { path, kind, compression, size, ..FileInfo::default() }] })
}

/// The number of events that are passed on first while a trace is read: enough to show, and read within milliseconds.
const FIRST: usize = 2 * BATCH;

fn load(opened: Opened, cx: Cx) -> Result<Trace, Error> {
    load_with(opened, cx, usize::MAX, &mut |_| ()).map(|(trace, _)| trace)
}

fn load_with(
    opened: Opened,
    mut cx: Cx,
    every: usize,
    watch: &mut (dyn FnMut(Trace) + Send),
) -> Result<(Trace, bool), Error> {
    let Opened { mut reader, files } = opened;
    let from_text = files.iter().any(|f| f.kind.is_text());
    let mut asm = Assembler::new(from_text);
    let mut early = TraceInfo::default();
    reader.describe_early(&mut early);
    asm.set_vendor(early.host.vendor);
    let after = |len: usize| len.saturating_add(every.min(len.max(FIRST)));
    let mut next = after(0);
    let mut store = if let Some(raw) = reader.raw() {
        packing::load(raw, &mut asm, &mut cx, &mut |reader, cx, asm, store| {
            if store.len() >= next {
                next = after(store.len());
                let mut info = TraceInfo::default();
                let damage = cx.damage.len();
                reader.describe(&mut info, cx);
                let mut events = store.clone();
                events.set_whos(cx.whos.clone());
                watch(so_far(info, &files, asm, cx, events));
                cx.damage.truncate(damage);
            }
        })?
    } else {
        let mut store = EventStore::new();
        let mut batch = Vec::with_capacity(BATCH + BATCH / 4);
        loop {
            let more = reader.read(&mut batch, &mut cx)?;
            if let Some(p) = &cx.progress {
                p.events.fetch_add(batch.len() as u64, Ordering::Relaxed);
            }
            for e in &mut batch {
                asm.event(e);
                store.push_any(e);
            }
            batch.clear();
            if !more {
                break store;
            }
            if store.len() >= next {
                next = after(store.len());
                let mut info = TraceInfo::default();
                let damage = cx.damage.len();
                reader.describe(&mut info, &mut cx);
                watch(so_far(info, &files, &asm, &cx, store.clone()));
                cx.damage.truncate(damage);
            }
        }
    };
    let mut info = TraceInfo::default();
    reader.describe(&mut info, &mut cx);
    let reordered = asm.is_unordered();
    if reordered {
        store = store.sorted();
    }
    let mut inside = Vec::new();
    reader.inside(&mut inside);
    finish(&mut info, files, &inside, &asm, &mut cx);
    Ok((Trace { info, strings: cx.strings, events: store }, reordered))
}

/// The trace of what has been read so far.
fn so_far(mut info: TraceInfo, files: &[FileInfo], asm: &Assembler, cx: &Cx, events: EventStore) -> Trace {
    // `finish` adds the remarks of the end each time, so it works on a copy whose strings are not those of the events.
    let mut copy = Cx {
        strings: cx.strings.clone(),
        notes: cx.notes.clone(),
        damage: cx.damage.clone(),
        more_damage: cx.more_damage,
        snapshots: cx.snapshots.clone(),
        ..Cx::default()
    };
    finish(&mut info, files.to_vec(), &[], asm, &mut copy);
    Trace { info, strings: copy.strings, events }
}

/// Puts the parts of the info together.
pub(crate) fn finish(
    info: &mut TraceInfo,
    mut files: Vec<FileInfo>,
    inside: &[Compression],
    asm: &Assembler,
    cx: &mut Cx,
) {
    for (f, inside) in files.iter_mut().zip(inside) {
        f.inside = *inside;
    }
    info.format = files.first().map_or(FormatKind::default(), |f| f.kind);
    info.files = files;
    if info.resolution_ns == 0 {
        info.resolution_ns = 1;
    }
    asm.describe(info, &mut cx.strings);
    info.notes.extend(cx.notes.iter().cloned());
    info.damage = cx.damage.clone();
    if !info.damage.is_empty() && info.lost.total == Some(0) {
        // What could not be read may have been a note of a loss.
        (info.lost.known, info.lost.total) = (false, None);
    }
    info.snapshots = cx.snapshots.clone();
    if cx.more_damage > 0 {
        info.notes.push(format!("{} more places are damaged than are listed", cx.more_damage));
    }
}

/// The most bytes of records that may wait for earlier ones of other CPUs while streaming: more than the rings of most recorders hold.
const MOST_WAITING: usize = 128 << 20;

/// Reads files and passes each event to `sink`, in bounded memory. It returns what is known at the end, or where the sink stopped.
pub fn stream(paths: &[PathBuf], opts: &ReadOptions, sink: &mut dyn Sink) -> Result<TraceInfo, Error> {
    let mut cx = context(opts)?;
    cx.strings.set_streaming();
    cx.most_waiting = MOST_WAITING;
    let Opened { mut reader, files } = open_all(paths, &mut cx)?;
    let from_text = files.iter().any(|f| f.kind.is_text());
    let mut asm = Assembler::new(from_text).unsorted();
    let mut early = TraceInfo::default();
    reader.describe_early(&mut early);
    asm.set_vendor(early.host.vendor);
    let mut batch = Vec::with_capacity(BATCH + BATCH / 4);
    'all: loop {
        let more = reader.read(&mut batch, &mut cx)?;
        if let Some(p) = &cx.progress {
            p.events.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
        for e in &mut batch {
            asm.event(e);
            if sink.event(e, &cx.strings).is_break() {
                break 'all;
            }
        }
        batch.clear();
        cx.strings.clear_passing();
        if !more {
            break;
        }
    }
    let mut info = TraceInfo::default();
    reader.describe(&mut info, &mut cx);
    let mut inside = Vec::new();
    reader.inside(&mut inside);
    finish(&mut info, files, &inside, &asm, &mut cx);
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Body;

    /// A trace that is shown on the way must be the beginning of the final one, with the same strings under the same numbers.
    #[test]
    fn everything_so_far_is_a_beginning() {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
        let mut seen = 0;
        for name in ["6.1-npt/trace.txt.zst", "6.1-npt/perf-pipe.data.zst", "linux-boot/trace.dat"] {
            let paths = [samples.join(name)];
            let whole = Trace::load(&paths, &ReadOptions::default()).expect("a sample");
            for threads in [1, 2] {
                let mut shown = Vec::new();
                let opts = ReadOptions { threads, ..ReadOptions::default() };
                let (trace, reordered) =
                    Trace::load_watched(&paths, &opts, 9000, &mut |t| shown.push(t)).expect("a sample");
                assert!(!reordered && trace.events.iter().eq(whole.events.iter()));
                assert_eq!(format!("{:?}", trace.info), format!("{:?}", whole.info));
                let text = |t: &Trace, e: &Event| match e.body {
                    Body::Marker { text } => t.strings.text(text).into_owned(),
                    _ => t.strings.get(e.comm).to_owned(),
                };
                for s in &shown {
                    assert!(s.events.len() >= 9000);
                    assert!(s.events.iter().eq(whole.events.range(0..s.events.len())));
                    assert!(s.events.iter().all(|e| text(s, &e) == text(&whole, &e)), "{name}");
                    assert_eq!(s.info.host.os_release, whole.info.host.os_release);
                    seen += 1;
                }
            }
        }
        assert!(seen >= 12, "{seen}");
    }
}
