// Linear layers (src/ops/linear, projections, feed_forward): products of matrices in f32.
//
// - Three forms: y = x · Wᵀ (+ b), dx = dy · W, dW = dyᵀ · x. All matrices are row by row, without gaps. db: the sums of
//   columns of vector.cu.
// - The results of a tile go through shared memory to where they are written: by then the sums' registers are free, so
//   that one kernel with activations costs those without nothing.
// - A block computes a tile of the result, 128 × 128 (kernels `…_128`, 256 threads) or 64 × 64 (`…_64`, 128 threads), in
//   steps of DEPTH of the inner dimension, while asynchronous copies bring the next step. 128 takes two thirds of the
//   shared-memory reads of 64 for a product; 64 fills a device with a quarter of the result.
// - Every number of a result is one chain of fused multiply-adds over the inner dimension in its order: its bits depend
//   neither on the tile, nor on the number of rows, nor on where in the batch a row stands. Weight gradients are such
//   chains over chunks of tokens, which `sum_partials` (vector.cu) adds up in order.
//
// For all of them. Grid: x = ceil(rows of the result / tile), y = ceil(columns / tile), z = 1 unless it says otherwise.
// Block: (256, 1) for 128, (128, 1) for 64. Dynamic shared memory: 73,728 bytes for 128, 36,864 for 64.

#define DEPTH 32
// Of tiles whose rows run along the inner dimension.
#define PITCH (DEPTH + 4)

// A `function` that is none.
#define IDENTITY (-1)

// Warps of 32 rows and COLUMNS / WARPS_N columns.
template <int ROWS_, int COLUMNS_, int WARPS_N_>
struct Tiling {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, WARPS_N = WARPS_N_;
    static constexpr int WARPS_M = ROWS / 32, THREADS = 32 * WARPS_M * WARPS_N;
    static constexpr int TM = 8, TN = COLUMNS / WARPS_N / 8;
    static constexpr int ROOM_A = ROWS * PITCH, ROOM_B = COLUMNS * PITCH;
};
typedef Tiling<128, 128, 2> Large;
typedef Tiling<64, 64, 2> Small;

extern __shared__ float4 shared_quads[];

// A tile of a product in steps 0 .. steps: `copy(step, a, b)` starts the copies of a step's operands, `put(row, column,
// quad)` gets the results, row and column counted from the tile's. LEFT: the rows of A run along the inner dimension (else
// it has a row for each number of it); RIGHT: those of B do, in `quad_order`.
template <class T, bool LEFT, bool RIGHT, class Copy, class Put>
__device__ __forceinline__ void product(unsigned steps, Copy copy, Put put) {
    constexpr int ROOM = T::ROOM_A + T::ROOM_B, WARP_N = T::COLUMNS / T::WARPS_N;
    float* shared = (float*)shared_quads;
    unsigned warp_m = threadIdx.x / 32 / T::WARPS_N * 32, warp_n = threadIdx.x / 32 % T::WARPS_N * WARP_N;
    float sums[T::TM][T::TN] = {};
    // One round more than steps: a round starts the copies of its step and computes the step before it.
    for (unsigned step = 0; step <= steps; step++) {
        copies_wait<0>();
        // The step before is there for all, and all are done with the one before that, whose room this one takes.
        __syncthreads();
        float *a = shared + step % 2 * ROOM, *b = a + T::ROOM_A;
        if (step < steps) copy(step, a, b);
        copies_end();
        if (step == 0) continue;
        a = shared + (step + 1) % 2 * ROOM;
        b = a + T::ROOM_A;
        if (LEFT && RIGHT) {
            multiply_rows<T::TM, T::TN, DEPTH, PITCH, PITCH>(sums, a + warp_m * PITCH, b + warp_n * PITCH);
        } else if (LEFT) {
            multiply_columns<T::TM, T::TN, DEPTH, PITCH, T::COLUMNS, false>(sums, a + warp_m * PITCH, b + warp_n);
        } else {
            multiply_turned<T::TM, T::TN, DEPTH, T::ROWS, T::COLUMNS>(sums, a + warp_m, b + warp_n);
        }
    }
    // By way of shared memory: whole rows are written at once, and what `put` does is there once, not for each of a
    // lane's numbers (with an activation that is the greater part of a kernel's code).
    __syncthreads();
    unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < T::TM; i++) {
        float* row = shared + (warp_m + lane_row<T::TM>(lane, i)) * T::COLUMNS + warp_n;
#pragma unroll
        for (int j = 0; j < T::TN; j += 4) {
            put_shared(row + lane_column(lane, j), sums[i][j], sums[i][j + 1], sums[i][j + 2], sums[i][j + 3]);
        }
    }
    __syncthreads();
#pragma unroll 1
    for (unsigned i = threadIdx.x * 4; i < T::ROWS * T::COLUMNS; i += T::THREADS * 4) {
        put(i / T::COLUMNS, i % T::COLUMNS, *(const float4*)(shared + i));
    }
}

__device__ __forceinline__ unsigned rest(unsigned all, unsigned first) { return all > first ? all - first : 0; }

// The tile of this block of x · Wᵀ, x [rows, depth], W [columns, depth]; `put(row, column, quad)` with the numbers of row
// and column in the result, for those that are in it.
template <class T, class Put>
__device__ __forceinline__ void product_nt(
    const float* x, const float* weight, unsigned rows, unsigned depth, unsigned columns, Put put
) {
    unsigned row = blockIdx.x * T::ROWS, column = blockIdx.y * T::COLUMNS;
    bool vector = depth % 4 == 0 && aligned16(x) && aligned16(weight);
    x += (u64)row * depth;
    weight += (u64)column * depth;
    auto copy = [&](unsigned step, float* a, float* b) {
        unsigned k = step * DEPTH;
        copy_tile<T::THREADS, T::ROWS, DEPTH, PITCH, false>(a, x + k, depth, rest(rows, row), depth - k, vector);
        copy_tile<T::THREADS, T::COLUMNS, DEPTH, PITCH, true>(b, weight + k, depth, rest(columns, column), depth - k, vector);
    };
    product<T, true, true>((depth + DEPTH - 1) / DEPTH, copy, [&](unsigned i, unsigned j, float4 quad) {
        if (row + i < rows && column + j < columns) put(row + i, column + j, quad);
    });
}

// The same of Σ_l dy_l · W_l, dy [layers, rows, depth], W_l [depth, columns].
template <class T, class Put>
__device__ __forceinline__ void product_nn(
    const float* dy, const float* const (&weights)[3], unsigned layers, unsigned rows, unsigned depth, unsigned columns,
    Put put
) {
    unsigned row = blockIdx.x * T::ROWS, column = blockIdx.y * T::COLUMNS, steps = (depth + DEPTH - 1) / DEPTH;
    bool vector = depth % 4 == 0 && columns % 4 == 0 && aligned16(dy);
    for (unsigned layer = 0; layer < layers; layer++) vector = vector && aligned16(weights[layer]);
    auto copy = [&](unsigned step, float* a, float* b) {
        unsigned layer = step / steps, k = step % steps * DEPTH;
        const float* left = dy + ((u64)layer * rows + row) * depth + k;
        const float* right = (layer == 0 ? weights[0] : layer == 1 ? weights[1] : weights[2]) + (u64)k * columns + column;
        copy_tile<T::THREADS, T::ROWS, DEPTH, PITCH, false>(a, left, depth, rest(rows, row), depth - k, vector);
        copy_tile<T::THREADS, DEPTH, T::COLUMNS, T::COLUMNS, false>(
            b, right, columns, depth - k, rest(columns, column), vector
        );
    };
    product<T, true, false>(layers * steps, copy, [&](unsigned i, unsigned j, float4 quad) {
        if (row + i < rows && column + j < columns) put(row + i, column + j, quad);
    });
}

template <class T>
__device__ __forceinline__ void forward(
    float* y, float* z, const float* x, const float* weight, const float* bias, unsigned rows, unsigned width, unsigned out,
    int function
) {
    bool vector = out % 4 == 0 && aligned16(y) && aligned16(z);
    product_nt<T>(x, weight, rows, width, out, [&](unsigned row, unsigned column, float4 quad) {
        if (bias) quad = add4(quad, load4(bias, column, out, out % 4 == 0 && aligned16(bias)));
        u64 at = ((u64)blockIdx.z * rows + row) * out;
        if (z) store4(z + at, column, out, vector, quad);
        if (function != IDENTITY) {
            quad = make_float4(
                activate(function, quad.x).value, activate(function, quad.y).value, activate(function, quad.z).value,
                activate(function, quad.w).value
            );
        }
        store4(y + at, column, out, vector, quad);
    });
}

template <class T>
__device__ __forceinline__ void input_gradient(
    float* dx, int accumulate, float* h, const float* dy, const float* weight0, const float* weight1, const float* weight2,
    const float* z, unsigned layers, unsigned rows, unsigned out, unsigned width, int function
) {
    const float* const weights[3] = {weight0, weight1, weight2};
    bool vector = width % 4 == 0 && aligned16(dx) && aligned16(h) && aligned16(z);
    product_nn<T>(dy, weights, layers, rows, out, width, [&](unsigned row, unsigned column, float4 quad) {
        u64 at = (u64)row * width;
        if (z) {
            float4 kept = load4(z + at, column, width, vector);
            Value a = activate(function, kept.x), b = activate(function, kept.y);
            Value c = activate(function, kept.z), d = activate(function, kept.w);
            if (h) store4(h + at, column, width, vector, make_float4(a.value, b.value, c.value, d.value));
            quad = mul4(quad, make_float4(a.slope, b.slope, c.slope, d.slope));
        }
        put4(dx + at, column, width, vector, quad, accumulate);
    });
}

template <class T>
__device__ __forceinline__ void weight_gradient(
    float* dw, int accumulate, const float* dy, const float* x, unsigned rows, unsigned out, unsigned width, unsigned chunk
) {
    unsigned row = blockIdx.x * T::ROWS, column = blockIdx.y * T::COLUMNS, first = blockIdx.z * chunk;
    unsigned count = min(rest(rows, first), chunk);
    bool vector_left = out % 4 == 0 && aligned16(dy), vector_right = width % 4 == 0 && aligned16(x);
    bool vector = width % 4 == 0 && aligned16(dw);
    dy += (u64)first * out + row;
    x += (u64)first * width + column;
    dw += (u64)blockIdx.z * out * width;
    auto copy = [&](unsigned step, float* a, float* b) {
        u64 k = step * DEPTH;
        unsigned left = count - step * DEPTH;
        copy_tile<T::THREADS, DEPTH, T::ROWS, T::ROWS, false>(a, dy + k * out, out, left, out - row, vector_left);
        copy_tile<T::THREADS, DEPTH, T::COLUMNS, T::COLUMNS, false>(
            b, x + k * width, width, left, width - column, vector_right
        );
    };
    product<T, false, false>((count + DEPTH - 1) / DEPTH, copy, [&](unsigned i, unsigned j, float4 quad) {
        if (row + i >= out || column + j >= width) return;
        put4(dw + (u64)(row + i) * width, column + j, width, vector, quad, accumulate);
    });
}

// Kernels of both tilings. 128 registers let two blocks of 256 threads share a multiprocessor.
#define KERNELS(name, parameters, body)                                                    \
    extern "C" __global__ void __launch_bounds__(Large::THREADS, 2) name##_128 parameters { \
        typedef Large T;                                                                   \
        body;                                                                              \
    }                                                                                      \
    extern "C" __global__ void __launch_bounds__(Small::THREADS) name##_64 parameters {    \
        typedef Small T;                                                                   \
        body;                                                                              \
    }

// y_l = f(z_l), z_l = x · W_lᵀ + b_l, for one to three layers of one input. x [rows, width], W_l [out, width], b_l [out] or
// null, y, z [layers, rows, out]; weights of layers that are not there may be null. z is kept unless it is null. `function`:
// an activation of common.cuh, or −1: f(z) = z. Grid: z = layers.
KERNELS(
    linear_forward,
    (float* __restrict__ y, float* __restrict__ z, const float* __restrict__ x, const float* __restrict__ weight0,
     const float* __restrict__ bias0, const float* __restrict__ weight1, const float* __restrict__ bias1,
     const float* __restrict__ weight2, const float* __restrict__ bias2, unsigned rows, unsigned width, unsigned out,
     int function),
    (forward<T>(
        y, z, x, blockIdx.z == 0 ? weight0 : blockIdx.z == 1 ? weight1 : weight2,
        blockIdx.z == 0 ? bias0 : blockIdx.z == 1 ? bias1 : bias2, rows, width, out, function
    ))
)

// dx (+)= Σ_l dy_l · W_l, one chain of sums over the layers; if z is not null dx (+)= (Σ_l dy_l · W_l) ∘ f′(z), and h = f(z)
// unless h is null: so the feed-forward layer goes from dy to dz, and has the input of its outer weight again. dy [layers,
// rows, out], W_l [out, width], z, h, dx [rows, width]. `function` is read with z only, and is an activation.
KERNELS(
    linear_input_gradient,
    (float* __restrict__ dx, int accumulate, float* __restrict__ h, const float* __restrict__ dy,
     const float* __restrict__ weight0, const float* __restrict__ weight1, const float* __restrict__ weight2,
     const float* __restrict__ z, unsigned layers, unsigned rows, unsigned out, unsigned width, int function),
    (input_gradient<T>(
        dx, accumulate, h, dy, weight0, weight1, weight2, z, layers, rows, out, width, function
    ))
)

// dW (+)= dyᵀ · x over rows z · chunk .. (z + 1) · chunk. dy [rows, out], x [rows, width]. With one chunk `dw` is dW itself,
// else partial sums [chunks, out, width] for `sum_partials` (vector.cu), with accumulate 0. `chunk` must be fixed by the
// number of rows alone, since the sum's order depends on it. Grid: x over out, y over width, z = ceil(rows / chunk).
KERNELS(
    linear_weight_gradient,
    (float* __restrict__ dw, int accumulate, const float* __restrict__ dy, const float* __restrict__ x, unsigned rows,
     unsigned out, unsigned width, unsigned chunk),
    (weight_gradient<T>(dw, accumulate, dy, x, rows, out, width, chunk))
)
