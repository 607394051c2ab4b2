//! The one source of chance: a generator whose numbers are the same everywhere.

/// SplitMix64 (Steele et al. 2014).
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// A number below `bound`, as evenly as 64 bits allow.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// One of several.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// A number in -1 .. 1, a multiple of 2^-23.
    pub fn unit(&mut self) -> f32 {
        ((self.bits() >> 40) as f32 - 8_388_608.0) / 8_388_608.0
    }
}

fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A hash of a short text.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0, |hash, byte| mixed(hash.wrapping_add(u64::from(byte) + 1)))
}
