// Channels-last kernels of accelerated blocks for the CPU; kernels.py compiles this file at first use, with -DREAL=float
// or double, and describes every function. A map is (B, H, W, C) in memory, with any number of channels.
//
// A stage is: scale and shift (of the BatchNorm before it), activation, depthwise convolution, pointwise convolution; each
// may be missing. A stride without a depthwise convolution is a factorized reduction (`halved`). A few images at a time
// stay in the second-level cache from the first of these to the last.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include "../numbers.hpp"
#if defined(__AVX512F__)
#include <immintrin.h>
#define BYTES 64
#define ROWS 8
#elif defined(__AVX__)
#define BYTES 32
#define ROWS 4
#elif defined(__aarch64__)
#define BYTES 16
#define ROWS 8
#else
#define BYTES 16
#define ROWS 4
#endif
typedef T V __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
#define UNROLL _Pragma("GCC unroll 64")
static const i64 L = BYTES / sizeof(T);
static const i64 BLOCK = 64;  // pixels that stay in the nearest cache
static const i64 PIECE = 256;  // pixels that stay in the second-level cache with all that belongs to them
static const i64 SHORT = 32;  // pixels that are added up before the sum goes into a float64

static inline V load(const T* p) { return *(const V*)p; }
static inline void store(T* p, V v) { *(V*)p = v; }

// The first n of L numbers, or all of them where n is larger; what is beyond must not be touched.
#if defined(__AVX512F__)
struct Part {
  uint32_t mask;
  explicit Part(i64 n) : mask((1u << (n < L ? n : L)) - 1) {}
};
static inline V load(const float* p, Part a) { return (V)_mm512_maskz_loadu_ps((__mmask16)a.mask, p); }
static inline V load(const double* p, Part a) { return (V)_mm512_maskz_loadu_pd((__mmask8)a.mask, p); }
static inline void store(float* p, V v, Part a) { _mm512_mask_storeu_ps(p, (__mmask16)a.mask, (__m512)v); }
static inline void store(double* p, V v, Part a) { _mm512_mask_storeu_pd(p, (__mmask8)a.mask, (__m512d)v); }
#else
struct Part {
  i64 n;
  explicit Part(i64 n) : n(n) {}
};
static inline V load(const T* p, Part a) {
  if (a.n >= L) return load(p);
  V v = {};
  for (i64 l = 0; l < a.n; l++) v[l] = p[l];
  return v;
}
static inline void store(T* p, V v, Part a) {
  if (a.n >= L) return store(p, v);
  for (i64 l = 0; l < a.n; l++) p[l] = v[l];
}
#endif

// Memory that is needed soon, asked for line by line between multiplications: maps are larger than the caches, and a
// processor that asks for many lines at once waits for them. Nothing is read, so that it may be more than there is.
struct Lines {
  static const i64 LINE = 64 / sizeof(T), MOST = 4096;
  const T* at[MOST];
  i64 count = 0;
  // `runs` times n numbers, each `step` from the one before
  void add(const T* p, i64 runs, i64 n, i64 step) {
    if (step < n + 2 * LINE) { n += (runs - 1) * step; runs = 1; }
    const i64 lines = (n + LINE - 1) / LINE;
    for (; runs > 0 && count + lines <= MOST; runs--, p += step, count += lines)
      for (i64 i = 0; i < lines; i++) at[count + i] = p + i * LINE;
  }
};
struct Ahead {  // what is left of them
  const T *const *at, *const *end;
  explicit Ahead(const Lines& lines) : at(lines.at), end(lines.at + lines.count) {}
  inline void ask() { if (at != end) __builtin_prefetch(*at++); }
};

// sums += v, number by number
static inline void add(double* sums, V v) {
  T flat[L];
  store(flat, v);
  for (i64 l = 0; l < L; l++) sums[l] += flat[l];
}

static inline i64 rounded(i64 n) { return (n + L - 1) / L * L; }

// Scratch on the border of a cache line, of zeros where it is new. It is kept from call to call, one for each thread and
// place; a build with sanitizers gets it anew, of the exact size, so that they see where it ends.
struct Kept { void* at = nullptr; size_t size = 0; ~Kept() { std::free(at); } };
struct Scratch {
  T* p;
  explicit Scratch(int place, i64 count) {
    const size_t size = (std::max<i64>(count, 1) * sizeof(T) + 63) / 64 * 64;
#ifdef __SANITIZE_ADDRESS__
    (void)place;
    p = (T*)std::aligned_alloc(64, size);
    if (!p) throw std::bad_alloc();
    std::memset((void*)p, 0, size);
#else
    static thread_local Kept kept[8];
    Kept& k = kept[place];
    if (k.size < size) {
      std::free(k.at);
      k.size = 0;
      k.at = std::aligned_alloc(64, size);
      if (!k.at) throw std::bad_alloc();
      k.size = size;
      std::memset(k.at, 0, size);
    }
    p = (T*)k.at;
#endif
  }
#ifdef __SANITIZE_ADDRESS__
  ~Scratch() { std::free(p); }
#endif
  Scratch(const Scratch&) = delete;
};

// ---- activations: 0 none, 1 ReLU, 2 ReLU6 ----

static inline V activate(V v, i64 act) {  // not max and min: NaN must stay NaN
  const V zero = {}, six = zero + T(6);
  if (act) v = v < zero ? zero : v;
  if (act == 2) v = v > six ? six : v;
  return v;
}
static inline V gate(V v, V grad, i64 act) {  // the derivative at v, times grad
  const V zero = {}, six = zero + T(6);
  if (act) grad = v <= zero ? zero : grad;
  if (act == 2) grad = v >= six ? zero : grad;
  return grad;
}

// Vectors of channels, filled up with zeros to whole vectors.
static Numbers padded(const T* v, i64 C) {
  Numbers out(rounded(C), T(0));
  if (v) std::copy(v, v + C, out.begin());
  return out;
}

// ---- depthwise convolutions of L channels, in a scratch with a border of `pad` pixels ----

// one row of W pixels
static inline void fill(T* row, const T* x, i64 W, i64 C, i64 n, i64 pad, const T* scale, const T* shift, i64 act) {
  const Part part(n);
  const V zero = {};
  for (i64 w = 0; w < pad; w++) { store(row + w * L, zero); store(row + (W + pad + w) * L, zero); }
  row += pad * L;
  if (!scale) { for (i64 w = 0; w < W; w++) store(row + w * L, activate(load(x + w * C, part), act)); return; }
  const V a = load(scale), b = load(shift);
  for (i64 w = 0; w < W; w++) store(row + w * L, activate(load(x + w * C, part) * a + b, act));
}

template <int K, int D, int S, int N> static inline void pixels(const T* u, i64 Wp, const T* k, T* out, i64 step) {
  V acc[N];
  UNROLL for (int j = 0; j < N; j++) acc[j] = V{};
  for (int ky = 0; ky < K; ky++) UNROLL for (int kx = 0; kx < K; kx++) {
    const V t = load(k + (ky * K + kx) * L);
    const T* p = u + (ky * D * Wp + kx * D) * L;
    UNROLL for (int j = 0; j < N; j++) acc[j] += t * load(p + j * S * L);
  }
  UNROLL for (int j = 0; j < N; j++) store(out + j * step, acc[j]);
}

// out[h, w] = sum over taps of u[h * S + ky * D, w * S + kx * D] * k[ky, kx]; out has whole vectors
template <int K, int D, int S> static void convolve(const T* u, i64 Wp, const T* k, T* out, i64 Ho, i64 Wo, i64 step) {
  for (i64 h = 0; h < Ho; h++) {
    const T* row = u + h * S * Wp * L;
    T* to = out + h * Wo * step;
    i64 w = 0;
    for (; w + 8 <= Wo; w += 8) pixels<K, D, S, 8>(row + w * S * L, Wp, k, to + w * step, step);
    for (; w + 4 <= Wo; w += 4) pixels<K, D, S, 4>(row + w * S * L, Wp, k, to + w * step, step);
    for (; w < Wo; w++) pixels<K, D, S, 1>(row + w * S * L, Wp, k, to + w * step, step);
  }
}

// sums[ky, kx] += sum over pixels of g[h, w] * u[h * S + ky * D, w * S + kx * D], for NY rows of taps from u on; pixels of
// g are `step` from each other, and its rows `line`
template <int K, int D, int S, int NY>
static void correlate_rows(const T* u, i64 Wp, const T* g, i64 Ho, i64 Wo, i64 step, i64 line, T* sums) {
  const int N = 2;  // pixels at once: neighbouring taps share what they load
  V acc[NY * K];
  UNROLL for (int t = 0; t < NY * K; t++) acc[t] = load(sums + t * L);
  for (i64 h = 0; h < Ho; h++) {
    const T *row = u + h * S * Wp * L, *grads = g + h * line;
    i64 w = 0;
    for (; w + N <= Wo; w += N) {
      V d[N];
      UNROLL for (int j = 0; j < N; j++) d[j] = load(grads + (w + j) * step);
      const T* p = row + w * S * L;
      UNROLL for (int ky = 0; ky < NY; ky++) UNROLL for (int kx = 0; kx < K; kx++) UNROLL for (int j = 0; j < N; j++)
        acc[ky * K + kx] += d[j] * load(p + (ky * D * Wp + kx * D + j * S) * L);
    }
    for (; w < Wo; w++) {
      const V d = load(grads + w * step);
      const T* p = row + w * S * L;
      UNROLL for (int ky = 0; ky < NY; ky++) UNROLL for (int kx = 0; kx < K; kx++)
        acc[ky * K + kx] += d * load(p + (ky * D * Wp + kx * D) * L);
    }
  }
  UNROLL for (int t = 0; t < NY * K; t++) store(sums + t * L, acc[t]);
}

template <int K, int D, int S>
static void correlate(const T* u, i64 Wp, const T* g, i64 Ho, i64 Wo, i64 step, i64 line, T* sums) {
  const int NY = K <= 5 ? K : 1;  // as many sums as there are registers for
  for (int ky = 0; ky < K; ky += NY)
    correlate_rows<K, D, S, NY>(u + ky * D * Wp * L, Wp, g, Ho, Wo, step, line, sums + ky * K * L);
}

// the compiled widths and dilations
#define BY_DILATION(d, call) if ((d) == 1) { const int D = 1; call; } else { const int D = 2; call; }
#define BY_KERNEL(k, d, call) \
  if ((k) == 3) { const int K = 3; BY_DILATION(d, call) } else if ((k) == 5) { const int K = 5; BY_DILATION(d, call) } \
  else { const int K = 7; BY_DILATION(d, call) }
#define BY_STRIDE(s, k, d, call) \
  if ((s) == 1) { const int S = 1; BY_KERNEL(k, d, call) } else { const int S = 2; BY_KERNEL(k, d, call) }

// ---- products ----

template <int NO, int NP>
static inline void rows(i64 I, const T* x, i64 ldx, const T* M, T* y, i64 ldy, Ahead& given) {
  Ahead ahead = given;  // in registers
  V acc[NP][NO];
  UNROLL for (int j = 0; j < NP; j++) UNROLL for (int o = 0; o < NO; o++) acc[j][o] = V{};
  for (i64 i = 0; i < I; i++) {
    ahead.ask();
    V r[NO];
    UNROLL for (int o = 0; o < NO; o++) r[o] = load(M + (i * NO + o) * L);
    UNROLL for (int j = 0; j < NP; j++) {
      const T s = x[j * ldx + i];
      UNROLL for (int o = 0; o < NO; o++) acc[j][o] += s * r[o];
    }
  }
  UNROLL for (int j = 0; j < NP; j++) UNROLL for (int o = 0; o < NO; o++) store(y + j * ldy + o * L, acc[j][o]);
  given = ahead;
}

template <int NO>
static void columns(i64 P, i64 I, const T* x, i64 ldx, const T* M, T* y, i64 ldy, Ahead& ahead) {
  i64 p = 0;
  for (; p + ROWS <= P; p += ROWS) rows<NO, ROWS>(I, x + p * ldx, ldx, M, y + p * ldy, ldy, ahead);
  for (; p + 2 <= P; p += 2) rows<NO, 2>(I, x + p * ldx, ldx, M, y + p * ldy, ldy, ahead);
  for (; p < P; p++) rows<NO, 1>(I, x + p * ldx, ldx, M, y + p * ldy, ldy, ahead);
}

// How many of `left` vectors are taken at once: three, but not three and one.
static inline i64 at_once(i64 left) { return left >= 5 || left == 3 ? 3 : left >= 2 ? 2 : 1; }

// A matrix (I, O) as `product` reads it: the columns that it takes at once lie together, row by row, filled up with zeros
// to whole vectors. Number (i, o) is weight[i * step_i + o * step_o].
static void pack(i64 I, i64 O, const T* weight, i64 step_i, i64 step_o, Numbers& M) {
  const i64 ld = rounded(O);
  M.assign(I * ld, T(0));
  for (i64 o = 0; o < ld;) {
    const i64 n = at_once((ld - o) / L) * L;
    for (i64 i = 0; i < I; i++) for (i64 l = 0; l < n && o + l < O; l++)
      M[I * o + i * n + l] = weight[i * step_i + (o + l) * step_o];
    o += n;
  }
}

// y (P, ld) = x (P, I) M (I, ld); ld is a number of whole vectors
static void product(i64 P, i64 I, const T* x, i64 ldx, const T* M, i64 ld, T* y, i64 ldy, Ahead& ahead) {
  for (i64 o = 0; o < ld;) {
    const i64 n = at_once((ld - o) / L);
    if (n == 3) columns<3>(P, I, x, ldx, M + I * o, y + o, ldy, ahead);
    else if (n == 2) columns<2>(P, I, x, ldx, M + I * o, y + o, ldy, ahead);
    else columns<1>(P, I, x, ldx, M + I * o, y + o, ldy, ahead);
    o += n * L;
  }
}

template <int R, int N> static void tile(i64 P, const T* x, i64 ldx, const T* y, i64 ldy, T* out, Ahead& given) {
  Ahead ahead = given;
  V acc[R][N];
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++) acc[r][n] = load(out + r * ldy + n * L);
  for (i64 p = 0; p < P; p++) {
    ahead.ask();
    V v[N];
    UNROLL for (int n = 0; n < N; n++) v[n] = load(y + p * ldy + n * L);
    UNROLL for (int r = 0; r < R; r++) {
      const T s = x[p * ldx + r];
      UNROLL for (int n = 0; n < N; n++) acc[r][n] += s * v[n];
    }
  }
  given = ahead;
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < N; n++) store(out + r * ldy + n * L, acc[r][n]);
}

template <int N>
static void tiles(i64 P, i64 I, const T* x, i64 ldx, const T* y, i64 ldy, T* out, Ahead& ahead) {
  i64 i = 0;
  for (; i + ROWS <= I; i += ROWS) tile<ROWS, N>(P, x + i, ldx, y, ldy, out + i * ldy, ahead);
  for (; i + 4 <= I; i += 4) tile<4, N>(P, x + i, ldx, y, ldy, out + i * ldy, ahead);
  for (; i < I; i++) tile<1, N>(P, x + i, ldx, y, ldy, out + i * ldy, ahead);
}

// out (I, ldy) += x (P, I)^T y (P, ldy)
static void cross(i64 P, i64 I, const T* x, i64 ldx, const T* y, i64 ldy, T* out, Ahead& ahead) {
  for (i64 o = 0; o < ldy;) {
    const i64 n = at_once((ldy - o) / L);
    if (n == 3) tiles<3>(P, I, x, ldx, y + o, ldy, out + o, ahead);
    else if (n == 2) tiles<2>(P, I, x, ldx, y + o, ldy, out + o, ahead);
    else tiles<1>(P, I, x, ldx, y + o, ldy, out + o, ahead);
    o += n * L;
  }
}

// Sums of a few hundred pixels go into those of all, in float64, and begin anew.
static void collect(i64 n, T* some, double* all) {
  for (i64 i = 0; i < n; i++) { all[i] += some[i]; some[i] = 0; }
}

// ---- means and squares, combined by the rule of Chan, Golub and LeVeque ----

struct Moments {
  std::vector<double> mean, squares;
  double count = 0;
  explicit Moments(i64 C) : mean(C, 0.0), squares(C, 0.0) {}
  void add(double n, const double* m, const double* q, i64 from, i64 to) {  // the count is raised by the caller
    const double share = n / (count + n), factor = count * share;
    for (i64 c = from; c < to; c++) {
      const double d = m[c - from] - mean[c];
      squares[c] += q[c - from] + d * d * factor;
      mean[c] += d * share;
    }
  }
};

// z (P, C) of the map = the scratch (P, ld), and its moments
static void keep(i64 P, i64 C, const T* from, i64 ld, T* z, Moments& moments) {
  for (i64 c = 0; c < C; c += L) {
    const i64 n = std::min(L, C - c);
    const Part part(n);
    V s[2] = {V{}, V{}}, q[2] = {V{}, V{}};
    for (i64 p = 0; p < P; p++) { const V v = load(from + p * ld + c); s[p & 1] += v; store(z + p * C + c, v, part); }
    const V mean = (s[0] + s[1]) / T(P);
    for (i64 p = 0; p < P; p++) { const V d = load(from + p * ld + c) - mean; q[p & 1] += d * d; }
    const V all = q[0] + q[1];
    double m[L], squares[L];
    for (i64 l = 0; l < L; l++) { m[l] = mean[l]; squares[l] = all[l]; }
    moments.add(double(P), m, squares, c, c + n);
  }
  moments.count += double(P);
}

// ---- a stage ----

struct Size {
  i64 B, H, W, I, O, S, K, D, pad, Wp, Ho, Wo, ldi, ldo, vectors;
  i64 images, rows;  // that are taken at once: several images, or of one so many rows of what comes out
  i64 halved = 0;  // the width of a map whose even and odd pixels are read side by side
  // of a full convolution of few channels: its input, whose patches of pixels are read as one pixel
  struct { i64 H, W, C, S, K; } patch = {0, 0, 0, 0, 0};
  Size(i64 B, i64 H, i64 W, i64 I, i64 O, i64 S, i64 K, i64 D) : B(B), H(H), W(W), I(I), O(O), S(S), K(K), D(D) {
    pad = K ? D * (K / 2) : 0;
    Wp = W + 2 * pad; Ho = (H - 1) / S + 1; Wo = (W - 1) / S + 1;
    ldi = rounded(I); ldo = rounded(O); vectors = ldi / L;
    // of small maps several at a time, so that sums run over enough pixels
    images = std::max<i64>(1, std::min(PIECE / (Ho * Wo), 1300 / ((H + 2 * pad) * Wp)));
    rows = images > 1 ? Ho : std::min(Ho, std::max<i64>(1, PIECE / Wo));
  }
  i64 pixels() const { return images * rows * Wo; }
  i64 plane() const { return (S * rows + 3 * pad) * Wp * L; }  // of L channels of an image with their border
  i64 border() const { return 2 * pad * Wp * L; }  // what two pieces of an image share
};

// Rows q0 to q1 of what comes out, of `count` images from b on; of several images all rows.
struct Piece {
  i64 b, count, q0, q1;
  i64 rows() const { return q1 - q0; }
};

// the pieces of images `first` to `last`, one after the other
template <typename F> static void by_piece(const Size& z, i64 first, i64 last, F work) {
  for (i64 b = first; b < last; b += z.images)
    for (i64 q = 0; q < z.Ho; q += z.rows) work(Piece{b, std::min(z.images, last - b), q, std::min(z.Ho, q + z.rows)});
}

// weights (I, K, K) of whole vectors of channels, as they are and turned by half a turn
static void taps(const Size& z, const T* weight, Numbers& straight, Numbers& turned) {
  const i64 kk = z.K * z.K;
  straight.assign(z.ldi * kk, T(0));
  turned.assign(z.ldi * kk, T(0));
  for (i64 c = 0; c < z.I; c++) for (i64 t = 0; t < kk; t++) {
    const i64 at = (c / L) * kk * L + c % L;
    straight[at + t * L] = weight[c * kk + t];
    turned[at + (kk - 1 - t) * L] = weight[c * kk + t];
  }
}

// d (P, ldi) = what enters the pointwise convolution, of a piece; u keeps what entered the depthwise one, and from the piece
// before what both need. Row j of u is row S q0 - pad + j of the image.
static void enter(const Size& z, const Piece& a, const T* x, const T* scale, const T* shift, i64 act,
    const T* straight, T* u, T* d) {
  const i64 kk = z.K * z.K, line = z.Wp * L, end = z.S * a.rows() + 2 * z.pad;
  for (i64 k = 0; k < a.count; k++) {
    T* uk = u + k * z.vectors * z.plane();
    if (a.q0) for (i64 v = 0; v < z.vectors; v++)
      std::memmove(uk + v * z.plane(), uk + v * z.plane() + z.S * z.rows * line, z.border() * sizeof(T));
    for (i64 j = a.q0 ? 2 * z.pad : 0; j < end; j++) {
      const i64 h = z.S * a.q0 - z.pad + j;
      const T* from = x + ((a.b + k) * z.H + h) * z.W * z.I;
      for (i64 v = 0; v < z.vectors; v++) {
        T* row = uk + v * z.plane() + j * line;
        const i64 c = v * L;
        if (h < 0 || h >= z.H) std::memset(row, 0, line * sizeof(T));
        else fill(row, from + c, z.W, z.I, z.I - c, z.pad, scale ? scale + c : 0, scale ? shift + c : 0, act);
      }
    }
    T* dk = d + k * z.Ho * z.Wo * z.ldi;
    if (d) for (i64 v = 0; v < z.vectors; v++) {
      BY_STRIDE(z.S, z.K, z.D, (convolve<K, D, S>(uk + v * z.plane(), z.Wp, straight + v * kk * L, dk + v * L, a.rows(), z.Wo, z.ldi)))
    }
  }
}

// what enters without a depthwise convolution, of `count` pixels
static void enter_pixels(i64 count, i64 C, i64 ld, const T* x, const T* scale, const T* shift, i64 act, T* d) {
  for (i64 p = 0; p < count; p++) for (i64 c = 0; c < C; c += L) {
    V v = load(x + p * C + c, Part(C - c));
    if (scale) v = v * load(scale + c) + load(shift + c);
    store(d + p * ld + c, activate(v, act));
  }
}

// ---- even and odd pixels side by side: (B, H, W, C) is read as (B, H / 2, W / 2, 2 C) ----

// `first` counts the small pixels
static void enter_halves(const Size& z, i64 first, i64 count, const T* x, i64 act, T* d) {
  const i64 C = z.I / 2, Wo = z.halved / 2;  // H is even: rows of all images follow each other
  for (i64 p = 0; p < count; p++) {
    const i64 row = (first + p) / Wo, column = (first + p) % Wo;
    const T *even = x + (2 * row * z.halved + 2 * column) * C, *odd = even + (z.halved + 1) * C;
    T* to = d + p * z.ldi;
    for (i64 c = 0; c < C; c += L) store(to + c, activate(load(even + c, Part(C - c)), act), Part(C - c));
    for (i64 c = 0; c < C; c += L) store(to + C + c, activate(load(odd + c, Part(C - c)), act), Part(C - c));
  }
}

// ---- patches of K x K pixels of all channels, side by side ----

static void enter_patches(const Size& z, i64 first, i64 count, const T* x, T* d) {
  const auto& from = z.patch;
  const i64 Ho = (from.H - 1) / from.S + 1, Wo = (from.W - 1) / from.S + 1, run = from.K * from.C;
  for (i64 p = 0; p < count; p++) {
    const i64 at = first + p, row = at / Wo, b = row / Ho;
    const i64 top = row % Ho * from.S - from.K / 2, left = at % Wo * from.S - from.K / 2;
    const i64 begin = std::max<i64>(0, -left), end = std::min(from.K, from.W - left);
    T* to = d + p * z.ldi;
    for (i64 k = 0; k < from.K; k++, to += run) {
      const i64 h = top + k;
      if (h < 0 || h >= from.H) { std::fill(to, to + run, T(0)); continue; }
      const T* line = x + ((b * from.H + h) * from.W + left) * from.C;
      for (i64 i = 0; i < begin * from.C; i++) to[i] = 0;
      for (i64 i = begin * from.C; i < end * from.C; i++) to[i] = line[i];
      for (i64 i = end * from.C; i < run; i++) to[i] = 0;
    }
  }
}

static void leave_halves(const Size& z, i64 first, i64 count, const T* x, i64 act, const T* gd, T* gx) {
  const i64 C = z.I / 2, Wo = z.halved / 2;
  for (i64 p = 0; p < count; p++) {
    const i64 row = (first + p) / Wo, column = (first + p) % Wo, even = (2 * row * z.halved + 2 * column) * C;
    const i64 odd = even + (z.halved + 1) * C;
    const T* from = gd + p * z.ldi;
    std::memset(gx + even + C, 0, C * sizeof(T));  // the two pixels that neither half sees
    std::memset(gx + odd - C, 0, C * sizeof(T));
    for (i64 c = 0; c < C; c += L) {
      const Part n(C - c);
      store(gx + even + c, gate(load(x + even + c, n), load(from + c, n), act), n);
      store(gx + odd + c, gate(load(x + odd + c, n), load(from + C + c, n), act), n);
    }
  }
}

static void forward(const Size& z, const T* x, const T* norm_x, i64 act, const T* depthwise, const T* pointwise,
    const T* gamma, const T* beta, double eps, T* out, T* norm, T* kept, int threads) {
  const T *scale_ = norm_x, *shift_ = norm_x ? norm_x + z.I : 0;
  Numbers straight, turned, M;
  const Numbers scale = padded(scale_, z.I), shift = padded(shift_, z.I);
  const T *a = scale_ ? scale.data() : 0, *s = shift.data();
  if (z.K) taps(z, depthwise, straight, turned);
  if (pointwise) pack(z.I, z.O, pointwise, 1, z.I, M);
  std::vector<Moments> moments(threads, Moments(z.O));
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    const i64 last = z.B * (thread + 1) / threads;
    Scratch u(0, z.K ? z.images * z.vectors * z.plane() : 0), d(1, (z.K ? z.pixels() : BLOCK) * z.ldi), y(2, BLOCK * z.ldo);
    by_piece(z, z.B * thread / threads, last, [&](const Piece& piece) {
      const i64 P = piece.count * piece.rows() * z.Wo, at = (piece.b * z.Ho + piece.q0) * z.Wo;
      if (z.K) enter(z, piece, x, a, s, act, straight.data(), u.p, d.p);
      for (i64 p = 0; p < P; p += BLOCK) {
        const i64 n = std::min(BLOCK, P - p);
        const T* from = z.K ? d.p + p * z.ldi : d.p;
        if (z.halved) enter_halves(z, at + p, n, x, act, d.p);
        else if (z.patch.K) enter_patches(z, at + p, n, x, d.p);
        else if (!z.K) enter_pixels(n, z.I, z.ldi, x + (at + p) * z.I, a, s, act, d.p);
        if (pointwise) {
          Lines lines;  // where the outcome goes, and what comes next
          const i64 area = z.S * z.S, next = at + p + (z.K ? P : n);
          lines.add(out + (at + p) * z.O, 1, n * z.O, 0);
          if (!z.halved && !z.patch.K) lines.add(x + next * area * z.I, 1, n * area * z.I, 0);
          Ahead ahead(lines);
          product(n, z.I, from, z.ldi, M.data(), z.ldo, y.p, z.ldo, ahead);
          from = y.p;
        }
        keep(n, z.O, from, z.ldo, out + (at + p) * z.O, moments[thread]);
      }
    });
  }
  for (int t = 1; t < threads; t++) if (moments[t].count > 0) {
    moments[0].add(moments[t].count, moments[t].mean.data(), moments[t].squares.data(), 0, z.O);
    moments[0].count += moments[t].count;
  }
  const double count = moments[0].count;
  for (i64 o = 0; o < z.O; o++) {
    const double mean = moments[0].mean[o], inverse = 1 / std::sqrt(moments[0].squares[o] / count + eps);
    const T rounded_scale = T(gamma ? inverse * gamma[o] : inverse);
    norm[o] = rounded_scale;
    // From the rounded scale: what is computed is scale z + shift, whose mean should be beta.
    norm[z.O + o] = T((beta ? double(beta[o]) : 0.0) - mean * rounded_scale);
    norm[2 * z.O + o] = T(mean);
    norm[3 * z.O + o] = T(inverse);
    kept[o] = T(mean);
    kept[z.O + o] = T(moments[0].squares[o] / (count - 1));
  }
}

// What the gradient of a BatchNorm's input is made of, for each channel: y = scale z + shift, (z - mean) inverse is
// normalised; m1 and m2 are the means of the gradient and of its product with the normalised value.
struct Norm { Numbers scale, shift, mean, inverse, m1, m2; };

// n holds (scale, shift, mean, inverse), each (C,); sums those of which m1 and m2 are the means over `pixels`
static Norm norm_of(i64 C, const T* n, const double* sums = 0, double pixels = 1) {
  Norm found{padded(n, C), padded(n + C, C), padded(n + 2 * C, C), padded(n + 3 * C, C), padded(0, C), padded(0, C)};
  if (sums) for (i64 c = 0; c < C; c++) { found.m1[c] = T(sums[c] / pixels); found.m2[c] = T(sums[C + c] / pixels); }
  return found;
}

// Pixels first to first + n of a piece, from pixels of ld numbers into their places between borders (and S - 1 zeros).
static void spread(const Size& z, i64 first, i64 n, const T* g, i64 ld, i64 rows, T* t) {
  i64 w = first % z.Wo, row = first / z.Wo, h = row % rows, k = row / rows;
  for (i64 p = 0; p < n; p++) {
    T* to = t + k * z.vectors * z.plane() + ((2 * z.pad + h * z.S) * z.Wp + z.pad + w * z.S) * L;
    for (i64 v = 0; v < z.vectors; v++) store(to + v * z.plane(), load(g + p * ld + v * L));
    if (++w < z.Wo) continue;
    w = 0;
    if (++h == rows) { h = 0; k++; }
  }
}

// Where a piece of pixels ends that begins at `first`: at `last`, or before it with its image where images have factors.
static inline i64 at_most(i64 first, i64 last, const T* factor, i64 per_image) {
  return factor ? std::min(last, (first / per_image + 1) * per_image) : last;
}

// g (P, ld) = the gradient before a BatchNorm, of P pixels from `at` on
static void cross_norm(i64 P, i64 C, i64 ld, i64 at, const T* z, const Norm& norm, i64 act, const T* factor, i64 per_image,
    const T* grad, i64 ldg, T* g) {
  for (i64 first = 0, last; first < P; first = last) {
    last = at_most(at + first, std::min(at + P, at + first + BLOCK), factor, per_image) - at;
    const T share = factor ? factor[(at + first) / per_image] : T(1);
    for (i64 c = 0; c < C; c += L) {
      const Part part(C - c);
      const V scale = load(&norm.scale[c]), shift = load(&norm.shift[c]), mean = load(&norm.mean[c]);
      const V inverse = load(&norm.inverse[c]), m1 = load(&norm.m1[c]), m2 = load(&norm.m2[c]);
      for (i64 p = first; p < last; p++) {
        const V v = load(z + (at + p) * C + c, part);
        V e = load(grad + (at + p) * ldg + c, part);
        if (act) e = gate(v * scale + shift, e, act);
        e *= share;
        store(g + p * ld + c, scale * ((e - m1) - (v - mean) * inverse * m2));
      }
    }
  }
}

// What other operations give to the gradient of the same map: `base`, whose pixels are ld from each other, and, with
// `more`, what the gradient holds.
struct Others { const T* base; i64 ld; bool more; };

// gx = the gradient `inside` after the activation's derivative, of pixels as they come, and others
static void leave_pixels(i64 P, i64 C, const T* x, i64 act, const T* inside, i64 step, const Others& others, i64 at, T* gx) {
  const T* base = others.base ? others.base + at * others.ld : 0;
  const bool more = others.more;
  for (i64 p = 0; p < P; p++) for (i64 c = 0; c < C; c += L) {
    const Part part(C - c);
    V e = gate(load(x + p * C + c, part), load(inside + p * step + c), act);
    if (base) e += load(base + p * others.ld + c, part);
    if (more) e += load(gx + p * C + c, part);
    store(gx + p * C + c, e, part);
  }
}

// gx = the gradient `inside` after the activation's derivative, of L channels, or the first n of them, and others; its
// sums, without what gx held
static void leave(i64 P, i64 C, i64 n, i64 c, const T* x, const Norm* norm, i64 act, const T* inside, i64 step,
    const Others& others, i64 at, T* gx, double* s1, double* s2) {
  const Part part(n);
  const T* base = others.base ? others.base + at * others.ld + c : 0;
  if (!norm) {
    for (i64 p = 0; p < P; p++) {
      V e = gate(load(x + p * C, part), load(inside + p * step), act);
      if (base) e += load(base + p * others.ld, part);
      if (others.more) e += load(gx + p * C, part);
      store(gx + p * C, e, part);
    }
    return;
  }
  const V scale = load(&norm->scale[c]), shift = load(&norm->shift[c]), mean = load(&norm->mean[c]), inverse = load(&norm->inverse[c]);
  for (i64 first = 0; first < P; first += SHORT) {
    const i64 last = std::min(P, first + SHORT);
    V sum = {}, sum_normal = {};
    for (i64 p = first; p < last; p++) {
      const V value = load(x + p * C, part);
      V e = gate(value * scale + shift, load(inside + p * step), act);
      if (base) e += load(base + p * others.ld, part);
      sum += e;
      sum_normal += e * ((value - mean) * inverse);
      if (others.more) e += load(gx + p * C, part);
      store(gx + p * C, e, part);
    }
    add(s1 + c, sum);
    add(s2 + c, sum_normal);
  }
}

// ---- the transposed depthwise convolution of a piece: the turned kernel over t, the gradient of what left the convolution,
// with a border (and S - 1 zeros between its pixels); row j of t is row S q0 - 2 pad + j of the image ----

// Rows that are convolved at once: sums run over SHORT pixels.
static i64 together(const Size& z) { return std::max<i64>(1, SHORT / z.W); }

// What the piece before has left for this one, and zeros below the image.
static void begin(const Size& z, const Piece& a, T* t) {
  const i64 line = z.Wp * L, end = 2 * z.pad + z.S * a.rows();
  for (i64 plane = 0; plane < a.count * z.vectors; plane++) {
    T* p = t + plane * z.plane();
    if (a.q0) std::memmove(p, p + z.S * z.rows * line, z.border() * sizeof(T));
    else std::memset(p, 0, z.border() * sizeof(T));
    if (a.q1 == z.Ho) std::memset(p + end * line, 0, z.pad * line * sizeof(T));
  }
}

// The rows of gx that no later piece adds to.
static void leave_piece(const Size& z, const Piece& a, const T* t, const T* turned, T* back, const T* x, const Norm* norm, i64 act,
    const Others& others, T* gx, double* s1, double* s2) {
  const i64 kk = z.K * z.K, end = a.q1 == z.Ho ? z.H : z.S * a.q1 - z.pad, most = together(z);
  for (i64 k = 0; k < a.count; k++) for (i64 r = std::max<i64>(0, a.q0 ? z.S * a.q0 - z.pad : 0); r < end; r += most) {
    const i64 rows = std::min(most, end - r), at = ((a.b + k) * z.H + r) * z.W;
    for (i64 v = 0; v < z.vectors; v++) {
      const T* from = t + (k * z.vectors + v) * z.plane() + (r - z.S * a.q0 + z.pad) * z.Wp * L;
      const i64 c = v * L, first = at * z.I + c;
      BY_KERNEL(z.K, z.D, (convolve<K, D, 1>(from, z.Wp, turned + v * kk * L, back, rows, z.W, L)))
      leave(rows * z.W, z.I, z.I - c, c, x + first, norm, act, back, L, others, at, gx + first, s1, s2);
    }
  }
}

static void backward(const Size& z, const T* x, const T* norm_x, i64 act, const T* depthwise, const T* pointwise,
    const T* out, const T* norm_z, const double* sums_z, i64 act_z, const T* factor, i64 per_image, const T* grad, i64 ldg,
    const Others& others, T* gx, T* gdepthwise, T* gpointwise, double* sums_x, int threads) {
  const i64 kk = z.K * z.K, per = z.Ho * z.Wo;
  Numbers straight, turned, M;
  const Norm nz = norm_of(z.O, norm_z, sums_z, double(z.B * per));
  Norm nx;
  if (norm_x) nx = norm_of(z.I, norm_x);
  const T *a = norm_x ? nx.scale.data() : 0, *s = norm_x ? nx.shift.data() : 0;
  if (z.K) taps(z, depthwise, straight, turned);
  const bool inner = gx || gdepthwise;  // whether the gradient of what enters the pointwise convolution is needed
  if (pointwise && inner) pack(z.O, z.I, pointwise, z.I, 1, M);
  const i64 num_taps = gdepthwise ? z.ldi * kk : 0, num_products = gpointwise ? z.I * z.ldo : 0, num_sums = sums_x ? 2 * z.ldi : 0;
  std::vector<double> tap_sums(threads * num_taps, 0.0), products(threads * num_products, 0.0), sums(threads * num_sums, 0.0);
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    double *ts = tap_sums.data() + thread * num_taps, *ps = products.data() + thread * num_products;
    double *s1 = sums.data() + thread * num_sums, *s2 = s1 + z.ldi;
    const i64 block = std::min(BLOCK, z.pixels()), bordered = z.K ? z.images * z.vectors * z.plane() : 0;
    const bool recompute = pointwise && gpointwise;
    Scratch u(0, bordered), d(1, (z.K ? z.pixels() : block) * z.ldi), g(2, block * z.ldo), t(3, bordered), y(4, block * z.ldi);
    Scratch back(5, z.K ? together(z) * z.W * L : 0), some_taps(6, num_taps), some_products(7, num_products);
    std::memset((void*)t.p, 0, bordered * sizeof(T));
    std::memset((void*)some_taps.p, 0, num_taps * sizeof(T));
    std::memset((void*)some_products.p, 0, num_products * sizeof(T));
    by_piece(z, z.B * thread / threads, z.B * (thread + 1) / threads, [&](const Piece& piece) {
      const i64 P = piece.count * piece.rows() * z.Wo, at = (piece.b * z.Ho + piece.q0) * z.Wo, area = z.S * z.S;
      if (z.K && (recompute || inner)) enter(z, piece, x, a, s, act, straight.data(), u.p, recompute ? d.p : 0);
      if (inner && z.K) begin(z, piece, t.p);
      for (i64 p = 0; p < P; p += BLOCK) {
        const i64 n = std::min(BLOCK, P - p), here = at + p, next = here + n, after = z.K ? here + P : next;
        Lines lines;
        if (gx && !z.halved) lines.add(gx + here * area * z.I, 1, n * area * z.I, 0);
        if (gx && others.base) lines.add(others.base + here * area * others.ld, n * area, z.I, others.ld);
        lines.add(out + next * z.O, 1, n * z.O, 0);
        lines.add(grad + next * ldg, n, z.O, ldg);
        if (!z.halved && !z.patch.K) lines.add(x + after * area * z.I, 1, n * area * z.I, 0);
        Ahead ahead(lines);
        cross_norm(n, z.O, z.ldo, here, out, nz, act_z, factor, per_image, grad, ldg, g.p);  // the gradient before the BatchNorm
        if (recompute) {
          if (z.halved) enter_halves(z, here, n, x, act, d.p);
          else if (z.patch.K) enter_patches(z, here, n, x, d.p);
          else if (!z.K) enter_pixels(n, z.I, z.ldi, x + here * z.I, a, s, act, d.p);
          cross(n, z.I, z.K ? d.p + p * z.ldi : d.p, z.ldi, g.p, z.ldo, some_products.p, ahead);
        }
        if (!inner) continue;
        const T* gd = g.p;
        if (pointwise) { product(n, z.O, g.p, z.ldo, M.data(), z.ldi, y.p, z.ldi, ahead); gd = y.p; }
        if (z.K) spread(z, p, n, gd, z.ldi, piece.rows(), t.p);
        else if (z.halved) leave_halves(z, here, n, x, act, gd, gx);
        else if (gx && !norm_x) leave_pixels(n, z.I, x + here * z.I, act, gd, z.ldi, others, here, gx + here * z.I);
        else if (gx) for (i64 c = 0; c < z.I; c += L)
          leave(n, z.I, z.I - c, c, x + here * z.I + c, &nx, act, gd + c, z.ldi, others, here, gx + here * z.I + c, s1, s2);
      }
      if (num_products) collect(num_products, some_products.p, ps);
      if (!z.K || !inner) return;
      if (gdepthwise) {
        const i64 top = (2 * z.pad * z.Wp + z.pad) * L;
        for (i64 k = 0; k < piece.count; k++) for (i64 v = 0; v < z.vectors; v++) {
          const i64 place = (k * z.vectors + v) * z.plane();
          BY_STRIDE(z.S, z.K, z.D, (correlate<K, D, S>(u.p + place, z.Wp, t.p + place + top, piece.rows(), z.Wo, S * L, S * z.Wp * L, some_taps.p + v * kk * L)))
        }
        if (piece.q1 == z.Ho) collect(num_taps, some_taps.p, ts);
      }
      if (gx) leave_piece(z, piece, t.p, turned.data(), back.p, x, norm_x ? &nx : 0, act, others, gx, s1, s2);
    });
  }
  for (int t = 1; t < threads; t++) {
    for (i64 i = 0; i < num_taps; i++) tap_sums[i] += tap_sums[t * num_taps + i];
    for (i64 i = 0; i < num_products; i++) products[i] += products[t * num_products + i];
    for (i64 i = 0; i < num_sums; i++) sums[i] += sums[t * num_sums + i];
  }
  if (gdepthwise) for (i64 c = 0; c < z.I; c++) for (i64 t = 0; t < kk; t++)
    gdepthwise[c * kk + t] = tap_sums[((c / L) * kk + t) * L + c % L];
  if (gpointwise) for (i64 o = 0; o < z.O; o++) for (i64 i = 0; i < z.I; i++) gpointwise[o * z.I + i] = products[i * z.ldo + o];
  if (sums_x) for (i64 c = 0; c < z.I; c++) { sums_x[c] = sums[c]; sums_x[z.I + c] = sums[z.ldi + c]; }
}

// Without a depthwise convolution pixels are taken as they come, in pieces that stay in the cache.
static Size size_of(i64 B, i64 H, i64 W, i64 I, i64 O, i64 S, i64 K, i64 D) {
  if (K && !D) {
    Size patches(B * ((H - 1) / S + 1) * ((W - 1) / S + 1), 1, 1, K * K * I, O, 1, 0, 1);
    patches.patch = {H, W, I, S, K};
    return patches;
  }
  if (K) return Size(B, H, W, I, O, S, K, D);
  if (S == 1) return Size(B * H * W, 1, 1, I, O, 1, 0, 1);
  Size halves(B * (H / 2) * (W / 2), 1, 1, 2 * I, O, 1, 0, 1);
  halves.halved = W;
  return halves;
}

// ---- the largest of 3x3 pixels, one border pixel ----

struct Window { i64 h0, h1, w0, w1; };
static inline Window window(i64 h, i64 w, i64 H, i64 W, i64 S) {
  return {std::max<i64>(0, h * S - 1), std::min(H, h * S + 2), std::max<i64>(0, w * S - 1), std::min(W, w * S + 2)};
}
static inline V largest(const T* x, const Window& a, i64 W, i64 C, Part part) {
  V top = load(x + (a.h0 * W + a.w0) * C, part);
  for (i64 i = a.h0; i < a.h1; i++) for (i64 j = a.w0; j < a.w1; j++) {
    const V v = load(x + (i * W + j) * C, part);
    top = (v > top) | (v != v) ? v : top;
  }
  return top;
}

// ---- what leaves the last BatchNorms, and how its gradient comes back ----

// Of N terms over P pixels, piece by piece, each of one image where images have factors: work(thread, first, last, share).
template <int N, typename F>
static void share_out(i64 P, i64 most, i64 per_image, const T* const* factors, int threads, F work) {
  const T* any = 0;  // a factor, if there is one
  for (int k = 0; k < N; k++) if (factors[k]) any = factors[k];
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    const i64 end = P * (thread + 1) / threads;
    for (i64 first = P * thread / threads, last; first < end; first = last) {
      last = at_most(first, std::min(end, first + most), any, per_image);
      T share[N];
      for (int k = 0; k < N; k++) share[k] = factors[k] ? factors[k][first / per_image] : T(1);
      work(thread, first, last, share);
    }
  }
}

template <int N> static void combined(i64 P, i64 C, i64 per_image, const T* const* z, const i64* ld, const T* const* norms,
    const i64* acts, const T* const* factors, T* y, i64 ldy, int threads) {
  Numbers scales[N], shifts[N];
  for (int k = 0; k < N; k++) {
    if (norms[k]) { scales[k] = padded(norms[k], C); shifts[k] = padded(norms[k] + C, C); }
    else { scales[k].assign(rounded(C), T(1)); shifts[k].assign(rounded(C), T(0)); }
  }
  share_out<N>(P, BLOCK, per_image, factors, threads, [&](i64, i64 first, i64 last, const T* share) {
    for (i64 c = 0; c < C; c += L) {
      const Part part(C - c);
      V a[N], b[N];
      const T* from[N];  // and more that no store can change
      i64 step[N], act[N];
      T factor[N];
      UNROLL for (int k = 0; k < N; k++) {
        a[k] = load(&scales[k][c]); b[k] = load(&shifts[k][c]);
        from[k] = z[k] + c; step[k] = ld[k]; act[k] = acts[k]; factor[k] = share[k];
      }
      for (i64 p = first; p < last; p++) {
        V sum = {};
        UNROLL for (int k = 0; k < N; k++) {
          __builtin_prefetch(from[k] + (p + BLOCK) * step[k]);
          const V v = activate(load(from[k] + p * step[k], part) * a[k] + b[k], act[k]) * factor[k];
          sum = k ? sum + v : v;
        }
        __builtin_prefetch(y + (p + BLOCK) * ldy + c, 1);
        store(y + p * ldy + c, sum, part);
      }
    }
  });
}

template <int N> static void summed(i64 P, i64 C, i64 per_image, const T* const* z, const T* const* norms, const i64* acts,
    const T* const* factors, const T* grad, i64 ldg, double* sums, int threads) {
  Norm n[N];
  for (int k = 0; k < N; k++) n[k] = norm_of(C, norms[k]);
  const i64 ld = rounded(C);
  std::vector<double> parts(threads * N * 2 * ld, 0.0);
  share_out<N>(P, SHORT, per_image, factors, threads, [&](i64 thread, i64 first, i64 last, const T* share) {
    double* own = &parts[thread * N * 2 * ld];
    for (i64 c = 0; c < C; c += L) {
      const Part part(C - c);
      V sum[N], normal[N], scale[N], shift[N], mean[N], inverse[N];
      UNROLL for (int k = 0; k < N; k++) {
        sum[k] = normal[k] = V{};
        scale[k] = load(&n[k].scale[c]); shift[k] = load(&n[k].shift[c]);
        mean[k] = load(&n[k].mean[c]); inverse[k] = load(&n[k].inverse[c]);
      }
      for (i64 p = first; p < last; p++) {
        __builtin_prefetch(grad + (p + BLOCK) * ldg + c);
        const V g = load(grad + p * ldg + c, part);
        UNROLL for (int k = 0; k < N; k++) {
          __builtin_prefetch(z[k] + (p + BLOCK) * C + c);
          const V v = load(z[k] + p * C + c, part);
          const V e = (acts[k] ? gate(v * scale[k] + shift[k], g, acts[k]) : g) * share[k];
          sum[k] += e;
          normal[k] += e * ((v - mean[k]) * inverse[k]);
        }
      }
      UNROLL for (int k = 0; k < N; k++) { add(own + 2 * k * ld + c, sum[k]); add(own + (2 * k + 1) * ld + c, normal[k]); }
    }
  });
  for (i64 i = 0; i < 2 * N; i++) for (i64 c = 0; c < C; c++) {
    double sum = 0;
    for (i64 t = 0; t < threads; t++) sum += parts[(t * 2 * N + i) * ld + c];
    sums[i * C + c] = sum;
  }
}

extern "C" {
void pool(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, T* y, i64 threads) {
  const i64 Ho = (H - 1) / S + 1, Wo = (W - 1) / S + 1;
  #pragma omp parallel for num_threads(int(threads)) schedule(static)
  for (i64 row = 0; row < B * Ho; row++) for (i64 w = 0; w < Wo; w++) {
    const Window a = window(row % Ho, w, H, W, S);
    for (i64 c = 0; c < C; c += L) {
      const Part part(C - c);
      store(y + (row * Wo + w) * C + c, largest(x + row / Ho * H * W * C + c, a, W, C, part), part);
    }
  }
}

// with `more` what gx holds stays in the sum
void pool_backward(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, const T* grad, i64 more, T* gx, i64 threads) {
  const i64 Ho = (H - 1) / S + 1, Wo = (W - 1) / S + 1;
  #pragma omp parallel for num_threads(int(threads)) schedule(static)
  for (i64 b = 0; b < B; b++) {
    const T* xb = x + b * H * W * C;
    T* to = gx + b * H * W * C;
    if (!more) std::memset(to, 0, H * W * C * sizeof(T));
    for (i64 h = 0; h < Ho; h++) for (i64 w = 0; w < Wo; w++) {
      const Window a = window(h, w, H, W, S);
      for (i64 c = 0; c < C; c += L) {
        const Part part(C - c);
        const V top = largest(xb + c, a, W, C, part), zero = {};
        V left = load(grad + ((b * Ho + h) * Wo + w) * C + c, part);
        for (i64 i = a.h0; i < a.h1; i++) for (i64 j = a.w0; j < a.w1; j++) {
          const i64 at = (i * W + j) * C + c;
          const V v = load(xb + at, part);
          // all of it goes to the first of the largest, as in torch; NaN counts as larger than any number
          const auto hit = (v == top) | ((v != v) & (top != top));
          store(to + at, load(to + at, part) + (hit ? left : zero), part);
          left = hit ? zero : left;
        }
      }
    }
  }
}

void stage_forward(i64 B, i64 H, i64 W, i64 I, i64 O, i64 S, i64 K, i64 D, const T* x, const T* norm_x,
    i64 act, const T* depthwise, const T* pointwise, const T* gamma, const T* beta, double eps, T* z, T* norm, T* kept, i64 threads) {
  forward(size_of(B, H, W, I, O, S, K, D), x, norm_x, act, depthwise, pointwise, gamma, beta, eps, z, norm, kept, int(threads));
}

void stage_backward(i64 B, i64 H, i64 W, i64 I, i64 O, i64 S, i64 K, i64 D, const T* x, const T* norm_x, i64 act,
    const T* depthwise, const T* pointwise, const T* z, const T* norm_z, const double* sums_z, i64 act_z, const T* factor, const T* grad, i64 ldg,
    const T* base, i64 ldb, i64 more, T* gx, T* gdepthwise, T* gpointwise, T* gbeta_gamma, double* sums_x, i64 threads) {
  for (i64 i = 0; i < 2 * O; i++) gbeta_gamma[i] = T(sums_z[i]);
  backward(size_of(B, H, W, I, O, S, K, D), x, norm_x, act, depthwise, pointwise, z, norm_z, sums_z, act_z, factor, ((H - 1) / S + 1) * ((W - 1) / S + 1),
           grad, ldg, Others{base, ldb, more != 0}, gx, gdepthwise, gpointwise, sums_x, int(threads));
}

// y (P, C), whose pixels are ldy from each other, = sum over terms of factor[image] * act(scale z + shift). A term has no
// scale and shift where norms[k] is null, factor 1 where factors[k] is; its pixels are ld[k] from each other.
void combine(i64 P, i64 C, i64 per_image, i64 num, const T* const* z, const i64* ld, const T* const* norms, const i64* acts,
    const T* const* factors, T* y, i64 ldy, i64 threads) {
  switch (num) {
    case 1: return combined<1>(P, C, per_image, z, ld, norms, acts, factors, y, ldy, int(threads));
    case 2: return combined<2>(P, C, per_image, z, ld, norms, acts, factors, y, ldy, int(threads));
    case 3: return combined<3>(P, C, per_image, z, ld, norms, acts, factors, y, ldy, int(threads));
    default: return combined<4>(P, C, per_image, z, ld, norms, acts, factors, y, ldy, int(threads));
  }
}

// sums (num, 2, C) over pixels, for each of one or two terms that share a gradient: of the gradient of the BatchNorm's
// output, and of its product with the normalised value
void gradient_sums(i64 P, i64 C, i64 per_image, i64 num, const T* const* z, const T* const* norms, const i64* acts,
    const T* const* factors, const T* grad, i64 ldg, double* sums, i64 threads) {
  if (num == 1) return summed<1>(P, C, per_image, z, norms, acts, factors, grad, ldg, sums, int(threads));
  summed<2>(P, C, per_image, z, norms, acts, factors, grad, ldg, sums, int(threads));
}
}
