// Attention over packed sequences (src/ops/attention; Dao, Fu, Ermon, Rudra, Ré, "FlashAttention", 2022; the gradient of
// keys and values by blocks of keys, that of queries by blocks of queries, after Dao, "FlashAttention-2", 2023).
//
// Within a sequence and head: S = scale · q · kᵀ; P = softmax(S); y = (P ∘ M) · v, where M is the dropout mask, 0 or
// 1 / (1 − p). Kept: L = log Σ exp S of every row. Backward, with D = rowsum(dy ∘ y): P = exp(S − L),
// dv = (P ∘ M)ᵀ · dy, dS = P ∘ ((dy · vᵀ) ∘ M − D), dq = scale · dS · k, dk = scale · dSᵀ · q.
//
// - The tiles are those of tiles.cuh.
// - q, k, v, y and their gradients [tokens, heads · head_dim]; L, D [tokens, heads]; queries, keys [sequences + 1]: where the
//   sequences begin and end among the rows of q, y and among those of k, v. They may differ unless `causal`.
// - A block computes a few rows of the result of one sequence and head (`Shape::ROWS`), from tiles of `Shape::COLUMNS` rows of
//   the other side. A warp has whole rows, so that what is between the two products stays in the warp. Tiles count from
//   the start of the sequence: a sequence has the same bits alone and packed.
// - Heads of up to 32, 64, 128 and 256 numbers have kernels of their own; numbers that are missing are filled with zeros.
// - Element (query · heads + head) · mask_stride + key of the dropout mask, query counted in the batch and key in its
//   sequence. `mask_stride`: a multiple of 4, at least the longest sequence of keys.
//
// For all but `attention_products`. Grid: x = ceil(longest sequence / rows), y = heads, z = sequences. Block and bytes of
// dynamic shared memory by head:
// | head_dim up to | 32 | 64 | 128 | 256 |
// |---|---|---|---|---|
// | forward: rows, threads, bytes | 64, 128, 45,056 | 64, 128, 69,632 | 64, 128, 76,800 | 16, 128, 85,504 |
// | backward: rows, threads, bytes | 64, 128, 54,784 | 64, 128, 61,696 | 32, 128, 72,448 | 8, 64, 84,608 |

#define LOG2_E 1.44269504088896340736f
#define LN_2 0.69314718055994530942f

extern __shared__ float4 shared_quads[];

// What a kernel needs to know of the op.
struct Attention {
    const unsigned* queries;
    const unsigned* keys;
    unsigned heads, head_dim;
    float scale;
    int causal;
    Mask mask;
    unsigned mask_stride;
};

// Tiles for heads of up to HEAD numbers: a lane has TM × TN numbers of a tile of the scores.
template <int HEAD_, int WARPS_, int TM_, int TN_>
struct Shape {
    static constexpr int HEAD = HEAD_, TM = TM_, TN = TN_, WARPS = WARPS_, THREADS = 32 * WARPS;
    static constexpr int ROWS = WARPS * 4 * TM, COLUMNS = 8 * TN;
    // Numbers between rows of a tile of heads, and of a tile of scores.
    static constexpr int PITCH = HEAD + 4, SCORES_PITCH = COLUMNS + 4;
    // Numbers of a head that a lane has of a row.
    static constexpr int TH = HEAD / 8;
};

// Where a block stands: its sequence's rows of q and of k, its head, and the first of its rows.
struct Place {
    unsigned query, queries, key, keys, head, first;
    u64 width;
};

__device__ __forceinline__ Place place(const Attention& op, unsigned rows) {
    unsigned query = op.queries[blockIdx.z], key = op.keys[blockIdx.z];
    return {
        query,      op.queries[blockIdx.z + 1] - query, key,
        op.keys[blockIdx.z + 1] - key,
        blockIdx.y, blockIdx.x * rows,                  (u64)op.heads * op.head_dim
    };
}

// Starts the copy of rows `first` .. of one head, of which the sequence has `count` and the batch's first is `begin`.
template <class T, int ROWS, bool ORDERED>
__device__ __forceinline__ void copy_head(
    float* tile, const float* source, const Place& at, unsigned begin, unsigned first, unsigned count, unsigned head_dim,
    bool vector
) {
    const float* from = source + (u64)(begin + first) * at.width + at.head * head_dim;
    copy_tile<T::THREADS, ROWS, T::HEAD, T::PITCH, ORDERED>(tile, from, at.width, count - first, head_dim, vector);
}

// Which of a lane's numbers of a tile of scores the dropout mask keeps: bit i · TN + j, or j · TM + i where the tile's rows
// are keys (TURNED). `query` and `key` are those of the warp's first row and of the tile's first column. A loop, so that the
// code of Philox is there once, not for each four numbers.
template <class T, bool TURNED>
__device__ __forceinline__ unsigned kept_bits(const Attention& op, unsigned query, unsigned head, unsigned key) {
    unsigned lane = threadIdx.x % 32, bits = 0;
    constexpr int QUADS = TURNED ? T::TN : T::TM * T::TN / 4;
#pragma unroll 1
    for (int n = 0; n < QUADS; n++) {
        unsigned at_query = query + (TURNED ? lane_column(lane, n) : lane_row<T::TM>(lane, n / (T::TN / 4)));
        unsigned at_key = key + (TURNED ? lane_row<T::TM>(lane, 0) : lane_column(lane, n % (T::TN / 4) * 4));
        // The number of the block of four words, in 32 bits as the counter has it.
        uint4 words = philox(op.mask, (at_query * op.heads + head) * (op.mask_stride / 4) + at_key / 4);
        unsigned least = op.mask.threshold;
        unsigned four = (words.x >= least) | (words.y >= least) << 1 | (words.z >= least) << 2 | (words.w >= least) << 3;
        // A lane has TM neighbouring keys where rows are keys: all of a block of words, or a part of one.
        bits |= TURNED ? (four >> at_key % 4 & ((1u << T::TM) - 1)) << n * T::TM : four << n * 4;
    }
    return bits;
}

// Writes a warp's part of a tile of scores, for the warp alone.
template <class T>
__device__ __forceinline__ void put_scores(float* tile, const float (&scores)[T::TM][T::TN]) {
    unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < T::TM; i++) {
#pragma unroll
        for (int j = 0; j < T::TN; j += 4) {
            put_shared(
                tile + lane_row<T::TM>(lane, i) * T::SCORES_PITCH + lane_column(lane, j), scores[i][j], scores[i][j + 1],
                scores[i][j + 2], scores[i][j + 3]
            );
        }
    }
    __syncwarp();
}

// target (+)= factor · sums for a warp's rows, the first of which is row `first` of the batch; those from `end` on are not
// there. By way of `tile`, rows of heads that only this warp has read: so whole rows are written, by one loop.
template <class T>
__device__ __forceinline__ void put_rows(
    float* target, int accumulate, float* tile, const float (&sums)[T::TM][T::TH], float factor, unsigned first,
    unsigned end, const Place& at, unsigned head_dim, bool vector
) {
    unsigned lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < T::TM; i++) {
#pragma unroll
        for (int j = 0; j < T::TH; j += 4) {
            float* quad = tile + lane_row<T::TM>(lane, i) * T::PITCH + lane_column(lane, j);
            put_shared(quad, sums[i][j], sums[i][j + 1], sums[i][j + 2], sums[i][j + 3]);
        }
    }
    __syncwarp();
    target += at.head * head_dim;
#pragma unroll 1
    for (unsigned i = lane; i < 4 * T::TM * T::HEAD / 4; i += 32) {
        unsigned row = i / (T::HEAD / 4), column = i % (T::HEAD / 4) * 4;
        if (first + row >= end || column >= head_dim) continue;
        float4 quad = *(const float4*)(tile + row * T::PITCH + column);
        put4(target + (first + row) * at.width, column, head_dim, vector, scale4(quad, factor), accumulate);
    }
}

// Keys that the rows before `end` may see.
__device__ __forceinline__ unsigned visible(const Attention& op, unsigned end, unsigned keys) {
    return op.causal ? min(end, keys) : keys;
}

template <class T>
__device__ __forceinline__ void forward(
    float* y, float* log_sum_exp, const float* q, const float* k, const float* v, const Attention& op
) {
    Place at = place(op, T::ROWS);
    if (at.first >= at.queries) return;
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32 * 4 * T::TM;
    bool vector = op.head_dim % 4 == 0 && aligned16(q) && aligned16(k) && aligned16(v) && aligned16(y);
    float *queries = (float*)shared_quads, *keys = queries + T::ROWS * T::PITCH;
    float *values = keys + T::COLUMNS * T::PITCH, *scores = values + T::COLUMNS * T::PITCH + warp * T::SCORES_PITCH;
    float sums[T::TM][T::TH] = {}, maxima[T::TM], totals[T::TM] = {}, factor = op.scale * LOG2_E;
#pragma unroll
    for (int i = 0; i < T::TM; i++) maxima[i] = -INFINITY_F;
    unsigned seen = visible(op, at.first + T::ROWS, at.keys);
    copy_head<T, T::ROWS, false>(queries, q, at, at.query, at.first, at.queries, op.head_dim, vector);
    copy_head<T, T::COLUMNS, true>(keys, k, at, at.key, 0, at.keys, op.head_dim, vector);
    copies_end();
    for (unsigned key = 0; key < seen; key += T::COLUMNS) {
        // The keys are there; the values before have been used. The values come while scores are computed.
        copies_wait<0>();
        __syncthreads();
        copy_head<T, T::COLUMNS, true>(values, v, at, at.key, key, at.keys, op.head_dim, vector);
        copies_end();
        float p[T::TM][T::TN] = {};
        multiply_rows<T::TM, T::TN, T::HEAD, T::PITCH, T::PITCH>(p, queries + warp * T::PITCH, keys);
        // The values are there; the keys have been used. The next ones come meanwhile.
        copies_wait<0>();
        __syncthreads();
        if (key + T::COLUMNS < seen) {
            copy_head<T, T::COLUMNS, true>(keys, k, at, at.key, key + T::COLUMNS, at.keys, op.head_dim, vector);
        }
        copies_end();
        bool edge = key + T::COLUMNS > at.keys || (op.causal && key + T::COLUMNS > at.first + 1);
#pragma unroll
        for (int i = 0; i < T::TM; i++) {
            unsigned row = at.first + warp + lane_row<T::TM>(lane, i);
            float most = -INFINITY_F;
#pragma unroll
            for (int j = 0; j < T::TN; j++) {
                p[i][j] *= factor;
                unsigned column = key + lane_column(lane, j);
                if (edge && (column >= at.keys || (op.causal && column > row))) p[i][j] = -INFINITY_F;
                most = fmaxf(most, p[i][j]);
            }
            // Every row sees key 0: the maximum is a number from the first tile on.
            most = fmaxf(maxima[i], lanes_reduce<Maximum>(most));
            float shrink = exp2f(maxima[i] - most);
            maxima[i] = most;
            totals[i] *= shrink;
#pragma unroll
            for (int j = 0; j < T::TN; j++) {
                p[i][j] = exp2f(p[i][j] - most);
                totals[i] += p[i][j];
            }
#pragma unroll
            for (int j = 0; j < T::TH; j++) sums[i][j] *= shrink;
        }
        if (op.mask.threshold != 0) {
            unsigned kept = kept_bits<T, false>(op, at.query + at.first + warp, at.head, key);
#pragma unroll
            for (int i = 0; i < T::TM; i++) {
#pragma unroll
                for (int j = 0; j < T::TN; j++) p[i][j] = kept >> (i * T::TN + j) & 1 ? p[i][j] * op.mask.scale : 0.0f;
            }
        }
        put_scores<T>(scores, p);
        multiply_columns<T::TM, T::TH, T::COLUMNS, T::SCORES_PITCH, T::PITCH, true>(sums, scores, values);
    }
    unsigned first = at.query + at.first + warp, end = at.query + at.queries;
#pragma unroll
    for (int i = 0; i < T::TM; i++) {
        float total = lanes_reduce<Sum>(totals[i]), share = 1.0f / total;
#pragma unroll
        for (int j = 0; j < T::TH; j++) sums[i][j] *= share;
        unsigned row = first + lane_row<T::TM>(lane, i);
        if (lane % 8 == 0 && row < end) {
            log_sum_exp[(u64)row * op.heads + at.head] = maxima[i] * LN_2 + logf(total);
        }
    }
    put_rows<T>(y, 0, queries + warp * T::PITCH, sums, 1.0f, first, end, at, op.head_dim, vector);
}

// D [queries, heads] = the sums of dy ∘ y over each head. Eight lanes a sum.
// Grid: ceil(queries · heads / (blockDim.x / 8)). Block: (threads, 1).
extern "C" __global__ void attention_products(
    float* __restrict__ products, const float* __restrict__ dy, const float* __restrict__ y, unsigned queries,
    unsigned heads, unsigned head_dim
) {
    u64 part = ((u64)blockIdx.x * blockDim.x + threadIdx.x) / 8;
    bool there = part < (u64)queries * heads, vector = head_dim % 4 == 0 && aligned16(dy) && aligned16(y);
    dy += part * head_dim;
    y += part * head_dim;
    float sum = 0.0f;
    if (there) {
        for (unsigned c = threadIdx.x % 8 * 4; c < head_dim; c += 32) {
            sum += sum4(mul4(load4(dy, c, head_dim, vector), load4(y, c, head_dim, vector)));
        }
    }
    sum = lanes_reduce<Sum>(sum);
    if (there && threadIdx.x % 8 == 0) products[part] = sum;
}

// dq of a block of queries.
template <class T>
__device__ __forceinline__ void query_gradient(
    float* dq, int accumulate, const float* q, const float* k, const float* v, const float* dy, const float* log_sum_exp,
    const float* products, const Attention& op
) {
    Place at = place(op, T::ROWS);
    if (at.first >= at.queries) return;
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32 * 4 * T::TM;
    bool vector = op.head_dim % 4 == 0 && aligned16(q) && aligned16(k) && aligned16(v) && aligned16(dy) && aligned16(dq);
    float *queries = (float*)shared_quads, *upstream = queries + T::ROWS * T::PITCH;
    float *keys = upstream + T::ROWS * T::PITCH, *values = keys + T::COLUMNS * T::PITCH;
    float* scores = values + T::COLUMNS * T::PITCH + warp * T::SCORES_PITCH;
    float sums[T::TM][T::TH] = {}, shifts[T::TM], means[T::TM], factor = op.scale * LOG2_E;
    unsigned first = at.query + at.first + warp, end = at.query + at.queries;
#pragma unroll
    for (int i = 0; i < T::TM; i++) {
        u64 row = first + lane_row<T::TM>(lane, i);
        shifts[i] = row < end ? log_sum_exp[row * op.heads + at.head] * LOG2_E : 0.0f;
        means[i] = row < end ? products[row * op.heads + at.head] : 0.0f;
    }
    copy_head<T, T::ROWS, false>(queries, q, at, at.query, at.first, at.queries, op.head_dim, vector);
    copy_head<T, T::ROWS, false>(upstream, dy, at, at.query, at.first, at.queries, op.head_dim, vector);
    unsigned seen = visible(op, at.first + T::ROWS, at.keys);
    for (unsigned key = 0; key < seen; key += T::COLUMNS) {
        __syncthreads();
        copy_head<T, T::COLUMNS, true>(keys, k, at, at.key, key, at.keys, op.head_dim, vector);
        copy_head<T, T::COLUMNS, true>(values, v, at, at.key, key, at.keys, op.head_dim, vector);
        copies_end();
        copies_wait<0>();
        __syncthreads();
        float p[T::TM][T::TN] = {}, slopes[T::TM][T::TN] = {};
        multiply_rows<T::TM, T::TN, T::HEAD, T::PITCH, T::PITCH>(p, queries + warp * T::PITCH, keys);
        multiply_rows<T::TM, T::TN, T::HEAD, T::PITCH, T::PITCH>(slopes, upstream + warp * T::PITCH, values);
        bool edge = key + T::COLUMNS > at.keys || (op.causal && key + T::COLUMNS > at.first + 1);
        unsigned kept = ~0u;
        if (op.mask.threshold != 0) kept = kept_bits<T, false>(op, first, at.head, key);
#pragma unroll
        for (int i = 0; i < T::TM; i++) {
            unsigned row = at.first + warp + lane_row<T::TM>(lane, i);
#pragma unroll
            for (int j = 0; j < T::TN; j++) {
                unsigned column = key + lane_column(lane, j);
                bool hidden = edge && (column >= at.keys || (op.causal && column > row));
                float probability = hidden ? 0.0f : exp2f(p[i][j] * factor - shifts[i]);
                // No dropout: all is kept, and the scale is 1.
                float slope = kept >> (i * T::TN + j) & 1 ? slopes[i][j] * op.mask.scale : 0.0f;
                slopes[i][j] = probability * (slope - means[i]);
            }
        }
        put_scores<T>(scores, slopes);
        multiply_columns<T::TM, T::TH, T::COLUMNS, T::SCORES_PITCH, T::PITCH, true>(sums, scores, keys);
    }
    put_rows<T>(dq, accumulate, queries + warp * T::PITCH, sums, op.scale, first, end, at, op.head_dim, vector);
}

// dk and dv of a block of keys: the rows of its tiles of scores are keys, their columns queries.
template <class T>
__device__ __forceinline__ void key_gradients(
    float* dk, int accumulate_dk, float* dv, int accumulate_dv, const float* q, const float* k, const float* v,
    const float* dy, const float* log_sum_exp, const float* products, const Attention& op
) {
    Place at = place(op, T::ROWS);
    if (at.first >= at.keys) return;
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32 * 4 * T::TM;
    bool vector = op.head_dim % 4 == 0 && aligned16(q) && aligned16(k) && aligned16(v) && aligned16(dy) &&
                  aligned16(dk) && aligned16(dv);
    float *keys = (float*)shared_quads, *values = keys + T::ROWS * T::PITCH;
    float *queries = values + T::ROWS * T::PITCH, *upstream = queries + T::COLUMNS * T::PITCH;
    float *shifts = upstream + T::COLUMNS * T::PITCH, *means = shifts + T::COLUMNS;
    float* scores = means + T::COLUMNS + warp * T::SCORES_PITCH;
    float key_sums[T::TM][T::TH] = {}, value_sums[T::TM][T::TH] = {}, factor = op.scale * LOG2_E;
    copy_head<T, T::ROWS, false>(keys, k, at, at.key, at.first, at.keys, op.head_dim, vector);
    copy_head<T, T::ROWS, false>(values, v, at, at.key, at.first, at.keys, op.head_dim, vector);
    // With the causal mask earlier queries see none of these keys.
    for (unsigned query = op.causal ? at.first : 0; query < at.queries; query += T::COLUMNS) {
        __syncthreads();
        copy_head<T, T::COLUMNS, true>(queries, q, at, at.query, query, at.queries, op.head_dim, vector);
        copy_head<T, T::COLUMNS, true>(upstream, dy, at, at.query, query, at.queries, op.head_dim, vector);
        copies_end();
        if (threadIdx.x < T::COLUMNS) {
            bool there = query + threadIdx.x < at.queries;
            u64 from = (u64)(at.query + query + threadIdx.x) * op.heads + at.head;
            shifts[threadIdx.x] = there ? log_sum_exp[from] * LOG2_E : 0.0f;
            means[threadIdx.x] = there ? products[from] : 0.0f;
        }
        copies_wait<0>();
        __syncthreads();
        float p[T::TM][T::TN] = {}, slopes[T::TM][T::TN] = {};
        multiply_rows<T::TM, T::TN, T::HEAD, T::PITCH, T::PITCH>(p, keys + warp * T::PITCH, queries);
        multiply_rows<T::TM, T::TN, T::HEAD, T::PITCH, T::PITCH>(slopes, values + warp * T::PITCH, upstream);
        bool edge = query + T::COLUMNS > at.queries || (op.causal && query < at.first + T::ROWS - 1);
        unsigned kept = ~0u;
        if (op.mask.threshold != 0) kept = kept_bits<T, true>(op, at.query + query, at.head, at.first + warp);
#pragma unroll
        for (int j = 0; j < T::TN; j++) {
            unsigned local = lane_column(lane, j), column = query + local;
            float shift = shifts[local], mean = means[local];
#pragma unroll
            for (int i = 0; i < T::TM; i++) {
                unsigned row = at.first + warp + lane_row<T::TM>(lane, i);
                bool hidden = edge && (column >= at.queries || (op.causal && row > column));
                float probability = hidden ? 0.0f : exp2f(p[i][j] * factor - shift);
                // No dropout: all is kept, and the scale is 1.
                float weight = kept >> (j * T::TM + i) & 1 ? op.mask.scale : 0.0f;
                p[i][j] = probability * weight;
                slopes[i][j] = probability * (slopes[i][j] * weight - mean);
            }
        }
        put_scores<T>(scores, p);
        multiply_columns<T::TM, T::TH, T::COLUMNS, T::SCORES_PITCH, T::PITCH, true>(value_sums, scores, upstream);
        // The warp has read what the next lines overwrite.
        __syncwarp();
        put_scores<T>(scores, slopes);
        multiply_columns<T::TM, T::TH, T::COLUMNS, T::SCORES_PITCH, T::PITCH, true>(key_sums, scores, queries);
    }
    // Keys that no query sees: the copies have had no other wait.
    copies_end();
    copies_wait<0>();
    __syncthreads();
    unsigned first = at.key + at.first + warp, end = at.key + at.keys, tile = warp * T::PITCH;
    put_rows<T>(dk, accumulate_dk, keys + tile, key_sums, op.scale, first, end, at, op.head_dim, vector);
    put_rows<T>(dv, accumulate_dv, values + tile, value_sums, 1.0f, first, end, at, op.head_dim, vector);
}

// Kernels for heads of up to `head` numbers.
// - attention_forward: y and L. Grid: x over the queries.
// - attention_query_gradient: dq (+)=, from L and D. Grid: x over the queries.
// - attention_key_gradients: dk (+)= and dv (+)=. Grid: x over the keys.
// Two blocks are what shared memory has room for on sm_80; left alone, the compiler aims at three or more and spills.
#define KERNELS(head, ForwardShape, BackwardShape)                                                                 \
    extern "C" __global__ void __launch_bounds__(ForwardShape::THREADS) attention_forward_##head(                  \
        float* __restrict__ y, float* __restrict__ log_sum_exp, const float* __restrict__ q,                       \
        const float* __restrict__ k, const float* __restrict__ v, Attention op                                     \
    ) {                                                                                                            \
        forward<ForwardShape>(y, log_sum_exp, q, k, v, op);                                                        \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(BackwardShape::THREADS, 2) attention_query_gradient_##head(       \
        float* __restrict__ dq, int accumulate, const float* __restrict__ q, const float* __restrict__ k,          \
        const float* __restrict__ v, const float* __restrict__ dy, const float* __restrict__ log_sum_exp,          \
        const float* __restrict__ products, Attention op                                                           \
    ) {                                                                                                            \
        query_gradient<BackwardShape>(dq, accumulate, q, k, v, dy, log_sum_exp, products, op);                     \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(BackwardShape::THREADS, 2) attention_key_gradients_##head(        \
        float* __restrict__ dk, int accumulate_dk, float* __restrict__ dv, int accumulate_dv,                      \
        const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,                     \
        const float* __restrict__ dy, const float* __restrict__ log_sum_exp, const float* __restrict__ products,   \
        Attention op                                                                                               \
    ) {                                                                                                            \
        key_gradients<BackwardShape>(                                                                              \
            dk, accumulate_dk, dv, accumulate_dv, q, k, v, dy, log_sum_exp, products, op                           \
        );                                                                                                         \
    }

typedef Shape<32, 4, 4, 8> Forward32;
typedef Shape<64, 4, 4, 8> Forward64;
typedef Shape<128, 4, 4, 4> Forward128;
typedef Shape<256, 4, 1, 4> Forward256;
typedef Shape<32, 4, 4, 8> Backward32;
typedef Shape<64, 4, 4, 4> Backward64;
typedef Shape<128, 4, 2, 4> Backward128;
typedef Shape<256, 2, 1, 4> Backward256;

#if FOR_HEAD(32)
KERNELS(32, Forward32, Backward32)
#endif
#if FOR_HEAD(64)
KERNELS(64, Forward64, Backward64)
#endif
#if FOR_HEAD(128)
KERNELS(128, Forward128, Backward128)
#endif
#if FOR_HEAD(256)
KERNELS(256, Forward256, Backward256)
#endif
