//! The tables on the selected guest page: its story, and every span of every entry that ever covered it.

use std::collections::BTreeSet;

use egui::{RichText, Ui};
use mmuscope_analysis::life::{Fold, fold};
use mmuscope_replay::{EntryId, PageStory, Span, StoryLine, VmId};

use super::Cx;
use crate::capture::Capture;
use crate::fmt;
use crate::scope::Scope;
use crate::view::Selection;
use crate::widgets::rows::{Column, Scroll, Table, Text, table};

/// The story and spans of the page that was selected last, kept so that they are not made in every frame.
#[derive(Default)]
pub(crate) struct Cached {
    key: Option<(VmId, u8, u64, u64)>,
    story: Option<PageStory>,
    spans: Vec<(EntryId, Span)>,
    /// The rows of the story, and what they were made of.
    rows: Vec<Fold>,
    made: Option<Made>,
    /// Whether repetitions are shown one by one.
    unfolded: bool,
    /// First lines of the repetitions that were opened.
    opened: BTreeSet<usize>,
    /// The selection that was brought into view.
    revealed: Option<Selection>,
    scroll: Scroll,
    /// Why a span ended: of which event, and of which survey.
    ended: Option<(Ended, Vec<String>)>,
}

/// Everything that the rows of a story depend on: page, scope, folding, and how many repetitions are open.
type Made = ((VmId, u8, u64, u64), Scope, bool, usize);

/// An entry, the event that ended a span of it, and the versions of capture and survey.
pub(super) type Ended = (EntryId, u32, u64, u64);

fn update(cx: &mut Cx<'_>) -> Option<u64> {
    let s = cx.doc.selection?;
    let key = (cx.doc.view.vm, cx.doc.view.as_id, s.gfn, cx.cap.version);
    let cached = &mut cx.doc.tables.story;
    if cached.key != Some(key) {
        cached.key = Some(key);
        cached.story = Some(cx.cap.timeline.page_story(&cx.cap.trace, key.0, key.1, s.gfn));
        cached.scroll = Scroll::default();
        cached.opened.clear();
        let mut spans: Vec<(EntryId, Span)> = cx
            .cap
            .timeline
            .entries_at(key.0, key.1, s.gfn)
            .into_iter()
            .flat_map(|e| cx.cap.timeline.spans(e).map(move |s| (e, s)).collect::<Vec<_>>())
            .collect();
        spans.sort_by_key(|(e, s)| (s.start, e.0));
        cached.spans = spans;
    }
    Some(s.gfn)
}

/// Who did what at an event, as the life of the selected page has it.
pub(super) fn line_of(cx: &mut Cx<'_>, ix: u32) -> Option<(String, String)> {
    update(cx)?;
    let story = cx.doc.tables.story.story.as_ref()?;
    let line = story.lines.iter().find(|l| l.event == Some(ix))?;
    Some((line.who.clone(), line.text.clone()))
}

/// Why a span ended, made by `make` where it is not known yet.
pub(super) fn ended(
    cx: &mut Cx<'_>,
    key: Ended,
    make: impl FnOnce(&mut Cx<'_>) -> Vec<String>,
) -> Vec<String> {
    match &cx.doc.tables.story.ended {
        Some((of, lines)) if *of == key => lines.clone(),
        _ => {
            let lines = make(cx);
            cx.doc.tables.story.ended = Some((key, lines.clone()));
            lines
        }
    }
}

fn nothing(ui: &mut Ui, cx: &Cx<'_>) {
    ui.add_space(12.0);
    ui.label(
        RichText::new("Select a page in the map, or type G and its frame, to read its life here.")
            .color(cx.tokens.muted),
    );
}

/// Draws the story of the selected page.
pub(crate) fn story(ui: &mut Ui, cx: &mut Cx<'_>) {
    if update(cx).is_none() {
        nothing(ui, cx);
        return;
    }
    let Some(story) = cx.doc.tables.story.story.take() else { return };
    ui.add(egui::Label::new(RichText::new(&story.headline).strong()).wrap());
    for note in &story.notes {
        ui.add(egui::Label::new(RichText::new(note).size(11.5).color(cx.tokens.muted)).wrap());
    }
    controls(ui, cx, &story);
    let columns = [
        Column { name: "time", width: 140.0, right: true },
        Column { name: "after the one before", width: 130.0, right: true },
        Column { name: "who", width: 170.0, right: false },
        Column { name: "what happened", width: 0.0, right: false },
    ];
    let rows = std::mem::take(&mut cx.doc.tables.story.rows);
    let at = cx.doc.selection.and_then(|s| {
        let line = story
            .lines
            .iter()
            .position(|l| l.event.is_some() && l.event == s.event)
            .or_else(|| story.lines.iter().rposition(|l| l.ts <= s.time))?;
        rows.iter().rposition(|p| p.lines.start <= line)
    });
    let mut scroll = cx.doc.tables.story.scroll;
    if cx.doc.tables.story.revealed != cx.doc.selection {
        cx.doc.tables.story.revealed = cx.doc.selection;
        scroll.show = at;
    }
    let t = cx.tokens;
    let phases: Vec<u64> = cx.cap.timeline.phases_of(cx.doc.view.vm).iter().map(|p| p.start).collect();
    let of = Table {
        name: "Life of the page",
        columns: &columns,
        count: rows.len(),
        selected: at,
        ..Table::default()
    };
    let done = table(ui, t, &of, &mut scroll, |row| {
        let part = &rows[row];
        let line = &story.lines[part.lines.start];
        let gap = row.checked_sub(1).map_or_else(String::new, |p| {
            let before = story.lines[rows[p].lines.end - 1].ts;
            format!("+{}", fmt::time(line.ts.saturating_sub(before) as f64))
        });
        let time: Text = cx.at(line.ts).into();
        if line.text.starts_with("phase ") && phases.binary_search(&line.ts).is_ok() {
            // Whose marker it was does not matter here.
            let text = format!("──── {} ────", fmt::clean(&line.text));
            return vec![
                time,
                String::new().into(),
                String::new().into(),
                Text { text, color: Some(t.accent) },
            ];
        }
        let shown = match &part.text {
            Some(text) => format!("{} (click to see each)", fmt::clean(text)),
            None => fmt::clean(&line.text),
        };
        vec![
            time,
            Text { text: gap, color: Some(t.muted) },
            Text { text: fmt::clean(&line.who), color: Some(t.muted) },
            Text {
                text: shown,
                color: line.shade.map(|s| match s {
                    mmuscope_replay::Shade::Nonpresent
                    | mmuscope_replay::Shade::Unknown
                    | mmuscope_replay::Shade::Table => t.ink,
                    s => t.ink.lerp_to_gamma(t.shade(s), 0.55),
                }),
            },
        ]
    });
    cx.doc.tables.story.scroll = scroll;
    if let Some((row, part)) = done.picked.and_then(|r| Some((r, rows.get(r)?))) {
        let line = &story.lines[part.lines.start];
        if part.text.is_some() {
            cx.doc.tables.story.opened.insert(part.lines.start);
            // What opens is below the row.
            cx.doc.tables.story.scroll.top = row as f64;
        }
        match line.event {
            Some(ix) => cx.doc.select_event(cx.cap, ix),
            None => cx.doc.select_at(cx.cap, story.gfn, line.ts, None),
        }
    }
    cx.doc.tables.story.rows = rows;
    cx.doc.tables.story.story = Some(story);
}

/// Draws the switch of folding, says what the scope hides, and makes the rows where they have changed.
fn controls(ui: &mut Ui, cx: &mut Cx<'_>, story: &PageStory) {
    let scope = cx.doc.scopes.now();
    let cached = &mut cx.doc.tables.story;
    let made = cached.key.map(|key| (key, scope, cached.unfolded, cached.opened.len()));
    if made != cached.made {
        cached.made = made;
        cached.rows = rows(cx.cap, story, &scope, cached.unfolded, &cached.opened);
    }
    let cached = &mut cx.doc.tables.story;
    let shown: usize = cached.rows.iter().map(|p| p.lines.len()).sum();
    let folds = cached.unfolded || !cached.opened.is_empty() || cached.rows.iter().any(|p| p.text.is_some());
    if !folds && shown == story.lines.len() {
        return;
    }
    ui.horizontal(|ui| {
        let mut fold = !cached.unfolded && cached.opened.is_empty();
        let tip = "Show what repeats in one line; a click on such a line shows each";
        if folds && ui.checkbox(&mut fold, "fold what repeats").on_hover_text(tip).changed() {
            cached.unfolded = !fold;
            cached.opened.clear();
        }
        let hidden = (story.lines.len() - shown) as u64;
        if hidden > 0 {
            let text = format!("{} outside of the scope", fmt::plural(hidden, "line is", "lines are"));
            ui.label(RichText::new(text).size(11.5).color(cx.tokens.warn));
        }
    });
}

/// The rows of a story: the lines in the scope, with what repeats folded.
fn rows(
    cap: &Capture,
    story: &PageStory,
    scope: &Scope,
    unfolded: bool,
    opened: &BTreeSet<usize>,
) -> Vec<Fold> {
    let tid = |l: &StoryLine| l.event.and_then(|ix| cap.event(ix)).and_then(|e| e.tid);
    let inside =
        |l: &StoryLine| scope.has_time(cap, l.ts, l.ts) && scope.tid.is_none_or(|t| tid(l) == Some(t));
    let mut out = Vec::new();
    let mut at = 0;
    while at < story.lines.len() {
        // What is left out lies between two runs of lines, so that each run is folded by itself.
        let n = story.lines[at..].iter().take_while(|l| inside(l)).count();
        for part in fold(&story.lines[at..at + n]) {
            let lines = part.lines.start + at..part.lines.end + at;
            if unfolded || opened.contains(&lines.start) {
                out.extend(lines.map(|l| Fold { lines: l..l + 1, text: None }));
            } else {
                out.push(Fold { lines, text: part.text });
            }
        }
        at += n + 1;
    }
    out
}

/// Draws every span of every entry that covers the selected page.
pub(crate) fn spans(ui: &mut Ui, cx: &mut Cx<'_>) {
    let Some(gfn) = update(cx) else {
        nothing(ui, cx);
        return;
    };
    let all = std::mem::take(&mut cx.doc.tables.story.spans);
    let scope = cx.doc.scopes.now();
    let within = |s: &Span| scope.has_time(cx.cap, s.start, s.end.map_or(u64::MAX, |e| e.saturating_sub(1)));
    let spans: Vec<&(EntryId, Span)> = all.iter().filter(|(_, s)| within(s)).collect();
    let columns = [
        Column { name: "since", width: 140.0, right: true },
        Column { name: "for", width: 90.0, right: true },
        Column { name: "level", width: 52.0, right: false },
        Column { name: "state", width: 130.0, right: false },
        Column { name: "SPTE", width: 150.0, right: false },
        Column { name: "certainty", width: 80.0, right: false },
        Column { name: "why", width: 0.0, right: false },
    ];
    let at = cx
        .doc
        .selection
        .and_then(|s| spans.iter().position(|(e, sp)| Some(*e) == s.entry && sp.covers(s.time)));
    let mut scroll = cx.doc.tables.spans;
    let t = cx.tokens;
    let of = Table {
        name: "Spans of the page",
        columns: &columns,
        count: spans.len(),
        selected: at,
        ..Table::default()
    };
    let done = table(ui, t, &of, &mut scroll, |row| {
        let (entry, s) = spans[row];
        let level = cx.cap.timeline.entry(*entry).level;
        vec![
            cx.at(s.start).into(),
            s.end.map_or_else(|| "to the end".to_owned(), |e| fmt::time((e - s.start) as f64)).into(),
            fmt::level(level).into(),
            s.shade.name().into(),
            s.spte.map_or_else(String::new, fmt::spte).into(),
            Text { text: s.certainty.name().to_owned(), color: Some(t.muted) },
            Text { text: s.reason.words().to_owned(), color: Some(t.muted) },
        ]
    });
    cx.doc.tables.spans = scroll;
    if let Some((e, s)) = done.picked.and_then(|r| spans.get(r)) {
        cx.doc.select_at(cx.cap, gfn, s.start, Some(*e));
        cx.doc.reveal(cx.cap, Some(gfn));
    }
    cx.doc.tables.story.spans = all;
}
