// Many random numbers at once (src/device/cpu/noise.rs): normal and uniform, from the words of Philox4x32-10, the same
// bits as on the CPU. For that, products and sums are never fused: they are written as __fmul_rn and __fadd_rn.
//
// Numbers come in blocks of 512; block b takes words 512 · b on.

#define NORMAL 0
#define UNIFORM 1

__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float sub(float a, float b) { return __fsub_rn(a, b); }

// 2⁻²⁴.
#define UNIT 5.9604644775390625e-8f

// ln x of a normal x in (0, 1]; absolute error below 2e-6 (relative where x is not near 1).
__device__ __forceinline__ float ln(float x) {
    // x = m · 2ᵉ with m in [√½, √2): then ln m = 2 artanh((m − 1) / (m + 1)).
    const unsigned sqrt_half = 0x3f3504f3u;
    unsigned shifted = __float_as_uint(x) - sqrt_half;
    float exponent = (float)((int)shifted >> 23);
    float m = __uint_as_float((shifted & 0x007fffffu) + sqrt_half);
    float s = __fdiv_rn(sub(m, 1.0f), add(m, 1.0f));
    float z = mul(s, s);
    float series = add(1.0f / 7.0f, mul(z, 1.0f / 9.0f));
    series = add(1.0f / 5.0f, mul(z, series));
    series = add(1.0f / 3.0f, mul(z, series));
    series = mul(mul(2.0f, s), add(1.0f, mul(z, series)));
    return add(mul(exponent, 0.693147180559945309417f), series);
}

// Cosine and sine of a uniformly distributed angle; absolute error below 2e-7.
__device__ __forceinline__ float2 direction(unsigned word) {
    // Two bits choose the quadrant, the others an angle in [−π/4, π/4) about its axis.
    unsigned quadrant = word >> 30;
    float phi = mul(sub(mul((float)(word << 2 >> 8), UNIT), 0.5f), 1.57079632679489661923f);
    float z = mul(phi, phi);
    float sine = sub(1.0f / 5040.0f, mul(z, 1.0f / 362880.0f));
    sine = sub(1.0f / 120.0f, mul(z, sine));
    sine = sub(1.0f / 6.0f, mul(z, sine));
    sine = mul(phi, sub(1.0f, mul(z, sine)));
    float cosine = sub(1.0f / 40320.0f, mul(z, 1.0f / 3628800.0f));
    cosine = sub(1.0f / 720.0f, mul(z, cosine));
    cosine = sub(1.0f / 24.0f, mul(z, cosine));
    cosine = sub(0.5f, mul(z, cosine));
    cosine = sub(1.0f, mul(z, cosine));
    float2 at = (quadrant & 1) == 0 ? make_float2(cosine, sine) : make_float2(-sine, cosine);
    return (quadrant & 2) == 0 ? at : make_float2(-at.x, -at.y);
}

// A pair of standard normal numbers by Box and Muller's method.
__device__ __forceinline__ float2 box_muller(unsigned radius_word, unsigned angle_word) {
    float radius = __fsqrt_rn(mul(-2.0f, ln(mul((float)((radius_word >> 8) + 1), UNIT))));
    float2 at = direction(angle_word);
    return make_float2(mul(radius, at.x), mul(radius, at.y));
}

// A number in (−1, 1).
__device__ __forceinline__ float symmetric(unsigned word) {
    return sub(mul(add((float)(word >> 8), 0.5f), 2.0f * UNIT), 1.0f);
}

// Writes `count` (at most 4) numbers times `scale`.
__device__ __forceinline__ void write(float* values, unsigned count, bool vector, float4 v, float scale) {
    v = make_float4(mul(scale, v.x), mul(scale, v.y), mul(scale, v.z), mul(scale, v.w));
    store4(values, 0, count, vector && count == 4, v);
}

// values [len]: numbers of a law times `scale`; key and counter are those of `mask`. Normal numbers: words 0 .. 255 of
// a block are radii, 256 .. 511 angles; the first half of its numbers are radius · cosine, the second radius · sine.
// Grid: ceil(len / 512). Block: (64, 1): a thread has words 4 t .. and 256 + 4 t .. .
extern "C" __global__ void noise(float* __restrict__ values, u64 len, int law, float scale, Mask mask) {
    bool vector = aligned16(values);
    unsigned thread = threadIdx.x;
    unsigned first_block = (unsigned)blockIdx.x * 128 + thread;
    uint4 a = philox(mask, first_block), b = philox(mask, first_block + 64);
    float4 low, high;
    if (law == NORMAL) {
        float2 x = box_muller(a.x, b.x), y = box_muller(a.y, b.y), z = box_muller(a.z, b.z), w = box_muller(a.w, b.w);
        low = make_float4(x.x, y.x, z.x, w.x);
        high = make_float4(x.y, y.y, z.y, w.y);
    } else {
        low = make_float4(symmetric(a.x), symmetric(a.y), symmetric(a.z), symmetric(a.w));
        high = make_float4(symmetric(b.x), symmetric(b.y), symmetric(b.z), symmetric(b.w));
    }
    u64 start = (u64)blockIdx.x * 512 + thread * 4;
    if (start < len) write(values + start, len - start < 4 ? (unsigned)(len - start) : 4, vector, low, scale);
    start += 256;
    if (start < len) write(values + start, len - start < 4 ? (unsigned)(len - start) : 4, vector, high, scale);
}
