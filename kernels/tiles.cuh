// Tiles of f32 in shared memory. Matrix products (linear.cu) and attention (attention.cu) work on tiles in shared memory that asynchronous copies fill.
//
// A warp holds its part of a product as TM × TN numbers a lane, lanes laid out as 4 rows × 8 columns. A lane's columns are
// quads: number j is column 32 · (j / 4) + 4 · (lane % 8) + j % 4, so that what it writes are vectors. Its rows are quads
// of a TM × 4 block, too; those with one row number are read by eight lanes at once (a broadcast).
//
// The right-hand operand of a product lies in one of two ways. Where the numbers of one column follow each other (a row of
// a weight, a key), the columns of a tile are stored in the order of `quad_order`: the eight lanes of a quarter of a warp
// then read eight neighbouring rows of the tile, PITCH = 4 (mod 32) numbers apart, which are 32 different banks.

// Row of a tile that holds column `column`: 0, 4, 8, .. 28, 1, 5, .. of every 32.
__device__ __forceinline__ unsigned quad_order(unsigned column) {
    return (column & ~31u) | (column & 3u) << 3 | (column & 31u) >> 2;
}

// Copies 16 bytes from global to shared memory, asynchronously; of these, the first `bytes` are read, the others become 0.
__device__ __forceinline__ void copy16(float* shared, const float* global, unsigned bytes) {
    unsigned target = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(global), "r"(bytes) : "memory");
}

// The same for 4 bytes, of which 4 or none are read.
__device__ __forceinline__ void copy4(float* shared, const float* global, unsigned bytes) {
    unsigned target = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(target), "l"(global), "r"(bytes) : "memory");
}

// Starts the copy of a tile of ROWS × COLUMNS numbers, PITCH apart in shared memory and `stride` apart in global memory,
// by all THREADS threads of a block. `source` points at the tile's first number; `rows` and `columns` say how many of its
// rows and columns are there: the others become 0, and are not read. `vector`: source is a multiple of 16 bytes, stride one
// of 4 numbers. ORDERED: the rows are stored in the order of `quad_order`.
template <int THREADS, int ROWS, int COLUMNS, int PITCH, bool ORDERED>
__device__ __forceinline__ void copy_tile(
    float* tile, const float* source, u64 stride, unsigned rows, unsigned columns, bool vector
) {
    // Read anew for each tile: what follows from it would else be kept in registers through all of a product.
    unsigned thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    if (vector) {
        constexpr int QUADS = COLUMNS / 4;
#pragma unroll
        for (int start = 0; start < ROWS * QUADS; start += THREADS) {
            unsigned i = start + thread, row = i / QUADS, column = i % QUADS * 4;
            if (ROWS * QUADS % THREADS != 0 && row >= ROWS) break;
            unsigned left = row < rows && column < columns ? columns - column : 0;
            const float* from = left ? source + row * stride + column : source;
            copy16(tile + (ORDERED ? quad_order(row) : row) * PITCH + column, from, left < 4 ? left * 4 : 16);
        }
    } else {
        // A loop: the way for odd widths, and unrolled it was a quarter of all code.
#pragma unroll 1
        for (int start = 0; start < ROWS * COLUMNS; start += THREADS) {
            unsigned i = start + thread, row = i / COLUMNS, column = i % COLUMNS;
            if (ROWS * COLUMNS % THREADS != 0 && row >= ROWS) break;
            bool there = row < rows && column < columns;
            const float* from = there ? source + row * stride + column : source;
            copy4(tile + (ORDERED ? quad_order(row) : row) * PITCH + column, from, there ? 4 : 0);
        }
    }
}

// Writes 16 bytes to shared memory. In assembly: the compiler parts some plain stores of four numbers into four, and these
// have bank conflicts.
__device__ __forceinline__ void put_shared(float* shared, float x, float y, float z, float w) {
    unsigned target = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(target), "f"(x), "f"(y), "f"(z), "f"(w) : "memory");
}

__device__ __forceinline__ float part4(const float4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// The row of a lane's number i among the 4 · TM rows of a warp.
template <int TM>
__device__ __forceinline__ unsigned lane_row(unsigned lane, int i) {
    constexpr int QUAD = TM < 4 ? TM : 4;
    return i / QUAD * (4 * QUAD) + lane / 8 * QUAD + i % QUAD;
}

// The column of a lane's number j among the 8 · TN columns of a warp.
__device__ __forceinline__ unsigned lane_column(unsigned lane, int j) { return j / 4 * 32 + lane % 8 * 4 + j % 4; }

// Over the eight lanes that share a row.
template <class How>
__device__ __forceinline__ float lanes_reduce(float v) {
    for (int lanes = 1; lanes < 8; lanes *= 2) v = How::of(v, shuffle_xor(v, lanes));
    return v;
}

// sums += A · Bᵀ over DEPTH numbers: rows of A and (in `quad_order`) of B lie as they are. Every sum goes through the depth
// in its order.
template <int TM, int TN, int DEPTH, int PITCH_A, int PITCH_B>
__device__ __forceinline__ void multiply_rows(float (&sums)[TM][TN], const float* a, const float* b) {
    unsigned lane = threadIdx.x % 32;
    a += lane_row<TM>(lane, 0) * PITCH_A;
    b += lane % 8 * PITCH_B;
#pragma unroll 1
    for (int k = 0; k < DEPTH; k += 4) {
        float4 left[TM];
#pragma unroll
        for (int i = 0; i < TM; i++) left[i] = *(const float4*)(a + lane_row<TM>(0, i) * PITCH_A + k);
#pragma unroll
        for (int j = 0; j < TN; j++) {
            float4 right = *(const float4*)(b + 8 * j * PITCH_B + k);
#pragma unroll
            for (int part = 0; part < 4; part++) {
#pragma unroll
                for (int i = 0; i < TM; i++) sums[i][j] = fmaf(part4(left[i], part), part4(right, part), sums[i][j]);
            }
        }
    }
}

// sums += A · B over DEPTH numbers: rows of A lie as they are, and so do those of B, of which there is one for each number
// of the depth. ORDERED: these are in `quad_order`.
template <int TM, int TN, int DEPTH, int PITCH_A, int PITCH_B, bool ORDERED>
__device__ __forceinline__ void multiply_columns(float (&sums)[TM][TN], const float* a, const float* b) {
    unsigned lane = threadIdx.x % 32;
    a += lane_row<TM>(lane, 0) * PITCH_A;
    b += lane % 8 * 4;
#pragma unroll 2
    for (int k = 0; k < DEPTH; k += 4) {
        float4 left[TM];
#pragma unroll
        for (int i = 0; i < TM; i++) left[i] = *(const float4*)(a + lane_row<TM>(0, i) * PITCH_A + k);
        // Neighbours in the depth are 8 rows apart where the rows are ordered.
        const float* rows = b + (ORDERED ? quad_order(k) : k) * PITCH_B;
#pragma unroll
        for (int part = 0; part < 4; part++) {
#pragma unroll
            for (int j = 0; j < TN; j += 4) {
                float4 right = *(const float4*)(rows + (ORDERED ? 8 : 1) * part * PITCH_B + 8 * j);
#pragma unroll
                for (int i = 0; i < TM; i++) {
#pragma unroll
                    for (int n = 0; n < 4; n++) {
                        sums[i][j + n] = fmaf(part4(left[i], part), part4(right, n), sums[i][j + n]);
                    }
                }
            }
        }
    }
}

// sums += Aᵀ · B over DEPTH numbers: both have a row for each number of the depth. TM is 4 or a multiple of it.
template <int TM, int TN, int DEPTH, int PITCH_A, int PITCH_B>
__device__ __forceinline__ void multiply_turned(float (&sums)[TM][TN], const float* a, const float* b) {
    unsigned lane = threadIdx.x % 32;
    a += lane / 8 * 4;
    b += lane % 8 * 4;
#pragma unroll 4
    for (int k = 0; k < DEPTH; k++) {
        float4 left[TM / 4], right[TN / 4];
#pragma unroll
        for (int i = 0; i < TM; i += 4) left[i / 4] = *(const float4*)(a + k * PITCH_A + 4 * i);
#pragma unroll
        for (int j = 0; j < TN; j += 4) right[j / 4] = *(const float4*)(b + k * PITCH_B + 8 * j);
#pragma unroll
        for (int i = 0; i < TM; i++) {
#pragma unroll
            for (int j = 0; j < TN; j++) {
                sums[i][j] = fmaf(part4(left[i / 4], i % 4), part4(right[j / 4], j % 4), sums[i][j]);
            }
        }
    }
}
