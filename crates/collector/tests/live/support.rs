//! What the tests share: starting recorders and VMs, and reading a capture without any code of the collector.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::ends::{self, ends, output, succeeds};

/// Only one recording runs at a time, because recordings would see each other's VMs.
pub(crate) static ALONE: Mutex<()> = Mutex::new(());

pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(crate) fn example(name: &str) -> PathBuf {
    let mut p = std::env::current_exe().unwrap();
    p.pop();
    p.pop();
    p.join("examples").join(name)
}

pub(crate) fn collect(args: &[&str]) -> Command {
    let mut c = Command::new(example("collect"));
    c.args(args);
    c
}

pub(crate) struct Rec {
    pub(crate) kind: u32,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Parsed {
    pub(crate) records: Vec<Rec>,
    /// The number of bytes at the end that are not a whole record.
    pub(crate) rest: usize,
    pub(crate) facts: Vec<(String, String)>,
    pub(crate) names: HashMap<u64, String>,
}

pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}

pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

/// Reads a capture without any code of the collector.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    assert_eq!(&bytes[..8], b"PERFILE2");
    assert_eq!(u64_at(bytes, 8), 16);
    let mut p = Parsed::default();
    let mut stream = Vec::new();
    let mut limit = 0;
    let mut z = zstd::stream::raw::Decoder::new().unwrap();
    let mut at = 16;
    while at + 8 <= bytes.len() {
        let (kind, size) =
            (u32_at(bytes, at), usize::from(u16::from_le_bytes([bytes[at + 6], bytes[at + 7]])));
        assert!(size >= 8, "record of {size} bytes at {at}");
        let tail = if kind == 66 && at + 12 <= bytes.len() { u32_at(bytes, at + 8) as usize } else { 0 };
        if at + size + tail > bytes.len() {
            break;
        }
        let body = &bytes[at + 8..at + size];
        match kind {
            81 => {
                use zstd::stream::raw::{InBuffer, Operation, OutBuffer};
                let mut out = vec![0u8; limit];
                let mut input = InBuffer::around(body);
                let mut output = OutBuffer::around(out.as_mut_slice());
                z.run(&mut input, &mut output).expect("zstd data is whole");
                assert_eq!(input.pos(), body.len(), "one record decompresses to at most what the head says");
                let n = output.pos();
                assert!(n > 0, "perf refuses a record that decompresses to nothing");
                stream.extend_from_slice(&out[..n]);
            }
            // Feature COMPRESSED has: version, type, level, ratio, the most bytes that a record decompresses to.
            80 if u64_at(body, 0) == 27 => limit = u32_at(body, 24) as usize,
            65 => {
                assert_eq!(&body[..8], b"MMUSCOPE");
                let text = std::str::from_utf8(&body[8..]).unwrap().trim_end_matches('\0');
                for l in text.lines() {
                    let (k, v) = l.split_once(' ').unwrap();
                    p.facts.push((k.into(), v.into()));
                }
            }
            78 => {
                let name = String::from_utf8_lossy(&body[16..]).trim_end_matches('\0').to_owned();
                p.names.insert(u64_at(body, 8), name);
            }
            2 | 3 | 13 => p.records.push(Rec { kind, body: body.to_vec() }),
            _ => {}
        }
        // The ids of an event follow its attr.
        if kind == 64 {
            assert_eq!(u32_at(body, 4), 112, "attr.size");
        }
        at += size + tail;
    }
    p.rest = bytes.len() - at;
    let mut s = 0;
    while s + 8 <= stream.len() {
        let size = usize::from(u16::from_le_bytes([stream[s + 6], stream[s + 7]]));
        assert!(size >= 8 && size % 8 == 0);
        if s + size > stream.len() {
            break;
        }
        p.records.push(Rec { kind: u32_at(&stream, s), body: stream[s + 8..s + size].to_vec() });
        s += size;
    }
    p
}

impl Parsed {
    pub(crate) fn samples(&self) -> usize {
        self.records.iter().filter(|r| r.kind == 9).count()
    }

    pub(crate) fn fact(&self, key: &str) -> Option<&str> {
        self.facts.iter().find(|f| f.0 == key).map(|f| f.1.as_str())
    }
}

/// perf's own count of each event of a file.
pub(crate) fn perf_counts(file: &Path) -> BTreeMap<String, u64> {
    let out = output(Command::new("perf").args(["script", "-i"]).arg(file).args(["-F", "event"])).unwrap();
    assert!(out.status.success(), "perf script: {}", String::from_utf8_lossy(&out.stderr));
    let mut m = BTreeMap::new();
    for l in String::from_utf8_lossy(&out.stdout).lines() {
        *m.entry(l.trim().trim_end_matches(':').to_owned()).or_default() += 1;
    }
    m
}

/// A process that ends with its test, however that ends.
pub(crate) struct Guard(pub(crate) Option<Child>);

impl Guard {
    pub(crate) fn load() -> Self {
        Self::new(Command::new(example("vm_load")).arg("30").stdout(Stdio::null()))
    }

    pub(crate) fn new(c: &mut Command) -> Self {
        Self(Some(c.spawn().unwrap()))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(succeeds(Command::new("kill").args([&format!("-{name}"), &self.id().to_string()])));
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    pub(crate) fn output(mut self) -> Output {
        ends(self.0.take().unwrap(), "the recorder")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(c) = &mut self.0 {
            let _ = c.kill();
            let _ = c.wait();
        }
    }
}

/// Reads the first bytes that a program prints, and closes the pipe.
pub(crate) fn first_bytes(child: &mut Guard) {
    let mut pipe = child.0.as_mut().unwrap().stdout.take().unwrap();
    let (send, read) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut some = [0u8; 100];
        send.send(pipe.read_exact(&mut some).is_ok()).ok();
    });
    assert_eq!(read.recv_timeout(ends::LONG), Ok(true), "it prints something");
}

pub(crate) fn stderr(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

pub(crate) fn wait_for(what: &str, mut f: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !f() {
        assert!(Instant::now() < end, "timed out: {what}");
        sleep(Duration::from_millis(10));
    }
}
