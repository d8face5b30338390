// The products of linear.cuh in f32.
//
// - Asynchronous copies bring the next step while one is computed. 128 takes two thirds of the shared-memory reads of 64
//   for a product; 64 fills a device with a quarter of the result.
// - A chain of sums is one of fused multiply-adds, number by number.
//
// Dynamic shared memory: 73,728 bytes for 128, 36,864 for 64.

// Warps of 32 rows and COLUMNS / WARPS_N columns.
template <int ROWS_, int COLUMNS_, int WARPS_N_>
struct Tiling {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, WARPS_N = WARPS_N_, DEPTH = 32;
    static constexpr int WARPS_M = ROWS / 32, THREADS = 32 * WARPS_M * WARPS_N;
    static constexpr int TM = 8, WARP_N = COLUMNS / WARPS_N, TN = WARP_N / 8;
    // PITCH: of tiles whose rows run along the inner dimension.
    static constexpr int PITCH = DEPTH + 4, ROOM_A = ROWS * PITCH, ROOM_B = COLUMNS * PITCH, ROOM = ROOM_A + ROOM_B;

    // Those of B that run along the inner dimension are in `quad_order`.
    template <bool LEFT, bool RIGHT>
    static __device__ __forceinline__ void copy(float* shared, const Piece& left, const Piece& right) {
        float *a = shared, *b = shared + ROOM_A;
        if (LEFT) {
            copy_tile<THREADS, ROWS, DEPTH, PITCH, false>(a, left.source, left.stride, left.rows, left.columns, left.vector);
        } else {
            copy_tile<THREADS, DEPTH, ROWS, ROWS, false>(a, left.source, left.stride, left.rows, left.columns, left.vector);
        }
        if (RIGHT) {
            copy_tile<THREADS, COLUMNS, DEPTH, PITCH, true>(
                b, right.source, right.stride, right.rows, right.columns, right.vector
            );
        } else {
            copy_tile<THREADS, DEPTH, COLUMNS, COLUMNS, false>(
                b, right.source, right.stride, right.rows, right.columns, right.vector
            );
        }
    }

    template <bool LEFT, bool RIGHT, class Left, class Right, class Put>
    static __device__ __forceinline__ void product(unsigned steps, Left left, Right right, Put put) {
        float* shared = (float*)shared_quads;
        unsigned warp_m = threadIdx.x / 32 / WARPS_N * 32, warp_n = threadIdx.x / 32 % WARPS_N * WARP_N;
        float sums[TM][TN] = {};
        // One round more than steps: a round starts the copies of its step and computes the step before it.
        for (unsigned step = 0; step <= steps; step++) {
            copies_wait<0>();
            // The step before is there for all, and all are done with the one before that, whose room this one takes.
            __syncthreads();
            if (step < steps) copy<LEFT, RIGHT>(shared + step % 2 * ROOM, left(step), right(step));
            copies_end();
            if (step == 0) continue;
            float *a = shared + (step + 1) % 2 * ROOM, *b = a + ROOM_A;
            if (LEFT && RIGHT) {
                multiply_rows<TM, TN, DEPTH, PITCH, PITCH>(sums, a + warp_m * PITCH, b + warp_n * PITCH);
            } else if (LEFT) {
                multiply_columns<TM, TN, DEPTH, PITCH, COLUMNS, false>(sums, a + warp_m * PITCH, b + warp_n);
            } else {
                multiply_turned<TM, TN, DEPTH, ROWS, COLUMNS>(sums, a + warp_m, b + warp_n);
            }
        }
        __syncthreads();
        unsigned lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < TM; i++) {
            float* row = shared + (warp_m + lane_row<TM>(lane, i)) * COLUMNS + warp_n;
#pragma unroll
            for (int j = 0; j < TN; j += 4) {
                put_shared(row + lane_column(lane, j), sums[i][j], sums[i][j + 1], sums[i][j + 2], sums[i][j + 3]);
            }
        }
        put_tile<Tiling, COLUMNS>(shared, put);
    }
};
typedef Tiling<128, 128, 2> Large;
typedef Tiling<64, 64, 2> Small;

LINEAR_KERNELS
