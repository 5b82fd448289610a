/* width.c - see width.h. */
#include "runtime/engine/width.h"
#include <string.h>

enum {
    PROBE_EVERY = 24, /* rounds between trials of another width */
};
static const double KEEP = 0.9;  /* of a running mean, in each round */
static const double GUESS = 0.7; /* that a guess is right, before any was checked */
static const double FALL = 0.85; /* of that for each guess further on */
static const double DEAR = 3;    /* times what the best takes: too long to try */

Width width_start(int most) {
    return (Width){.most = most < MAX_DRAFTS ? most : MAX_DRAFTS};
}

Width width_again(const Width *w, int most) {
    Width again = width_start(most);
    memcpy(again.right, w->right, sizeof w->right);
    memcpy(again.seen, w->seen, sizeof w->seen);
    return again;
}

/* Of guess i when those before it were right. */
static double chance(const Width *w, int i) {
    double p = GUESS;
    for (int k = 0; k <= i; k++)
        p = w->seen[k] ? w->right[k] : k ? p * FALL : p;
    return p;
}

double width_tokens(const Width *w, int k) {
    double tokens = 1, all = 1;
    for (int i = 0; i < k; i++) {
        all *= chance(w, i);
        tokens += all;
    }
    return tokens;
}

/* On the line between the nearest widths that were tried; beyond them as the nearest. 0: none was. */
static double seconds_of(const Width *w, int k) {
    int below = k, above = k;
    while (below >= 0 && !w->tried[below])
        below--;
    while (above <= w->most && !w->tried[above])
        above++;
    if (below < 0 && above > w->most)
        return 0;
    if (below < 0 || below == above)
        return w->seconds[above];
    if (above > w->most)
        return w->seconds[below];
    const double part = (double)(k - below) / (above - below);
    return w->seconds[below] * (1 - part) + w->seconds[above] * part;
}

static double rate(const Width *w, int k) {
    const double s = seconds_of(w, k);
    return s > 0 ? width_tokens(w, k) / s : 0;
}

static int best(const Width *w) {
    int found = 0;
    for (int k = 1; k <= w->most; k++)
        if (rate(w, k) > rate(w, found))
            found = k;
    return found;
}

bool width_pays(const Width *w) {
    return best(w) > 0;
}

/* One wider, one narrower, none, and twice as wide, in turns; not what takes much longer than the best. */
static int probe(Width *w, int around) {
    const int others[] = {around + 1, around - 1, 0, 2 * around + 1};
    const double most = DEAR * seconds_of(w, around);
    for (int i = 0; i < (int)COUNTOF(others); i++) {
        const int k = others[w->probed++ % (int)COUNTOF(others)];
        if (k >= 0 && k <= w->most && k != around && seconds_of(w, k) <= most)
            return k;
    }
    return around;
}

int width_choose(Width *w) {
    if (!w->tried[w->most])
        return w->most;
    if (!w->tried[0])
        return 0;
    if (w->most > 3 && !w->tried[w->most / 2])
        return w->most / 2;
    const int k = best(w);
    return w->rounds % PROBE_EVERY == 0 ? probe(w, k) : k;
}

static double mean(double old, double new, bool first) {
    return first ? new : old *KEEP + new *(1 - KEEP);
}

void width_measured(Width *w, int k, int right, double seconds) {
    for (int i = 0; i < k && i <= right; i++) {
        w->right[i] = mean(w->seen[i] ? w->right[i] : chance(w, i), i < right, false);
        w->seen[i] = true;
    }
    w->seconds[k] = mean(w->seconds[k], seconds, !w->tried[k]);
    w->tried[k]++;
    w->rounds++;
}
