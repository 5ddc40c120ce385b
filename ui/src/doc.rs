//! [`Doc`]: one open trace and how it is looked at. Panels read and change it; it never draws.

use std::sync::{Arc, RwLock};

use mmuscope_analysis::visual::ColourBy;
use mmuscope_replay::{EntryId, EventIx, VmId};

use crate::capture::Capture;
use crate::follow::Live;
use crate::notes::Notes;
use crate::panels::tables::Tables;
use crate::picture::Pictures;
use crate::probe::Probe;
use crate::scope::Scopes;
use crate::second::Second;
use crate::survey::{Band, Surveys};
use crate::view::{History, MIN_ROWS, MIN_TIME, Play, Range, Selection};

/// The address space that is shown, and the part of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct View {
    /// VM that is shown.
    pub(crate) vm: VmId,
    /// Address space that is shown: 0 is the normal one, 1 is SMM.
    pub(crate) as_id: u8,
    /// Time shown, in nanoseconds since the first event.
    pub(crate) time: Range,
    /// Rows of the GFN axis shown.
    pub(crate) rows: Range,
}

/// A view and the selection in it, as Back and Forward restore them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    view: View,
    selection: Option<Selection>,
}

/// The place under the pointer, for the status line and the crosshair.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Hover {
    /// Time in nanoseconds since the first event, where the pointer is over a plot.
    pub(crate) time: Option<f64>,
    /// Guest frame number, where the pointer is over a frame of the map.
    pub(crate) gfn: Option<u64>,
}

/// The panels that can be hidden, and whether each is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) details: bool,
    pub(crate) tables: bool,
    pub(crate) area: bool,
    pub(crate) faults: bool,
    pub(crate) legend: bool,
    /// The rows of causes over the map.
    pub(crate) causes: bool,
    /// Whether the area over time shows bytes of memory instead of numbers of entries.
    pub(crate) memory: bool,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            details: true,
            tables: true,
            area: true,
            faults: true,
            legend: true,
            causes: true,
            memory: false,
        }
    }
}

/// Another trace beside the open one.
pub(crate) struct Other {
    /// The trace and how it is looked at.
    pub(crate) doc: Box<Doc>,
    /// What is added to a moment of the open trace to get the moment of the other one at the same place, in nanoseconds. Both count from their
    /// own first event.
    pub(crate) shift: f64,
    /// Whether the open trace is the lower one.
    pub(crate) below: bool,
}

/// One open trace, the part of it that is shown, and the state of its panels.
pub(crate) struct Doc {
    /// The trace and its replay.
    pub(crate) capture: Arc<RwLock<Capture>>,
    /// The part of the trace that is shown.
    pub(crate) view: View,
    /// The page, entry or event that is selected.
    pub(crate) selection: Option<Selection>,
    /// The part of the trace that the tables are about.
    pub(crate) scopes: Scopes,
    /// Earlier views, for Back and Forward.
    pub(crate) history: History<Place>,
    /// Pictures of the view, computed in the background.
    pub(crate) pictures: Pictures,
    /// Times of the cursors A and B, in nanoseconds since the first event.
    pub(crate) cursors: [Option<f64>; 2],
    /// The place that was under the pointer in the last frame.
    pub(crate) hover: Hover,
    /// What the map said of the place under the pointer in the last frame.
    pub(crate) pointed: Option<Probe>,
    /// The corner, in screen points, at which a rectangle to zoom into was begun, and whether it covers frames as well as time.
    pub(crate) rubber: Option<(egui::Pos2, bool)>,
    /// Movement keys that are down.
    pub(crate) held: Vec<egui::Key>,
    /// The findings and causes of the trace.
    pub(crate) survey: Surveys,
    /// The cause under the pointer.
    pub(crate) band: Option<Band>,
    /// State of the tables.
    pub(crate) tables: Tables,
    /// Mask of the bits under the pointer in the details panel.
    pub(crate) lit: u64,
    /// Whether the view follows the newest events.
    pub(crate) follow: bool,
    /// The stretch of time before the end that is held in view while it is followed, in nanoseconds, if the user chose one.
    pub(crate) window: Option<f64>,
    /// How following goes, where the trace is followed.
    pub(crate) live: Option<Live>,
    /// Why the input cannot be followed again after its end, if it cannot.
    pub(crate) only_once: Option<String>,
    /// The part of the file that has been read, 0 to 1; `None` once all of it is read.
    pub(crate) reading: Option<f32>,
    /// Panels that are open.
    pub(crate) shown: Shown,
    /// Another address space that is shown beside the selected one.
    pub(crate) second: Option<Second>,
    /// Another trace that is shown beside this one.
    pub(crate) other: Option<Other>,
    /// The time of that trace, in nanoseconds since the first event of this one: so far the view may move.
    pub(crate) reach: Option<Range>,
    /// The selected moment moves, while it does.
    pub(crate) play: Option<Play>,
    /// Whether moments are shown on the trace's clock instead of since the first event.
    pub(crate) absolute: bool,
    /// The notes of the user, and the file that they are kept in.
    pub(crate) notes: Notes,
    /// What gives the map its colours.
    pub(crate) colour: ColourBy,
}

impl Doc {
    /// Opens a capture and shows all of it.
    pub(crate) fn new(capture: Capture, ctx: &egui::Context, inline: bool) -> Self {
        let (vm, as_id) = capture.spaces().first().map_or((VmId::default(), 0), |s| (s.vm, s.as_id));
        let view = View { vm, as_id, time: capture.full_time(), rows: capture.full_rows(vm, as_id) };
        let follow = capture.growing;
        let capture = Arc::new(RwLock::new(capture));
        let pictures = Pictures::new(&capture, ctx, inline);
        Self {
            capture,
            view,
            selection: None,
            scopes: Scopes::default(),
            history: History::default(),
            pictures,
            cursors: [None; 2],
            hover: Hover::default(),
            pointed: None,
            rubber: None,
            held: Vec::new(),
            survey: Surveys::new(ctx, inline),
            band: None,
            tables: Tables::new(ctx, inline),
            lit: 0,
            follow,
            window: None,
            live: None,
            only_once: None,
            reading: None,
            shown: Shown::default(),
            second: None,
            other: None,
            reach: None,
            play: None,
            absolute: false,
            notes: Notes::default(),
            colour: ColourBy::default(),
        }
    }

    fn place(&self) -> Place {
        Place { view: self.view, selection: self.selection }
    }

    /// Remembers the view before a jump.
    pub(crate) fn leave(&mut self) {
        let place = self.place();
        self.history.leave(place);
    }

    /// Returns to the previous view (`back`), or to the one that was left by that.
    pub(crate) fn travel(&mut self, back: bool) {
        let here = self.place();
        let to = if back { self.history.back(here) } else { self.history.forward(here) };
        if let Some(p) = to {
            self.view = p.view;
            self.selection = p.selection;
            self.follow = false;
        }
    }

    /// The whole time that can be shown: that of the trace, and of the one beside it.
    pub(crate) fn whole(&self, cap: &Capture) -> Range {
        let full = cap.full_time();
        self.reach.map_or(full, |r| Range::new(full.start.min(r.start), full.end.max(r.end)))
    }

    /// Shows this time and these rows, as far as they exist.
    pub(crate) fn show(&mut self, cap: &Capture, time: Range, rows: Range) {
        let time = time.within(self.whole(cap), MIN_TIME);
        // A user who moves away from the end does not want to follow it any more.
        self.follow = self.follow && time.end >= cap.full_time().end - 0.5;
        // A user who zooms chooses another stretch.
        self.window = self.window.filter(|w| (time.span() - w.min(cap.full_time().span())).abs() < 1.0);
        self.view.time = time;
        self.view.rows = rows.within(cap.full_rows(self.view.vm, self.view.as_id), MIN_ROWS);
    }

    /// Shows the newest events of a growing capture, with so much time before the end, or everything.
    pub(crate) fn hold(&mut self, cap: &Capture, window: Option<f64>) {
        let full = cap.full_time();
        self.follow = cap.growing;
        self.window = window;
        let start = window.map_or(0.0, |w| (full.end - w).max(0.0));
        self.show(cap, Range::new(start, full.end), self.view.rows);
    }

    /// Shows all frames of another address space.
    pub(crate) fn enter_space(&mut self, cap: &Capture, vm: VmId, as_id: u8) {
        if (self.view.vm, self.view.as_id) != (vm, as_id) {
            self.leave();
            self.view.vm = vm;
            self.view.as_id = as_id;
            self.view.rows = cap.full_rows(vm, as_id);
            self.selection = None;
        }
    }

    /// Selects a frame at a time (on the trace's clock), and the entry that covers it.
    pub(crate) fn select_at(&mut self, cap: &Capture, gfn: u64, time: u64, entry: Option<EntryId>) {
        let found = entry.or_else(|| cap.pick(self.view.vm, self.view.as_id, gfn, time).map(|(e, _)| e.id));
        let event = found.and_then(|e| cap.timeline.span_at(e, time)).and_then(|s| s.opened_by);
        self.selection = Some(Selection { gfn, time, entry: found, event });
        if let Some(ix) = event {
            self.tables.show_event(ix);
        }
    }

    /// Selects an event and the page that it names, and moves the view if these are not in sight.
    pub(crate) fn select_event(&mut self, cap: &Capture, ix: EventIx) {
        let Some(event) = cap.event(ix) else { return };
        if let Some((vm, as_id)) = cap.space_of(&event)
            && vm != self.view.vm
        {
            self.enter_space(cap, vm, as_id);
        }
        let gfn = Capture::gfn_of(&event);
        let entry = gfn.and_then(|g| cap.pick(self.view.vm, self.view.as_id, g, event.ts).map(|(e, _)| e.id));
        let keep = self.selection.filter(|_| gfn.is_none());
        self.selection = Some(Selection {
            gfn: gfn.or(keep.map(|s| s.gfn)).unwrap_or(0),
            time: event.ts,
            entry: entry.or(keep.and_then(|s| s.entry)),
            event: Some(ix),
        });
        self.tables.show_event(ix);
        self.reveal(cap, gfn);
    }

    /// Moves the view just far enough that the selected time (and the frame, if given) is in sight.
    pub(crate) fn reveal(&mut self, cap: &Capture, gfn: Option<u64>) {
        let Some(s) = self.selection else { return };
        let time = self.view.time.reveal(cap.rel(s.time));
        let rows = match gfn.and_then(|g| cap.row_of(self.view.vm, self.view.as_id, g)) {
            Some(y) => self.view.rows.reveal(y),
            None => self.view.rows,
        };
        if (time, rows) != (self.view.time, self.view.rows) {
            self.leave();
            self.show(cap, time, rows);
        }
    }

    /// Selects the next or previous change of the selected entry; false if there is none.
    pub(crate) fn step_change(&mut self, cap: &Capture, forward: bool) -> bool {
        let Some(Selection { gfn, time, entry: Some(entry), .. }) = self.selection else { return false };
        let to = if forward { cap.timeline.next_change(entry, time) } else { cap.prev_span(entry, time) };
        let Some(to) = to else { return false };
        self.select_at(cap, gfn, to.start, Some(entry));
        self.reveal(cap, Some(gfn));
        true
    }

    /// Zooms to the selected span and its page.
    pub(crate) fn fit_selection(&mut self, cap: &Capture) {
        let Some(s) = self.selection else { return };
        self.leave();
        let full = cap.full_time();
        let span = s.entry.and_then(|e| cap.timeline.span_at(e, s.time));
        let (a, b) = span.map_or((cap.rel(s.time), cap.rel(s.time)), |sp| {
            (cap.rel(sp.start), sp.end.map_or(full.end, |e| cap.rel(e)))
        });
        // An entry that holds no page may cover a whole guest; then only the selected frame was asked for.
        let page = span.filter(crate::probe::is_page).and(s.entry).map(|e| cap.timeline.entry(e));
        let (first, end) =
            page.map_or((s.gfn, s.gfn.saturating_add(1)), |e| (e.gfn, e.gfn.saturating_add(e.pages())));
        let rows = cap.rows_of(self.view.vm, self.view.as_id, first, end).map_or(self.view.rows, |r| {
            let around = r.padded(1.0);
            let half = (around.span() / 2.0).max(16.0);
            Range::new(around.centre() - half, around.centre() + half)
        });
        let time = Range::new(a, b.max(a + MIN_TIME)).padded(0.25);
        self.show(cap, time, rows);
    }
}
