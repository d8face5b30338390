// Dropout, residual and layer normalisation (src/ops/layer_norm; Ba, Kiros, Hinton, "Layer normalization", 2016).
//
// s = residual + dropout(x); x̂ = (s − mean) · r with r = 1/√(variance + ε); y = x̂ · weight + bias, row by row.
// With d = dy · weight: ds = r · (d − mean(d) − x̂ · mean(d · x̂)); d(residual) = ds; dx = ds · mask / (1 − p);
// d(weight) = Σ_rows dy · x̂; d(bias) = Σ_rows dy.
//
// Every row is read once and held in registers (rows.cuh). Kernels whose names end in 256, 512, 768 or 1024 have a warp a
// row of up to so many numbers, those that end in `wide` a block of 256 threads a row of up to 8192. For the backward pass
// x̂ is kept, as numbers: from y it could be had back only where no weight is near 0, and from s only with the mean, which
// takes digits away where it is large.

// y and, if they are wanted, the normalised rows x̂ and the rows' r.
// x, y [rows, width]; residual [rows, width] or null; weight, bias [width]; normalised [rows, width], scales [rows], or
// both null. Grid: any; the blocks stride over the rows. Block: (32, n), n at most 8, or (256, 1) for
// `wide`. No dynamic shared memory.
#define FORWARD_PARAMETERS                                                                                              \
    number *__restrict__ y, number *__restrict__ normalised, float *__restrict__ scales, const number *__restrict__ x,  \
        const number *__restrict__ residual, const float *__restrict__ weight, const float *__restrict__ bias,          \
        unsigned rows, unsigned width, float epsilon, Mask mask

template <int N, int T, int P = PACK>
__device__ __forceinline__ void forward(FORWARD_PARAMETERS) {
    bool vector = width % PACK == 0 && aligned16(x) && aligned16(y) && aligned16(residual) && aligned16(normalised);
    bool vectors = width % 4 == 0 && aligned16(weight) && aligned16(bias);
    __shared__ Columns<T == 32 ? N : 0, P> weights, biases;
    if constexpr (T == 32) {
        fill_columns(weights, weight, width);
        fill_columns(biases, bias, width);
        __syncthreads();
    }
    for (unsigned row = my_row(); row < rows; row += gridDim.x * blockDim.y) {
        u64 at = (u64)row * width;
        uint4 read[PACKS], added[PACKS];
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            read[k] = load_pack(x + at, held_column<T, P>(k), width, vector);
            if (residual) added[k] = load_pack(residual + at, held_column<T, P>(k), width, vector);
        }
        float v[8 * N];
#pragma unroll
        for (int k = 0; k < PACKS; k++) unpack(read[k], v + k * PACK);
        drop_held<N>(mask, kept_bits<N, T, P>(mask, at, width), v);
        if (residual) {
#pragma unroll
            for (int k = 0; k < PACKS; k++) {
                float more[PACK];
                unpack(added[k], more);
#pragma unroll
                for (int i = 0; i < PACK; i++) v[k * PACK + i] += more[i];
            }
        }
        float scale = normalise_held<N, T, P>(v, width, epsilon);
        if (scales && threadIdx.x == 0) scales[row] = scale;
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            float by[PACK], plus[PACK], *n = v + k * PACK;
            if (normalised) store_pack(normalised + at, held_column<T, P>(k), width, vector, packed(n));
            if constexpr (T == 32) {
                column_pack(weights, k, by);
                column_pack(biases, k, plus);
            } else {
                float_pack<P>(weight, held_column<T, P>(k), width, vectors, by);
                float_pack<P>(bias, held_column<T, P>(k), width, vectors, plus);
            }
#pragma unroll
            for (int i = 0; i < PACK; i++) n[i] = fmaf(n[i], by[i], plus[i]);
            store_pack(y + at, held_column<T, P>(k), width, vector, packed(n));
        }
    }
}

#define FORWARD(NAME, N, T, BLOCKS)                                                                                 \
    extern "C" __global__ void __launch_bounds__(256, BLOCKS) layer_norm_forward_##NAME(FORWARD_PARAMETERS) {               \
        forward<N, T>(y, normalised, scales, x, residual, weight, bias, rows, width, epsilon, mask);                 \
    }

FORWARD(256, 1, 32, 4)
FORWARD(512, 2, 32, 3)
FORWARD(768, 3, 32, 2)
FORWARD(1024, 4, 32, 2)
FORWARD(wide, 4, 256, 1)

// ds of every row, into the gradients of residual and x (each may be null), (+)= as the flags say; and the sums of the
// gradients of weight and bias over the rows that a block has, k · chunk .. (k + 1) · chunk for block k: weight_partials,
// bias_partials [blocks, width], both or none null, to be added up by `layer_norm_sums`.
// The mask `output` is applied to dy first (the embedding block drops out what comes out of it), `input` to dx last.
// `chunk` and the block must be fixed: the order of the sums depends on them; warp w has rows w, w + n, … of its block's.
// Grid: ceil(rows / chunk). Block: as above.
#define BACKWARD_PARAMETERS                                                                                             \
    number *__restrict__ dx, int accumulate_dx, number *__restrict__ dresidual, int accumulate_dresidual,               \
        float *__restrict__ weight_partials, float *__restrict__ bias_partials, const number *__restrict__ dy,          \
        const number *__restrict__ normalised, const float *__restrict__ scales, const float *__restrict__ weight,      \
        unsigned rows, unsigned width, unsigned chunk, Mask output, Mask input

template <int N, int T, int P = PACK>
__device__ __forceinline__ void backward(BACKWARD_PARAMETERS) {
    bool vector = width % PACK == 0 && aligned16(dx) && aligned16(dresidual) && aligned16(dy) && aligned16(normalised);
    bool vectors = width % 4 == 0 && aligned16(weight);
    __shared__ Columns<T == 32 ? N : 0, P> weights;
    __shared__ Columns<T == 32 ? N : 0, P> parts[T == 32 ? 8 : 1];
    if constexpr (T == 32) {
        fill_columns(weights, weight, width);
        __syncthreads();
    }
    float weight_sums[8 * N] = {}, bias_sums[8 * N] = {};
    unsigned first = blockIdx.x * chunk, last = rows - first < chunk ? rows : first + chunk;
    for (unsigned row = first + threadIdx.y; row < last; row += blockDim.y) {
        u64 at = (u64)row * width;
        uint4 upstream[PACKS], kept[PACKS];
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            upstream[k] = load_pack(dy + at, held_column<T, P>(k), width, vector);
            kept[k] = load_pack(normalised + at, held_column<T, P>(k), width, vector);
        }
        float scale = scales[row];
        // While the reads are on their way, and nothing else needs the registers that the generator does.
        unsigned input_bits = kept_bits<N, T, P>(input, at, width), output_bits = kept_bits<N, T, P>(output, at, width);
        float d[8 * N];
#pragma unroll
        for (int k = 0; k < PACKS; k++) unpack(upstream[k], d + k * PACK);
        drop_held<N>(output, output_bits, d);
        float sum = 0.0f, projection = 0.0f;
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            float n[PACK], by[PACK];
            unpack(kept[k], n);
            if constexpr (T == 32) column_pack(weights, k, by);
            else float_pack<P>(weight, held_column<T, P>(k), width, vectors, by);
#pragma unroll
            for (int i = 0; i < PACK; i++) {
                int at = k * PACK + i;
                weight_sums[at] = fmaf(d[at], n[i], weight_sums[at]);
                bias_sums[at] += d[at];
                d[at] *= by[i];
                sum += d[at];
                projection = fmaf(d[at], n[i], projection);
            }
        }
        if (!dx && !dresidual) continue;
        float mean = held_total<T>(sum) / (float)width, slope = held_total<T>(projection) / (float)width;
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            float n[PACK];
            // Unpacked anew: kept as floats over the sums they were twice the registers.
            asm volatile("" : "+r"(kept[k].x), "+r"(kept[k].y), "+r"(kept[k].z), "+r"(kept[k].w));
            unpack(kept[k], n);
#pragma unroll
            for (int i = 0; i < PACK; i++) d[k * PACK + i] = scale * (d[k * PACK + i] - mean - n[i] * slope);
            if (dresidual) put_pack(dresidual + at, held_column<T, P>(k), width, vector, d + k * PACK, accumulate_dresidual);
        }
        if (!dx) continue;
        drop_held<N>(input, input_bits, d);
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            put_pack(dx + at, held_column<T, P>(k), width, vector, d + k * PACK, accumulate_dx);
        }
    }
    if (!weight_partials) return;
    u64 to = (u64)blockIdx.x * width;
    if constexpr (T == 32) {
        add_warps<N, P>(parts, weight_sums, weight_partials + to, width);
        __syncthreads();
        add_warps<N, P>(parts, bias_sums, bias_partials + to, width);
    } else {
#pragma unroll
        for (int i = 0; i < 8 * N; i++) {
            unsigned column = held_column<T, P>(i / PACK) + i % PACK;
            if (column >= width) continue;
            weight_partials[to + column] = weight_sums[i];
            bias_partials[to + column] = bias_sums[i];
        }
    }
}

#define BACKWARD(NAME, N, T, BLOCKS)                                                                                \
    extern "C" __global__ void __launch_bounds__(256, BLOCKS) layer_norm_backward_##NAME(BACKWARD_PARAMETERS) {             \
        backward<N, T>(                                                                                              \
            dx, accumulate_dx, dresidual, accumulate_dresidual, weight_partials, bias_partials, dy, normalised, scales, \
            weight, rows, width, chunk, output, input                                                                   \
        );                                                                                                              \
    }

BACKWARD(256, 1, 32, PACK / 4 + 1)
BACKWARD(512, 2, 32, 2)
BACKWARD(768, 3, 32, PACK / 4)
BACKWARD(1024, 4, 32, 1)
BACKWARD(wide, 4, 256, 1)

// dweight[c] (+)= Σ_k weight_partials[k, c] and dbias[c] likewise (either may be null), partials [count, width]. Warp w of a
// block takes partials w, w + n, … in their order, eight reads at once; the n sums are added in theirs. Grid:
// (ceil(width / 128), 2). Block: (32, n), n at most 16 and by shapes alone.
extern "C" __global__ void __launch_bounds__(512) layer_norm_sums(
    float* __restrict__ dweight, int accumulate_dweight, float* __restrict__ dbias, int accumulate_dbias,
    const float* __restrict__ weight_partials, const float* __restrict__ bias_partials, unsigned count, unsigned width
) {
    __shared__ float4 sums[16][32];
    float* target = blockIdx.y == 0 ? dweight : dbias;
    const float* partials = blockIdx.y == 0 ? weight_partials : bias_partials;
    if (!target) return;
    unsigned column = (blockIdx.x * 32 + threadIdx.x) * 4;
    bool vector = width % 4 == 0 && aligned16(partials) && aligned16(target);
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (unsigned first = threadIdx.y; first < count && column < width; first += 8 * blockDim.y) {
        float4 read[8];
#pragma unroll
        for (unsigned j = 0; j < 8; j++) {
            unsigned k = first + j * blockDim.y;
            read[j] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (k < count) read[j] = load4(partials + (u64)k * width, column, width, vector);
        }
#pragma unroll
        for (unsigned j = 0; j < 8; j++) sum = add4(sum, read[j]);
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || column >= width) return;
    for (unsigned warp = 1; warp < blockDim.y; warp++) sum = add4(sum, sums[warp][threadIdx.x]);
    put4(target, column, width, vector, sum, blockIdx.y == 0 ? accumulate_dweight : accumulate_dbias);
}
