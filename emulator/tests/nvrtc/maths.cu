// The device's own mathematics, which leans on exact rounding, carry chains and conversions.
extern "C" __global__ void maths(const double* x, double* y, float* z, int n) {
    int i = threadIdx.x;
    double a = x[i];
    y[i] = sin(a); y[n + i] = cos(a); y[2 * n + i] = exp(a / 1e3); y[3 * n + i] = log(fabs(a)); y[4 * n + i] = pow(fabs(a), 1.7);
    y[5 * n + i] = tanh(a); y[6 * n + i] = sqrt(fabs(a)); y[7 * n + i] = cbrt(a); y[8 * n + i] = atan(a); y[9 * n + i] = fmod(a, 3.3);
    y[10 * n + i] = 1.0 / a; y[11 * n + i] = floor(a) / 7.0;
    float b = (float)a;
    z[i] = sinf(b); z[n + i] = cosf(b); z[2 * n + i] = expf(b / 1e3f); z[3 * n + i] = logf(fabsf(b)); z[4 * n + i] = powf(fabsf(b), 1.7f);
    z[5 * n + i] = tanhf(b); z[6 * n + i] = sqrtf(fabsf(b)); z[7 * n + i] = cbrtf(b); z[8 * n + i] = atanf(b); z[9 * n + i] = fmodf(b, 3.3f);
    z[10 * n + i] = 1.0f / b; z[11 * n + i] = floorf(b) / 7.0f;
}
