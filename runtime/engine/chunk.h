/* chunk.h - how many rows of a prompt a call takes on a GPU, where nobody said.
 *
 * Longer calls fill the multiprocessors better (codegen/prefill_cost.h) and need more memory: activations, and rings,
 * which hold a window and a call. So the chunk is the smallest of 512, 1,024, 2,048 and 4,096, and no more than the
 * context, that is within 6 % of the fastest of them, by the rates of the pass options; or the largest below it whose
 * plan fits, weights and caches included; where 512 does not fit 256, 128 or 64, with sparse attention no less than its
 * block. Results do not depend on it.
 */
#ifndef LAP_ENGINE_CHUNK_H
#define LAP_ENGINE_CHUNK_H

#include "codegen/plan.h"
#include "passes/passes.h"

/* What is used where no device is known, and on the processor: Gemma 3 270M reads prompts there 4 % slower in calls of
 * 1,024, 17 % in calls of 2,048 (docs/performance/models.md). */
enum { CHUNK_USUAL = 512 };

/* The device: what it has free, and of how much. */
typedef struct ChunkRoom {
    int64_t free_bytes, total_bytes;
} ChunkRoom;

typedef struct ChunkRequest {
    Module *m;        /* through all passes, for any chunk */
    PassOptions pass; /* they ran with; rows: most that may be wanted of a call, however long it is */
    int slots;
    const PlanChoices *choices; /* of PlanOptions */
    /* Filled: what was chosen, and why in one line. */
    int64_t chunk;
    const char *why;
    int64_t needs, may; /* bytes on the device: of the plan, and that a plan may take */
} ChunkRequest;

/* The plan for the chunk that is chosen; the module is planned for it, too. NULL after errors in m->diag. */
Plan *chunk_choose(Arena *arena, ChunkRequest *r, const PlanTarget *target, const ChunkRoom *room);

/* The room of a device of so many bytes of which nothing is known but that the driver has taken its own. */
ChunkRoom chunk_room_of(int64_t bytes);

#endif
