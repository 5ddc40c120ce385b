use mmuscope_replay::{Cell, MapImage, MapQuery, Shade, VmId};

use super::*;

const LIGHT: Theme = Theme::Light;

fn image(cols: usize, rows: usize, cells: Vec<Cell>) -> MapImage {
    assert_eq!(cells.len(), cols * rows);
    let query = MapQuery { vm: VmId(0), as_id: 0, t0: 0, t1: 1000, y0: 0.0, y1: rows as f64, cols, rows };
    MapImage { query, cols, rows, cells, exact: true }
}

/// A cell whose frames are all covered, or else all nonpresent.
fn cell(counts: &[(Shade, u8)]) -> Cell {
    let unknown = counts.iter().all(|(s, _)| *s == Shade::Unknown);
    let mut c = Cell { cover: 255, flags: if unknown { 0 } else { Cell::EMPTY }, ..Cell::default() };
    for (s, n) in counts {
        c.counts[*s as usize] = *n;
    }
    c
}

fn filled(shade: Shade, cols: usize, rows: usize) -> MapImage {
    image(cols, rows, vec![cell(&[(shade, 1)]); cols * rows])
}

fn count(p: &Pixels, color: Color) -> usize {
    p.rgba.chunks_exact(4).filter(|c| c[..3] == color.0).count()
}

#[test]
fn the_builtin_file_has_the_designs_colours() {
    let v = Visual::builtin();
    for (shade, color, pattern) in [
        (Shade::Writable, "#0072b2", "solid"),
        (Shade::ReadOnly, "#56b4e9", "lines"),
        (Shade::Mmio, "#e69f00", "diagonal"),
        (Shade::Removed, "#cc79a7", "cross-hatch"),
    ] {
        let s = v.shade_style(shade);
        assert_eq!(s.fill(LIGHT).css(), color, "{}", s.id);
        assert_eq!(s.pattern.id(), pattern);
    }
    let tracked = v.shade_style(Shade::AccessTracked);
    assert_eq!((tracked.mark(LIGHT).css().as_str(), tracked.pattern.id()), ("#56b4e9", "dots"));
    assert_eq!(v.shade_style(Shade::Unknown).pattern.id(), "sparse-dots");
    assert_eq!((v.overlay.stale_opacity * 100.0).round() as u32, 40);
    assert_eq!(v.legend().count(), Shade::ALL.len());
}

#[test]
fn no_two_states_share_a_pattern_and_only_two_have_none() {
    let v = Visual::builtin();
    let mut tiles: Vec<_> = v.legend().map(|s| s.pattern.id()).collect();
    tiles.sort_unstable();
    tiles.dedup();
    assert_eq!(tiles.len(), Shade::ALL.len());
    let plain: Vec<_> = v.legend().filter(|s| s.pattern.is_plain()).map(|s| s.shade).collect();
    assert_eq!(plain, [Shade::Writable, Shade::Nonpresent]);
}

#[test]
fn states_and_text_stand_out_from_the_background() {
    let v = Visual::builtin();
    for theme in [Theme::Light, Theme::Dark] {
        let t = v.theme(theme);
        assert!(t.ink.contrast(t.page) >= 7.0 && t.ink.contrast(t.background) >= 7.0, "{theme}: ink");
        assert!(t.muted.contrast(t.page) >= 4.5 && t.muted.contrast(t.background) >= 4.5, "{theme}: muted");
        for s in v.legend().filter(|s| s.shade.state() != mmuscope_replay::State::Nonpresent) {
            let best = s.fill(theme).contrast(t.background).max(s.mark(theme).contrast(t.background));
            assert!(best >= 2.0, "{theme}: {} has contrast {best}", s.id);
        }
        let w = v.shade_style(Shade::Writable);
        assert!(w.large(theme).luminance() < w.fill(theme).luminance(), "{theme}: large leaves are darker");
    }
}

#[test]
fn every_pattern_shows_even_in_cells_of_one_pixel() {
    let v = Visual::builtin();
    for theme in [Theme::Light, Theme::Dark] {
        for style in v.legend().filter(|s| s.shade != Shade::Table) {
            let p = raster(&filled(style.shade, 60, 60), theme, 1);
            let marks = count(&p, style.mark(theme));
            let expected = (0..3600).filter(|i| style.pattern.marks(i % 60, i / 60)).count();
            if style.pattern.is_plain() {
                assert_eq!(count(&p, style.fill(theme)), 3600, "{}", style.id);
            } else {
                assert_eq!(marks, expected, "{}", style.id);
                assert!(marks >= 3600 / 100, "{}: the pattern is too faint", style.id);
            }
        }
    }
}

#[test]
fn the_pattern_does_not_depend_on_the_size_of_cells() {
    for shade in [Shade::ReadOnly, Shade::Mmio, Shade::Removed, Shade::AccessTracked, Shade::Unknown] {
        let fine = raster(&filled(shade, 60, 60), LIGHT, 1);
        let coarse = raster(&filled(shade, 10, 10), LIGHT, 6);
        assert_eq!(fine.rgba, coarse.rgba, "{shade:?}");
    }
}

#[test]
fn unknown_is_never_drawn_like_nonpresent() {
    let known = raster(&filled(Shade::Nonpresent, 20, 20), LIGHT, 1);
    let unknown = raster(&image(20, 20, vec![Cell::default(); 400]), LIGHT, 1);
    assert_ne!(known, unknown);
    assert_eq!(unknown, raster(&filled(Shade::Unknown, 20, 20), LIGHT, 1));
    // Empty because the replay knows every table of this VM, not because nothing was seen.
    let empty = Cell { shade: Shade::Nonpresent as u8, flags: Cell::EMPTY, ..Cell::default() };
    assert_eq!(known, raster(&image(20, 20, vec![empty; 400]), LIGHT, 1));
}

#[test]
fn row_zero_is_at_the_bottom() {
    let mut cells = vec![cell(&[(Shade::Nonpresent, 1)]); 4];
    cells[0] = cell(&[(Shade::Writable, 1)]);
    let p = raster(&image(2, 2, cells), LIGHT, 3);
    let blue = Visual::builtin().shade_style(Shade::Writable).fill(LIGHT);
    assert_eq!((p.width, p.height), (6, 6));
    assert_eq!(p.at(0, 5), Some(blue));
    assert_eq!(p.at(2, 3), Some(blue));
    assert_ne!(p.at(0, 0), Some(blue));
    assert_ne!(p.at(5, 5), Some(blue));
}

#[test]
fn one_rare_page_among_many_is_still_seen() {
    let v = Visual::builtin();
    let mixed = cell(&[(Shade::Writable, 255), (Shade::Mmio, 1), (Shade::Nonpresent, 200)]);
    let p = raster(&image(8, 8, vec![mixed; 64]), LIGHT, 1);
    let mmio = v.shade_style(Shade::Mmio);
    let orange = count(&p, mmio.fill(LIGHT)) + count(&p, mmio.mark(LIGHT));
    assert_eq!(orange, 8, "an eighth of the pixels");
    assert_eq!(count(&p, v.shade_style(Shade::Writable).fill(LIGHT)), 56);
}

/// One page among many frames is seen, and does not claim its neighbours; the dots of what is unknown are seen through it.
#[test]
fn what_covers_few_frames_is_pale() {
    let v = Visual::builtin();
    let blue = v.shade_style(Shade::Writable).fill(LIGHT);
    let draw = |cover: u8, flags: u8| {
        let c = Cell { cover, flags, ..cell(&[(Shade::Writable, 1)]) };
        raster(&image(60, 60, vec![c; 3600]), LIGHT, 1)
    };
    assert_eq!(count(&draw(255, 0), blue), 3600);
    // By hand, over white (#ffffff): 45 % of #0072b2 for one of 64 frames, half of it for half of the frames.
    let near = |p: &Pixels, want: [u8; 3]| {
        p.at(1, 1).is_some_and(|c| c.0.iter().zip(want).all(|(a, b)| a.abs_diff(b) <= 2))
    };
    assert!(near(&draw(4, Cell::EMPTY), [140, 191, 220]), "{:?}", draw(4, Cell::EMPTY).at(1, 1));
    assert!(near(&draw(128, Cell::EMPTY), [127, 184, 216]), "{:?}", draw(128, Cell::EMPTY).at(1, 1));
    // Nothing behind it is known: the dots of the unknown are seen.
    let seen_through = draw(4, 0);
    let mut colours: Vec<Color> = (0..3600).filter_map(|i| seen_through.at(i % 60, i / 60)).collect();
    colours.sort_unstable_by_key(|c| c.0);
    colours.dedup();
    assert_eq!(colours.len(), 2, "{colours:?}");
}

#[test]
fn stale_fades_to_forty_percent() {
    let v = Visual::builtin();
    let mut c = cell(&[(Shade::Writable, 1)]);
    c.flags |= Cell::STALE;
    let p = raster(&image(1, 1, vec![c]), LIGHT, 4);
    // #0072B2 at 40 % over white, by hand: 255 * .6 + c * .4.
    assert_eq!(p.at(1, 1), Some(Color([153, 199, 224])));
    assert_ne!(p.at(1, 1), Some(v.shade_style(Shade::Writable).fill(LIGHT)));
}

#[test]
fn what_is_assumed_has_a_dashed_edge_and_nothing_inside() {
    let mut cells = vec![cell(&[(Shade::Writable, 1)]); 9];
    cells[4].flags |= Cell::ASSUMED;
    let p = raster(&image(3, 3, cells), LIGHT, 12);
    let blue = Visual::builtin().shade_style(Shade::Writable).fill(LIGHT);
    let edge = (12..24).filter(|x| p.at(*x, 12) != Some(blue)).count();
    assert_eq!(edge, 6, "half of the edge is dashes");
    assert_eq!(p.at(18, 18), Some(blue));
    assert!((0..36).all(|x| p.at(x, 6) == Some(blue)), "its neighbours are untouched");
}

#[test]
fn large_leaves_are_darker_and_have_an_edge_line_between_them() {
    let v = Visual::builtin();
    let mut below = cell(&[(Shade::Writable, 1)]);
    below.flags |= Cell::HUGE;
    below.rep = 1;
    let above = Cell { rep: 2, ..below };
    let cells = [vec![below; 16], vec![above; 16]].concat();
    let p = raster(&image(4, 8, cells), LIGHT, 2);
    let dark = v.shade_style(Shade::Writable).large(LIGHT);
    assert_eq!(p.at(4, 2), Some(dark));
    assert_ne!(p.at(4, 7), Some(dark), "the line under the upper leaf");
    assert_eq!(p.at(4, 8), Some(dark));
    assert_ne!(p.at(4, 15), Some(dark), "the line under the lower leaf");
}

#[test]
fn merged_cells_have_a_corner_once_they_are_big_enough() {
    let two = image(1, 1, vec![cell(&[(Shade::Writable, 2)])]);
    let one = image(1, 1, vec![cell(&[(Shade::Writable, 1)])]);
    assert_ne!(raster(&two, LIGHT, 12), raster(&one, LIGHT, 12));
    assert_eq!(raster(&two, LIGHT, 4), raster(&one, LIGHT, 4));
}

#[test]
fn lost_events_are_a_band_over_everything() {
    let map = filled(Shade::Nonpresent, 100, 10);
    // 1000 ns over 100 pixels: 200..300 is pixels 20..30; a moment is one pixel; outside is nothing.
    let options =
        RasterOptions { lost: &[(200, 300), (500, 500), (2000, 3000)], ..RasterOptions::new(LIGHT, 1) };
    let p = raster_with(Visual::builtin(), &map, &options);
    let white = Some(Visual::builtin().theme(LIGHT).background);
    let tinted: Vec<u32> = (0..100).filter(|x| p.at(*x, 3) != white).collect();
    assert_eq!(tinted, (20..30).chain([50]).collect::<Vec<_>>());
}

#[test]
fn empty_maps_are_empty_pictures() {
    let p = raster(&image(0, 0, vec![]), LIGHT, 3);
    assert_eq!((p.width, p.height, p.rgba.len()), (0, 0, 0));
    // An image whose cells are fewer than it claims is drawn as unknown, not a panic.
    let mut short = filled(Shade::Writable, 4, 4);
    short.cells.truncate(3);
    assert_eq!(raster(&short, LIGHT, 2).width, 8);
}

#[test]
fn a_bad_data_file_is_told_what_is_wrong() {
    let good = include_str!("../../visual.toml");
    let err = |text: String| Visual::parse(&text).expect_err("must not parse").to_string();
    assert!(err(good.replace("\"#ffffff\"", "\"white\"")).contains("`white` is not a colour"));
    assert!(err(good.replace("pattern = \"diagonal\"", "pattern = \"zigzag\"")).contains("`zigzag`"));
    assert!(err(good.replace("id = \"mmio\"", "id = \"mmoi\"")).contains("`mmoi`"));
    assert!(err(good.replace("id = \"mmio\"", "id = \"removed\"")).contains("`removed`"));
    assert!(
        err(good.replace("  \"....##\",\n  \"...##.\"", "  \"....##.\",\n  \"...##.\""))
            .contains("`diagonal`")
    );
}
