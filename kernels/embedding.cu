// BERT's embedding block (src/ops/embedding): y = dropout(LayerNorm(word[id] + position[p] + type[t] + delta)).
//
// A row of sums is held in registers (rows.cuh), in quads: the tables and delta are f32, and what a warp reads of them must
// lie side by side. Backward: ds, which is delta's gradient too, by `layer_norm_backward_…` (layer_norm.cu) with this
// block's mask as the mask of the output; then a scatter of ds into each table (lookup.cu).

// y, x̂ and the tokens' r = 1/√(variance + ε). word [entries, width], position [positions, width], type [types, width]
// and its ids or both null; delta [tokens, width] or null; weight, bias [width]; ids, positions, type_ids [tokens],
// within their tables (the host checks); normalised [tokens, width], scales [tokens], or both null. Kernels, grid and block:
// as for layer_norm_forward_….
#define PARAMETERS                                                                                                      \
    number *__restrict__ y, number *__restrict__ normalised, float *__restrict__ scales, const float *__restrict__ word, \
        const unsigned *__restrict__ ids, const float *__restrict__ position, const unsigned *__restrict__ positions,   \
        const float *__restrict__ type, const unsigned *__restrict__ type_ids, const float *__restrict__ delta,         \
        const float *__restrict__ weight, const float *__restrict__ bias, unsigned tokens, unsigned width,              \
        float epsilon, Mask mask

__device__ __forceinline__ void put(float* to, float4 v) {
    to[0] = v.x;
    to[1] = v.y;
    to[2] = v.z;
    to[3] = v.w;
}

template <int N, int T, int P = 4>
__device__ __forceinline__ void forward(PARAMETERS) {
    bool vector = width % 4 == 0 && aligned_quad(y) && aligned_quad(normalised) && aligned16(word) &&
                  aligned16(position) && aligned16(type) && aligned16(delta);
    bool vectors = width % 4 == 0 && aligned16(weight) && aligned16(bias);
    __shared__ Columns<T == 32 ? N : 0, P> weights, biases;
    if constexpr (T == 32) {
        fill_columns(weights, weight, width);
        fill_columns(biases, bias, width);
        __syncthreads();
    }
    for (unsigned token = my_row(); token < tokens; token += gridDim.x * blockDim.y) {
        u64 at = (u64)token * width;
        const float* words = word + (u64)ids[token] * width;
        const float* places = position + (u64)positions[token] * width;
        const float* types = type ? type + (u64)type_ids[token] * width : 0;
        float v[8 * N];
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            unsigned column = held_column<T, P>(k);
            float4 s = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (column < width) {
                s = add4(load4(words, column, width, vector), load4(places, column, width, vector));
                if (types) s = add4(s, load4(types, column, width, vector));
                if (delta) s = add4(s, load4(delta + at, column, width, vector));
            }
            put(v + k * P, s);
        }
        unsigned bits = kept_bits<N, T, P>(mask, at, width);
        float scale = normalise_held<N, T, P>(v, width, epsilon);
        if (scales && threadIdx.x == 0) scales[token] = scale;
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            unsigned column = held_column<T, P>(k);
            if (column >= width) continue;
            float by[P], plus[P], *n = v + k * P;
            if (normalised) store4(normalised + at, column, width, vector, make_float4(n[0], n[1], n[2], n[3]));
            if constexpr (T == 32) {
                column_pack(weights, k, by);
                column_pack(biases, k, plus);
            } else {
                float_pack<P>(weight, column, width, vectors, by);
                float_pack<P>(bias, column, width, vectors, plus);
            }
#pragma unroll
            for (int i = 0; i < P; i++) n[i] = fmaf(n[i], by[i], plus[i]);
        }
        drop_held<N>(mask, bits, v);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            unsigned column = held_column<T, P>(k);
            if (column >= width) continue;
            const float* n = v + k * P;
            store4(y + at, column, width, vector, make_float4(n[0], n[1], n[2], n[3]));
        }
    }
}

#define FORWARD(NAME, N, T, BLOCKS)                                                                                     \
    extern "C" __global__ void __launch_bounds__(256, BLOCKS) embedding_forward_##NAME(PARAMETERS) {                    \
        forward<N, T>(                                                                                                  \
            y, normalised, scales, word, ids, position, positions, type, type_ids, delta, weight, bias, tokens, width,  \
            epsilon, mask                                                                                               \
        );                                                                                                              \
    }

FORWARD(256, 1, 32, 4)
FORWARD(512, 2, 32, 3)
FORWARD(768, 3, 32, 2)
FORWARD(1024, 4, 32, 2)
FORWARD(wide, 4, 256, 1)
