//! Bytes and choices that look random and are the same each time: splitmix64 from a seed.

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of numbers which only the seed decides.
#[derive(Debug, Clone)]
pub struct Prng(u64);

impl Prng {
    /// The stream of `seed`. Neighbouring seeds have unrelated streams.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x5bf0_3635_d1d6_e2a5))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `limit`; 0 where `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit.max(1)
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// Fills `buffer` with the next bytes. Pieces whose lengths are multiples of eight join up to
    /// the bytes that one call would have given.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        let (words, rest) = buffer.as_chunks_mut::<8>();
        for word in words {
            *word = self.number().to_le_bytes();
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&self.number().to_le_bytes()[..rest.len()]);
        }
    }
}

/// The first `len` bytes of the stream of `seed`.
pub fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Prng::new(seed).fill(&mut bytes);
    bytes
}

fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_each_time() {
        assert_eq!(random_bytes(1, 1000), random_bytes(1, 1000));
        assert_eq!(random_bytes(1, 1000)[..13], random_bytes(1, 13));
        assert_ne!(random_bytes(1, 1000), random_bytes(2, 1000));
    }

    #[test]
    fn pieces_join_up() {
        let mut pieces = vec![0; 40];
        let mut stream = Prng::new(9);
        stream.fill(&mut pieces[..16]);
        stream.fill(&mut pieces[16..]);
        assert_eq!(pieces, random_bytes(9, 40));
    }
}
