//! [`Capture`]: a loaded trace and its replay, with the questions that several panels ask. Conclusions are in `mmuscope-replay`; here are
//! only conversions between the screen (a row, a time since the start) and the replay (a frame, a time on the trace's clock).

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use mmuscope_replay::{
    Attribution, AxisSegment, Entry, EntryId, EventIx, MmuKind, Shade, Span, State, StateFilter, Timeline,
    VmId,
};
use mmuscope_spte::Resolved;
use mmuscope_trace::{Event, Trace};

use crate::view::Range;
use crate::widgets::bits::FieldRow;

/// A loaded trace and its replay.
pub(crate) struct Capture {
    /// The events and what the reader knows of the recording.
    pub(crate) trace: Trace,
    /// The page tables over time, as the replay concludes them.
    pub(crate) timeline: Timeline,
    /// Files of the trace; empty for standard input.
    pub(crate) paths: Vec<PathBuf>,
    /// A number that goes up whenever a growing trace has grown, so that pictures and lists know that they are outdated.
    pub(crate) version: u64,
    /// Whether more events may come.
    pub(crate) growing: bool,
    /// Time that reading and replaying took.
    pub(crate) took: Duration,
}

/// One address space of one VM, with its label in the chooser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) vm: VmId,
    pub(crate) as_id: u8,
    pub(crate) label: String,
}

/// The meaning of an SPTE value under a layout.
pub(crate) struct Explained {
    /// Name of the layout under which the value is read.
    pub(crate) layout: String,
    /// The meaning in one line.
    pub(crate) headline: String,
    /// The fields of the value.
    pub(crate) fields: Vec<FieldRow>,
    /// For each kind of access its name, whether the entry allows it, and what happens.
    pub(crate) effects: Vec<(&'static str, bool, String)>,
    /// Further remarks on the value.
    pub(crate) notes: Vec<String>,
}

impl Explained {
    /// Explains a value under a layout.
    pub(crate) fn of(resolved: &Resolved, raw: u64, level: u8) -> Self {
        let e = mmuscope_spte::explain(resolved, raw, level);
        let fields = e
            .fields
            .iter()
            .map(|f| FieldRow {
                mask: f.run.mask(),
                name: f.run.kind.name().to_owned(),
                value: f.value.clone(),
                meaning: f.meaning.clone(),
                bad: f.odd,
            })
            .collect();
        let layout_notes = mmuscope_spte::explain::NoteKind::Layout;
        Self {
            layout: resolved.layout.id().to_owned(),
            headline: e.headline,
            fields,
            effects: e.effects.into_iter().map(|f| (f.access, f.allowed, f.text)).collect(),
            // Notes on the layout as a whole are shown in the Layout tab.
            notes: e.notes.into_iter().filter(|n| n.kind != layout_notes).map(|n| n.text).collect(),
        }
    }
}

/// Locks a capture to read it while another thread may append to it. A panic in that thread leaves the capture readable.
pub(crate) fn read(capture: &Arc<RwLock<Capture>>) -> RwLockReadGuard<'_, Capture> {
    capture.read().unwrap_or_else(PoisonError::into_inner)
}

impl Capture {
    /// Time of the first event, in nanoseconds on the trace's clock.
    pub(crate) fn start(&self) -> u64 {
        self.timeline.range().0
    }

    /// Which VM, vCPU and address space each event belongs to.
    pub(crate) fn whose(&self) -> &Attribution {
        self.timeline.attribution()
    }

    /// A time on the trace's clock as nanoseconds since the first event.
    pub(crate) fn rel(&self, t: u64) -> f64 {
        t.saturating_sub(self.start()) as f64
    }

    /// Nanoseconds since the first event as a time on the trace's clock.
    pub(crate) fn abs(&self, rel: f64) -> u64 {
        self.start().saturating_add(rel.max(0.0) as u64)
    }

    /// The whole time axis. It ends one nanosecond after the last event, so that this event can be seen.
    pub(crate) fn full_time(&self) -> Range {
        let (a, b) = self.timeline.range();
        Range::new(0.0, (b.saturating_sub(a) as f64 + 1.0).max(crate::view::MIN_TIME))
    }

    /// The files of the trace as words of a shell; `-` is standard input.
    pub(crate) fn shell_words(&self) -> String {
        let word = |path: &PathBuf| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            mmuscope_units::shell_word(&path.display().to_string())
        };
        let all: Vec<String> = self.paths.iter().map(word).collect();
        if all.is_empty() { "-".to_owned() } else { all.join(" ") }
    }

    /// What lies at a frame at a time: its memory slot or hole where slots are known, else what a PC usually has there.
    pub(crate) fn place_of(&self, vm: VmId, as_id: u8, gfn: u64, t: u64) -> Option<String> {
        let bands = mmuscope_analysis::slots::bands(&self.timeline, vm, as_id, t);
        let band = bands.into_iter().find(|b| b.first <= gfn && gfn < b.end);
        band.map(|b| match b.slot {
            Some(id) => format!("slot {id}: {}", b.name),
            None => b.name,
        })
        .or_else(|| {
            mmuscope_analysis::places::usually_in(gfn, gfn.saturating_add(1)).map(|w| format!("usually {w}"))
        })
    }

    /// Whether the MMU of a VM traces each change of its entries, so that splits and merges of huge pages are seen.
    pub(crate) fn traces_changes(&self, vm: VmId) -> bool {
        let of = self.timeline.vms().iter().find(|v| v.id == vm);
        self.timeline.layout(vm).resolved.traces.changes
            && !of.is_some_and(|v| matches!(v.kind, MmuKind::Direct | MmuKind::Shadow))
    }

    /// Name and thread of the task of an event, such as `qemu-170`.
    pub(crate) fn task_of(&self, ix: EventIx) -> String {
        self.event(ix).map_or_else(String::new, |e| self.task(&e))
    }

    /// Name and thread of the task of an event.
    pub(crate) fn task(&self, e: &Event) -> String {
        let comm = crate::fmt::clean(self.trace.strings.get(e.comm));
        match (comm.as_str(), e.tid) {
            ("", None) => String::new(),
            ("", Some(tid)) => tid.to_string(),
            (comm, None) => comm.to_owned(),
            (comm, Some(tid)) => format!("{comm}-{tid}"),
        }
    }

    /// A short name of the trace, for the title of the window.
    pub(crate) fn title(&self) -> String {
        match self.paths.as_slice() {
            [] => "standard input".to_owned(),
            [one] => one
                .file_name()
                .map_or_else(|| one.display().to_string(), |n| n.to_string_lossy().into_owned()),
            [first, rest @ ..] => format!("{} and {} more", first.display(), rest.len()),
        }
    }

    /// All address spaces of all VMs, for the chooser.
    pub(crate) fn spaces(&self) -> Vec<Space> {
        let vms = self.timeline.vms();
        let mut out = Vec::new();
        for vm in vms {
            let name = match (vm.comm.as_str(), vm.pid) {
                ("", Some(pid)) => format!("VM {} (pid {pid})", vm.id.0),
                ("", None) => format!("VM {}", vm.id.0),
                (comm, Some(pid)) => format!("VM {}: {} (pid {pid})", vm.id.0, crate::fmt::clean(comm)),
                (comm, None) => format!("VM {}: {}", vm.id.0, crate::fmt::clean(comm)),
            };
            let ids: &[u8] = if vm.as_ids.is_empty() { &[0] } else { &vm.as_ids };
            for as_id in ids {
                let space = match as_id {
                    0 => String::new(),
                    1 => ", SMM (as_id 1)".to_owned(),
                    n => format!(", as_id {n}"),
                };
                out.push(Space { vm: vm.id, as_id: *as_id, label: format!("{name}{space}") });
            }
        }
        out
    }

    /// The stretches of an address space's GFN axis, lowest first; between two of them frames are left out.
    pub(crate) fn segments(&self, vm: VmId, as_id: u8) -> &[AxisSegment] {
        self.timeline.gfn_axis().space(vm, as_id).map_or(&[], |s| &s.segments)
    }

    /// The whole GFN axis, in rows.
    pub(crate) fn full_rows(&self, vm: VmId, as_id: u8) -> Range {
        let height = self.timeline.gfn_axis().space(vm, as_id).map_or(0.0, |s| s.height);
        Range::new(0.0, height.max(crate::view::MIN_ROWS))
    }

    /// The row of a guest frame on the axis; `None` inside of a fold or outside of the axis.
    pub(crate) fn row_of(&self, vm: VmId, as_id: u8, gfn: u64) -> Option<f64> {
        self.segments(vm, as_id).iter().find(|s| (s.gfn_start..=s.gfn_end).contains(&gfn)).map(|s| {
            let part = (gfn - s.gfn_start) as f64 / (s.gfn_end - s.gfn_start).max(1) as f64;
            s.y_start + part * (s.y_end - s.y_start)
        })
    }

    /// The rows of the frames `first..end`, as far as the axis has them; `None` if it has none of them.
    pub(crate) fn rows_of(&self, vm: VmId, as_id: u8, first: u64, end: u64) -> Option<Range> {
        let inside = self.segments(vm, as_id).iter().filter(|s| s.gfn_start < end && first < s.gfn_end);
        let place = |s: &AxisSegment, gfn: u64| {
            let part = (gfn.clamp(s.gfn_start, s.gfn_end) - s.gfn_start) as f64
                / (s.gfn_end - s.gfn_start).max(1) as f64;
            s.y_start + part * (s.y_end - s.y_start)
        };
        inside.map(|s| Range::new(place(s, first), place(s, end))).reduce(|a, b| Range::new(a.start, b.end))
    }

    /// First and last guest frame of rows, as far as the axis has them; `None` in a fold.
    pub(crate) fn frames_of(&self, vm: VmId, as_id: u8, rows: Range) -> Option<(u64, u64)> {
        let mut found = None;
        for s in self.segments(vm, as_id).iter().filter(|s| s.y_start < rows.end && rows.start < s.y_end) {
            let per_row = (s.gfn_end - s.gfn_start) as f64 / (s.y_end - s.y_start);
            let frame = |row: f64| (row.clamp(s.y_start, s.y_end) - s.y_start) * per_row;
            let first = s.gfn_start + frame(rows.start).floor() as u64;
            let last =
                (s.gfn_start + frame(rows.end).ceil() as u64).min(s.gfn_end).saturating_sub(1).max(first);
            found = Some(found.map_or((first, last), |(a, _): (u64, u64)| (a, last)));
        }
        found
    }

    /// The guest frame at a row; `None` in a fold.
    pub(crate) fn gfn_at(&self, vm: VmId, as_id: u8, row: f64) -> Option<u64> {
        self.timeline.gfn_axis().space(vm, as_id)?.gfn_at(row)
    }

    /// Name of an event's tracepoint.
    pub(crate) fn event_name(&self, event: &Event) -> &str {
        mmuscope_trace::event_name(&event.body, &self.trace.strings)
    }

    /// Explains the value `raw` of an entry, field by field.
    pub(crate) fn explain(&self, entry: &Entry, raw: u64) -> Explained {
        Explained::of(&self.timeline.layout(entry.vm).resolved, raw, entry.level)
    }

    /// What the entries that cover some frames (the first, and one past the last) held at a time, as `mmuscope state` lists them.
    pub(crate) fn state_of(&self, vm: VmId, as_id: u8, gfns: (u64, u64), t: u64) -> Vec<(Entry, Span)> {
        let filter =
            StateFilter { vm: Some(vm), as_id: Some(as_id), gfns: Some(gfns), ..StateFilter::default() };
        self.timeline.state_at(t, &filter)
    }

    /// The entry that says most about a frame at a time: the leaf that covers it, else the lowest entry that leads to it.
    pub(crate) fn pick(&self, vm: VmId, as_id: u8, gfn: u64, t: u64) -> Option<(Entry, Span)> {
        self.state_of(vm, as_id, (gfn, gfn.saturating_add(1)), t)
            .into_iter()
            .min_by_key(|(entry, span)| (rank(span), entry.level, std::cmp::Reverse(span.start)))
    }

    /// The span of an entry before the one that covers a time.
    pub(crate) fn prev_span(&self, entry: EntryId, t: u64) -> Option<Span> {
        let here = self.timeline.span_at(entry, t).map_or(t, |s| s.start);
        self.timeline.span_at(entry, here.checked_sub(1)?)
    }

    /// An event by its number; `None` after the last one.
    pub(crate) fn event(&self, ix: EventIx) -> Option<Event> {
        let i = ix as usize;
        (i < self.trace.events.len()).then(|| self.trace.events.get(i))
    }

    /// The guest frame that an event names.
    pub(crate) fn gfn_of(event: &Event) -> Option<u64> {
        event.body.gfn()
    }

    /// The VM and the address space to show an event in, where its VM is known: the address space that it names, else the VM's first.
    pub(crate) fn space_of(&self, event: &Event) -> Option<(VmId, u8)> {
        let owner = self.whose().owner(event);
        let vm = self.timeline.vms().iter().find(|v| Some(v.id) == owner.vm)?;
        Some((vm.id, owner.as_id.or_else(|| vm.as_ids.first().copied()).unwrap_or(0)))
    }

    /// A frame and a time that show much at first sight, for a picture: the longest present span of the pages that were zapped most often.
    pub(crate) fn telling_moment(&self, vm: VmId, as_id: u8) -> Option<(u64, u64)> {
        let end = self.timeline.range().1;
        let length = |s: &Span| s.end.unwrap_or(end).saturating_sub(s.start);
        self.timeline
            .top_zaps(24)
            .into_iter()
            .filter(|p| p.vm == vm && p.as_id == as_id && p.level <= 2)
            .flat_map(|p| self.timeline.entries_at(vm, as_id, p.gfn).into_iter().map(move |e| (p.gfn, e)))
            .flat_map(|(gfn, e)| self.timeline.spans(e).map(move |s| (gfn, s)).collect::<Vec<_>>())
            .filter(|(_, s)| s.state == State::Present && s.spte.is_some())
            .max_by_key(|(gfn, s)| (length(s), std::cmp::Reverse(*gfn)))
            .map(|(gfn, s)| (gfn, s.start + length(&s) / 3))
    }
}

/// How little a span says about a page: 0 for present and MMIO leaves, then removed, nonpresent, unknown and tables.
pub(crate) fn rank(span: &Span) -> u8 {
    match span.state {
        State::Present | State::Mmio => 0,
        State::Removed => 1,
        State::Nonpresent => 2,
        State::Unknown if span.shade == Shade::Unknown => 4,
        State::Unknown => 3,
        State::Table => 5,
    }
}
