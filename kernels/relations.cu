// Relations between the tokens of a sequence (src/ops/relations): scores s_ij = x_i · x_j / √d of the student, t_ij of its
// teacher, softmax over j of each, KL divergence of the teacher's from the student's. Scores are computed where they are
// needed and kept nowhere. They are symmetric, so that one score serves G_ij and G_ji, G = softmax(s) − softmax(t):
// (G + Gᵀ)_ij = e^(s_ij − l_i) + e^(s_ij − l_j) − e^(t_ij − l'_i) − e^(t_ij − l'_j), l and l' the log-sum-exps of the rows.
//
// - The tiles are those of tiles.cuh, and so is a lane's part of a tile of scores: TM × TN. A block has ROWS tokens of a
//   sequence and head against COLUMNS others at a time, and DEPTH numbers of them; a warp has whole rows. Tiles count from the
//   start of the sequence, which so has the same bits alone and packed.
// - The exponentials are expf: what counts are differences of probabilities.
//
// Grid: x = ceil(longest / ROWS) · heads, y = sequences or fewer. Block: (128, 1). Dynamic shared memory: 52,224 bytes
// forward, 61,440 for the slopes.

#define TM 4
#define TN 4
#define THREADS 128
#define ROWS 64
#define COLUMNS 32
#define DEPTH 64
// Numbers between the rows of tiles.
#define PITCH (DEPTH + 4)
#define SCORES_PITCH (COLUMNS + 4)

extern __shared__ float4 shared_quads[];

// One side of a sequence and head: its tokens, and the tiles that they come to.
struct Side {
    const float* x;  // of the sequence's first token, this head
    unsigned d, stride, length;
    float *rows, *keys;
};

// Starts the copy of numbers `column` .. of the tokens from `key` on to the tile of keys.
__device__ __forceinline__ void copy_keys(const Side& side, unsigned key, unsigned column) {
    bool vector = side.stride % 4 == 0 && aligned16(side.x);
    const float* from = side.x + (u64)key * side.stride + column;
    copy_tile<THREADS, COLUMNS, DEPTH, PITCH, true>(
        side.keys, from, side.stride, side.length - key, side.d - column, vector
    );
}

// The same for this block's rows, from token `first` on.
__device__ __forceinline__ void copy_rows(const Side& side, unsigned first, unsigned column) {
    bool vector = side.stride % 4 == 0 && aligned16(side.x);
    const float* from = side.x + (u64)first * side.stride + column;
    copy_tile<THREADS, ROWS, DEPTH, PITCH, false>(
        side.rows, from, side.stride, side.length - first, side.d - column, vector
    );
}

// The scores of this lane, of both sides. All threads of the block must come here; warps without rows (`busy`) get zeros.
// Heads that fit in a tile leave their rows there from one call to the next, and the keys until then.
__device__ __forceinline__ void scores_of(
    float (&scores)[2][TM][TN], const Side (&sides)[2], unsigned first, unsigned key, unsigned warp, bool busy
) {
#pragma unroll
    for (int i = 0; i < TM; i++) {
#pragma unroll
        for (int j = 0; j < TN; j++) scores[0][i][j] = scores[1][i][j] = 0.0f;
    }
    unsigned deepest = max(sides[0].d, sides[1].d);
    for (unsigned column = 0; column < deepest; column += DEPTH) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 2; i++) {
            if (column >= sides[i].d) continue;
            if (key == 0 || sides[i].d > DEPTH) copy_rows(sides[i], first, column);
            copy_keys(sides[i], key, column);
        }
        copies_end();
        copies_wait<0>();
        __syncthreads();
        if (!busy) continue;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            if (column >= sides[i].d) continue;
            multiply_rows<TM, TN, DEPTH, PITCH, PITCH>(scores[i], sides[i].rows + warp * PITCH, sides[i].keys);
        }
    }
#pragma unroll
    for (int side = 0; side < 2; side++) {
        float scale = 1.0f / sqrtf((float)sides[side].d);
#pragma unroll
        for (int i = 0; i < TM; i++) {
#pragma unroll
            for (int j = 0; j < TN; j++) scores[side][i][j] *= scale;
        }
    }
}

// The student's and the teacher's side of a sequence. Returns its length.
__device__ __forceinline__ unsigned sides_of(
    Side (&sides)[2], unsigned sequence, unsigned head, const float* x, const float* y, const unsigned* borders, unsigned d,
    unsigned teacher_d, unsigned stride, unsigned teacher_stride
) {
    unsigned start = borders[sequence], length = borders[sequence + 1] - start;
    float *first = (float*)shared_quads, *second = first + (ROWS + COLUMNS) * PITCH;
    x += (u64)start * stride + (u64)head * d;
    y += (u64)start * teacher_stride + (u64)head * teacher_d;
    sides[0] = {x, d, stride, length, first, first + ROWS * PITCH};
    sides[1] = {y, teacher_d, teacher_stride, length, second, second + ROWS * PITCH};
    return length;
}

// What a lane has seen of a row: the largest scores, Σ e^(s − largest), and Σ e^(t − largest t) (t − s).
struct Seen {
    float s, t, sum_s, sum_t, apart;
};

__device__ __forceinline__ void rebase(Seen& seen, float s, float t) {
    // A sum of 0 has no scale yet.
    if (seen.sum_s != 0.0f) seen.sum_s *= expf(seen.s - s);
    if (seen.sum_t != 0.0f) {
        float factor = expf(seen.t - t);
        seen.sum_t *= factor;
        seen.apart *= factor;
    }
    seen.s = s;
    seen.t = t;
}

// rows [3, heads, tokens]: KL of each head and token, and log Σ exp of its scores, the student's and the teacher's. x, y: rows
// `stride` and `teacher_stride` apart, heads of d and teacher_d numbers. borders [sequences + 1].
extern "C" __global__ void __launch_bounds__(THREADS, 2) relations_forward(
    float* __restrict__ rows, const float* __restrict__ x, const float* __restrict__ y,
    const unsigned* __restrict__ borders, unsigned sequences, unsigned tokens, unsigned heads, unsigned d,
    unsigned teacher_d, unsigned stride, unsigned teacher_stride
) {
    unsigned head = blockIdx.x % heads, first = blockIdx.x / heads * ROWS;
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32 * 4 * TM;
    for (unsigned sequence = blockIdx.y; sequence < sequences; sequence += gridDim.y) {
        Side sides[2];
        unsigned length = sides_of(sides, sequence, head, x, y, borders, d, teacher_d, stride, teacher_stride);
        if (first >= length) continue;
        Seen seen[TM];
#pragma unroll
        for (int i = 0; i < TM; i++) seen[i] = {-INFINITY_F, -INFINITY_F, 0.0f, 0.0f, 0.0f};
        bool busy = first + warp < length;
        for (unsigned key = 0; key < length; key += COLUMNS) {
            float scores[2][TM][TN];
            scores_of(scores, sides, first, key, warp, busy);
            // Of a lane's four columns the first ones may be there.
            unsigned column = key + lane_column(lane, 0), there = column < length ? length - column : 0;
            if (there == 0) continue;
#pragma unroll
            for (int i = 0; i < TM; i++) {
                float s = seen[i].s, t = seen[i].t;
#pragma unroll
                for (int j = 0; j < TN; j++) {
                    if (j >= there) continue;
                    s = fmaxf(s, scores[0][i][j]);
                    t = fmaxf(t, scores[1][i][j]);
                }
                if (s > seen[i].s || t > seen[i].t) rebase(seen[i], s, t);
#pragma unroll
                for (int j = 0; j < TN; j++) {
                    if (j >= there) continue;
                    float power = expf(scores[1][i][j] - t);
                    seen[i].sum_s += expf(scores[0][i][j] - s);
                    seen[i].sum_t += power;
                    seen[i].apart = fmaf(power, scores[1][i][j] - scores[0][i][j], seen[i].apart);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < TM; i++) {
            rebase(seen[i], lanes_reduce<Maximum>(seen[i].s), lanes_reduce<Maximum>(seen[i].t));
            float sum_s = lanes_reduce<Sum>(seen[i].sum_s), sum_t = lanes_reduce<Sum>(seen[i].sum_t);
            float apart = lanes_reduce<Sum>(seen[i].apart) / sum_t;
            unsigned row = first + warp + lane_row<TM>(lane, i);
            if (lane % 8 != 0 || row >= length) continue;
            float log_s = seen[i].s + logf(sum_s), log_t = seen[i].t + logf(sum_t);
            u64 at = (u64)head * tokens + borders[sequence] + row, all = (u64)tokens * heads;
            rows[at] = apart - (log_t - log_s);
            rows[all + at] = log_s;
            rows[2 * all + at] = log_t;
        }
    }
}

// slopes [tokens, heads · d]: the gradient of the sum of all values with respect to x. rows: as above. Grid: the same, but for
// z: ceil(d / DEPTH), columns of the slopes.
extern "C" __global__ void __launch_bounds__(THREADS, 2) relations_slopes(
    float* __restrict__ slopes, const float* __restrict__ rows, const float* __restrict__ x, const float* __restrict__ y,
    const unsigned* __restrict__ borders, unsigned sequences, unsigned tokens, unsigned heads, unsigned d,
    unsigned teacher_d, unsigned stride, unsigned teacher_stride
) {
    unsigned head = blockIdx.x % heads, first = blockIdx.x / heads * ROWS, part = blockIdx.z * DEPTH;
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32 * 4 * TM;
    float* weights = (float*)shared_quads + 2 * (ROWS + COLUMNS) * PITCH + warp * SCORES_PITCH;
    u64 all = (u64)tokens * heads;
    for (unsigned sequence = blockIdx.y; sequence < sequences; sequence += gridDim.y) {
        Side sides[2];
        unsigned length = sides_of(sides, sequence, head, x, y, borders, d, teacher_d, stride, teacher_stride);
        if (first >= length) continue;
        const float* sums = rows + all + (u64)head * tokens + borders[sequence];
        float own_s[TM], own_t[TM], results[TM][DEPTH / 8] = {};
#pragma unroll
        for (int i = 0; i < TM; i++) {
            unsigned row = first + warp + lane_row<TM>(lane, i);
            own_s[i] = row < length ? sums[row] : 0.0f;
            own_t[i] = row < length ? sums[all + row] : 0.0f;
        }
        bool busy = first + warp < length;
        for (unsigned key = 0; key < length; key += COLUMNS) {
            float scores[2][TM][TN];
            scores_of(scores, sides, first, key, warp, busy);
            if (d > DEPTH) {
                __syncthreads();
                copy_keys(sides[0], key, part);
                copies_end();
                copies_wait<0>();
                __syncthreads();
            }
            if (!busy) continue;
#pragma unroll
            for (int j = 0; j < TN; j++) {
                unsigned column = key + lane_column(lane, j);
                bool there = column < length;
                float other_s = there ? sums[column] : 0.0f, other_t = there ? sums[all + column] : 0.0f;
#pragma unroll
                for (int i = 0; i < TM; i++) {
                    float s = scores[0][i][j], t = scores[1][i][j];
                    float weight = (expf(s - own_s[i]) - expf(t - own_t[i])) + (expf(s - other_s) - expf(t - other_t));
                    // Rows that are not there are not written.
                    scores[0][i][j] = there ? weight : 0.0f;
                }
            }
            // The warp has read what the next lines overwrite.
            __syncwarp();
#pragma unroll
            for (int i = 0; i < TM; i++) {
                float* quad = weights + lane_row<TM>(lane, i) * SCORES_PITCH + lane_column(lane, 0);
                put_shared(quad, scores[0][i][0], scores[0][i][1], scores[0][i][2], scores[0][i][3]);
            }
            __syncwarp();
            multiply_columns<TM, DEPTH / 8, COLUMNS, SCORES_PITCH, PITCH, true>(results, weights, sides[0].keys);
        }
        float scale = 1.0f / sqrtf((float)d);
        bool vector = d % 4 == 0 && aligned16(slopes);
#pragma unroll
        for (int i = 0; i < TM; i++) {
            unsigned row = first + warp + lane_row<TM>(lane, i);
            if (row >= length) continue;
            float* to = slopes + ((u64)(borders[sequence] + row) * heads + head) * d;
#pragma unroll
            for (int j = 0; j < DEPTH / 8; j += 4) {
                unsigned column = part + lane_column(lane, j);
                float4 quad = make_float4(results[i][j], results[i][j + 1], results[i][j + 2], results[i][j + 3]);
                if (column < d) store4(to, column, d, vector, scale4(quad, scale));
            }
        }
    }
}

// slot [rows], `width` numbers each, `stride` apart, += factor · upstream [1] · slopes [rows, width]. Grid: rows or fewer.
// Block: (128, 1).
extern "C" __global__ void relations_add(
    float* __restrict__ slot, const float* __restrict__ slopes, const float* __restrict__ upstream, float factor,
    unsigned rows, unsigned width, unsigned stride
) {
    float scale = factor * upstream[0];
    bool vector = width % 4 == 0 && stride % 4 == 0 && aligned16(slot) && aligned16(slopes);
    for (unsigned row = blockIdx.x; row < rows; row += gridDim.x) {
        float* to = slot + (u64)row * stride;
        const float* from = slopes + (u64)row * width;
        for (unsigned column = threadIdx.x * 4; column < width; column += THREADS * 4) {
            put4(to, column, width, vector, scale4(load4(from, column, width, vector), scale), 1);
        }
    }
}
