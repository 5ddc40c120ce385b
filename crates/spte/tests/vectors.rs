//! Test vectors from an independent model of the kernel's functions; every field and every mask is compared.

use std::collections::BTreeSet;

use mmuscope_spte::{
    AdType, HostSpec, Kernel, Known, LayoutSpec, MaskName, Mode, Resolved, State, Vendor, eras,
};
use serde_json::Value;

fn vectors() -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("spte-vectors.json")).expect("the vectors are JSON");
    assert_eq!(all["format"], 1);
    all["vectors"].as_array().expect("a list").clone()
}

fn hex(value: &Value) -> u64 {
    let text = value.as_str().expect("hex as a string");
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hex")
}

fn resolve(v: &Value, kernel: Option<&str>) -> Resolved {
    let h = &v["host"];
    let byte = |key: &str| h[key].as_u64().map(|n| Known::given(n as u8));
    let flag = |key: &str| h[key].as_bool().map(Known::given);
    let spec = LayoutSpec {
        kernel: kernel.map(|k| Known::given(Kernel::parse(k).expect("a release"))),
        era: kernel.is_none().then(|| Known::given(v["era"].as_str().expect("an era").to_owned())),
        mode: Some(Known::given(Mode::parse(v["mode"].as_str().expect("a mode")).expect("a known mode"))),
        host: HostSpec {
            vendor: h["vendor"].as_str().and_then(Vendor::parse).map(Known::given),
            maxphyaddr: byte("maxphyaddr"),
            phys_bits: byte("x86_phys_bits"),
            cache_bits: byte("x86_cache_bits"),
            l1tf: flag("l1tf"),
            c_bit: byte("c_bit"),
            sme: h["sme_me_mask"].as_u64().map(|m| Known::given(m != 0)),
            exec_only: flag("ept_exec_only"),
            mmio_caching: flag("mmio_caching"),
            root_level: byte("root_level"),
            ..HostSpec::default()
        },
        ..LayoutSpec::default()
    };
    spec.resolve().unwrap_or_else(|e| panic!("{}: {e}", v["id"]))
}

fn check(v: &Value, resolved: &Resolved, wrong: &mut Vec<String>) {
    let id = v["id"].as_str().expect("an id");
    let e = &v["expect"];
    let d = resolved.layout.decode(hex(&v["raw"]), v["level"].as_u64().expect("a level") as u8);
    let mut eq = |what: &str, ours: Option<u64>, theirs: u64| {
        if ours != Some(theirs) {
            wrong.push(format!("{id} {what}: {ours:x?}, should be {theirs:x}"));
        }
    };
    let number = |value: &Value| -> u64 {
        value.as_u64().or(value.as_bool().map(u64::from)).unwrap_or_else(|| hex(value))
    };
    let bit = |b: Option<bool>| b.map(u64::from);
    for (key, value) in e.as_object().expect("an object") {
        match key.as_str() {
            "state" => {
                let ours = match (d.state, d.nonzero_nonpresent) {
                    (State::Present, _) => "leaf",
                    (State::Table, _) => "nonleaf",
                    (State::Removed, _) => "frozen",
                    (State::Mmio, _) => "mmio",
                    (State::Nonpresent, false) => "nonpresent",
                    (State::Nonpresent, true) => "nonpresent-nonzero",
                };
                eq("state", Some(u64::from(value == ours)), 1);
            }
            "ad_type" => eq(
                "ad_type",
                Some(u64::from(Some(value.as_str().expect("text")) == d.ad_type.map(AdType::name))),
                1,
            ),
            "pfn" => eq("pfn", d.pfn, number(value)),
            "gfn" => eq("gfn", d.gfn, number(value)),
            "gen" => eq("gen", d.mmio_generation.map(u64::from), number(value)),
            "access" => eq("access", d.mmio_access.map(u64::from), number(value)),
            "r" => eq("r", bit(d.r), number(value)),
            "w" => eq("w", bit(d.w), number(value)),
            "x" => eq("x", bit(d.x), number(value)),
            "u" => eq("u", bit(d.u), number(value)),
            "xu" => eq("xu", bit(d.xu), number(value)),
            "me" => eq("me", bit(d.encrypted), number(value)),
            "memtype" => eq("memtype", d.memtype.map(u64::from), number(value)),
            "ipat" => eq("ipat", bit(d.ignore_pat), number(value)),
            "suppress_ve" => eq("suppress_ve", bit(d.suppress_ve), number(value)),
            "host_writable" => eq("host_writable", bit(d.host_writable), number(value)),
            "mmu_writable" => eq("mmu_writable", bit(d.mmu_writable), number(value)),
            "accessed" => eq("accessed", bit(d.accessed), number(value)),
            "dirty" => eq("dirty", bit(d.dirty), number(value)),
            "access_tracked" => eq("access_tracked", bit(d.access_tracked), number(value)),
            "restored" => eq("restored", d.restored, number(value)),
            "fast_write_fixable" => eq("fixable", Some(u64::from(d.fast_write_fixable)), number(value)),
            "rsvd_hit" => eq("rsvd_hit", Some(d.reserved_bits), number(value)),
            "bad_mt_xwr" => eq("bad_mt_xwr", Some(u64::from(d.bad_mt_xwr)), number(value)),
            other => eq(other, None, u64::MAX),
        }
    }
    for (key, value) in v["masks"].as_object().expect("an object") {
        let name = MaskName::parse(key).unwrap_or_else(|| panic!("mask {key}"));
        eq(key, Some(resolved.layout.masks.get(name)), number(value));
    }
}

#[test]
fn every_vector_by_era() {
    let mut wrong = Vec::new();
    for v in vectors() {
        check(&v, &resolve(&v, None), &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_vector_by_each_release_of_its_era() {
    let eras = eras().expect("the shipped eras");
    let mut wrong = Vec::new();
    let mut releases = BTreeSet::new();
    for v in vectors() {
        let era = eras.iter().find(|e| v["era"] == e.id).expect("a known era");
        // The list of releases is spelled out because a major number may end inside the era.
        let last_minor_of = |major: u16| match major {
            4 => 20,
            5 | 6 => 19,
            _ => 3,
        };
        let (mut major, mut minor) = era.first;
        while (major, minor) <= era.last {
            let kernel = format!("{major}.{minor}");
            check(&v, &resolve(&v, Some(&kernel)), &mut wrong);
            releases.insert((major, minor));
            (major, minor) = if minor == last_minor_of(major) { (major + 1, 0) } else { (major, minor + 1) };
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(releases.len() > 40, "only {} releases tried", releases.len());
}
