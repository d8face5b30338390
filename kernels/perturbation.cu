// The perturbation of adversarial training (src/ops/perturbation): steps of gradient ascent within a ball, group by
// group.
//
// A group is the `width` numbers of a token, or, where `segments` [groups + 1] is not null, those of tokens segments[i]
// .. segments[i + 1]. Norms are summed in f64. SMART (Jiang et al., ACL 2020), algorithm 1; FreeLB (Zhu et al., ICLR
// 2020), algorithm 1. All kernels: grid ceil(groups / blockDim.y), block (32, n), or (threads, 1).

#define L1 0
#define L2 1
#define INF 2
#define EUCLIDEAN 0
#define RADIAL 1
#define LARGEST_F 3.402823466e38f

// The numbers of a group.
struct Group {
    u64 start, len;
};

__device__ __forceinline__ Group group_of(unsigned group, const unsigned* segments, unsigned width) {
    if (!segments) return {(u64)group * width, width};
    return {(u64)segments[group] * width, (u64)(segments[group + 1] - segments[group]) * width};
}

// ‖values‖, the same for all threads of the group.
__device__ __forceinline__ double norm_of(const float* values, u64 len, int norm) {
    double size = 0.0;
    for (u64 i = threadIdx.x; i < len; i += blockDim.x) {
        double x = fabs((double)values[i]);
        size = norm == L1 ? size + x : norm == L2 ? size + x * x : fmax(size, x);
    }
    if (norm == INF) return row_max(size);
    size = row_sum(size);
    return norm == L1 ? size : sqrt(size);
}

// θ with Σ max(|x| − θ, 0) = radius, for ‖x‖₁ > radius (Duchi, Shalev-Shwartz, Singer and Chandra, ICML 2008), without
// sorting: θ ← (Σ|x| − radius) / count over the |x| above the last θ, until their number stays (Michelot 1986). θ only
// grows, so this ends; the numbers above it are those that the sorted algorithm finds.
__device__ __forceinline__ double l1_threshold(const float* values, u64 len, double radius) {
    double threshold = 0.0, last = -1.0;
    for (;;) {
        double total = 0.0, count = 0.0;
        for (u64 i = threadIdx.x; i < len; i += blockDim.x) {
            double x = fabs((double)values[i]);
            if (x > threshold) {
                total += x;
                count += 1.0;
            }
        }
        total = row_sum(total);
        count = row_sum(count);
        // A number that is not finite leaves none, or the same ones.
        if (count == last || count == 0.0) return threshold;
        threshold = (total - radius) / count;
        last = count;
    }
}

// Brings a group into the ball. Threads read what they wrote themselves.
__device__ __forceinline__ void into_ball(float* delta, u64 len, int norm, int projection, float radius) {
    if (radius == INFINITY_F) return;
    if (norm == INF) {
        for (u64 i = threadIdx.x; i < len; i += blockDim.x) {
            float x = delta[i];
            delta[i] = x > radius ? radius : x < -radius ? -radius : x;
        }
        return;
    }
    double size = norm_of(delta, len, norm);
    if (size <= (double)radius) return;
    if (norm == L1 && projection == EUCLIDEAN) {
        float threshold = (float)l1_threshold(delta, len, (double)radius);
        for (u64 i = threadIdx.x; i < len; i += blockDim.x) {
            float x = delta[i];
            delta[i] = copysignf(fmaxf(fabsf(x) - threshold, 0.0f), x);
        }
        return;
    }
    float factor = (float)((double)radius / size);
    for (u64 i = threadIdx.x; i < len; i += blockDim.x) delta[i] *= factor;
}

// δ + step · g / (‖g‖ + 10⁻¹²).
__device__ __forceinline__ void ascend_gradient(float* delta, const float* gradient, u64 len, int norm, float step) {
    float factor = (float)((double)step / (norm_of(gradient, len, norm) + 1e-12));
    // Where the gradient vanishes the factor may be beyond f32, and 0 · ∞ is no number.
    if (!(fabsf(factor) <= LARGEST_F)) factor = LARGEST_F;
    for (u64 i = threadIdx.x; i < len; i += blockDim.x) delta[i] += factor * gradient[i];
}

// δ + step · the direction of unit length in which the group rises most, for the norms ∞ and 1: signs, or the one number
// with the largest slope (the first of equal ones). Nothing where the gradient is 0.
__device__ __forceinline__ void ascend_steepest(float* delta, const float* gradient, u64 len, int norm, float step) {
    if (norm == INF) {
        for (u64 i = threadIdx.x; i < len; i += blockDim.x) {
            float g = gradient[i];
            if (g != 0.0f) delta[i] += copysignf(step, g);
        }
        return;
    }
    float largest = 0.0f;
    double first = -INFINITY_D;
    for (u64 i = threadIdx.x; i < len; i += blockDim.x) {
        float size = fabsf(gradient[i]);
        if (size > largest) {
            largest = size;
            first = -(double)i;
        }
    }
    float best = row_max(largest);
    // The smallest index is the largest negative one.
    double winner = -row_max(largest == best ? first : -INFINITY_D);
    if (best == 0.0f) return;
    u64 at = (u64)winner;
    if (at % blockDim.x == threadIdx.x) delta[at] += copysignf(step, gradient[at]);
}

// A step of ascent: δ ← Π(δ + step · direction), along the gradient (`direction` 0), or the steepest one (1; for the norm 2
// it is the same). delta, gradient: all numbers of all groups.
extern "C" __global__ void perturbation_ascend(
    float* __restrict__ delta, const float* __restrict__ gradient, const unsigned* __restrict__ segments,
    unsigned groups, unsigned width, int norm, int projection, float radius, int direction, float step
) {
    unsigned index = my_row();
    if (index >= groups) return;
    Group group = group_of(index, segments, width);
    delta += group.start;
    gradient += group.start;
    if (direction == 0 || norm == L2) ascend_gradient(delta, gradient, group.len, norm, step);
    else ascend_steepest(delta, gradient, group.len, norm, step);
    into_ball(delta, group.len, norm, projection, radius);
}

// δ ← Π(δ).
extern "C" __global__ void perturbation_project(
    float* __restrict__ delta, const unsigned* __restrict__ segments, unsigned groups, unsigned width, int norm,
    int projection, float radius
) {
    unsigned index = my_row();
    if (index >= groups) return;
    Group group = group_of(index, segments, width);
    into_ball(delta + group.start, group.len, norm, projection, radius);
}

// The step of MT-DNN's toolkit: v = δ + step · g, then sign(v), v / (‖v‖₂ + ε) or v / (max|v| + ε).
extern "C" __global__ void perturbation_legacy_step(
    float* __restrict__ delta, const float* __restrict__ gradient, const unsigned* __restrict__ segments,
    unsigned groups, unsigned width, int norm, float step, float epsilon
) {
    unsigned index = my_row();
    if (index >= groups) return;
    Group group = group_of(index, segments, width);
    delta += group.start;
    gradient += group.start;
    for (u64 i = threadIdx.x; i < group.len; i += blockDim.x) {
        float v = delta[i] + step * gradient[i];
        if (norm == L1) v = v == 0.0f ? 0.0f : copysignf(1.0f, v);
        delta[i] = v;
    }
    if (norm == L1) return;
    float factor = (float)(1.0 / (norm_of(delta, group.len, norm) + (double)epsilon));
    for (u64 i = threadIdx.x; i < group.len; i += blockDim.x) delta[i] *= factor;
}

// The numbers of group i times factors[i].
extern "C" __global__ void perturbation_scale(
    float* __restrict__ delta, const float* __restrict__ factors, const unsigned* __restrict__ segments,
    unsigned groups, unsigned width
) {
    unsigned index = my_row();
    if (index >= groups) return;
    Group group = group_of(index, segments, width);
    for (u64 i = threadIdx.x; i < group.len; i += blockDim.x) delta[group.start + i] *= factors[index];
}

// norms [groups], in f64: the host takes their mean.
extern "C" __global__ void perturbation_norms(
    double* __restrict__ norms, const float* __restrict__ delta, const unsigned* __restrict__ segments, unsigned groups,
    unsigned width, int norm
) {
    unsigned index = my_row();
    if (index >= groups) return;
    Group group = group_of(index, segments, width);
    double size = norm_of(delta + group.start, group.len, norm);
    if (threadIdx.x == 0) norms[index] = size;
}
