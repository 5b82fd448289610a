/* emulate.cpp - the kernels' own text, run on the CPU (emulator.h): the layouts, the fragments' indices, the protocol
 * of barriers and the invariance of rows are tested where there is no GPU.
 *
 *   1. weights come back: with one-hot inputs the product is the weight that dequant_row() gives;
 *   2. random products, compared with double-precision ones, of one matrix or of the experts of each row;
 *   3. a row's bits are the same for every number of rows, other tokens beside it, every shape of the block and grid;
 *   4. what runs behind the matmul in the same launch sees all of it.
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
#include "codegen/kernels/tail.cu"

typedef void Repack(const u8 *, u8 *, int, int);

struct TileSpec {
    const char *type, *form;
    DType dtype;
    int k, bytes;
    bool exact;
    Repack *repack;
};
static const TileSpec specs[] = {
#define QUANT(type, text, id, elems, block_bytes, form, k, bytes, exact)                                               \
    {#type, #form, DT_##type, k, bytes, exact, repack_##type},
#include "ir/quants.def"
#undef QUANT
};

static const TileSpec *spec_of(DType t) {
    for (const TileSpec &s : specs)
        if (s.dtype == t)
            return &s;
    return nullptr;
}

/* ==== Weights ==== */

/* The segments of a launch: as in the file, as tiles, and as numbers. Each is a stack of `count` matrices. */
struct Matrices {
    int k = 0, rows = 0, count = 1; /* rows of all segments */
    std::vector<DType> type_of_row;
    std::vector<std::vector<u8>> tiles;
    std::vector<float> weights; /* [count][rows][k] */

    const float *row(int matrix, int r) const {
        return &weights[((size_t)matrix * (size_t)rows + (size_t)r) * (size_t)k];
    }
};

static Matrices make(const DType *types, const std::vector<int> &rows, int k, int count, uint64_t *seed) {
    Matrices m;
    m.k = k;
    m.count = count;
    for (int n : rows)
        m.rows += n;
    m.weights.resize((size_t)count * (size_t)m.rows * (size_t)k);
    int first = 0;
    for (size_t i = 0; i < rows.size(); first += rows[i], i++) {
        const TileSpec *s = spec_of(types[i]);
        const size_t row_bytes = dtype_row_bytes(s->dtype, k);
        std::vector<u8> file((size_t)(count * rows[i]) * row_bytes);
        for (int r = 0; r < count * rows[i]; r++) {
            u8 *row = file.data() + (size_t)r * row_bytes;
            random_row(s->dtype, row, k, seed);
            dequant_row(s->dtype, row, (float *)m.row(r / rows[i], first + r % rows[i]), k);
        }
        m.type_of_row.insert(m.type_of_row.end(), (size_t)rows[i], s->dtype);
        const int tiles = (rows[i] + 15) / 16 * ((k + s->k - 1) / s->k);
        std::vector<u8> to((size_t)(count * tiles) * (size_t)s->bytes, 0xff);
        check(run_kernel((tiles + 3) / 4, count, 128, [&] { s->repack(file.data(), to.data(), rows[i], k); }), s->type);
        m.tiles.push_back(to);
    }
    return m;
}

/* ==== Shapes ==== */

static int blocks_a_slice = 2;

/* A kernel: rows x [live][k], or with x_pairs [live][slots][k], through matrices ids [live][slots]. */
struct Case {
    void (*multiply)(const Matrices &, const float *x, const int *ids, int live, std::vector<float> &product);
    int k, slots;
    bool x_pairs;

    int x_row() const { /* numbers of a row */
        return x_pairs ? slots * k : k;
    }
};

#include "tests/kernels/emulate_cases.inc"

/* ==== Checks ==== */

/* Largest error of a weight that comes back, relative to the largest weight of its row: f32 rounding of d * code -
 * min in another order, or a rounding to f16 on the way (Q6_K and PLAIN). */
static double weight_tolerance(DType t) {
    const TileSpec *s = spec_of(t);
    const bool rounded = t == DT_Q6_K || !s->exact;
    return rounded ? 0x1p-11 : 0x1p-21;
}

static void weights_come_back(const char *name, const Matrices &m, const Case &c) {
    std::vector<float> x((size_t)(8 * m.k)), product, largest((size_t)m.rows);
    double worst[DT_COUNT] = {0};
    for (int r = 0; r < m.rows; r++)
        for (int k = 0; k < m.k; k++)
            largest[(size_t)r] = fmaxf(largest[(size_t)r], fabsf(m.row(0, r)[k]));
    for (int first = 0; first < m.k; first += 8) {
        std::fill(x.begin(), x.end(), 0.0f);
        for (int i = 0; i < 8 && first + i < m.k; i++)
            x[(size_t)(i * m.k + first + i)] = 1.0f;
        c.multiply(m, x.data(), nullptr, 8, product);
        for (int i = 0; i < 8 && first + i < m.k; i++)
            for (int r = 0; r < m.rows; r++) {
                const float wanted = m.row(0, r)[first + i];
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

/* What a run was given and gave. */
struct Run {
    int live = 0;
    std::vector<float> x, product;
    std::vector<int> ids;
};

static void run(const char *name, const Matrices &m, const Case &c, Run &run) {
    c.multiply(m, run.x.data(), run.ids.data(), run.live, run.product);
    double error[DT_COUNT] = {0}, size[DT_COUNT] = {0};
    for (int i = 0; i < run.live * c.slots; i++) {
        const float *x = &run.x[(size_t)((c.x_pairs ? i : i / c.slots) * m.k)];
        for (int r = 0; r < m.rows; r++) {
            double wanted = 0;
            for (int k = 0; k < m.k; k++)
                wanted += (double)m.row(run.ids[(size_t)i], r)[k] * x[k];
            const double d = run.product[(size_t)(i * m.rows + r)] - wanted;
            error[m.type_of_row[(size_t)r]] += d * d;
            size[m.type_of_row[(size_t)r]] += wanted * wanted;
        }
    }
    for (int t = 0; t < DT_COUNT; t++)
        if (size[t] > 0) {
            const double relative = sqrt(error[t] / size[t]);
            printf("%s: %-7s %2d rows, relative error %.1e\n", name, dtype_name((DType)t), run.live, relative);
            check(relative < 6e-4, "products");
        }
}

/* Random rows through random experts. */
static Run products(const char *name, const Matrices &m, const Case &c, int live, uint64_t *seed) {
    Run r;
    r.live = live;
    r.x.resize((size_t)(live * c.x_row()));
    random_input(r.x.data(), (int64_t)r.x.size(), seed);
    for (int i = 0; i < live * c.slots; i++)
        r.ids.push_back((int)(random_next(seed) % (uint64_t)m.count));
    run(name, m, c, r);
    return r;
}

/* Rows of `all`, alone or a few at a time, by another shape of the kernel. */
static void same_bits(const char *name, const Matrices &m, const Case &c, int first, int live, const Run &all) {
    std::vector<float> product;
    c.multiply(m, &all.x[(size_t)(first * c.x_row())], &all.ids[(size_t)(first * c.slots)], live, product);
    const bool ok = !memcmp(product.data(), &all.product[(size_t)(first * c.slots * m.rows)], product.size() * 4);
    printf("%s: rows %d..%d the same bits as among all: %s\n", name, first, first + live - 1, ok ? "yes" : "NO");
    check(ok, "rows are invariant");
}

static void matrices(uint64_t *seed) {
    const Matrices all = make(all_types, all_small::segment_rows, all_small::self.k, 1, seed);
    weights_come_back("all", all, all_small::self);
    const Run r = products("all, 16 rows", all, all_large::self, 16, seed);
    const int lives[][2] = {{0, 1}, {3, 2}, {5, 5}, {8, 8}};
    for (const auto &l : lives)
        same_bits("all, 8 rows", all, all_small::self, l[0], l[1], r);
    blocks_a_slice = 5;
    same_bits("all, 16 rows", all, all_large::self, 4, 9, r);
    blocks_a_slice = 30; /* more than strips */
    same_bits("all, 16 rows", all, all_large::self, 6, 10, r);
    same_bits("all, 8 rows", all, all_small::self, 6, 4, r);
    blocks_a_slice = 2;

    const Matrices odd = make(odd_types, odd_small::segment_rows, odd_small::self.k, 1, seed);
    weights_come_back("odd", odd, odd_small::self);
    same_bits("odd, 8 rows", odd, odd_small::self, 6, 7, products("odd, 16 rows", odd, odd_large::self, 13, seed));
    products("narrow", odd, odd_narrow::self, 3, seed);

    const Matrices prime = make(prime_types, prime_small::segment_rows, prime_small::self.k, 1, seed);
    weights_come_back("prime", prime, prime_small::self);
    same_bits("prime, 8 rows", prime, prime_small::self, 9, 3,
              products("prime, 16 rows", prime, prime_large::self, 16, seed));
}

/* 1..16 rows of random experts; then rows that all name one expert, some of them more than once. */
static void experts(const char *name, const DType *types, const std::vector<int> &rows, const Case &small,
                    const Case &large, uint64_t *seed) {
    const Matrices m = make(types, rows, small.k, 7, seed);
    Run r = products(name, m, large, 16, seed);
    const int lives[][2] = {{0, 1}, {15, 1}, {2, 4}, {8, 8}};
    for (const auto &l : lives)
        same_bits(name, m, small, l[0], l[1], r);
    blocks_a_slice = 3;
    same_bits(name, m, large, 3, 11, r);
    for (size_t i = 0; i < r.ids.size(); i++)
        r.ids[i] = i % 4 == 1 ? 6 : 2;
    run(name, m, large, r);
    for (const auto &l : lives)
        same_bits(name, m, small, l[0], l[1], r);
    blocks_a_slice = 2;
}

/* The default tail as a kernel of its own, more rows than blocks. */
namespace rowwise_case {
#define ROW_NAME    add_planes
#define ROW_THREADS 64
#define TAIL_PLANES 2
#define TAIL_ROWS   8
#define TAIL_N      100
#include "codegen/kernels/rowwise.cu"
DYNAMIC_SHARED_MEMORY shared_bytes[ROW_SHARED];

static void test() {
    std::vector<float> planes(2 * 8 * 100), sum(8 * 100, NAN);
    for (size_t i = 0; i < planes.size(); i++)
        planes[i] = (float)((i * 7919) % 1000) - 300.0f;
    const int live = 7;
    check(run_kernel(3, 1, ROW_THREADS, [&] { add_planes(&live, planes.data(), sum.data()); }), "rowwise ends");
    bool same = true;
    for (size_t r = 0; r < 8; r++) {
        float largest = 0.0f;
        for (size_t e = 0; e < 100; e++)
            largest = fmaxf(largest, fabsf(planes[r * 100 + e] + planes[(8 + r) * 100 + e]));
        for (size_t e = 0; e < 100; e++)
            same &= r < (size_t)live ? sum[r * 100 + e] == (planes[r * 100 + e] + planes[(8 + r) * 100 + e]) / largest
                                     : std::isnan(sum[r * 100 + e]);
    }
    check(same, "rowwise");
}
} // namespace rowwise_case

int main(int argc, char **argv) {
    uint64_t seed = argc > 1 ? strtoull(argv[1], nullptr, 0) : 20240817;
    printf("seed %llu\n", (unsigned long long)seed);
    rowwise_case::test();
    matrices(&seed);
    experts("experts, gate", gate_types, gate_small::segment_rows, gate_small::self, gate_large::self, &seed);
    experts("experts, down", down_types, down_small::segment_rows, down_small::self, down_large::self, &seed);
    printf(failures ? "%d failures\n" : "all is well\n", failures);
    return failures != 0;
}
