// How far two sets of logits are apart (src/ops/divergence has the table of the forms): f-divergences of their softmax,
// value and both gradients in one kernel, in f64, since differences of nearly equal distributions are what they are
// about.

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

// A factor times a logarithm, where 0 · (−∞) is 0: a class that cannot be adds nothing.
__device__ __forceinline__ double times(double p, double ln) { return p == 0.0 ? 0.0 : p * ln; }

// ln(½ (eˣ + eʸ)).
__device__ __forceinline__ double ln_mean(double x, double y) {
    double low = fmin(x, y), high = fmax(x, y);
    return high == -INFINITY_D ? high : high + log(0.5 * (1.0 + exp(low - high)));
}

// L(x) of the toolkit's noise-stable KL.
__device__ __forceinline__ double log_odds(double x) { return -log(1.0 / (x + 1e-6) - 1.0 + 1e-6); }

// A class of a row: logarithms and probabilities of both sides.
struct Class {
    double ln_p, ln_q, p, q;
};

// What a class adds to the row's value and to the two sums that its gradients need.
struct Terms {
    double value, first, second;
};

__device__ __forceinline__ Terms terms(int form, Class c) {
    double root = sqrt(c.p) - sqrt(c.q);
    switch (form) {
        case KL_SECOND_FIRST: {
            double kl = times(c.q, c.ln_q - c.ln_p);
            return {kl, 0.0, kl};
        }
        case KL_FIRST_SECOND: {
            double kl = times(c.p, c.ln_p - c.ln_q);
            return {kl, kl, 0.0};
        }
        case SYMMETRIC_KL:
            return {times(c.p - c.q, c.ln_p - c.ln_q), times(c.p, c.ln_p - c.ln_q), times(c.q, c.ln_q - c.ln_p)};
        case ONE_SIDED_KL: return {times(c.p - c.q, c.ln_p - c.ln_q), 0.0, 0.0};
        case JENSEN_SHANNON: {
            double ln_m = ln_mean(c.ln_p, c.ln_q);
            double first = times(c.p, c.ln_p - ln_m), second = times(c.q, c.ln_q - ln_m);
            return {0.5 * (first + second), first, second};
        }
        case HELLINGER: {
            return {0.5 * root * root, exp(0.5 * (c.ln_p + c.ln_q)), 0.0};
        }
        case LEGACY_STABLE_KL: {
            double first = c.p * (log_odds(c.p) - log_odds(c.q));
            return {2.0 * first, first, 0.0};
        }
        case LEGACY_STABLE_SYMMETRIC_KL: {
            double w = log_odds(c.p) - log_odds(c.q);
            return {2.0 * (c.p * w - c.q * w), c.p * w, -c.q * w};
        }
        case LEGACY_JENSEN_SHANNON:
            return {times(0.5 * (c.p + c.q), 2.0 * ln_mean(c.ln_p, c.ln_q) - c.ln_p - c.ln_q), 0.0, 0.0};
        default: return {root * root, 0.0, 0.0};
    }
}

// d(value) / d(logit) of both sides.
struct Slopes {
    double first, second;
};

__device__ __forceinline__ Slopes slopes(int form, Class c, Terms sums) {
    double difference = c.p - c.q;
    double weighted_p = times(c.p, c.ln_p - c.ln_q) - c.p * sums.first;
    double weighted_q = times(c.q, c.ln_q - c.ln_p) - c.q * sums.second;
    switch (form) {
        case KL_SECOND_FIRST: return {difference, weighted_q};
        case KL_FIRST_SECOND: return {weighted_p, -difference};
        case SYMMETRIC_KL: return {weighted_p + difference, weighted_q - difference};
        case ONE_SIDED_KL: return {difference, -difference};
        case JENSEN_SHANNON: {
            double ln_m = ln_mean(c.ln_p, c.ln_q);
            return {
                0.5 * (times(c.p, c.ln_p - ln_m) - c.p * sums.first),
                0.5 * (times(c.q, c.ln_q - ln_m) - c.q * sums.second),
            };
        }
        case HELLINGER: {
            double root = exp(0.5 * (c.ln_p + c.ln_q));
            return {0.5 * (c.p * sums.first - root), 0.5 * (c.q * sums.first - root)};
        }
        case LEGACY_STABLE_KL: return {2.0 * c.p * (log_odds(c.p) - log_odds(c.q) - sums.first), 0.0};
        case LEGACY_STABLE_SYMMETRIC_KL: {
            double w = log_odds(c.p) - log_odds(c.q);
            return {2.0 * c.p * (w - sums.first), 2.0 * c.q * (-w - sums.second)};
        }
        case LEGACY_JENSEN_SHANNON: return {0.5 * difference, -0.5 * difference};
        default: return {0.0, 0.0};
    }
}

// Logit i of a row; one more, 0, with `bernoulli`.
__device__ __forceinline__ double logit(const number* x, unsigned i, unsigned width) {
    return i < width ? (double)widened(x[i]) : 0.0;
}

// log Σ exp of a row.
__device__ __forceinline__ double log_sum(const number* x, unsigned width, unsigned classes) {
    double maximum = -INFINITY_D, sum = 0.0;
    for (unsigned i = threadIdx.x; i < classes; i += blockDim.x) maximum = fmax(maximum, logit(x, i, width));
    maximum = row_max(maximum);
    for (unsigned i = threadIdx.x; i < classes; i += blockDim.x) sum += exp(logit(x, i, width) - maximum);
    return maximum + log(row_sum(sum));
}

// values [rows]: the value of each row, 0 where it does not count or is empty; dfirst, dsecond (both or none null),
// like the logits: the gradients of value / `divisor`. first, second: logits, `width` a row, or rows by groups [rows +
// 1]; with `bernoulli` each row is (x, 0), width 1. counted [rows]: bytes, or null. Grid: ceil(rows / blockDim.y).
// Block: (32, n), or (threads, 1).
extern "C" __global__ void divergence_forward(
    float* __restrict__ values, number* __restrict__ dfirst, number* __restrict__ dsecond,
    const number* __restrict__ first, const number* __restrict__ second, const unsigned* __restrict__ groups,
    const unsigned char* __restrict__ counted, unsigned rows, unsigned width, int bernoulli, int form, double divisor
) {
    unsigned row = my_row();
    if (row >= rows) return;
    u64 start = groups ? groups[row] : (u64)row * width;
    if (groups) width = groups[row + 1] - groups[row];
    if ((counted && !counted[row]) || width == 0) {
        if (threadIdx.x == 0) values[row] = 0.0f;
        if (!dfirst) return;
        for (unsigned i = threadIdx.x; i < width; i += blockDim.x) {
            store1(dfirst + start + i, 0.0f);
            store1(dsecond + start + i, 0.0f);
        }
        return;
    }
    unsigned classes = width + (bernoulli != 0);
    const number *x = first + start, *y = second + start;
    double log_p = log_sum(x, width, classes), log_q = log_sum(y, width, classes);
    Terms sums = {0.0, 0.0, 0.0};
    for (unsigned i = threadIdx.x; i < classes; i += blockDim.x) {
        double ln_p = logit(x, i, width) - log_p, ln_q = logit(y, i, width) - log_q;
        Terms more = terms(form, {ln_p, ln_q, exp(ln_p), exp(ln_q)});
        sums = {sums.value + more.value, sums.first + more.first, sums.second + more.second};
    }
    sums.value = row_sum(sums.value);
    if (threadIdx.x == 0) values[row] = (float)sums.value;
    if (!dfirst) return;
    sums.first = row_sum(sums.first);
    sums.second = row_sum(sums.second);
    for (unsigned i = threadIdx.x; i < width; i += blockDim.x) {
        double ln_p = logit(x, i, width) - log_p, ln_q = logit(y, i, width) - log_q;
        Slopes both = slopes(form, {ln_p, ln_q, exp(ln_p), exp(ln_q)}, sums);
        store1(dfirst + start + i, (float)(both.first / divisor));
        store1(dsecond + start + i, (float)(both.second / divisor));
    }
}
