/* row_chosen.cu - of row programs that look at some rows of a matrix only, which ids choose: their products, and a row
 * of the length of all with these in their places. Beside row_ops.cu, which has the rules.
 */
#ifndef LAP_ROW_CHOSEN
#define LAP_ROW_CHOSEN
#include "prelude.cu"

/* to[j]: row ids(j) of a matrix of ROWS times x, for j from first on, by a warp each; 0 for an id that is none. */
template <int ROWS, int K, class X, class Ids, class Weight>
DEVICE void row_linear_at(float *to, int first, int end, X x, Ids ids, Weight weight) {
    constexpr int EACH = (K + 31) / 32;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float mine[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++)
        mine[i] = 32 * i + lane < K ? x(32 * i + lane) : 0.0f;
    for (int j = first + warp; j < end; j += TAIL_THREADS / 32) {
        const int id = ids(j);
        float sum = 0.0f;
        if ((u32)id < ROWS)
#pragma unroll
            for (int i = 0; i < EACH; i++)
                sum += 32 * i + lane < K ? mine[i] * weight(id, 32 * i + lane) : 0.0f;
        sum = warp_sum(sum);
        if (lane == 0)
            to[j] = sum;
    }
    block_sync();
}

/* f(i, j, id) for a thread's elements j of K, whose places are among N. */
template <int N, int K, class Ids, class F> DEVICE void row_each_id(Ids ids, F f) {
    for (int i = 0; (int)threadIdx.x + i * TAIL_THREADS < K; i++) {
        const int j = threadIdx.x + i * TAIL_THREADS, id = ids(j);
        if ((u32)id < N)
            f(i, j, id);
    }
}

/* Puts K elements to ids(j) of a row of N, which holds the others. The last of equal ids counts, an id that is none is
 * left out. First a place holds which element it gets: larger numbers win, until all have seen that theirs did or that
 * another is larger. */
template <int N, int K, class Ids, class Read> DEVICE void row_scatter(u32 *to, int *again, Ids ids, Read read) {
    static_assert(K <= 32 * TAIL_THREADS, "a bit for each of a thread's elements");
    int *const which = (int *)to;
    block_sync();
    row_each_id<N, K>(ids, [&](int, int, int id) { which[id] = -1; });
    for (bool more = true; more;) {
        if (threadIdx.x == 0)
            *again = 0;
        block_sync();
        row_each_id<N, K>(ids, [&](int, int j, int id) {
            if (which[id] < j) {
                which[id] = j;
                *again = 1;
            }
        });
        block_sync();
        more = *again != 0;
        block_sync(); /* all have seen it */
    }
    u32 won = 0;
    row_each_id<N, K>(ids, [&](int i, int j, int id) { won |= (u32)(which[id] == j) << i; });
    block_sync();
    row_each_id<N, K>(ids, [&](int i, int j, int id) {
        if (won >> i & 1)
            to[id] = bits_from_float(read(j));
    });
}

#endif
