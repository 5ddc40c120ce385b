//! Tests of the panels by their labels for screen readers; pictures are compared only where the drawing itself is tested.

mod live;
mod looking;
mod map;
mod notes;
mod other;
mod panels;
mod pictures;
mod real_window;
mod scope;

use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use egui_kittest::kittest::Queryable;
use egui_kittest::{Harness, TestRenderer};
use image::RgbaImage;
use mmuscope_raster::Raster;
use mmuscope_replay::{LayoutOverride, ReplayOptions, replay};
use mmuscope_trace::Trace;

use crate::app::Viewer;
use crate::capture::Capture;
use crate::command::Command;
use crate::doc::Doc;
use crate::load::{Job, Loaded, Source, load};
use crate::session::Session;
use crate::{ThemeChoice, ViewOptions};

/// The first moments of a VM as a 6.1 host with NPT traces them: a marked phase, a fault that maps a page, an MMIO page, the page
/// write-protected and zapped, then another phase. Values are from a real host.
pub(crate) const TEXT: &str = "\
# tracer: nop
#
            load-110 [000] ..... 10.000000: tracing_mark_write: boot
            load-111 [000] ..... 10.000100: kvm_entry: vcpu 0, rip 0x6000
            load-111 [000] ..... 10.000150: kvm_exit: vcpu 0 reason npf rip 0x6000 info1 0x0000000100000006 info2 0x0000000000100000 intr_info 0x00000000 error_code 0x00000000
            load-111 [000] ..... 10.000160: kvm_page_fault: vcpu 0 rip 0x6000 address 0x0000000000100000 error_code 0x100000006
            load-111 [000] ..... 10.000170: kvm_mmu_get_page: sp gen 0 gfn 0 l4 8-byte q0 direct wux nxe ad root 0 sync new
            load-111 [000] ..... 10.000171: kvm_tdp_mmu_spte_changed: as id 0 gfn 0 level 4 old_spte 0 new_spte 3a01827
            load-111 [000] ..... 10.000172: kvm_tdp_mmu_spte_changed: as id 0 gfn 0 level 3 old_spte 0 new_spte 3a02827
            load-111 [000] ..... 10.000173: kvm_tdp_mmu_spte_changed: as id 0 gfn 0 level 2 old_spte 0 new_spte 3a03827
            load-111 [000] ..... 10.000180: kvm_tdp_mmu_spte_changed: as id 0 gfn 100 level 1 old_spte 0 new_spte 36d6e67
            load-111 [000] ..... 10.000181: kvm_mmu_set_spte: gfn 100 spte 36d6e67 (rwxu) level 1 at 3a03800
            load-111 [000] ..... 10.000190: kvm_entry: vcpu 0, rip 0x6000
            load-111 [000] ..... 10.000250: kvm_tdp_mmu_spte_changed: as id 0 gfn c0000 level 3 old_spte 0 new_spte 3a04827
            load-111 [000] ..... 10.000252: kvm_tdp_mmu_spte_changed: as id 0 gfn d0000 level 2 old_spte 0 new_spte 9c16d827
            load-111 [000] ..... 10.000254: kvm_tdp_mmu_spte_changed: as id 0 gfn d0000 level 1 old_spte 0 new_spte 80000d0000017
            load-111 [000] ..... 10.000255: mark_mmio_spte: sptep:000000001d8c585e gfn d0000 access 7 gen 2
            load-111 [000] ..... 10.000260: kvm_mmio: mmio write len 8 gpa 0xd0000000 val 0x20
            load-111 [000] ..... 10.000300: kvm_tdp_mmu_spte_changed: as id 0 gfn 101 level 1 old_spte 0 new_spte 36d7e67
            load-110 [001] ..... 10.000400: tracing_mark_write: protect
            load-110 [001] ..... 10.000500: kvm_tdp_mmu_spte_changed: as id 0 gfn 100 level 1 old_spte 36d6e67 new_spte 36d6c65
            load-110 [001] ..... 10.000900: kvm_tdp_mmu_spte_changed: as id 0 gfn 100 level 1 old_spte 36d6c65 new_spte 0
            load-111 [000] ..... 10.001000: kvm_entry: vcpu 0, rip 0x6000
";

/// The small trace, loaded and replayed.
pub(crate) fn small() -> Capture {
    let trace = Trace::from_text(TEXT).expect("the fixture is a trace");
    assert!(trace.info.damage.is_empty(), "{:?}", trace.info.damage);
    // Twenty events are too few to infer from; a user would say what the kernel was.
    let spec = mmuscope_spte::LayoutSpec::named("6.1/npt").expect("a layout of ours");
    let timeline =
        replay(&trace, &ReplayOptions { layout: LayoutOverride { spec }, ..ReplayOptions::default() });
    Capture {
        trace,
        timeline,
        paths: vec![PathBuf::from("/tmp/small trace.txt")],
        version: 0,
        growing: false,
        took: std::time::Duration::from_millis(1),
    }
}

/// A real trace.
fn sample(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../samples")).join(name)
}

fn options(theme: ThemeChoice) -> ViewOptions {
    ViewOptions { theme: Some(theme), ..ViewOptions::default() }
}

/// Draws a window under test.
#[derive(Default)]
struct Renderer(Raster);

impl TestRenderer for Renderer {
    fn handle_delta(&mut self, delta: &mut egui::TexturesDelta) {
        self.0.update(delta);
    }

    fn render(&mut self, ctx: &egui::Context, output: &egui::FullOutput) -> Result<RgbaImage, String> {
        let picture = self.0.picture(ctx, output)?;
        let [width, height] = picture.size;
        let bytes = picture.pixels.iter().flat_map(egui::Color32::to_array).collect();
        RgbaImage::from_raw(width as u32, height as u32, bytes)
            .ok_or_else(|| "a picture without a size".into())
    }
}

/// A window under test; the viewer is made in the first frame, where its context is.
type Window = Harness<'static, Option<Viewer>>;

fn window(theme: ThemeChoice, make: impl FnOnce(&egui::Context, &mut Viewer) + 'static) -> Window {
    window_with(options(theme), make)
}

/// A window that is opened with options.
fn window_with(options: ViewOptions, make: impl FnOnce(&egui::Context, &mut Viewer) + 'static) -> Window {
    let mut make = Some(make);
    let mut options = Some(options);
    let builder =
        Harness::builder().with_size([1200.0, 800.0]).with_max_steps(30).renderer(Renderer::default());
    let mut h = builder.build_ui_state(
        move |ui, state: &mut Option<Viewer>| {
            let ctx = ui.ctx().clone();
            let viewer = state.get_or_insert_with(|| {
                let mut viewer =
                    Viewer::new(&ctx, options.take().unwrap_or_default(), Session::default(), true);
                if let Some(make) = make.take() {
                    make(&ctx, &mut viewer);
                }
                viewer
            });
            viewer.frame(ui);
        },
        None,
    );
    h.run_ok();
    h
}

/// The window with a capture in it.
fn open(capture: Capture, theme: ThemeChoice) -> Window {
    window(theme, |ctx, viewer| viewer.show(ctx, Loaded { capture, follower: None }))
}

/// A sample, read as a file that was opened.
fn read(name: &str) -> Capture {
    let job =
        Job { source: Source::Files(vec![sample(name)]), follow: false, layout: LayoutOverride::default() };
    load(&job).unwrap_or_else(|e| panic!("{e}")).capture
}

/// Whether anything on the screen has a label with this text.
fn labels(h: &Window, text: &str) -> bool {
    h.query_all_by_label_contains(text).next().is_some()
}

/// Clicks a place with a real pointer.
fn click(h: &mut Window, at: egui::Pos2) {
    h.hover_at(at);
    h.run_ok();
    h.drag_at(at);
    h.drop_at(at);
    h.run_ok();
}

/// The window without a trace.
fn empty(error: Option<&str>) -> Window {
    let error = error.map(str::to_owned);
    window(ThemeChoice::Dark, |_, viewer| viewer.fail(error))
}

/// Asks for a command as a menu does.
fn command(h: &mut Window, command: Command) {
    let ctx = h.ctx.clone();
    h.state_mut().as_mut().expect("made").command(&ctx, command);
    h.run_ok();
}

/// Selects what a page held so many nanoseconds after the first event.
fn select(h: &mut Window, gfn: u64, after_ns: u64) {
    let shared = Arc::clone(&doc(h).capture);
    let cap = crate::capture::read(&shared);
    let time = cap.start() + after_ns;
    doc(h).select_at(&cap, gfn, time, None);
    drop(cap);
    h.run_ok();
}

/// The open trace of a window.
fn doc(h: &mut Window) -> &mut Doc {
    h.state_mut().as_mut().and_then(Viewer::doc).expect("a trace is open")
}

/// Reads the capture of a window.
fn with_capture<R>(h: &mut Window, f: impl FnOnce(&Capture) -> R) -> R {
    let shared: Arc<RwLock<Capture>> = Arc::clone(&doc(h).capture);
    let cap = crate::capture::read(&shared);
    f(&cap)
}
