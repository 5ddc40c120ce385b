//! The section of the reader's notes.

use maud::{Markup, html};

use crate::model::Report;
use crate::words;

/// Most characters of a note.
const LONG: usize = 2000;

pub(super) fn section(report: &Report) -> Markup {
    if report.notes.is_empty() {
        return html! {};
    }
    let several = report.vms.len() > 1;
    html! {
        section id=(report.id("notes")) {
            h2 { "Notes" }
            p { "What a reader of the trace wrote while looking at it." }
            div class="wide" { table {
                caption { b { "Notes" } ", in the order of their moments" }
                thead { tr { th scope="col" { "at" } th scope="col" { "on" } th scope="col" { "note" } } }
                tbody {
                    @for n in &report.notes { tr {
                        th scope="row" { (words::moment(n.at)) }
                        td class="t" { (n.place(several)) }
                        td class="w" { (words::one_line(&n.text, LONG)) }
                    } }
                }
            } }
        }
    }
}
