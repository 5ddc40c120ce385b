//! [`Recorder`]: a recording that the user started from the window. It runs the command that was shown, keeps what that says, and writes the
//! capture into a file of the user's, which the viewer follows.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// Most lines of the recorder's output that are kept.
const LINES: usize = 400;

/// How the recorder gets the privileges that it needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rights {
    /// `sudo`, which asks on the terminal that the viewer was started from.
    #[default]
    Sudo,
    /// `pkexec`, which asks in a window of the desktop.
    Pkexec,
    /// Those of the viewer.
    Mine,
}

impl Rights {
    /// All, in the order in which they are offered.
    pub(crate) const ALL: [Self; 3] = [Self::Sudo, Self::Pkexec, Self::Mine];

    /// A name for a button.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sudo => "with sudo",
            Self::Pkexec => "with pkexec",
            Self::Mine => "as I am",
        }
    }

    /// What the choice means.
    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Sudo => "sudo asks for the password on the terminal that this window was started from",
            Self::Pkexec => "pkexec asks for the password in a window of the desktop",
            Self::Mine => "without further privileges: for root, or where perf_event_paranoid allows it",
        }
    }

    /// The command that asks the recorder to complete its capture and end, by the process that was started.
    fn stop_words(self, pid: u32) -> Vec<String> {
        let before: &[&str] = match self {
            // Without a terminal to ask on, sudo answers at once whether it still knows the user.
            Self::Sudo => &["sudo", "-n"],
            Self::Pkexec => &["pkexec"],
            Self::Mine => &[],
        };
        let pid = pid.to_string();
        before.iter().copied().chain(["kill", "-INT", &pid]).map(str::to_owned).collect()
    }

    const fn word(self) -> Option<&'static str> {
        match self {
            Self::Sudo => Some("sudo"),
            Self::Pkexec => Some("pkexec"),
            Self::Mine => None,
        }
    }
}

/// The words of the command that is run, of the recorder's own words.
pub(crate) fn words(recorder: &[String], rights: Rights, seconds: u32) -> Vec<String> {
    let mut out: Vec<String> = rights.word().into_iter().map(str::to_owned).collect();
    out.extend_from_slice(recorder);
    out.extend(["--duration".to_owned(), format!("{seconds}s")]);
    out
}

/// A recording that runs, or has ended.
#[derive(Debug)]
pub(crate) struct Recorder {
    child: Child,
    /// The capture.
    pub(crate) file: PathBuf,
    /// What the recorder has said so far, line by line.
    said: Arc<Mutex<Vec<String>>>,
    ended: Option<ExitStatus>,
    rights: Rights,
}

impl Recorder {
    /// Runs a command whose output is the capture. The error says why that is not possible.
    pub(crate) fn start(
        words: &[String],
        rights: Rights,
        file: &Path,
        wake: impl Fn() + Send + 'static,
    ) -> Result<Self, String> {
        let out = File::create_new(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let (program, rest) = words.split_first().ok_or("there is no command to run")?;
        let mut child = Command::new(program)
            .args(rest)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot run {program}: {e}"))?;
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        if let Some(errors) = child.stderr.take() {
            let theirs = Arc::clone(&said);
            std::thread::spawn(move || {
                for line in BufReader::new(errors).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    let mut all = theirs.lock().unwrap_or_else(PoisonError::into_inner);
                    if all.len() >= LINES {
                        all.remove(0);
                    }
                    all.push(crate::fmt::clean(line.trim_end()));
                    drop(all);
                    wake();
                }
                wake();
            });
        }
        Ok(Self { child, file: file.to_owned(), said, ended: None, rights })
    }

    /// What the recorder has said, one line after another.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it ended, in words; `None` while it runs.
    pub(crate) fn outcome(&mut self) -> Option<Result<(), String>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.map(|s| if s.success() { Ok(()) } else { Err(format!("the recorder failed ({s})")) })
    }

    /// Whether it still runs, as far as was looked last.
    pub(crate) fn runs(&self) -> bool {
        self.ended.is_none()
    }

    /// Asks the recorder to complete the capture and end, with the rights that it was started with: it belongs to root where these are not the
    /// viewer's own. Where that is refused, a line below what the recorder said has the command that does it by hand.
    pub(crate) fn stop(&self, wake: impl Fn() + Send + 'static) {
        let pid = self.child.id();
        let words = self.rights.stop_words(pid);
        let said = Arc::clone(&self.said);
        // pkexec waits for the user's answer, and the window goes on meanwhile.
        std::thread::spawn(move || {
            let Some((program, rest)) = words.split_first() else { return };
            // A signal by the system's own program needs no unsafe code here.
            let done = Command::new(program).args(rest).stdin(Stdio::null()).output();
            if !done.is_ok_and(|o| o.status.success()) {
                let text = format!(
                    "it could not be ended from here: `sudo kill -INT {pid}` in a terminal does that; else it ends after its time"
                );
                said.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
            wake();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_stopped_with_the_rights_that_it_was_started_with() {
        let words = |r: Rights| r.stop_words(17).join(" ");
        assert_eq!(words(Rights::Mine), "kill -INT 17");
        assert_eq!(words(Rights::Sudo), "sudo -n kill -INT 17");
        assert_eq!(words(Rights::Pkexec), "pkexec kill -INT 17");
    }

    #[test]
    fn a_recorder_that_is_stopped_ends_and_one_that_is_gone_says_how_else() {
        let dir = tempfile::tempdir().expect("a folder");
        // A program that was started in the background hands down that SIGINT is ignored, and a shell cannot trap a signal that is ignored when it starts.
        let shell =
            ["env", "--default-signal=INT", "sh", "-c", "trap 'exit 0' INT; while :; do sleep 0.05; done"];
        let words: Vec<String> = shell.map(str::to_owned).to_vec();
        let mut r = Recorder::start(&words, Rights::Mine, &dir.path().join("x"), || ()).expect("sh runs");
        assert!(r.runs() && r.outcome().is_none());
        let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
        while r.outcome().is_none() && std::time::Instant::now() < until {
            // The shell may not have set its trap yet.
            let (send, woken) = std::sync::mpsc::channel();
            r.stop(move || {
                send.send(()).ok();
            });
            woken.recv().ok();
        }
        assert_eq!(r.outcome().map(|o| o.is_ok() || r.ended.is_some()), Some(true));
        assert!(!r.runs());
        let (send, woken) = std::sync::mpsc::channel();
        r.stop(move || {
            send.send(()).ok();
        });
        woken.recv().ok();
        assert!(r.said().iter().any(|l| l.contains("could not be ended from here")), "{:?}", r.said());
    }
}
