//! The table of needs.

use crate::probe::{self, Probe};

/// Something that some tests need and that not every machine has.
#[derive(Debug)]
pub struct Need {
    /// What tests and `MMUSCOPE_REQUIRE` call it.
    pub name: &'static str,
    /// What tests do with it.
    pub purpose: &'static str,
    /// Debian packages that bring it; none where a package cannot.
    pub packages: &'static [&'static str],
    /// What a person does to get it where no package brings it.
    pub otherwise: &'static str,
    pub(crate) probe: Probe,
}

impl Need {
    /// Looks whether the machine has it now; the error says what is missing.
    pub fn probe(&self) -> Result<(), String> {
        self.probe.run()
    }

    /// How to get it, in words.
    pub fn install(&self) -> String {
        match (self.packages, self.otherwise) {
            ([], how) => how.to_owned(),
            (packages, "") => format!("apt-get install {}", packages.join(" ")),
            (packages, how) => format!("apt-get install {}; {how}", packages.join(" ")),
        }
    }
}

/// The need of this name.
///
/// # Panics
///
/// If there is none: the name is a mistake in a test or in `MMUSCOPE_REQUIRE`.
pub fn need(name: &str) -> &'static Need {
    NEEDS.iter().find(|n| n.name == name).unwrap_or_else(|| {
        let all: Vec<&str> = NEEDS.iter().map(|n| n.name).collect();
        panic!("`{name}` is no need; crates/needs/src/table.rs has {}", all.join(", "))
    })
}

const EXAMPLES: &str = "cargo builds it with the tests of crates/collector";

/// Every need. What depends on another stands below it.
pub const NEEDS: &[Need] = &[
    Need {
        name: "root",
        purpose: "to become another user",
        packages: &[],
        otherwise: "run the tests as root",
        probe: Probe::Function(probe::root),
    },
    Need {
        name: "nobody",
        purpose: "the messages for an ordinary user: programs of the build directory run as the user nobody",
        packages: &[],
        otherwise: "run the tests as root, with a build directory that everybody may enter",
        probe: Probe::Function(probe::nobody),
    },
    Need {
        name: "setpriv",
        purpose: "to start a program without privileges",
        packages: &["util-linux"],
        otherwise: "",
        probe: Probe::Programs(&["setpriv"]),
    },
    Need {
        name: "mount",
        purpose: "a small file system that runs full",
        packages: &["mount"],
        otherwise: "run the tests as root, where mounting is allowed",
        probe: Probe::Function(probe::mount),
    },
    Need {
        name: "kvm",
        purpose: "virtual machines",
        packages: &[],
        otherwise: "load the kernel's kvm_intel or kvm_amd module; run the tests as a user who may open /dev/kvm",
        probe: Probe::Opens("/dev/kvm"),
    },
    Need {
        name: "guest",
        purpose: "a virtual machine whose guest touches memory (the example vm_load)",
        packages: &[],
        otherwise: EXAMPLES,
        probe: Probe::Example("vm_load", &["0"]),
    },
    Need {
        name: "kvmmmu",
        purpose: "the kernel's tracepoints of KVM's MMU",
        packages: &[],
        otherwise: "mount tracefs on /sys/kernel/tracing; run the tests as root on a kernel with CONFIG_FTRACE and KVM",
        probe: Probe::Exists("/sys/kernel/tracing/events/kvmmmu"),
    },
    Need {
        name: "record",
        purpose: "to record KVM's tracepoints through perf_event_open (the example collect)",
        packages: &[],
        otherwise: "run the tests as root, outside of containers that forbid perf_event_open",
        probe: Probe::Example("collect", &["-q", "-o", "/dev/null", "--duration", "10ms"]),
    },
    Need {
        name: "perf",
        purpose: "a second opinion on perf.data",
        packages: &["linux-perf"],
        otherwise: "",
        probe: Probe::Function(probe::perf),
    },
    Need {
        name: "trace-cmd",
        purpose: "a second opinion on trace.dat",
        packages: &["trace-cmd"],
        otherwise: "",
        probe: Probe::Programs(&["trace-cmd"]),
    },
    Need {
        name: "cpio",
        purpose: "a second opinion on the lab's initramfs",
        packages: &["cpio"],
        otherwise: "",
        probe: Probe::Runs("cpio", &["--version"]),
    },
    Need {
        name: "duckdb",
        purpose: "a second opinion on Parquet",
        packages: &[],
        otherwise: "python3 -m pip install --target target/tools duckdb",
        probe: Probe::Function(probe::duckdb),
    },
    Need {
        name: "xvfb",
        purpose: "a display for the viewer's window, without a graphics card",
        packages: &["xvfb", "xauth", "libgl1-mesa-dri"],
        otherwise: "",
        probe: Probe::Programs(&["Xvfb", "xvfb-run", "xauth"]),
    },
    Need {
        name: "xwininfo",
        purpose: "what the title of the viewer's window says",
        packages: &["x11-utils"],
        otherwise: "",
        probe: Probe::Programs(&["xwininfo"]),
    },
];
