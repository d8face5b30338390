// Rows of two sets of logits side by side, x and y, and what divergences of their softmax are made of: what divergence.cu and
// distillation.cu share.
//
// With p = softmax(x / T), q = softmax(y / T) and δ = ln q − ln p of each class. All is f32. What nearly equal distributions
// differ by would drown in differences of probabilities and of logarithms, so it is never computed from those:
//
// - δ = (y − x − gap) / T − shift: y − x with its rounding error, gap = max y − max x likewise, and shift = ln Σ e^((y − max y)/T)
//   − ln Σ e^((x − max x)/T), of which the difference of the sums is summed up class by class, as below. So δ is off by some
//   units in its own last place, however small it is, and by some of the largest difference of logits' at worst.
// - q − p = p (e^δ − 1) where |δ| < ½, else the difference: e^δ − 1 = δ + δ² h(δ), h a polynomial.
// - Divergences are sums of terms that are not negative, such as KL(p‖q) = Σ p (e^δ − 1 − δ): nothing cancels. (Σ p = Σ q.)
//
// A probability is off by ε (2 + |ln p̂|), p̂ relative to the row's largest, ε = 2⁻²⁴, δ by some ε (1 + |δ|), and every term by
// a few ε more. Values and slopes are therefore within 10⁻⁶ of the row's largest ones, where f64 rounded to f32 would
// have 6 · 10⁻⁸.
//
// A class that a side excludes has a logit of −∞ and the probability 0; one that both exclude adds nothing.
//
// A row is read once. It is cut into pieces of PACK numbers that begin at multiples of 16 bytes; of those at its ends what is
// not its own is −∞. A thread keeps its pieces: the first R of each side in registers, further ones in shared memory, which
// no other thread reads, as far as there is `room`. Those of longer rows are read anew each time.

__device__ __forceinline__ void set_bits(float* to, unsigned bits) { *to = __uint_as_float(bits); }
#ifdef NUMBER_16
__device__ __forceinline__ void set_bits(number* to, unsigned bits) { *to = number_of(bits); }
#endif

// What of a piece does not belong to its row.
__device__ __forceinline__ unsigned excluded_bits(const float*) { return 0xff800000u; }
#ifdef NUMBER_BF16
__device__ __forceinline__ unsigned excluded_bits(const number*) { return 0xff80u; }
#elif defined(NUMBER_F16)
__device__ __forceinline__ unsigned excluded_bits(const number*) { return 0xfc00u; }
#endif

// PACK numbers as they are stored.
template <class T>
struct Piece {
    static constexpr int QUADS = PACK * sizeof(T) / 16;
    uint4 quads[QUADS];
};

// Where the numbers of a row are in an array that begins at a multiple of 16 bytes, if `aligned`: start .. end; its first
// piece begins at `first`.
struct Place {
    u64 first, start, end;
    unsigned pieces;
};

__device__ __forceinline__ Place place_of(u64 start, unsigned width) {
    u64 first = start / PACK * PACK, end = start + width;
    return {first, start, end, (unsigned)((end - first + PACK - 1) / PACK)};
}

// 16 bytes of numbers, from number `at` on, of which those in start .. end are the row's.
template <class T>
__device__ __forceinline__ uint4 load_quad(const T* from, u64 at, const Place& row, bool whole) {
    if (whole) return *(const uint4*)(from + at);
    constexpr int COUNT = 16 / sizeof(T);
    u64 low = 0, high = 0;
    // A loop, as the way for the ends must not cost the other one registers.
#pragma unroll 1
    for (int i = 0; i < COUNT; i++, at++) {
        u64 bits = at >= row.start && at < row.end ? bits_of(from[at]) : excluded_bits(from);
        bits <<= i % (COUNT / 2) * (128 / COUNT);
        if (i < COUNT / 2) low |= bits;
        else high |= bits;
    }
    return make_uint4((unsigned)low, (unsigned)(low >> 32), (unsigned)high, (unsigned)(high >> 32));
}

template <class T>
__device__ __forceinline__ void store_quad(T* to, u64 at, const Place& row, bool whole, uint4 quad) {
    if (whole) {
        // In assembly, as in store4.
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to + at)), "r"(quad.x),
                     "r"(quad.y), "r"(quad.z), "r"(quad.w)
                     : "memory");
        return;
    }
    constexpr int COUNT = 16 / sizeof(T);
    u64 low = (u64)quad.y << 32 | quad.x, high = (u64)quad.w << 32 | quad.z;
#pragma unroll 1
    for (int i = 0; i < COUNT; i++, at++) {
        unsigned bits = (unsigned)((i < COUNT / 2 ? low : high) >> i % (COUNT / 2) * (128 / COUNT));
        if (at >= row.start && at < row.end) set_bits(to + at, bits);
    }
}

// Whether piece `index` can be read and written by 16 bytes.
__device__ __forceinline__ bool is_whole(const Place& row, u64 at, bool aligned) {
    return aligned && at >= row.start && at + PACK <= row.end;
}

template <class T>
__device__ __forceinline__ Piece<T> load_piece(const T* from, const Place& row, unsigned index, bool aligned) {
    Piece<T> piece;
    u64 at = row.first + (u64)index * PACK;
    bool whole = is_whole(row, at, aligned);
#pragma unroll
    for (int i = 0; i < Piece<T>::QUADS; i++) piece.quads[i] = load_quad(from, at + i * (16 / sizeof(T)), row, whole);
    return piece;
}

template <class T>
__device__ __forceinline__ void store_piece(T* to, const Place& row, unsigned index, bool aligned, const Piece<T>& piece) {
    u64 at = row.first + (u64)index * PACK;
    bool whole = is_whole(row, at, aligned);
#pragma unroll
    for (int i = 0; i < Piece<T>::QUADS; i++) store_quad(to, at + i * (16 / sizeof(T)), row, whole, piece.quads[i]);
}

// Numbers 4 · part .. 4 · part + 3 of a piece. They are worked on by fours: one copy of the program serves all of a piece's.
#define PARTS (PACK / 4)

template <class T>
__device__ __forceinline__ void numbers_of(const Piece<T>& piece, int part, float (&v)[4]) {
    if constexpr (sizeof(T) == 4) {
        uint4 quad = part == 0 ? piece.quads[0] : piece.quads[PARTS - 1];
        v[0] = __uint_as_float(quad.x);
        v[1] = __uint_as_float(quad.y);
        v[2] = __uint_as_float(quad.z);
        v[3] = __uint_as_float(quad.w);
    } else {
#ifdef NUMBER_16
        uint4 quad = piece.quads[0];
        float2 low = widened2(part == 0 ? quad.x : quad.z), high = widened2(part == 0 ? quad.y : quad.w);
        v[0] = low.x;
        v[1] = low.y;
        v[2] = high.x;
        v[3] = high.y;
#endif
    }
}

template <class T>
__device__ __forceinline__ void set_numbers(Piece<T>& piece, int part, const float (&v)[4]) {
    if constexpr (sizeof(T) == 4) {
        uint4 quad = make_uint4(bits_of(v[0]), bits_of(v[1]), bits_of(v[2]), bits_of(v[3]));
        if (part == 0) piece.quads[0] = quad;
        else piece.quads[PARTS - 1] = quad;
    } else {
#ifdef NUMBER_16
        unsigned low = rounded2(v[0], v[1]), high = rounded2(v[2], v[3]);
        uint4& quad = piece.quads[0];
        if (part == 0) quad = make_uint4(low, high, low, high);
        else quad = make_uint4(quad.x, quad.y, low, high);
#endif
    }
}

// Several reductions over the threads of a row at once: see row_reduce.
template <class Of, int N>
__device__ __forceinline__ void row_reduce_all(float (&v)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = warp_reduce<Of>(v[i]);
    if (blockDim.x == 32) return;
    __shared__ float parts[N][32];
    if (threadIdx.x % 32 == 0) {
#pragma unroll
        for (int i = 0; i < N; i++) parts[i][threadIdx.x / 32] = v[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = parts[i][0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++) {
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = Of::of(v[i], parts[i][warp]);
    }
    // The next reduction writes where this one reads.
    __syncthreads();
}

// ------------------------------------------------------------------------------------------------------------- classes

// What all classes of a row share: the largest logits, the gap between them in two parts, 1 / T, 1 / Σ of each side, shift.
struct Sides {
    float x, y, gap, gap_low, inverse_t, p, q, shift;
};

// b − a, and what rounding it has lost (Knuth, Seminumerical Algorithms, 4.2.2).
__device__ __forceinline__ float2 difference_of(float b, float a) {
    float sum = b - a, part = sum - b;
    return make_float2(sum, (b - (sum - part)) - (a + part));
}

__device__ __forceinline__ void set_largest(Sides& sides, float x, float y) {
    float2 gap = difference_of(y, x);
    sides.x = x;
    sides.y = y;
    sides.gap = gap.x;
    sides.gap_low = gap.y;
}

// (e^z − 1 − z) / z², for |z| < ½ within 4e-8 of it.
__device__ __forceinline__ float exp_rest(float z) {
    float h = fmaf(z, 1.0f / 40320.0f, 1.0f / 5040.0f);
    h = fmaf(h, z, 1.0f / 720.0f);
    h = fmaf(h, z, 1.0f / 120.0f);
    h = fmaf(h, z, 1.0f / 24.0f);
    h = fmaf(h, z, 1.0f / 6.0f);
    return fmaf(h, z, 0.5f);
}

__device__ __forceinline__ bool is_small(float z) { return fabsf(z) < 0.5f; }

// A class: p and q (relative to the largest ones until the sums are known), δ (before `shift`), q − p, and e^δ − 1 − δ where
// δ is small.
struct Class {
    float p, q, delta, difference, rest;
};

__device__ __forceinline__ void set_difference(Class& c) {
    c.rest = c.delta * c.delta * exp_rest(c.delta);
    c.difference = is_small(c.delta) ? c.p * (c.delta + c.rest) : c.q - c.p;
}

// As it is before the sums are known.
__device__ __forceinline__ Class raw_class(float x, float y, const Sides& sides) {
    Class c;
    c.p = expf((x - sides.x) * sides.inverse_t);
    c.q = expf((y - sides.y) * sides.inverse_t);
    float2 apart = difference_of(y, x);
    c.delta = ((apart.x - sides.gap) + (apart.y - sides.gap_low)) * sides.inverse_t;
    // One side or both exclude it (or it is no number).
    if (!(fabsf(apart.x) < INFINITY_F)) c.delta = x == y ? 0.0f : apart.x;
    return c;
}

// Sums of p, q and q − p.
__device__ __forceinline__ void add_raw(float (&sums)[3], float x, float y, const Sides& sides) {
    Class c = raw_class(x, y, sides);
    set_difference(c);
    sums[0] += c.p;
    sums[1] += c.q;
    sums[2] += c.difference;
}

__device__ __forceinline__ void set_sums(Sides& sides, const float (&sums)[3]) {
    sides.p = 1.0f / sums[0];
    sides.q = 1.0f / sums[1];
    float change = sums[2] * sides.p;
    sides.shift = is_small(change) ? log1pf(change) : logf(sums[1] * sides.p);
}

__device__ __forceinline__ Class class_of(float x, float y, const Sides& sides) {
    Class c = raw_class(x, y, sides);
    c.p *= sides.p;
    c.q *= sides.q;
    c.delta -= sides.shift;
    set_difference(c);
    return c;
}

// A factor times a logarithm, where 0 · ∞ is 0: a class that cannot be adds nothing.
__device__ __forceinline__ float times(float p, float ln) { return p == 0.0f ? 0.0f : p * ln; }

// What the mean m = ½ (p + q) is made of: t = (q − p) / (q + p), p / m and q / m, and their logarithms.
struct Middle {
    float m, t, p, q, ln_p, ln_q;
};

__device__ __forceinline__ Middle middle_of(const Class& c) {
    float sum = c.p + c.q, inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
    Middle middle = {0.5f * sum, c.difference * inverse, 2.0f * c.p * inverse, 2.0f * c.q * inverse, 0.0f, 0.0f};
    if (is_small(middle.t)) {
        middle.ln_p = log1pf(-middle.t);
        middle.ln_q = log1pf(middle.t);
    } else {
        middle.ln_p = logf(middle.p);
        middle.ln_q = logf(middle.q);
    }
    return middle;
}

// √q − √p.
__device__ __forceinline__ float roots_apart(const Class& c) {
    float half = 0.5f * c.delta;
    return is_small(c.delta) ? sqrtf(c.p) * (half + half * half * exp_rest(half)) : sqrtf(c.q) - sqrtf(c.p);
}

// --------------------------------------------------------------------------------------------------------------- forms

#define KL_SECOND_FIRST 0  // also the toolkit's KL
#define KL_FIRST_SECOND 1
#define SYMMETRIC_KL 2
#define ONE_SIDED_KL 3     // also the toolkit's symmetric KL
#define JENSEN_SHANNON 4
#define HELLINGER 5
#define LEGACY_STABLE_KL 6  // summed or not: the divisor tells
#define LEGACY_STABLE_SYMMETRIC_KL 7
#define LEGACY_JENSEN_SHANNON 8
#define LEGACY_HELLINGER 9

// q (ln q − ln p) − (q − p), and the same the other way round: sums are KL divergences, terms are not negative.
__device__ __forceinline__ float kl_second_first(const Class& c) {
    if (is_small(c.delta)) return c.p * (c.delta * (c.delta + c.rest) - c.rest);
    return times(c.q, c.delta) - c.difference;
}
__device__ __forceinline__ float kl_first_second(const Class& c) {
    return is_small(c.delta) ? c.p * c.rest : c.difference - times(c.p, c.delta);
}

// (1 − t) ln(1 − t) + (1 + t) ln(1 + t), twice the Jensen–Shannon divergence of a class over m.
__device__ __forceinline__ float middle_term(const Class& c, const Middle& middle) {
    float square = middle.t * middle.t;
    if (square < 0.0625f) {
        float sum = fmaf(square, 1.0f / 45.0f, 1.0f / 28.0f);
        sum = fmaf(sum, square, 1.0f / 15.0f);
        sum = fmaf(sum, square, 1.0f / 6.0f);
        return fmaf(sum, square, 1.0f) * square;
    }
    // The first logarithm cancels little of the second term: ln q − ln p = 2 atanh t.
    if (square < 0.25f) return log1pf(-square) + middle.t * c.delta;
    return times(middle.p, middle.ln_p) + times(middle.q, middle.ln_q);
}

// What a class adds to the row's value and to the two sums that its gradients need.
struct Terms {
    float value, first, second;
};

template <int FORM>
__device__ __forceinline__ Terms terms(const Class& c) {
    if constexpr (FORM == KL_SECOND_FIRST) {
        float kl = kl_second_first(c);
        return {kl, 0.0f, kl};
    } else if constexpr (FORM == KL_FIRST_SECOND) {
        float kl = kl_first_second(c);
        return {kl, kl, 0.0f};
    } else if constexpr (FORM == SYMMETRIC_KL) {
        float first = kl_first_second(c), second = kl_second_first(c);
        return {first + second, first, second};
    } else if constexpr (FORM == ONE_SIDED_KL) {
        return {times(c.difference, c.delta), 0.0f, 0.0f};
    } else if constexpr (FORM == JENSEN_SHANNON) {
        Middle middle = middle_of(c);
        return {0.5f * times(middle.m, middle_term(c, middle)), times(c.p, middle.ln_p), times(c.q, middle.ln_q)};
    } else if constexpr (FORM == LEGACY_JENSEN_SHANNON) {
        // −ln(p q / m²) = −ln(1 − t²).
        Middle middle = middle_of(c);
        float apart = fabsf(c.delta);
        float ln = is_small(middle.t) ? -log1pf(-middle.t * middle.t)
                                      : apart + (2.0f * log1pf(expf(-apart)) - 2.0f * 0.69314718f);
        return {times(middle.m, ln), 0.0f, 0.0f};
    } else {
        float apart = roots_apart(c), square = apart * apart;
        return FORM == HELLINGER ? Terms{0.5f * square, 0.5f * square, 0.0f} : Terms{square, 0.0f, 0.0f};
    }
}

// d(value) / d(logit / T) of both sides.
struct Slopes {
    float first, second;
};

template <int FORM>
__device__ __forceinline__ Slopes slopes(const Class& c, const Terms& sums) {
    float weighted_p = -times(c.p, c.delta) - c.p * sums.first, weighted_q = times(c.q, c.delta) - c.q * sums.second;
    if constexpr (FORM == KL_SECOND_FIRST) return {-c.difference, weighted_q};
    else if constexpr (FORM == KL_FIRST_SECOND) return {weighted_p, c.difference};
    else if constexpr (FORM == SYMMETRIC_KL) return {weighted_p - c.difference, weighted_q + c.difference};
    else if constexpr (FORM == ONE_SIDED_KL) return {-c.difference, c.difference};
    else if constexpr (FORM == JENSEN_SHANNON) {
        Middle middle = middle_of(c);
        return {
            0.5f * (times(c.p, middle.ln_p) - c.p * sums.first),
            0.5f * (times(c.q, middle.ln_q) - c.q * sums.second),
        };
    } else if constexpr (FORM == HELLINGER) {
        // With Σ √(p q) = 1 − value, ½ (p Σ √(p q) − √(p q)) and likewise.
        float apart = roots_apart(c);
        return {
            -0.5f * (sqrtf(c.p) * apart + c.p * sums.first),
            0.5f * (sqrtf(c.q) * apart - c.q * sums.first),
        };
    } else if constexpr (FORM == LEGACY_JENSEN_SHANNON) return {-0.5f * c.difference, 0.5f * c.difference};
    else return {0.0f, 0.0f};
}

// ---------------------------------------------------------------------------------------------------------------- rows

// Pieces that a thread reads before it looks at the first one.
#define PIECES_AT_ONCE 4

// The pieces of a row that a thread has: R of each side in registers, then some in shared memory.
template <int R, class Second>
struct Kept {
    const number* first;
    const Second* second;
    Place row;
    bool aligned_first, aligned_second;
    uint4* shared;
    unsigned room;
    Piece<number> x[R > 0 ? R : 1];
    Piece<Second> y[R > 0 ? R : 1];

    __device__ __forceinline__ unsigned slot(unsigned index) const { return index - R * blockDim.x; }

    __device__ __forceinline__ void keep(unsigned slot, const Piece<number>& a, const Piece<Second>& b) {
        if (slot >= room) return;
        shared[slot] = a.quads[0];
#pragma unroll
        for (int i = 0; i < Piece<Second>::QUADS; i++) shared[(i + 1) * room + slot] = b.quads[i];
    }

    // Reads them all, and keeps them; `largest`: of each side.
    __device__ __forceinline__ void read(float (&largest)[2]) {
        if constexpr (R > 0) {
#pragma unroll
            for (int k = 0; k < R; k++) {
                unsigned index = threadIdx.x + k * blockDim.x;
                if (index >= row.pieces) continue;
                x[k] = load_piece(first, row, index, aligned_first);
                y[k] = load_piece(second, row, index, aligned_second);
            }
#pragma unroll
            for (int k = 0; k < R; k++) {
                if (threadIdx.x + k * blockDim.x < row.pieces) see_largest(largest, x[k], y[k]);
            }
        }
#pragma unroll 1
        for (unsigned index = threadIdx.x + R * blockDim.x; index < row.pieces; index += PIECES_AT_ONCE * blockDim.x) {
            Piece<number> a[PIECES_AT_ONCE];
            Piece<Second> b[PIECES_AT_ONCE];
#pragma unroll
            for (int k = 0; k < PIECES_AT_ONCE; k++) {
                unsigned at = index + k * blockDim.x;
                if (at >= row.pieces) continue;
                a[k] = load_piece(first, row, at, aligned_first);
                b[k] = load_piece(second, row, at, aligned_second);
            }
#pragma unroll
            for (int k = 0; k < PIECES_AT_ONCE; k++) {
                unsigned at = index + k * blockDim.x;
                if (at >= row.pieces) continue;
                keep(slot(at), a[k], b[k]);
                see_largest(largest, a[k], b[k]);
            }
        }
    }

    __device__ __forceinline__ void see_largest(float (&largest)[2], const Piece<number>& a, const Piece<Second>& b) {
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            float v[4], w[4];
            numbers_of(a, part, v);
            numbers_of(b, part, w);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                largest[0] = fmaxf(largest[0], v[i]);
                largest[1] = fmaxf(largest[1], w[i]);
            }
        }
    }

    // `work(x, y, part)` for the numbers of each piece, by fours, and `end(index)` after each piece, always in the same
    // order. The pieces in registers move up in turns, so that the work stands in the program once; after R turns they are
    // where they were.
    template <class Work, class End>
    __device__ __forceinline__ void each(Work work, End end) {
        unsigned index = threadIdx.x;
#pragma unroll 1
        for (int k = 0; k < R || index < row.pieces; k++, index += blockDim.x) {
            Piece<number> a;
            Piece<Second> b;
            if (R > 0 && k < R) {
                a = x[0];
                b = y[0];
#pragma unroll
                for (int i = 0; i + 1 < R; i++) {
                    x[i] = x[i + 1];
                    y[i] = y[i + 1];
                }
                x[R > 0 ? R - 1 : 0] = a;
                y[R > 0 ? R - 1 : 0] = b;
                if (index >= row.pieces) continue;
            } else if (slot(index) < room) {
                a.quads[0] = shared[slot(index)];
#pragma unroll
                for (int i = 0; i < Piece<Second>::QUADS; i++) b.quads[i] = shared[(i + 1) * room + slot(index)];
            } else {
                a = load_piece(first, row, index, aligned_first);
                b = load_piece(second, row, index, aligned_second);
            }
#pragma unroll 1
            for (int part = 0; part < PARTS; part++) {
                float v[4], w[4];
                numbers_of(a, part, v);
                numbers_of(b, part, w);
                work(v, w, part);
            }
            end(index);
        }
    }
};

// What a row's kernel is given.
template <class Second>
struct Pair {
    number* dfirst;
    Second* dsecond;
    const number* first;
    const Second* second;
    float inverse_t, scale;
    unsigned room;
};

extern __shared__ uint4 kept_pieces[];

template <class Second>
__device__ __forceinline__ void zero_slopes(const Pair<Second>& pair, const Place& row) {
    Piece<number> a = {};
    Piece<Second> b = {};
    for (unsigned index = threadIdx.x; index < row.pieces; index += blockDim.x) {
        if (pair.dfirst) store_piece(pair.dfirst, row, index, aligned16(pair.dfirst), a);
        if (pair.dsecond) store_piece(pair.dsecond, row, index, aligned16(pair.dsecond), b);
    }
}

// The value of a row, and the slopes of its logits where they are wanted.
template <int FORM, int R, class Second>
__device__ __forceinline__ void finish_row(
    float* value, const Pair<Second>& pair, Kept<R, Second>& kept, const Sides& sides
) {
    float all[3] = {0.0f, 0.0f, 0.0f};
    auto nothing = [](unsigned) {};
    auto add = [&](const float (&x)[4], const float (&y)[4], int) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            Terms more = terms<FORM>(class_of(x[i], y[i], sides));
            all[0] += more.value;
            all[1] += more.first;
            all[2] += more.second;
        }
    };
    kept.each(add, nothing);
    row_reduce_all<Sum>(all);
    if (threadIdx.x == 0) *value = all[0];
    if (!pair.dfirst) return;
    Terms total = {all[0], all[1], all[2]};
    Piece<number> to_first;
    Piece<Second> to_second;
    auto slope = [&](const float (&x)[4], const float (&y)[4], int part) {
        float a[4], b[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            Slopes both = slopes<FORM>(class_of(x[i], y[i], sides), total);
            a[i] = pair.scale * both.first;
            b[i] = pair.scale * both.second;
        }
        set_numbers(to_first, part, a);
        set_numbers(to_second, part, b);
    };
    auto store = [&](unsigned index) {
        store_piece(pair.dfirst, kept.row, index, aligned16(pair.dfirst), to_first);
        if (pair.dsecond) store_piece(pair.dsecond, kept.row, index, aligned16(pair.dsecond), to_second);
    };
    kept.each(slope, store);
}

// The value of a row, written to `value`, and the slopes times `scale` where they are wanted. Without ALL the form is one of
// KL_SECOND_FIRST, KL_FIRST_SECOND and JENSEN_SHANNON. All threads of the row must come here.
template <int R, bool ALL, class Second>
__device__ __forceinline__ void pair_row(int form, float* value, const Pair<Second>& pair, const Place& row) {
    Kept<R, Second> kept;
    kept.first = pair.first;
    kept.second = pair.second;
    kept.row = row;
    kept.aligned_first = aligned16(pair.first);
    kept.aligned_second = aligned16(pair.second);
    kept.room = pair.room;
    kept.shared = kept_pieces + (u64)threadIdx.y * pair.room * (1 + Piece<Second>::QUADS);
    float largest[2] = {-INFINITY_F, -INFINITY_F};
    kept.read(largest);
    row_reduce_all<Maximum>(largest);
    Sides sides;
    sides.inverse_t = pair.inverse_t;
    set_largest(sides, largest[0], largest[1]);
    float sums[3] = {0.0f, 0.0f, 0.0f};
    auto add = [&](const float (&x)[4], const float (&y)[4], int) {
#pragma unroll
        for (int i = 0; i < 4; i++) add_raw(sums, x[i], y[i], sides);
    };
    kept.each(add, [](unsigned) {});
    row_reduce_all<Sum>(sums);
    set_sums(sides, sums);
    switch (form) {
        case KL_SECOND_FIRST: return finish_row<KL_SECOND_FIRST>(value, pair, kept, sides);
        case KL_FIRST_SECOND: return finish_row<KL_FIRST_SECOND>(value, pair, kept, sides);
        case JENSEN_SHANNON: return finish_row<JENSEN_SHANNON>(value, pair, kept, sides);
        default: break;
    }
    if constexpr (ALL) {
        switch (form) {
            case SYMMETRIC_KL: return finish_row<SYMMETRIC_KL>(value, pair, kept, sides);
            case ONE_SIDED_KL: return finish_row<ONE_SIDED_KL>(value, pair, kept, sides);
            case HELLINGER: return finish_row<HELLINGER>(value, pair, kept, sides);
            case LEGACY_JENSEN_SHANNON: return finish_row<LEGACY_JENSEN_SHANNON>(value, pair, kept, sides);
            default: return finish_row<LEGACY_HELLINGER>(value, pair, kept, sides);
        }
    }
}

// Value and slopes of the Bernoulli distributions with logits x and y: two classes, (x, y) and (0, 0).
template <int FORM>
__device__ __forceinline__ float pair_bernoulli(float x, float y, float inverse_t, Slopes& both) {
    Sides sides;
    sides.inverse_t = inverse_t;
    set_largest(sides, fmaxf(x, 0.0f), fmaxf(y, 0.0f));
    float sums[3] = {0.0f, 0.0f, 0.0f};
    add_raw(sums, x, y, sides);
    add_raw(sums, 0.0f, 0.0f, sides);
    set_sums(sides, sums);
    Class one = class_of(x, y, sides);
    Terms a = terms<FORM>(one), b = terms<FORM>(class_of(0.0f, 0.0f, sides));
    Terms total = {a.value + b.value, a.first + b.first, a.second + b.second};
    both = slopes<FORM>(one, total);
    return total.value;
}

// The same of all numbers of a piece.
template <int FORM, class Second>
__device__ __forceinline__ void bernoulli_piece(
    float* values, const Pair<Second>& pair, const unsigned char* counted, const Place& row, unsigned index
) {
    Piece<number> first = load_piece(pair.first, row, index, aligned16(pair.first)), to_first;
    Piece<Second> second = load_piece(pair.second, row, index, aligned16(pair.second)), to_second;
    Piece<float> to_values;
#pragma unroll 1
    for (int part = 0; part < PARTS; part++) {
        float x[4], y[4], value[4], a[4], b[4];
        numbers_of(first, part, x);
        numbers_of(second, part, y);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u64 at = row.first + (u64)index * PACK + 4 * part + i;
            bool counts = at < row.end && (!counted || counted[at]);
            Slopes both;
            float v = pair_bernoulli<FORM>(x[i], y[i], pair.inverse_t, both);
            value[i] = counts ? v : 0.0f;
            a[i] = counts ? pair.scale * both.first : 0.0f;
            b[i] = counts ? pair.scale * both.second : 0.0f;
        }
        set_numbers(to_values, part, value);
        set_numbers(to_first, part, a);
        set_numbers(to_second, part, b);
    }
    store_piece(values, row, index, aligned16(values), to_values);
    if (pair.dfirst) store_piece(pair.dfirst, row, index, aligned16(pair.dfirst), to_first);
    if (pair.dsecond) store_piece(pair.dsecond, row, index, aligned16(pair.dsecond), to_second);
}
