//! The desktop viewer of mmuscope: what KVM's MMU did to every guest page, over time.
//!
//! [`run`] opens a window on one trace (or none, with a way to choose) and returns when it is closed. The window is made of panels on top
//! of `mmuscope-replay` and `mmuscope-analysis`; it holds no knowledge of its own about traces or SPTEs. Reading and replaying run on a
//! thread of their own, pictures on another, so that the window answers at once however large the trace is.
//!
//! ```no_run
//! use mmuscope_ui::{Input, ViewOptions};
//!
//! mmuscope_ui::run(ViewOptions { input: Input::Files(vec!["trace.dat".into()]), ..ViewOptions::default() })?;
//! # Ok::<(), mmuscope_ui::ViewError>(())
//! ```

mod app;
mod capture;
mod command;
mod contain;
mod doc;
mod fmt;
mod goto;
mod load;
mod panels;
mod picture;
mod rows;
mod screenshot;
mod session;
#[cfg(test)]
mod tests;
mod theme;
mod view;
mod widgets;
mod worker;

use std::path::PathBuf;

use mmuscope_replay::LayoutOverride;

/// What to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// Nothing yet: the window offers to choose.
    #[default]
    Nothing,
    /// Files that belong together, on one clock.
    Files(Vec<PathBuf>),
    /// Standard input, shown as it comes.
    Stdin,
}

/// Colours of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThemeChoice {
    /// As the desktop says.
    #[default]
    System,
    /// Light ink on a dark page.
    Dark,
    /// Dark ink on a light page.
    Light,
}

/// How to open the window.
#[derive(Clone, Debug, Default)]
pub struct ViewOptions {
    /// What to show.
    pub input: Input,
    /// Keep reading a file that is still being written. Standard input always is.
    pub follow: bool,
    /// What is known about the layout; the rest is inferred.
    pub layout: LayoutOverride,
    /// A moment to go to, in nanoseconds since the first event; what lies behind the end means the end.
    pub at: Option<u64>,
    /// A guest frame to select.
    pub gfn: Option<u64>,
    /// Write a picture of the window (1600 x 1000 points) to this PNG and close: for documents and tests.
    pub screenshot: Option<PathBuf>,
    /// Colours; `None` takes what was chosen last time.
    pub theme: Option<ThemeChoice>,
}

/// Why there is no window, or no picture of it. What is wrong with a trace is shown in the window instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// No display, or no OpenGL on it.
    #[error(
        "cannot open a window: {0}; the viewer needs X11 or Wayland with OpenGL 2.1 or later (over ssh: `ssh -X`; without a screen: `xvfb-run`); `mmuscope report` needs neither"
    )]
    Window(String),
    /// The trace could not be read, and there is nobody to show that to (`--screenshot`).
    #[error("{0}")]
    Trace(String),
    /// The picture could not be written.
    #[error("{}: cannot write the picture: {message}", path.display())]
    Picture {
        /// Where to.
        path: PathBuf,
        /// What went wrong.
        message: String,
    },
}

/// Opens the window and returns when it is closed.
pub fn run(options: ViewOptions) -> Result<(), ViewError> {
    app::run(options)
}
