//! Bad input: cut anywhere, with flipped bits, or made on purpose. Reading must not panic or hang, it must give what is there, and it must
//! report the rest.

use std::time::Instant;

use mmuscope_testing::write::format_text;
use mmuscope_trace::{Body, Compression, Error, Event, ReadOptions, StrId, Trace};

use crate::support::{dat, perf, plain, sample, small, text};

fn read(bytes: Vec<u8>) -> Result<Trace, Error> {
    Trace::from_bytes_with(bytes, "hostile", &ReadOptions { threads: 1, ..ReadOptions::default() })
}

/// Small files of every kind, each with a name.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let mut raw = small(40);
    // The tables of exit names are most of the formats; without them there are fewer offsets to cut at.
    for f in &mut raw.formats {
        f.print_fmt.truncate(100);
    }
    let v7 = |n: &str| std::fs::read(format!("{}/tests/fixtures/{n}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    vec![
        ("trace.dat v6", dat(&raw)),
        ("trace.dat v7 zstd", v7("small-v7-zstd.dat")),
        ("trace.dat v7 zlib", v7("small-v7-zlib.dat")),
        ("trace.dat v7 none", v7("small-v7-none.dat")),
        ("perf.data", perf(&raw, false, false)),
        ("perf.data zstd", perf(&raw, false, true)),
        ("perf pipe", perf(&raw, true, false)),
        ("perf pipe zstd", perf(&raw, true, true)),
        ("tracefs text", text(60).into_bytes()),
        ("text in zstd", zstd::encode_all(text(60).as_bytes(), 3).unwrap()),
    ]
}

#[test]
fn whole_files_are_clean() {
    for (name, bytes) in files() {
        let t = read(bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(t.info.damage, [], "{name}");
        assert!(t.events.len() >= 40, "{name}: {}", t.events.len());
    }
}

#[test]
fn cut_at_every_byte() {
    for (name, bytes) in files() {
        let whole = read(bytes.clone()).unwrap().events.len();
        let mut most = 0;
        for n in 0..bytes.len() {
            match read(bytes[..n].to_vec()) {
                Ok(t) => {
                    let own = t
                        .events
                        .iter()
                        .filter(|e| !matches!(e.body, mmuscope_trace::Body::Damage { .. }))
                        .count();
                    assert!(own <= whole, "{name} cut at {n}: {own} events of {whole}");
                    most = most.max(own);
                }
                Err(e) => {
                    let line = e.to_string();
                    assert!(
                        !line.contains('\n') && line.starts_with("hostile: "),
                        "{name} cut at {n}: {line}"
                    );
                }
            }
        }
        // A file with its index at the end cannot be read without it, and neither can a text so small that zstd makes a single block of it. Everything
        // else gives what is before the cut.
        if !matches!(name, "trace.dat v7 zstd" | "trace.dat v7 zlib" | "trace.dat v7 none" | "text in zstd") {
            assert!(most > 0, "{name}: nothing of a cut file was read");
        }
    }
}

#[test]
fn a_cut_file_says_so() {
    let raw = small(400);
    for (name, bytes) in
        [("v6", dat(&raw)), ("pipe", perf(&raw, true, false)), ("text", text(100).into_bytes())]
    {
        let t = read(bytes[..bytes.len() - 30].to_vec()).unwrap();
        assert!(t.info.is_partial() && !t.info.damage.is_empty(), "{name}");
        assert!(t.events.len() > 90, "{name}: {}", t.events.len());
    }
}

/// A xorshift generator, which makes the same flips in every run.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn a_hundred_thousand_flips() {
    let start = Instant::now();
    let mut rng = Rng(0x5eed);
    let files = files();
    let each = 100_000 / files.len();
    for (name, bytes) in files {
        let mut slowest = 0;
        for _ in 0..each {
            let mut b = bytes.clone();
            for _ in 0..=rng.next() % 3 {
                let at = rng.next() as usize % b.len();
                b[at] ^= 1 << (rng.next() % 8);
            }
            let before = Instant::now();
            if let Ok(t) = read(b) {
                // There must be no more events than the bytes could hold.
                assert!(t.events.len() < 100_000, "{name}: {} events", t.events.len());
            }
            slowest = slowest.max(before.elapsed().as_millis());
        }
        assert!(slowest < 5_000, "{name}: {slowest} ms for one file");
    }
    eprintln!("flips took {:?}", start.elapsed());
}

#[test]
fn flipped_whole_runs() {
    // A large file with a few damaged places gives nearly all of its events.
    let raw = small(3_000);
    let mut bytes = perf(&raw, true, false);
    let n = bytes.len();
    // The size of a record in the middle becomes 0; it is found by walking the records from the start.
    let mut at = 16;
    while at < n / 2 {
        let kind = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let size = usize::from(u16::from_le_bytes([bytes[at + 6], bytes[at + 7]]));
        let behind = if kind == 66 {
            u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize
        } else {
            0
        };
        at += size + behind;
    }
    bytes[at + 6] = 0;
    bytes[at + 7] = 0;
    let t = read(bytes).unwrap();
    assert_eq!(t.info.damage.len(), 1, "{:?}", t.info.damage);
    assert!(t.info.damage[0].resumed && t.info.damage[0].offset == at as u64);
    let own = t.events.len() - 1;
    assert!((2_990..3_000).contains(&own), "{own}");
}

#[test]
fn bombs_and_lies() {
    // This is a gigabyte of zeros in a few kilobytes, as a perf.data that needs random access.
    let mut z = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    std::io::Write::write_all(&mut z, b"PERFILE2\x68\0\0\0\0\0\0\0").unwrap();
    for _ in 0..256 {
        std::io::Write::write_all(&mut z, &vec![0u8; 4 << 20]).unwrap();
    }
    let e = read(z.finish().unwrap()).err().unwrap();
    assert!(matches!(e, Error::Unsupported { .. }), "{e}");
    // This file claims more CPUs than there can be.
    let raw = small(40);
    let mut d = dat(&raw);
    let tag = d.windows(10).position(|w| w == b"options  \0").unwrap();
    d[tag - 4..tag].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(d), Err(Error::Damaged { .. })));
}

#[test]
fn errors_are_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = |n: &str| dir.path().join(n);
    std::fs::write(path("empty"), b"").unwrap();
    std::fs::write(path("garbage"), [0xa5u8, 1, 2, 0, 0, 0, 0, 0, 9].repeat(100)).unwrap();
    std::fs::write(path("prose"), b"Dear diary,\ntoday I traced nothing.\n").unwrap();
    for (p, words) in [
        ("empty", "the file is empty"),
        ("garbage", "not a trace: it begins with the bytes a5 01"),
        ("prose", "not a trace: it is text without a line"),
        ("missing", "no such file"),
        (".", "a directory without trace data"),
    ] {
        let e = Trace::load(&[path(p)], &ReadOptions::default()).err().unwrap().to_string();
        assert!(
            e.starts_with(&path(p).display().to_string()) && e.contains(words) && !e.contains('\n'),
            "{p}: {e}"
        );
    }
}

/// A v7 file has its index at the end; what is before a cut is read nevertheless.
#[test]
fn cut_before_the_index() {
    let none =
        zstd::decode_all(std::fs::File::open(sample("6.1-npt/trace-v7-none.dat.zst")).unwrap()).unwrap();
    let packed = std::fs::read(sample("6.1-npt/trace.dat")).unwrap();
    // The index of the buffers is the options section after them: id 0 (u16), flags, string, and size.
    for whole in [packed, none] {
        let all = Trace::from_bytes(whole.clone(), "whole").unwrap();
        let text = |t: &Trace, cpu| {
            let own = t.events.iter().filter(|e| e.cpu == cpu && !matches!(e.body, Body::Damage { .. }));
            own.map(|e| plain(&e, &t.strings)).collect::<Vec<_>>()
        };
        let of_all = [text(&all, 0), text(&all, 1)];
        for (cut, least) in [(whole.len() - 150, 68_000), (whole.len() - 30_000, 50_000)] {
            let t = Trace::from_bytes(whole[..cut].to_vec(), "cut").unwrap();
            assert!(t.events.len() > least, "{} events of {}", t.events.len(), all.events.len());
            assert!(t.info.is_partial() && t.info.damage.iter().any(|d| d.message.contains("assumed")));
            for cpu in [0, 1] {
                let own = text(&t, cpu);
                assert!(of_all[usize::from(cpu)].starts_with(&own), "CPU {cpu}");
            }
        }
    }
}

/// A perf.data whose end is cut has lost its formats; with a folder of them its events can be read.
#[test]
fn formats_from_a_folder() {
    let raw = small(400);
    let whole = perf(&raw, false, false);
    let data_end = u64::from_le_bytes(whole[40..48].try_into().unwrap())
        + u64::from_le_bytes(whole[48..56].try_into().unwrap());
    let cut = whole[..data_end as usize].to_vec();
    let without = read(cut.clone()).unwrap();
    assert_eq!(without.events.iter().filter(|e| !matches!(e.body, Body::Damage { .. })).count(), 0);
    assert!(without.info.damage.iter().any(|d| d.message.contains("--formats")), "{:?}", without.info.damage);

    let dir = tempfile::tempdir().unwrap();
    for f in &raw.formats {
        let folder = dir.path().join("events").join(&f.system).join(&f.name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("format"), format_text(f)).unwrap();
    }
    let opts = ReadOptions { formats: Some(dir.path().to_path_buf()), ..ReadOptions::default() };
    let t = Trace::from_bytes_with(cut, "cut", &opts).unwrap();
    let events = |t: &Trace| {
        let own = t.events.iter().filter(|e| !matches!(e.body, Body::Damage { .. }));
        own.map(|e| plain(&Event { comm: StrId::default(), ..e }, &t.strings)).collect::<Vec<_>>()
    };
    let all = read(whole).unwrap();
    assert!(events(&t) == events(&all));
    assert!(events(&t).len() >= 400 && t.info.is_partial());
    assert!(t.info.notes.iter().any(|n| n.contains("assumed")), "{:?}", t.info.notes);

    let empty = tempfile::tempdir().unwrap();
    let opts = ReadOptions { formats: Some(empty.path().to_path_buf()), ..ReadOptions::default() };
    assert!(
        Trace::from_bytes_with(b"x".to_vec(), "x", &opts).is_err_and(|e| e.to_string().contains("format"))
    );
}

/// Many places with the same damage share one line.
#[test]
fn damage_in_few_lines() {
    let mut bytes = dat(&small(2_000));
    // The head of each ring page claims more data than a page has.
    let pages = bytes.len() / 4096;
    for page in (pages - 20..pages).map(|n| n * 4096) {
        bytes[page + 8..page + 12].copy_from_slice(&0xffff_u32.to_le_bytes());
    }
    let t = read(bytes).unwrap();
    assert!(t.info.damage.len() > 10, "{}", t.info.damage.len());
    let lines = t.info.damage_lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(&format!("{} more places", t.info.damage.len() - 1)), "{lines:?}");
}

#[test]
fn compression_inside_is_reported() {
    let raw = small(40);
    let inside = |bytes: Vec<u8>| read(bytes).unwrap().info.files[0].inside;
    assert_eq!(inside(perf(&raw, true, true)), Compression::Zstd);
    assert_eq!(inside(perf(&raw, true, false)), Compression::None);
    assert_eq!(inside(std::fs::read(sample("6.1-npt/trace.dat")).unwrap()), Compression::Zstd);
    assert_eq!(inside(dat(&raw)), Compression::None);
}

/// Counts of losses whose sum is no number are not added up beyond the largest one.
#[test]
fn losses_beyond_any_number() {
    let most = u64::MAX;
    let text = format!("CPU:0 [LOST {most} EVENTS]\nCPU:1 [LOST {most} EVENTS]\n{}", text(5));
    let lost = read(text.into_bytes()).unwrap().info.lost;
    assert_eq!((lost.moments, lost.total), (2, Some(most)));
}

/// The kernel prints the error number without its sign. The least number of its type has no negative.
#[test]
fn an_error_number_without_a_negative() {
    let line = "q-1 [000] 1.000000: kvm_userspace_exit: reason error (2147483648)\n";
    let t = read(line.as_bytes().to_vec()).unwrap();
    assert!(matches!(t.events.get(0).body, Body::UserspaceExit { reason: 0, errno: i32::MIN }));
}

/// Only a text that has events and the head of its tool shows that nothing was lost, because a fragment was cut out of a longer text.
#[test]
fn an_empty_text_knows_nothing_of_losses() {
    let t = read(b"# tracer: nop\n#\n# entries-in-buffer/entries-written: 0/0   #P:2\n".to_vec()).unwrap();
    assert_eq!((t.events.len(), t.info.lost.known, t.info.lost.total), (0, false, None));
    let fragment: String = text(5).lines().filter(|l| !l.starts_with('#')).flat_map(|l| [l, "\n"]).collect();
    let t = read(fragment.clone().into_bytes()).unwrap();
    assert_eq!((t.events.len(), t.info.lost.known, t.info.lost.total), (5, false, None));
    for head in ["# entries-in-buffer/entries-written: 5/5   #P:2\n", "cpus=2\n"] {
        let t = read([head, &fragment].concat().into_bytes()).unwrap();
        assert_eq!((t.info.lost.known, t.info.lost.total), (true, Some(0)), "{head}");
    }
}
