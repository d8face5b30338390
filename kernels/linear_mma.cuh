// Tiles of products on tensor cores, by `mma` (mma.cuh), sums in f32: put in front of linear_mma.cu.
//
// - Numbers of 16 bits are multiplied as they are, f32 rounded to tf32 (to the nearest, ties away from 0).
// - A block computes a tile of a result in steps of DEPTH of the inner dimension. STAGES − 1 steps are on their way by
//   `cp.async` while one is multiplied; there is one barrier a step.
// - A tile lies in shared memory as it does in global memory; `ldmatrix` reads it, turned (`.trans`) where rows do not run
//   along the inner dimension (it cannot turn f32, which is read number by number then). Groups of 16 bytes are exchanged
//   within a row, by its number, so that what is read at once is in different banks.
// - The fragments of the next `mma` along the inner dimension are read while those before are multiplied, also across steps.
// - Every number of a result is one chain of `mma` over the inner dimension in its order, filled up with zeros to whole
//   steps: its bits depend neither on the tile, nor on the number of rows, nor on where in the batch a row stands.
// - The results of a tile go through shared memory, as they are stored where nothing is done to them after, to where they
//   are written: whole rows at once. Sums that stay f32 are written as they lie in registers, 32 bytes of a row at once.
// - Tiles at the edge copy what is there and 0 for the rest. Rows that are no multiples of 16 bytes are copied by 4 bytes,
//   or by numbers where even that is not aligned.

// `one` if it is so, else `other`; in assembly, since the compiler makes an array in memory of a chain of these.
__device__ __forceinline__ unsigned selected(bool so, unsigned one, unsigned other) {
    unsigned result;
    asm("{\n.reg .pred so;\nsetp.ne.u32 so, %1, 0;\nselp.b32 %0, %2, %3, so;\n}" : "=r"(result) : "r"((unsigned)so), "r"(one), "r"(other));
    return result;
}

// 1 twice, or once in f32.
#ifdef NUMBER_BF16
#define ONES 0x3f803f80u
#elif defined(NUMBER_F16)
#define ONES 0x3c003c00u
#else
#define ONES 0x3f800000u
#endif

// Numbers of 16 bytes: a group, which is copied, read and written at once. Two of them are what an `mma` takes of the inner
// dimension.
static constexpr int GROUP = 16 / (int)sizeof(number);

// Numbers as `mma` takes them: f32 is rounded to the nearest of tf32 (which ignores the last 13 bits), ties away from 0.
template <int COUNT>
__device__ __forceinline__ void operands(unsigned (&parts)[COUNT][4]) {
#ifdef NUMBER_F32
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(parts[i][n]) : "r"(parts[i][n]));
    }
#endif
}

// sums += A · B, A 16 × 2 GROUP, B 2 GROUP × 8.
__device__ __forceinline__ void multiply(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    float s0, s1, s2, s3;
    // Operands that are read and written would be copied, in PTX, before and after.
    asm(MMA " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=f"(s0), "=f"(s1), "=f"(s2), "=f"(s3)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(sums[0]), "f"(sums[1]), "f"(sums[2]),
          "f"(sums[3]));
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
}

// Starts a copy of 16 bytes to OFFSET behind the address `to` of shared memory.
template <int OFFSET>
__device__ __forceinline__ void copy_group(unsigned to, const char* from) {
    asm volatile("cp.async.cg.shared.global [%0 + %2], [%1], 16;" ::"r"(to), "l"(from), "n"(OFFSET) : "memory");
}

template <int OFFSET>
__device__ __forceinline__ void load_single(unsigned& part, unsigned address) {
    asm volatile("ld.shared.b32 %0, [%1 + %2];" : "=r"(part) : "r"(address), "n"(OFFSET) : "memory");
}

// One operand of a product: a tile of ROWS × COLUMNS numbers of it, as it lies in global memory. ALONG: its rows run along
// the inner dimension, else it has a row for each number of it.
template <int THREADS, int ROWS, int COLUMNS, bool ALONG>
struct Operand {
    static constexpr int PITCH = COLUMNS * sizeof(number), BYTES = ROWS * PITCH, INNER = ALONG ? COLUMNS : ROWS;
    static constexpr int OUTER = ALONG ? ROWS : COLUMNS;
    // Groups of a row, rows of all threads' groups, groups of a thread.
    static constexpr int ACROSS = COLUMNS / GROUP, APART = THREADS / ACROSS, GROUPS = ROWS / APART;
    // f32 is turned by single numbers: a lane reads one of row lane % 4 and column lane / 4.
    static constexpr bool SINGLE = sizeof(number) == 4 && !ALONG;
    static_assert(APART % (SINGLE ? 4 : 8) == 0 && ROWS % APART == 0, "a thread's groups are exchanged alike");

    const char* from;        // this thread's first group of the next step
    u64 apart;               // bytes between its groups
    u64 advance;             // bytes from a step to the next
    unsigned outer;          // how many there are of the tile's numbers across the inner dimension
    bool vector, words, whole;  // rows are multiples of 16 bytes, of 4; the first, and the tile is inside the matrix

    // `matrix`: its first number, `stride`: how far its rows are apart; the tile begins `first` across the inner dimension,
    // of `all`.
    __device__ __forceinline__ void start(const number* matrix, unsigned stride, unsigned first, unsigned all) {
        move(matrix, stride, first);
        apart = (u64)APART * stride * sizeof(number);
        advance = ALONG ? INNER * sizeof(number) : (u64)INNER * stride * sizeof(number);
        outer = all - first;
        vector = stride % GROUP == 0 && aligned16(matrix);
        words = sizeof(number) == 4 || stride % 2 == 0 && ((u64)matrix & 3) == 0;
        whole = vector && outer >= OUTER;
    }

    // To the beginning of another matrix with the same rows.
    __device__ __forceinline__ void move(const number* matrix, unsigned stride, unsigned first) {
        const number* tile = matrix + (ALONG ? (u64)first * stride : (u64)first);
        from = (const char*)(tile + (u64)(threadIdx.x / ACROSS) * stride + threadIdx.x % ACROSS * GROUP);
    }

    // Bytes from the tile's beginning to group `group` of row `row`. Where two rows share all banks, two take their turn.
    static __device__ __forceinline__ unsigned place(unsigned row, unsigned group) {
        return row * PITCH + (group ^ (SINGLE ? row % 4 * 2 : PITCH == 64 ? row / 2 % 4 : row % 8)) * 16;
    }

    // Where the first one of a thread's groups lies in a tile.
    static __device__ __forceinline__ unsigned group_place() { return place(threadIdx.x / ACROSS, threadIdx.x % ACROSS); }

    // Starts the copy of the next step, of which `inner` numbers of the inner dimension are there (or more). `to`: the place
    // of the thread's first group.
    template <bool WHOLE>
    __device__ __forceinline__ void copy(unsigned to, unsigned inner) const {
        if (WHOLE || whole && inner >= INNER) {
            copy_whole(to, from);
        } else {
            copy_edge(to, inner);
        }
    }

    // Recursions: a number that is part of an instruction cannot be that of a loop.
    template <int I = 0>
    __device__ __forceinline__ void copy_whole(unsigned to, const char* source) const {
        if constexpr (I < GROUPS) {
            copy_group<I * APART * PITCH>(to, source);
            copy_whole<I + 1>(to, source + apart);
        }
    }

    __device__ __forceinline__ void copy_edge(unsigned to, unsigned inner) const {
        // Hidden, or the compiler keeps what follows from it in registers, for a way that is seldom gone.
        unsigned thread = hidden(threadIdx.x), row = thread / ACROSS, column = thread % ACROSS * GROUP;
        unsigned rows = ALONG ? outer : inner, columns = ALONG ? inner : outer;
        unsigned count = column < columns ? min(columns - column, GROUP) : 0;
        const char* source = from;
#pragma unroll 1
        for (int i = 0; i < GROUPS; i++, row += APART, source += apart, to += APART * PITCH) {
            unsigned bytes = row < rows ? count * sizeof(number) : 0;
            if (vector) {
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(source), "r"(bytes) : "memory");
            } else if (sizeof(number) == 4 || words) {
#pragma unroll
                for (unsigned at = 0; at < 16; at += 4) {
                    unsigned left = bytes > at ? min(bytes - at, 4) : 0;
                    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to + at), "l"(source + at), "r"(left)
                                 : "memory");
                }
            } else {
                unsigned pairs[4];
#pragma unroll
                for (unsigned at = 0; at < 16; at += 4) {
                    unsigned low = bytes > at ? *(const unsigned short*)(source + at) : 0;
                    unsigned high = bytes > at + 2 ? *(const unsigned short*)(source + at + 2) : 0;
                    pairs[at / 4] = low | high << 16;
                }
                asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(pairs[0]), "r"(pairs[1]),
                             "r"(pairs[2]), "r"(pairs[3]) : "memory");
            }
        }
    }

    // A lane's part of the address of the 16 × 2 GROUP numbers at `first` (a multiple of 32) and 0 of the inner dimension. The
    // matrices: those 8 further along `first`'s dimension are the second and fourth if SECOND, else the third and fourth.
    template <bool SECOND>
    static __device__ __forceinline__ unsigned lane_place(unsigned first) {
        unsigned lane = threadIdx.x % 32, second = lane / 8 % 2, third = lane / 16;
        unsigned across = SECOND ? second : third, along = SECOND ? third : second;
        if (SINGLE) return place(lane % 4, first / GROUP + lane / 16) + lane / 4 % 4 * 4;
        return ALONG ? place(first + lane % 8 + 8 * across, along) : place(lane % 8 + 8 * along, first / GROUP + across);
    }

    // From there, the 16 × 2 GROUP numbers 16 · i further for each i < COUNT, and at 2 GROUP · K of the inner dimension.
    template <bool SECOND, int COUNT, int K, int I = 0>
    static __device__ __forceinline__ void load(unsigned (&parts)[COUNT][4], unsigned tile, unsigned place) {
        if constexpr (I < COUNT) {
            if constexpr (ALONG) {
                load_matrices<false, I * 16 * PITCH>(parts[I], tile + (place ^ K * 32));
            } else if constexpr (!SINGLE) {
                load_matrices<true, K * 16 * PITCH>(parts[I], tile + (place ^ I * 32));
            } else {
                // The exchange is within 128 bytes, 32 numbers.
                unsigned near = tile + (place ^ I % 2 * 64), far = tile + (place ^ (I % 2 * 64 + 32));
                load_single<I / 2 * 128 + K * 8 * PITCH>(parts[I][0], near);
                load_single<I / 2 * 128 + K * 8 * PITCH>(parts[I][SECOND ? 1 : 2], far);
                load_single<I / 2 * 128 + (K * 8 + 4) * PITCH>(parts[I][SECOND ? 2 : 1], near);
                load_single<I / 2 * 128 + (K * 8 + 4) * PITCH>(parts[I][3], far);
            }
            load<SECOND, COUNT, K, I + 1>(parts, tile, place);
        }
    }
};

// Warps of WARP_M rows and WARP_N columns, steps of GROUPS groups. BLOCKS: how many share a multiprocessor.
template <int ROWS_, int COLUMNS_, int WARP_M, int WARP_N, int GROUPS, int STAGES_, int BLOCKS_>
struct Tiling {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, DEPTH = GROUPS * GROUP, STAGES = STAGES_, BLOCKS = BLOCKS_;
    static constexpr int WARPS_N = COLUMNS / WARP_N, THREADS = ROWS / WARP_M * WARPS_N * 32;
    static constexpr int TM = WARP_M / 16, TN = WARP_N / 8;
    static constexpr unsigned STAGE = (ROWS + COLUMNS) * GROUPS * 16;
    // Of `Sums::ones`: the warps of a row of warps share its rows.
    static constexpr int SHARE = TM / WARPS_N;
    static_assert(GROUPS % 4 == 0 && TM % WARPS_N == 0 && WARP_N % 32 == 0, "what is assumed below");

    template <bool ALONG>
    using Left = Operand<THREADS, ALONG ? ROWS : DEPTH, ALONG ? DEPTH : ROWS, ALONG>;
    template <bool ALONG>
    using Right = Operand<THREADS, ALONG ? COLUMNS : DEPTH, ALONG ? DEPTH : COLUMNS, ALONG>;

    // What a lane has of a tile of the result, and of A · 1.
    struct Sums {
        float tile[TM][TN][4], ones[SHARE][4];
    };

    struct Fragments {
        unsigned a[TM][4], b[TN / 2][4];
    };

    static __device__ __forceinline__ unsigned warp_column() { return threadIdx.x / 32 % WARPS_N; }
    static __device__ __forceinline__ unsigned warp_m() { return threadIdx.x / 32 / WARPS_N * WARP_M; }
    static __device__ __forceinline__ unsigned warp_n() { return warp_column() * WARP_N; }

    template <bool WITH_ONES>
    static __device__ __forceinline__ void multiply_warp(Sums& sums, const Fragments& now) {
#pragma unroll
        for (int i = 0; i < TM; i++) {
#pragma unroll
            for (int j = 0; j < TN; j++) {
                multiply(sums.tile[i][j], now.a[i], now.b[j / 2][j % 2 * 2], now.b[j / 2][j % 2 * 2 + 1]);
            }
        }
        if constexpr (WITH_ONES) {
#pragma unroll
            for (int i = 0; i < SHARE; i++) {
                // One of the fragments by selection: by a branch, or by an index, would cost more.
                unsigned a[4];
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    a[n] = now.a[i * WARPS_N][n];
#pragma unroll
                    for (int column = 1; column < WARPS_N; column++) {
                        a[n] = selected(warp_column() == column, now.a[i * WARPS_N + column][n], a[n]);
                    }
                }
                multiply(sums.ones[i], a, ONES, ONES);
            }
        }
    }

    // Fetches step after step of `layers` pairs of matrices, each `depth` long in the inner dimension, and multiplies.
    // `next`, called when all steps of a pair are on their way, moves the operands to the next pair.
    // Tiles that are inside of their matrices, with whole steps, have a loop of their own: without branches between the
    // copies and what they are to be hidden behind.
    template <bool WITH_ONES, bool STACKED, class A, class B, class Next>
    static __device__ __forceinline__ void product(
        Sums& sums, A& left, B& right, unsigned layers, unsigned depth, Next next
    ) {
        if (left.whole && right.whole && depth % DEPTH == 0) {
            product_of<WITH_ONES, STACKED, true>(sums, left, right, layers, depth, next);
        } else {
            product_of<WITH_ONES, STACKED, false>(sums, left, right, layers, depth, next);
        }
    }

    template <bool WITH_ONES, bool STACKED, bool WHOLE, class A, class B, class Next>
    static __device__ __forceinline__ void product_of(
        Sums& sums, A& left, B& right, unsigned layers, unsigned depth, Next next
    ) {
        unsigned steps = layers * ((depth + DEPTH - 1) / DEPTH);
        unsigned shared = (unsigned)__cvta_generic_to_shared(shared_quads);
        unsigned place_a = A::template lane_place<true>(warp_m());
        unsigned place_b = B::template lane_place<false>(warp_n()) + A::BYTES;
        unsigned to_a = A::group_place(), to_b = B::group_place() + A::BYTES;
#pragma unroll
        for (int i = 0; i < TM; i++) {
#pragma unroll
            for (int j = 0; j < TN; j++) {
#pragma unroll
                for (int n = 0; n < 4; n++) sums.tile[i][j][n] = 0.0f;
            }
        }
#pragma unroll
        for (int i = 0; i < SHARE; i++) {
#pragma unroll
            for (int n = 0; n < 4; n++) sums.ones[i][n] = 0.0f;
        }
        unsigned inner = depth;
        auto fetch = [&](unsigned stage) {
            left.template copy<WHOLE>(stage + to_a, inner);
            right.template copy<WHOLE>(stage + to_b, inner);
            left.from += left.advance;
            right.from += right.advance;
            if (WHOLE && !STACKED) return;
            if (inner > DEPTH) {
                inner -= DEPTH;
            } else {
                inner = depth;
                next();
            }
        };
#pragma unroll 1
        for (unsigned step = 0; step < STAGES - 1; step++) {
            if (step < steps) fetch(shared + step * STAGE);
            copies_end();
        }
        copies_wait<STAGES - 2>();
        __syncthreads();
        Fragments fragments[2];
        A::template load<true, TM, 0>(fragments[0].a, shared, place_a);
        B::template load<false, TN / 2, 0>(fragments[0].b, shared, place_b);
        unsigned stage = shared, free = shared + (STAGES - 1) * STAGE;
#pragma unroll 1
        for (unsigned step = 0; step < steps; step++) {
            step_of<WITH_ONES, A, B>(sums, fragments, stage, place_a, place_b, step + 1 < steps, [&]() {
                if (step + STAGES - 1 < steps) fetch(free);
                copies_end();
                free = stage;
            });
        }
        copies_wait<0>();
        // All are done with the last step, whose room the results take.
        __syncthreads();
    }

    // Multiplies the step at `stage`; moves on to the next, of which it reads the first fragments, if there are `more`.
    template <bool WITH_ONES, class A, class B, int K = 0, class Fetch>
    static __device__ __forceinline__ void step_of(
        Sums& sums, Fragments (&fragments)[2], unsigned& stage, unsigned place_a, unsigned place_b, bool more, Fetch fetch
    ) {
        constexpr int LAST = GROUPS / 2 - 1;
        if constexpr (K < LAST) {
            A::template load<true, TM, K + 1>(fragments[(K + 1) % 2].a, stage, place_a);
            B::template load<false, TN / 2, K + 1>(fragments[(K + 1) % 2].b, stage, place_b);
            if (K == 0) fetch();
        } else {
            unsigned end = (unsigned)__cvta_generic_to_shared(shared_quads) + (STAGES - 1) * STAGE;
            stage = stage == end ? end - (STAGES - 1) * STAGE : stage + STAGE;
            copies_wait<STAGES - 2>();
            // The next step is there for all, and all have read the fragments of this one.
            __syncthreads();
            if (more) {
                A::template load<true, TM, 0>(fragments[0].a, stage, place_a);
                B::template load<false, TN / 2, 0>(fragments[0].b, stage, place_b);
            }
        }
        operands(fragments[K % 2].a);
        operands(fragments[K % 2].b);
        multiply_warp<WITH_ONES>(sums, fragments[K % 2]);
        if constexpr (K < LAST) step_of<WITH_ONES, A, B, K + 1>(sums, fragments, stage, place_a, place_b, more, fetch);
    }

    // The results on their way through shared memory, as f32. Of each group of 8 the halves lie apart, and groups are exchanged
    // within a row, by its number and the half: lanes of four rows write at once, and lanes read neighbours.
    static __device__ __forceinline__ void keep_results(const Sums& sums) {
        unsigned lane = threadIdx.x % 32, row = lane / 4, half = lane / 2 % 2;
        char* to = (char*)shared_quads + (warp_m() + row) * (COLUMNS * 4) + half * (COLUMNS * 2) + lane % 2 * 8;
        unsigned within = (warp_n() / 8 ^ (row % 4 * 2 + half)) * 16;
#pragma unroll
        for (int i = 0; i < TM; i++) {
#pragma unroll
            for (int j = 0; j < TN; j++) {
                char* at = to + (within ^ j * 16) + i * 16 * COLUMNS * 4;
                *(float2*)at = make_float2(sums.tile[i][j][0], sums.tile[i][j][1]);
                *(float2*)(at + 8 * COLUMNS * 4) = make_float2(sums.tile[i][j][2], sums.tile[i][j][3]);
            }
        }
        __syncthreads();
    }

    // A thread gets GROUP neighbours, those from column `results_column` on, of RESULTS rows: `results_row` and every
    // ROWS_APARTth from there.
    static constexpr int ACROSS = COLUMNS / GROUP, ROWS_APART = THREADS / ACROSS, RESULTS = ROWS / ROWS_APART;
    static_assert(ROWS_APART % (GROUP == 8 ? 8 : 4) == 0, "groups of a thread are exchanged alike");

    static __device__ __forceinline__ unsigned results_row() { return threadIdx.x / ACROSS; }
    static __device__ __forceinline__ unsigned results_column() {
        unsigned thread = threadIdx.x % ACROSS;
        // Of f32, first halves are for eight lanes and second ones for the next eight.
        return GROUP == 8 ? thread * 8 : thread / 16 * 64 + thread % 8 * 8 + thread / 8 % 2 * 4;
    }

    // Those of row number `i`.
    static __device__ __forceinline__ void results(float (&v)[GROUP], unsigned i) {
        unsigned column = results_column(), key = results_row() % 4 * 2;
        const char* from = (const char*)shared_quads + (results_row() + i * ROWS_APART) * (COLUMNS * 4);
#pragma unroll
        for (int n = 0; n < GROUP / 4; n++) {
            unsigned half = column / 4 % 2 + n;
            float4 quad = *(const float4*)(from + half * (COLUMNS * 2) + (column / 8 ^ (key + half)) * 16);
            v[4 * n] = quad.x, v[4 * n + 1] = quad.y, v[4 * n + 2] = quad.z, v[4 * n + 3] = quad.w;
        }
    }

    // The same with the results as they are stored: half as much to write and read where that is 16 bits.
    static __device__ __forceinline__ void keep_numbers(const Sums& sums) {
#ifdef NUMBER_F32
        keep_results(sums);
#else
        unsigned lane = threadIdx.x % 32, row = lane / 4;
        char* to = (char*)shared_quads + (warp_m() + row) * (COLUMNS * 2) + lane % 4 * 4;
        unsigned within = (warp_n() / 8 ^ row) * 16;
#pragma unroll
        for (int i = 0; i < TM; i++) {
#pragma unroll
            for (int j = 0; j < TN; j++) {
                char* at = to + (within ^ j * 16) + i * 16 * COLUMNS * 2;
                *(unsigned*)at = rounded2(sums.tile[i][j][0], sums.tile[i][j][1]);
                *(unsigned*)(at + 8 * COLUMNS * 2) = rounded2(sums.tile[i][j][2], sums.tile[i][j][3]);
            }
        }
        __syncthreads();
#endif
    }

    static __device__ __forceinline__ uint4 kept_numbers(unsigned i) {
#ifdef NUMBER_F32
        float v[GROUP];
        results(v, i);
        return packed(v);
#else
        unsigned row = results_row(), group = results_column() / 8 ^ row % 8;
        return *(const uint4*)((const char*)shared_quads + (row + i * ROWS_APART) * (COLUMNS * 2) + group * 16);
#endif
    }

    // Adds to all rows what `added` has for each column, of `count` from the tile's first one on.
    static __device__ __forceinline__ void add_to_columns(Sums& sums, const float* added, unsigned count) {
        unsigned column = warp_n() + threadIdx.x % 4 * 2;
#pragma unroll
        for (int j = 0; j < TN; j++) {
#pragma unroll
            for (int n = 0; n < 2; n++) {
                float one = column + j * 8 + n < count ? added[column + j * 8 + n] : 0.0f;
#pragma unroll
                for (int i = 0; i < TM; i++) sums.tile[i][j][n] += one, sums.tile[i][j][n + 2] += one;
            }
        }
    }

    // Writes the results, rows × columns of the tile, to f32 in rows of `pitch`: lanes with a row's neighbours write whole
    // sectors of 32 bytes as they are.
    static __device__ __forceinline__ void put_sums(
        const Sums& sums, float* to, bool accumulate, unsigned pitch, unsigned rows, unsigned columns
    ) {
        unsigned lane = threadIdx.x % 32, row = warp_m() + lane / 4, column = warp_n() + lane % 4 * 2;
        bool pairs = pitch % 2 == 0 && ((u64)to & 7) == 0;
        to += (u64)row * pitch + column;
#pragma unroll
        for (int i = 0; i < 2 * TM; i++, row += 8, to += (u64)8 * pitch) {
            if (row >= rows) return;
            float2 pair[TN];
            const float(&of)[TN][4] = sums.tile[i / 2];
#pragma unroll
            for (int j = 0; j < TN; j++) pair[j] = make_float2(of[j][i % 2 * 2], of[j][i % 2 * 2 + 1]);
            if (pairs) {
#pragma unroll
                for (int j = 0; j < TN && accumulate; j++) {
                    float2 before = column + j * 8 < columns ? *(const float2*)(to + j * 8) : make_float2(0.0f, 0.0f);
                    pair[j].x += before.x, pair[j].y += before.y;
                }
#pragma unroll
                for (int j = 0; j < TN; j++) {
                    if (column + j * 8 < columns) *(float2*)(to + j * 8) = pair[j];
                }
            } else {
#pragma unroll
                for (int j = 0; j < TN; j++) {
                    float* at = to + j * 8;
                    if (column + j * 8 < columns) at[0] = accumulate ? at[0] + pair[j].x : pair[j].x;
                    if (column + j * 8 + 1 < columns) at[1] = accumulate ? at[1] + pair[j].y : pair[j].y;
                }
            }
        }
    }
};
