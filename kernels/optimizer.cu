// Optimizers over the flat parameter arena (src/train/optimizer has the rules), the gradients' norm and its clipping
// (src/train/clip). Each element's parameter, gradient and moments are read and written once, in one launch for all
// entries.
//
// The arena is cut into pieces, each within one entry; a block has a piece. Entries that are left alone have no piece.
// Moments move by m += (1 − β)(g − m): 1 − β is rounded once from f64, whereas β and 1 − β rounded apart do not add up
// to 1.

#define ADAMW 0
#define ADAMAX 1
#define ADAMAX_LEGACY 2
#define RADAM 3        // decay after the step
#define RADAM_FIRST 4  // decay before it
#define SGD 5          // coupled decay
#define SGD_DECOUPLED 6

// Elements start .. start + len of the arena, which belong to entry `entry`.
struct Piece {
    u64 start;
    unsigned len;
    unsigned entry;
};

// What the host computes in f64 for an entry's step (src/train/optimizer/cpu.rs: Factors::new).
struct Factors {
    float first;       // 1 − β₁; 1 − momentum for SGD
    float second;      // 1 − β₂
    float epsilon;
    float rate;        // the learning rate with what the rule makes of it
    float correction;  // AdamW: 1 / √(1 − β₂ᵗ)
    float decay;       // ηλ; λ where decay goes into the gradient
    int adaptive;      // RAdam: whether the step is divided by √v + ε
};

// One element's step. first and second are its moments; what a rule does not keep is neither read nor written.
__device__ __forceinline__ void update(int kind, float& value, float g, float& first, float& second, const Factors& f) {
    if (kind >= SGD) {
        bool decoupled = kind == SGD_DECOUPLED;
        if (!decoupled) g += f.decay * value;
        first += g - f.first * first;
        value -= (decoupled ? f.decay * value : 0.0f) + f.rate * first;
        return;
    }
    first += f.first * (g - first);
    if (kind == ADAMAX || kind == ADAMAX_LEGACY) {
        float old = second - f.second * second, now = fabsf(g) + f.epsilon;
        second = old > now ? old : now;
        float divisor = kind == ADAMAX ? second : second + f.epsilon;
        value -= f.decay * value + f.rate * (first / divisor);
        return;
    }
    second += f.second * (g * g - second);
    if (kind == ADAMW) {
        value -= f.decay * value + f.rate * (first / (sqrtf(second) * f.correction + f.epsilon));
        return;
    }
    float change = f.rate * (first / (f.adaptive ? sqrtf(second) + f.epsilon : 1.0f));
    value -= f.decay * (kind == RADAM_FIRST ? value : value - change) + change;
}

// One step. values, gradients, first, second: arenas; second is null for SGD, first too if it has no momentum. factors
// [entries]; scale [1]: the gradients' factor, from `clip`. copy: an arena of the values as numbers, which products read;
// null where there is none. Grid: pieces. Block: (threads, 1).
extern "C" __global__ void optimizer_step(
    float* __restrict__ values, const float* __restrict__ gradients, float* __restrict__ first,
    float* __restrict__ second, const Piece* __restrict__ pieces, const Factors* __restrict__ factors,
    const float* __restrict__ scale, int kind, number* __restrict__ copy
) {
    Piece piece = pieces[blockIdx.x];
    Factors f = factors[piece.entry];
    float by = scale[0];
    values += piece.start;
    gradients += piece.start;
    if (first) first += piece.start;
    if (second) second += piece.start;
    if (copy) copy += piece.start;
    bool vector = aligned16(values) && aligned16(gradients) && aligned16(first) && aligned16(second) && aligned_quad(copy);
    for (unsigned i = threadIdx.x * 4; i < piece.len; i += blockDim.x * 4) {
        bool whole = vector && piece.len - i >= 4;
        float4 value = load4(values, i, piece.len, whole), g = scale4(load4(gradients, i, piece.len, whole), by);
        float4 m = make_float4(0.0f, 0.0f, 0.0f, 0.0f), v = m;
        if (first) m = load4(first, i, piece.len, whole);
        if (second) v = load4(second, i, piece.len, whole);
        update(kind, value.x, g.x, m.x, v.x, f);
        update(kind, value.y, g.y, m.y, v.y, f);
        update(kind, value.z, g.z, m.z, v.z, f);
        update(kind, value.w, g.w, m.w, v.w, f);
        store4(values, i, piece.len, whole, value);
        if (first) store4(first, i, piece.len, whole, m);
        if (second) store4(second, i, piece.len, whole, v);
        if (copy) store4(copy, i, piece.len, whole, value);
    }
}

// sums [pieces]: Σ g² of each piece, in f64. Grid: pieces. Block: (threads, 1), threads a multiple of 32 and always as
// many: the order of the sum depends on them.
extern "C" __global__ void gradient_squares(
    double* __restrict__ sums, const float* __restrict__ gradients, const Piece* __restrict__ pieces
) {
    Piece piece = pieces[blockIdx.x];
    gradients += piece.start;
    bool vector = aligned16(gradients);
    double sum = 0.0;
    for (unsigned i = threadIdx.x * 4; i < piece.len; i += blockDim.x * 4) {
        float4 g = load4(gradients, i, piece.len, vector && piece.len - i >= 4);
        sum += (double)g.x * g.x + (double)g.y * g.y + (double)g.z * g.z + (double)g.w * g.w;
    }
    sum = row_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// norm [1] = √Σ sums, and scale [1], what the gradients are multiplied by: maximum / (norm + 10⁻⁶) if the norm is above
// `maximum` and that is above 0, else 1 (Pascanu, Mikolov and Bengio, ICML 2013; constants of torch's clip_grad_norm_).
// Grid: 1. Block: (threads, 1), as above.
extern "C" __global__ void clip(
    double* __restrict__ norm, float* __restrict__ scale, const double* __restrict__ sums, unsigned pieces,
    double maximum
) {
    double sum = 0.0;
    for (unsigned i = threadIdx.x; i < pieces; i += blockDim.x) sum += sums[i];
    sum = sqrt(row_sum(sum));
    if (threadIdx.x != 0) return;
    norm[0] = sum;
    scale[0] = maximum > 0.0 && sum > maximum ? (float)(maximum / (sum + 1e-6)) : 1.0f;
}

// shadow += share · (values − shadow): the moving average of the weights (src/train/ema.rs), share = 1 − γ.
// Grid: enough blocks, or fewer: threads stride. Block: (threads, 1).
extern "C" __global__ void moving_average(
    float* __restrict__ shadow, const float* __restrict__ values, float share, u64 len
) {
    bool vector = aligned16(shadow) && aligned16(values);
    u64 stride = (u64)gridDim.x * blockDim.x * 4;
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < len; i += stride) {
        unsigned count = len - i < 4 ? (unsigned)(len - i) : 4;
        bool whole = vector && count == 4;
        float4 s = load4(shadow + i, 0, count, whole), v = load4(values + i, 0, count, whole);
        put4(shadow + i, 0, count, whole, scale4(make_float4(v.x - s.x, v.y - s.y, v.z - s.z, v.w - s.w), share), 1);
    }
}
