// What several ops need of flat arrays and of sums over rows (src/device/cpu: vector, rows).

// target (+)= factor · values, factor = `by` · `scale`[0] (1 if null). Grid: enough blocks, or fewer: threads stride.
// Block: (threads, 1).
extern "C" __global__ void scaled(
    number* __restrict__ target, int accumulate, const number* __restrict__ values, const float* __restrict__ scale,
    float by, u64 len
) {
    float factor = scale ? by * scale[0] : by;
    bool vector = aligned16(target) && aligned16(values);
    u64 stride = (u64)gridDim.x * blockDim.x * PACK;
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * PACK; i < len; i += stride) {
        unsigned count = len - i < PACK ? (unsigned)(len - i) : PACK;
        float v[PACK];
        unpack(load_pack(values + i, 0, count, vector && count == PACK), v);
#pragma unroll
        for (int j = 0; j < PACK; j++) v[j] *= factor;
        put_pack(target + i, 0, count, vector && count == PACK, v, accumulate);
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

// Partial sums of columns: chunk k has those of rows k · chunk .. (k + 1) · chunk of values [rows, width]. partials
// [ceil(rows / chunk), width]. Warp w of a block adds up rows w, w + n, … of its chunk, with eight reads on their way at
// once; their sums are added in their order. Grid: (ceil(rows / chunk), ceil(width / (32 · PACK))). Block: (32, n), n at
// most 8 and fixed, as `chunk` is.
extern "C" __global__ void __launch_bounds__(256, 4) column_partials(
    float* __restrict__ partials, const number* __restrict__ values, unsigned rows, unsigned width, unsigned chunk
) {
    bool vector = width % PACK == 0 && aligned16(values);
    unsigned column = (blockIdx.y * 32 + threadIdx.x) * PACK;
    unsigned first = blockIdx.x * chunk, last = rows - first < chunk ? rows : first + chunk;
    float sums[PACK] = {};
    for (unsigned row = first + threadIdx.y; row < last; row += 8 * blockDim.y) {
        uint4 read[8];
#pragma unroll
        for (unsigned j = 0; j < 8; j++) {
            unsigned at = row + j * blockDim.y;
            read[j] = at < last ? load_pack(values + (u64)at * width, column, width, vector) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (unsigned j = 0; j < 8; j++) {
            float v[PACK];
            unpack(read[j], v);
#pragma unroll
            for (int i = 0; i < PACK; i++) sums[i] += v[i];
        }
    }
    put_columns(partials + (u64)blockIdx.x * width, column, width, sums);
}

// target[c] (+)= Σ_k partials[k, c], partials [count, width]. Thread (x, y) of a block takes the partials y, y + 8, …
// in their order, eight reads at once; the eight sums are added in theirs. Grid: ceil(width / 32). Block: (32, 8).
extern "C" __global__ void __launch_bounds__(256) sum_partials(
    float* __restrict__ target, int accumulate, const float* __restrict__ partials, unsigned count, unsigned width
) {
    __shared__ float sums[8][32];
    unsigned column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.0f;
    if (column < width) {
        for (unsigned k = threadIdx.y; k < count; k += 64) {
            float read[8];
#pragma unroll
            for (unsigned j = 0; j < 8; j++) {
                read[j] = k + 8 * j < count ? partials[(u64)(k + 8 * j) * width + column] : 0.0f;
            }
#pragma unroll
            for (unsigned j = 0; j < 8; j++) sum += read[j];
        }
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
