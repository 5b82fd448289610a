/* compile.c - many programs on a pool of threads.
 *
 * One program is one NVRTC program: that scales over threads where one large program does not. Long texts
 * are begun first, so that none of them is left alone at the end. The calling thread only watches, so that
 * the progress callback needs no care.
 */
#include "runtime/device/compile.h"

#include "ir/base.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_THREADS = 64 };

typedef struct Pool {
    const Nvrtc *nvrtc;
    const char *arch;
    const Program *programs;
    Compiled *out;
    CubinCache *cache;
    const int *order; /* indices, what takes longest first */
    int count;
    atomic_int next;
    atomic_bool cancel;
    pthread_mutex_t lock; /* guards done */
    pthread_cond_t changed;
    int done;
} Pool;

static void compile_one(Pool *pool, const Program *p, Compiled *out) {
    if (atomic_load(&pool->cancel)) {
        *out = (Compiled){.state = COMPILE_CANCELLED};
        dev_fail(&out->error, DEV_OTHER, "cancelled");
        return;
    }
    if (!pool->cache) {
        nvrtc_compile(pool->nvrtc, p, pool->arch, &pool->cancel, out);
        return;
    }
    CubinKey key = cubin_key(nvrtc_info(pool->nvrtc), p, pool->arch);
    if (cubin_cache_get(pool->cache, key, p->name, out))
        return;
    if (nvrtc_compile(pool->nvrtc, p, pool->arch, &pool->cancel, out))
        cubin_cache_put(pool->cache, key, out);
}

static void *worker(void *arg) {
    Pool *pool = arg;
    int i;
    while ((i = atomic_fetch_add(&pool->next, 1)) < pool->count) {
        compile_one(pool, &pool->programs[pool->order[i]], &pool->out[pool->order[i]]);
        pthread_mutex_lock(&pool->lock);
        pool->done++;
        pthread_cond_signal(&pool->changed);
        pthread_mutex_unlock(&pool->lock);
    }
    return NULL;
}

/* Until all programs are done, telling how far it is. */
static void watch(Pool *pool, const CompileOptions *o) {
    int told = -1;
    pthread_mutex_lock(&pool->lock);
    while (pool->done < pool->count) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (pool->done == told)
            pthread_cond_timedwait(&pool->changed, &pool->lock, &until);
        told = pool->done;
        pthread_mutex_unlock(&pool->lock);
        if (o->progress && !o->progress(o->user, told, pool->count))
            atomic_store(&pool->cancel, true);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    if (o->progress && told < pool->count)
        o->progress(o->user, pool->count, pool->count);
}

/* Runs the workers; when no thread can be made the caller works alone. */
static void run(Pool *pool, const CompileOptions *o) {
    int wanted = o->threads > 0 ? o->threads : processors_allowed();
    if (wanted > pool->count)
        wanted = pool->count;
    if (wanted > MAX_THREADS)
        wanted = MAX_THREADS;
    pthread_t threads[MAX_THREADS];
    int n = 0;
    while (n < wanted && pthread_create(&threads[n], NULL, worker, pool) == 0)
        n++;
    if (n == 0)
        worker(pool);
    watch(pool, o);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

typedef struct Effort {
    int64_t effort;
    int index;
} Effort;

static int larger_first(const void *a, const void *b) {
    const Effort *x = a, *y = b;
    if (x->effort != y->effort)
        return x->effort > y->effort ? -1 : 1;
    return x->index - y->index;
}

static void by_effort(const Program *programs, int count, int *order, Effort *scratch) {
    for (int i = 0; i < count; i++)
        scratch[i] = (Effort){programs[i].effort ? programs[i].effort : (int64_t)strlen(programs[i].source), i};
    qsort(scratch, (size_t)count, sizeof *scratch, larger_first);
    for (int i = 0; i < count; i++)
        order[i] = scratch[i].index;
}

static bool all_there(const Compiled *out, int count, DevError *e) {
    for (int i = 0; i < count; i++)
        if (!out[i].cubin) {
            if (e)
                *e = out[i].error;
            return false;
        }
    return true;
}

bool compile_programs(const Nvrtc *n, const char *arch, const Program *programs, int count, const CompileOptions *o,
                      Compiled *out, DevError *e) {
    static const CompileOptions plain = {0};
    if (count <= 0)
        return true;
    Arena *a = arena_new();
    int *order = arena_array(a, (size_t)count, sizeof *order);
    by_effort(programs, count, order, arena_array(a, (size_t)count, sizeof(Effort)));
    o = o ? o : &plain;
    Pool pool = {.nvrtc = n,
                 .arch = arch,
                 .programs = programs,
                 .out = out,
                 .cache = o->cache,
                 .order = order,
                 .count = count,
                 .lock = PTHREAD_MUTEX_INITIALIZER,
                 .changed = PTHREAD_COND_INITIALIZER};
    run(&pool, o);
    pthread_mutex_destroy(&pool.lock);
    pthread_cond_destroy(&pool.changed);
    arena_free(a);
    return all_there(out, count, e);
}
