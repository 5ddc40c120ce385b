//! Tests of the tabs that answer questions: findings, hot pages, what changed from A to B, causes, and the panel that decodes.

use egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable;

use super::{Window, click, command, doc, empty, labels, open, read, select, small, with_capture};
use crate::ThemeChoice;
use crate::command::Command;
use crate::panels::tables::Tab;

fn real(name: &str) -> Window {
    open(read(name), ThemeChoice::Dark)
}

fn click_label(h: &mut Window, label: &str) {
    let at = h.get_all_by_label_contains(label).next().unwrap_or_else(|| panic!("{label}")).rect().center();
    click(h, at);
}

#[test]
fn every_finding_is_a_row_and_a_click_shows_its_time_frame_and_evidence() {
    let mut h = real("6.1-npt/trace.txt.zst");
    h.key_press_modifiers(Modifiers::ALT, Key::Num6);
    h.run_ok();
    let all = with_capture(&mut h, |cap| mmuscope_analysis::findings::find(&cap.trace, &cap.timeline));
    assert!(all.len() > 3, "{}", all.len());
    assert!(
        labels(&h, &format!("Findings: {} rows", all.len()))
            && labels(&h, &format!("Findings ({})", all.len()))
    );
    let f = all.iter().find(|f| f.id == "dirty-logging").expect("the workload logs dirty pages");
    let title: String = f.title.chars().take(30).collect();
    click_label(&mut h, &title);
    let selected = doc(&mut h).selection.expect("its first event is selected");
    let view = doc(&mut h).view;
    let (first, last) = with_capture(&mut h, |cap| (cap.rel(f.first), cap.rel(f.last)));
    assert!(view.time.start <= first && last <= view.time.end, "{view:?} {first} {last}");
    assert!(view.time.span() < (last - first) * 1.5, "{view:?} {first} {last}");
    assert!(labels(&h, "What would refute it") && labels(&h, &format!("#{} ", f.events[0])));
    assert_eq!(selected.event.map(u64::from), Some(f.events[0]));
    // The head sorts: by name, the last name of the alphabet comes first, then the first.
    h.get_by_label("Sort by finding").click();
    h.run_ok();
    h.get_by_label("Close").click();
    h.run_ok();
    assert!(!labels(&h, "What would refute it"));
    h.check_accessibility();
}

/// A finding about one frame selects it.
#[test]
fn a_finding_of_a_frame_selects_that_frame() {
    let round = [
        "kvm_exit: vcpu 1 reason EPT_VIOLATION rip 0x1000 info1 0x0000000000000181 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000",
        "kvm_page_fault: vcpu 1 rip 0x1000 address 0x0000000abc000 error_code 0x181",
        "kvm_entry: vcpu 1, rip 0x1000",
    ];
    let line = |(n, b): (usize, &&str)| format!("vmm-7  [001] ..... 5.{n:06}: {b}\n");
    let text: String = round.repeat(3).iter().enumerate().map(line).collect();
    let trace = mmuscope_trace::Trace::from_text(&text).expect("a trace");
    let timeline = mmuscope_replay::replay(&trace, &mmuscope_replay::ReplayOptions::default());
    let mut h = open(crate::capture::Capture { trace, timeline, ..small() }, ThemeChoice::Dark);
    command(&mut h, Command::TabFindings);
    click_label(&mut h, "fault-loop, 0, 0xabc, 3");
    assert_eq!(doc(&mut h).selection.map(|s| (s.gfn, s.event)), Some((0xabc, Some(1))));
    assert!(labels(&h, "Evidence: 3 of 3 events"));
}

#[test]
fn hot_pages_have_the_numbers_of_the_summary_and_lead_there() {
    let mut h = real("linux-boot/trace.dat");
    command(&mut h, Command::TabFindings);
    h.get_by_label("Hot pages").click();
    h.run_ok();
    let (top, mmio) = with_capture(&mut h, |c| (c.timeline.top_faults(1)[0], c.timeline.top_mmio(1)[0]));
    let usually = mmuscope_analysis::places::usually_in(top.gfn, top.gfn + 1)
        .map_or(String::new(), |u| format!("usually {u}, "));
    let row = format!("{}, {usually}{}, ", crate::fmt::gfn(top.gfn), crate::fmt::count(top.count));
    assert!(labels(&h, &row), "{row}");
    // By MMIO accesses, the most accessed register comes first.
    h.get_by_label("Sort by MMIO accesses").click();
    h.run_ok();
    click_label(&mut h, &format!("{}, ", crate::fmt::gfn(mmio.gfn)));
    assert_eq!(doc(&mut h).selection.map(|s| s.gfn), Some(mmio.gfn));
    let (all, _) = with_capture(&mut h, |c| c.timeline.range());
    assert!(mmio.first >= all);
    h.get_by_label("2M range").click();
    h.run_ok();
    assert!(labels(&h, "Hot pages: "));
    h.check_accessibility();
}

#[test]
fn what_changed_from_a_to_b_is_a_table_with_causes_and_can_be_saved() {
    let mut h = open(small(), ThemeChoice::Dark);
    h.key_press_modifiers(Modifiers::ALT, Key::Num7);
    h.run_ok();
    assert_eq!(doc(&mut h).tables.tab, Tab::Between);
    assert!(labels(&h, "press 1 for cursor A"));
    // Between the fault that mapped 0x100, and its write-protection: 0x101 and the MMIO page came.
    select(&mut h, 0x100, 200_000);
    h.key_press(Key::Num1);
    h.run_ok();
    select(&mut h, 0x100, 600_000);
    h.key_press(Key::Num2);
    h.run_ok();
    assert!(labels(&h, "A to B: 3 rows"));
    for row in [
        "0x100, 4 KiB, protected, present, writable, 4K, present, read-only, 4K, exact, another event",
        "0x101, 4 KiB, first seen, unknown, present, writable, 4K, exact, faults",
    ] {
        let all = doc(&mut h).tables.between.csv();
        assert!(labels(&h, row), "{row}: {all:?}");
    }
    // A sum is a filter, too.
    h.get_by_label("protected 4 KiB").click();
    h.run_ok();
    assert!(labels(&h, "A to B: 1 rows"));
    click_label(&mut h, "0x100, 4 KiB, protected");
    assert_eq!(doc(&mut h).selection.map(|s| s.gfn), Some(0x100));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("changes.csv");
    h.get_by_label("Save as CSV…").click();
    h.run_ok();
    let edit = h.get_by_label("File to write");
    edit.focus();
    h.run_ok();
    h.key_press_modifiers(Modifiers::COMMAND, Key::A);
    h.get_by_label("File to write").type_text(&file.display().to_string());
    h.run_ok();
    h.key_press(Key::Enter);
    h.run_ok();
    let csv = std::fs::read_to_string(&file).expect("it was written where it was asked to");
    assert!(csv.starts_with("vm,as_id,gfn_start,") && csv.lines().count() == 4, "{csv}");
    assert!(csv.contains("0,0,0x100,0x101,4096,protected,\"present, writable\",1,\"present, read-only\",1,exact,another event,"), "{csv}");
}

#[test]
fn a_file_that_exists_is_not_overwritten_by_enter() {
    let mut h = open(small(), ThemeChoice::Dark);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("picture.png");
    std::fs::write(&file, "precious").expect("written");
    h.key_press_modifiers(Modifiers::COMMAND, Key::S);
    h.run_ok();
    h.key_press_modifiers(Modifiers::COMMAND, Key::A);
    h.get_by_label("File to write").type_text(&file.display().to_string());
    h.run_ok();
    assert!(labels(&h, "This file exists"));
    h.key_press(Key::Enter);
    h.run_ok();
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "precious");
    assert!(h.query_by_label("Replace").is_some());
    h.key_press(Key::Escape);
    h.run_ok();
    assert!(h.query_by_label("File to write").is_none());
}

#[test]
fn causes_are_rows_and_the_details_say_why_an_entry_ended() {
    let mut h = real("6.1-npt/trace.txt.zst");
    let found = doc(&mut h).survey.done.clone().expect("surveyed");
    let vm = doc(&mut h).view.vm;
    let rows = found.rows(vm);
    assert!(!rows.is_empty());
    for row in rows {
        assert!(labels(&h, &format!("Causes: {}, {}", row.kind.name(), row.causes.len())));
    }
    // A click on a row shows one of its causes, and selects its event.
    let row = &rows[0];
    let first = &found.causes[row.causes[0] as usize];
    let strip = h.get_by_label_contains(&format!("Causes: {}", row.kind.name())).rect();
    let (view, rel) = (doc(&mut h).view, with_capture(&mut h, |c| c.rel(first.start)));
    let x = strip.left() + strip.width() * view.time.fraction(rel) as f32;
    let at = egui::pos2(x.clamp(strip.left() + 1.0, strip.right() - 1.0), strip.center().y);
    h.hover_at(at);
    h.run_ok();
    assert!(doc(&mut h).band.is_some(), "its time is marked in all plots");
    click(&mut h, at);
    assert!(doc(&mut h).selection.and_then(|s| s.event).is_some());
    // Of an entry that a cause ended, the details name the cause.
    let ended = with_capture(&mut h, |cap| {
        cap.timeline.all_zaps().find_map(|z| {
            let tid = cap.event(z.event)?.tid?;
            let cause = found.cause_of(tid, z.event)?;
            let span = cap.timeline.span_at(z.entry, z.ts.checked_sub(1)?)?;
            (span.end == Some(z.ts)).then(|| (cap.timeline.entry(z.entry), span, cause.kind()))
        })
    });
    let (entry, span, kind) = ended.expect("a zap within a cause");
    {
        let shared = std::sync::Arc::clone(&doc(&mut h).capture);
        let cap = crate::capture::read(&shared);
        doc(&mut h).select_at(&cap, entry.gfn, span.start, Some(entry.id));
    }
    h.run_ok();
    assert!(labels(&h, "why it ended") && labels(&h, &format!("part of {}", kind.name())));
    command(&mut h, Command::ToggleCauses);
    assert!(!labels(&h, "Causes: "));
}

#[test]
fn a_pasted_value_is_decoded_under_every_layout() {
    let mut h = empty(None);
    h.get_by_label("SPTE to decode").focus();
    h.run_ok();
    h.get_by_label("SPTE to decode").type_text("0x600000123456b77");
    h.run_ok();
    h.key_press(Key::Enter);
    h.run_ok();
    // EPT: the bits 59 and 60 beside RWX are what KVM sets in a shadow-present entry; what `mmuscope decode` says of it.
    assert!(labels(&h, "64-bit diagram of 0x0600000123456b77"));
    assert!(labels(&h, "Why this layout"));
    let before = h.get_all_by_label_contains(" = ").count();
    assert!(before > 5, "{before}");
    h.get_by_label_contains("Layout: ").click();
    h.run_ok();
    let npt = mmuscope_spte::layouts::Library::new().names().expect("names");
    let npt = npt.iter().find(|n| n.ends_with("/npt")).expect("one with NPT").clone();
    h.get_all_by_label(&npt).next().expect("listed").click();
    h.run_ok();
    assert!(labels(&h, "chosen") && !labels(&h, "Why this layout"));
    // Two values are compared.
    h.get_by_label("Text to decode").focus();
    h.run_ok();
    h.key_press_modifiers(Modifiers::COMMAND, Key::A);
    h.get_by_label("Text to decode").type_text("36d6e67 36d6c65");
    h.run_ok();
    assert!(labels(&h, "From 0x00000000036d6e67 to this"));
    h.check_accessibility();
}

#[test]
fn the_selected_value_is_decoded_as_the_trace_reads_it() {
    let mut h = open(small(), ThemeChoice::Dark);
    select(&mut h, 0x100, 200_000);
    h.key_press_modifiers(Modifiers::COMMAND, Key::E);
    h.run_ok();
    assert!(labels(&h, "of this trace") && labels(&h, "Layout: that of this trace"));
    assert!(h.get_all_by_label_contains("64-bit diagram of 0x00000000036d6e67").count() >= 1);
    h.key_press(Key::Escape);
    h.run_ok();
    assert!(h.query_by_label("Text to decode").is_none());
}

#[test]
fn the_start_page_opens_an_example_and_says_how_to_record() {
    let mut h = empty(None);
    for text in ["See an example", "Record this host", "sudo mmuscope record -o - | mmuscope view -"] {
        assert!(labels(&h, text), "{text}");
    }
    h.get_by_label("See an example").click();
    let until = std::time::Instant::now() + std::time::Duration::from_mins(2);
    while !labels(&h, "linux-boot.trace.dat") && !labels(&h, "GFN map") {
        assert!(std::time::Instant::now() < until, "the example opens");
        h.run_steps(2);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    while !labels(&h, "GFN map") {
        assert!(std::time::Instant::now() < until, "the example is shown");
        h.run_steps(2);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Clicks a place with the right button.
fn right_click(h: &mut Window, at: egui::Pos2) {
    h.hover_at(at);
    h.run_ok();
    for pressed in [true, false] {
        let button = egui::PointerButton::Secondary;
        h.event(egui::Event::PointerButton { pos: at, button, pressed, modifiers: Modifiers::NONE });
        h.run_ok();
    }
}

#[test]
fn a_row_of_the_events_filters_on_its_values_and_find_next_goes_on() {
    let mut h = open(small(), ThemeChoice::Dark);
    let row = h.get_all_by_label_contains("kvm_tdp_mmu_spte_changed, 0x0").next().expect("in sight").rect();
    let x = h.get_by_label("Width of the column event").rect().center().x - 40.0;
    right_click(&mut h, egui::pos2(x, row.center().y));
    h.get_by_label("Only event == 'kvm_tdp_mmu_spte_changed'").click();
    h.run_ok();
    h.run_ok();
    assert_eq!(doc(&mut h).tables.events.filter(), "event == 'kvm_tdp_mmu_spte_changed'");
    assert!(labels(&h, "Events: 10 rows") && labels(&h, "10 events"));
    // The others can stay; then F3 goes from one to the next.
    h.get_by_label("hide others").click();
    h.run_ok();
    assert!(labels(&h, "Events: 21 rows"));
    h.key_press(Key::F3);
    h.run_ok();
    let first = doc(&mut h).selection.and_then(|s| s.event);
    h.key_press(Key::F3);
    h.run_ok();
    let next = doc(&mut h).selection.and_then(|s| s.event);
    assert_eq!((first, next), (Some(5), Some(6)));
    h.key_press_modifiers(Modifiers::SHIFT, Key::F3);
    h.run_ok();
    assert_eq!(doc(&mut h).selection.and_then(|s| s.event), Some(5));
}

/// What a recorder notes beside events has rows, but is not counted among the events.
#[test]
fn notes_are_no_events() {
    let text = format!(
        "{}CPU:0 [LOST 7 EVENTS]\n            load-111 [000] ..... 10.002000: kvm_entry: vcpu 0, rip 0x6000\n",
        super::TEXT
    );
    let trace = mmuscope_trace::Trace::from_text(&text).expect("a trace");
    let timeline = mmuscope_replay::replay(&trace, &mmuscope_replay::ReplayOptions::default());
    let rows = trace.events.len();
    let mut h = open(crate::capture::Capture { trace, timeline, ..small() }, ThemeChoice::Dark);
    assert_eq!(rows, 23, "22 events and a loss");
    assert!(labels(&h, "Events: 23 rows") && labels(&h, "22 events and 1 note"));
    // The whole trace as a stretch of time, and a filter that the note passes.
    h.key_press(Key::Slash);
    h.run_ok();
    h.get_by_label("Filter events").type_text("cpu == 0");
    h.run_ok();
    h.run_ok();
    assert!(labels(&h, "and 1 note"));
}

#[test]
fn a_copied_link_opens_the_same_view() {
    let mut h = open(small(), ThemeChoice::Dark);
    select(&mut h, 0x100, 200_000);
    let view = crate::doc::View { time: crate::view::Range::new(1e5, 6e5), ..doc(&mut h).view };
    doc(&mut h).view = view;
    doc(&mut h).cursors = [Some(2e5), Some(5e5)];
    doc(&mut h).tables.events.set_filter("level == 1");
    command(&mut h, Command::TabBetween);
    h.key_press_modifiers(Modifiers::COMMAND, Key::L);
    h.run_ok();
    let link = "copied: mmuscope view '/tmp/small trace.txt' --from 100000ns --to 600000ns --at 200000ns --gfn 0x100 \
                --cursor 200000ns --cursor 500000ns --where 'level == 1' --tab a-to-b";
    assert!(labels(&h, link), "{:?}", h.query_all_by_label_contains("copied").next());
    let options = crate::ViewOptions {
        at: Some(200_000),
        gfn: Some(0x100),
        theme: Some(ThemeChoice::Dark),
        place: crate::Place {
            time: Some((100_000, 600_000)),
            cursors: vec![200_000, 500_000],
            filter: Some("level == 1".into()),
            tab: Some("a-to-b".into()),
            ..crate::Place::default()
        },
        ..crate::ViewOptions::default()
    };
    let mut again = super::window_with(options, |ctx, viewer| {
        viewer.show(ctx, crate::load::Loaded { capture: small(), follower: None });
    });
    again.run_ok();
    let (a, b) = (doc(&mut h), doc(&mut again));
    assert_eq!((a.view, a.cursors, a.selection), (b.view, b.cursors, b.selection));
    assert_eq!((b.tables.tab, b.tables.events.filter()), (Tab::Between, "level == 1"));
}

#[test]
fn the_map_can_be_coloured_by_more_than_the_state() {
    let mut h = open(small(), ThemeChoice::Dark);
    for (by, words) in [
        ("page size", "2M"),
        ("certainty", "observed"),
        ("fault density", "11 to 100"),
        ("zap density", "11 to 100"),
        ("age since last change", "longer ago"),
    ] {
        h.key_press(Key::C);
        h.run_ok();
        assert!(labels(&h, &format!("Colour by: {by}")) && labels(&h, words), "{by}");
    }
    // The page is known from its first event until the end.
    let map = h.get_by_label_contains("GFN map").rect();
    h.hover_at(egui::pos2(map.left() + map.width() * 0.6, map.bottom() - 20.0));
    h.run_ok();
    assert!(labels(&h, "age since last change: changed within 1 ms"));
    h.key_press(Key::C);
    h.run_ok();
    // Frame 0x100 maps 0x36d6 and frame 0x101 maps 0x36d7.
    assert!(labels(&h, "Colour by: host contiguity") && labels(&h, "follows on one side"));
    h.key_press(Key::C);
    h.run_ok();
    assert!(labels(&h, "Colour by: state") && labels(&h, "access-tracked"));
}

#[test]
fn the_page_tables_of_a_frame_are_shown_from_the_root_to_the_leaf() {
    let mut h = open(small(), ThemeChoice::Dark);
    h.key_press_modifiers(Modifiers::ALT, Key::Num8);
    h.run_ok();
    assert!(labels(&h, "to see the page tables that lead to it"));
    select(&mut h, 0x101, 350_000);
    // Four levels: three tables, and the page; each value is one of the events.
    for value in ["0x0000000003a01827", "0x0000000003a02827", "0x0000000003a03827", "0x00000000036d7e67"] {
        assert!(h.get_all_by_label_contains(value).count() >= 1, "{value}");
    }
    assert!(
        labels(&h, "Table of level 1: 512 entries, 512 known")
            || labels(&h, "Table of level 1: 512 entries, 2 known")
    );
    // The neighbour is index 0x100 of the same table: a click on its cell selects it.
    let grid = h.get_by_label_contains("Table of level 1").rect();
    let cell = grid.width() / 64.0;
    let at = grid.min
        + egui::vec2(cell * (0x100 % 64) as f32 + cell / 2.0, cell * (0x100 / 64) as f32 + cell / 2.0);
    h.hover_at(at);
    h.run_ok();
    assert!(labels(&h, "entry 256, frames 0x100"));
    click(&mut h, at);
    assert_eq!(doc(&mut h).selection.map(|s| s.gfn), Some(0x100));
    // At cursor B the page is zapped.
    doc(&mut h).cursors = [Some(350_000.0), Some(950_000.0)];
    h.run_ok();
    assert!(labels(&h, "at A") && labels(&h, "at B"));
    assert!(h.get_all_by_label_contains("0x0000000000000000").count() >= 1);
    h.check_accessibility();
}

/// Where the recorder read the memory slots, places are named by them.
#[test]
fn places_are_named_by_their_memory_slot() {
    let mut h = real("6.1-shadow64-probes/mmuscope.perf.data");
    let (vm, as_id) = (doc(&mut h).view.vm, doc(&mut h).view.as_id);
    let slots = with_capture(&mut h, |c| c.timeline.slots().to_vec());
    let slot = slots.iter().find(|s| s.vm == vm && s.as_id == as_id).expect("the recording has slots");
    let words = with_capture(&mut h, |c| c.place_of(vm, as_id, slot.gfn, slot.start)).expect("known");
    assert!(words.starts_with(&format!("slot {}: ", slot.id)), "{words}");
    // The tooltip of the map says it, too.
    let row = with_capture(&mut h, |c| c.row_of(vm, as_id, slot.gfn + slot.pages / 2))
        .or_else(|| with_capture(&mut h, |c| c.row_of(vm, as_id, slot.gfn)));
    let row = row.expect("the axis has a frame of the slot");
    let map = h.get_by_label_contains("GFN map").rect();
    let y = map.bottom() - map.height() * doc(&mut h).view.rows.fraction(row + 0.5) as f32;
    h.hover_at(egui::pos2(map.center().x, y));
    h.run_ok();
    assert!(labels(&h, "slot ") || labels(&h, "hole"), "{slot:?}");
}
