// Inverted dropout (src/ops/dropout), forward and backward: target (+)= values · mask / (1 − p), `len` numbers.
//
// Grid: enough blocks, or fewer: threads stride. Block: (threads, 1).
extern "C" __global__ void dropout(
    number* __restrict__ target, int accumulate, const number* __restrict__ values, u64 len, Mask mask
) {
    bool vector = aligned16(target) && aligned16(values);
    u64 stride = (u64)gridDim.x * blockDim.x * PACK;
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * PACK; i < len; i += stride) {
        unsigned count = len - i < PACK ? (unsigned)(len - i) : PACK;
        bool whole = vector && count == PACK;
        float v[PACK];
        unpack(load_pack(values + i, 0, count, whole), v);
#pragma unroll
        for (int q = 0; q < PACK; q += 4) {
            float4 four = dropout4(mask, i + q, make_float4(v[q], v[q + 1], v[q + 2], v[q + 3]));
            v[q] = four.x;
            v[q + 1] = four.y;
            v[q + 2] = four.z;
            v[q + 3] = four.w;
        }
        put_pack(target + i, 0, count, whole, v, accumulate);
    }
}
