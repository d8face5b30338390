// C[m][n] = sum A[m][k] B[n][k], bf16 in, f32 out; 64x64 tile, 4 warps each 32x32, k step 32, cp.async double buffer
typedef unsigned int u32;
__device__ __forceinline__ void cp(u32 s, const void* g) { asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(s), "l"(g) : "memory"); }
__device__ __forceinline__ void ldm(u32* r, u32 s) { asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(s) : "memory"); }
__device__ __forceinline__ void mma(float* c, const u32* a, const u32* b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])); }
extern "C" __global__ void product(const unsigned short* A, const unsigned short* B, float* C, int M, int N, int K) {
  __shared__ __align__(16) unsigned short sa[2][64 * 40], sb[2][64 * 40];
  int t = threadIdx.x, lane = t % 32, warp = t / 32, wm = warp / 2 * 32, wn = warp % 2 * 32;
  int bm = blockIdx.y * 64, bn = blockIdx.x * 64;
  auto fill = [&](int buf, int k) {
    for (int i = t; i < 256; i += 128) { int r = i / 4, c = i % 4 * 8;
      cp((u32)__cvta_generic_to_shared(&sa[buf][r * 40 + c]), A + (long)(bm + r) * K + k + c);
      cp((u32)__cvta_generic_to_shared(&sb[buf][r * 40 + c]), B + (long)(bn + r) * K + k + c); }
    asm volatile("cp.async.commit_group;" ::: "memory"); };
  float c[2][4][4] = {};
  fill(0, 0);
  for (int k = 0, buf = 0; k < K; k += 32, buf ^= 1) {
    if (k + 32 < K) fill(buf ^ 1, k + 32); else asm volatile("cp.async.commit_group;" ::: "memory");
    asm volatile("cp.async.wait_group 1;" ::: "memory");
    __syncthreads();
    #pragma unroll
    for (int kk = 0; kk < 32; kk += 16) {
      u32 a[2][4], b[2][4];
      #pragma unroll
      for (int i = 0; i < 2; i++) {
        ldm(a[i], (u32)__cvta_generic_to_shared(&sa[buf][(wm + i * 16 + lane % 16) * 40 + kk + lane / 16 * 8]));
        ldm(b[i], (u32)__cvta_generic_to_shared(&sb[buf][(wn + i * 16 + lane % 8 + lane / 16 * 8) * 40 + kk + lane / 8 % 2 * 8])); }
      #pragma unroll
      for (int i = 0; i < 2; i++)
        #pragma unroll
        for (int j = 0; j < 4; j++) mma(c[i][j], a[i], &b[j / 2][j % 2 * 2]);
    }
    __syncthreads();
  }
  for (int i = 0; i < 2; i++) for (int j = 0; j < 4; j++) for (int h = 0; h < 2; h++) {
    int r = bm + wm + i * 16 + lane / 4 + h * 8, n = bn + wn + j * 8 + lane % 4 * 2;
    C[(long)r * N + n] = c[i][j][2 * h]; C[(long)r * N + n + 1] = c[i][j][2 * h + 1]; }
}
