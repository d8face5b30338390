// Softmax and cross-entropy (src/ops/cross_entropy). For a row of logits x with target c: loss_c = log Σ exp(x − x_c).
//
// With smoothing ε, class weights w and m unmasked classes (a logit of −∞ masks its class), a row's loss is (1 − ε) w_c
// loss_c + ε/m Σ_j w_j loss_j; its gradient s · ((1 − ε) w_c (p − 1[c]) + ε/m Σ_j w_j (p − 1[j])), s the row's sample
// weight, p = softmax(x). A row with target −1 does not count.
//
// A row is `width` logits, or, where `groups` [rows + 1] is not null, logits groups[row] .. groups[row + 1]. Targets
// are classes of their rows (the host checks); the loss of one whose class is masked is infinite.

#define IGNORE (-1)

// Where a row's logits are.
struct Row {
    u64 start;
    unsigned width;
    bool vector;
};

__device__ __forceinline__ Row row_of(unsigned row, const unsigned* groups, unsigned width, bool aligned) {
    if (!groups) return {(u64)row * width, width, aligned && width % 4 == 0};
    unsigned start = groups[row];
    return {start, groups[row + 1] - start, false};
}

__device__ __forceinline__ float lane4(float4 v, unsigned i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// statistics [rows, 3]: maximum, log Σ exp(x − maximum), loss without the sample weight; zeros for rows that do not
// count. logits; targets [rows]; class_weights [width] or null. Grid: ceil(rows / blockDim.y). Block: (32, n), or
// (threads, 1).
extern "C" __global__ void cross_entropy_forward(
    float* __restrict__ statistics, const number* __restrict__ logits, const int* __restrict__ targets,
    const unsigned* __restrict__ groups, const float* __restrict__ class_weights, unsigned rows, unsigned width,
    float smoothing
) {
    unsigned index = my_row();
    if (index >= rows) return;
    statistics += (u64)index * 3;
    int target = targets[index];
    if (target == IGNORE) {
        if (threadIdx.x < 3) statistics[threadIdx.x] = 0.0f;
        return;
    }
    Row row = row_of(index, groups, width, aligned16(logits));
    const number* x = logits + row.start;
    // Maximum and sum in one pass: a thread's sum is relative to the largest logit that it has seen so far.
    float largest = -INFINITY_F, sum = 0.0f;
    for (unsigned c = threadIdx.x * 4; c < row.width; c += blockDim.x * 4) {
        float4 v = load4(x, c, row.width, row.vector);
        float next = largest;
        for (unsigned i = 0; i < 4 && c + i < row.width; i++) next = fmaxf(next, lane4(v, i));
        // A sum of 0 has no scale yet, and a masked class adds nothing: −∞ − −∞ is no number.
        if (sum != 0.0f) sum *= expf(largest - next);
        largest = next;
        for (unsigned i = 0; i < 4 && c + i < row.width; i++) {
            float logit = lane4(v, i);
            if (logit != -INFINITY_F) sum += expf(logit - largest);
        }
    }
    float maximum = row_max(largest);
    if (sum != 0.0f) sum *= expf(largest - maximum);
    float log_sum = logf(row_sum(sum));
    float loss = (class_weights ? class_weights[target] : 1.0f) * (log_sum - (widened(x[target]) - maximum));
    if (smoothing != 0.0f) {
        float open = 0.0f, soft = 0.0f;
        for (unsigned c = threadIdx.x * 4; c < row.width; c += blockDim.x * 4) {
            float4 v = load4(x, c, row.width, row.vector);
            for (unsigned i = 0; i < 4 && c + i < row.width; i++) {
                float logit = lane4(v, i);
                if (logit == -INFINITY_F) continue;
                open += 1.0f;
                soft += (class_weights ? class_weights[c + i] : 1.0f) * (log_sum - (logit - maximum));
            }
        }
        open = row_sum(open);
        loss = (1.0f - smoothing) * loss + smoothing / open * row_sum(soft);
    }
    if (threadIdx.x == 0) {
        statistics[0] = maximum;
        statistics[1] = log_sum;
        statistics[2] = loss;
    }
}

// loss [1] = Σ s · loss / divisor, divisor [1]: Σ s · w (reduction 0: of the target's class), the number of counted
// rows (1), or 1 (2); 1 where it would be 0. Sums in f64. Grid: 1. Block: (threads, 1).
extern "C" __global__ void cross_entropy_reduce(
    float* __restrict__ loss, double* __restrict__ divisor, const float* __restrict__ statistics,
    const int* __restrict__ targets, const float* __restrict__ class_weights, const float* __restrict__ sample_weights,
    unsigned rows, int reduction
) {
    double sum = 0.0, weight = 0.0, count = 0.0;
    for (unsigned row = threadIdx.x; row < rows; row += blockDim.x) {
        int target = targets[row];
        if (target == IGNORE) continue;
        double sample = sample_weights ? sample_weights[row] : 1.0;
        sum += sample * statistics[(u64)row * 3 + 2];
        weight += sample * (class_weights ? class_weights[target] : 1.0);
        count += 1.0;
    }
    sum = row_sum(sum);
    weight = row_sum(weight);
    count = row_sum(count);
    if (threadIdx.x != 0) return;
    double by = reduction == 0 ? weight : reduction == 1 ? count : 1.0;
    if (by == 0.0) by = 1.0;
    loss[0] = (float)(sum / by);
    divisor[0] = by;
}

// dlogits (+)= the gradient times upstream [1] / divisor [1]. Grid and block as for the forward kernel.
extern "C" __global__ void cross_entropy_backward(
    number* __restrict__ dlogits, int accumulate, const float* __restrict__ upstream, const double* __restrict__ divisor,
    const float* __restrict__ statistics, const number* __restrict__ logits, const int* __restrict__ targets,
    const unsigned* __restrict__ groups, const float* __restrict__ class_weights,
    const float* __restrict__ sample_weights, unsigned rows, unsigned width, float smoothing
) {
    unsigned index = my_row();
    if (index >= rows) return;
    Row row = row_of(index, groups, width, aligned16(logits) && aligned16(dlogits));
    const number* x = logits + row.start;
    number* dx = dlogits + row.start;
    int target = targets[index];
    if (target == IGNORE) {
        if (accumulate) return;
        for (unsigned c = threadIdx.x * 4; c < row.width; c += blockDim.x * 4) {
            store4(dx, c, row.width, row.vector, make_float4(0.0f, 0.0f, 0.0f, 0.0f));
        }
        return;
    }
    float maximum = statistics[(u64)index * 3], log_sum = statistics[(u64)index * 3 + 1];
    float scale = (float)(upstream[0] / divisor[0]) * (sample_weights ? sample_weights[index] : 1.0f);
    float hard = (1.0f - smoothing) * (class_weights ? class_weights[target] : 1.0f), soft = 0.0f, factor = hard;
    if (smoothing > 0.0f) {
        float open = 0.0f, weights = 0.0f;
        for (unsigned c = threadIdx.x; c < row.width; c += blockDim.x) {
            if (widened(x[c]) == -INFINITY_F) continue;
            open += 1.0f;
            weights += class_weights ? class_weights[c] : 1.0f;
        }
        soft = smoothing / row_sum(open);
        factor += soft * row_sum(weights);
    }
    for (unsigned c = threadIdx.x * 4; c < row.width; c += blockDim.x * 4) {
        float4 v = load4(x, c, row.width, row.vector);
        float d[4];
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            float logit = lane4(v, i);
            d[i] = factor * expf((logit - maximum) - log_sum);
            if (c + i == (unsigned)target) d[i] -= hard;
            if (soft > 0.0f && c + i < row.width && logit != -INFINITY_F) {
                d[i] -= soft * (class_weights ? class_weights[c + i] : 1.0f);
            }
            d[i] *= scale;
        }
        put4(dx, c, row.width, row.vector, make_float4(d[0], d[1], d[2], d[3]), accumulate);
    }
}
