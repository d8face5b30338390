// Seeded bugs between blocks; `NAME_ok` is the correct twin.
#include "common.cuh"

__device__ unsigned ticket;
__device__ int lock_word;
__device__ volatile int flag;

// The last block adds up: with no fence between its part and its ticket.
KERNEL(last_block_unfenced) {
    __shared__ bool last;
    y[BLOCK * 32 + TID] = x[BLOCK * 32 + TID] * n; // expect race
    __syncthreads();
    if (TID == 0) last = atomicAdd(&ticket, 1) == gridDim.x - 1;
    __syncthreads();
    if (last) {
        float sum = 0;
        for (int b = 0; b < gridDim.x; b++) sum += y[b * 32 + TID]; // expect race
        x[1024 + TID] = sum;
    }
}
// The fence reaches the block only.
KERNEL(last_block_fence_of_block) {
    __shared__ bool last;
    y[BLOCK * 32 + TID] = x[BLOCK * 32 + TID] * n; // expect race
    __threadfence_block();
    __syncthreads();
    if (TID == 0) last = atomicAdd(&ticket, 1) == gridDim.x - 1;
    __syncthreads();
    if (last) {
        float sum = 0;
        for (int b = 0; b < gridDim.x; b++) sum += y[b * 32 + TID]; // expect race
        x[1024 + TID] = sum;
    }
}
// The ticket is taken before the other warps have written.
KERNEL(last_block_no_barrier) {
    __shared__ bool last;
    y[BLOCK * 64 + TID] = x[BLOCK * 64 + TID] * n; // expect race
    __threadfence();
    if (TID == 0) last = atomicAdd(&ticket, 1) == gridDim.x - 1;
    __syncthreads();
    if (last) {
        float sum = 0;
        for (int b = 0; b < gridDim.x; b++) sum += y[b * 64 + TID]; // expect race
        x[1024 + TID] = sum;
    }
}
KERNEL(last_block_ok) {
    __shared__ bool last;
    y[BLOCK * 64 + TID] = x[BLOCK * 64 + TID] * n;
    __threadfence();
    __syncthreads();
    if (TID == 0) last = atomicAdd(&ticket, 1) == gridDim.x - 1;
    __syncthreads();
    if (last) {
        float sum = 0;
        for (int b = 0; b < gridDim.x; b++) sum += y[b * 64 + TID];
        x[1024 + TID] = sum;
        if (TID == 0) ticket = 0;
    }
}
// A fence orders nothing by itself: the blocks never wait for each other.
KERNEL(fence_for_barrier) {
    y[BLOCK * 32 + TID] = x[BLOCK * 32 + TID] * n; // expect race
    __threadfence();
    x[4096 + BLOCK * 32 + TID] = y[(BLOCK + 1) % gridDim.x * 32 + TID]; // expect race
}
// Atomics that are atomic within a block only.
KERNEL(atomics_of_block) {
    atomicAdd_block(&y[TID], x[BLOCK * 32 + TID] * n); // expect race
}
// A lock whose holder's writes nobody is promised.
KERNEL(lock_unfenced) {
    if (TID == 0) {
        while (atomicCAS(&lock_word, 0, 1) != 0) {}
        y[0] += x[BLOCK] * n; // expect race
        atomicExch(&lock_word, 0);
    }
}
KERNEL(lock_ok) {
    if (TID == 0) {
        while (atomicCAS(&lock_word, 0, 1) != 0) {}
        __threadfence();
        y[0] += x[BLOCK] * n;
        __threadfence();
        atomicExch(&lock_word, 0);
    }
}
// A flag whose data may come later.
KERNEL(flag_unfenced) {
    if (BLOCK == 0) {
        y[TID] = x[TID] * n; // expect race
        __syncthreads();
        if (TID == 0) flag = 1;
    } else {
        while (flag == 0) {}
        x[BLOCK * 64 + TID] = y[TID]; // expect race
    }
}
KERNEL(flag_ok) {
    if (BLOCK == 0) {
        y[TID] = x[TID] * n;
        __threadfence();
        __syncthreads();
        if (TID == 0) flag = 1;
    } else {
        while (flag == 0) {}
        __threadfence();
        x[BLOCK * 64 + TID] = y[TID];
    }
}
// AdamW: two blocks update overlapping parts.
KERNEL(optimizer_overlap) {
    int at = BLOCK * n + TID;
    float m = y[at] * 0.9f + x[at] * 0.1f; // expect race
    y[at] = m; // expect race
}
KERNEL(optimizer_ok) {
    int at = BLOCK * n + TID;
    float m = y[at] * 0.9f + x[at] * 0.1f;
    y[at] = m;
}
// Cross-entropy: every block writes the loss.
KERNEL(loss_written_by_all) {
    float sum = warp_sum(x[BLOCK * 32 + TID]);
    if (TID == 0) y[0] = sum * n; // expect race
}
// The last block adds up by atomics: every block's own atomic is the last one of each word when it reads.
KERNEL(accumulated_unfenced) {
    __shared__ bool last;
    atomicAdd(&y[TID], x[BLOCK * 64 + TID]); // expect race
    __syncthreads();
    if (TID == 0) last = atomicAdd(&ticket, 1) == gridDim.x - 1;
    __syncthreads();
    if (last) x[1024 + TID] = y[TID] * n; // expect race
}
KERNEL(accumulated_no_barrier) {
    __shared__ bool last;
    atomicAdd(&y[TID], x[BLOCK * 64 + TID]); // expect race
    __threadfence();
    if (TID == 0) last = atomicAdd(&ticket, 1) == gridDim.x - 1;
    __syncthreads();
    if (last) x[1024 + TID] = y[TID] * n; // expect race
}
KERNEL(accumulated_ok) {
    __shared__ bool last;
    atomicAdd(&y[TID], x[BLOCK * 64 + TID]);
    __threadfence();
    __syncthreads();
    if (TID == 0) last = atomicAdd(&ticket, 1) == gridDim.x - 1;
    __syncthreads();
    if (last) {
        x[1024 + TID] = y[TID] * n;
        if (TID == 0) ticket = 0;
    }
}
// Two warps of each block add to one word.
KERNEL(accumulated_by_warps) {
    __shared__ bool last;
    float sum = warp_sum(x[BLOCK * 64 + TID]);
    if (TID % 32 == 0) atomicAdd(y, sum); // expect race
    __syncthreads();
    if (TID == 0) last = atomicAdd(&ticket, 1) == gridDim.x - 1;
    __syncthreads();
    if (last && TID == 0) x[1024] = y[0] * n; // expect race
}
// The own atomic orders nothing that others do.
KERNEL(atomic_then_read) {
    atomicAdd(&y[0], x[BLOCK]); // expect race
    if (BLOCK == 1) x[1024] = y[0] * n; // expect race
}
// Two blocks write one half of a word each, and one reads the other's.
KERNEL(half_of_another_block) {
    unsigned short *s = (unsigned short *)y;
    s[TID * 2 + BLOCK] = BLOCK + n; // expect race
    if (BLOCK == 1) x[1024 + TID] = s[TID * 2]; // expect race
}
KERNEL(half_of_the_block_ok) {
    unsigned short *s = (unsigned short *)y;
    s[TID * 2 + BLOCK] = BLOCK + n;
    if (BLOCK == 1) x[1024 + TID] = s[TID * 2 + 1];
}
// `changed = true` by whoever sees a change, as a breadth-first search does.
KERNEL(changed_ok) {
    if (x[BLOCK * 32 + TID] > 0) y[0] = n;
}
KERNEL(changed_and_read) {
    if (x[BLOCK * 32 + TID] >= 0) y[0] = n; // expect race
    if (BLOCK == 1) x[1024 + TID] = y[0]; // expect race
}
