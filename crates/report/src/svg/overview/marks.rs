//! The row of findings above the map: each is a number at its time, with a line as long as it lasted, and leads to its entry on the page.

use maud::html;
use mmuscope_analysis::findings::Severity;

use super::{Figure, LEFT, PLOT, px};
use crate::words;

/// Height of a row.
const ROW: f64 = 18.0;
/// Most rows; findings that find no room in them are counted at the end.
const ROWS: usize = 3;
/// Width of a number.
const MARK: f64 = 17.0;

impl Figure<'_> {
    /// Marks the findings of this VM, and those that are of no VM.
    pub(super) fn findings(&mut self) {
        let all = self.report.stands_out.iter().enumerate();
        let own: Vec<_> = all.filter(|(_, f)| f.vm.is_none_or(|vm| vm == self.vm)).collect();
        if own.is_empty() {
            return;
        }
        let top = self.y + 6.0;
        let right = LEFT + f64::from(PLOT);
        // The end of what each row holds so far.
        let mut rows: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut hidden = 0;
        for (n, f) in own {
            let from = self.x.at(f.first as f64).clamp(LEFT, right - MARK);
            let to = self.x.at(f.last as f64).clamp(from + MARK, right);
            let free = |row: &Vec<(f64, f64)>| row.iter().all(|r| to + 2.0 <= r.0 || from >= r.1 + 2.0);
            let row = match rows.iter().position(free) {
                Some(row) => row,
                None if rows.len() < ROWS => {
                    rows.push(Vec::new());
                    rows.len() - 1
                }
                None => {
                    hidden += 1;
                    continue;
                }
            };
            rows[row].push((from, to));
            let y = top + row as f64 * ROW;
            let class = match f.severity {
                Severity::Error => "find bad",
                Severity::Warning => "find warn",
                Severity::Info => "find",
            };
            self.parts.push(html! {
                a href=(format!("#{}", self.report.id(format_args!("finding{n}")))) class=(class) {
                    title { (n + 1) " " (f.id) ": " (words::one_line(&f.title, 300)) }
                    path d=(format!("M{} {}H{}", px(from + MARK), px(y + 7.0), px(to))) {}
                    rect x=(px(from)) y=(px(y)) width=(px(MARK)) height="14" rx="3" {}
                    text x=(px(from + MARK / 2.0)) y=(px(y + 10.5)) class="m" { (n + 1) }
                }
            });
        }
        if hidden > 0 {
            let more = format!("{} more", words::count(hidden));
            self.text(right + 8.0, top + 10.5, "u", &more);
        }
        self.text(LEFT - 8.0, top + 10.5, "e u", "findings");
        self.y = top + rows.len() as f64 * ROW;
    }
}
