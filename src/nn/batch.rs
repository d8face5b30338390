//! A batch of token sequences, packed: no padding, no mask.

use std::sync::Arc;

use crate::error::{Error, Result};

/// The concatenation of the sequences of a batch. Sequence i is tokens `cu_seqlens[i] .. cu_seqlens[i + 1]`.
#[derive(Clone, Debug)]
pub struct PackedBatch {
    /// Token ids, `[T]`.
    pub ids: Arc<[u32]>,
    /// Token types (segments), `[T]`.
    pub type_ids: Arc<[u32]>,
    /// Position of each token in its sequence, `[T]`.
    pub positions: Arc<[u32]>,
    /// Borders of the sequences, `[B + 1]`.
    pub cu_seqlens: Arc<[u32]>,
}

impl PackedBatch {
    /// Packs sequences of (ids, type ids).
    ///
    /// # Errors
    /// No sequence, an empty one, or ids and type ids of different length.
    pub fn pack<'a, T>(sequences: impl IntoIterator<Item = (&'a [u32], &'a [T])>) -> Result<PackedBatch>
    where
        T: Copy + Into<u32> + 'a,
    {
        let (mut ids, mut type_ids, mut positions, mut cu_seqlens) = (Vec::new(), Vec::new(), Vec::new(), vec![0u32]);
        for (index, (sequence, types)) in sequences.into_iter().enumerate() {
            if sequence.is_empty() || sequence.len() != types.len() {
                let message = format!("sequence {index} has {} tokens and {} token types", sequence.len(), types.len());
                return Err(Error::shape("batch", message));
            }
            ids.extend_from_slice(sequence);
            type_ids.extend(types.iter().map(|kind| (*kind).into()));
            positions.extend(0..sequence.len() as u32);
            let total = u32::try_from(ids.len());
            cu_seqlens.push(total.map_err(|_| Error::shape("batch", "more than 2^32 tokens"))?);
        }
        if ids.is_empty() {
            return Err(Error::shape("batch", "a batch needs at least one sequence"));
        }
        Ok(PackedBatch {
            ids: ids.into(),
            type_ids: type_ids.into(),
            positions: positions.into(),
            cu_seqlens: cu_seqlens.into(),
        })
    }

    /// Number of tokens, T.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Number of sequences, B.
    pub fn sequences(&self) -> usize {
        self.cu_seqlens.len().saturating_sub(1)
    }

    /// Length of the longest sequence.
    pub fn longest(&self) -> usize {
        self.cu_seqlens.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) as usize).max().unwrap_or(0)
    }
}
