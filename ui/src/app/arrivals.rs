//! What arrives from other threads: finished loads, larger parts of a trace that is being read, the end of a followed capture. The viewer
//! calls these functions at the start of each frame.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egui::Context;
use mmuscope_trace::Stage;

use super::{Page, Viewer};
use crate::beside;
use crate::capture::{self, Capture};
use crate::doc::Doc;
use crate::follow::{self, Following, Live};
use crate::load::{Job, Loaded, Loading, News, Source};
use crate::other;
use crate::panels::{Cx, topbar};
use crate::theme::Tokens;
use crate::view::Range;
use crate::{Place, ViewError};

/// Shows what a copied link names beside a moment and a page. The error says what the trace does not have.
fn show_place(doc: &mut Doc, cap: &Capture, place: &Place) -> Result<(), String> {
    if place.vm.is_some() || place.as_id.is_some() {
        let vm = place.vm.map_or(doc.view.vm, mmuscope_replay::VmId);
        let as_id = place.as_id.unwrap_or(0);
        if !cap.spaces().iter().any(|s| (s.vm, s.as_id) == (vm, as_id)) {
            return Err(format!("the trace has no VM {} with address space {as_id}", vm.0));
        }
        doc.enter_space(cap, vm, as_id);
    }
    if let Some((from, to)) = place.time {
        let end = cap.full_time().end;
        doc.show(cap, Range::new((from as f64).min(end), (to as f64).min(end)), doc.view.rows);
    }
    let rows = place.frames.and_then(|(a, b)| cap.rows_of(doc.view.vm, doc.view.as_id, a, b));
    if let Some(rows) = rows {
        doc.show(cap, doc.view.time, rows);
    }
    for (cursor, at) in doc.cursors.iter_mut().zip(&place.cursors) {
        *cursor = Some((*at as f64).min(cap.full_time().end));
    }
    if let Some(text) = &place.filter {
        doc.tables.events.set_filter(text);
    }
    for text in &place.scopes {
        let scope =
            beside::scope(text).ok_or_else(|| format!("--scope {text}: not what a copied link has there"))?;
        doc.scopes.narrow(scope);
    }
    if let Some(tab) = place.tab.as_deref().and_then(crate::panels::tables::Tab::named) {
        doc.tables.tab = tab;
        doc.shown.tables = true;
    }
    Ok(())
}

impl Viewer {
    /// Shows a finished load.
    pub(crate) fn show(&mut self, ctx: &Context, loaded: Loaded) {
        for path in loaded
            .capture
            .paths
            .iter()
            .filter(|p| self.demo.as_ref().is_none_or(|d| !p.starts_with(d.path())))
        {
            self.session.opened(path);
        }
        // Computing on this thread would lock the capture twice, and the follower may wait to write in between.
        let inline = self.inline && !loaded.capture.growing;
        let mut doc = Doc::new(loaded.capture, ctx, inline);
        doc.shown = self.session.shown;
        doc.only_once = self.job.as_ref().and_then(|j| follow::again(&j.source).err());
        if let Some(follower) = loaded.follower {
            let wake = ctx.clone();
            let layout = self.job.as_ref().map(|j| j.layout.clone()).unwrap_or_default();
            match Following::start(&doc.capture, follower, layout, move || wake.request_repaint()) {
                Ok(f) => self.following = Some(f),
                Err(e) => self.toast(e, true),
            }
        }
        if self.options.screenshot.is_none() {
            let shared = Arc::clone(&doc.capture);
            let cap = capture::read(&shared);
            match beside::find(&cap) {
                Some((file, Ok(session))) => {
                    let o = &self.options;
                    let with_view = !cap.growing && beside::no_place(o.at, o.gfn, &o.place);
                    beside::restore(&mut doc, &cap, session, file, with_view);
                    doc.history = crate::view::History::default();
                }
                // A file of that name that is something else is never written to.
                Some((_, Err(e))) => self.toast(e, true),
                None => {}
            }
        }
        self.page = Page::Open(Box::new(doc));
    }

    /// Takes over what other threads have finished.
    pub(super) fn progress(&mut self, ctx: &Context) {
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
                // The progress bar has to move.
                None => ctx.request_repaint_after(Duration::from_millis(50)),
            }
        }
        self.watch_recorder();
        self.read_on(ctx);
        self.take_beside(ctx);
        let live = self.following.as_ref().map(Following::live);
        if let Page::Open(doc) = &mut self.page {
            doc.live.clone_from(&live);
        }
        if let Some(Live { stage: Stage::Ended(why), failed: true, read: 0, .. }) = live {
            // There is no trace to be shown.
            self.following = None;
            self.page = Page::Welcome { error: Some(why) };
        }
        self.follow_end();
    }

    /// Takes over a larger part of a trace that is shown while it is read.
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
        // A picture may be computed from the capture at this moment; the UI thread does not wait for it.
        let Ok(mut cap) = shared.try_write() else {
            self.arrived = Some(arrived);
            ctx.request_repaint_after(Duration::from_millis(10));
            return;
        };
        let version = cap.version + 1;
        let old = std::mem::replace(&mut *cap, Capture { version, ..*arrived });
        // Freeing much memory takes longer than a frame, so another thread does it.
        std::thread::spawn(move || drop(old));
        // The numbers of entries may have changed, so the selected entry is looked for again.
        if let Some(s) = doc.selection {
            let entry = s.entry.and_then(|_| cap.pick(doc.view.vm, doc.view.as_id, s.gfn, s.time));
            doc.selection = Some(crate::view::Selection { entry: entry.map(|(e, _)| e.id), ..s });
        }
    }

    /// Starts to read a trace that is shown beside the open one.
    pub(crate) fn open_beside(&mut self, ctx: &Context, path: PathBuf, shift: i64) {
        let layout = self.options.layout.clone();
        let job = Job { source: Source::Files(vec![path]), follow: false, layout };
        let wake = ctx.clone();
        match Loading::start(job.clone(), false, move || wake.request_repaint()) {
            Ok(loading) => {
                self.beside_failed = None;
                self.beside = Some((Box::new(loading), shift));
                self.other_job = Some(job);
            }
            Err(e) => self.toast(e, true),
        }
    }

    /// Shows the trace beside the open one once it has been read.
    fn take_beside(&mut self, ctx: &Context) {
        let (Some((loading, shift)), Page::Open(doc)) = (&self.beside, &mut self.page) else { return };
        let Some(news) = loading.take() else { return ctx.request_repaint_after(Duration::from_millis(50)) };
        let News::Done(loaded) = news else { return };
        let shift = *shift as f64;
        self.beside = None;
        match *loaded {
            Ok(loaded) => {
                let mut theirs = Doc::new(loaded.capture, ctx, self.inline);
                {
                    let shared = Arc::clone(&theirs.capture);
                    let cap = capture::read(&shared);
                    if let Some((file, Ok(session))) = beside::find(&cap) {
                        beside::restore(&mut theirs, &cap, session, file, false);
                    }
                }
                let shared = Arc::clone(&doc.capture);
                other::put(doc, &capture::read(&shared), theirs, shift);
            }
            Err(e) => {
                self.other_job = None;
                self.beside_failed = Some(format!("the trace beside this one could not be opened: {e}"));
            }
        }
    }

    /// Moves the view of a trace that is followed to its newest events.
    fn follow_end(&mut self) {
        if let Page::Open(doc) = &mut self.page
            && doc.follow
        {
            let shared = Arc::clone(&doc.capture);
            let cap = capture::read(&shared);
            let full = cap.full_time();
            let span = doc.view.time.span();
            let whole = doc.view.time.start <= 0.0;
            let time = match doc.window {
                Some(w) => Range::new((full.end - w).max(0.0), full.end),
                None if whole => full,
                None => Range::new(full.end - span, full.end),
            };
            let rows = cap.full_rows(doc.view.vm, doc.view.as_id);
            if doc.view.time != time {
                // The first VM may appear after the window was opened.
                let first = cap.spaces().first().map(|s| (s.vm, s.as_id));
                if cap.segments(doc.view.vm, doc.view.as_id).is_empty()
                    && let Some((vm, as_id)) = first
                {
                    (doc.view.vm, doc.view.as_id) = (vm, as_id);
                }
                let all = doc.view.rows.start <= 0.0;
                let shown = if all { rows } else { doc.view.rows };
                let window = doc.window;
                doc.show(&cap, time, shown);
                // The whole may have been shorter than the stretch so far.
                doc.window = window;
            }
            // Following ends with a trace that does not grow any more.
            doc.follow &= cap.growing;
        }
    }

    /// Shows the place that the command line named, once. A screenshot without a place selects a page that shows much.
    pub(super) fn apply_place(&mut self) {
        let Page::Open(doc) = &self.page else { return };
        let shared = Arc::clone(&doc.capture);
        let cap = capture::read(&shared);
        // In a stream the place is looked for once there are events.
        if self.applied || self.awaits_end(&cap) || cap.growing && cap.trace.events.is_empty() {
            return;
        }
        self.applied = true;
        let Page::Open(doc) = &mut self.page else { return };
        let full = cap.full_time();
        let at = self.options.at.map(|t| (t as f64).min(full.end - 1.0));
        if let Some(t) = at.filter(|_| self.options.place.time.is_none()) {
            let half = full.span() * 0.05;
            let time = Range::new(t - half, t + half);
            doc.show(&cap, time, doc.view.rows);
        }
        let mut failed = show_place(doc, &cap, &self.options.place).err();
        let tokens = Tokens::of(mmuscope_analysis::visual::Theme::Dark);
        if let Some(gfn) = self.options.gfn {
            if let Some(t) = at {
                doc.select_at(&cap, gfn, cap.abs(t), None);
                // A stretch of time or frames that was asked for stays as it is.
                if self.options.place.time.is_none() && self.options.place.frames.is_none() {
                    doc.reveal(&cap, Some(gfn));
                }
            } else {
                let mut out = Vec::new();
                let mut cx = Cx { cap: &cap, doc, tokens: &tokens, out: &mut out };
                failed = topbar::go(&mut cx, crate::goto::Place::Gfn(gfn)).err().or(failed);
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
}
