//! [`table`]: a table of very many rows. Only rows in sight are laid out, and the position is a row number, not a pixel, so that ten million
//! rows scroll as exactly as ten.

use egui::{Align2, Color32, FontId, Key, Rect, Response, Sense, Stroke, Ui, pos2, vec2};

use crate::theme::Tokens;

/// Height of a row in points.
pub(crate) const ROW: f32 = 18.0;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Text of the head.
    pub(crate) name: &'static str,
    /// Width in points; the last column takes the rest.
    pub(crate) width: f32,
    /// Whether the texts are aligned to the right.
    pub(crate) right: bool,
}

/// The text of a cell and its colour.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    /// Text of the cell.
    pub(crate) text: String,
    /// Colour of the text; `None` is the usual one.
    pub(crate) color: Option<Color32>,
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self { text, color: None }
    }
}
impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), color: None }
    }
}

/// Scroll position of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Scroll {
    /// First row in sight; the fraction is the part of it that is above the top.
    pub(crate) top: f64,
    /// Row to bring into view in the next frame.
    pub(crate) show: Option<usize>,
    /// Whether the last row was in sight in the last frame.
    pub(crate) at_end: bool,
}

impl Scroll {
    /// The new `top` after moving by `rows`, with `count` rows in all and `fit` in sight.
    fn moved(self, rows: f64, count: usize, fit: usize) -> f64 {
        (self.top + rows).clamp(0.0, count.saturating_sub(fit) as f64)
    }
}

/// What the user did with a table in this frame.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// Row that was clicked or reached by a key.
    pub(crate) picked: Option<usize>,
    /// Whether it was a double click.
    pub(crate) twice: bool,
    /// Row under the pointer.
    pub(crate) hovered: Option<usize>,
    /// Row and column that were clicked with the right button.
    pub(crate) menu: Option<(usize, usize)>,
    /// Column whose head was clicked.
    pub(crate) head: Option<usize>,
    /// The body of the table, for a menu on it.
    pub(crate) body: Option<Response>,
}

/// The column by which a table is sorted, and whether the largest comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sorting {
    /// Number of the column.
    pub(crate) column: usize,
    /// Whether the largest comes first.
    pub(crate) down: bool,
}

impl Sorting {
    /// The sorting after a click on the head of a column.
    pub(crate) fn clicked(self, column: usize) -> Self {
        Self { column, down: if self.column == column { !self.down } else { true } }
    }
}

/// What a table consists of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Table<'a> {
    /// Name of the table for screen readers.
    pub(crate) name: &'a str,
    /// Columns from left to right.
    pub(crate) columns: &'a [Column],
    /// Number of rows.
    pub(crate) count: usize,
    /// Row that is selected.
    pub(crate) selected: Option<usize>,
    /// How the rows are sorted, where a click on a head sorts them.
    pub(crate) sorting: Option<Sorting>,
    /// A column that rows cannot be sorted by.
    pub(crate) unsorted: Option<usize>,
}

/// Most rows of a table that are handed over as CSV.
const MOST: usize = 2_000_000;

fn csv_id() -> egui::Id {
    egui::Id::unique("table as csv")
}

/// A table as CSV: asked for, or made.
#[derive(Clone)]
enum Csv {
    Wanted,
    Made(std::sync::Arc<String>),
}

/// Asks the table that is drawn next for its rows as CSV.
pub(crate) fn ask_for_csv(ctx: &egui::Context) {
    ctx.data_mut(|d| d.insert_temp(csv_id(), Csv::Wanted));
    ctx.request_repaint();
}

/// The rows of the table that was asked for them, after it was drawn; the error says that no table was drawn.
pub(crate) fn take_csv(ctx: &egui::Context) -> Option<Result<String, &'static str>> {
    let asked = ctx.data_mut(|d| d.get_temp::<Csv>(csv_id()))?;
    ctx.data_mut(|d| d.remove::<Csv>(csv_id()));
    match asked {
        Csv::Made(text) => Some(Ok((*text).clone())),
        // It was asked for in this frame: the next one draws the table, and the one after that has none.
        Csv::Wanted => {
            let again = csv_id().with("again");
            if ctx.data_mut(|d| d.get_temp::<()>(again)).is_some() {
                ctx.data_mut(|d| d.remove::<()>(again));
                return Some(Err("this tab has no table"));
            }
            ctx.data_mut(|d| {
                d.insert_temp(again, ());
                d.insert_temp(csv_id(), Csv::Wanted);
            });
            ctx.request_repaint();
            None
        }
    }
}

/// Hands over the rows as CSV, if they were asked for.
fn hand_over(ui: &Ui, of: &Table<'_>, cells: &mut impl FnMut(usize) -> Vec<Text>) {
    if !matches!(ui.data_mut(|d| d.get_temp::<Csv>(csv_id())), Some(Csv::Wanted)) {
        return;
    }
    let quoted = |text: &str| {
        if text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.to_owned()
        }
    };
    let mut out = of.columns.iter().map(|c| quoted(c.name)).collect::<Vec<_>>().join(",");
    for row in 0..of.count.min(MOST) {
        out.push('\n');
        out.push_str(&cells(row).iter().map(|c| quoted(&c.text)).collect::<Vec<_>>().join(","));
    }
    out.push('\n');
    ui.data_mut(|d| {
        d.remove::<()>(csv_id().with("again"));
        d.insert_temp(csv_id(), Csv::Made(std::sync::Arc::new(out)));
    });
}

/// Draws a table. `cells` makes the texts of one row.
pub(crate) fn table(
    ui: &mut Ui,
    t: &Tokens,
    of: &Table<'_>,
    scroll: &mut Scroll,
    mut cells: impl FnMut(usize) -> Vec<Text>,
) -> Done {
    let Table { name, columns, count, selected, sorting, unsorted } = *of;
    hand_over(ui, of, &mut cells);
    let full = ui.available_rect_before_wrap();
    let full = Rect::from_min_size(full.min, vec2(full.width(), full.height().max(ROW * 2.0)));
    ui.allocate_rect(full, Sense::hover());
    let mut done = Done::default();
    let columns = &resized(ui, name, columns, full)[..];
    let head = Rect::from_min_size(full.min, vec2(full.width(), ROW));
    let body = Rect::from_min_max(pos2(full.left(), head.bottom()), pos2(full.right() - 12.0, full.bottom()));
    let painter = ui.painter_at(full);
    heads(ui, t, columns, full, head, sorting);
    done.head = sorting.and_then(|_| clicked_head(ui, name, columns, (full, head), unsorted));

    let table = ui.interact(body, ui.scope_id().with(name), Sense::click_and_drag());
    table.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Table, true, format!("{name}: {count} rows")));
    let fit = ((body.height() / ROW) as usize).max(1);
    let mut by = wheel(ui, &table, fit);
    if table.has_focus() {
        by += focus_keys(ui, &table, fit, count, selected, &mut done);
    }
    scroll.top = scroll.moved(by, count, fit);
    if let Some(row) = scroll.show.take() {
        let first = scroll.top.ceil() as usize;
        if row < first || row + 1 > first + fit {
            scroll.top = Scroll { top: row as f64 - fit as f64 / 2.0, ..*scroll }.moved(0.0, count, fit);
        }
    }
    scroll.at_end = scroll.top >= count.saturating_sub(fit) as f64;
    let first = scroll.top as usize;
    let offset = (scroll.top - first as f64) as f32 * ROW;
    let pointer = table.hover_pos();
    let mut cut = None;
    let clip = painter.with_clip_rect(body);
    for i in 0..=fit {
        let row = first + i;
        if row >= count {
            break;
        }
        let y = body.top() + i as f32 * ROW - offset;
        let r = Rect::from_min_size(pos2(body.left(), y), vec2(body.width(), ROW));
        let inside = pointer.is_some_and(|p| r.contains(p) && body.contains(p));
        if selected == Some(row) {
            clip.rect_filled(r, 0.0, ui.visuals().selection.bg_fill);
        } else if inside {
            clip.rect_filled(r, 0.0, t.background.lerp_to_gamma(t.ink, 0.08));
        } else if row % 2 == 1 {
            clip.rect_filled(r, 0.0, ui.visuals().faint_bg_color);
        }
        if inside {
            done.hovered = Some(row);
            if table.clicked() || table.double_clicked() {
                done.picked = Some(row);
                done.twice = table.double_clicked();
                table.request_focus();
            }
            if table.secondary_clicked() {
                let x = pointer.map_or(0.0, |p| p.x);
                let column = columns_of(columns, full).position(|(_, r)| r.x_range().contains(x));
                done.menu = Some((row, column.unwrap_or(0)));
            }
        }
        let texts = cells(row);
        let spoken =
            texts.iter().map(|c| c.text.as_str()).filter(|s| !s.is_empty()).collect::<Vec<_>>().join(", ");
        let row_response = ui.interact(r.intersect(body), ui.scope_id().with((name, row)), Sense::hover());
        row_response.widget_info(|| {
            egui::WidgetInfo::selected(egui::Role::Row, true, selected == Some(row), &spoken)
        });
        let columns = columns_of(columns, Rect::from_min_max(full.min, pos2(body.right(), full.bottom())));
        let over = pointer.filter(|_| inside);
        cut = cut.or(row_cells(&clip, t, columns.zip(texts), (r, body), over));
    }
    if let Some(text) = cut {
        whole_text(ui, &table, text);
    }
    if count == 0 {
        clip.text(body.center(), Align2::CENTER_CENTER, "nothing to show", crate::theme::small(), t.muted);
    }
    bar(ui, t, name, Rect::from_min_max(pos2(body.right() + 2.0, body.top()), full.max), count, fit, scroll);
    done.body = Some(table);
    done
}

/// Draws the cells of a row, and gives the text of the one under the pointer if it does not fit.
fn row_cells<'a>(
    clip: &egui::Painter,
    t: &Tokens,
    cells: impl Iterator<Item = ((&'a Column, Rect), Text)>,
    (row, body): (Rect, Rect),
    pointer: Option<egui::Pos2>,
) -> Option<String> {
    let mut cut = None;
    for ((c, cr), text) in cells {
        let (at, align) = anchor(c, cr.left(), cr.right(), row.center().y);
        let cell = Rect::from_x_y_ranges(cr.x_range(), row.y_range()).intersect(body);
        let whole = pointer.filter(|p| cell.contains(*p)).map(|_| text.text.clone());
        let color = text.color.unwrap_or(t.ink);
        let (painter, room) = (clip.with_clip_rect(cell), cell.width() - 6.0);
        let mut drawn = painter.layout_no_wrap(text.text, FontId::monospace(11.5), color);
        let fits = drawn.size().x <= room;
        if c.right && !fits {
            // A number whose first digits are cut off reads as another number.
            let mut job = (*drawn.job).clone();
            job.wrap = egui::text::TextWrapping::truncate_at_width(room);
            drawn = painter.layout_job(job);
        }
        painter.galley(align.anchor_size(at, drawn.size()).min, drawn, color);
        cut = cut.or(whole.filter(|_| !fits));
    }
    cut
}

/// Draws the names of the columns.
fn heads(ui: &Ui, t: &Tokens, columns: &[Column], full: Rect, head: Rect, sorting: Option<Sorting>) {
    let painter = ui.painter_at(full);
    painter.rect_filled(head, 0.0, ui.visuals().faint_bg_color);
    columns_of(columns, full).enumerate().for_each(|(i, (c, r))| {
        let (at, align) = anchor(c, r.left(), r.right(), head.center().y);
        let sign = match sorting.filter(|s| s.column == i) {
            Some(s) if s.down => " ↓",
            Some(_) => " ↑",
            None => "",
        };
        painter.vline(r.right(), head.shrink(4.0).y_range(), Stroke::new(1.0, t.grid));
        painter.with_clip_rect(r.with_min_y(head.top()).with_max_y(head.bottom())).text(
            at,
            align,
            format!("{}{sign}", c.name),
            crate::theme::small(),
            t.muted,
        );
    });
    painter.hline(full.x_range(), head.bottom(), Stroke::new(1.0, t.grid));
}

/// The column whose head was clicked.
fn clicked_head(
    ui: &Ui,
    name: &str,
    columns: &[Column],
    (full, head): (Rect, Rect),
    unsorted: Option<usize>,
) -> Option<usize> {
    let mut clicked = None;
    for (i, (c, r)) in columns_of(columns, full).enumerate().filter(|(i, _)| Some(*i) != unsorted) {
        let place = Rect::from_x_y_ranges(r.x_range(), head.y_range()).shrink2(vec2(5.0, 0.0));
        let response = ui.interact(place, ui.scope_id().with((name, "head", i)), Sense::click());
        let label = format!("Sort by {}", c.name);
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, &label));
        if response.on_hover_text(label.clone()).clicked() {
            clicked = Some(i);
        }
    }
    clicked
}

/// Rows that the wheel asks to move by.
fn wheel(ui: &Ui, table: &Response, fit: usize) -> f64 {
    let mut by = 0.0;
    if table.contains_pointer() {
        ui.input(|i| {
            for e in &i.events {
                if let egui::Event::MouseWheel { unit, delta, .. } = e {
                    by -= f64::from(delta.y)
                        * match unit {
                            egui::MouseWheelUnit::Line => 3.0,
                            egui::MouseWheelUnit::Page => fit as f64,
                            egui::MouseWheelUnit::Point => f64::from(1.0 / ROW),
                        };
                }
            }
        });
    }
    by
}

/// Shows the text of a cell in which it does not fit.
fn whole_text(ui: &Ui, table: &Response, text: String) {
    egui::Tooltip::always_open(
        ui.ctx().clone(),
        ui.layer_id(),
        table.id.with("cut"),
        egui::PopupAnchor::Pointer,
    )
    .gap(14.0)
    .show(|ui| {
        ui.set_max_width(560.0);
        ui.add(egui::Label::new(egui::RichText::new(text).monospace().size(11.5)).wrap());
    });
}

/// The columns with the widths that the user gave them, by dragging the lines between their heads.
fn resized(ui: &Ui, name: &str, columns: &[Column], full: Rect) -> Vec<Column> {
    /// Narrowest column, in points.
    const LEAST: f32 = 24.0;
    let id = ui.scope_id().with((name, "widths"));
    let mut out = columns.to_vec();
    let kept: Option<Vec<f32>> = ui.data(|d| d.get_temp(id));
    for (c, w) in out.iter_mut().zip(kept.into_iter().flatten()) {
        c.width = w;
    }
    let lines: Vec<f32> = columns_of(&out, full).map(|(_, r)| r.right()).collect();
    for i in 0..out.len().saturating_sub(1) {
        let grip = Rect::from_center_size(pos2(lines[i], full.top() + ROW / 2.0), vec2(8.0, ROW));
        let response = ui
            .interact(grip, id.with(i), Sense::click_and_drag())
            .on_hover_cursor(egui::CursorIcon::ResizeHorizontal);
        let what = format!("Width of the column {}", out[i].name);
        response.widget_info(|| egui::WidgetInfo::slider(true, f64::from(out[i].width), &what));
        if response.double_clicked() {
            out[i].width = columns[i].width;
        } else if response.dragged() {
            out[i].width = (out[i].width + response.drag_delta().x).max(LEAST);
        }
    }
    ui.data_mut(|d| d.insert_temp(id, out.iter().map(|c| c.width).collect::<Vec<f32>>()));
    out
}

fn focus_keys(
    ui: &Ui,
    table: &Response,
    fit: usize,
    count: usize,
    selected: Option<usize>,
    done: &mut Done,
) -> f64 {
    ui.memory_mut(|m| {
        m.set_focus_lock_filter(table.id, egui::EventFilter { vertical_arrows: true, ..Default::default() });
    });
    let mut to = None;
    let mut by = 0.0;
    let here = selected.unwrap_or(0);
    ui.input(|i| {
        for e in &i.events {
            let egui::Event::Key { key, pressed: true, .. } = e else { continue };
            match key {
                Key::ArrowDown => to = Some((here + 1).min(count.saturating_sub(1))),
                Key::ArrowUp => to = Some(here.saturating_sub(1)),
                Key::PageDown => by += fit as f64,
                Key::PageUp => by -= fit as f64,
                Key::Home => by = f64::NEG_INFINITY,
                _ => {}
            }
        }
    });
    if count > 0 && to.is_some() {
        done.picked = to;
    }
    by
}

fn anchor(c: &Column, left: f32, right: f32, y: f32) -> (egui::Pos2, Align2) {
    if c.right {
        (pos2(right - 6.0, y), Align2::RIGHT_CENTER)
    } else {
        (pos2(left + 6.0, y), Align2::LEFT_CENTER)
    }
}

fn columns_of(columns: &[Column], full: Rect) -> impl Iterator<Item = (&Column, Rect)> {
    let mut x = full.left();
    let last = columns.len().saturating_sub(1);
    columns.iter().enumerate().map(move |(i, c)| {
        let right = if i == last { full.right() } else { (x + c.width).min(full.right()) };
        let r = Rect::from_min_max(pos2(x, full.top()), pos2(right.max(x), full.bottom()));
        x = right;
        (c, r)
    })
}

fn bar(ui: &Ui, t: &Tokens, name: &str, rect: Rect, count: usize, fit: usize, scroll: &mut Scroll) {
    if count <= fit || !rect.is_positive() {
        return;
    }
    let response = ui.interact(rect, ui.scope_id().with((name, "bar")), Sense::click_and_drag());
    response.widget_info(|| egui::WidgetInfo::slider(true, scroll.top, format!("Scroll bar of {name}")));
    let painter = ui.painter();
    painter.rect_filled(rect, 3.0, ui.visuals().faint_bg_color);
    let handle_h = (rect.height() * fit as f32 / count as f32).max(16.0);
    let most = (count - fit) as f64;
    let y = rect.top() + (rect.height() - handle_h) * (scroll.top / most) as f32;
    if let Some(p) = response.interact_pointer_pos() {
        let f = ((p.y - rect.top() - handle_h / 2.0) / (rect.height() - handle_h)).clamp(0.0, 1.0);
        scroll.top = f64::from(f) * most;
    }
    let color = if response.hovered() || response.dragged() { t.muted } else { t.axis };
    painter.rect_filled(
        Rect::from_min_size(pos2(rect.left() + 1.0, y), vec2(rect.width() - 2.0, handle_h)),
        3.0,
        color,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_million_rows_scroll_by_single_rows() {
        let s = Scroll { top: 9_999_000.0, ..Scroll::default() };
        assert!((s.moved(1.0, 10_000_000, 20) - 9_999_001.0f64).abs() < 1e-9);
        assert!((s.moved(1e9, 10_000_000, 20) - 9_999_980.0f64).abs() < 1e-9);
        assert!((s.moved(-1e9, 10_000_000, 20) - 0.0f64).abs() < 1e-9);
        assert!((s.moved(5.0, 3, 20) - 0.0f64).abs() < 1e-9);
    }

    /// Whether a number in a column of this width is drawn with a mark that it is cut, and how wide.
    fn drawn(number: &str, width: f32) -> (bool, f32) {
        let tokens = Tokens::of(mmuscope_analysis::visual::Theme::Dark);
        let column = Column { name: "#", width, right: true };
        let cell = Rect::from_min_size(pos2(0.0, 0.0), vec2(width, ROW));
        let mut out = egui::Context::default().run_ui(egui::RawInput::default(), |ui| {
            let cells = std::iter::once(((&column, cell), Text::from(number)));
            row_cells(ui.painter(), &tokens, cells, (cell, cell), None);
        });
        out.textures_delta.clear();
        let texts = out.shapes.into_iter().filter_map(|s| match s.shape {
            egui::Shape::Text(t) => Some((t.galley.elided, t.galley.size().x)),
            _ => None,
        });
        texts.last().expect("the cell is drawn")
    }

    #[test]
    fn a_number_is_drawn_whole_or_says_that_it_is_cut() {
        assert!(!drawn("999,999", 64.0).0);
        let (cut, width) = drawn("10,017,789", 64.0);
        assert!(cut && width <= 58.0, "{width}");
        assert!(!drawn("100,017,789", 88.0).0, "the number of an event fits its column");
    }
}
