// What all kernels share. Put in front of each kernel file as text, so nothing here may need a header.
//
// - rows: a kernel that works row by row takes blocks of (32, n) threads, a warp a row, or of (threads, 1), a block a
//   row; `row_sum` and its kin reduce over the threads of a row and give all of them the same bits.
// - quads: rows are read and written as quads of four numbers, by 16 bytes of f32 where pointers and width allow it.
// - packs: the same by 16 bytes whatever a number is.
// - numbers: `number` is how activations and their gradients are stored: f32, or, where the host puts NUMBER_BF16 or
//   NUMBER_F16 in front, 16 bits. What is computed, and statistics, are f32 always; a kernel rounds where it stores.
// - dropout: the masks of `src/rng.rs`, bit by bit.
//
// No float atomics; the order of every sum depends on shapes and launch sizes alone. No kernel is launched for nothing:
// rows, widths and lengths are at least 1.

typedef unsigned long long u64;

#define FULL_WARP 0xffffffffu
#define INFINITY_F __int_as_float(0x7f800000)
#define INFINITY_D __longlong_as_double(0x7ff0000000000000ll)

// Whether kernels for heads of up to so many numbers are compiled: all, or those of one size where the host defines ONLY_HEAD.
#ifdef ONLY_HEAD
#define FOR_HEAD(head) (ONLY_HEAD == head)
#else
#define FOR_HEAD(head) 1
#endif

// ------------------------------------------------------------------------------------------------------------- numbers

#ifdef NUMBER_F32
typedef float number;
__device__ __forceinline__ float widened(float v) { return v; }
#else
#define NUMBER_16
struct number {
    unsigned short bits;
};

__device__ __forceinline__ float widened(number v) {
#ifdef NUMBER_BF16
    return __uint_as_float((unsigned)v.bits << 16);
#else
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(v.bits));
    return wide;
#endif
}

// Two numbers of one word; the first one is in its lower half.
__device__ __forceinline__ float2 widened2(unsigned pair) {
#ifdef NUMBER_BF16
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
#else
    return make_float2(widened(number{(unsigned short)pair}), widened(number{(unsigned short)(pair >> 16)}));
#endif
}

// Two numbers rounded to the nearest, ties to even, as one word; the first one is in its lower half.
__device__ __forceinline__ unsigned rounded2(float low, float high) {
    unsigned pair;
#ifdef NUMBER_BF16
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#endif
    return pair;
}
#endif

// A number to be stored: to the nearest, ties to even.
__device__ __forceinline__ void store1(float* to, float v) { *to = v; }
#ifdef NUMBER_16
__device__ __forceinline__ void store1(number* to, float v) {
    unsigned short bits;
#ifdef NUMBER_BF16
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(v));
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
#endif
    to->bits = bits;
}
#endif

// ------------------------------------------------------------------------------------------------------------- dropout

// A dropout mask as the host gives it (src/rng.rs: Dropout::mask). Word e of the stream drops element e if it is below
// the threshold, p · 2³²; what is kept is multiplied by scale = 1 / (1 − p). No dropout: threshold 0, scale 1.
struct Mask {
    unsigned key[2];      // the seed
    unsigned counter[3];  // instance, step low, step high
    unsigned threshold;
    float scale;
};

// Ten rounds of Philox4x32 (Salmon, Moraes, Dror, Shaw, SC 2011) on counter (block, mask.counter): words 4 · block on.
__device__ __forceinline__ uint4 philox(const Mask& mask, unsigned block) {
    uint4 c = make_uint4(block, mask.counter[0], mask.counter[1], mask.counter[2]);
    unsigned k0 = mask.key[0], k1 = mask.key[1];
#pragma unroll
    for (int round = 0; round < 10; round++) {
        unsigned low0 = 0xD2511F53u * c.x, high0 = __umulhi(0xD2511F53u, c.x);
        unsigned low1 = 0xCD9E8D57u * c.z, high1 = __umulhi(0xCD9E8D57u, c.z);
        c = make_uint4(high1 ^ c.y ^ k0, low1, high0 ^ c.w ^ k1, low0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// x times its factor: 0, or the scale.
__device__ __forceinline__ float masked(const Mask& mask, unsigned word, float x) {
    return word < mask.threshold ? 0.0f : x * mask.scale;
}

// Element number `element` of the mask, applied to x.
__device__ __forceinline__ float dropout1(const Mask& mask, u64 element, float x) {
    if (mask.threshold == 0) return x * mask.scale;
    uint4 words = philox(mask, (unsigned)(element / 4));
    unsigned lane = (unsigned)element % 4;
    return masked(mask, lane == 0 ? words.x : lane == 1 ? words.y : lane == 2 ? words.z : words.w, x);
}

// Words `element` .. `element` + 3. A second block of words is drawn only where the four are not one block.
__device__ __forceinline__ uint4 words4(const Mask& mask, u64 element) {
    uint4 a = philox(mask, (unsigned)(element / 4));
    unsigned offset = (unsigned)element % 4;
    if (offset != 0) {
        uint4 b = philox(mask, (unsigned)(element / 4) + 1);
        a = offset == 1 ? make_uint4(a.y, a.z, a.w, b.x)
            : offset == 2 ? make_uint4(a.z, a.w, b.x, b.y)
                          : make_uint4(a.w, b.x, b.y, b.z);
    }
    return a;
}

// Elements `element` .. `element` + 3 of the mask, applied to v.
__device__ __forceinline__ float4 dropout4(const Mask& mask, u64 element, float4 v) {
    if (mask.threshold == 0) return make_float4(v.x * mask.scale, v.y * mask.scale, v.z * mask.scale, v.w * mask.scale);
    uint4 a = words4(mask, element);
    return make_float4(masked(mask, a.x, v.x), masked(mask, a.y, v.y), masked(mask, a.z, v.z), masked(mask, a.w, v.w));
}

// --------------------------------------------------------------------------------------------------------------- quads

__device__ __forceinline__ bool aligned16(const void* pointer) { return ((u64)pointer & 15) == 0; }

// The alignment that a quad of numbers needs.
__device__ __forceinline__ bool aligned_quad(const float* pointer) { return aligned16(pointer); }
#ifdef NUMBER_16
__device__ __forceinline__ bool aligned_quad(const number* pointer) { return ((u64)pointer & 7) == 0; }
#endif

// Numbers `column` .. `column` + 3 of a row of `width`; 0 beyond its end. `vector`: the row begins at a multiple of 16
// bytes and its width is a multiple of 4.
__device__ __forceinline__ float4 load4(const float* row, unsigned column, unsigned width, bool vector) {
    if (vector) return *(const float4*)(row + column);
    float4 v = make_float4(row[column], 0.0f, 0.0f, 0.0f);
    if (column + 1 < width) v.y = row[column + 1];
    if (column + 2 < width) v.z = row[column + 2];
    if (column + 3 < width) v.w = row[column + 3];
    return v;
}

#ifdef NUMBER_16
// The same of 16-bit numbers, by 8 bytes. `vector`: the row begins at a multiple of 8 bytes.
__device__ __forceinline__ float4 load4(const number* row, unsigned column, unsigned width, bool vector) {
    if (vector) {
        uint2 words = *(const uint2*)(row + column);
        float2 low = widened2(words.x), high = widened2(words.y);
        return make_float4(low.x, low.y, high.x, high.y);
    }
    float4 v = make_float4(widened(row[column]), 0.0f, 0.0f, 0.0f);
    if (column + 1 < width) v.y = widened(row[column + 1]);
    if (column + 2 < width) v.z = widened(row[column + 2]);
    if (column + 3 < width) v.w = widened(row[column + 3]);
    return v;
}

__device__ __forceinline__ void store4(number* row, unsigned column, unsigned width, bool vector, float4 v) {
    if (vector) {
        // In assembly, as below.
        u64 to = __cvta_generic_to_global(row + column);
        asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(rounded2(v.x, v.y)), "r"(rounded2(v.z, v.w))
                     : "memory");
        return;
    }
    store1(row + column, v.x);
    if (column + 1 < width) store1(row + column + 1, v.y);
    if (column + 2 < width) store1(row + column + 2, v.z);
    if (column + 3 < width) store1(row + column + 3, v.w);
}
#endif

__device__ __forceinline__ void store4(float* row, unsigned column, unsigned width, bool vector, float4 v) {
    if (vector) {
        // In assembly: in some kernels the compiler merges a plain store with those below, into four of four bytes.
        u64 to = __cvta_generic_to_global(row + column);
        asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
                     : "memory");
        return;
    }
    row[column] = v.x;
    if (column + 1 < width) row[column + 1] = v.y;
    if (column + 2 < width) row[column + 2] = v.z;
    if (column + 3 < width) row[column + 3] = v.w;
}

__device__ __forceinline__ float4 add4(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
__device__ __forceinline__ float4 mul4(float4 a, float4 b) {
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}
__device__ __forceinline__ float4 scale4(float4 a, float f) { return make_float4(a.x * f, a.y * f, a.z * f, a.w * f); }
__device__ __forceinline__ float sum4(float4 a) { return (a.x + a.y) + (a.z + a.w); }

// row (+)= v.
template <class Number>
__device__ __forceinline__ void put4(
    Number* row, unsigned column, unsigned width, bool vector, float4 v, int accumulate
) {
    if (accumulate) v = add4(load4(row, column, width, vector), v);
    store4(row, column, width, vector, v);
}

// Sets to 0 what of a quad lies beyond the end of its row.
__device__ __forceinline__ float4 inside4(float4 v, unsigned column, unsigned width) {
    if (column + 1 >= width) v.y = 0.0f;
    if (column + 2 >= width) v.z = 0.0f;
    if (column + 3 >= width) v.w = 0.0f;
    return v;
}

// --------------------------------------------------------------------------------------------------------------- packs

// 16 bytes of numbers as they are stored: what a thread reads and writes at once.
#ifdef NUMBER_16
#define PACK 8
#else
#define PACK 4
#endif

__device__ __forceinline__ unsigned bits_of(float v) { return __float_as_uint(v); }
#ifdef NUMBER_16
__device__ __forceinline__ unsigned bits_of(number v) { return v.bits; }
__device__ __forceinline__ number number_of(unsigned bits) { return {(unsigned short)bits}; }
#else
__device__ __forceinline__ number number_of(unsigned bits) { return __uint_as_float(bits); }
#endif

// Numbers `column` .. `column` + PACK − 1 of a row of `width`; 0 beyond its end, where nothing is read. `vector`: the row
// begins at a multiple of 16 bytes and its width is a multiple of PACK.
__device__ __forceinline__ uint4 load_pack(const number* row, unsigned column, unsigned width, bool vector) {
    if (column >= width) return make_uint4(0, 0, 0, 0);
    if (vector) return *(const uint4*)(row + column);
    // A loop, as the way for odd widths must not cost the other one registers.
    u64 low = 0, high = 0;
    row += column;
    unsigned count = width - column < PACK ? width - column : PACK;
#pragma unroll 1
    for (unsigned i = 0; i < count; i++) {
        u64 bits = bits_of(row[i]), shifted = bits << i % (PACK / 2) * (128 / PACK);
        if (i < PACK / 2) low |= shifted;
        else high |= shifted;
    }
    return make_uint4((unsigned)low, (unsigned)(low >> 32), (unsigned)high, (unsigned)(high >> 32));
}

__device__ __forceinline__ void store_pack(number* row, unsigned column, unsigned width, bool vector, uint4 pack) {
    if (column >= width) return;
    if (vector) {
        // In assembly, as in store4.
        u64 to = __cvta_generic_to_global(row + column);
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(pack.x), "r"(pack.y), "r"(pack.z), "r"(pack.w)
                     : "memory");
        return;
    }
    u64 low = (u64)pack.y << 32 | pack.x, high = (u64)pack.w << 32 | pack.z;
    row += column;
    unsigned count = width - column < PACK ? width - column : PACK;
#pragma unroll 1
    for (unsigned i = 0; i < count; i++) {
        row[i] = number_of((unsigned)((i < PACK / 2 ? low : high) >> i % (PACK / 2) * (128 / PACK)));
    }
}

// The numbers of a pack as v[0] .. v[PACK − 1], and back.
__device__ __forceinline__ void unpack(uint4 pack, float* v) {
    unsigned words[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
#ifdef NUMBER_16
        float2 both = widened2(words[i]);
        v[2 * i] = both.x;
        v[2 * i + 1] = both.y;
#else
        v[i] = __uint_as_float(words[i]);
#endif
    }
}

__device__ __forceinline__ uint4 packed(const float* v) {
#ifdef NUMBER_16
    return make_uint4(rounded2(v[0], v[1]), rounded2(v[2], v[3]), rounded2(v[4], v[5]), rounded2(v[6], v[7]));
#else
    return make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3]));
#endif
}

// row (+)= v, PACK numbers from `column` on.
__device__ __forceinline__ void put_pack(
    number* row, unsigned column, unsigned width, bool vector, const float* v, int accumulate
) {
    float sum[PACK];
    if (accumulate) unpack(load_pack(row, column, width, vector), sum);
#pragma unroll
    for (int i = 0; i < PACK; i++) sum[i] = accumulate ? sum[i] + v[i] : v[i];
    store_pack(row, column, width, vector, packed(sum));
}

// Sums of columns `column` .. `column` + PACK − 1, of each warp of a block of (32, n), n at most 8, added up in the order of
// the warps and written to `to` [width]. All threads of the block must come here, once.
__device__ __forceinline__ void put_columns(float* to, unsigned column, unsigned width, const float* sums) {
    // Quads of a pack lie apart, so that the lanes of a warp are neighbours; and so are those that read in turns.
    __shared__ float4 parts[8][PACK / 4][36];
#pragma unroll
    for (int q = 0; q < PACK / 4; q++) {
        const float* quad = sums + 4 * q;
        parts[threadIdx.y][q][threadIdx.x] = make_float4(quad[0], quad[1], quad[2], quad[3]);
    }
    __syncthreads();
    bool vector = aligned16(to) && width % 4 == 0;
    unsigned start = column - threadIdx.x * PACK;
    for (unsigned quad = threadIdx.y * 32 + threadIdx.x; quad < 8 * PACK; quad += blockDim.y * 32) {
        if (start + quad * 4 >= width) break;
        unsigned q = quad % (PACK / 4), from = quad / (PACK / 4);
        float4 sum = parts[0][q][from];
        for (unsigned warp = 1; warp < blockDim.y; warp++) sum = add4(sum, parts[warp][q][from]);
        store4(to, start + quad * 4, width, vector, sum);
    }
}

// ---------------------------------------------------------------------------------------------------------- reductions

__device__ __forceinline__ float shuffle_xor(float v, int lanes) { return __shfl_xor_sync(FULL_WARP, v, lanes); }
__device__ __forceinline__ double shuffle_xor(double v, int lanes) { return __shfl_xor_sync(FULL_WARP, v, lanes); }

struct Sum {
    static __device__ __forceinline__ float of(float a, float b) { return a + b; }
    static __device__ __forceinline__ double of(double a, double b) { return a + b; }
};
// The larger one; the other one, if one is NaN.
struct Maximum {
    static __device__ __forceinline__ float of(float a, float b) { return fmaxf(a, b); }
    static __device__ __forceinline__ double of(double a, double b) { return fmax(a, b); }
};

// Over the 32 lanes of a warp, all of which must be there. Every lane gets the same bits: its partners add the same two
// numbers, in either order.
template <class Of, class T>
__device__ __forceinline__ T warp_reduce(T v) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) v = Of::of(v, shuffle_xor(v, lanes));
    return v;
}

// Over the threads of a row: a warp if blockDim.x is 32, else the whole block (blockDim.y is 1 then, and all threads
// must come here). Warps are combined in their order.
template <class Of, class T>
__device__ __forceinline__ T row_reduce(T v) {
    v = warp_reduce<Of>(v);
    if (blockDim.x == 32) return v;
    __shared__ T parts[32];
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    T total = parts[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++) total = Of::of(total, parts[warp]);
    // The next reduction writes where this one reads.
    __syncthreads();
    return total;
}

__device__ __forceinline__ float row_sum(float v) { return row_reduce<Sum>(v); }
__device__ __forceinline__ double row_sum(double v) { return row_reduce<Sum>(v); }
__device__ __forceinline__ float row_max(float v) { return row_reduce<Maximum>(v); }
__device__ __forceinline__ double row_max(double v) { return row_reduce<Maximum>(v); }

// The row of this thread, for blocks of (32, n) or (threads, 1).
__device__ __forceinline__ unsigned my_row() { return blockIdx.x * blockDim.y + threadIdx.y; }

// --------------------------------------------------------------------------------------------------------- activations

// Numbers as in `src/ops/activation`.
#define GELU_ERF 0
#define GELU_TANH 1
#define RELU 2
#define TANH 3
#define SIGMOID 4
#define SILU 5

// 1 / (1 + e^−z) without overflow.
__device__ __forceinline__ float sigmoid(float z) {
    float small = expf(-fabsf(z));
    return z >= 0.0f ? 1.0f / (1.0f + small) : small / (1.0f + small);
}

// f(z) and f′(z) of an activation.
struct Value {
    float value, slope;
};

#ifdef NUMBER_16
// For numbers of 16 bits: Φ by 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical Functions, within 1e-7, with one
// exponential for Φ and its slope. A third of the instructions, where the exact one would cost more than the bytes do.
__device__ __forceinline__ Value gelu_erf(float z) {
    float inverse, power;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(fmaf(fabsf(z), 0.3275911f * 0.70710678f, 1.0f)));
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(z * z * (-0.5f * 1.44269504f)));
    float sum = fmaf(0.5f * 1.061405429f, inverse, 0.5f * -1.453152027f);
    sum = fmaf(sum, inverse, 0.5f * 1.421413741f);
    sum = fmaf(sum, inverse, 0.5f * -0.284496736f);
    sum = fmaf(sum, inverse, 0.5f * 0.254829592f);
    float beyond = sum * inverse * power, cumulative = z < 0.0f ? beyond : 1.0f - beyond;
    // z may be infinite: 0 · ∞ is no number.
    float tail = power == 0.0f ? 0.0f : z * (0.39894228f * power);
    return {cumulative == 0.0f ? 0.0f : z * cumulative, cumulative + tail};
}
#else
__device__ __forceinline__ Value gelu_erf(float z) {
    // Φ by erfc: 1 + erf(z/√2) loses all digits where z is far below 0.
    float cumulative = 0.5f * erfcf(z * -0.70710678118654752440f);
    float density = 0.39894228040143267794f * expf(-0.5f * z * z);
    // Beyond 20 the density is 0 in f32, and z may be infinite: 0 · ∞ is no number.
    float tail = fabsf(z) < 20.0f || z != z ? z * density : 0.0f;
    return {cumulative == 0.0f ? 0.0f : z * cumulative, cumulative + tail};
}
#endif

__device__ __forceinline__ Value gelu_tanh(float z) {
    // Beyond 20 the tanh is ±1 in f32; z³ would overflow beyond 1e12.
    float inside = z > 20.0f ? 20.0f : z < -20.0f ? -20.0f : z;
    float square = inside * inside;
    float t = tanhf(0.79788456080286535588f * (inside + 0.044715f * inside * square));
    float inner = 0.79788456080286535588f * (1.0f + 3.0f * 0.044715f * square);
    float value = t == -1.0f ? 0.0f : 0.5f * z * (1.0f + t);
    return {value, 0.5f * (1.0f + t) + 0.5f * inside * (1.0f - t * t) * inner};
}

__device__ __forceinline__ Value activate(int function, float z) {
    switch (function) {
        case GELU_ERF: return gelu_erf(z);
        case GELU_TANH: return gelu_tanh(z);
        case RELU: return {z > 0.0f ? z : 0.0f * z, z > 0.0f ? 1.0f : 0.0f};
        case TANH: {
            float t = tanhf(z);
            return {t, 1.0f - t * t};
        }
        case SIGMOID: {
            float s = sigmoid(z);
            return {s, s * (1.0f - s)};
        }
        default: {
            float s = sigmoid(z);
            return {z * s, s + z * s * (1.0f - s)};
        }
    }
}

// -------------------------------------------------------------------------------------------------- asynchronous copies

// Ends a group of copies.
__device__ __forceinline__ void copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for this thread's copies, but for those of the last `LATER` groups.
template <int LATER>
__device__ __forceinline__ void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory"); }
