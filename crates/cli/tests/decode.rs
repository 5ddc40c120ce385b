//! `mmuscope decode` and `mmuscope layout` as programs: the vectors through the command line, pasted text, exit status.

#[path = "support/run.rs"]
mod run;

use run::run;
use std::process::Output;

use serde_json::Value;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Bool(b) => Some(u64::from(*b)),
        Value::Number(n) => n.as_u64(),
        Value::String(s) => u64::from_str_radix(s.strip_prefix("0x")?, 16).ok(),
        _ => None,
    }
}

#[test]
fn vectors_through_the_command_line() {
    let all: Value = serde_json::from_str(include_str!("../../spte/tests/spte-vectors.json")).expect("JSON");
    let mut wrong = Vec::new();
    for v in all["vectors"].as_array().expect("a list") {
        let h = &v["host"];
        let id = v["id"].as_str().expect("an id");
        let mode = match v["mode"].as_str().expect("a mode") {
            "ept_ad" => "ept",
            "ept_noad" => "ept-noad",
            "ept_nested_ad" => "nested-ept",
            "ept_nested_noad" => "nested-ept-noad",
            "npt_nested" => "nested-npt",
            "shadow_pae" => "shadow-pae",
            "tdx_shared" => "tdx-shared",
            "tdx_private" => "tdx-mirror",
            other => other,
        };
        let kernel = v["kernels"].as_str().and_then(|k| k.split("..").next()).expect("a release");
        let mut args: Vec<String> =
            ["decode", "--format", "jsonl", "--paging", mode, "--kernel", kernel].map(String::from).into();
        args.push(v["raw"].as_str().expect("a value").into());
        args.extend(["--level".into(), v["level"].to_string()]);
        for (key, option) in [
            ("vendor", "--vendor"),
            ("maxphyaddr", "--maxphyaddr"),
            ("x86_phys_bits", "--phys-bits"),
            ("x86_cache_bits", "--cache-bits"),
            ("c_bit", "--c-bit"),
            ("root_level", "--root-level"),
        ] {
            if !h[key].is_null() {
                args.extend([option.into(), h[key].to_string().replace('"', "")]);
            }
        }
        let flags = [
            (h["l1tf"] == true, "--l1tf"),
            (h["sme_me_mask"].as_u64().is_some_and(|m| m != 0), "--sme"),
            (h["ept_exec_only"] == false, "--no-exec-only"),
            (h["mmio_caching"] == false, "--no-mmio-caching"),
        ];
        args.extend(flags.iter().filter(|(on, _)| *on).map(|(_, option)| (*option).to_owned()));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = run(&args, "");
        assert!(output.status.success(), "{id}: {}", String::from_utf8_lossy(&output.stderr));
        let got: Value = serde_json::from_str(text(&output).trim()).expect("one object");
        for (key, want) in v["expect"].as_object().expect("an object") {
            let field = match key.as_str() {
                "ipat" => "ignore_pat",
                "gen" => "mmio_generation",
                "access" => "mmio_access",
                "me" => "encrypted",
                "rsvd_hit" => "reserved_bits",
                other => other,
            };
            let same = match want.as_str() {
                Some("leaf") => got[field] == "present",
                Some("nonleaf") => got[field] == "table",
                Some("frozen") => got[field] == "removed",
                Some("nonpresent-nonzero") => {
                    got[field] == "nonpresent" && got["notes"].to_string().contains("non-present, non-zero")
                }
                Some(word) if !word.starts_with("0x") => got[field] == word,
                _ => number(&got[field]) == number(want) && number(want).is_some(),
            };
            if !same {
                wrong.push(format!("{id} {key}: {} should be {want}", got[field]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_fields_of_the_contract_come_first_and_in_order() {
    let output = run(&["decode", "0x5a0", "--kernel", "6.1", "--paging", "ept", "--format", "jsonl"], "");
    let line = text(&output);
    let fields = "value layout state level pfn gfn r w x u accessed dirty ad_type host_writable mmu_writable access_tracked memtype \
                  ignore_pat mmio_generation mmio_access reserved_bits notes";
    let mut from = 0;
    for field in fields.split_whitespace() {
        let at = line[from..]
            .find(&format!("\"{field}\":"))
            .unwrap_or_else(|| panic!("{field} after {from} in {line}"));
        from += at;
    }
    let got: Value = serde_json::from_str(&line).expect("an object");
    assert_eq!(got["state"], "removed");
    for field in ["pfn", "gfn", "r", "accessed", "ad_type", "host_writable", "reserved_bits"] {
        assert!(got[field].is_null(), "{field} of a removed entry");
    }
}

const DUMP: &str = "\
[ 1834.221001] kvm: get_mmio_spte: reserved bits set on MMU-present spte, addr 0x7c00a10, hierarchy:
[ 1834.221004] kvm: ------ spte = 0x107b1e907 level = 4, rsvd bits = 0xfc000000000f8
[ 1834.221006] kvm: ------ spte = 0x107b1f907 level = 3, rsvd bits = 0xfc00000000078
[ 1834.221008] kvm: ------ spte = 0x107b20907 level = 2, rsvd bits = 0xfc00000000078------ spte = 0x600800123456b77 level = 1, rsvd bits = 0xfc00000000000
[ 1834.221012] ------------[ cut here ]------------
[ 1834.221020] CPU: 3 PID: 4711 Comm: qemu-system-x86 Tainted: G        W          6.1.0-13-amd64 #1  Debian 6.1.55-1
[ 1834.221021] RIP: 0010:handle_ept_misconfig+0x42/0x90 [kvm_intel]
[ 1834.221022] RAX: 0000000000000000 RBX: ffff888004b1c000 RCX: 0000000000000001
";

#[test]
fn a_dump_is_explained() {
    let output = run(&["decode"], DUMP);
    assert!(output.status.success());
    let said = text(&output);
    for part in [
        "kernel 6.1.55 (named in the text)",
        "guest address 0x7c00a10",
        "The level-1 entry has bit 47 set (0x800000000000)",
        "above the host's 46 physical address bits",
        "without it the value would be 0x0600000123456b77",
    ] {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }
    let output = run(&["decode", "--format", "jsonl"], DUMP);
    let lines: Vec<Value> =
        text(&output).lines().map(|l| serde_json::from_str(l).expect("an object")).collect();
    assert_eq!(lines.iter().map(|l| l["level"].clone()).collect::<Vec<_>>(), [4, 3, 2, 1]);
    assert_eq!(lines[3]["reserved_bits"], "0x800000000000");
}

#[test]
fn values_without_a_layout_are_judged_together() {
    // The leaf and the link above it of a 6.1 NPT host, and of a 7.3 EPT one as the reference has them.
    let got = |values: &[&str]| -> Value {
        let mut args = vec!["decode", "--format", "jsonl"];
        args.extend(values);
        serde_json::from_str(text(&run(&args, "")).lines().next().expect("a line")).expect("an object")
    };
    let npt = got(&["0x7e6fe67", "0x9c16a827"]);
    assert_eq!(
        (&npt["paging"], &npt["state"], &npt["pfn"]),
        (&"npt".into(), &"present".into(), &"0x7e6f".into())
    );
    let ept = got(&["0x80a0000123456f77", "0x80000000000001a0"]);
    assert_eq!((&ept["layout"], &ept["host_writable"]), (&"E14/ept".into(), &true.into()));
    let old = got(&["0x25e7f77", "0x300f80d0000016"]);
    assert!(old["layout"].as_str().is_some_and(|l| l.ends_with("/ept") && l < "E10"), "{old}");
}

#[test]
fn exit_status() {
    assert_eq!(
        run(&["decode", "--kernel", "6.1", "--paging", "ept"], "nothing here\n").status.code(),
        Some(2)
    );
    assert_eq!(run(&["layout", "diff", "E09/ept", "E10/ept"], "").status.code(), Some(1));
    assert_eq!(run(&["layout", "diff", "E10/ept", "5.18/ept"], "").status.code(), Some(0));
    assert_eq!(run(&["layout", "show", "E99/ept"], "").status.code(), Some(2));
    let names = text(&run(&["layout", "list", "--names"], ""));
    assert!(names.lines().count() > 110 && names.contains("E13/tdx-mirror\n"));
    assert!(text(&run(&["layout", "show", "C/npt", "--svg"], "")).starts_with("<svg"));
}

#[test]
fn a_bad_layout_file_is_told_by_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("mine.toml");
    std::fs::write(&file, "layout = 1\nextends = \"E11/ept\"\n[masks]\naccessed = \"b99\"\n")
        .expect("written");
    let output = run(&["decode", "0x1", "--layout", file.to_str().expect("UTF-8")], "");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("mine.toml:4: accessed takes a mask: `b99` is not a bit"), "{said}");
}

/// Files are text, or traces of any format; text from a file is text from standard input.
#[test]
fn files_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let table = "|level|index|addr|val|\n|--|--|--|--|\n|2|3|0xff2d950aa3a9d018|8aa3afa027|\n|1|511|0xff2d950aa3afaff8|8aa111e025|\n";
    let file = dir.path().join("walk.md");
    std::fs::write(&file, table).expect("a file");
    let path = file.to_str().expect("a path");
    let from_file = run(&["decode", path], "");
    assert_eq!(text(&from_file), text(&run(&["decode"], table)));
    assert!(text(&from_file).contains("A walk of the page tables"), "{}", text(&from_file));
    assert!(text(&from_file).contains("pfn 0x8aa111e"), "{}", text(&from_file));
    let levels = run(&["decode", "0x8aa3afa027", "level", "2", "0x8aa111e025@1", "--format", "jsonl"], "");
    let levels: Vec<Value> = text(&levels)
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).expect("JSON")["level"].clone())
        .collect();
    assert_eq!(levels, [2, 1]);
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/6.1-ept-ad/trace.dat");
    let trace = run(&["decode", sample, "--format", "jsonl"], "");
    assert!(trace.status.success() && text(&trace).lines().count() > 1000, "{:?}", trace.status);
    let both = run(&["decode", path, "0x1"], "");
    assert_eq!(both.status.code(), Some(2));
}

/// The point of a fragment is in the first lines, however a mail program broke it.
#[test]
fn the_point_of_a_fragment_comes_first() {
    let round = "> vmm-7  [001] ..... 5.000001: kvm_exit: vcpu 1 reason EPT_VIOLATION rip 0x1000\n\
                 > info1 0x0000000000000181 info2 0x0000000000000000 intr_info 0x00000000\n> error_code 0x00000000\n\
                 > vmm-7  [001] ..... 5.000001: kvm_page_fault: vcpu 1 rip 0x1000 address\n\
                 > 0x0000000000abc000 error_code 0x181\n\
                 > vmm-7  [001] ..... 5.000001: kvm_userspace_exit: reason error (14)\n";
    let out = run(&["summary", "-"], &round.repeat(2));
    let first: Vec<String> = text(&out).lines().take(10).map(str::to_owned).collect();
    let says = |what: &str| first.iter().any(|l| l.contains(what));
    assert!(says("2 read faults of vCPU 1 on gfn 0xabc") && says("-EFAULT to user space"), "{first:#?}");
    assert!(says("6 joined to the line before") && says("12 stripped of quote marks"), "{first:#?}");
}

/// A text whose events hold no value says what they show, and where more is.
#[test]
fn a_text_without_values_says_what_its_events_show() {
    let storm = "vmm-7  [001] ..... 5.000001: kvm_unmap_hva_range: mmu notifier unmap range: 0x007fbe64017000 -- 0x007fbe64018000\n";
    let out = run(&["decode"], &storm.repeat(20));
    assert!(out.status.success());
    let said = text(&out);
    assert!(
        said.starts_with(
            "This text has no SPTE value; its events show:\n  notifier-storm: 20 mmu_notifier events"
        ),
        "{said}"
    );
    let quiet = run(&["decode"], storm);
    assert_eq!(quiet.status.code(), Some(2));
    let error = String::from_utf8_lossy(&quiet.stderr).into_owned();
    assert!(error.contains("no SPTE value found") && error.contains("`mmuscope summary`"), "{error}");
}

/// A text that is given as an argument is judged as the same text on standard input is: no word of it becomes a value because it begins with 0x.
#[test]
fn a_text_as_argument_is_the_text_on_standard_input() {
    let head = "           vmm-7       [001] ..... 5.000001: ";
    let fault = "kvm_page_fault: vcpu 4 rip 0xffffffff81000000 address 0x0000000001000000 error_code 0x184";
    let exit = "kvm_exit: vcpu 4 reason EPT_VIOLATION rip 0xffffffff81000000 info1 0x0000000000000184 info2 0x0000000000000000 intr_info 0x00000000 \
                error_code 0x00000000";
    for text in [
        fault,
        exit,
        &format!("{head}{exit}\n{head}{fault}"),
        "[  8.15] kvm_intel: SEAMCALL TDH_MEM_PAGE_AUG failed: 0xc0000b0b00000001, rcx 0x1151b000, rdx 0x0",
        "BUG: unable to handle page fault for address: 0xffffc90000731000",
        "RAX: 0x0000000000000000 RBX: 0xffff888004b1c000",
        "what is 0x600000123456b77 then",
    ] {
        let (argument, input) = (run(&["decode", text], ""), run(&["decode"], text));
        let said = |o: &Output| (o.status.code(), text_of(&o.stdout), text_of(&o.stderr));
        assert_eq!(said(&argument), said(&input), "{text}");
        assert!(!text_of(&argument.stdout).contains("level 1"), "{text}: {}", text_of(&argument.stdout));
        assert_eq!(argument.status.code(), Some(2), "{text}");
    }
    // Values are values, however many and however written, and so are those that a text names.
    for (args, values) in [
        (&["0x8610000002ad5877"][..], 1),
        (&["8610000002ad5877", "5a0"], 2),
        (&["8610000002ad5877 0x5a0"], 2),
        (&["0x8610000002ad5877,", "0x5a0"], 2),
        (&["gfn", "2", "level", "1", "0x600000123456b77"], 1),
        (&["kvm_mmu_set_spte: gfn 2 spte 7e6fe67 (rwxu) level 1 at 9c16a010"], 1),
    ] {
        let out = run(&[&["decode", "--format", "jsonl"], args].concat(), "");
        assert_eq!(text(&out).lines().count(), values, "{args:?}: {}", text_of(&out.stderr));
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A text of events whose heads were cut says which events it has, and `summary` still explains its values.
#[test]
fn events_without_heads_are_named() {
    let fault = "kvm_page_fault: address fee00000 error_code 181\n";
    let spte = "kvm_mmu_set_spte: gfn 2 spte 600000123456b77 (rwxu) level 1\n";
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("commit.txt");
    let path = file.to_str().expect("a path");
    std::fs::write(&file, fault).expect("a file");
    for command in ["summary", "decode"] {
        let out = run(&[command, path], "");
        assert_eq!(out.status.code(), Some(2), "{command}");
        let error = text_of(&out.stderr);
        assert!(error.contains("1 line of kvm_page_fault without task, CPU and time"), "{command}: {error}");
    }
    std::fs::write(&file, format!("{fault}{spte}")).expect("a file");
    let said = text(&run(&["summary", path], ""));
    assert!(
        said.starts_with("This text has 2 lines of kvm_page_fault and kvm_mmu_set_spte without task"),
        "{said}"
    );
    assert!(said.contains("pfn 0x123456"), "{said}");
}

/// What was counted once is named in the singular.
#[test]
fn one_entry_of_a_page_table() {
    let table = "0xffff888004b1c000: 0x0000000000000000 0x8600000123456b77\n";
    let said = text(&run(&["decode"], table));
    assert!(
        said.contains("2 words of a page table") && said.contains("1 empty entry is not listed"),
        "{said}"
    );
    let said = text(&run(&["decode"], "0xffff888004b1c008: 0x8600000123456b77\n"));
    assert!(said.contains("1 word of a page table"), "{said}");
}

/// The kernel's dumps of walks begin with dashes, which are no options, and what is an option stays one.
#[test]
fn a_line_that_begins_with_dashes_is_a_text() {
    let line = "------ spte = 0x600000123456b77 level = 1, rsvd bits = 0xfc00000000000";
    for args in [["decode", line, "--kernel=6.1"], ["decode", "--kernel=6.1", line]] {
        let out = run(&args, "");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(text(&out).contains("0x0600000123456b77"), "{}", text(&out));
    }
    let out = run(&["decode", "--kernell=6.1", "0x600000123456b77"], "");
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("--kernell"));
}
