//! Pictures of the window: the commands that save or copy one, and the one that `--screenshot` asks for.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use egui::Context;

use super::{Page, Viewer};
use crate::ViewError;
use crate::capture;
use crate::doc::Doc;

/// A screenshot that is not ready after this time is given up.
const PATIENCE: Duration = Duration::from_mins(2);

/// Where a picture of the window goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PictureFor {
    File(PathBuf),
    Clipboard,
}

/// The picture, once egui has taken it.
pub(super) type Taken = Arc<Mutex<Option<Arc<egui::ColorImage>>>>;

impl Viewer {
    /// Asks egui for a picture of the window.
    pub(super) fn take_picture(&mut self, ctx: &Context, purpose: PictureFor) {
        let taken: Taken = Arc::default();
        let theirs = Arc::clone(&taken);
        let wake = ctx.clone();
        ctx.request_screenshot(move |image| {
            *theirs.lock().unwrap_or_else(PoisonError::into_inner) = Some(image);
            wake.request_repaint();
        });
        self.picture = Some((purpose, taken));
    }

    /// Saves or copies a picture that was taken, and takes the one that `--screenshot` asks for once the window is complete.
    pub(super) fn pictures(&mut self, ctx: &Context) {
        match self.picture_soon.take() {
            Some((0, path)) => self.take_picture(ctx, PictureFor::File(path)),
            Some((frames, path)) => {
                self.picture_soon = Some((frames - 1, path));
                ctx.request_repaint();
            }
            None => {}
        }
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
            // The time limit is for drawing; the stream may take any time.
            self.begun = Instant::now();
        }
        if self.begun.elapsed() > PATIENCE {
            let e = format!("no picture after {} s", PATIENCE.as_secs());
            self.finish(ctx, Err(ViewError::Picture { path, message: e }));
            return;
        }
        let drawn =
            |doc: &Doc| doc.pictures.settled() && doc.other.as_ref().is_none_or(|o| o.doc.pictures.settled());
        let ready =
            !awaits_end && self.beside.is_none() && matches!(&self.page, Page::Open(doc) if drawn(doc));
        self.steady = if ready { self.steady + 1 } else { 0 };
        // Fonts, panel sizes and animations need some frames until they do not change any more.
        if self.steady == 20 {
            self.take_picture(ctx, PictureFor::File(path));
        }
    }
}
