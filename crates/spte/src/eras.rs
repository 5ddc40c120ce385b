//! The eras of the SPTE format, read from `layouts/eras.toml`. The main type is [`Era`]; layouts and the judge select by it.

use alloc::{format, string::String, vec::Vec};

use crate::{
    Distro, Kernel, Mode,
    file::{self, FileError, Value},
};

const TEXT: &str = include_str!("../layouts/eras.toml");

/// What notes say of a release before the oldest era.
pub(crate) const OLDER: &str = "older than any kernel known here";

/// A run of releases that read and write every SPTE value in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Era {
    /// The name of the era: `E01` …
    pub id: &'static str,
    /// The family, whose members share their bit positions: `A` …
    pub family: &'static str,
    /// The first release, as `(major, minor)`.
    pub first: (u16, u16),
    /// The last release.
    pub last: (u16, u16),
    /// The change that began the era, in words.
    pub starts: &'static str,
    /// The subjects of the kernel commits that made it.
    pub subjects: Vec<&'static str>,
    /// Releases of this era that kernel.org maintained for years: a value of an unknown release more likely comes from one of them.
    pub long_term: Vec<&'static str>,
    /// Paging modes that no kernel before this era has.
    pub new_modes: Vec<Mode>,
}

impl Era {
    /// The releases in words: `5.13 – 5.18`.
    pub fn releases(&self) -> String {
        let (a, b) = (self.first, self.last);
        if a == b { format!("{}.{}", a.0, a.1) } else { format!("{}.{} – {}.{}", a.0, a.1, b.0, b.1) }
    }
}

pub(crate) fn release(text: &str) -> Option<(u16, u16)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Reads all eras, oldest first.
pub fn eras() -> Result<Vec<Era>, FileError> {
    let mut eras: Vec<Era> = Vec::with_capacity(16);
    for raw in file::read("eras.toml", TEXT)? {
        if eras.last().is_none_or(|e| e.id != raw.header) {
            eras.push(Era {
                id: raw.header,
                family: "",
                first: (0, 0),
                last: (0, 0),
                starts: "",
                subjects: Vec::new(),
                long_term: Vec::new(),
                new_modes: Vec::new(),
            });
        }
        let Some(era) = eras.last_mut() else { continue };
        let bad = || FileError {
            file: "eras.toml".into(),
            line: raw.line,
            reason: format!("{} is not what it should be", raw.key),
        };
        match (raw.key, raw.value) {
            ("family", Value::Text(text)) => era.family = text,
            ("first", Value::Text(text)) => era.first = release(text).ok_or_else(bad)?,
            ("last", Value::Text(text)) => era.last = release(text).ok_or_else(bad)?,
            ("starts", Value::Text(text)) => era.starts = text,
            ("subjects", Value::List(list)) => era.subjects = list,
            ("long_term", Value::List(list)) => era.long_term = list,
            ("new_modes", Value::List(list)) => {
                let modes = list.iter().map(|m| Mode::parse(m)).collect::<Option<_>>();
                era.new_modes = modes.ok_or_else(bad)?;
            }
            _ => return Err(bad()),
        }
    }
    Ok(eras)
}

/// Returns the index of a kernel's era, and adds to `notes` what its release string leaves open.
pub(crate) fn era_of(kernel: &Kernel, eras: &[Era], notes: &mut Vec<String>) -> usize {
    let by_release = |release: (u16, u16)| eras.iter().rposition(|e| e.first <= release).unwrap_or(0);
    let by_id = |id: &str| eras.iter().position(|e| e.id == id).unwrap_or(0);
    match kernel.distro {
        Distro::RedHat { el: 8, build } => {
            let (id, sure) = match build {
                ..=146 => ("E02", false),
                147..=239 => ("E06", false),
                240..=304 => ("E07", build == 240),
                305..=347 => ("E09", false),
                _ => ("E10", true),
            };
            notes.push(format!(
                "RHEL 8 kernels carry the KVM of much later releases: build {build} is read as {id}{}; the host's mask variables would settle it",
                if sure { "" } else { ", a guess" }
            ));
            return by_id(id);
        }
        Distro::RedHat { el, build } if el >= 9 => {
            let id = match (el, build) {
                (9, ..=161) => "E10",
                (9, _) => "E11",
                _ => "E12",
            };
            notes.push(format!(
                "RHEL {el} backports KVM from later releases: {id} is the oldest it can be; the host's mask variables would settle it"
            ));
            return by_id(id);
        }
        Distro::Suse => {
            notes
                .push("SUSE kernels backport KVM fixes: the release alone does not determine the era".into());
        }
        _ => {}
    }
    if let Some(first) = eras.first()
        && kernel.release() < first.first
    {
        notes.push(format!("{kernel} is {OLDER}: read as {}", first.id));
    }
    if let Some(last) = eras.last()
        && kernel.release() > last.last
    {
        notes.push(format!(
            "{kernel} is newer than any kernel known here (last: {}.{}): read as its newest layout, {}",
            last.last.0, last.last.1, last.id
        ));
    }
    match (kernel.release(), kernel.patch) {
        ((4, 14), Some(100..=300)) | ((4, 19), Some(100..=221)) | ((5, 4), Some(40..=285)) => notes.push(format!(
            "{}.{}.y took MMIO SPTE fixes of later releases somewhere on its way; where exactly {kernel} stands is an assumption",
            kernel.major, kernel.minor
        )),
        _ => {}
    }
    by_release(kernel.release())
}
