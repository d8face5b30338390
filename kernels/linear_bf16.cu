// The products of linear.cuh on tensor cores: operands are rounded to bf16 (to the nearest, ties to even), sums are f32.
//
// - Matrices stay f32 in global memory. A thread reads quads of a tile to registers, rounds them and puts them into shared
//   memory, while the step before is multiplied; the pieces of A and of B come one after the other, since registers for
//   both would not leave two blocks to a multiprocessor.
// - A tile lies in shared memory as it does in global memory, in bf16; `ldmatrix` reads it, turned (`.trans`) where rows do
//   not run along the inner dimension. Groups of 8 numbers (16 bytes) are exchanged within a row, by its number, so that
//   eight neighbouring rows of one column are in different banks.
// - A chain of sums is one of `mma` with 16 products each: the inner dimension is filled up with zeros to whole steps.
// - Rows that end within a tile, widths that are no multiples of 4 and pointers that are not aligned cost a branch at the
//   pieces that have them; all else is the same.
//
// Dynamic shared memory: 69,632 bytes for 128, 18,432 for 64.

// Two numbers as bf16, the first one in the lower half.
__device__ __forceinline__ unsigned rounded(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// A number that the compiler knows nothing about: it keeps it, and works out anew what depends on it.
__device__ __forceinline__ unsigned hidden(unsigned number) {
    asm volatile("" : "+r"(number));
    return number;
}
__device__ __forceinline__ u64 hidden(u64 number) {
    asm volatile("" : "+l"(number));
    return number;
}

// Four 8 × 8 matrices: lane 8 m + i has the address of row i of matrix m, less OFFSET. Of matrix m the lane gets in part m
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

// sums += A · B, A 16 × 16, B 16 × 8.
__device__ __forceinline__ void multiply(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A tile of ROWS × COLUMNS numbers, as it lies in global memory; ALONG: its rows run along the inner dimension.
template <int THREADS, int ROWS, int COLUMNS, bool ALONG>
struct Operand {
    static constexpr int BYTES = ROWS * COLUMNS * 2, PITCH = COLUMNS * 2;
    // Quads of a row, rows of all threads' quads, quads of a thread. Rows are apart by a multiple of 8: their exchange of
    // groups is the same.
    static constexpr int ACROSS = COLUMNS / 4, APART = THREADS / ACROSS, QUADS = ROWS / APART;
    static_assert(APART % 8 == 0 && ROWS % APART == 0, "a thread's quads are in one column");

    // Bytes from the tile's beginning to group `group` of row `row`. Where two rows share all banks, two take their turn.
    static __device__ __forceinline__ unsigned place(unsigned row, unsigned group) {
        return row * PITCH + (group ^ (PITCH == 64 ? row / 2 % 4 : row % 8)) * 16;
    }

    // How far the first one of a thread's quads is from the tile's first number in global memory.
    static __device__ __forceinline__ u64 quad_distance(u64 stride) {
        return threadIdx.x / ACROSS * stride + threadIdx.x % ACROSS * 4;
    }

    // `distance`: that of the piece's stride.
    static __device__ __forceinline__ void read(float4 (&quads)[QUADS], const Piece& piece, u64 distance) {
        const float* from = piece.source + distance;
        if (piece.vector && piece.rows >= ROWS && piece.columns >= COLUMNS) {
            // Hidden, or each quad's distance is a multiplication of its own.
            u64 apart = hidden(APART * piece.stride);
#pragma unroll
            for (int i = 0; i < QUADS; i++) quads[i] = *(const float4*)(from + i * apart);
        } else {
            // Hidden, or the compiler keeps all that follows from it in registers, for a way that is seldom gone.
            unsigned thread = hidden(threadIdx.x), row = thread / ACROSS, column = thread % ACROSS * 4;
#pragma unroll
            for (int i = 0; i < QUADS; i++) {
                quads[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if (row + i * APART < piece.rows && column < piece.columns) {
                    const float* start = from - column + i * (APART * piece.stride);
                    quads[i] = load4(start, column, piece.columns, piece.vector);
                }
            }
        }
    }

    // Where the first one of a thread's quads lies in a tile.
    static __device__ __forceinline__ unsigned quad_place() {
        unsigned row = threadIdx.x / ACROSS, column = threadIdx.x % ACROSS * 4;
        return place(row, column / 8) + column % 8 * 2;
    }

    // `to`: that place of a tile.
    static __device__ __forceinline__ void write(char* to, const float4 (&quads)[QUADS]) {
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
            const float4& v = quads[i];
            *(uint2*)(to + i * APART * PITCH) = make_uint2(rounded(v.x, v.y), rounded(v.z, v.w));
        }
    }

    // A lane's part of the address of the 16 × 16 numbers at `first` (a multiple of 32 where groups are exchanged with it)
    // and 0 of the inner dimension. The matrices: those 8 further along `first`'s dimension are the second and fourth if
    // SECOND, else the third and fourth.
    template <bool SECOND>
    static __device__ __forceinline__ unsigned lane_place(unsigned first) {
        unsigned lane = threadIdx.x % 32, second = lane / 8 % 2, third = lane / 16;
        unsigned outer = SECOND ? second : third, inner = SECOND ? third : second;
        return ALONG ? place(first + lane % 8 + 8 * outer, inner) : place(lane % 8 + 8 * inner, first / 8 + outer);
    }

    // From there, the 16 × 16 numbers 16 · i further, and at 16 · k of the inner dimension.
    template <int I, int K>
    static __device__ __forceinline__ void load(unsigned (&parts)[4], unsigned tile, unsigned place) {
        if (ALONG) {
            load_matrices<!ALONG, I * 16 * PITCH>(parts, tile + (place ^ K * 32));
        } else {
            load_matrices<!ALONG, K * 16 * PITCH>(parts, tile + (place ^ I * 32));
        }
    }
};

// Warps of WARP_M rows and WARP_N columns.
template <int ROWS_, int COLUMNS_, int WARP_M, int WARP_N>
struct Tiling {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, DEPTH = 32;
    static constexpr int WARPS_N = COLUMNS / WARP_N, THREADS = ROWS / WARP_M * WARPS_N * 32;
    static constexpr int TM = WARP_M / 16, TN = WARP_N / 8;
    // Of the results in shared memory: the pairs of four rows are 32 bytes apart, in different banks.
    static constexpr int PITCH = COLUMNS + 8;

    template <bool LEFT, bool RIGHT, class Left, class Right, class Put>
    static __device__ __forceinline__ void product(unsigned steps, Left left, Right right, Put put) {
        typedef Operand<THREADS, LEFT ? ROWS : DEPTH, LEFT ? DEPTH : ROWS, LEFT> A;
        typedef Operand<THREADS, RIGHT ? COLUMNS : DEPTH, RIGHT ? DEPTH : COLUMNS, RIGHT> B;
        constexpr unsigned STAGE = A::BYTES + B::BYTES;
        unsigned shared = (unsigned)__cvta_generic_to_shared(shared_quads);
        unsigned warp_m = threadIdx.x / 32 / WARPS_N * WARP_M, warp_n = threadIdx.x / 32 % WARPS_N * WARP_N;
        unsigned place_a = hidden(A::template lane_place<true>(warp_m));
        unsigned place_b = hidden(B::template lane_place<false>(warp_n));
        unsigned to_a = hidden(A::quad_place()), to_b = hidden(B::quad_place() + A::BYTES);
        u64 from_a = hidden(A::quad_distance(left(0).stride)), from_b = hidden(B::quad_distance(right(0).stride));
        float sums[TM][TN][4] = {};
        float4 quads_a[A::QUADS], quads_b[B::QUADS];
        // One round more than steps: a round fetches its step and multiplies the step before it.
        for (unsigned step = 0; step <= steps; step++) {
            char* now = (char*)shared_quads + step % 2 * STAGE;
            unsigned before = shared + (step + 1) % 2 * STAGE;
            if (step < steps) A::read(quads_a, left(step), from_a);
            if (step > 0) multiply_warp<A, B, 0>(sums, before, place_a, place_b);
            if (step < steps) {
                A::write(now + to_a, quads_a);
                B::read(quads_b, right(step), from_b);
            }
            if (step > 0) multiply_warp<A, B, 1>(sums, before, place_a, place_b);
            if (step < steps) B::write(now + to_b, quads_b);
            // This step is there for all, and all are done with the one before, whose room the next one takes.
            __syncthreads();
        }
        float* results = (float*)shared_quads;
        unsigned lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < TM; i++) {
#pragma unroll
            for (int j = 0; j < TN; j++) {
                unsigned at = (warp_m + 16 * i + lane / 4) * PITCH + warp_n + 8 * j + lane % 4 * 2;
                *(float2*)(results + at) = make_float2(sums[i][j][0], sums[i][j][1]);
                *(float2*)(results + at + 8 * PITCH) = make_float2(sums[i][j][2], sums[i][j][3]);
            }
        }
        put_tile<Tiling, PITCH>(results, put);
    }

    // sums += A · B over 16 numbers of the inner dimension, from 16 · K on.
    template <class A, class B, int K>
    static __device__ __forceinline__ void multiply_warp(
        float (&sums)[TM][TN][4], unsigned stage, unsigned place_a, unsigned place_b
    ) {
        unsigned b[TN / 2][4];
        load_columns<B, K>(b, stage + A::BYTES, place_b);
        multiply_rows<A, K>(sums, stage, place_a, b);
    }

    // Recursions: a number that is part of an instruction cannot be that of a loop.
    template <class B, int K, int J = 0>
    static __device__ __forceinline__ void load_columns(unsigned (&b)[TN / 2][4], unsigned tile, unsigned place) {
        if constexpr (J < TN / 2) {
            B::template load<J, K>(b[J], tile, place);
            load_columns<B, K, J + 1>(b, tile, place);
        }
    }

    template <class A, int K, int I = 0>
    static __device__ __forceinline__ void multiply_rows(
        float (&sums)[TM][TN][4], unsigned tile, unsigned place, const unsigned (&b)[TN / 2][4]
    ) {
        if constexpr (I < TM) {
            unsigned a[4];
            A::template load<I, K>(a, tile, place);
#pragma unroll
            for (int j = 0; j < TN; j++) multiply(sums[I][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
            multiply_rows<A, K, I + 1>(sums, tile, place, b);
        }
    }
};
typedef Tiling<128, 128, 64, 32> Large;
typedef Tiling<64, 64, 32, 32> Small;

LINEAR_KERNELS
