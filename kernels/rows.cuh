// Rows held in registers: what layer normalisation and the embedding block share.
//
// The T threads of a row hold it between its statistics and what is made of them, so that it is read once: 8 · N numbers a
// thread, rows of up to 8 · N · T. They come in pieces of P: the packs in which numbers are read and written, or quads where
// f32 are read most. Piece k of thread x is piece x + k · T of the row.

#define PACKS (8 * N / P)

template <int T, int P>
__device__ __forceinline__ unsigned held_column(int k) {
    return (threadIdx.x + k * T) * P;
}

// Which of the held numbers a mask keeps: number j of piece k is bit k · P + j. `at`: the row's first element in the
// mask. A loop around one copy of the generator, where the numbers themselves need one for each.
template <int N, int T, int P>
__device__ __forceinline__ unsigned kept_bits(const Mask& mask, u64 at, unsigned width) {
    if (mask.threshold == 0) return 0xffffffffu;
    unsigned bits = 0;
    Mask own = mask;
#pragma unroll 1
    for (int quad = 0; quad < 2 * N; quad++) {
        unsigned column = held_column<T, P>(quad / (P / 4)) + quad % (P / 4) * 4;
        if (column >= width) break;
        // Else the keys of all rounds are computed before the loop and cost twenty registers.
        asm volatile("" : "+r"(own.key[0]), "+r"(own.key[1]));
        uint4 words = words4(own, at + column);
        unsigned four = (words.x >= mask.threshold) | (words.y >= mask.threshold) << 1 | (words.z >= mask.threshold) << 2 |
                        (words.w >= mask.threshold) << 3;
        bits |= four << quad * 4;
    }
    return bits;
}

// The mask, applied to v.
template <int N>
__device__ __forceinline__ void drop_held(const Mask& mask, unsigned bits, float (&v)[8 * N]) {
    if (mask.threshold == 0 && mask.scale == 1.0f) return;
#pragma unroll
    for (int i = 0; i < 8 * N; i++) v[i] = bits >> i & 1 ? v[i] * mask.scale : 0.0f;
}

// The sum of the held numbers of a thread, in pairs.
template <int COUNT>
__device__ __forceinline__ float sum_held(const float* v) {
    if constexpr (COUNT == 1) return v[0];
    else return sum_held<COUNT / 2>(v) + sum_held<COUNT - COUNT / 2>(v + COUNT / 2);
}

// The sum over the threads of a row.
template <int T>
__device__ __forceinline__ float held_total(float v) {
    if constexpr (T == 32) return warp_reduce<Sum>(v);
    else return row_sum(v);
}

// v := (v − mean) · r, r = 1/√(variance + ε), which is given back. Beyond the row's end v must be 0, and is.
template <int N, int T, int P>
__device__ __forceinline__ float normalise_held(float (&v)[8 * N], unsigned width, float epsilon) {
    float mean = held_total<T>(sum_held<8 * N>(v)) / (float)width;
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        if (held_column<T, P>(k) + P <= width) continue;
        // The deviation of what is beyond the end is 0.
#pragma unroll
        for (int i = 0; i < P; i++) {
            if (held_column<T, P>(k) + i >= width) v[k * P + i] = mean;
        }
    }
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < 8 * N; i++) {
        v[i] -= mean;
        squares = fmaf(v[i], v[i], squares);
    }
    float scale = 1.0f / sqrtf(held_total<T>(squares) / (float)width + epsilon);
#pragma unroll
    for (int i = 0; i < 8 * N; i++) v[i] *= scale;
    return scale;
}

// Vectors of f32 that all rows of a block need, such as weights: in shared memory, read once by a block of a warp a row;
// where the whole block has a row, each thread reads them where they are. In shared memory the quads of a piece lie
// apart, so that the lanes of a warp read neighbouring quads; four more keep those that are written at once in different
// banks.
template <int N, int P>
struct Columns {
    float4 quads[P / 4][8 * N / P * 32 + 4];
};

// Fills it; __syncthreads() must follow. Beyond the width it is 0.
template <int N, int P>
__device__ __forceinline__ void fill_columns(Columns<N, P>& columns, const float* from, unsigned width) {
    bool vector = aligned16(from) && width % 4 == 0;
    for (unsigned quad = threadIdx.y * 32 + threadIdx.x; quad < 64 * N; quad += blockDim.y * 32) {
        float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (quad * 4 < width) v = load4(from, quad * 4, width, vector);
        columns.quads[quad % (P / 4)][quad / (P / 4)] = v;
    }
}

// Piece k of a vector in shared memory.
template <int N, int P>
__device__ __forceinline__ void column_pack(const Columns<N, P>& columns, int k, float* v) {
#pragma unroll
    for (int part = 0; part < P / 4; part++) {
        float4 quad = columns.quads[part][threadIdx.x + k * 32];
        v[4 * part] = quad.x;
        v[4 * part + 1] = quad.y;
        v[4 * part + 2] = quad.z;
        v[4 * part + 3] = quad.w;
    }
}

// The same of a vector in global memory: P floats from `column` on, 0 beyond the width.
template <int P>
__device__ __forceinline__ void float_pack(const float* from, unsigned column, unsigned width, bool vector, float* v) {
#pragma unroll
    for (int part = 0; part < P / 4; part++) {
        float4 quad = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (column + 4 * part < width) quad = load4(from, column + 4 * part, width, vector);
        v[4 * part] = quad.x;
        v[4 * part + 1] = quad.y;
        v[4 * part + 2] = quad.z;
        v[4 * part + 3] = quad.w;
    }
}

// to[c] = Σ over the warps of a block of what they hold for column c, in their order; `parts` is for 8 warps at most.
template <int N, int P>
__device__ __forceinline__ void add_warps(Columns<N, P>* parts, const float (&v)[8 * N], float* to, unsigned width) {
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
#pragma unroll
        for (int part = 0; part < P / 4; part++) {
            const float* quad = v + k * P + 4 * part;
            parts[threadIdx.y].quads[part][threadIdx.x + k * 32] = make_float4(quad[0], quad[1], quad[2], quad[3]);
        }
    }
    __syncthreads();
    bool vector = aligned16(to) && width % 4 == 0;
    for (unsigned quad = threadIdx.y * 32 + threadIdx.x; quad * 4 < width; quad += blockDim.y * 32) {
        unsigned part = quad % (P / 4), place = quad / (P / 4);
        float4 sum = parts[0].quads[part][place];
        for (unsigned warp = 1; warp < blockDim.y; warp++) sum = add4(sum, parts[warp].quads[part][place]);
        store4(to, quad * 4, width, vector, sum);
    }
}
