/* eval_threads.c - the evaluator's threads: a job is a function and a number of parts.
 *
 * The caller works too, parts are taken in turns, and the caller waits only for workers that have
 * taken one: a worker that wakes late, because the machine is busy with other things, finds the job
 * closed and delays nobody. OpenMP's barrier waits for every thread, by default spinning; with other
 * programs on the same processors that made calls ten times slower than one thread. Idle workers
 * look for the next job a few times, giving up the processor in between, then sleep.
 */
#include "ir/eval_int.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    LOOKS = 64, /* at the next job before sleeping */
    TURNS = 8,  /* of each thread in a job, about */
    MAX_THREADS = 256,
};

struct Pool {
    pthread_mutex_t lock; /* guards what is not atomic */
    pthread_cond_t wake, idle;
    atomic_uint job;   /* number of the latest job */
    atomic_int busy;   /* workers inside it */
    atomic_llong next; /* its first part not taken */
    bool open;         /* workers may still join */
    bool quit;
    PartFn *f;
    const void *ctx;
    int64_t parts, grain;
    int threads; /* workers + the caller */
    struct Worker {
        struct Pool *pool;
        int number;
        pthread_t id;
    } worker[];
};

static void take_parts(Pool *p, PartFn *f, const void *ctx, int64_t parts, int64_t grain, int thread) {
    int64_t i;
    while ((i = atomic_fetch_add(&p->next, grain)) < parts)
        for (int64_t end = i + grain < parts ? i + grain : parts; i < end; i++)
            f(ctx, i, thread);
}

/* Waits for a job other than `seen` and joins it if it is still open. False: quit. */
static bool next_job(Pool *p, unsigned *seen, bool *joined) {
    for (int i = 0; i < LOOKS && atomic_load(&p->job) == *seen; i++)
        sched_yield();
    pthread_mutex_lock(&p->lock);
    while (atomic_load(&p->job) == *seen && !p->quit)
        pthread_cond_wait(&p->wake, &p->lock);
    *seen = atomic_load(&p->job);
    *joined = p->open;
    if (*joined)
        atomic_fetch_add(&p->busy, 1);
    bool go = !p->quit;
    pthread_mutex_unlock(&p->lock);
    return go;
}

/* The job's fields do not change while a worker is busy in it. */
static void *work(void *arg) {
    struct Worker *w = arg;
    Pool *p = w->pool;
    unsigned seen = 0;
    bool joined;
    while (next_job(p, &seen, &joined)) {
        if (!joined)
            continue;
        take_parts(p, p->f, p->ctx, p->parts, p->grain, w->number);
        pthread_mutex_lock(&p->lock);
        if (atomic_fetch_sub(&p->busy, 1) == 1)
            pthread_cond_signal(&p->idle);
        pthread_mutex_unlock(&p->lock);
    }
    return NULL;
}

void pool_run(Pool *p, int64_t parts, PartFn *f, const void *ctx) {
    const int64_t grain = parts / (p->threads * TURNS) + 1;
    pthread_mutex_lock(&p->lock);
    p->f = f;
    p->ctx = ctx;
    p->parts = parts;
    p->grain = grain;
    p->open = true;
    atomic_store(&p->next, 0);
    atomic_fetch_add(&p->job, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);

    take_parts(p, f, ctx, parts, grain, 0);

    pthread_mutex_lock(&p->lock);
    p->open = false;
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < LOOKS && atomic_load(&p->busy); i++)
        sched_yield();
    pthread_mutex_lock(&p->lock);
    while (atomic_load(&p->busy))
        pthread_cond_wait(&p->idle, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

Pool *pool_new(int threads) {
    threads = threads > 0 ? threads : processors_allowed();
    threads = threads < MAX_THREADS ? threads : MAX_THREADS;
    Pool *p = calloc(1, sizeof *p + (size_t)threads * sizeof p->worker[0]);
    if (!p)
        ICE("out of memory");
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->idle, NULL);
    p->threads = 1;
    for (int i = 1; i < threads; i++) { /* fewer will do when the system gives no more */
        struct Worker *w = &p->worker[i];
        *w = (struct Worker){.pool = p, .number = i};
        if (pthread_create(&w->id, NULL, work, w) != 0)
            break;
        p->threads++;
    }
    return p;
}

int pool_threads(const Pool *p) {
    return p->threads;
}

void pool_free(Pool *p) {
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i < p->threads; i++)
        pthread_join(p->worker[i].id, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->idle);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
