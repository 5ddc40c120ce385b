//! From what is known (kernel, paging mode, host, measured masks) to a [`Layout`]: the computation the kernel does at module load.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    AdRule, Era, FixRule, Format, Host, HostSpec, Kernel, Known, Layout, MaskName, Masks, Mode, Name,
    PresentRule, Provenance, Vendor,
    bits::{self, Field},
    eras,
    file::{self, File, FileError, Item, SCHEMA, Scope, Value},
    layouts::{self, Library},
    mmio,
};

/// Why no layout could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A mistake in a layout file.
    File(FileError),
    /// No shipped layout has this name.
    UnknownLayout(String),
    /// Neither mode nor layout are known.
    NoMode,
    /// A kernel variable nobody knows.
    UnknownMask(String),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Error::File(error) => error.fmt(f),
            Error::UnknownLayout(name) => write!(
                f,
                "no layout is called `{name}`: names are ERA/MODE, FAMILY/MODE or RELEASE/MODE, as E10/ept, C/npt or 6.1/npt"
            ),
            Error::NoMode => write!(f, "the paging mode is not known: name it (ept, npt, shadow64 …)"),
            Error::UnknownMask(name) => write!(f, "`{name}` is not a mask variable of KVM"),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Error::File(error) => Some(error),
            _ => None,
        }
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Error::File(error)
    }
}

/// What is known about the layout of some values; resolve it to decode.
#[derive(Clone, Debug, Default)]
pub struct LayoutSpec {
    /// The kernel.
    pub kernel: Option<Known<Kernel>>,
    /// The era, where it is known better than the kernel tells.
    pub era: Option<Known<String>>,
    /// The paging mode.
    pub mode: Option<Known<Mode>>,
    /// The host.
    pub host: HostSpec,
    /// Mask variables read from the kernel or said by the user.
    pub masks: Vec<(MaskName, Known<u64>)>,
    /// A layout file of the user's: its name and its text.
    pub file: Option<(String, String)>,
    /// First and last release it can be, where something proves that much (the wording of a log line).
    pub releases: Option<((u16, u16), (u16, u16))>,
}

/// A layout, and where each part of it comes from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The layout.
    pub layout: Layout,
    /// Its era (`E10`), where it has one.
    pub era: Option<Known<&'static str>>,
    /// The kernel, where known.
    pub kernel: Option<Known<Kernel>>,
    /// Where the paging mode comes from.
    pub mode_from: Provenance,
    /// The host, every part decided.
    pub host: Host,
    /// Where each mask comes from, in the order of [`MaskName::ALL`].
    pub masks_from: Vec<Provenance>,
    /// What a reader should know about this layout.
    pub notes: Vec<String>,
}

impl Resolved {
    /// Where a mask comes from.
    pub fn mask_from(&self, name: MaskName) -> Provenance {
        let at = MaskName::ALL.iter().position(|&m| m == name).unwrap_or(0);
        self.masks_from.get(at).copied().unwrap_or(Provenance::Assumed)
    }
}

impl LayoutSpec {
    /// A spec for a shipped layout by name: `E10/ept`, `C/npt`, `6.1/npt`, or an alias such as `E10/ept-ad`.
    pub fn named(name: &str) -> Result<LayoutSpec, Error> {
        let unknown = || Error::UnknownLayout(name.to_owned());
        let (kernel, mode) = name.split_once('/').ok_or_else(unknown)?;
        let mode = Mode::parse(mode).ok_or_else(unknown)?;
        let mut spec = LayoutSpec { mode: Some(Known::given(mode)), ..LayoutSpec::default() };
        let eras = eras::eras()?;
        if let Some(era) = eras
            .iter()
            .rev()
            .find(|e| e.id.eq_ignore_ascii_case(kernel) || e.family.eq_ignore_ascii_case(kernel))
        {
            spec.era = Some(Known::given(era.id.to_owned()));
        } else {
            spec.kernel = Some(Known::given(Kernel::parse(kernel).ok_or_else(unknown)?));
        }
        Ok(spec)
    }

    /// Takes the value of a kernel variable: a mask, or one of the variables a mask or host fact follows from
    /// (`shadow_phys_bits`, `sme_me_mask`, `kvm_ad_enabled` …). `false` for names that mean nothing here.
    pub fn set_variable(&mut self, name: &str, value: u64, from: Provenance) -> bool {
        let flag = value & 0xff != 0;
        match name {
            "shadow_phys_bits" => self.host.maxphyaddr = Some(Known { value: value as u8, from }),
            "kvm_ad_enabled" | "enable_ept_ad_bits" => {
                let mode = if flag { Mode::Ept } else { Mode::EptNoAd };
                self.mode.get_or_insert(Known { value: mode, from });
            }
            "sme_me_mask" => {
                self.host.sme = Some(Known { value: value != 0, from });
                if value != 0 {
                    self.host.c_bit = Some(Known { value: value.trailing_zeros() as u8, from });
                }
            }
            _ => {
                let Some(mask) = MaskName::parse(name) else { return false };
                self.masks.retain(|(m, _)| *m != mask);
                self.masks.push((mask, Known { value, from }));
            }
        }
        true
    }

    /// Reads lines `name value` or `name ok value` (values in hex, with or without 0x); anything else is skipped.
    /// Returns how many variables were understood.
    pub fn set_variables(&mut self, text: &str, from: Provenance) -> usize {
        let mut count = 0;
        for line in text.lines() {
            let mut words =
                line.split(|c: char| c.is_whitespace() || c == '=' || c == ':').filter(|w| !w.is_empty());
            let (Some(name), Some(mut value)) = (words.next(), words.next()) else { continue };
            if value == "ok" {
                let Some(next) = words.next() else { continue };
                value = next;
            }
            let value = match value {
                "Y" => Some(1),
                "N" => Some(0),
                hex => u64::from_str_radix(hex.strip_prefix("0x").unwrap_or(hex), 16).ok(),
            };
            if let Some(value) = value {
                count += usize::from(self.set_variable(name, value, from));
            }
        }
        count
    }

    /// The paging mode that given masks prove, if they do.
    pub fn mode_of_masks(&self) -> Option<Mode> {
        let get = |name| self.masks.iter().find(|(m, _)| *m == name).map(|(_, k)| k.value);
        let (nx, x) = (get(MaskName::Nx), get(MaskName::X));
        match (nx, x, get(MaskName::AccTrack)) {
            (Some(0), Some(4), _) | (Some(0), _, Some(1..)) => {
                Some(if get(MaskName::Accessed) == Some(0) { Mode::EptNoAd } else { Mode::Ept })
            }
            _ => None,
        }
    }

    /// The newest era whose variables look like the given ones, if they tell.
    pub fn era_of_masks(&self) -> Option<&'static str> {
        let get = |name| self.masks.iter().find(|(m, _)| *m == name).map(|(_, k)| k.value);
        if let Some(host_writable) = get(MaskName::HostWritable) {
            let suppress = get(MaskName::Present).is_some_and(|p| p >> 63 != 0);
            return match host_writable {
                0x0020_0000_0000_0000 => Some("E14"),
                0x0200_0000_0000_0000 if suppress && get(MaskName::Accessed) == Some(0) => Some("E12"),
                0x0200_0000_0000_0000 if suppress => Some("E13"),
                0x0200_0000_0000_0000 => Some("E11"),
                0x400 => Some("E08"),
                0x200 if get(MaskName::Xu).is_some() => Some("E14"),
                _ => None,
            };
        }
        let value = get(MaskName::MmioValue)?;
        if value >> 52 & 3 == 3 {
            Some("E08")
        } else if value >> 62 & 1 == 1 {
            Some("E03")
        } else {
            None
        }
    }

    /// Makes the layout.
    pub fn resolve(&self) -> Result<Resolved, Error> {
        self.resolve_in(&Library::new())
    }

    /// Makes the layout out of files that `library` may have read already.
    pub fn resolve_in(&self, library: &Library) -> Result<Resolved, Error> {
        let mut notes = Vec::new();
        let eras = library.eras()?;
        let user_file = match &self.file {
            Some((name, text)) => Some(File::parse(name, text)?),
            None => None,
        };

        let mode_of_file = match &user_file {
            Some(file) => file_mode(file)?,
            None => None,
        };
        let mode = self
            .mode
            .or(mode_of_file.map(Known::given))
            .or_else(|| self.mode_of_masks().map(Known::inferred))
            .ok_or(Error::NoMode)?;

        let era = self.pick_era(user_file.as_ref(), eras, &mut notes)?;
        // Which release decides the `since` tables: the given kernel, else the last release of the era.
        let kernel = self.kernel.map_or_else(
            || Kernel::new(eras[era.value].last.0, eras[era.value].last.1, None),
            |k| {
                if self.era.is_some() || matches!(k.value.distro, crate::Distro::RedHat { .. }) {
                    Kernel::new(eras[era.value].last.0, eras[era.value].last.1, None)
                } else {
                    k.value
                }
            },
        );

        let mut settings = Settings { list: [None; SCHEMA.len()], notes: Vec::new(), depth: 0 };
        let when = When { library, eras, era: era.value, kernel: &kernel };
        let name;
        if let Some(file) = &user_file {
            settings.add_file(file, &when)?;
            name = Name::new(file.text("name").or(file.text("title")).unwrap_or(file.name));
        } else {
            let (family, note) = family_with(eras, era.value, mode.value)?;
            notes.extend(note);
            settings.add_file(library.file(family, mode.value.name())?, &when)?;
            name = Name::new(&format!("{}/{}", eras[era.value].id, mode.value.name()));
        }
        notes.append(&mut settings.notes);
        let host = self.host(mode.value, &settings, &mut notes)?;
        let (layout, masks_from) = self.build(name, mode.value, &settings, &host, &mut notes)?;
        Ok(Resolved {
            layout,
            era: Some(Known { value: eras[era.value].id, from: era.from }),
            kernel: self.kernel,
            mode_from: mode.from,
            host,
            masks_from,
            notes,
        })
    }

    fn pick_era(
        &self,
        file: Option<&File<'_>>,
        eras: &[Era],
        notes: &mut Vec<String>,
    ) -> Result<Known<usize>, Error> {
        let by_id = |id: &str| eras.iter().position(|e| e.id.eq_ignore_ascii_case(id));
        if let Some(era) = &self.era {
            let at = by_id(&era.value).ok_or_else(|| Error::UnknownLayout(era.value.clone()))?;
            return Ok(Known { value: at, from: era.from });
        }
        if let Some(kernel) = self.kernel {
            return Ok(Known { value: eras::era_of(&kernel.value, eras, notes), from: kernel.from });
        }
        if let Some(file) = file {
            let base = file.text("extends").and_then(|e| e.split_once('/')).map(|(family, _)| family);
            if let Some(at) = base.or(file.text("family")).and_then(|f| {
                by_id(f).or_else(|| eras.iter().rposition(|e| e.family.eq_ignore_ascii_case(f)))
            }) {
                return Ok(Known::given(at));
            }
        }
        if let Some(at) = self.era_of_masks().and_then(by_id) {
            return Ok(Known::inferred(at));
        }
        if let Some((_, last)) = self.releases
            && let Some(at) = eras.iter().rposition(|e| e.first <= last)
        {
            return Ok(Known::assumed(at));
        }
        notes.push("no kernel release given: the newest layout is assumed".into());
        Ok(Known::assumed(eras.len().saturating_sub(1)))
    }

    fn host(&self, mode: Mode, settings: &Settings<'_>, notes: &mut Vec<String>) -> Result<Host, Error> {
        let h = &self.host;
        let vendor = h.vendor.unwrap_or_else(|| {
            let amd = matches!(mode, Mode::Npt | Mode::NestedNpt)
                || mode.format() == Format::Legacy && (h.c_bit.is_some() || h.sme.is_some_and(|s| s.value));
            let sure = mode.format() == Format::Ept || amd;
            let vendor = if amd { Vendor::Amd } else { Vendor::Intel };
            if sure { Known::inferred(vendor) } else { Known::assumed(vendor) }
        });
        let usual = if vendor.value == Vendor::Amd { 48 } else { 46 };
        let limit = |k: Known<u8>| Known { value: k.value.min(52), ..k };
        let maxphyaddr = limit(h.maxphyaddr.or(h.phys_bits).unwrap_or(Known::assumed(usual)));
        let phys_bits = limit(
            h.phys_bits.unwrap_or(Known { from: Provenance::Inferred.min(maxphyaddr.from), ..maxphyaddr }),
        );
        let cache_bits = limit(
            h.cache_bits.unwrap_or(Known { from: Provenance::Inferred.min(maxphyaddr.from), ..maxphyaddr }),
        );
        let mut c_bit = h.c_bit;
        let sme = h.sme.unwrap_or(Known::assumed(false));
        if sme.value && c_bit.is_none() {
            c_bit = Some(Known::assumed(47));
            notes.push("SME is on but the C-bit position is not given: 47 is assumed".into());
        }
        let root = settings.number("host", "root_level")?.unwrap_or(4) as u8;
        Ok(Host {
            vendor,
            maxphyaddr,
            phys_bits,
            cache_bits,
            l1tf: h.l1tf.unwrap_or(Known::assumed(false)),
            c_bit,
            sme,
            mem_encrypt: h.mem_encrypt.unwrap_or(Known::inferred(c_bit.is_some())),
            exec_only: h.exec_only.unwrap_or(Known::assumed(true)),
            mmio_caching: h.mmio_caching.unwrap_or(Known::assumed(true)),
            pages_1g: h.pages_1g.unwrap_or(Known::assumed(true)),
            root_level: h.root_level.unwrap_or(Known::inferred(root)),
            guest_nx: h.guest_nx.unwrap_or(Known::assumed(true)),
            host_64bit: h.host_64bit.unwrap_or(Known::assumed(true)),
        })
    }

    fn build(
        &self,
        name: Name,
        mode: Mode,
        s: &Settings<'_>,
        host: &Host,
        notes: &mut Vec<String>,
    ) -> Result<(Layout, Vec<Provenance>), Error> {
        let terms = Terms { host, width: width(s, host)? };
        let mask = |section: &str, key: &str| s.mask(section, key, &terms);
        let computed = host.maxphyaddr.from.min(host.phys_bits.from).max(Provenance::Assumed);
        let mut from: Vec<Provenance> = MaskName::ALL.iter().map(|_| Provenance::Inferred).collect();
        let mut set_from = |name: MaskName, p: Provenance| {
            if let Some(at) = MaskName::ALL.iter().position(|&m| m == name) {
                from[at] = p;
            }
        };

        let (split, lower) = l1tf(s, host)?;
        let mut m = Masks {
            nonpresent_or_rsvd_mask: split,
            nonpresent_or_rsvd_lower_gfn_mask: lower,
            me_value: mask("masks", "me_value")?,
            me_mask: mask("masks", "me")?,
            base_addr_mask: mask("bits", "address")? & !terms.sme(),
            user_mask: mask("masks", "user")?,
            nx_mask: mask("masks", "nx")?,
            x_mask: mask("masks", "x")?,
            xu_mask: mask("masks", "xu")?,
            accessed_mask: mask("masks", "accessed")?,
            dirty_mask: mask("masks", "dirty")?,
            present_mask: mask("masks", "present")?,
            acc_track_mask: mask("masks", "acc_track")?,
            host_writable_mask: mask("masks", "host_writable")?,
            mmu_writable_mask: mask("masks", "mmu_writable")?,
            mmio_access_mask: mask("mmio", "access")?,
            ..Masks::default()
        };
        for name in [
            MaskName::NonpresentOrRsvd,
            MaskName::NonpresentOrRsvdLowerGfn,
            MaskName::MmioValue,
            MaskName::Mmio,
            MaskName::VmMmioValue,
        ] {
            if mode.format() == Format::Legacy
                || !matches!(name, MaskName::MmioValue | MaskName::Mmio | MaskName::VmMmioValue)
            {
                set_from(name, computed);
            }
        }

        // The MMIO value: default, then what SVM sets where memory encryption is on.
        let encrypted = host.vendor.value == Vendor::Amd && host.c_bit.is_some() && host.mem_encrypt.value;
        let value_item =
            if encrypted && s.has("mmio", "value_mem_encrypt") { "value_mem_encrypt" } else { "value" };
        m.mmio_value = mask("mmio", value_item)?;
        let mask_follows_value = !s.has("mmio", "mask");
        m.mmio_mask = if mask_follows_value { m.mmio_value } else { mask("mmio", "mask")? };
        let caching = s.word("mmio", "caching", &["always", "nonzero", "narrow", "never"])?;
        if caching != "always" {
            if !host.mmio_caching.value {
                m.mmio_value = 0;
            }
            if m.mmio_value & (split << mmio::GfnRule::SHIFT) != 0 {
                m.mmio_value = 0;
                notes.push(
                    "the MMIO value collides with the L1TF bits: this kernel then uses no MMIO SPTEs".into(),
                );
            }
        } else if !host.mmio_caching.value {
            notes.push("kernels before 5.13 cannot turn MMIO caching off".into());
        }
        let overridden = |name: MaskName| self.masks.iter().any(|(n, _)| *n == name);
        for (name, known) in &self.masks {
            m.set(*name, known.value);
            set_from(*name, known.from);
        }
        if overridden(MaskName::MmioValue) && mask_follows_value && !overridden(MaskName::Mmio) {
            m.mmio_mask = m.mmio_value;
        }
        if overridden(MaskName::MeValue) && !overridden(MaskName::BaseAddr) {
            m.base_addr_mask &= !m.me_value;
        }
        if overridden(MaskName::BaseAddr) {
            m.base_addr_mask &= mask("bits", "address")?;
        }
        if !overridden(MaskName::VmMmioValue) {
            m.vm_mmio_value =
                if s.has("mmio", "vm_value") { mask("mmio", "vm_value")? } else { m.mmio_value };
        }
        if !overridden(MaskName::EnableMmioCaching) {
            m.enable_mmio_caching = match caching {
                "always" => true,
                "never" => false,
                "narrow" => m.mmio_value != 0 && host.maxphyaddr.value < 52,
                _ => m.mmio_value != 0,
            };
            if caching == "narrow" && host.maxphyaddr.value >= 52 {
                notes.push(
                    "5.19.0 wrongly turned MMIO caching off on hosts with 52 physical address bits".into(),
                );
            }
        }

        let (mmio_test_mask, mmio_test_value) = match s.find("mmio", "test") {
            Some((_, Item { value: Value::Text("mask"), .. })) | None => (m.mmio_mask, m.vm_mmio_value),
            Some(_) => {
                let test = mask("mmio", "test")?;
                (test, test)
            }
        };
        let generation = generation(s, m.mmio_mask)?;
        let mmio_gfn = match s.word("mmio", "gfn", &["plain", "split"])? {
            "plain" => mmio::GfnRule::Plain { clear: generation.bits() | m.mmio_mask },
            _ => mmio::GfnRule::Split {
                split: m.nonpresent_or_rsvd_mask,
                lower: m.nonpresent_or_rsvd_lower_gfn_mask,
            },
        };
        let mmio_access_read = match s.word("mmio", "access_read", &["stored", "unmarked"])? {
            "stored" => m.mmio_access_mask,
            // Up to 5.3: whatever of the low bits is neither generation nor mark.
            _ => 0xfff & !(generation.bits() | m.mmio_mask),
        };
        let present = match s.find("bits", "present") {
            Some((_, Item { value: Value::Text("nonzero"), .. })) => PresentRule::NotSpecial,
            _ => PresentRule::AnyOf(mask("bits", "present")?),
        };
        let removed = match s.find("values", "removed") {
            Some((_, Item { value: Value::Text("none"), .. })) | None => None,
            Some(_) => Some(mask("values", "removed")?),
        };
        let layout = Layout {
            name,
            mode,
            format: mode.format(),
            root_level: host.root_level.value,
            masks: m,
            present,
            zapped: mask("values", "zapped")?,
            removed,
            large: mask("bits", "large")?,
            ad_type: Field::covering(mask("bits", "ad_type")?),
            saved_shift: s.number("bits", "saved_shift")?.unwrap_or(0).min(63) as u8,
            memtype: Field::covering(s.mask_or_zero("bits", "memtype", &terms)?),
            ignore_pat: s.mask_or_zero("bits", "ignore_pat", &terms)?,
            suppress_ve: s.mask_or_zero("bits", "suppress_ve", &terms)?,
            mmio_test_mask,
            mmio_test_value,
            mmio_access_read,
            generation,
            mmio_gfn,
            reserved: reserved(s, host, &m, terms.width)?,
            bad_mt_xwr: bad_mt_xwr(s, host)?,
            ad_rule: match s.word("rules", "accessed", &["type", "bits"])? {
                "type" => AdRule::ByType,
                _ => AdRule::Bits,
            },
            fix_rule: match s.word("rules", "fast_fix", &["host-and-mmu", "mmu", "never"])? {
                "host-and-mmu" => FixRule::HostAndMmu,
                "mmu" => FixRule::Mmu,
                _ => FixRule::Never,
            },
            host_entries_at_root: s.flag("bits", "host_entries_at_root")?,
            page_state: Field::covering(s.mask_or_zero("bits", "page_state", &terms)?),
        };
        Ok((layout, from))
    }
}

/// The family to read a mode from: the era's own, or for out-of-tree modes the nearest that has it.
fn family_with(eras: &[Era], era: usize, mode: Mode) -> Result<(&'static str, Option<String>), Error> {
    let own = eras[era].family;
    if layouts::text(own, mode.name()).is_some() {
        return Ok((own, None));
    }
    let distance = |e: &Era| eras.iter().position(|x| x.id == e.id).unwrap_or(0).abs_diff(era);
    eras.iter()
        .filter(|e| layouts::text(e.family, mode.name()).is_some())
        .min_by_key(|e| distance(e))
        .map(|e| {
            let note = format!(
                "{} is not known on {} kernels: read as on family {} ({})",
                mode.words(),
                eras[era].releases(),
                e.family,
                e.releases()
            );
            (e.family, Some(note))
        })
        .ok_or_else(|| Error::UnknownLayout(format!("{own}/{}", mode.name())))
}

fn file_mode(file: &File<'_>) -> Result<Option<Mode>, Error> {
    let text = match file.top("paging") {
        Some(Item { value: Value::Text(text), line, .. }) => Some((*text, *line)),
        Some(item) => return Err(file.error(item.line, "paging takes a paging mode in quotes").into()),
        None => file.top("extends").and_then(|item| match item.value {
            Value::Text(text) => text.split_once('/').map(|(_, mode)| (mode, item.line)),
            _ => None,
        }),
    };
    let Some((text, line)) = text else { return Ok(None) };
    if let Some(mode) = Mode::parse(text) {
        return Ok(Some(mode));
    }
    let names: Vec<&str> = Mode::ALL.iter().map(|m| m.name()).collect();
    Err(file.error(line, format!("`{text}` is not a paging mode: there are {}", names.join(", "))).into())
}

/// The kernel for which a file is read.
struct When<'a> {
    library: &'a Library,
    eras: &'a [Era],
    era: usize,
    kernel: &'a Kernel,
}

/// The keys that hold for one kernel, later ones over earlier ones: file name and item by index into the schema.
struct Settings<'a> {
    list: [Option<(&'a str, &'a Item<'a>)>; SCHEMA.len()],
    notes: Vec<String>,
    depth: u8,
}

impl<'a> Settings<'a> {
    fn add_file(&mut self, file: &'a File<'a>, when: &When<'a>) -> Result<(), Error> {
        self.depth += 1;
        if let Some(item) = file.top("extends") {
            let Value::Text(base) = item.value else {
                return Err(file
                    .error(item.line, "extends takes another layout in quotes: \"C/ept\"")
                    .into());
            };
            if self.depth > 8 {
                return Err(file.error(item.line, "extends goes in a circle").into());
            }
            let known = base.split_once('/').and_then(|(of, mode)| {
                let named = |e: &&Era| e.id.eq_ignore_ascii_case(of) || e.family.eq_ignore_ascii_case(of);
                let family = when.eras.iter().rev().find(named)?.family;
                let mode = Mode::parse(mode)?.name();
                layouts::text(family, mode).map(|_| (family, mode))
            });
            let Some((family, mode)) = known else {
                return Err(file.error(item.line, format!("no layout is called `{base}`")).into());
            };
            self.add_file(when.library.file(family, mode)?, when)?;
        }
        let kernel = when.kernel;
        for item in &file.items {
            let holds = match item.scope {
                Scope::Always => true,
                Scope::Era(id) => {
                    let at = when
                        .eras
                        .iter()
                        .position(|e| e.id == id)
                        .ok_or_else(|| file.error(item.line, format!("no era is called `{id}`")))?;
                    at <= when.era
                }
                Scope::Since(major, minor) => kernel.release() >= (major, minor),
                Scope::Stable(major, minor, patch) => {
                    kernel.release() == (major, minor) && kernel.patch.is_some_and(|p| p >= patch)
                }
                Scope::Exact(major, minor, patch) => {
                    kernel.release() == (major, minor) && kernel.patch == Some(patch)
                }
            };
            if let (("", "notes"), Value::List(notes)) = (item.names(), &item.value) {
                self.notes.extend(notes.iter().map(ToString::to_string));
            }
            if holds && let Some(slot) = self.list.get_mut(usize::from(item.key)) {
                *slot = Some((file.name, item));
            }
        }
        Ok(())
    }

    fn find(&self, section: &str, key: &str) -> Option<(&'a str, &'a Item<'a>)> {
        file::key(section, key).and_then(|at| self.list[usize::from(at)])
    }

    fn has(&self, section: &str, key: &str) -> bool {
        self.find(section, key).is_some()
    }

    fn missing(section: &str, key: &str) -> Error {
        Error::File(FileError {
            file: "layout".into(),
            line: 0,
            reason: format!("[{section}] {key} is missing; `extends` another layout or say it"),
        })
    }

    fn wrong(section: &str, key: &str, file: &str, line: u32, why: &str) -> Error {
        let takes = SCHEMA.iter().find(|(s, k, _)| *s == section && *k == key).map_or("", |&(.., t)| t);
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        Error::File(FileError { file: file.into(), line, reason: format!("{key} takes {takes}{why}") })
    }

    fn mask(&self, section: &str, key: &str, terms: &Terms<'_>) -> Result<u64, Error> {
        let Some((file, item)) = self.find(section, key) else { return Err(Self::missing(section, key)) };
        match item.value {
            Value::Text(text) => {
                terms.eval(text, 0).map_err(|why| Self::wrong(section, key, file, item.line, &why))
            }
            Value::Number(number) => Ok(number),
            _ => Err(Self::wrong(section, key, file, item.line, "")),
        }
    }

    fn mask_or_zero(&self, section: &str, key: &str, terms: &Terms<'_>) -> Result<u64, Error> {
        if self.has(section, key) { self.mask(section, key, terms) } else { Ok(0) }
    }

    fn number(&self, section: &str, key: &str) -> Result<Option<u64>, Error> {
        match self.find(section, key) {
            None => Ok(None),
            Some((_, Item { value: Value::Number(n), .. })) => Ok(Some(*n)),
            Some((file, item)) => Err(Self::wrong(section, key, file, item.line, "")),
        }
    }

    fn flag(&self, section: &str, key: &str) -> Result<bool, Error> {
        match self.find(section, key) {
            None => Ok(false),
            Some((_, Item { value: Value::Bool(b), .. })) => Ok(*b),
            Some((file, item)) => Err(Self::wrong(section, key, file, item.line, "")),
        }
    }

    fn word(&self, section: &str, key: &str, words: &[&'static str]) -> Result<&'static str, Error> {
        let Some((file, item)) = self.find(section, key) else { return Err(Self::missing(section, key)) };
        match item.value {
            Value::Text(text) => words.iter().copied().find(|w| *w == text),
            _ => None,
        }
        .ok_or_else(|| Self::wrong(section, key, file, item.line, ""))
    }

    fn list(&self, section: &str, key: &str) -> Result<(&'a str, u32, &'a [&'a str]), Error> {
        match self.find(section, key) {
            Some((file, Item { value: Value::List(list), line, .. })) => Ok((file, *line, list)),
            Some((file, item)) => Err(Self::wrong(section, key, file, item.line, "")),
            None => Err(Self::missing(section, key)),
        }
    }
}

fn width(s: &Settings<'_>, host: &Host) -> Result<u32, Error> {
    let keyids = host.vendor.value == Vendor::Intel && host.phys_bits.value != host.maxphyaddr.value;
    let width = match s.word("host", "width", &["phys", "tme", "cpuid"])? {
        "phys" => host.phys_bits.value,
        // Only CPUs with TME (and KeyIDs taken from the width) made these kernels ask CPUID.
        "tme" if !keyids => host.phys_bits.value,
        _ => host.maxphyaddr.value,
    };
    Ok(u32::from(width))
}

/// `shadow_nonpresent_or_rsvd_mask` and the mask of the frame bits below it.
fn l1tf(s: &Settings<'_>, host: &Host) -> Result<(u64, u64), Error> {
    let phys = u32::from(host.phys_bits.value);
    let bits = match s.word("mmio", "l1tf_width", &["phys", "cache"])? {
        "phys" => phys,
        _ => u32::from(host.cache_bits.value),
    };
    let rule = s.word("mmio", "l1tf", &["none", "every-cpu", "buggy-cpus"])?;
    let wanted = match rule {
        "none" => false,
        "every-cpu" => true,
        _ => host.l1tf.value,
    };
    let len = mmio::GfnRule::SHIFT;
    Ok(if wanted && bits < 52 - len && bits > 12 + len {
        (bits::range(bits - 1, bits - len), bits::range(bits - len - 1, 12))
    } else {
        // Without the split the kernels that split on every CPU used the same width, later ones the physical one.
        let bits = if rule == "every-cpu" { bits } else { phys };
        (0, bits::range(bits.saturating_sub(1), 12))
    })
}

fn generation(s: &Settings<'_>, mmio_mask: u64) -> Result<mmio::Generation, Error> {
    let pieces = |key: &str, from_g: bool| -> Result<[mmio::Piece; 2], Error> {
        let (file, line, list) = s.list("mmio", key)?;
        if list.is_empty() || list.len() > 2 {
            return Err(Settings::wrong("mmio", key, file, line, ""));
        }
        let mut pieces = [mmio::Piece::default(); 2];
        for (piece, text) in pieces.iter_mut().zip(list) {
            *piece = parse_piece(text, from_g)
                .ok_or_else(|| Settings::wrong("mmio", key, file, line, &format!("not `{text}`")))?;
        }
        Ok(pieces)
    };
    let clear = match s.word("mmio", "generation_clear", &["mask", "none"])? {
        "mask" => mmio_mask,
        _ => 0,
    };
    Ok(mmio::Generation {
        store: pieces("generation_store", true)?,
        read: pieces("generation_read", false)?,
        clear,
    })
}

/// `g[8:0] -> b[11:3]`, or the other way round.
fn parse_piece(text: &str, from_g: bool) -> Option<mmio::Piece> {
    let (left, right) = text.split_once("->")?;
    let (g, b) = if from_g { (left, right) } else { (right, left) };
    let run = |text: &str, letter: char| -> Option<(u8, u8)> {
        let inner = text.trim().strip_prefix(letter)?.strip_prefix('[')?.strip_suffix(']')?;
        let (high, low) = inner.split_once(':')?;
        let (high, low): (u8, u8) = (high.parse().ok()?, low.parse().ok()?);
        (high >= low && high < 64).then_some((high, low))
    };
    let (g_high, g_low) = run(g, 'g')?;
    let (b_high, b_low) = run(b, 'b')?;
    let width = g_high - g_low + 1;
    (g_high < 32 && b_high - b_low + 1 == width).then_some(mmio::Piece {
        spte_bit: b_low,
        generation_bit: g_low,
        width,
    })
}

fn reserved(s: &Settings<'_>, host: &Host, m: &Masks, width: u32) -> Result<[[u64; 6]; 2], Error> {
    let mut table = [[0u64; 6]; 2];
    let kind = s.word("reserved", "table", &["ept", "legacy", "none"])?;
    let no_1g = bits::when(!host.pages_1g.value, bits::bit(7));
    match kind {
        "ept" => {
            let high = bits::range(51, width);
            let no_1g = if s.flag("reserved", "large_pages")? { no_1g } else { 0 };
            for column in &mut table {
                column[4] = high | bits::range(7, 3);
                column[5] = column[4];
                column[1] = high;
            }
            table[0][3] = high | bits::range(6, 3) | no_1g;
            table[1][3] = high | bits::range(29, 12) | no_1g;
            table[0][2] = high | bits::range(6, 3);
            table[1][2] = high | bits::range(20, 12);
        }
        "legacy" => {
            let nx = match s.word("reserved", "nx", &["guest", "always", "never"])? {
                "always" => true,
                "never" => false,
                _ => !host.guest_nx.value,
            };
            let nx = bits::when(nx, bits::bit(63));
            if host.root_level.value <= 3 {
                let high = bits::range(62, width);
                for column in &mut table {
                    *column = [0, high | nx, high | nx, 0, 0, 0];
                    column[3] = high | bits::bit(63) | bits::range(8, 5) | bits::range(2, 1);
                }
                table[1][2] |= bits::range(20, 13);
            } else {
                let high = bits::range(51, width) | nx;
                let b8 = bits::when(s.flag("reserved", "level3_b8")?, bits::bit(8));
                for column in &mut table {
                    let top = high | bits::range(8, 7);
                    *column = [0, high, high, high, top, top];
                }
                table[0][3] |= b8;
                table[1][3] |= bits::range(29, 13) | no_1g;
                table[1][2] |= bits::range(20, 13);
            }
        }
        _ => {}
    }
    let encryption = s.word("reserved", "encryption", &["exempt", "checked", "ignored"])?;
    for mask in table.as_flattened_mut() {
        match encryption {
            "exempt" => *mask &= !m.me_mask,
            "checked" => *mask = (*mask | m.me_mask) & !m.me_value,
            _ => {}
        }
    }
    Ok(table)
}

/// Which of the 64 combinations of permissions (b2:0) and memory type (b5:3) EPT hardware refuses.
fn bad_mt_xwr(s: &Settings<'_>, host: &Host) -> Result<u64, Error> {
    if s.word("reserved", "table", &["ept", "legacy", "none"])? != "ept" {
        return Ok(0);
    }
    let exec_only = s.word("reserved", "exec_only", &["host", "never"])? == "host" && host.exec_only.value;
    let mut bad = 0;
    for combination in 0..64u32 {
        let (rwx, memtype) = (combination & 7, combination >> 3);
        if matches!(memtype, 2 | 3 | 7) || matches!(rwx, 2 | 6) || rwx == 4 && !exec_only {
            bad |= 1u64 << combination;
        }
    }
    Ok(bad)
}

/// The little language of masks: `b11`, `b51:12`, `0x5a0`, alternatives joined by `|`, and terms that ask the host.
struct Terms<'h> {
    host: &'h Host,
    width: u32,
}

impl Terms<'_> {
    fn sme(&self) -> u64 {
        match self.host.c_bit {
            Some(c) if self.host.sme.value => bits::bit(u32::from(c.value)),
            _ => 0,
        }
    }

    fn eval(&self, text: &str, depth: u8) -> Result<u64, String> {
        if depth > 4 {
            return Err("nested too deep".into());
        }
        let mut mask = 0;
        let (mut level, mut start) = (0u32, 0);
        for (at, c) in text.char_indices().chain([(text.len(), '|')]) {
            match c {
                '(' => level += 1,
                ')' => level = level.checked_sub(1).ok_or_else(|| "`)` without `(`".to_string())?,
                '|' if level == 0 => {
                    mask |= self.term(text[start..at].trim(), depth)?;
                    start = at + 1;
                }
                _ => {}
            }
        }
        if level == 0 { Ok(mask) } else { Err("`(` without `)`".into()) }
    }

    fn term(&self, term: &str, depth: u8) -> Result<u64, String> {
        let host = self.host;
        if let Some((function, rest)) = term.split_once('(') {
            let argument = rest.strip_suffix(')').ok_or_else(|| format!("`{term}` has no `)`"))?;
            let on = match function.trim() {
                "rsvd" if argument.trim() == "phys" => {
                    return Ok(bits::range(51, u32::from(host.phys_bits.value)));
                }
                "narrow" => self.width < 52,
                "no_exec_only" => !host.exec_only.value,
                "host64" => host.host_64bit.value,
                _ => return Err(format!("unknown term `{term}`")),
            };
            let mask = self.eval(argument, depth + 1)?;
            return Ok(bits::when(on, mask));
        }
        let (phys, max) = (u32::from(host.phys_bits.value), u32::from(host.maxphyaddr.value));
        match term {
            "sme" => return Ok(self.sme()),
            "keyids" => {
                let keyids = host.vendor.value == Vendor::Intel && phys < max;
                return Ok(bits::when(keyids, bits::range(max.saturating_sub(1), phys)));
            }
            "svm_rsvd" => {
                // SVM takes the first reserved bit, and the next one where that is the C-bit.
                let first =
                    if host.c_bit.is_some_and(|c| u32::from(c.value) == phys) { phys + 1 } else { phys };
                return Ok(bits::when(first < 52, bits::range(51, first) | 1));
            }
            _ => {}
        }
        if let Some(run) = term.strip_prefix('b') {
            let (high, low) = run.split_once(':').unwrap_or((run, run));
            return match (high.parse::<u32>(), low.parse::<u32>()) {
                (Ok(high), Ok(low)) if high < 64 && low <= high => Ok(bits::range(high, low)),
                _ => Err(format!("`{term}` is not a bit (b11) or a run of bits (b51:12)")),
            };
        }
        match term.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => term.parse().ok(),
        }
        .ok_or_else(|| format!("`{term}` is not a bit, a number or a known term"))
    }
}
