/* attention_choose.cu - sparse prefill: each block of queries and head scores the mean keys of all blocks before it and
 * keeps those that count (FlashPrefill; ir/eval_sparse.c has the definition and its source).
 *
 *   z[i,n]  = logit of q[i] . mean[n], in powers of two, for rows i that have all of block n behind them or end with it
 *   P[n]    = sum over those rows of 2^z[i,n], held as log2: one reference for all rows of the block, so blocks compare
 *   kept n  if log2 P[n] >= SPARSE_LIMIT + the largest, or n < SPARSE_SINK, or m - n < SPARSE_LOCAL; or all are kept, by
 *           the last SPARSE_TAIL blocks of the prompt and by those that begin before SPARSE_FROM. A NaN is kept.
 *
 * Contract
 *   ATT_NAME       the kernel's name; the macros of attention_layout.cu and attention_kept.cu; SPARSE_* above, of which
 *                  SPARSE_LIMIT is log2(alpha), 0 < alpha <= 1
 *   variant.body   with ATT_SCORE also score_of_mean(s, q, k, h): score() at the middle of a block, of which k is the
 *                  position or, where it lies between two, the lower one
 *   parameters     q16 u16 [rows][ATT_HEADS][ATT_K_DIM], prepared; means (attention_means.cu); kept, written;
 *                  query_pos: of each row, ascending; slots[0]: the sequence; lengths: by sequence, positions after this
 *                  call; query_count: live rows; ahead[0]: positions of the prompt behind this call; TABLE_PARAMETERS
 *   launch         grid (ATT_HEADS, about 2 * ceil(rows / SPARSE_BLOCK)): a block of threads takes a query block and,
 *                  if there are more of them, further ones. Block CHOOSE_THREADS = 2 * min(128, SPARSE_BLOCK rounded up
 *                  to 32 or 64). Dynamic shared memory CHOOSE_SHARED, the sum of
 *                    stages     3 * (CHOOSE_THREADS / 2 + 64) * (2 * columns + 16), columns: the largest of 64, 32, 16
 *                               that divides ATT_K_DIM
 *                    partial    512 * (CHOOSE_THREADS / 64)
 *                    scores     128 * SPARSE_WORDS
 *
 * How: a matrix product of up to 128 rows and 64 means a tile, over ATT_K_DIM in steps of 64 columns through a ring of
 * three stages; a warp has 32 rows and 32 means. All scores of a query block and head stay in shared memory until the
 * largest is known. Of full attention's products these are one in 2 * SPARSE_BLOCK.
 */
#ifndef ATT_NAME
#define ATT_NAME attention_choose
#endif

#include "attention_kept.cu"

#ifndef SPARSE_LIMIT
#define SPARSE_LIMIT -3.0588937f
#define SPARSE_SINK  2
#define SPARSE_LOCAL 4
#define SPARSE_TAIL  2
#define SPARSE_FROM  0
#endif

constexpr int choose_rows = SPARSE_BLOCK > 64 ? 128 : SPARSE_BLOCK > 32 ? 64 : 32, choose_means = 64;
constexpr int choose_columns = ATT_K_DIM % 64 == 0 ? 64 : ATT_K_DIM % 32 == 0 ? 32 : 16;
constexpr int choose_stages = 3, choose_stride = row_bytes(choose_columns);
constexpr int choose_stage = (choose_rows + choose_means) * choose_stride, row_groups = choose_rows / 32;
#define CHOOSE_THREADS    (2 * choose_rows)
#define CHOOSE_PARTIAL_AT (choose_stages * choose_stage)
#define CHOOSE_SCORES_AT  (CHOOSE_PARTIAL_AT + row_groups * choose_means * 8)
#define CHOOSE_SHARED     (CHOOSE_SCORES_AT + 128 * SPARSE_WORDS)

DYNAMIC_SHARED u8 shared_bytes[];

/* Of a mean and a warp's rows: the largest z, or 0 if it is -infinity, and the sum of 2^(z - it). */
DEVICE float2 *partial(int group) {
    return (float2 *)(shared_bytes + CHOOSE_PARTIAL_AT) + group * choose_means;
}

DEVICE float *scores() {
    return (float *)(shared_bytes + CHOOSE_SCORES_AT);
}

/* ==== A query block and head ==== */

struct Queries {
    int m, head;
    int first, rows; /* of the call */
    int whole;       /* blocks of keys that some row has behind it or ends with */
};

/* Rows at positions before `pos`: as many as there are positions from the first row's on, if rows are consecutive, and
 * never more. */
DEVICE int rows_before(const int *query_pos, int count, int pos) {
    const int span = pos - query_pos[0];
    int low = 0, high = span < 0 ? 0 : span < count ? span : count;
    if (high == 0 || query_pos[high - 1] < pos)
        return high;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (query_pos[middle] < pos)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The sum of two, all as log2; nothing is -infinity, and a NaN stays. */
DEVICE float add_log2(float a, float b) {
    const float most = fmaxf(a, b), base = most == minus_infinity() ? 0.0f : most;
    return base + log2f(exp2_fast(a - base) + exp2_fast(b - base));
}

DEVICE float mean_logit(int q, int n, [[maybe_unused]] int h, float dot TABLE_PARAMETERS) {
#if ATT_SCORE
    const int middle = n * SPARSE_BLOCK + (SPARSE_BLOCK - 1) / 2;
    return multiply_add(score_of_mean(multiply_add(dot, ATT_SCALE, 0.0f), q, middle, h TABLE_ARGUMENTS), LOG2_E, 0.0f);
#else
    (void)q;
    (void)n;
    return multiply_add(dot, ATT_SCALE * LOG2_E, 0.0f);
#endif
}

/* ==== The product ==== */

/* A step: so many columns of a tile of means, of a part of the rows. */
struct Step {
    int tile = 0, part = 0, column = 0;

    DEVICE void next(int parts) {
        column += choose_columns;
        if (column == ATT_K_DIM) {
            column = 0;
            part++;
        }
        if (part == parts) {
            part = 0;
            tile++;
        }
    }
};

/* Zeros in the place of rows and means that are not there. */
DEVICE void copy_step(const Queries &q, const Step &s, int stage, const u16 *q16, const u16 *means) {
    constexpr int pieces = choose_columns / 8;
    const int row0 = s.part * choose_rows, mean0 = s.tile * choose_means;
    for (int i = threadIdx.x; i < (choose_rows + choose_means) * pieces; i += CHOOSE_THREADS) {
        const int line = i / pieces, piece = i % pieces, row = row0 + line, n = mean0 + line - choose_rows;
        const bool queries = line < choose_rows, inside = queries ? row < q.rows : n < q.whole;
        const u16 *from = queries ? q16 + ((u64)(q.first + (inside ? row : 0)) * ATT_HEADS + q.head) * ATT_K_DIM
                                  : means + ((u64)(inside ? n : 0) * ATT_KV_HEADS + q.head / ATT_GROUP) * ATT_K_DIM;
        copy16_async(shared_bytes + stage * choose_stage + line * choose_stride + 16 * piece,
                     from + s.column + 8 * piece, inside);
    }
}

/* A warp's 32 rows and 32 means; g, t: its place in the products' fragments. */
struct Warp {
    int row, group, mean, g, t;

    DEVICE Warp() {
        group = (threadIdx.x >> 5) % row_groups;
        row = 32 * group;
        mean = 32 * ((threadIdx.x >> 5) / row_groups);
        g = (threadIdx.x & 31) >> 2;
        t = threadIdx.x & 3;
    }
};

DEVICE void multiply_step(const Warp &at, int stage, float (&z)[2][4][4]) {
    const u8 *queries = shared_bytes + stage * choose_stage + at.row * choose_stride;
    const u8 *means = shared_bytes + stage * choose_stage + (choose_rows + at.mean) * choose_stride;
#pragma unroll
    for (int k = 0; k < choose_columns; k += 32) {
        u32 b[4][4];
#pragma unroll
        for (int n = 0; n < 4; n++)
            load_matrices(b[n], matrix_keys(means + 8 * n * choose_stride, choose_stride, k, choose_columns));
#pragma unroll
        for (int half = 0; half < 2 && k + 16 * half < choose_columns; half++)
#pragma unroll
            for (int m = 0; m < 2; m++) {
                u32 a[4];
                load_matrices(a, matrix_a(queries + 16 * m * choose_stride, choose_stride, k + 16 * half));
#pragma unroll
                for (int n = 0; n < 4; n++)
                    KForm::multiply(z[m][n], a, b[n][2 * half], b[n][2 * half + 1]);
            }
    }
}

/* The products of a part of the rows with a tile of means join the scores. */
DEVICE void score_tile(const Queries &q, const Warp &at, const Step &s, const int *query_pos,
                       const float (&dot)[2][4][4] TABLE_PARAMETERS) {
    int pos[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = s.part * choose_rows + at.row + 8 * i + at.g;
        pos[i] = row < q.rows ? query_pos[q.first + row] : -1;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const int mean = at.mean + j / 2 * 8 + 2 * at.t + j % 2, n = s.tile * choose_means + mean;
        float z[4], most = minus_infinity(), sum = 0.0f;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const bool behind = pos[i] >= n * SPARSE_BLOCK + SPARSE_BLOCK - 1;
            z[i] = behind ? mean_logit(pos[i], n, q.head, dot[i / 2][j / 2][i % 2 * 2 + j % 2] TABLE_ARGUMENTS)
                          : minus_infinity();
            most = fmaxf(most, z[i]);
        }
        for (int step = 4; step < 32; step <<= 1)
            most = fmaxf(most, lane_swap(most, step));
        const float base = most == minus_infinity() ? 0.0f : most;
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum += exp2_fast(z[i] - base);
        for (int step = 4; step < 32; step <<= 1)
            sum += lane_swap(sum, step);
        if (at.g == 0)
            partial(at.group)[mean] = make_float2(base, sum);
    }
    block_sync();
    const int n = s.tile * choose_means + threadIdx.x;
    if (threadIdx.x < choose_means && n < q.whole) {
        float all = s.part ? scores()[n] : minus_infinity();
        for (int i = 0; i < row_groups; i++) {
            const float2 v = partial(i)[threadIdx.x];
            all = add_log2(all, v.x + log2f(v.y));
        }
        scores()[n] = all;
    }
}

/* The scores of blocks 0 .. q.whole - 1. */
DEVICE void score_all(const Queries &q, const u16 *q16, const u16 *means, const int *query_pos TABLE_PARAMETERS) {
    const Warp at;
    const int parts = (q.rows + choose_rows - 1) / choose_rows;
    Step now, ahead;
    float z[2][4][4];
    for (int i = 0; i < choose_stages - 1; i++) {
        if (ahead.tile * choose_means < q.whole)
            copy_step(q, ahead, i, q16, means);
        copies_close();
        ahead.next(parts);
    }
    for (int stage = 0; now.tile * choose_means < q.whole; now.next(parts)) {
        if (now.column == 0)
#pragma unroll
            for (int i = 0; i < 32; i++)
                z[i / 16][i / 4 % 4][i % 4] = 0.0f;
        copies_wait<choose_stages - 2>();
        block_sync(); /* the stage is there; the one before is done with */
        if (ahead.tile * choose_means < q.whole)
            copy_step(q, ahead, (stage + choose_stages - 1) % choose_stages, q16, means);
        copies_close();
        ahead.next(parts);
        multiply_step(at, stage, z);
        if (now.column + choose_columns == ATT_K_DIM)
            score_tile(q, at, now, query_pos, z TABLE_ARGUMENTS);
        stage = (stage + 1) % choose_stages;
    }
    copies_wait<0>();
    block_sync();
}

/* ==== The choice ==== */

/* Warps take a word each; all: every block up to the queries' own. */
DEVICE void write_kept(const Queries &q, bool all, u32 *kept) {
    const int lane = threadIdx.x & 31;
    float most = minus_infinity();
    for (int n = lane; !all && n < q.whole; n += 32)
        most = fmaxf(most, scores()[n]);
    const float least = warp_max(most) + SPARSE_LIMIT;
    u32 *to = kept + ((u64)q.m * ATT_HEADS + q.head) * SPARSE_WORDS;
    for (int word = threadIdx.x >> 5; word < SPARSE_WORDS; word += CHOOSE_THREADS / 32) {
        const int n = 32 * word + lane;
        const float score = !all && n < q.whole ? scores()[n] : minus_infinity();
        const bool counts = !(score < least) || n < SPARSE_SINK || q.m - n < SPARSE_LOCAL;
        const u32 bits = lanes_where(n <= q.m && (all || counts));
        if (lane == 0)
            to[word] = bits;
    }
    block_sync(); /* the scores are done with */
}

KERNEL __launch_bounds__(CHOOSE_THREADS)
    ATT_NAME(const u16 *q16, const u16 *means, u32 *kept, const int *query_pos, const int *slots, const int *lengths,
             const int *query_count, const int *ahead TABLE_PARAMETERS) {
    next_kernel_release();
    previous_kernels_wait();
    const int count = *query_count, prompt = lengths[slots[0]] + *ahead;
    const int tail = (prompt + SPARSE_BLOCK - 1) / SPARSE_BLOCK - SPARSE_TAIL; /* the first block of it */
    const int last = count ? query_pos[count - 1] / SPARSE_BLOCK : -1;
    for (int m = (count ? query_pos[0] / SPARSE_BLOCK : 0) + blockIdx.y; m <= last; m += gridDim.y) {
        Queries q = {m, (int)blockIdx.x};
        q.first = rows_before(query_pos, count, m * SPARSE_BLOCK);
        q.rows = rows_before(query_pos, count, (m + 1) * SPARSE_BLOCK) - q.first;
        if (!q.rows)
            continue;
        const bool all = m * SPARSE_BLOCK < SPARSE_FROM || m >= tail;
        q.whole = (query_pos[q.first + q.rows - 1] + 1) / SPARSE_BLOCK;
        if (!all)
            score_all(q, q16, means, query_pos TABLE_ARGUMENTS);
        write_kept(q, all, kept);
    }
}
