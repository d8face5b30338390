// Squared error (src/ops/mse): Σ w (prediction − target)² divided by what the host says; w = 1 without weights.

// Partial sums in f64: thread i of the grid takes elements i, i + threads, …; block b gives partials[b], to be added up
// by `mean_of_doubles` (vector.cu). The number of blocks must depend on `len` only: the order of the sum does. Block:
// (threads, 1), threads a multiple of 32.
extern "C" __global__ void mse_forward(
    double* __restrict__ partials, const float* __restrict__ prediction, const float* __restrict__ target,
    const float* __restrict__ weights, u64 len
) {
    double sum = 0.0;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < len; i += (u64)gridDim.x * blockDim.x) {
        double difference = (double)prediction[i] - (double)target[i];
        sum += (weights ? (double)weights[i] : 1.0) * difference * difference;
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
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < len; i += (u64)gridDim.x * blockDim.x) {
        float value = scale * (weights ? weights[i] : 1.0f) * (prediction[i] - target[i]);
        slope[i] = accumulate ? slope[i] + value : value;
    }
}
