// Channels-last kernels of the fused cell for the CPU; kernels.py compiles this file at first use, with -DREAL=float or
// double, and describes every function. A map is (B, H, W, C) in memory. L is the number of values in a vector.
#include <cstring>
#include <algorithm>
#include "stencils.hpp"

template <int L> static void forward(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, const T* scale, const T* shift,
    i64 n, const i64* width, const i64* dilation, const T* const* weight, T* const* out, int threads) {
  const i64 Ho = (H - 1) / S + 1, Wo = (W - 1) / S + 1;
  i64 pad = 0;
  for (i64 i = 0; i < n; i++) pad = std::max(pad, dilation[i] * (width[i] / 2));
  const i64 Wp = W + 2 * pad, Hp = H + 2 * pad;
  std::vector<Numbers> spread;
  for (i64 i = 0; i < n; i++) spread.push_back(taps<L>(weight[i], C, width[i] * width[i], false));
  #pragma omp parallel num_threads(threads)
  {
    Numbers scratch(Hp * Wp * L + 64, T(0));
    T* u = scratch.data();
    #pragma omp for schedule(static)
    for (i64 b = 0; b < B; b++) for (i64 c = 0; c < C; c += L) {
      fill<L>(u, x + b * H * W * C + c, H, W, C, pad, scale ? scale + c : 0, scale ? shift + c : 0);
      for (i64 i = 0; i < n; i++) {
        const T* kernel = &spread[i][width[i] * width[i] * c];
        T* o = out[i] + b * Ho * Wo * C + c;
        if (S == 1) BY_KERNEL(width[i], dilation[i], (convolve<L, K, D, 1, false>(u, Wp, pad, kernel, o, Ho, Wo, C)))
        else BY_KERNEL(width[i], dilation[i], (convolve<L, K, D, 2, false>(u, Wp, pad, kernel, o, Ho, Wo, C)))
      }
    }
  }
}

template <int L> static void backward(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, const T* scale, const T* shift,
    i64 n, const i64* width, const i64* dilation, const T* const* weight, const T* const* g, T* gx, T* const* gweight, int threads) {
  const i64 Ho = (H - 1) / S + 1, Wo = (W - 1) / S + 1;
  i64 pad = 0, total = 0;
  std::vector<i64> start;
  for (i64 i = 0; i < n; i++) { pad = std::max(pad, dilation[i] * (width[i] / 2)); start.push_back(total); total += width[i] * width[i] * C; }
  const i64 Wp = W + 2 * pad, Hp = H + 2 * pad;
  std::vector<Numbers> spread;
  for (i64 i = 0; i < n; i++) spread.push_back(taps<L>(weight[i], C, width[i] * width[i], true));
  std::vector<double> weight_sums(threads * total, 0.0), sums(threads * 2 * C, 0.0);
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    double *ws = &weight_sums[thread * total], *s1 = &sums[thread * 2 * C], *s2 = s1 + C;
    Numbers su(Hp * Wp * L + 64, T(0)), sg(Hp * Wp * L + 64, T(0)), si(H * W * L);
    for (i64 b = B * thread / threads; b < B * (thread + 1) / threads; b++) for (i64 c = 0; c < C; c += L) {
      const T* xb = x + b * H * W * C + c;
      T* u = su.data();
      fill<L>(u, xb, H, W, C, pad, scale ? scale + c : 0, scale ? shift + c : 0);
      std::memset(si.data(), 0, si.size() * sizeof(T));
      for (i64 i = 0; i < n; i++) {
        const i64 kk = width[i] * width[i];
        const T* gb = g[i] + b * Ho * Wo * C + c;
        if (gweight) {
          double* to = ws + start[i] + c * kk;
          if (S == 1) BY_KERNEL(width[i], dilation[i], (correlate<L, K, D, 1>(u, 0, Wp, pad, gb, {0, Wo * C, C}, 1, Ho, Wo, to)))
          else BY_KERNEL(width[i], dilation[i], (correlate<L, K, D, 2>(u, 0, Wp, pad, gb, {0, Wo * C, C}, 1, Ho, Wo, to)))
        }
        // the transposed convolution: the flipped kernel over g with a border (and S - 1 zeros between its pixels)
        for (i64 h = 0; h < Ho; h++) for (i64 w = 0; w < Wo; w++)
          STORE(&sg[((h * S + pad) * Wp + w * S + pad) * L], LOAD(gb + (h * Wo + w) * C));
        BY_KERNEL(width[i], dilation[i], (convolve<L, K, D, 1, true>(sg.data(), Wp, pad, &spread[i][kk * c], si.data(), H, W, L)))
      }
      const V zero = {}; V a = zero, s = zero, q = zero;
      if (scale) a = LOAD(scale + c);
      T* to = gx + b * H * W * C + c;
      for (i64 h = 0; h < H; h++) for (i64 w = 0; w < W; w++) {
        const V v = LOAD(u + ((h + pad) * Wp + w + pad) * L);
        const V d = v <= zero ? zero : LOAD(&si[(h * W + w) * L]);
        STORE(to + (h * W + w) * C, d);
        s += d; q += d * v;  // where the gradient is not 0, v is the normalised value itself
      }
      if (scale) for (int l = 0; l < L; l++) { s1[c + l] += s[l]; s2[c + l] += q[l]; }
    }
  }
  if (gweight) for (i64 i = 0; i < n; i++) untapped<L>(&weight_sums[start[i]], threads, total, C, width[i] * width[i], gweight[i]);
  if (!scale) return;
  for (int t = 1; t < threads; t++) for (i64 i = 0; i < 2 * C; i++) sums[i] += sums[t * 2 * C + i];
  const i64 P = B * H * W;
  Numbers m1(C), m2(C);
  for (i64 c = 0; c < C; c++) { m1[c] = sums[c] / P; m2[c] = sums[C + c] / P; }
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 p = 0; p < P; p++) for (i64 c = 0; c < C; c += L) {
    const V a = LOAD(scale + c), normal = LOAD(x + p * C + c) * a + LOAD(shift + c);
    STORE(gx + p * C + c, a * (LOAD(gx + p * C + c) - LOAD(&m1[c]) - normal * LOAD(&m2[c])));
  }
}

// ---- y = bias + sum_k x_k M_k + sum_t q_t * coefficient_t ----

// y += x M for NP pixels and NO vectors of output channels; the product is summed up by itself, so that a large y or bias
// costs it no digits
template <int L, int NO, int NP, int II>  // II: I, where it is known
static inline void rows(i64 inputs, i64 O, const T* x, const T* M, T* y) {
  const i64 I = II ? II : inputs;
  V acc[NP][NO];
  UNROLL for (int j = 0; j < NP; j++) UNROLL for (int o = 0; o < NO; o++) acc[j][o] = V{};
  _Pragma("GCC unroll 8") for (i64 i = 0; i < I; i++) {
    V r[NO];
    UNROLL for (int o = 0; o < NO; o++) r[o] = LOAD(M + i * O + o * L);
    UNROLL for (int j = 0; j < NP; j++) { const T s = x[j * I + i]; UNROLL for (int o = 0; o < NO; o++) acc[j][o] += s * r[o]; }
  }
  UNROLL for (int j = 0; j < NP; j++) UNROLL for (int o = 0; o < NO; o++) STORE(y + j * O + o * L, LOAD(y + j * O + o * L) + acc[j][o]);
}

template <int L, int NO, int II>
static void some_rows(i64 count, i64 I, i64 O, const T* x, const T* next, const T* M, T* y) {
  for (i64 o = 0; o < O; o += L * NO) {
    i64 p = 0;
    for (; p + 8 <= count; p += 8) {
      if (!o) fetch(next + p * I, 8 * I);
      rows<L, NO, 8, II>(I, O, x + p * I, M + o, y + p * O + o);
    }
    for (; p < count; p++) rows<L, NO, 1, II>(I, O, x + p * I, M + o, y + p * O + o);
  }
}

template <int L, int NO> static void products(i64 P, i64 I, i64 O, i64 n, const T* const* x, const T* M, bool relu,
    const T* gate, i64 nq, const T* const* q, const T* coefficient, const T* bias, T* y, int threads) {
  const i64 block = 64;  // its y stays in the nearest cache while one map after the other is read
  #pragma omp parallel num_threads(threads)
  {
    Numbers positive(relu ? block * I : 0);
    #pragma omp for schedule(static)
    for (i64 first = 0; first < P; first += block) {
      const i64 count = std::min(P - first, block);
      T* to = y + first * O;
      std::memset(to, 0, count * O * sizeof(T));
      for (i64 t = 0; t < nq; t++) for (i64 p = 0; p < count; p++) for (i64 o = 0; o < O; o += L)
        STORE(to + p * O + o, LOAD(to + p * O + o) + LOAD(q[t] + (first + p) * O + o) * LOAD(coefficient + t * O + o));
      for (i64 k = 0; k < n; k++) {
        const T *from = x[k] + first * I, *Mk = M + k * I * O;
        if (relu) {
          for (i64 i = 0; i < count * I; i++) positive[i] = from[i] < 0 ? T(0) : from[i];
          from = positive.data();
        }
        const T* next = k + 1 < n ? x[k + 1] + first * I : x[0] + (first + block) * I;
        #define ROWS(II) some_rows<L, NO, II>(count, I, O, from, next, Mk, to)
        if (I == 16) ROWS(16); else if (I == 64) ROWS(64); else ROWS(0);
      }
      for (i64 p = 0; p < count; p++) for (i64 o = 0; o < O; o += L)  // last: its terms cancel much of the products
        STORE(to + p * O + o, LOAD(to + p * O + o) + LOAD(bias + o));
      if (gate) for (i64 i = 0; i < count * O; i += L)
        STORE(to + i, LOAD(gate + first * O + i) <= V{} ? V{} : LOAD(to + i));
    }
  }
}

// ---- sums over pixels ----

// out[a, b] = sum over p of (x[p, a] - mx[a]) * (y[p, b] - my[b]), x after its ReLU where `relu`
template <int L, int R, int N> static void cross_sums(i64 P, i64 A, i64 O, const T* x, bool relu, const T* mx,
    const T* y, const T* my, double* out, int threads) {
  const i64 chunk = A <= WIDE ? 256 : 128;
  std::vector<double> parts(threads * A * O, 0.0);
  const Numbers zeros(std::max(A, O), T(0));
  const bool copy = relu || mx;
  if (!mx) mx = zeros.data();
  if (!my) my = zeros.data();
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    double *part = &parts[thread * A * O];
    Numbers centred(copy ? chunk * A : 0);
    const i64 last = P * (thread + 1) / threads;
    for (i64 p0 = P * thread / threads; p0 < last; p0 += chunk) {
      const i64 count = std::min(chunk, last - p0);
      const T* xc = x + p0 * A;
      if (copy) for (i64 p = 0; p < count; p++) for (i64 a = 0; a < A; a += L) {
        V v = LOAD(xc + p * A + a);
        if (relu) v = v < V{} ? V{} : v;
        STORE(&centred[p * A + a], v - LOAD(mx + a));
      }
      for (i64 b = 0; b < O; b += L * N) for (i64 a = 0; a < A; a += R)
        tile<L, R, N>(count, A, O, a || b ? 0 : xc + chunk * A, (copy ? centred.data() : xc) + a, y + p0 * O + b, my + b, part + a * O + b);
    }
  }
  for (int t = 1; t < threads; t++) for (i64 i = 0; i < A * O; i++) parts[i] += parts[t * A * O + i];
  std::copy(parts.begin(), parts.begin() + A * O, out);
}

// mean (C) and sums of products (C, C) of what is centred by it
template <int L> static void covariances(i64 P, i64 C, const T* x, double* mean, double* out, int threads) {
  const i64 chunk = C <= WIDE ? 256 : 128;
  std::vector<double> parts(threads * C * C, 0.0), means(threads * C, 0.0), d(C);
  auto first = [&](i64 t) { return P * t / threads; };
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    Centring<L> room(chunk, C);
    for (i64 p = first(thread); p < first(thread + 1); p += chunk)
      add_covariance<L>(std::min(chunk, first(thread + 1) - p), C, x + p * C, room, &parts[thread * C * C], &means[thread * C], p - first(thread));
  }
  for (int t = 1; t < threads; t++) if (first(t + 1) > first(t)) {
    for (i64 i = 0; i < C * C; i++) parts[i] += parts[t * C * C + i];
    shift_of_means(C, &parts[0], &means[0], first(t), &means[t * C], first(t + 1) - first(t), d.data());
  }
  std::copy(parts.begin(), parts.begin() + C * C, out);
  std::copy(means.begin(), means.begin() + C, mean);
  mirror(C, out);
}

// mean and variance (over P) of every channel in one pass, combined as above
template <int L> static void channel_moments(i64 P, i64 C, const T* x, double* mean, double* var, int threads) {
  const i64 chunk = 256;
  std::vector<double> means(threads * C, 0.0), squares(threads * C, 0.0);
  std::vector<i64> counts(threads, 0);
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    const i64 last = P * (thread + 1) / threads;
    for (i64 p0 = P * thread / threads; p0 < last; p0 += chunk) {
      const i64 count = std::min(chunk, last - p0);
      add_moments<L>(count, C, x + p0 * C, &means[thread * C], &squares[thread * C], counts[thread]);
      counts[thread] += count;
    }
  }
  for (int t = 1; t < threads; t++) if (counts[t]) {
    for (i64 c = 0; c < C; c++) meet(means[c], squares[c], counts[0], means[t * C + c], squares[t * C + c], counts[t]);
    counts[0] += counts[t];
  }
  for (i64 c = 0; c < C; c++) { mean[c] = means[c]; var[c] = squares[c] / P; }
}

// sums[c] = sum of x, or of x * y where y is given
template <int L> static void channel_sums(i64 P, i64 C, const T* x, const T* y, double* out, int threads) {
  const i64 chunk = 256;
  std::vector<double> parts(threads * C, 0.0);
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    const i64 last = P * (thread + 1) / threads;
    for (i64 p0 = P * thread / threads; p0 < last; p0 += chunk) {
      const i64 end = std::min(p0 + chunk, last);
      for (i64 c = 0; c < C; c += L) {
        V s[4] = {V{}, V{}, V{}, V{}};
        for (i64 p = p0; p < end; p++) {
          V v = LOAD(x + p * C + c);
          if (y) v *= LOAD(y + p * C + c);
          s[p & 3] += v;
        }
        const V all = (s[0] + s[1]) + (s[2] + s[3]);
        for (int l = 0; l < L; l++) parts[thread * C + c + l] += all[l];
      }
    }
  }
  for (i64 c = 0; c < C; c++) { out[c] = 0; for (int t = 0; t < threads; t++) out[c] += parts[t * C + c]; }
}

// ---- 3x3 pools, stride S, one border pixel; the average counts only pixels inside ----

template <int L> static void pool(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, T* largest, T* average, int threads) {
  const i64 Ho = (H - 1) / S + 1, Wo = (W - 1) / S + 1;
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 b = 0; b < B; b++) for (i64 h = 0; h < Ho; h++) for (i64 w = 0; w < Wo; w++) {
    const i64 h0 = std::max<i64>(0, h * S - 1), h1 = std::min(H, h * S + 2), w0 = std::max<i64>(0, w * S - 1), w1 = std::min(W, w * S + 2);
    const T inverse = T(1) / T((h1 - h0) * (w1 - w0));
    for (i64 c = 0; c < C; c += L) {
      V sum = {}, top = LOAD(x + ((b * H + h0) * W + w0) * C + c);
      for (i64 i = h0; i < h1; i++) for (i64 j = w0; j < w1; j++) {
        const V v = LOAD(x + ((b * H + i) * W + j) * C + c);
        sum += v; top = (v > top) | (v != v) ? v : top;
      }
      const i64 at = ((b * Ho + h) * Wo + w) * C + c;
      if (average) STORE(average + at, sum * inverse);
      if (largest) STORE(largest + at, top);
    }
  }
}

template <int L> static void pool_backward(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, const T* glargest,
    const T* gaverage, bool add, T* gx, int threads) {
  const i64 Ho = (H - 1) / S + 1, Wo = (W - 1) / S + 1;
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 b = 0; b < B; b++) {
    if (!add) std::memset(gx + b * H * W * C, 0, H * W * C * sizeof(T));
    for (i64 h = 0; h < Ho; h++) for (i64 w = 0; w < Wo; w++) {
      const i64 h0 = std::max<i64>(0, h * S - 1), h1 = std::min(H, h * S + 2), w0 = std::max<i64>(0, w * S - 1), w1 = std::min(W, w * S + 2);
      const T inverse = T(1) / T((h1 - h0) * (w1 - w0));
      for (i64 c = 0; c < C; c += L) {
        const i64 at = ((b * Ho + h) * Wo + w) * C + c;
        const V zero = {};
        V top = zero, left = zero, share = zero;
        if (gaverage) share = LOAD(gaverage + at) * inverse;
        if (glargest) {
          left = LOAD(glargest + at); top = LOAD(x + ((b * H + h0) * W + w0) * C + c);
          for (i64 i = h0; i < h1; i++) for (i64 j = w0; j < w1; j++) {
            const V v = LOAD(x + ((b * H + i) * W + j) * C + c);
            top = (v > top) | (v != v) ? v : top;
          }
        }
        for (i64 i = h0; i < h1; i++) for (i64 j = w0; j < w1; j++) {
          const i64 from = ((b * H + i) * W + j) * C + c;
          V d = share;
          if (glargest) {  // all of it goes to the first of the largest, as in torch
            const auto hit = LOAD(x + from) == top;
            d += hit ? left : zero; left = hit ? zero : left;
          }
          STORE(gx + from, LOAD(gx + from) + d);
        }
      }
    }
  }
}

#define BY_LANES(C, call) if ((C) % WIDE == 0) { const int L = WIDE; call; } else { const int L = SMALL; call; }
extern "C" {
void depthwise_forward(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, const T* scale, const T* shift, i64 n,
    const i64* width, const i64* dilation, const T* const* weight, T* const* out, i64 threads) {
  BY_LANES(C, (forward<L>(B, H, W, C, S, x, scale, shift, n, width, dilation, weight, out, threads)))
}
void depthwise_backward(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, const T* scale, const T* shift, i64 n,
    const i64* width, const i64* dilation, const T* const* weight, const T* const* g, T* gx, T* const* gweight, i64 threads) {
  BY_LANES(C, (backward<L>(B, H, W, C, S, x, scale, shift, n, width, dilation, weight, g, gx, gweight, threads)))
}
void sum_products(i64 P, i64 I, i64 O, i64 n, const T* const* x, const T* M, i64 relu, const T* gate, i64 nq, const T* const* q,
    const T* coefficient, const T* bias, T* y, i64 threads) {
  if (O % (2 * WIDE) == 0) products<WIDE, 2>(P, I, O, n, x, M, relu, gate, nq, q, coefficient, bias, y, threads);
  else BY_LANES(O, (products<L, 1>(P, I, O, n, x, M, relu, gate, nq, q, coefficient, bias, y, threads)))
}
void cross(i64 P, i64 A, i64 O, const T* x, i64 relu, const T* mx, const T* y, const T* my, double* out, i64 threads) {
  // x is read number by number, but what has to be copied (centred, after its ReLU) is copied in whole vectors
  const bool fills = A % WIDE == 0 || !(relu || mx);
  if (A % 8 == 0 && fills && O % (2 * WIDE) == 0) cross_sums<WIDE, 8, 2>(P, A, O, x, relu, mx, y, my, out, threads);
  else if (A % WIDE == 0 && O % WIDE == 0) cross_sums<WIDE, WIDE, 1>(P, A, O, x, relu, mx, y, my, out, threads);
  else cross_sums<SMALL, SMALL, 1>(P, A, O, x, relu, mx, y, my, out, threads);
}
void covariance(i64 P, i64 C, const T* x, double* mean, double* out, i64 threads) {
  BY_LANES(C, (covariances<L>(P, C, x, mean, out, threads)))
}
void sums(i64 P, i64 C, const T* x, const T* y, double* out, i64 threads) {
  BY_LANES(C, (channel_sums<L>(P, C, x, y, out, threads)))
}
void moments(i64 P, i64 C, const T* x, double* mean, double* var, i64 threads) {
  BY_LANES(C, (channel_moments<L>(P, C, x, mean, var, threads)))
}
void pools(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, T* largest, T* average, i64 threads) {
  BY_LANES(C, (pool<L>(B, H, W, C, S, x, largest, average, threads)))
}
void pools_backward(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, const T* glargest, const T* gaverage, i64 add,
    T* gx, i64 threads) {
  BY_LANES(C, (pool_backward<L>(B, H, W, C, S, x, glargest, gaverage, add, gx, threads)))
}
}
