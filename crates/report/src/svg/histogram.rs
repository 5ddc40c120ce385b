//! [`histogram`]: how long faults took, on a logarithmic axis.

use std::fmt::Write;

use maud::{Markup, html};

use super::{Scale, count_ticks, px};
use crate::model::FaultReport;
use crate::words;

const WIDTH: f64 = 680.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 34.0;

/// Draws bars stacked by outcome; `None` where the end of no fault is known.
pub(crate) fn histogram(faults: &FaultReport, id: &str) -> Option<Markup> {
    let bins = &faults.histogram;
    let (first, last) = (bins.first()?, bins.last()?);
    let max = bins.iter().map(|b| b.counts.iter().sum::<u64>()).max()?;
    let ticks = count_ticks(max, 4);
    let y = Scale::new(0.0, *ticks.last()? as f64, HEIGHT - BOTTOM, TOP);
    let log = |ns: u64| (ns.max(1) as f64).log10();
    let x = Scale::new(log(first.from), log(last.to), LEFT, WIDTH - 8.0);
    let mut grid = String::new();
    for t in &ticks {
        let _ = write!(grid, "M{} {}H{}", px(LEFT), px(y.at(*t as f64)), px(WIDTH - 8.0));
    }
    // A tick for every power of ten, and for 2 and 5 times one where there is room.
    let decades = (log(last.to) - log(first.from)).max(0.1);
    let factors: &[u64] = if decades < 3.0 { &[1, 2, 5] } else { &[1] };
    let mut times = Vec::new();
    let mut power = 1u64;
    while power <= last.to {
        times.extend(
            factors.iter().map(|f| f.saturating_mul(power)).filter(|t| (first.from..=last.to).contains(t)),
        );
        let Some(next) = power.checked_mul(10) else { break };
        power = next;
    }
    let marks = [("median", faults.latency.p50), ("99 %", faults.latency.p99)];
    Some(html! {
        svg id=(id) class="histogram" xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {} {}", px(WIDTH), px(HEIGHT)))
            width=(px(WIDTH)) height=(px(HEIGHT)) role="img" aria-labelledby=(format!("{id}-t")) {
            title id=(format!("{id}-t")) {
                "Histogram of fault latency, from " (words::duration(first.from)) " to " (words::duration(last.to)) " on a logarithmic axis"
            }
            path class="grid" d=(grid) {}
            @for t in &ticks { text class="e n" x=(px(LEFT - 7.0)) y=(px(y.at(*t as f64) + 3.5)) { (words::count(*t)) } }
            @for b in bins {
                @let (x0, x1) = (x.at(log(b.from)) + 0.5, x.at(log(b.to)) - 0.5);
                @let stacked = stacked(&b.counts);
                @for (i, (from, to)) in stacked.iter().enumerate() {
                    @if to > from {
                        rect class=(outcome_class(i)) x=(px(x0)) width=(px((x1 - x0).max(0.5))) y=(px(y.at(*to as f64))) height=(px(y.at(*from as f64) - y.at(*to as f64))) {
                            title {
                                (words::counted(to - from, "fault", "faults")) " " (faults.outcomes.get(i).map_or("", |o| o.name.as_str()))
                                ", " (words::duration(b.from)) " to " (words::duration(b.to))
                            }
                        }
                    }
                }
            }
            path class="axis" d=(format!("M{} {}H{}", px(LEFT), px(HEIGHT - BOTTOM), px(WIDTH - 8.0))) {}
            @for t in &times {
                path class="axis" d=(format!("M{} {}v4", px(x.at(log(*t))), px(HEIGHT - BOTTOM))) {}
                text class="m n" x=(px(x.at(log(*t)))) y=(px(HEIGHT - BOTTOM + 16.0)) { (words::duration(*t)) }
            }
            @for (name, value) in marks {
                @if let Some(v) = value {
                    path class="mark" d=(format!("M{} {}V{}", px(x.at(log(v))), px(TOP), px(HEIGHT - BOTTOM))) { title { (name) ": " (words::duration(v)) } }
                    text class="u m" x=(px(x.at(log(v)))) y=(px(HEIGHT - 4.0)) { (name) }
                }
            }
        }
    })
}

/// CSS class of the bars of the `i`-th outcome: the first seven have a colour each, the rest share one.
pub(crate) fn outcome_class(i: usize) -> String {
    format!("series-{}", i.min(7))
}

fn stacked(counts: &[u64]) -> Vec<(u64, u64)> {
    let mut at = 0;
    counts
        .iter()
        .map(|n| {
            let from = at;
            at += n;
            (from, at)
        })
        .collect()
}
