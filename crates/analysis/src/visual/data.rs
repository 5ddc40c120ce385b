//! [`Visual`]: the contents of `visual.toml`, checked and ready to draw from.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use mmuscope_replay::Shade;
use serde::Deserialize;

/// The two colour schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Theme {
    /// Dark ink on a light page.
    #[default]
    Light,
    /// Light ink on a dark page.
    Dark,
}

/// An opaque sRGB colour: red, green and blue, 0 to 255 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Color(pub [u8; 3]);

impl Color {
    /// The colour as CSS writes it: `#0072b2`.
    pub fn css(self) -> String {
        let [r, g, b] = self.0;
        format!("#{r:02x}{g:02x}{b:02x}")
    }

    /// This colour laid over `below` with the given opacity, 0 to 1.
    #[must_use]
    pub fn over(self, below: Color, opacity: f32) -> Color {
        let mix = |a: u8, b: u8| (f32::from(a) * opacity + f32::from(b) * (1.0 - opacity)).round() as u8;
        Color(std::array::from_fn(|i| mix(self.0[i], below.0[i])))
    }

    /// The colour with full opacity, as RGBA bytes.
    pub const fn rgba(self) -> [u8; 4] {
        [self.0[0], self.0[1], self.0[2], 255]
    }

    /// Relative luminance as WCAG defines it, 0 to 1.
    pub fn luminance(self) -> f32 {
        let lin = |c: u8| {
            let c = f32::from(c) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * lin(self.0[0]) + 0.7152 * lin(self.0[1]) + 0.0722 * lin(self.0[2])
    }

    /// Contrast ratio against another colour as WCAG defines it, 1 to 21.
    pub fn contrast(self, other: Color) -> f32 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    fn parse(text: &str) -> Option<Color> {
        let hex = text.strip_prefix('#').filter(|h| h.len() == 6 && h.is_ascii())?;
        let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).ok();
        Some(Color([byte(0)?, byte(2)?, byte(4)?]))
    }
}

/// The colours of one theme of everything that is no state of an entry.
#[derive(Clone, Debug)]
pub struct ThemeColors {
    /// Background of a plot, which is also the colour of `nonpresent`.
    pub background: Color,
    /// Background of the page around the plots.
    pub page: Color,
    /// Colour of text.
    pub ink: Color,
    /// Colour of secondary text.
    pub muted: Color,
    /// Colour of tertiary text, such as labels of minor ticks.
    pub faint: Color,
    /// Colour of grid lines.
    pub grid: Color,
    /// Colour of axis lines and ticks.
    pub axis: Color,
    /// Colour of the zigzag that marks a folded stretch of the GFN axis.
    pub fold: Color,
    /// Colour of the area of a folded stretch.
    pub fold_fill: Color,
    /// Colour of bands that mark lost events.
    pub lost: Color,
    /// Colour of the edge line of a leaf of 2 MiB or more.
    pub edge: Color,
    /// Colour of links, the selection and the cursor.
    pub accent: Color,
    /// Colour of a good verdict.
    pub good: Color,
    /// Colour of a verdict that is worth a look.
    pub warn: Color,
    /// Colour of a bad verdict.
    pub bad: Color,
    /// Colours of lines and bars that are no states, in order of use; never empty.
    pub series: Vec<Color>,
    /// Colours of phase bands; consecutive phases take turns.
    pub phase: [Color; 2],
}

/// A bitmap that repeats over an area, in device pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    id: String,
    width: u32,
    height: u32,
    marks: Vec<bool>,
}

impl Pattern {
    /// Name of the pattern in `visual.toml`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Width and height of one repetition, in device pixels.
    pub const fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Whether the pattern marks this pixel. The pattern repeats in both directions.
    pub fn marks(&self, x: u32, y: u32) -> bool {
        self.marks[((y % self.height) * self.width + x % self.width) as usize]
    }

    /// Whether the pattern marks no pixel.
    pub fn is_plain(&self) -> bool {
        !self.marks.contains(&true)
    }

    fn parse(id: &str, rows: &[String]) -> Result<Pattern, VisualError> {
        let width = rows.first().map_or(0, String::len);
        // Common period of all patterns, so that a raster keeps one table of tiles.
        let fits = |n: usize| n > 0 && (PERIOD as usize).is_multiple_of(n);
        if !fits(width) || !fits(rows.len()) || rows.iter().any(|r| r.len() != width || !r.is_ascii()) {
            return Err(VisualError::Pattern(id.to_owned()));
        }
        let marks = rows.iter().flat_map(|r| r.bytes().map(|b| b == b'#')).collect();
        Ok(Pattern { id: id.to_owned(), width: width as u32, height: rows.len() as u32, marks })
    }
}

#[derive(Clone, Copy, Debug)]
struct Tones {
    fill: Color,
    mark: Color,
    large: Color,
}

/// How a state is drawn, and what legends say about it.
#[derive(Clone, Debug)]
pub struct ShadeStyle {
    /// The state that this style is of.
    pub shade: Shade,
    /// Short word that never changes (`read-only`), for file formats and CSS classes.
    pub id: String,
    /// Name of the state in legends.
    pub name: String,
    /// Explanation of the state in one sentence.
    pub about: String,
    /// Bitmap that is drawn over areas in this state.
    pub pattern: Pattern,
    tones: [Tones; 2],
}

impl ShadeStyle {
    /// Colour of the area.
    pub fn fill(&self, theme: Theme) -> Color {
        self.tones[theme as usize].fill
    }

    /// Colour of the pattern's marks.
    pub fn mark(&self, theme: Theme) -> Color {
        self.tones[theme as usize].mark
    }

    /// Colour of the area for a leaf of 2 MiB or more.
    pub fn large(&self, theme: Theme) -> Color {
        self.tones[theme as usize].large
    }

    /// The colour of one pixel of an endless area in this state.
    pub fn pixel(&self, theme: Theme, large: bool, x: u32, y: u32) -> Color {
        let t = self.tones[theme as usize];
        if self.pattern.marks(x, y) {
            t.mark
        } else if large {
            t.large
        } else {
            t.fill
        }
    }
}

/// The width and the height of every pattern divide this number of pixels.
pub(super) const PERIOD: u32 = 60;

/// How what is drawn over a state looks.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// Opacity of a stale state, 0 to 1.
    pub stale_opacity: f32,
    /// Least opacity of pages that cover only few of the frames of a pixel, 0 to 1.
    pub least_cover: f32,
    /// Opacity of the band that marks lost events, 0 to 1.
    pub lost_opacity: f32,
    /// Length of a dash of an assumed state's edge, in device pixels.
    pub dash: u32,
    /// Smallest cell, in device pixels, that gets a corner when it merges several entries.
    pub merged_corner: u32,
}

/// The visual language: colours, patterns and names of the states, and the colours of everything else.
#[derive(Clone, Debug)]
pub struct Visual {
    themes: [ThemeColors; 2],
    /// Styles by `Shade as usize`.
    shades: Vec<ShadeStyle>,
    order: Vec<Shade>,
    /// How stale, assumed and merged cells and lost events are drawn.
    pub overlay: Overlay,
}

/// Why a visual data file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VisualError {
    /// Not TOML, or not of the right shape.
    #[error("not a visual data file: {0}")]
    Toml(#[from] toml::de::Error),
    /// A colour is neither `#rrggbb` nor `background`.
    #[error("`{0}` is not a colour: expected #rrggbb")]
    Color(String),
    /// A pattern's rows are of unequal length, or its width or height does not divide 60.
    #[error("pattern `{0}`: rows must be of equal length, width and height must divide 60")]
    Pattern(String),
    /// A shade names a pattern that the file does not define.
    #[error("shade `{shade}` uses pattern `{pattern}`, which is not defined")]
    NoPattern {
        /// Id of the shade.
        shade: String,
        /// Name of the pattern that is missing.
        pattern: String,
    },
    /// A shade is missing, there twice or not one of the known ones.
    #[error("shade `{0}` is missing, repeated or not known")]
    Shade(String),
    /// A list of colours has too few colours.
    #[error("`{0}` has too few colours")]
    TooFew(&'static str),
}

static BUILTIN: LazyLock<Visual> = LazyLock::new(|| {
    // The file is compiled into the crate and a test reads it, so it cannot be wrong at run time.
    Visual::parse(include_str!("../../visual.toml")).unwrap_or_else(|e| unreachable!("visual.toml: {e}"))
});

impl Visual {
    /// The visual language that ships with mmuscope.
    pub fn builtin() -> &'static Visual {
        &BUILTIN
    }

    /// Reads a visual data file.
    pub fn parse(text: &str) -> Result<Visual, VisualError> {
        let file: File = toml::from_str(text)?;
        let themes = [file.theme.light.colors()?, file.theme.dark.colors()?];
        let mut shades: Vec<Option<ShadeStyle>> = vec![None; Shade::ALL.len()];
        let mut order = Vec::new();
        for s in file.shade {
            let shade = shade_of(&s.id).ok_or_else(|| VisualError::Shade(s.id.clone()))?;
            let rows = file
                .pattern
                .get(&s.pattern)
                .ok_or_else(|| VisualError::NoPattern { shade: s.id.clone(), pattern: s.pattern.clone() })?;
            let tones = [s.light.tones(&themes[0])?, s.dark.tones(&themes[1])?];
            let slot = &mut shades[shade as usize];
            if slot.is_some() {
                return Err(VisualError::Shade(s.id));
            }
            let pattern = Pattern::parse(&s.pattern, rows)?;
            *slot = Some(ShadeStyle { shade, id: s.id, name: s.name, about: s.about, pattern, tones });
            order.push(shade);
        }
        let shades = shades
            .into_iter()
            .zip(Shade::ALL)
            .map(|(s, shade)| s.ok_or_else(|| VisualError::Shade(shade_id(shade).to_owned())))
            .collect::<Result<_, _>>()?;
        Ok(Visual { themes, shades, order, overlay: file.overlay })
    }

    /// The colours of everything that is no state.
    pub fn theme(&self, theme: Theme) -> &ThemeColors {
        &self.themes[theme as usize]
    }

    /// How a state is drawn.
    pub fn shade_style(&self, shade: Shade) -> &ShadeStyle {
        &self.shades[shade as usize]
    }

    /// All states in the order in which a legend lists them.
    pub fn legend(&self) -> impl Iterator<Item = &ShadeStyle> {
        self.order.iter().map(|s| self.shade_style(*s))
    }
}

impl fmt::Display for Theme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Theme::Light => "light",
            Theme::Dark => "dark",
        })
    }
}

const fn shade_id(shade: Shade) -> &'static str {
    match shade {
        Shade::Unknown => "unknown",
        Shade::Nonpresent => "nonpresent",
        Shade::Writable => "writable",
        Shade::ReadOnly => "read-only",
        Shade::AccessTracked => "access-tracked",
        Shade::Mmio => "mmio",
        Shade::Removed => "removed",
        Shade::Table => "table",
    }
}

fn shade_of(id: &str) -> Option<Shade> {
    Shade::ALL.into_iter().find(|s| shade_id(*s) == id)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    theme: Themes,
    shade: Vec<FileShade>,
    overlay: Overlay,
    pattern: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Themes {
    light: FileTheme,
    dark: FileTheme,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileShade {
    id: String,
    name: String,
    about: String,
    pattern: String,
    light: FileTones,
    dark: FileTones,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTones {
    fill: String,
    mark: String,
    large: String,
}

impl FileTones {
    fn tones(&self, theme: &ThemeColors) -> Result<Tones, VisualError> {
        let one = |s: &str| if s == "background" { Ok(theme.background) } else { color(s) };
        Ok(Tones { fill: one(&self.fill)?, mark: one(&self.mark)?, large: one(&self.large)? })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTheme {
    background: String,
    page: String,
    ink: String,
    muted: String,
    faint: String,
    grid: String,
    axis: String,
    fold: String,
    fold_fill: String,
    lost: String,
    edge: String,
    accent: String,
    good: String,
    warn: String,
    bad: String,
    series: Vec<String>,
    phase: Vec<String>,
}

impl FileTheme {
    fn colors(&self) -> Result<ThemeColors, VisualError> {
        let [a, b] = self.phase.as_slice() else { return Err(VisualError::TooFew("phase")) };
        if self.series.is_empty() {
            return Err(VisualError::TooFew("series"));
        }
        Ok(ThemeColors {
            background: color(&self.background)?,
            page: color(&self.page)?,
            ink: color(&self.ink)?,
            muted: color(&self.muted)?,
            faint: color(&self.faint)?,
            grid: color(&self.grid)?,
            axis: color(&self.axis)?,
            fold: color(&self.fold)?,
            fold_fill: color(&self.fold_fill)?,
            lost: color(&self.lost)?,
            edge: color(&self.edge)?,
            accent: color(&self.accent)?,
            good: color(&self.good)?,
            warn: color(&self.warn)?,
            bad: color(&self.bad)?,
            series: self.series.iter().map(|s| color(s)).collect::<Result<_, _>>()?,
            phase: [color(a)?, color(b)?],
        })
    }
}

fn color(text: &str) -> Result<Color, VisualError> {
    Color::parse(text).ok_or_else(|| VisualError::Color(text.to_owned()))
}
