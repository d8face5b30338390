// Root-mean-square normalisation (src/ops/rms_norm; Zhang and Sennrich, NeurIPS 2019): y = x · r · weight with r =
// 1/√(mean(x²) + ε), row by row. With d = dy · weight: dx = r · (d − x · r² · mean(d · x)); d(weight) = Σ_rows dy · x ·
// r.

// y, and the rows' r. x, y [rows, width], weight [width], scales [rows] or null.
// Grid: ceil(rows / blockDim.y). Block: (32, n), or (threads, 1).
extern "C" __global__ void rms_norm_forward(
    float* __restrict__ y, float* __restrict__ scales, const float* __restrict__ x, const float* __restrict__ weight,
    unsigned rows, unsigned width, float epsilon
) {
    unsigned row = my_row();
    if (row >= rows) return;
    bool vector = width % 4 == 0 && aligned16(y) && aligned16(x) && aligned16(weight);
    u64 at = (u64)row * width;
    float squares = 0.0f;
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        float4 v = load4(x + at, c, width, vector);
        squares += sum4(mul4(v, v));
    }
    float scale = 1.0f / sqrtf(row_sum(squares) / (float)width + epsilon);
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        float4 v = scale4(load4(x + at, c, width, vector), scale);
        store4(y + at, c, width, vector, mul4(v, load4(weight, c, width, vector)));
    }
    if (scales && threadIdx.x == 0) scales[row] = scale;
}

// dx (+)=. Grid and block as above.
extern "C" __global__ void rms_norm_backward(
    float* __restrict__ dx, int accumulate, const float* __restrict__ dy, const float* __restrict__ x,
    const float* __restrict__ scales, const float* __restrict__ weight, unsigned rows, unsigned width
) {
    unsigned row = my_row();
    if (row >= rows) return;
    bool vector = width % 4 == 0 && aligned16(dx) && aligned16(dy) && aligned16(x) && aligned16(weight);
    u64 at = (u64)row * width;
    float projection = 0.0f;
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        float4 d = mul4(load4(dy + at, c, width, vector), load4(weight, c, width, vector));
        projection += sum4(mul4(d, load4(x + at, c, width, vector)));
    }
    float scale = scales[row];
    float slope = scale * scale * (row_sum(projection) / (float)width);
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        float4 d = mul4(load4(dy + at, c, width, vector), load4(weight, c, width, vector));
        float4 v = load4(x + at, c, width, vector);
        float4 value = make_float4(d.x - v.x * slope, d.y - v.y * slope, d.z - v.z * slope, d.w - v.w * slope);
        put4(dx + at, c, width, vector, scale4(value, scale), accumulate);
    }
}

// Partial sums of the weight's gradient: chunk k has those of rows k · chunk .. (k + 1) · chunk, in their order.
// partials [ceil(rows / chunk), width], to be added up by `sum_partials` (vector.cu).
// Grid: (ceil(rows / chunk), ceil(width / blockDim.x)). Block: (threads, 1).
extern "C" __global__ void rms_norm_partials(
    float* __restrict__ partials, const float* __restrict__ dy, const float* __restrict__ x,
    const float* __restrict__ scales, unsigned rows, unsigned width, unsigned chunk
) {
    unsigned column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= width) return;
    unsigned first = blockIdx.x * chunk, last = rows - first < chunk ? rows : first + chunk;
    float sum = 0.0f;
    for (unsigned row = first; row < last; row++) {
        u64 at = (u64)row * width + column;
        sum += dy[at] * x[at] * scales[row];
    }
    partials[(u64)blockIdx.x * width + column] = sum;
}
