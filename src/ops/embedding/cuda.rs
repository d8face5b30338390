//! The embedding block on a CUDA device: kernels/embedding.cu.

use std::sync::Arc;

use super::super::layer_norm::cuda::{HELD, Norm, held, held_launch};
use crate::device::cuda::{Argument, Cuda, Span, size};
use crate::error::Result;
use crate::rng::Dropout;

/// A table and the row of it that each token has.
pub type Table<'a> = (Span<'a>, &'a Arc<[u32]>);

/// What is added up for each token.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    pub word: Table<'a>,
    pub position: Table<'a>,
    pub token_type: Option<Table<'a>>,
    pub delta: Option<Span<'a>>,
}

/// Sums the rows of the tables (and delta), normalises, drops out: y, the normalised rows, the rows' 1/√(variance + ε).
pub fn forward(
    cuda: &Cuda,
    (tokens, width): (usize, usize),
    sources: Sources<'_>,
    norm: Norm<'_>,
    dropout: Option<Dropout>,
    [y, normalised, scales]: [Span<'_>; 3],
) -> Result<()> {
    let Sources { word, position, token_type, delta } = sources;
    let lists = [cuda.list(word.1)?, cuda.list(position.1)?];
    let type_list = token_type.map(|(_, ids)| cuda.list(ids)).transpose()?;
    let [word_ids, positions] = lists.each_ref().map(|list| Argument::from(&**list));
    let type_ids = type_list.as_deref().map_or(Argument::from(None), Argument::from);
    let arguments = [
        y.into(),
        normalised.into(),
        scales.into(),
        word.0.into(),
        word_ids,
        position.0.into(),
        positions,
        token_type.map(|(table, _)| table).into(),
        type_ids,
        delta.into(),
        norm.weight.into(),
        norm.bias.into(),
        size("embedding", tokens)?,
        size("embedding", width)?,
        norm.epsilon.into(),
        Argument::mask(dropout.map(|dropout| dropout.mask())),
    ];
    const KERNELS: [&str; HELD] = [
        "embedding_forward_256",
        "embedding_forward_512",
        "embedding_forward_768",
        "embedding_forward_1024",
        "embedding_forward_wide",
    ];
    let (which, block) = held("embedding", width)?;
    cuda.launch(("embedding", y.dtype()), KERNELS[which], held_launch(tokens, block), &arguments)
}
