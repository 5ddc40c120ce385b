//! Inputs that grow, streams, and reading in bounded memory.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use mmuscope_trace::{Error, Event, Follower, POLL_EVENTS, Progress, ReadOptions, Strings, Trace, stream};

use crate::support::{perf, plain, sample, small, text};

fn all(t: &Trace) -> Vec<String> {
    t.events.iter().map(|e| plain(&Event { pid: None, ..e }, &t.strings)).collect()
}

#[test]
fn a_file_that_grows() {
    let raw = small(1_500);
    for (name, bytes) in [
        ("pipe", perf(&raw, true, true)),
        ("plain", perf(&raw, true, false)),
        ("text", text(500).into_bytes()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        let mut f = Follower::open(&path, &ReadOptions::default()).unwrap();
        let mut t = Trace::default();
        assert_eq!(f.poll(&mut t).unwrap(), 0, "{name}: empty so far");
        let mut before = 0;
        let mut grew = 0;
        for part in bytes.chunks(bytes.len() / 50 + 1) {
            file.write_all(part).unwrap();
            f.poll(&mut t).unwrap();
            assert!(t.events.len() >= before);
            grew += usize::from(t.events.len() > before);
            before = t.events.len();
        }
        assert!(grew > 5, "{name}: events come while it grows ({grew})");
        let whole = Trace::from_bytes(bytes, "x").unwrap();
        // In a perf.data, the last round is released only by the next one.
        let n = t.events.len();
        assert!(n * 10 >= whole.events.len() * 8, "{name}: {n} of {}", whole.events.len());
        assert_eq!(all(&t), all(&whole)[..n], "{name}");
    }
}

#[test]
fn a_pipe_to_its_end() {
    for bytes in [perf(&small(1_500), true, true), text(400).into_bytes()] {
        let whole = Trace::from_bytes(bytes.clone(), "x").unwrap();
        let (rx, mut tx) = std::io::pipe().unwrap();
        let writer = std::thread::spawn(move || {
            for part in bytes.chunks(5_000) {
                tx.write_all(part).unwrap();
            }
        });
        let mut f = Follower::from_stream(Box::new(rx), Path::new("pipe"), &ReadOptions::default());
        let mut t = Trace::default();
        while !f.is_done() {
            f.poll(&mut t).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        writer.join().unwrap();
        assert_eq!(all(&t), all(&whole));
    }
}

#[test]
fn a_stream_is_the_load() {
    for name in ["6.1-npt/trace.dat", "6.1-npt/perf.data.zst", "5.10-shadow64/trace.txt.zst"] {
        let whole = crate::support::load(name);
        let want = all(&whole);
        let mut n = 0;
        let info = stream(&[sample(name)], &ReadOptions::default(), &mut |e: &Event, s: &Strings| {
            assert_eq!(plain(&Event { pid: None, ..*e }, s), want[n]);
            n += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!((n, info.vm_hints.len()), (want.len(), whole.info.vm_hints.len()));
    }
    let mut n = 0;
    stream(&[sample("6.1-npt/trace.dat")], &ReadOptions::default(), &mut |_: &Event, _: &Strings| {
        n += 1;
        if n == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(n, 10);
}

#[test]
fn folders() {
    let raw = small(2_000);
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    // The pages of each CPU are taken out of a trace.dat v6, with the formats beside them.
    let dat = crate::support::dat(&raw);
    let tag = dat.windows(10).position(|w| w == b"flyrecord\0").unwrap() + 10;
    let word = |at: usize| u64::from_le_bytes(dat[at..at + 8].try_into().unwrap()) as usize;
    for cpu in 0..raw.cpus() as usize {
        let (at, len) = (word(tag + cpu * 16), word(tag + cpu * 16 + 8));
        let folder = dir.join(format!("raw/per_cpu/cpu{cpu}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("trace_pipe_raw"), &dat[at..at + len]).unwrap();
    }
    for f in &raw.formats {
        let folder = dir.join(format!("raw/events/{}/{}", f.system, f.name));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("format"), mmuscope_testing::write::format_text(f)).unwrap();
    }
    let names: Vec<String> = raw.comms.iter().map(|(pid, c)| format!("{pid} {c}")).collect();
    std::fs::write(dir.join("raw/saved_cmdlines"), names.join("\n")).unwrap();
    let whole = Trace::from_bytes(dat.clone(), "x").unwrap();
    let t = crate::support::load_paths(&[dir.join("raw")]);
    assert_eq!((all(&t), t.info.damage.len()), (all(&whole), 0));

    // As perf record --threads does, the samples are put into files apart from the head.
    let mut file = perf(&raw, false, false);
    let at = |n: usize| u64::from_le_bytes(file[n..n + 8].try_into().unwrap());
    let (data_at, data_len) = (at(40) as usize, at(48) as usize);
    let data = file[data_at..data_at + data_len].to_vec();
    let sections = file[data_at + data_len..].to_vec();
    // The head has a single empty round, and the feature table moves up.
    let moved = data_len as u64 - 8;
    file.truncate(data_at);
    file.extend([68, 0, 0, 0, 0, 0, 8, 0]);
    file[48..56].copy_from_slice(&8u64.to_le_bytes());
    let mut table = sections.clone();
    let n = 2;
    for i in 0..n {
        let o = u64::from_le_bytes(table[i * 16..i * 16 + 8].try_into().unwrap()) - moved;
        table[i * 16..i * 16 + 8].copy_from_slice(&o.to_le_bytes());
    }
    file.extend(table);
    std::fs::create_dir_all(dir.join("perf")).unwrap();
    std::fs::write(dir.join("perf/data"), file).unwrap();
    let mut parts = [Vec::new(), Vec::new()];
    let mut i = 0;
    while i < data.len() {
        let size = usize::from(u16::from_le_bytes([data[i + 6], data[i + 7]]));
        if data[i] == 68 {
            for p in &mut parts {
                p.extend(&data[i..i + size]);
            }
        } else {
            // This is the CPU of the sample.
            parts[usize::from(data[i + 32])].extend(&data[i..i + size]);
        }
        i += size;
    }
    for (n, p) in parts.iter().enumerate() {
        std::fs::write(dir.join(format!("perf/data.{n}")), p).unwrap();
    }
    let t = crate::support::load_paths(&[dir.join("perf")]);
    assert_eq!((all(&t), t.info.damage.len()), (all(&whole), 0), "{:?}", t.info.damage);
}

/// A file that has its index at the end is read once, and a note says so.
#[test]
fn what_does_not_grow() {
    let path = crate::support::sample("6.1-npt/trace.dat");
    let mut follower = Follower::open(&path, &ReadOptions::default()).unwrap();
    let mut trace = Trace::default();
    assert_eq!(follower.poll(&mut trace).unwrap(), 68_615);
    assert!(follower.is_done());
    assert!(
        trace.info.notes.iter().any(|n| n.contains("not followed: trace.dat v7")),
        "{:?}",
        trace.info.notes
    );
}

/// A caller that opens a file to follow it may cancel the opening; a follower that is passed on is not cancelled by that.
#[test]
fn what_cancels_the_first_look_does_not_cancel_the_following() {
    let lines = text(40);
    let (first, rest) = lines.split_at(lines.len() / 2);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text");
    std::fs::write(&path, first).unwrap();
    let progress = Arc::new(Progress::default());
    let options = ReadOptions { progress: Some(Arc::clone(&progress)), ..ReadOptions::default() };
    let mut f = Follower::open(&path, &options).unwrap();
    let mut t = Trace::default();
    assert!(f.poll(&mut t).unwrap() > 0);
    progress.cancel();
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(rest.as_bytes()).unwrap();
    assert!(matches!(f.poll(&mut t), Err(Error::Cancelled)), "as it was asked to");
    let theirs = Arc::new(Progress::default());
    f.report_to(Some(Arc::clone(&theirs)));
    f.poll(&mut t).unwrap();
    assert_eq!(all(&t), all(&Trace::from_text(&lines).unwrap()));
    theirs.cancel();
    assert!(matches!(f.poll(&mut t), Err(Error::Cancelled)), "by whom it was handed to");
}

/// A source of lines without an end, as fast as they can be read.
struct Endless {
    line: Vec<u8>,
    at: usize,
}

impl std::io::Read for Endless {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        for b in buf.iter_mut() {
            *b = self.line[self.at];
            self.at = (self.at + 1) % self.line.len();
        }
        Ok(buf.len())
    }
}

#[test]
fn a_writer_that_never_pauses_does_not_keep_a_poll_from_returning() {
    let line = "q-1 [000] 1.000000: kvm_entry: vcpu 0, rip 0x6000\n".as_bytes().to_vec();
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let input = Box::new(Endless { line, at: 0 });
        let mut f = Follower::from_stream(input, Path::new("pipe"), &ReadOptions::default());
        let mut t = Trace::default();
        while t.events.len() < POLL_EVENTS {
            f.poll(&mut t).unwrap();
        }
        send.send((t.events.len(), f.is_done())).ok();
    });
    let (n, done) = receive.recv_timeout(Duration::from_mins(2)).expect("a poll returns");
    assert!((POLL_EVENTS..2 * POLL_EVENTS + 20_000).contains(&n) && !done, "{n} events");
}

/// A pipe that held more than one poll reads before it was closed loses nothing.
#[test]
fn what_is_more_than_one_poll_takes_comes_with_the_next() {
    let line = "q-1 [000] 1.000000: kvm_entry: vcpu 0, rip 0x6000\n";
    let n = POLL_EVENTS * 5 / 4;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text");
    std::fs::write(&path, line.repeat(n)).unwrap();
    let mut f = Follower::open(&path, &ReadOptions::default()).unwrap();
    let mut t = Trace::default();
    let first = f.poll(&mut t).unwrap();
    assert!((POLL_EVENTS..n).contains(&first), "{first}");
    f.poll(&mut t).unwrap();
    assert_eq!(t.events.len(), n);
}

/// The end of a growing file cannot be seen, so mmuscope's recorder writes one.
#[test]
fn a_capture_whose_recorder_has_ended_is_read_to_its_last_event() {
    let mut bytes = perf(&small(1_500), true, false);
    // When nothing happens any more, the recorder has no round to end.
    while bytes.ends_with(&[68, 0, 0, 0, 0, 0, 8, 0]) {
        bytes.truncate(bytes.len() - 8);
    }
    let whole = Trace::from_bytes(bytes.clone(), "x").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capture");
    std::fs::write(&path, bytes).unwrap();
    let mut f = Follower::open(&path, &ReadOptions::default()).unwrap();
    let mut t = Trace::default();
    f.poll(&mut t).unwrap();
    f.poll(&mut t).unwrap();
    assert!(!f.is_done() && t.events.len() < whole.events.len(), "the last round waits for another");
    let text = b"MMUSCOPErecord.end the time was over\n\0\0\0";
    assert_eq!(text.len() % 8, 0);
    let mut fact = 65u32.to_le_bytes().to_vec();
    fact.extend(0u16.to_le_bytes());
    fact.extend((text.len() as u16 + 8).to_le_bytes());
    fact.extend(text);
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&fact).unwrap();
    for _ in 0..2 {
        f.poll(&mut t).unwrap();
    }
    assert!(f.is_done());
    assert_eq!(all(&t), all(&whole));
}
