// Calls: recursion, structs by value, function pointers, local arrays, constants, double sine, printf.
extern "C" __device__ int printf(const char*, ...);
__constant__ float coefficients[4] = {1.f, 2.f, 3.f, 4.f};
__device__ __noinline__ int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
struct Item { int a; double b; short c[3]; };
__device__ __noinline__ Item change(Item item, float factor) { item.a += 1; item.b *= factor; item.c[1]++; return item; }
typedef float (*Function)(float);
__device__ __noinline__ float sine(float x) { return sinf(x); }
__device__ __noinline__ float grow(float x) { return expf(x) / x; }
__device__ Function table[2] = {sine, grow};
extern "C" __global__ void calls(int* o, int n, Item item, double* d, float* f) {
    int i = threadIdx.x;
    __shared__ int buffer[64];
    buffer[i] = fibonacci(n + i % 5);
    __syncthreads();
    Item changed = change(item, coefficients[i & 3]);
    int local[16];
    for (int j = 0; j < 16; j++) local[j] = j * i;
    d[i] = sin(d[i]) + changed.b;
    f[i] = table[i & 1](f[i]);
    o[i] = buffer[63 - i] + local[n & 15] + changed.c[1] + changed.a;
    if (i == 3) printf("%d|%5.2f|%s|%x\n", n, 1.5, "text", 255);
}
