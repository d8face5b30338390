// The sum of two tensors (src/ops/add): y = a + b, `len` numbers. Both gradients are `scaled` (vector.cu) of that of y.
//
// Grid: enough blocks, or fewer: threads stride. Block: (threads, 1).
extern "C" __global__ void add_forward(
    number* __restrict__ y, const number* __restrict__ a, const number* __restrict__ b, u64 len
) {
    bool vector = aligned16(y) && aligned16(a) && aligned16(b);
    u64 stride = (u64)gridDim.x * blockDim.x * 4;
    for (u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < len; i += stride) {
        unsigned count = len - i < 4 ? (unsigned)(len - i) : 4;
        bool whole = vector && count == 4;
        store4(y + i, 0, count, whole, add4(load4(a + i, 0, count, whole), load4(b + i, 0, count, whole)));
    }
}
