//! [`document`]: the report as Markdown, for issue trackers, mails and diffs. It never embeds pictures.

use std::fmt::Write;

use crate::{
    model::{FaultClass, PageReport, Report, SpaceReport, VmReport},
    story::tiles,
    verdict::verdicts,
    words,
};

/// Most rows of a table; further rows are only in the JSON.
const ROWS: usize = 30;

/// Escapes a text so that Markdown, and the HTML that it may become, shows it as it is.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '$' | '@' => {
                out.push('\\');
                out.push(c);
            }
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    // Many renderers turn a bare address into a link.
    out.replace("://", "&#58;//").replace("www.", "www&#46;")
}

/// A text of a trace, escaped, on one line of at most `max` characters.
fn hostile(text: &str, max: usize) -> String {
    escape(&words::one_line(text, max))
}

struct Table {
    out: String,
}

impl Table {
    /// Begins a table. A head that starts with `>` is a column that is aligned to the right.
    fn new(head: &[&str]) -> Self {
        let mut out = String::from("\n|");
        for h in head {
            let _ = write!(out, " {} |", h.trim_start_matches('>'));
        }
        out.push_str("\n|");
        for h in head {
            out.push_str(if h.starts_with('>') { " ---: |" } else { " --- |" });
        }
        out.push('\n');
        Self { out }
    }

    fn row(&mut self, cells: &[String]) {
        self.out.push('|');
        for c in cells {
            let _ = write!(self.out, " {c} |");
        }
        self.out.push('\n');
    }

    fn rest(&mut self, len: usize, shown: usize) {
        if len > shown {
            let _ = write!(
                self.out,
                "\n{} more rows are in the JSON report.\n",
                words::count((len - shown) as u64)
            );
        }
    }
}

/// The findings, each a paragraph with a list.
fn findings(r: &Report) -> String {
    let mut out = String::new();
    if !r.stands_out.is_empty() {
        out.push_str("\n## Findings\n");
    }
    for f in &r.stands_out {
        let _ = writeln!(
            out,
            "\n**{} `{}`:** {}. {} {}\n",
            f.severity.name(),
            f.id,
            escape(&f.title),
            words::when(f.count, f.first, f.last),
            words::events(&f.events)
        );
        let _ = writeln!(out, "- Why: {}.", escape(&f.why));
        let _ = writeln!(out, "- What to do: {}.", escape(&f.remedy));
        let _ =
            writeln!(out, "- How sure the cause is: {}; refuted if {}.", f.sure.name(), escape(f.refuted));
    }
    out
}

/// Writes the document.
pub(crate) fn document(r: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "# {}\n", escape(&r.title));
    let verdicts: Vec<String> = verdicts(r).into_iter().map(|(_, t)| escape(&t)).collect();
    if !verdicts.is_empty() {
        let _ = writeln!(out, "*{}*\n", verdicts.join(" · "));
    }
    for p in &r.story {
        let _ = writeln!(out, "{}\n", escape(p));
    }
    let tiles = tiles(r);
    if !tiles.is_empty() {
        let mut t = Table::new(&["", ">", ""]);
        for tile in tiles {
            t.row(&[tile.name.to_owned(), format!("**{}**", tile.value), tile.more]);
        }
        out.push_str(t.out.trim_start());
    }
    if !r.notes.is_empty() {
        out.push_str("\n## Notes\n");
        let mut t = Table::new(&["at", "on", "note"]);
        for n in &r.notes {
            let text = escape(&words::one_line(&n.text, 2000));
            t.row(&[words::moment(n.at), n.place(r.vms.len() > 1), text]);
        }
        out.push_str(&t.out);
    }
    out.push_str(&findings(r));
    if !r.phases.is_empty() {
        for (of, phases) in r.phase_lists() {
            let _ = writeln!(
                out,
                "\n## Phases{}",
                if of.is_empty() { of } else { format!(": {}", hostile(&of, 60)) }
            );
            let mut t = Table::new(&[
                "phase",
                ">begins",
                ">lasts",
                ">faults",
                ">time in faults",
                ">installed",
                ">zapped",
                ">made read-only",
                ">made writable",
                ">present at its end",
            ]);
            for p in phases.iter().take(ROWS * 4) {
                t.row(&[
                    hostile(&p.text, 80),
                    words::at(p.start),
                    words::duration(p.end.saturating_sub(p.start)),
                    words::count(p.faults),
                    time(p.fault_time),
                    words::count(p.installs),
                    words::count(p.zaps),
                    words::count(p.write_protected),
                    words::count(p.made_writable),
                    p.present_bytes.map_or_else(|| "–".to_owned(), words::bytes),
                ]);
            }
            t.rest(phases.len(), ROWS * 4);
            out.push_str(&t.out);
        }
    }
    for vm in &r.vms {
        machine(&mut out, vm, r.vms.len() > 1);
    }
    trust(&mut out, r);
    recording(&mut out, r);
    if !r.events.is_empty() {
        out.push_str("\n## Events\n");
        let mut t = Table::new(&["event", ">count", ">share"]);
        for e in r.events.iter().take(ROWS * 2) {
            t.row(&[hostile(&e.event, 80), words::count(e.count), words::percent(e.count, r.event_count())]);
        }
        t.rest(r.events.len(), ROWS * 2);
        out.push_str(&t.out);
    }
    let _ = write!(
        out,
        "\n---\n\n{}. Times are since the first event. “Unknown” means that no event has shown an entry yet, which is not the same as nonpresent.\n",
        r.generator
    );
    out
}

/// Writes one document of several reports, each behind its name, after a table that puts them side by side.
pub(crate) fn several(reports: &[Report]) -> String {
    let names: Vec<String> = crate::several::names(reports).iter().map(|n| escape(n)).collect();
    let mut out = format!("# {}\n", words::counted(reports.len() as u64, "trace", "traces"));
    let head: Vec<String> =
        std::iter::once(String::new()).chain(names.iter().map(|n| format!(">{n}"))).collect();
    let mut t = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for (name, values) in crate::several::rows(reports) {
        let cells = values.iter().map(|v| escape(v));
        t.row(&std::iter::once(name.to_owned()).chain(cells).collect::<Vec<_>>());
    }
    out.push_str(&t.out);
    for (r, name) in reports.iter().zip(&names) {
        let _ = write!(out, "\n---\n\n{}", document(r).replacen("# ", &format!("# {name}: "), 1));
    }
    out
}

fn machine(out: &mut String, vm: &VmReport, several: bool) {
    let suffix = if several { format!(": {}", hostile(&vm.label(true), 60)) } else { String::new() };
    for s in &vm.spaces {
        leaves(out, s, &suffix);
    }
    if vm.faults.total > 0 {
        faults(out, vm, &suffix);
    }
    for (title, head, rows) in crate::counted::markdown(&vm.counted) {
        let _ = writeln!(out, "\n## {title}{suffix}");
        let mut t = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
        for cells in &rows {
            t.row(&cells.iter().map(|c| escape(c)).collect::<Vec<_>>());
        }
        out.push_str(&t.out);
    }
    for (title, what, pages) in [
        ("Pages with the most faults", "faults", &vm.top_faults),
        ("Pages with the most zaps", "zaps", &vm.top_zaps),
    ] {
        if !pages.is_empty() {
            let _ = writeln!(out, "\n## {title}{suffix}");
            page_table(out, what, pages);
        }
    }
    if !vm.mmio.is_empty() {
        mmio(out, vm, &suffix);
    }
    for s in vm.spaces.iter().filter(|s| !s.slots.is_empty()) {
        slots(out, vm, s, &suffix);
    }
    for s in vm.spaces.iter().filter(|s| !s.memory.is_empty()) {
        memory(out, s, &suffix);
    }
}

/// Number of leaves by state, and bytes by page size, of one address space. `suffix` is appended to headings.
fn leaves(out: &mut String, s: &SpaceReport, suffix: &str) {
    if s.over_time.entries.iter().all(|e| e.peak == 0) {
        return;
    }
    let space = if s.as_id == 0 { String::new() } else { format!(" ({})", words::space_name(s.as_id)) };
    let _ = writeln!(out, "\n## Leaves by state{suffix}{space}");
    let mut t = Table::new(&["state", ">at most", ">at the end"]);
    for e in &s.over_time.entries {
        t.row(&[
            words::short_name(e.shade).to_owned(),
            words::count(e.peak),
            words::count(e.counts.last().copied().unwrap_or(0)),
        ]);
    }
    out.push_str(&t.out);
    let mut t = Table::new(&["page size", ">at most", ">at the end"]);
    for l in &s.over_time.present_bytes {
        let max = l.bytes.iter().copied().max().unwrap_or(0);
        t.row(&[
            words::level_size(l.level).to_owned(),
            words::bytes(max),
            words::bytes(l.bytes.last().copied().unwrap_or(0)),
        ]);
    }
    if !s.over_time.present_bytes.is_empty() {
        out.push_str(&t.out);
    }
}

fn faults(out: &mut String, vm: &VmReport, suffix: &str) {
    let _ = writeln!(out, "\n## Faults{suffix}");
    classes(out, "outcome", &vm.faults.outcomes, vm.faults.total);
    classes(out, "access", &vm.faults.accesses, vm.faults.total);
    let mut t = Table::new(&["vCPU", "thread", ">faults", ">median", ">99 %"]);
    for v in vm.vcpus.iter().take(ROWS) {
        t.row(&[
            v.vcpu.map_or_else(|| "?".to_owned(), |n| n.to_string()),
            format!("{} {}", hostile(&v.name, 40), v.tid),
            words::count(v.faults),
            time(v.p50),
            time(v.p99),
        ]);
    }
    t.rest(vm.vcpus.len(), ROWS);
    out.push_str(&t.out);
}

fn slots(out: &mut String, vm: &VmReport, space: &SpaceReport, suffix: &str) {
    let _ = writeln!(out, "\n## Memory slots{suffix}");
    if let Some(text) = crate::slots::outside_words(vm.outside_slots.as_ref()) {
        let _ = writeln!(out, "\n{text}");
    }
    let mut t = Table::new(&[">slot", "address", ">size", "usually", "host address", "flags"]);
    for s in space.slots.iter().take(ROWS) {
        t.row(&[
            s.slot.map_or_else(String::new, |n| n.to_string()),
            words::gpa(s.frames.gfn_start),
            words::bytes(s.frames.bytes),
            s.usually.clone(),
            s.hva.map_or_else(String::new, |h| format!("{h:#x}")),
            crate::slots::flags(s),
        ]);
    }
    t.rest(space.slots.len(), ROWS);
    out.push_str(&t.out);
}

fn mmio(out: &mut String, vm: &VmReport, suffix: &str) {
    let _ = writeln!(out, "\n## MMIO{suffix}");
    let mut t =
        Table::new(&["address", ">size", "usually", ">accesses", ">faults", ">installed", ">first", ">last"]);
    for m in vm.mmio.iter().take(ROWS) {
        t.row(&[
            words::gpa(m.frames.gfn_start),
            words::bytes(m.frames.bytes),
            m.usually.clone().unwrap_or_default(),
            m.accesses.map_or_else(|| "not recorded".to_owned(), words::count),
            words::count(m.faults),
            words::count(m.installs),
            words::moments(&[m.first, m.last]).swap_remove(0),
            words::at(m.last),
        ]);
    }
    t.rest(vm.mmio.len(), ROWS);
    out.push_str(&t.out);
}

fn memory(out: &mut String, s: &SpaceReport, suffix: &str) {
    let space = if s.as_id == 0 { String::new() } else { format!(" ({})", words::space_name(s.as_id)) };
    let at = s.memory_at.map_or_else(|| "the end".to_owned(), words::at);
    let _ = writeln!(out, "\n## Guest frames at {at}{suffix}{space}");
    let mut t = Table::new(&["frames", ">size", "what", "state", ">page size", ">entries", "certainty"]);
    for m in s.memory.iter().take(ROWS) {
        t.row(&[
            m.frames.text(),
            words::bytes(m.frames.bytes),
            words::kind(m.kind).to_owned(),
            m.shade.name().to_owned(),
            words::page_size(m.level).to_owned(),
            words::count(m.entries),
            m.certainty.name().to_owned(),
        ]);
    }
    t.rest(s.memory.len(), ROWS);
    out.push_str(&t.out);
}

fn classes(out: &mut String, head: &str, rows: &[FaultClass], total: u64) {
    let mut t = Table::new(&[head, ">faults", ">share", ">median", ">90 %", ">99 %", ">longest"]);
    for c in rows {
        t.row(&[
            c.name.clone(),
            words::count(c.count),
            words::percent(c.count, total),
            time(c.latency.p50),
            time(c.latency.p90),
            time(c.latency.p99),
            time(c.latency.max),
        ]);
    }
    out.push_str(&t.out);
}

fn page_table(out: &mut String, what: &str, pages: &[PageReport]) {
    let head = format!(">{what}");
    let mut t = Table::new(&["frame", "size", &head, ">first", ">last", "life"]);
    for p in pages {
        t.row(&[
            if p.as_id == 0 {
                words::gfn(p.gfn)
            } else {
                format!("{} ({})", words::gfn(p.gfn), words::space_name(p.as_id))
            },
            words::level_size(p.level).to_owned(),
            words::count(p.count),
            words::at(p.first),
            words::at(p.last),
            hostile(&p.headline, 300),
        ]);
    }
    out.push_str(&t.out);
}

fn trust(out: &mut String, r: &Report) {
    out.push_str("\n## How far to trust this\n\n");
    for (_, text) in verdicts(r) {
        let _ = writeln!(out, "- {}", escape(&text));
    }
    for d in r.recording.damage.iter().take(ROWS) {
        let _ = writeln!(out, "- {}", hostile(d, 500));
    }
    for n in r.recording.notes.iter().take(ROWS) {
        let _ = writeln!(out, "- {}", hostile(n, 500));
    }
    for e in &r.evidence {
        let _ = writeln!(
            out,
            "- {}: {}",
            escape(&words::sentence(&e.kind)),
            words::counted(e.count, "time", "times")
        );
    }
}

fn recording(out: &mut String, r: &Report) {
    out.push_str("\n## Recording and layout\n");
    let mut t = Table::new(&["", ""]);
    for f in &r.recording.files {
        t.row(&[
            "file".to_owned(),
            format!("{} ({}, {})", hostile(&f.path, 300), escape(&f.format), words::bytes(f.bytes)),
        ]);
    }
    for f in &r.recording.host {
        t.row(&[hostile(&f.name, 60), hostile(&f.value, 400)]);
    }
    let clock =
        if r.recording.clock.is_empty() { "not named".to_owned() } else { hostile(&r.recording.clock, 60) };
    t.row(&["clock".to_owned(), format!("{clock}, {}", r.recording.clock_unit)]);
    t.row(&[
        "length".to_owned(),
        format!(
            "{}, {}",
            words::duration(r.recording.duration),
            words::counted(r.recording.events, "event", "events")
        ),
    ]);
    for vm in &r.vms {
        t.row(&[
            format!("VM {}", vm.vm),
            format!(
                "{}{}, {}",
                hostile(&vm.name, 60),
                vm.pid.map(|p| format!(", pid {p}")).unwrap_or_default(),
                escape(&vm.mmu)
            ),
        ]);
    }
    out.push_str(&t.out);
    for vm in &r.vms {
        if vm.layout.parts.is_empty() {
            continue;
        }
        let of =
            if r.vms.len() > 1 { format!(" of {}", hostile(&vm.label(true), 60)) } else { String::new() };
        let _ = writeln!(out, "\n### SPTE layout {}{of}", escape(&vm.layout.id));
        let mut t = Table::new(&["what", "value", "provenance", "from"]);
        for p in &vm.layout.parts {
            t.row(&[escape(&p.name), hostile(&p.value, 200), p.provenance.clone(), hostile(&p.why, 300)]);
        }
        out.push_str(&t.out);
    }
}

fn time(t: Option<u64>) -> String {
    t.map_or_else(|| "–".to_owned(), words::duration)
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_in_a_name_is_markup() {
        assert_eq!(escape("<img src=x onerror=y>"), "&lt;img src=x onerror=y&gt;");
        assert_eq!(escape("[a](javascript:b)|*c*`d`"), "\\[a\\](javascript:b)\\|\\*c\\*\\`d\\`");
        assert_eq!(escape("http://x.y www.z.a"), "http&#58;//x.y www&#46;z.a");
        assert_eq!(escape("a\n# b"), "a \\# b");
    }
}
