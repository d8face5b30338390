// Correct kernels that a checker could take for wrong ones: nothing may be reported.
#include "common.cuh"

__device__ unsigned ticket, arrived;
__device__ int lock_word;
__device__ volatile int status[64];

// Reduction in one pass, with volatile partial sums and a reset counter, as in the vendor's samples.
KERNEL(single_pass_reduction) {
    __shared__ float s[128];
    __shared__ bool last;
    volatile float* part = y;
    float v = 0;
    for (int k = BLOCK * 128 + TID; k < n; k += gridDim.x * 128) v += x[k];
    s[TID] = v;
    __syncthreads();
    for (int k = 64; k > 0; k >>= 1) {
        if (TID < k) s[TID] = v = v + s[TID + k];
        __syncthreads();
    }
    if (TID == 0) part[BLOCK] = v;
    __threadfence();
    if (TID == 0) last = atomicInc(&ticket, gridDim.x) == gridDim.x - 1;
    __syncthreads();
    if (last) {
        v = 0;
        for (int k = TID; k < gridDim.x; k += 128) v += part[k];
        v = warp_sum(v);
        __syncthreads();
        if (TID % 32 == 0) s[TID / 32] = v;
        __syncthreads();
        if (TID == 0) {
            y[64] = s[0] + s[1] + s[2] + s[3];
            ticket = 0;
        }
    }
}
// Scan by decoupled look-back: tiles in the order of a ticket, status words, sums behind fences.
KERNEL(look_back) {
    __shared__ int tile, before;
    if (TID == 0) tile = atomicAdd(&ticket, 1);
    __syncthreads();
    int sum = (int)x[tile * 32 + TID];
    for (int k = 1; k < 32; k *= 2) {
        int v = __shfl_up_sync(FULL, sum, k);
        if (TID >= k) sum += v;
    }
    int* own = (int*)y;      // sum of a tile
    int* up_to = (int*)y + 64; // sum up to and with a tile
    if (TID == 31) {
        own[tile] = sum;
        __threadfence();
        status[tile] = 1;
    }
    if (TID == 31) {
        int total = 0;
        for (int k = tile - 1; k >= 0; k--) {
            int found;
            do found = status[k]; while (found == 0);
            __threadfence();
            if (found == 2) {
                total += up_to[k];
                break;
            }
            total += own[k];
        }
        before = total;
        up_to[tile] = total + sum;
        __threadfence();
        status[tile] = 2;
    }
    __syncthreads();
    y[1024 + tile * 32 + TID] = before + sum + n;
}
// The same with release and acquire.
KERNEL(look_back_acquire) {
    __shared__ int before;
    int* up_to = (int*)y;
    int sum = (int)x[BLOCK * 32 + TID];
    for (int k = 16; k > 0; k >>= 1) sum += __shfl_xor_sync(FULL, sum, k);
    if (TID == 0) {
        int found = 1;
        if (BLOCK > 0)
            do asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(found) : "l"((int*)status + BLOCK - 1) : "memory");
            while (found == 0);
        before = BLOCK > 0 ? up_to[BLOCK - 1] : 0;
        up_to[BLOCK] = before + sum;
        asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"((int*)status + BLOCK), "r"(1) : "memory");
    }
    __syncwarp();
    y[1024 + BLOCK * 32 + TID] = before + n;
}
// All blocks wait for each other, twice.
__device__ void grid_barrier(unsigned round) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(&arrived, 1);
        while (*(volatile unsigned*)&arrived < round * gridDim.x) {}
        __threadfence();
    }
    __syncthreads();
}
KERNEL(grid_barriers) {
    int blocks = gridDim.x;
    y[BLOCK * 64 + TID] = x[BLOCK * 64 + TID] * n;
    grid_barrier(1);
    float v = y[(BLOCK + 1) % blocks * 64 + 63 - TID];
    grid_barrier(2);
    y[BLOCK * 64 + TID] = v;
}
// One atomic for a whole warp's lanes.
KERNEL(warp_aggregated) {
    if (x[TID] > 1) {
        unsigned active = __activemask();
        int leader = __ffs(active) - 1, rank = __popc(active & ((1u << (TID & 31)) - 1)), base = 0;
        if ((TID & 31) == leader) base = atomicAdd(&ticket, __popc(active));
        base = __shfl_sync(active, base, leader);
        y[base + rank] = x[TID] * n;
    }
}
// Producers fill a ring of two buffers for consumers: pairs of named barriers for full and empty.
KERNEL(named_ring) {
    __shared__ float buffer[2][64];
    if (TID < 64) {
        for (int k = 0; k < n; k++) {
            if (k >= 2) BAR_SYNC(3 + (k & 1), 128);
            buffer[k & 1][TID] = x[k * 64 + TID];
            BAR_ARRIVE(1 + (k & 1), 128);
        }
    } else {
        for (int k = 0; k < n; k++) {
            BAR_SYNC(1 + (k & 1), 128);
            y[k * 64 + TID - 64] = buffer[k & 1][127 - TID];
            if (k + 2 < n) BAR_ARRIVE(3 + (k & 1), 128);
        }
    }
}
// A warp for loading, one for computing, mbarriers for full and empty, copies that arrive by themselves.
KERNEL(specialised_warps) {
    __shared__ __align__(8) mbarrier_t full[2], empty[2];
    __shared__ __align__(16) float stage[2][128];
    if (TID == 0)
        for (int k = 0; k < 2; k++) {
            mbarrier_init(&full[k], 32);
            mbarrier_init(&empty[k], 32);
        }
    __syncthreads();
    if (TID < 32) {
        for (int k = 0; k < n; k++) {
            if (k >= 2) mbarrier_wait(&empty[k & 1], (k / 2 - 1) & 1);
            copy_async16(&stage[k & 1][TID * 4], x + k * 128 + TID * 4);
            mbarrier_arrive_copies_noinc(&full[k & 1]);
        }
    } else {
        float sum = 0;
        for (int k = 0; k < n; k++) {
            mbarrier_wait(&full[k & 1], k / 2 & 1);
            for (int j = 0; j < 4; j++) sum += stage[k & 1][(TID * 7 + j * 32) & 127];
            mbarrier_arrive(&empty[k & 1]);
        }
        y[TID - 32] = sum;
    }
}
// Double buffering with one barrier per step.
KERNEL(double_buffer) {
    __shared__ float tile[2][128];
    float sum = 0;
    for (int k = 0; k < n; k++) {
        tile[k & 1][TID] = x[k * 128 + TID];
        __syncthreads();
        for (int j = 0; j < 128; j += 4) sum += tile[k & 1][(j + TID) & 127];
    }
    y[TID] = sum;
}
// The GEMM's pipeline of four stages with one barrier per step.
KERNEL(four_stages) {
    __shared__ __align__(16) float stage[4][128];
    float sum = 0;
    for (int k = 0; k < 3; k++) {
        if (k < n) copy_async(&stage[k][TID], x + k * 128 + TID);
        COMMIT();
    }
    for (int k = 0; k < n; k++) {
        WAIT_GROUP(2);
        __syncthreads();
        if (k + 3 < n) copy_async(&stage[(k + 3) & 3][TID], x + (k + 3) * 128 + TID);
        COMMIT();
        sum += stage[k & 3][127 - TID];
    }
    y[TID] = sum;
}
// Shared memory is used again as another type after a barrier.
KERNEL(reinterpreted) {
    __shared__ union {
        float f[128];
        unsigned short h[256];
        double d[64];
    } u;
    u.f[TID] = x[TID];
    __syncthreads();
    float v = u.f[127 - TID];
    __syncthreads();
    u.h[TID] = TID;
    u.h[TID + 128] = n;
    __syncthreads();
    int w = u.h[(TID * 5) & 255];
    __syncthreads();
    if (TID < 64) u.d[TID] = v + w;
    __syncthreads();
    y[TID] = u.d[TID & 63] + v;
}
// Sixteen elements in place by 128 threads: the threads to spare load and never use it.
KERNEL(replicas) {
    float v = *(volatile float*)&y[512]; // keeps the loads below where they are
    int at = TID & 15;
    float w = x[at];
    asm volatile("" : "+f"(w));
    w = w * 2 + v;
    if (TID < 16) x[at] = w;
    (void)n;
}
// The same through a reduction in each warp: every warp has the whole row.
KERNEL(replica_warps) {
    float w = x[TID & 31];
    asm volatile("" : "+f"(w));
    float mean = warp_sum(w) / 32;
    if (TID < 32) x[TID] = w - mean + n;
}
// A lock for all threads of a grid.
KERNEL(lock_for_threads) {
    for (bool mine = false; !mine;) {
        if (atomicCAS(&lock_word, 0, 1) == 0) {
            __threadfence();
            y[0] += x[TID] * n;
            __threadfence();
            atomicExch(&lock_word, 0);
            mine = true;
        }
    }
}
// A lock by acquire and release.
KERNEL(lock_acquire_release) {
    if (TID % 32 == 0) {
        int old;
        do asm volatile("atom.acquire.gpu.global.cas.b32 %0, [%1], 0, 1;" : "=r"(old) : "l"(&lock_word) : "memory");
        while (old != 0);
        y[0] += x[TID] * n;
        asm volatile("st.release.gpu.global.s32 [%0], 0;" ::"l"(&lock_word) : "memory");
    }
}
// Groups of 8, 4 and 2 lanes shuffle by masks of their own; some lanes take no part.
KERNEL(partial_butterfly) {
    int lane = TID & 31;
    float v = x[TID];
    if (lane < 24) {
        unsigned mask = 0xffu << (lane & 24);
        for (int k = 4; k > 0; k >>= 1) v += __shfl_xor_sync(mask, v, k, 8);
    }
    if (lane % 2 == 0) v += __shfl_down_sync(0x55555555u, v, 2, 8);
    y[TID] = v * n;
}
// A warp works alone on its part of shared memory, with `__syncwarp`, in a loop.
KERNEL(warp_synchronous) {
    __shared__ float s[4][32];
    float* own = s[TID / 32];
    int lane = TID & 31;
    own[lane] = x[TID];
    __syncwarp();
    for (int k = 16; k > 0; k >>= 1) {
        if (lane < k) own[lane] += own[lane + k];
        __syncwarp();
    }
    y[TID] = own[0] * n;
}
// Old style: volatile shared memory within a warp.
KERNEL(volatile_warp) {
    __shared__ volatile float s[64];
    s[TID] = x[TID];
    s[TID + 32] = n;
    __syncwarp();
    for (int k = 16; k > 0; k >>= 1) {
        float v = s[TID] + s[TID + k];
        __syncwarp();
        s[TID] = v;
        __syncwarp();
    }
    if (TID == 0) y[0] = s[0];
}
// Several threads store one value: a flag in shared memory, a result in global memory.
KERNEL(same_values) {
    __shared__ int any;
    if (TID == 0) any = 0;
    __syncthreads();
    if (x[TID] > 3) any = 1;
    __syncthreads();
    y[BLOCK] = any * n;
}
// Threads beyond the end leave before barriers, whole warps and parts of one.
KERNEL(leaves_early) {
    __shared__ float s[128];
    if (TID >= n) return;
    s[TID] = x[BLOCK * 128 + TID];
    __syncthreads();
    float v = s[n - 1 - TID];
    __syncthreads();
    s[TID] = v;
    __syncthreads();
    y[BLOCK * 128 + TID] = s[(TID + 40) % n];
}
// Halves of words: neighbours share a word in shared and in global memory.
KERNEL(half_words) {
    __shared__ unsigned short s[256];
    unsigned short* in = (unsigned short*)x;
    s[TID] = in[TID];
    in[TID] = s[TID] + n;
    __syncthreads();
    ((unsigned char*)y)[TID] = s[255 - TID];
}
// A queue in shared memory: slots by atomics, a barrier, then the slots are read; the counter is reset for the next round.
KERNEL(queue) {
    __shared__ int count, slots[128];
    for (int round = 0; round < n; round++) {
        if (TID == 0) count = 0;
        __syncthreads();
        if (x[round * 128 + TID] > 2) slots[atomicAdd(&count, 1)] = TID;
        __syncthreads();
        if (TID < count) y[round * 128 + TID] = slots[TID];
        __syncthreads();
    }
}
// A flag in shared memory between warps, with fences of the block.
KERNEL(flag_between_warps) {
    __shared__ volatile int ready;
    __shared__ float s[32];
    if (TID == 0) ready = 0;
    __syncthreads();
    if (TID < 32) {
        s[TID] = x[TID];
        __syncwarp();
        __threadfence_block();
        if (TID == 0) ready = 1;
    } else {
        while (ready == 0) {}
        __threadfence_block();
        y[TID] = s[63 - TID] * n;
    }
}
// A number of threads for two barriers by number, each half of the block on its own.
KERNEL(halves) {
    __shared__ float s[2][64];
    int half = TID / 64, at = TID % 64;
    for (int k = 0; k < n; k++) {
        s[half][at] = x[k * 128 + TID];
        BAR_SYNC(1 + half, 64);
        y[k * 128 + TID] = s[half][63 - at];
        BAR_SYNC(1 + half, 64);
    }
}
// A maximum by compare-and-swap, whose first look is a plain load; in global and in shared memory.
__device__ __forceinline__ void maximum(float* at, float v) {
    int* bits = (int*)at;
    int old = *bits;
    while (__int_as_float(old) < v) {
        int seen = old;
        old = atomicCAS(bits, seen, __float_as_int(v));
        if (old == seen) break;
    }
}
KERNEL(compare_and_swap) {
    __shared__ float most;
    if (TID == 0) most = 0;
    __syncthreads();
    maximum(&most, x[TID] * n);
    __syncthreads();
    maximum(&y[TID & 3], x[BLOCK * 128 + TID]);
    if (TID == 0) y[64 + BLOCK] = most;
}
// Rows beyond the end are filled and left, by parts of a warp, before barriers and shuffles.
KERNEL(fills_and_leaves) {
    __shared__ float s[128];
    if (TID >= n) {
        y[TID] = -1;
        return;
    }
    s[TID] = x[TID];
    __syncthreads();
    float v = s[n - 1 - TID] + __shfl_sync(FULL, x[TID], TID & 8);
    __syncthreads();
    if (TID < 8) s[TID] = v;
    __syncthreads();
    y[TID] = s[TID & 7];
}
// Warps leave a loop at different times; parts of a warp too, with masks of who is left.
KERNEL(different_trips) {
    __shared__ float s[4][32];
    int warp = TID / 32, lane = TID & 31;
    float sum = 0;
    for (int row = warp; row < n; row += 4) {
        s[warp][lane] = x[row * 32 + lane];
        __syncwarp();
        sum += s[warp][31 - lane];
        __syncwarp();
    }
    unsigned left = FULL;
    for (int k = lane; (left = __ballot_sync(left, k > 0)) >> lane & 1; k -= 5) sum += __popc(left);
    __syncthreads();
    y[TID] = sum;
}
// The parts of a sum are added in order: each block waits for its number.
KERNEL(split_in_order) {
    __shared__ float s[64];
    if (TID == 0)
        while (*(volatile int*)&lock_word != BLOCK) {}
    __syncthreads();
    s[TID] = BLOCK > 0 ? y[TID] : 0;
    y[TID] = s[TID] + x[BLOCK * 64 + TID] * n;
    __threadfence();
    __syncthreads();
    if (TID == 0) asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(&lock_word), "r"(BLOCK + 1) : "memory");
}
// Blocks take work until none is left.
KERNEL(work_queue) {
    __shared__ int next;
    for (;;) {
        if (TID == 0) next = atomicAdd(&ticket, 1);
        __syncthreads();
        int tile = next;
        __syncthreads();
        if (tile >= n) return;
        y[tile * 64 + TID] = x[tile * 64 + 63 - TID];
    }
}
