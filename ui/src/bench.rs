//! [`measure`]: how much time of its own thread the window takes for a frame, without a graphics card. The example `bench_view` calls it; the
//! viewer never does.

use std::path::Path;
use std::time::{Duration, Instant};

use egui::{Event, MouseWheelUnit, PointerButton, Pos2, RawInput, Rect, TouchPhase, pos2, vec2};

use rustix::time::{ClockId, clock_gettime};

use crate::app::Viewer;
use crate::session::Session;
use crate::{Input, ThemeChoice, ViewOptions};

/// Size of the window in points.
const SIZE: [f32; 2] = [1920.0, 1080.0];
/// Longest wait for a part of the measurement.
const PATIENCE: Duration = Duration::from_mins(10);

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// From the start until the first picture of a part of the trace.
    pub first: Duration,
    /// From the start until the picture of the whole trace.
    pub all: Duration,
    /// Time of all processors that the program used until the first picture, which other programs on the machine do not change.
    pub first_used: Duration,
    /// Time of all processors that it used until the picture of the whole trace.
    pub all_used: Duration,
    /// Number of events.
    pub events: u64,
    /// Time of the thread of the window for each frame, by what was done meanwhile.
    pub frames: Vec<(&'static str, Vec<Duration>)>,
    /// Longest time of a frame, as a clock shows it, while the trace was read: waits for a lock are in it.
    pub longest_reading: Duration,
    /// Frames that the window asks for although nothing happens.
    pub idle: usize,
}

/// The time of processors on a clock, to the nanosecond (schedstat counts only up to the last tick of the scheduler).
fn used(clock: ClockId) -> Duration {
    let t = clock_gettime(clock);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// The time of processors that the program has used so far.
pub fn used_by_all() -> Duration {
    used(ClockId::ProcessCPUTime)
}

struct Window {
    ctx: egui::Context,
    viewer: Viewer,
    begun: Instant,
    /// Frames whose pictures were asked for at once.
    wants_more: bool,
}

impl Window {
    /// Draws a frame; the time that its thread used, without turning shapes into triangles.
    fn frame(&mut self, events: Vec<Event>) -> Duration {
        let screen = Rect::from_min_size(Pos2::ZERO, SIZE.into());
        let input = RawInput {
            screen_rect: Some(screen),
            time: Some(self.begun.elapsed().as_secs_f64()),
            events,
            ..RawInput::default()
        };
        let before = used(ClockId::ThreadCPUTime);
        let mut out = self.ctx.run_ui(input, |ui| self.viewer.frame(ui));
        let took = used(ClockId::ThreadCPUTime).saturating_sub(before);
        out.textures_delta.clear();
        let root = out.viewport_output.get(&egui::ViewportId::ROOT);
        self.wants_more = root.is_some_and(|v| v.repaint_delay < Duration::from_millis(100));
        took
    }

    fn settled(&mut self) -> bool {
        self.viewer.open_doc().is_some_and(|d| d.pictures.settled())
    }

    /// Draws frames with what `events` makes of their numbers.
    fn frames(&mut self, n: usize, mut events: impl FnMut(usize) -> Vec<Event>) -> Vec<Duration> {
        (0..n)
            .map(|i| {
                let took = self.frame(events(i));
                // A screen shows sixty frames a second; pictures are computed meanwhile.
                std::thread::sleep(Duration::from_millis(14));
                took
            })
            .collect()
    }
}

/// Opens a trace as the window does, and measures reading it, panning, zooming, scrolling, and doing nothing. `Err` says what did not come.
pub fn measure(trace: &Path) -> Result<Figures, String> {
    let begun = Instant::now();
    let before = used_by_all();
    let ctx = egui::Context::default();
    let options = ViewOptions {
        input: Input::Files(vec![trace.to_path_buf()]),
        theme: Some(ThemeChoice::Dark),
        ..ViewOptions::default()
    };
    let viewer = Viewer::new(&ctx, options, Session::default(), false);
    let mut w = Window { ctx, viewer, begun, wants_more: false };
    let mut out = Figures::default();
    let mut reading = Vec::new();
    // The fonts are made ready in the first frame, whatever is opened.
    w.frame(Vec::new());
    loop {
        let at = Instant::now();
        reading.push(w.frame(Vec::new()));
        out.longest_reading = out.longest_reading.max(at.elapsed());
        if out.first.is_zero() && w.viewer.open_doc().is_some_and(|d| d.pictures.shown.is_some()) {
            out.first = begun.elapsed();
            out.first_used = used_by_all().saturating_sub(before);
        }
        if w.settled() && w.viewer.open_doc().is_some_and(|d| d.reading.is_none()) {
            break;
        }
        if begun.elapsed() > PATIENCE {
            return Err("the trace was not read in time".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    out.all = begun.elapsed();
    out.all_used = used_by_all().saturating_sub(before);
    out.events = w.viewer.open_doc().map_or(0, |d| crate::capture::read(&d.capture).timeline.event_count());
    out.frames.push(("reading", reading));
    // The findings are made in the background and belong to no frame.
    let since = Instant::now();
    while w.viewer.open_doc().is_some_and(|d| d.survey.done.is_none()) && since.elapsed() < PATIENCE {
        w.frame(Vec::new());
        std::thread::sleep(Duration::from_millis(20));
    }
    let middle = pos2(700.0, 300.0);
    let wheel = |i: usize| {
        let delta = vec2(0.0, if i % 80 < 40 { 1.0 } else { -1.0 });
        vec![Event::PointerMoved(middle), wheel_of(delta)]
    };
    out.frames.push(("zooming", w.frames(240, wheel)));
    w.frames(12, |_| vec![wheel_of(vec2(0.0, 1.0))]);
    let button = |pos, pressed| Event::PointerButton {
        pos,
        button: PointerButton::Primary,
        pressed,
        modifiers: egui::Modifiers::NONE,
    };
    w.frame(vec![button(middle, true)]);
    let drag = |i: usize| {
        let x = (i % 100) as f32 * 3.0;
        let x = if (i / 100).is_multiple_of(2) { x } else { 300.0 - x };
        vec![Event::PointerMoved(middle + vec2(x - 150.0, (i % 40) as f32))]
    };
    out.frames.push(("panning", w.frames(240, drag)));
    w.frame(vec![button(middle, false)]);
    out.frames.push((
        "pointing",
        w.frames(200, |i| {
            vec![Event::PointerMoved(middle + vec2((i * 3) as f32 % 300.0, (i % 50) as f32 * 4.0))]
        }),
    ));
    let table = pos2(500.0, 960.0);
    out.frames
        .push(("scrolling", w.frames(120, |_| vec![Event::PointerMoved(table), wheel_of(vec2(0.0, -3.0))])));
    w.frame(vec![Event::PointerGone]);
    for _ in 0..400 {
        w.frame(Vec::new());
        if !w.wants_more && w.settled() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..20 {
        w.frame(Vec::new());
        out.idle += usize::from(w.wants_more);
    }
    Ok(out)
}

fn wheel_of(delta: egui::Vec2) -> Event {
    Event::MouseWheel {
        unit: MouseWheelUnit::Line,
        delta,
        phase: TouchPhase::Move,
        source: egui::MouseWheelSource::Wheel,
        modifiers: egui::Modifiers::NONE,
    }
}
