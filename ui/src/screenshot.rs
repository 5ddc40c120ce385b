//! [`write_png`]: writes pictures of the window, for `--screenshot` and for the command "Save picture".

use std::io::BufWriter;
use std::path::Path;

use egui::ColorImage;

/// Writes a picture as a PNG file, which appears under its name only once it is complete.
pub(crate) fn write_png(path: &Path, image: &ColorImage) -> Result<(), String> {
    let part = path.with_extension("png.part");
    let written = encode(&part, image).and_then(|()| std::fs::rename(&part, path).map_err(|e| e.to_string()));
    if written.is_err() {
        // An unfinished file is of no use.
        std::fs::remove_file(&part).ok();
    }
    written
}

fn encode(path: &Path, image: &ColorImage) -> Result<(), String> {
    let file = std::fs::File::create(path).map_err(|e| e.to_string())?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), image.size[0] as u32, image.size[1] as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
    let bytes: Vec<u8> = image.pixels.iter().flat_map(|p| [p.r(), p.g(), p.b()]).collect();
    writer.write_image_data(&bytes).map_err(|e| e.to_string())?;
    writer.finish().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use egui::Color32;

    #[test]
    fn a_failed_picture_leaves_nothing_behind() {
        let image = ColorImage::new([1, 1], vec![Color32::RED]);
        let missing = Path::new("/nonexistent-folder/picture.png");
        assert!(write_png(missing, &image).is_err());
    }
}
