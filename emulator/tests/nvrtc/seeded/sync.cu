// Seeded bugs of barriers, of what warps do together, and of asynchronous copies; `NAME_ok` is the correct twin.
#include "common.cuh"

// A barrier that only a part of each warp reaches.
KERNEL(barrier_in_branch) {
    __shared__ float s[128];
    s[TID] = x[TID];
    if (TID % 32 < n) {
        s[TID] += 1;
        __syncthreads(); // expect barrier-divergence
    }
    y[TID] = s[TID];
}
// The same by whole warps, which the chip lets pass because the others exit.
KERNEL(barrier_in_branch_of_warps) {
    __shared__ float s[128];
    s[TID] = x[TID];
    if (TID < n) {
        s[TID] += 1;
        __syncthreads(); // expect barrier-divergence
    }
    y[TID] = s[TID];
}
// The classic: the barrier of a tree reduction inside its condition.
KERNEL(barrier_in_tree) {
    __shared__ float s[256];
    s[TID] = x[TID] * n;
    __syncthreads();
    for (int k = 128; k > 0; k >>= 1)
        if (TID < k) {
            s[TID] += s[TID + k];
            __syncthreads(); // expect barrier-divergence
        }
    if (TID == 0) y[0] = s[0];
}
// Whole warps go around one barrier and meet the others at the next.
KERNEL(warps_at_two_barriers) {
    __shared__ float s[128];
    s[TID] = x[TID];
    if (TID < n) {
        s[TID] *= 2;
        __syncthreads(); // expect barrier-divergence
    }
    __syncthreads(); // expect barrier-divergence
    y[TID] = s[TID];
}
// A barrier in a loop that threads leave after different numbers of steps: of a warp, and by whole warps.
KERNEL(barrier_in_ragged_loop) {
    __shared__ float s[128];
    float sum = 0;
    for (int k = TID; k < n; k += 128) {
        s[TID] = x[k]; // may race
        __syncthreads(); // expect barrier-divergence
        sum += s[127 - TID]; // may race
    }
    if (TID == 0) y[0] = sum;
}
KERNEL(barrier_in_loop_ok) {
    __shared__ float s[128];
    float sum = 0;
    for (int k = 0; k < n; k += 128) {
        s[TID] = k + TID < n ? x[k + TID] : 0;
        __syncthreads();
        sum += s[127 - TID];
        __syncthreads();
    }
    if (TID == 0) y[0] = sum;
}
// Rows beyond the end leave at once: threads that have exited are not waited for.
KERNEL(early_exit_ok) {
    __shared__ float s[128];
    if (TID >= n) return;
    s[TID] = x[TID];
    __syncthreads();
    y[TID] = s[n - 1 - TID];
}
// More threads are waited for than ever come.
KERNEL(barrier_for_too_many) {
    __shared__ float s[64];
    if (TID < 64) {
        s[TID] = x[TID];
        BAR_SYNC(1, n * 32); // expect barrier-divergence
        y[TID] = s[63 - TID];
    }
}
KERNEL(barrier_for_some_ok) {
    __shared__ float s[64];
    if (TID < 64) {
        s[TID] = x[TID];
        BAR_SYNC(1, 64);
        y[TID] = s[63 - TID] * n;
    }
}
// Fewer threads are waited for than come: warps pass two by two.
KERNEL(barrier_for_too_few) {
    __shared__ float s[128];
    s[TID] = x[TID] * n; // expect race
    BAR_SYNC(1, 64);
    y[TID] = s[(TID + 32) & 127] + s[(TID + 64) & 127] + s[(TID + 96) & 127]; // expect race may uninitialised
}
// Producer and consumer name different barriers.
KERNEL(barriers_crossed) {
    __shared__ float s[64];
    if (TID < 64) {
        s[TID] = x[TID];
        BAR_ARRIVE(1, 128);
    } else {
        BAR_SYNC(n, 128); // expect barrier-divergence
        y[TID] = s[TID - 64];
    }
}
KERNEL(barriers_paired_ok) {
    __shared__ float s[64];
    if (TID < 64) {
        s[TID] = x[TID];
        BAR_ARRIVE(1, 128);
    } else {
        BAR_SYNC(1, 128);
        y[TID] = s[TID - 64] * n;
    }
}
KERNEL(shuffle_in_branch) {
    float v = x[TID];
    if (TID < n) v += __shfl_down_sync(FULL, v, 8); // expect inactive-lane
    y[TID] = v;
}
// The mask names the right lanes, but the source lies beyond them.
KERNEL(shuffle_from_outside) {
    float v = x[TID];
    if (TID < 16) v += __shfl_sync(0xffffu, v, TID + n); // expect inactive-lane
    y[TID] = v;
}
KERNEL(shuffle_half_ok) {
    float v = x[TID] * n;
    if (TID < 16) v += __shfl_xor_sync(0xffffu, v, 8);
    y[TID] = v;
}
KERNEL(ballot_in_branch) {
    unsigned seen = 0;
    if (TID < n) seen = __ballot_sync(FULL, x[TID] > 1); // expect inactive-lane
    y[TID] = seen;
}
KERNEL(ballot_ok) {
    unsigned all = __ballot_sync(FULL, TID < n), seen = 0;
    if (TID < n) seen = __ballot_sync(all, x[TID] > 1);
    y[TID] = seen;
}
// A matrix product that half of the warp takes part in.
KERNEL(product_in_branch) {
    __shared__ __align__(16) unsigned tile[128];
    for (int k = 0; k < 4; k++) tile[TID * 4 + k] = 0x3f803f80;
    __syncthreads();
    unsigned a[4];
    float c[4] = {};
    ldmatrix_x4(a, &tile[TID * 4]);
    if (x[TID] < n) mma_bf16(c, a, a[0], a[1]); // expect inactive-lane
    y[TID] = c[0] + c[3]; // may uninitialised
}
KERNEL(fragments_in_branch) {
    __shared__ __align__(16) unsigned tile[128];
    for (int k = 0; k < 4; k++) tile[TID * 4 + k] = 0x3f803f80;
    __syncthreads();
    unsigned a[4] = {};
    if (TID < n) ldmatrix_x4(a, &tile[TID * 4]); // expect inactive-lane may uninitialised
    y[TID] = a[0] + a[3];
}
KERNEL(product_ok) {
    __shared__ __align__(16) unsigned tile[128];
    for (int k = 0; k < 4; k++) tile[TID * 4 + k] = 0x3f803f80;
    __syncthreads();
    unsigned a[4];
    float c[4] = {};
    ldmatrix_x4(a, &tile[TID * 4]);
    mma_bf16(c, a, a[0], a[1]);
    y[TID] = (c[0] + c[3]) * n;
}
// A GEMM's pipeline of three stages: the wait leaves one group too many under way.
KERNEL(pipeline) {
    __shared__ __align__(16) float stage[3][128];
    float sum = 0;
    for (int k = 0; k < 2; k++) {
        copy_async16(&stage[k][TID * 4], x + k * 128 + TID * 4);
        COMMIT();
    }
    for (int k = 0; k < n; k++) {
        WAIT_GROUP(2);
        __syncwarp();
        sum += stage[k % 3][TID] + stage[k % 3][127 - TID]; // expect async-pending may race
        __syncwarp();
        if (k + 2 < n) copy_async16(&stage[(k + 2) % 3][TID * 4], x + (k + 2) * 128 + TID * 4); // may race
        COMMIT();
    }
    y[TID] = sum;
}
KERNEL(pipeline_ok) {
    __shared__ __align__(16) float stage[3][128];
    float sum = 0;
    for (int k = 0; k < 2; k++) {
        copy_async16(&stage[k][TID * 4], x + k * 128 + TID * 4);
        COMMIT();
    }
    for (int k = 0; k < n; k++) {
        WAIT_GROUP(1);
        __syncwarp();
        sum += stage[k % 3][TID] + stage[k % 3][127 - TID];
        __syncwarp();
        if (k + 2 < n) copy_async16(&stage[(k + 2) % 3][TID * 4], x + (k + 2) * 128 + TID * 4);
        COMMIT();
    }
    y[TID] = sum;
}
KERNEL(copies_not_waited_for) {
    __shared__ float s[128];
    copy_async(&s[TID], &x[TID]); // may race
    COMMIT();
    __syncthreads();
    y[TID] = s[127 - TID] * n; // expect async-pending may race
}
// A thread waits for its own copies, but reads what another thread's brought.
KERNEL(copies_of_others) {
    __shared__ float s[128];
    copy_async(&s[TID], &x[TID]); // expect race
    COMMIT();
    WAIT_GROUP(0);
    y[TID] = s[127 - TID] * n; // expect race may async-pending may uninitialised
}
KERNEL(copies_ok) {
    __shared__ float s[128];
    copy_async(&s[TID], &x[TID]);
    COMMIT();
    WAIT_GROUP(0);
    __syncthreads();
    y[TID] = s[127 - TID] * n;
}
// The group is never closed, so that waiting for all groups waits for nothing.
KERNEL(copies_not_committed) {
    __shared__ float s[128];
    copy_async(&s[TID], &x[TID]); // may race
    WAIT_GROUP(0);
    __syncthreads();
    y[TID] = s[127 - TID] * n; // expect async-pending may race
}
// A tile product with copies, fragments and matrix products: the buffer is filled again while others read fragments.
KERNEL(gemm) {
    __shared__ __align__(16) unsigned tile[2][64 * 12];
    float c[4] = {};
    for (int i = TID; i < 128; i += 64) copy_async16(&tile[0][i / 2 * 12 + i % 2 * 4], x + i * 4);
    COMMIT();
    for (int k = 0; k < n; k++) {
        if (k + 1 < n)
            for (int i = TID; i < 128; i += 64)
                copy_async16(&tile[(k + 1) & 1][i / 2 * 12 + i % 2 * 4], x + (k + 1) * 512 + i * 4); // expect race
        COMMIT();
        WAIT_GROUP(1);
        __syncthreads();
        unsigned a[4], b[4];
        ldmatrix_x4(a, &tile[k & 1][(TID / 32 * 16 + TID % 16) * 12 + TID / 16 % 2 * 4]); // expect race
        ldmatrix_x4(b, &tile[k & 1][(32 + TID % 8 + TID / 16 % 2 * 8) * 12 + TID / 8 % 2 * 4]); // expect race may async-pending
        mma_bf16(c, a, b[0], b[1]);
    }
    y[TID] = c[0] + c[1] + c[2] + c[3];
}
KERNEL(gemm_ok) {
    __shared__ __align__(16) unsigned tile[2][64 * 12];
    float c[4] = {};
    for (int i = TID; i < 128; i += 64) copy_async16(&tile[0][i / 2 * 12 + i % 2 * 4], x + i * 4);
    COMMIT();
    for (int k = 0; k < n; k++) {
        if (k + 1 < n)
            for (int i = TID; i < 128; i += 64)
                copy_async16(&tile[(k + 1) & 1][i / 2 * 12 + i % 2 * 4], x + (k + 1) * 512 + i * 4);
        COMMIT();
        WAIT_GROUP(1);
        __syncthreads();
        unsigned a[4], b[4];
        ldmatrix_x4(a, &tile[k & 1][(TID / 32 * 16 + TID % 16) * 12 + TID / 16 % 2 * 4]);
        ldmatrix_x4(b, &tile[k & 1][(32 + TID % 8 + TID / 16 % 2 * 8) * 12 + TID / 8 % 2 * 4]);
        mma_bf16(c, a, b[0], b[1]);
        __syncthreads();
    }
    y[TID] = c[0] + c[1] + c[2] + c[3];
}
// A ring of two stages: the next copy starts before all have read the stage.
KERNEL(ring) {
    __shared__ float stage[2][128];
    float sum = 0;
    copy_async(&stage[0][TID], &x[TID]);
    COMMIT();
    for (int k = 0; k < n; k++) {
        if (k + 1 < n) copy_async(&stage[(k + 1) & 1][TID], &x[(k + 1) * 128 + TID]); // expect race
        COMMIT();
        WAIT_GROUP(1);
        __syncthreads();
        sum += stage[k & 1][127 - TID]; // expect race may async-pending
    }
    y[TID] = sum;
}
KERNEL(ring_ok) {
    __shared__ float stage[2][128];
    float sum = 0;
    copy_async(&stage[0][TID], &x[TID]);
    COMMIT();
    for (int k = 0; k < n; k++) {
        if (k + 1 < n) copy_async(&stage[(k + 1) & 1][TID], &x[(k + 1) * 128 + TID]);
        COMMIT();
        WAIT_GROUP(1);
        __syncthreads();
        sum += stage[k & 1][127 - TID];
        __syncthreads();
    }
    y[TID] = sum;
}
// Copies that arrive at an mbarrier: the consumer waits for the phase before.
KERNEL(mbarrier_wrong_phase) {
    __shared__ __align__(8) mbarrier_t full;
    __shared__ float s[64];
    if (TID == 0) mbarrier_init(&full, 64);
    __syncthreads();
    if (TID < 64) {
        copy_async(&s[TID], &x[TID]); // may race
        mbarrier_arrive_copies_noinc(&full);
    } else {
        mbarrier_wait(&full, n);
        y[TID] = s[TID - 64]; // expect race may async-pending may uninitialised
    }
}
KERNEL(mbarrier_not_waited_for) {
    __shared__ __align__(8) mbarrier_t full;
    __shared__ float s[64];
    if (TID == 0) mbarrier_init(&full, 64);
    __syncthreads();
    copy_async(&s[TID], &x[TID]); // may race
    mbarrier_arrive_copies_noinc(&full);
    __syncthreads();
    y[TID] = s[63 - TID] * n; // expect async-pending may race
}
KERNEL(mbarrier_ok) {
    __shared__ __align__(8) mbarrier_t full;
    __shared__ float s[64];
    if (TID == 0) mbarrier_init(&full, 64);
    __syncthreads();
    if (TID < 64) {
        copy_async(&s[TID], &x[TID]);
        mbarrier_arrive_copies_noinc(&full);
    } else {
        mbarrier_wait(&full, 0);
        y[TID] = s[TID - 64] * n;
    }
}
// Without `noinc` the copies' arrival is added and taken away: each thread arrives by itself too.
KERNEL(mbarrier_added_arrivals_ok) {
    __shared__ __align__(8) mbarrier_t full;
    __shared__ float s[64];
    if (TID == 0) mbarrier_init(&full, 64);
    __syncthreads();
    copy_async(&s[TID], &x[TID]);
    mbarrier_arrive_copies(&full);
    mbarrier_arrive(&full);
    mbarrier_wait(&full, 0);
    y[TID] = s[63 - TID] * n;
}
// One arrival more is expected than ever comes.
KERNEL(mbarrier_count) {
    __shared__ __align__(8) mbarrier_t m;
    if (TID == 0) mbarrier_init(&m, n);
    __syncthreads();
    mbarrier_arrive(&m);
    mbarrier_wait(&m, 0); // expect timeout
    y[TID] = x[TID];
}
// The mbarrier is made while others already use it.
KERNEL(mbarrier_made_late) {
    __shared__ __align__(8) mbarrier_t m;
    if (TID == 0) mbarrier_init(&m, n); // may race
    mbarrier_arrive(&m); // either race uninitialised may illegal-instruction
    mbarrier_wait(&m, 0); // may race may uninitialised
    y[TID] = x[TID];
}
