// Pooling of packed sequences (src/ops/pool): one row a sequence, from its first token, the mean, or the maximum.
//
// x [tokens, width], y [sequences, width], cu_seqlens [sequences + 1]; no sequence is empty (the host checks).
// A block has 32 · PACK columns of a sequence. Its warps share the tokens: warp w has tokens w, w + n, …, eight of them on
// their way at once. Grid: (sequences, ceil(width / (32 · PACK))). Block: (32, n), n at most 8 and fixed: the order of the
// sums depends on it.

#define FIRST 0
#define MEAN 1
#define MAX 2

// The sum or the maximum of v over the warps of a block, in their order, for the first warp. Once a kernel.
__device__ __forceinline__ void combine(float (&v)[PACK], int pooling) {
    __shared__ float parts[8][PACK][32];
#pragma unroll
    for (int i = 0; i < PACK; i++) parts[threadIdx.y][i][threadIdx.x] = v[i];
    __syncthreads();
    if (threadIdx.y != 0) return;
    for (unsigned warp = 1; warp < blockDim.y; warp++) {
#pragma unroll
        for (int i = 0; i < PACK; i++) {
            float part = parts[warp][i][threadIdx.x];
            v[i] = pooling == MEAN ? v[i] + part : fmaxf(v[i], part);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 4) pool_forward(
    number* __restrict__ y, const number* __restrict__ x, const unsigned* __restrict__ cu_seqlens, unsigned width,
    int pooling
) {
    unsigned first = cu_seqlens[blockIdx.x], last = pooling == FIRST ? first + 1 : cu_seqlens[blockIdx.x + 1];
    unsigned column = (blockIdx.y * 32 + threadIdx.x) * PACK;
    bool vector = width % PACK == 0 && aligned16(x) && aligned16(y);
    float v[PACK];
#pragma unroll
    for (int i = 0; i < PACK; i++) v[i] = pooling == MAX ? -INFINITY_F : 0.0f;
    for (unsigned token = first + threadIdx.y; token < last; token += 8 * blockDim.y) {
        uint4 read[8];
#pragma unroll
        for (unsigned j = 0; j < 8; j++) {
            unsigned at = token + j * blockDim.y;
            if (at < last) read[j] = load_pack(x + (u64)at * width, column, width, vector);
        }
#pragma unroll
        for (unsigned j = 0; j < 8; j++) {
            if (token + j * blockDim.y >= last) break;
            float next[PACK];
            unpack(read[j], next);
#pragma unroll
            for (int i = 0; i < PACK; i++) v[i] = pooling == MAX ? fmaxf(v[i], next[i]) : v[i] + next[i];
        }
    }
    if (pooling != FIRST) combine(v, pooling);
    if (threadIdx.y != 0) return;
    if (pooling == MEAN) {
        float share = 1.0f / (float)(last - first);
#pragma unroll
        for (int i = 0; i < PACK; i++) v[i] *= share;
    }
    if (pooling == MAX) {
        // A sequence that begins with no number has none for its maximum; others that are none do not count.
        float start[PACK];
        unpack(load_pack(x + (u64)first * width, column, width, vector), start);
#pragma unroll
        for (int i = 0; i < PACK; i++) v[i] = start[i] != start[i] ? start[i] : v[i];
    }
    store_pack(y + (u64)blockIdx.x * width, column, width, vector, packed(v));
}

// The first token that has the maximum, of each column of a thread's: for all warps of a block. Once a kernel.
__device__ __forceinline__ void find_winners(
    unsigned (&winners)[PACK], const number* x, const number* y, unsigned first, unsigned last, unsigned column,
    unsigned width, bool vector
) {
    __shared__ unsigned found[8][PACK][32];
    float best[PACK];
    unpack(load_pack(y, column, width, vector), best);
#pragma unroll
    for (int i = 0; i < PACK; i++) winners[i] = last;
    // Backwards, so that the first one stays.
    unsigned count = last - first > threadIdx.y ? (last - first - threadIdx.y - 1) / blockDim.y + 1 : 0;
#pragma unroll 4
    while (count-- > 0) {
        unsigned token = first + threadIdx.y + count * blockDim.y;
        float v[PACK];
        unpack(load_pack(x + (u64)token * width, column, width, vector), v);
#pragma unroll
        for (int i = 0; i < PACK; i++) winners[i] = v[i] == best[i] ? token : winners[i];
    }
#pragma unroll
    for (int i = 0; i < PACK; i++) found[threadIdx.y][i][threadIdx.x] = winners[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < PACK; i++) {
        for (unsigned warp = 0; warp < blockDim.y; warp++) winners[i] = min(winners[i], found[warp][i][threadIdx.x]);
        // No token has a maximum that is NaN.
        if (winners[i] == last) winners[i] = first;
    }
}

// dx (+)= the gradient; tokens that have none get 0. That of a maximum goes to the first token that has it.
extern "C" __global__ void __launch_bounds__(256) pool_backward(
    number* __restrict__ dx, int accumulate, const number* __restrict__ dy, const number* __restrict__ x,
    const number* __restrict__ y, const unsigned* __restrict__ cu_seqlens, unsigned width, int pooling
) {
    unsigned first = cu_seqlens[blockIdx.x], last = cu_seqlens[blockIdx.x + 1];
    unsigned column = (blockIdx.y * 32 + threadIdx.x) * PACK;
    bool vector = width % PACK == 0 && aligned16(dx) && aligned16(dy) && aligned16(x) && aligned16(y);
    u64 at = (u64)blockIdx.x * width;
    unsigned winners[PACK];
#pragma unroll
    for (int i = 0; i < PACK; i++) winners[i] = first;
    if (pooling == MAX) find_winners(winners, x, y + at, first, last, column, width, vector);
    float slope[PACK], share = pooling == MEAN ? 1.0f / (float)(last - first) : 1.0f;
    unpack(load_pack(dy + at, column, width, vector), slope);
#pragma unroll
    for (int i = 0; i < PACK; i++) slope[i] *= share;
    // Where there is something already, only the first token's row changes.
    if (pooling == FIRST && accumulate) last = first + 1;
    for (unsigned token = first + threadIdx.y; token < last; token += blockDim.y) {
        float v[PACK];
#pragma unroll
        for (int i = 0; i < PACK; i++) v[i] = pooling == MEAN || winners[i] == token ? slope[i] : 0.0f;
        put_pack(dx + (u64)token * width, column, width, vector, v, accumulate);
    }
}
