//! The busiest guest pages: most faults, zaps and MMIO accesses, of the whole trace or of the time in view, by frame or by range.

use std::sync::{Arc, RwLock};

use egui::{RichText, Ui};
use mmuscope_analysis::hot::{HotPage, HotQuery, hot_pages};

use super::Cx;
use super::there::{There, go};
use crate::capture::{self, Capture};
use crate::fmt;
use crate::widgets::rows::{Column, Scroll, Sorting, Table, Text, table};
use crate::worker::Worker;

/// Everything that the list depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Wish {
    query: HotQuery,
    version: u64,
}

/// A capture to count in.
pub(crate) struct Query {
    capture: Arc<RwLock<Capture>>,
    wish: Wish,
}

/// State of the list.
pub(crate) struct State {
    worker: Worker<Query, (Wish, Vec<HotPage>)>,
    asked: Option<Wish>,
    pages: Vec<HotPage>,
    /// Whether only the time in view counts.
    window: bool,
    /// Size of the portions: level 1 is one frame, 2 is 2 MiB, 3 is 1 GiB.
    level: u8,
    sorting: Sorting,
    scroll: Scroll,
    selected: Option<(u64, u64)>,
}

impl State {
    /// Nothing counted yet. With `inline`, counting is done on the caller's thread.
    pub(crate) fn new(ctx: &egui::Context, inline: bool) -> Self {
        let compute = |q: Query| {
            let cap = capture::read(&q.capture);
            let pages = hot_pages(&cap.trace, &cap.timeline, &q.wish.query);
            drop(cap);
            (q.wish, pages)
        };
        let ctx = ctx.clone();
        let worker = if inline {
            Worker::inline(compute)
        } else {
            Worker::start("mmuscope-hot", compute, move || ctx.request_repaint())
        };
        Self {
            worker,
            asked: None,
            pages: Vec::new(),
            window: false,
            level: 1,
            sorting: Sorting { column: FAULTS, down: true },
            scroll: Scroll::default(),
            selected: None,
        }
    }

    fn sort(&mut self) {
        let Sorting { column, down } = self.sorting;
        self.pages.sort_by(|a, b| {
            let by = match column {
                0 | 1 => a.gfn.cmp(&b.gfn),
                FAULTS => a.faults.cmp(&b.faults),
                3 => a.in_a_row.cmp(&b.in_a_row),
                4 => a.zaps.cmp(&b.zaps),
                5 => a.mmio.cmp(&b.mmio),
                6 => a.first.cmp(&b.first),
                _ => a.last.cmp(&b.last),
            };
            if down { by.reverse() } else { by }.then(a.gfn.cmp(&b.gfn))
        });
    }
}

const FAULTS: usize = 2;
const COLUMNS: [Column; 8] = [
    Column { name: "frames", width: 108.0, right: false },
    Column { name: "place", width: 134.0, right: false },
    Column { name: "faults", width: 56.0, right: true },
    Column { name: "in a row", width: 60.0, right: true },
    Column { name: "zaps", width: 50.0, right: true },
    Column { name: "MMIO accesses", width: 98.0, right: true },
    Column { name: "first", width: 104.0, right: true },
    Column { name: "last", width: 0.0, right: true },
];

/// Draws what is counted, and in which portions.
pub(super) fn controls(ui: &mut Ui, cx: &mut Cx<'_>) {
    let t = cx.tokens;
    let state = &mut cx.doc.tables.hot;
    ui.label("by");
    for (level, name) in [(1, "frame"), (2, "2M range"), (3, "1G range")] {
        ui.selectable_value(&mut state.level, level, name);
    }
    ui.checkbox(&mut state.window, "only the time shown above")
        .on_hover_text("Count only what happened in the time that the map shows");
    if state.worker.busy() {
        ui.label(RichText::new("counting…").color(t.muted));
    } else {
        ui.label(RichText::new(fmt::plural(state.pages.len() as u64, "row", "rows")).color(t.muted));
    }
    // A number is nothing without the events that it counts.
    let counted = ["kvm_page_fault", "kvm_mmio", "kvm_tdp_mmu_spte_changed", "kvm_mmu_prepare_zap_page"];
    for u in cx.cap.timeline.unrecorded().iter().filter(|u| counted.contains(&u.event)) {
        let text = format!("{}: {}", u.event, u.coverage.name());
        ui.label(RichText::new(text).color(t.warn)).on_hover_text(u.without);
    }
}

/// Draws the list.
pub(super) fn show(ui: &mut Ui, cx: &mut Cx<'_>) {
    update(cx);
    let t = cx.tokens;
    let traced = cx.cap.timeline.mmio_accesses_traced();
    let state = &cx.doc.tables.hot;
    let mut scroll = state.scroll;
    let at = state.selected.and_then(|s| state.pages.iter().position(|p| (p.gfn, p.frames) == s));
    let of = Table {
        name: "Hot pages",
        columns: &COLUMNS,
        count: state.pages.len(),
        selected: at,
        sorting: Some(state.sorting),
        ..Table::default()
    };
    let done = table(ui, t, &of, &mut scroll, |row| {
        let p = &state.pages[row];
        let number = |n: u64| Text {
            text: if n == 0 { "–".to_owned() } else { fmt::count(n) },
            color: (n == 0).then_some(t.faint),
        };
        let time = |ts: u64| Text { text: cx.at(ts), color: Some(t.muted) };
        vec![
            mmuscope_units::gfn_range(p.gfn, p.gfn.saturating_add(p.frames)).into(),
            Text {
                text: cx.cap.place_of(p.vm, p.as_id, p.gfn, p.last).unwrap_or_default(),
                color: Some(t.muted),
            },
            number(p.faults),
            number(p.in_a_row),
            number(p.zaps),
            if traced { number(p.mmio) } else { Text { text: "not traced".into(), color: Some(t.faint) } },
            time(p.first),
            time(p.last),
        ]
    });
    let state = &mut cx.doc.tables.hot;
    state.scroll = scroll;
    if let Some(column) = done.head {
        state.sorting = state.sorting.clicked(column);
        state.sort();
    }
    if let Some(p) = done.picked.and_then(|row| state.pages.get(row)).copied() {
        state.selected = Some((p.gfn, p.frames));
        let there = There {
            vm: Some(p.vm),
            as_id: p.as_id,
            gfns: Some((p.gfn, p.gfn.saturating_add(p.frames - 1))),
            // In a list of the time in view, another view would be another list.
            time: if state.window { (p.first, p.first) } else { (p.first, p.last) },
            event: None,
        };
        go(cx, &there);
    }
}

/// Asks for the list of what is shown now, and takes over one that has become ready.
fn update(cx: &mut Cx<'_>) {
    let view = cx.doc.view;
    let time = (cx.cap.abs(view.time.start), cx.cap.abs(view.time.end));
    let scope = cx.doc.scopes.now();
    let state = &mut cx.doc.tables.hot;
    let both = |a: Option<(u64, u64)>, b: Option<(u64, u64)>| match (a, b) {
        (Some(a), Some(b)) => Some((a.0.max(b.0), a.1.min(b.1))),
        (a, b) => a.or(b),
    };
    let query = HotQuery {
        space: Some((view.vm, view.as_id)),
        time: both(state.window.then_some(time), scope.times(cx.cap)),
        level: state.level,
        gfns: scope.gfns(view.vm, view.as_id),
        tid: scope.tid,
    };
    let wish = Wish { query, version: cx.cap.version };
    if state.asked != Some(wish) && !(cx.cap.growing && state.worker.busy()) {
        state.asked = Some(wish);
        state.worker.ask(Query { capture: Arc::clone(&cx.doc.capture), wish });
    }
    if let Some(Ok((_, pages))) = state.worker.take() {
        state.pages = pages;
        state.sort();
    }
}
