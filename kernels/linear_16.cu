// Linear layers whose numbers are stored in 16 bits, on tensor cores: products of `number`s, sums in f32.
//
// - Three forms: y = x · Wᵀ (+ b), dx = dy · W, dW = dyᵀ · x with db = Σ dy. All matrices lie row by row, without gaps.
// - A block computes a tile of the result (ROWS × COLUMNS: the suffix of a kernel's name) in steps of DEPTH of the inner
//   dimension. STAGES − 1 steps are on their way by `cp.async` while one is multiplied; there is one barrier a step.
// - A tile lies in shared memory as it does in global memory; `ldmatrix` reads it, turned (`.trans`) where rows do not run
//   along the inner dimension. Groups of 8 numbers (16 bytes) are exchanged within a row, by its number, so that eight
//   neighbouring rows of one column are in different banks.
// - The fragments of the next 16 of the inner dimension are read while those before are multiplied, also across steps.
// - Every number of a result is one chain of `mma` over the inner dimension in its order, filled up with zeros to whole
//   steps: its bits depend neither on the tile, nor on the number of rows, nor on where in the batch a row stands. db is
//   such a chain too, of dyᵀ · 1. Gradients of weights are chains over chunks of tokens.
// - The results of a tile go through shared memory, in f32, to where they are written, 16 bytes a thread.
// - Tiles at the edge copy what is there and 0 for the rest. Rows that are no multiples of 16 bytes are copied by 4 bytes,
//   or by numbers where even that is not aligned.
#ifdef NUMBER_F32
#error "linear_16.cu is for numbers of 16 bits"
#endif

// A number that the compiler knows nothing about: it keeps it, and works out anew what depends on it.
__device__ __forceinline__ unsigned hidden(unsigned number) {
    asm volatile("" : "+r"(number));
    return number;
}

// `one` if it is so, else `other`; in assembly, since the compiler makes an array in memory of a chain of these.
__device__ __forceinline__ unsigned selected(bool so, unsigned one, unsigned other) {
    unsigned result;
    asm("{\n.reg .pred so;\nsetp.ne.u32 so, %1, 0;\nselp.b32 %0, %2, %3, so;\n}" : "=r"(result) : "r"((unsigned)so), "r"(one), "r"(other));
    return result;
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

#ifdef NUMBER_BF16
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
#define ONES 0x3f803f80u
#else
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
#define ONES 0x3c003c00u
#endif

// sums += A · B, A 16 × 16, B 16 × 8.
__device__ __forceinline__ void multiply(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    float s0, s1, s2, s3;
    // Operands that are read and written would be copied, in PTX, before and after.
    asm(MMA "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
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

// One operand of a product: a tile of ROWS × COLUMNS numbers of it, as it lies in global memory. ALONG: its rows run along
// the inner dimension, else it has a row for each number of it.
template <int THREADS, int ROWS, int COLUMNS, bool ALONG>
struct Operand {
    static constexpr int PITCH = COLUMNS * 2, BYTES = ROWS * PITCH, INNER = ALONG ? COLUMNS : ROWS;
    static constexpr int OUTER = ALONG ? ROWS : COLUMNS;
    // Groups of a row, rows of all threads' groups, groups of a thread.
    static constexpr int ACROSS = COLUMNS / 8, APART = THREADS / ACROSS, GROUPS = ROWS / APART;
    static_assert(APART % 8 == 0 && ROWS % APART == 0, "a thread's groups are in one column");

    const char* from;        // this thread's first group of the next step
    u64 apart;               // bytes between its groups
    u64 advance;             // bytes from a step to the next
    unsigned outer;          // how many there are of the tile's numbers across the inner dimension
    bool vector, words, whole;  // rows are multiples of 16 bytes, of 4; the first, and the tile is inside the matrix

    // `matrix`: its first number, `stride`: how far its rows are apart; the tile begins `first` across the inner dimension,
    // of `all`.
    __device__ __forceinline__ void start(const number* matrix, unsigned stride, unsigned first, unsigned all) {
        move(matrix, stride, first);
        apart = (u64)APART * stride * 2;
        advance = ALONG ? INNER * 2 : (u64)INNER * stride * 2;
        outer = all - first;
        vector = stride % 8 == 0 && aligned16(matrix);
        words = stride % 2 == 0 && ((u64)matrix & 3) == 0;
        whole = vector && outer >= OUTER;
    }

    // To the beginning of another matrix with the same rows.
    __device__ __forceinline__ void move(const number* matrix, unsigned stride, unsigned first) {
        const number* tile = matrix + (ALONG ? (u64)first * stride : (u64)first);
        from = (const char*)(tile + (u64)(threadIdx.x / ACROSS) * stride + threadIdx.x % ACROSS * 8);
    }

    // Bytes from the tile's beginning to group `group` of row `row`. Where two rows share all banks, two take their turn.
    static __device__ __forceinline__ unsigned place(unsigned row, unsigned group) {
        return row * PITCH + (group ^ (PITCH == 64 ? row / 2 % 4 : row % 8)) * 16;
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
        unsigned thread = hidden(threadIdx.x), row = thread / ACROSS, column = thread % ACROSS * 8;
        unsigned rows = ALONG ? outer : inner, columns = ALONG ? inner : outer;
        unsigned count = column < columns ? min(columns - column, 8) : 0;
        const char* source = from;
#pragma unroll 1
        for (int i = 0; i < GROUPS; i++, row += APART, source += apart, to += APART * PITCH) {
            unsigned bytes = row < rows ? count * 2 : 0;
            if (vector) {
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(source), "r"(bytes) : "memory");
            } else if (words) {
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

    // A lane's part of the address of the 16 × 16 numbers at `first` (a multiple of 32) and 0 of the inner dimension. The
    // matrices: those 8 further along `first`'s dimension are the second and fourth if SECOND, else the third and fourth.
    template <bool SECOND>
    static __device__ __forceinline__ unsigned lane_place(unsigned first) {
        unsigned lane = threadIdx.x % 32, second = lane / 8 % 2, third = lane / 16;
        unsigned across = SECOND ? second : third, along = SECOND ? third : second;
        return ALONG ? place(first + lane % 8 + 8 * across, along) : place(lane % 8 + 8 * along, first / 8 + across);
    }

    // From there, the 16 × 16 numbers 16 · i further for each i < COUNT, and at 16 · K of the inner dimension.
    template <int COUNT, int K, int I = 0>
    static __device__ __forceinline__ void load(unsigned (&parts)[COUNT][4], unsigned tile, unsigned place) {
        if constexpr (I < COUNT) {
            if (ALONG) {
                load_matrices<false, I * 16 * PITCH>(parts[I], tile + (place ^ K * 32));
            } else {
                load_matrices<true, K * 16 * PITCH>(parts[I], tile + (place ^ I * 32));
            }
            load<COUNT, K, I + 1>(parts, tile, place);
        }
    }
};

// Warps of WARP_M rows and WARP_N columns. BLOCKS: how many share a multiprocessor.
template <int ROWS_, int COLUMNS_, int WARP_M, int WARP_N, int DEPTH_, int STAGES_, int BLOCKS_>
struct Tiling {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, DEPTH = DEPTH_, STAGES = STAGES_, BLOCKS = BLOCKS_;
    static constexpr int WARPS_N = COLUMNS / WARP_N, THREADS = ROWS / WARP_M * WARPS_N * 32;
    static constexpr int TM = WARP_M / 16, TN = WARP_N / 8;
    static constexpr unsigned STAGE = (ROWS + COLUMNS) * DEPTH * 2;
    // Of `Sums::ones`: the warps of a row of warps share its rows.
    static constexpr int SHARE = TM / WARPS_N;
    static_assert(DEPTH % 32 == 0 && TM % WARPS_N == 0 && WARP_N % 32 == 0, "what is assumed below");

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
        A::template load<TM, 0>(fragments[0].a, shared, place_a);
        B::template load<TN / 2, 0>(fragments[0].b, shared, place_b);
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
        constexpr int LAST = DEPTH / 16 - 1;
        if constexpr (K < LAST) {
            A::template load<TM, K + 1>(fragments[(K + 1) % 2].a, stage, place_a);
            B::template load<TN / 2, K + 1>(fragments[(K + 1) % 2].b, stage, place_b);
            if (K == 0) fetch();
        } else {
            unsigned end = (unsigned)__cvta_generic_to_shared(shared_quads) + (STAGES - 1) * STAGE;
            stage = stage == end ? end - (STAGES - 1) * STAGE : stage + STAGE;
            copies_wait<STAGES - 2>();
            // The next step is there for all, and all have read the fragments of this one.
            __syncthreads();
            if (more) {
                A::template load<TM, 0>(fragments[0].a, stage, place_a);
                B::template load<TN / 2, 0>(fragments[0].b, stage, place_b);
            }
        }
        multiply_warp<WITH_ONES>(sums, fragments[K % 2]);
        if constexpr (K < LAST) step_of<WITH_ONES, A, B, K + 1>(sums, fragments, stage, place_a, place_b, more, fetch);
    }

    // Hands the results to `put(row, numbers)`, COUNT (4 or 8) neighbours at once, those from `results_column` on. In
    // shared memory groups of 32 bytes are exchanged within a row, by its number: lanes of four rows write at once.
    template <int COUNT>
    static __device__ __forceinline__ unsigned results_column() { return threadIdx.x % (COLUMNS / COUNT) * COUNT; }

    static __device__ __forceinline__ void keep_results(const Sums& sums) {
        unsigned lane = threadIdx.x % 32, row = lane / 4;
        char* to = (char*)shared_quads + (warp_m() + row) * (COLUMNS * 4) + warp_n() * 4;
        unsigned within = row % 4 * 32 + lane % 4 * 8;
#pragma unroll
        for (int i = 0; i < TM; i++) {
#pragma unroll
            for (int j = 0; j < TN; j++) {
                char* at = to + (within ^ j % 4 * 32) + j / 4 * 128 + i * 16 * COLUMNS * 4;
                *(float2*)at = make_float2(sums.tile[i][j][0], sums.tile[i][j][1]);
                *(float2*)(at + 8 * COLUMNS * 4) = make_float2(sums.tile[i][j][2], sums.tile[i][j][3]);
            }
        }
        __syncthreads();
    }

    template <int COUNT, int UNROLL, class Put>
    static __device__ __forceinline__ void put_results(unsigned rows, Put put) {
        constexpr int ACROSS = COLUMNS / COUNT, APART = THREADS / ACROSS;
        static_assert(APART % 4 == 0, "groups of a thread are exchanged alike");
        unsigned row = threadIdx.x / ACROSS, column = results_column<COUNT>();
        const char* from = (const char*)shared_quads + row * (COLUMNS * 4) + ((column * 4) ^ row % 4 * 32);
        // Eight lanes that read 16 of 32 bytes each: four take the first half first, four the second.
        unsigned swapped = COUNT == 8 ? column / 32 % 2 * 16 : 0;
#pragma unroll UNROLL
        for (; row < min(rows, ROWS); row += APART, from += APART * COLUMNS * 4) {
            float v[COUNT];
            float4 one = *(const float4*)(from + swapped);
            if constexpr (COUNT == 8) {
                float4 other = *(const float4*)(from + (swapped ^ 16));
                float4 low = swapped ? other : one, high = swapped ? one : other;
                v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
                one = low;
            }
            v[0] = one.x, v[1] = one.y, v[2] = one.z, v[3] = one.w;
            put(row, v);
        }
    }
};

// GELU and its slope to 3e-5 of themselves, an eighth of what f16 rounds off: `erfcf` and `expf` would take a third as long as
// a product with 384 numbers of depth. Φ(−a) = e^(−a²/2) · t · (c0 + … + c4 t⁴), t = 1 / (1 + 3a/8), with the c of the least
// relative error for a from 0 to 13.5, beyond which f32 ends.
__device__ __forceinline__ Value gelu_16(float z) {
    float t, density, a = fabsf(z);
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(t) : "f"(fmaf(0.375f, a, 1.0f)));
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(density) : "f"(z * z * -0.72134752044448170368f));
    float series = fmaf(-0.0909853720f, t, 0.2010436287f);
    series = fmaf(series, t, 0.0829737897f);
    series = fmaf(series, t, 0.1579201551f);
    series = fmaf(series, t, 0.1490411221f);
    float tail = series * t * density;
    float cumulative = z > 0.0f ? 1.0f - tail : tail;
    // Infinite z: 0 · ∞ is no number.
    float rest = a >= 20.0f ? 0.0f : z * (0.39894228040143267794f * density);
    return {cumulative == 0.0f ? 0.0f : z * cumulative, cumulative + rest};
}

__device__ __forceinline__ Value activate_16(int function, float z) {
    return function == GELU_ERF ? gelu_16(z) : activate(function, z);
}

// Eight numbers to `to`, of which the first `count` are in the row. `vector`: all are, and `to` is a multiple of 16 bytes.
__device__ __forceinline__ void store8(number* to, unsigned count, bool vector, const float (&v)[8]) {
    if (vector) {
        u64 address = __cvta_generic_to_global(to);
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(rounded2(v[0], v[1])),
                     "r"(rounded2(v[2], v[3])), "r"(rounded2(v[4], v[5])), "r"(rounded2(v[6], v[7])) : "memory");
    } else {
#pragma unroll
        for (unsigned i = 0; i < 8; i++) {
            if (i < count) store1(to + i, v[i]);
        }
    }
}

__device__ __forceinline__ void load8(float (&v)[8], const number* from, unsigned count, bool vector) {
    if (vector) {
        uint4 words = *(const uint4*)from;
        float2 a = widened2(words.x), b = widened2(words.y), c = widened2(words.z), d = widened2(words.w);
        v[0] = a.x, v[1] = a.y, v[2] = b.x, v[3] = b.y, v[4] = c.x, v[5] = c.y, v[6] = d.x, v[7] = d.y;
    } else {
#pragma unroll
        for (unsigned i = 0; i < 8; i++) v[i] = i < count ? widened(from[i]) : 0.0f;
    }
}

// As a number stores it.
__device__ __forceinline__ void round8(float (&v)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        float2 pair = widened2(rounded2(v[i], v[i + 1]));
        v[i] = pair.x, v[i + 1] = pair.y;
    }
}

template <class T>
__device__ __forceinline__ void forward_16(
    number* y, number* z, const number* x, const number* weight, const float* bias, unsigned rows, unsigned width,
    unsigned out, int function
) {
    unsigned row = blockIdx.x * T::ROWS, column = blockIdx.y * T::COLUMNS;
    typename T::Sums sums;
    typename T::template Left<true> left;
    typename T::template Right<true> right;
    left.start(x, width, row, rows);
    right.start(weight, width, column, out);
    T::template product<false, false>(sums, left, right, 1, width, [] {});
    T::keep_results(sums);
    column += T::template results_column<8>();
    if (column >= out) return;
    unsigned count = min(out - column, 8);
    bool vector = out % 8 == 0 && aligned16(y) && aligned16(z);
    float added[8];
#pragma unroll
    for (unsigned i = 0; i < 8; i++) added[i] = bias && i < count ? bias[column + i] : 0.0f;
    u64 first = ((u64)blockIdx.z * rows + row) * out + column;
    y += first;
    if (function == IDENTITY && !z) {
        T::template put_results<8, 2>(rows - row, [&](unsigned i, float (&v)[8]) {
#pragma unroll
            for (int n = 0; n < 8; n++) v[n] += added[n];
            store8(y + (u64)i * out, count, vector, v);
        });
        return;
    }
    if (z) z += first;
    T::template put_results<8, 1>(rows - row, [&](unsigned i, float (&v)[8]) {
#pragma unroll
        for (int n = 0; n < 8; n++) v[n] += added[n];
        // Of z as it is kept, or h would be another one when it is made again from there.
        round8(v);
        if (z) store8(z + (u64)i * out, count, vector, v);
        if (function != IDENTITY) {
#pragma unroll
            for (int n = 0; n < 8; n++) v[n] = activate_16(function, v[n]).value;
        }
        store8(y + (u64)i * out, count, vector, v);
    });
}

template <class T>
__device__ __forceinline__ void input_gradient_16(
    number* dx, int accumulate, number* h, const number* dy, const number* weight0, const number* weight1,
    const number* weight2, const number* z, unsigned layers, unsigned rows, unsigned out, unsigned width, int function
) {
    unsigned row = blockIdx.x * T::ROWS, column = blockIdx.y * T::COLUMNS;
    typename T::Sums sums;
    typename T::template Left<true> left;
    typename T::template Right<false> right;
    left.start(dy, out, row, rows);
    right.start(weight0, width, column, width);
    bool all16 = aligned16(weight0) && aligned16(weight1) && aligned16(weight2);
    bool all4 = (((u64)weight0 | (u64)weight1 | (u64)weight2) & 3) == 0;
    // Of a layer's dy that begins at an odd number, too.
    bool even = layers == 1 || (u64)rows * out % 2 == 0;
    right.vector = right.vector && all16, right.whole = right.whole && all16, right.words = right.words && all4;
    left.words = left.words && even;
    unsigned layer = 0;
    T::template product<false, true>(sums, left, right, layers, out, [&] {
        // Hidden, or all of this is worked out in every step.
        layer = hidden(layer + 1);
        if (layer >= layers) return;
        left.move(dy + (u64)layer * rows * out, out, row);
        right.move(layer == 1 ? weight1 : weight2, width, column);
    });
    T::keep_results(sums);
    column += T::template results_column<8>();
    if (column >= width) return;
    unsigned count = min(width - column, 8);
    bool vector = width % 8 == 0 && aligned16(dx) && aligned16(h) && aligned16(z);
    u64 first = (u64)row * width + column;
    dx += first;
    if (!z) {
        T::template put_results<8, 2>(rows - row, [&](unsigned i, float (&v)[8]) {
            number* to = dx + (u64)i * width;
            if (accumulate) {
                float before[8];
                load8(before, to, count, vector);
#pragma unroll
                for (int n = 0; n < 8; n++) v[n] += before[n];
            }
            store8(to, count, vector, v);
        });
        return;
    }
    z += first;
    if (h) h += first;
    T::template put_results<8, 1>(rows - row, [&](unsigned i, float (&v)[8]) {
        float kept[8], value[8], before[8] = {};
        load8(kept, z + (u64)i * width, count, vector);
        number* to = dx + (u64)i * width;
        if (accumulate) load8(before, to, count, vector);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            Value both = activate_16(function, kept[n]);
            value[n] = both.value;
            v[n] = fmaf(v[n], both.slope, before[n]);
        }
        if (h) store8(h + (u64)i * width, count, vector, value);
        store8(to, count, vector, v);
    });
}

template <class T>
__device__ __forceinline__ void weight_gradient_16(
    float* dw, bool accumulate, float* db, bool accumulate_db, const number* dy, const number* x, unsigned rows,
    unsigned out, unsigned width, unsigned first, unsigned chunk
) {
    unsigned row = blockIdx.x * T::ROWS, column = blockIdx.y * T::COLUMNS;
    // All chunks of layers whose weights are frozen end here, but for those of the first column if a bias is not.
    if (column > 0 && !dw) return;
    unsigned count = min(rows - first, chunk);
    typename T::Sums sums;
    typename T::template Left<false> left;
    typename T::template Right<false> right;
    left.start(dy, out, row, out);
    right.start(x, width, column, width);
    left.from += (u64)first * out * 2;
    right.from += (u64)first * width * 2;
    if (db && column == 0) {
        T::template product<true, false>(sums, left, right, 1, count, [] {});
        unsigned lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < T::SHARE; i++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                unsigned j = row + T::warp_m() + 16 * (T::warp_column() + i * T::WARPS_N) + 8 * half + lane / 4;
                // All lanes of a row have the same sum.
                if (lane % 4 == 0 && j < out) db[j] = accumulate_db ? db[j] + sums.ones[i][2 * half] : sums.ones[i][2 * half];
            }
        }
    } else {
        T::template product<false, false>(sums, left, right, 1, count, [] {});
    }
    if (!dw) return;
    T::keep_results(sums);
    column += T::template results_column<4>();
    if (column >= width) return;
    bool vector = width % 4 == 0 && aligned16(dw);
    T::template put_results<4, 2>(out - row, [&](unsigned i, float (&v)[4]) {
        put4(dw + (u64)(row + i) * width, column, width, vector, make_float4(v[0], v[1], v[2], v[3]), accumulate);
    });
}

#ifndef TILINGS
// Rows, columns, those of a warp, depth, stages, blocks that share a multiprocessor.
#define TILINGS(KERNELS_OF)                                     \
    KERNELS_OF(128x256, (Tiling<128, 256, 64, 64, 32, 4, 1>))   \
    KERNELS_OF(128x128, (Tiling<128, 128, 64, 64, 32, 4, 2>))   \
    KERNELS_OF(128x64, (Tiling<128, 64, 64, 32, 32, 4, 3>))     \
    KERNELS_OF(64x64, (Tiling<64, 64, 32, 32, 32, 4, 4>))
#endif

template <class T>
struct Inside;
template <class T>
struct Inside<void(T)> {
    typedef T Type;
};

// linear_forward: y_l = f(z_l), z_l = x · W_lᵀ + b_l, for one to three layers of one input. x [rows, width], W_l [out,
// width], b_l [out] or null, y, z [layers, rows, out]; weights of layers that are not there may be null. z is kept unless it
// is null; f is that of z as a number keeps it. `function`: an activation of common.cuh, or −1: f(z) = z. Grid: x over
// rows, y over out, z = layers.
//
// linear_input_gradient: dx (+)= Σ_l dy_l · W_l, one chain of sums over the layers; if z is not null dx (+)= (Σ_l dy_l · W_l)
// ∘ f′(z), and h = f(z) unless h is null. dy [layers, rows, out], W_l [out, width], z, h, dx [rows, width]. `function` is
// read with z only, and is an activation. Grid: x over rows, y over width.
//
// linear_weight_gradient: dW_l (+)= dy_lᵀ · x and db_l (+)= Σ dy_l for each chunk of rows. dy [layers, rows, out], x [rows,
// width]; dW_l [chunks, out, width] or null, db_l [chunks, out] or null. Bit 2 l of `accumulate`: dW_l is added to, bit 2 l
// + 1: db_l. With one chunk these are the gradients themselves, else `linear_gradient_sums` adds the chunks. `chunk` must be
// fixed by shapes alone, since the sum's order depends on it. Grid: x over out, y over width, z = layers · chunks.
#define KERNELS_16(tile, tiling)                                                                                        \
    extern "C" __global__ void __launch_bounds__(Inside<void tiling>::Type::THREADS, Inside<void tiling>::Type::BLOCKS) \
        linear_forward_##tile(                                                                                          \
            number* __restrict__ y, number* __restrict__ z, const number* __restrict__ x,                               \
            const number* __restrict__ weight0, const float* __restrict__ bias0, const number* __restrict__ weight1,    \
            const float* __restrict__ bias1, const number* __restrict__ weight2, const float* __restrict__ bias2,       \
            unsigned rows, unsigned width, unsigned out, int function                                                   \
        ) {                                                                                                             \
        forward_16<Inside<void tiling>::Type>(                                                                          \
            y, z, x, blockIdx.z == 0 ? weight0 : blockIdx.z == 1 ? weight1 : weight2,                                   \
            blockIdx.z == 0 ? bias0 : blockIdx.z == 1 ? bias1 : bias2, rows, width, out, function                       \
        );                                                                                                              \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(Inside<void tiling>::Type::THREADS, Inside<void tiling>::Type::BLOCKS) \
        linear_input_gradient_##tile(                                                                                   \
            number* __restrict__ dx, int accumulate, number* __restrict__ h, const number* __restrict__ dy,             \
            const number* __restrict__ weight0, const number* __restrict__ weight1, const number* __restrict__ weight2, \
            const number* __restrict__ z, unsigned layers, unsigned rows, unsigned out, unsigned width, int function    \
        ) {                                                                                                             \
        input_gradient_16<Inside<void tiling>::Type>(                                                                   \
            dx, accumulate, h, dy, weight0, weight1, weight2, z, layers, rows, out, width, function                     \
        );                                                                                                              \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(Inside<void tiling>::Type::THREADS, Inside<void tiling>::Type::BLOCKS) \
        linear_weight_gradient_##tile(                                                                                  \
            float* __restrict__ dw0, float* __restrict__ db0, float* __restrict__ dw1, float* __restrict__ db1,         \
            float* __restrict__ dw2, float* __restrict__ db2, int accumulate, const number* __restrict__ dy,            \
            const number* __restrict__ x, unsigned rows, unsigned out, unsigned width, unsigned chunk, unsigned chunks  \
        ) {                                                                                                             \
        unsigned layer = blockIdx.z / chunks, part = blockIdx.z % chunks;                                               \
        float* dw = layer == 0 ? dw0 : layer == 1 ? dw1 : dw2;                                                          \
        float* db = layer == 0 ? db0 : layer == 1 ? db1 : db2;                                                          \
        weight_gradient_16<Inside<void tiling>::Type>(                                                                  \
            dw ? dw + (u64)part * out * width : dw, accumulate >> 2 * layer & 1, db ? db + (u64)part * out : db,        \
            accumulate >> (2 * layer + 1) & 1, dy + (u64)layer * rows * out, x, rows, out, width, part * chunk, chunk   \
        );                                                                                                              \
    }
TILINGS(KERNELS_16)

// target (+)= the sum of `chunks` parts that lie `apart`, in their order: four numbers of it, of `len`.
__device__ __forceinline__ void sum_chunks(
    float* target, bool accumulate, const float* parts, u64 apart, unsigned chunks, unsigned at, unsigned len
) {
    bool vector = len % 4 == 0 && apart % 4 == 0 && aligned16(target) && aligned16(parts);
    float4 sum = load4(parts, at, len, vector);
#pragma unroll 4
    for (unsigned chunk = 1; chunk < chunks; chunk++) sum = add4(sum, load4(parts + chunk * apart, at, len, vector));
    put4(target, at, len, vector, sum, accumulate);
}

// dW_l (+)= Σ its chunks, db_l (+)= Σ its chunks. parts [layers, chunks, numbers], numbers = out · width; parts_db [layers,
// chunks, out]; dW_l, db_l, `accumulate` as for linear_weight_gradient. Grid: x = ceil(numbers / 1024) + ceil(out / 1024), y
// = layers. Block: (256, 1).
extern "C" __global__ void linear_gradient_sums(
    float* __restrict__ dw0, float* __restrict__ db0, float* __restrict__ dw1, float* __restrict__ db1,
    float* __restrict__ dw2, float* __restrict__ db2, int accumulate, const float* __restrict__ parts,
    const float* __restrict__ parts_db, unsigned numbers, unsigned out, unsigned chunks
) {
    unsigned layer = blockIdx.y, blocks = (numbers + 1023) / 1024;
    float* dw = layer == 0 ? dw0 : layer == 1 ? dw1 : dw2;
    float* db = layer == 0 ? db0 : layer == 1 ? db1 : db2;
    if (blockIdx.x < blocks) {
        unsigned at = (blockIdx.x * 256 + threadIdx.x) * 4;
        if (!dw || at >= numbers) return;
        const float* from = parts + (u64)layer * chunks * numbers;
        sum_chunks(dw, accumulate >> 2 * layer & 1, from, numbers, chunks, at, numbers);
    } else {
        unsigned at = ((blockIdx.x - blocks) * 256 + threadIdx.x) * 4;
        if (!db || at >= out) return;
        const float* from = parts_db + (u64)layer * chunks * out;
        sum_chunks(db, accumulate >> (2 * layer + 1) & 1, from, out, chunks, at, out);
    }
}
