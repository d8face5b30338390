// Linear layers (src/ops/linear, projections, feed_forward): products of matrices, on the tiles of tiles.cuh. The forms and the kernels of linear.cu, of
// which linear_mma.cu has `IDENTITY` and `shared_quads`.
//
// - Three forms: y = x · Wᵀ (+ b), dx = dy · W, dW = dyᵀ · x. All matrices are f32, row by row, without gaps. db: the sums
//   of columns of vector.cu.
// - A block computes a tile of the result, 128 × 128 (kernels `…_128`) or 64 × 64 (`…_64`), in steps of T::DEPTH of the
//   inner dimension. How, is up to the file: T::product<LEFT, RIGHT>(steps, left, right, put). `left(step)` and
//   `right(step)` are the `Piece`s of the operands; LEFT: the rows of A run along the inner dimension (else it has a row for
//   each number of it); RIGHT: those of B do. `put(row, column, quad)` gets the results, counted from the tile's.
// - The results of a tile go through shared memory to where they are written: by then the sums' registers are free, so
//   that one kernel with activations costs those without nothing.
// - Every number of a result is one chain of sums over the inner dimension in its order: its bits depend neither on the
//   tile, nor on the number of rows, nor on where in the batch a row stands. Weight gradients are such chains over chunks
//   of tokens, which `sum_partials` (vector.cu) adds up in order.
//
// For all of them. Grid: x = ceil(rows of the result / tile), y = ceil(columns / tile), z = 1 unless it says otherwise.
// Block: (256, 1) for 128, (128, 1) for 64. Dynamic shared memory: the file says how much.

// A `function` that is none.
#define IDENTITY (-1)

extern __shared__ float4 shared_quads[];

// What a step needs of an operand: the first number, how far rows are apart, how many rows and columns are there (the
// others count as 0, and are not read). `vector`: source is a multiple of 16 bytes, stride one of 4 numbers.
struct Piece {
    const float* source;
    u64 stride;
    unsigned rows, columns;
    bool vector;
};

// Hands the results of a tile to `put`, from shared memory, where its rows are PITCH apart: whole rows are written at once,
// and what `put` does is there once, not for each of a lane's numbers (with an activation that is the greater part of a
// kernel's code).
template <class T, int PITCH, class Put>
__device__ __forceinline__ void put_tile(const float* shared, Put put) {
    __syncthreads();
    static_assert(T::THREADS * 4 % T::COLUMNS == 0, "a thread stays in its column");
    unsigned column = threadIdx.x * 4 % T::COLUMNS;
#pragma unroll 1
    for (unsigned row = threadIdx.x * 4 / T::COLUMNS; row < T::ROWS; row += T::THREADS * 4 / T::COLUMNS) {
        put(row, column, *(const float4*)(shared + row * PITCH + column));
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
    bool vector_left = depth % 4 == 0 && aligned16(x), vector_right = depth % 4 == 0 && aligned16(weight);
    x += (u64)row * depth;
    weight += (u64)column * depth;
    auto left = [&](unsigned step) {
        unsigned k = step * T::DEPTH;
        return Piece{x + k, depth, rest(rows, row), depth - k, vector_left};
    };
    auto right = [&](unsigned step) {
        unsigned k = step * T::DEPTH;
        return Piece{weight + k, depth, rest(columns, column), depth - k, vector_right};
    };
    auto inside = [&](unsigned i, unsigned j, float4 quad) {
        if (row + i < rows && column + j < columns) put(row + i, column + j, quad);
    };
    T::template product<true, true>((depth + T::DEPTH - 1) / T::DEPTH, left, right, inside);
}

// The same of Σ_l dy_l · W_l, dy [layers, rows, depth], W_l [depth, columns].
template <class T, class Put>
__device__ __forceinline__ void product_nn(
    const float* dy, const float* const (&weights)[3], unsigned layers, unsigned rows, unsigned depth, unsigned columns,
    Put put
) {
    unsigned row = blockIdx.x * T::ROWS, column = blockIdx.y * T::COLUMNS, steps = (depth + T::DEPTH - 1) / T::DEPTH;
    bool vector_left = depth % 4 == 0 && aligned16(dy), vector_right = columns % 4 == 0;
#pragma unroll
    for (int layer = 0; layer < 3; layer++) vector_right = vector_right && aligned16(weights[layer]);
    // A division in each step would be a fifth of its instructions.
    auto layer_of = [&](unsigned step) { return step < steps ? 0 : step < 2 * steps ? 1 : 2; };
    auto left = [&](unsigned step) {
        unsigned layer = layer_of(step), k = (step - layer * steps) * T::DEPTH;
        return Piece{dy + ((u64)layer * rows + row) * depth + k, depth, rest(rows, row), depth - k, vector_left};
    };
    auto right = [&](unsigned step) {
        unsigned layer = layer_of(step), k = (step - layer * steps) * T::DEPTH;
        const float* weight = layer == 0 ? weights[0] : layer == 1 ? weights[1] : weights[2];
        return Piece{weight + (u64)k * columns + column, columns, depth - k, rest(columns, column), vector_right};
    };
    auto inside = [&](unsigned i, unsigned j, float4 quad) {
        if (row + i < rows && column + j < columns) put(row + i, column + j, quad);
    };
    T::template product<true, false>(layers * steps, left, right, inside);
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
    auto left = [&](unsigned step) {
        unsigned k = step * T::DEPTH;
        return Piece{dy + (u64)k * out, out, count - k, out - row, vector_left};
    };
    auto right = [&](unsigned step) {
        unsigned k = step * T::DEPTH;
        return Piece{x + (u64)k * width, width, count - k, width - column, vector_right};
    };
    auto inside = [&](unsigned i, unsigned j, float4 quad) {
        if (row + i >= out || column + j >= width) return;
        put4(dw + (u64)(row + i) * width, column + j, width, vector, quad, accumulate);
    };
    T::template product<false, false>((count + T::DEPTH - 1) / T::DEPTH, left, right, inside);
}

// A kernel in both tilings of a file, `Large` and `Small`. 128 registers let two blocks of 256 threads share a multiprocessor.
#define KERNELS(name, parameters, body)                                                    \
    extern "C" __global__ void __launch_bounds__(Large::THREADS, 2) name##_128 parameters { \
        typedef Large T;                                                                   \
        body;                                                                              \
    }                                                                                      \
    extern "C" __global__ void __launch_bounds__(Small::THREADS) name##_64 parameters {    \
        typedef Small T;                                                                   \
        body;                                                                              \
    }

// linear_forward: y_l = f(z_l), z_l = x · W_lᵀ + b_l, for one to three layers of one input. x [rows, width], W_l [out,
// width], b_l [out] or null, y, z [layers, rows, out]; weights of layers that are not there may be null. z is kept unless it is null. `function`:
// an activation of common.cuh, or −1: f(z) = z. Grid: z = layers.
//
// linear_input_gradient: dx (+)= Σ_l dy_l · W_l, one chain of sums over the layers; if z is not null dx (+)= (Σ_l dy_l · W_l) ∘ f′(z), and h = f(z)
// unless h is null: so the feed-forward layer goes from dy to dz, and has the input of its outer weight again. dy [layers,
// rows, out], W_l [out, width], z, h, dx [rows, width]. `function` is read with z only, and is an activation.
//
// linear_weight_gradient: dW (+)= dyᵀ · x over rows z · chunk .. (z + 1) · chunk. dy [rows, out], x [rows, width]. With one chunk `dw` is dW itself,
// else partial sums [chunks, out, width] for `sum_partials` (vector.cu), with accumulate 0. `chunk` must be fixed by the
// number of rows alone, since the sum's order depends on it. Grid: x over out, y over width, z = ceil(rows / chunk).
#define LINEAR_KERNELS                                                                                                   \
    KERNELS(                                                                                                             \
        linear_forward,                                                                                                  \
        (float* __restrict__ y, float* __restrict__ z, const float* __restrict__ x, const float* __restrict__ weight0,   \
         const float* __restrict__ bias0, const float* __restrict__ weight1, const float* __restrict__ bias1,            \
         const float* __restrict__ weight2, const float* __restrict__ bias2, unsigned rows, unsigned width,              \
         unsigned out, int function),                                                                                    \
        (forward<T>(                                                                                                     \
            y, z, x, blockIdx.z == 0 ? weight0 : blockIdx.z == 1 ? weight1 : weight2,                                    \
            blockIdx.z == 0 ? bias0 : blockIdx.z == 1 ? bias1 : bias2, rows, width, out, function                        \
        ))                                                                                                               \
    )                                                                                                                    \
    KERNELS(                                                                                                             \
        linear_input_gradient,                                                                                           \
        (float* __restrict__ dx, int accumulate, float* __restrict__ h, const float* __restrict__ dy,                    \
         const float* __restrict__ weight0, const float* __restrict__ weight1, const float* __restrict__ weight2,        \
         const float* __restrict__ z, unsigned layers, unsigned rows, unsigned out, unsigned width, int function),       \
        (input_gradient<T>(                                                                                              \
            dx, accumulate, h, dy, weight0, weight1, weight2, z, layers, rows, out, width, function                      \
        ))                                                                                                               \
    )                                                                                                                    \
    KERNELS(                                                                                                             \
        linear_weight_gradient,                                                                                          \
        (float* __restrict__ dw, int accumulate, const float* __restrict__ dy, const float* __restrict__ x,              \
         unsigned rows, unsigned out, unsigned width, unsigned chunk),                                                   \
        (weight_gradient<T>(dw, accumulate, dy, x, rows, out, width, chunk))                                             \
    )
