// Seeded races, and what goes with them; `NAME_ok` is the correct twin.
#include "common.cuh"

// Tree reduction.
KERNEL(tree) {
    __shared__ float s[256];
    s[TID] = x[TID];
    __syncthreads();
    for (int k = 128; k > 0; k >>= 1) {
        if (TID < k) s[TID] += s[TID + k]; // expect race
    }
    if (TID == 0) y[0] = s[0] * n;
}
KERNEL(tree_ok) {
    __shared__ float s[256];
    s[TID] = x[TID];
    __syncthreads();
    for (int k = 128; k > 0; k >>= 1) {
        if (TID < k) s[TID] += s[TID + k];
        __syncthreads();
    }
    if (TID == 0) y[0] = s[0] * n;
}
// LayerNorm: the slot of the mean is used again for the variance.
KERNEL(layernorm) {
    __shared__ float part[4], total;
    float v = x[BLOCK * 128 + TID], sum = warp_sum(v);
    if (TID % 32 == 0) part[TID / 32] = sum;
    __syncthreads();
    if (TID == 0) total = part[0] + part[1] + part[2] + part[3];
    __syncthreads();
    float d = v - total / 128; // expect race
    sum = warp_sum(d * d);
    if (TID % 32 == 0) part[TID / 32] = sum;
    if (TID % 32 == 31) total = n; // expect race
    __syncthreads();
    y[BLOCK * 128 + TID] = d * rsqrtf((part[0] + part[1] + part[2] + part[3]) / 128 + total);
}
KERNEL(layernorm_ok) {
    __shared__ float part[4], total;
    float v = x[BLOCK * 128 + TID], sum = warp_sum(v);
    if (TID % 32 == 0) part[TID / 32] = sum;
    __syncthreads();
    if (TID == 0) total = part[0] + part[1] + part[2] + part[3];
    __syncthreads();
    float d = v - total / 128;
    sum = warp_sum(d * d);
    __syncthreads();
    if (TID % 32 == 0) part[TID / 32] = sum;
    if (TID == 31) total = n;
    __syncthreads();
    y[BLOCK * 128 + TID] = d * rsqrtf((part[0] + part[1] + part[2] + part[3]) / 128 + total);
}
// One tile buffer and one barrier per step: the next tile is written while others still read.
KERNEL(tiles) {
    __shared__ float tile[128];
    float sum = 0;
    for (int k = 0; k < n; k++) {
        tile[TID] = x[k * 128 + TID]; // expect race
        __syncthreads();
        for (int j = 0; j < 128; j += 4) sum += tile[(j + TID) & 127]; // expect race
    }
    y[TID] = sum;
}
KERNEL(tiles_ok) {
    __shared__ float tile[128];
    float sum = 0;
    for (int k = 0; k < n; k++) {
        __syncthreads();
        tile[TID] = x[k * 128 + TID];
        __syncthreads();
        for (int j = 0; j < 128; j += 4) sum += tile[(j + TID) & 127];
    }
    y[TID] = sum;
}
// A warp transposes through shared memory.
KERNEL(warp_transpose) {
    __shared__ float t[32][33];
    for (int r = 0; r < 32; r++) t[r][TID] = x[r * 32 + TID]; // expect race
    for (int r = 0; r < 32; r++) y[r * 32 + TID] = t[TID][r] * n; // expect race
}
KERNEL(warp_transpose_ok) {
    __shared__ float t[32][33];
    for (int r = 0; r < 32; r++) t[r][TID] = x[r * 32 + TID];
    __syncwarp();
    for (int r = 0; r < 32; r++) y[r * 32 + TID] = t[TID][r] * n;
}
// Lane 0 hands a value to its warp.
KERNEL(warp_broadcast) {
    __shared__ float s[4];
    float v = warp_sum(x[TID]);
    if (TID % 32 == 0) s[TID / 32] = v; // expect race
    y[TID] = s[TID / 32] * n; // expect race
}
KERNEL(warp_broadcast_ok) {
    __shared__ float s[4];
    float v = warp_sum(x[TID]);
    if (TID % 32 == 0) s[TID / 32] = v;
    __syncwarp();
    y[TID] = s[TID / 32] * n;
}
// The last steps of a reduction as they were written before Volta.
KERNEL(warp_tail) {
    __shared__ float s[64];
    s[TID] = x[TID];
    s[TID + 32] = x[TID + 32];
    __syncthreads();
    s[TID] += s[TID + 32]; // expect race
    s[TID] += s[TID + 16 & 63]; // expect race
    y[TID] = s[0] * n; // expect race
}
// Two warps write one slot.
KERNEL(row_maximum) {
    __shared__ float most[2];
    float v = x[TID] * TID;
    for (int k = 16; k > 0; k >>= 1) v = fmaxf(v, __shfl_xor_sync(FULL, v, k));
    if (TID % 32 == 0) most[TID / 64] = v; // expect race
    __syncthreads();
    y[TID] = most[TID / 64] * n;
}
// Hillis-Steele scan in one buffer.
KERNEL(scan) {
    __shared__ float s[128];
    s[TID] = x[TID];
    __syncthreads();
    for (int k = 1; k < 128; k *= 2) {
        float v = TID >= k ? s[TID - k] : 0; // expect race
        s[TID] += v; // expect race
        __syncthreads();
    }
    y[TID] = s[TID] * n;
}
KERNEL(scan_ok) {
    __shared__ float s[128];
    s[TID] = x[TID];
    __syncthreads();
    for (int k = 1; k < 128; k *= 2) {
        float v = TID >= k ? s[TID - k] : 0;
        __syncthreads();
        s[TID] += v;
        __syncthreads();
    }
    y[TID] = s[TID] * n;
}
// Counters are zeroed and counted with no barrier between.
KERNEL(histogram_zeroing) {
    __shared__ int bins[64];
    if (TID < 64) bins[TID] = 0; // expect race
    atomicAdd(&bins[(int)(x[TID] * 2 + 40) & 63], 1); // expect race may uninitialised
    __syncthreads();
    if (TID < 64) atomicAdd((int*)&y[TID], bins[TID] * n);
}
// Counters are read with no barrier after the counting.
KERNEL(histogram_reading) {
    __shared__ int bins[64];
    if (TID < 64) bins[TID] = 0;
    __syncthreads();
    atomicAdd(&bins[(int)(x[TID] * 2) & 63], 1); // expect race
    if (TID < 64) atomicAdd((int*)&y[TID], bins[TID] * n); // expect race
}
KERNEL(histogram_ok) {
    __shared__ int bins[64];
    if (TID < 64) bins[TID] = 0;
    __syncthreads();
    atomicAdd(&bins[(int)(x[TID] * 2) & 63], 1);
    __syncthreads();
    if (TID < 64) atomicAdd((int*)&y[TID], bins[TID] * n);
}
// Gradients of an embedding: several tokens have one row.
KERNEL(scatter) {
    int row = (BLOCK * 7) % 3;
    y[row * 32 + TID] += x[BLOCK * 32 + TID] * n; // expect race
}
KERNEL(scatter_ok) {
    int row = (BLOCK * 7) % 3;
    atomicAdd(&y[row * 32 + TID], x[BLOCK * 32 + TID] * n);
}
// A smoothing in place: the neighbour belongs to another warp.
KERNEL(stencil) {
    float v = x[TID], w = TID + 1 < 128 ? x[TID + 1] : 0; // expect race
    x[TID] = (v + w) * n; // expect race
}
KERNEL(stencil_ok) {
    float v = x[TID], w = TID + 1 < 128 ? x[TID + 1] : 0;
    __syncthreads();
    x[TID] = (v + w) * n;
}
// A block's scratch in global memory.
KERNEL(scratch) {
    y[BLOCK * 128 + TID] = x[TID] * n; // expect race
    x[BLOCK * 128 + TID] = y[BLOCK * 128 + 127 - TID]; // expect race
}
KERNEL(scratch_ok) {
    y[BLOCK * 128 + TID] = x[BLOCK * 128 + TID] * n;
    __syncthreads();
    x[BLOCK * 128 + TID] = y[BLOCK * 128 + 127 - TID];
}
// The same within a warp.
KERNEL(scratch_of_a_warp) {
    y[TID] = x[TID] * n; // expect race
    x[TID] = y[TID ^ 5]; // expect race
}
KERNEL(scratch_of_a_warp_ok) {
    y[TID] = x[TID] * n;
    __syncwarp();
    x[TID] = y[TID ^ 5];
}
// Threads count in a plain variable.
KERNEL(plain_counter) {
    if (x[TID] > n) y[0] += 1; // expect race
}
KERNEL(plain_counter_ok) {
    if (x[TID] > n) atomicAdd(&y[0], 1.f);
}
// A total by atomics that one block reads in the midst of it.
KERNEL(total_read_early) {
    atomicAdd(&y[0], x[BLOCK * 32 + TID] * n); // expect race
    __syncthreads();
    if (TID == 0) y[BLOCK + 1] = y[0]; // expect race
}
// Eight readers, then a write by another warp that they were not kept apart from.
KERNEL(many_readers) {
    __shared__ float shift;
    if (TID == 0) shift = x[0];
    __syncthreads();
    float v = x[TID] - shift; // expect race
    if (TID / 32 == n) { BAR_SYNC(1, 32); }
    if (TID == n * 32) shift = v; // expect race
    __syncthreads();
    y[TID] = v + shift;
}
// Attention: V's tile takes the place of K's.
KERNEL(attention) {
    __shared__ float tile[64][17];
    float q[16], score[4], out = 0;
    for (int k = 0; k < 16; k++) q[k] = x[TID * 16 + k];
    for (int k = 0; k < 16; k++) tile[TID][k] = x[1024 + TID * 16 + k];
    __syncthreads();
    for (int j = 0; j < 4; j++) {
        score[j] = 0;
        for (int k = 0; k < 16; k++) score[j] += q[k] * tile[(TID + j * 16) & 63][k]; // expect race
    }
    for (int k = 0; k < 16; k++) tile[TID][k] = x[2048 + TID * 16 + k]; // expect race
    __syncthreads();
    for (int j = 0; j < 4; j++) out += score[j] * tile[(TID + j * 16) & 63][n];
    y[TID] = out;
}
KERNEL(attention_ok) {
    __shared__ float tile[64][17];
    float q[16], score[4], out = 0;
    for (int k = 0; k < 16; k++) q[k] = x[TID * 16 + k];
    for (int k = 0; k < 16; k++) tile[TID][k] = x[1024 + TID * 16 + k];
    __syncthreads();
    for (int j = 0; j < 4; j++) {
        score[j] = 0;
        for (int k = 0; k < 16; k++) score[j] += q[k] * tile[(TID + j * 16) & 63][k];
    }
    __syncthreads();
    for (int k = 0; k < 16; k++) tile[TID][k] = x[2048 + TID * 16 + k];
    __syncthreads();
    for (int j = 0; j < 4; j++) out += score[j] * tile[(TID + j * 16) & 63][n];
    y[TID] = out;
}
// A counter in shared memory, read by the thread that came last.
KERNEL(shared_counter_read) {
    __shared__ int count;
    if (TID == 0) count = 0;
    __syncthreads();
    atomicAdd(&count, 1); // expect race
    if (TID == 255) y[0] = count; // expect race
}
KERNEL(shared_counter_read_ok) {
    __shared__ int count;
    if (TID == 0) count = 0;
    __syncthreads();
    atomicAdd(&count, 1);
    __syncthreads();
    if (TID == 255) y[0] = count;
}
