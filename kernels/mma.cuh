// What products on tensor cores share: those of attention in 16 bits, and of linear layers in 16 bits and tf32.

// A number that the compiler knows nothing about: it works out anew what depends on it, and need not keep that.
__device__ __forceinline__ unsigned hidden(unsigned number) {
    asm volatile("" : "+r"(number));
    return number;
}

// Four 8 × 8 matrices: lane 8 m + i has the address of row i of matrix m, less OFFSET bytes. Of matrix m the lane gets in part m
// the numbers 2 · (lane % 4) and the next one of row lane / 4. TURNED: of column lane / 4.
template <bool TURNED, int OFFSET>
__device__ __forceinline__ void load_matrices(unsigned (&parts)[4], unsigned address) {
    if (TURNED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
                     : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3]) : "r"(address), "n"(OFFSET) : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
                     : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3]) : "r"(address), "n"(OFFSET) : "memory");
    }
}

#ifdef NUMBER_BF16
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
#elif defined(NUMBER_F16)
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#else
#define MMA "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
#endif
