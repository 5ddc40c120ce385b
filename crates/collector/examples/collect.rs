//! The collector alone, without the rest of mmuscope: `collect [options] [-- COMMAND]`. It is small and quick to build, for machines and tests
//! that need only the recording side. Users have `mmuscope record`.

use std::process::ExitCode;

use mmuscope_collector::{
    Ended, Output, RecordOptions, Scope, doctor, host, parse_duration, parse_size, record,
};

fn options(args: Vec<String>) -> Result<RecordOptions, String> {
    let mut o = RecordOptions { argv: args.clone(), ..RecordOptions::default() };
    let mut it = args.into_iter().skip(1);
    while let Some(a) = it.next() {
        let mut value = || it.next().ok_or_else(|| format!("{a} needs a value"));
        match a.as_str() {
            "-o" => {
                let v = value()?;
                o.output = if v == "-" { Output::Stdout } else { Output::File(v.into()) };
            }
            "-e" => o.events = value()?,
            "--pid" => o.scope = Scope::Pid(value()?.parse().map_err(|e| format!("{e}"))?),
            "--vm" => o.scope = Scope::Vm(value()?),
            "--cgroup" => o.scope = Scope::Cgroup(value()?.into()),
            "--duration" => o.duration = Some(parse_duration(&value()?)?),
            "--max-size" => o.max_size = Some(parse_size(&value()?)?),
            "--buffer" => o.buffer = Some(parse_size(&value()?)?),
            "--level" => o.compression = Some(value()?.parse().map_err(|e| format!("{e}"))?),
            "--no-compress" => o.compression = None,
            "--flight" => o.flight = true,
            "--trigger" => o.trigger = Some(value()?.parse()?),
            "--after" => o.after = parse_duration(&value()?)?,
            "--snapshots" => o.snapshots = Some(value()?.parse().map_err(|e| format!("{e}"))?),
            "--anonymise" => o.anonymise = true,
            "--maps" => o.maps = true,
            "-q" => o.quiet = true,
            "--filter" => {
                let v = value()?;
                let (e, x) = v.split_once(':').ok_or("EVENT:EXPR")?;
                o.filters.push((e.into(), x.into()));
            }
            "--gfn" => {
                let v = value()?;
                let hex =
                    |s: &str| u64::from_str_radix(s.trim_start_matches("0x"), 16).map_err(|e| e.to_string());
                let (a, b) = v.split_once('-').unwrap_or((&v, &v));
                o.gfn = Some((hex(a)?, hex(b)?));
            }
            "--" => {
                o.command = it.by_ref().map(Into::into).collect();
            }
            _ => return Err(format!("unknown option {a}")),
        }
    }
    Ok(o)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("facts") => {
            for (k, v) in host::gather(host::Gather::default()).facts {
                println!("{k} {v}");
            }
            return ExitCode::SUCCESS;
        }
        Some("doctor") => {
            let report = doctor::examine();
            println!("{report}{}", report.verdict());
            return ExitCode::from(report.status());
        }
        _ => {}
    }
    let options = match options(args) {
        Ok(o) => o,
        Err(e) => {
            eprintln!("collect: {e}");
            return ExitCode::from(2);
        }
    };
    match record(&options) {
        Ok(summary) => {
            if !options.quiet || matches!(summary.ended, Ended::WriteFailed(_)) {
                eprint!("{summary}");
            }
            ExitCode::from(if matches!(summary.ended, Ended::WriteFailed(_)) { 2 } else { 0 })
        }
        Err(e) => {
            eprintln!("collect: {e}");
            ExitCode::from(2)
        }
    }
}
