//! The order of examples: NumPy's legacy permutation.

/// Words of MT19937's state.
const STATE: usize = 624;
/// Words between those that a step combines.
const SHIFT: usize = 397;

/// NumPy's `RandomState(seed).permutation(n)`: the numbers `0 .. n`, shuffled (Fisher-Yates from the end, each index drawn from the words of
/// MT19937 under the smallest mask that covers it, words above it rejected).
///
/// `n` is at most 2^32: above it NumPy draws words of 64 bits.
pub fn permutation(seed: u32, n: usize) -> Vec<usize> {
    let mut words = Mt19937::new(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        order.swap(last, words.up_to(last as u32) as usize);
    }
    order
}

/// The Mersenne Twister of Matsumoto and Nishimura (1998), seeded as `init_genrand` of their 2002 program.
struct Mt19937 {
    state: [u32; STATE],
    next: usize,
}

impl Mt19937 {
    fn new(seed: u32) -> Self {
        let mut state = [seed; STATE];
        for at in 1..STATE {
            let before = state[at - 1];
            state[at] = 1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(at as u32);
        }
        Self { state, next: STATE }
    }

    fn word(&mut self) -> u32 {
        if self.next == STATE {
            self.twist();
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn twist(&mut self) {
        for at in 0..STATE {
            let joined = (self.state[at] & 0x8000_0000) | (self.state[(at + 1) % STATE] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[at] = self.state[(at + SHIFT) % STATE] ^ (joined >> 1) ^ odd;
        }
    }

    /// A number from 0 to `most`, both included.
    fn up_to(&mut self, most: u32) -> u32 {
        let mask = u32::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
        loop {
            let word = self.word() & mask;
            if word <= most {
                return word;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_words_are_those_of_the_authors_program() {
        // mt19937ar with its usual seed 5489: the first word, and the 10,000th as the C++ standard demands it of std::mt19937.
        let mut words = Mt19937::new(5489);
        assert_eq!(words.word(), 3_499_211_612);
        assert_eq!((1..9_999).map(|_| words.word()).count(), 9_998);
        assert_eq!(words.word(), 4_123_659_995);
    }

    #[test]
    fn permutations_are_those_of_numpy() {
        // SHA-256 of `np.random.RandomState(seed).permutation(n).astype('<u4').tobytes()`, NumPy 2.4.6.
        let recorded = [
            ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 5, 0),
            ("df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119", 5, 1),
            ("01acecb507abfe1a354aa8064f4af5d3f1acd019e37db3c11c97523b71c76e9d", 5, 2),
            ("3d6e44c1aacf8a2b1e0298df76a3d86288dc3cb6a22c1cdd56869c299fcd8070", 0, 10),
            ("4b5e07f47d4d9777bda2ff6d67805b95ce150bc4c58b4494a5b18d3a2fdb1f3f", 1, 1000),
            ("890e58701b83b1025bb219684c03b9d693e9ea4d273f85b91d66bf2b3bbbfff8", 0, 3668),
            ("fd9a87a530cc8f11322832ce231d6f1f8cee8eda347097fc5317194ea2ec6ec3", 42, 8551),
            ("dd68d8e51834a5427f708258d6ea26684979ef377c5e4e4984693b5e8154592f", 0, 20000),
            ("77a2136a7acdcd5e6912c7eeb79d7cdc357b6a40bf72395a6dda742c58b1abed", u32::MAX, 67349),
        ];
        for (expected, seed, n) in recorded {
            let bytes: Vec<u8> = permutation(seed, n).into_iter().flat_map(|number| (number as u32).to_le_bytes()).collect();
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, expected, "seed {seed}, n {n}");
        }
        assert_eq!(permutation(0, 10)[..6], [2, 8, 4, 9, 1, 6]);
    }

    #[test]
    fn every_number_is_there_once() {
        for n in [0, 1, 2, 3, 1000] {
            let mut order = permutation(7, n);
            order.sort_unstable();
            assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
    }
}
