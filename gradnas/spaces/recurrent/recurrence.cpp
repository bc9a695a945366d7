// Kernels of the recurrent cells for the CPU; kernels.py compiles this file at first use, with -DREAL=float or double.
//
// Legend: B batch, H hidden units, n predecessors of a node. All arrays are row-major.
//
// A node with predecessors s_j and pre-activations c_j, x_j (B, H) each, two halves of a row of `pre`:
//     s = sum_j ( p_j0 s_j + sigmoid(c_j) (sum_f p_jf f(x_j) - p_j0 s_j) ),    f: tanh, relu, sigmoid, identity
// then, where asked for, BatchNorm over the batch without affine part. `weights` holds (p_j0, p_j tanh, ...) for each j.
//
// Threads share blocks of columns. A block is summed by one thread in one order, so the number of threads does not
// change a bit of the result.

#pragma GCC optimize("no-trapping-math", "no-math-errno")  // or comparisons would not become vectors

#include <cmath>
#include <cstdint>
#include <vector>

typedef REAL T;
typedef int64_t i64;

static const i64 BLOCK = 64;  // columns
static const int F = 5;       // weights of a predecessor

// exp(x) for |x| <= 700 (double) or 80 (float) by x = k log 2 + r, written so that the compiler makes vectors of it: the
// magic number rounds to a whole k and leaves it in the low bits.
static inline double exp_bounded(double x) {
  const double magic = 6755399441055744.0, shifted = x * 1.4426950408889634 + magic, k = shifted - magic;
  const double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  double p = 1.6059043836821613e-10;
  p = p * r + 2.08767569878681e-09;
  p = p * r + 2.505210838544172e-08;
  p = p * r + 2.755731922398589e-07;
  p = p * r + 2.7557319223985893e-06;
  p = p * r + 2.48015873015873e-05;
  p = p * r + 0.0001984126984126984;
  p = p * r + 0.001388888888888889;
  p = p * r + 0.008333333333333333;
  p = p * r + 0.041666666666666664;
  p = p * r + 0.16666666666666666;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  union { double value; uint64_t bits; } whole = {shifted}, scale;
  scale.bits = (whole.bits + 1023) << 52;
  return p * scale.value;
}

static inline float exp_bounded(float x) {
  const float magic = 12582912.0f, shifted = x * 1.44269504f + magic, k = shifted - magic;
  const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  union { float value; uint32_t bits; } whole = {shifted}, scale;
  scale.bits = (whole.bits + 127u) << 23;
  return p * scale.value;
}

static const T BOUND = sizeof(T) == 4 ? T(40) : T(350);  // exp(2 * BOUND) is finite; NaN passes through

static inline T bounded(T x) {
  x = x > BOUND ? BOUND : x;
  return x < -BOUND ? -BOUND : x;
}

struct Values {
  T gate, tanh, relu, sigmoid;
};

static inline Values values(T c, T x) {
  const T ec = exp_bounded(-bounded(c)), ex = exp_bounded(-bounded(x)), square = ex * ex;
  return {T(1) / (T(1) + ec), (T(1) - square) / (T(1) + square), x < T(0) ? T(0) : x, T(1) / (T(1) + ex)};
}

extern "C" {

// states (n, B, H), pre (n, B, stride) -> out (B, H), masked = out * mask (where there is one), inverse (H) of the
// standard deviation (where normalised)
void node_forward(
    i64 n, i64 B, i64 H, i64 stride, const T* states, const T* pre, const T* weights, const T* mask, int normalise,
    double eps, T* out, T* masked, T* inverse, int threads) {
  const i64 blocks = (H + BLOCK - 1) / BLOCK;
  if (threads > blocks) threads = blocks;
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 block = 0; block < blocks; block++) {
    const i64 first = block * BLOCK, width = H - first < BLOCK ? H - first : BLOCK;
    double mean[BLOCK] = {0}, square[BLOCK] = {0};
    for (i64 b = 0; b < B; b++) {
      T sum[BLOCK] = {0};
      for (i64 j = 0; j < n; j++) {
        const T *s = states + (j * B + b) * H + first, *row = pre + (j * B + b) * stride + first, *p = weights + j * F;
        const T p0 = p[0], p1 = p[1], p2 = p[2], p3 = p[3], p4 = p[4];
        #pragma omp simd
        for (i64 h = 0; h < width; h++) {
          const T x = row[H + h], kept = p0 * s[h];
          const Values v = values(row[h], x);
          sum[h] += kept + v.gate * (p1 * v.tanh + p2 * v.relu + p3 * v.sigmoid + p4 * x - kept);
        }
      }
      T* o = out + b * H + first;
      for (i64 h = 0; h < width; h++) o[h] = sum[h];
      if (normalise) for (i64 h = 0; h < width; h++) mean[h] += sum[h];
    }
    T scale[BLOCK], shift[BLOCK];
    if (normalise) {
      for (i64 h = 0; h < width; h++) mean[h] /= B;
      for (i64 b = 0; b < B; b++) {
        const T* o = out + b * H + first;
        for (i64 h = 0; h < width; h++) {
          const double d = o[h] - mean[h];
          square[h] += d * d;
        }
      }
      for (i64 h = 0; h < width; h++) {
        scale[h] = T(1.0 / std::sqrt(square[h] / B + eps));
        shift[h] = T(mean[h]);
        inverse[first + h] = scale[h];
      }
    }
    for (i64 b = 0; b < B; b++) {
      T* o = out + b * H + first;
      if (normalise) for (i64 h = 0; h < width; h++) o[h] = (o[h] - shift[h]) * scale[h];
      if (mask) {
        const T* m = mask + b * H + first;
        T* k = masked + b * H + first;
        for (i64 h = 0; h < width; h++) k[h] = o[h] * m[h];
      }
    }
  }
}

// The gradient of `out` is grad + mask * grad_masked. Writes that of `pre` (same layout), adds to those of the states
// (n, B, H) and, where asked for, of the weights (n, 5; float64).
void node_backward(
    i64 n, i64 B, i64 H, i64 stride, const T* states, const T* pre, const T* weights, const T* mask, int normalise,
    const T* out, const T* inverse, const T* grad, const T* grad_masked, T* grad_pre, T* grad_states,
    double* grad_weights, int threads) {
  const i64 blocks = (H + BLOCK - 1) / BLOCK;
  if (threads > blocks) threads = blocks;
  std::vector<double> parts(grad_weights ? blocks * n * F : 0, 0.0);
  #pragma omp parallel num_threads(threads)
  {
    std::vector<T> buffer(B * BLOCK);
    #pragma omp for schedule(static)
    for (i64 block = 0; block < blocks; block++) {
      const i64 first = block * BLOCK, width = H - first < BLOCK ? H - first : BLOCK;
      double mean[BLOCK] = {0}, product[BLOCK] = {0};
      for (i64 b = 0; b < B; b++) {
        const i64 at = b * H + first;
        T* d = buffer.data() + b * BLOCK;
        const T *g = grad + at, *k = grad_masked + at, *m = mask ? mask + at : nullptr;
        if (mask) for (i64 h = 0; h < width; h++) d[h] = g[h] + m[h] * k[h];
        else for (i64 h = 0; h < width; h++) d[h] = g[h] + k[h];
        if (normalise) for (i64 h = 0; h < width; h++) {
          mean[h] += d[h];
          product[h] += double(d[h]) * out[at + h];
        }
      }
      if (normalise) {
        T a[BLOCK], c[BLOCK];
        for (i64 h = 0; h < width; h++) a[h] = T(mean[h] / B), c[h] = T(product[h] / B);
        for (i64 b = 0; b < B; b++) {
          T* d = buffer.data() + b * BLOCK;
          const T *o = out + b * H + first, *inv = inverse + first;
          for (i64 h = 0; h < width; h++) d[h] = inv[h] * (d[h] - a[h] - o[h] * c[h]);
        }
      }
      for (i64 j = 0; j < n; j++) {
        const T p0 = weights[j * F], p1 = weights[j * F + 1], p2 = weights[j * F + 2], p3 = weights[j * F + 3],
                p4 = weights[j * F + 4];
        T w0[BLOCK] = {0}, w1[BLOCK] = {0}, w2[BLOCK] = {0}, w3[BLOCK] = {0}, w4[BLOCK] = {0};
        for (i64 b = 0; b < B; b++) {
          const T *d = buffer.data() + b * BLOCK, *s = states + (j * B + b) * H + first;
          const T* row = pre + (j * B + b) * stride + first;
          T *grow = grad_pre + (j * B + b) * stride + first, *gs = grad_states + (j * B + b) * H + first;
          #pragma omp simd
          for (i64 h = 0; h < width; h++) {
            const T x = row[H + h], kept = p0 * s[h], dh = d[h];
            const Values v = values(row[h], x);
            const T mixed = p1 * v.tanh + p2 * v.relu + p3 * v.sigmoid + p4 * x, passed = dh * v.gate, left = dh - passed;
            const T positive = x > T(0) ? T(1) : T(0);
            gs[h] += p0 * left;
            grow[h] = left * v.gate * (mixed - kept);
            grow[H + h] =
                passed * (p1 * (T(1) - v.tanh * v.tanh) + p2 * positive + p3 * v.sigmoid * (T(1) - v.sigmoid) + p4);
            w0[h] += left * s[h];
            w1[h] += passed * v.tanh;
            w2[h] += passed * v.relu;
            w3[h] += passed * v.sigmoid;
            w4[h] += passed * x;
          }
        }
        if (grad_weights) {
          double* part = parts.data() + (block * n + j) * F;
          for (i64 h = 0; h < width; h++) {
            part[0] += w0[h];
            part[1] += w1[h];
            part[2] += w2[h];
            part[3] += w3[h];
            part[4] += w4[h];
          }
        }
      }
    }
  }
  if (grad_weights)
    for (i64 block = 0; block < blocks; block++)
      for (i64 i = 0; i < n * F; i++) grad_weights[i] += parts[block * n * F + i];
}

// Rows of logits (R, V) -> their negative log-likelihoods of the targets (R), and the logits' gradients of
// scale * sum(nll) in their place.
void token_rows(i64 R, i64 V, T* logits, const i64* targets, double scale, T* nll, int threads) {
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 r = 0; r < R; r++) {
    T* row = logits + r * V;
    T most = row[0];
    #pragma omp simd reduction(max : most)
    for (i64 v = 0; v < V; v++) most = row[v] > most ? row[v] : most;
    const T target = row[targets[r]];
    // sums of pieces: a single float32 sum over a large vocabulary would lose digits
    double sum = 0;
    for (i64 first = 0; first < V; first += 512) {
      const i64 last = first + 512 < V ? first + 512 : V;
      T part = 0;
      #pragma omp simd reduction(+ : part)
      for (i64 v = first; v < last; v++) {
        const T x = row[v] - most, e = exp_bounded(x < -2 * BOUND ? -2 * BOUND : x);
        row[v] = e;
        part += e;
      }
      sum += part;
    }
    nll[r] = T(std::log(sum)) + most - target;
    const T factor = T(scale / sum);
    for (i64 v = 0; v < V; v++) row[v] *= factor;
    row[targets[r]] -= T(scale);
  }
}

}  // extern "C"
