// What the gradients of attention in 16 bits share, those of short sequences too; attention.cuh stands before it.

// The left-hand sides of one step of the two first products: held, or read anew.
template <class T>
struct Sides {
    unsigned held[2][T::HELD ? T::STEPS : 1][4];

    // `own`: the lane's address in the first one's rows; the second one's are OWN bytes further. `sign`: which one takes that
    // of the scale.
    __device__ __forceinline__ void load(unsigned own, float scale) {
        if constexpr (T::HELD) {
#pragma unroll
            for (int step = 0; step < T::STEPS; step++) {
                load_matrices<false, 0>(held[0][step], at_step(own, step));
                load_matrices<false, T::OWN>(held[1][step], at_step(own, step));
                take_sign(held[0][step], scale);
            }
        }
    }

    template <int WHICH>
    __device__ __forceinline__ void get(unsigned (&side)[4], int step, unsigned own, float scale) const {
        if constexpr (T::HELD) {
#pragma unroll
            for (int i = 0; i < 4; i++) side[i] = held[WHICH][step][i];
        } else {
            load_matrices<false, WHICH * T::OWN>(side, at_step(own, step));
            if (WHICH == 0) take_sign(side, scale);
        }
    }
};

// The two first products of a tile, S and dy · vᵀ or their transposes, for 16 of its columns. `right`: the lane's address of
// their rows in the tile of the first one's right-hand side; the second one's is OTHER bytes further.
template <class T>
__device__ __forceinline__ void first_products(
    float (&scores)[2][4], float (&slopes)[2][4], const Sides<T>& sides, unsigned own, unsigned right, float scale
) {
#pragma unroll
    for (int step = 0; step < T::STEPS; step++) {
        unsigned a[4], b[4];
        sides.template get<0>(a, step, own, scale);
        load_matrices<false, 0>(b, at_step(right, step));
        if (step == 0) {
            multiply<true>(scores[0], a, b[0], b[1]);
            multiply<true>(scores[1], a, b[2], b[3]);
        } else {
            multiply(scores[0], a, b[0], b[1]);
            multiply(scores[1], a, b[2], b[3]);
        }
        sides.template get<1>(a, step, own, scale);
        load_matrices<false, T::OTHER>(b, at_step(right, step));
        if (step == 0) {
            multiply<true>(slopes[0], a, b[0], b[1]);
            multiply<true>(slopes[1], a, b[2], b[3]);
        } else {
            multiply(slopes[0], a, b[0], b[1]);
            multiply(slopes[1], a, b[2], b[3]);
        }
    }
}

// sums += left · B for 16 rows of B, from which the lane's address is OFFSET bytes away.
template <class T, int OFFSET>
__device__ __forceinline__ void second_product(
    float (&sums)[2 * T::PART_STEPS][4], const unsigned (&left)[4], unsigned turned
) {
#pragma unroll
    for (int step = 0; step < T::PART_STEPS; step++) {
        unsigned b[4];
        load_matrices<true, OFFSET>(b, at_step(turned, step));
        multiply(sums[2 * step], left, b[0], b[1]);
        multiply(sums[2 * step + 1], left, b[2], b[3]);
    }
}

// What the backward pass adds to a score times log2 e, from L: 2 to that is P, or a part of it in f16.
__device__ __forceinline__ float exponent_shift(float log_sum_exp) { return fmaf(-log_sum_exp, LOG2_E, -SHRINK); }

// Rowsums of dy ∘ y for rows lane / 4 and that + 8 of a warp's rows of both in shared memory. All four lanes of a row get them.
template <class T>
__device__ __forceinline__ void row_products(float (&products)[2], unsigned upstream, unsigned output) {
    products[0] = products[1] = 0.0f;
#pragma unroll
    for (int step = 0; step < T::STEPS; step++) {
        unsigned a[4], b[4];
        load_matrices<false, 0>(a, at_step(upstream + left_place<T>(), step));
        load_matrices<false, 0>(b, at_step(output + left_place<T>(), step));
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 one = widened2(a[i]), other = widened2(b[i]);
            products[i % 2] = fmaf(one.x, other.x, products[i % 2]);
            products[i % 2] = fmaf(one.y, other.y, products[i % 2]);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        products[half] += shuffle_xor(products[half], 1);
        products[half] += shuffle_xor(products[half], 2);
    }
}

// gridDim.z is 1, but the compiler does not know that.
__device__ __forceinline__ int unknown(int number) { return number * (int)gridDim.z; }

// The queries of a tile, 16 at a time as well. `facts`: the tile's shifts, means, and words of the mask; `bit`: of the warp's first
// keys in a word. EDGE: the warp's first key is `ahead` rows after the tile's first query, and it has `count` keys.
// KEEP: dS goes to `slopes_at` as well, a row of COLUMNS queries for each key.
template <class T, bool EDGE, bool DROPOUT, bool KEEP>
__device__ __forceinline__ void key_columns(
    float (&key_sums)[2 * T::PART_STEPS][4], float (&value_sums)[2 * T::PART_STEPS][4], const Sides<T>& sides, unsigned own,
    unsigned right, unsigned turned, const float* facts, const unsigned* words, unsigned bit, float factor, float scale, int ahead,
    int count, unsigned slopes_at
) {
    unsigned lane = thread_number() % 32;
    facts += lane % 4 * 2;
    unsigned slopes_row = slopes_at + Tile<COLUMNS>::place(lane / 4, 0) + lane % 4 * 4, eight = 0;
    words += lane % 4 * 4 + lane / 16;
#pragma unroll 1
    for (int group = unknown(COLUMNS / 16); group > 0; group--) {
        float scores[2][4], slopes[2][4];
        first_products<T>(scores, slopes, sides, own, right, scale);
        unsigned weights[4], left[4];
#pragma unroll
        for (int n = 0; n < 2; n++) {
            float2 shifts = *(const float2*)(facts + 8 * n), means = *(const float2*)(facts + COLUMNS + 8 * n);
            unsigned kept[2] = {};
            if (DROPOUT) {
                kept[0] = words[16 * n] >> bit;
                kept[1] = words[16 * n + 2] >> bit;
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float mean = i % 2 == 0 ? means.x : means.y;
                float p = exponential(fmaf(scores[n][i], factor, i % 2 == 0 ? shifts.x : shifts.y));
                int key = (int)(lane / 4 + i / 2 * 8);
                if (EDGE && (key + ahead > (int)(8 * n + lane % 4 * 2 + i % 2) || key >= count)) p = 0.0f;
                bool there = !DROPOUT || kept[i % 2] >> i / 2 & 1;
                scores[n][i] = there ? p : 0.0f;
                slopes[n][i] = p * ((there ? slopes[n][i] : 0.0f) - mean);
            }
            weights[2 * n] = rounded2(scores[n][0], scores[n][1]);
            weights[2 * n + 1] = rounded2(scores[n][2], scores[n][3]);
            left[2 * n] = rounded2(slopes[n][0], slopes[n][1]);
            left[2 * n + 1] = rounded2(slopes[n][2], slopes[n][3]);
        }
        if (KEEP) {
#pragma unroll
            for (int n = 0; n < 2; n++) {
                store_word<0>(slopes_row ^ (eight + n) * 16, left[2 * n]);
                store_word<8 * 2 * COLUMNS>(slopes_row ^ (eight + n) * 16, left[2 * n + 1]);
            }
            eight += 2;
        }
        second_product<T, T::OTHER>(value_sums, weights, turned);
        second_product<T, 0>(key_sums, left, turned);
        right += 16 * T::PITCH;
        turned += 16 * T::PITCH;
        facts += 16;
        words += 32;
        ahead -= 16;
    }
}
