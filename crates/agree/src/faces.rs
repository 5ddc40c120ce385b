//! The numbers that the program `mmuscope` shows, collected face by face: summary, report, tables, page.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::numbers::{Numbers, busiest};

/// How many rows the lists of the summary have.
const TOP: usize = 5;
/// The most rows for which frames are counted one by one; beyond that it takes too long.
const MANY: usize = 400_000;

/// What the second counter needs of what the program found.
#[derive(Debug, Default)]
pub struct Seen {
    /// The VM of each vCPU thread, by thread id.
    pub vm_of: HashMap<u32, u64>,
    /// How many VMs there are.
    pub vms: usize,
    /// Faults by the number of their first event: whether it is MMIO, and the outcome.
    pub faults: HashMap<u64, (bool, String)>,
}

/// A table that the program printed as CSV.
struct Table {
    columns: HashMap<String, usize>,
    rows: Vec<csv::StringRecord>,
}

impl Table {
    fn get<'a>(&self, row: &'a csv::StringRecord, column: &str) -> &'a str {
        self.columns.get(column).and_then(|i| row.get(*i)).unwrap_or("")
    }

    fn number(&self, row: &csv::StringRecord, column: &str) -> Option<u64> {
        number(self.get(row, column))
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.replace(',', "").parse().ok(),
    }
}

struct Program<'a> {
    mmuscope: &'a Path,
    file: &'a Path,
}

impl Program<'_> {
    fn run(&self, command: &str, args: &[&str]) -> Result<String> {
        let out = Command::new(self.mmuscope)
            .arg(command)
            .arg(self.file)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.mmuscope.display()))?;
        if !out.status.success() {
            bail!(
                "mmuscope {command} {args:?}: {}: {}",
                out.status,
                String::from_utf8_lossy(&out.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    fn json(&self, command: &str) -> Result<Value> {
        let text = self.run(command, &["--format", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("mmuscope {command} --format json"))
    }

    fn table(&self, command: &str, args: &[&str]) -> Result<Table> {
        let text = self.run(command, &[args, &["--format", "csv"]].concat())?;
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let columns = reader.headers()?.iter().enumerate().map(|(i, n)| (n.to_owned(), i)).collect();
        Ok(Table { columns, rows: reader.records().collect::<Result<_, _>>()? })
    }
}

/// Asks every face and adds its numbers to `said`.
///
/// # Errors
/// If one of the commands fails.
pub fn ask(mmuscope: &Path, file: &Path, said: &mut Numbers) -> Result<Seen> {
    let program = Program { mmuscope, file };
    let mut seen = Seen::default();
    let spaces = summary(&program, &mut seen, said)?;
    let report = program.json("report")?;
    report_json(&report, said);
    report_text(&program, said)?;
    memory(&program.table("memory", &[])?, said);
    state(&program.table("state", &["--at", "end"])?, "state", &spaces, said);
    spans(&program.table("spans", &[])?, said);
    faults(&program.table("faults", &[])?, &mut seen, said);
    events(&program.table("events", &[])?, said);
    stat(&program.table("stat", &[])?, said);
    for ((vm, as_id), peak_at) in &spaces {
        if let Some(at) = peak_at {
            let table = program.table("state", &["--at", &format!("{at}ns")])?;
            let bytes = frames(&table).get(&(*vm, *as_id)).map_or(0, |f| f.present * 4096);
            said.say(of(*vm, *as_id, "most bytes present"), format!("state --at {at}ns"), bytes);
        }
    }
    pages(&program, &report, said)?;
    Ok(seen)
}

/// The key for a number of one address space.
pub(crate) fn of(vm: u64, as_id: u64, what: &str) -> String {
    format!("VM {vm} as_id {as_id}: {what}")
}

fn each<'a>(v: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    v[list].as_array().into_iter().flatten()
}

type Spaces = BTreeMap<(u64, u64), Option<u64>>;

fn summary(program: &Program<'_>, seen: &mut Seen, said: &mut Numbers) -> Result<Spaces> {
    const S: &str = "summary json";
    let v = program.json("summary")?;
    let mut spaces = Spaces::new();
    said.say("events", S, &v["events"]);
    for (name, n) in v["by_event"].as_object().into_iter().flatten() {
        said.say(format!("events {name}"), S, n);
    }
    said.say("faults", S, &v["faults"]);
    said.say("zaps", S, &v["zaps"]);
    said.say("MMIO faults", S, &v["mmio"]["faults"]);
    if !v["mmio"]["accesses"].is_null() {
        said.say("MMIO accesses", S, &v["mmio"]["accesses"]);
    }
    for (state, n) in v["at_end"].as_object().into_iter().flatten() {
        said.say(format!("entries {state} at the end"), S, n);
    }
    seen.vms = each(&v, "vms").count();
    for vm in each(&v, "vms") {
        let id = vm["vm"].as_u64().unwrap_or(0);
        for vcpu in each(vm, "vcpus") {
            if let Some(tid) = vcpu["tid"].as_u64() {
                seen.vm_of.insert(tid as u32, id);
            }
        }
        for s in each(vm, "spaces") {
            let as_id = s["as_id"].as_u64().unwrap_or(0);
            for (state, n) in s["entries"].as_object().into_iter().flatten() {
                said.say(of(id, as_id, &format!("entries {state} at the end")), S, n);
            }
            said.say(of(id, as_id, "bytes present at the end"), S, &s["present_bytes"]);
            said.say(of(id, as_id, "bytes stale at the end"), S, &s["stale_bytes"]);
            said.say(of(id, as_id, "bytes of MMIO at the end"), S, &s["mmio_bytes"]);
            let peak_at = s["peak_at"].as_u64();
            if let Some(at) = peak_at {
                said.say(of(id, as_id, "most bytes present"), S, &s["peak_bytes"]);
                said.say(of(id, as_id, "when most was present"), S, at);
            }
            spaces.insert((id, as_id), peak_at);
        }
    }
    summary_text(&program.run("summary", &[])?, said);
    Ok(spaces)
}

fn summary_text(text: &str, said: &mut Numbers) {
    const S: &str = "summary text";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("events ") {
            let n = rest.split_whitespace().next().and_then(number);
            said.say("events", S, n.unwrap_or(0));
        } else if let Some(rest) = line.strip_prefix("lost ") {
            said.say("losses", S, losses(rest.trim()));
        }
        for what in ["faults", "zaps", "MMIO"] {
            let Some(list) = line.strip_prefix(&format!("most {what} at frame: ")) else { continue };
            let said_of = |one: &str| -> Option<((u64, u64, u64), u64)> {
                let (frame, n) = one.trim_end_matches(')').split_once(" (")?;
                let (vm, frame) = match frame.strip_prefix("VM ") {
                    Some(f) => f.split_once(' ').map(|(v, g)| (number(v), g))?,
                    None => (Some(0), frame),
                };
                let (as_id, gfn) = match frame.rsplit_once(' ') {
                    Some(("SMM", gfn)) => (1, gfn),
                    Some((space, gfn)) => (number(space.strip_prefix("as_id ")?)?, gfn),
                    None => (0, frame),
                };
                Some(((vm?, as_id, number(gfn)?), number(n)?))
            };
            let counts: BTreeMap<_, _> = list.split("), ").filter_map(said_of).collect();
            said.say(format!("frames with the most {what}"), S, busiest(&counts, TOP));
        }
    }
}

/// One wording for the same loss, since each face phrases it differently.
fn losses(text: &str) -> String {
    let first = text.split_whitespace().next().unwrap_or("");
    if let Some(n) = number(first).filter(|n| *n > 0) {
        return format!("{n} events");
    }
    if text.contains("nothing") || text.contains("no event lost") {
        "nothing".to_owned()
    } else if text.contains("moment") {
        "at moments, not counted".to_owned()
    } else {
        "not known".to_owned()
    }
}

fn report_json(v: &Value, said: &mut Numbers) {
    const S: &str = "report json";
    said.say("events", S, &v["recording"]["events"]);
    for e in each(v, "events") {
        said.say(format!("events {}", e["event"].as_str().unwrap_or("")), S, &e["count"]);
    }
    // A report shows only the busiest VMs. Its sums over all VMs can be compared only where it shows all of them.
    let whole = !each(&v["recording"], "notes")
        .any(|n| n.as_str().is_some_and(|n| n.contains("left out of this report")));
    let (mut faults, mut zaps, mut accesses) = (0, 0, Some(0));
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for vm in each(v, "vms") {
        let id = vm["vm"].as_u64().unwrap_or(0);
        let total = vm["faults"]["total"].as_u64().unwrap_or(0);
        faults += total;
        said.say(format!("faults of VM {id}"), S, total);
        let by_vcpu: u64 = each(vm, "vcpus").filter_map(|v| v["faults"].as_u64()).sum();
        said.say(format!("faults of VM {id}"), "report json, by vCPU", by_vcpu);
        for o in each(&vm["faults"], "outcomes") {
            *outcomes.entry(o["name"].as_str().unwrap_or("").to_owned()).or_default() +=
                o["count"].as_u64().unwrap_or(0);
        }
        for m in each(vm, "mmio") {
            accesses = accesses.zip(m["accesses"].as_u64()).map(|(a, b)| a + b);
        }
        for s in each(vm, "spaces") {
            let as_id = s["as_id"].as_u64().unwrap_or(0);
            let o = &s["over_time"];
            zaps += each(o, "zaps").filter_map(Value::as_u64).sum::<u64>();
            said.say(of(id, as_id, "bytes present at the end"), S, &o["end_bytes"]);
            said.say(of(id, as_id, "bytes stale at the end"), S, &o["end_stale_bytes"]);
            if o["peak_bytes"].as_u64().is_some_and(|b| b > 0) {
                said.say(of(id, as_id, "most bytes present"), S, &o["peak_bytes"]);
                said.say(of(id, as_id, "when most was present"), S, &o["peak_at"]);
            }
            if s["memory_at"].is_null() {
                let ram =
                    each(s, "memory").filter(|m| m["kind"] == "ram").filter_map(|m| m["bytes"].as_u64());
                said.say(of(id, as_id, "bytes present at the end"), "report json, ranges", ram.sum::<u64>());
            }
            let last = |id: &str| -> u64 {
                let of = each(o, "entries").filter(|e| e["state"] == id);
                of.filter_map(|e| e["counts"].as_array()?.last()?.as_u64()).sum()
            };
            said.say(of(id, as_id, "entries mmio at the end"), S, last("mmio"));
        }
    }
    if whole {
        said.say("faults", S, faults);
        said.say("zaps", S, zaps);
        if let Some(n) = accesses {
            said.say("MMIO accesses", S, n);
        }
        for (name, n) in outcomes {
            said.say(format!("faults {name}"), S, n);
        }
    }
}

fn report_text(program: &Program<'_>, said: &mut Numbers) -> Result<()> {
    let md = program.run("report", &["--format", "md"])?;
    let html = program.run("report", &["--format", "html"])?;
    for line in md.lines() {
        if line.starts_with('*') && line.contains("SPTE layout") {
            said.say("losses", "report md", losses(line.trim_matches('*').split(" · ").next().unwrap_or("")));
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, value, ..] = cells[..] else { continue };
        let Some(value) = value.strip_prefix("**").and_then(|v| v.strip_suffix("**")) else { continue };
        said.say(format!("tile {name}"), "report md", value);
        let there = if html.contains(value) { value } else { "not shown" };
        said.say(format!("tile {name}"), "report html", there);
        let what = match name {
            "page faults" => "faults",
            "leaves zapped" => "zaps",
            "MMIO accesses" => "MMIO accesses",
            _ => continue,
        };
        if !md.contains("left out of this report") {
            said.say(what, "report md", number(value).unwrap_or(0));
        }
    }
    Ok(())
}

fn memory(t: &Table, said: &mut Numbers) {
    let mut sums: BTreeMap<(u64, u64), [u64; 2]> = BTreeMap::new();
    for row in &t.rows {
        let n = |c| t.number(row, c).unwrap_or(0);
        let sum = sums.entry((n("vm"), n("as_id"))).or_default();
        match t.get(row, "kind") {
            "ram" => sum[0] += n("bytes"),
            "mmio" => sum[1] += n("bytes"),
            _ => {}
        }
    }
    for ((vm, as_id), [ram, mmio]) in sums {
        said.say(of(vm, as_id, "bytes present at the end"), "memory", ram);
        said.say(of(vm, as_id, "bytes of MMIO at the end"), "memory", mmio);
    }
}

/// The frames of an address space, each counted once.
#[derive(Default)]
struct Frames {
    present: u64,
    stale: u64,
    mmio: u64,
}

/// Counts every frame once: a known entry of it takes precedence over a stale one, then a present one over MMIO.
fn frames(t: &Table) -> BTreeMap<(u64, u64), Frames> {
    let mut best: BTreeMap<(u64, u64), HashMap<u64, u8>> = BTreeMap::new();
    for row in &t.rows {
        let n = |c| t.number(row, c).unwrap_or(0);
        let mmio = match t.get(row, "state") {
            "present" => 0,
            "mmio" => 1,
            _ => continue,
        };
        let class = mmio + if t.get(row, "certainty") == "stale" { 2 } else { 0 };
        let space = best.entry((n("vm"), n("as_id"))).or_default();
        for gfn in n("gfn")..n("gfn").saturating_add(n("size") / 4096) {
            space.entry(gfn).and_modify(|b| *b = class.min(*b)).or_insert(class);
        }
    }
    let count = |frames: HashMap<u64, u8>| {
        let mut f = Frames::default();
        for class in frames.into_values() {
            match class {
                0 => f.present += 1,
                2 => (f.present, f.stale) = (f.present + 1, f.stale + 1),
                _ => f.mmio += 1,
            }
        }
        f
    };
    best.into_iter().map(|(space, frames)| (space, count(frames))).collect()
}

fn state(t: &Table, source: &str, spaces: &Spaces, said: &mut Numbers) {
    let mut entries: BTreeMap<(u64, u64, String), u64> = BTreeMap::new();
    for row in &t.rows {
        let n = |c| t.number(row, c).unwrap_or(0);
        *entries.entry((n("vm"), n("as_id"), t.get(row, "state").to_owned())).or_default() += 1;
    }
    let frames = frames(t);
    for state in ["present", "mmio", "removed", "table"] {
        let mut sum = 0;
        for (vm, as_id) in spaces.keys() {
            let n = entries.get(&(*vm, *as_id, state.to_owned())).copied().unwrap_or(0);
            sum += n;
            said.say(of(*vm, *as_id, &format!("entries {state} at the end")), source, n);
        }
        said.say(format!("entries {state} at the end"), source, sum);
    }
    let none = Frames::default();
    for space in spaces.keys() {
        let f = frames.get(space).unwrap_or(&none);
        said.say(of(space.0, space.1, "bytes present at the end"), source, f.present * 4096);
        said.say(of(space.0, space.1, "bytes stale at the end"), source, f.stale * 4096);
        said.say(of(space.0, space.1, "bytes of MMIO at the end"), source, f.mmio * 4096);
    }
}

/// Counts zaps and peaks from the spans.
fn spans(t: &Table, said: &mut Numbers) {
    let mut opened: HashMap<(String, u64), Vec<&csv::StringRecord>> = HashMap::new();
    let key = |row| ["vm", "as_id", "level", "gfn"].map(|c| t.get(row, c)).join(" ");
    for row in &t.rows {
        if let Some(ev) = t.number(row, "opened_event") {
            opened.entry((key(row), ev)).or_default().push(row);
        }
    }
    let mut zaps = 0u64;
    let mut changes: BTreeMap<(u64, u64), Vec<FramesChange>> = BTreeMap::new();
    for row in &t.rows {
        let mmio = match t.get(row, "state") {
            "present" => 0,
            "mmio" => 1,
            _ => continue,
        };
        let n = |c| t.number(row, c).unwrap_or(0);
        let class = mmio + if t.get(row, "certainty") == "stale" { 2 } else { 0 };
        let pages = 512u64.pow((n("level").clamp(1, 4) - 1) as u32);
        let list = changes.entry((n("vm"), n("as_id"))).or_default();
        list.push((n("start"), n("gfn"), pages, class, 1));
        let Some(closed) = t.number(row, "closed_event") else { continue };
        list.push((n("end"), n("gfn"), pages, class, -1));
        let next = opened.get(&(key(row), closed));
        let stays = next.is_some_and(|next| next.iter().any(|n| stays(t, row, n)));
        zaps += u64::from(!stays);
    }
    said.say("zaps", "spans", zaps);
    if t.rows.len() > MANY {
        return;
    }
    for ((vm, as_id), mut list) in changes {
        list.sort_unstable_by_key(|c| c.0);
        let (bytes, at) = peak(&list);
        if bytes > 0 {
            said.say(of(vm, as_id, "most bytes present"), "spans", bytes);
            said.say(of(vm, as_id, "when most was present"), "spans", at);
        }
    }
}

/// Whether an entry still maps the same page when one of its spans ends and the next begins. Under an MMU that traces installs only, an
/// install of another host page implies that the entry had been zapped.
fn stays(t: &Table, row: &csv::StringRecord, next: &csv::StringRecord) -> bool {
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    let page = |r| t.number(r, "spte").map(|v| v & ADDRESS);
    match t.get(next, "state") {
        "removed" => false,
        // The change had been attributed to the wrong table, and this span takes it back.
        "nonpresent" => t.get(next, "reason").contains("old value does not fit"),
        "present" | "mmio" if matches!(t.get(next, "opened_by"), "kvm_mmu_set_spte" | "mark_mmio_spte") => {
            t.get(row, "state") == t.get(next, "state")
                && page(row).zip(page(next)).is_none_or(|(a, b)| a == b)
        }
        _ => true,
    }
}

/// A change of the frames of an address space: time, first frame, how many, class, by how much.
type FramesChange = (u64, u64, u64, usize, i32);

fn peak(changes: &[FramesChange]) -> (u64, u64) {
    let mut frames: HashMap<u64, [i32; 4]> = HashMap::new();
    let present = |f: &[i32; 4]| f[0] > 0 || f[1] == 0 && f[2] > 0;
    let (mut now, mut most, mut at) = (0u64, 0u64, 0u64);
    for (i, (time, gfn, pages, class, by)) in changes.iter().enumerate() {
        for g in *gfn..gfn + pages {
            let f = frames.entry(g).or_default();
            let was = present(f);
            f[*class] += by;
            now = now + u64::from(present(f)) - u64::from(was);
        }
        if changes.get(i + 1).is_none_or(|c| c.0 != *time) && now > most {
            (most, at) = (now, *time);
        }
    }
    (most * 4096, at)
}

fn faults(t: &Table, seen: &mut Seen, said: &mut Numbers) {
    const S: &str = "faults";
    said.say("faults", S, t.rows.len());
    let mut frames: BTreeMap<(u64, u64, u64), u64> = BTreeMap::new();
    let mut by: BTreeMap<String, u64> = BTreeMap::new();
    let mut mmio = 0;
    for row in &t.rows {
        let vm = t.number(row, "vm").unwrap_or(0);
        if let Some(gfn) = t.number(row, "gfn") {
            let as_id = t.number(row, "as_id").unwrap_or(0);
            *frames.entry((vm, as_id, gfn)).or_default() += 1;
        }
        let outcome = t.get(row, "outcome");
        *by.entry(format!("faults {outcome}")).or_default() += 1;
        *by.entry(format!("faults of VM {vm}")).or_default() += 1;
        let is_mmio = t.get(row, "mmio") == "true";
        mmio += u64::from(is_mmio);
        if let Some(ev) = t.number(row, "event") {
            seen.faults.insert(ev, (is_mmio, outcome.to_owned()));
        }
    }
    for (what, n) in by {
        said.say(what, S, n);
    }
    said.say("MMIO faults", S, mmio);
    if !frames.is_empty() {
        said.say("frames with the most faults", S, busiest(&frames, TOP));
    }
}

fn events(t: &Table, said: &mut Numbers) {
    let notes = HashSet::from(["lost", "damage", "fork", "comm", "exit", "snapshot"]);
    let mut by: BTreeMap<&str, u64> = BTreeMap::new();
    for row in &t.rows {
        *by.entry(t.get(row, "event")).or_default() += 1;
    }
    by.retain(|name, _| !notes.contains(name));
    said.say("events", "events", by.values().sum::<u64>());
    for (name, n) in by {
        said.say(format!("events {name}"), "events", n);
    }
}

/// What `stat` counts: sums over all VMs.
fn stat(t: &Table, said: &mut Numbers) {
    const S: &str = "stat";
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    // Nothing is counted of what the trace has none of, so that there is no row for it.
    let (mut faults, mut zaps, mut mmio) = (0, 0, 0);
    let mut accesses = None;
    for row in &t.rows {
        let n = |c| t.number(row, c).unwrap_or(0);
        let mut add = |what: String, by: u64| *sums.entry(what).or_default() += by;
        match t.get(row, "kind") {
            "exit" => {
                let why = format!("{} {}", t.get(row, "isa"), t.get(row, "reason"));
                add(format!("exits {why}"), n("count"));
                if n("measured") > 0 {
                    add(format!("exits {why}: that end"), n("measured"));
                    add(format!("exits {why}: nanoseconds"), n("total"));
                }
            }
            "vmm" => add("returns to the VMM".to_owned(), n("count")),
            "fault" => {
                add(format!("faults {}", t.get(row, "name")), n("count"));
                faults += n("count");
            }
            "zap" => zaps += n("count"),
            "mmio" => {
                mmio += n("count");
                accesses = t.number(row, "accesses").map(|a| a + accesses.unwrap_or(0)).or(accesses);
            }
            "time" if t.get(row, "name") == "guest" => {
                add("nanoseconds in the guest".to_owned(), n("total"));
            }
            _ => {}
        }
    }
    for (what, n) in sums {
        said.say(what, S, n);
    }
    said.say("faults", S, faults);
    said.say("zaps", S, zaps);
    said.say("MMIO faults", S, mmio);
    if let Some(n) = accesses {
        said.say("MMIO accesses", S, n);
    }
}

/// Compares the stories of the busiest pages with the counts in the lists that name them.
fn pages(program: &Program<'_>, report: &Value, said: &mut Numbers) -> Result<()> {
    for vm in each(report, "vms").take(2) {
        let id = vm["vm"].as_u64().unwrap_or(0).to_string();
        for (list, what) in [("top_faults", "faults"), ("top_zaps", "zaps")] {
            for p in each(vm, list).take(3) {
                let (gfn, as_id) = (p["gfn"].as_str().unwrap_or(""), p["as_id"].to_string());
                said.say(
                    format!("{what} of VM {id} as_id {as_id} frame {gfn}"),
                    format!("report json, {list}"),
                    &p["count"],
                );
                let text = program.run("page", &[gfn, "--vm", &id, "--as-id", &as_id])?;
                let headline = text.lines().next().unwrap_or("");
                let n = if what == "faults" {
                    times(headline, " fault")
                } else {
                    // The headline counts a remapping after an untraced zap apart from the traced zaps.
                    let untraced = headline.contains("after a zap that");
                    times(headline, "zapped ") + if untraced { times(headline, "remapped ") } else { 0 }
                };
                said.say(format!("{what} of VM {id} as_id {as_id} frame {gfn}"), "page", n);
            }
        }
    }
    Ok(())
}

/// How often a headline says that something happened: `12 faults`, `zapped once`, `zapped 5 times`.
fn times(headline: &str, what: &str) -> u64 {
    let Some(at) = headline.find(what) else { return 0 };
    if what.starts_with(' ') {
        return headline[..at].rsplit([' ', ':']).next().and_then(number).unwrap_or(0);
    }
    let word = headline[at + what.len()..].split([' ', ',', ';']).next().unwrap_or("");
    match word {
        "once" => 1,
        "twice" => 2,
        n => number(n).unwrap_or(0),
    }
}
