//! The features of a perf.data (facts about host and recording), and the facts in mmuscope's own captures.
//!
//! A string is a u32 length, the text, and padding. mmuscope's own facts are lines `key value` in records of the otherwise unused type 65
//! that begin with `MMUSCOPE`.

use crate::blob::Blob;
use crate::info::{TaskInfo, Vendor};
use crate::perf::State;
use crate::perf::attr::Attr;
use crate::perf::probes::Probe;
use crate::reader::Cx;

fn string(b: &mut Blob<'_>) -> Option<String> {
    let n = b.u32()?;
    let d = b.take(n.into())?;
    let end = d.iter().position(|c| *c == 0).unwrap_or(d.len());
    Some(String::from_utf8_lossy(&d[..end]).into_owned())
}

/// Reads a feature by its bit number.
pub(crate) fn feature(id: u64, data: &[u8], state: &mut State, cx: &mut Cx) {
    let mut b = Blob::new(data);
    match id {
        1 => state.tracing_data(data, 0, cx),
        3 => state.host.hostname = string(&mut b),
        4 => state.host.os_release = string(&mut b),
        5 => {
            state.host.tool =
                string(&mut b).map(|v| if v.starts_with("mmuscope") { v } else { format!("perf {v}") });
        }
        6 => state.host.arch = string(&mut b),
        7 => {
            b.u32();
            state.host.nr_cpus = b.u32();
        }
        8 => state.host.cpu_desc = string(&mut b),
        9 => {
            if let Some(s) = string(&mut b) {
                state.host.set_cpuid(&s);
            }
        }
        10 => state.host.facts.extend(b.u64().map(|kb| ("memory".to_owned(), format!("{kb} kB")))),
        11 => state.host.cmdline = cmdline(&mut b),
        12 => {
            let _ = event_desc(&mut b, state);
        }
        29 => {
            let _ = b.u32();
            if let (Some(clock), Some(wall), Some(ns)) = (b.u32(), b.u64(), b.u64()) {
                state.clock_data = Some(clock as i32);
                state.host.facts.push((
                    "clock reference".to_owned(),
                    format!("clockid {clock} at {ns} ns = {wall} ns of real time"),
                ));
            }
        }
        _ => {}
    }
}

fn cmdline(b: &mut Blob<'_>) -> Option<String> {
    let n = b.u32()?;
    let mut words = Vec::new();
    for _ in 0..n {
        words.push(string(b)?);
    }
    Some(words.join(" "))
}

/// Reads u32 n, u32 attr size, n × {attr, u32 ids, name, ids}.
fn event_desc(b: &mut Blob<'_>, state: &mut State) -> Option<()> {
    let n = b.u32()?;
    let size = b.u32()?;
    for _ in 0..n {
        let attr = Attr::parse(b.take(size.into())?);
        let ids = b.u32()?;
        let name = string(b)?;
        let bytes = b.take(u64::from(ids) * 8)?;
        let ids: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|c| u64::from_le_bytes(*c)).collect();
        let known = ids.first().is_some_and(|id| state.by_id.contains_key(id));
        if known {
            state.name_attr(ids.first().copied(), &name);
        } else if let Some(i) = attr
            .as_ref()
            .and_then(|a| state.attrs.iter().position(|x| (x.kind, x.config) == (a.kind, a.config)))
        {
            // This is file mode without ids in the section of attrs.
            state.attrs[i].name = Some(name);
            for id in ids {
                state.by_id.insert(id, i as u32);
            }
        }
    }
    Some(())
}

fn number(s: &str) -> Option<u64> {
    s.strip_prefix("0x").map_or_else(|| s.parse().ok(), |h| u64::from_str_radix(h, 16).ok())
}

/// Decodes `\n` and `\\` in a value.
fn unescape(s: &str) -> String {
    if !s.contains('\\') {
        return s.to_owned();
    }
    let mut out = String::with_capacity(s.len());
    let mut chars = s.chars();
    while let Some(c) = chars.next() {
        match (c, chars.as_str().chars().next()) {
            ('\\', Some('n')) => {
                out.push('\n');
                chars.next();
            }
            ('\\', Some('\\')) => {
                out.push('\\');
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

/// The most facts that are stored as text; most of them are `maps` lines of many processes.
const MAX_FACTS: usize = 100_000;
const MAX_PROBES: usize = 64;

/// What mmuscope's recorder writes about itself now and then: see [`RecorderNow`](crate::RecorderNow).
const RECORDER_NOW: &str = "recorder.now";

/// Reads one piece of mmuscope's own facts.
pub(crate) fn facts(text: &str, state: &mut State, cx: &mut Cx) {
    for line in text.trim_end_matches('\0').lines() {
        let Some((key, value)) = line.split_once(' ') else { continue };
        let value = unescape(value);
        if key == "record.probe" && state.probes.len() < MAX_PROBES {
            state.probes.extend(Probe::parse(&value));
        }
        let host = &mut state.host;
        match key {
            "kernel.release" => host.os_release = Some(value),
            "kernel.machine" => host.arch = Some(value),
            "cpu.vendor" => host.vendor = Vendor::parse(&value),
            "cpu.family" => host.cpu_family = value.parse().ok(),
            "cpu.model" => host.cpu_model = value.parse().ok(),
            "cpu.stepping" => host.cpu_stepping = value.parse().ok(),
            "cpu.name" => host.cpu_desc = Some(value),
            "vcpu" => vcpu(&value, state, cx),
            "kthread" => kthread(&value, state, cx),
            _ => {
                if let Some(name) = key.strip_prefix("param.") {
                    host.params.insert(name.to_owned(), value);
                } else if let Some(name) = key.strip_prefix("mask.")
                    && let Some(v) = number(&value)
                {
                    host.masks.insert(name.to_owned(), v);
                } else if key == RECORDER_NOW {
                    // Only the newest counts.
                    host.facts.retain(|f| f.0 != key);
                    host.facts.push((key.to_owned(), value));
                } else if host.facts.len() < MAX_FACTS {
                    let fact = (key.to_owned(), value);
                    if host.facts.iter().rev().take(256).all(|f| *f != fact) {
                        host.facts.push(fact);
                    }
                }
            }
        }
    }
}

/// Reads `PID TID VCPU_ID comm`.
fn vcpu(value: &str, state: &mut State, cx: &mut Cx) {
    let mut w = value.splitn(4, ' ');
    let mut n = || w.next().and_then(|s| s.parse::<u32>().ok());
    let (Some(pid), Some(tid), Some(vcpu)) = (n(), n(), n()) else { return };
    let comm = cx.strings.intern(w.next().unwrap_or(""));
    let provenance = "process and vCPU by the recorder's look at /proc".to_owned();
    state.people.retain(|t| t.tid != tid);
    state.people.push(TaskInfo {
        tid,
        pid: Some(pid),
        comm,
        vcpu_id: Some(vcpu),
        several_vcpus: false,
        provenance,
    });
}

/// Reads `PID TID comm`: a kernel thread that works for the VM of process PID.
fn kthread(value: &str, state: &mut State, cx: &mut Cx) {
    let mut w = value.splitn(3, ' ');
    let mut n = || w.next().and_then(|s| s.parse::<u32>().ok());
    let (Some(pid), Some(tid)) = (n(), n()) else { return };
    let comm = cx.strings.intern(w.next().unwrap_or(""));
    let provenance = "kernel thread of this process's VM by the recorder's look at /proc".to_owned();
    state.people.retain(|t| t.tid != tid);
    state.people.push(TaskInfo {
        tid,
        pid: Some(pid),
        comm,
        vcpu_id: None,
        several_vcpus: false,
        provenance,
    });
}
