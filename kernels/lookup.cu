// Embedding lookup (src/ops/lookup): y[t] = table[ids[t]]; d(table)[i] = Σ_{t: ids[t] = i} dy[t]. Tables and their gradients
// are f32.
//
// The scatter is deterministic without atomics: the host sorts the tokens by id, stably, and cuts each id's tokens into
// pieces of at most a fixed number. If a piece is its id's only one, its sum goes straight into the table; else into a row
// of partial sums, which a second kernel adds up. Without pieces, an id that all tokens have (a type, [CLS]) would be one
// long chain of additions. The warps of a block share the rows of a sum, and each has eight reads on their way at once: one
// after the other, a chain of 64 rows is 64 times as long as the way to memory.

// y[t] = table[ids[t]]. table [entries, width], ids [tokens], within the table; y [tokens, width].
// Grid: ceil(tokens / blockDim.y). Block: (32, n), or (threads, 1).
extern "C" __global__ void lookup_forward(
    number* __restrict__ y, const float* __restrict__ table, const unsigned* __restrict__ ids, unsigned tokens,
    unsigned width
) {
    unsigned token = my_row();
    if (token >= tokens) return;
    bool vector = width % 4 == 0 && aligned_quad(y) && aligned16(table);
    y += (u64)token * width;
    table += (u64)ids[token] * width;
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        store4(y, c, width, vector, load4(table, c, width, vector));
    }
}

#define AT_ONCE 8

// Σ values[row(i)] for i = first .. last, row(i) = order[i], or i where order is null: columns `column` .. `column` + 3 of
// rows of `width`. Warp w of a block adds up rows w, w + n, …; what the first warp gets back is the sum of theirs.
template <class Number>
__device__ __forceinline__ float4 sum_rows(
    const Number* values, const unsigned* order, unsigned first, unsigned last, unsigned column, unsigned width,
    bool vector
) {
    __shared__ float4 parts[8][32];
    float4 none = make_float4(0.0f, 0.0f, 0.0f, 0.0f), sum = none;
    for (unsigned i = first + threadIdx.y; i < last; i += AT_ONCE * blockDim.y) {
        unsigned rows[AT_ONCE];
        float4 v[AT_ONCE];
#pragma unroll
        for (unsigned j = 0; j < AT_ONCE; j++) {
            unsigned at = i + j * blockDim.y;
            rows[j] = at >= last ? 0 : order ? order[at] : at;
        }
#pragma unroll
        for (unsigned j = 0; j < AT_ONCE; j++) {
            bool there = i + j * blockDim.y < last && column < width;
            v[j] = there ? load4(values + (u64)rows[j] * width, column, width, vector) : none;
        }
#pragma unroll
        for (unsigned j = 0; j < AT_ONCE; j++) sum = add4(sum, v[j]);
    }
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    unsigned warps = last - first < blockDim.y ? last - first : blockDim.y;
    for (unsigned warp = 1; threadIdx.y == 0 && warp < warps; warp++) sum = add4(sum, parts[warp][threadIdx.x]);
    return sum;
}

// Sums of the pieces. table [entries, width], added to: fill it with 0 first if nothing was there. dy [tokens, width];
// order [tokens]: the tokens, sorted by id; piece p has order[starts[p]] .. order[starts[p + 1]], starts [pieces + 1].
// rows [pieces]: the piece's id; slots [pieces]: its row of partials [.., width], or 0xffffffff if it goes into the
// table (then no other piece has its id). Grid: (pieces, ceil(width / 128)). Block: (32, n), n at most 8 and fixed: the
// order of the sums depends on it.
extern "C" __global__ void __launch_bounds__(256) lookup_scatter(
    float* __restrict__ table, float* __restrict__ partials, const number* __restrict__ dy,
    const unsigned* __restrict__ order, const unsigned* __restrict__ starts, const unsigned* __restrict__ rows,
    const unsigned* __restrict__ slots, unsigned width
) {
    unsigned piece = blockIdx.x, column = blockIdx.y * 128 + threadIdx.x * 4, slot = slots[piece];
    bool vector = width % 4 == 0 && aligned16(table) && aligned16(partials) && aligned_quad(dy);
    unsigned first = starts[piece], last = starts[piece + 1];
    float4 sum;
    if (last - first == 1) {
        // Most pieces are one token (all positions of a sequence are different): a copy, and nothing to wait for.
        if (threadIdx.y != 0 || column >= width) return;
        sum = load4(dy + (u64)order[first] * width, column, width, vector);
    } else {
        sum = sum_rows(dy, order, first, last, column, width, vector);
        if (threadIdx.y != 0 || column >= width) return;
    }
    float* target = slot == 0xffffffffu ? table + (u64)rows[piece] * width : partials + (u64)slot * width;
    put4(target, column, width, vector, sum, slot == 0xffffffffu);
}

// table[rows[k]] += Σ partials[starts[k] .. starts[k + 1]], for the ids that have several pieces: rows [count], starts
// [count + 1]. Grid: (count, ceil(width / 128)). Block: as above.
extern "C" __global__ void __launch_bounds__(256) lookup_combine(
    float* __restrict__ table, const float* __restrict__ partials, const unsigned* __restrict__ rows,
    const unsigned* __restrict__ starts, unsigned width
) {
    unsigned k = blockIdx.x, column = blockIdx.y * 128 + threadIdx.x * 4;
    bool vector = width % 4 == 0 && aligned16(table) && aligned16(partials);
    float4 sum = sum_rows(partials, 0, starts[k], starts[k + 1], column, width, vector);
    if (threadIdx.y != 0 || column >= width) return;
    put4(table + (u64)rows[k] * width, column, width, vector, sum, 1);
}
