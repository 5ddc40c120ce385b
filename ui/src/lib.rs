//! The desktop viewer of mmuscope: what KVM's MMU did to every guest page, over time.
//!
//! `mmuscope view` calls [`run`], which opens a window on a trace (or on a file chooser) and returns when the window is closed. The window is
//! made of panels on top of `mmuscope-replay` and `mmuscope-analysis`; it never interprets an event or an SPTE itself. A thread reads and
//! replays, another one draws pictures, so that the window responds at once however large the trace is.
//!
//! ```no_run
//! use mmuscope_ui::{Input, ViewOptions};
//!
//! mmuscope_ui::run(ViewOptions { input: Input::Files(vec!["trace.dat".into()]), ..ViewOptions::default() })?;
//! # Ok::<(), mmuscope_ui::ViewError>(())
//! ```

mod app;
#[doc(hidden)]
pub mod bench;
mod beside;
mod capture;
mod command;
mod commands;
mod contain;
mod doc;
mod fmt;
mod follow;
mod goto;
mod keys;
mod load;
mod notes;
mod other;
mod panels;
mod passing;
mod picture;
mod play;
mod probe;
mod recorder;
mod rows;
mod scope;
mod screenshot;
mod second;
mod session;
mod survey;
#[cfg(test)]
mod tests;
mod theme;
mod view;
mod widgets;
mod worker;

use std::path::{Path, PathBuf};

use mmuscope_replay::{LayoutOverride, Timeline};
use mmuscope_trace::Trace;

/// What to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// No trace yet: the window offers a file chooser.
    #[default]
    Nothing,
    /// Files that are read as one trace.
    Files(Vec<PathBuf>),
    /// Standard input, shown while it is read.
    Stdin,
}

/// Colour scheme of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThemeChoice {
    /// The scheme of the desktop.
    #[default]
    System,
    /// Light ink on a dark page.
    Dark,
    /// Dark ink on a light page.
    Light,
}

/// A part of the trace to show, and how: what a copied link holds beside a moment and a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// VM to show, by its number in `mmuscope summary`.
    pub vm: Option<u16>,
    /// Address space to show: 0 is the normal one, 1 is SMM.
    pub as_id: Option<u8>,
    /// Start and end of the time to show, in nanoseconds since the first event.
    pub time: Option<(u64, u64)>,
    /// First guest frame to show, and one past the last.
    pub frames: Option<(u64, u64)>,
    /// Times of the cursors A and B, in nanoseconds since the first event.
    pub cursors: Vec<u64>,
    /// Filter of the table of events.
    pub filter: Option<String>,
    /// Table to open, by the name of its tab.
    pub tab: Option<String>,
    /// What the tables are limited to, one step after the other, in the words of the session file: `time=0-1000 frames=0/0/0x10-0x1f tid=7`.
    pub scopes: Vec<String>,
}

/// Writes the events with these numbers to a file in the format that its ending names. The error says why it cannot.
pub type EventsWriter = fn(&Trace, &Timeline, &[u32], &Path) -> Result<(), String>;

/// Draws the figure of an address space of a VM (by its number) as SVG; `None` if there is none.
pub type FigureMaker = fn(&Trace, &Timeline, u16, u8) -> Option<String>;

/// How to open the window.
#[derive(Clone, Debug, Default)]
pub struct ViewOptions {
    /// What to show.
    pub input: Input,
    /// Whether to keep reading a file while it is being written. Standard input is always read to its end.
    pub follow: bool,
    /// What the user says about the layout; the rest is inferred.
    pub layout: LayoutOverride,
    /// A time to show, in nanoseconds since the first event. A time after the end of the trace means the end.
    pub at: Option<u64>,
    /// The guest frame to select.
    pub gfn: Option<u64>,
    /// The rest of the view, as `Copy link` writes it.
    pub place: Place,
    /// Another trace that is shown beside the first, on the same time axis.
    pub beside: Option<PathBuf>,
    /// What is added to a moment of the first trace to get the moment of the other one at the same place, in nanoseconds; both count from their
    /// first event.
    pub shift: i64,
    /// File to which a picture of the window (1600 x 1000 points) is written as PNG before the window closes: for documents and tests.
    pub screenshot: Option<PathBuf>,
    /// Looks whether this host can be recorded, and says so in lines; the start page shows them. `None` hides the button.
    pub doctor: Option<fn() -> String>,
    /// The command that writes a capture of this host to its standard output; the start page offers to run it. `None` hides that.
    pub recorder: Option<Vec<String>>,
    /// Folder for captures that are recorded from the window; `None` is the one that the program was started in.
    pub record_to: Option<PathBuf>,
    /// Writes events to a file; `None` lets the viewer write the texts that it shows.
    pub write_events: Option<EventsWriter>,
    /// Draws the figure of an address space as SVG.
    pub figure: Option<FigureMaker>,
    /// Colour scheme; `None` takes the one that was chosen last.
    pub theme: Option<ThemeChoice>,
}

/// Why the window, or a picture of it, could not be made. Errors of a trace are shown in the window instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// There is no display, or no OpenGL on it.
    #[error(
        "cannot open a window: {0}; the viewer needs X11 or Wayland with OpenGL 2.1 or later (over ssh: `ssh -X`; without a screen: `xvfb-run`); `mmuscope report` needs neither"
    )]
    Window(String),
    /// The trace could not be read, and only a picture was wanted, so that the window cannot show that.
    #[error("{0}")]
    Trace(String),
    /// The picture could not be written.
    #[error("{}: cannot write the picture: {message}", path.display())]
    Picture {
        /// File of the picture.
        path: PathBuf,
        /// The error of the system.
        message: String,
    },
}

/// Opens the window and returns when it is closed.
pub fn run(options: ViewOptions) -> Result<(), ViewError> {
    app::run(options)
}
