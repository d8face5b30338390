// Inverted dropout (src/ops/dropout), forward and backward: target (+)= values · mask / (1 − p), `len` numbers.
//
// Grid: enough blocks, or fewer: threads stride. Block: (threads, 1).
extern "C" __global__ void dropout(
    number* __restrict__ target, int accumulate, const number* __restrict__ values, u64 len, Mask mask
) {
    bool vector = aligned16(target) && aligned16(values);
    u64 stride = (u64)gridDim.x * blockDim.x * 4;
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < len; i += stride) {
        unsigned count = len - i < 4 ? (unsigned)(len - i) : 4;
        float4 v = dropout4(mask, i, load4(values + i, 0, count, vector && count == 4));
        put4(target + i, 0, count, vector && count == 4, v, accumulate);
    }
}
