//! The figure of one address space as an SVG file of its own, for documents. It is the figure of the page, in light colours.

use maud::{PreEscaped, html};
use mmuscope_analysis::visual::{Theme, Visual};

use super::style;
use crate::model::Report;
use crate::svg::overview::overview;

/// The figure as a file; `None` if the report has no such address space.
pub(crate) fn file(report: &Report, vm: u16, as_id: u8, visual: &Visual) -> Option<String> {
    let vm = report.vms.iter().find(|v| v.vm == vm)?;
    let space = vm.spaces.iter().find(|s| s.as_id == as_id)?;
    let figure = overview(report, vm, space, "map").into_string();
    // The element's own start stays first; style and patterns follow it.
    let at = figure.find('>')? + 1;
    // Programs that draw SVG files know no variables and no dark screens.
    let css = style::plain(visual, Theme::Light);
    let style = html! {
        style { (PreEscaped(css)) }
        rect width="100%" height="100%" fill=(visual.theme(Theme::Light).page.css()) {}
        defs { (style::pattern_list(visual)) }
    };
    Some(format!("{}{}{}", &figure[..at], style.into_string(), &figure[at..]))
}
