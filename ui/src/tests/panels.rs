//! Tests of what every panel shows and does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use egui::{Key, Modifiers, MouseWheelUnit, Pos2, TouchPhase, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use mmuscope_replay::{LayoutOverride, ReplayOptions, State, replay};
use mmuscope_trace::{Progress, Trace};

use super::{Window, command, doc, empty, open, select, small, with_capture};
use crate::ThemeChoice;
use crate::capture::Capture;
use crate::command::Command;
use crate::contain::Contained;
use crate::load::{Job, Loaded, Loading, News, Source};
use crate::panels::tables::Tab;

fn window() -> Window {
    open(small(), ThemeChoice::Dark)
}

fn middle_of(h: &Window, label: &str) -> Pos2 {
    h.get_by_label_contains(label).rect().center()
}

fn wheel(h: &mut Window, at: Pos2, lines: f32, modifiers: Modifiers) {
    h.hover_at(at);
    h.run_ok();
    h.event_modifiers(
        egui::Event::MouseWheel {
            unit: MouseWheelUnit::Line,
            delta: vec2(0.0, lines),
            phase: TouchPhase::Move,
            source: egui::MouseWheelSource::Wheel,
            modifiers,
        },
        modifiers,
    );
    h.run_ok();
}

#[test]
fn every_panel_is_there_by_name() {
    let h = window();
    for name in [
        "GFN map: guest frames over time",
        "Overview: events over the whole trace",
        "Overview of the GFN space",
        "Time axis",
        "Area: entries per state over time",
        "Phase boot",
        "Phase protect",
        "Events: 21 rows",
        "Filter events",
        "VM and address space",
    ] {
        assert!(h.query_all_by_label_contains(name).next().is_some(), "{name}");
    }
    for name in [
        "File",
        "View",
        "Go",
        "Panels",
        "Help",
        "Back",
        "Forward",
        "Events table",
        "Life of the page",
        "Layout",
        "Recording",
    ] {
        assert!(h.query_all_by_label(name).next().is_some(), "{name}");
    }
    h.check_accessibility();
}

#[test]
fn a_row_of_the_table_selects_its_page_and_the_details_decode_it() {
    let mut h = window();
    let row = h.get_by_label_contains("old_spte=0x0  new_spte=0x36d6e67").rect().center();
    h.hover_at(row);
    h.run_ok();
    h.drag_at(row);
    h.drop_at(row);
    h.run_ok();
    let s = doc(&mut h).selection.expect("something is selected");
    assert_eq!(s.gfn, 0x100);
    assert!(h.query_all_by_label_contains("GFN 0x100").next().is_some());
    // The kernel printed (rwxu) for this value, and 36d6e67 maps frame 0x36d6.
    assert!(h.query_all_by_label_contains("64-bit diagram of 0x00000000036d6e67").next().is_some());
    assert!(h.query_all_by_label_contains("page frame = 0x36d6").next().is_some());
    assert!(h.query_all_by_label_contains("writable = 1").next().is_some());
}

#[test]
fn the_go_to_box_takes_frames_times_and_events_and_says_what_it_does_not() {
    let mut h = window();
    let mut go = |text: &str| {
        // What was typed before is selected, so that this replaces it.
        h.key_press_modifiers(Modifiers::COMMAND, Key::G);
        h.run_ok();
        h.get_by_label("Go to").type_text(text);
        h.run_ok();
        h.key_press(Key::Enter);
        h.run_ok();
        let error = h.query_all_by_label_contains("no event is about").next().is_some();
        (doc(&mut h).selection, error)
    };
    let (s, _) = go("gfn 0x101");
    assert_eq!(s.map(|s| s.gfn), Some(0x101));
    let (s, _) = go("#8");
    assert_eq!(s.and_then(|s| s.event), Some(8));
    let (s, error) = go("gfn 0x7777777");
    assert!(error);
    assert_eq!(s.and_then(|s| s.event), Some(8), "the selection stays");
    let (_, error) = go("0.1-0.3ms");
    assert!(!error, "the error of the place before is gone");
    let view = doc(&mut h).view;
    assert_eq!((view.time.start, view.time.end), (1e5, 3e5));
    h.key_press_modifiers(Modifiers::COMMAND, Key::G);
    h.run_ok();
    h.get_by_label("Go to").type_text("0x100-0x101");
    h.run_ok();
    h.key_press(Key::Enter);
    h.run_ok();
    let rows = doc(&mut h).view.rows;
    let wanted = with_capture(&mut h, |c| c.rows_of(view.vm, view.as_id, 0x100, 0x102)).expect("on the axis");
    assert_eq!(rows, wanted);
}

/// A frame that only tables cover is shown where it is, not where the table begins.
#[test]
fn fitting_a_frame_without_a_page_shows_that_frame() {
    let mut h = window();
    // Before its first event, the page is below tables of 512G, 1G and 2M.
    let start = with_capture(&mut h, Capture::start);
    {
        let shared = Arc::clone(&doc(&mut h).capture);
        let cap = crate::capture::read(&shared);
        let vm = doc(&mut h).view.vm;
        let table =
            cap.timeline.entries_at(vm, 0, 0xd0000).into_iter().find(|e| cap.timeline.entry(*e).level == 3);
        doc(&mut h).select_at(&cap, 0xd0000, start + 251_000, table);
    }
    command(&mut h, Command::FitSelection);
    let view = doc(&mut h).view;
    let row = with_capture(&mut h, |c| c.row_of(view.vm, view.as_id, 0xd0000)).expect("on the axis");
    assert!(view.rows.start <= row && row < view.rows.end, "{row} of {view:?}");
}

#[test]
fn a_selected_event_that_the_filter_hides_is_named_and_can_be_shown() {
    let mut h = window();
    h.key_press(Key::Slash);
    h.run_ok();
    h.get_by_label("Filter events").type_text("event == 'kvm_entry'");
    h.run_ok();
    h.run_ok();
    select(&mut h, 0x100, 200_000);
    h.run_ok();
    assert!(h.query_all_by_label_contains("#8 is hidden by the filter").next().is_some());
    h.get_by_label("show").click();
    h.run_ok();
    h.run_ok();
    assert!(h.query_all_by_label_contains("Events: 21 rows").next().is_some());
    assert!(h.query_all_by_label_contains("hidden by the filter").next().is_none());
}

#[test]
fn a_column_can_be_widened_and_text_that_is_cut_is_shown_whole() {
    let mut h = window();
    let width = |h: &Window| h.get_by_label("Width of the column event").rect().center();
    let (before, grip) = (width(&h), width(&h));
    h.drag_at(grip);
    h.run_ok();
    h.hover_at(grip + vec2(-120.0, 0.0));
    h.run_ok();
    h.drop_at(grip + vec2(-120.0, 0.0));
    h.run_ok();
    assert!((before.x - width(&h).x - 120.0).abs() < 12.0, "{before:?} {:?}", width(&h));
    let row = h.get_by_label_contains("kvm_tdp_mmu_spte_changed, 0x100").rect();
    h.hover_at(Pos2::new(width(&h).x - 20.0, row.center().y));
    h.run_ok();
    assert!(
        h.query_all_by_label("kvm_tdp_mmu_spte_changed").next().is_some(),
        "the tooltip has the whole text"
    );
}

#[test]
fn an_open_menu_closes_with_esc_and_the_selection_stays() {
    let mut h = window();
    select(&mut h, 0x100, 200_000);
    h.get_by_label("Panels").click();
    h.run_ok();
    assert!(h.query_all_by_label_contains("Legend").next().is_some());
    h.key_press(Key::Escape);
    h.run_ok();
    assert!(h.query_all_by_label_contains("Legend").next().is_none(), "closed");
    assert!(doc(&mut h).selection.is_some());
    h.key_press(Key::Escape);
    h.run_ok();
    assert!(doc(&mut h).selection.is_none());
}

/// In a small window the map keeps most of the room.
#[test]
fn a_small_window_has_a_map() {
    let mut h = window();
    for (size, least) in [(vec2(900.0, 600.0), vec2(380.0, 120.0)), (vec2(640.0, 420.0), vec2(480.0, 90.0))] {
        h.set_size(size);
        h.run_steps(6);
        let map = h.get_by_label_contains("GFN map").rect();
        assert!(map.width() >= least.x && map.height() >= least.y, "{size:?}: {map:?}");
        assert!(map.max.x <= size.x && map.max.y <= size.y, "{size:?}: {map:?}");
        let table = h.get_by_label_contains("Events: ").rect();
        assert!(table.height() >= 30.0 && table.max.y <= size.y, "{size:?}: rows are seen: {table:?}");
    }
}

#[test]
fn next_and_previous_change_walk_the_life_of_the_entry() {
    let mut h = window();
    select(&mut h, 0x100, 200_000);
    let state = |h: &mut Window| {
        let s = doc(h).selection.expect("selected");
        with_capture(h, |c| {
            let span = c.timeline.span_at(s.entry.expect("entry"), s.time).expect("span");
            (span.state, span.spte, c.rel(s.time) as u64)
        })
    };
    assert_eq!(state(&mut h), (State::Present, Some(0x36d_6e67), 200_000));
    h.key_press(Key::Period);
    h.run_ok();
    assert_eq!(state(&mut h), (State::Present, Some(0x36d_6c65), 500_000));
    h.key_press(Key::Period);
    h.run_ok();
    assert_eq!(state(&mut h), (State::Nonpresent, Some(0), 900_000));
    h.key_press(Key::Comma);
    h.run_ok();
    assert_eq!(state(&mut h).2, 500_000);
}

#[test]
fn wheel_zooms_at_the_pointer_and_modifiers_choose_the_axis() {
    let mut h = window();
    let map = h.get_by_label_contains("GFN map").rect();
    let at = map.left_top() + map.size() * vec2(0.25, 0.5);
    let before = doc(&mut h).view;
    wheel(&mut h, at, 1.0, Modifiers::NONE);
    let both = doc(&mut h).view;
    assert!(both.time.span() < before.time.span() && both.rows.span() < before.rows.span());
    assert!((both.time.at(0.25) - before.time.at(0.25)).abs() < before.time.span() * 0.01);
    wheel(&mut h, at, 1.0, Modifiers::CTRL);
    let time_only = doc(&mut h).view;
    assert!(time_only.time.span() < both.time.span());
    assert!((time_only.rows.span() - both.rows.span()).abs() < 1e-9);
    wheel(&mut h, at, 1.0, Modifiers::SHIFT);
    let rows_only = doc(&mut h).view;
    assert!((rows_only.time.span() - time_only.time.span()).abs() < 1e-6);
    assert!(rows_only.rows.span() < time_only.rows.span());
    h.key_press(Key::F);
    h.run_ok();
    assert_eq!(doc(&mut h).view, before, "F shows everything again");
}

#[test]
fn dragging_moves_and_stops_at_the_ends() {
    let mut h = window();
    let at = middle_of(&h, "GFN map");
    wheel(&mut h, at, 5.0, Modifiers::CTRL);
    let before = doc(&mut h).view.time;
    h.drag_at(at);
    h.run_ok();
    h.hover_at(at + vec2(-80.0, 0.0));
    h.run_ok();
    h.drop_at(at + vec2(-80.0, 0.0));
    h.run_ok();
    let after = doc(&mut h).view.time;
    assert!(after.start > before.start, "{before:?} {after:?}");
    assert!((after.span() - before.span()).abs() < 1.0);
    for _ in 0..60 {
        h.key_press(Key::D);
        h.run_ok();
    }
    let full = with_capture(&mut h, crate::capture::Capture::full_time);
    assert!((doc(&mut h).view.time.end - full.end).abs() < 1.0);
}

#[test]
fn a_right_drag_zooms_into_a_rectangle_and_back_returns() {
    let mut h = window();
    let map = h.get_by_label_contains("GFN map").rect();
    let before = doc(&mut h).view;
    let (a, b) = (map.left_top() + map.size() * 0.4, map.left_top() + map.size() * 0.6);
    h.hover_at(a);
    h.run_ok();
    let button = |pos, pressed| egui::Event::PointerButton {
        pos,
        button: egui::PointerButton::Secondary,
        pressed,
        modifiers: Modifiers::NONE,
    };
    h.event(button(a, true));
    h.run_ok();
    h.hover_at(b);
    h.run_ok();
    h.event(button(b, false));
    h.run_ok();
    let zoomed = doc(&mut h).view;
    assert!((zoomed.time.span() / before.time.span() - 0.2).abs() < 0.02, "{zoomed:?}");
    h.key_press_modifiers(Modifiers::ALT, Key::ArrowLeft);
    h.run_ok();
    assert_eq!(doc(&mut h).view, before);
}

#[test]
fn keys_open_help_and_palette_and_esc_closes_them() {
    let mut h = window();
    h.key_press(Key::Questionmark);
    h.run_ok();
    assert!(h.query_all_by_label_contains("Zoom into a rectangle").next().is_some());
    h.key_press(Key::Escape);
    h.run_ok();
    assert!(h.query_all_by_label_contains("Zoom into a rectangle").next().is_none());
    h.key_press_modifiers(Modifiers::COMMAND, Key::P);
    h.run_ok();
    h.get_by_label("Command").type_text("recording");
    h.run_ok();
    h.key_press(Key::Enter);
    h.run_ok();
    assert_eq!(doc(&mut h).tables.tab, Tab::Recording);
    assert!(h.query_all_by_label_contains("VM 0").next().is_some());
}

#[test]
fn plain_keys_typed_into_a_box_are_not_commands() {
    let mut h = window();
    let before = doc(&mut h).view;
    h.get_by_label("Go to").focus();
    h.run_ok();
    for key in [Key::W, Key::A, Key::F, Key::V, Key::Num1] {
        h.key_press(key);
        h.run_ok();
    }
    assert_eq!(doc(&mut h).view, before);
    assert_eq!(doc(&mut h).cursors, [None, None]);
}

#[test]
fn the_filter_speaks_the_language_of_the_command_line() {
    let mut h = window();
    h.key_press(Key::Slash);
    h.run_ok();
    h.get_by_label("Filter events").type_text("event == 'kvm_tdp_mmu_spte_changed' and level == 1");
    h.run_ok();
    h.run_ok();
    assert!(h.query_all_by_label_contains("Events: 5 rows").next().is_some());
    h.get_by_label("Clear").click();
    h.run_ok();
    assert!(h.query_all_by_label_contains("Events: 21 rows").next().is_some());
    h.get_by_label("Filter events").focus();
    h.run_ok();
    h.get_by_label("Filter events").type_text("nonsense ==");
    h.run_ok();
    h.run_ok();
    assert!(h.query_all_by_label_contains("nonsense").next().is_some(), "the message names what is wrong");
}

#[test]
fn story_spans_layout_and_recording_tell_about_the_selection() {
    let mut h = window();
    select(&mut h, 0x100, 200_000);
    for (tab, words) in [
        (Command::TabStory, "Life of the page: "),
        (Command::TabChanges, "present, read-only, 0x00000000036d6c65"),
        (Command::TabLayout, "npt"),
        (Command::TabRecording, "tracefs text"),
    ] {
        command(&mut h, tab);
        assert!(h.query_all_by_label_contains(words).next().is_some(), "{tab:?}: {words}");
    }
}

#[test]
fn pointing_at_a_field_lights_its_bits() {
    let mut h = window();
    select(&mut h, 0x100, 200_000);
    let at = h.get_by_label_contains("page frame = ").rect().center();
    h.hover_at(at);
    h.run_ok();
    assert_eq!(doc(&mut h).lit, 0x000f_ffff_ffff_f000);
    h.hover_at(Pos2::new(5.0, 5.0));
    h.run_ok();
    assert_eq!(doc(&mut h).lit, 0);
}

#[test]
fn cursors_measure_and_copied_links_reproduce_the_view() {
    let mut h = window();
    select(&mut h, 0x100, 200_000);
    h.key_press(Key::Num1);
    h.run_ok();
    select(&mut h, 0x100, 500_000);
    h.key_press(Key::Num2);
    h.run_ok();
    assert!(h.query_all_by_label_contains("A to B: 300 µs").next().is_some());
    h.key_press_modifiers(Modifiers::COMMAND, Key::L);
    h.run_ok();
    // What was copied is said; the clipboard itself is the desktop's.
    let link = "copied: mmuscope view '/tmp/small trace.txt' --at 500000ns --gfn 0x100 --cursor 200000ns --cursor 500000ns";
    assert!(h.query_all_by_label(link).next().is_some());
}

#[test]
fn without_a_trace_there_is_a_way_to_one_and_errors_are_readable() {
    let message = "garbage.bin: not a trace of any known kind";
    let mut h = empty(Some(message));
    assert!(h.query_all_by_label(message).next().is_some());
    h.get_by_label("Open a trace…").click();
    h.run_ok();
    assert!(h.query_all_by_label("Path").next().is_some());
    h.key_press(Key::Escape);
    h.run_ok();
    assert!(h.query_all_by_label("Path").next().is_none());
    h.check_accessibility();
}

#[test]
fn a_missing_file_becomes_a_message_in_the_window() {
    let job = Job {
        source: Source::Files(vec!["/nonexistent/trace.dat".into()]),
        follow: false,
        layout: LayoutOverride::default(),
    };
    let Err(e) = crate::load::load(&job) else { panic!("there is no such file") };
    assert!(e.contains("/nonexistent/trace.dat") && e.contains("no such file"), "{e}");
}

#[test]
fn a_panel_that_panics_leaves_the_others_alone() {
    let mut contained = Contained::default();
    let mut broken = true;
    let mut h = Harness::builder().build_ui(move |ui| {
        contained.show(ui, "Broken", |ui| {
            assert!(!broken, "deliberate panic of a test");
            ui.label("mended");
        });
        ui.label("the other panel");
        if contained.has_failed("Broken") {
            broken = false;
        }
    });
    h.run_ok();
    assert!(h.query_all_by_label_contains("deliberate panic").next().is_some());
    assert!(h.query_all_by_label("the other panel").next().is_some());
    h.get_by_label("Try Broken again").click();
    h.run_ok();
    assert!(h.query_all_by_label("mended").next().is_some());
}

#[test]
fn a_file_is_shown_while_it_is_read() {
    // Its first half, and then all of it.
    let whole = super::small();
    let half: String = super::TEXT.split_inclusive('\n').take(16).collect();
    let trace = Trace::from_text(&half).expect("a trace");
    let options = ReplayOptions {
        layout: LayoutOverride { spec: mmuscope_spte::LayoutSpec::named("6.1/npt").expect("ours") },
        ..ReplayOptions::default()
    };
    let timeline = replay(&trace, &options);
    let (read, all) = (trace.events.len(), whole.trace.events.len());
    assert!(read > 5 && read < all);
    let first = Capture { trace, timeline, growing: true, ..super::small() };
    let (send, news) = std::sync::mpsc::channel();
    let progress = Arc::new(Progress::default());
    progress.total.store(1000, Ordering::Relaxed);
    progress.done.store(430, Ordering::Relaxed);
    let loading = Loading::fed_by(news, Arc::clone(&progress));
    send.send(News::SoFar(Box::new(first))).expect("it waits");
    let mut h = super::window(ThemeChoice::Dark, |_, viewer| viewer.wait_for(loading));
    // It asks for frames until everything is read, so it never comes to rest.
    h.run_steps(4);
    let labels = |h: &mut super::Window, text: &str| h.query_all_by_label_contains(text).next().is_some();
    assert!(labels(&mut h, "reading, 43 %"));
    assert!(labels(&mut h, &format!("Events: {read} rows")));
    assert!(!progress.cancelled.load(Ordering::Relaxed));
    let before = doc(&mut h).view.time;
    {
        let shared = Arc::clone(&doc(&mut h).capture);
        let cap = crate::capture::read(&shared);
        let time = cap.timeline.range().1;
        doc(&mut h).select_at(&cap, 0x100, time, None);
    }
    assert!(doc(&mut h).selection.is_some_and(|s| s.entry.is_some()));
    send.send(News::Done(Box::new(Ok(Loaded { capture: whole, follower: None })))).expect("it waits");
    // The picture of the first half may still be in the making.
    let until = Instant::now() + Duration::from_secs(20);
    while super::with_capture(&mut h, |c| c.growing) && Instant::now() < until {
        h.run_steps(2);
        std::thread::sleep(Duration::from_millis(5));
    }
    h.run_steps(4);
    assert_eq!(
        super::with_capture(&mut h, |c| (c.trace.events.len(), c.growing, c.version)),
        (all, false, 1)
    );
    assert!(!labels(&mut h, "reading, 43 %"));
    assert!(labels(&mut h, &format!("Events: {all} rows")));
    let d = doc(&mut h);
    assert!(d.view.time.end > before.end && d.view.time.start <= 0.0 && !d.follow, "all of it is in view");
    assert!(d.selection.is_some_and(|s| s.gfn == 0x100 && s.entry.is_some()));
}
