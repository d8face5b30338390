// The sum of two tensors (src/ops/add): y = a + b, `len` numbers. Both gradients are `scaled` (vector.cu) of that of y.
//
// Grid: enough blocks, or fewer: threads stride. Block: (threads, 1).
extern "C" __global__ void add_forward(
    number* __restrict__ y, const number* __restrict__ a, const number* __restrict__ b, u64 len
) {
    bool vector = aligned16(y) && aligned16(a) && aligned16(b);
    u64 stride = (u64)gridDim.x * blockDim.x * PACK;
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * PACK; i < len; i += stride) {
        unsigned count = len - i < PACK ? (unsigned)(len - i) : PACK;
        bool whole = vector && count == PACK;
        uint4 first = load_pack(a + i, 0, count, whole), second = load_pack(b + i, 0, count, whole);
        float v[PACK], more[PACK];
        unpack(first, v);
        unpack(second, more);
#pragma unroll
        for (int j = 0; j < PACK; j++) v[j] += more[j];
        store_pack(y + i, 0, count, whole, packed(v));
    }
}
