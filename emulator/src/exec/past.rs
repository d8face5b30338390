//! Who touched each word of shared memory last. Four words that share their past, as 16 bytes that were always touched in
//! one piece do, are kept as one: copies and matrix rows then cost a quarter.

/// A mark of an access.
pub(crate) trait Mark: Copy + PartialEq {
    /// Nobody was here.
    const NOBODY: Self;
    /// No access: the four words are kept one by one.
    const SPLIT: Self;
}

/// The last writer, the last reader, the last reader of another warp before it, and a writer that the last one does not
/// stand for.
pub(crate) type Touched<M> = [M; 4];

/// The past of each word.
pub(crate) struct Past<M> {
    /// Of four words each, or [`Mark::SPLIT`] in the first place.
    quads: Vec<Touched<M>>,
    /// Of each word, where the four are split.
    words: Vec<Touched<M>>,
}

impl<M: Mark> Default for Past<M> {
    fn default() -> Past<M> {
        Past { quads: Vec::new(), words: Vec::new() }
    }
}

impl<M: Mark> Past<M> {
    /// Makes it as new for so many words.
    pub fn reset(&mut self, words: usize) {
        let quads = words.div_ceil(4);
        self.quads.clear();
        self.quads.resize(quads, [M::NOBODY; 4]);
        self.words.resize(4 * quads, [M::NOBODY; 4]);
    }

    /// The past of a word, which from now on is kept apart from its neighbours'.
    #[inline(always)]
    pub fn word(&mut self, word: usize) -> &mut Touched<M> {
        let quad = &mut self.quads[word / 4];
        if quad[0] != M::SPLIT {
            let first = word / 4 * 4;
            self.words[first..first + 4].fill(*quad);
            quad[0] = M::SPLIT;
        }
        &mut self.words[word]
    }

    /// The past of the four words from `word` on, if they share it.
    #[inline(always)]
    pub fn four(&mut self, word: usize) -> Option<&mut Touched<M>> {
        let quad = &mut self.quads[word / 4];
        (word.is_multiple_of(4) && quad[0] != M::SPLIT).then_some(quad)
    }

    /// Keeps the four words from `word` on as one again if they share their past by now.
    #[inline(always)]
    pub fn join(&mut self, word: usize) {
        let same = |list: &[Touched<M>]| list.iter().all(|other| *other == list[0]);
        if word.is_multiple_of(4) && self.quads[word / 4][0] == M::SPLIT && same(&self.words[word..word + 4]) {
            self.quads[word / 4] = self.words[word];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Mark for u8 {
        const NOBODY: u8 = 0;
        const SPLIT: u8 = u8::MAX;
    }

    /// The same accesses, one word after the other, on a plain list.
    #[test]
    fn splitting_and_joining_change_nothing() {
        let mut past = Past::<u8>::default();
        past.reset(30);
        let mut plain = [[0u8; 4]; 32];
        let mut state = 1u64;
        for step in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (place, word) = ((state >> 60) as usize % 4, (state >> 33) as usize % 32);
            let value = (state >> 40) as u8 % 3 + 1;
            if state >> 39 & 1 != 0 {
                past.word(word)[place] = value;
                plain[word][place] = value;
            } else {
                let first = word / 4 * 4;
                if let Some(four) = past.four(first) {
                    assert!(plain[first..first + 4].iter().all(|word| word == four), "step {step}");
                    four[place] = value;
                } else {
                    (first..first + 4).for_each(|word| past.word(word)[place] = value);
                    past.join(first);
                }
                plain[first..first + 4].iter_mut().for_each(|word| word[place] = value);
            }
        }
        for (word, expected) in plain.iter().enumerate() {
            assert_eq!(past.word(word), expected);
        }
    }
}
