//! The map says only what is so: what its tooltip and a click say of a place is what the entries held there, at any zoom and size of the window.

use std::sync::Arc;

use egui::{Pos2, pos2, vec2};
use egui_kittest::kittest::Queryable;
use mmuscope_replay::{Entry, LayoutOverride, Shade, Span, State};

use super::{Window, doc, open, read, with_capture};
use crate::ThemeChoice;
use crate::capture::Capture;
use crate::fmt;
use crate::probe::Probe;
use crate::view::Range;

/// A generator of numbers below a bound (xorshift): the same at each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }

    fn part(&mut self) -> f64 {
        self.below(1 << 30) as f64 / (1u64 << 30) as f64
    }
}

fn window(name: &str) -> Window {
    open(read(name), ThemeChoice::Dark)
}

fn is_page(s: &Span) -> bool {
    matches!(s.state, State::Present | State::Mmio | State::Removed)
}

/// What entries that cover a frame held at a moment, looked for in all spans of all entries, as `mmuscope state` lists them.
fn held(cap: &Capture, vm: mmuscope_replay::VmId, as_id: u8, gfn: u64, t: u64) -> Vec<(Entry, Span)> {
    let all = cap.timeline.state_at(t, &mmuscope_replay::StateFilter::default());
    all.into_iter()
        .filter(|(e, _)| (e.vm, e.as_id) == (vm, as_id) && e.gfn <= gfn && gfn < e.gfn + e.pages())
        .collect()
}

/// Points at a place of the map.
fn point(h: &mut Window, at: Pos2) {
    h.hover_at(at);
    h.run_steps(3);
}

/// Compares what the window says of a place with the spans of the entries, and gives what it says; nothing in a fold.
fn check(h: &mut Window, at: Pos2) -> Option<Probe> {
    point(h, at);
    let probe = doc(h).pointed.clone()?;
    let view = doc(h).view;
    let said = |h: &Window, text: &str| h.query_all_by_label_contains(text).next().is_some();
    let place = format!("{:?} of {view:?} at {at:?}", probe.gfn);
    let truth = with_capture(h, |cap| held(cap, view.vm, view.as_id, probe.gfn, probe.time));
    let here = with_capture(h, |cap| held(cap, view.vm, view.as_id, probe.pointed, probe.time));
    let time = with_capture(h, |cap| fmt::exact(cap.rel(probe.time) as u64));
    assert!(said(h, &format!("GFN {}", fmt::gfn(probe.gfn))) && said(h, &format!("at {time}")), "{place}");
    match &probe.found {
        Some((entry, span)) => {
            let same = |(e, s): &(Entry, Span)| {
                e.id == entry.id && (s.state, s.spte, s.certainty) == (span.state, span.spte, span.certainty)
            };
            assert!(truth.iter().any(same), "{place}: {span:?} is not of {truth:?}");
            assert!(
                entry.gfn <= probe.gfn && probe.gfn < entry.gfn + entry.pages(),
                "{place}: the entry's own frame"
            );
            if let Some(v) = span.spte {
                assert!(said(h, &fmt::spte(v)), "{place}: the value");
            }
            assert!(said(h, &format!("{}: ", span.certainty.name())), "{place}");
            // A page is never passed over for something that is none.
            assert!(is_page(span) || !truth.iter().any(|(_, s)| is_page(s)), "{place}: {truth:?}");
        }
        None => assert!(!truth.iter().any(|(_, s)| s.state != State::Unknown), "{place}: {truth:?}"),
    }
    // The frame under the pointer is the one that is spoken of, unless it has no page and another in the pixel has.
    let page_here = here.iter().any(|(_, s)| is_page(s));
    assert!(!page_here || probe.gfn == probe.pointed, "{place}: {} under the pointer", probe.pointed);
    let total: u64 = probe.tally.iter().map(|t| t.0).sum();
    assert_eq!(total, probe.frames, "{place}");
    for shade in Shade::ALL {
        let (n, near) = probe.tally[shade as usize];
        if n > 0 && probe.frames > 1 && shade.state() != State::Unknown && shade.state() != State::Nonpresent
        {
            let there = with_capture(h, |cap| held(cap, view.vm, view.as_id, near, probe.time));
            assert!(
                there.iter().any(|(_, s)| s.shade == shade),
                "{place}: {near:#x} is no {shade:?}: {there:?}"
            );
            let share = if n < probe.frames {
                format!("{} of {} frames here", fmt::count(n), fmt::count(probe.frames))
            } else {
                format!("all {} frames here", fmt::count(n))
            };
            assert!(said(h, &share), "{place}: {share}");
        }
    }
    // A click selects what the tooltip says.
    h.drag_at(at);
    h.drop_at(at);
    h.run_steps(2);
    let s = doc(h).selection.expect("something is selected");
    assert_eq!(
        (s.gfn, s.time, s.entry),
        (probe.gfn, probe.time, probe.found.as_ref().map(|f| f.0.id)),
        "{place}"
    );
    Some(probe)
}

fn zoom(h: &mut Window, time: Range, rows: Range) {
    let shared = Arc::clone(&doc(h).capture);
    let cap = crate::capture::read(&shared);
    doc(h).show(&cap, time, rows);
    drop(cap);
    h.run_steps(2);
}

#[test]
fn at_any_zoom_the_tooltip_says_what_state_says() {
    for (name, seed) in [
        ("6.1-npt/trace.txt.zst", 7),
        ("5.10-ept-ad/trace.txt.zst", 11),
        ("5.10-shadow64/trace.txt.zst", 13),
        ("7.3-npt/trace.txt.zst", 17),
    ] {
        let mut win = window(name);
        let mut numbers = Numbers(seed);
        let (view, time) = (doc(&mut win).view, with_capture(&mut win, Capture::full_time));
        let rows = with_capture(&mut win, |c| c.full_rows(view.vm, view.as_id));
        let (mut pages, mut several) = (0, 0);
        for round in 0..12u64 {
            // Everything first, then ever smaller parts, in windows of several heights.
            let shrink = |numbers: &mut Numbers, full: Range, by: f64| {
                let span = full.span() * by;
                let start = full.start + (full.span() - span) * numbers.part();
                Range::new(start, start + span)
            };
            let by = 0.5f64.powi(round as i32);
            let (times, frames) =
                (shrink(&mut numbers, time, by), shrink(&mut numbers, rows, by.max(16.0 / rows.span())));
            win.set_size(vec2(1200.0, [800.0, 560.0, 1000.0][round as usize % 3]));
            zoom(&mut win, times, frames);
            let map = win.get_by_label_contains("GFN map").rect();
            for _ in 0..4 {
                let x = map.left() + 1.0 + (map.width() - 2.0) * numbers.part() as f32;
                let y = map.top() + 1.0 + (map.height() - 2.0) * numbers.part() as f32;
                let Some(probe) = check(&mut win, pos2(x.round(), y.round())) else { continue };
                pages += u32::from(probe.found.is_some_and(|(_, s)| is_page(&s)));
                several += u32::from(probe.frames > 1);
            }
        }
        assert!(pages >= 5 && several >= 4, "{name}: {pages} pages, {several} pixels of several frames");
    }
}

/// A page every 64 frames, all of them RAM but one, and nothing known of the frames between.
fn sparse() -> Capture {
    let head: String = super::TEXT.split_inclusive('\n').take(11).collect();
    let line = |n: u64, gfn: u64, level: u8, new: u64| {
        format!(
            "            load-111 [000] ..... 10.{:06}: kvm_tdp_mmu_spte_changed: as id 0 gfn {gfn:x} level {level} old_spte 0 new_spte {new:x}\n",
            200 + n
        )
    };
    let mut text = head;
    for n in 0..256u64 {
        let gfn = n * 64;
        let spte = if n == 100 { 0x0008_0000_0000_0017 | gfn << 12 } else { 0x36d_6e67 + (n << 12) };
        // Each table of 512 entries is linked before its first entry is set; the first is linked already.
        if gfn % 512 == 0 && gfn > 0 {
            text.push_str(&line(n, gfn, 2, 0x3a0_5827 + (n << 12)));
        }
        text.push_str(&line(n, gfn, 1, spte));
    }
    text.push_str("            load-111 [000] ..... 10.001000: kvm_entry: vcpu 0, rip 0x6000\n");
    let trace = mmuscope_trace::Trace::from_text(&text).expect("a trace");
    let spec = mmuscope_spte::LayoutSpec::named("6.1/npt").expect("ours");
    let options = mmuscope_replay::ReplayOptions {
        layout: LayoutOverride { spec },
        ..mmuscope_replay::ReplayOptions::default()
    };
    let timeline = mmuscope_replay::replay(&trace, &options);
    Capture { trace, timeline, ..super::small() }
}

/// One page among frames of which nothing is known says what it is, and its pixel states the share.
#[test]
fn one_page_does_not_speak_for_its_neighbours() {
    const MMIO: u64 = 100 * 64;
    let mut h = open(sparse(), ThemeChoice::Dark);
    for height in [600.0, 800.0] {
        h.set_size(vec2(1200.0, height));
        h.run_steps(3);
        let map = h.get_by_label_contains("GFN map").rect();
        let rows = doc(&mut h).view.rows;
        let row = with_capture(&mut h, |c| c.row_of(doc_vm(), 0, MMIO)).expect("on the axis");
        let at = pos2(map.right() - 40.0, map.bottom() - map.height() * rows.fraction(row + 0.5) as f32);
        let probe = check(&mut h, at).expect("on the map");
        assert!(probe.frames > 10, "{probe:?}");
        assert_eq!(probe.gfn, MMIO, "{height}: {probe:?}");
        assert!(probe.found.as_ref().is_some_and(|(_, s)| s.state == State::Mmio), "{probe:?}");
        point(&mut h, at);
        // Its neighbours in the pixel are pages of RAM, 64 frames apart, and frames between of which nothing is known.
        let of = |s: Shade| probe.tally[s as usize].0;
        assert!(of(Shade::Writable) <= probe.frames / 64 + 1, "{probe:?}");
        assert_eq!(of(Shade::Unknown) + of(Shade::Writable) + 1, probe.frames);
        for text in [
            format!("1 of {} frames here is MMIO", probe.frames),
            format!("{} of {} frames here are unknown", of(Shade::Unknown), probe.frames),
        ] {
            assert!(h.query_all_by_label_contains(&text).next().is_some(), "{height}: {text}: {probe:?}");
        }
        // The pixel is a mixture: mostly the background, whose dots are seen through it.
        let picture = doc(&mut h).pictures.shown.as_ref().expect("a picture");
        let mmio = picture.map.cells.iter().filter(|c| c.counts[Shade::Mmio as usize] > 0);
        for c in mmio {
            assert!(c.cover > 0 && c.cover < 64 && c.rest() == Shade::Unknown, "{c:?}");
        }
    }
}

fn doc_vm() -> mmuscope_replay::VmId {
    mmuscope_replay::VmId(0)
}
