// Attention over packed sequences on tensor cores: the gradients (attention.cuh has what their numbers mean,
// attention_backward.cuh what they share with those of short sequences).

#ifndef NUMBER_16
#error "for numbers of 16 bits"
#endif

// What a warp knows of its rows: −L · log2 e − SHRINK, D by the scale of the mask, and how many keys they see of the tile.
struct Queries {
    float shifts[2], means[2];
    int ends[2];
};

// The keys of a tile, 16 at a time, and no more: it unrolled loops of a known number of rounds, whatever it was told, and read
// ahead until registers ran out. `kept`: see kept_of_rows.
template <class T, bool EDGE, bool DROPOUT>
__device__ __forceinline__ void query_columns(
    float (&sums)[2 * T::PART_STEPS][4], const Sides<T>& sides, Queries rows, unsigned own, unsigned right,
    unsigned turned, float factor, float scale, int groups, unsigned kept
) {
#pragma unroll 1
    for (int group = unknown(groups); group > 0; group--) {
        float scores[2][4], slopes[2][4];
        first_products<T>(scores, slopes, sides, own, right, scale);
        unsigned left[4];
#pragma unroll
        for (int n = 0; n < 2; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float p = exponential(fmaf(scores[n][i], factor, rows.shifts[i / 2]));
                if (EDGE && (int)(8 * n + thread_number() % 4 * 2 + i % 2) >= rows.ends[i / 2]) p = 0.0f;
                float slope = DROPOUT && !(kept >> (8 * i + n) & 1) ? 0.0f : slopes[n][i];
                slopes[n][i] = p * (slope - rows.means[i / 2]);
            }
            left[2 * n] = rounded2(slopes[n][0], slopes[n][1]);
            left[2 * n + 1] = rounded2(slopes[n][2], slopes[n][3]);
        }
        second_product<T, 0>(sums, left, turned);
        right += 16 * T::PITCH;
        turned += 16 * T::PITCH;
        rows.ends[0] -= 16;
        rows.ends[1] -= 16;
        kept >>= 2;
    }
}

template <class T, bool DROPOUT>
__device__ __forceinline__ void query_gradient(
    number* dq, int accumulate, float* statistics, unsigned* kept, const number* q, const number* k, const number* v,
    const number* dy, const number* y, const float* log_sum_exp, const Attention& op
) {
    Place at = place(op);
    unsigned lane = thread_number() % 32, warp = of_warp(thread_number() / 32) * T::WARP_ROWS, part = T::PARTS == 1 ? 0 : blockIdx.y;
    bool vector = op.head_dim % 8 == 0 && aligned16(q) && aligned16(k) && aligned16(v) && aligned16(dy) && aligned16(y) &&
                  aligned16(dq);
    unsigned shared = (unsigned)__cvta_generic_to_shared(shared_bytes), own = shared + warp * T::PITCH;
    unsigned stages = shared + 2 * T::OWN, now = stages, last = stages + (T::STAGES - 1) * 2 * T::OTHER;
    unsigned seen = op.causal ? min(at.first + T::ROWS, at.keys) : at.keys;
    u64 rows_from = at.start(op, at.query + at.first), from = at.start(op, at.key);
    copy_rows<T, T::ROWS, 2>(shared, {q, dy}, rows_from, at.queries - at.first, op, vector);
    copy_rows<T, T::ROWS, 1>(last, {y}, rows_from, at.queries - at.first, op, vector);
    auto copy = [&](unsigned stage, unsigned key) {
        copy_rows<T, COLUMNS, 2>(stage, {k, v}, from, seen - key, op, vector);
        copies_end();
        from += (u64)COLUMNS * width(op);
    };
    if (T::STAGES == 2) copy(now, 0);
    bool active = __any_sync(FULL_WARP, at.first + warp < at.queries);
    float factor = score_factor(op.scale);
    float sums[2 * T::PART_STEPS][4] = {};
    Queries rows = {};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        unsigned row = at.first + warp + 8 * half + lane / 4;
        if (row < at.queries) {
            rows.shifts[half] = exponent_shift(log_sum_exp[(u64)(at.query + row) * op.heads + at.head]);
        }
    }
    copies_end();
    copies_wait<0>();
    __syncthreads();
    Sides<T> sides;
    if (active) {
        sides.load(own + left_place<T>(), op.scale);
        row_products<T>(rows.means, own + T::OWN, last + warp * T::PITCH);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            rows.means[half] /= op.mask.scale;
            unsigned row = at.first + warp + 8 * half + lane / 4;
            if (part == 0 && lane % 4 == 0 && row < at.queries) {
                u64 to = (u64)at.head * op.rows + at.query + row;
                statistics[to] = rows.shifts[half];
                statistics[to + (u64)op.heads * op.rows] = rows.means[half];
            }
        }
    }
    // The rows of y have been read: their room is that of a stage.
    __syncthreads();
    if (T::STAGES == 1) {
        copy(now, 0);
        copies_wait<0>();
        __syncthreads();
    }
    each_tile_of_keys<T>(op, at, seen, now, 2 * (stages + T::OTHER), copy, [&](bool edge, unsigned key, unsigned now) {
        if (!active) return;
        int groups = edge ? (min(seen - key, COLUMNS) + 15) / 16 : COLUMNS / 16;
        unsigned bits = 0, row = at.first + warp;
        if (DROPOUT) {
            unsigned end = at.query + at.queries;
            bool drawn = !kept;
            bits = kept_of_rows(op, kept, drawn, at.query + row, end, at.head, key, 2 * groups);
        }
        unsigned at_own = own + left_place<T>(), right = now + right_place<T>();
        unsigned turned = at_step(now + left_place<T>(), part * T::PART_STEPS);
        if (edge) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                unsigned end = row + 8 * half + lane / 4 + 1;
                rows.ends[half] = (int)(op.causal ? min(end, at.keys) : at.keys) - (int)key;
            }
            query_columns<T, true, DROPOUT>(
                sums, sides, rows, at_own, right, turned, factor, op.scale, groups, bits
            );
        } else {
            query_columns<T, false, DROPOUT>(
                sums, sides, rows, at_own, right, turned, factor, op.scale, groups, bits
            );
        }
    });
    if (!active) return;
    find_again<T>(at, warp, own, op);
    float share = op.scale * op.mask.scale * exp2f(SHRINK);
    put_rows<T, T::PART>(
        dq + at.start(op, at.query + at.first + warp), accumulate, own, sums, share, share, at.queries - at.first - warp, op,
        part * T::PART, vector
    );
}

// dk and dv of a block of keys: the rows of its scores are keys, their columns queries.
template <class T, bool DROPOUT>
__device__ __forceinline__ void key_gradients(
    number* dk, int accumulate_dk, number* dv, int accumulate_dv, const float* statistics, const unsigned* kept,
    const number* q, const number* k, const number* v, const number* dy, const Attention& op
) {
    static_assert(COLUMNS % T::ROWS == 0, "a block's keys are in one word of the mask");
    // Bytes of what is known of a tile's queries, behind all stages.
    constexpr unsigned FACTS = 4 * COLUMNS * 4;
    Place at = place(op);
    unsigned lane = thread_number() % 32, warp = of_warp(thread_number() / 32) * T::WARP_ROWS, part = T::PARTS == 1 ? 0 : blockIdx.y;
    bool vector = op.head_dim % 8 == 0 && aligned16(q) && aligned16(k) && aligned16(v) && aligned16(dy) && aligned16(dk) &&
                  aligned16(dv);
    unsigned shared = (unsigned)__cvta_generic_to_shared(shared_bytes), own = shared + warp * T::PITCH;
    unsigned stages = shared + 2 * T::OWN, now = stages;
    unsigned stage_facts = 2 * T::OWN + T::STAGES * 2 * T::OTHER;
    copy_rows<T, T::ROWS, 2>(shared, {k, v}, at.start(op, at.key + at.first), at.keys - at.first, op, vector);
    // With the causal mask earlier queries see none of these keys.
    unsigned query = op.causal ? at.first / COLUMNS * COLUMNS : 0;
    u64 from = at.start(op, at.query + query);
    auto copy = [&](unsigned stage, unsigned facts, unsigned query) {
        copy_rows<T, COLUMNS, 2>(stage, {q, dy}, from, at.queries - query, op, vector);
        from += (u64)COLUMNS * width(op);
        // Words of what is known: four for each query. Hidden, or registers keep all that follows.
        unsigned to = shared + facts, first = at.query + query, count = at.queries - query, head = hidden(at.head);
        for (unsigned i = thread_number(); i < COLUMNS * 2; i += T::THREADS) {
            unsigned row = i % COLUMNS;
            u64 at_row = ((u64)(i / COLUMNS * op.heads) + head) * op.rows + first + row;
            copy_word(to + i * 4, statistics + (row < count ? at_row : 0), row < count ? 4 : 0);
            if (DROPOUT) {
                unsigned word = to + (2 * COLUMNS + i) * 4, tile = at.first / 64;
                bool there = i / 2 < count;
                if (kept) {
                    u64 at_word = ((u64)(head * ((op.mask_stride + 63) / 64) + tile) * op.rows + first) * 2 + i;
                    copy_word(word, kept + (there ? at_word : 0), there ? 4 : 0);
                } else {
                    unsigned eights = min((at.keys - tile * 64 + 7) / 8, 8);
                    unsigned bits = there ? draw_word(op, first + i / 2, head, tile * 64, i % 2, eights) : 0;
                    asm volatile("st.shared.b32 [%0], %1;" ::"r"(word), "r"(bits) : "memory");
                }
            }
        }
        copies_end();
    };
    unsigned facts = stage_facts;
    if (query < at.queries) copy(now, facts, query);
    bool active = __any_sync(FULL_WARP, at.first + warp < at.keys);
    float factor = score_factor(op.scale);
    float key_sums[2 * T::PART_STEPS][4] = {}, value_sums[2 * T::PART_STEPS][4] = {};
    copies_end();
    copies_wait<0>();
    __syncthreads();
    Sides<T> sides;
    sides.load(own + left_place<T>(), op.scale);
    // Bytes of a word are keys of four, and its bits eights: see kept_of_rows.
    unsigned bit = lane / 4 % 4 * 8 + (at.first % 64 + warp) / 8;
    // `edge` is known where this is called.
    auto step = [&](bool edge) {
        bool more = query + COLUMNS < at.queries;
        unsigned next = T::STAGES == 1 ? now : 2 * (stages + T::OTHER) - now;
        unsigned next_facts = T::STAGES == 1 ? facts : 2 * stage_facts + FACTS - facts;
        if (T::STAGES == 2 && more) copy(next, next_facts, query + COLUMNS);
        if (active) {
            unsigned at_own = own + left_place<T>(), right = now + right_place<T>();
            unsigned turned = at_step(now + left_place<T>(), part * T::PART_STEPS);
            const float* known = (const float*)(shared_bytes + facts);
            const unsigned* words = (const unsigned*)known + 2 * COLUMNS;
            int ahead = (int)(at.first + warp) - (int)query;
            if (edge) {
                key_columns<T, true, DROPOUT, false>(
                    key_sums, value_sums, sides, at_own, right, turned, known, words, bit, factor, op.scale, ahead, 16, 0
                );
            } else {
                key_columns<T, false, DROPOUT, false>(
                    key_sums, value_sums, sides, at_own, right, turned, known, words, bit, factor, op.scale, ahead, 16, 0
                );
            }
        }
        if (more) {
            if (T::STAGES == 1) {
                __syncthreads();
                copy(next, next_facts, query + COLUMNS);
            }
            copies_wait<0>();
            __syncthreads();
        }
        query += COLUMNS;
        now = next;
        facts = next_facts;
    };
    if (op.causal) {
        while (query < at.queries && query < at.first + T::ROWS) step(true);
    }
    while (query < at.queries) step(false);
    if (!active) return;
    find_again<T>(at, warp, own, op);
    float share = op.mask.scale * exp2f(SHRINK);
    u64 to = at.start(op, at.key + at.first + warp);
    unsigned count = at.keys - at.first - warp;
    put_rows<T, T::PART>(
        dk + to, accumulate_dk, own, key_sums, op.scale * share, op.scale * share, count, op, part * T::PART, vector
    );
    put_rows<T, T::PART>(dv + to, accumulate_dv, own + T::OWN, value_sums, share, share, count, op, part * T::PART, vector);
}

#define BACKWARD(dropout, kind, head, Queries, query_blocks, Keys, key_blocks)                                     \
    extern "C" __global__ void __launch_bounds__(Queries::THREADS, query_blocks)                                   \
        attention_query_gradient_##kind##head(                                                                     \
            number* __restrict__ dq, int accumulate, float* __restrict__ statistics, unsigned* __restrict__ kept,  \
            const number* __restrict__ q, const number* __restrict__ k, const number* __restrict__ v,              \
            const number* __restrict__ dy, const number* __restrict__ y, const float* __restrict__ log_sum_exp,    \
            Attention op                                                                                           \
        ) {                                                                                                        \
        query_gradient<Queries, dropout>(dq, accumulate, statistics, kept, q, k, v, dy, y, log_sum_exp, op);       \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(Keys::THREADS, key_blocks) attention_key_gradients_##kind##head(  \
        number* __restrict__ dk, int accumulate_dk, number* __restrict__ dv, int accumulate_dv,                    \
        const float* __restrict__ statistics, const unsigned* __restrict__ kept, const number* __restrict__ q,     \
        const number* __restrict__ k, const number* __restrict__ v, const number* __restrict__ dy, Attention op    \
    ) {                                                                                                            \
        key_gradients<Keys, dropout>(dk, accumulate_dk, dv, accumulate_dv, statistics, kept, q, k, v, dy, op);     \
    }

typedef Shape<32, 4, 1, 2> Backward32;
typedef Shape<64, 4, 1, 2> Backward64;
typedef Shape<128, 4, 1, 1> Backward128;
typedef Shape<256, 2, 1, 1, 2> Backward256;

// Numbers: blocks of a multiprocessor that have registers, as many as there are without a spill.
#if FOR_HEAD(32)
BACKWARD(false, , 32, Backward32, 5, Backward32, 4)
BACKWARD(true, dropout_, 32, Backward32, 4, Backward32, 4)
#endif
#if FOR_HEAD(64)
BACKWARD(false, , 64, Backward64, 4, Backward64, 3)
BACKWARD(true, dropout_, 64, Backward64, 3, Backward64, 3)
#endif
#if FOR_HEAD(128)
BACKWARD(false, , 128, Backward128, 2, Backward128, 2)
BACKWARD(true, dropout_, 128, Backward128, 2, Backward128, 2)
#endif
#if FOR_HEAD(256)
BACKWARD(false, , 256, Backward256, 2, Backward256, 2)
BACKWARD(true, dropout_, 256, Backward256, 2, Backward256, 2)
#endif
