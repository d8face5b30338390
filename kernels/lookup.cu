// Embedding lookup (src/ops/lookup): y[t] = table[ids[t]]; d(table)[i] = Σ_{t: ids[t] = i} dy[t].
//
// The scatter is deterministic without atomics: the host sorts the tokens by id, stably, and cuts each id's tokens into
// pieces of at most a fixed number. A piece is added up in the order of its tokens. If it is its id's only one, it goes
// straight into the table; else into a row of partial sums, which a second kernel adds in the order of the pieces.
// Without pieces, an id that all tokens have (a type, [CLS]) would be one long chain of additions.

// y[t] = table[ids[t]]. table [entries, width], ids [tokens], within the table; y [tokens, width].
// Grid: ceil(tokens / blockDim.y). Block: (32, n), or (threads, 1).
extern "C" __global__ void lookup_forward(
    number* __restrict__ y, const float* __restrict__ table, const unsigned* __restrict__ ids, unsigned tokens,
    unsigned width
) {
    unsigned token = my_row();
    if (token >= tokens) return;
    bool vector = width % 4 == 0 && aligned16(y) && aligned16(table);
    y += (u64)token * width;
    table += (u64)ids[token] * width;
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        store4(y, c, width, vector, load4(table, c, width, vector));
    }
}

// Sums of the pieces. table [entries, width], added to: fill it with 0 first if nothing was there. dy [tokens, width];
// order [tokens]: the tokens, sorted by id; piece p has order[starts[p]] .. order[starts[p + 1]], starts [pieces + 1].
// rows [pieces]: the piece's id; slots [pieces]: its row of partials [.., width], or 0xffffffff if it goes into the
// table (then no other piece has its id). Grid: ceil(pieces / blockDim.y). Block: (32, n), or (threads, 1).
extern "C" __global__ void lookup_scatter(
    float* __restrict__ table, float* __restrict__ partials, const number* __restrict__ dy,
    const unsigned* __restrict__ order, const unsigned* __restrict__ starts, const unsigned* __restrict__ rows,
    const unsigned* __restrict__ slots, unsigned pieces, unsigned width
) {
    unsigned piece = my_row();
    if (piece >= pieces) return;
    bool vector = width % 4 == 0 && aligned16(table) && aligned16(partials) && aligned16(dy);
    unsigned first = starts[piece], last = starts[piece + 1], slot = slots[piece];
    float* target = slot == 0xffffffffu ? table + (u64)rows[piece] * width : partials + (u64)slot * width;
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        float4 sum = load4(dy + (u64)order[first] * width, c, width, vector);
        for (unsigned i = first + 1; i < last; i++) {
            sum = add4(sum, load4(dy + (u64)order[i] * width, c, width, vector));
        }
        put4(target, c, width, vector, sum, slot == 0xffffffffu);
    }
}

// table[rows[k]] += Σ partials[starts[k] .. starts[k + 1]], for the ids that have several pieces: rows [count], starts
// [count + 1]. Grid: ceil(count / blockDim.y). Block: (32, n), or (threads, 1).
extern "C" __global__ void lookup_combine(
    float* __restrict__ table, const float* __restrict__ partials, const unsigned* __restrict__ rows,
    const unsigned* __restrict__ starts, unsigned count, unsigned width
) {
    unsigned k = my_row();
    if (k >= count) return;
    bool vector = width % 4 == 0 && aligned16(table) && aligned16(partials);
    float* target = table + (u64)rows[k] * width;
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        float4 sum = load4(partials + (u64)starts[k] * width, c, width, vector);
        for (unsigned i = starts[k] + 1; i < starts[k + 1]; i++) {
            sum = add4(sum, load4(partials + (u64)i * width, c, width, vector));
        }
        put4(target, c, width, vector, sum, 1);
    }
}
