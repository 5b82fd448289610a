/* eval_sparse.c - FlashPrefill: which blocks of keys a block of queries keeps.
 *
 * Source: FlashPrefill (arXiv:2603.06199) and its authors' code, qhfan/FlashPrefill. With B = block, positions
 * absolute, key block n = positions nB .. nB + B - 1, query block m = the rows of this node and call at positions mB ..
 * mB + B - 1 of one sequence, and for each query head h, which reads K/V head kh:
 *
 *   mean[n]  = the mean of K[j, kh] over the keys j of block n
 *   z[i,n]   = score(scale * q[i,h] . mean[n]) * log2(e), for rows i that have the whole of block n behind them or as
 *              their own end: i >= nB + B - 1
 *   P[m,n]   = sum over those rows of exp2(z[i,n]), one reference for all of the block: so blocks compare
 *   keep n   if P[m,n] >= alpha * max over n of P[m,n], or n < sink, or m - n < local, or m >= M - tail
 *
 * where M = ceil(prompt / B). What is kept is attended to exactly, by eval_attend.c; a query block that keeps all gives
 * the bits of the dense way. alpha = 0 keeps all, as do query blocks that begin before `from`. P is held as
 * log2: the largest z plus log2 of the sum.
 *
 * A node attends sparse in a call where it has more rows than decoding and checking guesses have, 16; few wanted rows
 * of a long call go the way of decode, and so dense. As a block of queries chooses together, a row's result depends on
 * which rows of its block are in the call: cut at multiples of B, and told by EvalCall.ahead where the prompt ends, a
 * prompt gives the same bits in one call or many. It does not depend on threads, or on other sequences.
 *
 * Deliberate deviations:
 *   rectangular   queries of a later call choose among all keys so far; the original has one square call
 *   means         are f32 and not rounded to bf16, in the basis the keys are stored in: a rotation is linear
 *   score         of the variant counts, at the block's mean position; the original has none
 *   NaN           a block whose score is NaN is kept and does not count for the maximum, so that a NaN comes through
 *                 as it does in the dense way; comparing >= would drop it in silence
 *   tail block    has no row behind its end and so no score: it is kept as local
 *   no division   by the sum of P: it is on both sides of the comparison
 * Not taken over, from a port of it: scores without the common reference, rows beyond the end in the last block, a call
 * that sees the keys of itself only, and shapes that are left unwritten.
 */
#include "ir/eval_int.h"
#include "ir/sparse.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows first .. first + rows - 1, block m of sequence `slot`. */
typedef struct QueryBlock {
    int64_t first, rows, m;
    int slot;
    bool dense; /* keeps all */
} QueryBlock;

struct SparseKeep {
    FlashPrefill p;
    int64_t heads, words;
    QueryBlock *block; /* [blocks] */
    int64_t blocks;
    int64_t *of_row; /* [rows] its block */
    uint64_t *kept;  /* [blocks][heads][words] bits of key blocks */
};

/* What the threads share while they choose. */
typedef struct Choosing {
    EvalRun *r;
    const SparseQueries *q;
    const KvLayout *l;
    SparseKeep *keep;
    int64_t keys;  /* complete blocks of keys that some query has behind it, of any sequence */
    float **mean;  /* [slots] -> [keys][kv heads][k_dim]; NULL: the sequence has no query */
    float *room;   /* [threads][room_size] */
    double *score; /* [threads][words * 64] */
    int slot;      /* whose means are being made */
} Choosing;

/* ==== Means ==== */

/* Of a thread, in floats: the queries of a block in the basis of the keys; a decoded key. */
static int64_t room_size(const Choosing *c) {
    return c->keep->p.block * c->l->k_dim;
}

/* Block n of the sequence; NaN where a position of it is not held, so that it is kept and missed there. */
static void mean_part(const void *ctx, int64_t n, int thread) {
    const Choosing *c = ctx;
    const KvLayout *l = c->l;
    const KvSeq *s = kv_seq(c->r->e, c->q->cache, c->slot);
    const int64_t B = c->keep->p.block, dim = l->k_dim;
    float *key = c->room + thread * room_size(c);
    for (int64_t h = 0; h < l->heads; h++) {
        float *mean = c->mean[c->slot] + (n * l->heads + h) * dim;
        memset(mean, 0, (size_t)dim * sizeof *mean);
        for (int64_t j = n * B; j < n * B + B; j++) {
            const int64_t place = kv_held(l, s, j);
            if (place < 0) {
                mean[0] = NAN;
                continue;
            }
            kv_decode(l->k_type, s->k + place * l->k_row + h * (l->k_row / l->heads), key, dim);
            for (int64_t d = 0; d < dim; d++)
                mean[d] += key[d];
        }
        for (int64_t d = 0; d < dim; d++)
            mean[d] /= (float)B;
    }
}

static bool make_means(Choosing *c) {
    const int64_t each = c->keys * c->l->heads * c->l->k_dim;
    for (int64_t b = 0; b < c->keep->blocks; b++) {
        const QueryBlock *block = &c->keep->block[b];
        if (block->dense || c->mean[block->slot])
            continue;
        c->slot = block->slot;
        c->mean[c->slot] = malloc((size_t)each * sizeof(float) + 1);
        if (!c->mean[c->slot])
            return false;
        run_parts(c->r, c->keys, (double)each * (double)c->keep->p.block, mean_part, c);
    }
    return true;
}

/* ==== Scores ==== */

/* A query block and a head: its queries in the basis of the keys. */
typedef struct Queries {
    const float *q[SPARSE_MAX_BLOCK];
    const int32_t *pos;
    int64_t rows, h;
    const float *mean; /* [keys][kv heads][k_dim], at this head's K/V head */
} Queries;

static void read_queries(const Choosing *c, const QueryBlock *b, int64_t h, float *room, Queries *x) {
    const int64_t dim = c->l->k_dim;
    *x = (Queries){.pos = c->q->pos + b->first, .rows = b->rows, .h = h};
    x->mean = c->mean[b->slot] + h / (c->q->heads / c->l->heads) * dim;
    for (int64_t i = 0; i < b->rows; i++) {
        x->q[i] = c->q->q + ((b->first + i) * c->q->heads + h) * dim;
        if (!kv_rotated(c->l->k_type))
            continue;
        float *copy = memcpy(room + i * dim, x->q[i], (size_t)dim * sizeof *copy);
        kv_rotate(copy, dim);
        x->q[i] = copy;
    }
}

/* log2 P[m,n]; -INFINITY when no row has all of block n behind it. */
static double block_score(const Choosing *c, const Queries *x, int64_t n) {
    const double log2e = 1.4426950408889634;
    const int64_t B = c->keep->p.block, last = n * B + B - 1;
    const Scalar *score = c->q->variant->score;
    const Evaluator *e = c->r->e;
    ScalarEnv env = {.k = (double)(n * B) + (double)(B - 1) / 2, .h = (double)x->h, .tables = e->tables};
    env.tables_len = e->tables_len;
    float dot[SPARSE_MAX_BLOCK];
    double z[SPARSE_MAX_BLOCK], most = -INFINITY, sum = 0;
    int64_t allowed = 0;
    if (last >= c->keys * B)
        return -INFINITY;
    eval_dots(x->mean + n * c->l->heads * c->l->k_dim, x->q, (int)x->rows, c->l->k_dim, dot);
    for (int64_t i = 0; i < x->rows; i++) {
        if (x->pos[i] < last)
            continue;
        env.q = x->pos[i];
        env.s = dot[i] * c->q->scale;
        const double s = score ? scalar_eval(score, &env) : env.s;
        if (isnan(s))
            return NAN;
        z[allowed++] = s * log2e;
        most = fmax(most, s * log2e);
    }
    for (int64_t i = 0; i < allowed && most != -INFINITY; i++)
        sum += exp2(z[i] - most);
    return most == -INFINITY ? most : most + log2(sum);
}

/* Part i: head i % heads of query block i / heads. */
static void choose_part(const void *ctx, int64_t i, int thread) {
    const Choosing *c = ctx;
    SparseKeep *keep = c->keep;
    const int64_t heads = keep->heads, h = i % heads;
    const QueryBlock *b = &keep->block[i / heads];
    uint64_t *kept = keep->kept + i * keep->words;
    double *score = c->score + thread * keep->words * 64, most = -INFINITY;
    Queries x;
    if (run_cancelled(c->r))
        return;
    if (!b->dense)
        read_queries(c, b, h, c->room + thread * room_size(c), &x);
    for (int64_t n = 0; n <= b->m && !b->dense; n++) {
        score[n] = block_score(c, &x, n);
        most = score[n] > most ? score[n] : most;
    }
    const double least = most + log2(keep->p.alpha);
    for (int64_t n = 0; n <= b->m; n++)
        if (b->dense || !(score[n] < least) || n < keep->p.sink || b->m - n < keep->p.local)
            kept[n / 64] |= (uint64_t)1 << n % 64;
}

/* ==== Blocks of queries ==== */

/* Rows next to each other of one sequence and block are one query block; rows in order, as calls have them, make one of
 * each. */
static void cut_blocks(EvalRun *r, const SparseQueries *q, SparseKeep *k, int64_t from) {
    const int64_t B = k->p.block;
    QueryBlock *b = NULL;
    for (int64_t t = 0; t < q->rows; t++) {
        const int slot = run_slot(r, q->dim0, t);
        const int64_t m = q->pos[t] < 0 ? 0 : q->pos[t] / B;
        if (!b || b->slot != slot || b->m != m || b->rows == B) {
            const int64_t prompt = kv_seq(r->e, q->cache, slot)->end + r->call->ahead;
            b = &k->block[k->blocks++];
            *b = (QueryBlock){.first = t, .m = m, .slot = slot};
            b->dense = k->p.alpha <= 0 || m * B < from || m >= (prompt + B - 1) / B - k->p.tail;
        }
        b->rows++;
        k->of_row[t] = k->blocks - 1;
    }
}

/* Complete blocks of keys behind or in the last query; key blocks up to its own are listed. */
static int64_t count_keys(const SparseQueries *q, SparseKeep *k) {
    int64_t last = 0;
    for (int64_t t = 0; t < q->rows; t++)
        last = q->pos[t] > last ? q->pos[t] : last;
    k->words = last / k->p.block / 64 + 1;
    return (last + 1) / k->p.block;
}

static bool choose(Choosing *c) {
    SparseKeep *k = c->keep;
    const int64_t lists = k->blocks * k->heads, threads = pool_threads(c->r->e->pool);
    k->kept = calloc((size_t)(lists * k->words) + 1, sizeof *k->kept);
    c->mean = calloc((size_t)c->r->e->slots + 1, sizeof *c->mean);
    c->room = malloc((size_t)(threads * room_size(c)) * sizeof *c->room + 1);
    c->score = malloc((size_t)(threads * k->words * 64) * sizeof *c->score);
    const bool ok = k->kept && c->mean && c->room && c->score && make_means(c);
    if (ok)
        run_parts(c->r, lists, (double)c->q->rows * (double)(k->heads * c->keys * c->l->k_dim), choose_part, c);
    for (int i = 0; c->mean && i < c->r->e->slots; i++)
        free(c->mean[i]);
    free(c->mean);
    free(c->room);
    free(c->score);
    return ok;
}

bool sparse_applies(const EvalRun *r, const Node *n) {
    return n->group && r->g->groups.v[n->group - 1].prefill.way == ATTEND_SPARSE &&
           run_dim(r, &n->type, 0) > 1 + MAX_DRAFTS;
}

SparseKeep *sparse_select(EvalRun *r, const SparseQueries *q) {
    SparseKeep *k = calloc(1, sizeof *k);
    bool ok = k != NULL;
    if (ok) {
        k->p = sparse_read(q->variant);
        k->heads = q->heads;
        k->block = calloc((size_t)q->rows + 1, sizeof *k->block);
        k->of_row = calloc((size_t)q->rows + 1, sizeof *k->of_row);
        ok = k->block && k->of_row;
    }
    if (ok) {
        Choosing c = {.r = r, .q = q, .l = &r->e->layout[q->cache], .keep = k};
        cut_blocks(r, q, k, r->g->groups.v[q->node->group - 1].prefill.from);
        c.keys = count_keys(q, k);
        ok = choose(&c);
    }
    if (ok)
        return k;
    sparse_free(k);
    run_fail(r, q->node, "out of memory for the choice of keys");
    return NULL;
}

void sparse_free(SparseKeep *k) {
    if (!k)
        return;
    free(k->block);
    free(k->of_row);
    free(k->kept);
    free(k);
}

/* ==== Reading ==== */

static bool keeps(const uint64_t *kept, int64_t n) {
    return kept[n / 64] >> n % 64 & 1;
}

bool sparse_run(const SparseKeep *k, int64_t t, int64_t h, int64_t *from, int64_t *to) {
    const int64_t b = k->of_row[t], last = k->block[b].m;
    const uint64_t *kept = k->kept + (b * k->heads + h) * k->words;
    int64_t n = *from / k->p.block;
    while (n <= last && !keeps(kept, n))
        n++;
    if (n > last)
        return false;
    *from = n * k->p.block;
    while (n <= last && keeps(kept, n))
        n++;
    *to = n * k->p.block - 1;
    return true;
}
