// Softmax and cross-entropy (src/ops/cross_entropy). For a row of logits x with target c: loss_c = log Σ exp(x − x_c).
//
// With smoothing ε, class weights w and m unmasked classes (a logit of −∞ masks its class), a row's loss is (1 − ε) w_c
// loss_c + ε/m Σ_j w_j loss_j; its gradient s · ((1 − ε) w_c (p − 1[c]) + ε/m Σ_j w_j (p − 1[j])), s the row's sample
// weight, p = softmax(x). A row with target −1 does not count.
//
// A row is `width` logits, or, where `groups` [rows + 1] is not null, logits groups[row] .. groups[row + 1]. Targets
// are classes of their rows (the host checks); the loss of one whose class is masked is infinite.

//
// Each way a row is read once. It may begin anywhere and be of any width: it is cut into packs that lie at multiples of 16
// bytes, and the first and the last one, which may be parts, are read number by number.

#define IGNORE (-1)

// Numbers of a row's statistics: maximum, log Σ exp(x − maximum), loss without the sample weight; and, where there is
// smoothing, m and Σ_j w_j over the unmasked classes.
#define STATISTICS 5

// Packs that a thread reads before it works on them.
#define AT_ONCE 4

#if defined(NUMBER_BF16)
#define MASKED 0xff80ff80ff80ff80ull
#elif defined(NUMBER_F16)
#define MASKED 0xfc00fc00fc00fc00ull
#else
#define MASKED 0xff800000ff800000ull
#endif

// eˣ. Where logits have 16 bits the function of the chip, within two units in the last place of f32, is as good.
__device__ __forceinline__ float exponential(float x) {
#ifdef NUMBER_16
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * 1.44269504088896340736f));
    return power;
#else
    return expf(x);
#endif
}

// Where a row's logits are: pack p has the columns p · PACK − lead on.
struct Row {
    u64 start;
    unsigned width, lead, packs;
};

__device__ __forceinline__ Row row_of(unsigned row, const unsigned* groups, unsigned width, const number* logits) {
    u64 start = groups ? groups[row] : (u64)row * width;
    if (groups) width = groups[row + 1] - groups[row];
    unsigned lead = (unsigned)((u64)(logits + start) & 15) / (unsigned)sizeof(number);
    return {start, width, lead, (lead + width + PACK - 1) / PACK};
}

// The columns of a pack that the row has: first .. last, counted from the pack's own.
struct Part {
    int column;
    unsigned first, last;
    __device__ __forceinline__ bool whole() const { return first == 0 && last == PACK; }
};

__device__ __forceinline__ Part part_of(const Row& row, unsigned pack) {
    int column = (int)(pack * PACK) - (int)row.lead, left = (int)row.width - column;
    return {column, column < 0 ? (unsigned)-column : 0, left < PACK ? (unsigned)left : PACK};
}

// A pack of logits; what is not of the row is masked.
__device__ __forceinline__ uint4 load_part(const number* x, Part part, bool vector) {
    x += part.column;
    if (vector && part.whole()) return *(const uint4*)x;
    u64 low = MASKED, high = MASKED, ones = (1ull << 128 / PACK) - 1;
#pragma unroll 1
    for (unsigned i = part.first; i < part.last; i++) {
        unsigned shift = i % (PACK / 2) * (128 / PACK);
        u64 bits = (u64)bits_of(x[i]) << shift, others = ~(ones << shift);
        if (i < PACK / 2) low = (low & others) | bits;
        else high = (high & others) | bits;
    }
    return make_uint4((unsigned)low, (unsigned)(low >> 32), (unsigned)high, (unsigned)(high >> 32));
}

__device__ __forceinline__ void store_part(number* x, Part part, bool vector, uint4 pack) {
    if (vector && part.whole()) return store_pack(x, part.column, part.column + PACK, true, pack);
    x += part.column;
    u64 low = (u64)pack.y << 32 | pack.x, high = (u64)pack.w << 32 | pack.z;
#pragma unroll 1
    for (unsigned i = part.first; i < part.last; i++) {
        x[i] = number_of((unsigned)((i < PACK / 2 ? low : high) >> i % (PACK / 2) * (128 / PACK)));
    }
}

// What a thread knows of the logits that it has seen. Sums are relative to the largest one, or to 0 if all were masked.
struct Seen {
    float largest, base, sum;   // Σ exp(x − base)
    float open, weights, soft;  // the number, Σ w and Σ w · (x − base) of unmasked classes
};

// Moves the sums to another largest logit.
__device__ __forceinline__ void rebase(Seen& seen, float largest) {
    float base = largest == -INFINITY_F ? 0.0f : largest;
    // A sum of 0 has no scale yet.
    if (seen.sum != 0.0f) seen.sum *= exponential(seen.base - base);
    seen.soft += seen.weights * (seen.base - base);
    seen.largest = largest;
    seen.base = base;
}

template <bool SMOOTH>
__device__ __forceinline__ void see(Seen& seen, const float* v, int column, const float* class_weights) {
    float largest = v[0];
#pragma unroll
    for (int i = 1; i < PACK; i++) largest = fmaxf(largest, v[i]);
    if (largest > seen.largest) rebase(seen, largest);
#pragma unroll
    for (int i = 0; i < PACK; i++) {
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
    for (unsigned pack = threadIdx.x; pack < row.packs; pack += AT_ONCE * blockDim.x) {
        uint4 read[AT_ONCE];
#pragma unroll
        for (unsigned j = 0; j < AT_ONCE; j++) {
            unsigned at = pack + j * blockDim.x;
            if (at < row.packs) read[j] = load_part(x, part_of(row, at), true);
        }
#pragma unroll
        for (unsigned j = 0; j < AT_ONCE; j++) {
            unsigned at = pack + j * blockDim.x;
            if (at >= row.packs) break;
            float v[PACK];
            unpack(read[j], v);
            see<SMOOTH>(seen, v, part_of(row, at).column, class_weights);
        }
    }
    float maximum = row_max(seen.largest);
    rebase(seen, maximum);
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
extern "C" __global__ void cross_entropy_forward(
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
    Row row = row_of(index, groups, width, logits);
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

// dlogits (+)= the gradient times upstream [1] / divisor [1]. Grid and block as for the forward kernel.
extern "C" __global__ void cross_entropy_backward(
    number* __restrict__ dlogits, int accumulate, const float* __restrict__ upstream, const double* __restrict__ divisor,
    const float* __restrict__ statistics, const number* __restrict__ logits, const int* __restrict__ targets,
    const unsigned* __restrict__ groups, const float* __restrict__ class_weights,
    const float* __restrict__ sample_weights, unsigned rows, unsigned width, float smoothing
) {
    unsigned index = my_row();
    if (index >= rows) return;
    Row row = row_of(index, groups, width, logits);
    const number* x = logits + row.start;
    number* dx = dlogits + row.start;
    // Packs of both lie at multiples of 16 bytes, or one by one.
    bool vector = (((u64)x ^ (u64)dx) & 15) == 0;
    int target = targets[index];
    if (target == IGNORE) {
        if (accumulate) return;
        for (unsigned pack = threadIdx.x; pack < row.packs; pack += blockDim.x) {
            store_part(dx, part_of(row, pack), vector, make_uint4(0, 0, 0, 0));
        }
        return;
    }
    statistics += (u64)index * STATISTICS;
    float maximum = statistics[0], log_sum = statistics[1];
    float scale = (float)(upstream[0] / divisor[0]) * (sample_weights ? sample_weights[index] : 1.0f);
    float hard = (1.0f - smoothing) * (class_weights ? class_weights[target] : 1.0f), soft = 0.0f, factor = hard;
    if (smoothing != 0.0f) {
        soft = smoothing / statistics[3];
        factor += soft * statistics[4];
    }
    for (unsigned pack = threadIdx.x; pack < row.packs; pack += AT_ONCE * blockDim.x) {
        uint4 read[AT_ONCE];
#pragma unroll
        for (unsigned j = 0; j < AT_ONCE; j++) {
            unsigned at = pack + j * blockDim.x;
            if (at < row.packs) read[j] = load_part(x, part_of(row, at), true);
        }
#pragma unroll
        for (unsigned j = 0; j < AT_ONCE; j++) {
            unsigned at = pack + j * blockDim.x;
            if (at >= row.packs) break;
            Part part = part_of(row, at);
            float v[PACK];
            unpack(read[j], v);
            unsigned hit = (unsigned)(target - part.column);
#pragma unroll
            for (int i = 0; i < PACK; i++) {
                float d = factor * exponential((v[i] - maximum) - log_sum);
                if (soft != 0.0f && v[i] != -INFINITY_F) {
                    d -= soft * (class_weights ? class_weights[part.column + i] : 1.0f);
                }
                v[i] = d;
            }
            if (hit < PACK) {
#pragma unroll
                for (int i = 0; i < PACK; i++) v[i] -= i == hit ? hard : 0.0f;
            }
#pragma unroll
            for (int i = 0; i < PACK; i++) v[i] *= scale;
            if (accumulate) {
                float old[PACK];
                unpack(load_part(dx, part, vector), old);
#pragma unroll
                for (int i = 0; i < PACK; i++) v[i] += old[i];
            }
            store_part(dx, part, vector, packed(v));
        }
    }
}
