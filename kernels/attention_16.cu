// Attention over packed sequences on tensor cores, forward (attention.cuh has what its numbers mean).

#ifndef NUMBER_16
#error "for numbers of 16 bits"
#endif

// What a warp has of its rows.
template <class T>
struct Rows {
    unsigned queries[T::HELD ? T::TILES : 1][T::HELD ? T::STEPS : 1][4];
    float sums[T::TILES][2 * T::PART_STEPS][4];
    // The largest score so far, times log2 e, and the sum of what the lane has seen: of rows lane / 4 and that + 8.
    float maxima[T::TILES][2], totals[T::TILES][2];
};

// sums (+)= left · Bᵀ for 16 numbers of the inner dimension, the lane's address of them in B being `address`: columns 16 · N on,
// up to 16 · groups. A recursion: a number that is part of an instruction cannot be that of a loop.
template <class T, bool EDGE, bool FIRST, int N = 0>
__device__ __forceinline__ void score_columns(
    float (&sums)[T::TILES][COLUMNS / 8][4], const unsigned (&left)[T::TILES][4], unsigned address, int groups
) {
    if constexpr (N < COLUMNS / 16) {
        if (EDGE && N >= groups) return;
        unsigned right[4];
        load_matrices<false, N * 16 * T::PITCH>(right, address);
#pragma unroll
        for (int m = 0; m < T::TILES; m++) {
            multiply<FIRST>(sums[m][2 * N], left[m], right[0], right[1]);
            multiply<FIRST>(sums[m][2 * N + 1], left[m], right[2], right[3]);
        }
        score_columns<T, EDGE, FIRST, N + 1>(sums, left, address, groups);
    }
}

// P of 16 keys from N · 16 on, and sums += P · V; then the next ones.
template <class T, bool EDGE, bool DROPOUT, int N = 0>
__device__ __forceinline__ void weigh_values(
    Rows<T>& rows, const float (&p)[T::TILES][COLUMNS / 8][4], unsigned values, float factor, int groups,
    const unsigned (&kept)[T::TILES]
) {
    if constexpr (N < COLUMNS / 16) {
        if (EDGE && N >= groups) return;
        unsigned left[T::TILES][4];
#pragma unroll
        for (int m = 0; m < T::TILES; m++) {
#pragma unroll
            for (int j = 2 * N; j < 2 * N + 2; j++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float shift = -rows.maxima[m][half];
                    float first = exponential(fmaf(p[m][j][2 * half], factor, shift));
                    float second = exponential(fmaf(p[m][j][2 * half + 1], factor, shift));
                    rows.totals[m][half] += first;
                    rows.totals[m][half] += second;
                    left[m][j % 2 * 2 + half] = rounded2(first, second);
                }
                if (DROPOUT) {
                    // The bits of these columns as the signs of four bytes; a mask of 16 bits from each sign.
                    unsigned signs = kept[m] << (7 - j);
                    left[m][j % 2 * 2] &= permute(signs, signs, 0x9988);
                    left[m][j % 2 * 2 + 1] &= permute(signs, signs, 0xbbaa);
                }
            }
        }
#pragma unroll
        for (int step = 0; step < T::PART_STEPS; step++) {
            unsigned right[4];
            load_matrices<true, N * 16 * T::PITCH>(right, at_step(values, step));
#pragma unroll
            for (int m = 0; m < T::TILES; m++) {
                multiply<false>(rows.sums[m][2 * step], left[m], right[0], right[1]);
                multiply<false>(rows.sums[m][2 * step + 1], left[m], right[2], right[3]);
            }
        }
        weigh_values<T, EDGE, DROPOUT, N + 1>(rows, p, values, factor, groups, kept);
    }
}

// One tile of keys and values. EDGE: only the first `groups` · 16 keys may be seen, of these the first `ends` of a row.
// `own`, `keys`, `values`: the lane's addresses.
template <class T, bool EDGE, bool DROPOUT>
__device__ __forceinline__ void forward_tile(
    Rows<T>& rows, unsigned own, unsigned keys, unsigned values, float factor, float scale, int groups,
    const int (&ends)[T::TILES][2], const unsigned (&kept)[T::TILES]
) {
    unsigned lane = thread_number() % 32;
    float p[T::TILES][COLUMNS / 8][4];
#pragma unroll
    for (int step = 0; step < T::STEPS; step++) {
        if constexpr (T::HELD) {
            unsigned left[T::TILES][4];
#pragma unroll
            for (int m = 0; m < T::TILES; m++) {
#pragma unroll
                for (int i = 0; i < 4; i++) left[m][i] = rows.queries[m][step][i];
            }
            if (step == 0) {
                score_columns<T, EDGE, true>(p, left, at_step(keys, step), groups);
            } else {
                score_columns<T, EDGE, false>(p, left, at_step(keys, step), groups);
            }
        } else {
            static_assert(T::TILES == 1, "one tile where rows come anew");
            unsigned left[1][4];
            load_matrices<false, 0>(left[0], at_step(own, step));
            take_sign(left[0], scale);
            if (step == 0) {
                score_columns<T, EDGE, true>(p, left, at_step(keys, step), groups);
            } else {
                score_columns<T, EDGE, false>(p, left, at_step(keys, step), groups);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < T::TILES; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = -INFINITY_F;
#pragma unroll
            for (int j = 0; j < COLUMNS / 8; j++) {
                if (EDGE && j >= 2 * groups) break;
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    if (EDGE && (int)(8 * j + lane % 4 * 2 + i % 2) >= ends[m][half]) p[m][j][i] = -INFINITY_F;
                    most = fmaxf(most, p[m][j][i]);
                }
            }
            most = fmaxf(most, shuffle_xor(most, 1));
            most = fmaxf(most, shuffle_xor(most, 2));
            // Every row sees key 0: the maximum is a number from the first tile on.
            float shift = fmaxf(rows.maxima[m][half], most * factor);
            float shrink = exponential(rows.maxima[m][half] - shift);
            rows.maxima[m][half] = shift;
            rows.totals[m][half] *= shrink;
#pragma unroll
            for (int n = 0; n < 2 * T::PART_STEPS; n++) {
                rows.sums[m][n][2 * half] *= shrink;
                rows.sums[m][n][2 * half + 1] *= shrink;
            }
        }
    }
    weigh_values<T, EDGE, DROPOUT>(rows, p, values, factor, groups, kept);
}

template <class T, bool DROPOUT>
__device__ __forceinline__ void forward(
    number* y, float* log_sum_exp, unsigned* kept, const number* q, const number* k, const number* v, const Attention& op
) {
    Place at = place(op);
    unsigned lane = thread_number() % 32, warp = of_warp(thread_number() / 32) * T::WARP_ROWS;
    bool vector = op.head_dim % 8 == 0 && aligned16(q) && aligned16(k) && aligned16(v) && aligned16(y);
    unsigned shared = (unsigned)__cvta_generic_to_shared(shared_bytes), own = shared + warp * T::PITCH;
    unsigned now = shared + T::OWN;
    unsigned part = T::PARTS == 1 ? 0 : blockIdx.y, seen = op.causal ? min(at.first + T::ROWS, at.keys) : at.keys;
    copy_rows<T, T::ROWS, 1>(shared, {q}, at.start(op, at.query + at.first), at.queries - at.first, op, vector);
    u64 from = at.start(op, at.key);
    auto copy = [&](unsigned stage, unsigned key) {
        copy_rows<T, COLUMNS>(stage, {k, v}, from, seen - key, op, vector);
        copies_end();
        from += (u64)COLUMNS * width(op);
    };
    copy(now, 0);
    Rows<T> rows = {};
    float factor = score_factor(op.scale);
    bool active = __any_sync(FULL_WARP, at.first + warp < at.queries);
#pragma unroll
    for (int m = 0; m < T::TILES; m++) rows.maxima[m][0] = rows.maxima[m][1] = -INFINITY_F;
    copies_wait<0>();
    __syncthreads();
    if constexpr (T::HELD) {
#pragma unroll
        for (int m = 0; m < T::TILES; m++) {
#pragma unroll
            for (int step = 0; step < T::STEPS; step++) {
                load_matrices<false, 0>(rows.queries[m][step], at_step(own + left_place<T>(), step) + m * 16 * T::PITCH);
                take_sign(rows.queries[m][step], op.scale);
            }
        }
    }
    unsigned both = 2 * (shared + T::OWN + T::OTHER);
    each_tile_of_keys<T>(op, at, seen, now, both, copy, [&](bool edge, unsigned key, unsigned now) {
        // A warp whose rows are all beyond the sequence only copies.
        if (!active) return;
        int groups = edge ? (min(seen - key, COLUMNS) + 15) / 16 : COLUMNS / 16;
        int ends[T::TILES][2] = {};
        unsigned bits[T::TILES] = {};
        if (DROPOUT) {
            // Of the blocks that share a row, one writes down what is kept.
            unsigned end = part == 0 ? at.query + at.queries : 0;
#pragma unroll
            for (int m = 0; m < T::TILES; m++) {
                unsigned row = at.query + at.first + warp + 16 * m;
                bits[m] = kept_of_rows(op, kept, true, row, end, at.head, key, 2 * groups);
            }
        }
        if (edge) {
            // Read again, rather than kept in registers all the time.
            Place again = place(op);
#pragma unroll
            for (int m = 0; m < T::TILES; m++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    unsigned row = again.first + warp + 16 * m + 8 * half + lane / 4;
                    ends[m][half] = (int)(op.causal ? min(row + 1, again.keys) : again.keys) - (int)key;
                }
            }
        }
        unsigned at_own = own + left_place<T>(), at_keys = now + right_place<T>();
        unsigned at_values = at_step(now + T::OTHER + left_place<T>(), part * T::PART_STEPS);
        if (edge) {
            forward_tile<T, true, DROPOUT>(rows, at_own, at_keys, at_values, factor, op.scale, groups, ends, bits);
        } else {
            forward_tile<T, false, DROPOUT>(rows, at_own, at_keys, at_values, factor, op.scale, groups, ends, bits);
        }
    });
    if (!active) return;
    find_again<T>(at, warp, own, op);
    unsigned first = at.query + at.first + warp;
#pragma unroll
    for (int m = 0; m < T::TILES; m++) {
        float shares[2];
        int count = (int)(at.queries - at.first - warp) - 16 * m;
        if (count <= 0) break;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = rows.totals[m][half];
            total += shuffle_xor(total, 1);
            total += shuffle_xor(total, 2);
            shares[half] = op.mask.scale / total;
            int row = 8 * half + lane / 4;
            if (log_sum_exp && part == 0 && lane % 4 == 0 && row < count) {
                log_sum_exp[(u64)(first + 16 * m + row) * op.heads + at.head] =
                    rows.maxima[m][half] * LN_2 + logf(total);
            }
        }
        put_rows<T, T::PART>(
            y + at.start(op, first + 16 * m), 0, own + m * 16 * T::PITCH, rows.sums[m], shares[0], shares[1], count, op,
            part * T::PART, vector
        );
    }
}

#define FORWARD(dropout, name, Shape, blocks)                                                                      \
    extern "C" __global__ void __launch_bounds__(Shape::THREADS, blocks) attention_forward_##name(                 \
        number* __restrict__ y, float* __restrict__ log_sum_exp, unsigned* __restrict__ kept,                      \
        const number* __restrict__ q, const number* __restrict__ k, const number* __restrict__ v, Attention op     \
    ) {                                                                                                            \
        forward<Shape, dropout>(y, log_sum_exp, kept, q, k, v, op);                                                \
    }

typedef Shape<32, 2, 1, 2> Forward32x32;
typedef Shape<32, 4, 1, 2> Forward32x64;
typedef Shape<32, 4, 2, 2> Forward32x128;
typedef Shape<64, 2, 1, 2> Forward64x32;
typedef Shape<64, 4, 1, 2> Forward64x64;
typedef Shape<64, 4, 2, 2> Forward64x128;
typedef Shape<128, 4, 1, 2> Forward128x64;
typedef Shape<256, 4, 1, 1, 2> Forward256x64;

// The last number: blocks of a multiprocessor that have registers, as many as there are without a spill.
// With dropout no blocks of 128: drawing the mask costs more than they could win.
#if FOR_HEAD(32)
FORWARD(false, 32_32, Forward32x32, 8)
FORWARD(false, 32_64, Forward32x64, 4)
FORWARD(false, 32_128, Forward32x128, 2)
FORWARD(true, dropout_32_32, Forward32x32, 7)
FORWARD(true, dropout_32_64, Forward32x64, 3)
#endif
#if FOR_HEAD(64)
FORWARD(false, 64_32, Forward64x32, 8)
FORWARD(false, 64_64, Forward64x64, 4)
FORWARD(false, 64_128, Forward64x128, 2)
FORWARD(true, dropout_64_32, Forward64x32, 6)
FORWARD(true, dropout_64_64, Forward64x64, 3)
#endif
#if FOR_HEAD(128)
FORWARD(false, 128_64, Forward128x64, 2)
FORWARD(true, dropout_128_64, Forward128x64, 2)
#endif
#if FOR_HEAD(256)
FORWARD(false, 256_64, Forward256x64, 2)
FORWARD(true, dropout_256_64, Forward256x64, 2)
#endif
