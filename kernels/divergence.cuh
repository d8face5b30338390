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
// A class that a side excludes has a logit of −∞ and the probability 0; one that both exclude adds nothing. How a row is read
// once is in pieces.cuh.

// ------------------------------------------------------------------------------------------------------------- classes

// What all classes of a row share: the largest logits, the gap between them in two parts, 1 / T, 1 / Σ of each side, shift; as
// long as the sums are not known 1, 1 and 0.
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
    sides.p = sides.q = 1.0f;
    sides.shift = 0.0f;
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

// e^u. Where slopes have 16 bits the function of the chip, within two units in the last place of f32, is as good.
__device__ __forceinline__ float power(float u) {
#ifdef NUMBER_16
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(u * 1.44269504f));
    return result;
#else
    return expf(u);
#endif
}

__device__ __forceinline__ Class class_of(float x, float y, const Sides& sides) {
    Class c;
    c.p = power((x - sides.x) * sides.inverse_t) * sides.p;
    c.q = power((y - sides.y) * sides.inverse_t) * sides.q;
    float2 apart = difference_of(y, x);
    c.delta = ((apart.x - sides.gap) + (apart.y - sides.gap_low)) * sides.inverse_t;
    // One side or both exclude it (or it is no number).
    if (!(fabsf(apart.x) < INFINITY_F)) c.delta = x == y ? 0.0f : apart.x;
    c.delta -= sides.shift;
    c.rest = c.delta * c.delta * exp_rest(c.delta);
    c.difference = is_small(c.delta) ? c.p * (c.delta + c.rest) : c.q - c.p;
    return c;
}

// From the sums of p, q and q − p.
__device__ __forceinline__ void set_sums(Sides& sides, const float (&sums)[3]) {
    sides.p = 1.0f / sums[0];
    sides.q = 1.0f / sums[1];
    float change = sums[2] * sides.p;
    sides.shift = is_small(change) ? log1pf(change) : logf(sums[1] * sides.p);
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

// `work.run<FORM>()`. Without ALL the form is one of KL_SECOND_FIRST, KL_FIRST_SECOND and JENSEN_SHANNON.
template <bool ALL, class Work>
__device__ __forceinline__ void run_form(int form, Work& work) {
    switch (form) {
        case KL_SECOND_FIRST: return work.template run<KL_SECOND_FIRST>();
        case KL_FIRST_SECOND: return work.template run<KL_FIRST_SECOND>();
        case JENSEN_SHANNON: return work.template run<JENSEN_SHANNON>();
        default: break;
    }
    if constexpr (!ALL) return;
    switch (form) {
        case SYMMETRIC_KL: return work.template run<SYMMETRIC_KL>();
        case ONE_SIDED_KL: return work.template run<ONE_SIDED_KL>();
        case HELLINGER: return work.template run<HELLINGER>();
        case LEGACY_JENSEN_SHANNON: return work.template run<LEGACY_JENSEN_SHANNON>();
        default: return work.template run<LEGACY_HELLINGER>();
    }
}

// Four classes: what they add to the sums of the form, or, once these are known, their slopes.
struct FourClasses {
    Class c[4];
    Terms total;
    bool known;
    float sums[3], a[4], b[4];

    template <int FORM>
    __device__ __forceinline__ void run() {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (known) {
                Slopes both = slopes<FORM>(c[i], total);
                a[i] = both.first;
                b[i] = both.second;
            } else {
                Terms more = terms<FORM>(c[i]);
                sums[0] += more.value;
                sums[1] += more.first;
                sums[2] += more.second;
            }
        }
    }
};

// The value of a row, written to `value`, and the slopes times `scale` where they are wanted. All threads of the row must
// come here.
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
    FourClasses four;
    Piece<number> to_first;
    Piece<Second> to_second;
    // The sums of both sides; those of the form; the slopes. One loop: most of what is computed of a class is the same.
#pragma unroll 1
    for (int pass = 0; pass < 3; pass++) {
        four.known = pass == 2;
        four.sums[0] = four.sums[1] = four.sums[2] = 0.0f;
        auto work = [&](const float (&x)[4], const float (&y)[4], int part) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                four.c[i] = class_of(x[i], y[i], sides);
                if (pass != 0) continue;
                four.sums[0] += four.c[i].p;
                four.sums[1] += four.c[i].q;
                four.sums[2] += four.c[i].difference;
            }
            if (pass == 0) return;
            run_form<ALL>(form, four);
            if (pass == 1) return;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                four.a[i] *= pair.scale;
                four.b[i] *= pair.scale;
            }
            set_numbers(to_first, part, four.a);
            set_numbers(to_second, part, four.b);
        };
        kept.each(work, [&](unsigned index) {
            if (pass < 2) return;
            store_piece(pair.dfirst, kept.row, index, aligned16(pair.dfirst), to_first);
            if (pair.dsecond) store_piece(pair.dsecond, kept.row, index, aligned16(pair.dsecond), to_second);
        });
        if (pass == 2) return;
        row_reduce_all<Sum>(four.sums);
        if (pass == 0) {
            set_sums(sides, four.sums);
            continue;
        }
        if (threadIdx.x == 0) *value = four.sums[0];
        if (!pair.dfirst) return;
        four.total = {four.sums[0], four.sums[1], four.sums[2]};
    }
}

// The two classes of a Bernoulli distribution.
struct TwoClasses {
    Class one, other;
    float value;
    Slopes both;

    template <int FORM>
    __device__ __forceinline__ void run() {
        Terms a = terms<FORM>(one), b = terms<FORM>(other);
        value = a.value + b.value;
        both = slopes<FORM>(one, {value, a.first + b.first, a.second + b.second});
    }
};

// Value and slopes of the Bernoulli distributions with logits x and y: of the classes (x, y) and (0, 0).
template <bool ALL>
__device__ __forceinline__ TwoClasses pair_bernoulli(int form, float x, float y, float inverse_t) {
    Sides sides;
    sides.inverse_t = inverse_t;
    set_largest(sides, fmaxf(x, 0.0f), fmaxf(y, 0.0f));
    TwoClasses two;
    // Once with the sums of both unknown, once more with them.
#pragma unroll 1
    for (int pass = 0; pass < 2; pass++) {
        two.one = class_of(x, y, sides);
        two.other = class_of(0.0f, 0.0f, sides);
        if (pass == 1) break;
        set_sums(sides, {two.one.p + two.other.p, two.one.q + two.other.q, two.one.difference + two.other.difference});
    }
    run_form<ALL>(form, two);
    return two;
}

// The same of all numbers of a piece.
template <bool ALL, class Second>
__device__ __forceinline__ void bernoulli_piece(
    int form, float* values, const Pair<Second>& pair, const unsigned char* counted, const Place& row, unsigned index
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
            TwoClasses two = pair_bernoulli<ALL>(form, x[i], y[i], pair.inverse_t);
            value[i] = counts ? two.value : 0.0f;
            a[i] = counts ? pair.scale * two.both.first : 0.0f;
            b[i] = counts ? pair.scale * two.both.second : 0.0f;
        }
        set_numbers(to_values, part, value);
        set_numbers(to_first, part, a);
        set_numbers(to_second, part, b);
    }
    store_piece(values, row, index, aligned16(values), to_values);
    if (pair.dfirst) store_piece(pair.dfirst, row, index, aligned16(pair.dfirst), to_first);
    if (pair.dsecond) store_piece(pair.dsecond, row, index, aligned16(pair.dsecond), to_second);
}
