//! Inputs that grow, streams, and reading in bounded memory.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use mmuscope_trace::{
    Error, Event, Follower, POLL_EVENTS, Progress, ReadOptions, Stage, Strings, Trace, stream,
};

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

/// Polls until something has come, or the follower is done.
fn wait_for(f: &mut Follower, t: &mut Trace, what: &str, mut until: impl FnMut(&Follower, &Trace) -> bool) {
    let give_up = std::time::Instant::now() + Duration::from_mins(1);
    while !until(f, t) {
        assert!(std::time::Instant::now() < give_up, "{what}: {:?}, {} events", f.stage(), t.events.len());
        f.poll(t).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A file that has its index at the end is read as a whole, and again when it has changed.
#[test]
fn what_does_not_grow_is_read_again_when_it_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.dat");
    std::fs::copy(crate::support::sample("6.1-npt/trace.dat"), &path).unwrap();
    let mut follower = Follower::open(&path, &ReadOptions::default()).unwrap();
    let mut trace = Trace::default();
    assert_eq!(follower.poll(&mut trace).unwrap(), 68_615);
    assert_eq!(follower.poll(&mut trace).unwrap(), 0, "it has not changed");
    assert!(!follower.is_done());
    assert!(
        matches!(follower.stage(), Stage::Watching(why) if why.contains("is trace.dat v7, which can only be read as a whole"))
    );
    // A recorder begins the next trace in the same place: what cannot be read is no reason to forget the trace that could.
    std::fs::write(&path, b"half of something").unwrap();
    wait_for(
        &mut follower,
        &mut trace,
        "half a file",
        |f, _| matches!(f.stage(), Stage::Watching(why) if why.contains("cannot be read as it is now")),
    );
    assert_eq!((trace.events.len(), follower.replaced()), (68_615, 1));
    let next = perf(&small(1_500), false, false);
    let whole = Trace::from_bytes(next.clone(), "x").unwrap();
    std::fs::write(&path, next).unwrap();
    wait_for(&mut follower, &mut trace, "the next trace", |f, _| f.replaced() == 2);
    assert_eq!(all(&trace), all(&whole));
}

/// A perf.data in file form whose recorder has not ended has no formats; it is read when they are there.
#[test]
fn a_recording_in_file_form_is_read_when_it_has_ended() {
    let bytes = perf(&small(1_500), false, false);
    let whole = Trace::from_bytes(bytes.clone(), "x").unwrap();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let data = word(40) as usize..(word(40) + word(48)) as usize;
    let mut unfinished = bytes[..data.end].to_vec();
    // Until the end, the size of the data and the set of features are 0.
    unfinished[48..56].fill(0);
    unfinished[72..104].fill(0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("perf.data");
    std::fs::write(&path, &unfinished).unwrap();
    let mut f = Follower::open(&path, &ReadOptions::default()).unwrap();
    let mut t = Trace::default();
    f.poll(&mut t).unwrap();
    assert!(!f.is_done() && t.events.is_empty());
    assert!(
        matches!(f.stage(), Stage::Watching(why) if why.contains("which its recorder has not finished") && why.contains("perf record -o -")),
        "{:?}",
        f.stage()
    );
    std::fs::write(&path, &bytes).unwrap();
    wait_for(&mut f, &mut t, "the finished file", |_, t| !t.events.is_empty());
    assert_eq!(all(&t), all(&whole));
}

/// What comes through a pipe and can only be read as a whole is put aside until the pipe ends, whatever is around it.
#[test]
fn a_pipe_of_a_file_form_is_collected() {
    let dat = std::fs::read(crate::support::sample("6.1-npt/trace.dat")).unwrap();
    let packed = zstd::encode_all(text(400).as_bytes(), 1).unwrap();
    for (name, bytes) in [("dat", dat), ("perf.data", perf(&small(1_500), false, false)), ("zstd", packed)] {
        let whole = Trace::from_bytes(bytes.clone(), "x").unwrap();
        let (rx, mut tx) = std::io::pipe().unwrap();
        let n = bytes.len();
        let mut f = Follower::from_stream(Box::new(rx), Path::new("-"), &ReadOptions::default());
        let mut t = Trace::default();
        assert!(matches!(f.stage(), Stage::Waiting(_)));
        let (go, gone) = mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            tx.write_all(&bytes[..n / 2]).unwrap();
            gone.recv().ok();
            tx.write_all(&bytes[n / 2..]).unwrap();
        });
        wait_for(&mut f, &mut t, name, |f, _| f.stage() == Stage::Collecting);
        assert!(t.events.is_empty() && f.replaced() == 0);
        go.send(()).unwrap();
        wait_for(&mut f, &mut t, name, |f, _| f.is_done());
        writer.join().unwrap();
        assert_eq!(f.stage(), Stage::Ended("the writer has closed the pipe".to_owned()));
        assert_eq!((all(&t), f.bytes() as usize, f.replaced()), (all(&whole), n, 1), "{name}");
    }
}

/// Following may begin before the recording, and another recording may take the file's place.
#[test]
fn before_and_after_a_recording() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capture");
    let bytes = perf(&small(1_500), true, true);
    assert!(Follower::open(&dir.path().join("no/such/folder"), &ReadOptions::default()).is_err());
    let mut f = Follower::open(&path, &ReadOptions::default()).unwrap();
    let mut t = Trace::default();
    assert_eq!(f.poll(&mut t).unwrap(), 0);
    assert!(matches!(f.stage(), Stage::Waiting(why) if why.ends_with("does not exist yet")));
    std::fs::write(&path, &bytes[..4]).unwrap();
    f.poll(&mut t).unwrap();
    assert!(matches!(f.stage(), Stage::Waiting(_)), "{:?}", f.stage());
    // Twelve bytes are the magic and half of the size that shows the form.
    std::fs::write(&path, &bytes[..12]).unwrap();
    f.poll(&mut t).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    wait_for(&mut f, &mut t, "the recording", |_, t| !t.events.is_empty());
    assert_eq!(f.stage(), Stage::Growing);
    let other = dir.path().join("other");
    std::fs::write(&other, &bytes).unwrap();
    std::fs::rename(&other, &path).unwrap();
    wait_for(&mut f, &mut t, "the other file", |f, _| f.is_done());
    assert!(matches!(f.stage(), Stage::Ended(why) if why.ends_with("was replaced by another file")));
    assert_eq!(all(&t), all(&Trace::from_bytes(bytes, "x").unwrap()), "what it held is all there");
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
