// Pooling of packed sequences (src/ops/pool): one row a sequence, from its first token, the mean, or the maximum.
//
// x [tokens, width], y [sequences, width], cu_seqlens [sequences + 1]; no sequence is empty (the host checks).
// Grid: ceil(sequences / blockDim.y). Block: (32, n), or (threads, 1): a row of threads has a sequence.

#define FIRST 0
#define MEAN 1
#define MAX 2

extern "C" __global__ void pool_forward(
    number* __restrict__ y, const number* __restrict__ x, const unsigned* __restrict__ cu_seqlens, unsigned sequences,
    unsigned width, int pooling
) {
    unsigned sequence = my_row();
    if (sequence >= sequences) return;
    unsigned first = cu_seqlens[sequence], last = cu_seqlens[sequence + 1];
    for (unsigned column = threadIdx.x; column < width; column += blockDim.x) {
        float value = widened(x[(u64)first * width + column]);
        if (pooling != FIRST) {
            for (unsigned token = first + 1; token < last; token++) {
                float next = widened(x[(u64)token * width + column]);
                value = pooling == MEAN ? value + next : next > value ? next : value;
            }
            if (pooling == MEAN) value *= 1.0f / (float)(last - first);
        }
        store1(y + (u64)sequence * width + column, value);
    }
}

// dx (+)= the gradient; tokens that have none get 0. That of a maximum goes to the first token that has it.
extern "C" __global__ void pool_backward(
    number* __restrict__ dx, int accumulate, const number* __restrict__ dy, const number* __restrict__ x,
    const number* __restrict__ y, const unsigned* __restrict__ cu_seqlens, unsigned sequences, unsigned width,
    int pooling
) {
    unsigned sequence = my_row();
    if (sequence >= sequences) return;
    unsigned first = cu_seqlens[sequence], last = cu_seqlens[sequence + 1];
    for (unsigned column = threadIdx.x; column < width; column += blockDim.x) {
        unsigned winner = first;
        float slope = widened(dy[(u64)sequence * width + column]);
        if (pooling == MEAN) slope *= 1.0f / (float)(last - first);
        if (pooling == MAX) {
            float best = widened(y[(u64)sequence * width + column]);
            while (winner < last && widened(x[(u64)winner * width + column]) != best) winner++;
            // No token has a maximum that is NaN.
            if (winner == last) winner = first;
        }
        for (unsigned token = first; token < last; token++) {
            u64 at = (u64)token * width + column;
            if (pooling == MEAN || token == winner) store1(dx + at, accumulate ? widened(dx[at]) + slope : slope);
            else if (!accumulate) store1(dx + at, 0.0f);
        }
    }
}
