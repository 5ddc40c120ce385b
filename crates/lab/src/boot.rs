//! Boots a host in its emulator and brings its results back. The main function is [`boot`].

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    fetch::Kernel,
    host::{Emulator, Host},
    initrd::program,
};

/// Boots a host; afterwards the results are in `out`. `Ok(false)` means that the host did not reach its end (see `console.txt`).
pub fn boot(host: &Host, kernel: &Kernel, initrd: &Path, out: &Path, limit: Duration) -> Result<bool> {
    fs::create_dir_all(out)?;
    match host.emulator {
        Emulator::Qemu => qemu(host, kernel, initrd, out, limit)?,
        Emulator::Bochs => bochs(host, kernel, initrd, out, limit)?,
    }
    let console = fs::read(out.join("console.txt")).unwrap_or_default();
    Ok(String::from_utf8_lossy(&console).contains("LAB-DONE"))
}

/// The CPU that QEMU emulates. Without CX16: where two emulated CPUs run in parallel, QEMU sometimes goes on with wrong flags after the
/// instruction, and the kernel's memory allocator, which uses it where it is there, ends in a double fault.
const QEMU_CPU: &str = "EPYC,+svm,+npt,-xsaves,-topoext,-cx16";

/// The kernel command line of the host.
fn cmdline(host: &Host) -> String {
    // With nokaslr, addresses in traces are the same from boot to boot; without mitigations the emulation is faster. Where this machine is busy, the
    // emulated timer is late, which the kernel would take for a timer that is not connected.
    let mut line = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check".to_owned();
    if host.emulator == Emulator::Bochs {
        line += " tsc=reliable";
    }
    // With shadow paging, many tables are named only by an address that text hides. (Switching the trace option hash-ptr off would show it without
    // a parameter of the kernel, but on 6.1 every string is then printed empty.)
    if host.shadows() {
        line += " no_hash_pointers";
    }
    if host.workload.backing == crate::host::Backing::Hugetlb1g {
        line += " hugepagesz=1G hugepages=1";
    }
    if !host.cmdline.is_empty() {
        line = format!("{line} {}", host.cmdline);
    }
    line
}

fn run(mut command: Command, what: &str, limit: Duration) -> Result<()> {
    let mut child = command.stdin(Stdio::null()).spawn().with_context(|| what.to_owned())?;
    let end = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            eprintln!("{what}: ended after {} s", limit.as_secs());
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn qemu(host: &Host, kernel: &Kernel, initrd: &Path, out: &Path, limit: Duration) -> Result<()> {
    let (disk, swap) = (out.join("disk.img"), out.join("swap.img"));
    File::create(&disk)?.set_len(512 << 20)?;
    File::create(&swap)?.set_len(128 << 20)?;
    let console = File::create(out.join("console.txt"))?;
    let mut c = Command::new(program("qemu-system-x86_64")?);
    if host.count_instructions {
        c.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
    } else {
        c.args(["-accel", "tcg,thread=multi"]);
    }
    c.args(["-M", "q35", "-nographic", "-no-reboot"]);
    c.args(["-m", &host.memory.to_string(), "-smp", &host.cpus.to_string()]);
    c.args(["-cpu", host.cpu.as_deref().unwrap_or(QEMU_CPU)]);
    c.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initrd).args(["-append", &cmdline(host)]);
    for image in [&disk, &swap] {
        // A comma in the path is written twice, because commas separate the options.
        let path = image.display().to_string().replace(',', ",,");
        c.arg("-drive").arg(format!("file={path},if=virtio,format=raw,cache=unsafe"));
    }
    c.stdout(console.try_clone()?).stderr(console);
    run(c, "qemu", limit)?;
    // Zeros follow the archive. A host that crashed wrote none; its console shows why.
    Command::new("tar")
        .args(["xf"])
        .arg(&disk)
        .arg("-C")
        .arg(out)
        .stderr(Stdio::null())
        .status()
        .context("tar")?;
    fs::remove_file(disk)?;
    fs::remove_file(swap)?;
    Ok(())
}

fn bochs(host: &Host, kernel: &Kernel, initrd: &Path, out: &Path, limit: Duration) -> Result<()> {
    let out = &out.canonicalize()?;
    let tree = out.join("iso");
    fs::create_dir_all(tree.join("isolinux"))?;
    for (from, to) in [
        (kernel.image.as_path(), "kernel"),
        (initrd, "initrd"),
        (Path::new("/usr/lib/ISOLINUX/isolinux.bin"), "isolinux/isolinux.bin"),
        (Path::new("/usr/lib/syslinux/modules/bios/ldlinux.c32"), "isolinux/ldlinux.c32"),
    ] {
        fs::copy(from, tree.join(to)).with_context(|| from.display().to_string())?;
    }
    let menu = format!(
        "default lab\nprompt 0\nlabel lab\n kernel /kernel\n append initrd=/initrd {}\n",
        cmdline(host)
    );
    fs::write(tree.join("isolinux/isolinux.cfg"), menu)?;
    let iso = out.join("boot.iso");
    let made = Command::new(program("xorriso")?)
        .args(["-as", "mkisofs", "-quiet", "-o"])
        .arg(&iso)
        .args([
            "-b",
            "isolinux/isolinux.bin",
            "-c",
            "isolinux/boot.cat",
            "-no-emul-boot",
            "-boot-load-size",
            "4",
            "-boot-info-table",
        ])
        .arg(&tree)
        .stderr(Stdio::null())
        .status()?;
    if !made.success() {
        bail!("xorriso could not make a boot image");
    }
    // Haswell has EPT with A/D bits, a 40-bit physical address space and the L1TF bug, and no feature on which new kernels fail in this emulator.
    let settings = format!(
        "cpu: model={}, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1\n\
         memory: guest={mem}, host={mem}\n\
         romimage: file=/usr/share/bochs/BIOS-bochs-latest\n\
         vgaromimage: file=/usr/share/vgabios/vgabios.bin\n\
         ata0-master: type=cdrom, path={}, status=inserted\n\
         boot: cdrom\n\
         com1: enabled=1, mode=file, dev={}\n\
         port_e9_hack: enabled=1\n\
         sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy\n\
         clock: sync=none, time0=local\n\
         display_library: rfb, options=\"timeout=0\"\n\
         log: {}\n\
         panic: action=fatal\nerror: action=ignore\ninfo: action=ignore\ndebug: action=ignore\n",
        host.cpu.as_deref().unwrap_or("corei7_haswell_4770"),
        iso.display(),
        out.join("console.txt").display(),
        out.join("bochs.log").display(),
        mem = host.memory.min(1024),
    );
    let (rc, go, bytes) = (out.join("bochsrc"), out.join("go"), out.join("e9.bin"));
    fs::write(&rc, settings)?;
    // Debian's build of Bochs stops at a debugger prompt first.
    fs::write(&go, "c\n")?;
    let mut c = Command::new(program("bochs-bin").or_else(|_| program("bochs"))?);
    c.arg("-q")
        .arg("-rc")
        .arg(&go)
        .arg("-f")
        .arg(&rc)
        .stdout(File::create(&bytes)?)
        .stderr(File::create(out.join("bochs.err"))?);
    run(c, "bochs", limit)?;
    let sent = fs::read(&bytes)?;
    if let Some(at) = sent.windows(3).position(|w| w == [0x1f, 0x8b, 8]) {
        let mut tar = Vec::new();
        // The archive is followed by Bochs' own output. If the host crashed in the middle, its console shows it.
        let _ = flate2::read::GzDecoder::new(&sent[at..]).read_to_end(&mut tar);
        let mut x = Command::new("tar")
            .args(["x", "-C"])
            .arg(out)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(mut pipe) = x.stdin.take() {
            let _ = pipe.write_all(&tar);
        }
        x.wait()?;
    }
    for f in [iso, rc, go, bytes, out.join("bochs.log"), out.join("bochs.err")] {
        let _ = fs::remove_file(f);
    }
    fs::remove_dir_all(tree)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_follows_the_host() -> Result<()> {
        let mut host: Host =
            toml::from_str("about = 'x'\nkernel = 'linux-image-6.12'\ncmdline = 'maxcpus=1'")?;
        assert!(cmdline(&host).ends_with(" maxcpus=1"));
        assert!(!cmdline(&host).contains("no_hash_pointers"));
        host.set("vendor.npt=0")?;
        host.set("workload.backing=hugetlb1g")?;
        host.set("emulator=bochs")?;
        for word in ["no_hash_pointers", "hugepagesz=1G hugepages=1", "tsc=reliable"] {
            assert!(cmdline(&host).contains(word), "{word} is missing");
        }
        Ok(())
    }

    #[test]
    fn an_emulator_that_hangs_is_ended() -> Result<()> {
        let begin = Instant::now();
        let mut sleeper = Command::new("sleep");
        sleeper.arg("60");
        run(sleeper, "sleep", Duration::from_millis(300))?;
        assert!(begin.elapsed() < Duration::from_secs(30));
        Ok(())
    }
}
