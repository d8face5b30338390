// Distillation (src/ops/distillation has the table of the losses): a student's logits against a teacher's, which are a constant
// and f32. Value and gradient in one kernel that reads a row once; what is computed is in divergence.cuh, with the student as
// the first side and the teacher as the second one.

#define SQUARES 10

// a − t; what both sides exclude differs by nothing.
__device__ __forceinline__ float apart(float a, float t) { return a == -INFINITY_F && t == a ? 0.0f : a - t; }

// Σ (a − t)² of a row, and scale · (a − t).
__device__ __forceinline__ void squares_row(float* value, const Pair<float>& pair, const Place& row) {
    float sum = 0.0f;
    unsigned lane = threadIdx.x % 32;
#pragma unroll 2
    for (unsigned index = threadIdx.x; index - lane < row.pieces; index += blockDim.x) {
        Piece<number> student = load_together(pair.first, row, index, aligned16(pair.first)), to_slopes;
        Piece<float> teacher = load_together(pair.second, row, index, aligned16(pair.second));
        if (index >= row.pieces) continue;
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            float v[4], w[4];
            numbers_of(student, part, v);
            numbers_of(teacher, part, w);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float d = apart(v[i], w[i]);
                sum = fmaf(d, d, sum);
                v[i] = pair.scale * d;
            }
            set_numbers(to_slopes, part, v);
        }
        if (pair.dfirst) store_piece(pair.dfirst, row, index, aligned16(pair.dfirst), to_slopes);
    }
    sum = row_sum(sum);
    if (threadIdx.x == 0) *value = sum;
}

template <int R>
__device__ __forceinline__ void forward(
    float* values, number* slopes, const number* student, const float* teacher, const unsigned* groups,
    const unsigned char* counted, unsigned rows, unsigned width, int loss, float inverse_t, float scale, unsigned room
) {
    unsigned index = my_row();
    if (index >= rows) return;
    u64 start = groups ? groups[index] : (u64)index * width;
    if (groups) width = groups[index + 1] - groups[index];
    Pair<float> pair = {slopes, (float*)0, student, teacher, inverse_t, scale, room};
    Place row = place_of(start, width);
    if ((counted && !counted[index]) || width == 0) {
        if (threadIdx.x == 0) values[index] = 0.0f;
        if (width > 0) zero_slopes(pair, row);
        return;
    }
    if (loss == SQUARES) squares_row(values + index, pair, row);
    else pair_row<R, false>(loss, values + index, pair, row);
}

// values [rows]: the value of each row without T², 0 where it does not count or is empty; slopes, like the student's logits,
// or null: `scale` times d(value)/d(a/T), or scale · (a − t). student, teacher: logits, `width` a row, or rows by groups
// [rows + 1]. counted [rows]: bytes, or null. loss: KL_SECOND_FIRST, KL_FIRST_SECOND, JENSEN_SHANNON or SQUARES. room:
// pieces of a row that there is shared memory for. Grid: ceil(rows / blockDim.y). Block: (32, n), n at most 8, or (threads,
// 1), at most 256. Shared memory: blockDim.y · room · (16 + PACK · 4) bytes.
extern "C" __global__ void __launch_bounds__(256, 2) distillation_forward(
    float* __restrict__ values, number* __restrict__ slopes, const number* __restrict__ student,
    const float* __restrict__ teacher, const unsigned* __restrict__ groups, const unsigned char* __restrict__ counted,
    unsigned rows, unsigned width, int loss, float inverse_t, float scale, unsigned room
) {
    forward<0>(values, slopes, student, teacher, groups, counted, rows, width, loss, inverse_t, scale, room);
}

// The same for long rows, of which the threads keep some pieces each in registers: 5, or 2 of 16-bit students. Block:
// (threads, 1), at most 512.
extern "C" __global__ void __launch_bounds__(512) distillation_forward_wide(
    float* __restrict__ values, number* __restrict__ slopes, const number* __restrict__ student,
    const float* __restrict__ teacher, const unsigned* __restrict__ groups, const unsigned char* __restrict__ counted,
    unsigned rows, unsigned width, int loss, float inverse_t, float scale, unsigned room
) {
    constexpr int R = PACK == 4 ? 5 : 2;
    forward<R>(values, slopes, student, teacher, groups, counted, rows, width, loss, inverse_t, scale, room);
}

// The same of Bernoulli distributions, whose logits are student and teacher [len]; values and counted [len]. Grid: ceil(len /
// (threads · PACK)). Block: (threads, 1).
extern "C" __global__ void distillation_bernoulli(
    float* __restrict__ values, number* __restrict__ slopes, const number* __restrict__ student,
    const float* __restrict__ teacher, const unsigned char* __restrict__ counted, unsigned len, int loss, float inverse_t,
    float scale
) {
    Place row = place_of(0, len);
    unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= row.pieces) return;
    Pair<float> pair = {slopes, (float*)0, student, teacher, inverse_t, scale, 0};
    if (loss != SQUARES) return bernoulli_piece<false>(loss, values, pair, counted, row, index);
    Piece<number> from = load_piece(student, row, index, aligned16(student)), to_slopes;
    Piece<float> target = load_piece(teacher, row, index, aligned16(teacher)), to_values;
#pragma unroll 1
    for (int part = 0; part < PARTS; part++) {
        float v[4], w[4];
        numbers_of(from, part, v);
        numbers_of(target, part, w);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u64 at = (u64)index * PACK + 4 * part + i;
            float d = at < len && (!counted || counted[at]) ? apart(v[i], w[i]) : 0.0f;
            w[i] = d * d;
            v[i] = scale * d;
        }
        set_numbers(to_values, part, w);
        set_numbers(to_slopes, part, v);
    }
    store_piece(values, row, index, aligned16(values), to_values);
    if (slopes) store_piece(slopes, row, index, aligned16(slopes), to_slopes);
}
