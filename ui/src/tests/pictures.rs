//! Pictures, drawn by [`mmuscope_raster::Raster`]. `UPDATE_SNAPSHOTS=1 cargo test -p mmuscope-ui pictures` takes new ones.

use egui_kittest::kittest::Queryable;
use egui_kittest::{SnapshotOptions, SnapshotResults};
use mmuscope_analysis::visual::{Theme, Visual};
use mmuscope_replay::Shade;
use std::collections::BTreeMap;

use super::{Window, command, empty, open, read, select, small};
use crate::ThemeChoice;
use crate::command::Command;

/// egui anti-aliases glyphs with the vector instructions of the processor, which round differently.
fn lenient() -> SnapshotOptions {
    SnapshotOptions::new().threshold(1.0).max_failed_pixels(60usize)
}

fn take(results: &mut SnapshotResults, h: &mut Window, name: &str) {
    h.run_ok();
    h.remove_cursor();
    h.run_ok();
    results.add(h.try_snapshot_options(name, &lenient()));
}

fn real(name: &str, theme: ThemeChoice) -> Window {
    open(read(name), theme)
}

/// The parts of the window on a trace of twenty-one events.
#[test]
fn pictures_of_the_panels() {
    let mut results = SnapshotResults::new();
    let mut h = open(small(), ThemeChoice::Dark);
    take(&mut results, &mut h, "nothing-selected-dark");
    select(&mut h, 0x100, 200_000);
    take(&mut results, &mut h, "details-dark");
    command(&mut h, Command::TabStory);
    take(&mut results, &mut h, "story-dark");
    command(&mut h, Command::TabLayout);
    take(&mut results, &mut h, "layout-dark");
    command(&mut h, Command::FitSelection);
    command(&mut h, Command::TabChanges);
    take(&mut results, &mut h, "zoomed-spans-dark");
    command(&mut h, Command::Help);
    take(&mut results, &mut h, "help-dark");
    let mut h = open(small(), ThemeChoice::Light);
    select(&mut h, 0x100, 600_000);
    take(&mut results, &mut h, "write-protected-light");
    command(&mut h, Command::Palette);
    take(&mut results, &mut h, "palette-light");
    let mut h = empty(Some("garbage.bin: not a trace of any known kind: starts with “garbage”"));
    take(&mut results, &mut h, "error-dark");
}

/// The tabs and panels that answer questions, on real traces where the small one has nothing to show.
#[test]
fn pictures_of_answers() {
    let mut results = SnapshotResults::new();
    let mut h = open(small(), ThemeChoice::Dark);
    {
        let d = super::doc(&mut h);
        d.cursors = [Some(200_000.0), Some(950_000.0)];
    }
    command(&mut h, Command::TabBetween);
    take(&mut results, &mut h, "a-to-b-dark");
    let mut h = open(small(), ThemeChoice::Light);
    command(&mut h, Command::TabFindings);
    h.get_by_label("Hot pages").click();
    h.run_ok();
    for _ in 0..5 {
        command(&mut h, Command::NextColour);
    }
    take(&mut results, &mut h, "hot-pages-age-light");
    select(&mut h, 0x100, 200_000);
    command(&mut h, Command::Decode);
    take(&mut results, &mut h, "decode-light");
    let mut h = open(small(), ThemeChoice::Dark);
    command(&mut h, Command::SavePicture);
    h.get_by_label("File to write").focus();
    h.run_ok();
    h.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::A);
    h.get_by_label("File to write").type_text("/tmp/picture-of-a-test.png");
    take(&mut results, &mut h, "save-dark");
    let mut h = empty(None);
    take(&mut results, &mut h, "start-dark");
}

/// Real traces: each state that the kernel's truth or the workload proves has its colour in the map. The pictures themselves are not
/// compared: they follow what replay learns.
#[test]
fn real_traces_show_the_states_they_hold() {
    for (name, choice, shades) in [
        ("linux-boot/trace.dat", ThemeChoice::Dark, &[Shade::Writable, Shade::Mmio, Shade::Removed][..]),
        (
            "6.1-npt/trace.txt.zst",
            ThemeChoice::Light,
            &[Shade::Writable, Shade::ReadOnly, Shade::Mmio, Shade::Removed][..],
        ),
        ("5.10-ept-ad/trace.txt.zst", ThemeChoice::Dark, &[Shade::Mmio][..]),
    ] {
        let mut h = real(name, choice);
        let map = h.get_by_label_contains("GFN map").rect();
        let image = h.render().unwrap_or_else(|e| panic!("{e}"));
        let mut colours: BTreeMap<[u8; 3], usize> = BTreeMap::new();
        for (x, y, p) in image.enumerate_pixels() {
            if map.contains(egui::pos2(x as f32, y as f32)) {
                *colours.entry([p.0[0], p.0[1], p.0[2]]).or_default() += 1;
            }
        }
        let theme = if choice == ThemeChoice::Light { Theme::Light } else { Theme::Dark };
        for shade in shades {
            let style = Visual::builtin().shade_style(*shade);
            let back = Visual::builtin().theme(theme).background;
            // A page among frames of a pixel that hold something else is mixed with the background.
            let least = (Visual::builtin().overlay.least_cover * 100.0) as u32;
            let wanted: Vec<[u8; 3]> = (least..=100)
                .flat_map(|part| {
                    [style.fill(theme), style.large(theme)].map(|c| c.over(back, part as f32 / 100.0).0)
                })
                .collect();
            let near = |p: &[u8; 3]| wanted.iter().any(|w| w.iter().zip(p).all(|(a, b)| a.abs_diff(*b) <= 2));
            let found: usize = colours.iter().filter(|(colour, _)| near(colour)).map(|(_, n)| n).sum();
            assert!(found > 20, "{name}: no {shade:?} in the map");
        }
    }
}
