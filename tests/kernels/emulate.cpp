/* emulate.cpp - the kernels' own text, run on the CPU (emulator.h): the layouts, the fragments' indices, the protocol
 * of barriers and the invariance of rows are tested where there is no GPU.
 *
 *   1. weights come back: with one-hot inputs the product is the weight that dequant_row() gives;
 *   2. random products, compared with double-precision ones;
 *   3. a row's bits are the same for every number of rows, other tokens beside it, and every shape of the block.
 *
 * emulate [seed]
 */
#include "tests/kernels/emulator.h"

#include "tests/kernels/blocks.h"

static int failures;

static void check(bool ok, const char *what) {
    if (!ok && failures++ < 20)
        fprintf(stderr, "FAILED: %s\n", what);
}

#include "codegen/kernels/repack.cu"

/* In namespaces below; these must be outside. */
#include "codegen/kernels/matmul_rows.cu"
#include "codegen/kernels/matmul_tiles.cu"

typedef void Repack(const u8 *, u8 *, int, int);

struct TileSpec {
    const char *type, *form;
    DType dtype;
    int k, bytes;
    bool exact;
    Repack *repack;
};
static const TileSpec specs[] = {
#define TILE(type, form, k, bytes, exact) {#type, #form, DT_##type, k, bytes, exact, repack_##type},
#include "codegen/kernels/tiles.def"
#undef TILE
};

static const TileSpec *spec_of(DType t) {
    for (const TileSpec &s : specs)
        if (s.dtype == t)
            return &s;
    return nullptr;
}

/* ==== Shapes ==== */

/* Every type, whole superblocks, two slices. */
#define MM_SEGMENTS(X)                                                                                                 \
    X(0, Q4_K, 40) X(1, Q5_K, 16) X(2, Q6_K, 17) X(3, Q4_0, 33) X(4, Q4_1, 16) X(5, Q5_0, 1) X(6, Q5_1, 20)            \
    X(7, Q8_0, 24) X(8, Q8_0, 16) X(9, PLAIN, 18) X(10, PLAIN, 16) X(11, PLAIN, 5) X(12, PLAIN, 16) X(13, PLAIN, 16)   \
    X(14, PLAIN, 31) X(15, PLAIN, 16)
#define MM_FORMS(X) X(Q4_K) X(Q5_K) X(Q6_K) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(PLAIN)
static const DType all_types[] = {DT_Q4_K, DT_Q5_K, DT_Q6_K,   DT_Q4_0, DT_Q4_1, DT_Q5_0, DT_Q5_1,   DT_Q8_0,
                                  DT_IQ4_NL, DT_F32, DT_F16, DT_BF16, DT_Q2_K, DT_Q3_K, DT_IQ4_XS, DT_MXFP4};
#define MM_K 768
#define MM_WARP_K 256
#define MM_WARPS 2
#define MM_BLOCKS 1

#define CASE all_small
#define MM_NAME matmul
#define MM_NT 1
#define MM_GROUPS 1
#define MM_STAGES 3
#define MM_X_SHARED 0
#include "tests/kernels/emulate_case.inc"

#define CASE all_large
#define MM_NAME matmul
#define MM_NT 2
#define MM_GROUPS 2
#define MM_STAGES 2
#define MM_X_SHARED 1
#include "tests/kernels/emulate_case.inc"

#undef MM_SEGMENTS
#undef MM_FORMS
#undef MM_K
#undef MM_WARP_K
#undef MM_WARPS

/* Blocks of 32 only: K ends within a tile, within a warp's columns and within a slice. */
#define MM_SEGMENTS(X)                                                                                                 \
    X(0, Q4_0, 40) X(1, Q4_1, 16) X(2, Q5_0, 30) X(3, Q5_1, 20) X(4, Q8_0, 24) X(5, PLAIN, 18) X(6, Q8_0, 16)          \
    X(7, PLAIN, 16)
#define MM_FORMS(X) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(PLAIN)
static const DType odd_types[] = {DT_Q4_0, DT_Q4_1, DT_Q5_0, DT_Q5_1, DT_Q8_0, DT_BF16, DT_IQ4_NL, DT_MXFP4};
#define MM_K 608
#define MM_WARP_K 128
#define MM_WARPS 3

#define CASE odd_small
#define MM_NAME matmul
#define MM_NT 1
#define MM_GROUPS 2
#define MM_STAGES 4
#define MM_X_SHARED 0
#include "tests/kernels/emulate_case.inc"

#define CASE odd_large
#define MM_NAME matmul
#define MM_NT 2
#define MM_GROUPS 1
#define MM_STAGES 1
#define MM_X_SHARED 0
#include "tests/kernels/emulate_case.inc"

#undef MM_WARP_K
#undef MM_WARPS
#define MM_WARP_K 64
#define MM_WARPS 10

#define CASE odd_narrow
#define MM_NAME matmul
#define MM_NT 1
#define MM_GROUPS 1
#define MM_STAGES 4
#define MM_X_SHARED 1
#include "tests/kernels/emulate_case.inc"

/* ==== Weights ==== */

/* The segments of a launch: as in the file, as tiles, and as numbers. */
struct Matrices {
    int k = 0, rows = 0;
    std::vector<DType> type_of_row;
    std::vector<std::vector<u8>> tiles;
    std::vector<float> weights; /* [rows][k] */
};

static Matrices make(const DType *types, const std::vector<int> &rows, int k, uint64_t *seed) {
    Matrices m;
    m.k = k;
    for (size_t i = 0; i < rows.size(); i++) {
        const TileSpec *s = spec_of(types[i]);
        const size_t row_bytes = dtype_row_bytes(s->dtype, k);
        std::vector<u8> file((size_t)rows[i] * row_bytes);
        for (int r = 0; r < rows[i]; r++) {
            random_row(s->dtype, file.data() + (size_t)r * row_bytes, k, seed);
            m.weights.resize((size_t)(m.rows + 1) * (size_t)k);
            dequant_row(s->dtype, file.data() + (size_t)r * row_bytes, &m.weights[(size_t)m.rows++ * (size_t)k], k);
            m.type_of_row.push_back(s->dtype);
        }
        const int tiles = (rows[i] + 15) / 16 * ((k + s->k - 1) / s->k);
        std::vector<u8> to((size_t)tiles * (size_t)s->bytes, 0xff);
        check(run_kernel((tiles + 3) / 4, 1, 128, [&] { s->repack(file.data(), to.data(), rows[i], k); }), s->type);
        m.tiles.push_back(to);
    }
    return m;
}

typedef void Multiply(const std::vector<std::vector<u8>> &, const float *, int, std::vector<float> &);

/* Largest error of a weight that comes back, relative to the largest weight of its row: f32 rounding of d * code -
 * min in another order, or a rounding to f16 on the way (Q6_K and PLAIN). */
static double weight_tolerance(DType t) {
    const TileSpec *s = spec_of(t);
    const bool rounded = t == DT_Q6_K || !s->exact;
    return rounded ? 0x1p-11 : 0x1p-21;
}

static void weights_come_back(const char *name, const Matrices &m, Multiply *multiply) {
    std::vector<float> x((size_t)(8 * m.k)), product, largest((size_t)m.rows);
    double worst[DT_COUNT] = {0};
    for (int r = 0; r < m.rows; r++)
        for (int k = 0; k < m.k; k++)
            largest[(size_t)r] = fmaxf(largest[(size_t)r], fabsf(m.weights[(size_t)r * (size_t)m.k + (size_t)k]));
    for (int first = 0; first < m.k; first += 8) {
        std::fill(x.begin(), x.end(), 0.0f);
        for (int i = 0; i < 8; i++)
            x[(size_t)(i * m.k + first + i)] = 1.0f;
        multiply(m.tiles, x.data(), 8, product);
        for (int i = 0; i < 8; i++)
            for (int r = 0; r < m.rows; r++) {
                const float wanted = m.weights[(size_t)(r * m.k + first + i)];
                const double error = fabs((double)product[(size_t)(i * m.rows + r)] - wanted) / largest[(size_t)r];
                double &w = worst[m.type_of_row[(size_t)r]];
                w = error <= w ? w : error; /* a NaN counts */
            }
    }
    for (int t = 0; t < DT_COUNT; t++)
        if (std::count(m.type_of_row.begin(), m.type_of_row.end(), (DType)t)) {
            const bool ok = worst[t] <= weight_tolerance((DType)t);
            printf("%s: %-7s weights come back within %.1e%s\n", name, dtype_name((DType)t), worst[t],
                   ok ? "" : "  <-- FAILED");
            check(ok, "weights come back");
        }
}

static void products(const char *name, const Matrices &m, Multiply *multiply, int live, uint64_t *seed,
                     std::vector<float> &x, std::vector<float> &product) {
    x.resize((size_t)(live * m.k));
    random_input(x.data(), live * m.k, seed);
    multiply(m.tiles, x.data(), live, product);
    double error[DT_COUNT] = {0}, size[DT_COUNT] = {0};
    for (int i = 0; i < live; i++)
        for (int r = 0; r < m.rows; r++) {
            double wanted = 0;
            for (int k = 0; k < m.k; k++)
                wanted += (double)m.weights[(size_t)(r * m.k + k)] * x[(size_t)(i * m.k + k)];
            const double d = product[(size_t)(i * m.rows + r)] - wanted;
            error[m.type_of_row[(size_t)r]] += d * d;
            size[m.type_of_row[(size_t)r]] += wanted * wanted;
        }
    for (int t = 0; t < DT_COUNT; t++)
        if (size[t] > 0) {
            const double relative = sqrt(error[t] / size[t]);
            printf("%s: %-7s %2d rows, relative error %.1e\n", name, dtype_name((DType)t), live, relative);
            check(relative < 6e-4, "products");
        }
}

/* The rows of `all`, alone or a few at a time, by another shape of the kernel. */
static void same_bits(const char *name, const Matrices &m, Multiply *multiply, int first, int live,
                      const std::vector<float> &x, const std::vector<float> &all) {
    std::vector<float> product;
    multiply(m.tiles, &x[(size_t)(first * m.k)], live, product);
    const bool ok = !memcmp(product.data(), &all[(size_t)(first * m.rows)], product.size() * 4);
    printf("%s: rows %d..%d the same bits as among all: %s\n", name, first, first + live - 1, ok ? "yes" : "NO");
    check(ok, "rows are invariant");
}

int main(int argc, char **argv) {
    uint64_t seed = argc > 1 ? strtoull(argv[1], nullptr, 0) : 20240817;
    printf("seed %llu\n", (unsigned long long)seed);
    std::vector<float> x, product;

    const Matrices all = make(all_types, all_small::segment_rows, 768, &seed);
    weights_come_back("all", all, all_small::multiply);
    products("all, 16 rows", all, all_large::multiply, 16, &seed, x, product);
    const int lives[][2] = {{0, 1}, {3, 2}, {5, 5}, {8, 8}};
    for (const auto &l : lives)
        same_bits("all, 8 rows", all, all_small::multiply, l[0], l[1], x, product);
    same_bits("all, 16 rows", all, all_large::multiply, 4, 9, x, product);

    const Matrices odd = make(odd_types, odd_small::segment_rows, 608, &seed);
    weights_come_back("odd", odd, odd_small::multiply);
    products("odd, 16 rows", odd, odd_large::multiply, 13, &seed, x, product);
    same_bits("odd, 8 rows", odd, odd_small::multiply, 6, 7, x, product);
    products("narrow", odd, odd_narrow::multiply, 3, &seed, x, product);
    printf(failures ? "%d failures\n" : "all is well\n", failures);
    return failures != 0;
}
