//! [`encode`] and [`data_uri`]: pictures as PNG files, and as URIs that put them into the page.
//!
//! A map has a dozen colours, so it is written with a palette, which takes one byte per pixel before compression instead of four.

use std::collections::HashMap;

use mmuscope_analysis::visual::Pixels;

/// Encodes a picture as a PNG file; `None` for a picture without pixels.
pub(crate) fn encode(pixels: &Pixels) -> Option<Vec<u8>> {
    if pixels.width == 0 || pixels.height == 0 {
        return None;
    }
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, pixels.width, pixels.height);
    encoder.set_compression(png::Compression::High);
    encoder.set_depth(png::BitDepth::Eight);
    // Palette indices have no gradients to predict.
    let data = if let Some((indices, palette)) = indexed(pixels) {
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_filter(png::Filter::NoFilter);
        encoder.set_palette(palette);
        indices
    } else {
        encoder.set_color(png::ColorType::Rgb);
        pixels.rgba.chunks_exact(4).flat_map(|c| [c[0], c[1], c[2]]).collect()
    };
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(&data).ok()?;
    writer.finish().ok()?;
    Some(out)
}

fn indexed(pixels: &Pixels) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut palette: Vec<u8> = Vec::new();
    let mut known: HashMap<[u8; 3], u8> = HashMap::new();
    let mut indices = Vec::with_capacity(pixels.rgba.len() / 4);
    let mut last = ([0; 3], None);
    for c in pixels.rgba.chunks_exact(4) {
        let c = [c[0], c[1], c[2]];
        let i = match last {
            (l, Some(i)) if l == c => i,
            _ => {
                if let Some(i) = known.get(&c) {
                    *i
                } else {
                    let i = u8::try_from(known.len()).ok()?;
                    known.insert(c, i);
                    palette.extend_from_slice(&c);
                    i
                }
            }
        };
        last = (c, Some(i));
        indices.push(i);
    }
    Some((indices, palette))
}

/// A PNG as `data:` URI.
pub(crate) fn data_uri(png: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("data:image/png;base64,");
    out.reserve(png.len().div_ceil(3) * 4);
    for chunk in png.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let six = (n >> (18 - 6 * i)) & 63;
            out.push(if i <= chunk.len() { ALPHABET[six as usize] as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_rfc_4648_says() {
        // The test vectors of RFC 4648, section 10.
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(data_uri(plain.as_bytes()), format!("data:image/png;base64,{coded}"));
        }
    }

    #[test]
    fn pictures_survive_encoding() {
        for colours in [3u32, 300] {
            let rgba: Vec<u8> = (0..64 * 32u32)
                .flat_map(|i| [(i % colours) as u8, (i % colours / 256) as u8, 7, 255])
                .collect();
            let pixels = Pixels { width: 64, height: 32, rgba };
            let bytes = encode(&pixels).expect("encodes");
            let mut decoder = png::Decoder::new(std::io::Cursor::new(&bytes));
            decoder.set_transformations(png::Transformations::EXPAND);
            let mut reader = decoder.read_info().expect("header");
            let mut data = vec![0; reader.output_buffer_size().expect("size")];
            let info = reader.next_frame(&mut data).expect("frame");
            assert_eq!((info.width, info.height, info.color_type), (64, 32, png::ColorType::Rgb));
            let rgb: Vec<u8> = pixels.rgba.chunks(4).flat_map(|c| [c[0], c[1], c[2]]).collect();
            assert_eq!(data[..info.buffer_size()], rgb);
        }
        assert!(encode(&Pixels { width: 0, height: 0, rgba: vec![] }).is_none());
    }
}
