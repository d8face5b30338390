// BERT's embedding block (src/ops/embedding): y = dropout(LayerNorm(word[id] + position[p] + type[t] + delta)).
//
// Backward: ds by `layer_norm_backward` (layer_norm.cu) with this block's mask as the mask of the output, which also
// gives delta's gradient; then a scatter of ds into each table (lookup.cu).

// y, x̂ and the tokens' r = 1/√(variance + ε). word [entries, width], position [positions, width], type [types, width]
// and its ids or both null; delta [tokens, width] or null; weight, bias [width]; ids, positions, type_ids [tokens],
// within their tables (the host checks); normalised [tokens, width], scales [tokens], or both null. Grid: ceil(tokens /
// blockDim.y). Block: (32, n), or (threads, 1).
extern "C" __global__ void embedding_forward(
    number* __restrict__ y, number* __restrict__ normalised, float* __restrict__ scales, const float* __restrict__ word,
    const unsigned* __restrict__ ids, const float* __restrict__ position, const unsigned* __restrict__ positions,
    const float* __restrict__ type, const unsigned* __restrict__ type_ids, const number* __restrict__ delta,
    const float* __restrict__ weight, const float* __restrict__ bias, unsigned tokens, unsigned width, float epsilon,
    Mask mask
) {
    unsigned token = my_row();
    if (token >= tokens) return;
    bool vector = width % 4 == 0 && aligned16(y) && aligned16(normalised) && aligned16(word) && aligned16(position) &&
                  aligned16(type) && aligned16(delta) && aligned16(weight) && aligned16(bias);
    u64 at = (u64)token * width;
    y += at;
    word += (u64)ids[token] * width;
    position += (u64)positions[token] * width;
    if (type) type += (u64)type_ids[token] * width;
    float sum = 0.0f;
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        float4 s = add4(load4(word, c, width, vector), load4(position, c, width, vector));
        if (type) s = add4(s, load4(type, c, width, vector));
        if (delta) s = add4(s, load4(delta + at, c, width, vector));
        store4(y, c, width, vector, s);
        sum += sum4(s);
    }
    number* kept = normalised ? normalised + at : 0;
    float scale = normalise_row(y, kept, weight, bias, width, epsilon, vector, sum, mask, at);
    if (scales && threadIdx.x == 0) scales[token] = scale;
}
