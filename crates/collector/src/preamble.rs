//! The records of a capture that the recorder makes itself: everything before the first event, the facts about the host, and the losses. The
//! main type is [`Preamble`].

use crate::ring::kind;

const HEADER_ATTR: u32 = 64;
const HEADER_EVENT_TYPE: u32 = 65;
const HEADER_TRACING_DATA: u32 = 66;
pub(crate) const FINISHED_ROUND: u32 = 68;
const EVENT_UPDATE: u32 = 78;
const HEADER_FEATURE: u32 = 80;
pub(crate) const COMPRESSED: u32 = 81;
const FINISHED_INIT: u32 = 82;

/// The number of bytes that are compressed together. More would hardly compress better, and more would be lost with the recorder.
pub(crate) const PIECE: usize = 256 << 10;
/// The number of bytes that a reader must be ready to decompress from one record: a piece, and the part of a record that the piece before it
/// ended with.
pub(crate) const DECOMPRESSED: u32 = (PIECE + (64 << 10)) as u32;

mod feature {
    pub(super) const HOSTNAME: u64 = 3;
    pub(super) const OSRELEASE: u64 = 4;
    pub(super) const VERSION: u64 = 5;
    pub(super) const ARCH: u64 = 6;
    pub(super) const NRCPUS: u64 = 7;
    pub(super) const CPUDESC: u64 = 8;
    pub(super) const CPUID: u64 = 9;
    pub(super) const TOTAL_MEM: u64 = 10;
    pub(super) const CMDLINE: u64 = 11;
    pub(super) const EVENT_DESC: u64 = 12;
    pub(super) const CLOCKID: u64 = 23;
    pub(super) const COMPRESSED: u64 = 27;
    pub(super) const CLOCK_DATA: u64 = 29;
}

/// One event of the recording.
#[derive(Clone, Debug)]
pub(crate) struct EventDesc {
    pub attr: Vec<u8>,
    /// Its full name: `kvmmmu:kvm_mmu_set_spte`.
    pub name: String,
    /// Its ids, one for each CPU.
    pub ids: Vec<u64>,
}

/// Everything that stands before the first event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preamble {
    pub events: Vec<EventDesc>,
    pub hostname: String,
    pub release: String,
    pub arch: String,
    pub cpu_desc: String,
    /// The CPU in perf's form: `AuthenticAMD,26,2,1`.
    pub cpuid: String,
    pub cpus_configured: u32,
    pub cpus_online: u32,
    pub total_mem_kb: u64,
    pub cmdline: Vec<String>,
    /// CLOCK_REALTIME and CLOCK_MONOTONIC at one moment, in nanoseconds.
    pub wall: (u64, u64),
    pub header_page: String,
    pub header_event: String,
    /// The formats of the events, as `(system, format text)`.
    pub formats: Vec<(String, String)>,
    pub facts: Vec<(String, String)>,
    /// The tasks that run, as `(pid, tid, comm)`.
    pub tasks: Vec<(u32, u32, String)>,
    pub compressed: bool,
    pub level: i32,
}

/// Appends a record. The result is `false`, and nothing is appended, if the body is too long for one record.
pub(crate) fn record(out: &mut Vec<u8>, kind: u32, misc: u16, body: &[u8]) -> bool {
    let pad = body.len().next_multiple_of(8) - body.len();
    let Ok(size) = u16::try_from(8 + body.len() + pad) else { return false };
    out.extend(kind.to_le_bytes());
    out.extend(misc.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(body);
    out.extend(std::iter::repeat_n(0, pad));
    true
}

fn string(out: &mut Vec<u8>, s: &str) {
    let bytes = s.as_bytes();
    let len = (bytes.len() + 1).next_multiple_of(64);
    out.extend((len as u32).to_le_bytes());
    out.extend(bytes);
    out.extend(std::iter::repeat_n(0, len - bytes.len()));
}

fn feat(out: &mut Vec<u8>, id: u64, body: &[u8]) {
    let mut b = id.to_le_bytes().to_vec();
    b.extend(body);
    // A feature that does not fit into one record is left out; none of them is needed to read the events.
    record(out, HEADER_FEATURE, 0, &b);
}

fn feat_string(out: &mut Vec<u8>, id: u64, s: &str) {
    let mut b = Vec::new();
    string(&mut b, s);
    feat(out, id, &b);
}

/// Appends facts as records that perf skips.
pub(crate) fn facts(out: &mut Vec<u8>, facts: &[(String, String)]) {
    const ROOM: usize = 60_000;
    let mut body = b"MMUSCOPE".to_vec();
    for (key, value) in facts {
        let mut line = format!("{key} {}\n", value.trim().replace('\\', "\\\\").replace('\n', "\\n"));
        if line.len() > ROOM {
            let mut end = ROOM - 1;
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            line.truncate(end);
            line.push('\n');
        }
        if body.len() + line.len() > ROOM + 8 {
            record(out, HEADER_EVENT_TYPE, 0, &body);
            body.truncate(8);
        }
        body.extend(line.as_bytes());
    }
    if body.len() > 8 {
        record(out, HEADER_EVENT_TYPE, 0, &body);
    }
}

/// Appends a record with a part of a snapshot, which perf skips as it does facts.
pub(crate) fn snapshot(out: &mut Vec<u8>, body: &[u8]) {
    record(out, HEADER_EVENT_TYPE, 0, body);
}

/// Appends the fields that end every record except samples (`sample_id_all` with our sample_type).
fn trailer(body: &mut Vec<u8>, pid: u32, tid: u32, time: u64, cpu: u32, id: u64) {
    body.extend(pid.to_le_bytes());
    body.extend(tid.to_le_bytes());
    body.extend(time.to_le_bytes());
    body.extend(cpu.to_le_bytes());
    body.extend(0u32.to_le_bytes());
    body.extend(id.to_le_bytes());
}

/// Appends a LOST record of the recorder's own, for losses that the ring had no room to report.
pub(crate) fn lost(out: &mut Vec<u8>, id: u64, count: u64, time: u64, cpu: u32) {
    let mut b = id.to_le_bytes().to_vec();
    b.extend(count.to_le_bytes());
    trailer(&mut b, u32::MAX, u32::MAX, time, cpu, id);
    record(out, kind::LOST, 0, &b);
}

/// Appends the exact loss of one event on one CPU.
pub(crate) fn lost_samples(out: &mut Vec<u8>, id: u64, count: u64, time: u64, cpu: u32) {
    let mut b = count.to_le_bytes().to_vec();
    trailer(&mut b, u32::MAX, u32::MAX, time, cpu, id);
    record(out, kind::LOST_SAMPLES, 0, &b);
}

impl Preamble {
    /// The bytes with which a capture starts.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"PERFILE2".to_vec();
        out.extend(16u64.to_le_bytes());
        for e in &self.events {
            let mut b = e.attr.clone();
            b.extend(e.ids.iter().flat_map(|i| i.to_le_bytes()));
            record(&mut out, HEADER_ATTR, 0, &b);
        }
        self.features(&mut out);
        self.tracing_data(&mut out);
        for e in &self.events {
            let mut b = 2u64.to_le_bytes().to_vec(); // PERF_EVENT_UPDATE__NAME
            b.extend(e.ids.first().copied().unwrap_or_default().to_le_bytes());
            b.extend(e.name.as_bytes());
            b.push(0);
            record(&mut out, EVENT_UPDATE, 0, &b);
        }
        facts(&mut out, &self.facts);
        let id = self.events.first().and_then(|e| e.ids.first()).copied().unwrap_or_default();
        for (pid, tid, comm) in &self.tasks {
            let mut b = pid.to_le_bytes().to_vec();
            b.extend(tid.to_le_bytes());
            let name = comm.as_bytes();
            let len = (name.len() + 1).next_multiple_of(8);
            b.extend(name);
            b.extend(std::iter::repeat_n(0, len - name.len()));
            trailer(&mut b, *pid, *tid, 0, 0, id);
            record(&mut out, kind::COMM, 0, &b);
        }
        record(&mut out, FINISHED_INIT, 0, &[]);
        out
    }

    fn features(&self, out: &mut Vec<u8>) {
        if !self.hostname.is_empty() {
            feat_string(out, feature::HOSTNAME, &self.hostname);
        }
        feat_string(out, feature::OSRELEASE, &self.release);
        feat_string(out, feature::VERSION, concat!("mmuscope ", env!("CARGO_PKG_VERSION")));
        feat_string(out, feature::ARCH, &self.arch);
        let mut b = self.cpus_configured.to_le_bytes().to_vec();
        b.extend(self.cpus_online.to_le_bytes());
        feat(out, feature::NRCPUS, &b);
        feat_string(out, feature::CPUDESC, &self.cpu_desc);
        feat_string(out, feature::CPUID, &self.cpuid);
        feat(out, feature::TOTAL_MEM, &self.total_mem_kb.to_le_bytes());
        if !self.cmdline.is_empty() {
            let mut b = (self.cmdline.len() as u32).to_le_bytes().to_vec();
            for a in &self.cmdline {
                string(&mut b, a);
            }
            feat(out, feature::CMDLINE, &b);
        }
        let attr_size = self.events.first().map_or(0, |e| e.attr.len());
        let mut b = (self.events.len() as u32).to_le_bytes().to_vec();
        b.extend((attr_size as u32).to_le_bytes());
        for e in &self.events {
            b.extend(&e.attr);
            b.extend((e.ids.len() as u32).to_le_bytes());
            string(&mut b, &e.name);
            b.extend(e.ids.iter().flat_map(|i| i.to_le_bytes()));
        }
        feat(out, feature::EVENT_DESC, &b);
        // The clock has a resolution of 1 ns.
        feat(out, feature::CLOCKID, &1u64.to_le_bytes());
        let mut b = 1u32.to_le_bytes().to_vec();
        b.extend((libc::CLOCK_MONOTONIC as u32).to_le_bytes());
        b.extend(self.wall.0.to_le_bytes());
        b.extend(self.wall.1.to_le_bytes());
        feat(out, feature::CLOCK_DATA, &b);
        if self.compressed {
            // The feature has: version, type zstd, level, ratio (not known yet), the most bytes that a record decompresses to.
            let b: Vec<u8> = [1, 1, self.level.max(1) as u32, 1, DECOMPRESSED]
                .iter()
                .flat_map(|v: &u32| v.to_le_bytes())
                .collect();
            feat(out, feature::COMPRESSED, &b);
        }
    }

    fn tracing_data(&self, out: &mut Vec<u8>) {
        let mut t = vec![0x17, 0x08, 0x44];
        t.extend(b"tracing0.6\0");
        t.push(u8::from(cfg!(target_endian = "big")));
        t.push(size_of::<usize>() as u8);
        t.extend((rustix::param::page_size() as u32).to_le_bytes());
        for (name, text) in [("header_page", &self.header_page), ("header_event", &self.header_event)] {
            t.extend(name.as_bytes());
            t.push(0);
            t.extend((text.len() as u64).to_le_bytes());
            t.extend(text.as_bytes());
        }
        t.extend(0u32.to_le_bytes()); // ftrace's own formats
        let mut systems: Vec<&str> = self.formats.iter().map(|f| f.0.as_str()).collect();
        systems.sort_unstable();
        systems.dedup();
        t.extend((systems.len() as u32).to_le_bytes());
        for system in systems {
            t.extend(system.as_bytes());
            t.push(0);
            let formats: Vec<&str> =
                self.formats.iter().filter(|f| f.0 == system).map(|f| f.1.as_str()).collect();
            t.extend((formats.len() as u32).to_le_bytes());
            for f in formats {
                t.extend((f.len() as u64).to_le_bytes());
                t.extend(f.as_bytes());
            }
        }
        t.extend([0; 8]); // no kallsyms, no printk formats
        t.extend(0u64.to_le_bytes()); // no saved command lines: COMM records say more
        t.resize(t.len().next_multiple_of(8), 0);
        // The record's body has the size of the data; the data follow the record.
        let mut b = (t.len() as u32).to_le_bytes().to_vec();
        b.truncate(4);
        out.extend(HEADER_TRACING_DATA.to_le_bytes());
        out.extend(0u16.to_le_bytes());
        out.extend(12u16.to_le_bytes());
        out.extend(b);
        out.extend(t);
    }
}
