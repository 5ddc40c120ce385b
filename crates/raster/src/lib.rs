//! Draws what egui paints without a graphics driver, for the pictures that tests compare.
//!
//! The viewer's tests give a [`Raster`] to each window as its renderer. It does what egui asks of a renderer and no more: premultiplied colours,
//! blended as they are stored (not linearised), textures that end at their edges, and one sample per pixel, at its centre. The same window gives the
//! same pixels on every machine, but for the anti-aliasing of glyphs, which is egui's. It is never shipped.

use egui::epaint::{ClippedPrimitive, ImageData, ImageDelta, Mesh, Primitive, Vertex};
use egui::{Color32, ColorImage, Pos2, Rect, TextureFilter, TextureId, TexturesDelta, Vec2, pos2};
use std::collections::HashMap;

/// A renderer. It keeps the textures that egui has set and not freed.
#[derive(Default)]
pub struct Raster {
    textures: HashMap<TextureId, Texture>,
}

struct Texture {
    image: ColorImage,
    filter: TextureFilter,
}

/// The red, green, blue and alpha of a premultiplied colour, each from 0 to 255.
type Colour = [f32; 4];

impl Raster {
    /// Sets, changes and frees textures, as egui asks for each frame.
    pub fn update(&mut self, delta: &mut TexturesDelta) {
        for (id, parts) in delta.set.drain() {
            parts.into_iter().for_each(|part| self.set(id, part));
        }
        for id in delta.free.drain() {
            self.textures.remove(&id);
        }
    }

    /// The picture of a frame, in pixels.
    ///
    /// # Errors
    /// A paint callback, which needs a graphics driver, and a texture that was not set.
    pub fn picture(&self, ctx: &egui::Context, output: &egui::FullOutput) -> Result<ColorImage, String> {
        let scale = ctx.pixels_per_point();
        let size = ctx.content_rect().size() * scale;
        let mut picture = Picture::new(size.x.round() as usize, size.y.round() as usize);
        for ClippedPrimitive { clip_rect, primitive } in ctx.tessellate(output.shapes.clone(), scale) {
            let Primitive::Mesh(mesh) = primitive else {
                return Err("a paint callback needs a driver".into());
            };
            let texture =
                self.textures.get(&mesh.texture_id).ok_or("a mesh uses a texture that is not set")?;
            picture.draw(&mesh, texture, clip_rect, scale);
        }
        Ok(ColorImage::new([picture.width, picture.height], picture.pixels))
    }

    /// Sets a texture, or a part of one.
    fn set(&mut self, id: TextureId, delta: ImageDelta) {
        let ImageData::Color(image) = delta.image;
        let filter = delta.options.magnification;
        let Some([left, top]) = delta.pos else {
            self.textures.insert(id, Texture { image: (*image).clone(), filter });
            return;
        };
        let whole = &mut self.textures.get_mut(&id).expect("a part of a texture that is set").image;
        let [width, height] = image.size;
        for y in 0..height {
            let at = (top + y) * whole.size[0] + left;
            whole.pixels[at..at + width].copy_from_slice(&image.pixels[y * width..][..width]);
        }
    }
}

impl Texture {
    /// The colour at a place, where (0, 0) is the upper left corner of the texture and (1, 1) the lower right.
    fn at(&self, uv: Pos2) -> Colour {
        let [width, height] = self.image.size;
        let (x, y) = (uv.x * width as f32, uv.y * height as f32);
        let texel = |x: f32, y: f32| {
            let inside = |v: f32, size: usize| (v.max(0.0) as usize).min(size - 1);
            colour(self.image.pixels[inside(y, height) * width + inside(x, width)])
        };
        if self.filter == TextureFilter::Nearest {
            return texel(x.floor(), y.floor());
        }
        let (x, y) = (x - 0.5, y - 0.5);
        let (left, top) = (x.floor(), y.floor());
        let row = |y: f32| mix(texel(left, y), texel(left + 1.0, y), x - left);
        mix(row(top), row(top + 1.0), y - top)
    }

    /// The colour of the whole mesh where all its vertices are at one place of the texture, as in everything that egui paints but text and images.
    fn of_all(&self, mesh: &Mesh) -> Option<Colour> {
        let first = mesh.vertices.first()?.uv;
        mesh.vertices.iter().all(|v| v.uv == first).then(|| self.at(first))
    }
}

/// What has been drawn.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<Color32>,
}

impl Picture {
    fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![Color32::TRANSPARENT; width * height] }
    }

    /// Draws the triangles of a mesh within a rectangle, both in points.
    fn draw(&mut self, mesh: &Mesh, texture: &Texture, clip: Rect, scale: f32) {
        let edge = |v: f32, size: usize| ((v * scale).round().max(0.0) as usize).min(size);
        let (left, right) = (edge(clip.min.x, self.width), edge(clip.max.x, self.width));
        let (top, bottom) = (edge(clip.min.y, self.height), edge(clip.max.y, self.height));
        let plain = texture.of_all(mesh);
        for corners in mesh.indices.chunks_exact(3) {
            let Some(triangle) = Triangle::new([0, 1, 2].map(|i| &mesh.vertices[corners[i] as usize]), scale)
            else {
                continue;
            };
            let (rows, columns) = (triangle.rows(), triangle.columns());
            for y in rows.start.max(top)..rows.end.min(bottom) {
                for x in columns.start.max(left)..columns.end.min(right) {
                    let Some(share) = triangle.shares(pos2(x as f32 + 0.5, y as f32 + 0.5)) else { continue };
                    let texel = plain.unwrap_or_else(|| texture.at(triangle.uv(share)));
                    let pixel = &mut self.pixels[y * self.width + x];
                    *pixel = over(times(triangle.colour(share), texel), *pixel);
                }
            }
        }
    }
}

/// A triangle of a mesh, its corners in pixels and clockwise.
struct Triangle {
    at: [Pos2; 3],
    uv: [Pos2; 3],
    colours: [Color32; 3],
    /// Twice the area.
    area: f32,
}

impl Triangle {
    /// None where it covers nothing.
    fn new(corners: [&Vertex; 3], scale: f32) -> Option<Self> {
        let [a, b, c] = corners.map(|v| v.pos * scale);
        let area = cross(b - a, c - a);
        match area {
            0.0 => None,
            _ if area < 0.0 => Self::new([corners[0], corners[2], corners[1]], scale),
            _ => Some(Self {
                at: [a, b, c],
                uv: corners.map(|v| v.uv),
                colours: corners.map(|v| v.color),
                area,
            }),
        }
    }

    /// The rows of pixels whose centres may be inside.
    fn rows(&self) -> std::ops::Range<usize> {
        pixels(self.at.map(|p| p.y))
    }

    fn columns(&self) -> std::ops::Range<usize> {
        pixels(self.at.map(|p| p.x))
    }

    /// How much each corner counts at a place, of 1 in all; None outside. A place on an edge that two triangles share is inside one of them.
    fn shares(&self, p: Pos2) -> Option<[f32; 3]> {
        let mut shares = [0.0; 3];
        for (i, share) in shares.iter_mut().enumerate() {
            let (from, to) = (self.at[(i + 1) % 3], self.at[(i + 2) % 3]);
            let (edge, far) = (to - from, cross(to - from, p - from));
            let is_top_or_left = edge.y < 0.0 || (edge.y == 0.0 && edge.x > 0.0);
            if far < 0.0 || (far == 0.0 && !is_top_or_left) {
                return None;
            }
            *share = far / self.area;
        }
        Some(shares)
    }

    fn uv(&self, share: [f32; 3]) -> Pos2 {
        let sum = |of: fn(Pos2) -> f32| (0..3).map(|i| of(self.uv[i]) * share[i]).sum();
        pos2(sum(|p| p.x), sum(|p| p.y))
    }

    fn colour(&self, share: [f32; 3]) -> Colour {
        let [a, b, c] = self.colours.map(colour);
        if self.colours == [self.colours[0]; 3] {
            return a;
        }
        [0, 1, 2, 3].map(|k| a[k] * share[0] + b[k] * share[1] + c[k] * share[2])
    }
}

/// The pixels from the first to the last coordinate.
fn pixels(of: [f32; 3]) -> std::ops::Range<usize> {
    let least = of.into_iter().fold(f32::INFINITY, f32::min);
    let most = of.into_iter().fold(f32::NEG_INFINITY, f32::max);
    least.max(0.0) as usize..most.max(0.0).ceil() as usize
}

fn cross(a: Vec2, b: Vec2) -> f32 {
    a.x * b.y - a.y * b.x
}

fn colour(c: Color32) -> Colour {
    c.to_array().map(f32::from)
}

fn mix(a: Colour, b: Colour, part: f32) -> Colour {
    [0, 1, 2, 3].map(|k| a[k] + (b[k] - a[k]) * part)
}

fn times(a: Colour, b: Colour) -> Colour {
    [0, 1, 2, 3].map(|k| a[k] * b[k] / 255.0)
}

/// A premultiplied colour in front of what is there.
fn over(front: Colour, back: Color32) -> Color32 {
    let rest = 1.0 - front[3] / 255.0;
    let [r, g, b, a] = back.to_array();
    let sum = |front: f32, back: u8| (front + f32::from(back) * rest).round() as u8;
    Color32::from_rgba_premultiplied(sum(front[0], r), sum(front[1], g), sum(front[2], b), sum(front[3], a))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Color32 = Color32::from_rgb(200, 0, 0);

    /// A texture of one white texel, which egui uses where it paints without one.
    fn white() -> Texture {
        Texture { image: ColorImage::new([1, 1], vec![Color32::WHITE]), filter: TextureFilter::Linear }
    }

    /// A rectangle of two triangles, whose corners are those of the texture.
    fn rectangle(rect: Rect, colour: Color32) -> Mesh {
        let mut mesh = Mesh::default();
        mesh.add_rect_with_uv(rect, Rect::from_min_max(Pos2::ZERO, pos2(1.0, 1.0)), colour);
        mesh
    }

    fn square(from: f32, to: f32) -> Rect {
        Rect::from_min_max(pos2(from, from), pos2(to, to))
    }

    fn drawn(mesh: &Mesh, texture: &Texture, clip: Rect, scale: f32) -> Picture {
        let mut picture = Picture::new(8, 8);
        picture.draw(mesh, texture, clip, scale);
        picture
    }

    /// The pixels that are not as they were, each with its colour.
    fn painted(picture: &Picture) -> Vec<(usize, usize, Color32)> {
        let at = picture.pixels.iter().enumerate().filter(|(_, c)| **c != Color32::TRANSPARENT);
        at.map(|(i, c)| (i % picture.width, i / picture.width, *c)).collect()
    }

    #[test]
    fn a_pixel_is_inside_where_its_centre_is() {
        let all = |from: usize, to: usize| -> Vec<_> {
            (from..to).flat_map(|y| (from..to).map(move |x| (x, y, RED))).collect()
        };
        let red =
            |from, to, clip, scale| painted(&drawn(&rectangle(square(from, to), RED), &white(), clip, scale));
        assert_eq!(red(2.0, 5.0, Rect::EVERYTHING, 1.0), all(2, 5));
        assert_eq!(red(1.6, 4.4, Rect::EVERYTHING, 1.0), all(2, 4));
        // An edge through centres: the left and upper ones are inside, the right and lower ones not.
        assert_eq!(red(2.5, 4.5, Rect::EVERYTHING, 1.0), all(2, 4));
        assert_eq!(red(-3.0, 20.0, square(3.0, 6.0), 1.0), all(3, 6), "clipped");
        assert_eq!(red(1.0, 2.0, Rect::EVERYTHING, 3.0), all(3, 6), "three pixels to a point");
    }

    /// Half-transparent triangles in a fan: a pixel that two of them drew, or none, would have another colour.
    #[test]
    fn triangles_that_share_an_edge_share_no_pixel() {
        let half = Color32::from_rgba_premultiplied(100, 0, 0, 128);
        let mut fan = Mesh::default();
        let around = [(0.0, 0.0), (4.0, 0.0), (8.0, 0.0), (8.0, 8.0), (3.0, 8.0), (0.0, 8.0)];
        fan.colored_vertex(pos2(4.5, 3.5), half);
        for (x, y) in around {
            fan.colored_vertex(pos2(x, y), half);
        }
        for i in 0..6 {
            fan.add_triangle(0, 1 + i, 1 + (i + 1) % 6);
        }
        let picture = drawn(&fan, &white(), Rect::EVERYTHING, 1.0);
        assert_eq!(painted(&picture).len(), 64);
        assert!(picture.pixels.iter().all(|c| *c == half), "{:?}", painted(&picture));
    }

    #[test]
    fn what_is_in_front_lets_the_rest_through() {
        let mut picture = drawn(&rectangle(square(0.0, 8.0), RED), &white(), Rect::EVERYTHING, 1.0);
        let front = Color32::from_rgba_premultiplied(0, 51, 0, 51);
        picture.draw(&rectangle(square(0.0, 8.0), front), &white(), Rect::EVERYTHING, 1.0);
        // A fifth green in front of red: 200 x 4/5.
        assert!(picture.pixels.iter().all(|c| *c == Color32::from_rgb(160, 51, 0)));
    }

    #[test]
    fn colours_go_over_into_each_other() {
        let mut mesh = rectangle(square(0.0, 8.0), Color32::WHITE);
        for v in &mut mesh.vertices {
            v.color = Color32::from_gray(if v.pos.x == 0.0 { 0 } else { 160 });
        }
        let picture = drawn(&mesh, &white(), Rect::EVERYTHING, 1.0);
        let row: Vec<u8> = picture.pixels[..8].iter().map(Color32::r).collect();
        assert_eq!(row, [10, 30, 50, 70, 90, 110, 130, 150]);
    }

    #[test]
    fn a_texture_is_stretched_as_it_says() {
        let row = |filter| {
            let image = ColorImage::new([2, 1], vec![Color32::from_gray(0), Color32::from_gray(80)]);
            let mesh = rectangle(square(0.0, 8.0), Color32::WHITE);
            let picture = drawn(&mesh, &Texture { image, filter }, Rect::EVERYTHING, 1.0);
            picture.pixels[..8].iter().map(Color32::r).collect::<Vec<_>>()
        };
        assert_eq!(row(TextureFilter::Nearest), [0, 0, 0, 0, 80, 80, 80, 80]);
        // Up to the centre of the first texel, and from that of the last, there is nothing to mix.
        assert_eq!(row(TextureFilter::Linear), [0, 0, 10, 30, 50, 70, 80, 80]);
    }

    #[test]
    fn a_part_of_a_texture_is_replaced() {
        let mut raster = Raster::default();
        let id = TextureId::Managed(0);
        let options = egui::TextureOptions::NEAREST;
        raster.set(id, ImageDelta::full(ColorImage::filled([3, 2], RED), options));
        raster.set(id, ImageDelta::partial([1, 1], ColorImage::filled([2, 1], Color32::BLUE), options));
        let expected = [RED, RED, RED, RED, Color32::BLUE, Color32::BLUE];
        assert_eq!(raster.textures[&id].image.pixels, expected);
    }
}
