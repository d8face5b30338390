// What several ops need of flat arrays and of sums over rows (src/device/cpu: vector, rows).

// target (+)= factor · values, factor = `by` · `scale`[0] (1 if null). Grid: enough blocks, or fewer: threads stride.
// Block: (threads, 1).
extern "C" __global__ void scaled(
    number* __restrict__ target, int accumulate, const number* __restrict__ values, const float* __restrict__ scale,
    float by, u64 len
) {
    float factor = scale ? by * scale[0] : by;
    bool vector = aligned16(target) && aligned16(values);
    u64 stride = (u64)gridDim.x * blockDim.x * 4;
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < len; i += stride) {
        unsigned count = len - i < 4 ? (unsigned)(len - i) : 4;
        float4 v = scale4(load4(values + i, 0, count, vector && count == 4), factor);
        put4(target + i, 0, count, vector && count == 4, v, accumulate);
    }
}

// Numbers in another form: `rounding` copies f32 into numbers, `widening` numbers into f32, adding them to what is there if
// they are to be accumulated. Grid: enough blocks, or fewer: threads stride. Block: (threads, 1).
extern "C" __global__ void rounding(number* __restrict__ target, const float* __restrict__ values, u64 len) {
    bool vector = aligned16(target) && aligned16(values);
    u64 stride = (u64)gridDim.x * blockDim.x * 4;
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < len; i += stride) {
        unsigned count = len - i < 4 ? (unsigned)(len - i) : 4;
        bool whole = vector && count == 4;
        store4(target + i, 0, count, whole, load4(values + i, 0, count, whole));
    }
}
extern "C" __global__ void widening(
    float* __restrict__ target, int accumulate, const number* __restrict__ values, u64 len
) {
    bool vector = aligned16(target) && aligned16(values);
    u64 stride = (u64)gridDim.x * blockDim.x * 4;
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < len; i += stride) {
        unsigned count = len - i < 4 ? (unsigned)(len - i) : 4;
        bool whole = vector && count == 4;
        put4(target + i, 0, count, whole, load4(values + i, 0, count, whole), accumulate);
    }
}

// Partial sums of columns: chunk k has those of rows k · chunk .. (k + 1) · chunk of values [rows, width], in their
// order. partials [ceil(rows / chunk), width]. Grid: (ceil(rows / chunk), ceil(width / blockDim.x)). Block: (threads,
// 1).
extern "C" __global__ void column_partials(
    float* __restrict__ partials, const number* __restrict__ values, unsigned rows, unsigned width, unsigned chunk
) {
    unsigned column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= width) return;
    unsigned first = blockIdx.x * chunk, last = rows - first < chunk ? rows : first + chunk;
    float sum = 0.0f;
    for (unsigned row = first; row < last; row++) sum += widened(values[(u64)row * width + column]);
    partials[(u64)blockIdx.x * width + column] = sum;
}

// target[c] (+)= Σ_k partials[k, c], partials [count, width]. Thread (x, y) of a block takes the partials y, y + 8, …
// in their order; the eight sums are added in theirs. Grid: ceil(width / 32). Block: (32, 8).
extern "C" __global__ void sum_partials(
    float* __restrict__ target, int accumulate, const float* __restrict__ partials, unsigned count, unsigned width
) {
    __shared__ float sums[8][32];
    unsigned column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.0f;
    if (column < width) {
        for (unsigned k = threadIdx.y; k < count; k += 8) sum += partials[(u64)k * width + column];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || column >= width) return;
    for (unsigned y = 1; y < 8; y++) sum += sums[y][threadIdx.x];
    target[column] = accumulate ? target[column] + sum : sum;
}

// result [1] = Σ values / divisor, the sum in f64. Grid: 1. Block: (threads, 1).
extern "C" __global__ void mean_of_floats(
    float* __restrict__ result, const float* __restrict__ values, unsigned len, double divisor
) {
    double sum = 0.0;
    for (unsigned i = threadIdx.x; i < len; i += blockDim.x) sum += values[i];
    sum = row_sum(sum);
    if (threadIdx.x == 0) result[0] = (float)(sum / divisor);
}

// The same of f64 values: the partial sums of a loss over many elements.
extern "C" __global__ void mean_of_doubles(
    float* __restrict__ result, const double* __restrict__ values, unsigned len, double divisor
) {
    double sum = 0.0;
    for (unsigned i = threadIdx.x; i < len; i += blockDim.x) sum += values[i];
    sum = row_sum(sum);
    if (threadIdx.x == 0) result[0] = (float)(sum / divisor);
}
