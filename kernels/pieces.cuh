// Rows of two sides, read once by 16 bytes wherever they begin and kept on chip, for kernels that go through a row several times
// (divergence.cuh).
//
// A row is cut into pieces of PACK numbers that begin at multiples of 16 bytes; of those at its ends what is not its own is
// −∞. A thread keeps its pieces: the first R of each side in registers, further ones in shared memory, which no other
// thread reads, as far as there is `room`. Those of longer rows are read anew each time.

__device__ __forceinline__ void set_bits(float* to, unsigned bits) { *to = __uint_as_float(bits); }
#ifdef NUMBER_16
__device__ __forceinline__ void set_bits(number* to, unsigned bits) { *to = number_of(bits); }
#endif

// What of a piece does not belong to its row.
__device__ __forceinline__ unsigned excluded_bits(const float*) { return 0xff800000u; }
#ifdef NUMBER_BF16
__device__ __forceinline__ unsigned excluded_bits(const number*) { return 0xff80u; }
#elif defined(NUMBER_F16)
__device__ __forceinline__ unsigned excluded_bits(const number*) { return 0xfc00u; }
#endif

// PACK numbers as they are stored.
template <class T>
struct Piece {
    static constexpr int QUADS = PACK * sizeof(T) / 16;
    uint4 quads[QUADS];
};

// Where the numbers of a row are in an array that begins at a multiple of 16 bytes, if `aligned`: start .. end; its first
// piece begins at `first`.
struct Place {
    u64 first, start, end;
    unsigned pieces;
};

__device__ __forceinline__ Place place_of(u64 start, unsigned width) {
    u64 first = start / PACK * PACK, end = start + width;
    return {first, start, end, (unsigned)((end - first + PACK - 1) / PACK)};
}

// 16 bytes of numbers, from number `at` on, of which those in start .. end are the row's.
template <class T>
__device__ __forceinline__ uint4 load_quad(const T* from, u64 at, const Place& row, bool whole) {
    if (whole) return *(const uint4*)(from + at);
    constexpr int COUNT = 16 / sizeof(T);
    u64 low = 0, high = 0;
    // A loop, as the way for the ends must not cost the other one registers.
#pragma unroll 1
    for (int i = 0; i < COUNT; i++, at++) {
        u64 bits = at >= row.start && at < row.end ? bits_of(from[at]) : excluded_bits(from);
        bits <<= i % (COUNT / 2) * (128 / COUNT);
        if (i < COUNT / 2) low |= bits;
        else high |= bits;
    }
    return make_uint4((unsigned)low, (unsigned)(low >> 32), (unsigned)high, (unsigned)(high >> 32));
}

template <class T>
__device__ __forceinline__ void store_quad(T* to, u64 at, const Place& row, bool whole, uint4 quad) {
    if (whole) {
        // In assembly, as in store4.
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to + at)), "r"(quad.x),
                     "r"(quad.y), "r"(quad.z), "r"(quad.w)
                     : "memory");
        return;
    }
    constexpr int COUNT = 16 / sizeof(T);
    u64 low = (u64)quad.y << 32 | quad.x, high = (u64)quad.w << 32 | quad.z;
#pragma unroll 1
    for (int i = 0; i < COUNT; i++, at++) {
        unsigned bits = (unsigned)((i < COUNT / 2 ? low : high) >> i % (COUNT / 2) * (128 / COUNT));
        if (at >= row.start && at < row.end) set_bits(to + at, bits);
    }
}

// Whether piece `index` can be read and written by 16 bytes.
__device__ __forceinline__ bool is_whole(const Place& row, u64 at, bool aligned) {
    return aligned && at >= row.start && at + PACK <= row.end;
}

template <class T>
__device__ __forceinline__ Piece<T> load_piece(const T* from, const Place& row, unsigned index, bool aligned) {
    Piece<T> piece;
    u64 at = row.first + (u64)index * PACK;
    bool whole = is_whole(row, at, aligned);
#pragma unroll
    for (int i = 0; i < Piece<T>::QUADS; i++) piece.quads[i] = load_quad(from, at + i * (16 / sizeof(T)), row, whole);
    return piece;
}

template <class T>
__device__ __forceinline__ void store_piece(T* to, const Place& row, unsigned index, bool aligned, const Piece<T>& piece) {
    u64 at = row.first + (u64)index * PACK;
    bool whole = is_whole(row, at, aligned);
#pragma unroll
    for (int i = 0; i < Piece<T>::QUADS; i++) store_quad(to, at + i * (16 / sizeof(T)), row, whole, piece.quads[i]);
}

__device__ __forceinline__ uint4 neighbours(uint4 v) {
    v.x = __shfl_xor_sync(FULL_WARP, v.x, 1);
    v.y = __shfl_xor_sync(FULL_WARP, v.y, 1);
    v.z = __shfl_xor_sync(FULL_WARP, v.z, 1);
    v.w = __shfl_xor_sync(FULL_WARP, v.w, 1);
    return v;
}

// The same by all lanes of a warp, whose indices follow each other from an even one; those past the end get zeros. A piece of
// two quads is a sector of memory: if each lane read its own, every request would ask for half of each sector. So two lanes
// read the first sector together, then the second one, and exchange what is the other's.
template <class T>
__device__ __forceinline__ Piece<T> load_together(const T* from, const Place& row, unsigned index, bool aligned) {
    Piece<T> piece = {};
    bool there = index < row.pieces;
    if constexpr (Piece<T>::QUADS == 1) {
        if (there) piece = load_piece(from, row, index, aligned);
    } else {
        bool odd = index % 2 == 1;
        u64 pair = row.first + (u64)(index / 2) * (2 * PACK);
        bool whole = is_whole(row, pair, aligned) && is_whole(row, pair + PACK, aligned);
        if (whole) {
            piece.quads[0] = *(const uint4*)(from + pair + (odd ? 4 : 0));
            piece.quads[1] = *(const uint4*)(from + pair + (odd ? 12 : 8));
        } else if (there) {
            piece = load_piece(from, row, index, aligned);
        }
        uint4 other = neighbours(odd ? piece.quads[0] : piece.quads[1]);
        if (whole) piece.quads[odd ? 0 : 1] = other;
    }
    return piece;
}

// Numbers 4 · part .. 4 · part + 3 of a piece. They are worked on by fours: one copy of the program serves all of a piece's.
#define PARTS (PACK / 4)

template <class T>
__device__ __forceinline__ void numbers_of(const Piece<T>& piece, int part, float (&v)[4]) {
    if constexpr (sizeof(T) == 4) {
        uint4 quad = part == 0 ? piece.quads[0] : piece.quads[PARTS - 1];
        v[0] = __uint_as_float(quad.x);
        v[1] = __uint_as_float(quad.y);
        v[2] = __uint_as_float(quad.z);
        v[3] = __uint_as_float(quad.w);
    } else {
#ifdef NUMBER_16
        uint4 quad = piece.quads[0];
        float2 low = widened2(part == 0 ? quad.x : quad.z), high = widened2(part == 0 ? quad.y : quad.w);
        v[0] = low.x;
        v[1] = low.y;
        v[2] = high.x;
        v[3] = high.y;
#endif
    }
}

template <class T>
__device__ __forceinline__ void set_numbers(Piece<T>& piece, int part, const float (&v)[4]) {
    if constexpr (sizeof(T) == 4) {
        uint4 quad = make_uint4(bits_of(v[0]), bits_of(v[1]), bits_of(v[2]), bits_of(v[3]));
        if (part == 0) piece.quads[0] = quad;
        else piece.quads[PARTS - 1] = quad;
    } else {
#ifdef NUMBER_16
        unsigned low = rounded2(v[0], v[1]), high = rounded2(v[2], v[3]);
        uint4& quad = piece.quads[0];
        if (part == 0) quad = make_uint4(low, high, low, high);
        else quad = make_uint4(quad.x, quad.y, low, high);
#endif
    }
}

// Several reductions over the threads of a row at once: see row_reduce.
template <class Of, int N>
__device__ __forceinline__ void row_reduce_all(float (&v)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = warp_reduce<Of>(v[i]);
    if (blockDim.x == 32) return;
    __shared__ float parts[N][32];
    if (threadIdx.x % 32 == 0) {
#pragma unroll
        for (int i = 0; i < N; i++) parts[i][threadIdx.x / 32] = v[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = parts[i][0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++) {
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = Of::of(v[i], parts[i][warp]);
    }
    // The next reduction writes where this one reads.
    __syncthreads();
}

// Pieces that a thread reads before it looks at the first one.
#define PIECES_AT_ONCE 4

// The pieces of a row that a thread has: R of each side in registers, then some in shared memory.
template <int R, class Second>
struct Kept {
    const number* first;
    const Second* second;
    Place row;
    bool aligned_first, aligned_second;
    uint4* shared;
    unsigned room;
    Piece<number> x[R > 0 ? R : 1];
    Piece<Second> y[R > 0 ? R : 1];

    __device__ __forceinline__ unsigned slot(unsigned index) const { return index - R * blockDim.x; }

    __device__ __forceinline__ void keep(unsigned slot, const Piece<number>& a, const Piece<Second>& b) {
        if (slot >= room) return;
        shared[slot] = a.quads[0];
#pragma unroll
        for (int i = 0; i < Piece<Second>::QUADS; i++) shared[(i + 1) * room + slot] = b.quads[i];
    }

    // Reads them all, and keeps them; `largest`: of each side.
    __device__ __forceinline__ void read(float (&largest)[2]) {
        if constexpr (R > 0) {
#pragma unroll
            for (int k = 0; k < R; k++) {
                unsigned index = threadIdx.x + k * blockDim.x;
                x[k] = load_together(first, row, index, aligned_first);
                y[k] = load_together(second, row, index, aligned_second);
            }
#pragma unroll
            for (int k = 0; k < R; k++) {
                if (threadIdx.x + k * blockDim.x < row.pieces) see_largest(largest, x[k], y[k]);
            }
        }
        // All lanes of a warp go on as long as the first one does.
        unsigned lane = threadIdx.x % 32;
#pragma unroll 1
        for (unsigned index = threadIdx.x + R * blockDim.x; index - lane < row.pieces; index += PIECES_AT_ONCE * blockDim.x) {
            Piece<number> a[PIECES_AT_ONCE];
            Piece<Second> b[PIECES_AT_ONCE];
#pragma unroll
            for (int k = 0; k < PIECES_AT_ONCE; k++) {
                unsigned at = index + k * blockDim.x;
                a[k] = load_together(first, row, at, aligned_first);
                b[k] = load_together(second, row, at, aligned_second);
            }
#pragma unroll
            for (int k = 0; k < PIECES_AT_ONCE; k++) {
                unsigned at = index + k * blockDim.x;
                if (at >= row.pieces) continue;
                keep(slot(at), a[k], b[k]);
                see_largest(largest, a[k], b[k]);
            }
        }
    }

    __device__ __forceinline__ void see_largest(float (&largest)[2], const Piece<number>& a, const Piece<Second>& b) {
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            float v[4], w[4];
            numbers_of(a, part, v);
            numbers_of(b, part, w);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                largest[0] = fmaxf(largest[0], v[i]);
                largest[1] = fmaxf(largest[1], w[i]);
            }
        }
    }

    // `work(x, y, part)` for the numbers of each piece, by fours, and `end(index)` after each piece, always in the same
    // order. The pieces in registers move up in turns, so that the work stands in the program once; after R turns they are
    // where they were.
    template <class Work, class End>
    __device__ __forceinline__ void each(Work work, End end) {
        unsigned index = threadIdx.x;
#pragma unroll 1
        for (int k = 0; k < R || index < row.pieces; k++, index += blockDim.x) {
            Piece<number> a;
            Piece<Second> b;
            if (R > 0 && k < R) {
                a = x[0];
                b = y[0];
#pragma unroll
                for (int i = 0; i + 1 < R; i++) {
                    x[i] = x[i + 1];
                    y[i] = y[i + 1];
                }
                x[R > 0 ? R - 1 : 0] = a;
                y[R > 0 ? R - 1 : 0] = b;
                if (index >= row.pieces) continue;
            } else if (slot(index) < room) {
                a.quads[0] = shared[slot(index)];
#pragma unroll
                for (int i = 0; i < Piece<Second>::QUADS; i++) b.quads[i] = shared[(i + 1) * room + slot(index)];
            } else {
                a = load_piece(first, row, index, aligned_first);
                b = load_piece(second, row, index, aligned_second);
            }
#pragma unroll 1
            for (int part = 0; part < PARTS; part++) {
                float v[4], w[4];
                numbers_of(a, part, v);
                numbers_of(b, part, w);
                work(v, w, part);
            }
            end(index);
        }
    }
};
