//! A finished replay as a page that anyone can read: self-contained HTML, Markdown, or JSON.
//!
//! [`Report::new`] gathers everything a report says into plain data; [`render_html`], [`render_markdown`] and [`render_json`] write it
//! down. The HTML needs no network, no script and no font; every text that came out of a trace is escaped wherever it goes.

mod collect;
mod html;
mod markdown;
mod model;
mod png;
#[cfg(test)]
mod sample;
mod story;
mod svg;
#[cfg(test)]
mod tests;
pub mod words;

pub use collect::Options;
pub use model::*;

use mmuscope_analysis::visual::Visual;

/// The report as one HTML file.
pub fn render_html(report: &Report) -> String {
    words::visible(&html::page(report, Visual::builtin()))
}

/// The report as Markdown, without the pictures.
pub fn render_markdown(report: &Report) -> String {
    words::visible(&markdown::document(report))
}

/// The report as JSON, without the pictures. Field names are stable within a [`SCHEMA`].
pub fn render_json(report: &Report) -> Result<String, serde_json::Error> {
    let mut out = serde_json::to_string_pretty(report)?;
    out.push('\n');
    Ok(out)
}
