// Kernels for all that leaves one source of a cell, and all that enters one node, for the CPU; whole_cell.py says what a
// cell is, and source_kernels.py describes every function. A map is (B, H, W, C) in memory; all have C channels. L is the
// number of values in a vector. Images are treated a few at a time, from the first kernel to the last that needs no mean
// over all of them, so that what is between stays in the cache of the core.
#include <cmath>
#include <cstring>
#include <algorithm>
#include "stencils.hpp"

// y = bias + a A + b B for NP pixels and NO vectors of channels; b and bias may be missing. CC: the number of channels, where it
// is known: then every pixel has a fixed place.
template <int L, int NO, int NP, int CC>
static inline void put(i64 channels, const T* a, const T* A, const T* b, const T* B, const T* bias, T* y, i64 step, i64 block) {
  const i64 C = CC ? CC : channels;
  V acc[NP][NO];
  UNROLL for (int j = 0; j < NP; j++) UNROLL for (int o = 0; o < NO; o++) acc[j][o] = V{};
  auto add = [&](const T* x, const T* M) __attribute__((always_inline)) {
    _Pragma("GCC unroll 8") for (i64 i = 0; i < C; i++) {
      V r[NO];
      UNROLL for (int o = 0; o < NO; o++) r[o] = LOAD(M + i * C + o * L);
      UNROLL for (int j = 0; j < NP; j++) { const T s = x[j * C + i]; UNROLL for (int o = 0; o < NO; o++) acc[j][o] += s * r[o]; }
    }
  };
  add(a, A);
  if (b) add(b, B);
  UNROLL for (int o = 0; o < NO; o++) {
    const V last = bias ? LOAD(bias + o * L) : V{};  // it cancels much of the products
    UNROLL for (int j = 0; j < NP; j++) STORE(y + j * step + o * block, acc[j][o] + last);
  }
}

// the same for pixels after each other; step and block: from pixel to pixel and from vector to vector of y
template <int L, int NO, int CC>
static void put_some(i64 count, i64 C, const T* a, const T* A, const T* b, const T* B, const T* bias, T* y, i64 step, i64 block) {
  const int most = NO == 1 ? 16 : 8;
  for (i64 c = 0; c < C; c += L * NO) {
    const T *Bc = b ? B + c : 0, *add = bias ? bias + c : 0;
    T* to = y + c / L * block;
    i64 p = 0;
    #define PUT(NP) put<L, NO, NP, CC>(C, a + p * C, A + c, b ? b + p * C : 0, Bc, add, to + p * step, step, block)
    for (; p + most <= count; p += most) PUT(most);
    for (; p + 8 <= count; p += 8) PUT(8);
    for (; p + 4 <= count; p += 4) PUT(4);
    for (; p < count; p++) PUT(1);
  }
}

template <int L, int NO>
static void put_row(i64 count, i64 C, const T* a, const T* A, const T* b, const T* B, const T* bias, T* y, i64 step, i64 block) {
  if (NO == 1 && C == 16) put_some<L, NO, 16>(count, C, a, A, b, B, bias, y, step, block);
  else put_some<L, NO, 0>(count, C, a, A, b, B, bias, y, step, block);
}

// The transposed convolution of stride 2, from e without zeros between its pixels: of the output the pixels of one parity in
// each direction, which see the taps of one parity. kernel: flipped. out[h, w] (+)= sum of e[(h + ky D - r) / 2, ...] k[ky, kx]
template <int L, int K, int D, bool ADD> static void spread(const T* e, i64 Wp, i64 pad, const T* kernel, T* out, i64 H, i64 W) {
  const int N = 4, r = D * (K / 2);
  for (i64 h = 0; h < H; h++) for (i64 first = 0; first < 2; first++) {
    const i64 count = (W - first + 1) / 2;
    for (i64 w = 0; w < count; w += N) {
      const i64 some = std::min<i64>(N, count - w);
      V acc[N];
      UNROLL for (int j = 0; j < N; j++) acc[j] = ADD && j < some ? LOAD(out + (h * W + first + 2 * (w + j)) * L) : V{};
      for (int ky = 0; ky < K; ky++) {
        if ((h + ky * D - r) % 2) continue;
        const T* row = e + ((h + ky * D - r) / 2 + pad) * Wp * L;
        for (int kx = 0; kx < K; kx++) {
          if ((first + kx * D - r) % 2) continue;
          const V t = LOAD(kernel + (ky * K + kx) * L);
          const T* p = row + ((first + kx * D - r) / 2 + pad + w) * L;
          UNROLL for (int j = 0; j < N; j++) acc[j] += t * LOAD(p + j * L);
        }
      }
      for (int j = 0; j < some; j++) STORE(out + (h * W + first + 2 * (w + j)) * L, acc[j]);
    }
  }
}

// How a cell's maps lie, and how many images are treated at once: enough pixels to fill a chunk of the sums
struct Shape {
  i64 B, H, W, C, S, Ho, Wo, pad, Hp, Wp, area, images, groups;
  Shape(i64 B, i64 H, i64 W, i64 C, i64 S, i64 pad, int L) : B(B), H(H), W(W), C(C), S(S), Ho((H - 1) / S + 1),
      Wo((W - 1) / S + 1), pad(pad), Hp(H + 2 * pad), Wp(W + 2 * pad), area(Hp * Wp * L) {
    images = std::max<i64>(1, std::min({B, 256 / (Ho * Wo), (i64(1) << 17) / (Hp * Wp * C)}));
    groups = (B + images - 1) / images;
  }
  i64 scratch() const { return images * Hp * Wp * C + 64; }
  i64 pixels() const { return Ho * Wo; }
  i64 begin(i64 t, i64 threads) const { return groups * t / threads; }
  i64 count(i64 group) const { return std::min(images, B - group * images); }
};

static i64 widest(i64 n, const i64* width, const i64* dilation) {
  i64 pad = 0;
  for (i64 i = 0; i < n; i++) pad = std::max(pad, (dilation ? dilation[i] : 1) * (width[i] / 2));
  return pad;
}

template <int L> static void fill_all(const Shape& s, i64 count, T* u, const T* x, const T* scale, const T* shift) {
  const i64 blocks = s.C / L;
  for (i64 b = 0; b < count; b++) for (i64 k = 0; k < blocks; k++)
    fill<L>(u + (b * blocks + k) * s.area, x + b * s.H * s.W * s.C + k * L, s.H, s.W, s.C, s.pad,
        scale ? scale + k * L : 0, scale ? shift + k * L : 0);
}

// depthwise convolution of what `fill_all` made, to a map; kernel: of `taps`
template <int L>
static void convolve_all(const Shape& s, i64 count, const T* u, i64 width, i64 dilation, const T* kernel, T* out) {
  const i64 blocks = s.C / L, kk = width * width;
  for (i64 k = 0; k < blocks; k++) for (i64 b = 0; b < count; b++) {
    const T *from = u + (b * blocks + k) * s.area, *w = kernel + k * kk * L;
    T* to = out + b * s.pixels() * s.C + k * L;
    if (s.S == 1) BY_KERNEL(width, dilation, (convolve<L, K, D, 1, false>(from, s.Wp, s.pad, w, to, s.Ho, s.Wo, s.C)))
    else BY_KERNEL(width, dilation, (convolve<L, K, D, 2, false>(from, s.Wp, s.pad, w, to, s.Ho, s.Wo, s.C)))
  }
}

// sums for the gradient of a depthwise weight; e: the gradient of the output, in a scratch of the shape t
template <int L>
static void correlate_all(const Shape& s, const Shape& t, i64 count, const T* u, const T* e, i64 width, i64 dilation,
    double* sums) {
  const i64 blocks = s.C / L, kk = width * width, image = blocks * s.area;
  const Places at = {blocks * t.area, t.Wp * L, L};
  for (i64 k = 0; k < blocks; k++) {
    const T *from = u + k * s.area, *g = e + k * t.area + t.pad * (t.Wp + 1) * L;
    double* to = sums + k * kk * L;
    if (s.S == 1) BY_KERNEL(width, dilation, (correlate<L, K, D, 1>(from, image, s.Wp, s.pad, g, at, count, s.Ho, s.Wo, to)))
    else BY_KERNEL(width, dilation, (correlate<L, K, D, 2>(from, image, s.Wp, s.pad, g, at, count, s.Ho, s.Wo, to)))
  }
}

// ---- forward: depthwise convolutions of relu(x); products; BatchNorm, ReLU and depthwise convolutions of those ----

// Convolutions with a matrix are separable: z is their product, normal (n, 2, C) scale and shift of its BatchNorm,
// inner (n, 2, C) mean and variance. mean (n, C) and covariance (n, C, C) are of what leaves, out.
template <int L, int NO, int R> static void leave(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, i64 n, const i64* width,
    const i64* dilation, const T* const* weight, const T* const* matrix, const i64* width2, const T* const* second, double eps,
    T* const* z, T* const* out, double* inner, T* normal, double* mean, double* covariance, int threads) {
  const Shape s(B, H, W, C, S, widest(n, width, dilation), L);
  const i64 pixels = s.pixels(), P = B * pixels, chunk = C <= WIDE ? 256 : 128;
  std::vector<Numbers> first, again;
  for (i64 i = 0; i < n; i++) {
    first.push_back(taps<L>(weight[i], C, width[i] * width[i], false));
    again.push_back(matrix[i] ? taps<L>(second[i], C, width2[i] * width2[i], false) : Numbers());
  }
  std::vector<double> means(threads * n * C, 0.0), squares(threads * n * C, 0.0), sums(threads * n * C, 0.0),
      products(threads * n * C * C, 0.0);
  auto covary = [&](i64 thread, i64 i, i64 count, i64 before, const T* from, Centring<L>& room) {
    for (i64 p = 0; p < count; p += chunk)
      add_covariance<L>(std::min(chunk, count - p), C, from + p * C, room, &products[(thread * n + i) * C * C],
          &sums[(thread * n + i) * C], before + p);
  };
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    Numbers u(s.scratch(), T(0)), d(s.images * pixels * C);
    Centring<L> room(chunk, C);
    i64 before = 0;
    for (i64 group = s.begin(thread, threads); group < s.begin(thread + 1, threads); group++) {
      const i64 b = group * s.images, images = s.count(group), count = images * pixels;
      fill_all<L>(s, images, u.data(), x + b * H * W * C, 0, 0);
      for (i64 i = 0; i < n; i++) {
        T *to = matrix[i] ? d.data() : out[i] + b * pixels * C;
        convolve_all<L>(s, images, u.data(), width[i], dilation[i], first[i].data(), to);
        if (!matrix[i]) { covary(thread, i, count, before, to, room); continue; }
        for (i64 p = 0; p < count; p += chunk) {
          const i64 some = std::min(chunk, count - p);
          T* zp = z[i] + (b * pixels + p) * C;
          put_row<L, NO>(some, C, to + p * C, matrix[i], 0, 0, 0, zp, C, L);
          add_moments<L>(some, C, zp, &means[(thread * n + i) * C], &squares[(thread * n + i) * C], before + p);
        }
      }
      before += count;
    }
  }
  auto part = [&](i64 t) { return (std::min(B, s.begin(t + 1, threads) * s.images) - std::min(B, s.begin(t, threads) * s.images)) * pixels; };
  for (i64 i = 0; i < n; i++) if (matrix[i]) {
    i64 known = part(0);
    for (int t = 1; t < threads; t++) if (part(t)) {
      for (i64 c = 0; c < C; c++)
        meet(means[i * C + c], squares[i * C + c], known, means[(t * n + i) * C + c], squares[(t * n + i) * C + c], part(t));
      known += part(t);
    }
    for (i64 c = 0; c < C; c++) {
      const double m = means[i * C + c], var = squares[i * C + c] / P;
      inner[2 * i * C + c] = m; inner[(2 * i + 1) * C + c] = var;
      const T scale = 1.0 / std::sqrt(var + eps);
      // From the rounded scale: what is computed is scale z + shift, whose mean should be 0.
      normal[2 * i * C + c] = scale; normal[(2 * i + 1) * C + c] = -m * double(scale);
    }
  }
  const Shape s2(B, s.Ho, s.Wo, C, 1, 2, L);
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    Numbers u(s2.scratch(), T(0));
    Centring<L> room(chunk, C);
    for (i64 i = 0; i < n; i++) if (matrix[i]) {
      i64 before = 0;
      for (i64 group = s2.begin(thread, threads); group < s2.begin(thread + 1, threads); group++) {
        const i64 at = group * s2.images * pixels * C, images = s2.count(group), count = images * pixels;
        fill_all<L>(s2, images, u.data(), z[i] + at, normal + 2 * i * C, normal + (2 * i + 1) * C);
        convolve_all<L>(s2, images, u.data(), width2[i], 1, again[i].data(), out[i] + at);
        covary(thread, i, count, before, out[i] + at, room);
        before += count;
      }
    }
  }
  auto part2 = [&](i64 t) { return (std::min(B, s2.begin(t + 1, threads) * s2.images) - std::min(B, s2.begin(t, threads) * s2.images)) * pixels; };
  std::vector<double> d(C);
  for (i64 i = 0; i < n; i++) {
    auto by = [&](i64 t) { return matrix[i] ? part2(t) : part(t); };
    i64 known = by(0);
    for (int t = 1; t < threads; t++) if (by(t)) {
      double *to = &products[i * C * C], *more = &products[(t * n + i) * C * C];
      for (i64 k = 0; k < C * C; k++) to[k] += more[k];
      shift_of_means(C, to, &sums[i * C], known, &sums[(t * n + i) * C], by(t), d.data());
      known += by(t);
    }
    std::copy(&sums[i * C], &sums[i * C] + C, mean + i * C);
    for (i64 k = 0; k < C * C; k++) covariance[i * C * C + k] = products[i * C * C + k] / P;
    mirror(C, covariance + i * C * C);
  }
}

// ---- backward of `leave`, from the nodes that it enters ----

// The gradient of out_i is e_i = bias_i + g_i M_i + out_i S_i (M_i, S_i (C, C)), which is formed a few images at a time.
// work_i: room for a map, of separable convolutions. gx gets the gradient of x; `add`: on top of what it holds. The gradients
// of weights are computed where their places are given: all or none; gx alike.
template <int L, int NO, int R> static void leave_backward(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, i64 n,
    const i64* width, const i64* dilation, const T* const* weight, const T* const* matrix, const i64* width2,
    const T* const* second, const T* normal, const T* const* z, const T* const* out, const T* const* g, const T* M, const T* Sq,
    const T* bias, T* const* work, int add, T* gx, T* const* gweight, double* gmatrix, T* const* gsecond, int threads) {
  const Shape s(B, H, W, C, S, widest(n, width, dilation), L), s2(B, s.Ho, s.Wo, C, 1, 2, L), se(B, s.Ho, s.Wo, C, 1, s.pad, L);
  const i64 pixels = s.pixels(), P = B * pixels, blocks = C / L, chunk = C <= WIDE ? 256 : 128;
  const bool learns = gweight != 0;
  std::vector<Numbers> first, back, again;
  std::vector<i64> start, start2;
  i64 total = 0, total2 = 0, num_products = 0;
  for (i64 i = 0; i < n; i++) {
    first.push_back(matrix[i] && learns ? taps<L>(weight[i], C, width[i] * width[i], false) : Numbers());
    back.push_back(taps<L>(weight[i], C, width[i] * width[i], true));
    again.push_back(matrix[i] ? taps<L>(second[i], C, width2[i] * width2[i], true) : Numbers());
    start.push_back(total); total += width[i] * width[i] * C;
    start2.push_back(total2); total2 += matrix[i] ? width2[i] * width2[i] * C : 0;
    num_products += matrix[i] != 0;
  }
  std::vector<double> sums(threads * n * 2 * C, 0.0), of_first(learns ? threads * total : 0, 0.0),
      of_second(learns ? threads * total2 : 0, 0.0), of_matrix(learns ? threads * num_products * C * C : 0, 0.0);
  auto form = [&](const Shape& to, i64 i, i64 b, i64 images, T* e) {  // e_i, with borders
    for (i64 k = 0; k < images; k++) for (i64 h = 0; h < s.Ho; h++) {
      const i64 at = ((b + k) * pixels + h * s.Wo) * C;
      put_row<L, NO>(s.Wo, C, g[i] + at, M + i * C * C, out[i] + at, Sq + i * C * C, bias + i * C,
          e + k * blocks * to.area + ((h + to.pad) * to.Wp + to.pad) * L, L, to.area);
    }
  };
  // the halves after the BatchNorm between
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    if (!num_products) continue;
    Numbers e(s2.scratch(), T(0)), u(learns ? s2.scratch() : 0, T(0));
    for (i64 group = s2.begin(thread, threads); group < s2.begin(thread + 1, threads); group++) {
      const i64 b = group * s2.images, images = s2.count(group), at = b * pixels * C;
      for (i64 i = 0; i < n; i++) if (matrix[i]) {
        const T *scale = normal + 2 * i * C, *shift = scale + C;
        double *s1 = &sums[(thread * n + i) * 2 * C], *sq = s1 + C;
        form(s2, i, b, images, e.data());
        if (learns) {
          fill_all<L>(s2, images, u.data(), z[i] + at, scale, shift);
          correlate_all<L>(s2, s2, images, u.data(), e.data(), width2[i], 1, &of_second[thread * total2 + start2[i]]);
        }
        convolve_all<L>(s2, images, e.data(), width2[i], 1, again[i].data(), work[i] + at);
        for (i64 c = 0; c < C; c += L) {
          const V a = LOAD(scale + c), m = LOAD(shift + c), zero = {};
          for (i64 k = 0; k < images; k++) {  // float sums of one image at most
            V t = zero, q = zero;
            for (i64 p = k * pixels; p < (k + 1) * pixels; p++) {
              T* to = work[i] + at + p * C + c;
              const V v = LOAD(z[i] + at + p * C + c) * a + m, d = v <= zero ? zero : LOAD(to);
              STORE(to, d);
              t += d; q += d * v;
            }
            for (int l = 0; l < L; l++) { s1[c + l] += t[l]; sq[c + l] += q[l]; }
          }
        }
      }
    }
  }
  Numbers m1(n * C), m2(n * C);
  for (i64 i = 0; i < n; i++) for (i64 c = 0; c < C; c++) {
    double t = 0, q = 0;
    for (int k = 0; k < threads; k++) { t += sums[(k * n + i) * 2 * C + c]; q += sums[(k * n + i) * 2 * C + C + c]; }
    m1[i * C + c] = t / P; m2[i * C + c] = q / P;
  }
  // what comes before it, and the dilated convolutions
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    Numbers e(s.images * blocks * se.area + 64, T(0)), u(learns ? s.scratch() : 0, T(0)), sum(gx ? s.images * H * W * C : 0), dz(s.images * pixels * C),
        d(learns ? s.images * pixels * C : 0);
    const Numbers zeros(C, T(0));
    for (i64 group = s.begin(thread, threads); group < s.begin(thread + 1, threads); group++) {
      const i64 b = group * s.images, images = s.count(group), at = b * pixels * C, count = images * pixels;
      if (learns) fill_all<L>(s, images, u.data(), x + b * H * W * C, 0, 0);
      i64 product = 0;
      for (i64 i = 0; i < n; i++) {
        const i64 kk = width[i] * width[i];
        if (!matrix[i]) form(se, i, b, images, e.data());
        else {
          const T *scale = normal + 2 * i * C, *shift = scale + C, *t = &m1[i * C], *q = &m2[i * C];
          for (i64 c = 0; c < C; c += L) {
            const V a = LOAD(scale + c), m = LOAD(shift + c), mean = LOAD(t + c), slope = LOAD(q + c);
            for (i64 p = 0; p < count; p++) {
              const V normal = LOAD(z[i] + at + p * C + c) * a + m;
              STORE(&dz[p * C + c], a * (LOAD(work[i] + at + p * C + c) - mean - normal * slope));
            }
          }
          if (learns) {
            convolve_all<L>(s, images, u.data(), width[i], dilation[i], first[i].data(), d.data());
            double* to = &of_matrix[(thread * num_products + product++) * C * C];
            for (i64 p = 0; p < count; p += chunk) for (i64 o = 0; o < C; o += L * NO) for (i64 a = 0; a < C; a += R)
              tile<L, R, NO>(std::min(chunk, count - p), C, C, 0, &d[p * C + a], &dz[p * C + o], zeros.data(), to + a * C + o);
          }
          // `matrix` is given as the forward product has it, (in, out); this one is with its transpose, which follows it
          for (i64 k = 0; k < images; k++) for (i64 h = 0; h < s.Ho; h++)
            put_row<L, NO>(s.Wo, C, &dz[(k * pixels + h * s.Wo) * C], matrix[i] + C * C, 0, 0, 0,
                e.data() + k * blocks * se.area + ((h + se.pad) * se.Wp + se.pad) * L, L, se.area);
        }
        if (learns) correlate_all<L>(s, se, images, u.data(), e.data(), width[i], dilation[i], &of_first[thread * total + start[i]]);
        if (gx) for (i64 k = 0; k < images * blocks; k++) {
          T* to = &sum[k * H * W * L];
          const T *from = e.data() + k * se.area, *w = &back[i][k % blocks * kk * L];
          #define SPREAD(ADD) \
            if (S == 1) BY_KERNEL(width[i], dilation[i], (convolve<L, K, D, 1, ADD>(from, se.Wp, se.pad, w, to, H, W, L))) \
            else BY_KERNEL(width[i], dilation[i], (spread<L, K, D, ADD>(from, se.Wp, se.pad, w, to, H, W)))
          if (i) { SPREAD(true) } else { SPREAD(false) }
        }
      }
      if (gx) for (i64 k = 0; k < images * blocks; k++) for (i64 p = 0; p < H * W; p++) {
        const i64 place = (b + k / blocks) * H * W * C + p * C + k % blocks * L;
        const V zero = {}, d = LOAD(x + place) <= zero ? zero : LOAD(&sum[(k * H * W + p) * L]);
        STORE(gx + place, add ? LOAD(gx + place) + d : d);
      }
    }
  }
  if (!learns) return;
  i64 product = 0;
  for (i64 i = 0; i < n; i++) {
    untapped<L>(&of_first[start[i]], threads, total, C, width[i] * width[i], gweight[i]);
    if (!matrix[i]) continue;
    untapped<L>(&of_second[start2[i]], threads, total2, C, width2[i] * width2[i], gsecond[i]);
    for (i64 k = 0; k < C * C; k++) {
      double sum = 0;
      for (int t = 0; t < threads; t++) sum += of_matrix[(t * num_products + product) * C * C + k];
      gmatrix[product * C * C + k] = sum;
    }
    product++;
  }
}

// ---- sums for the gradients of all that enters a node ----

// sum (C) of g; cross (n, C, C): sums over pixels of x_k^T (g - near), near (C) the mean of g, rounded; along (m, C): of q_t g
template <int L, int NO, int R> static void enter_backward(i64 P, i64 C, const T* g, i64 n, const T* const* x, i64 m,
    const T* const* q, double* sum, T* near, double* cross, double* along, int threads) {
  const i64 chunk = C <= WIDE ? 256 : 128;
  std::vector<double> sums(threads * C, 0.0), crosses(threads * n * C * C, 0.0), alongs(threads * m * C, 0.0);
  const Numbers zeros(C, T(0));
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    const i64 last = P * (thread + 1) / threads;
    for (i64 p = P * thread / threads; p < last; p += chunk) {
      const i64 count = std::min(chunk, last - p);
      for (i64 c = 0; c < C; c += L) {
        const V all = mean_of<L>(g + p * C + c, count, C);
        for (int l = 0; l < L; l++) sums[thread * C + c + l] += double(all[l]) * count;
      }
    }
  }
  for (i64 c = 0; c < C; c++) {
    sum[c] = 0;
    for (int t = 0; t < threads; t++) sum[c] += sums[t * C + c];
    near[c] = sum[c] / P;
  }
  #pragma omp parallel for num_threads(threads) schedule(static)
  for (i64 thread = 0; thread < threads; thread++) {
    const i64 last = P * (thread + 1) / threads;
    Numbers centred(chunk * C);
    for (i64 p = P * thread / threads; p < last; p += chunk) {
      const i64 count = std::min(chunk, last - p);
      for (i64 k = 0; k < count; k++) for (i64 c = 0; c < C; c += L)
        STORE(&centred[k * C + c], LOAD(g + (p + k) * C + c) - LOAD(near + c));
      for (i64 k = 0; k < n; k++) for (i64 o = 0; o < C; o += L * NO) for (i64 a = 0; a < C; a += R)
        tile<L, R, NO>(count, C, C, a || o ? 0 : x[k + 1 < n ? k + 1 : 0] + (p + (k + 1 < n ? 0 : chunk)) * C, x[k] + p * C + a, &centred[o],
            zeros.data(), &crosses[(thread * n + k) * C * C + a * C + o]);
      for (i64 k = 0; k < m; k++) for (i64 c = 0; c < C; c += L) {
        V s[4] = {V{}, V{}, V{}, V{}};
        for (i64 j = 0; j < count; j++) s[j & 3] += LOAD(q[k] + (p + j) * C + c) * LOAD(g + (p + j) * C + c);
        const V all = (s[0] + s[1]) + (s[2] + s[3]);
        for (int l = 0; l < L; l++) alongs[(thread * m + k) * C + c + l] += all[l];
      }
    }
  }
  for (i64 k = 0; k < n * C * C; k++) { cross[k] = 0; for (int t = 0; t < threads; t++) cross[k] += crosses[t * n * C * C + k]; }
  for (i64 k = 0; k < m * C; k++) { along[k] = 0; for (int t = 0; t < threads; t++) along[k] += alongs[t * m * C + k]; }
}

#define BY_CHANNELS(C, call) \
  if ((C) % (2 * WIDE) == 0) { const int L = WIDE, NO = 2, R = 8; call; } \
  else if ((C) % WIDE == 0) { const int L = WIDE, NO = 1, R = L; call; } \
  else { const int L = SMALL, NO = 1, R = L; call; }
extern "C" {
void leave_source(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, i64 n, const i64* width, const i64* dilation,
    const T* const* weight, const T* const* matrix, const i64* width2, const T* const* second, double eps, T* const* z,
    T* const* out, double* inner, T* normal, double* mean, double* covariance, i64 threads) {
  BY_CHANNELS(C, (leave<L, NO, R>(B, H, W, C, S, x, n, width, dilation, weight, matrix, width2, second, eps, z, out, inner,
      normal, mean, covariance, threads)))
}
void leave_source_backward(i64 B, i64 H, i64 W, i64 C, i64 S, const T* x, i64 n, const i64* width, const i64* dilation,
    const T* const* weight, const T* const* matrix, const i64* width2, const T* const* second, const T* normal,
    const T* const* z, const T* const* out, const T* const* g, const T* M, const T* Sq, const T* bias, T* const* work, i64 add,
    T* gx, T* const* gweight, double* gmatrix, T* const* gsecond, i64 threads) {
  BY_CHANNELS(C, (leave_backward<L, NO, R>(B, H, W, C, S, x, n, width, dilation, weight, matrix, width2, second, normal, z, out,
      g, M, Sq, bias, work, add, gx, gweight, gmatrix, gsecond, threads)))
}
void enter_node_backward(i64 P, i64 C, const T* g, i64 n, const T* const* x, i64 m, const T* const* q, double* sum, T* near,
    double* cross, double* along, i64 threads) {
  BY_CHANNELS(C, (enter_backward<L, NO, R>(P, C, g, n, x, m, q, sum, near, cross, along, threads)))
}
}
