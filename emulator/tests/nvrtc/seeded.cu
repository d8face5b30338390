// One seeded bug per kernel, and the correct twin of each. Line numbers are part of the tests.
extern "C" __global__ void past_the_end(float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) x[i] = 1.f; // line 4
}
extern "C" __global__ void inside(float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = 1.f;
}
extern "C" __global__ void misaligned(char* x) {
    *(int*)(x + threadIdx.x * 4 + 1) = 1; // line 11
}
extern "C" __global__ void no_barrier(float* x) {
    __shared__ float s[128];
    s[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = s[127 - threadIdx.x]; // line 16
}
extern "C" __global__ void with_barrier(float* x) {
    __shared__ float s[128];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = s[127 - threadIdx.x];
}
extern "C" __global__ void no_syncwarp(float* x) {
    __shared__ float s[32];
    s[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = s[31 - threadIdx.x]; // line 27
}
extern "C" __global__ void with_syncwarp(float* x) {
    __shared__ float s[32];
    s[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    x[threadIdx.x] = s[31 - threadIdx.x];
}
extern "C" __global__ void unwritten_shared(float* x) {
    __shared__ float s[128];
    if (threadIdx.x < 64) s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = s[threadIdx.x]; // line 39
}
extern "C" __global__ void half_a_barrier(float* x) {
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    if (threadIdx.x % 32 < 16) __syncthreads(); // line 44
    else x[threadIdx.x] = 0.f;
    __syncthreads();
    if (threadIdx.x == 0) x[0] = s[1];
}
extern "C" __global__ void lost_lanes(int* x) {
    int v = x[threadIdx.x];
    if (threadIdx.x < 16) v += __shfl_xor_sync(0xffffffffu, v, 16); // line 51
    x[threadIdx.x] = v;
}
extern "C" __global__ void half_mask(int* x) {
    int v = x[threadIdx.x];
    if (threadIdx.x < 16) v += __shfl_xor_sync(0xffffu, v, 8);
    x[threadIdx.x] = v;
}
extern "C" __global__ void blocks_collide(float* x) {
    x[threadIdx.x] = x[threadIdx.x] + 1.f; // line 60
}
extern "C" __global__ void blocks_add(float* x) {
    atomicAdd(&x[threadIdx.x], 1.f);
}
__device__ unsigned done;
extern "C" __global__ void last_block_no_fence(float* part, float* total) {
    __shared__ bool last;
    part[blockIdx.x] = blockIdx.x + 1.f;
    last = atomicAdd(&done, 1) == gridDim.x - 1;
    if (last) {
        float sum = 0;
        for (int b = 0; b < gridDim.x; b++) sum += part[b]; // line 72
        *total = sum;
    }
}
extern "C" __global__ void last_block(float* part, float* total) {
    __shared__ bool last;
    part[blockIdx.x] = blockIdx.x + 1.f;
    __threadfence();
    last = atomicAdd(&done, 1) == gridDim.x - 1;
    if (last) {
        float sum = 0;
        for (int b = 0; b < gridDim.x; b++) sum += part[b];
        *total = sum;
    }
}
__device__ int lock_word;
extern "C" __global__ void locked(int* x) {
    for (bool mine = false; !mine;) {
        if (atomicCAS(&lock_word, 0, 1) == 0) {
            __threadfence();
            *x += 1;
            __threadfence();
            atomicExch(&lock_word, 0);
            mine = true;
        }
    }
}
__device__ __forceinline__ void copy(void* to, const void* from) {
    unsigned s = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(s), "l"(from) : "memory");
}
extern "C" __global__ void no_wait(float* x) {
    __shared__ float s[32];
    copy(&s[threadIdx.x], &x[threadIdx.x]);
    asm volatile("cp.async.commit_group;" ::: "memory");
    asm volatile("cp.async.wait_group 1;" ::: "memory");
    x[threadIdx.x + 32] = s[threadIdx.x]; // line 108
}
extern "C" __global__ void waited(float* x) {
    __shared__ float s[32];
    copy(&s[threadIdx.x], &x[threadIdx.x]);
    asm volatile("cp.async.commit_group;" ::: "memory");
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    x[threadIdx.x + 32] = s[threadIdx.x];
}
extern "C" __global__ void unwritten_global(float* x, const float* y) {
    x[threadIdx.x] = y[threadIdx.x]; // line 118
}
extern "C" __global__ void unwritten_local(int* x, int n) {
    int a[8];
    for (int k = 0; k < n; k++) a[k] = k;
    x[threadIdx.x] = a[threadIdx.x & 7]; // line 123
}
