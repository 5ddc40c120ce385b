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

    /// Whether this program may end it before its time.
    pub(crate) fn can_stop(&self) -> bool {
        self.rights == Rights::Mine && self.ended.is_none()
    }

    /// Asks the recorder to complete the capture and end.
    pub(crate) fn stop(&self) {
        // A signal by the system's own program needs no unsafe code here.
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().ok();
    }
}
