//! The live view as users start it: the real program, a real pipe or a growing file, and a real window. The window is observed from outside:
//! its title has the number of events, and the display's memory has the picture.

use crate::ends::{LONG, ends, output};
use crate::{mmuscope, root};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Events of `samples/6.1-npt/trace.txt.zst`: `grep -c` finds as many lines that are no comments.
const EVENTS: u64 = 63_379;

/// A program that does not outlive its test.
struct Guard(Child);

impl Guard {
    /// How the program has ended, if it has.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child can be asked")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A display of its own, whose picture is a file.
struct Display {
    _server: Guard,
    name: String,
    dir: tempfile::TempDir,
}

/// Ends a test where there can be no display, or where the other needs are not met.
macro_rules! needs_display {
    ($($more:expr),*) => {
        mmuscope_needs::needs!("xvfb", "xwininfo" $(, $more)*)
    };
}

impl Display {
    fn open() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        // Without `-noreset` the server starts anew whenever its last client leaves, which each look at the title would be while the viewer
        // is still on its way: a viewer that connects in that moment is refused.
        let mut server = Command::new("Xvfb")
            .args([
                "-displayfd",
                "1",
                "-screen",
                "0",
                "1600x1000x24",
                "-nolisten",
                "tcp",
                "-noreset",
                "-fbdir",
            ])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb starts");
        let said = server.stdout.take().expect("a pipe");
        let server = Guard(server);
        let (send, number) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let mut said = BufReader::new(said);
            said.read_line(&mut line).ok();
            send.send(line).ok();
            // The server may say more.
            std::io::copy(&mut said, &mut std::io::sink()).ok();
        });
        let number = number.recv_timeout(LONG).expect("Xvfb says which display it is");
        Self { _server: server, name: format!(":{}", number.trim()), dir }
    }

    /// The viewer on this display, for a user who has never used it.
    fn view(&self, args: &[&str]) -> Command {
        let mut c = mmuscope(&["view"]);
        c.args(args)
            .env("DISPLAY", &self.name)
            .env("HOME", self.dir.path())
            .env("XDG_DATA_HOME", self.dir.path().join("data"))
            .env("LIBGL_ALWAYS_SOFTWARE", "1")
            .env_remove("WAYLAND_DISPLAY")
            .stdout(Stdio::null());
        c
    }

    /// Starts the viewer, whose messages are kept in a file.
    fn start(&self, args: &[&str], input: Stdio) -> Guard {
        let errors = File::create(self.messages()).expect("a file");
        Guard(self.view(args).stdin(input).stderr(errors).spawn().expect("the viewer starts"))
    }

    /// Where the messages of the viewer that was started last are.
    fn messages(&self) -> PathBuf {
        self.dir.path().join("messages")
    }

    /// The viewer's title.
    fn title(&self) -> String {
        let out = output(Command::new("xwininfo").args(["-display", &self.name, "-root", "-tree"]))
            .expect("xwininfo runs");
        if !out.status.success() {
            // A window that goes while the tree is read is an error; the next look will not have it.
            return format!("not known ({})", String::from_utf8_lossy(&out.stderr).trim());
        }
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let titles = text.lines().filter_map(|l| l.split('"').nth(1)).filter(|t| t.ends_with("mmuscope"));
        titles.max_by_key(|t| t.len()).unwrap_or_default().to_owned()
    }

    /// Number of events in the title, and whether more may come.
    fn events(&self) -> Option<(u64, bool)> {
        let title = self.title();
        let (_, rest) = title.split_once(": ")?;
        let number = rest.split(' ').next()?.replace(',', "").parse().ok()?;
        Some((number, rest.contains(" so far ")))
    }

    /// Waits until the title of this viewer satisfies the condition.
    fn wait_for(&self, view: &mut Guard, what: &str, mut wanted: impl FnMut(u64, bool) -> bool) -> u64 {
        let until = Instant::now() + LONG;
        loop {
            if let Some((n, _)) = self.events().filter(|(n, live)| wanted(*n, *live)) {
                return n;
            }
            let said = || fs::read_to_string(self.messages()).unwrap_or_default();
            if let Some(status) = view.ended() {
                panic!("{what}: the viewer has ended with {status}; it said: {}", said());
            }
            assert!(Instant::now() < until, "{what}: the title is {:?}; it said: {}", self.title(), said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is on the screen: the pixels of an XWD file, of which the server keeps one up to date.
    fn pixels(&self) -> Vec<u32> {
        let file = fs::read(self.dir.path().join("Xvfb_screen0")).expect("the screen");
        let word =
            |i: usize| u32::from_be_bytes(file[i * 4..i * 4 + 4].try_into().expect("four bytes")) as usize;
        // header_size, …, pixmap_width, pixmap_height, …, bits_per_pixel, bytes_per_line, …, ncolors (of 12 bytes each).
        let (header, width, height, bits, colours) = (word(0), word(4), word(5), word(11), word(19));
        assert_eq!((width, height, bits), (1600, 1000, 32));
        let pixels = &file[header + colours * 12..][..width * height * 4];
        pixels.chunks_exact(4).map(|p| u32::from_le_bytes(p.try_into().expect("four bytes"))).collect()
    }

    /// Waits until the picture differs from another in so many pixels: it is drawn a moment after the title is set.
    fn wait_for_change(&self, from: &[u32], least: usize, what: &str) -> Vec<u32> {
        let until = Instant::now() + LONG;
        loop {
            let now = self.pixels();
            let differ = now.iter().zip(from).filter(|(a, b)| a != b).count();
            if differ >= least {
                return now;
            }
            assert!(Instant::now() < until, "{what}: {differ} pixels have changed");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The sample's text, cut at line ends into so many parts.
fn parts(n: usize) -> Vec<Vec<u8>> {
    let packed = File::open(root().join("samples/6.1-npt/trace.txt.zst")).expect("the sample");
    let text = zstd::decode_all(packed).expect("zstd");
    let mut parts = vec![Vec::new(); n];
    let size = text.len() / n + 1;
    let mut at = 0;
    for line in text.split_inclusive(|b| *b == b'\n') {
        parts[at / size].extend_from_slice(line);
        at += line.len();
    }
    parts
}

/// Feeds parts to the viewer, one when it has shown the one before, and looks at it. Gives how many events it showed then.
fn feed(display: &Display, view: &mut Guard, parts: &[Vec<u8>], mut to: impl Write) -> Vec<u64> {
    let empty = display.pixels();
    let (mut seen, mut written, mut before) = (Vec::new(), Vec::new(), empty);
    for (i, part) in parts.iter().enumerate() {
        to.write_all(part).and_then(|()| to.flush()).expect("the viewer reads");
        written.extend_from_slice(part);
        let lines = written.split_inclusive(|b| *b == b'\n').filter(|l| !l.starts_with(b"#")).count() as u64;
        let last = seen.last().copied().unwrap_or(0);
        // Of a text, the last line waits: the next may belong to it.
        let n = display.wait_for(view, &format!("part {i}"), |n, live| live && n > last && n + 1 >= lines);
        assert!(n <= lines, "{n} events of {lines} lines");
        before = display.wait_for_change(&before, 500, &format!("part {i}"));
        seen.push(n);
    }
    let colours: std::collections::HashSet<u32> = before.into_iter().collect();
    assert!(colours.len() > 50, "only {} colours: nothing is drawn", colours.len());
    seen
}

#[test]
fn a_pipe_is_shown_as_it_comes_and_whole_when_it_ends() {
    needs_display!();
    let display = Display::open();
    let mut view = display.start(&["-"], Stdio::piped());
    let pipe = view.0.stdin.take().expect("a pipe");
    // A pipe in which nothing is yet is a live view of nothing.
    display.wait_for(&mut view, "before the first byte", |n, live| n == 0 && live);
    let seen = feed(&display, &mut view, &parts(4), pipe);
    assert_eq!(seen.len(), 4);
    assert!(view.ended().is_none(), "the window stays when the pipe is closed");
    let n = display.wait_for(&mut view, "the end", |_, live| !live);
    assert_eq!(n, EVENTS);
}

#[test]
fn a_growing_file_is_followed() {
    needs_display!();
    let display = Display::open();
    let path = display.dir.path().join("growing.txt");
    let file = File::create(&path).expect("a file");
    let mut view = display.start(&["--follow", path.to_str().expect("a path")], Stdio::null());
    display.wait_for(&mut view, "the empty file", |n, live| n == 0 && live);
    let seen = feed(&display, &mut view, &parts(3), file);
    // More may come: the line that is the last now waits for it.
    assert!(seen.last().is_some_and(|n| (EVENTS - 1..=EVENTS).contains(n)), "{seen:?}");
}

/// What has its index at its end is put aside until the pipe ends, and then shown, whatever was around it.
#[test]
fn a_pipe_of_a_file_form_is_shown_when_it_has_ended() {
    needs_display!();
    for (name, unpack, events) in [
        // `trace-cmd report` and `perf script` print as many lines.
        ("6.1-npt/trace.dat", false, 68_615),
        ("6.1-npt/perf.data.zst", true, 64_119),
    ] {
        let display = Display::open();
        let mut view = display.start(&["-"], Stdio::piped());
        let mut pipe = view.0.stdin.take().expect("a pipe");
        let mut bytes = fs::read(root().join("samples").join(name)).expect("the sample");
        if unpack {
            bytes = zstd::decode_all(bytes.as_slice()).expect("zstd");
        }
        for part in bytes.chunks(bytes.len() / 3 + 1) {
            pipe.write_all(part).and_then(|()| pipe.flush()).expect("the viewer reads");
            display.wait_for(&mut view, name, |n, live| n == 0 && live);
            std::thread::sleep(Duration::from_millis(300));
        }
        drop(pipe);
        let n = display.wait_for(&mut view, name, |_, live| !live);
        assert_eq!(n, events, "{name}");
    }
}

/// Following a capture may begin before the recorder does; it shows events while they are recorded, and sees the end.
#[test]
fn a_capture_is_followed_before_during_and_after_its_recording() {
    needs_display!("kvm", "kvmmmu", "guest", "record");
    let display = Display::open();
    let path = display.dir.path().join("capture.perf.data");
    let file = path.to_str().expect("a path");
    let mut early = display.start(&["--follow", file], Stdio::null());
    display.wait_for(&mut early, "the file that is not there", |n, live| n == 0 && live);
    let vm = Guard(Command::new(vm_load()).arg("30").stdout(Stdio::null()).spawn().expect("the VM starts"));
    let mut c = mmuscope(&["record", "--duration", "4s", "-o", file]);
    let recorder = c.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the recorder starts");
    let first = display.wait_for(&mut early, "the first events", |n, live| n > 0 && live);
    display.wait_for(&mut early, "more events", |n, live| n > first && live);
    drop(early);
    // Another viewer comes while it is recorded.
    let mut late = display.start(&["--follow", file], Stdio::null());
    display.wait_for(&mut late, "the events so far", |n, _| n > first);
    let out = ends(recorder, "record");
    drop(vm);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let shown = display.wait_for(&mut late, "the end", |_, live| !live);
    let summary: serde_json::Value =
        serde_json::from_str(&crate::stdout(&["summary", file, "--format", "json"])).expect("JSON");
    assert_eq!(summary["events"].as_u64(), Some(shown));
}

/// A picture of a stream is of the whole stream.
#[test]
fn a_screenshot_of_a_pipe_waits_for_its_end() {
    needs_display!();
    let display = Display::open();
    let png = display.dir.path().join("picture.png");
    let shot = |input: Stdio| {
        display.view(&["-", "--screenshot"]).arg(&png).stdin(input).stderr(Stdio::piped()).spawn()
    };
    let mut view = shot(Stdio::piped()).expect("the viewer starts");
    let mut pipe = view.stdin.take().expect("a pipe");
    for part in parts(3) {
        pipe.write_all(&part).expect("the viewer reads");
        std::thread::sleep(Duration::from_millis(700));
        assert!(!png.exists(), "a picture of a part");
    }
    drop(pipe);
    let out = ends(view, "view - --screenshot");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(png.exists());
}

/// The load that the collector's tests use; cargo builds it beside them.
fn vm_load() -> PathBuf {
    let bin = Path::new(env!("CARGO_BIN_EXE_mmuscope"));
    bin.parent().expect("a folder").join("examples/vm_load")
}

/// `mmuscope record -o - | mmuscope view -`, with somebody in between who keeps what goes through.
#[test]
fn a_recording_is_seen_live_and_ends_as_it_was_recorded() {
    needs_display!("kvm", "kvmmmu", "guest", "record");
    let load = vm_load();
    let record = |duration: &str| {
        let mut c = mmuscope(&["record", "-o", "-", "--duration", duration]);
        c.stdout(Stdio::piped()).stderr(Stdio::piped());
        c
    };
    let display = Display::open();
    let mut view = display.start(&["-"], Stdio::piped());
    let mut to = view.0.stdin.take().expect("a pipe");
    display.wait_for(&mut view, "the window", |n, live| n == 0 && live);
    let vm = Command::new(&load).arg("30").stdout(Stdio::null()).spawn();
    let vm = Guard(vm.expect("the VM starts"));
    let begun = Instant::now();
    let mut recorder = record("4s").spawn().expect("the recorder starts");
    let mut from = recorder.stdout.take().expect("a pipe");
    let kept = display.dir.path().join("kept.perf.data");
    let mut file = File::create(&kept).expect("a file");
    let tee = std::thread::spawn(move || {
        let mut buf = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from.read(&mut buf) {
            file.write_all(&buf[..n]).expect("kept");
            to.write_all(&buf[..n]).expect("the viewer reads");
        }
    });
    let mut seen = vec![display.wait_for(&mut view, "the first events", |n, _| n > 0)];
    let (mut last, empty) = (seen[0], display.pixels());
    // It grows while it is recorded, however slow the machine is.
    seen.push(display.wait_for(&mut view, "more events", |n, live| live && n > last));
    let early = begun.elapsed();
    let out = ends(recorder, "record -o -");
    let took = begun.elapsed();
    drop(vm);
    tee.join().expect("the pipe is carried");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && said.contains("ended because the time was over"), "{said}");
    assert!(took < Duration::from_mins(1), "4 s took {took:?}: {said}");
    assert!(early < took, "events were seen after {early:?} of {took:?}");
    last = display.wait_for(&mut view, "the end", |_, live| !live);
    let summary = crate::stdout(&["summary", kept.to_str().expect("a path"), "--format", "json"]);
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!(summary["events"].as_u64(), Some(last), "{seen:?}\n{said}");
    assert!(seen.windows(2).all(|w| w[0] < w[1]) && last >= seen[1], "{seen:?}");
    display.wait_for_change(&empty, 500, "the end");
}
