// Bias and activation (src/ops/activation has the functions and their numbers are those of common.cuh): y = f(x + b).

// x [rows, width], bias [width] or null. Grid: ceil(rows / blockDim.y). Block: (32, n), or (threads, 1).
extern "C" __global__ void activation_forward(
    number* __restrict__ y, const number* __restrict__ x, const float* __restrict__ bias, unsigned rows, unsigned width,
    int function
) {
    unsigned row = my_row();
    if (row >= rows) return;
    bool vector = width % 4 == 0 && aligned16(y) && aligned16(x) && aligned16(bias);
    u64 at = (u64)row * width;
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        float4 z = load4(x + at, c, width, vector);
        if (bias) z = add4(z, load4(bias, c, width, vector));
        float4 v = make_float4(
            activate(function, z.x).value, activate(function, z.y).value, activate(function, z.z).value,
            activate(function, z.w).value
        );
        store4(y + at, c, width, vector, v);
    }
}

// dx (+)= dy · f′(x + b). Grid and block as above.
extern "C" __global__ void activation_backward(
    number* __restrict__ dx, int accumulate, const number* __restrict__ dy, const number* __restrict__ x,
    const float* __restrict__ bias, unsigned rows, unsigned width, int function
) {
    unsigned row = my_row();
    if (row >= rows) return;
    bool vector = width % 4 == 0 && aligned16(dx) && aligned16(dy) && aligned16(x) && aligned16(bias);
    u64 at = (u64)row * width;
    for (unsigned c = threadIdx.x * 4; c < width; c += blockDim.x * 4) {
        float4 z = load4(x + at, c, width, vector);
        if (bias) z = add4(z, load4(bias, c, width, vector));
        float4 slope = make_float4(
            activate(function, z.x).slope, activate(function, z.y).slope, activate(function, z.z).slope,
            activate(function, z.w).slope
        );
        put4(dx + at, c, width, vector, mul4(load4(dy + at, c, width, vector), slope), accumulate);
    }
}

// Partial sums of the bias's gradient, Σ_rows dy · f′(x + b): chunk k has those of rows k · chunk .. (k + 1) · chunk.
// partials [ceil(rows / chunk), width], to be added up by `sum_partials` (vector.cu).
// Grid: (ceil(rows / chunk), ceil(width / blockDim.x)). Block: (threads, 1).
extern "C" __global__ void activation_partials(
    float* __restrict__ partials, const number* __restrict__ dy, const number* __restrict__ x,
    const float* __restrict__ bias, unsigned rows, unsigned width, int function, unsigned chunk
) {
    unsigned column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= width) return;
    unsigned first = blockIdx.x * chunk, last = rows - first < chunk ? rows : first + chunk;
    float sum = 0.0f, shift = bias ? bias[column] : 0.0f;
    for (unsigned row = first; row < last; row++) {
        u64 at = (u64)row * width + column;
        sum += widened(dy[at]) * activate(function, widened(x[at]) + shift).slope;
    }
    partials[(u64)blockIdx.x * width + column] = sum;
}
