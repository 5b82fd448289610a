/* width.h - how many guesses of a drafter to ask for in a round: what gave the most tokens a second so far.
 *
 * A round of k guesses yields 1 + the guesses that were right. How often guess i is right when those before it were,
 * and how long a round of k takes, are running means of what was seen; a k never tried is estimated from its
 * neighbours. Now and then another k is tried, none (k = 0) among them, so that speculation which does not pay
 * ends, and begins again when it would.
 */
#ifndef LAP_ENGINE_WIDTH_H
#define LAP_ENGINE_WIDTH_H

#include "ir/ir.h"

typedef struct Width {
    int most;                       /* 1..MAX_DRAFTS */
    int64_t rounds;                 /* measured */
    double right[MAX_DRAFTS];       /* of guess i, when it was checked */
    bool seen[MAX_DRAFTS];          /* guess i was ever checked */
    double seconds[MAX_DRAFTS + 1]; /* of a round with k guesses */
    int64_t tried[MAX_DRAFTS + 1];  /* rounds with k guesses */
    int64_t probed;                 /* trials so far */
} Width;

Width width_start(int most);
/* How often guesses are right is kept, what rounds took is not: other rounds than before. */
Width width_again(const Width *w, int most);
/* Guesses for the next round: 0..most. */
int width_choose(Width *w);
/* The round had k guesses, of which the first `right` were right, and took so long. */
void width_measured(Width *w, int k, int right, double seconds);
/* Tokens a round of k guesses is expected to yield: 1..k + 1. */
double width_tokens(const Width *w, int k);
/* A round of some guesses is expected to be worth more than one of none. */
bool width_pays(const Width *w);

#endif
