//! The tab of huge pages: for each 2M or 1G range as what it is mapped, how often it was split and merged, when last and why; and the share of
//! memory in large pages over time.

use std::sync::{Arc, RwLock};

use egui::{Rect, RichText, Sense, Stroke, StrokeKind, Ui, pos2, vec2};
use mmuscope_analysis::huge::{HugeQuery, Region, regions};
use mmuscope_analysis::visual::{ColourBy, Visual};
use mmuscope_replay::Counts;

use super::Cx;
use super::there::{There, go};
use crate::capture::{self, Capture};
use crate::fmt;
use crate::scope::Scope;
use crate::survey::Surveyed;
use crate::view::Range;
use crate::widgets::rows::{Column, Scroll, Sorting, Table, Text, table};
use crate::worker::Worker;

/// Number of moments of the plot.
const MOMENTS: usize = 240;
/// Height of the plot in points.
const HEIGHT: f32 = 34.0;

/// Everything that the list depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Wish {
    query: HugeQuery,
    gfns: Option<(u64, u64)>,
    tid: Option<u32>,
    /// Time of the plot, in nanoseconds since the first event.
    view: Range,
    version: u64,
    survey: u64,
}

/// A capture to look through.
pub(crate) struct Query {
    capture: Arc<RwLock<Capture>>,
    survey: Option<Arc<Surveyed>>,
    wish: Wish,
}

/// What was found.
pub(crate) struct Found {
    wish: Wish,
    regions: Vec<Region>,
    /// The guest memory at moments of the time in view.
    over: Vec<Counts>,
    /// What a range without any leaf is called.
    empty: &'static str,
}

/// State of the tab.
pub(crate) struct State {
    worker: Worker<Query, Found>,
    asked: Option<Wish>,
    found: Option<Found>,
    level: u8,
    sorting: Sorting,
    scroll: Scroll,
    selected: Option<u64>,
}

impl State {
    /// Nothing looked at yet. With `inline`, that is done on the caller's thread.
    pub(crate) fn new(ctx: &egui::Context, inline: bool) -> Self {
        let ctx = ctx.clone();
        let worker = if inline {
            Worker::inline(compute)
        } else {
            Worker::start("mmuscope-huge", compute, move || ctx.request_repaint())
        };
        let sorting = Sorting { column: 0, down: false };
        Self {
            worker,
            asked: None,
            found: None,
            level: 2,
            sorting,
            scroll: Scroll::default(),
            selected: None,
        }
    }

    fn sort(&mut self) {
        let Some(found) = &mut self.found else { return };
        let Sorting { column, down } = self.sorting;
        found.regions.sort_by(|a, b| {
            let by = match column {
                2 => a.mapped[1..].iter().rev().cmp(b.mapped[1..].iter().rev()).then(a.mmio.cmp(&b.mmio)),
                3 => a.certainty.cmp(&b.certainty),
                4 => a.splits.cmp(&b.splits),
                5 => a.merges.cmp(&b.merges),
                6 => a.last.map(|c| c.ts).cmp(&b.last.map(|c| c.ts)),
                7 => a.last.map(|c| (c.lost, c.why)).cmp(&b.last.map(|c| (c.lost, c.why))),
                _ => a.gfn.cmp(&b.gfn),
            };
            if down { by.reverse() } else { by }.then(a.gfn.cmp(&b.gfn))
        });
    }
}

fn compute(q: Query) -> Found {
    let Query { capture, survey, wish: w } = q;
    let cap = capture::read(&capture);
    let sizes: Vec<_> = survey.as_ref().map_or(&[][..], |s| &s.sizes).to_vec();
    let sizes: Vec<_> = sizes.into_iter().filter(|c| w.tid.is_none_or(|t| t == c.tid)).collect();
    let mut regions = regions(&cap.timeline, &sizes, &w.query);
    regions.retain(|r| w.gfns.is_none_or(|(a, b)| r.gfn <= b && a < r.gfn.saturating_add(r.frames)));
    let (t0, t1) = (cap.abs(w.view.start), cap.abs(w.view.end));
    let over = cap.timeline.counts_over_of(w.query.vm, w.query.as_id, t0, t1.max(t0 + 1), MOMENTS);
    let empty = cap.timeline.unseen(w.query.vm).name();
    drop(cap);
    Found { wish: w, regions, over, empty }
}

const COLUMNS: [Column; 8] = [
    Column { name: "frames", width: 118.0, right: false },
    Column { name: "place", width: 118.0, right: false },
    Column { name: "mapped as", width: 236.0, right: false },
    Column { name: "certainty", width: 72.0, right: false },
    Column { name: "splits", width: 50.0, right: true },
    Column { name: "merges", width: 54.0, right: true },
    Column { name: "last at", width: 110.0, right: true },
    Column { name: "last, and why", width: 0.0, right: false },
];

/// Draws the tab.
pub(crate) fn show(ui: &mut Ui, cx: &mut Cx<'_>) {
    update(cx);
    head(ui, cx);
    // In a low window the rows keep the room.
    if ui.available_height() > HEIGHT + 5.0 * crate::widgets::rows::ROW {
        plot(ui, cx);
    }
    let t = cx.tokens;
    let state = &cx.doc.tables.huge;
    let Some(found) = &state.found else { return };
    let query = found.wish.query;
    let mut scroll = state.scroll;
    let of = Table {
        name: "Huge pages",
        columns: &COLUMNS,
        count: found.regions.len(),
        selected: state.selected.and_then(|g| found.regions.iter().position(|r| r.gfn == g)),
        sorting: Some(state.sorting),
        unsorted: Some(1),
    };
    let traced = cx.cap.traces_changes(query.vm);
    let done = table(ui, t, &of, &mut scroll, |row| {
        let r = &found.regions[row];
        let number = |n: u64| match n {
            _ if !traced => Text { text: "not traced".into(), color: Some(t.faint) },
            0 => Text { text: "–".into(), color: Some(t.faint) },
            n => fmt::count(n).into(),
        };
        let muted = |text: String| Text { text, color: Some(t.muted) };
        let why = r.last.map(|c| {
            let verb = match (c.lost, c.in_place) {
                (true, true) => "split",
                (true, false) => "zapped, then mapped small",
                (false, true) => "merged",
                (false, false) => "zapped, then mapped huge",
            };
            format!("{verb} by {}: {}", cx.cap.task_of(c.event), c.why)
        });
        vec![
            mmuscope_units::gfn_range(r.gfn, r.gfn.saturating_add(r.frames)).into(),
            muted(cx.cap.place_of(query.vm, query.as_id, r.gfn, query.at).unwrap_or_default()),
            r.words(found.empty).into(),
            muted(r.certainty.map_or("", |c| c.name()).to_owned()),
            number(r.splits),
            number(r.merges),
            muted(r.last.map_or_else(String::new, |c| cx.at(c.ts))),
            muted(why.unwrap_or_default()),
        ]
    });
    let picked = done.picked.and_then(|row| found.regions.get(row)).copied();
    let state = &mut cx.doc.tables.huge;
    state.scroll = scroll;
    if let Some(column) = done.head {
        state.sorting = state.sorting.clicked(column);
        state.sort();
    }
    if let Some(r) = picked {
        state.selected = Some(r.gfn);
        let ts = r.last.map_or(query.at, |c| c.ts);
        let there = There {
            vm: Some(query.vm),
            as_id: query.as_id,
            gfns: Some((r.gfn, r.gfn.saturating_add(r.frames - 1))),
            time: (ts, ts),
            event: r.last.map(|c| c.event),
        };
        go(cx, &there);
    }
}

/// The moment that the table is about, on the trace's clock: that of the selection, else the last one in view.
fn moment(cx: &Cx<'_>) -> u64 {
    let end = cx.cap.abs((cx.doc.view.time.end - 1.0).max(0.0)).min(cx.cap.timeline.range().1);
    cx.doc.selection.map_or(end, |s| s.time)
}

fn update(cx: &mut Cx<'_>) {
    let view = cx.doc.view;
    let scope: Scope = cx.doc.scopes.now();
    let (at, time) = (moment(cx), scope.times(cx.cap));
    let survey = cx.doc.survey.done.clone();
    let state = &mut cx.doc.tables.huge;
    let wish = Wish {
        query: HugeQuery { vm: view.vm, as_id: view.as_id, level: state.level, at, time },
        gfns: scope.gfns(view.vm, view.as_id),
        tid: scope.tid,
        view: Range::new(view.time.start.max(0.0).floor(), view.time.end.ceil()),
        version: cx.cap.version,
        survey: cx.doc.survey.version,
    };
    // While the view moves, the newest answer is waited for, so that each frame does not put it off.
    if state.asked != Some(wish) && !state.worker.busy() {
        state.asked = Some(wish);
        state.worker.ask(Query { capture: Arc::clone(&cx.doc.capture), survey, wish });
    }
    if let Some(Ok(found)) = state.worker.take() {
        state.found = Some(found);
        state.sort();
    }
}

fn head(ui: &mut Ui, cx: &mut Cx<'_>) {
    let t = cx.tokens;
    let vm = cx.doc.view.vm;
    let traced = cx.cap.traces_changes(vm);
    let selected = cx.doc.selection.is_some();
    ui.horizontal_wrapped(|ui| {
        ui.label("ranges of");
        for (level, name) in [(2, "2M"), (3, "1G")] {
            ui.selectable_value(&mut cx.doc.tables.huge.level, level, name);
        }
        let Some(found) = &cx.doc.tables.huge.found else {
            ui.label(RichText::new("looking…").color(t.muted));
            return;
        };
        let at = cx.at(found.wish.query.at);
        let which = if selected { "the selected moment" } else { "the end of the view" };
        ui.label(RichText::new(format!("as they are mapped at {at}")).strong())
            .on_hover_text(format!("This is {which}; select another one in the map"));
        let whole = |n: u64| n > 0;
        let level = usize::from(found.wish.query.level);
        let large = found.regions.iter().filter(|r| r.mapped[level..].iter().any(|n| whole(*n))).count();
        let split = found.regions.iter().filter(|r| r.mapped[1..level].iter().any(|n| whole(*n))).count();
        let text = format!(
            "{} huge, {} of smaller pages; {} and {} in the {}",
            fmt::plural(large as u64, "range", "ranges"),
            fmt::count(split as u64),
            fmt::plural(found.regions.iter().map(|r| r.splits).sum(), "split", "splits"),
            fmt::plural(found.regions.iter().map(|r| r.merges).sum(), "merge", "merges"),
            if found.wish.query.time.is_none() && found.wish.tid.is_none() { "whole trace" } else { "scope" },
        );
        for (name, c) in ColourBy::PageSize.legend(Visual::builtin(), t.theme) {
            let color = egui::Color32::from_rgb(c.0[0], c.0[1], c.0[2]);
            ui.label(RichText::new(format!("■ {name}")).size(11.5).color(color))
                .on_hover_text("Its share of the memory that is mapped, in the plot below");
        }
        if traced {
            ui.label(RichText::new(text).color(t.muted));
        } else {
            let text =
                "only the TDP MMU since 5.11 traces splits and merges: their numbers are not known here";
            ui.label(RichText::new(text).color(t.warn));
        }
    });
}

/// Draws the share of each page size in the guest memory that is mapped, over the time in view.
fn plot(ui: &mut Ui, cx: &mut Cx<'_>) {
    let t = cx.tokens;
    let Some(found) = &cx.doc.tables.huge.found else { return };
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), HEIGHT), Sense::click());
    let label = "Share of memory in large pages over the time in view";
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Canvas, true, label));
    let painter = ui.painter().with_clip_rect(rect);
    painter.rect_filled(rect, 0.0, t.background);
    let colors = ColourBy::PageSize.legend(Visual::builtin(), t.theme);
    let color = |level: usize| {
        let c = colors.get(level - 1).map_or([128; 3], |c| c.1.0);
        egui::Color32::from_rgb(c[0], c[1], c[2])
    };
    let mut mesh = egui::Mesh::default();
    let n = found.over.len().max(1) as f32;
    for (i, c) in found.over.iter().enumerate() {
        let all = c.present_bytes(None);
        if all == 0 {
            continue;
        }
        let (x0, x1) =
            (rect.left() + rect.width() * i as f32 / n, rect.left() + rect.width() * (i + 1) as f32 / n);
        let mut y = rect.bottom();
        for level in (1..=3usize).rev() {
            let part = c.present_bytes(Some(level as u8)) as f32 / all as f32;
            let top = y - rect.height() * part;
            mesh.add_colored_rect(Rect::from_min_max(pos2(x0, top), pos2(x1, y)), color(level));
            y = top;
        }
    }
    painter.add(egui::Shape::mesh(mesh));
    let x_of = |time: f64| rect.left() + rect.width() * found.wish.view.fraction(time) as f32;
    let at = x_of(cx.cap.rel(found.wish.query.at));
    painter.vline(at, rect.y_range(), Stroke::new(1.0, t.accent));
    painter.rect_stroke(rect, 0.0, Stroke::new(1.0, t.axis), StrokeKind::Inside);
    let Some(pos) = response.hover_pos() else { return };
    let f = f64::from((pos.x - rect.left()) / rect.width());
    let Some(c) = found.over.get((f * found.over.len() as f64) as usize) else { return };
    let all = c.present_bytes(None);
    let time = found.wish.view.at(f);
    response.on_hover_ui_at_pointer(|ui| {
        ui.label(RichText::new(format!("at {}", cx.when(time.max(0.0) as u64))).strong());
        if all == 0 {
            ui.label("nothing is known to be mapped");
        }
        for level in 1..=3u8 {
            let n = c.present_bytes(Some(level));
            if n > 0 {
                let share = mmuscope_units::percent(n, all);
                ui.label(format!("{}: {}, {share} of what is mapped", fmt::level(level), fmt::bytes(n)));
            }
        }
    });
}
