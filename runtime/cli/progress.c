/* progress.c - one line on the terminal for anything that takes over a second.
 *
 * A thread draws it, so that it moves while one long call computes; work is never slowed by it. It is
 * not started when stderr is no terminal.
 */
#include "runtime/cli/cli.h"
#include "runtime/engine/clock.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct Progress {
    const char *what;
    double start;
    pthread_t thread;
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t wake;
    int64_t done, total;
    bool ended, shown;
    bool in_bytes;
};

static void draw(Progress *p) {
    double seconds = clock_seconds() - p->start;
    if (seconds < 1.0)
        return;
    p->shown = true;
    if (p->in_bytes && p->done > 0)
        fprintf(stderr, "\r%s %.2f of %.2f GB (%d%%), %.0f MB/s, %.0f s left ", p->what, (double)p->done / 1e9,
                (double)p->total / 1e9, (int)(100.0 * (double)p->done / (double)p->total),
                (double)p->done / seconds / 1e6, (double)(p->total - p->done) * seconds / (double)p->done);
    else if (p->total > 0)
        fprintf(stderr, "\r%s %lld of %lld (%d%%), %.0f s ", p->what, (long long)p->done, (long long)p->total,
                (int)(100.0 * (double)p->done / (double)p->total), seconds);
    else
        fprintf(stderr, "\r%s, %.0f s ", p->what, seconds);
    fflush(stderr);
}

static void *ticker(void *arg) {
    Progress *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->ended) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 250000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (pthread_cond_timedwait(&p->wake, &p->lock, &until) == ETIMEDOUT)
            draw(p);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

Progress *progress_start(const Cli *c, const char *what) {
    if (c->o.quiet || !isatty(STDERR_FILENO))
        return NULL;
    Progress *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->what = what;
    p->start = clock_seconds();
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    if (pthread_create(&p->thread, NULL, ticker, p) != 0) {
        free(p);
        return NULL;
    }
    return p;
}

void progress_set(Progress *p, int64_t done, int64_t total) {
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->done = done;
    p->total = total;
    pthread_mutex_unlock(&p->lock);
}

void progress_bytes(Progress *p, int64_t done, int64_t total) {
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->in_bytes = true;
    pthread_mutex_unlock(&p->lock);
    progress_set(p, done, total);
}

void progress_end(Progress *p) {
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->ended = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    if (p->shown)
        fprintf(stderr, "\r\033[K");
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    free(p);
}
