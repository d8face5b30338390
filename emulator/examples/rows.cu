extern "C" __global__ void rows(const float4* x, const float4* w, const float4* b, float4* y, int n) {
    int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32, n4 = n / 4;
    float sum = 0, square = 0;
    for (int i = lane; i < n4; i += 32) { float4 v = x[(long)row * n4 + i]; sum += v.x + v.y + v.z + v.w; square += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }
    for (int o = 16; o; o /= 2) { sum += __shfl_xor_sync(~0u, sum, o); square += __shfl_xor_sync(~0u, square, o); }
    float mean = sum / n, scale = rsqrtf(square / n - mean * mean + 1e-5f);
    for (int i = lane; i < n4; i += 32) {
        float4 v = x[(long)row * n4 + i], g = w[i], c = b[i];
        v.x = (v.x - mean) * scale * g.x + c.x; v.y = (v.y - mean) * scale * g.y + c.y;
        v.z = (v.z - mean) * scale * g.z + c.z; v.w = (v.w - mean) * scale * g.w + c.w;
        v.x *= 0.5f * (1.f + erff(v.x * 0.70710678f)); v.y *= 0.5f * (1.f + erff(v.y * 0.70710678f));
        v.z *= 0.5f * (1.f + erff(v.z * 0.70710678f)); v.w *= 0.5f * (1.f + erff(v.w * 0.70710678f));
        y[(long)row * n4 + i] = v;
    }
}
