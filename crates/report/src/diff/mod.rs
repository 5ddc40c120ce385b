//! A comparison of runs, written down: as text for a terminal, as Markdown, as one HTML page, and as JSON. `mmuscope diff` prints them. Nothing here
//! judges: [`Diff`] has a verdict for each number.

mod html;
mod markdown;
mod said;
mod text;

use mmuscope_analysis::diff::Diff;
use mmuscope_analysis::visual::Visual;

use crate::words;

/// The comparison as text; with `all`, what is the same as well.
pub fn render_text(diff: &Diff, all: bool) -> String {
    words::visible(&text::document(diff, all))
}

/// The comparison as Markdown.
pub fn render_markdown(diff: &Diff) -> String {
    words::visible(&markdown::document(diff))
}

/// The comparison as one HTML file.
pub fn render_html(diff: &Diff) -> String {
    words::visible(&html::page(diff, Visual::builtin()))
}

/// The comparison as JSON. Field names are stable within a [`SCHEMA`](mmuscope_analysis::diff::SCHEMA).
pub fn render_json(diff: &Diff) -> Result<String, serde_json::Error> {
    let mut out = serde_json::to_string_pretty(diff)?;
    out.push('\n');
    Ok(out)
}

#[cfg(test)]
mod tests;
