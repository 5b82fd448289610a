/* tuned.h - what was measured of GPUs, as a text that is kept from run to run: which way to cut a decode matmul is the
 * fastest, and the rates by which passes choose.
 *
 * One thing a line; words, strings and comments as in docs/ir.md:
 *
 *   tuned 1
 *   rates ARCH GPU cuda N version N multiprocessors N read N mma N wgmma N launch N
 *   rates ARCH GPU cuda N version N multiprocessors N none
 *   choice ARCH GPU KERNELS SHAPE CUT ns RULE CHOSEN
 *
 *   GPU      its name, a string: "NVIDIA H100 80GB HBM3"
 *   KERNELS  tuned_kernels() of the program that timed: with other kernels the choice means nothing
 *   SHAPE    a string, as PlanKernel.shape
 *   CUT      tuned|analytic groups N stages N flight N partials N; analytic: none was faster than the rule's
 *   RULE, CHOSEN  how long a stretch of a step took with the rule's cut and with this one
 *   cuda     of the driver, the newest CUDA that it has (13000: 13.0)
 *   version  of the program's measuring (roofline.h); with another, or another cuda, rates are measured anew
 *   read ..  DeviceRates: bytes/s, FLOP/s by mma.sync and by wgmma (0: it has none), ns of a launch
 *   none     they could not be measured
 *
 * The text may be hostile: lines that are not so are left out and counted, and a choice is taken only when it is a way
 * to cut that shape (PlanOptions.choices).
 */
#ifndef LAP_CODEGEN_TUNED_H
#define LAP_CODEGEN_TUNED_H

#include "codegen/plan.h"
#include "ir/rates.h"

typedef struct TunedEntry {
    const char *arch, *gpu, *kernels, *shape;
    bool tuned; /* else the rule's cut was the fastest */
    MatmulCut cut;
    int64_t rule_ns, chosen_ns;
} TunedEntry;

/* What a GPU reaches. All but the rates says what they are of. */
typedef struct TunedRates {
    const char *arch, *gpu;
    int64_t cuda, version;
    bool measured; /* else it could not be done, and of the rates only multiprocessors counts */
    DeviceRates rates;
} TunedRates;

enum { MAX_TUNED = 4096, MAX_TUNED_RATES = 64, MAX_TUNED_TEXT = 2 << 20 /* bytes */ };

typedef struct Tuned {
    Arena *arena; /* holds everything */
    VEC(TunedEntry) entries;
    VEC(TunedRates) rates;
    int dropped, first_dropped; /* lines that were left out, and the number of the first */
} Tuned;

/* Adds what a text says; of lines about the same thing the last counts. */
void tuned_read(Tuned *t, const char *text, size_t len);
void tuned_print(Buf *out, const Tuned *t);

/* The entry of that GPU, kernels and shape; NULL: none. */
const TunedEntry *tuned_find(const Tuned *t, const char *arch, const char *gpu, const char *kernels, const char *shape);
/* Adds or replaces; strings are not copied. When there are MAX_TUNED the oldest goes. */
void tuned_put(Tuned *t, const TunedEntry *e);

/* The entry of the same GPU as `of`: all but `measured` and the rates, whose multiprocessors count. NULL: none. */
const TunedRates *tuned_find_rates(const Tuned *t, const TunedRates *of);
/* The newest that were measured on a GPU of the architecture, of any driver. NULL: none. */
const TunedRates *tuned_rates_of_arch(const Tuned *t, const char *arch, int64_t version);
/* Adds or replaces; strings are not copied. When there are MAX_TUNED_RATES the oldest goes. */
void tuned_put_rates(Tuned *t, const TunedRates *r);

/* Names the texts of the kernels that are timed, the rule and the ways of this program; one word. */
const char *tuned_kernels(Arena *a);
/* Cuts other than the rule's for a plan with this program's kernels. gpu NULL: of any GPU of the architecture, the
 * newest first. */
PlanChoices tuned_choices(Arena *a, const Tuned *t, const char *arch, const char *gpu);

#endif
