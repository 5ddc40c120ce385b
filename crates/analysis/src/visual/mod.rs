//! [`Visual`], the visual language: one data file (`visual.toml`), and the drawing of maps from it.
//!
//! The report and the viewer ask this module what a state looks like, so that one legend explains every picture. Nothing here depends on a
//! GUI toolkit: colours are plain sRGB bytes and a picture is a vector of RGBA pixels.
//!
//! ```
//! use mmuscope_analysis::visual::{Theme, Visual};
//! use mmuscope_replay::Shade;
//!
//! let mmio = Visual::builtin().shade_style(Shade::Mmio);
//! assert_eq!(mmio.name, "MMIO");
//! assert_eq!(mmio.fill(Theme::Light).css(), "#e69f00");
//! assert_eq!(mmio.pattern.id(), "diagonal");
//! ```

mod by;
mod data;
mod raster;
#[cfg(test)]
mod tests;

pub use by::{ColourBy, Densities, raster_by};
pub use data::{Color, Overlay, Pattern, ShadeStyle, Theme, ThemeColors, Visual, VisualError};
pub use raster::{Pixels, RasterOptions, raster, raster_with, swatch};
