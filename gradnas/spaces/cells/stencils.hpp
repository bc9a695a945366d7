// What the kernels of cells share: one image in a scratch with a border, its depthwise convolutions, and sums over pixels.
// A map is (B, H, W, C) in memory. L is the number of values in a vector.
#pragma once
#include <cstring>
#include <algorithm>
#include "../numbers.hpp"
template <int L> struct Vec { typedef T type __attribute__((vector_size(L * sizeof(T)), aligned(sizeof(T)), may_alias)); };
#define V typename Vec<L>::type
#define LOAD(p) (*(const V*)(p))
#define STORE(p, v) (*(V*)(p) = (v))
#define UNROLL _Pragma("GCC unroll 32")
static const int WIDE = 64 / sizeof(T), SMALL = WIDE / 2;

// Ask for memory that is needed soon: the maps are far larger than the caches, and each is read in pieces.
static inline void fetch(const T* p, i64 count) {
  for (i64 i = 0; i < count; i += 64 / sizeof(T)) __builtin_prefetch(p + i);
}

// ---- one image, L channels of it, in a scratch with a border of `pad` pixels ----

template <int L> static void fill(T* u, const T* x, i64 H, i64 W, i64 C, i64 pad, const T* scale, const T* shift) {
  const i64 Wp = W + 2 * pad;
  const V zero = {}; V a = zero, b = zero;
  if (scale) { a = LOAD(scale); b = LOAD(shift); }
  for (i64 h = 0; h < H; h++) for (i64 w = 0; w < W; w++) {
    V v = LOAD(x + (h * W + w) * C);
    if (scale) v = v * a + b;
    STORE(u + ((h + pad) * Wp + w + pad) * L, v < zero ? zero : v);  // not max: NaN must stay NaN
  }
}

// out[h, w] (+)= sum over taps of u[h * S + ky * D, w * S + kx * D] * k[ky, kx], N neighbouring pixels at once
template <int L, int K, int D, int S, int N, bool ADD>
static inline void pixels(const T* u, i64 Wp, const T* k, T* out, i64 step) {
  V acc[N];
  UNROLL for (int j = 0; j < N; j++) { if (ADD) acc[j] = LOAD(out + j * step); else acc[j] = V{}; }
  for (int ky = 0; ky < K; ky++) UNROLL for (int kx = 0; kx < K; kx++) {
    const V t = LOAD(k + (ky * K + kx) * L);
    const T* p = u + (ky * D * Wp + kx * D) * L;
    UNROLL for (int j = 0; j < N; j++) acc[j] += t * LOAD(p + j * S * L);
  }
  UNROLL for (int j = 0; j < N; j++) STORE(out + j * step, acc[j]);
}

template <int L, int K, int D, int S, bool ADD>
static void convolve(const T* u, i64 Wp, i64 pad, const T* k, T* out, i64 Ho, i64 Wo, i64 step) {
  const T* from = u + (pad - D * (K / 2)) * (Wp + 1) * L;
  for (i64 h = 0; h < Ho; h++) {
    const T* row = from + h * S * Wp * L; T* to = out + h * Wo * step; i64 w = 0;
    for (; w + 8 <= Wo; w += 8) pixels<L, K, D, S, 8, ADD>(row + w * S * L, Wp, k, to + w * step, step);
    for (; w + 4 <= Wo; w += 4) pixels<L, K, D, S, 4, ADD>(row + w * S * L, Wp, k, to + w * step, step);
    for (; w < Wo; w++) pixels<L, K, D, S, 1, ADD>(row + w * S * L, Wp, k, to + w * step, step);
  }
}

// sums[ky, kx] += sum over the pixels of some images of g[h, w] * u[h * S + ky * D, w * S + kx * D], L numbers for each tap
struct Places { i64 image, row, pixel; };  // steps in memory
template <int L, int K, int D, int S>
static void correlate(const T* u, i64 image, i64 Wp, i64 pad, const T* g, Places at, i64 images, i64 Ho, i64 Wo, double* sums) {
  const int N = 2;  // pixels at once: neighbouring taps share what they load
  V acc[K * K];
  UNROLL for (int t = 0; t < K * K; t++) acc[t] = V{};
  for (i64 b = 0; b < images; b++) for (i64 h = 0; h < Ho; h++) {
    const T *from = u + b * image + (pad - D * (K / 2)) * (Wp + 1) * L + h * S * Wp * L, *row = g + b * at.image + h * at.row;
    i64 w = 0;
    for (; w + N <= Wo; w += N) {
      V d[N];
      UNROLL for (int j = 0; j < N; j++) d[j] = LOAD(row + (w + j) * at.pixel);
      const T* p = from + w * S * L;
      UNROLL for (int ky = 0; ky < K; ky++) UNROLL for (int kx = 0; kx < K; kx++) UNROLL for (int j = 0; j < N; j++)
        acc[ky * K + kx] += d[j] * LOAD(p + (ky * D * Wp + kx * D + j * S) * L);
    }
    for (; w < Wo; w++) {
      const V d = LOAD(row + w * at.pixel);
      const T* p = from + w * S * L;
      UNROLL for (int ky = 0; ky < K; ky++) UNROLL for (int kx = 0; kx < K; kx++)
        acc[ky * K + kx] += d * LOAD(p + (ky * D * Wp + kx * D) * L);
    }
  }
  for (int t = 0; t < K * K; t++) for (int l = 0; l < L; l++) sums[t * L + l] += acc[t][l];
}

// (C, taps) as vectors of L channels for each tap, block after block; flipped for the transposed convolution
template <int L> static Numbers taps(const T* weight, i64 C, i64 count, bool flip) {
  Numbers found(C * count);
  for (i64 c = 0; c < C; c++) for (i64 t = 0; t < count; t++)
    found[(c / L) * count * L + (flip ? count - 1 - t : t) * L + c % L] = weight[c * count + t];
  return found;
}

// the sums of `correlate`, added up over threads that are `step` apart, as (C, taps)
template <int L> static void untapped(const double* sums, int threads, i64 step, i64 C, i64 count, T* to) {
  for (i64 c = 0; c < C; c++) for (i64 t = 0; t < count; t++) {
    double sum = 0;
    for (int k = 0; k < threads; k++) sum += sums[k * step + (c / L) * count * L + t * L + c % L];
    to[c * count + t] = sum;
  }
}

// the compiled widths and dilations
#define BY_KERNEL(k, d, call) \
  if ((k) == 3 && (d) == 1) { const int K = 3, D = 1; call; } else if ((k) == 3) { const int K = 3, D = 2; call; } \
  else if ((d) == 1) { const int K = 5, D = 1; call; } else { const int K = 5, D = 2; call; }

// ---- sums over pixels ----

// tile of out[a, b] += sum over p of x[p, a] * (y[p, b] - my[b]): R rows a, N vectors b
template <int L, int R, int N>
static inline void tile(i64 count, i64 A, i64 O, const T* ahead, const T* x, const T* y, const T* my, double* out) {
  V acc[R][N], mean[N];
  UNROLL for (int n = 0; n < N; n++) mean[n] = LOAD(my + n * L);
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++) acc[r][n] = V{};
  for (i64 p = 0; p < count; p++) {
    if (ahead) fetch(ahead + p * A, A);
    V v[N];
    UNROLL for (int n = 0; n < N; n++) v[n] = LOAD(y + p * O + n * L) - mean[n];
    UNROLL for (int r = 0; r < R; r++) { const T s = x[p * A + r]; UNROLL for (int n = 0; n < N; n++) acc[r][n] += s * v[n]; }
  }
  T flat[R * N * L];
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++) STORE(flat + (r * N + n) * L, acc[r][n]);
  for (int r = 0; r < R; r++) for (int l = 0; l < N * L; l++) out[r * O + l] += flat[r * N * L + l];
}

// The means of n and of more pixels meet: what is added to the sum of products of what was centred by each of them. Only
// where b >= a, but for what is left of a vector. d: scratch.
static void shift_of_means(i64 A, double* out, double* mean, i64 n, const double* more, i64 num_more, double* d) {
  const double f = double(n) * num_more / (n + num_more);
  for (i64 a = 0; a < A; a++) d[a] = more[a] - mean[a];
  if (n) for (i64 a = 0; a < A; a++) { const double s = f * d[a]; for (i64 b = a / 8 * 8; b < A; b++) out[a * A + b] += s * d[b]; }
  for (i64 a = 0; a < A; a++) mean[a] += d[a] * num_more / (n + num_more);
}

template <int L> static inline V mean_of(const T* x, i64 count, i64 C) {
  V s[4] = {V{}, V{}, V{}, V{}};
  for (i64 p = 0; p < count; p++) s[p & 3] += LOAD(x + p * C);
  return ((s[0] + s[1]) + (s[2] + s[3])) / T(count);
}

// out[a, b] += sum over count pixels (of one chunk) of what is centred by its own mean, and mean follows: the rule of Chan,
// Golub and LeVeque, so one pass over x is enough and no digits are lost. n: pixels so far. Tiles with b < a alone are left
// out: `mirror` fills them.
template <int L> struct Centring {
  Numbers centred, own, zeros;
  std::vector<double> exact, d;
  Centring(i64 chunk, i64 C) : centred(chunk * C), own(C), zeros(C, T(0)), exact(C), d(C) {}
};
template <int L>
static void add_covariance(i64 count, i64 C, const T* x, Centring<L>& room, double* out, double* mean, i64 n) {
  T *centred = room.centred.data(), *own = room.own.data();
  for (i64 c = 0; c < C; c += L) {
    const V m = mean_of<L>(x + c, count, C);
    STORE(own + c, m);
    for (i64 p = 0; p < count; p++) STORE(centred + p * C + c, LOAD(x + p * C + c) - m);
  }
  for (i64 b = 0; b < C; b += L) for (i64 a = 0; a <= b; a += L)
    tile<L, L, 1>(count, C, C, a || b ? 0 : x + count * C, centred + a, centred + b, room.zeros.data(), out + a * C + b);
  std::copy(own, own + C, room.exact.begin());
  shift_of_means(C, out, mean, n, room.exact.data(), count, room.d.data());
}

static void mirror(i64 C, double* out) {
  for (i64 a = 0; a < C; a++) for (i64 b = 0; b < a; b++) out[a * C + b] = out[b * C + a];
}

// means and sums of squares, as above, of channels alone
static void meet(double& m, double& q, i64 n, double mc, double qc, i64 nc) {
  const double d = mc - m;
  q += qc + d * d * double(n) * nc / (n + nc);
  m += d * nc / (n + nc);
}
template <int L> static void add_moments(i64 count, i64 C, const T* x, double* means, double* squares, i64 n) {
  for (i64 c = 0; c < C; c += L) {
    V q[4] = {V{}, V{}, V{}, V{}};
    const V m = mean_of<L>(x + c, count, C);
    for (i64 p = 0; p < count; p++) { const V d = LOAD(x + p * C + c) - m; q[p & 3] += d * d; }
    const V all = (q[0] + q[1]) + (q[2] + q[3]);
    for (int l = 0; l < L; l++) meet(means[c + l], squares[c + l], n, m[l], all[l], count);
  }
}
