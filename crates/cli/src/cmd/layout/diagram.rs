//! Diagrams of the bits of an SPTE, as text and as SVG.
#![allow(
    clippy::format_push_string,
    reason = "a picture is one string; `write!` would only add results to ignore"
)]

use mmuscope_spte::{BitRun, FieldKind};

/// A diagram of 64 bits as lines of text: boxes with bit numbers, labels, and the bits of `raw` if there is a value.
pub(crate) fn text(runs: &[BitRun], raw: Option<u64>) -> Vec<String> {
    let cells: Vec<[String; 3]> = runs
        .iter()
        .map(|run| {
            let bits =
                if run.high == run.low { run.high.to_string() } else { format!("{}:{}", run.high, run.low) };
            let value = raw.map_or_else(String::new, |raw| {
                let value = run.get(raw);
                if run.high == run.low || value == 0 { value.to_string() } else { format!("{value:x}") }
            });
            [bits, run.kind.label().to_owned(), value]
        })
        .collect();
    let widths: Vec<usize> =
        cells.iter().map(|c| c.iter().map(|t| t.chars().count()).max().unwrap_or(1)).collect();
    let rule = |left: &str, middle: &str, right: &str| {
        let parts: Vec<String> = widths.iter().map(|w| "─".repeat(*w)).collect();
        format!("{left}{}{right}", parts.join(middle))
    };
    let row = |n: usize| {
        let parts: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(c, &width)| {
                let text = &c[n];
                let free = width - text.chars().count();
                format!("{}{text}{}", " ".repeat(free / 2), " ".repeat(free - free / 2))
            })
            .collect();
        parts.join("│")
    };
    let mut lines = vec![rule("┌", "┬", "┐"), format!("│{}│", row(0)), format!("│{}│", row(1))];
    if raw.is_some() {
        lines.push(rule("├", "┼", "┤"));
        lines.push(format!("│{}│", row(2)));
    }
    lines.push(rule("└", "┴", "┘"));
    lines
}

/// Fill colour of a field: that of the pictures where a field stands for a state, a pale one elsewhere.
const fn colour(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Unused => "#ffffff",
        FieldKind::Address | FieldKind::Gfn => "#dbe9f6",
        FieldKind::DisplacedGfn => "#c3d9ee",
        FieldKind::MmuPresent | FieldKind::HostWritable | FieldKind::MmuWritable => "#a6cdea",
        FieldKind::MmioMark | FieldKind::Generation | FieldKind::Access => "#f5d08a",
        FieldKind::Removed | FieldKind::Zapped => "#e6c3d8",
        FieldKind::L1tf => "#f0e442",
        FieldKind::AdType | FieldKind::SavedRead | FieldKind::SavedExecute | FieldKind::SavedUserExecute => {
            "#cfe8df"
        }
        _ => "#ececec",
    }
}

const BIT: u32 = 16;
const LEFT: u32 = 12;

/// Rows of 64 bits, each with a caption, as one SVG picture.
pub(crate) fn svg(title: &str, rows: &[(String, Vec<BitRun>)]) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let (width, row_height) = (LEFT * 2 + 64 * BIT, 92);
    let height = 40 + row_height * rows.len() as u32;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\" role=\"img\" aria-label=\"{0}\">\n\
         <title>{0}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{0}</text>\n",
        escape(title)
    );
    for (n, (caption, runs)) in rows.iter().enumerate() {
        let top = 40 + row_height * n as u32;
        out += &format!(
            "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>\n",
            top + 12,
            escape(caption)
        );
        for run in runs {
            let x = LEFT + (63 - u32::from(run.high)) * BIT;
            let w = (u32::from(run.high - run.low) + 1) * BIT;
            let y = top + 34;
            out += &format!(
                "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"24\" fill=\"{}\" stroke=\"#444444\"><title>{} (bits {}:{}) {}</title></rect>\n",
                colour(run.kind),
                run.kind.name(),
                run.high,
                run.low,
                run.kind.kernel_name()
            );
            let label = if w > 7 * BIT { run.kind.name() } else { run.kind.label() };
            let size = if label.chars().count() as u32 * 7 > w { 8 } else { 11 };
            out += &format!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" font-size=\"{size}\">{}</text>\n",
                x + w / 2,
                y + 16,
                escape(label)
            );
            let number = |at: u8| {
                let x = LEFT + (63 - u32::from(at)) * BIT + BIT / 2;
                format!(
                    "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" font-size=\"8\" fill=\"#555555\">{at}</text>\n",
                    y - 4
                )
            };
            out += &number(run.high);
            if run.low != run.high {
                out += &number(run.low);
            }
        }
    }
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use mmuscope_spte::{LayoutSpec, State};

    #[test]
    fn boxes_line_up_and_cover_all_bits() {
        let layout = LayoutSpec::find("E10/ept").expect("shipped").layout;
        let runs = layout.bit_runs(State::Present, 1);
        let lines = text(&runs, Some(0x0600_0001_2345_6b77));
        let widths: Vec<usize> = lines.iter().map(|l| l.chars().count()).collect();
        assert!(widths.iter().all(|w| *w == widths[0]), "{widths:?}");
        assert_eq!(runs.iter().map(|r| u32::from(r.high - r.low) + 1).sum::<u32>(), 64);
        assert!(lines[1].contains("51:12") && lines[4].contains("123456"));
    }

    #[test]
    fn svg_escapes_and_closes() {
        let layout = LayoutSpec::find("E14/ept").expect("shipped").layout;
        let svg = svg("a < b & c", &[("leaf".into(), layout.bit_runs(State::Present, 1))]);
        assert!(svg.contains("a &lt; b &amp; c") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<rect").count(), svg.matches("</rect>").count() + 1);
    }
}
