//! [`CountedReport`]: exits, zaps and huge pages of a VM by cause, as `mmuscope stat` counts them, and their tables.

use maud::{Markup, html};
use mmuscope_analysis::stat::{Kind, Row, Stat, Whose, time_words};
use serde::Serialize;

use crate::words;

/// Most rows of a table.
const ROWS: usize = 40;

/// What `mmuscope stat` counts of a VM. A list is `null` where the events that show it were not recorded.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CountedReport {
    /// Where the time of the vCPUs went.
    pub time: Option<Vec<CountReport>>,
    /// Exits from the guest, by reason.
    pub exits: Option<Vec<CountReport>>,
    /// Zaps, by what for.
    pub zaps: Vec<CountReport>,
    /// Huge pages lost and won, by cause.
    pub huge: Vec<CountReport>,
    /// What is not in these lists, one sentence each.
    pub missing: Vec<String>,
}

/// How often something happened, and how long it took.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CountReport {
    /// What happened.
    pub name: String,
    /// How often.
    pub count: u64,
    /// Sum of the times, where some were measured.
    pub total: Option<u64>,
    /// Median of the times.
    pub p50: Option<u64>,
    /// 99th percentile of the times.
    pub p99: Option<u64>,
    /// Longest time.
    pub max: Option<u64>,
    /// Of exits: how much of `total` was the VMM's; `null` where returns to it were not recorded.
    pub vmm: Option<u64>,
    /// Of huge pages: bytes of guest memory that they map.
    pub bytes: Option<u64>,
}

impl CountReport {
    fn new(kind: Kind, row: &Row) -> Self {
        let name = if kind == Kind::Time { time_words(&row.name) } else { &row.name };
        let t = &row.times;
        Self {
            name: words::one_line(name, 160),
            count: row.count,
            total: (t.measured > 0).then_some(t.total),
            p50: t.p50,
            p99: t.p99,
            max: t.max,
            vmm: row.vmm,
            bytes: row.bytes,
        }
    }
}

impl CountedReport {
    /// What was counted of a VM.
    pub(crate) fn new(stat: &Stat, vm: u16) -> Self {
        let whose = Whose { vm: Some(vm), ..Whose::default() };
        let list = |kind| stat.of(whose, kind).iter().map(|r| CountReport::new(kind, r)).collect::<Vec<_>>();
        let known = |kind| (!stat.unknown.contains(&kind)).then(|| list(kind));
        Self {
            time: known(Kind::Time),
            exits: known(Kind::Exit),
            zaps: list(Kind::ZapFor),
            huge: list(Kind::Huge),
            missing: stat.missing.iter().map(|m| words::one_line(m, 300)).collect(),
        }
    }

    /// The lists that have rows, each with its words.
    pub(crate) fn lists(&self) -> Vec<(List, &[CountReport])> {
        let all = [
            (
                List {
                    title: "Exits",
                    head: "reason",
                    about: "from the exit to the next entry, the VMM's time included",
                },
                self.exits.as_deref(),
            ),
            (
                List {
                    title: "Time of the vCPUs",
                    head: "what they did",
                    about: "wall time, waiting included",
                },
                self.time.as_deref(),
            ),
            (
                List {
                    title: "Zaps",
                    head: "what for",
                    about: "by what the thread that zapped was doing; not recorded where no event says it",
                },
                Some(&self.zaps[..]),
            ),
            (
                List {
                    title: "Huge pages lost and won",
                    head: "cause",
                    about: "leaves of 2 MiB or more that small ones replaced, or that replaced them",
                },
                Some(&self.huge[..]),
            ),
        ];
        all.into_iter().filter_map(|(l, rows)| Some((l, rows.filter(|r| !r.is_empty())?))).collect()
    }

    /// Whether anything is counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.lists().is_empty()
    }
}

/// A list's words.
pub(crate) struct List {
    title: &'static str,
    head: &'static str,
    about: &'static str,
}

/// The cells of a row beside its name, and of the head: `None` is a column that the list does not have.
fn cells(rows: &[CountReport], of: Option<&CountReport>) -> Vec<String> {
    let all: u64 = rows.iter().map(|r| r.count).sum();
    let time = rows.iter().filter_map(|r| r.total).fold(0u64, u64::saturating_add);
    let mut out = vec![
        of.map_or_else(|| "count".into(), |r| words::count(r.count)),
        of.map_or_else(|| "share".into(), |r| words::percent(r.count, all)),
    ];
    let mut column = |head: &str, there: &dyn Fn(&CountReport) -> Option<String>| {
        if rows.iter().any(|r| there(r).is_some()) {
            out.push(of.map_or_else(|| head.into(), |r| there(r).unwrap_or_else(|| "–".into())));
        }
    };
    column("size", &|r| r.bytes.map(words::bytes));
    column("time", &|r| r.total.map(words::duration));
    column("share of time", &|r| r.total.map(|t| words::percent(t, time)));
    column("median", &|r| r.p50.map(words::duration));
    column("99 %", &|r| r.p99.map(words::duration));
    column("longest", &|r| r.max.map(words::duration));
    column("VMM", &|r| r.vmm.filter(|v| *v > 0).map(words::duration));
    out
}

/// The lists as HTML tables.
pub(crate) fn tables(counted: &CountedReport) -> Markup {
    html! {
        @for (list, rows) in counted.lists() {
            div class="wide" { table {
                caption { b { (list.title) } ": " (list.about) }
                thead { tr { th scope="col" { (list.head) } @for c in cells(rows, None) { th scope="col" class="r" { (c) } } } }
                tbody {
                    @for r in rows.iter().take(ROWS) { tr {
                        th scope="row" { (r.name) } @for c in cells(rows, Some(r)) { td class="r" { (c) } }
                    } }
                    @if rows.len() > ROWS { tr { td colspan="9" class="mu" { "and " (words::count((rows.len() - ROWS) as u64)) " more (all of them in the JSON report)" } } }
                }
            } }
        }
        @for m in &counted.missing { p class="note" { (words::sentence(m)) "." } }
    }
}

/// A table: its title, its head, its rows.
type Cells = (&'static str, Vec<String>, Vec<Vec<String>>);

/// The lists as rows of tables. Nothing is escaped.
pub(crate) fn markdown(counted: &CountedReport) -> Vec<Cells> {
    let one = |(list, rows): (List, &[CountReport])| {
        let head = std::iter::once(list.head.to_owned())
            .chain(cells(rows, None).into_iter().map(|c| format!(">{c}")));
        let body = rows
            .iter()
            .take(ROWS)
            .map(|r| std::iter::once(r.name.clone()).chain(cells(rows, Some(r))).collect());
        (list.title, head.collect(), body.collect())
    };
    counted.lists().into_iter().map(one).collect()
}
