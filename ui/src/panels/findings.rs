//! The tab of what stands out: every finding as a row, with its evidence beside it, and the busiest pages (`hot`).

use egui::{RichText, ScrollArea, Ui, UiBuilder, pos2};
use mmuscope_analysis::findings::{Finding, Severity};
use mmuscope_replay::VmId;

use super::Cx;
use super::there::{There, go};
use crate::fmt;
use crate::theme::Tokens;
use crate::widgets::rows::{Column, Scroll, Sorting, Table, Text, table};

/// State of the tab.
#[derive(Default)]
pub(crate) struct State {
    /// Whether the busiest pages are shown instead of the findings.
    pub(crate) hot: bool,
    /// The finding that is selected.
    selected: Option<usize>,
    sorting: Option<Sorting>,
    scroll: Scroll,
}

/// Draws the tab.
pub(crate) fn show(ui: &mut Ui, cx: &mut Cx<'_>) {
    let found = cx.doc.survey.done.clone();
    ui.horizontal(|ui| {
        let n = found.as_ref().map_or_else(
            || "…".to_owned(),
            |s| {
                let all = s.findings.len() as u64;
                let here = if cx.doc.scopes.now().is_all() {
                    all
                } else {
                    s.findings.iter().filter(|f| in_scope(cx, f)).count() as u64
                };
                if here == all {
                    fmt::count(all)
                } else {
                    format!("{} of {}", fmt::count(here), fmt::count(all))
                }
            },
        );
        let state = &mut cx.doc.tables.findings;
        for (hot, name, tip) in [
            (
                false,
                format!("Findings ({n})"),
                "What stands out, the weightiest first: `mmuscope check` prints the same",
            ),
            (true, "Hot pages".to_owned(), "The guest pages with the most faults, zaps and MMIO accesses"),
        ] {
            if ui.selectable_label(state.hot == hot, name).on_hover_text(tip).clicked() {
                state.hot = hot;
            }
        }
        if state.hot {
            ui.separator();
            super::hot::controls(ui, cx);
        } else if let Some(e) = &cx.doc.survey.error {
            ui.label(RichText::new(e).color(cx.tokens.bad));
        } else if found.is_none() {
            ui.label(RichText::new("looking…").color(cx.tokens.muted));
        }
    });
    if cx.doc.tables.findings.hot {
        super::hot::show(ui, cx);
    } else if let Some(found) = found {
        findings(ui, cx, &found.findings);
    }
}

fn severity_color(t: &Tokens, s: Severity) -> egui::Color32 {
    match s {
        Severity::Error => t.bad,
        Severity::Warning => t.warn,
        Severity::Info => t.muted,
    }
}

const COLUMNS: [Column; 8] = [
    Column { name: "severity", width: 70.0, right: false },
    Column { name: "finding", width: 150.0, right: false },
    Column { name: "vm", width: 34.0, right: true },
    Column { name: "gfn", width: 86.0, right: true },
    Column { name: "count", width: 66.0, right: true },
    Column { name: "cost", width: 76.0, right: true },
    Column { name: "first", width: 112.0, right: true },
    Column { name: "what was seen", width: 0.0, right: false },
];

/// The columns that are left where the evidence of one finding is beside the table.
const FEW: [usize; 4] = [0, 1, 4, 7];

/// Whether a finding is about the scope of the tables: its time reaches into it, and its frame, or else an event that it names, is in it.
fn in_scope(cx: &Cx<'_>, f: &Finding) -> bool {
    let scope = cx.doc.scopes.now();
    if !scope.has_time(cx.cap, f.first, f.last) {
        return false;
    }
    if scope.frames.is_none() && scope.tid.is_none() {
        return true;
    }
    // Only its first events are named: where there are more, they may be in the scope.
    if f.count > f.events.len() as u64 {
        return true;
    }
    let mut events = f.events.iter().filter_map(|e| cx.cap.event(u32::try_from(*e).ok()?));
    events.any(|e| scope.has_event(cx.cap, &e))
}

/// The numbers of the findings in the scope, in the order of the column that was chosen.
fn order(cx: &Cx<'_>, all: &[Finding], sorting: Option<Sorting>) -> Vec<usize> {
    let mut out: Vec<usize> = (0..all.len()).filter(|i| in_scope(cx, &all[*i])).collect();
    let Some(s) = sorting else { return out };
    out.sort_by(|a, b| {
        let (x, y) = (&all[*a], &all[*b]);
        let by = match s.column {
            0 => x.severity.cmp(&y.severity),
            1 => y.id.cmp(x.id),
            2 => x.vm.cmp(&y.vm),
            3 => x.gfn.cmp(&y.gfn),
            4 => x.count.cmp(&y.count),
            5 => x.cost.cmp(&y.cost),
            6 => x.first.cmp(&y.first),
            _ => y.title.cmp(&x.title),
        };
        if s.down { by.reverse() } else { by }
    });
    out
}

fn findings(ui: &mut Ui, cx: &mut Cx<'_>, all: &[Finding]) {
    if all.is_empty() {
        ui.label(RichText::new("Nothing stands out in this trace.").color(cx.tokens.muted));
        return;
    }
    let full = ui.available_rect_before_wrap();
    let state = &mut cx.doc.tables.findings;
    state.selected = state.selected.filter(|i| *i < all.len());
    let selected = state.selected;
    let split = if selected.is_some() { full.left() + full.width() * 0.58 } else { full.right() };
    let left = full.with_max_x(split);
    let sorted = state.sorting;
    let order = order(cx, all, sorted);
    let state = &mut cx.doc.tables.findings;
    let at = selected.and_then(|i| order.iter().position(|o| *o == i));
    let mut scroll = state.scroll;
    let sorting = state.sorting.unwrap_or(Sorting { column: 0, down: true });
    let t = cx.tokens;
    let few = selected.is_some() && left.width() < 820.0;
    let shown: Vec<usize> = if few { FEW.to_vec() } else { (0..COLUMNS.len()).collect() };
    let columns: Vec<Column> = shown.iter().map(|i| COLUMNS[*i]).collect();
    let name = if few { "Findings, few columns" } else { "Findings" };
    let place = |s: Sorting| Sorting { column: shown.iter().position(|c| *c == s.column).unwrap_or(99), ..s };
    let sorting_here = Some(place(sorting));
    let count = order.len();
    let of =
        Table { name, columns: &columns, count, selected: at, sorting: sorting_here, ..Table::default() };
    let done = ui
        .scope_builder(UiBuilder::new().max_rect(left), |ui| {
            table(ui, t, &of, &mut scroll, |row| {
                let f = &all[order[row]];
                let mut cells: [Text; 8] = [
                    Text { text: f.severity.name().to_owned(), color: Some(severity_color(t, f.severity)) },
                    f.id.into(),
                    f.vm.map_or_else(String::new, |v| v.to_string()).into(),
                    f.gfn.map_or_else(String::new, fmt::gfn).into(),
                    fmt::count(f.count).into(),
                    f.cost.map_or_else(String::new, |c| fmt::time(c as f64)).into(),
                    Text { text: cx.at(f.first), color: Some(t.muted) },
                    fmt::clean(&f.title).into(),
                ];
                shown.iter().map(|i| std::mem::take(&mut cells[*i])).collect()
            })
        })
        .inner;
    let state = &mut cx.doc.tables.findings;
    state.scroll = scroll;
    if let Some(column) = done.head.and_then(|c| shown.get(c)).copied() {
        state.sorting = Some(sorting.clicked(column));
    }
    if let Some(i) = done.picked.and_then(|row| order.get(row)).copied() {
        state.selected = Some(i);
        let f = &all[i];
        let there = There {
            vm: f.vm.map(VmId),
            as_id: 0,
            gfns: f.gfn.map(|g| (g, g)),
            time: (f.first, f.last),
            event: f.events.first().and_then(|e| u32::try_from(*e).ok()),
        };
        go(cx, &there);
    }
    if let Some(f) = selected.and_then(|i| all.get(i)) {
        let right = egui::Rect::from_min_max(pos2(split + 8.0, full.top()), full.max);
        ui.scope_builder(UiBuilder::new().max_rect(right), |ui| {
            ScrollArea::vertical().id_salt("finding").auto_shrink(false).show(ui, |ui| evidence(ui, cx, f));
        });
    }
}

/// Draws all that is known of a finding.
fn evidence(ui: &mut Ui, cx: &mut Cx<'_>, f: &Finding) {
    let t = cx.tokens;
    ui.horizontal(|ui| {
        ui.label(RichText::new(f.severity.name()).color(severity_color(t, f.severity)).strong());
        ui.label(RichText::new(f.id).monospace());
        if ui.small_button("Close").on_hover_text("Close the details of the finding").clicked() {
            cx.doc.tables.findings.selected = None;
        }
    });
    let text = |ui: &mut Ui, name: &str, words: &str| {
        ui.label(RichText::new(name).strong().size(11.5).color(t.muted));
        ui.add(egui::Label::new(RichText::new(fmt::clean(words)).size(12.0)).wrap());
    };
    ui.add(egui::Label::new(RichText::new(fmt::clean(&f.title)).strong()).wrap());
    text(ui, &format!("Why ({})", f.sure.name()), &f.why);
    text(ui, "What to do", &f.remedy);
    text(ui, "What would refute it", f.refuted);
    let shown = f.events.len().min(24);
    ui.label(
        RichText::new(format!("Evidence: {} of {}", shown, fmt::plural(f.count, "event", "events")))
            .strong()
            .size(11.5)
            .color(t.muted),
    );
    ui.horizontal_wrapped(|ui| {
        for ix in f.events.iter().take(shown).filter_map(|e| u32::try_from(*e).ok()) {
            let Some(e) = cx.cap.event(ix) else { continue };
            let name = cx.cap.event_name(&e).to_owned();
            let tip = cx.at(e.ts);
            if ui.link(RichText::new(format!("#{ix} {name}")).size(11.5)).on_hover_text(tip).clicked() {
                cx.doc.leave();
                cx.doc.select_event(cx.cap, ix);
            }
        }
    });
}
