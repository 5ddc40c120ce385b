//! MMIO SPTEs: generation and frame number, the way each kernel stores and reads them.
//!
//! Storing and reading are separate on purpose: from 5.1 to 5.9 they are not inverse to each other (kernel bugs), and a decoder
//! that wants to agree with the kernel has to make the same mistakes.

/// One piece of the generation: `width` bits of the generation from `generation_bit` live at `spte_bit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Piece {
    /// Lowest bit in the SPTE.
    pub spte_bit: u8,
    /// Lowest bit in the generation.
    pub generation_bit: u8,
    /// Bits; 0 for an unused piece.
    pub width: u8,
}

impl Piece {
    const fn mask(self) -> u64 {
        if self.width >= 64 { u64::MAX } else { (1 << self.width) - 1 }
    }

    const fn put(self, generation: u32) -> u64 {
        ((generation as u64 >> (self.generation_bit & 31)) & self.mask()) << (self.spte_bit & 63)
    }

    const fn get(self, raw: u64) -> u32 {
        (((raw >> (self.spte_bit & 63)) & self.mask()) << (self.generation_bit & 31)) as u32
    }
}

/// Where an MMIO SPTE keeps the memslot generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Generation {
    /// How the kernel stores it, low piece first.
    pub store: [Piece; 2],
    /// How the kernel reads it back.
    pub read: [Piece; 2],
    /// Bits cleared before reading (up to 5.5 the MMIO mask).
    pub clear: u64,
}

impl Generation {
    /// The bits that storing `generation` sets.
    pub const fn put(&self, generation: u32) -> u64 {
        self.store[0].put(generation) | self.store[1].put(generation)
    }

    /// What the kernel reads back.
    #[inline]
    pub const fn get(&self, raw: u64) -> u32 {
        let raw = raw & !self.clear;
        self.read[0].get(raw) | self.read[1].get(raw)
    }

    /// Every bit storing can touch.
    pub const fn bits(&self) -> u64 {
        self.store[0].mask() << (self.store[0].spte_bit & 63)
            | self.store[1].mask() << (self.store[1].spte_bit & 63)
    }

    /// Bits of a generation that survive storing and reading.
    pub const fn kept(&self) -> u32 {
        // A bit survives if storing it alone gives back it alone.
        let mut kept = 0;
        let mut n = 0;
        while n < 32 {
            let one = 1 << n;
            if self.get(self.put(one)) == one {
                kept |= one;
            }
            n += 1;
        }
        kept
    }

    /// Whether some bits are stored twice instead of the higher ones (kernels 5.1 to 5.9): what is above them is lost.
    pub const fn is_buggy(&self) -> bool {
        let (a, b) = (self.store[0], self.store[1]);
        a.width > 0
            && b.width > 0
            && a.generation_bit < b.generation_bit + b.width
            && b.generation_bit < a.generation_bit + a.width
    }
}

/// How an MMIO SPTE keeps its guest frame number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GfnRule {
    /// The address bits as they are; reading clears these bits (up to 4.18).
    Plain {
        /// Generation and MMIO mask bits, cleared before the shift.
        clear: u64,
    },
    /// Since 4.19: the bits under `split` are set (L1TF) and the frame's own kept five bits higher.
    Split {
        /// `shadow_nonpresent_or_rsvd_mask`; 0 on hosts that need no mitigation.
        split: u64,
        /// `shadow_nonpresent_or_rsvd_lower_gfn_mask`.
        lower: u64,
    },
}

impl GfnRule {
    /// Bits by which displaced frame bits are moved (`SHADOW_NONPRESENT_OR_RSVD_MASK_LEN`).
    pub const SHIFT: u32 = 5;

    /// The bits that storing `gfn` sets.
    pub const fn put(&self, gfn: u64) -> u64 {
        let address = gfn << 12;
        match *self {
            GfnRule::Plain { .. } => address,
            GfnRule::Split { split, .. } => address | split | (address & split) << Self::SHIFT,
        }
    }

    /// The frame number the kernel reads.
    #[inline]
    pub const fn get(&self, raw: u64) -> u64 {
        match *self {
            GfnRule::Plain { clear } => (raw & !clear) >> 12,
            GfnRule::Split { split, lower } => (raw & lower | raw >> Self::SHIFT & split) >> 12,
        }
    }
}
