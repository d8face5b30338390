// Linear layers on tensor cores, by the tiles of linear_mma.cuh: for numbers of 16 bits, and for f32 by products of tf32.
//
// - Three forms: y = x · Wᵀ (+ b), dx = dy · W, dW = dyᵀ · x with db = Σ dy. All matrices lie row by row, without gaps.
// - x, W, y, z, h and the gradients of these are numbers; biases and the gradients of parameters are f32.
// - Gradients of weights are sums of chunks of tokens where their tiles are few. db is a product like dW, dyᵀ · 1, by the blocks of its first column.
// - A kernel's suffix is the tile of its blocks, rows × columns; gradients of weights have 64x128. Block: (128, 1). Dynamic shared memory: 98,304, 73,728 and 49,152
//   bytes for 128x128, 64x128 and 64x64: two, three and four blocks share a multiprocessor of an H100, one, two and three
//   one of an A100.

// For numbers of 16 bits: GELU and its slope to 3e-5 of themselves, an eighth of what f16 rounds off; `erfcf` and `expf` would
// take a third as long as a product with 384 numbers of depth. With a = |z|: Φ(−a) = e^(−a²/2) · t · (c0 + … + c4 t⁴), t =
// 1 / (1 + 3a/8), with the c of the least relative error for a from 0 to 13.5, beyond which f32 ends; GELU(z) = max(z, 0) −
// a · Φ(−a), and its slope is Φ(−a) − a · φ(a), or 1 less that where z is positive. Every rounding is spelled out: h is made
// again in the backward pass, and must be the same.
__device__ __forceinline__ Value gelu_rounded(float z) {
    // From 20 on Φ(−a) is 0; an infinite a would make 0 · ∞ of it, a z that is no number goes on in `series` by t.
    float t, density, wide = fabsf(z), a = fminf(wide, 20.0f);
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(t) : "f"(fmaf(0.375f, wide, 1.0f)));
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(density) : "f"(__fmul_rn(__fmul_rn(a, a), -0.72134752044448170368f)));
    float series = fmaf(-0.0909853720f, t, 0.2010436287f);
    series = fmaf(series, t, 0.0829737897f);
    series = fmaf(series, t, 0.1579201551f);
    series = fmaf(series, t, 0.1490411221f);
    float tail = __fmul_rn(__fmul_rn(series, t), density);
    float rest = fmaf(__fmul_rn(a, density), -0.39894228040143267794f, tail);
    return {fmaf(-a, tail, fmaxf(z, 0.0f)), z > 0.0f ? 1.0f - rest : rest};
}

// The `function` of y = z + x · Wᵀ + b.
#define RESIDUAL (-2)

#ifdef NUMBER_F32
#define GELU_ROUNDED false
#else
#define GELU_ROUNDED true
#endif

// GELU: the function is that, which is not looked up for each number then.
template <bool GELU>
__device__ __forceinline__ Value activate_number(int function, float z) {
    return GELU ? gelu_rounded(z) : activate(function, z);
}

// z, unless it is null, and y = f(z) of the `count` groups of a thread, which lie `apart` at `column` of a row of `out`.
template <class T, bool GELU>
__device__ __forceinline__ void put_activated(
    number* y, number* z, unsigned column, unsigned out, u64 apart, unsigned count, bool vector, int function
) {
#pragma unroll 2
    for (unsigned i = 0; i < count; i++) {
        uint4 pack = T::kept_numbers(i);
        if (z) store_pack(z + i * apart, column, out, vector, pack);
        float v[GROUP];
        unpack(pack, v);
#pragma unroll
        for (int n = 0; n < GROUP; n++) v[n] = activate_number<GELU>(function, v[n]).value;
        store_pack(y + i * apart, column, out, vector, packed(v));
    }
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
    if (bias) T::add_to_columns(sums, bias + column, out - column);
    // z is rounded before it is activated, or h would be another one when it is made again from there; but not before it is
    // added to something.
    if (function == RESIDUAL) {
        T::keep_results(sums);
    } else {
        T::keep_numbers(sums);
    }
    column += T::results_column();
    row += T::results_row();
    if (column >= out || row >= rows) return;
    bool vector = out % GROUP == 0 && aligned16(y) && aligned16(z);
    unsigned count = min((rows - row + T::ROWS_APART - 1) / T::ROWS_APART, T::RESULTS);
    u64 first = ((u64)blockIdx.z * rows + row) * out, apart = (u64)T::ROWS_APART * out;
    y += first;
    if (z) z += first;
    if (function == RESIDUAL) {
#pragma unroll 2
        for (unsigned i = 0; i < count; i++) {
            float v[GROUP], before[GROUP];
            T::results(v, i);
            unpack(load_pack(z + i * apart, column, out, vector), before);
#pragma unroll
            for (int n = 0; n < GROUP; n++) v[n] += before[n];
            store_pack(y + i * apart, column, out, vector, packed(v));
        }
    } else if (function == IDENTITY) {
#pragma unroll 4
        for (unsigned i = 0; i < count; i++) {
            uint4 pack = T::kept_numbers(i);
            if (z) store_pack(z + i * apart, column, out, vector, pack);
            store_pack(y + i * apart, column, out, vector, pack);
        }
    } else if (GELU_ROUNDED && function == GELU_ERF) {
        put_activated<T, GELU_ROUNDED>(y, z, column, out, apart, count, vector, function);
    } else {
        put_activated<T, false>(y, z, column, out, apart, count, vector, function);
    }
}

// dx (+)= sums ∘ f′(z), and h = f(z) unless h is null, as above. z of AHEAD rows is on its way while that of as many before
// is used, the first while the sums are kept.
template <class T, bool GELU>
__device__ __forceinline__ void put_slopes(
    number* dx, int accumulate, number* h, const number* z, const typename T::Sums& sums, unsigned column, unsigned width,
    u64 apart, unsigned count, bool vector, int function
) {
    constexpr unsigned AHEAD = GROUP / 2;
    static_assert(T::RESULTS % AHEAD == 0, "rows of a thread are whole batches");
    uint4 coming[AHEAD];
    auto fetch = [&](unsigned first) {
#pragma unroll
        for (unsigned i = 0; i < AHEAD; i++) {
            if (first + i < count) coming[i] = load_pack(z + (first + i) * apart, column, width, vector);
        }
    };
    fetch(0);
    T::keep_results(sums);
#pragma unroll 1
    for (unsigned first = 0; first < count; first += AHEAD) {
        uint4 kept[AHEAD];
#pragma unroll
        for (unsigned i = 0; i < AHEAD; i++) kept[i] = coming[i];
        fetch(first + AHEAD);
#pragma unroll
        for (unsigned i = 0; i < AHEAD; i++) {
            if (first + i >= count) break;
            float v[GROUP], value[GROUP], before[GROUP];
            T::results(v, first + i);
            unpack(kept[i], value);
            number* to = dx + (first + i) * apart;
            if (accumulate) unpack(load_pack(to, column, width, vector), before);
#pragma unroll
            for (int n = 0; n < GROUP; n++) {
                Value both = activate_number<GELU>(function, value[n]);
                value[n] = both.value;
                v[n] = accumulate ? fmaf(v[n], both.slope, before[n]) : v[n] * both.slope;
            }
            if (h) store_pack(h + (first + i) * apart, column, width, vector, packed(value));
            store_pack(to, column, width, vector, packed(v));
        }
    }
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
    row += T::results_row();
    column += T::results_column();
    bool vector = width % GROUP == 0 && aligned16(dx) && aligned16(h) && aligned16(z);
    unsigned count = column < width && row < rows ? min((rows - row + T::ROWS_APART - 1) / T::ROWS_APART, T::RESULTS) : 0;
    u64 first = (u64)row * width, apart = (u64)T::ROWS_APART * width;
    dx += first;
    if (!z) {
        if (accumulate) {
            T::keep_results(sums);
#pragma unroll 2
            for (unsigned i = 0; i < count; i++) {
                float v[GROUP];
                T::results(v, i);
                put_pack(dx + i * apart, column, width, vector, v, true);
            }
        } else {
            T::keep_numbers(sums);
#pragma unroll 4
            for (unsigned i = 0; i < count; i++) store_pack(dx + i * apart, column, width, vector, T::kept_numbers(i));
        }
        return;
    }
    z += first;
    if (h) h += first;
    if (GELU_ROUNDED && function == GELU_ERF) {
        put_slopes<T, GELU_ROUNDED>(dx, accumulate, h, z, sums, column, width, apart, count, vector, function);
    } else {
        put_slopes<T, false>(dx, accumulate, h, z, sums, column, width, apart, count, vector, function);
    }
}

// What a block of linear_weight_gradient does: a tile of the gradient of a layer's weight, of all rows, or of a part of them.
struct Share {
    unsigned layer, row, column;  // the tile's first
    unsigned part, split;         // which part, and which of the tiles that are split; no part: `WHOLE_TILE`
};

#define WHOLE_TILE 0xffffffffu

// Tiles go down a layer's columns, the first `whole` of them in one go. Of what is split the first parts come first.
template <class T>
__device__ __forceinline__ Share share_of(unsigned block, unsigned layers, unsigned out, unsigned width, unsigned whole) {
    unsigned down = (out + T::ROWS - 1) / T::ROWS, of_layer = down * ((width + T::COLUMNS - 1) / T::COLUMNS);
    Share share = {0, 0, 0, WHOLE_TILE, 0};
    unsigned tile = block;
    if (block >= whole) {
        unsigned splits = layers * of_layer - whole;
        share.part = (block - whole) / splits, share.split = (block - whole) % splits;
        tile = whole + share.split;
    }
    share.layer = tile / of_layer;
    share.row = tile % of_layer % down * T::ROWS, share.column = tile % of_layer / down * T::COLUMNS;
    return share;
}

template <class T>
__device__ __forceinline__ void weight_gradient_tile(
    float* dw, bool accumulate, float* db, bool accumulate_db, float* parts, float* parts_db, const number* dy,
    const number* x, Share share, unsigned splits, unsigned rows, unsigned out, unsigned width, unsigned chunk
) {
    bool split = share.part != WHOLE_TILE;
    // Tiles of frozen weights end here, but for those of the first column if a bias is not.
    if (share.column > 0 && !dw) return;
    unsigned first = split ? share.part * chunk : 0, count = split ? min(rows - first, chunk) : rows;
    typename T::Sums sums;
    typename T::template Left<false> left;
    typename T::template Right<false> right;
    left.start(dy, out, share.row, out);
    right.start(x, width, share.column, width);
    left.from += (u64)first * out * sizeof(number);
    right.from += (u64)first * width * sizeof(number);
    u64 place = (u64)share.part * splits + share.split;
    if (db && share.column == 0) {
        T::template product<true, false>(sums, left, right, 1, count, [] {});
        unsigned lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < T::SHARE; i++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                unsigned j = T::warp_m() + 16 * (T::warp_column() + i * T::WARPS_N) + 8 * half + lane / 4;
                float sum = sums.ones[i][2 * half];
                // All lanes of a row have the same sum.
                if (lane % 4 != 0) continue;
                if (split) {
                    parts_db[place * T::ROWS + j] = sum;
                } else if (share.row + j < out) {
                    float* to = db + share.row + j;
                    *to = accumulate_db ? *to + sum : sum;
                }
            }
        }
    } else {
        T::template product<false, false>(sums, left, right, 1, count, [] {});
    }
    if (!dw) return;
    if (split) {
        T::put_sums(sums, parts + place * (T::ROWS * T::COLUMNS), false, T::COLUMNS, T::ROWS, T::COLUMNS);
    } else {
        float* to = dw + (u64)share.row * width + share.column;
        T::put_sums(sums, to, accumulate, width, out - share.row, width - share.column);
    }
}

// tf32 needs registers for its rounding.
#define PER_64x128 (sizeof(number) == 4 ? 2 : 3)

#ifndef TILINGS
// Rows, columns, those of a warp, groups of a step, stages, blocks that share a multiprocessor.
#define TILINGS(KERNELS_OF)                                     \
    KERNELS_OF(128x128, (Tiling<128, 128, 64, 64, 8, 3, 2>))   \
    KERNELS_OF(64x128, (Tiling<64, 128, 32, 64, 8, 3, PER_64x128>)) \
    KERNELS_OF(64x64, (Tiling<64, 64, 32, 32, 8, 3, 4>))
#endif
#ifndef GRADIENT_TILING
#define GRADIENT_TILING (Tiling<64, 128, 32, 64, 8, 3, PER_64x128>)
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
    }
TILINGS(TILE_KERNELS)

// dW_l (+)= dy_lᵀ · x and db_l (+)= Σ dy_l, for one to three layers. dy [layers, rows, out], x [rows, width]; dW_l [out, width]
// or null, db_l [out] or null. Bit 2 l of `accumulate`: dW_l is added to, bit 2 l + 1: db_l. The first `whole` tiles are done
// in one go, the others in `chunks` parts of `chunk` rows, so that they fill what the first leave idle. A part of split tile
// s goes to parts [chunks, tiles − whole, 64 · 128] and parts_db [chunks, tiles − whole, 64], which linear_gradient_sums adds.
// `whole` and `chunk` must be fixed by shapes alone, since the sum's order depends on them. Grid: x = whole + (tiles − whole) ·
// chunks, of tiles = layers · ceil(out / 64) · ceil(width / 128).
typedef Inside<void GRADIENT_TILING>::Type Gradient;

extern "C" __global__ void __launch_bounds__(Gradient::THREADS, Gradient::BLOCKS) linear_weight_gradient(
    float* __restrict__ dw0, float* __restrict__ db0, float* __restrict__ dw1, float* __restrict__ db1,
    float* __restrict__ dw2, float* __restrict__ db2, int accumulate, float* __restrict__ parts,
    float* __restrict__ parts_db, const number* __restrict__ dy, const number* __restrict__ x, unsigned layers,
    unsigned rows, unsigned out, unsigned width, unsigned whole, unsigned chunk, unsigned chunks
) {
    Share share = share_of<Gradient>(blockIdx.x, layers, out, width, whole);
    unsigned layer = share.layer;
    float* dw = layer == 0 ? dw0 : layer == 1 ? dw1 : dw2;
    float* db = layer == 0 ? db0 : layer == 1 ? db1 : db2;
    weight_gradient_tile<Gradient>(
        dw, accumulate >> 2 * layer & 1, db, accumulate >> (2 * layer + 1) & 1, parts, parts_db,
        dy + (u64)layer * rows * out, x, share, (gridDim.x - whole) / chunks, rows, out, width, chunk
    );
}

// Four numbers of the sum of `chunks` parts that lie `apart`, in their order.
__device__ __forceinline__ float4 sum_parts(const float* parts, u64 apart, unsigned chunks) {
    float4 sum = *(const float4*)parts;
#pragma unroll 4
    for (unsigned chunk = 1; chunk < chunks; chunk++) sum = add4(sum, *(const float4*)(parts + chunk * apart));
    return sum;
}

// dW_l (+)= Σ its parts, db_l (+)= Σ its parts, of the tiles that are split: arguments as for linear_weight_gradient. Grid: x
// = tiles − whole, y = 8 parts of a tile. Block: (256, 1).
extern "C" __global__ void linear_gradient_sums(
    float* __restrict__ dw0, float* __restrict__ db0, float* __restrict__ dw1, float* __restrict__ db1,
    float* __restrict__ dw2, float* __restrict__ db2, int accumulate, const float* __restrict__ parts,
    const float* __restrict__ parts_db, unsigned layers, unsigned out, unsigned width, unsigned whole, unsigned chunks
) {
    constexpr unsigned ROWS = Gradient::ROWS, COLUMNS = Gradient::COLUMNS;
    Share share = share_of<Gradient>(whole + blockIdx.x, layers, out, width, whole);
    unsigned layer = share.layer, splits = gridDim.x;
    float* dw = layer == 0 ? dw0 : layer == 1 ? dw1 : dw2;
    float* db = layer == 0 ? db0 : layer == 1 ? db1 : db2;
    unsigned at = (blockIdx.y * 256 + threadIdx.x) * 4, row = share.row + at / COLUMNS, column = share.column + at % COLUMNS;
    if (dw && row < out && column < width) {
        float4 sum = sum_parts(parts + (u64)blockIdx.x * (ROWS * COLUMNS) + at, (u64)splits * (ROWS * COLUMNS), chunks);
        put4(dw + (u64)row * width, column, width, width % 4 == 0 && aligned16(dw), sum, accumulate >> 2 * layer & 1);
    }
    if (db && share.column == 0 && at < ROWS && share.row + at < out) {
        float4 sum = sum_parts(parts_db + (u64)blockIdx.x * ROWS + at, (u64)splits * ROWS, chunks);
        put4(db, share.row + at, out, out % 4 == 0 && aligned16(db), sum, accumulate >> (2 * layer + 1) & 1);
    }
}
