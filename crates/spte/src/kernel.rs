//! Kernel releases, parsed from `uname -r`, `/proc/version` or what the user types. The main type is [`Kernel`].

/// Who built a kernel, as far as its release string shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distro {
    /// It is from kernel.org, or nothing in the string says otherwise.
    Mainline,
    /// Debian, which follows a stable branch.
    Debian,
    /// Ubuntu, which follows a stable branch and adds more.
    Ubuntu,
    /// Red Hat and its rebuilds, which carry the KVM of much later releases under an old number.
    RedHat {
        /// The major release: 8, 9, 10.
        el: u8,
        /// The build number: 348 in `4.18.0-348.el8`.
        build: u16,
    },
    /// SUSE, which backports KVM fixes.
    Suse,
    /// Oracle UEK.
    Oracle,
}

/// A kernel release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The first number: 6 in 6.1.192.
    pub major: u16,
    /// The second number: 1 in 6.1.192.
    pub minor: u16,
    /// The third number: 192 in 6.1.192; `None` where the string does not give it (`6.1`, and distributions that keep it at 0).
    pub patch: Option<u16>,
    /// The distribution that built it.
    pub distro: Distro,
}

impl Kernel {
    /// A mainline release.
    pub const fn new(major: u16, minor: u16, patch: Option<u16>) -> Self {
        Self { major, minor, patch, distro: Distro::Mainline }
    }

    /// The pair `(major, minor)`, for comparisons.
    pub const fn release(&self) -> (u16, u16) {
        (self.major, self.minor)
    }

    /// Parses `6.1`, `v6.1.192`, `5.10.262-1-amd64`, `4.18.0-348.el8.x86_64`, or a whole `Linux version …` line.
    pub fn parse(text: &str) -> Option<Kernel> {
        let whole = text.trim();
        let text = whole.strip_prefix("Linux version").map_or(whole, str::trim_start);
        let text = text.split_whitespace().next()?;
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let mut kernel = Self::parse_numbers(text)?;
        // Debian gives the stable release only in the long form: "… (gcc-12 (Debian 12.2.0-14) …) … SMP Debian 6.1.192-1 (2026-11-14)".
        let stable = whole
            .split("Debian ")
            .skip(1)
            .filter_map(Self::parse_numbers)
            .find(|k| k.release() == kernel.release() && k.patch.is_some());
        if let Some(stable) = stable {
            return Some(Kernel { distro: Distro::Debian, ..stable });
        }
        let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if let Some(at) = suffix.find(".el") {
            let build = suffix[1..].split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok());
            let el =
                suffix[at + 3..].split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok());
            if suffix.contains("uek") {
                kernel.distro = Distro::Oracle;
            } else if let (Some(el), Some(build)) = (el, build) {
                kernel.distro = Distro::RedHat { el, build };
                kernel.patch = None;
            }
        } else if suffix.contains("uek") {
            kernel.distro = Distro::Oracle;
        } else if suffix.contains("-default") {
            kernel.distro = Distro::Suse;
        } else if let Some(rest) = suffix.strip_prefix('-')
            && rest.starts_with(|c: char| c.is_ascii_digit())
        {
            // "6.1.0-55-cloud-amd64" (Debian), "5.15.0-91-generic" (Ubuntu): the 0 is not the stable patch level.
            kernel.distro =
                if rest.contains("amd64") || rest.contains("686") { Distro::Debian } else { Distro::Ubuntu };
            if kernel.patch == Some(0) {
                kernel.patch = None;
            }
        } else if suffix.starts_with("-rc") {
            kernel.patch = None;
        }
        Some(kernel)
    }

    fn parse_numbers(text: &str) -> Option<Kernel> {
        let mut numbers = text.splitn(3, '.');
        let major = numbers.next()?.parse().ok()?;
        let tail = numbers.next()?;
        let digits =
            |s: &str| s.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse::<u16>().ok());
        let minor = digits(tail)?;
        let patch =
            if tail.chars().all(|c| c.is_ascii_digit()) { numbers.next().and_then(digits) } else { None };
        Some(Kernel { major, minor, patch, distro: Distro::Mainline })
    }
}

impl core::fmt::Display for Kernel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if let Some(patch) = self.patch {
            write!(f, ".{patch}")?;
        }
        match self.distro {
            Distro::RedHat { el, build } => write!(f, ".0-{build}.el{el}"),
            _ => Ok(()),
        }
    }
}
