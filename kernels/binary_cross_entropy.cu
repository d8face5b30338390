// Binary cross-entropy of logits x with targets t from 0 to 1 (src/ops/binary_cross_entropy): the mean of
// max(x, 0) − t x + ln(1 + e^−|x|).

// Partial sums in f64, as `mse_forward` has them: block b gives partials[b].
// Block: (threads, 1), threads a multiple of 32.
extern "C" __global__ void binary_cross_entropy_forward(
    double* __restrict__ partials, const float* __restrict__ logits, const float* __restrict__ targets, u64 len
) {
    double sum = 0.0;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < len; i += (u64)gridDim.x * blockDim.x) {
        double x = logits[i], t = targets[i];
        // fmax drops a NaN; the product with t brings it back, also for t = 0.
        sum += fmax(x, 0.0) - t * x + log1p(exp(-fabs(x)));
    }
    sum = row_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// slope (+)= by · upstream [1] · (σ(x) − t), `by` = 1 / len. Grid: enough blocks, or fewer. Block: (threads, 1).
extern "C" __global__ void binary_cross_entropy_backward(
    float* __restrict__ slope, int accumulate, const float* __restrict__ upstream, double by,
    const float* __restrict__ logits, const float* __restrict__ targets, u64 len
) {
    float scale = (float)(by * upstream[0]);
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < len; i += (u64)gridDim.x * blockDim.x) {
        float value = scale * (sigmoid(logits[i]) - targets[i]);
        slope[i] = accumulate ? slope[i] + value : value;
    }
}
