// Relations between the tokens of a sequence (src/ops/relations): scores s_ij = x_i · x_j / √d of the student, t_ij of its
// teacher, softmax over j of each, KL divergence of the teacher's from the student's. Scores are computed where they are
// needed and kept nowhere. They are symmetric, so that one score serves G_ij and G_ji, G = softmax(s) − softmax(t):
// (G + Gᵀ)_ij = e^(s_ij − l_i) + e^(s_ij − l_j) − e^(t_ij − l'_i) − e^(t_ij − l'_j), l and l' the log-sum-exps of the rows.
//
// A block of (32, ROWS) has ROWS tokens of a sequence, a warp each, of one head. Grid: (ceil(longest / ROWS) · heads, sequences
// or fewer, 1).

#define ROWS 8
#define KEYS 32
// Numbers of a head that are in shared memory at a time.
#define DEPTH 64

// The tokens of a sequence and one head of one side.
struct Side {
    const float* x;  // of the sequence's first token, this head
    unsigned d, stride, length;
};

// Rows of a tile, and a further number each: lanes that read one column of it are in different banks.
struct Tiles {
    float rows[ROWS][DEPTH];
    float keys[KEYS][DEPTH + 1];
};

// to[i][c] = numbers `column` + c of token `first` + i, 0 beyond the ends.
template <int COUNT, int WIDTH>
__device__ __forceinline__ void load_tile(float (&to)[COUNT][WIDTH], const Side& side, unsigned first, unsigned column) {
    for (unsigned i = threadIdx.y; i < COUNT; i += ROWS) {
        for (unsigned c = threadIdx.x; c < DEPTH; c += 32) {
            bool inside = first + i < side.length && column + c < side.d;
            to[i][c] = inside ? side.x[(u64)(first + i) * side.stride + column + c] : 0.0f;
        }
    }
}

// x_row · x_key / √d of this warp's row and this lane's key. All threads of the block must come here.
__device__ __forceinline__ float score(Tiles& tiles, const Side& side, unsigned row, unsigned key) {
    float sum = 0.0f;
    for (unsigned column = 0; column < side.d; column += DEPTH) {
        __syncthreads();
        load_tile(tiles.rows, side, row, column);
        load_tile(tiles.keys, side, key, column);
        __syncthreads();
        unsigned depth = side.d - column < DEPTH ? side.d - column : DEPTH;
        for (unsigned c = 0; c < depth; c++) sum = fmaf(tiles.rows[threadIdx.y][c], tiles.keys[threadIdx.x][c], sum);
    }
    return sum / sqrtf((float)side.d);
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

// The student's and the teacher's side of a sequence. Returns its length.
__device__ __forceinline__ unsigned sides_of(
    Side* sides, unsigned sequence, unsigned head, const float* x, const float* y, const unsigned* borders, unsigned d,
    unsigned teacher_d, unsigned stride, unsigned teacher_stride
) {
    unsigned start = borders[sequence], length = borders[sequence + 1] - start;
    sides[0] = {x + (u64)start * stride + (u64)head * d, d, stride, length};
    sides[1] = {y + (u64)start * teacher_stride + (u64)head * teacher_d, teacher_d, teacher_stride, length};
    return length;
}

// rows [3, tokens, heads]: KL of each token and head, and log Σ exp of its scores, the student's and the teacher's. x, y: rows
// `stride` and `teacher_stride` apart, heads of d and teacher_d numbers. borders [sequences + 1].
extern "C" __global__ void __launch_bounds__(256) relations_forward(
    float* __restrict__ rows, const float* __restrict__ x, const float* __restrict__ y,
    const unsigned* __restrict__ borders, unsigned sequences, unsigned tokens, unsigned heads, unsigned d,
    unsigned teacher_d, unsigned stride, unsigned teacher_stride
) {
    __shared__ Tiles tiles;
    unsigned head = blockIdx.x % heads, first = blockIdx.x / heads * ROWS;
    for (unsigned sequence = blockIdx.y; sequence < sequences; sequence += gridDim.y) {
        Side sides[2];
        unsigned length = sides_of(sides, sequence, head, x, y, borders, d, teacher_d, stride, teacher_stride);
        if (first >= length) continue;
        Seen seen = {-INFINITY_F, -INFINITY_F, 0.0f, 0.0f, 0.0f};
        for (unsigned key = 0; key < length; key += KEYS) {
            float s = score(tiles, sides[0], first, key), t = score(tiles, sides[1], first, key);
            if (key + threadIdx.x >= length) continue;
            if (s > seen.s || t > seen.t) rebase(seen, fmaxf(s, seen.s), fmaxf(t, seen.t));
            float power = expf(t - seen.t);
            seen.sum_s += expf(s - seen.s);
            seen.sum_t += power;
            seen.apart = fmaf(power, t - s, seen.apart);
        }
        rebase(seen, warp_reduce<Maximum>(seen.s), warp_reduce<Maximum>(seen.t));
        float sum_s = warp_reduce<Sum>(seen.sum_s), sum_t = warp_reduce<Sum>(seen.sum_t);
        float apart = warp_reduce<Sum>(seen.apart) / sum_t;
        unsigned row = first + threadIdx.y;
        if (threadIdx.x != 0 || row >= length) continue;
        float log_s = seen.s + logf(sum_s), log_t = seen.t + logf(sum_t);
        u64 at = (u64)(borders[sequence] + row) * heads + head, all = (u64)tokens * heads;
        rows[at] = apart - (log_t - log_s);
        rows[all + at] = log_s;
        rows[2 * all + at] = log_t;
    }
}

// slopes [tokens, heads · d]: the gradient of the sum of all values with respect to x. rows: as above. Grid: the same, but for
// z: ceil(d / DEPTH), columns of the slopes.
extern "C" __global__ void __launch_bounds__(256) relations_slopes(
    float* __restrict__ slopes, const float* __restrict__ rows, const float* __restrict__ x, const float* __restrict__ y,
    const unsigned* __restrict__ borders, unsigned sequences, unsigned tokens, unsigned heads, unsigned d,
    unsigned teacher_d, unsigned stride, unsigned teacher_stride
) {
    __shared__ Tiles tiles;
    __shared__ float weights[ROWS][KEYS];
    unsigned head = blockIdx.x % heads, first = blockIdx.x / heads * ROWS, column = blockIdx.z * DEPTH;
    u64 all = (u64)tokens * heads;
    for (unsigned sequence = blockIdx.y; sequence < sequences; sequence += gridDim.y) {
        Side sides[2];
        unsigned length = sides_of(sides, sequence, head, x, y, borders, d, teacher_d, stride, teacher_stride);
        if (first >= length) continue;
        const float* sums = rows + all + (u64)borders[sequence] * heads + head;
        unsigned row = first + threadIdx.y;
        bool inside = row < length;
        float own_s = inside ? sums[(u64)row * heads] : 0.0f, own_t = inside ? sums[all + (u64)row * heads] : 0.0f;
        float sum[2] = {0.0f, 0.0f};
        for (unsigned key = 0; key < length; key += KEYS) {
            float s = score(tiles, sides[0], first, key), t = score(tiles, sides[1], first, key), weight = 0.0f;
            u64 other = (u64)(key + threadIdx.x) * heads;
            if (inside && key + threadIdx.x < length) {
                weight = (expf(s - own_s) - expf(t - own_t)) + (expf(s - sums[other]) - expf(t - sums[all + other]));
            }
            __syncthreads();
            weights[threadIdx.y][threadIdx.x] = weight;
            load_tile(tiles.keys, sides[0], key, column);
            __syncthreads();
            for (unsigned j = 0; j < KEYS; j++) {
                float w = weights[threadIdx.y][j];
                sum[0] = fmaf(w, tiles.keys[j][threadIdx.x], sum[0]);
                sum[1] = fmaf(w, tiles.keys[j][threadIdx.x + 32], sum[1]);
            }
        }
        // The next sequence begins with a barrier.
        if (!inside) continue;
        float* to = slopes + ((u64)(borders[sequence] + row) * heads + head) * d;
        float scale = 1.0f / sqrtf((float)d);
        for (unsigned i = 0; i < 2; i++) {
            unsigned c = column + threadIdx.x + 32 * i;
            if (c < d) to[c] = scale * sum[i];
        }
    }
}

// slot [rows], `width` numbers each, `stride` apart, += factor · upstream [1] · slopes [rows, width]. Grid, block: flat.
extern "C" __global__ void relations_add(
    float* __restrict__ slot, const float* __restrict__ slopes, const float* __restrict__ upstream, float factor,
    unsigned rows, unsigned width, unsigned stride
) {
    float scale = factor * upstream[0];
    u64 len = (u64)rows * width, step = (u64)gridDim.x * blockDim.x;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < len; i += step) {
        slot[i / width * stride + i % width] += scale * slopes[i];
    }
}
