// Attention over packed sequences on tensor cores: the gradients of sequences with few keys, dq, dk and dv at once
// (attention.cuh has what their numbers mean, attention_backward.cuh what they share with those of longer ones). Bits are those
// of attention_gradients_16.cu.
//
// - A block has all keys of a sequence and head, 16 a warp, and goes through its queries in tiles. So P and dS are worked out
//   once, not twice; nothing of them leaves the block, and D is worked out here, too.
// - dS of a tile goes to shared memory; from there warps take 16 queries each, and a part of a head's columns, for dq.

#ifndef NUMBER_16
#error "for numbers of 16 bits"
#endif

// Grid: x = items · heads, an item for each sequence that has keys. Rows of a block: as the longest sequence of keys, or more.
// Dynamic shared memory: rows · head · 4 (k, v) + rows · 128 (dS) + for each of one or two stages (one suffices for up to 64
// queries) head · 384 (q, dy, y) + 512 + rows · 8 bytes.
template <class T, bool DROPOUT>
__device__ __forceinline__ void gradients(
    number* dq, int accumulate_dq, number* dk, int accumulate_dk, number* dv, int accumulate_dv, const unsigned* kept,
    const number* q, const number* k, const number* v, const number* dy, const number* y, const float* log_sum_exp,
    const Attention& op
) {
    static_assert(T::PARTS == 1 && T::TILES == 1 && T::WARPS % 4 == 0, "four warps have a tile's queries");
    // Tiles of keys that a word pair of the mask is for.
    constexpr int PAIRS = T::ROWS / 64, FACTS = (2 + 2 * PAIRS) * COLUMNS * 4, STAGE = 3 * T::OTHER + FACTS;
    constexpr int ACROSS = T::WARPS / 4, PART = T::HEAD / ACROSS;
    Place at = place(op);
    unsigned lane = thread_number() % 32, warp = of_warp(thread_number() / 32) * 16;
    bool vector = op.head_dim % 8 == 0 && aligned16(q) && aligned16(k) && aligned16(v) && aligned16(dy) && aligned16(y) &&
                  aligned16(dq) && aligned16(dk) && aligned16(dv);
    unsigned shared = (unsigned)__cvta_generic_to_shared(shared_bytes), own = shared + warp * T::PITCH;
    unsigned slopes = shared + 2 * T::OWN, stages = slopes + T::ROWS * 2 * COLUMNS, now = stages;
    copy_rows<T, T::ROWS, 2>(shared, {k, v}, at.start(op, at.key), at.keys, op, vector);
    unsigned query = 0;
    u64 from = at.start(op, at.query);
    auto copy = [&](unsigned stage, unsigned query) {
        copy_rows<T, COLUMNS, 3>(stage, {q, dy, y}, from, at.queries - query, op, vector);
        from += (u64)COLUMNS * width(op);
        // Hidden, or registers keep all that follows.
        unsigned first = at.query + query, count = at.queries - query, head = hidden(at.head);
        unsigned to = stage + 3 * T::OTHER;
        for (unsigned i = thread_number(); i < COLUMNS * (DROPOUT ? 2 * PAIRS : 1); i += T::THREADS) {
            if (i < COLUMNS) {
                u64 at_row = (u64)(first + i) * op.heads + head;
                copy_word(to + i * 4, log_sum_exp + (i < count ? at_row : 0), i < count ? 4 : 0);
            }
            if (DROPOUT) {
                unsigned pair = i / (2 * COLUMNS), row = i / 2 % COLUMNS, word = to + (2 * COLUMNS + i) * 4;
                // With the causal mask, words of keys that are all hidden are not there.
                bool there = row < count && pair * 64 < at.keys && (!op.causal || query + row >= pair * 64);
                if (kept) {
                    u64 at_word = ((u64)(head * ((op.mask_stride + 63) / 64) + pair) * op.rows + first) * 2 + i % (2 * COLUMNS);
                    copy_word(word, kept + (there ? at_word : 0), there ? 4 : 0);
                } else {
                    unsigned eights = there ? min((at.keys - pair * 64 + 7) / 8, 8) : 0;
                    store_word<0>(word, there ? draw_word(op, first + row, head, pair * 64, i % 2, eights) : 0);
                }
            }
        }
        copies_end();
    };
    if (at.queries > 0) copy(now, 0);
    float factor = score_factor(op.scale);
    float key_sums[2 * T::STEPS][4] = {}, value_sums[2 * T::STEPS][4] = {};
    copies_end();
    copies_wait<0>();
    __syncthreads();
    Sides<T> sides;
    sides.load(own + left_place<T>(), op.scale);
    unsigned bit = lane / 4 % 4 * 8 + warp % 64 / 8;
#pragma unroll 1
    while (query < at.queries) {
        bool more = query + COLUMNS < at.queries;
        unsigned next = 2 * stages + STAGE - now;
        if (more) copy(next, query + COLUMNS);
        float* facts = (float*)(shared_bytes + (now - shared) + 3 * T::OTHER);
        if (warp < COLUMNS) {
            float means[2];
            row_products<T>(means, now + T::OTHER + warp * T::PITCH, now + 2 * T::OTHER + warp * T::PITCH);
            if (lane % 4 == 0) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    unsigned row = warp + 8 * half + lane / 4;
                    facts[row] = exponent_shift(facts[row]);
                    facts[COLUMNS + row] = means[half] / op.mask.scale;
                }
            }
        }
        __syncthreads();
        if (warp < at.keys) {
            unsigned at_own = own + left_place<T>(), right = now + right_place<T>(), turned = now + left_place<T>();
            int count = (int)(at.keys - warp), ahead = op.causal ? (int)warp - (int)query : -(1 << 30);
            // The words of the mask lie behind two rows of facts; those of the second 64 keys behind the first ones.
            const unsigned* words = (const unsigned*)facts + 2 * COLUMNS + warp / 64 * (2 * COLUMNS);
            if (op.causal || count < 16) {
                key_columns<T, true, DROPOUT, true>(
                    key_sums, value_sums, sides, at_own, right, turned, facts, words, bit, factor, op.scale, ahead, count,
                    slopes + warp * 2 * COLUMNS
                );
            } else {
                key_columns<T, false, DROPOUT, true>(
                    key_sums, value_sums, sides, at_own, right, turned, facts, words, bit, factor, op.scale, ahead, count,
                    slopes + warp * 2 * COLUMNS
                );
            }
        }
        // All of dS is there, and nobody reads q any more.
        __syncthreads();
        unsigned row = warp % COLUMNS, part = warp / COLUMNS;
        if (query + row < at.queries) {
            float sums[PART / 8][4] = {};
            unsigned left_lane = (slopes + Tile<COLUMNS>::place(lane % 8 + lane / 16 * 8, lane / 8 % 2)) ^ row / 16 * 32;
            unsigned right_lane = at_step(shared + left_place<T>(), part * (PART / 16));
#pragma unroll 1
            for (int group = (int)(min(at.keys, T::ROWS) + 15) / 16; group > 0; group--) {
                unsigned left[4], right[4];
                load_matrices<true, 0>(left, left_lane);
#pragma unroll
                for (int step = 0; step < PART / 16; step++) {
                    load_matrices<true, 0>(right, at_step(right_lane, step));
                    multiply(sums[2 * step], left, right[0], right[1]);
                    multiply(sums[2 * step + 1], left, right[2], right[3]);
                }
                left_lane += 16 * 2 * COLUMNS;
                right_lane += 16 * T::PITCH;
            }
            float share = op.scale * op.mask.scale * exp2f(SHRINK);
            put_rows<T, PART>(
                dq + at.start(op, at.query + query + row), accumulate_dq, now + row * T::PITCH, sums, share, share,
                at.queries - query - row, op, part * PART, vector
            );
        }
        if (more) {
            copies_wait<0>();
            __syncthreads();
        }
        query += COLUMNS;
        now = next;
    }
    find_again<T>(at, warp, own, op);
    if (warp >= at.keys) return;
    float share = op.mask.scale * exp2f(SHRINK);
    u64 to = at.start(op, at.key + warp);
    // Both by way of the rows of v: other warps may still read those of k.
    put_rows<T, T::HEAD>(
        dk + to, accumulate_dk, own + T::OWN, key_sums, op.scale * share, op.scale * share, at.keys - warp, op, 0, vector
    );
    put_rows<T, T::HEAD>(dv + to, accumulate_dv, own + T::OWN, value_sums, share, share, at.keys - warp, op, 0, vector);
}

#define SHORT(dropout, name, Shape, blocks)                                                                        \
    extern "C" __global__ void __launch_bounds__(Shape::THREADS, blocks) attention_gradients_##name(               \
        number* __restrict__ dq, int accumulate_dq, number* __restrict__ dk, int accumulate_dk,                    \
        number* __restrict__ dv, int accumulate_dv, const unsigned* __restrict__ kept,                             \
        const number* __restrict__ q, const number* __restrict__ k, const number* __restrict__ v,                  \
        const number* __restrict__ dy, const number* __restrict__ y, const float* __restrict__ log_sum_exp,        \
        Attention op                                                                                               \
    ) {                                                                                                            \
        gradients<Shape, dropout>(                                                                                 \
            dq, accumulate_dq, dk, accumulate_dk, dv, accumulate_dv, kept, q, k, v, dy, y, log_sum_exp, op         \
        );                                                                                                         \
    }

typedef Shape<32, 4, 1, 2> Short32x64;
typedef Shape<32, 8, 1, 2> Short32x128;
typedef Shape<64, 4, 1, 2> Short64x64;

#if FOR_HEAD(32)
SHORT(false, 32_64, Short32x64, 4)
SHORT(false, 32_128, Short32x128, 2)
SHORT(true, dropout_32_64, Short32x64, 4)
SHORT(true, dropout_32_128, Short32x128, 2)
#endif
#if FOR_HEAD(64)
SHORT(false, 64_64, Short64x64, 3)
SHORT(true, dropout_64_64, Short64x64, 3)
#endif
