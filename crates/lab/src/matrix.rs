//! `lab matrix`: hosts that are recorded one after the other, and the table of what is known of them. The function is [`run`].

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::run::{Begin, Run, example, work};

/// The rows where none is named: each kernel with each MMU and each kind of guest that it has, slots that change, VMs that end, a host without BTF,
/// and recorders that begin in the middle. Those in Bochs, which take longest, come last.
/// A host with a nested guest is not among them: it works on after its recording has ended, so that it has no end to compare with.
const ROWS: &[&str] = &[
    "5.10-npt",
    "5.10-npt+kvm.tdp_mmu=0",
    "5.10-shadow64",
    "5.10-shadow64+workload.guest=paging32",
    "5.10-shadow64+workload.guest=pae",
    "6.1-npt",
    "6.1-npt+kvm.tdp_mmu=0",
    "6.1-shadow64",
    "6.1-shadow64+workload.guest=paging32",
    "6.1-shadow64+workload.guest=pae",
    "6.12-npt",
    "6.12-legacy",
    "6.12-shadow64",
    "6.12-shadow32",
    "6.12-shadow32+workload.guest=pae",
    "6.16-npt",
    "6.16-npt+kvm.tdp_mmu=0",
    "6.16-npt+vendor.npt=0",
    "6.18-npt",
    "6.18-npt+kvm.tdp_mmu=0",
    "6.18-npt+vendor.npt=0",
    "6.18-shadow-pae",
    "6.18-shadow-pae+workload.guest=paging32",
    "7.3-npt",
    "7.3-npt+kvm.tdp_mmu=0",
    "7.3-shadow64",
    "7.3-shadow64+workload.guest=paging32",
    "7.3-shadow64+workload.guest=pae",
    "6.12-two-vms",
    "6.1-killed",
    "7.3-killed",
    "5.10-slots",
    "6.1-slots",
    "6.1-slots+vendor.npt=0",
    "6.18-slots-noquirk",
    "7.3-slots",
    "7.3-slots+vendor.npt=0",
    "5.10-shadow64+without-btf",
    "6.12-linux+vendor.npt=0",
    "5.10-npt+late",
    "5.10-shadow64+late",
    "6.1-npt+late",
    "6.1-shadow64+late",
    "6.12-npt+late",
    "6.12-shadow64+late",
    "7.3-npt+late",
    "7.3-shadow64+late",
    "5.10-ept",
    "6.1-ept",
    "6.12-ept",
    "6.18-ept",
    "7.3-ept",
];

/// How long the vCPUs of a late row race each other: a recorder begins meanwhile, also in an emulator.
const RACE: &str = "workload.race_ms=20000";

/// A row: a host, what is changed of it, when its recorder begins, and whether that sees the kernel's BTF.
struct Row<'a> {
    host: &'a str,
    settings: Vec<&'a str>,
    begin: Begin,
    btf: bool,
}

impl<'a> Row<'a> {
    fn of(text: &'a str) -> Self {
        let mut words = text.split('+');
        let mut row = Row {
            host: words.next().unwrap_or_default(),
            settings: Vec::new(),
            begin: Begin::First,
            btf: true,
        };
        for word in words {
            match word {
                "late" => {
                    row.begin = Begin::Late;
                    row.settings.push(RACE);
                }
                "without-btf" => row.btf = false,
                setting => row.settings.push(setting),
            }
        }
        row
    }
}

/// Records the rows, and prints their tables. A host that cannot be recorded is named, and the others go on.
pub(crate) fn run(rest: &[&str]) -> Result<()> {
    let named = rest.iter().take_while(|w| !w.starts_with('-')).count();
    let (rows, options) = rest.split_at(named);
    let rows = if rows.is_empty() { ROWS } else { rows };
    let (mut first, mut late, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (i, text) in rows.iter().enumerate() {
        eprintln!("row {} of {}: {text}", i + 1, rows.len());
        match record(text, options) {
            Ok((Begin::First, out)) => first.push(out),
            Ok((Begin::Late, out)) => late.push(out),
            Err(e) => {
                eprintln!("{text}: {e:#}");
                failed.push(*text);
            }
        }
    }
    let mut good = true;
    for (title, folders) in [(None, first), (Some("--late"), late)] {
        if !folders.is_empty() {
            let words = title.into_iter().map(PathBuf::from).chain(folders);
            good &= example("matrix", words, "not exact").is_ok();
        }
    }
    if !failed.is_empty() {
        bail!("not recorded: {}", failed.join(", "));
    }
    if !good {
        bail!("a recording does not know what the kernel's memory held");
    }
    Ok(())
}

/// Records one row; the result is where.
fn record(text: &str, options: &[&str]) -> Result<(Begin, PathBuf)> {
    let row = Row::of(text);
    let mut run = Run::parse(row.host, options)?;
    for s in &row.settings {
        run.host.set(s)?;
    }
    let phases = &run.host.workload.phases;
    if row.begin == Begin::Late && !phases.is_empty() && !phases.iter().any(|p| p.starts_with("race")) {
        bail!("its workload has no phase in which a late recorder begins");
    }
    run.out = work()?.join("matrix").join(text);
    run.record_ourselves("--events all", row.begin, row.btf)?;
    run.boot()?;
    Ok((row.begin, run.out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;

    #[test]
    fn a_row_is_a_host_with_settings() {
        let row = Row::of("6.18-npt+vendor.npt=0+late");
        assert_eq!((row.host, row.begin), ("6.18-npt", Begin::Late));
        assert_eq!(row.settings, ["vendor.npt=0", RACE]);
        let plain = Row::of("6.1-ept");
        assert_eq!((plain.begin, plain.btf, plain.settings.len()), (Begin::First, true, 0));
        let hidden = Row::of("5.10-shadow64+without-btf");
        assert_eq!((hidden.btf, hidden.settings.len()), (false, 0));
    }

    #[test]
    fn every_row_is_a_host_of_the_lab_that_takes_its_settings() -> Result<()> {
        for text in ROWS {
            let row = Row::of(text);
            let file = format!("{}/hosts/{}.toml", env!("CARGO_MANIFEST_DIR"), row.host);
            let mut host = Host::load(file.as_ref())?;
            for s in &row.settings {
                host.set(s)?;
            }
            assert!(!host.workload.nested, "{text}");
        }
        Ok(())
    }
}
