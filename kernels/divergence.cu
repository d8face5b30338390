// How far two sets of logits are apart (src/ops/divergence has the table of the forms): f-divergences of their softmax,
// value and both gradients in one kernel. A row is read once, and what is computed of it is in divergence.cuh; but for the
// toolkit's noise-stable forms, which depend on the logarithm of 1 − p and are computed in f64, in several passes.

template <int R>
__device__ __forceinline__ void forward(
    float* values, number* dfirst, number* dsecond, const number* first, const number* second, const unsigned* groups,
    const unsigned char* counted, unsigned rows, unsigned width, int form, float scale, unsigned room
) {
    unsigned index = my_row();
    if (index >= rows) return;
    u64 start = groups ? groups[index] : (u64)index * width;
    if (groups) width = groups[index + 1] - groups[index];
    Pair<number> pair = {dfirst, dsecond, first, second, 1.0f, scale, room};
    Place row = place_of(start, width);
    if ((counted && !counted[index]) || width == 0) {
        if (threadIdx.x == 0) values[index] = 0.0f;
        if (width > 0) zero_slopes(pair, row);
        return;
    }
    pair_row<R, true>(form, values + index, pair, row);
}

// values [rows]: the value of each row, 0 where it does not count or is empty; dfirst, dsecond (both or none null),
// like the logits: `scale` times the gradients of the value. first, second: logits, `width` a row, or rows by groups [rows
// + 1]. counted [rows]: bytes, or null. form: one of those above but the noise-stable ones. room: pieces of a row that
// there is shared memory for. Grid: ceil(rows / blockDim.y). Block: (32, n), n at most 8, or (threads, 1), at most 256.
// Shared memory: blockDim.y · room · 32 bytes.
extern "C" __global__ void __launch_bounds__(256, 2) divergence_forward(
    float* __restrict__ values, number* __restrict__ dfirst, number* __restrict__ dsecond,
    const number* __restrict__ first, const number* __restrict__ second, const unsigned* __restrict__ groups,
    const unsigned char* __restrict__ counted, unsigned rows, unsigned width, int form, float scale, unsigned room
) {
    forward<0>(values, dfirst, dsecond, first, second, groups, counted, rows, width, form, scale, room);
}

// The same for long rows, of which the threads keep 5 pieces each in registers. Block: (threads, 1), at most 512.
extern "C" __global__ void __launch_bounds__(512) divergence_forward_wide(
    float* __restrict__ values, number* __restrict__ dfirst, number* __restrict__ dsecond,
    const number* __restrict__ first, const number* __restrict__ second, const unsigned* __restrict__ groups,
    const unsigned char* __restrict__ counted, unsigned rows, unsigned width, int form, float scale, unsigned room
) {
    forward<5>(values, dfirst, dsecond, first, second, groups, counted, rows, width, form, scale, room);
}

// The same of Bernoulli distributions, whose logits are first and second [len]; values and counted [len]. Grid: ceil(len /
// (threads · PACK)). Block: (threads, 1).
extern "C" __global__ void divergence_bernoulli(
    float* __restrict__ values, number* __restrict__ dfirst, number* __restrict__ dsecond,
    const number* __restrict__ first, const number* __restrict__ second, const unsigned char* __restrict__ counted,
    unsigned len, int form, float scale
) {
    Place row = place_of(0, len);
    unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= row.pieces) return;
    Pair<number> pair = {dfirst, dsecond, first, second, 1.0f, scale, 0};
    bernoulli_piece<true>(form, values, pair, counted, row, index);
}

// ------------------------------------------------------------------------------------------------- noise-stable forms

// L(x) of the toolkit's noise-stable KL.
__device__ __forceinline__ double log_odds(double x) { return -log(1.0 / (x + 1e-6) - 1.0 + 1e-6); }

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

// As divergence_forward, of the noise-stable forms; with `bernoulli` each row is (x, 0), width 1. Block: (32, n), or (threads,
// 1). No shared memory.
extern "C" __global__ void divergence_stable(
    float* __restrict__ values, number* __restrict__ dfirst, number* __restrict__ dsecond,
    const number* __restrict__ first, const number* __restrict__ second, const unsigned* __restrict__ groups,
    const unsigned char* __restrict__ counted, unsigned rows, unsigned width, int form, float scale, int bernoulli
) {
    unsigned row = my_row();
    if (row >= rows) return;
    u64 start = groups ? groups[row] : (u64)row * width;
    if (groups) width = groups[row + 1] - groups[row];
    bool counts = !counted || counted[row];
    // Without `symmetric` the second side weights nothing.
    double symmetric = form == LEGACY_STABLE_SYMMETRIC_KL ? 1.0 : 0.0;
    unsigned classes = counts && width > 0 ? width + (bernoulli != 0) : 0;
    const number *x = first + start, *y = second + start;
    double log_p = log_sum(x, width, classes), log_q = log_sum(y, width, classes), sum_p = 0.0, sum_q = 0.0;
    for (unsigned i = threadIdx.x; i < classes; i += blockDim.x) {
        double p = exp(logit(x, i, width) - log_p), q = exp(logit(y, i, width) - log_q);
        double w = log_odds(p) - log_odds(q);
        sum_p += p * w;
        sum_q -= q * w;
    }
    sum_p = row_sum(sum_p);
    sum_q = row_sum(sum_q);
    if (threadIdx.x == 0) values[row] = (float)(2.0 * (sum_p + symmetric * sum_q));
    if (!dfirst) return;
    for (unsigned i = threadIdx.x; i < width; i += blockDim.x) {
        double slope_p = 0.0, slope_q = 0.0;
        if (counts) {
            double p = exp(logit(x, i, width) - log_p), q = exp(logit(y, i, width) - log_q);
            double w = log_odds(p) - log_odds(q);
            slope_p = 2.0 * p * (w - sum_p);
            slope_q = 2.0 * symmetric * q * (-w - sum_q);
        }
        store1(dfirst + start + i, (float)(scale * slope_p));
        store1(dsecond + start + i, (float)(scale * slope_q));
    }
}
