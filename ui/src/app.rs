//! The program: which page is shown, what commands do, and how the window is put together.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use egui::{CentralPanel, Context, Panel, ThemePreference, Ui, ViewportCommand};

use crate::capture::{self, Capture};
use crate::command::{self, Command};
use crate::contain::Contained;
use crate::doc::Doc;
use crate::fmt;
use crate::load::{Following, Job, Loaded, Loading, News, Source};
use crate::panels::dialogs::{Chooser, Dialog, Outcome, Palette};
use crate::panels::{Cx, details, dialogs, legend, start, status, tables, timeline, topbar};
use crate::session::Session;
use crate::theme::{self, Tokens};
use crate::view::Range;
use crate::{Input, ThemeChoice, ViewError, ViewOptions};

/// Size of the window of a screenshot.
const PICTURE: [f32; 2] = [1600.0, 1000.0];
/// Where a picture looks for the state of earlier windows: below a file, so that nothing is ever there. What the window of a picture looks
/// like shall not depend on what somebody did to another; without this, eframe takes size, place and panels from the user's data folder.
const NO_STATE: &str = "/dev/null/mmuscope";
/// How long a message stays.
const TOAST: Duration = Duration::from_secs(5);
/// A screenshot that is not ready by then never will be.
const PATIENCE: Duration = Duration::from_mins(2);

/// What fills the window.
enum Page {
    Welcome { error: Option<String> },
    Loading(Box<Loading>),
    Open(Box<Doc>),
}

/// What a picture of the window is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PictureFor {
    File(PathBuf),
    Clipboard,
}

type Taken = Arc<Mutex<Option<Arc<egui::ColorImage>>>>;

/// The viewer.
pub(crate) struct Viewer {
    page: Page,
    following: Option<Following>,
    /// The rest of the open trace is still being read.
    reading: Option<Box<Loading>>,
    /// What was read, until nothing looks at what is there.
    arrived: Option<Box<Capture>>,
    options: ViewOptions,
    session: Session,
    dialog: Option<Dialog>,
    goto_box: topbar::GoTo,
    contained: Contained,
    toast: Option<(Instant, String, bool)>,
    job: Option<Job>,
    picture: Option<(PictureFor, Taken)>,
    /// Frames since everything was drawn, while a screenshot is wanted.
    steady: u32,
    begun: Instant,
    outcome: Arc<Mutex<Result<(), ViewError>>>,
    /// Compute pictures in place: tests and screenshots.
    inline: bool,
    applied: bool,
    /// The window's title as it was set last.
    title: String,
}

/// Opens the window.
pub(crate) fn run(options: ViewOptions) -> Result<(), ViewError> {
    let outcome = Arc::new(Mutex::new(Ok(())));
    let mut viewport = egui::ViewportBuilder::default()
        .with_title("mmuscope")
        .with_app_id("mmuscope")
        .with_min_inner_size([640.0, 420.0]);
    let picture = options.screenshot.is_some();
    viewport = if picture {
        viewport
            .with_inner_size(PICTURE)
            .with_position([0.0, 0.0])
            .with_decorations(false)
            .with_resizable(false)
    } else {
        viewport.with_inner_size([1440.0, 900.0]).with_drag_and_drop(true)
    };
    let native = eframe::NativeOptions {
        viewport,
        persist_window: !picture,
        persistence_path: picture.then(|| NO_STATE.into()),
        dithering: !picture,
        ..eframe::NativeOptions::default()
    };
    let theirs = Arc::clone(&outcome);
    eframe::run_native(
        "mmuscope",
        native,
        Box::new(move |cc| {
            let session = if picture { Session::default() } else { Session::load(cc.storage) };
            let mut viewer = Viewer::new(&cc.egui_ctx, options, session, picture);
            viewer.outcome = theirs;
            Ok(Box::new(viewer))
        }),
    )
    .map_err(|e| ViewError::Window(e.to_string()))?;
    let mut guard = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut *guard, Ok(()))
}

impl Viewer {
    /// The viewer, loading what the options say.
    pub(crate) fn new(ctx: &Context, options: ViewOptions, session: Session, inline: bool) -> Self {
        theme::install(ctx);
        match options.theme {
            Some(ThemeChoice::Dark) => ctx.set_theme(ThemePreference::Dark),
            Some(ThemeChoice::Light) => ctx.set_theme(ThemePreference::Light),
            Some(ThemeChoice::System) => ctx.set_theme(ThemePreference::System),
            // A picture for a document shall not depend on the desktop it is made on.
            None if options.screenshot.is_some() => ctx.set_theme(ThemePreference::Dark),
            None => {}
        }
        let mut viewer = Self {
            page: Page::Welcome { error: None },
            following: None,
            reading: None,
            arrived: None,
            session,
            dialog: None,
            goto_box: topbar::GoTo::default(),
            contained: Contained::default(),
            toast: None,
            job: None,
            picture: None,
            steady: 0,
            begun: Instant::now(),
            outcome: Arc::new(Mutex::new(Ok(()))),
            inline,
            applied: false,
            title: String::new(),
            options,
        };
        let source = match &viewer.options.input {
            Input::Nothing => None,
            Input::Files(paths) => Some(Source::Files(paths.clone())),
            Input::Stdin => Some(Source::Stdin),
        };
        if let Some(source) = source {
            let follow = viewer.options.follow || source == Source::Stdin;
            let layout = viewer.options.layout.clone();
            viewer.open(ctx, Job { source, follow, layout });
        }
        viewer
    }

    fn open(&mut self, ctx: &Context, job: Job) {
        self.following = None;
        self.reading = None;
        self.arrived = None;
        self.dialog = None;
        self.applied = false;
        self.job = Some(job.clone());
        let ctx = ctx.clone();
        // A place to go to, and a picture, are of the whole.
        let o = &self.options;
        let glimpses = o.screenshot.is_none() && o.at.is_none() && o.gfn.is_none();
        self.page = match Loading::start(job, glimpses, move || ctx.request_repaint()) {
            Ok(loading) => Page::Loading(Box::new(loading)),
            Err(e) => Page::Welcome { error: Some(e) },
        };
    }

    /// Waits for a load.
    #[cfg(test)]
    pub(crate) fn wait_for(&mut self, loading: Loading) {
        self.page = Page::Loading(Box::new(loading));
    }

    /// Opens files the user chose or dropped.
    fn open_files(&mut self, ctx: &Context, paths: Vec<PathBuf>) {
        let layout = self.options.layout.clone();
        self.open(ctx, Job { source: Source::Files(paths), follow: false, layout });
    }

    /// Shows a finished load.
    pub(crate) fn show(&mut self, ctx: &Context, loaded: Loaded) {
        for path in &loaded.capture.paths {
            self.session.opened(path);
        }
        // In place would mean to lock the capture twice on this thread, between which the follower may wait to write.
        let inline = self.inline && !loaded.capture.growing;
        let mut doc = Doc::new(loaded.capture, ctx, inline);
        doc.shown = self.session.shown;
        if let Some(follower) = loaded.follower {
            let wake = ctx.clone();
            match Following::start(&doc.capture, follower, move || wake.request_repaint()) {
                Ok(f) => self.following = Some(f),
                Err(e) => self.toast(e, true),
            }
        }
        self.page = Page::Open(Box::new(doc));
    }

    /// The window's title: what is shown, and of what grows or has grown how many events are there. Whoever cannot see the window (a script,
    /// a list of windows) knows from it how far a live view is.
    fn set_title(&mut self, ctx: &Context) {
        let title = match &self.page {
            Page::Open(doc) => {
                let cap = capture::read(&doc.capture);
                let events = fmt::plural(cap.timeline.event_count(), "event", "events");
                match (&self.following, cap.growing) {
                    (None, _) => format!("{} – mmuscope", cap.title()),
                    (Some(_), true) => format!("{}: {events} so far – mmuscope", cap.title()),
                    (Some(_), false) => format!("{}: {events} – mmuscope", cap.title()),
                }
            }
            _ => "mmuscope".to_owned(),
        };
        if self.title != title {
            self.title.clone_from(&title);
            ctx.send_viewport_cmd(ViewportCommand::Title(title));
        }
    }

    /// A stream that is still being read, of which a picture of the whole is wanted: nobody is there who could wait for it to end.
    fn awaits_end(&self, cap: &Capture) -> bool {
        self.options.screenshot.is_some() && cap.growing && cap.paths.is_empty()
    }

    /// The place the command line asked for; a picture shows something even if nothing was asked.
    fn apply_place(&mut self) {
        let Page::Open(doc) = &self.page else { return };
        let shared = Arc::clone(&doc.capture);
        let cap = capture::read(&shared);
        // A place in a stream of which nothing has come is looked for once something has.
        if self.applied || self.awaits_end(&cap) || cap.growing && cap.trace.events.is_empty() {
            return;
        }
        self.applied = true;
        let Page::Open(doc) = &mut self.page else { return };
        let full = cap.full_time();
        let at = self.options.at.map(|t| (t as f64).min(full.end - 1.0));
        if let Some(t) = at {
            let half = full.span() * 0.05;
            let time = Range::new(t - half, t + half);
            doc.show(&cap, time, doc.view.rows);
        }
        let tokens = Tokens::of(mmuscope_analysis::visual::Theme::Dark);
        let mut failed = None;
        if let Some(gfn) = self.options.gfn {
            if let Some(t) = at {
                doc.select_at(&cap, gfn, cap.abs(t), None);
                doc.reveal(&cap, Some(gfn));
            } else {
                let mut out = Vec::new();
                let mut cx = Cx { cap: &cap, doc, tokens: &tokens, out: &mut out };
                failed = topbar::go(&mut cx, crate::goto::Place::Gfn(gfn)).err();
            }
        } else if let Some(t) = at {
            let ix = cap.trace.events.first_at_or_after(cap.abs(t));
            doc.tables.show_event(ix as u32);
        } else if self.options.screenshot.is_some()
            && let Some((gfn, time)) = cap.telling_moment(doc.view.vm, doc.view.as_id)
        {
            doc.select_at(&cap, gfn, time, None);
        }
        doc.history = crate::view::History::default();
        drop(cap);
        if let Some(e) = failed {
            self.toast(e, true);
        }
    }

    fn toast(&mut self, text: impl Into<String>, bad: bool) {
        self.toast = Some((Instant::now(), text.into(), bad));
    }

    /// One frame.
    pub(crate) fn frame(&mut self, ui: &mut Ui) {
        let ctx = ui.ctx().clone();
        let tokens = Tokens::current(&ctx);
        self.progress(&ctx);
        self.set_title(&ctx);
        self.apply_place();
        self.drops(ui, &tokens);
        let mut out = self.shortcuts(&ctx);
        let has_trace = matches!(self.page, Page::Open(_));
        if has_trace {
            self.trace_page(ui, &tokens, &mut out);
        } else {
            Panel::top("menu").show(ui, |ui| {
                egui::MenuBar::new().ui(ui, |ui| topbar::menus(ui, false, &mut out));
            });
            CentralPanel::default().show(ui, |ui| self.start_page(ui, &tokens));
        }
        if let Some(dialog) = &mut self.dialog {
            match dialogs::show(ui, &tokens, dialog, has_trace) {
                Outcome::Stay => {}
                Outcome::Close => self.dialog = None,
                Outcome::Run(command) => {
                    self.dialog = None;
                    out.push(command);
                }
                Outcome::Open(path) => self.open_files(&ctx, vec![path]),
            }
        }
        for command in out {
            self.run_command(&ctx, &tokens, command);
        }
        self.show_toast(&ctx, &tokens);
        self.pictures(&ctx);
    }

    /// Takes over what other threads finished.
    fn progress(&mut self, ctx: &Context) {
        if let Page::Loading(loading) = &self.page {
            match loading.take() {
                Some(News::SoFar(capture)) => {
                    let begun = std::mem::replace(&mut self.page, Page::Welcome { error: None });
                    self.show(ctx, Loaded { capture: *capture, follower: None });
                    if let Page::Loading(loading) = begun {
                        self.reading = Some(loading);
                    }
                }
                Some(News::Done(loaded)) => match *loaded {
                    Ok(loaded) => self.show(ctx, loaded),
                    Err(e) => {
                        if self.options.screenshot.is_some() {
                            self.finish(ctx, Err(ViewError::Trace(e.clone())));
                        }
                        self.page = Page::Welcome { error: (e != "stopped").then_some(e) };
                    }
                },
                // The progress bar moves.
                None => ctx.request_repaint_after(Duration::from_millis(50)),
            }
        }
        self.read_on(ctx);
        if let Some(message) = self.following.as_ref().and_then(Following::message) {
            let nothing =
                matches!(&self.page, Page::Open(d) if capture::read(&d.capture).trace.events.is_empty());
            if nothing {
                // There is no trace beside which this could be said.
                self.following = None;
                self.page = Page::Welcome { error: Some(message) };
            } else {
                self.toast(format!("following ended: {message}"), true);
            }
        }
        if let Page::Open(doc) = &mut self.page
            && doc.follow
        {
            let shared = Arc::clone(&doc.capture);
            let cap = capture::read(&shared);
            let full = cap.full_time();
            let span = doc.view.time.span();
            let whole = doc.view.time.start <= 0.0;
            let time = if whole { full } else { Range::new(full.end - span, full.end) };
            let rows = cap.full_rows(doc.view.vm, doc.view.as_id);
            if doc.view.time != time {
                // A VM may appear only after the window did.
                let first = cap.spaces().first().map(|s| (s.vm, s.as_id));
                if cap.segments(doc.view.vm, doc.view.as_id).is_empty()
                    && let Some((vm, as_id)) = first
                {
                    (doc.view.vm, doc.view.as_id) = (vm, as_id);
                }
                let all = doc.view.rows.start <= 0.0;
                let shown = if all { rows } else { doc.view.rows };
                doc.show(&cap, time, shown);
            }
            // All of a file is there: it will not grow any more.
            doc.follow &= cap.growing;
        }
    }

    /// Takes over more of a trace that is shown while it is read.
    fn read_on(&mut self, ctx: &Context) {
        if let Some(loading) = &self.reading {
            let mut done = false;
            while let Some(news) = loading.take() {
                match news {
                    News::SoFar(capture) => self.arrived = Some(capture),
                    News::Done(loaded) => {
                        done = true;
                        match *loaded {
                            Ok(l) => self.arrived = Some(Box::new(l.capture)),
                            Err(e) => self.toast = Some((Instant::now(), e, true)),
                        }
                        break;
                    }
                }
            }
            if let Page::Open(doc) = &mut self.page {
                doc.reading = if done { None } else { Some(loading.fraction().unwrap_or(0.0)) };
            }
            if done {
                self.reading = None;
            } else {
                ctx.request_repaint_after(Duration::from_millis(50));
            }
        }
        let (Page::Open(doc), Some(arrived)) = (&mut self.page, self.arrived.take()) else { return };
        let shared = Arc::clone(&doc.capture);
        // A picture may be being made: it is not waited for.
        let Ok(mut cap) = shared.try_write() else {
            self.arrived = Some(arrived);
            ctx.request_repaint_after(Duration::from_millis(10));
            return;
        };
        let version = cap.version + 1;
        let old = std::mem::replace(&mut *cap, Capture { version, ..*arrived });
        // Giving back much memory takes time that a frame does not have.
        std::thread::spawn(move || drop(old));
        // What the whole trace tells may have changed which entry is which.
        if let Some(s) = doc.selection {
            let entry = s.entry.and_then(|_| cap.pick(doc.view.vm, doc.view.as_id, s.gfn, s.time));
            doc.selection = Some(crate::view::Selection { entry: entry.map(|(e, _)| e.id), ..s });
        }
    }

    fn drops(&mut self, ui: &Ui, tokens: &Tokens) {
        let (hovered, dropped) = ui.input(|i| {
            let names: Vec<String> = i
                .raw
                .hovered_files
                .iter()
                .map(|f| {
                    f.path
                        .as_ref()
                        .and_then(|p| p.file_name())
                        .map_or_else(String::new, |n| n.to_string_lossy().into_owned())
                })
                .collect();
            let dropped: Vec<PathBuf> = i.raw.dropped_files.iter().map(|f| f.path().to_path_buf()).collect();
            (names, dropped)
        });
        if !hovered.is_empty() {
            start::drop_hint(ui, tokens, &hovered.into_iter().filter(|n| !n.is_empty()).collect::<Vec<_>>());
        }
        if !dropped.is_empty() {
            self.open_files(&ui.ctx().clone(), dropped);
        }
    }

    fn shortcuts(&mut self, ctx: &Context) -> Vec<Command> {
        let typing = ctx.egui_wants_keyboard_input();
        let has_trace = matches!(self.page, Page::Open(_));
        let mut pressed = Vec::new();
        ctx.input_mut(|i| {
            if typing {
                // Plain keys belong to the text; what has Ctrl or Alt, and is no editing key, is still a command.
                let keep: Vec<egui::Event> = std::mem::take(&mut i.events);
                let (mine, theirs): (Vec<_>, Vec<_>) = keep.into_iter().partition(|e| {
                    matches!(e, egui::Event::Key { key, modifiers, .. }
                        if (modifiers.command || modifiers.ctrl || (modifiers.alt && key.name().chars().all(|c| c.is_ascii_digit())))
                            && !matches!(key, egui::Key::A | egui::Key::C | egui::Key::V | egui::Key::X | egui::Key::Z | egui::Key::Y
                                | egui::Key::ArrowLeft | egui::Key::ArrowRight | egui::Key::Backspace | egui::Key::Delete))
                });
                i.events = mine;
                pressed = command::pressed(i);
                i.events.extend(theirs);
            } else {
                pressed = command::pressed(i);
            }
        });
        if self.dialog.is_some() {
            pressed.retain(|c| matches!(c, Command::Quit | Command::Deselect));
            if pressed.contains(&Command::Deselect) {
                self.dialog = None;
                pressed.clear();
            }
        }
        pressed.retain(|c| has_trace || !c.spec().needs_trace || *c == Command::Deselect);
        pressed
    }

    fn start_page(&mut self, ui: &mut Ui, tokens: &Tokens) {
        let ctx = ui.ctx().clone();
        match &self.page {
            Page::Loading(loading) => {
                if start::loading(ui, tokens, loading) {
                    loading.cancel();
                }
            }
            Page::Welcome { error } => {
                match start::welcome(ui, tokens, error.as_deref(), &self.session.recent) {
                    Some(start::Choice::Browse) => self.browse(),
                    Some(start::Choice::Open(path)) => self.open_files(&ctx, vec![path]),
                    None => {}
                }
            }
            Page::Open(_) => {}
        }
    }

    fn browse(&mut self) {
        let folder = self
            .session
            .recent
            .first()
            .and_then(|p| p.parent().map(PathBuf::from))
            .filter(|p| p.is_dir())
            .or_else(|| std::env::current_dir().ok())
            .unwrap_or_else(|| PathBuf::from("/"));
        self.dialog = Some(Dialog::Open(Chooser::new(&folder)));
    }

    fn trace_page(&mut self, ui: &mut Ui, tokens: &Tokens, out: &mut Vec<Command>) {
        let Self { page, contained, goto_box, .. } = self;
        let Page::Open(doc) = page else { return };
        let shared = Arc::clone(&doc.capture);
        let cap = capture::read(&shared);
        let cap: &Capture = &cap;
        let mut cx = Cx { cap, doc, tokens, out };
        Panel::top("menu").show(ui, |ui| {
            egui::MenuBar::new().ui(ui, |ui| {
                topbar::menus(ui, true, cx.out);
                ui.separator();
                topbar::tools(ui, &mut cx, goto_box);
            });
        });
        Panel::bottom("status").show(ui, |ui| status::show(ui, &mut cx));
        if cx.doc.shown.details {
            Panel::right("details").default_size(440.0).size_range(300.0..=700.0).show(ui, |ui| {
                contained.show(ui, "Details", |ui| details::show(ui, &mut cx));
            });
        }
        if cx.doc.shown.tables {
            Panel::bottom("tables").resizable(true).default_size(236.0).size_range(90.0..=600.0).show(
                ui,
                |ui| {
                    tables::show(ui, &mut cx, contained);
                },
            );
        }
        if cx.doc.shown.legend {
            Panel::bottom("legend").show_separator_line(false).show(ui, |ui| legend::show(ui, tokens));
        }
        CentralPanel::default().show(ui, |ui| timeline::show(ui, &mut cx, contained));
    }

    fn run_command(&mut self, ctx: &Context, tokens: &Tokens, command: Command) {
        match command {
            Command::Open => self.browse(),
            Command::Quit => ctx.send_viewport_cmd(ViewportCommand::Close),
            Command::Reload => {
                if let Some(job) = self.job.clone() {
                    if job.source == Source::Stdin {
                        self.toast("standard input can be read only once", true);
                    } else {
                        self.open(ctx, job);
                    }
                }
            }
            Command::Palette => self.dialog = Some(Dialog::Palette(Palette::default())),
            Command::Help => self.dialog = Some(Dialog::Help),
            Command::GoTo => self.goto_box.focus = true,
            Command::ThemeSystem => ctx.set_theme(ThemePreference::System),
            Command::ThemeDark => ctx.set_theme(ThemePreference::Dark),
            Command::ThemeLight => ctx.set_theme(ThemePreference::Light),
            Command::Larger => egui::gui_zoom::zoom_in(ctx),
            Command::Smaller => egui::gui_zoom::zoom_out(ctx),
            Command::SavePicture => self.save_picture(ctx),
            Command::CopyImage => self.take_picture(ctx, PictureFor::Clipboard),
            _ => self.trace_command(ctx, tokens, command),
        }
    }

    fn trace_command(&mut self, ctx: &Context, tokens: &Tokens, command: Command) {
        let Page::Open(doc) = &mut self.page else { return };
        let shared = Arc::clone(&doc.capture);
        let cap = capture::read(&shared);
        let full = cap.full_time();
        let mut message = None;
        match command {
            Command::Fit => {
                doc.leave();
                let rows = cap.full_rows(doc.view.vm, doc.view.as_id);
                doc.show(&cap, full, rows);
            }
            Command::FitSelection => doc.fit_selection(&cap),
            Command::Back => doc.travel(true),
            Command::Forward => doc.travel(false),
            Command::NextChange | Command::PrevChange => {
                let next = command == Command::NextChange;
                if doc.selection.is_none() {
                    message = Some(("select a page first".to_owned(), false));
                } else if !doc.step_change(&cap, next) {
                    message = Some((
                        format!("the entry has no {} change", if next { "later" } else { "earlier" }),
                        false,
                    ));
                }
            }
            Command::NextEvent | Command::PrevEvent => {
                let from = doc.selection.and_then(|s| s.event);
                if let Some(ix) = doc.tables.events.step(&cap, from, command == Command::NextEvent) {
                    doc.select_event(&cap, ix);
                }
            }
            Command::NextPhase | Command::PrevPhase => {
                let here = doc.view.time.centre();
                let phases = cap.timeline.phases_of(doc.view.vm);
                let at = phases.iter().rposition(|p| cap.rel(p.start) <= here);
                let whole = doc.view.time.span() >= full.span() * 0.99;
                let to = match (command == Command::NextPhase, at) {
                    (true, _) if whole => Some(0),
                    (true, Some(i)) => Some(i + 1),
                    (true, None) => Some(0),
                    (false, i) => i.and_then(|i| i.checked_sub(1)),
                };
                if let Some(p) = to.and_then(|i| phases.get(i)) {
                    doc.leave();
                    let time = Range::new(cap.rel(p.start), cap.rel(p.end)).padded(0.02);
                    doc.show(&cap, time, doc.view.rows);
                } else if phases.is_empty() {
                    message = Some((
                        "no phase is marked in this trace (write to trace_marker to mark one)".to_owned(),
                        false,
                    ));
                }
            }
            Command::Filter => {
                doc.shown.tables = true;
                doc.tables.tab = tables::Tab::Events;
                doc.tables.events.focus = true;
            }
            Command::Deselect => {
                if doc.rubber.take().is_none() {
                    if doc.selection.is_some() {
                        doc.selection = None;
                    } else {
                        doc.cursors = [None; 2];
                    }
                }
            }
            Command::CursorA | Command::CursorB => {
                let at = doc.hover.time.or_else(|| doc.selection.map(|s| cap.rel(s.time)));
                if let Some(at) = at {
                    doc.cursors[usize::from(command == Command::CursorB)] = Some(at.clamp(0.0, full.end));
                } else {
                    message = Some(("point at a moment, or select one".to_owned(), false));
                }
            }
            Command::ClearCursors => doc.cursors = [None; 2],
            Command::NextSpace => {
                let spaces = cap.spaces();
                let here =
                    spaces.iter().position(|s| (s.vm, s.as_id) == (doc.view.vm, doc.view.as_id)).unwrap_or(0);
                if let Some(s) = spaces.get((here + 1) % spaces.len().max(1)) {
                    doc.enter_space(&cap, s.vm, s.as_id);
                }
            }
            Command::Follow => {
                doc.follow = cap.growing && !doc.follow;
                let span = doc.view.time.span();
                doc.show(&cap, Range::new(full.end - span, full.end), doc.view.rows);
            }
            Command::ToggleDetails => doc.shown.details = !doc.shown.details,
            Command::ToggleTables => doc.shown.tables = !doc.shown.tables,
            Command::ToggleArea => doc.shown.area = !doc.shown.area,
            Command::ToggleFaults => doc.shown.faults = !doc.shown.faults,
            Command::ToggleLegend => doc.shown.legend = !doc.shown.legend,
            Command::CopyValue => {
                let raw = doc.selection.and_then(|s| cap.timeline.span_at(s.entry?, s.time)?.spte);
                if let Some(raw) = raw {
                    ctx.copy_text(fmt::spte(raw));
                    message = Some((format!("copied {}", fmt::spte(raw)), false));
                } else {
                    message = Some(("nothing with a known value is selected".to_owned(), false));
                }
            }
            Command::CopyLink => {
                let link = link(&cap, doc);
                ctx.copy_text(link.clone());
                message = Some((format!("copied: {link}"), false));
            }
            _ => {
                if let Some(tab) = tables::Tab::of(command) {
                    doc.shown.tables = true;
                    doc.tables.tab = tab;
                } else if command.is_movement() {
                    let mut out = Vec::new();
                    timeline::nav::by_command(&mut Cx { cap: &cap, doc, tokens, out: &mut out }, command);
                }
            }
        }
        self.session.shown = doc.shown;
        drop(cap);
        if let Some((text, bad)) = message {
            self.toast(text, bad);
        }
    }

    fn save_picture(&mut self, ctx: &Context) {
        let Page::Open(doc) = &self.page else { return };
        let cap = capture::read(&doc.capture);
        let base = cap.paths.first().cloned().unwrap_or_else(|| PathBuf::from("mmuscope"));
        drop(cap);
        // Never over an older picture: the first free number is taken.
        let path = (1..1000).map(|n| base.with_extension(format!("view-{n}.png"))).find(|p| !p.exists());
        match path {
            Some(path) => self.take_picture(ctx, PictureFor::File(path)),
            None => self.toast("there are too many pictures beside the trace already", true),
        }
    }

    fn take_picture(&mut self, ctx: &Context, purpose: PictureFor) {
        let taken: Taken = Arc::default();
        let theirs = Arc::clone(&taken);
        let wake = ctx.clone();
        ctx.request_screenshot(move |image| {
            *theirs.lock().unwrap_or_else(PoisonError::into_inner) = Some(image);
            wake.request_repaint();
        });
        self.picture = Some((purpose, taken));
    }

    /// Hands over a picture that was taken, and takes the one that `--screenshot` asks for once the window is complete.
    fn pictures(&mut self, ctx: &Context) {
        let image =
            self.picture.as_ref().and_then(|(_, t)| t.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(image) = image
            && let Some((purpose, _)) = self.picture.take()
        {
            match purpose {
                PictureFor::Clipboard => {
                    ctx.copy_image((*image).clone());
                    self.toast("picture copied", false);
                }
                PictureFor::File(path) => {
                    let written = crate::screenshot::write_png(&path, &image);
                    if self.options.screenshot.is_some() {
                        let result = written.map_err(|message| ViewError::Picture { path, message });
                        self.finish(ctx, result);
                        return;
                    }
                    match written {
                        Ok(()) => self.toast(format!("saved {}", path.display()), false),
                        Err(e) => self.toast(format!("{}: {e}", path.display()), true),
                    }
                }
            }
        }
        let Some(path) = self.options.screenshot.clone() else { return };
        ctx.request_repaint();
        if self.picture.is_some() {
            return;
        }
        let awaits_end =
            matches!(&self.page, Page::Open(doc) if self.awaits_end(&capture::read(&doc.capture)));
        if awaits_end {
            // However long the stream takes; the patience is for the drawing.
            self.begun = Instant::now();
        }
        if self.begun.elapsed() > PATIENCE {
            let e = format!("no picture after {} s", PATIENCE.as_secs());
            self.finish(ctx, Err(ViewError::Picture { path, message: e }));
            return;
        }
        let ready = !awaits_end && matches!(&self.page, Page::Open(doc) if doc.pictures.settled());
        self.steady = if ready { self.steady + 1 } else { 0 };
        // Fonts, panel sizes and animations need some frames to come to rest.
        if self.steady == 20 {
            self.take_picture(ctx, PictureFor::File(path));
        }
    }

    fn finish(&mut self, ctx: &Context, result: Result<(), ViewError>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = result;
        ctx.send_viewport_cmd(ViewportCommand::Close);
    }

    fn show_toast(&mut self, ctx: &Context, tokens: &Tokens) {
        let Some((since, text, bad)) = &self.toast else { return };
        let left = TOAST.saturating_sub(since.elapsed());
        if left.is_zero() {
            self.toast = None;
            return;
        }
        egui::Area::new(egui::Id::unique("toast"))
            .anchor(egui::Align2::CENTER_BOTTOM, [0.0, -36.0])
            .order(egui::Order::Foreground)
            .interactable(false)
            .show(ctx, |ui| {
                let color = if *bad { tokens.bad } else { tokens.accent };
                egui::Frame::popup(ui.style()).stroke(egui::Stroke::new(1.0, color)).show(ui, |ui| {
                    ui.set_max_width(700.0);
                    ui.label(text);
                });
            });
        ctx.request_repaint_after(left);
    }

    /// The welcome page, with or without an error.
    #[cfg(test)]
    pub(crate) fn fail(&mut self, error: Option<String>) {
        self.page = Page::Welcome { error };
    }

    /// Opens a dialog as its command does.
    #[cfg(test)]
    pub(crate) fn command(&mut self, ctx: &Context, command: Command) {
        let tokens = Tokens::current(ctx);
        self.run_command(ctx, &tokens, command);
    }

    /// The open trace.
    #[cfg(test)]
    pub(crate) fn doc(&mut self) -> Option<&mut Doc> {
        match &mut self.page {
            Page::Open(doc) => Some(doc),
            _ => None,
        }
    }
}

/// The command line that opens this view again.
fn link(cap: &Capture, doc: &Doc) -> String {
    let quote = |s: String| {
        let plain = s.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c));
        if plain && !s.is_empty() { s } else { format!("'{}'", s.replace('\'', r"'\''")) }
    };
    let mut out = "mmuscope view".to_owned();
    for path in &cap.paths {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        out.push(' ');
        out.push_str(&quote(path.display().to_string()));
    }
    let at = doc.selection.map_or_else(|| doc.view.time.centre() as u64, |s| cap.rel(s.time) as u64);
    let gfn = doc.selection.map_or_else(String::new, |s| format!(" --gfn 0x{:x}", s.gfn));
    format!("{out} --at {at}ns{gfn}")
}

impl eframe::App for Viewer {
    fn ui(&mut self, ui: &mut Ui, _frame: &mut eframe::Frame) {
        self.frame(ui);
    }

    fn raw_input_hook(&mut self, _ctx: &Context, raw: &mut egui::RawInput) {
        if self.options.screenshot.is_some() {
            // A picture shall not depend on where a pointer happens to rest.
            raw.events.retain(|e| {
                !matches!(
                    e,
                    egui::Event::PointerMoved(_)
                        | egui::Event::PointerButton { .. }
                        | egui::Event::MouseWheel { .. }
                )
            });
        }
    }

    fn save(&mut self, storage: &mut dyn eframe::Storage) {
        if self.options.screenshot.is_none() {
            self.session.save(storage);
        }
    }

    fn persist_egui_memory(&self) -> bool {
        self.options.screenshot.is_none()
    }
}
