// Bias and activation (src/ops/activation has the functions and their numbers are those of common.cuh): y = f(x + b).
//
// A thread has PACK columns and reads their biases once; a warp has 32 · PACK columns of one row after the other.

// Calls `work<function>(…)`: which function it is is asked once, not for every number.
#define WITH_FUNCTION(FUNCTION, WORK, ...)                                                                              \
    switch (FUNCTION) {                                                                                                 \
        case GELU_ERF: return WORK<GELU_ERF>(__VA_ARGS__);                                                              \
        case GELU_TANH: return WORK<GELU_TANH>(__VA_ARGS__);                                                            \
        case RELU: return WORK<RELU>(__VA_ARGS__);                                                                      \
        case TANH: return WORK<TANH>(__VA_ARGS__);                                                                      \
        case SIGMOID: return WORK<SIGMOID>(__VA_ARGS__);                                                                \
        default: return WORK<SILU>(__VA_ARGS__);                                                                        \
    }

// The bias of a thread's columns; 0 where there is none.
__device__ __forceinline__ void bias_pack(const float* bias, unsigned column, unsigned width, float* shift) {
    bool vector = aligned16(bias) && width % 4 == 0;
#pragma unroll
    for (int q = 0; q < PACK / 4; q++) {
        float4 quad = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (bias && column + 4 * q < width) quad = load4(bias, column + 4 * q, width, vector);
        shift[4 * q] = quad.x;
        shift[4 * q + 1] = quad.y;
        shift[4 * q + 2] = quad.z;
        shift[4 * q + 3] = quad.w;
    }
}

template <int FUNCTION>
__device__ __forceinline__ void forward(
    number* __restrict__ y, const number* __restrict__ x, const float* __restrict__ bias, unsigned rows, unsigned width,
    unsigned chunk
) {
    bool vector = width % PACK == 0 && aligned16(y) && aligned16(x);
    unsigned column = (blockIdx.y * 32 + threadIdx.x) * PACK;
    unsigned first = blockIdx.x * chunk, last = rows - first < chunk ? rows : first + chunk;
    float shift[PACK];
    bias_pack(bias, column, width, shift);
    for (unsigned row = first + threadIdx.y; row < last; row += blockDim.y) {
        float z[PACK];
        unpack(load_pack(x + (u64)row * width, column, width, vector), z);
#pragma unroll
        for (int i = 0; i < PACK; i++) z[i] = activate(FUNCTION, z[i] + shift[i]).value;
        store_pack(y + (u64)row * width, column, width, vector, packed(z));
    }
}

// x, y [rows, width], bias [width] or null. Grid: (ceil(rows / chunk), ceil(width / (32 · PACK))). Block: (32, n), n at most
// 8.
extern "C" __global__ void __launch_bounds__(256) activation_forward(
    number* __restrict__ y, const number* __restrict__ x, const float* __restrict__ bias, unsigned rows, unsigned width,
    int function, unsigned chunk
) {
    WITH_FUNCTION(function, forward, y, x, bias, rows, width, chunk)
}

template <int FUNCTION>
__device__ __forceinline__ void backward(
    float* sums, number* __restrict__ dx, int accumulate, const number* __restrict__ dy, const number* __restrict__ x,
    const float* __restrict__ bias, unsigned rows, unsigned width, unsigned chunk
) {
    bool vector = width % PACK == 0 && aligned16(dx) && aligned16(dy) && aligned16(x);
    unsigned column = (blockIdx.y * 32 + threadIdx.x) * PACK;
    unsigned first = blockIdx.x * chunk, last = rows - first < chunk ? rows : first + chunk;
    float shift[PACK];
    bias_pack(bias, column, width, shift);
    for (unsigned row = first + threadIdx.y; row < last; row += blockDim.y) {
        u64 at = (u64)row * width;
        uint4 upstream = load_pack(dy + at, column, width, vector);
        float z[PACK], d[PACK];
        unpack(load_pack(x + at, column, width, vector), z);
        unpack(upstream, d);
#pragma unroll
        for (int i = 0; i < PACK; i++) {
            d[i] *= activate(FUNCTION, z[i] + shift[i]).slope;
            sums[i] += d[i];
        }
        if (dx) put_pack(dx + at, column, width, vector, d, accumulate);
    }
}

template <int FUNCTION>
__device__ __forceinline__ void backward_and_sums(
    number* dx, int accumulate, float* partials, const number* dy, const number* x, const float* bias, unsigned rows,
    unsigned width, unsigned chunk
) {
    float sums[PACK] = {};
    backward<FUNCTION>(sums, dx, accumulate, dy, x, bias, rows, width, chunk);
    if (!partials) return;
    put_columns(partials + (u64)blockIdx.x * width, (blockIdx.y * 32 + threadIdx.x) * PACK, width, sums);
}

// dx (+)= dy · f′(x + b), unless it is null; and, unless partials [ceil(rows / chunk), width] is null, the partial sums of
// the bias's gradient, Σ_rows dy · f′(x + b): chunk k has those of rows k · chunk .. (k + 1) · chunk, to be added up by
// `sum_partials` (vector.cu). Grid and block as above, both and `chunk` fixed: the order of the sums depends on them.
extern "C" __global__ void __launch_bounds__(256) activation_backward(
    number* __restrict__ dx, int accumulate, float* __restrict__ partials, const number* __restrict__ dy,
    const number* __restrict__ x, const float* __restrict__ bias, unsigned rows, unsigned width, int function,
    unsigned chunk
) {
    WITH_FUNCTION(function, backward_and_sums, dx, accumulate, partials, dy, x, bias, rows, width, chunk)
}
