// Linear layers on tensor cores, by the tiles of linear_mma.cuh: for numbers of 16 bits, and for f32 by products of tf32.
//
// - Three forms: y = x · Wᵀ (+ b), dx = dy · W, dW = dyᵀ · x with db = Σ dy. All matrices lie row by row, without gaps.
// - x, W, y, z, h and the gradients of these are numbers; biases and the gradients of parameters are f32.
// - Gradients of weights are sums of chunks of tokens. db is a product like dW, dyᵀ · 1, by the blocks of its first column.
// - A kernel's suffix is the tile of its blocks, rows × columns. Block: (256, 1) for 128x256, (128, 1) for the others.
//   Dynamic shared memory: 131,072, 65,536, 49,152 and 32,768 bytes for 128x256, 128x128, 128x64 and 64x64.

// For numbers of 16 bits: GELU and its slope to 3e-5 of themselves, an eighth of what f16 rounds off; `erfcf` and `expf` would take a third as long as
// a product with 384 numbers of depth. Φ(−a) = e^(−a²/2) · t · (c0 + … + c4 t⁴), t = 1 / (1 + 3a/8), with the c of the least
// relative error for a from 0 to 13.5, beyond which f32 ends.
__device__ __forceinline__ Value gelu_rounded(float z) {
    float t, density, a = fabsf(z);
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(t) : "f"(fmaf(0.375f, a, 1.0f)));
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(density) : "f"(z * z * -0.72134752044448170368f));
    float series = fmaf(-0.0909853720f, t, 0.2010436287f);
    series = fmaf(series, t, 0.0829737897f);
    series = fmaf(series, t, 0.1579201551f);
    series = fmaf(series, t, 0.1490411221f);
    float tail = series * t * density;
    float cumulative = z > 0.0f ? 1.0f - tail : tail;
    // Infinite z: 0 · ∞ is no number.
    float rest = a >= 20.0f ? 0.0f : z * (0.39894228040143267794f * density);
    return {cumulative == 0.0f ? 0.0f : z * cumulative, cumulative + rest};
}

__device__ __forceinline__ Value activate_number(int function, float z) {
#ifdef NUMBER_F32
    return activate(function, z);
#else
    return function == GELU_ERF ? gelu_rounded(z) : activate(function, z);
#endif
}

// A group of numbers to `to`, of which the first `count` are in the row. `vector`: all are, and `to` is a multiple of 16 bytes.
__device__ __forceinline__ void store_group(number* to, unsigned count, bool vector, const float (&v)[GROUP]) {
    if (vector) {
        u64 address = __cvta_generic_to_global(to);
#ifdef NUMBER_F32
        asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(address), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3])
                     : "memory");
#else
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(rounded2(v[0], v[1])),
                     "r"(rounded2(v[2], v[3])), "r"(rounded2(v[4], v[5])), "r"(rounded2(v[6], v[7])) : "memory");
#endif
    } else {
#pragma unroll
        for (unsigned i = 0; i < GROUP; i++) {
            if (i < count) store1(to + i, v[i]);
        }
    }
}

__device__ __forceinline__ void load_group(float (&v)[GROUP], const number* from, unsigned count, bool vector) {
    if (vector) {
#ifdef NUMBER_F32
        float4 all = *(const float4*)from;
        v[0] = all.x, v[1] = all.y, v[2] = all.z, v[3] = all.w;
#else
        uint4 words = *(const uint4*)from;
        float2 a = widened2(words.x), b = widened2(words.y), c = widened2(words.z), d = widened2(words.w);
        v[0] = a.x, v[1] = a.y, v[2] = b.x, v[3] = b.y, v[4] = c.x, v[5] = c.y, v[6] = d.x, v[7] = d.y;
#endif
    } else {
#pragma unroll
        for (unsigned i = 0; i < GROUP; i++) v[i] = i < count ? widened(from[i]) : 0.0f;
    }
}

// As a number stores it.
__device__ __forceinline__ void round_group(float (&v)[GROUP]) {
#ifndef NUMBER_F32
#pragma unroll
    for (int i = 0; i < GROUP; i += 2) {
        float2 pair = widened2(rounded2(v[i], v[i + 1]));
        v[i] = pair.x, v[i + 1] = pair.y;
    }
#endif
}

template <class T>
__device__ __forceinline__ void forward_tile(
    number* y, number* z, const number* x, const number* weight, const float* bias, unsigned rows, unsigned width,
    unsigned out, int function
) {
    unsigned row = blockIdx.x * T::ROWS, column = blockIdx.y * T::COLUMNS;
    typename T::Sums sums;
    typename T::template Left<true> left;
    typename T::template Right<true> right;
    left.start(x, width, row, rows);
    right.start(weight, width, column, out);
    T::template product<false, false>(sums, left, right, 1, width, [] {});
    T::keep_results(sums);
    column += T::template results_column<GROUP>();
    if (column >= out) return;
    unsigned count = min(out - column, GROUP);
    bool vector = out % GROUP == 0 && aligned16(y) && aligned16(z);
    float added[GROUP];
#pragma unroll
    for (unsigned i = 0; i < GROUP; i++) added[i] = bias && i < count ? bias[column + i] : 0.0f;
    u64 first = ((u64)blockIdx.z * rows + row) * out + column;
    y += first;
    if (function == IDENTITY && !z) {
        T::template put_results<GROUP, 2>(rows - row, [&](unsigned i, float (&v)[GROUP]) {
#pragma unroll
            for (int n = 0; n < GROUP; n++) v[n] += added[n];
            store_group(y + (u64)i * out, count, vector, v);
        });
        return;
    }
    if (z) z += first;
    T::template put_results<GROUP, 1>(rows - row, [&](unsigned i, float (&v)[GROUP]) {
#pragma unroll
        for (int n = 0; n < GROUP; n++) v[n] += added[n];
        // Of z as it is kept, or h would be another one when it is made again from there.
        round_group(v);
        if (z) store_group(z + (u64)i * out, count, vector, v);
        if (function != IDENTITY) {
#pragma unroll
            for (int n = 0; n < GROUP; n++) v[n] = activate_number(function, v[n]).value;
        }
        store_group(y + (u64)i * out, count, vector, v);
    });
}

template <class T>
__device__ __forceinline__ void input_gradient_tile(
    number* dx, int accumulate, number* h, const number* dy, const number* weight0, const number* weight1,
    const number* weight2, const number* z, unsigned layers, unsigned rows, unsigned out, unsigned width, int function
) {
    unsigned row = blockIdx.x * T::ROWS, column = blockIdx.y * T::COLUMNS;
    typename T::Sums sums;
    typename T::template Left<true> left;
    typename T::template Right<false> right;
    left.start(dy, out, row, rows);
    right.start(weight0, width, column, width);
    bool all16 = aligned16(weight0) && aligned16(weight1) && aligned16(weight2);
    bool all4 = (((u64)weight0 | (u64)weight1 | (u64)weight2) & 3) == 0;
    right.vector = right.vector && all16, right.whole = right.whole && all16, right.words = right.words && all4;
    unsigned layer = 0;
    T::template product<false, true>(sums, left, right, layers, out, [&] {
        // Hidden, or all of this is worked out in every step.
        layer = hidden(layer + 1);
        if (layer >= layers) return;
        left.move(dy + (u64)layer * rows * out, out, row);
        right.move(layer == 1 ? weight1 : weight2, width, column);
    });
    T::keep_results(sums);
    column += T::template results_column<GROUP>();
    if (column >= width) return;
    unsigned count = min(width - column, GROUP);
    bool vector = width % GROUP == 0 && aligned16(dx) && aligned16(h) && aligned16(z);
    u64 first = (u64)row * width + column;
    dx += first;
    if (!z) {
        T::template put_results<GROUP, 2>(rows - row, [&](unsigned i, float (&v)[GROUP]) {
            number* to = dx + (u64)i * width;
            if (accumulate) {
                float before[GROUP];
                load_group(before, to, count, vector);
#pragma unroll
                for (int n = 0; n < GROUP; n++) v[n] += before[n];
            }
            store_group(to, count, vector, v);
        });
        return;
    }
    z += first;
    if (h) h += first;
    T::template put_results<GROUP, 1>(rows - row, [&](unsigned i, float (&v)[GROUP]) {
        float kept[GROUP], value[GROUP], before[GROUP] = {};
        load_group(kept, z + (u64)i * width, count, vector);
        number* to = dx + (u64)i * width;
        if (accumulate) load_group(before, to, count, vector);
#pragma unroll
        for (int n = 0; n < GROUP; n++) {
            Value both = activate_number(function, kept[n]);
            value[n] = both.value;
            v[n] = fmaf(v[n], both.slope, before[n]);
        }
        if (h) store_group(h + (u64)i * width, count, vector, value);
        store_group(to, count, vector, v);
    });
}

template <class T>
__device__ __forceinline__ void weight_gradient_tile(
    float* dw, bool accumulate, float* db, bool accumulate_db, const number* dy, const number* x, unsigned rows,
    unsigned out, unsigned width, unsigned first, unsigned chunk
) {
    unsigned row = blockIdx.x * T::ROWS, column = blockIdx.y * T::COLUMNS;
    // All chunks of layers whose weights are frozen end here, but for those of the first column if a bias is not.
    if (column > 0 && !dw) return;
    unsigned count = min(rows - first, chunk);
    typename T::Sums sums;
    typename T::template Left<false> left;
    typename T::template Right<false> right;
    left.start(dy, out, row, out);
    right.start(x, width, column, width);
    left.from += (u64)first * out * sizeof(number);
    right.from += (u64)first * width * sizeof(number);
    if (db && column == 0) {
        T::template product<true, false>(sums, left, right, 1, count, [] {});
        unsigned lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < T::SHARE; i++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                unsigned j = row + T::warp_m() + 16 * (T::warp_column() + i * T::WARPS_N) + 8 * half + lane / 4;
                // All lanes of a row have the same sum.
                if (lane % 4 == 0 && j < out) db[j] = accumulate_db ? db[j] + sums.ones[i][2 * half] : sums.ones[i][2 * half];
            }
        }
    } else {
        T::template product<false, false>(sums, left, right, 1, count, [] {});
    }
    if (!dw) return;
    T::keep_results(sums);
    column += T::template results_column<4>();
    if (column >= width) return;
    bool vector = width % 4 == 0 && aligned16(dw);
    T::template put_results<4, 2>(out - row, [&](unsigned i, float (&v)[4]) {
        put4(dw + (u64)(row + i) * width, column, width, vector, make_float4(v[0], v[1], v[2], v[3]), accumulate);
    });
}

#ifndef TILINGS
// Rows, columns, those of a warp, groups of a step, stages, blocks that share a multiprocessor.
#define TILINGS(KERNELS_OF)                                     \
    KERNELS_OF(128x256, (Tiling<128, 256, 64, 64, 4, 4, 1>))   \
    KERNELS_OF(128x128, (Tiling<128, 128, 64, 64, 4, 4, 2>))   \
    KERNELS_OF(128x64, (Tiling<128, 64, 64, 32, 4, 4, 3>))     \
    KERNELS_OF(64x64, (Tiling<64, 64, 32, 32, 4, 4, 4>))
#endif

template <class T>
struct Inside;
template <class T>
struct Inside<void(T)> {
    typedef T Type;
};

// linear_forward: y_l = f(z_l), z_l = x · W_lᵀ + b_l, for one to three layers of one input. x [rows, width], W_l [out,
// width], b_l [out] or null, y, z [layers, rows, out]; weights of layers that are not there may be null. z is kept unless it
// is null; f is that of z as a number keeps it. `function`: an activation of common.cuh, or −1: f(z) = z. Grid: x over
// rows, y over out, z = layers.
//
// linear_input_gradient: dx (+)= Σ_l dy_l · W_l, one chain of sums over the layers; if z is not null dx (+)= (Σ_l dy_l · W_l)
// ∘ f′(z), and h = f(z) unless h is null. dy [layers, rows, out], W_l [out, width], z, h, dx [rows, width]. `function` is
// read with z only, and is an activation. Grid: x over rows, y over width.
//
// linear_weight_gradient: dW_l (+)= dy_lᵀ · x and db_l (+)= Σ dy_l for each chunk of rows. dy [layers, rows, out], x [rows,
// width]; dW_l [chunks, out, width] or null, db_l [chunks, out] or null. Bit 2 l of `accumulate`: dW_l is added to, bit 2 l
// + 1: db_l. With one chunk these are the gradients themselves, else `linear_gradient_sums` adds the chunks. `chunk` must be
// fixed by shapes alone, since the sum's order depends on it. Grid: x over out, y over width, z = layers · chunks.
#define TILE_KERNELS(tile, tiling)                                                                                        \
    extern "C" __global__ void __launch_bounds__(Inside<void tiling>::Type::THREADS, Inside<void tiling>::Type::BLOCKS) \
        linear_forward_##tile(                                                                                          \
            number* __restrict__ y, number* __restrict__ z, const number* __restrict__ x,                               \
            const number* __restrict__ weight0, const float* __restrict__ bias0, const number* __restrict__ weight1,    \
            const float* __restrict__ bias1, const number* __restrict__ weight2, const float* __restrict__ bias2,       \
            unsigned rows, unsigned width, unsigned out, int function                                                   \
        ) {                                                                                                             \
        forward_tile<Inside<void tiling>::Type>(                                                                          \
            y, z, x, blockIdx.z == 0 ? weight0 : blockIdx.z == 1 ? weight1 : weight2,                                   \
            blockIdx.z == 0 ? bias0 : blockIdx.z == 1 ? bias1 : bias2, rows, width, out, function                       \
        );                                                                                                              \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(Inside<void tiling>::Type::THREADS, Inside<void tiling>::Type::BLOCKS) \
        linear_input_gradient_##tile(                                                                                   \
            number* __restrict__ dx, int accumulate, number* __restrict__ h, const number* __restrict__ dy,             \
            const number* __restrict__ weight0, const number* __restrict__ weight1, const number* __restrict__ weight2, \
            const number* __restrict__ z, unsigned layers, unsigned rows, unsigned out, unsigned width, int function    \
        ) {                                                                                                             \
        input_gradient_tile<Inside<void tiling>::Type>(                                                                   \
            dx, accumulate, h, dy, weight0, weight1, weight2, z, layers, rows, out, width, function                     \
        );                                                                                                              \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(Inside<void tiling>::Type::THREADS, Inside<void tiling>::Type::BLOCKS) \
        linear_weight_gradient_##tile(                                                                                  \
            float* __restrict__ dw0, float* __restrict__ db0, float* __restrict__ dw1, float* __restrict__ db1,         \
            float* __restrict__ dw2, float* __restrict__ db2, int accumulate, const number* __restrict__ dy,            \
            const number* __restrict__ x, unsigned rows, unsigned out, unsigned width, unsigned chunk, unsigned chunks  \
        ) {                                                                                                             \
        unsigned layer = blockIdx.z / chunks, part = blockIdx.z % chunks;                                               \
        float* dw = layer == 0 ? dw0 : layer == 1 ? dw1 : dw2;                                                          \
        float* db = layer == 0 ? db0 : layer == 1 ? db1 : db2;                                                          \
        weight_gradient_tile<Inside<void tiling>::Type>(                                                                  \
            dw ? dw + (u64)part * out * width : dw, accumulate >> 2 * layer & 1, db ? db + (u64)part * out : db,        \
            accumulate >> (2 * layer + 1) & 1, dy + (u64)layer * rows * out, x, rows, out, width, part * chunk, chunk   \
        );                                                                                                              \
    }
TILINGS(TILE_KERNELS)

// target (+)= the sum of `chunks` parts that lie `apart`, in their order: four numbers of it, of `len`.
__device__ __forceinline__ void sum_chunks(
    float* target, bool accumulate, const float* parts, u64 apart, unsigned chunks, unsigned at, unsigned len
) {
    bool vector = len % 4 == 0 && apart % 4 == 0 && aligned16(target) && aligned16(parts);
    float4 sum = load4(parts, at, len, vector);
#pragma unroll 4
    for (unsigned chunk = 1; chunk < chunks; chunk++) sum = add4(sum, load4(parts + chunk * apart, at, len, vector));
    put4(target, at, len, vector, sum, accumulate);
}

// dW_l (+)= Σ its chunks, db_l (+)= Σ its chunks. parts [layers, chunks, numbers], numbers = out · width; parts_db [layers,
// chunks, out]; dW_l, db_l, `accumulate` as for linear_weight_gradient. Grid: x = ceil(numbers / 1024) + ceil(out / 1024), y
// = layers. Block: (256, 1).
extern "C" __global__ void linear_gradient_sums(
    float* __restrict__ dw0, float* __restrict__ db0, float* __restrict__ dw1, float* __restrict__ db1,
    float* __restrict__ dw2, float* __restrict__ db2, int accumulate, const float* __restrict__ parts,
    const float* __restrict__ parts_db, unsigned numbers, unsigned out, unsigned chunks
) {
    unsigned layer = blockIdx.y, blocks = (numbers + 1023) / 1024;
    float* dw = layer == 0 ? dw0 : layer == 1 ? dw1 : dw2;
    float* db = layer == 0 ? db0 : layer == 1 ? db1 : db2;
    if (blockIdx.x < blocks) {
        unsigned at = (blockIdx.x * 256 + threadIdx.x) * 4;
        if (!dw || at >= numbers) return;
        const float* from = parts + (u64)layer * chunks * numbers;
        sum_chunks(dw, accumulate >> 2 * layer & 1, from, numbers, chunks, at, numbers);
    } else {
        unsigned at = ((blockIdx.x - blocks) * 256 + threadIdx.x) * 4;
        if (!db || at >= out) return;
        const float* from = parts_db + (u64)layer * chunks * out;
        sum_chunks(db, accumulate >> (2 * layer + 1) & 1, from, out, chunks, at, out);
    }
}
