//! The mask of DARE, bit for bit: which elements of a delta are kept. The definition, with test vectors, is `docs/mask.md`.
//!
//! A mask is a pure function of seed, stream, tensor name, element index and drop rate, so any window of any tensor can be computed
//! anywhere, in any order, and again.

use crate::{Kernel, Kernels};
use sha2::{Digest, Sha256};

/// Elements that share sixteen consecutive counters.
const GROUP: usize = 64;

/// Counters of a group.
const COUNTERS: usize = 16;

const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The key of one tensor's mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MaskKey(pub [u32; 2]);

impl MaskKey {
    /// The stream of a model that has a seed of its own: its mask is then the same in every recipe.
    pub const OWN_SEED: u64 = u64::MAX;

    /// The key for a tensor by its canonical name: two little-endian words from the start of
    /// SHA-256("deltaic-mask-v1" || seed as u64 LE || stream as u64 LE || name as UTF-8).
    ///
    /// `stream` is the model's place in the recipe where the seed is the recipe's, [`OWN_SEED`](Self::OWN_SEED) where it is the model's.
    pub fn new(seed: u64, stream: u64, tensor_name: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(b"deltaic-mask-v1")
            .chain_update(seed.to_le_bytes())
            .chain_update(stream.to_le_bytes())
            .chain_update(tensor_name)
            .finalize();
        let word = |at: usize| u32::from_le_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]]);
        Self([word(0), word(4)])
    }

    /// The keys of Philox's ten rounds.
    #[inline(always)]
    fn round_keys(self) -> [[u32; 2]; 10] {
        std::array::from_fn(|round| [0, 1].map(|i| self.0[i].wrapping_add(WEYL[i].wrapping_mul(round as u32))))
    }
}

/// The threshold for a drop rate: drop_rate · 2^32, rounded half to even; `None` where the rate is outside 0 ..= 1 or NaN.
///
/// An element is kept where its word is at least the threshold: 0 keeps all, 2^32 none.
pub fn threshold(drop_rate: f64) -> Option<u64> {
    (0.0..=1.0).contains(&drop_rate).then(|| (drop_rate * 4_294_967_296.0).round_ties_even() as u64)
}

impl Kernels {
    /// `x = x * scale` where the mask keeps the element, else `x = +0`: a NaN or infinity at a dropped place goes too.
    ///
    /// `x` is a window of the tensor whose first element has the index `start` in row-major order over the whole tensor: any start is
    /// correct, multiples of 64 are fastest. `threshold` is [`threshold`] of the drop rate; above 2^32 it drops all, as 2^32 does.
    pub fn drop_elements(self, key: MaskKey, threshold: u64, scale: f32, start: u64, x: &mut [f32]) {
        match u32::try_from(threshold) {
            Ok(0) => self.scale(x, scale),
            Ok(threshold) => self.run(DropElements { keys: key.round_keys(), threshold, scale, start, x }),
            Err(_) => x.fill(0.0),
        }
    }

    /// The mask's words of the elements `start .. start + out.len()`.
    pub fn mask_words(self, key: MaskKey, start: u64, out: &mut [u32]) {
        self.run(MaskWords { keys: key.round_keys(), start, out });
    }
}

/// Philox4x32-10 (Salmon et al., SC'11) of a counter whose words 2 and 3 are 0.
///
/// Each word lives in the low half of a u64, whatever is in the high half: so a round is two multiplications of 32 by 32 bits, two
/// shifts and two exclusive ors of three, without a shuffle, in a loop over counters that the compiler vectorises.
#[inline(always)]
fn philox(keys: &[[u32; 2]; 10], counter: u64) -> [u64; 4] {
    const LOW: u64 = 0xffff_ffff;
    let (mut c0, mut c1, mut c2, mut c3) = (counter, counter >> 32, 0, 0);
    for &[k0, k1] in keys {
        let p0 = MULTIPLIERS[0] * (c0 & LOW);
        let p1 = MULTIPLIERS[1] * (c2 & LOW);
        (c0, c1, c2, c3) = ((p1 >> 32) ^ c1 ^ u64::from(k0), p1, (p0 >> 32) ^ c3 ^ u64::from(k1), p0);
    }
    [c0, c1, c2, c3]
}

/// The words of a group's 64 elements: element j is output number j / 16 of counter j % 16.
#[inline(always)]
fn group_words(keys: &[[u32; 2]; 10], group: u64) -> [u32; GROUP] {
    let (mut w0, mut w1, mut w2, mut w3) = ([0; COUNTERS], [0; COUNTERS], [0; COUNTERS], [0; COUNTERS]);
    for lane in 0..COUNTERS {
        let [c0, c1, c2, c3] = philox(keys, group * COUNTERS as u64 + lane as u64);
        (w0[lane], w1[lane], w2[lane], w3[lane]) = (c0 as u32, c1 as u32, c2 as u32, c3 as u32);
    }
    let mut words = [0; GROUP];
    for (part, w) in words.as_chunks_mut::<COUNTERS>().0.iter_mut().zip([w0, w1, w2, w3]) {
        *part = w;
    }
    words
}

struct MaskWords<'a> {
    keys: [[u32; 2]; 10],
    start: u64,
    out: &'a mut [u32],
}

impl Kernel for MaskWords<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { keys, start, out } = self;
        let (head, groups, tail) = split(start, out);
        let first = start / GROUP as u64;
        let after_head = first + u64::from(!head.is_empty());
        let offset = (start % GROUP as u64) as usize;
        if !head.is_empty() {
            head.copy_from_slice(&group_words(&keys, first)[offset..][..head.len()]);
        }
        let mut group = after_head;
        for chunk in groups {
            *chunk = group_words(&keys, group);
            group += 1;
        }
        if !tail.is_empty() {
            tail.copy_from_slice(&group_words(&keys, group)[..tail.len()]);
        }
    }
}

/// The part of a window in the group that it begins within, if it does not begin with a whole group; whole groups; the rest.
#[inline(always)]
fn split<T>(start: u64, x: &mut [T]) -> (&mut [T], &mut [[T; GROUP]], &mut [T]) {
    let head = (start.wrapping_neg() % GROUP as u64) as usize;
    let (head, rest) = x.split_at_mut(head.min(x.len()));
    let (groups, tail) = rest.as_chunks_mut();
    (head, groups, tail)
}

struct DropElements<'a> {
    keys: [[u32; 2]; 10],
    threshold: u32,
    scale: f32,
    start: u64,
    x: &'a mut [f32],
}

impl DropElements<'_> {
    #[inline(always)]
    fn select(&self, words: &[u32], x: &mut [f32]) {
        for (x, &word) in x.iter_mut().zip(words) {
            *x = if word >= self.threshold { *x * self.scale } else { 0.0 };
        }
    }
}

impl Kernel for DropElements<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let (head, groups, tail) = split(self.start, std::mem::take(&mut self.x));
        let mut group = self.start / GROUP as u64;
        if !head.is_empty() {
            let offset = (self.start % GROUP as u64) as usize;
            self.select(&group_words(&self.keys, group)[offset..], head);
            group += 1;
        }
        for chunk in groups {
            self.select(&group_words(&self.keys, group), chunk);
            group += 1;
        }
        if !tail.is_empty() {
            self.select(&group_words(&self.keys, group), tail);
        }
    }
}
