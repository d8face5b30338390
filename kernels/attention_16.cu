// Attention over packed sequences on tensor cores, numbers of 16 bits; the mathematics is that of attention.cu.
//
// - A warp has 16 · TILES rows of the result. What it makes of the first product of a tile (S, or dy · vᵀ) lies in registers as
//   the second product takes its left-hand side: the probabilities never leave the registers. Tiles of the other side,
//   COLUMNS rows, come by asynchronous copies, two stages deep, while the stage before is multiplied.
// - A tile lies in shared memory as it does in global memory; groups of 8 numbers (16 bytes) are exchanged within a row, by
//   its number, so that eight neighbouring rows of one column are in different banks (`place`).
// - Whatever the number of rows of a block, a row goes through the same sums in the same order: tiles of COLUMNS keys from the
//   start of its sequence, 16 keys for an `mma`. So the host may choose the rows of a block by the longest sequence, and a
//   sequence has the same bits alone and packed.
// - q, k, v, y and their gradients [tokens, heads · head_dim], `number`. log_sum_exp [tokens, heads], f32. statistics
//   [2, heads, rows of q], f32: L · log2 e, and D = rowsum(dy ∘ y) by the scale of the mask; the gradient of queries works
//   them out, that of keys and values reads them, so it comes second.
// - A block's place is an item of a list, so that the host can sort by length: the longest first, or the last blocks to
//   start would be the last to end. An item has five numbers: where the sequence begins among the rows of q, how many it
//   has of these, the same two for k, and the block's first row, counted from the start of the sequence (a row of q, or of
//   k for the gradients of keys).
// - Dropout: as in attention.cu, element (query · heads + head) · mask_stride + key. Drawing 32 bits takes 800 instructions, 8
//   for each `mma` at 64 numbers a head; so the forward pass leaves them in `kept` for the backward pass if it is
//   given. kept [heads, ceil(mask_stride / 64), rows of q, 2] words: bit 8 n + j of word h is key 8 j + 4 h + n of 64.
// - Rounding: P ≤ 1 and dS are rounded to 16 bits for the second product, each number by up to 2⁻⁹ (bf16) or 2⁻¹² (f16) of
//   itself, independently; sums, statistics and exponents are f32. In f16 the backward pass works with P / 8 (SHRINK): dS
//   overflows at 5e5, and P is exact to 2⁻²² at least. If dS overflows after all, the gradients are not finite, which the
//   scaling of the loss looks for.
//
// Grid: x = items · heads, y = parts (see KERNELS). Threads, rows and dynamic shared memory: see KERNELS.

#ifdef NUMBER_F32
#error "for numbers of 16 bits"
#endif

#define LOG2_E 1.44269504088896340736f
#define LN_2 0.69314718055994530942f

#ifdef NUMBER_F16
#define SHRINK 3.0f
#else
#define SHRINK 0.0f
#endif

// Rows of a tile of the other side.
#define COLUMNS 64

extern __shared__ __align__(512) unsigned char shared_bytes[];

// What a kernel needs to know of the op.
struct Attention {
    const unsigned* items;
    unsigned heads, head_dim;
    float scale;
    int causal;
    Mask mask;
    unsigned mask_stride;
    unsigned rows;  // of q
};

// Heads of up to HEAD numbers; blocks of WARPS warps of TILES · 16 rows; STAGES tiles of the other side. PARTS: so many blocks
// share the columns of the result, which one has no registers for; each works out all scores.
template <int HEAD_, int WARPS_, int TILES_, int STAGES_, int PARTS_ = 1>
struct Shape {
    static constexpr int HEAD = HEAD_, WARPS = WARPS_, TILES = TILES_, STAGES = STAGES_, THREADS = 32 * WARPS;
    static constexpr int ROWS = 16 * WARPS * TILES, WARP_ROWS = 16 * TILES, PARTS = PARTS_;
    // Bytes of a row; `mma`s along a head; groups of 16 bytes.
    static constexpr int PITCH = 2 * HEAD, STEPS = HEAD / 16, GROUPS = HEAD / 8;
    // Of what a block has of the result.
    static constexpr int PART = HEAD / PARTS, PART_STEPS = PART / 16;
    // Bytes of a block's own rows, and of a tile of the other side's.
    static constexpr int OWN = ROWS * PITCH, OTHER = COLUMNS * PITCH;
    // Whether the left-hand sides of the first products stay in registers.
    static constexpr bool HELD = HEAD <= 64;

    // Bytes from the beginning of a tile to a group of a row. Where two rows share all banks, two take their turn.
    static __device__ __forceinline__ unsigned place(unsigned row, unsigned group) {
        return row * PITCH + (group ^ (HEAD == 32 ? row / 2 % 4 : row % 8)) * 16;
    }
};

// Where a block stands.
struct Place {
    unsigned query, queries, key, keys, first, head;

    // Where the block's head begins in row `row` of the batch.
    __device__ __forceinline__ u64 start(const Attention& op, unsigned row) const {
        return ((u64)row * op.heads + head) * op.head_dim;
    }
};

__device__ __forceinline__ Place place(const Attention& op) {
    unsigned item = blockIdx.x / op.heads;
    const unsigned* at = op.items + 5 * (u64)item;
    return {at[0], at[1], at[2], at[3], at[4], blockIdx.x - item * op.heads};
}

// Known to be the same for the whole warp, and so are numbers that follow from it: they take no registers of the lanes.
__device__ __forceinline__ unsigned warp_number() { return __shfl_sync(FULL_WARP, threadIdx.x / 32, 0); }

// Numbers of a row.
__device__ __forceinline__ unsigned width(const Attention& op) { return op.heads * op.head_dim; }

// A number that the compiler knows nothing about: it works out anew what depends on it, and need not keep that.
__device__ __forceinline__ unsigned hidden(unsigned number) {
    asm volatile("" : "+r"(number));
    return number;
}

// ------------------------------------------------------------------------------------------------------- tensor cores

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
#else
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#endif

// sums += A · B, A 16 × 16, B 16 × 8. FIRST: sums = A · B, which takes no zeros to begin with.
template <bool FIRST = false>
__device__ __forceinline__ void multiply(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    if (FIRST) {
        asm(MMA " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
            : "=f"(sums[0]), "=f"(sums[1]), "=f"(sums[2]), "=f"(sums[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
    } else {
        asm(MMA " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
}

// The lane's part of an address in a tile: of a left-hand side (rows 0 .. 15), or of a right-hand side whose rows are the
// numbers of the inner dimension (TURNED). Worked out for each tile, which is cheaper than a register.
template <class T>
__device__ __forceinline__ unsigned left_place() {
    unsigned lane = hidden(threadIdx.x) % 32;
    return T::place(lane % 16, lane / 16);
}
// The same of a right-hand side whose rows are columns of the product.
template <class T>
__device__ __forceinline__ unsigned right_place() {
    unsigned lane = hidden(threadIdx.x) % 32;
    return T::place(lane % 8 + lane / 16 * 8, lane / 8 % 2);
}

// The 16 numbers `step` of a lane's place: the exchange of groups is a XOR, and so is the way to another group.
__device__ __forceinline__ unsigned at_step(unsigned address, int step) { return address ^ step * 32; }

__device__ __forceinline__ float exponential(float x) {
    float e;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(x));
    return e;
}

// A score's factor is |scale| · log2 e; its sign, or that the scale is 0, goes into the left-hand side: so the largest score
// has the largest product, and a score of −∞ stays one.
__device__ __forceinline__ float score_factor(float scale) { return scale == 0.0f ? 1.0f : fabsf(scale) * LOG2_E; }
__device__ __forceinline__ void take_sign(unsigned (&a)[4], float scale) {
    unsigned kept = scale == 0.0f ? 0u : ~0u, flipped = scale < 0.0f ? 0x80008000u : 0u;
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = (a[i] & kept) ^ flipped;
}

// -------------------------------------------------------------------------------------------------------------- copies

__device__ __forceinline__ void copy_whole(unsigned to, const number* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void copy_part(unsigned to, const number* from, unsigned bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copy_word(unsigned to, const void* from, unsigned bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void put_half(unsigned to, unsigned short bits) {
    asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"(bits) : "memory");
}

// Starts the copies of ROWS rows of one head of each of the sources, which have the same rows: the first one `at` numbers
// from their beginnings. `count` rows are there; others become zeros, and so do numbers beyond head_dim. The tiles follow
// each other. `vector`: rows are multiples of 16 bytes, and so are heads.
template <class T, int ROWS, int SOURCES>
__device__ __forceinline__ void copy_rows(
    unsigned tile, const number* const (&sources)[SOURCES], u64 at, unsigned count, const Attention& op, bool vector
) {
    constexpr int APART = T::THREADS / T::GROUPS;
    static_assert(T::THREADS % T::GROUPS == 0 && ROWS % APART == 0, "a thread's groups are in one column");
    // Hidden, or registers keep all that follows from it.
    unsigned thread = hidden(threadIdx.x), row = thread / T::GROUPS, group = thread % T::GROUPS;
    if (vector) {
        u64 from = at + row * width(op) + group * 8;
        unsigned apart = hidden(APART) * width(op);
        if (count >= ROWS && op.head_dim == T::HEAD) {
#pragma unroll
            for (int source = 0; source < SOURCES; source++) {
                const number* next = sources[source] + from;
                unsigned to = tile + source * (ROWS * T::PITCH) + T::place(row, group);
#pragma unroll
                for (int i = 0; i < ROWS / APART; i++) {
                    if (APART % 8 != 0) {
                        to = tile + source * (ROWS * T::PITCH) + T::place(row + i * APART, group);
                    }
                    copy_whole(to, next);
                    if (APART % 8 == 0) to += APART * T::PITCH;
                    next += apart;
                }
            }
        } else {
            bool inside = group * 8 < op.head_dim;
#pragma unroll 1
            for (int i = 0; i < ROWS / APART; i++) {
                bool there = inside && row < count;
#pragma unroll
                for (int source = 0; source < SOURCES; source++) {
                    copy_part(
                        tile + source * (ROWS * T::PITCH) + T::place(row, group), sources[source] + (there ? from : 0),
                        there ? 16 : 0
                    );
                }
                row += APART;
                from += apart;
            }
        }
    } else {
        // A number at a time, through registers: the way for odd heads.
#pragma unroll 1
        for (unsigned i = thread; i < ROWS * T::HEAD; i += T::THREADS) {
            unsigned row = i / T::HEAD, column = i % T::HEAD;
            bool there = row < count && column < op.head_dim;
#pragma unroll
            for (int source = 0; source < SOURCES; source++) {
                put_half(
                    tile + source * (ROWS * T::PITCH) + T::place(row, column / 8) + column % 8 * 2,
                    there ? sources[source][at + row * width(op) + column].bits : (unsigned short)0
                );
            }
        }
    }
}

// target (+)= factor · sums for 16 rows of a warp, of which `count` are there, `target` being the first one's head. By way of
// `tile`, 16 rows of a head (FROM: its first number that `sums` has) that only this warp uses now: whole rows are written.
template <class T, int NUMBERS>
__device__ __forceinline__ void put_rows(
    number* target, int accumulate, unsigned tile, float (&sums)[NUMBERS / 8][4], float low, float high,
    unsigned count, const Attention& op, unsigned from, bool vector
) {
    unsigned lane = threadIdx.x % 32, row = lane / 4;
#pragma unroll
    for (int n = 0; n < NUMBERS / 8; n++) {
        float v[4] = {sums[n][0] * low, sums[n][1] * low, sums[n][2] * high, sums[n][3] * high};
        if (accumulate) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                unsigned r = row + i / 2 * 8, column = from + n * 8 + lane % 4 * 2 + i % 2;
                if (r < count && column < op.head_dim) v[i] += widened(target[r * width(op) + column]);
            }
        }
        unsigned to = tile + T::place(row, from / 8 + n) + lane % 4 * 4;
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(rounded2(v[0], v[1])) : "memory");
        asm volatile("st.shared.b32 [%0 + %2], %1;" ::"r"(to), "r"(rounded2(v[2], v[3])), "n"(8 * T::PITCH) : "memory");
    }
    __syncwarp();
    constexpr int GROUPS = NUMBERS / 8;
#pragma unroll
    for (int i = 0; i < 16 * GROUPS / 32; i++) {
        unsigned at = i * 32 + lane, r = at / GROUPS, group = from / 8 + at % GROUPS;
        if (r >= count || group * 8 >= op.head_dim) continue;
        uint4 words;
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w) : "r"(tile + T::place(r, group)) : "memory");
        number* to = target + r * width(op) + group * 8;
        if (vector) {
            // In assembly: the compiler merges a plain store with those below, into eight of two bytes.
            asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words.x), "r"(words.y), "r"(words.z),
                         "r"(words.w)
                         : "memory");
        } else {
            unsigned all[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
            for (int n = 0; n < 8; n++) {
                if (group * 8 + n < op.head_dim) to[n].bits = (unsigned short)(all[n / 2] >> n % 2 * 16);
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- dropout

// Word `half` of a query's 64 keys from `key` (a multiple of 64) on: which of them the mask keeps. Of each eight keys it
// has four, one block of Philox. Eights from `eights` on are left out.
__device__ __forceinline__ unsigned draw_word(
    const Attention& op, unsigned query, unsigned head, unsigned key, unsigned half, unsigned eights
) {
    unsigned block = (query * op.heads + head) * (op.mask_stride / 4) + key / 4 + half, bits = 0;
#pragma unroll 1
    for (unsigned j = 0; j < eights; j++) {
        uint4 words = philox(op.mask, block + 2 * j);
        unsigned least = op.mask.threshold;
        bits = bits >> 1 | (words.x >= least ? 1u << 7 : 0) | (words.y >= least ? 1u << 15 : 0) |
               (words.z >= least ? 1u << 23 : 0) | (words.w >= least ? 1u << 31 : 0);
    }
    return bits >> (8 - eights);
}

__device__ __forceinline__ unsigned permute(unsigned low, unsigned high, unsigned how) {
    unsigned all;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(all) : "r"(low), "r"(high), "r"(how));
    return all;
}

// Which of a lane's numbers of 16 × 64 scores are kept: bit 8 i + j is number i of the eight columns j. A lane draws, or
// reads, the word of one row and half, and has a use for half of it; the lane beside it has a use for the rest.
// `row`: the first one, in the batch; `end`: that of the sequence.
__device__ __forceinline__ unsigned kept_of_rows(
    const Attention& op, unsigned* kept, bool drawn, unsigned row, unsigned end, unsigned head, unsigned key, unsigned eights
) {
    unsigned lane = threadIdx.x % 32, half = lane / 2 % 2, word = ~0u;
    row += lane / 4 + lane % 2 * 8;
    u64 at = (((u64)head * ((op.mask_stride + 63) / 64) + key / 64) * op.rows + row) * 2 + half;
    if (drawn) {
        word = draw_word(op, row, head, key, half, eights);
        if (kept && row < end) kept[at] = word;
    } else if (row < end) {
        word = kept[at];
    }
    unsigned other = __shfl_xor_sync(FULL_WARP, word, 1);
    // The first row's word is that of the even lane, and that lane uses the lower half of both.
    return lane % 2 == 0 ? permute(word, other, 0x5410) : permute(other, word, 0x7632);
}

// ------------------------------------------------------------------------------------------------------------- forward

// What a warp has of its rows.
template <class T>
struct Rows {
    unsigned queries[T::HELD ? T::TILES : 1][T::HELD ? T::STEPS : 1][4];
    float sums[T::TILES][2 * T::PART_STEPS][4];
    // The largest score so far, times log2 e, and the sum of what the lane has seen: of rows lane / 4 and that + 8.
    float maxima[T::TILES][2], totals[T::TILES][2];
};

// sums (+)= left · Bᵀ for 16 numbers of the inner dimension, the lane's address of them in B being `address`: columns 16 · N on,
// up to 16 · groups. A recursion: a number that is part of an instruction cannot be that of a loop.
template <class T, bool EDGE, bool FIRST, int N = 0>
__device__ __forceinline__ void score_columns(
    float (&sums)[T::TILES][COLUMNS / 8][4], const unsigned (&left)[T::TILES][4], unsigned address, int groups
) {
    if constexpr (N < COLUMNS / 16) {
        if (EDGE && N >= groups) return;
        unsigned right[4];
        load_matrices<false, N * 16 * T::PITCH>(right, address);
#pragma unroll
        for (int m = 0; m < T::TILES; m++) {
            multiply<FIRST>(sums[m][2 * N], left[m], right[0], right[1]);
            multiply<FIRST>(sums[m][2 * N + 1], left[m], right[2], right[3]);
        }
        score_columns<T, EDGE, FIRST, N + 1>(sums, left, address, groups);
    }
}

// P of 16 keys from N · 16 on, and sums += P · V; then the next ones.
template <class T, bool EDGE, bool DROPOUT, int N = 0>
__device__ __forceinline__ void weigh_values(
    Rows<T>& rows, const float (&p)[T::TILES][COLUMNS / 8][4], unsigned values, float factor, int groups,
    const unsigned (&kept)[T::TILES]
) {
    if constexpr (N < COLUMNS / 16) {
        if (EDGE && N >= groups) return;
        unsigned left[T::TILES][4];
#pragma unroll
        for (int m = 0; m < T::TILES; m++) {
#pragma unroll
            for (int j = 2 * N; j < 2 * N + 2; j++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float shift = -rows.maxima[m][half];
                    float first = exponential(fmaf(p[m][j][2 * half], factor, shift));
                    float second = exponential(fmaf(p[m][j][2 * half + 1], factor, shift));
                    rows.totals[m][half] += first;
                    rows.totals[m][half] += second;
                    left[m][j % 2 * 2 + half] = rounded2(first, second);
                }
                if (DROPOUT) {
                    // The bits of these columns as the signs of four bytes; a mask of 16 bits from each sign.
                    unsigned signs = kept[m] << (7 - j);
                    left[m][j % 2 * 2] &= permute(signs, signs, 0x9988);
                    left[m][j % 2 * 2 + 1] &= permute(signs, signs, 0xbbaa);
                }
            }
        }
#pragma unroll
        for (int step = 0; step < T::PART_STEPS; step++) {
            unsigned right[4];
            load_matrices<true, N * 16 * T::PITCH>(right, at_step(values, step));
#pragma unroll
            for (int m = 0; m < T::TILES; m++) {
                multiply<false>(rows.sums[m][2 * step], left[m], right[0], right[1]);
                multiply<false>(rows.sums[m][2 * step + 1], left[m], right[2], right[3]);
            }
        }
        weigh_values<T, EDGE, DROPOUT, N + 1>(rows, p, values, factor, groups, kept);
    }
}

// One tile of keys and values. EDGE: only the first `groups` · 16 keys may be seen, of these the first `ends` of a row.
// `own`, `keys`, `values`: the lane's addresses.
template <class T, bool EDGE, bool DROPOUT>
__device__ __forceinline__ void forward_tile(
    Rows<T>& rows, unsigned own, unsigned keys, unsigned values, float factor, float scale, int groups,
    const int (&ends)[T::TILES][2], const unsigned (&kept)[T::TILES]
) {
    unsigned lane = threadIdx.x % 32;
    float p[T::TILES][COLUMNS / 8][4];
#pragma unroll
    for (int step = 0; step < T::STEPS; step++) {
        if constexpr (T::HELD) {
            unsigned left[T::TILES][4];
#pragma unroll
            for (int m = 0; m < T::TILES; m++) {
#pragma unroll
                for (int i = 0; i < 4; i++) left[m][i] = rows.queries[m][step][i];
            }
            if (step == 0) {
                score_columns<T, EDGE, true>(p, left, at_step(keys, step), groups);
            } else {
                score_columns<T, EDGE, false>(p, left, at_step(keys, step), groups);
            }
        } else {
            static_assert(T::TILES == 1, "one tile where rows come anew");
            unsigned left[1][4];
            load_matrices<false, 0>(left[0], at_step(own, step));
            take_sign(left[0], scale);
            if (step == 0) {
                score_columns<T, EDGE, true>(p, left, at_step(keys, step), groups);
            } else {
                score_columns<T, EDGE, false>(p, left, at_step(keys, step), groups);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < T::TILES; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = -INFINITY_F;
#pragma unroll
            for (int j = 0; j < COLUMNS / 8; j++) {
                if (EDGE && j >= 2 * groups) break;
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    if (EDGE && (int)(8 * j + lane % 4 * 2 + i % 2) >= ends[m][half]) p[m][j][i] = -INFINITY_F;
                    most = fmaxf(most, p[m][j][i]);
                }
            }
            most = fmaxf(most, shuffle_xor(most, 1));
            most = fmaxf(most, shuffle_xor(most, 2));
            // Every row sees key 0: the maximum is a number from the first tile on.
            float shift = fmaxf(rows.maxima[m][half], most * factor);
            float shrink = exponential(rows.maxima[m][half] - shift);
            rows.maxima[m][half] = shift;
            rows.totals[m][half] *= shrink;
#pragma unroll
            for (int n = 0; n < 2 * T::PART_STEPS; n++) {
                rows.sums[m][n][2 * half] *= shrink;
                rows.sums[m][n][2 * half + 1] *= shrink;
            }
        }
    }
    weigh_values<T, EDGE, DROPOUT>(rows, p, values, factor, groups, kept);
}

template <class T, bool DROPOUT>
__device__ __forceinline__ void forward(
    number* y, float* log_sum_exp, unsigned* kept, const number* q, const number* k, const number* v, const Attention& op
) {
    Place at = place(op);
    unsigned lane = threadIdx.x % 32, warp = warp_number() * T::WARP_ROWS;
    bool vector = op.head_dim % 8 == 0 && aligned16(q) && aligned16(k) && aligned16(v) && aligned16(y);
    unsigned shared = (unsigned)__cvta_generic_to_shared(shared_bytes), own = shared + warp * T::PITCH;
    unsigned now = shared + T::OWN;
    unsigned part = T::PARTS == 1 ? 0 : blockIdx.y, seen = op.causal ? min(at.first + T::ROWS, at.keys) : at.keys;
    copy_rows<T, T::ROWS, 1>(shared, {q}, at.start(op, at.query + at.first), at.queries - at.first, op, vector);
    u64 from = at.start(op, at.key);
    auto copy = [&](unsigned stage, unsigned key) {
        copy_rows<T, COLUMNS>(stage, {k, v}, from, seen - key, op, vector);
        copies_end();
        from += (u64)COLUMNS * width(op);
    };
    copy(now, 0);
    Rows<T> rows = {};
    float factor = score_factor(op.scale);
    bool active = __any_sync(FULL_WARP, at.first + warp < at.queries);
#pragma unroll
    for (int m = 0; m < T::TILES; m++) rows.maxima[m][0] = rows.maxima[m][1] = -INFINITY_F;
    copies_wait<0>();
    __syncthreads();
    if constexpr (T::HELD) {
#pragma unroll
        for (int m = 0; m < T::TILES; m++) {
#pragma unroll
            for (int step = 0; step < T::STEPS; step++) {
                load_matrices<false, 0>(rows.queries[m][step], at_step(own + left_place<T>(), step) + m * 16 * T::PITCH);
                take_sign(rows.queries[m][step], op.scale);
            }
        }
    }
    unsigned key = 0;
    // `edge` is known where this is called.
    auto step = [&](bool edge) {
        bool more = key + COLUMNS < seen;
        unsigned next = T::STAGES == 1 ? now : 2 * (shared + T::OWN + T::OTHER) - now;
        if (T::STAGES == 2 && more) copy(next, key + COLUMNS);
        // A warp whose rows are all beyond the sequence only copies.
        if (active) {
            int groups = edge ? (min(seen - key, COLUMNS) + 15) / 16 : COLUMNS / 16;
            int ends[T::TILES][2] = {};
            unsigned bits[T::TILES] = {};
            if (DROPOUT) {
                // Of the blocks that share a row, one writes down what is kept.
                unsigned end = part == 0 ? at.query + at.queries : 0;
#pragma unroll
                for (int m = 0; m < T::TILES; m++) {
                    unsigned row = at.query + at.first + warp + 16 * m;
                    bits[m] = kept_of_rows(op, kept, true, row, end, at.head, key, 2 * groups);
                }
            }
            if (edge) {
                // Read again, rather than kept in registers all the time.
                Place again = place(op);
#pragma unroll
                for (int m = 0; m < T::TILES; m++) {
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        unsigned row = again.first + warp + 16 * m + 8 * half + lane / 4;
                        ends[m][half] = (int)(op.causal ? min(row + 1, again.keys) : again.keys) - (int)key;
                    }
                }
            }
            unsigned at_own = own + left_place<T>(), at_keys = now + right_place<T>();
            unsigned at_values = at_step(now + T::OTHER + left_place<T>(), part * T::PART_STEPS);
            if (edge) {
                forward_tile<T, true, DROPOUT>(rows, at_own, at_keys, at_values, factor, op.scale, groups, ends, bits);
            } else {
                forward_tile<T, false, DROPOUT>(rows, at_own, at_keys, at_values, factor, op.scale, groups, ends, bits);
            }
        }
        if (more) {
            if (T::STAGES == 1) {
                __syncthreads();
                copy(next, key + COLUMNS);
            }
            copies_wait<0>();
            __syncthreads();
        }
        key += COLUMNS;
        now = next;
    };
    // Tiles that all rows see whole; the rest.
    unsigned whole = (op.causal ? min(at.first + 1, at.keys) : at.keys) / COLUMNS * COLUMNS;
    while (key < whole) step(false);
    while (key < seen) step(true);
    if (!active) return;
    at = place(op);
    unsigned first = at.query + at.first + warp;
#pragma unroll
    for (int m = 0; m < T::TILES; m++) {
        float shares[2];
        int count = (int)(at.queries - at.first - warp) - 16 * m;
        if (count <= 0) break;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = rows.totals[m][half];
            total += shuffle_xor(total, 1);
            total += shuffle_xor(total, 2);
            shares[half] = op.mask.scale / total;
            int row = 8 * half + lane / 4;
            if (log_sum_exp && part == 0 && lane % 4 == 0 && row < count) {
                log_sum_exp[(u64)(first + 16 * m + row) * op.heads + at.head] =
                    rows.maxima[m][half] * LN_2 + logf(total);
            }
        }
        // All lanes have read these rows of q.
        __syncwarp();
        put_rows<T, T::PART>(
            y + at.start(op, first + 16 * m), 0, own + m * 16 * T::PITCH, rows.sums[m], shares[0], shares[1], count, op,
            part * T::PART, vector
        );
    }
}

#define FORWARD(head, rows, Shape, blocks)                                                                         \
    extern "C" __global__ void __launch_bounds__(Shape::THREADS, blocks) attention_forward_##head##_##rows(        \
        number* __restrict__ y, float* __restrict__ log_sum_exp, unsigned* __restrict__ kept,                      \
        const number* __restrict__ q, const number* __restrict__ k, const number* __restrict__ v, Attention op     \
    ) {                                                                                                            \
        forward<Shape, false>(y, log_sum_exp, kept, q, k, v, op);                                                  \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(Shape::THREADS, blocks) attention_forward_dropout_##head##_##rows(\
        number* __restrict__ y, float* __restrict__ log_sum_exp, unsigned* __restrict__ kept,                      \
        const number* __restrict__ q, const number* __restrict__ k, const number* __restrict__ v, Attention op     \
    ) {                                                                                                            \
        forward<Shape, true>(y, log_sum_exp, kept, q, k, v, op);                                                   \
    }

typedef Shape<32, 2, 1, 2> Forward32x32;
typedef Shape<32, 4, 1, 2> Forward32x64;
typedef Shape<32, 4, 2, 2> Forward32x128;
typedef Shape<64, 2, 1, 2> Forward64x32;
typedef Shape<64, 4, 1, 2> Forward64x64;
typedef Shape<64, 4, 2, 2> Forward64x128;
typedef Shape<128, 4, 1, 2> Forward128x64;
typedef Shape<256, 4, 1, 1, 2> Forward256x64;

FORWARD(32, 32, Forward32x32, 8)
FORWARD(32, 64, Forward32x64, 4)
FORWARD(32, 128, Forward32x128, 2)
FORWARD(64, 32, Forward64x32, 8)
FORWARD(64, 64, Forward64x64, 4)
FORWARD(64, 128, Forward64x128, 2)
FORWARD(128, 64, Forward128x64, 2)
FORWARD(256, 64, Forward256x64, 2)

// ------------------------------------------------------------------------------------------------------------ backward

// The left-hand sides of one step of the two first products: held, or read anew.
template <class T>
struct Sides {
    unsigned held[2][T::HELD ? T::STEPS : 1][4];

    // `own`: the lane's address in the first one's rows; the second one's are OWN bytes further. `sign`: which one takes that
    // of the scale.
    __device__ __forceinline__ void load(unsigned own, float scale) {
        if constexpr (T::HELD) {
#pragma unroll
            for (int step = 0; step < T::STEPS; step++) {
                load_matrices<false, 0>(held[0][step], at_step(own, step));
                load_matrices<false, T::OWN>(held[1][step], at_step(own, step));
                take_sign(held[0][step], scale);
            }
        }
    }

    template <int WHICH>
    __device__ __forceinline__ void get(unsigned (&side)[4], int step, unsigned own, float scale) const {
        if constexpr (T::HELD) {
#pragma unroll
            for (int i = 0; i < 4; i++) side[i] = held[WHICH][step][i];
        } else {
            load_matrices<false, WHICH * T::OWN>(side, at_step(own, step));
            if (WHICH == 0) take_sign(side, scale);
        }
    }
};

// The two first products of a tile, S and dy · vᵀ or their transposes, for 16 of its columns from 16 · N on. `right`: the
// lane's address in the tile of the first one's right-hand side; the second one's is OTHER bytes further.
template <class T, int N>
__device__ __forceinline__ void first_products(
    float (&scores)[2][4], float (&slopes)[2][4], const Sides<T>& sides, unsigned own, unsigned right, float scale
) {
#pragma unroll
    for (int step = 0; step < T::STEPS; step++) {
        unsigned a[4], b[4];
        sides.template get<0>(a, step, own, scale);
        load_matrices<false, N * 16 * T::PITCH>(b, at_step(right, step));
        if (step == 0) {
            multiply<true>(scores[0], a, b[0], b[1]);
            multiply<true>(scores[1], a, b[2], b[3]);
        } else {
            multiply(scores[0], a, b[0], b[1]);
            multiply(scores[1], a, b[2], b[3]);
        }
        sides.template get<1>(a, step, own, scale);
        load_matrices<false, T::OTHER + N * 16 * T::PITCH>(b, at_step(right, step));
        if (step == 0) {
            multiply<true>(slopes[0], a, b[0], b[1]);
            multiply<true>(slopes[1], a, b[2], b[3]);
        } else {
            multiply(slopes[0], a, b[0], b[1]);
            multiply(slopes[1], a, b[2], b[3]);
        }
    }
}

// sums += left · B for 16 rows of B, from which the lane's address is OFFSET bytes away.
template <class T, int OFFSET>
__device__ __forceinline__ void second_product(
    float (&sums)[2 * T::PART_STEPS][4], const unsigned (&left)[4], unsigned turned
) {
#pragma unroll
    for (int step = 0; step < T::PART_STEPS; step++) {
        unsigned b[4];
        load_matrices<true, OFFSET>(b, at_step(turned, step));
        multiply(sums[2 * step], left, b[0], b[1]);
        multiply(sums[2 * step + 1], left, b[2], b[3]);
    }
}

// What a warp knows of its rows: −L · log2 e − SHRINK, D by the scale of the mask, and how many keys they see of the tile.
struct Queries {
    float shifts[2], means[2];
    int ends[2];
};

// 16 keys of a tile, from 16 · N on, and the next ones. `kept`: see kept_of_rows.
template <class T, bool EDGE, bool DROPOUT, int N = 0>
__device__ __forceinline__ void query_columns(
    float (&sums)[2 * T::PART_STEPS][4], const Sides<T>& sides, const Queries& rows, unsigned own, unsigned right,
    unsigned turned, float factor, float scale, int groups, unsigned kept
) {
    if constexpr (N < COLUMNS / 16) {
        if (EDGE && N >= groups) return;
        float scores[2][4], slopes[2][4];
        first_products<T, N>(scores, slopes, sides, own, right, scale);
        unsigned left[4];
#pragma unroll
        for (int n = 0; n < 2; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float p = exponential(fmaf(scores[n][i], factor, rows.shifts[i / 2]));
                if (EDGE && (int)(16 * N + 8 * n + threadIdx.x % 4 * 2 + i % 2) >= rows.ends[i / 2]) p = 0.0f;
                float slope = DROPOUT && !(kept >> (8 * i + 2 * N + n) & 1) ? 0.0f : slopes[n][i];
                slopes[n][i] = p * (slope - rows.means[i / 2]);
            }
            left[2 * n] = rounded2(slopes[n][0], slopes[n][1]);
            left[2 * n + 1] = rounded2(slopes[n][2], slopes[n][3]);
        }
        second_product<T, N * 16 * T::PITCH>(sums, left, turned);
        query_columns<T, EDGE, DROPOUT, N + 1>(sums, sides, rows, own, right, turned, factor, scale, groups, kept);
    }
}

template <class T, bool DROPOUT>
__device__ __forceinline__ void query_gradient(
    number* dq, int accumulate, float* statistics, unsigned* kept, const number* q, const number* k, const number* v,
    const number* dy, const number* y, const float* log_sum_exp, const Attention& op
) {
    Place at = place(op);
    unsigned lane = threadIdx.x % 32, warp = warp_number() * T::WARP_ROWS, part = T::PARTS == 1 ? 0 : blockIdx.y;
    bool vector = op.head_dim % 8 == 0 && aligned16(q) && aligned16(k) && aligned16(v) && aligned16(dy) && aligned16(y) &&
                  aligned16(dq);
    unsigned shared = (unsigned)__cvta_generic_to_shared(shared_bytes), own = shared + warp * T::PITCH;
    unsigned stages = shared + 2 * T::OWN, now = stages, last = stages + (T::STAGES - 1) * 2 * T::OTHER;
    unsigned seen = op.causal ? min(at.first + T::ROWS, at.keys) : at.keys;
    u64 rows_from = at.start(op, at.query + at.first), from = at.start(op, at.key);
    copy_rows<T, T::ROWS, 2>(shared, {q, dy}, rows_from, at.queries - at.first, op, vector);
    copy_rows<T, T::ROWS, 1>(last, {y}, rows_from, at.queries - at.first, op, vector);
    auto copy = [&](unsigned stage, unsigned key) {
        copy_rows<T, COLUMNS, 2>(stage, {k, v}, from, seen - key, op, vector);
        copies_end();
        from += (u64)COLUMNS * width(op);
    };
    if (T::STAGES == 2) copy(now, 0);
    bool active = __any_sync(FULL_WARP, at.first + warp < at.queries);
    float factor = score_factor(op.scale);
    float sums[2 * T::PART_STEPS][4] = {};
    Queries rows = {};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        unsigned row = at.first + warp + 8 * half + lane / 4;
        if (row < at.queries) {
            rows.shifts[half] = -log_sum_exp[(u64)(at.query + row) * op.heads + at.head] * LOG2_E - SHRINK;
        }
    }
    copies_end();
    copies_wait<0>();
    __syncthreads();
    Sides<T> sides;
    if (active) {
        sides.load(own + left_place<T>(), op.scale);
#pragma unroll
        for (int step = 0; step < T::STEPS; step++) {
            unsigned a[4], b[4];
            sides.template get<1>(a, step, own + left_place<T>(), op.scale);
            load_matrices<false, 0>(b, at_step(last + warp * T::PITCH + left_place<T>(), step));
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float2 one = widened2(a[i]), other = widened2(b[i]);
                rows.means[i % 2] = fmaf(one.x, other.x, rows.means[i % 2]);
                rows.means[i % 2] = fmaf(one.y, other.y, rows.means[i % 2]);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float mean = rows.means[half];
            mean += shuffle_xor(mean, 1);
            mean += shuffle_xor(mean, 2);
            rows.means[half] = mean / op.mask.scale;
            unsigned row = at.first + warp + 8 * half + lane / 4;
            if (part == 0 && lane % 4 == 0 && row < at.queries) {
                u64 to = (u64)at.head * op.rows + at.query + row;
                statistics[to] = rows.shifts[half];
                statistics[to + (u64)op.heads * op.rows] = rows.means[half];
            }
        }
    }
    // The rows of y have been read: their room is that of a stage.
    __syncthreads();
    if (T::STAGES == 1) {
        copy(now, 0);
        copies_wait<0>();
        __syncthreads();
    }
    unsigned key = 0;
    // `edge` is known where this is called.
    auto step = [&](bool edge) {
        bool more = key + COLUMNS < seen;
        unsigned next = T::STAGES == 1 ? now : 2 * (stages + T::OTHER) - now;
        if (T::STAGES == 2 && more) copy(next, key + COLUMNS);
        if (active) {
            int groups = edge ? (min(seen - key, COLUMNS) + 15) / 16 : COLUMNS / 16;
            unsigned bits = 0, row = at.first + warp;
            if (DROPOUT) {
                unsigned end = at.query + at.queries;
                bool drawn = !kept;
                bits = kept_of_rows(op, kept, drawn, at.query + row, end, at.head, key, 2 * groups);
            }
            unsigned at_own = own + left_place<T>(), right = now + right_place<T>();
            unsigned turned = at_step(now + left_place<T>(), part * T::PART_STEPS);
            if (edge) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    unsigned end = row + 8 * half + lane / 4 + 1;
                    rows.ends[half] = (int)(op.causal ? min(end, at.keys) : at.keys) - (int)key;
                }
                query_columns<T, true, DROPOUT>(
                    sums, sides, rows, at_own, right, turned, factor, op.scale, groups, bits
                );
            } else {
                query_columns<T, false, DROPOUT>(
                    sums, sides, rows, at_own, right, turned, factor, op.scale, groups, bits
                );
            }
        }
        if (more) {
            if (T::STAGES == 1) {
                __syncthreads();
                copy(next, key + COLUMNS);
            }
            copies_wait<0>();
            __syncthreads();
        }
        key += COLUMNS;
        now = next;
    };
    unsigned whole = (op.causal ? min(at.first + 1, at.keys) : at.keys) / COLUMNS * COLUMNS;
    while (key < whole) step(false);
    while (key < seen) step(true);
    if (!active) return;
    at = place(op);
    float share = op.scale * op.mask.scale * exp2f(SHRINK);
    __syncwarp();
    put_rows<T, T::PART>(
        dq + at.start(op, at.query + at.first + warp), accumulate, own, sums, share, share, at.queries - at.first - warp, op,
        part * T::PART, vector
    );
}

// 16 queries of a tile, from 16 · N on, and the next ones. `facts`: the tile's shifts, means, and words of the mask; `bit`: of
// the warp's first keys in a word. EDGE: the warp's first key is `ahead` rows after the tile's first query.
template <class T, bool EDGE, bool DROPOUT, int N = 0>
__device__ __forceinline__ void key_columns(
    float (&key_sums)[2 * T::PART_STEPS][4], float (&value_sums)[2 * T::PART_STEPS][4], const Sides<T>& sides, unsigned own,
    unsigned right, unsigned turned, const float* facts, unsigned bit, float factor, float scale, int ahead
) {
    if constexpr (N < COLUMNS / 16) {
        float scores[2][4], slopes[2][4];
        first_products<T, N>(scores, slopes, sides, own, right, scale);
        unsigned lane = threadIdx.x % 32, weights[4], left[4];
#pragma unroll
        for (int n = 0; n < 2; n++) {
            unsigned column = 16 * N + 8 * n + lane % 4 * 2;
            float2 shifts = *(const float2*)(facts + column), means = *(const float2*)(facts + COLUMNS + column);
            unsigned words[2] = {};
            if (DROPOUT) {
                const unsigned* all = (const unsigned*)(facts + 2 * COLUMNS) + 2 * column + lane / 16;
                words[0] = all[0] >> bit;
                words[1] = all[2] >> bit;
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float mean = i % 2 == 0 ? means.x : means.y;
                float p = exponential(fmaf(scores[n][i], factor, i % 2 == 0 ? shifts.x : shifts.y));
                if (EDGE && (int)(lane / 4 + i / 2 * 8) + ahead > (int)(column + i % 2)) p = 0.0f;
                if (DROPOUT) {
                    float weight = words[i % 2] >> i / 2 & 1 ? p : 0.0f;
                    slopes[n][i] = fmaf(weight, slopes[n][i], -(p * mean));
                    scores[n][i] = weight;
                } else {
                    slopes[n][i] = p * (slopes[n][i] - mean);
                    scores[n][i] = p;
                }
            }
            weights[2 * n] = rounded2(scores[n][0], scores[n][1]);
            weights[2 * n + 1] = rounded2(scores[n][2], scores[n][3]);
            left[2 * n] = rounded2(slopes[n][0], slopes[n][1]);
            left[2 * n + 1] = rounded2(slopes[n][2], slopes[n][3]);
        }
        second_product<T, T::OTHER + N * 16 * T::PITCH>(value_sums, weights, turned);
        second_product<T, N * 16 * T::PITCH>(key_sums, left, turned);
        key_columns<T, EDGE, DROPOUT, N + 1>(
            key_sums, value_sums, sides, own, right, turned, facts, bit, factor, scale, ahead
        );
    }
}

// dk and dv of a block of keys: the rows of its scores are keys, their columns queries.
template <class T, bool DROPOUT>
__device__ __forceinline__ void key_gradients(
    number* dk, int accumulate_dk, number* dv, int accumulate_dv, const float* statistics, const unsigned* kept,
    const number* q, const number* k, const number* v, const number* dy, const Attention& op
) {
    static_assert(COLUMNS % T::ROWS == 0, "a block's keys are in one word of the mask");
    // Bytes of what is known of a tile's queries, behind all stages.
    constexpr unsigned FACTS = 4 * COLUMNS * 4;
    Place at = place(op);
    unsigned lane = threadIdx.x % 32, warp = warp_number() * T::WARP_ROWS, part = T::PARTS == 1 ? 0 : blockIdx.y;
    bool vector = op.head_dim % 8 == 0 && aligned16(q) && aligned16(k) && aligned16(v) && aligned16(dy) && aligned16(dk) &&
                  aligned16(dv);
    unsigned shared = (unsigned)__cvta_generic_to_shared(shared_bytes), own = shared + warp * T::PITCH;
    unsigned stages = shared + 2 * T::OWN, now = stages;
    unsigned stage_facts = 2 * T::OWN + T::STAGES * 2 * T::OTHER;
    copy_rows<T, T::ROWS, 2>(shared, {k, v}, at.start(op, at.key + at.first), at.keys - at.first, op, vector);
    // With the causal mask earlier queries see none of these keys.
    unsigned query = op.causal ? at.first / COLUMNS * COLUMNS : 0;
    u64 from = at.start(op, at.query + query);
    auto copy = [&](unsigned stage, unsigned facts, unsigned query) {
        copy_rows<T, COLUMNS, 2>(stage, {q, dy}, from, at.queries - query, op, vector);
        from += (u64)COLUMNS * width(op);
        // Words of what is known: four for each query.
        unsigned to = shared + facts, first = at.query + query;
        int count = (int)min(at.queries - query, COLUMNS);
        for (unsigned i = threadIdx.x; i < COLUMNS * 2; i += T::THREADS) {
            unsigned row = i % COLUMNS;
            bool there = (int)row < count;
            u64 at_row = ((u64)(i / COLUMNS) * op.heads + at.head) * op.rows + first + row;
            copy_word(to + i * 4, statistics + (there ? at_row : 0), there ? 4 : 0);
            if (DROPOUT) {
                unsigned word = to + (2 * COLUMNS + i) * 4, tile = at.first / 64;
                there = (int)i / 2 < count;
                if (kept) {
                    u64 at_word = (((u64)at.head * ((op.mask_stride + 63) / 64) + tile) * op.rows + first) * 2 + i;
                    copy_word(word, kept + (there ? at_word : 0), there ? 4 : 0);
                } else {
                    unsigned eights = min((at.keys - tile * 64 + 7) / 8, 8);
                    unsigned bits = there ? draw_word(op, first + i / 2, at.head, tile * 64, i % 2, eights) : 0;
                    asm volatile("st.shared.b32 [%0], %1;" ::"r"(word), "r"(bits) : "memory");
                }
            }
        }
        copies_end();
    };
    unsigned facts = stage_facts;
    if (query < at.queries) copy(now, facts, query);
    bool active = __any_sync(FULL_WARP, at.first + warp < at.keys);
    float factor = score_factor(op.scale);
    float key_sums[2 * T::PART_STEPS][4] = {}, value_sums[2 * T::PART_STEPS][4] = {};
    copies_end();
    copies_wait<0>();
    __syncthreads();
    Sides<T> sides;
    sides.load(own + left_place<T>(), op.scale);
    // Bytes of a word are keys of four, and its bits eights: see kept_of_rows.
    unsigned bit = lane / 4 % 4 * 8 + (at.first % 64 + warp) / 8;
    // `edge` is known where this is called.
    auto step = [&](bool edge) {
        bool more = query + COLUMNS < at.queries;
        unsigned next = T::STAGES == 1 ? now : 2 * (stages + T::OTHER) - now;
        unsigned next_facts = T::STAGES == 1 ? facts : 2 * stage_facts + FACTS - facts;
        if (T::STAGES == 2 && more) copy(next, next_facts, query + COLUMNS);
        if (active) {
            unsigned at_own = own + left_place<T>(), right = now + right_place<T>();
            unsigned turned = at_step(now + left_place<T>(), part * T::PART_STEPS);
            const float* known = (const float*)(shared_bytes + facts);
            int ahead = (int)(at.first + warp) - (int)query;
            if (edge) {
                key_columns<T, true, DROPOUT>(
                    key_sums, value_sums, sides, at_own, right, turned, known, bit, factor, op.scale, ahead
                );
            } else {
                key_columns<T, false, DROPOUT>(
                    key_sums, value_sums, sides, at_own, right, turned, known, bit, factor, op.scale, ahead
                );
            }
        }
        if (more) {
            if (T::STAGES == 1) {
                __syncthreads();
                copy(next, next_facts, query + COLUMNS);
            }
            copies_wait<0>();
            __syncthreads();
        }
        query += COLUMNS;
        now = next;
        facts = next_facts;
    };
    if (op.causal) {
        while (query < at.queries && query < at.first + T::ROWS) step(true);
    }
    while (query < at.queries) step(false);
    if (!active) return;
    at = place(op);
    float share = op.mask.scale * exp2f(SHRINK);
    u64 to = at.start(op, at.key + at.first + warp);
    unsigned count = at.keys - at.first - warp;
    __syncwarp();
    put_rows<T, T::PART>(
        dk + to, accumulate_dk, own, key_sums, op.scale * share, op.scale * share, count, op, part * T::PART, vector
    );
    put_rows<T, T::PART>(dv + to, accumulate_dv, own + T::OWN, value_sums, share, share, count, op, part * T::PART, vector);
}

#define BACKWARD(dropout, kind, head, Queries, query_blocks, Keys, key_blocks)                                     \
    extern "C" __global__ void __launch_bounds__(Queries::THREADS, query_blocks)                                   \
        attention_query_gradient_##kind##head(                                                                     \
            number* __restrict__ dq, int accumulate, float* __restrict__ statistics, unsigned* __restrict__ kept,  \
            const number* __restrict__ q, const number* __restrict__ k, const number* __restrict__ v,              \
            const number* __restrict__ dy, const number* __restrict__ y, const float* __restrict__ log_sum_exp,    \
            Attention op                                                                                           \
        ) {                                                                                                        \
        query_gradient<Queries, dropout>(dq, accumulate, statistics, kept, q, k, v, dy, y, log_sum_exp, op);       \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(Keys::THREADS, key_blocks) attention_key_gradients_##kind##head(  \
        number* __restrict__ dk, int accumulate_dk, number* __restrict__ dv, int accumulate_dv,                    \
        const float* __restrict__ statistics, const unsigned* __restrict__ kept, const number* __restrict__ q,     \
        const number* __restrict__ k, const number* __restrict__ v, const number* __restrict__ dy, Attention op    \
    ) {                                                                                                            \
        key_gradients<Keys, dropout>(dk, accumulate_dk, dv, accumulate_dv, statistics, kept, q, k, v, dy, op);     \
    }
#define BACKWARDS(head, Queries, query_blocks, Keys, key_blocks)                  \
    BACKWARD(false, , head, Queries, query_blocks, Keys, key_blocks)              \
    BACKWARD(true, dropout_, head, Queries, query_blocks, Keys, key_blocks)

typedef Shape<32, 4, 1, 2> Backward32;
typedef Shape<64, 4, 1, 2> Backward64;
typedef Shape<128, 4, 1, 1> Backward128;
typedef Shape<256, 2, 1, 1, 2> Backward256;

BACKWARDS(32, Backward32, 4, Backward32, 4)
BACKWARDS(64, Backward64, 3, Backward64, 3)
BACKWARDS(128, Backward128, 2, Backward128, 2)
BACKWARDS(256, Backward256, 2, Backward256, 2)
