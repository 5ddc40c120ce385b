//! A finished replay as a page that anyone can read: self-contained HTML, Markdown, or JSON.
//!
//! `mmuscope report` calls this crate. [`Report::new`] gathers everything that a report says into plain data, [`Report`];
//! [`render_html`], [`render_markdown`] and [`render_json`] write it down. Numbers stay numbers in the data and become text only there.
//! The HTML never needs a network, a script or a font, and a text of a trace is never written unescaped.

mod answers;
mod collect;
mod counted;
pub mod diff;
mod frames;
mod html;
mod json;
mod markdown;
mod model;
mod notes;
mod part;
mod picture;
mod png;
#[cfg(test)]
mod sample;
mod several;
mod slots;
mod story;
mod svg;
#[cfg(test)]
mod tests;
mod verdict;
pub mod words;

pub use collect::Options;
pub use model::*;

use mmuscope_analysis::visual::Visual;

/// The report as one HTML file.
pub fn render_html(report: &Report) -> String {
    words::visible(&html::page(report, Visual::builtin()))
}

/// The reports of several traces as one HTML file.
pub fn render_html_of(reports: &mut [Report]) -> String {
    words::visible(&html::several(reports, Visual::builtin()))
}

/// The reports of several traces as one Markdown document.
pub fn render_markdown_of(reports: &[Report]) -> String {
    words::visible(&markdown::several(reports))
}

/// The reports of several traces as JSON: an array under `traces`, each as [`render_json`] writes it.
pub fn render_json_of(reports: &[Report]) -> Result<String, serde_json::Error> {
    let mut out =
        serde_json::to_string_pretty(&several::Several { schema: several::SCHEMA, traces: reports })?;
    out.push('\n');
    Ok(out)
}

/// The figure of one address space of a VM as an SVG file of its own; `None` if the report has no such address space.
pub fn render_svg(report: &Report, vm: u16, as_id: u8) -> Option<String> {
    html::figure(report, vm, as_id, Visual::builtin()).map(|s| words::visible(&s))
}

/// The report as Markdown, without pictures.
pub fn render_markdown(report: &Report) -> String {
    words::visible(&markdown::document(report))
}

/// The report as JSON, without pictures. Field names are stable within a [`SCHEMA`].
pub fn render_json(report: &Report) -> Result<String, serde_json::Error> {
    let mut out = serde_json::to_string_pretty(report)?;
    out.push('\n');
    Ok(out)
}
