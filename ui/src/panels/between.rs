//! What changed between the cursors A and B: mapped, zapped, protected, split, merged, range by range, as a table and on the map.

use std::sync::{Arc, RwLock};

use egui::{Rect, RichText, Ui};
use mmuscope_analysis::between::{Between, By, ChangeKind, Changed, Moments, between, shade};

use super::Cx;
use super::there::{There, go};
use crate::capture::{self, Capture};
use crate::command::Command;
use crate::fmt;
use crate::scope::Scope;
use crate::survey::Surveyed;
use crate::view::Range;
use crate::widgets::rows::{Column, Scroll, Sorting, Table, Text, table};
use crate::worker::Worker;

/// Everything that the difference depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Wish {
    moments: Moments,
    version: u64,
    /// Version of the survey, whose causes the rows name.
    survey: u64,
}

/// Two moments to compare.
pub(crate) struct Query {
    capture: Arc<RwLock<Capture>>,
    survey: Option<Arc<Surveyed>>,
    wish: Wish,
}

/// A difference, with what is drawn of it in every frame.
struct Done {
    moments: Moments,
    found: Between,
    kinds: Vec<(ChangeKind, u64, u64)>,
    causes: Vec<(By, u64, u64)>,
    /// Where each range lies on the GFN axis; `None` outside of it.
    places: Vec<Option<Range>>,
}

impl Done {
    fn new(cap: &Capture, moments: Moments, found: Between) -> Self {
        let axis = cap.timeline.gfn_axis().space(moments.vm, moments.as_id);
        let place = |r: &Changed| axis?.span_of(r.gfn_start, r.gfn_end).map(|(a, b)| Range::new(a, b));
        let places = found.rows.iter().map(place).collect();
        Self { moments, kinds: found.by_kind(), causes: found.by_cause(), places, found }
    }
}

/// State of the tab.
pub(crate) struct State {
    worker: Worker<Query, (Wish, Between)>,
    asked: Option<Wish>,
    done: Option<Done>,
    /// Only changes of this kind, or by this, are shown.
    only: (Option<ChangeKind>, Option<By>),
    /// Only changes of these frames, last changed by this thread, are shown. Its time is not looked at: the cursors are the time.
    scope: Scope,
    sorting: Sorting,
    scroll: Scroll,
    /// The rows that pass, in their order.
    rows: Vec<usize>,
    selected: Option<u64>,
}

impl State {
    /// Nothing compared yet. With `inline`, comparing is done on the caller's thread.
    pub(crate) fn new(ctx: &egui::Context, inline: bool) -> Self {
        let compute = |q: Query| {
            let cap = capture::read(&q.capture);
            let causes = q.survey.as_ref().map_or(&[][..], |s| &s.causes);
            let found = between(&cap.trace, &cap.timeline, causes, &q.wish.moments);
            drop(cap);
            (q.wish, found)
        };
        let ctx = ctx.clone();
        let worker = if inline {
            Worker::inline(compute)
        } else {
            Worker::start("mmuscope-between", compute, move || ctx.request_repaint())
        };
        Self {
            worker,
            asked: None,
            done: None,
            only: (None, None),
            scope: Scope::default(),
            sorting: Sorting::default(),
            scroll: Scroll::default(),
            rows: Vec::new(),
            selected: None,
        }
    }

    /// The difference as CSV; `None` while there is none.
    pub(crate) fn csv(&self) -> Option<String> {
        self.done.as_ref().map(|d| d.found.csv(&d.moments))
    }

    fn sort(&mut self, cap: &Capture) {
        let Some(Done { found, moments, .. }) = &self.done else { return };
        let (kind, by) = self.only;
        let gfns = self.scope.gfns(moments.vm, moments.as_id);
        let tid = self.scope.tid;
        let of = |ix: u32| cap.event(ix).and_then(|e| e.tid);
        let passes = |r: &Changed| {
            kind.is_none_or(|k| k == r.kind)
                && by.is_none_or(|b| b == r.by)
                && gfns.is_none_or(|(a, b)| r.gfn_start <= b && a < r.gfn_end)
                && tid.is_none_or(|t| r.event.and_then(of) == Some(t))
        };
        let mut rows: Vec<usize> = (0..found.rows.len()).filter(|i| passes(&found.rows[*i])).collect();
        let Sorting { column, down } = self.sorting;
        rows.sort_by(|a, b| {
            let (a, b) = (&found.rows[*a], &found.rows[*b]);
            let order = match column {
                0 => a.gfn_start.cmp(&b.gfn_start),
                1 => a.frames().cmp(&b.frames()),
                2 => a.kind.cmp(&b.kind),
                3 => shade(a.before).cmp(shade(b.before)),
                4 => shade(a.after).cmp(shade(b.after)),
                5 => a.certainty().cmp(&b.certainty()),
                6 => a.by.cmp(&b.by),
                _ => a.event.cmp(&b.event),
            };
            if down { order.reverse() } else { order }.then(a.gfn_start.cmp(&b.gfn_start))
        });
        self.rows = rows;
    }
}

const COLUMNS: [Column; 8] = [
    Column { name: "frames", width: 134.0, right: false },
    Column { name: "size", width: 66.0, right: true },
    Column { name: "change", width: 96.0, right: false },
    Column { name: "at A", width: 164.0, right: false },
    Column { name: "at B", width: 164.0, right: false },
    Column { name: "certainty", width: 72.0, right: false },
    Column { name: "by", width: 130.0, right: false },
    Column { name: "last event", width: 0.0, right: false },
];

/// The moments of the cursors, the earlier one first.
fn moments(cx: &Cx<'_>) -> Option<Moments> {
    let [Some(a), Some(b)] = cx.doc.cursors else { return None };
    let (from, to) = (cx.cap.abs(a.min(b)), cx.cap.abs(a.max(b)));
    Some(Moments { vm: cx.doc.view.vm, as_id: cx.doc.view.as_id, from, to })
}

/// Draws the tab.
pub(crate) fn show(ui: &mut Ui, cx: &mut Cx<'_>) {
    let Some(moments) = moments(cx) else {
        nothing(ui, cx);
        return;
    };
    update(cx, moments);
    head(ui, cx, &moments);
    let t = cx.tokens;
    let state = &cx.doc.tables.between;
    let Some(Done { found, .. }) = &state.done else {
        ui.label(RichText::new("comparing…").color(t.muted));
        return;
    };
    let mut scroll = state.scroll;
    let at = state.selected.and_then(|g| state.rows.iter().position(|i| found.rows[*i].gfn_start == g));
    let of = Table {
        name: "A to B",
        columns: &COLUMNS,
        count: state.rows.len(),
        selected: at,
        sorting: Some(state.sorting),
        ..Table::default()
    };
    let held = |h: Option<mmuscope_analysis::between::Held>| match h {
        // An empty entry is of no page size.
        Some(h) if h.level == 0 || h.shade == mmuscope_replay::Shade::Nonpresent => h.shade.name().to_owned(),
        Some(h) => format!("{}, {}", h.shade.name(), fmt::level(h.level)),
        None => "unknown".to_owned(),
    };
    let done = table(ui, t, &of, &mut scroll, |row| {
        let r = &found.rows[state.rows[row]];
        let event = r.event.and_then(|ix| Some(format!("#{ix} {}", cx.cap.event_name(&cx.cap.event(ix)?))));
        vec![
            mmuscope_units::gfn_range(r.gfn_start, r.gfn_end).into(),
            fmt::bytes(r.frames().saturating_mul(4096)).into(),
            Text { text: r.kind.name().to_owned(), color: Some(color(t, r.kind)) },
            held(r.before).into(),
            held(r.after).into(),
            Text { text: r.certainty().map_or("", |c| c.name()).to_owned(), color: Some(t.muted) },
            r.by.words().into(),
            Text { text: event.unwrap_or_default(), color: Some(t.muted) },
        ]
    });
    let picked = done.picked.and_then(|row| Some(found.rows[*state.rows.get(row)?]));
    let state = &mut cx.doc.tables.between;
    state.scroll = scroll;
    if let Some(column) = done.head {
        state.sorting = state.sorting.clicked(column);
        state.sort(cx.cap);
    }
    if let Some(r) = picked {
        state.selected = Some(r.gfn_start);
        let ts = r.event.and_then(|ix| cx.cap.timeline.event_ts(ix)).unwrap_or(moments.to);
        let there = There {
            vm: Some(moments.vm),
            as_id: moments.as_id,
            gfns: Some((r.gfn_start, r.gfn_end - 1)),
            time: (ts, ts),
            event: r.event,
        };
        go(cx, &there);
    }
}

/// Says how two moments are chosen.
fn nothing(ui: &mut Ui, cx: &mut Cx<'_>) {
    let t = cx.tokens;
    ui.add_space(8.0);
    ui.label("What changed between two moments: which frames were mapped, zapped, protected, split or merged, and by what.");
    ui.label(
        RichText::new(
            "Point at a moment in the map and press 1 for cursor A, at another one and press 2 for cursor B.",
        )
        .color(t.muted),
    );
    ui.horizontal(|ui| {
        let view = cx.doc.view.time;
        let last = cx.cap.full_time().end - 1.0;
        let ends = [view.start.max(0.0), view.end.min(last)];
        if ui
            .button("Compare the ends of the view")
            .on_hover_text("Put A and B at both ends of the time in view")
            .clicked()
        {
            cx.doc.cursors = ends.map(Some);
        }
        if ui
            .button("Compare the ends of the trace")
            .on_hover_text("Put A and B at the first and the last event")
            .clicked()
        {
            cx.doc.cursors = [Some(0.0), Some(last)];
        }
    });
}

/// Draws the sums, which are filters too.
fn head(ui: &mut Ui, cx: &mut Cx<'_>, moments: &Moments) {
    let t = cx.tokens;
    let state = &mut cx.doc.tables.between;
    let busy = state.worker.busy();
    ui.horizontal_wrapped(|ui| {
        let span = fmt::time((moments.to - moments.from) as f64);
        ui.label(RichText::new(format!("A to B: {span}")).strong());
        let Some(Done { found, kinds, causes, .. }) = &state.done else { return };
        ui.label(
            RichText::new(format!(
                "{} and {} in between",
                fmt::plural(found.faults, "fault", "faults"),
                fmt::plural(found.zaps, "zap", "zaps")
            ))
            .color(t.muted),
        )
        .on_hover_text(
            "What was zapped and mapped again as it was is no difference, and is counted here only",
        );
        if found.rows.is_empty() {
            ui.label("nothing differs");
        }
        let mut only = state.only;
        for (kind, ranges, frames) in kinds.iter().copied() {
            let text = format!("{} {}", kind.name(), fmt::bytes(frames.saturating_mul(4096)));
            let on = only.0 == Some(kind);
            let tip = format!("{}: {}", kind.about(), fmt::plural(ranges, "range", "ranges"));
            let label = RichText::new(text).color(if on { t.ink } else { color(t, kind) });
            if ui.selectable_label(on, label).on_hover_text(tip).clicked() {
                only.0 = (!on).then_some(kind);
            }
        }
        ui.separator();
        for (by, ranges, frames) in causes.iter().copied() {
            let on = only.1 == Some(by);
            let size = fmt::bytes(frames.saturating_mul(4096));
            let tip =
                format!("the last change came by this in {}, {size}", fmt::plural(ranges, "range", "ranges"));
            if ui.selectable_label(on, format!("by {}", by.words())).on_hover_text(tip).clicked() {
                only.1 = (!on).then_some(by);
            }
        }
        ui.separator();
        if ui.small_button("Save as CSV…").on_hover_text(Command::SaveChanges.spec().help).clicked() {
            cx.out.push(Command::SaveChanges);
        }
        if busy {
            ui.label(RichText::new("comparing…").color(t.muted));
        }
        if only != state.only {
            state.only = only;
            state.scroll = Scroll::default();
            state.sort(cx.cap);
        }
    });
}

/// Asks for the difference of the moments, and takes over one that has become ready.
fn update(cx: &mut Cx<'_>, moments: Moments) {
    let survey = cx.doc.survey.done.clone();
    let wish = Wish { moments, version: cx.cap.version, survey: cx.doc.survey.version };
    let state = &mut cx.doc.tables.between;
    if state.asked != Some(wish) && !(cx.cap.growing && state.worker.busy()) {
        state.asked = Some(wish);
        state.worker.ask(Query { capture: Arc::clone(&cx.doc.capture), survey, wish });
    }
    if let Some(Ok((wish, found))) = state.worker.take() {
        state.done = Some(Done::new(cx.cap, wish.moments, found));
        state.sort(cx.cap);
    }
    let scope = Scope { time: None, ..cx.doc.scopes.now() };
    if state.scope != scope {
        state.scope = scope;
        state.scroll = Scroll::default();
        state.sort(cx.cap);
    }
}

fn color(t: &crate::theme::Tokens, kind: ChangeKind) -> egui::Color32 {
    match kind {
        ChangeKind::Mapped | ChangeKind::FirstSeen | ChangeKind::MadeWritable => t.good,
        ChangeKind::Zapped | ChangeKind::LostSight => t.bad,
        ChangeKind::Protected | ChangeKind::Frozen | ChangeKind::Aged => t.warn,
        ChangeKind::Mmio => t.shade(mmuscope_replay::Shade::Mmio),
        _ => t.accent,
    }
}

/// Draws the ranges that differ on the map, between the cursors.
pub(crate) fn on_map(ui: &Ui, cx: &Cx<'_>, map: Rect, x_of: impl Fn(f64) -> f32, y_of: impl Fn(f64) -> f32) {
    let state = &cx.doc.tables.between;
    let Some(Done { moments, found, places, .. }) = &state.done else { return };
    let here = (moments.vm, moments.as_id) == (cx.doc.view.vm, cx.doc.view.as_id);
    if !here || cx.doc.cursors.contains(&None) {
        return;
    }
    let left = x_of(cx.cap.rel(moments.from)).max(map.left());
    let right = x_of(cx.cap.rel(moments.to)).min(map.right());
    if left >= right {
        return;
    }
    let mut mesh = egui::Mesh::default();
    for i in &state.rows {
        let r = &found.rows[*i];
        let Some(rows) = places[*i] else { continue };
        let (top, bottom) = (y_of(rows.end), y_of(rows.start));
        let band = Rect::from_x_y_ranges(left..=right, top..=bottom.max(top + 1.0)).intersect(map);
        if !band.is_positive() {
            continue;
        }
        let c = color(cx.tokens, r.kind);
        mesh.add_colored_rect(band, c.gamma_multiply(0.22));
        // The ends are strong, so that a single frame is seen as well.
        for end in [left, right - 4.0] {
            mesh.add_colored_rect(band.with_min_x(end).with_max_x((end + 4.0).min(right)), c);
        }
    }
    ui.painter().with_clip_rect(map).add(egui::Shape::mesh(mesh));
}
