// Attention over packed sequences on tensor cores, numbers of 16 bits; the mathematics is that of attention.cu.
//
// - The instructions are in mma.cuh.
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

#ifdef NUMBER_16

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

// Rows of WIDTH numbers in shared memory: bytes from the beginning to a group of a row. Where two rows share all banks, two
// take their turn.
template <int WIDTH>
struct Tile {
    static __device__ __forceinline__ unsigned place(unsigned row, unsigned group) {
        return row * 2 * WIDTH + (group ^ (WIDTH == 32 ? row / 2 % 4 : row % 8)) * 16;
    }
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

    static __device__ __forceinline__ unsigned place(unsigned row, unsigned group) {
        return Tile<HEAD>::place(row, group);
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

// threadIdx.x and blockIdx.x, and in a way that the compiler reads them where they are used: kept, they were spilled.
__device__ __forceinline__ unsigned thread_number() {
    unsigned number;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
    return number;
}
__device__ __forceinline__ unsigned block_number() {
    unsigned number;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(number));
    return number;
}

// A number that the whole warp has: the compiler then knows it, and what follows from it takes no registers of the lanes.
__device__ __forceinline__ unsigned of_warp(unsigned number) { return __shfl_sync(FULL_WARP, number, 0); }

__device__ __forceinline__ Place place(const Attention& op) {
    unsigned block = block_number(), item = block / op.heads;
    const unsigned* at = op.items + 5 * (u64)item;
    return {
        of_warp(at[0]), of_warp(at[1]), of_warp(at[2]), of_warp(at[3]), of_warp(at[4]), block - item * op.heads
    };
}

// Where the block stands, and its warp's first row and the address of its rows: found again, rather than kept in registers all
// the time.
template <class T>
__device__ __forceinline__ void find_again(Place& at, unsigned& warp, unsigned& own, const Attention& op) {
    at = place(op);
    warp = thread_number() / 32 * T::WARP_ROWS;
    own = (unsigned)__cvta_generic_to_shared(shared_bytes) + warp * T::PITCH;
}

// Numbers of a row.
__device__ __forceinline__ unsigned width(const Attention& op) { return op.heads * op.head_dim; }

// ------------------------------------------------------------------------------------------------------- tensor cores

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
    unsigned lane = thread_number() % 32;
    return T::place(lane % 16, lane / 16);
}
// The same of a right-hand side whose rows are columns of the product.
template <class T>
__device__ __forceinline__ unsigned right_place() {
    unsigned lane = thread_number() % 32;
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
    unsigned thread = thread_number(), row = thread / T::GROUPS, group = thread % T::GROUPS;
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

// Copies 16 rows of a warp between global memory, `there` pointing at their head, and `tile`: columns `from` .. from +
// COUNT, of rows below `count`.
template <class T, int COUNT, bool TO_GLOBAL>
__device__ __forceinline__ void move_rows(
    number* there, unsigned tile, unsigned count, const Attention& op, unsigned from, bool vector
) {
    unsigned lane = thread_number() % 32;
    if (vector) {
        constexpr int GROUPS = COUNT / 8;
#pragma unroll
        for (int i = 0; i < 16 * GROUPS / 32; i++) {
            unsigned at = i * 32 + lane, row = at / GROUPS, group = from / 8 + at % GROUPS;
            if (row >= count || group * 8 >= op.head_dim) continue;
            number* global = there + row * width(op) + group * 8;
            unsigned here = tile + T::place(row, group);
            uint4 words;
            // In assembly: the compiler merges plain stores with those below, into eight of two bytes.
            if (TO_GLOBAL) {
                asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                             : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w) : "r"(here) : "memory");
                asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(global), "r"(words.x), "r"(words.y),
                             "r"(words.z), "r"(words.w)
                             : "memory");
            } else {
                words = *(const uint4*)global;
                asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(here), "r"(words.x), "r"(words.y),
                             "r"(words.z), "r"(words.w)
                             : "memory");
            }
        }
    } else {
#pragma unroll 1
        for (unsigned at = lane; at < 16 * COUNT; at += 32) {
            unsigned row = at / COUNT, column = from + at % COUNT;
            if (row >= count || column >= op.head_dim) continue;
            number* global = there + row * width(op) + column;
            unsigned here = tile + T::place(row, column / 8) + column % 8 * 2;
            if (TO_GLOBAL) {
                asm volatile("ld.shared.u16 %0, [%1];" : "=h"(global->bits) : "r"(here) : "memory");
            } else {
                put_half(here, global->bits);
            }
        }
    }
    __syncwarp();
}

template <int OFFSET>
__device__ __forceinline__ void store_word(unsigned to, unsigned word) {
    asm volatile("st.shared.b32 [%0 + %2], %1;" ::"r"(to), "r"(word), "n"(OFFSET) : "memory");
}

// A word of a tile, += if ADD.
template <int OFFSET, bool ADD>
__device__ __forceinline__ void put_word(unsigned to, float low, float high) {
    if (ADD) {
        unsigned word;
        asm volatile("ld.shared.b32 %0, [%1 + %2];" : "=r"(word) : "r"(to), "n"(OFFSET) : "memory");
        float2 old = widened2(word);
        low += old.x;
        high += old.y;
    }
    store_word<OFFSET>(to, rounded2(low, high));
}

template <class T, int COUNT, bool ADD>
__device__ __forceinline__ void put_words(
    unsigned tile, const float (&sums)[COUNT / 8][4], float low, float high, unsigned from
) {
    unsigned lane = thread_number() % 32, to = tile + T::place(lane / 4, 0) + lane % 4 * 4;
#pragma unroll
    for (int n = 0; n < COUNT / 8; n++) {
        unsigned word = to ^ (from / 8 + n) * 16;
        put_word<0, ADD>(word, sums[n][0] * low, sums[n][1] * low);
        put_word<8 * T::PITCH, ADD>(word, sums[n][2] * high, sums[n][3] * high);
    }
    __syncwarp();
}

// target (+)= factor · sums, the factor being `low` in the upper eight of a warp's 16 rows, of which `count` are there, and
// `high` in the others; `target` points at the first one's head. By way of `tile`, 16 rows of a head that only this warp
// uses now, so that whole rows are written. `from`: the column of the head that the sums begin with.
template <class T, int COUNT>
__device__ __forceinline__ void put_rows(
    number* target, int accumulate, unsigned tile, const float (&sums)[COUNT / 8][4], float low, float high, unsigned count,
    const Attention& op, unsigned from, bool vector
) {
    // All lanes are done with these rows.
    __syncwarp();
    if (accumulate) {
        move_rows<T, COUNT, false>(target, tile, count, op, from, vector);
        put_words<T, COUNT, true>(tile, sums, low, high, from);
    } else {
        put_words<T, COUNT, false>(tile, sums, low, high, from);
    }
    move_rows<T, COUNT, true>(target, tile, count, op, from, vector);
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
    // Hidden, or registers keep all that follows.
    unsigned lane = thread_number() % 32, half = lane / 2 % 2, word = ~0u;
    row += lane / 4 + lane % 2 * 8;
    u64 at = ((u64)(head * ((op.mask_stride + 63) / 64) + key / 64) * op.rows + row) * 2 + half;
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

// --------------------------------------------------------------------------------------------------------------- tiles

// Goes through the tiles of keys that a block's queries see, up to `seen`: `work(edge, key, tile)` for the one that begins at
// `key`, while the next one is on its way by `copy(stage, key)`. `now` has the first; `both` is the sum of the places of two.
// `edge` is known where `work` is called: whether some row does not see all of the tile.
template <class T, class Copy, class Work>
__device__ __forceinline__ void each_tile_of_keys(
    const Attention& op, const Place& at, unsigned seen, unsigned now, unsigned both, Copy copy, Work work
) {
    unsigned key = 0;
    auto step = [&](bool edge) {
        bool more = key + COLUMNS < seen;
        unsigned next = T::STAGES == 1 ? now : both - now;
        if (T::STAGES == 2 && more) copy(next, key + COLUMNS);
        work(edge, key, now);
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
}

#endif
