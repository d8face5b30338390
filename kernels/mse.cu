// Squared error (src/ops/mse): Σ w (prediction − target)² divided by what the host says; w = 1 without weights.

// w (p − t)². What lies beyond the end of the arrays is 0 on both sides.
__device__ __forceinline__ double weighted_square(float p, float t, float w) {
    double difference = (double)p - (double)t;
    return w * difference * difference;
}

// Partial sums in f64: thread i of the grid takes quads i, i + threads, …; block b gives partials[b], to be added up
// by `mean_of_doubles` (vector.cu). The number of blocks must depend on `len` only: the order of the sum does. Block:
// (threads, 1), threads a multiple of 32.
extern "C" __global__ void mse_forward(
    double* __restrict__ partials, const float* __restrict__ prediction, const float* __restrict__ target,
    const float* __restrict__ weights, u64 len
) {
    double sum = 0.0;
    bool vector = aligned16(prediction) && aligned16(target) && aligned16(weights);
    u64 stride = (u64)gridDim.x * blockDim.x * 4;
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < len; i += stride) {
        unsigned count = len - i < 4 ? (unsigned)(len - i) : 4;
        bool whole = vector && count == 4;
        float4 p = load4(prediction + i, 0, count, whole), t = load4(target + i, 0, count, whole);
        float4 w = weights ? load4(weights + i, 0, count, whole) : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
        sum += weighted_square(p.x, t.x, w.x) + weighted_square(p.y, t.y, w.y);
        sum += weighted_square(p.z, t.z, w.z) + weighted_square(p.w, t.w, w.w);
    }
    sum = row_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// slope (+)= by · upstream [1] · w · (prediction − target): `by` is 2 / divisor for the prediction's gradient, −2 /
// divisor for the target's. Grid: enough blocks, or fewer: threads stride. Block: (threads, 1).
extern "C" __global__ void mse_backward(
    float* __restrict__ slope, int accumulate, const float* __restrict__ upstream, double by,
    const float* __restrict__ prediction, const float* __restrict__ target, const float* __restrict__ weights, u64 len
) {
    float scale = (float)(by * upstream[0]);
    bool vector = aligned16(slope) && aligned16(prediction) && aligned16(target) && aligned16(weights);
    u64 stride = (u64)gridDim.x * blockDim.x * 4;
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < len; i += stride) {
        unsigned count = len - i < 4 ? (unsigned)(len - i) : 4;
        bool whole = vector && count == 4;
        float4 p = load4(prediction + i, 0, count, whole), t = load4(target + i, 0, count, whole);
        float4 w = weights ? load4(weights + i, 0, count, whole) : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
        float4 d = make_float4(p.x - t.x, p.y - t.y, p.z - t.z, p.w - t.w);
        put4(slope + i, 0, count, whole, mul4(scale4(w, scale), d), accumulate);
    }
}
