//! The options of a trace.dat, which are numbered facts about the recording.

use std::sync::Arc;

use crate::blob::Blob;
use crate::dat::sync::TimeShift;
use crate::info::{HostFacts, TaskInfo, TraceInfo};

/// The conversion of cycles to nanoseconds (option TSC2NSEC).
#[derive(Clone, Copy, Debug)]
pub(crate) struct TscToNs {
    mult: u32,
    shift: u32,
    offset: u64,
}

impl TscToNs {
    #[inline]
    pub(crate) fn ns(self, tsc: u64) -> u64 {
        let v = u128::from(tsc) * u128::from(self.mult);
        ((v >> self.shift.min(64)) as u64).wrapping_add(self.offset)
    }
}

/// A buffer; the name of the main one is empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) offset: u64,
    pub(crate) name: String,
    pub(crate) page_size: Option<u32>,
    /// For each CPU its number, and offset and size of its pages in bytes.
    pub(crate) cpus: Vec<(u32, u64, u64)>,
}

/// The content of all options.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) host: HostFacts,
    pub(crate) clock: Option<String>,
    pub(crate) tsc: Option<TscToNs>,
    pub(crate) offset: i64,
    /// For the trace of a guest, the conversion from the guest's clock to its host's.
    pub(crate) shift: Option<Arc<TimeShift>>,
    pub(crate) buffers: Vec<Buffer>,
    /// The offsets of v7 sections by option number (16 to 21).
    pub(crate) sections: Vec<(u16, u64)>,
    /// The offset of a text buffer (v7, latency tracers).
    pub(crate) text: Option<u64>,
    /// The number of lost events for each CPU, from CPUSTAT.
    pub(crate) lost: Vec<(u16, u64)>,
    /// Threads whose process is named by a file beside the pages.
    pub(crate) tasks: Vec<TaskInfo>,
    guests: Vec<(String, Vec<(u32, u32)>)>,
    /// The offset of the next options section (v7).
    pub(crate) next: Option<u64>,
}

impl Options {
    /// Reads one option.
    pub(crate) fn add(&mut self, id: u16, data: &[u8], v7: bool) {
        let mut b = Blob::new(data);
        let text = || String::from_utf8_lossy(data).trim_matches(['\0', '\n', ' ']).to_owned();
        match id {
            0 => self.next = b.u64().filter(|o| *o != 0),
            1 => self.host.facts.push(("date".to_owned(), text())),
            2 => self.cpu_stat(&text()),
            3 => {
                if let Some(buffer) = self.buffer(&mut b, v7) {
                    self.buffers.push(buffer);
                }
            }
            4 => self.clock = selected(&text()).or(self.clock.take()),
            5 => self.uname(&text()),
            7 => self.offset = number(&text()).unwrap_or(0),
            8 => self.host.nr_cpus = b.u32(),
            9 => self.host.tool = Some(format!("trace-cmd {}", text())),
            11 => self.host.facts.extend(b.u64().map(|id| ("trace id".to_owned(), format!("{id:#x}")))),
            12 => self.shift = TimeShift::parse(data).map(Arc::new),
            13 => self.guest(&mut b),
            14 => {
                if let (Some(mult), Some(shift), Some(offset)) = (b.u32(), b.u32(), b.u64()) {
                    self.tsc = Some(TscToNs { mult, shift, offset });
                }
            }
            16..=21 => self.sections.extend(b.u64().map(|at| (id, at))),
            22 => self.text = b.u64(),
            _ => {}
        }
    }

    /// Reads the options of a v7 section. The result is the offset in the section of an option that is cut off.
    pub(crate) fn add_all(&mut self, data: &[u8]) -> Option<usize> {
        let mut b = Blob::new(data);
        while let Some(id) = b.u16() {
            let Some(value) = b.u32().and_then(|n| b.take(n.into())) else { return Some(b.at) };
            self.add(id, value, true);
            if id == 0 {
                break;
            }
        }
        None
    }

    fn buffer(&mut self, b: &mut Blob<'_>, v7: bool) -> Option<Buffer> {
        let offset = b.u64()?;
        let name = b.cstr().unwrap_or_default();
        let mut buffer = Buffer { offset, name, page_size: None, cpus: Vec::new() };
        if !v7 {
            return Some(buffer);
        }
        let clock = b.cstr()?;
        if buffer.name.is_empty() || self.clock.is_none() {
            self.clock = Some(clock);
        }
        buffer.page_size = Some(b.u32()?);
        let n = b.u32()?;
        for _ in 0..n {
            // Only as many are read as there are bytes, so a wrong count does no harm.
            let (Some(cpu), Some(at), Some(size)) = (b.u32(), b.u64(), b.u64()) else { break };
            buffer.cpus.push((cpu, at, size));
        }
        Some(buffer)
    }

    /// Reads `CPU: 0\nentries: 10\noverrun: 0\ncommit overrun: 0\n…dropped events: 0\n`.
    fn cpu_stat(&mut self, text: &str) {
        let mut cpu = None;
        let mut lost = 0u64;
        for line in text.lines() {
            let Some((k, v)) = line.split_once(':') else { continue };
            let v = v.trim();
            match k.trim() {
                "CPU" => cpu = v.parse().ok(),
                "overrun" | "commit overrun" | "dropped events" => {
                    lost = lost.saturating_add(v.parse().unwrap_or(0));
                }
                _ => {}
            }
        }
        if let Some(cpu) = cpu {
            self.lost.push((cpu, lost));
        }
    }

    /// Reads `Linux HOST RELEASE MACHINE`.
    fn uname(&mut self, text: &str) {
        let words: Vec<&str> = text.split_whitespace().collect();
        if let [_, host, release, machine, ..] = words[..] {
            self.host.hostname = Some(host.to_owned()).filter(|h| h != "(none)");
            self.host.os_release = Some(release.to_owned());
            self.host.arch = Some(machine.to_owned());
        }
    }

    fn guest(&mut self, b: &mut Blob<'_>) {
        let (Some(name), Some(_), Some(n)) = (b.cstr(), b.u64(), b.u32()) else { return };
        let mut vcpus = Vec::new();
        for _ in 0..n {
            let (Some(vcpu), Some(tid)) = (b.u32(), b.u32()) else { break };
            vcpus.push((vcpu, tid));
        }
        self.guests.push((name, vcpus));
    }

    /// Adds the vCPU threads of guests to the info.
    pub(crate) fn people(&self, info: &mut TraceInfo) {
        info.tasks.extend(self.tasks.iter().cloned());
        for (name, vcpus) in &self.guests {
            info.host.facts.push(("guest".to_owned(), format!("{name}: {} vCPUs", vcpus.len())));
            for (vcpu, tid) in vcpus {
                info.tasks.push(TaskInfo {
                    tid: *tid,
                    vcpu_id: Some(*vcpu),
                    several_vcpus: false,
                    provenance: format!("vCPU of guest {name:?} by trace-cmd's guest map"),
                    ..TaskInfo::default()
                });
            }
        }
    }
}

/// The selected clock: `local [global] counter` → `global`.
pub(crate) fn selected(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(name, _)| name.to_owned())
}

fn number(text: &str) -> Option<i64> {
    let (neg, t) = text.strip_prefix('-').map_or((false, text), |t| (true, t));
    let v = t.strip_prefix("0x").map_or_else(|| t.parse::<u64>().ok(), |h| u64::from_str_radix(h, 16).ok())?
        as i64;
    Some(if neg { v.wrapping_neg() } else { v })
}
