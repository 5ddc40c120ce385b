//! [`MapPicture`]: the map of an address space as pixels, and what the page needs to draw axes beside it. It is part of the page only, never of
//! the JSON.

use mmuscope_replay::Shade;

/// The time x GFN picture of one address space.
#[derive(Clone, Debug)]
pub struct MapPicture {
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels, folds included.
    pub height: u32,
    /// Stretches of the GFN space from the top of the picture down, so that the highest frames come first.
    pub segments: Vec<MapSegment>,
    /// The picture for light pages, as a PNG file.
    pub light: Vec<u8>,
    /// The picture for dark pages, as a PNG file.
    pub dark: Vec<u8>,
    /// States that occur in the picture.
    pub shades: Vec<Shade>,
    /// Whether an entry in the picture is stale.
    pub stale: bool,
    /// Whether an entry in the picture is assumed or implied.
    pub assumed: bool,
    /// Whether a leaf of 2 MiB or more is in the picture.
    pub large: bool,
    /// Nanoseconds that one column of pixels stands for.
    pub column: u64,
    /// Most entries that one pixel stands for.
    pub merged: u32,
}

/// A stretch of the GFN space that is drawn without a break.
#[derive(Clone, Debug)]
pub struct MapSegment {
    /// First guest frame of the stretch.
    pub gfn_start: u64,
    /// One past the last guest frame of the stretch.
    pub gfn_end: u64,
    /// Distance from the top of the picture, in pixels.
    pub top: u32,
    /// Height in pixels.
    pub height: u32,
    /// Number of frames that are left out between this stretch and the next lower one; 0 below the lowest.
    pub fold_below: u64,
}
