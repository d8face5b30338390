//! From text to packed batches: tokenizing, reading, caching, sampling.

pub mod tokenizer;
