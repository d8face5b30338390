// Seeded bugs of addresses, of memory that nobody wrote, and of what ends a kernel; `NAME_ok` is the correct twin.
#include "common.cuh"

// A tile of 16 x 16 at the edge of a matrix of n x n.
KERNEL(tile_edge) {
    int row = BLOCK * 16 + TID / 16, col = TID % 16;
    if (row <= n && col < n) y[row * n + col] = x[row * n + col] * 2; // expect out-of-bounds
}
KERNEL(tile_edge_ok) {
    int row = BLOCK * 16 + TID / 16, col = TID % 16;
    if (row < n && col < n) y[row * n + col] = x[row * n + col] * 2;
}
// Row times stride does not fit 32 bits.
KERNEL(index_overflow) {
    int at = (TID + 1) * n;
    y[TID] = x[at >> 22]; // expect out-of-bounds
}
KERNEL(index_overflow_ok) {
    long long at = (long long)(TID + 1) * n;
    y[TID] = x[at >> 22];
}
KERNEL(vector_misaligned) {
    float4 v = *(float4*)(x + TID * 4 + n); // expect misaligned
    y[TID] = v.x + v.y + v.z + v.w;
}
// The last bin has no counter.
KERNEL(histogram_bins) {
    __shared__ int bins[64];
    if (TID < 64) bins[TID] = 0;
    __syncthreads();
    atomicAdd(&bins[(int)(x[TID] * 16) % (n + 1)], 1); // expect out-of-bounds
    __syncthreads();
    if (TID < 64) y[TID] = bins[TID];
}
KERNEL(histogram_bins_ok) {
    __shared__ int bins[64];
    if (TID < 64) bins[TID] = 0;
    __syncthreads();
    atomicAdd(&bins[(int)(x[TID] * 16) % n], 1);
    __syncthreads();
    if (TID < 64) y[TID] = bins[TID];
}
KERNEL(local_past_the_end) {
    int a[8];
    for (int k = 0; k < 8; k++) a[k] = k * TID;
    a[TID * n] = 1; // expect out-of-bounds
    int sum = 0;
    for (int k = 0; k < 8; k++) sum += a[(k + TID) & 7];
    y[TID] = sum;
}
KERNEL(local_past_the_end_ok) {
    int a[8];
    for (int k = 0; k < 8; k++) a[k] = k * TID;
    a[TID & 7] = n;
    int sum = 0;
    for (int k = 0; k < 8; k++) sum += a[(k + TID) & 7];
    y[TID] = sum;
}
KERNEL(null_output) {
    float* out = nullptr;
    asm volatile("" : "+l"(out));
    out[TID] = x[TID]; // expect out-of-bounds
}
// Inlined: the report names the helper's line and where it was called.
__device__ __forceinline__ float load_row(const float* row, int k) {
    return row[k]; // inlined_load: expect out-of-bounds
}
KERNEL(inlined_load) {
    float sum = 0;
    for (int k = TID; k < n; k += 32) sum += load_row(x + BLOCK * n, k); // called here
    y[BLOCK * 32 + TID] = sum;
}
// Dynamic shared memory for fewer floats than the kernel uses.
KERNEL(dynamic_too_small) {
    extern __shared__ float dynamic[];
    dynamic[TID] = x[TID]; // expect out-of-bounds
    __syncthreads();
    y[TID] = dynamic[n - TID];
}
// A warp of a block of 48 threads has 16 lanes.
KERNEL(half_a_warp) {
    float v = x[TID];
    for (int k = 16; k > 0; k >>= 1) v += __shfl_down_sync(FULL, v, k); // expect inactive-lane
    y[TID] = v * n;
}
// Softmax: the row's tail in shared memory is not padded.
KERNEL(softmax_tail) {
    __shared__ float row[128];
    if (TID < n) row[TID] = x[TID];
    __syncthreads();
    float most = -1e30f;
    for (int k = 0; k < 128; k++) most = fmaxf(most, row[k]); // expect uninitialised
    y[TID] = most;
}
KERNEL(softmax_tail_ok) {
    __shared__ float row[128];
    row[TID] = TID < n ? x[TID] : -1e30f;
    __syncthreads();
    float most = -1e30f;
    for (int k = 0; k < 128; k++) most = fmaxf(most, row[k]);
    y[TID] = most;
}
// Gradients are added to an output that was never zeroed.
KERNEL(gradient_not_zeroed) {
    y[TID] += x[TID] * n; // expect uninitialised
}
KERNEL(gradient_not_zeroed_atomic) {
    atomicAdd(&y[TID], x[TID] * n); // expect uninitialised
}
KERNEL(gradient_zeroed_ok) {
    y[TID] = 0;
    atomicAdd(&y[TID], x[TID] * n);
}
KERNEL(local_unwritten) {
    int a[8];
    for (int k = 0; k < n; k++) a[k] = k;
    y[TID] = a[TID & 7]; // expect uninitialised
}
KERNEL(local_unwritten_ok) {
    int a[8];
    for (int k = 0; k < 8; k++) a[k] = k * n;
    y[TID] = a[TID & 7];
}
KERNEL(register_stored) {
    if (n > 0) asm volatile("{ .reg .b32 u; st.global.b32 [%0], u; }" ::"l"(y + TID) : "memory"); // expect uninitialised
}
KERNEL(register_as_address) {
    if (n > 0)
        asm volatile("{ .reg .b64 u, v; .reg .b32 w; and.b64 v, u, 252; add.u64 v, v, %0; ld.global.b32 w, [v]; }" ::"l"(x) : "memory"); // expect uninitialised
}
KERNEL(register_decides) {
    int out = 0;
    asm volatile("{ .reg .pred p; .reg .b32 u; setp.ne.s32 p, u, 0; mov.b32 %0, 1; @p mov.b32 %0, 2; }" : "+r"(out)); // expect uninitialised
    y[TID] = out + n;
}
extern "C" __device__ void __assertfail(const char*, const char*, unsigned, const char*, size_t);
KERNEL(assertion) {
    if (x[TID] > n) __assertfail("x[i] <= n", "memory.cu", __LINE__, __func__, 1); // expect assert
    y[TID] = x[TID];
}
KERNEL(trapped) {
    if (x[TID] > n) __trap(); // expect trap
    y[TID] = x[TID];
}
__device__ __noinline__ int depth(volatile int* p, int k) {
    volatile int here[64];
    here[k & 63] = k;
    return *p > 0 ? depth(p, k + 1) + here[k & 63] : k; // endless_recursion: expect stack-overflow
}
KERNEL(endless_recursion) {
    volatile int go = n;
    y[TID] = depth(&go, TID);
}
// One element past the end, in what rounding up leaves there, or in another function's arguments.
KERNEL(local_one_past) {
    int h[10];
    for (int k = 0; k < 10; k++) h[k] = k * TID;
    h[n] = 1; // expect out-of-bounds
    y[TID] = h[(TID + 3) % 10];
}
KERNEL(local_one_past_ok) {
    int h[10];
    for (int k = 0; k < 10; k++) h[k] = k * TID;
    h[n] = 1;
    y[TID] = h[(TID + 3) % 10];
}
__device__ __noinline__ int pick(const int* list, int at, int n) {
    int own[3];
    for (int k = 0; k < 3; k++) own[k] = list[k] + at;
    own[(at + n) % 3] = 1;
    return own[at % 3] + list[n]; // local_of_caller: expect out-of-bounds
}
KERNEL(local_of_caller) {
    int h[5];
    for (int k = 0; k < 5; k++) h[k] = k * TID;
    y[TID] = pick(h, TID, n);
}
