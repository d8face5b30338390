// What the kernels with seeded bugs share. Every kernel has one signature, so that a table can launch it. A comment
// `expect KIND` marks a line that must be reported so, `may KIND` one that a bug may show at too; a kernel without such
// marks must report nothing.
#define KERNEL(name) extern "C" __global__ void name(float* x, float* y, int n)
#define TID (int)threadIdx.x
#define BLOCK (int)blockIdx.x
#define FULL 0xffffffffu

__device__ __forceinline__ unsigned shared_place(const void* at) { return (unsigned)__cvta_generic_to_shared(at); }

__device__ __forceinline__ void copy_async(void* to, const void* from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_place(to)), "l"(from) : "memory");
}
__device__ __forceinline__ void copy_async16(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_place(to)), "l"(from) : "memory");
}
#define COMMIT() asm volatile("cp.async.commit_group;" ::: "memory")
#define WAIT_GROUP(k) asm volatile("cp.async.wait_group %0;" ::"n"(k) : "memory")
#define BAR_SYNC(id, threads) asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory")
#define BAR_ARRIVE(id, threads) asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory")

typedef unsigned long long mbarrier_t;
__device__ __forceinline__ void mbarrier_init(mbarrier_t* m, int count) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_place(m)), "r"(count) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive(mbarrier_t* m) {
    asm volatile("{ .reg .b64 s; mbarrier.arrive.shared.b64 s, [%0]; }" ::"r"(shared_place(m)) : "memory");
}
// The arrival comes when the thread's copies have; with `noinc` it is one of those that the barrier expects.
__device__ __forceinline__ void mbarrier_arrive_copies_noinc(mbarrier_t* m) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_place(m)) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive_copies(mbarrier_t* m) {
    asm volatile("cp.async.mbarrier.arrive.shared.b64 [%0];" ::"r"(shared_place(m)) : "memory");
}
__device__ __forceinline__ void mbarrier_wait(mbarrier_t* m, int parity) {
    int done = 0;
    while (!done)
        asm volatile(
            "{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.b32 %0, 1, 0, p; }"
            : "=r"(done)
            : "r"(shared_place(m)), "r"(parity)
            : "memory");
}
__device__ __forceinline__ float warp_sum(float v) {
    for (int k = 16; k > 0; k >>= 1) v += __shfl_xor_sync(FULL, v, k);
    return v;
}
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_place(at)));
}
__device__ __forceinline__ void mma_bf16(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
