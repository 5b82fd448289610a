/* chunk.c - see chunk.h. */
#include "runtime/engine/chunk.h"
#include "codegen/plan_text.h"
#include "codegen/prefill_cost.h"

#define MIB          ((int64_t)1 << 20)
/* What the driver takes for itself: its context, and code. */
#define DRIVER_BYTES (512 * MIB)
/* Of a load beside its plan: a piece of weights on its way in (gpu_load.c). */
#define LOAD_BYTES   (64 * MIB)

ChunkRoom chunk_room_of(int64_t bytes) {
    return (ChunkRoom){.free_bytes = bytes > DRIVER_BYTES ? bytes - DRIVER_BYTES : 0, .total_bytes = bytes};
}

/* What a plan may take: the rest is for graphs, what calls hand to each other, and other programs. */
static int64_t usable(const ChunkRoom *room) {
    const int64_t bytes = room->free_bytes - room->total_bytes / 32 - 256 * MIB - LOAD_BYTES;
    return bytes > 0 ? bytes : 0;
}

/* ==== What is to be chosen from ==== */

/* Twice the rows are twice the activations: what gains less is not worth it. */
enum { MOST_SIZES = 8, WORTH_PERCENT = 6 };

typedef struct Sizes {
    int n, usual;               /* the place of CHUNK_USUAL, or of the context where that is less */
    int64_t rows[MOST_SIZES];   /* ascending, the last at most the context */
    double seconds[MOST_SIZES]; /* of a row of a long prompt, without attention */
} Sizes;

static Sizes sizes_of(const ChunkRequest *r, const PlanTarget *target) {
    static const int64_t rows[] = {64, 128, 256, CHUNK_USUAL, 1024, 2048, 4096};
    const PrefillRates rates = prefill_rates(&r->pass.rates);
    const int64_t least = r->pass.sparse == SPARSE_ON ? sparse_grid(r->m) : 1; /* part of a block chooses otherwise */
    Sizes s = {0};
    for (size_t i = 0; i < COUNTOF(rows); i++) {
        int64_t n = rows[i] > least ? rows[i] : least;
        n = n < r->pass.context ? n : r->pass.context;
        if (s.n && s.rows[s.n - 1] == n)
            continue;
        s.rows[s.n] = n;
        s.seconds[s.n] = prefill_seconds(r->m, target, &rates, n) / (double)n;
        s.usual = rows[i] <= CHUNK_USUAL ? s.n : s.usual;
        s.n++;
    }
    return s;
}

/* From the usual one on, the smallest that is not much slower than the fastest. */
static int fast_enough(const Sizes *s) {
    double best = s->seconds[s->usual];
    for (int i = s->usual; i < s->n; i++)
        best = s->seconds[i] < best ? s->seconds[i] : best;
    int i = s->usual;
    while (s->seconds[i] * 100 > best * (100 + WORTH_PERCENT))
        i++;
    return i;
}

/* ==== The choice ==== */

static Plan *plan_for(Arena *arena, ChunkRequest *r, const PlanTarget *target, int64_t chunk) {
    PassOptions pass = r->pass;
    pass.chunk = chunk;
    pass.rows = pass.rows < chunk ? pass.rows : chunk;
    const PlanOptions o = {
        .slots = r->slots, .context = pass.context, .chunk = chunk, .wanted = pass.rows, .choices = r->choices};
    return pipeline_replan(r->m, &pass) ? plan_generate(arena, r->m, target, &o) : NULL;
}

/* Why not more, of a size that was not limited by memory. */
static const char *because(Arena *a, const Sizes *s, int at, const PassOptions *pass) {
    const double gain = 100 * (s->seconds[s->usual] / s->seconds[at] - 1);
    const char *by = rates_short_text(a, &pass->rates);
    const char *more = arena_printf(a, "a longer one would gain less than %d %%", WORTH_PERCENT);
    if (s->rows[at] == pass->context)
        return "as long as the context";
    if (at == s->usual)
        return arena_printf(a, "%s; %s", more, by);
    return arena_printf(a, "without attention %.0f %% faster than %lld; %s; %s", gain, (long long)s->rows[s->usual],
                        at + 1 < s->n ? more : "the longest there is", by);
}

Plan *chunk_choose(Arena *arena, ChunkRequest *r, const PlanTarget *target, const ChunkRoom *room) {
    const Sizes s = sizes_of(r, target);
    const int64_t most = usable(room);
    const int best = fast_enough(&s);
    char needed[32] = "", has[32];
    plan_bytes_text(has, most);
    for (int at = best;; at--) {
        Plan *plan = plan_for(arena, r, target, s.rows[at]);
        const int64_t bytes = plan ? plan_device_bytes(plan) : 0;
        if (plan && bytes > most && at > 0) {
            plan_bytes_text(needed, bytes);
            continue;
        }
        r->chunk = s.rows[at];
        r->needs = bytes;
        r->may = most;
        r->why = bytes > most ? arena_printf(arena, "the least, and more than the %s that may be used", has)
                 : at < best  ? arena_printf(arena, "%lld would need %s on the device, where %s may be used",
                                             (long long)s.rows[at + 1], needed, has)
                              : because(arena, &s, at, &r->pass);
        return plan;
    }
}
