//! A loaded trace and its replay, behind the few questions the panels share. What can be asked of a replay lives in `mmuscope-replay`;
//! here are only the ways from what the screen knows (a row, a moment since the start) to what the replay knows, and back.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use mmuscope_analysis::events::Who;
use mmuscope_replay::{Entry, EntryId, EventIx, Shade, Span, State, Timeline, Vm, VmId, VmThreads};
use mmuscope_trace::{Body, Event, Trace};

use crate::view::Range;
use crate::widgets::bits::FieldRow;

/// A loaded trace.
pub(crate) struct Capture {
    /// The events.
    pub(crate) trace: Trace,
    /// The page tables over time.
    pub(crate) timeline: Timeline,
    /// What it was opened from; empty for standard input.
    pub(crate) paths: Vec<PathBuf>,
    /// Counts up whenever a growing trace has grown.
    pub(crate) version: u64,
    /// More may come.
    pub(crate) growing: bool,
    /// How long reading and replaying took.
    pub(crate) took: Duration,
}

/// One address space of one VM, as the chooser lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) vm: VmId,
    pub(crate) as_id: u8,
    pub(crate) label: String,
}

/// A stretch of guest frames that the axis shows without a break.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Segment {
    /// First frame.
    pub(crate) gfn: u64,
    /// One past the last frame.
    pub(crate) end: u64,
    /// Row of the first frame.
    pub(crate) y0: f64,
    /// Row past the last frame.
    pub(crate) y1: f64,
}

/// What a value means.
pub(crate) struct Explained {
    /// Name of the layout it was read under.
    pub(crate) layout: String,
    /// In one line.
    pub(crate) headline: String,
    /// The fields.
    pub(crate) fields: Vec<FieldRow>,
    /// Kind of access, whether it passes, what happens.
    pub(crate) effects: Vec<(&'static str, bool, String)>,
    /// What else should be said.
    pub(crate) notes: Vec<String>,
}

/// Looks at a capture that another thread may be adding to. A panic there leaves what was appended before readable.
pub(crate) fn read(capture: &Arc<RwLock<Capture>>) -> RwLockReadGuard<'_, Capture> {
    capture.read().unwrap_or_else(PoisonError::into_inner)
}

impl Capture {
    /// First moment.
    pub(crate) fn start(&self) -> u64 {
        self.timeline.range().0
    }

    /// Which thread is which vCPU of which VM, with the numbers of the replay.
    pub(crate) fn who(&self) -> Who {
        let threads = |vm: &Vm| VmThreads { pid: vm.pid, tids: vm.vcpus.iter().map(|v| v.tid).collect() };
        Who::new(&self.trace.info, &self.timeline.vms().iter().map(threads).collect::<Vec<_>>())
    }

    /// A moment as nanoseconds since the first event.
    pub(crate) fn rel(&self, t: u64) -> f64 {
        t.saturating_sub(self.start()) as f64
    }

    /// The moment of a number of nanoseconds since the first event.
    pub(crate) fn abs(&self, rel: f64) -> u64 {
        self.start().saturating_add(rel.max(0.0) as u64)
    }

    /// All of the time axis. One past the last event, so that the last moment can be seen.
    pub(crate) fn full_time(&self) -> Range {
        let (a, b) = self.timeline.range();
        Range::new(0.0, (b.saturating_sub(a) as f64 + 1.0).max(crate::doc::MIN_TIME))
    }

    /// A short name for the window's title.
    pub(crate) fn title(&self) -> String {
        match self.paths.as_slice() {
            [] => "standard input".to_owned(),
            [one] => one
                .file_name()
                .map_or_else(|| one.display().to_string(), |n| n.to_string_lossy().into_owned()),
            [first, rest @ ..] => format!("{} and {} more", first.display(), rest.len()),
        }
    }

    /// Everything the chooser offers.
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
    pub(crate) fn segments(&self, vm: VmId, as_id: u8) -> Vec<Segment> {
        let space = self.timeline.gfn_axis().space(vm, as_id);
        let segments = space.map_or(&[][..], |s| &s.segments);
        segments
            .iter()
            .map(|s| Segment { gfn: s.gfn_start, end: s.gfn_end, y0: s.y_start, y1: s.y_end })
            .collect()
    }

    /// All of the GFN axis.
    pub(crate) fn full_rows(&self, vm: VmId, as_id: u8) -> Range {
        let height = self.timeline.gfn_axis().space(vm, as_id).map_or(0.0, |s| s.height);
        Range::new(0.0, height.max(crate::doc::MIN_ROWS))
    }

    /// Where a frame lies on the axis; `None` inside a fold or outside.
    pub(crate) fn row_of(&self, vm: VmId, as_id: u8, gfn: u64) -> Option<f64> {
        self.segments(vm, as_id)
            .into_iter()
            .find(|s| (s.gfn..=s.end).contains(&gfn))
            .map(|s| s.y0 + (gfn - s.gfn) as f64 / (s.end - s.gfn).max(1) as f64 * (s.y1 - s.y0))
    }

    /// The frame at a row; `None` in a fold.
    pub(crate) fn gfn_at(&self, vm: VmId, as_id: u8, row: f64) -> Option<u64> {
        self.timeline.gfn_axis().space(vm, as_id)?.gfn_at(row)
    }

    /// The tracepoint's name.
    pub(crate) fn event_name(&self, event: &Event) -> &str {
        mmuscope_trace::event_name(&event.body, &self.trace.strings)
    }

    /// What an entry's value means, field by field.
    pub(crate) fn explain(&self, entry: &Entry, raw: u64) -> Explained {
        let info = self.timeline.layout(entry.vm);
        let e = mmuscope_spte::explain(&info.resolved, raw, entry.level);
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
        Explained {
            layout: info.layout.id().to_owned(),
            headline: e.headline,
            fields,
            effects: e.effects.into_iter().map(|f| (f.access, f.allowed, f.text)).collect(),
            // Those about the layout as a whole stand in the layout's own tab.
            notes: e.notes.into_iter().filter(|n| n.kind != layout_notes).map(|n| n.text).collect(),
        }
    }

    /// The entry that tells most about a frame at a moment: a leaf if one covers it, else the lowest table entry.
    pub(crate) fn pick(&self, vm: VmId, as_id: u8, gfn: u64, t: u64) -> Option<(Entry, Span)> {
        self.timeline
            .entries_at(vm, as_id, gfn)
            .into_iter()
            .filter_map(|id| Some((self.timeline.entry(id), self.timeline.span_at(id, t)?)))
            .min_by_key(|(entry, span)| (rank(span), entry.level, std::cmp::Reverse(span.start)))
    }

    /// The span of an entry before the one that covers a moment.
    pub(crate) fn prev_span(&self, entry: EntryId, t: u64) -> Option<Span> {
        let here = self.timeline.span_at(entry, t).map_or(t, |s| s.start);
        self.timeline.span_at(entry, here.checked_sub(1)?)
    }

    /// One event.
    pub(crate) fn event(&self, ix: EventIx) -> Option<Event> {
        let i = ix as usize;
        (i < self.trace.events.len()).then(|| self.trace.events.get(i))
    }

    /// The frame an event is about.
    pub(crate) fn gfn_of(event: &Event) -> Option<u64> {
        mmuscope_analysis::events::gfn_of(&event.body)
    }

    /// The address space an event is about, where the thread tells the VM.
    pub(crate) fn space_of(&self, event: &Event) -> Option<(VmId, u8)> {
        let tid = event.tid?;
        let vm = self
            .timeline
            .vms()
            .iter()
            .find(|v| v.vcpus.iter().any(|c| c.tid == tid) || v.pid == event.pid && v.pid.is_some())?;
        let as_id = if let Body::TdpSpteChanged { as_id, .. } = event.body {
            as_id
        } else {
            vm.as_ids.first().copied().unwrap_or(0)
        };
        Some((vm.id, as_id))
    }

    /// A page and a moment that say much at first sight, for a picture: among the pages that changed most often, the longest stay.
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

/// Present and MMIO leaves first, then removed, then nothing, then tables, then what is not known.
fn rank(span: &Span) -> u8 {
    match span.state {
        State::Present | State::Mmio => 0,
        State::Removed => 1,
        State::Nonpresent => 2,
        State::Unknown if span.shade == Shade::Unknown => 4,
        State::Unknown => 3,
        State::Table => 5,
    }
}
