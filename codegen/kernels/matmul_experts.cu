/* matmul_experts.cu - 1..16 rows, each through its own EX_K of many matrices: every chosen expert is read once.
 *
 * Contract: that of matmul_strips.cu, and
 *   MM_NAME              the kernel's name
 *   MM_NT                1: up to 8 rows, 2: up to 16
 *   MM_X_SHARED          0 only
 *   EX_K                 experts of a row
 *   EX_EARLY_IDS         1: the ids are older than the launch ahead
 *   EX_X_PAIRS           0: x is f32 [live][MM_K], a row meets all its experts; 1: x is [live][EX_K][MM_K]
 *   parameters           const u8 *w0, w1, ..: each segment's matrices as tiles, [expert][strip][tile]; const float *x,
 *                        at a multiple of 16 bytes; const int *ids: i32 [8 * MM_NT][EX_K], the expert of each pair of
 *                        row and slot (what stands behind the live rows is read, but ignored); float *planes; const
 *                        int *rows: how many rows are live, in device memory; int *tail: 2 ints (tail.cu), not looked
 *                        at without MM_TAIL; TAIL_PARAMETERS
 *   planes               f32 [slice][8 * MM_NT * EX_K][N]; row r * EX_K + s is x of pair (r, s) x W[ids[r, s]]^T, as
 *                        the sum of the planes in slice order. N = all segments' rows one after another. Pairs of
 *                        rows that are not live are not written
 *   launch               as matmul_decode.cu; static shared memory 20 bytes for each of the 8 * MM_NT * EX_K pairs and
 *                        less than 512
 *
 * Pairs of the same expert are gathered: a unit is one expert with up to 8 * MM_NT pairs. (More than that an expert has
 * only when a row names it twice; it then is more than one unit.) The strips of all units are shared out evenly over
 * the blocks; a block meets few units, so its warps load the rows anew with each. Where a pair stands in a unit
 * touches no sum. The ring can be filled only when the ids are known: after the wait for the launch ahead, or before it
 * when they are older.
 */
#ifndef MM_NAME
#define MM_NAME        matmul_experts
#define MM_K           2816
#define MM_SEGMENTS(X) X(0, Q4_K, 704) X(1, Q4_K, 704)
#define MM_FORMS(X)    X(Q4_K)
#endif
#ifndef MM_WARPS
#define MM_WARPS 11
#endif
#ifndef MM_STAGES
#define MM_STAGES 4
#endif
#ifndef EX_K
#define EX_K 8
#endif
#ifndef EX_X_PAIRS
#define EX_X_PAIRS 0
#endif
#ifndef EX_EARLY_IDS
#define EX_EARLY_IDS 0
#endif
#include "matmul_strips.cu"

static_assert(!LAUNCH_EARLY, "experts need the rows of the launch ahead");
static_assert(!MM_X_SHARED, "the warps of a block may be at different units");

#define EX_PAIRS (8 * MM_NT * EX_K)

/* ==== Units ==== */

struct Units {
    int id[EX_PAIRS];     /* the expert of a pair */
    u16 first[EX_PAIRS];  /* the first pair with a pair's expert */
    u16 rank[EX_PAIRS];   /* how many pairs before it have the same */
    u16 same[EX_PAIRS];   /* of the first pair of an expert: how many there are; else 0 */
    u16 order[EX_PAIRS];  /* pairs, those of a unit together */
    int expert[EX_PAIRS]; /* of a unit */
    u16 begin[EX_PAIRS];  /* of a unit in `order` */
    u16 size[EX_PAIRS];
    int n;

    /* By all threads of the block, which must meet behind it; experts in the order of their first pair. */
    DEVICE void plan(const int *ids, int live) {
        const int lane = threadIdx.x & 31, pairs = live * EX_K;
        if (pairs <= FEW) {
            if (threadIdx.x >> 5 == MM_WARPS * MM_GROUPS)
                plan_few(lane < pairs ? ids[lane] : 0, pairs);
        } else {
            plan_many(ids, pairs);
        }
    }

  private:
    enum { FEW = 32, MOST = 8 * MM_NT }; /* MOST: pairs of a unit */

    /* A lane for each pair, by one warp. */
    DEVICE void plan_few(int expert_of, int pairs) {
        const int lane = threadIdx.x & 31;
        const bool mine = lane < pairs;
        const u32 before = (1u << lane) - 1;
        const u32 alike = lanes_alike(mine ? expert_of : -1);
        const int rank_of = count_bits(alike & before), leader = count_bits((alike & (0u - alike)) - 1);
        const u32 begins = lanes_where(mine && rank_of % MOST == 0);
        int pairs_before = 0, units_before = 0;
        for (int q = 0; q < pairs; q++)
            if (lane_from(leader, q) < leader) {
                pairs_before++;
                units_before += (int)(begins >> q & 1);
            }
        if (mine) {
            const int at = units_before + rank_of / MOST, left = count_bits(alike) - rank_of;
            order[pairs_before + rank_of] = (u16)lane;
            if (rank_of % MOST == 0) {
                expert[at] = expert_of;
                begin[at] = (u16)(pairs_before + rank_of);
                size[at] = (u16)(left < MOST ? left : MOST);
            }
        }
        if (lane == 0)
            n = count_bits(begins);
    }

    /* By all threads. */
    DEVICE void plan_many(const int *ids, int pairs) {
        for (int p = threadIdx.x; p < pairs; p += MM_THREADS)
            id[p] = ids[p];
        block_sync();
        for (int p = threadIdx.x; p < pairs; p += MM_THREADS)
            count(p, pairs);
        block_sync();
        for (int p = threadIdx.x; p < pairs; p += MM_THREADS)
            place(p, pairs);
    }

    DEVICE void count(int pair, int pairs) {
        int before = 0, all = 0, least = pair;
#pragma unroll 8
        for (int q = 0; q < pairs; q++)
            if (id[q] == id[pair]) {
                least = all ? least : q;
                before += q < pair;
                all++;
            }
        first[pair] = (u16)least;
        rank[pair] = (u16)before;
        same[pair] = (u16)(before ? 0 : all);
    }

    /* Puts a pair into `order`, and makes the unit that begins with it. */
    DEVICE void place(int pair, int pairs) {
        int pairs_before = 0, units_before = 0, units = 0;
#pragma unroll 8
        for (int q = 0; q < pairs; q++) {
            const int need = (same[q] + MOST - 1) / MOST;
            pairs_before += q < first[pair] ? same[q] : 0;
            units_before += q < first[pair] ? need : 0;
            units += need;
        }
        order[pairs_before + rank[pair]] = (u16)pair;
        if (rank[pair] % MOST == 0) {
            const int at = units_before + rank[pair] / MOST, left = same[first[pair]] - rank[pair];
            expert[at] = id[pair];
            begin[at] = (u16)(pairs_before + rank[pair]);
            size[at] = (u16)(left < MOST ? left : MOST);
        }
        if (pair == 0)
            n = units;
    }
};

/* ==== The kernel ==== */

static_assert(!MM_X_RECORDS || !EX_X_PAIRS, "records are of live rows");

struct Work : Share {
    Weights weights;
    const Units &units;
    const float *x;

    DEVICE Work(const Weights &weights, const Units &units, const float *x)
        : Share(units.n, true), weights(weights), units(units), x(x) {}
    DEVICE int unit(int i) const {
        return strip(i) / all_strips;
    }
    DEVICE Chunk chunk(int i) const {
        return weights.chunk(units.expert[unit(i)], strip(i) % all_strips, slice);
    }
    DEVICE int tiles(int unit) const {
        return MM_NT == 1 ? 1 : (units.size[unit] + 7) / 8;
    }
    DEVICE int row(int unit, int token) const {
        return token < units.size[unit] ? units.order[units.begin[unit] + token] : -1;
    }
    DEVICE int x_row(int row) const {
        return EX_X_PAIRS ? row : row / EX_K;
    }
    DEVICE bool same_rows(int a, int b) const {
        return !EX_X_PAIRS && units.size[a] == 1 && units.size[b] == 1 && row(a, 0) / EX_K == row(b, 0) / EX_K;
    }
};

KERNEL __launch_bounds__(MM_THREADS, MM_BLOCKS) MM_NAME(MM_SEGMENTS(MM_PARAMETER) const float *x, const int *ids,
                                                        float *planes, const int *rows, int *tail TAIL_PARAMETERS) {
    SHARED Barriers bar;
    SHARED Units units;
    const int warp = threadIdx.x >> 5, live = *rows;

    launch_begins();
    if (threadIdx.x == 0)
        bar.init();
#if MM_TAIL
    if (blockIdx.x == 0)
        tail_ahead(threadIdx.x TAIL_ARGUMENTS);
#endif
    if (EX_EARLY_IDS)
        launch_looks_early(rows);
    else
        launch_reads(rows);
    units.plan(ids, live);
    block_sync();
    const Work work({{MM_SEGMENTS(MM_LIST)}}, units, x);
    const bool assistant = warp == MM_WARPS * MM_GROUPS;
    Filled filled = {0, 0};
    if (EX_EARLY_IDS && assistant)
        fill_early(bar, work, filled);
    if (EX_EARLY_IDS)
        launch_reads(rows);
    bar.after_reads();
    if (assistant) {
        assist(bar, work, filled, planes, EX_PAIRS);
    } else {
        consume(bar, work, warp);
    }
    finish(tail, live TAIL_ARGUMENTS);
}
