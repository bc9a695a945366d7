// The open cell of NAS-Bench-201 for the CPU, forward and backward; kernels.py compiles this file at first use, with
// -DREAL=float or double, and describes both functions.
//
// A vector holds one pixel of L images: cells of few channels (4 to 16) leave vectors of channels half empty, and borders
// break vectors of pixels, but a batch has images enough. Inside, a map is (blocks, C, H, W, L) in memory, blocks of L
// images; of the last block some lanes may be no image, and are 0. A block goes from one mean over the batch to the next.
// What is summed up over pixels is summed up by block, and blocks in their order: the bits are those of any number of threads.
#include <cmath>
#include "../numbers.hpp"
#if defined(__AVX512F__)
static const int L = 64 / sizeof(T), TILE = 4, PAIR = 2;
#elif defined(__AVX__)
static const int L = 32 / sizeof(T), TILE = 2, PAIR = 1;
#else
static const int L = 16 / sizeof(T), TILE = 2, PAIR = 1;
#endif
typedef T V __attribute__((vector_size(L * sizeof(T)), aligned(sizeof(T)), may_alias));
typedef decltype(V{} < V{}) Mask;
#define LOAD(p) (*(const V*)(p))
#define STORE(p, v) (*(V*)(p) = (v))
#define UNROLL _Pragma("GCC unroll 32")
static const int OUT = 4;  // channels that are computed at once

static inline V shuffled(V a, V b, Mask from) {  // lanes of both, those of b after those of a
#if defined(__clang__)
  V found;
  for (int l = 0; l < L; l++) found[l] = from[l] < L ? a[from[l]] : b[from[l] - L];
  return found;
#else
  return __builtin_shuffle(a, b, from);
#endif
}
template <int D> static inline V folded(V v) {  // every lane and the one D after it
  Mask from;
  for (int l = 0; l < L; l++) from[l] = (l + D) % L;
  return v + shuffled(v, v, from);
}
static inline double across(V v) {  // the sum of all lanes
  if (L > 8) v = folded<8>(v);
  if (L > 4) v = folded<4>(v);
  if (L > 2) v = folded<2>(v);
  return folded<1>(v)[0];
}

struct Shape {  // of a map; `plane` and `map` in numbers, of one block
  i64 B, C, H, W, blocks, plane, map, wide, padded;
  Shape(i64 B, i64 C, i64 H, i64 W) : B(B), C(C), H(H), W(W), blocks((B + L - 1) / L), plane(H * W * L), map(C * plane),
    wide((W + 2) * L), padded((H + 2) * wide) {}
  i64 images(i64 b) const { return b + 1 < blocks ? L : B - b * L; }
};
struct Strides { i64 image, channel, row, pixel; };
struct Conv {  // width 1 or 3
  i64 source, target, width, place;  // of its mixing weight
  Strides weight, gradient;  // out, in, and the two of the kernel
};
struct Scaled { i64 source, target, pool, place; };
struct Plan { i64 nodes, num_convs, num_scaled; const Conv* convs; const Scaled* scaled; };

// ---- L images of a map as torch has it, into a block and back ----

// L vectors as the rows of a matrix become its columns: in every round what lies D away is swapped.
template <int D> static inline void swap_rows(V* r) {
  Mask low, high;
  for (int l = 0; l < L; l++) { low[l] = l & D ? L + l - D : l; high[l] = l & D ? L + l : l + D; }
  UNROLL for (int i = 0; i < L; i++) if (!(i & D)) {
    const V a = r[i], b = r[i + D];
    r[i] = shuffled(a, b, low);
    r[i + D] = shuffled(a, b, high);
  }
}
static inline void transpose(V* r) {
  if (L > 8) swap_rows<8 % L>(r);
  if (L > 4) swap_rows<4 % L>(r);
  if (L > 2) swap_rows<2 % L>(r);
  swap_rows<1>(r);
}

// The numbers of an image follow one another in memory: 1, channel after channel; 2, pixel after pixel; 0, neither
static int order_of(Strides at, const Shape& s) {
  if (at.pixel == 1 && at.row == s.W && at.channel == s.H * s.W) return 1;
  return at.channel == 1 && at.pixel == s.C && at.row == s.W * s.C ? 2 : 0;
}
// Where in a block the number `at` of an image lies
static inline i64 place(const Shape& s, int order, i64 at) { return (order == 1 ? at : at % s.C * s.H * s.W + at / s.C) * L; }

static void load_block(const T* x, Strides at, const Shape& s, i64 b, T* to) {
  const i64 count = s.images(b), numbers = s.C * s.H * s.W;
  const int order = order_of(at, s);
  const T* from = x + b * L * at.image;
  i64 done = 0;
  if (order && count == L) for (; done + L <= numbers; done += L) {
    V r[L];
    UNROLL for (int l = 0; l < L; l++) r[l] = LOAD(from + l * at.image + done);
    transpose(r);
    UNROLL for (int l = 0; l < L; l++) STORE(to + place(s, order, done + l), r[l]);
  }
  for (i64 n = done; n < numbers; n++) {
    const i64 c = order == 2 ? n % s.C : n / (s.H * s.W), p = order == 2 ? n / s.C : n % (s.H * s.W);
    const T* own = from + c * at.channel + p / s.W * at.row + p % s.W * at.pixel;
    for (i64 l = 0; l < L; l++) to[(c * s.H * s.W + p) * L + l] = l < count ? own[l * at.image] : T(0);
  }
}
static void store_block(const T* from, Strides at, const Shape& s, i64 b, T* y) {
  const i64 count = s.images(b), numbers = s.C * s.H * s.W;
  const int order = order_of(at, s);
  T* to = y + b * L * at.image;
  i64 done = 0;
  if (order && count == L) for (; done + L <= numbers; done += L) {
    V r[L];
    UNROLL for (int l = 0; l < L; l++) r[l] = LOAD(from + place(s, order, done + l));
    transpose(r);
    UNROLL for (int l = 0; l < L; l++) STORE(to + l * at.image + done, r[l]);
  }
  for (i64 n = done; n < numbers; n++) {
    const i64 c = order == 2 ? n % s.C : n / (s.H * s.W), p = order == 2 ? n / s.C : n % (s.H * s.W);
    T* own = to + c * at.channel + p / s.W * at.row + p % s.W * at.pixel;
    for (i64 l = 0; l < count; l++) own[l * at.image] = from[(c * s.H * s.W + p) * L + l];
  }
}

// ---- convolutions of a block, of width K ----

// A weight as the loops read it: for every OUT channels out (what is missing is 0) (in, tap, OUT). `turned`: that of the
// transposed convolution, from the channels out to those in.
static Numbers packed(const T* weight, const Conv& k, i64 C, bool turned) {
  const i64 taps = k.width * k.width;
  Numbers found((C + OUT - 1) / OUT * C * taps * OUT, T(0));
  for (i64 o = 0; o < C; o++) for (i64 i = 0; i < C; i++) for (i64 ky = 0; ky < k.width; ky++) for (i64 kx = 0; kx < k.width; kx++) {
    const T value = weight[o * k.weight.image + i * k.weight.channel + ky * k.weight.row + kx * k.weight.pixel];
    const i64 to = turned ? i : o, from = turned ? o : i, tap = ky * k.width + kx;
    found[((to / OUT * C + from) * taps + (turned ? taps - 1 - tap : tap)) * OUT + to % OUT] = value;
  }
  return found;
}

template <int K, int N, bool ADD>  // N neighbouring pixels of OUT channels, the first `count` of which are there
static inline void pixels(const T* u, i64 wide, i64 padded, i64 C, const T* k, T* out, i64 plane, int count) {
  V acc[OUT][N];
  UNROLL for (int o = 0; o < OUT; o++) UNROLL for (int j = 0; j < N; j++) acc[o][j] = V{};
  for (i64 i = 0; i < C; i++, u += padded, k += K * K * OUT)
    UNROLL for (int ky = 0; ky < K; ky++) UNROLL for (int kx = 0; kx < K; kx++) {
      V x[N];
      UNROLL for (int j = 0; j < N; j++) x[j] = LOAD(u + ky * wide + (j + kx) * L);
      UNROLL for (int o = 0; o < OUT; o++) {
        const T w = k[(ky * K + kx) * OUT + o];
        UNROLL for (int j = 0; j < N; j++) acc[o][j] += w * x[j];
      }
    }
  UNROLL for (int o = 0; o < OUT; o++) if (o < count) UNROLL for (int j = 0; j < N; j++) {
    T* to = out + o * plane + j * L;
    STORE(to, ADD ? LOAD(to) + acc[o][j] : acc[o][j]);
  }
}

// out (+)= the convolution of u, maps with a border of one pixel
template <int K, bool ADD> static void convolve(const Shape& s, const T* u, const T* k, T* out) {
  if (K == 1) u += s.wide + L;
  for (i64 c = 0; c < s.C; c += OUT, k += s.C * K * K * OUT) {
    const int count = s.C - c < OUT ? s.C - c : OUT;
    for (i64 h = 0; h < s.H; h++) {
      const T* from = u + h * s.wide; T* to = out + c * s.plane + h * s.W * L; i64 w = 0;
      for (; w + TILE <= s.W; w += TILE) pixels<K, TILE, ADD>(from + w * L, s.wide, s.padded, s.C, k, to + w * L, s.plane, count);
      for (; w < s.W; w++) pixels<K, 1, ADD>(from + w * L, s.wide, s.padded, s.C, k, to + w * L, s.plane, count);
    }
  }
}

// sums[out][in][tap] of O channels out and I channels in; `step` from one channel out to the next
template <int K, int O, int I>
static inline void along(const Shape& s, const T* u, const T* g, double* sums, i64 step) {
  const int KK = K * K;
  V acc[O][I][KK];
  UNROLL for (int o = 0; o < O; o++) UNROLL for (int i = 0; i < I; i++) UNROLL for (int t = 0; t < KK; t++) acc[o][i][t] = V{};
  for (i64 h = 0; h < s.H; h++) for (i64 w = 0; w < s.W; w++) {
    const T *from = u + h * s.wide + w * L, *at = g + (h + 1) * s.wide + (w + 1) * L;
    V d[O];
    UNROLL for (int o = 0; o < O; o++) d[o] = LOAD(at + o * s.padded);
    UNROLL for (int i = 0; i < I; i++) UNROLL for (int ky = 0; ky < K; ky++) UNROLL for (int kx = 0; kx < K; kx++) {
      const V x = LOAD(from + i * s.padded + ky * s.wide + kx * L);
      UNROLL for (int o = 0; o < O; o++) acc[o][i][ky * K + kx] += d[o] * x;
    }
  }
  for (int o = 0; o < O; o++) for (int i = 0; i < I; i++) for (int t = 0; t < KK; t++) sums[o * step + i * KK + t] += across(acc[o][i][t]);
}

// sums (C, C, taps) of the products of the gradient g of a convolution's output with its input u, both with a border
template <int K, int O, int I> static void correlate(const Shape& s, const T* u, const T* g, double* sums) {
  const i64 C = s.C, step = C * K * K;
  if (K == 1) u += s.wide + L;
  i64 o = 0;
  for (; o + O <= C; o += O) {
    i64 i = 0;
    for (; i + I <= C; i += I) along<K, O, I>(s, u + i * s.padded, g + o * s.padded, sums + o * step + i * K * K, step);
    for (; i < C; i++) along<K, O, 1>(s, u + i * s.padded, g + o * s.padded, sums + o * step + i * K * K, step);
  }
  for (; o < C; o++) for (i64 i = 0; i < C; i++) along<K, 1, 1>(s, u + i * s.padded, g + o * s.padded, sums + o * step + i * K * K, step);
}

// ---- planes of a block ----

static inline i64 inside(i64 at, i64 size) { return 1 + (at > 0) + (at + 1 < size); }  // of three in a row

// Sums of 3x3 pixels of a plane with a border; `mean`: of those that are inside
static inline void box_row(const Shape& s, const T* u, i64 h, bool mean, T* column, T* to) {
  const T* from = u + h * s.wide;
  for (i64 w = 0; w < s.W + 2; w++)
    STORE(column + w * L, (LOAD(from + w * L) + LOAD(from + s.wide + w * L)) + LOAD(from + 2 * s.wide + w * L));
  const T inner = mean ? T(1) / T(inside(h, s.H) * 3) : T(1), outer = mean ? T(1) / T(inside(h, s.H) * inside(0, s.W)) : T(1);
  for (i64 w = 0; w < s.W; w++) {
    const T f = w && w + 1 < s.W ? inner : outer;
    STORE(to + w * L, LOAD(to + w * L) + f * ((LOAD(column + w * L) + LOAD(column + (w + 1) * L)) + LOAD(column + (w + 2) * L)));
  }
}

// mean, and sum of squares of what is centred by it, of a plane without its missing images
static void moments(const T* x, i64 pixels, i64 images, Mask there, double& mean, double& squares) {
  V s[4] = {V{}, V{}, V{}, V{}}, q[4] = {V{}, V{}, V{}, V{}};
  for (i64 p = 0; p < pixels; p++) s[p & 3] += LOAD(x + p * L);
  const T m = across((s[0] + s[1]) + (s[2] + s[3])) / (pixels * images);
  for (i64 p = 0; p < pixels; p++) {
    const V d = there ? LOAD(x + p * L) - m : V{};
    q[p & 3] += d * d;
  }
  mean = m;
  squares = across((q[0] + q[1]) + (q[2] + q[3]));
}

static double dot(const T* x, const T* y, T shift, i64 pixels) {  // sum of (x - shift) * y
  V s[4] = {V{}, V{}, V{}, V{}};
  i64 p = 0;
  for (; p + 4 <= pixels; p += 4) UNROLL for (int j = 0; j < 4; j++) s[j] += (LOAD(x + (p + j) * L) - shift) * LOAD(y + (p + j) * L);
  for (; p < pixels; p++) s[0] += (LOAD(x + p * L) - shift) * LOAD(y + p * L);
  return across((s[0] + s[1]) + (s[2] + s[3]));
}

static double total(const T* x, i64 pixels) {
  V s[4] = {V{}, V{}, V{}, V{}};
  for (i64 p = 0; p < pixels; p++) s[p & 3] += LOAD(x + p * L);
  return across((s[0] + s[1]) + (s[2] + s[3]));
}

struct Term { const T* x; T factor; };
typedef std::vector<Term> Terms;

// to (+)= start + the weighted sum of planes
template <bool ADD> static void weigh(const Terms& terms, T start, i64 pixels, T* to) {
  const int N = 4;
  const i64 count = terms.size();
  i64 p = 0;
  for (; p + N <= pixels; p += N) {
    V acc[N];
    UNROLL for (int j = 0; j < N; j++) acc[j] = (ADD ? LOAD(to + (p + j) * L) : V{}) + start;
    for (i64 k = 0; k < count; k++) {
      const T* x = terms[k].x + p * L; const T a = terms[k].factor;
      UNROLL for (int j = 0; j < N; j++) acc[j] += a * LOAD(x + j * L);
    }
    UNROLL for (int j = 0; j < N; j++) STORE(to + (p + j) * L, acc[j]);
  }
  for (; p < pixels; p++) {
    V acc = (ADD ? LOAD(to + p * L) : V{}) + start;
    for (i64 k = 0; k < count; k++) acc += terms[k].factor * LOAD(terms[k].x + p * L);
    STORE(to + p * L, acc);
  }
}

static Mask lanes(i64 images) {
  T flags[L];
  for (int l = 0; l < L; l++) flags[l] = l < images;
  return LOAD(flags) > V{};
}

// relu(x) with a border, which is 0 already
static void positive(const Shape& s, const T* x, T* u) {
  for (i64 c = 0; c < s.C; c++) for (i64 h = 0; h < s.H; h++) for (i64 w = 0; w < s.W; w++) {
    const V v = LOAD(x + c * s.plane + (h * s.W + w) * L);
    STORE(u + c * s.padded + (h + 1) * s.wide + (w + 1) * L, v < V{} ? V{} : v);  // not max: NaN must stay NaN
  }
}

// ---- forward ----

// What enters a node, for one block. scale: (num_convs, C); shift: (C), of all together.
static void enter(const Shape& s, const Plan& plan, i64 node, i64 b, const double* mix, const T* scale, const T* shift,
    T* const* states, T* const* z, T* border, T* column, T* to) {
  const Mask there = lanes(s.images(b));
  Terms added, pooled;
  for (i64 c = 0; c < s.C; c++, to += s.plane) {
    const i64 at = b * s.map + c * s.plane;
    added.clear(); pooled.clear();
    for (i64 k = 0; k < plan.num_convs; k++) if (plan.convs[k].target == node) added.push_back({z[k] + at, scale[k * s.C + c]});
    for (i64 k = 0; k < plan.num_scaled; k++) if (plan.scaled[k].target == node)
      (plan.scaled[k].pool ? pooled : added).push_back({states[plan.scaled[k].source] + at, T(mix[plan.scaled[k].place])});
    weigh<false>(added, shift[c], s.H * s.W, to);
    if (pooled.size()) {
      // The pool of a weighted sum is the sum of weighted pools.
      for (i64 h = 0; h < s.H; h++) {
        weigh<false>(pooled, T(0), s.W, border + (h + 1) * s.wide + L);
        for (Term& own : pooled) own.x += s.W * L;
      }
      for (i64 h = 0; h < s.H; h++) box_row(s, border, h, true, column, to + h * s.W * L);
    }
    if (s.images(b) < L) for (i64 p = 0; p < s.plane; p += L) STORE(to + p, there ? LOAD(to + p) : V{});
  }
}

static std::vector<T*> maps(const Shape& s, T* first, i64 count) {  // of one map after the other
  std::vector<T*> found;
  for (i64 n = 0; n < count; n++) found.push_back(first + n * s.blocks * s.map);
  return found;
}
static Plan plan_of(i64 nodes, i64 num_convs, const i64* convs, i64 num_scaled, const i64* scaled) {
  return {nodes, num_convs, num_scaled, (const Conv*)convs, (const Scaled*)scaled};
}

extern "C" {
i64 lanes_of_vectors() { return L; }

void open_cell(i64 B, i64 C, i64 H, i64 W, i64 nodes, i64 num_convs, const i64* convs, i64 num_scaled, const i64* scaled,
    const T* x, const i64* x_strides, const T* const* weights, const double* mix, i64 training, double eps, double* mean, double* var,
    T* kept, T* y, const i64* y_strides, i64 threads) {
  const Shape s(B, C, H, W);
  const std::vector<T*> states = maps(s, kept, nodes - 1), z = maps(s, kept + (nodes - 1) * s.blocks * s.map, num_convs);
  const Plan plan = plan_of(nodes, num_convs, convs, num_scaled, scaled);
  std::vector<Numbers> kernels;
  for (i64 k = 0; k < num_convs; k++) kernels.push_back(packed(weights[k], plan.convs[k], C, false));
  std::vector<double> means(s.blocks * num_convs * C), squares(s.blocks * num_convs * C);
  Numbers scale(num_convs * C), shift(C);
  for (i64 node = 0; node < nodes; node++) {
    #pragma omp parallel num_threads(threads)
    {
      Numbers u(node + 1 < nodes ? C * s.padded : 0, T(0)), border(s.padded, T(0)), column(s.wide), last(node + 1 < nodes ? 0 : s.map);
      #pragma omp for schedule(static)
      for (i64 b = 0; b < s.blocks; b++) {
        T* own = node + 1 < nodes ? states[node] + b * s.map : last.data();
        if (node == 0) load_block(x, *(const Strides*)x_strides, s, b, own);
        else enter(s, plan, node, b, mix, scale.data(), shift.data(), states.data(), z.data(), border.data(), column.data(), own);
        if (node + 1 == nodes) { store_block(own, *(const Strides*)y_strides, s, b, y); continue; }
        positive(s, own, u.data());
        for (i64 k = 0; k < num_convs; k++) {
          if (plan.convs[k].source != node) continue;
          T* to = z[k] + b * s.map;
          if (plan.convs[k].width == 1) convolve<1, false>(s, u.data(), kernels[k].data(), to);
          else convolve<3, false>(s, u.data(), kernels[k].data(), to);
          if (training) for (i64 c = 0; c < C; c++) {
            const i64 at = (b * num_convs + k) * C + c;
            moments(to + c * s.plane, H * W, s.images(b), lanes(s.images(b)), means[at], squares[at]);
          }
        }
      }
    }
    if (node + 1 == nodes) return;
    // The means of blocks meet (Chan, Golub and LeVeque), in their order.
    if (training) for (i64 k = 0; k < num_convs; k++) if (plan.convs[k].source == node) for (i64 c = 0; c < C; c++) {
      double m = 0, q = 0, n = 0;
      for (i64 b = 0; b < s.blocks; b++) {
        const i64 at = (b * num_convs + k) * C + c;
        const double more = double(s.images(b)) * H * W, d = means[at] - m;
        q += squares[at] + d * d * n * more / (n + more);
        m += d * more / (n + more);
        n += more;
      }
      mean[k * C + c] = m; var[k * C + c] = q / n;
    }
    std::vector<double> sums(C, 0.0);
    for (i64 k = 0; k < num_convs; k++) if (plan.convs[k].target == node + 1) for (i64 c = 0; c < C; c++) {
      const double factor = mix[plan.convs[k].place] / std::sqrt(var[k * C + c] + eps);
      scale[k * C + c] = factor;
      sums[c] -= double(scale[k * C + c]) * mean[k * C + c];
    }
    for (i64 c = 0; c < C; c++) shift[c] = sums[c];
  }
}

// ---- backward ----

void open_cell_backward(i64 B, i64 C, i64 H, i64 W, i64 nodes, i64 num_convs, const i64* convs, i64 num_scaled, const i64* scaled,
    const T* gy, const i64* gy_strides, const T* const* weights, const double* mix, i64 training, double eps, const double* mean,
    const double* var, T* kept, T* room, T* gx, const i64* gx_strides, T* const* gweights, double* gmix, i64 threads) {
  const Shape s(B, C, H, W);
  const std::vector<T*> states = maps(s, kept, nodes - 1), z = maps(s, kept + (nodes - 1) * s.blocks * s.map, num_convs);
  // Of all nodes, and of what their pools read: of the first node neither is written.
  const std::vector<T*> grads = maps(s, room, nodes), pooled = maps(s, room + nodes * s.blocks * s.map, nodes);
  const Plan plan = plan_of(nodes, num_convs, convs, num_scaled, scaled);
  const double count = double(B) * H * W;
  std::vector<Numbers> kernels;
  std::vector<i64> start(num_convs, 0);
  i64 largest = 0;
  for (i64 k = 0; k < num_convs; k++) kernels.push_back(packed(weights[k], plan.convs[k], C, true));
  for (i64 node = 0; node < nodes; node++) {
    i64 size = 0;
    for (i64 k = 0; k < num_convs; k++) if (plan.convs[k].source == node && gweights[k]) {
      start[k] = size;
      size += C * C * plan.convs[k].width * plan.convs[k].width;
    }
    largest = largest > size ? largest : size;
  }
  std::vector<bool> pools(nodes, false);
  for (i64 k = 0; k < num_scaled; k++) if (plan.scaled[k].pool) pools[plan.scaled[k].target] = true;
  // Of what enters a node, by block: the sum of its gradient, the gradient along every map
  std::vector<double> sums(s.blocks * C), dots(s.blocks * num_convs * C), along_scaled(s.blocks * num_scaled), weight_sums(s.blocks * largest);
  // The gradient of a convolution's output is a G + b z + c, of the gradient G of its node.
  Numbers factors(num_convs * 3 * C);
  for (i64 node = nodes - 1; node >= 0; node--) {
    const bool inner = node + 1 < nodes;
    if (node == 0 && !gx) {
      bool any = false;
      for (i64 k = 0; k < num_convs; k++) any |= plan.convs[k].source == 0 && gweights[k];
      if (!any) return;
    }
    std::fill(weight_sums.begin(), weight_sums.end(), 0.0);
    #pragma omp parallel num_threads(threads)
    {
      Numbers u(inner ? C * s.padded : 0, T(0)), v(inner ? C * s.padded : 0, T(0)), border(s.padded, T(0)), column(s.wide), first(node ? 0 : s.map);
      Terms terms;
      #pragma omp for schedule(static)
      for (i64 b = 0; b < s.blocks; b++) {
        const i64 at = b * s.map;
        T* g = node ? grads[node] + at : first.data();
        if (!inner) load_block(gy, *(const Strides*)gy_strides, s, b, g);
        else {
          const T* x = states[node] + at;
          std::fill(g, g + s.map, T(0));
          positive(s, x, u.data());
          for (i64 k = 0; k < num_convs; k++) {
            const Conv& own = plan.convs[k];
            if (own.source != node) continue;
            for (i64 c = 0; c < C; c++) {
              const T *f = &factors[k * 3 * C + c], *G = grads[own.target] + at + c * s.plane, *from = z[k] + at + c * s.plane;
              const T f0 = f[0], f1 = f[C], f2 = f[2 * C];
              for (i64 h = 0; h < H; h++) for (i64 w = 0; w < W; w++) {
                const i64 p = (h * W + w) * L;
                STORE(&v[c * s.padded + (h + 1) * s.wide + (w + 1) * L], f0 * LOAD(G + p) + (f1 * LOAD(from + p) + f2));
              }
            }
            double* to = &weight_sums[b * largest + start[k]];
            if (own.width == 1) {
              if (gweights[k]) correlate<1, 4, 2 * PAIR>(s, u.data(), v.data(), to);
              convolve<1, true>(s, v.data(), kernels[k].data(), g);
            } else {
              if (gweights[k]) correlate<3, PAIR, 1>(s, u.data(), v.data(), to);
              convolve<3, true>(s, v.data(), kernels[k].data(), g);
            }
          }
          for (i64 c = 0; c < C; c++) {
            T* own = g + c * s.plane;
            for (i64 p = 0; p < s.plane; p += L) STORE(own + p, LOAD(x + c * s.plane + p) <= V{} ? V{} : LOAD(own + p));
            terms.clear();
            for (i64 k = 0; k < num_scaled; k++) if (plan.scaled[k].source == node) {
              const T* G = (plan.scaled[k].pool ? pooled : grads)[plan.scaled[k].target] + at + c * s.plane;
              terms.push_back({G, T(mix[plan.scaled[k].place])});
            }
            if (terms.size()) weigh<true>(terms, T(0), H * W, own);
          }
        }
        if (node == 0) {
          if (gx) store_block(g, *(const Strides*)gx_strides, s, b, gx);
          continue;
        }
        for (i64 k = 0; k < num_scaled; k++) along_scaled[b * num_scaled + k] = 0;
        for (i64 c = 0; c < C; c++) {
          const T* own = g + c * s.plane;
          sums[b * C + c] = total(own, H * W);
          for (i64 k = 0; k < num_convs; k++) if (plan.convs[k].target == node)
            dots[(b * num_convs + k) * C + c] = dot(z[k] + at + c * s.plane, own, T(mean[k * C + c]), H * W);
          T* turned = pools[node] ? pooled[node] + at + c * s.plane : 0;  // the gradient of what is pooled
          if (turned) {
            for (i64 h = 0; h < H; h++) for (i64 w = 0; w < W; w++)
              STORE(&border[(h + 1) * s.wide + (w + 1) * L], LOAD(own + (h * W + w) * L) * (T(1) / T(inside(h, H) * inside(w, W))));
            std::fill(turned, turned + s.plane, T(0));
            for (i64 h = 0; h < H; h++) box_row(s, border.data(), h, false, column.data(), turned + h * W * L);
          }
          for (i64 k = 0; k < num_scaled; k++) if (plan.scaled[k].target == node)
            along_scaled[b * num_scaled + k] += dot(states[plan.scaled[k].source] + at + c * s.plane, plan.scaled[k].pool ? turned : own, T(0), H * W);
        }
      }
    }
    for (i64 k = 0; k < num_convs; k++) if (inner && plan.convs[k].source == node && gweights[k]) {
      const Conv& own = plan.convs[k];
      const double* from = &weight_sums[start[k]];
      for (i64 o = 0; o < C; o++) for (i64 i = 0; i < C; i++) for (i64 ky = 0; ky < own.width; ky++) for (i64 kx = 0; kx < own.width; kx++) {
        double sum = 0;
        for (i64 b = 0; b < s.blocks; b++) sum += from[b * largest + ((o * C + i) * own.width + ky) * own.width + kx];
        gweights[k][o * own.gradient.image + i * own.gradient.channel + ky * own.gradient.row + kx * own.gradient.pixel] = sum;
      }
    }
    if (node == 0) return;
    std::vector<double> all(C, 0.0);
    for (i64 b = 0; b < s.blocks; b++) for (i64 c = 0; c < C; c++) all[c] += sums[b * C + c];
    for (i64 k = 0; k < num_scaled; k++) if (plan.scaled[k].target == node)
      for (i64 b = 0; b < s.blocks; b++) gmix[plan.scaled[k].place] += along_scaled[b * num_scaled + k];
    for (i64 k = 0; k < num_convs; k++) if (plan.convs[k].target == node) for (i64 c = 0; c < C; c++) {
      const i64 at = k * C + c;
      const double inverse = 1 / std::sqrt(var[at] + eps), a = mix[plan.convs[k].place] * inverse;
      double sum = 0;
      for (i64 b = 0; b < s.blocks; b++) sum += dots[(b * num_convs + k) * C + c];
      sum = inverse * (sum - (mean[at] - double(T(mean[at]))) * all[c]);  // of the gradient along the normalised map
      gmix[plan.convs[k].place] += sum;
      const double slope = training ? -a * inverse * sum / count : 0;
      factors[k * 3 * C + c] = a;
      factors[k * 3 * C + C + c] = slope;
      factors[k * 3 * C + 2 * C + c] = training ? -a * all[c] / count - slope * mean[at] : 0;
    }
  }
}
}
