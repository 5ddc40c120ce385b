//! Tests of the scope of the tables, of the order of the event table, and of the tab of huge pages.

use egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable;
use mmuscope_replay::EventIx;
use mmuscope_trace::Body;

use super::{Window, click, command, doc, labels, open, read, select, small, with_capture};
use crate::ThemeChoice;
use crate::capture::Capture;
use crate::command::Command;
use crate::passing::{By, Order, Wish, find};
use crate::scope::{Frames, Scope};

/// The numbers of the first rows of the event table.
fn first_rows(h: &mut Window, n: usize) -> Vec<EventIx> {
    let shared = std::sync::Arc::clone(&doc(h).capture);
    let cap = crate::capture::read(&shared);
    let events = &doc(h).tables.events;
    (0..n.min(events.len(&cap))).filter_map(|r| events.event_at(r)).collect()
}

#[test]
fn a_click_on_a_head_sorts_the_events_and_another_one_turns_the_order() {
    let mut h = open(small(), ThemeChoice::Dark);
    assert_eq!(first_rows(&mut h, 3), [0, 1, 2]);
    h.get_by_label("Sort by gfn").click();
    h.run_ok();
    h.run_ok();
    let gfns = |h: &mut Window| {
        let rows = first_rows(h, 21);
        assert_eq!(rows.len(), 21, "no row is lost");
        with_capture(h, |c| {
            rows.iter().map(|ix| Capture::gfn_of(&c.event(*ix).expect("there"))).collect::<Vec<_>>()
        })
    };
    // The frames as the text names them, the lowest first; what names none comes last.
    let up = gfns(&mut h);
    let named: Vec<u64> = up.iter().map_while(|g| *g).collect();
    assert!(named.is_sorted() && named.len() > 8 && up[named.len()..].iter().all(Option::is_none), "{up:?}");
    assert_eq!(named.last(), Some(&0xd0000));
    h.get_by_label("Sort by gfn").click();
    h.run_ok();
    h.run_ok();
    let down = gfns(&mut h);
    assert_eq!(down[0], Some(0xd0000), "{down:?}");
    assert!(down[named.len()..].iter().all(Option::is_none), "what has no frame stays last: {down:?}");
    // A key selects the next row of this order.
    doc(&mut h).selection = None;
    h.key_press(Key::J);
    h.run_ok();
    let first = first_rows(&mut h, 1)[0];
    assert_eq!(doc(&mut h).selection.and_then(|s| s.event), Some(first));
    h.get_by_label("Sort by time").click();
    h.run_ok();
    h.run_ok();
    assert_eq!(first_rows(&mut h, 3), [0, 1, 2]);
    assert!(
        h.query_all_by_label("Sort by fields").next().is_none(),
        "a head that sorts nothing is no button"
    );
}

/// Every order of a real trace is that of a plain sort, and finds the row of each event again.
#[test]
fn orders_are_those_of_a_plain_sort_and_rows_are_found_again() {
    let cap = read("6.1-npt/trace.txt.zst");
    for by in [By::Vcpu, By::Kind, By::Gfn, By::Task, By::Cpu, By::Time] {
        for down in [false, true] {
            if (by, down) == (By::Time, false) {
                continue;
            }
            let text = "event contains 'kvm_'".to_owned();
            let wish = Wish { text, order: Order { by, down }, ..Wish::default() };
            let found = find(&cap, &wish).unwrap_or_else(|e| panic!("{e}"));
            let rows: Vec<EventIx> = (0..found.len()).filter_map(|r| found.event_at(r)).collect();
            let value = |ix: EventIx| {
                let e = cap.event(ix).expect("there");
                let text = match by {
                    By::Kind => cap.event_name(&e).to_owned(),
                    By::Task => format!("{} {:010}", cap.trace.strings.get(e.comm), e.tid.unwrap_or(0)),
                    _ => String::new(),
                };
                let number = match by {
                    By::Vcpu => cap.whose().vcpu(&e).map(u64::from),
                    By::Gfn => Capture::gfn_of(&e),
                    By::Cpu => Some(u64::from(e.cpu)),
                    By::Time => Some(u64::from(ix)),
                    By::Kind | By::Task => Some(0),
                };
                (number.is_none(), text, number)
            };
            // An event is unpacked once: its value is asked for in every comparison.
            let mut plain: Vec<_> = found.hits.iter().map(|ix| (value(*ix), *ix)).collect();
            plain.sort_by(|(a, _), (b, _)| {
                let rest = (&a.1, a.2).cmp(&(&b.1, b.2));
                a.0.cmp(&b.0).then(if down { rest.reverse() } else { rest })
            });
            assert!(rows.iter().eq(plain.iter().map(|(_, ix)| ix)), "{by:?} {down}");
            for row in (0..rows.len()).step_by(997) {
                assert_eq!(found.row_of(&cap, rows[row]), row, "{by:?} {down}");
            }
        }
    }
}

#[test]
fn the_scope_is_time_and_frames_and_vcpu_of_every_table_and_each_step_can_be_taken_back() {
    let mut h = open(small(), ThemeChoice::Dark);
    assert!(labels(&h, "Events: 21 rows"));
    // Time: between the cursors, which lie before and after the three events that make its entries of the MMIO page.
    doc(&mut h).cursors = [Some(245_000.0), Some(254_500.0)];
    command(&mut h, Command::ScopeCursors);
    h.run_ok();
    assert!(labels(&h, "Events: 3 rows"), "{:?}", first_rows(&mut h, 9));
    // Frames: the selected page on top of the time.
    select(&mut h, 0xd0000, 256_000);
    command(&mut h, Command::ScopePage);
    h.run_ok();
    let rows = first_rows(&mut h, 9);
    let all_cover = with_capture(&mut h, |c| {
        rows.iter().all(|ix| {
            c.event(*ix).and_then(|e| e.body.covers()).is_some_and(|(a, b)| a <= 0xd0000 && 0xd0000 < b)
        })
    });
    assert!(all_cover && !rows.is_empty(), "{rows:?}");
    // The spans and the life of the page are of this time as well.
    command(&mut h, Command::TabStory);
    assert!(labels(&h, "outside of the scope"));
    command(&mut h, Command::TabFindings);
    h.get_by_label("Hot pages").click();
    h.run_ok();
    assert!(labels(&h, "Hot pages: 0 rows"), "the fault and the access came after the time");
    // A click on a step of the line goes back to it.
    assert_eq!(doc(&mut h).scopes.len(), 2);
    h.get_by_label("whole trace").click();
    h.run_ok();
    assert!(doc(&mut h).scopes.now().is_all());
    let query = mmuscope_analysis::hot::HotQuery { level: 1, ..Default::default() };
    let hot =
        with_capture(&mut h, |c| mmuscope_analysis::hot::hot_pages(&c.trace, &c.timeline, &query).len());
    assert!(hot > 1 && labels(&h, &format!("Hot pages: {hot} rows")), "{hot}");
    // A vCPU: load-110 is no vCPU thread, and its four events are out.
    command(&mut h, Command::TabEvents);
    doc(&mut h).scopes.narrow(Scope { tid: Some(111), ..Scope::default() });
    h.run_ok();
    h.run_ok();
    assert!(labels(&h, "Events: 17 rows"), "{:?}", first_rows(&mut h, 30));
    assert!(labels(&h, "vCPU 0"));
    h.key_press(Key::Backspace);
    h.run_ok();
    assert!(labels(&h, "Events: 21 rows"));
    h.check_accessibility();
}

#[test]
fn narrowing_to_the_view_takes_what_is_in_sight() {
    let mut h = open(small(), ThemeChoice::Dark);
    h.key_press(Key::R);
    h.run_ok();
    assert!(doc(&mut h).scopes.now().is_all(), "the whole trace is in view");
    assert!(labels(&h, "zoom in first"));
    let view = doc(&mut h).view;
    let rows = with_capture(&mut h, |c| c.rows_of(view.vm, view.as_id, 0x100, 0x102)).expect("on the axis");
    {
        let shared = std::sync::Arc::clone(&doc(&mut h).capture);
        let cap = crate::capture::read(&shared);
        doc(&mut h).show(&cap, crate::view::Range::new(100_000.0, 600_000.0), rows);
    }
    h.key_press(Key::R);
    h.run_ok();
    let scope = doc(&mut h).scopes.now();
    assert_eq!(scope.time, Some((100_000, 600_000)));
    assert_eq!(scope.frames, Some(Frames { vm: view.vm, as_id: 0, first: 0x100, last: 0x101 }));
}

/// An event that the scope hides is shown again by the button that says so.
#[test]
fn what_the_scope_hides_is_named_and_can_be_shown() {
    let mut h = open(small(), ThemeChoice::Dark);
    doc(&mut h).scopes.narrow(Scope { time: Some((0, 200_000)), ..Scope::default() });
    h.run_ok();
    select(&mut h, 0x100, 950_000);
    h.run_ok();
    assert!(labels(&h, "is hidden by the scope"));
    h.get_by_label("show").click();
    h.run_ok();
    h.run_ok();
    assert!(labels(&h, "Events: 21 rows") && !labels(&h, "is hidden by"));
}

/// The numbers of splits are those of the events: a 2M leaf of NPT has bit 7, and a table has not.
#[test]
fn huge_pages_say_as_what_each_range_is_mapped_and_how_often_it_was_split() {
    let cap = read("6.1-npt-nommio/trace.txt.zst");
    let large = |v: u64| v & 1 != 0 && v & 0x80 != 0;
    let mut split: Vec<(u64, u64)> = Vec::new();
    for e in cap.trace.events.range(0..cap.trace.events.len()) {
        if let Body::TdpSpteChanged { level: 2, gfn, old_spte, new_spte, .. } = e.body
            && large(old_spte)
            && new_spte & 0x81 == 1
        {
            split.push((gfn, e.ts));
        }
    }
    assert!(split.len() > 3, "the workload splits: {split:x?}");
    let mut h = open(cap, ThemeChoice::Dark);
    h.key_press_modifiers(Modifiers::ALT, Key::Num9);
    h.run_ok();
    h.run_ok();
    assert!(labels(&h, &format!("; {} splits and", split.len())), "{}", split.len());
    assert!(labels(&h, "Share of memory in large pages over the time in view"));
    // The range that was split is found by sorting, and a click selects the event that split it.
    h.get_by_label("Sort by splits").click();
    h.run_ok();
    let (first, ts) = split[0];
    let row = mmuscope_units::gfn_range(first, first + 512);
    let at = h.get_all_by_label_contains(&row).next().unwrap_or_else(|| panic!("{row}")).rect().center();
    click(&mut h, at);
    let s = doc(&mut h).selection.expect("selected");
    let e = with_capture(&mut h, |c| c.event(s.event.expect("an event")).expect("there").body);
    assert!(matches!(e, Body::TdpSpteChanged { level: 2, gfn, .. } if gfn == first), "{e:?}");
    assert!(s.time >= ts, "the last change of the range comes after its split, or is it");
    // Just before the split the range was one 2M page.
    let before = with_capture(&mut h, |c| ts - c.start() - 1);
    select(&mut h, first, before);
    h.run_ok();
    h.run_ok();
    assert!(labels(&h, &format!("{row}, ")) && labels(&h, "one 2M page"));
    h.check_accessibility();
}

/// What repeats in a life is one line, which a click opens.
#[test]
fn the_life_of_a_page_folds_what_repeats() {
    let cap = read("6.1-npt-nommio/trace.txt.zst");
    let (top, faults) = (cap.timeline.top_faults(9), 100);
    let page = top.iter().find(|p| p.gfn == 0x11f1).expect("a page with a loop of retries");
    assert!(page.count > faults);
    let lines = cap.timeline.page_story(&cap.trace, page.vm, 0, page.gfn).lines.len();
    let mut h = open(cap, ThemeChoice::Dark);
    let after = with_capture(&mut h, |c| page.first - c.start() + 1_000_000);
    select(&mut h, 0x11f1, after);
    command(&mut h, Command::TabStory);
    assert!(labels(&h, "write fault at rip 0x8022: retry × ") && labels(&h, "(click to see each)"));
    assert!(labels(&h, "──── phase race ────"), "the phase is a line between");
    assert!(!labels(&h, &format!("Life of the page: {lines} rows")));
    let at = h.get_all_by_label_contains("retry × ").next().expect("folded").rect().center();
    click(&mut h, at);
    h.run_ok();
    assert!(labels(&h, "retry, try 3"), "each line is there");
    h.get_by_label("fold what repeats").click();
    h.run_ok();
    assert!(labels(&h, "(click to see each)"));
    h.get_by_label("fold what repeats").click();
    h.run_ok();
    assert!(labels(&h, &format!("Life of the page: {lines} rows")));
}

/// Two VMs on one time axis; a click in the other map selects there, and it stays where it is.
#[test]
fn two_vms_are_shown_side_by_side_on_one_time_axis() {
    let both = super::TEXT.to_owned()
        + &super::TEXT
            .lines()
            .skip(2)
            .map(|l| l.replace("load-11", "qemu-21").replace(" 10.00", " 10.01") + "\n")
            .collect::<String>();
    let trace = mmuscope_trace::Trace::from_text(&both).expect("a trace");
    let timeline = mmuscope_replay::replay(&trace, &mmuscope_replay::ReplayOptions::default());
    let cap = Capture { trace, timeline, ..small() };
    assert_eq!(cap.spaces().len(), 2, "{:?}", cap.spaces());
    let mut h = open(cap, ThemeChoice::Dark);
    let whole = h.get_by_label_contains("GFN map").rect();
    h.key_press_modifiers(Modifiers::SHIFT, Key::V);
    h.run_ok();
    let maps: Vec<egui::Rect> = h.query_all_by_label_contains("GFN map").map(|n| n.rect()).collect();
    assert_eq!(maps.len(), 2);
    assert!((maps[0].left() - maps[1].left()).abs() < 0.5 && (maps[0].width() - maps[1].width()).abs() < 0.5);
    assert!(maps[0].bottom() < maps[1].top() && whole.contains_rect(maps[0]) && whole.contains_rect(maps[1]));
    let first = doc(&mut h).view.vm;
    let times = doc(&mut h).view.time;
    // Frame 0x100 of the other VM, after it was mapped.
    let second = with_capture(&mut h, |c| c.spaces()[1].clone());
    let (row, all) = with_capture(&mut h, |c| {
        let row = c.row_of(second.vm, second.as_id, 0x100).expect("on the axis");
        (row + 0.2, c.full_rows(second.vm, second.as_id))
    });
    let y = maps[1].bottom() - maps[1].height() * all.fraction(row) as f32;
    click(&mut h, egui::pos2(maps[1].left() + maps[1].width() * 0.945, y));
    let d = doc(&mut h);
    assert_ne!(d.view.vm, first, "the other VM is the selected one");
    assert!(d.selection.is_some() && d.view.time == times);
    let after: Vec<egui::Rect> = h.query_all_by_label_contains("GFN map").map(|n| n.rect()).collect();
    assert!(after.iter().all(|r| maps.iter().any(|m| (m.top() - r.top()).abs() < 0.5)), "{maps:?} {after:?}");
    h.key_press_modifiers(Modifiers::SHIFT, Key::V);
    h.run_ok();
    assert_eq!(h.query_all_by_label_contains("GFN map").count(), 1);
}

/// The filter is completed as it is typed: a key takes the first suggestion, arrows and Enter another one.
#[test]
fn the_filter_is_completed_as_it_is_typed() {
    let mut h = open(small(), ThemeChoice::Dark);
    h.key_press(Key::Slash);
    h.run_ok();
    h.get_by_label("Filter events").type_text("ev");
    h.run_ok();
    assert!(labels(&h, "Tab takes it"));
    h.key_press(Key::Tab);
    h.run_ok();
    assert_eq!(doc(&mut h).tables.events.filter(), "event");
    h.get_by_label("Filter events").type_text("== 'kvm_ent");
    h.run_ok();
    h.key_press(Key::Tab);
    h.run_ok();
    assert_eq!(doc(&mut h).tables.events.filter(), "event == 'kvm_entry'");
    h.run_ok();
    assert!(labels(&h, "Events: 3 rows"));
    h.key_press(Key::ArrowDown);
    h.run_ok();
    h.key_press(Key::ArrowDown);
    h.run_ok();
    h.key_press(Key::Enter);
    h.run_ok();
    assert_eq!(doc(&mut h).tables.events.filter(), "event == 'kvm_entry' or");
    h.check_accessibility();
}
