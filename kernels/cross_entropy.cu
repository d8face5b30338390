// Softmax and cross-entropy (src/ops/cross_entropy). For a row of logits x with target c: loss_c = log Σ exp(x − x_c).
//
// With smoothing ε, class weights w and m unmasked classes (a logit of −∞ masks its class), a row's loss is (1 − ε) w_c
// loss_c + ε/m Σ_j w_j loss_j; its gradient s · ((1 − ε) w_c (p − 1[c]) + ε/m Σ_j w_j (p − 1[j])), s the row's sample
// weight, p = softmax(x). A row with target −1 does not count.
//
// A row is `width` logits, or, where `groups` [rows + 1] is not null, logits groups[row] .. groups[row + 1]. Targets
// are classes of their rows (the host checks); the loss of one whose class is masked is infinite.

//
// Each way a row is read once. It may begin anywhere and be of any width: what lies between multiples of 16 bytes is read by
// packs, and the few logits before and after one by one.

#define IGNORE (-1)

// Numbers of a row's statistics: maximum, log Σ exp(x − maximum), loss without the sample weight; and, where there is
// smoothing, m and Σ_j w_j over the unmasked classes.
#define STATISTICS 5

// Packs that a thread reads before it works on them.
#define AT_ONCE 4

// e^(x − shift). Where logits have 16 bits the function of the chip, within two units in the last place of f32, is as good.
__device__ __forceinline__ float exponential(float x, float shift = 0.0f) {
#ifdef NUMBER_16
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(fmaf(x, 1.44269504f, shift * -1.44269504f)));
    return power;
#else
    return expf(x - shift);
#endif
}

// Where a row's logits are: `head` one by one, then `packs`, then the others one by one.
struct Row {
    u64 start;
    unsigned width, head, packs;
};

// `packed`: whether there may be packs.
__device__ __forceinline__ Row row_of(
    unsigned row, const unsigned* groups, unsigned width, const number* logits, bool packed
) {
    u64 start = groups ? groups[row] : (u64)row * width;
    if (groups) width = groups[row + 1] - groups[row];
    unsigned head = (unsigned)(-(u64)(logits + start) & 15) / (unsigned)sizeof(number);
    if (!packed || head > width) head = width;
    return {start, width, head, (width - head) / PACK};
}

// `work(numbers, pack)` for each of a thread's packs of a row; AT_ONCE of them are read before the first one is looked at.
template <class Work>
__device__ __forceinline__ void each_pack(const number* x, const Row& row, Work work) {
    for (unsigned pack = threadIdx.x; pack < row.packs; pack += AT_ONCE * blockDim.x) {
        uint4 read[AT_ONCE];
#pragma unroll
        for (unsigned j = 0; j < AT_ONCE; j++) {
            unsigned at = pack + j * blockDim.x;
            if (at < row.packs) read[j] = *(const uint4*)(x + row.head + at * PACK);
        }
#pragma unroll
        for (unsigned j = 0; j < AT_ONCE; j++) {
            unsigned at = pack + j * blockDim.x;
            if (at >= row.packs) break;
            float v[PACK];
            unpack(read[j], v);
            work(v, at);
        }
    }
}

// What a thread knows of the logits that it has seen. Sums are relative to the largest one, or to 0 if all were masked.
struct Seen {
    float largest, base, sum;   // Σ exp(x − base)
    float open, weights, soft;  // the number, Σ w and Σ w · (x − base) of unmasked classes
};

// Moves the sums to another largest logit.
template <bool SMOOTH>
__device__ __forceinline__ void rebase(Seen& seen, float largest) {
    float base = largest == -INFINITY_F ? 0.0f : largest;
    // A sum of 0 has no scale yet.
    if (seen.sum != 0.0f) seen.sum *= exponential(seen.base - base);
    if (SMOOTH) seen.soft += seen.weights * (seen.base - base);
    seen.largest = largest;
    seen.base = base;
}

// `COUNT` logits from `column` on.
template <bool SMOOTH, int COUNT>
__device__ __forceinline__ void see(Seen& seen, const float* v, unsigned column, const float* class_weights) {
    float largest = v[0];
#pragma unroll
    for (int i = 1; i < COUNT; i++) largest = fmaxf(largest, v[i]);
    if (largest > seen.largest) rebase<SMOOTH>(seen, largest);
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        float x = v[i] - seen.base;
        seen.sum += exponential(x);
        if (SMOOTH && v[i] != -INFINITY_F) {
            float weight = class_weights ? class_weights[column + i] : 1.0f;
            seen.open += 1.0f;
            seen.weights += weight;
            seen.soft = fmaf(weight, x, seen.soft);
        }
    }
}

template <bool SMOOTH>
__device__ __forceinline__ void forward(
    float* statistics, const number* x, Row row, int target, const float* class_weights, float smoothing
) {
    Seen seen = {-INFINITY_F, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    each_pack(x, row, [&](float (&v)[PACK], unsigned at) {
        see<SMOOTH, PACK>(seen, v, row.head + at * PACK, class_weights);
    });
    for (unsigned i = threadIdx.x; i < row.width - row.packs * PACK; i += blockDim.x) {
        unsigned column = i < row.head ? i : i + row.packs * PACK;
        float v = widened(x[column]);
        see<SMOOTH, 1>(seen, &v, column, class_weights);
    }
    float maximum = row_max(seen.largest);
    rebase<SMOOTH>(seen, maximum);
    float log_sum = logf(row_sum(seen.sum));
    float loss = (class_weights ? class_weights[target] : 1.0f) * (log_sum - (widened(x[target]) - maximum));
    float open = 0.0f, weights = 0.0f;
    if (SMOOTH) {
        open = row_sum(seen.open);
        weights = row_sum(seen.weights);
        // Both terms are above 0.
        float soft = weights * log_sum - row_sum(seen.soft);
        loss = (1.0f - smoothing) * loss + smoothing / open * soft;
    }
    if (threadIdx.x != 0) return;
    statistics[0] = maximum;
    statistics[1] = log_sum;
    statistics[2] = loss;
    statistics[3] = open;
    statistics[4] = weights;
}

// statistics [rows, STATISTICS], zeros for rows that do not count. logits; targets [rows]; class_weights [width] or null.
// Grid: ceil(rows / blockDim.y). Block: (32, n), or (threads, 1).
extern "C" __global__ void __launch_bounds__(256) cross_entropy_forward(
    float* __restrict__ statistics, const number* __restrict__ logits, const int* __restrict__ targets,
    const unsigned* __restrict__ groups, const float* __restrict__ class_weights, unsigned rows, unsigned width,
    float smoothing
) {
    unsigned index = my_row();
    if (index >= rows) return;
    statistics += (u64)index * STATISTICS;
    int target = targets[index];
    if (target == IGNORE) {
        if (threadIdx.x < STATISTICS) statistics[threadIdx.x] = 0.0f;
        return;
    }
    Row row = row_of(index, groups, width, logits, true);
    const number* x = logits + row.start;
    if (smoothing != 0.0f) forward<true>(statistics, x, row, target, class_weights, smoothing);
    else forward<false>(statistics, x, row, target, class_weights, smoothing);
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
        sum += sample * statistics[(u64)row * STATISTICS + 2];
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

// What the gradients of a row's logits are made of: factor · p − hard · 1[target] − soft · w.
struct Slope {
    float maximum, log_sum, factor, hard, soft;
    unsigned target;
};

template <bool SMOOTH, int COUNT>
__device__ __forceinline__ void slopes(float* v, Slope slope, unsigned column, const float* class_weights) {
    unsigned hit = slope.target - column;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        float d = slope.factor * exponential(v[i] - slope.maximum, slope.log_sum);
        if (SMOOTH && v[i] != -INFINITY_F) d -= slope.soft * (class_weights ? class_weights[column + i] : 1.0f);
        v[i] = d;
    }
    if (hit >= COUNT) return;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        if (i == hit) v[i] -= slope.hard;
    }
}

template <bool SMOOTH>
__device__ __forceinline__ void backward(
    number* dx, int accumulate, const number* x, Row row, Slope slope, const float* class_weights
) {
    each_pack(x, row, [&](float (&v)[PACK], unsigned at) {
        slopes<SMOOTH, PACK>(v, slope, row.head + at * PACK, class_weights);
        put_pack(dx + row.head, at * PACK, row.packs * PACK, true, v, accumulate);
    });
    for (unsigned i = threadIdx.x; i < row.width - row.packs * PACK; i += blockDim.x) {
        unsigned column = i < row.head ? i : i + row.packs * PACK;
        float v = widened(x[column]);
        slopes<SMOOTH, 1>(&v, slope, column, class_weights);
        store1(dx + column, accumulate ? widened(dx[column]) + v : v);
    }
}

// dlogits (+)= the gradient times upstream [1] / divisor [1]; it may take the place of the logits: a thread writes what it
// alone has read before. Grid and block as for the forward kernel.
extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward(
    number* dlogits, int accumulate, const float* __restrict__ upstream, const double* __restrict__ divisor,
    const float* __restrict__ statistics, const number* logits, const int* __restrict__ targets,
    const unsigned* __restrict__ groups, const float* __restrict__ class_weights,
    const float* __restrict__ sample_weights, unsigned rows, unsigned width, float smoothing
) {
    unsigned index = my_row();
    if (index >= rows) return;
    // Packs where those of both lie at multiples of 16 bytes.
    Row row = row_of(index, groups, width, logits, (((u64)logits ^ (u64)dlogits) & 15) == 0);
    const number* x = logits + row.start;
    number* dx = dlogits + row.start;
    int target = targets[index];
    if (target == IGNORE) {
        if (accumulate) return;
        float zeros[PACK] = {};
        for (unsigned pack = threadIdx.x; pack < row.packs; pack += blockDim.x) {
            store_pack(dx + row.head, pack * PACK, row.packs * PACK, true, packed(zeros));
        }
        for (unsigned i = threadIdx.x; i < row.width - row.packs * PACK; i += blockDim.x) {
            store1(dx + (i < row.head ? i : i + row.packs * PACK), 0.0f);
        }
        return;
    }
    statistics += (u64)index * STATISTICS;
    float scale = (float)(upstream[0] / divisor[0]) * (sample_weights ? sample_weights[index] : 1.0f);
    float hard = scale * (1.0f - smoothing) * (class_weights ? class_weights[target] : 1.0f);
    Slope slope = {statistics[0], statistics[1], hard, hard, 0.0f, (unsigned)target};
    if (smoothing == 0.0f) return backward<false>(dx, accumulate, x, row, slope, class_weights);
    slope.soft = scale * smoothing / statistics[3];
    slope.factor += slope.soft * statistics[4];
    backward<true>(dx, accumulate, x, row, slope, class_weights);
}
