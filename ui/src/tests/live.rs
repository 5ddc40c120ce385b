//! Tests of a trace that is followed: each state of the input, the buttons, and the view.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egui::Key;
use egui_kittest::kittest::Queryable;
use mmuscope_replay::{LayoutOverride, State};
use mmuscope_trace::{RecorderNow, Stage};

use super::{TEXT, Window, command, doc, labels, open, sample, small, with_capture};
use crate::ThemeChoice;
use crate::command::Command;
use crate::follow::Live;
use crate::load::{Job, Source, load};

/// The events of the small trace.
const EVENTS: u64 = 21;

/// A window that follows a file.
fn follow(path: &Path) -> Window {
    let job = Job {
        source: Source::Files(vec![path.to_path_buf()]),
        follow: true,
        layout: LayoutOverride { spec: mmuscope_spte::LayoutSpec::named("6.1/npt").expect("ours") },
    };
    let loaded = load(&job).unwrap_or_else(|e| panic!("{e}"));
    super::window(ThemeChoice::Dark, move |ctx, viewer| {
        viewer.began(job);
        viewer.show(ctx, loaded);
    })
}

/// Draws frames until something is so.
fn wait(h: &mut Window, what: &str, mut until: impl FnMut(&mut Window) -> bool) {
    let give_up = Instant::now() + Duration::from_mins(1);
    loop {
        h.run_steps(2);
        if until(h) {
            return;
        }
        let live = doc(h).live.clone();
        assert!(Instant::now() < give_up, "{what}: {live:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn live(h: &mut Window) -> Live {
    doc(h).live.clone().expect("it is followed")
}

fn text(lines: std::ops::Range<usize>) -> String {
    TEXT.split_inclusive('\n').skip(lines.start).take(lines.len()).collect()
}

#[test]
fn a_file_that_does_not_exist_yet_is_waited_for_and_shown_as_it_grows() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("growing.txt");
    let mut h = follow(&path);
    wait(&mut h, "nothing there", |h| labels(h, "growing.txt does not exist yet"));
    let mut file = File::create(&path).expect("a file");
    wait(&mut h, "empty", |h| labels(h, "growing.txt is still empty"));
    file.write_all(text(0..9).as_bytes()).expect("written");
    wait(&mut h, "the first lines", |h| live(h).stage == Stage::Growing && live(h).shown > 3);
    assert!(labels(&h, "• live") && live(&mut h).shown < EVENTS);
    file.write_all(text(9..24).as_bytes()).expect("written");
    wait(&mut h, "all lines", |h| live(h).shown == EVENTS);
    wait(&mut h, "their pictures", |h| doc(h).pictures.settled());
    assert!(labels(&h, "Events: 21 rows"));
    assert_eq!(live(&mut h).bytes, TEXT.len() as u64);
    // What came later is in the page tables too: the zap at the end.
    with_capture(&mut h, |cap| {
        let (vm, as_id) = cap.spaces().first().map(|s| (s.vm, s.as_id)).expect("a VM");
        let (_, span) = cap.pick(vm, as_id, 0x100, cap.timeline.range().1).expect("known");
        assert_eq!(span.state, State::Nonpresent);
    });
    assert!(doc(&mut h).follow && doc(&mut h).view.vm == mmuscope_replay::VmId(0));
}

#[test]
fn a_paused_view_holds_still_while_reading_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("growing.txt");
    fs::write(&path, text(0..9)).expect("written");
    let mut h = follow(&path);
    wait(&mut h, "the first lines", |h| live(h).stage == Stage::Growing);
    let before = live(&mut h).shown;
    h.get_by_label("Pause").click();
    h.run_steps(2);
    wait(&mut h, "the pause", |h| live(h).paused && labels(h, "paused; live"));
    let mut file = fs::OpenOptions::new().append(true).open(&path).expect("the file");
    file.write_all(text(9..24).as_bytes()).expect("written");
    wait(&mut h, "what waits", |h| live(h).read == EVENTS);
    std::thread::sleep(Duration::from_millis(300));
    h.run_steps(4);
    assert_eq!((live(&mut h).shown, with_capture(&mut h, |c| c.trace.events.len() as u64)), (before, before));
    assert!(labels(&h, &format!("paused, {} events wait", EVENTS - before)));
    h.key_press(Key::Space);
    wait(&mut h, "going on", |h| live(h).shown == EVENTS && !live(h).paused);
    assert!(labels(&h, "Pause"));
}

#[test]
fn the_end_is_a_state_with_its_reason_and_can_be_followed_again() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("growing.txt");
    fs::write(&path, text(0..24)).expect("written");
    let mut h = follow(&path);
    wait(&mut h, "the lines", |h| live(h).shown + 1 >= EVENTS);
    let next = dir.path().join("next");
    fs::write(&next, text(0..12)).expect("written");
    fs::rename(&next, &path).expect("renamed");
    wait(&mut h, "another file", |h| labels(h, "growing.txt was replaced by another file"));
    assert!(labels(&h, "ended: ") && !labels(&h, "Pause"));
    let ended = live(&mut h);
    assert!(!ended.goes_on() && !ended.failed && ended.shown == EVENTS, "{ended:?}");
    assert!(!with_capture(&mut h, |c| c.growing) && !doc(&mut h).follow);
    h.get_by_label("Reconnect").click();
    let reopened = |h: &mut Window| {
        let doc = h.state_mut().as_mut().and_then(crate::app::Viewer::doc);
        doc.is_some_and(|d| d.live.as_ref().is_some_and(Live::goes_on))
    };
    let give_up = Instant::now() + Duration::from_mins(1);
    while !reopened(&mut h) {
        assert!(Instant::now() < give_up, "it is opened again");
        h.run_steps(2);
        std::thread::sleep(Duration::from_millis(10));
    }
    wait(&mut h, "the new file", |h| (5..EVENTS).contains(&live(h).shown));
    assert!(labels(&h, "• live") && labels(&h, "Pause"));
}

/// The line as a screen reader reads it, in every state.
#[test]
fn each_state_is_said_in_words() {
    let mut h = open(small(), ThemeChoice::Dark);
    assert!(!labels(&h, "Pause") && !labels(&h, "Reconnect"), "a trace that is not followed");
    let shared = Arc::clone(&doc(&mut h).capture);
    let base = Live {
        stage: Stage::Growing,
        failed: false,
        read: 21,
        shown: 21,
        bytes: 5 << 20,
        rate: 1234.6,
        paused: false,
        recorder: None,
    };
    let recorder = RecorderNow { events: 21, lost: 0, ring: 12.4, cpu: 0.8 };
    let cases = [
        (base.clone(), "• live", "21 events · 5 MiB · 1,234/s"),
        (
            Live { recorder: Some(recorder), ..base.clone() },
            "• live",
            "recorder: ring 12 % full, 0.8 % CPU, lost nothing",
        ),
        (
            Live { recorder: Some(RecorderNow { lost: 1500, ..recorder }), ..base.clone() },
            "• live",
            "lost 1,500 events",
        ),
        (Live { read: 100, ..base.clone() }, "• live, 79 events to be shown", "1,234/s"),
        (Live { read: 100, paused: true, ..base.clone() }, "• paused, 79 events wait; live", "1,234/s"),
        (
            Live { stage: Stage::Waiting("x is empty".into()), ..base.clone() },
            "• waiting: x is empty",
            "5 MiB",
        ),
        (Live { stage: Stage::Collecting, ..base.clone() }, "put aside until the pipe ends", "5 MiB"),
        (Live { stage: Stage::Watching("read again".into()), ..base.clone() }, "• read again", "5 MiB"),
        (
            Live { stage: Stage::Ended("the time was over".into()), ..base.clone() },
            "• ended: the time was over",
            "21 events · 5 MiB",
        ),
    ];
    for (live, state, numbers) in cases {
        doc(&mut h).live = Some(live.clone());
        let cap = crate::capture::read(&shared);
        let t = crate::theme::Tokens::of(mmuscope_analysis::visual::Theme::Dark);
        let d = doc(&mut h);
        let mut ui = egui_kittest::Harness::builder().with_size([1200.0, 60.0]).build_ui(|ui| {
            let mut out = Vec::new();
            crate::panels::live::show(
                ui,
                &mut crate::panels::Cx { cap: &cap, doc: d, tokens: &t, out: &mut out },
            );
        });
        ui.run_ok();
        for text in [state, numbers] {
            assert!(ui.query_all_by_label_contains(text).next().is_some(), "{text:?} of {live:?}");
        }
        let over = ui.query_all_by_label("Reconnect").next().is_some();
        assert_eq!(over, !live.goes_on(), "{live:?}");
        assert!(
            over != ui.query_all_by_label("Pause").chain(ui.query_all_by_label("Go on")).next().is_some()
        );
    }
}

/// What can only be read as a whole is shown as it is and read again.
#[test]
fn a_file_form_is_watched() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("trace.dat");
    fs::copy(sample("linux-boot/trace.dat"), &path).expect("copied");
    let mut h = follow(&path);
    wait(&mut h, "the trace", |h| live(h).shown > 0 && labels(h, "which can only be read as a whole"));
    let before = live(&mut h).shown;
    fs::copy(sample("6.1-npt/trace.dat"), &path).expect("copied");
    wait(&mut h, "the other trace", |h| live(h).shown != before && live(h).shown == live(h).read);
    let n = with_capture(&mut h, |c| (c.trace.events.len(), c.timeline.events()));
    assert_eq!(n, (68_615, 68_615));
}

#[test]
fn a_stretch_before_the_end_is_held_in_view() {
    let mut cap = small();
    cap.growing = true;
    let mut h = open(cap, ThemeChoice::Dark);
    let full = with_capture(&mut h, crate::capture::Capture::full_time);
    // The trace has one millisecond; a second is more than there is yet.
    command(&mut h, Command::WindowSecond);
    assert_eq!((doc(&mut h).window, doc(&mut h).view.time), (Some(1e9), full));
    assert!(doc(&mut h).follow);
    {
        let d = doc(&mut h);
        let shared = Arc::clone(&d.capture);
        let cap = crate::capture::read(&shared);
        d.hold(&cap, Some(400_000.0));
    }
    h.run_steps(3);
    let d = doc(&mut h);
    assert!(
        (d.view.time.end - full.end).abs() < 1.0 && (d.view.time.span() - 400_000.0).abs() < 1.0,
        "{:?}",
        d.view.time
    );
    assert!(d.follow && d.window == Some(400_000.0));
    // Who moves away is not dragged back; who asks for everything gets it.
    command(&mut h, Command::PanLeft);
    assert!(!doc(&mut h).follow);
    command(&mut h, Command::WindowAll);
    assert_eq!((doc(&mut h).window, doc(&mut h).view.time, doc(&mut h).follow), (None, full, true));
}

/// A window whose recorder is a script of the shell.
fn recording_with(script: &str, folder: &Path) -> Window {
    let words = ["sh", "-c", script, "recorder"].map(str::to_owned).to_vec();
    let options = crate::ViewOptions {
        recorder: Some(words),
        record_to: Some(folder.to_owned()),
        ..super::options(ThemeChoice::Dark)
    };
    super::window_with(options, |_, viewer| viewer.fail(None))
}

fn until(h: &mut Window, what: &str, text: &str) {
    let give_up = Instant::now() + Duration::from_mins(1);
    while !labels(h, text) {
        assert!(Instant::now() < give_up, "{what}");
        h.run_steps(2);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The command is shown and runs only once the user asks for it; what it writes is shown as it grows, with what it says.
#[test]
fn a_host_is_recorded_from_the_window() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (first, rest) = (dir.path().join("first"), dir.path().join("rest"));
    fs::write(&first, text(0..9)).expect("written");
    fs::write(&rest, text(9..24)).expect("written");
    let (first, rest) = (first.display(), rest.display());
    let script =
        format!("cat '{first}'; echo \"ring buffers are mapped $1 $2\" >&2; sleep 0.3; cat '{rest}'");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut h = recording_with(&script, folder.path());
    assert!(labels(&h, "sudo sh -c"), "the command is shown as it will run");
    h.get_by_label("as I am").click();
    h.run_ok();
    assert!(!labels(&h, "sudo sh -c") && labels(&h, "--duration 10s"));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing runs before the click");
    h.get_by_label("Record now").click();
    h.run_steps(2);
    until(&mut h, "its output", "ring buffers are mapped --duration 10s");
    until(&mut h, "all events", "Events: 21 rows");
    until(&mut h, "its end", "recorded");
    assert!(folder.path().join("recorded-1.perf.data").is_file());
}

/// A recorder that fails says why, and leaves nothing behind.
#[test]
fn a_recorder_that_fails_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut h = recording_with("echo 'perf_event_open: not permitted' >&2; exit 3", folder.path());
    h.get_by_label("as I am").click();
    h.run_ok();
    h.get_by_label("Record now").click();
    h.run_steps(2);
    until(&mut h, "why", "perf_event_open: not permitted");
    assert!(labels(&h, "the recorder failed"));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}
