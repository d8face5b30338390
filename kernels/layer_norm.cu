// Dropout, residual and layer normalisation (src/ops/layer_norm; Ba, Kiros, Hinton, "Layer normalization", 2016).
//
// s = residual + dropout(x); x̂ = (s − mean) · r with r = 1/√(variance + ε); y = x̂ · weight + bias, row by row.
// With d = dy · weight: ds = r · (d − mean(d) − x̂ · mean(d · x̂)); d(residual) = ds; dx = ds · mask / (1 − p);
// d(weight) = Σ_rows dy · x̂; d(bias) = Σ_rows dy.

// y and, if they are wanted, the normalised rows x̂ and the rows' r.
// x, y [rows, width]; residual [rows, width] or null; weight, bias [width]; normalised [rows, width], scales [rows], or
// both null. Grid: ceil(rows / blockDim.y). Block: (32, n), or (threads, 1). No dynamic shared memory.
extern "C" __global__ void layer_norm_forward(
    number* __restrict__ y, number* __restrict__ normalised, float* __restrict__ scales, const number* __restrict__ x,
    const number* __restrict__ residual, const float* __restrict__ weight, const float* __restrict__ bias, unsigned rows,
    unsigned width, float epsilon, Mask mask
) {
    unsigned row = my_row();
    if (row >= rows) return;
    bool vector = width % 4 == 0 && aligned16(x) && aligned16(y) && aligned16(residual) && aligned16(normalised) &&
                  aligned16(weight) && aligned16(bias);
    u64 at = (u64)row * width;
    x += at;
    y += at;
    float sum = 0.0f;
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        float4 s = dropout4(mask, at + c, load4(x, c, width, vector));
        if (residual) s = add4(s, load4(residual + at, c, width, vector));
        store4(y, c, width, vector, s);
        sum += sum4(inside4(s, c, width));
    }
    Mask none = {{0, 0}, {0, 0, 0}, 0, 1.0f};
    number* kept = normalised ? normalised + at : 0;
    float scale = normalise_row(y, kept, weight, bias, width, epsilon, vector, sum, none, at);
    if (scales && threadIdx.x == 0) scales[row] = scale;
}

// ds of every row, into the gradients of residual and x (each may be null), (+)= as the flags say.
// The mask `output` is applied to dy first (the embedding block drops out what comes out of it), `input` to dx last.
// Grid and block as above.
extern "C" __global__ void layer_norm_backward(
    number* __restrict__ dx, int accumulate_dx, number* __restrict__ dresidual, int accumulate_dresidual,
    const number* __restrict__ dy, const number* __restrict__ normalised, const float* __restrict__ scales,
    const float* __restrict__ weight, unsigned rows, unsigned width, Mask output, Mask input
) {
    unsigned row = my_row();
    if (row >= rows) return;
    bool vector = width % 4 == 0 && aligned16(dx) && aligned16(dresidual) && aligned16(dy) && aligned16(normalised) &&
                  aligned16(weight);
    u64 at = (u64)row * width;
    float sum = 0.0f, projection = 0.0f;
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        float4 d = mul4(dropout4(output, at + c, load4(dy + at, c, width, vector)), load4(weight, c, width, vector));
        sum += sum4(d);
        projection += sum4(mul4(d, load4(normalised + at, c, width, vector)));
    }
    float mean = row_sum(sum) / (float)width, slope = row_sum(projection) / (float)width, scale = scales[row];
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        float4 d = mul4(dropout4(output, at + c, load4(dy + at, c, width, vector)), load4(weight, c, width, vector));
        float4 n = load4(normalised + at, c, width, vector);
        float4 ds = make_float4(
            scale * (d.x - mean - n.x * slope), scale * (d.y - mean - n.y * slope), scale * (d.z - mean - n.z * slope),
            scale * (d.w - mean - n.w * slope)
        );
        if (dresidual) put4(dresidual + at, c, width, vector, ds, accumulate_dresidual);
        if (dx) put4(dx + at, c, width, vector, dropout4(input, at + c, ds), accumulate_dx);
    }
}

// Partial sums of the gradients of weight and bias: chunk k has those of rows k · chunk .. (k + 1) · chunk, in their
// order. weight_partials, bias_partials [ceil(rows / chunk), width], to be added up by `sum_partials` (vector.cu).
// `chunk` must be fixed: the sum's order depends on it. Grid: (ceil(rows / chunk), ceil(width / blockDim.x)). Block:
// (threads, 1).
extern "C" __global__ void layer_norm_partials(
    float* __restrict__ weight_partials, float* __restrict__ bias_partials, const number* __restrict__ dy,
    const number* __restrict__ normalised, unsigned rows, unsigned width, unsigned chunk, Mask output
) {
    unsigned column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= width) return;
    unsigned first = blockIdx.x * chunk, last = rows - first < chunk ? rows : first + chunk;
    float weight_sum = 0.0f, bias_sum = 0.0f;
    for (unsigned row = first; row < last; row++) {
        u64 at = (u64)row * width + column;
        float d = dropout1(output, at, widened(dy[at]));
        weight_sum += d * widened(normalised[at]);
        bias_sum += d;
    }
    u64 to = (u64)blockIdx.x * width + column;
    weight_partials[to] = weight_sum;
    bias_partials[to] = bias_sum;
}
