//! [`Viewer`]: the program behind the window. It holds the page that is shown, and draws each frame from the panels.
//!
//! `commands` runs what the user asks for, `arrivals` takes over what other threads have finished, `pictures` makes pictures of the window.

mod arrivals;
mod commands;
mod pictures;
mod saving;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use egui::{CentralPanel, Context, Panel, ThemePreference, Ui, ViewportCommand};

use crate::capture::{self, Capture};
use crate::command::Command;
use crate::contain::Contained;
use crate::doc::Doc;
use crate::fmt;
use crate::follow::Following;
use crate::load::{Job, Loading, Source};
use crate::panels;
use crate::panels::chooser::Chooser;
use crate::panels::decode::Decode;
use crate::panels::dialogs::{Dialog, Outcome};
use crate::panels::{Cx, details, dialogs, legend, live, start, status, tables, timeline, topbar};
use crate::recorder::Recorder;
use crate::session::Session;
use crate::theme::{self, Tokens};
use crate::{Input, Place, ThemeChoice, ViewError, ViewOptions};
use pictures::{PictureFor, Taken};

/// Size in points of the window of a screenshot.
const PICTURE: [f32; 2] = [1600.0, 1000.0];
/// Path at which a screenshot looks for the state of earlier windows: nothing can exist below a file. Otherwise eframe would take size,
/// place and panels from the user's data folder, and a screenshot must not depend on earlier windows.
const NO_STATE: &str = "/dev/null/mmuscope";
/// The example that is built in: a Linux guest that boots (samples/linux-boot).
const DEMO: &[u8] = include_bytes!("../../samples/linux-boot/trace.dat");
/// Width in points of the details, and height of the tables, where there is room and the user has not changed them.
const DETAILS: f32 = 440.0;
const TABLES: f32 = 258.0;
/// How long a message is shown.
const TOAST: Duration = Duration::from_secs(5);

/// The page that fills the window.
enum Page {
    Welcome { error: Option<String> },
    Loading(Box<Loading>),
    Open(Box<Doc>),
}

/// The viewer: the page that is shown, and everything that is going on in the background.
pub(crate) struct Viewer {
    page: Page,
    following: Option<Following>,
    /// The load of the open trace, while the rest of it is still being read.
    reading: Option<Box<Loading>>,
    /// A larger part of the open trace that was read, until the one that is shown can be replaced.
    arrived: Option<Box<Capture>>,
    options: ViewOptions,
    session: Session,
    /// The load of a trace to show beside the open one, and what it is moved by.
    beside: Option<(Box<Loading>, i64)>,
    /// Why there is no trace beside the open one, although one was asked for.
    beside_failed: Option<String>,
    /// The input of the trace beside the open one.
    other_job: Option<Job>,
    /// State of the page without a trace.
    start: start::Start,
    /// The folder of the built-in example, once it was opened.
    demo: Option<tempfile::TempDir>,
    dialog: Option<Dialog>,
    goto_box: topbar::GoTo,
    contained: Contained,
    toast: Option<(Instant, String, bool)>,
    job: Option<Job>,
    picture: Option<(PictureFor, Taken)>,
    /// A picture to take after some more frames, and its file.
    picture_soon: Option<(u8, PathBuf)>,
    /// Number of frames since everything was drawn, while a screenshot is wanted.
    steady: u32,
    begun: Instant,
    outcome: Arc<Mutex<Result<(), ViewError>>>,
    /// Whether pictures are computed on the UI thread, for tests and screenshots.
    inline: bool,
    applied: bool,
    /// Title of the window as it was set last.
    title: String,
    /// A recording that was started from the window.
    recorder: Option<Recorder>,
    /// A file that another thread is writing.
    written: Option<saving::Written>,
    /// Whether the window was kept open once because of notes that no file has.
    warned: bool,
}

/// Opens the window and returns when it is closed.
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
    .map_err(|e| ViewError::Window(crate::fmt::without_source(&e.to_string())))?;
    let mut guard = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut *guard, Ok(()))
}

/// What a window has room for: the map is the last to go.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Room {
    legend: bool,
    details: bool,
    most_details: f32,
    most_tables: f32,
}

impl Room {
    /// For a window of this size, in points.
    fn of(size: egui::Vec2) -> Self {
        Self {
            legend: size.y >= 640.0,
            details: size.x >= 760.0,
            most_details: (size.x * 0.4).clamp(260.0, 700.0),
            most_tables: (size.y * 0.36 - 26.0).clamp(80.0, 600.0),
        }
    }
}

impl Viewer {
    /// Makes the viewer and starts to load the input of the options.
    pub(crate) fn new(ctx: &Context, options: ViewOptions, session: Session, inline: bool) -> Self {
        theme::install(ctx);
        match options.theme {
            Some(ThemeChoice::Dark) => ctx.set_theme(ThemePreference::Dark),
            Some(ThemeChoice::Light) => ctx.set_theme(ThemePreference::Light),
            Some(ThemeChoice::System) => ctx.set_theme(ThemePreference::System),
            // A screenshot must not depend on the desktop it is made on.
            None if options.screenshot.is_some() => ctx.set_theme(ThemePreference::Dark),
            None => {}
        }
        let mut viewer = Self {
            page: Page::Welcome { error: None },
            following: None,
            reading: None,
            arrived: None,
            beside: None,
            beside_failed: None,
            other_job: None,
            session,
            start: start::Start::default(),
            demo: None,
            dialog: None,
            goto_box: topbar::GoTo::default(),
            contained: Contained::default(),
            toast: None,
            job: None,
            picture: None,
            picture_soon: None,
            steady: 0,
            begun: Instant::now(),
            outcome: Arc::new(Mutex::new(Ok(()))),
            inline,
            applied: false,
            title: String::new(),
            recorder: None,
            written: None,
            warned: false,
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
            if let Some(path) = viewer.options.beside.clone() {
                viewer.open_beside(ctx, path, viewer.options.shift);
            }
        }
        viewer
    }

    fn open(&mut self, ctx: &Context, job: Job) {
        self.following = None;
        self.reading = None;
        self.arrived = None;
        (self.beside, self.other_job) = (None, None);
        self.dialog = None;
        self.applied = false;
        self.job = Some(job.clone());
        let ctx = ctx.clone();
        // A place on the command line, and a screenshot, refer to the whole trace.
        let o = &self.options;
        let glimpses =
            o.screenshot.is_none() && o.at.is_none() && o.gfn.is_none() && o.place == Place::default();
        self.page = match Loading::start(job, glimpses, move || ctx.request_repaint()) {
            Ok(loading) => Page::Loading(Box::new(loading)),
            Err(e) => Page::Welcome { error: Some(e) },
        };
    }

    /// Opens the example that is built in. Readers want a file, so that it is put into a folder of its own until the window is closed.
    fn open_demo(&mut self, ctx: &Context) {
        let made = match self.demo.take() {
            Some(folder) => Ok(folder),
            None => tempfile::Builder::new().prefix("mmuscope-example-").tempdir(),
        };
        let written = made.and_then(|folder| {
            let file = folder.path().join("linux-boot.trace.dat");
            std::fs::write(&file, DEMO).map(|()| (folder, file))
        });
        match written {
            Ok((folder, file)) => {
                self.demo = Some(folder);
                self.open_files(ctx, vec![file]);
            }
            Err(e) => self.toast(format!("cannot write the example to the temporary folder: {e}"), true),
        }
    }

    /// Shows the progress of a load and waits for it.
    #[cfg(test)]
    pub(crate) fn wait_for(&mut self, loading: Loading) {
        self.page = Page::Loading(Box::new(loading));
    }

    /// Remembers an input that a test opens itself.
    #[cfg(test)]
    pub(crate) fn began(&mut self, job: Job) {
        self.job = Some(job);
    }

    /// Opens files that the user chose or dropped.
    fn open_files(&mut self, ctx: &Context, paths: Vec<PathBuf>) {
        let layout = self.options.layout.clone();
        self.open(ctx, Job { source: Source::Files(paths), follow: false, layout });
    }

    /// Sets the title of the window: the name of the trace, and for one that is followed the number of events, so that a script or a list of
    /// windows shows how far a live view is.
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

    fn toast(&mut self, text: impl Into<String>, bad: bool) {
        self.toast = Some((Instant::now(), text.into(), bad));
    }

    /// Draws one frame and runs the commands that were given in it.
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
                Outcome::Beside(path) => {
                    self.dialog = None;
                    self.open_beside(&ctx, path, 0);
                }
                Outcome::Note(note, instead) => {
                    self.dialog = None;
                    if let Page::Open(doc) = &mut self.page {
                        doc.notes.put(note, instead);
                    }
                }
                Outcome::Save(what, path) => {
                    self.dialog = None;
                    self.save(&ctx, what, path);
                }
            }
        }
        for command in out {
            self.run_command(&ctx, &tokens, command);
        }
        self.keep(&ctx);
        self.closing(&ctx);
        self.show_toast(&ctx, &tokens);
        self.pictures(&ctx);
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

    fn start_page(&mut self, ui: &mut Ui, tokens: &Tokens) {
        let ctx = ui.ctx().clone();
        match &self.page {
            Page::Loading(loading) => {
                if start::loading(ui, tokens, loading) {
                    loading.cancel();
                }
            }
            Page::Welcome { error } => {
                let offers = start::Offers {
                    recent: &self.session.recent,
                    doctor: self.options.doctor.is_some(),
                    recorder: self.options.recorder.as_deref(),
                };
                match start::welcome(ui, tokens, &mut self.start, error.as_deref(), offers) {
                    Some(start::Choice::Record(how)) => self.record(&ctx, how),
                    Some(start::Choice::Browse) => self.dialog = Some(Dialog::Open(self.chooser())),
                    Some(start::Choice::Open(path)) => self.open_files(&ctx, vec![path]),
                    Some(start::Choice::Demo) => self.open_demo(&ctx),
                    Some(start::Choice::Decode) => {
                        let text = std::mem::take(&mut self.start.text);
                        self.dialog = Some(Dialog::Decode(Box::new(Decode::new(text, None))));
                    }
                    Some(start::Choice::Doctor) => self.start.doctor = self.options.doctor.map(|f| f()),
                    None => {}
                }
            }
            Page::Open(_) => {}
        }
    }

    /// Where the file chooser begins.
    fn chooser(&self) -> Chooser {
        let folder = self
            .session
            .recent
            .first()
            .and_then(|p| p.parent().map(PathBuf::from))
            .filter(|p| p.is_dir())
            .or_else(|| std::env::current_dir().ok())
            .unwrap_or_else(|| PathBuf::from("/"));
        Chooser::new(&folder)
    }

    fn trace_page(&mut self, ui: &mut Ui, tokens: &Tokens, out: &mut Vec<Command>) {
        let Self { page, contained, goto_box, recorder, beside_failed, .. } = self;
        let Page::Open(doc) = page else { return };
        let shared = Arc::clone(&doc.capture);
        let cap = capture::read(&shared);
        let cap: &Capture = &cap;
        let mut cx = Cx { cap, doc, tokens, out };
        if cx.doc.play.is_some() {
            crate::play::step(cap, cx.doc, Instant::now());
            ui.ctx().request_repaint();
        }
        crate::other::reach(cx.doc, cap);
        if cx.doc.reading.is_none() {
            cx.doc.survey.want(ui.ctx(), cap, &shared);
        }
        Panel::top("menu").show(ui, |ui| {
            egui::MenuBar::new().ui(ui, |ui| {
                topbar::menus(ui, true, cx.out);
                ui.separator();
                topbar::tools(ui, &mut cx, goto_box);
            });
        });
        Panel::bottom("status").show(ui, |ui| status::show(ui, &mut cx));
        if cx.doc.live.is_some() {
            Panel::bottom("live").show(ui, |ui| live::show(ui, &mut cx));
        }
        if let Some(r) = recorder
            && Panel::bottom("recorder").show(ui, |ui| panels::recorder::line(ui, tokens, r)).inner
        {
            *recorder = None;
        }
        if let Some(why) = beside_failed
            && Panel::bottom("beside failed").show(ui, |ui| status::failed(ui, tokens, why)).inner
        {
            *beside_failed = None;
        }
        let room = Room::of(ui.ctx().content_rect().size());
        if cx.doc.shown.details && room.details {
            let most = room.most_details;
            // A small window has sizes of its own: when it grows, the panels are as large as they were before it shrank.
            let name = if most < DETAILS { "details, narrow" } else { "details" };
            Panel::right(name).default_size(DETAILS.min(most)).size_range(260.0..=most).show(ui, |ui| {
                contained.show(ui, "Details", |ui| details::show(ui, &mut cx));
            });
        }
        if cx.doc.shown.tables {
            let most = room.most_tables;
            let name = if most < TABLES { "tables, low" } else { "tables" };
            Panel::bottom(name).resizable(true).default_size(TABLES.min(most)).size_range(80.0..=most).show(
                ui,
                |ui| {
                    tables::show(ui, &mut cx, contained);
                },
            );
        }
        if cx.doc.shown.legend && room.legend {
            Panel::bottom("legend").show_separator_line(false).show(ui, |ui| legend::show(ui, &mut cx));
        }
        CentralPanel::default().show(ui, |ui| timeline::show(ui, &mut cx, contained));
    }

    /// Whether a screenshot has to wait for the end of a stream, because it shows the whole.
    fn awaits_end(&self, cap: &Capture) -> bool {
        self.options.screenshot.is_some() && cap.growing && cap.paths.is_empty()
    }

    /// Closes the window; the program returns `result`.
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

    /// Shows the welcome page, with or without an error.
    #[cfg(test)]
    pub(crate) fn fail(&mut self, error: Option<String>) {
        self.page = Page::Welcome { error };
    }

    /// Runs a command.
    #[cfg(test)]
    pub(crate) fn command(&mut self, ctx: &Context, command: Command) {
        let tokens = Tokens::current(ctx);
        self.run_command(ctx, &tokens, command);
    }

    /// The open trace, if there is one.
    pub(crate) fn open_doc(&self) -> Option<&Doc> {
        match &self.page {
            Page::Open(doc) => Some(doc),
            _ => None,
        }
    }

    /// The open trace, if there is one, to change it.
    #[cfg(test)]
    pub(crate) fn doc(&mut self) -> Option<&mut Doc> {
        match &mut self.page {
            Page::Open(doc) => Some(doc),
            _ => None,
        }
    }
}

impl eframe::App for Viewer {
    fn ui(&mut self, ui: &mut Ui, _frame: &mut eframe::Frame) {
        self.frame(ui);
    }

    fn raw_input_hook(&mut self, _ctx: &Context, raw: &mut egui::RawInput) {
        if self.options.screenshot.is_some() {
            // A screenshot must not depend on where the pointer is.
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
