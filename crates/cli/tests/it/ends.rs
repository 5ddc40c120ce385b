//! Programs that tests run, each with an end: one that waits for ever must not make the tests wait for ever. Other crates' tests use this
//! file too.

#![allow(dead_code, reason = "not every test waits in every way")]

use std::io::{self, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// More than any of these programs takes on a slow and busy machine.
pub(crate) const LONG: Duration = Duration::from_mins(5);

/// [`Command::output`] with an end.
pub(crate) fn output(command: &mut Command) -> io::Result<Output> {
    // As there: no input but what was set.
    let what = format!("{command:?}");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map(|child| ends(child, &what))
}

/// [`Command::status`] with an end.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let what = format!("{command:?}");
    command.spawn().is_ok_and(|child| ends(child, &what).status.success())
}

/// [`Child::wait_with_output`] with an end: what is not over by then is killed, and the test fails.
pub(crate) fn ends(mut child: Child, what: &str) -> Output {
    // The program must not wait for more input than it was given.
    drop(child.stdin.take());
    let stdout = child.stdout.take().map(read);
    let stderr = child.stderr.take().map(read);
    let until = Instant::now() + LONG;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if Instant::now() > until {
            child.kill().ok();
            child.wait().ok();
            panic!("{what}: has not ended after {LONG:?}; it said: {}", text(stderr));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Output { status, stdout: bytes(stdout, what), stderr: bytes(stderr, what) }
}

fn read(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, all) = channel();
    std::thread::spawn(move || {
        let mut out = Vec::new();
        // What came before an error counts.
        from.read_to_end(&mut out).ok();
        send.send(out).ok();
    });
    all
}

/// A program that has ended may have left another behind that holds its pipe open.
fn bytes(from: Option<Receiver<Vec<u8>>>, what: &str) -> Vec<u8> {
    from.map_or_else(Vec::new, |r| {
        r.recv_timeout(LONG).unwrap_or_else(|_| panic!("{what}: its pipe stays open"))
    })
}

fn text(from: Option<Receiver<Vec<u8>>>) -> String {
    from.and_then(|r| r.recv_timeout(Duration::from_secs(5)).ok())
        .map_or_else(String::new, |b| String::from_utf8_lossy(&b).into_owned())
}
