/* gen_matmul_int.h - what the families matmul and experts share. */
#ifndef LAP_CODEGEN_GEN_MATMUL_INT_H
#define LAP_CODEGEN_GEN_MATMUL_INT_H

#include "codegen/gen_int.h"
#include "codegen/matmul_shape.h"

/* The shape of the group's mains. False after gen_fail. */
bool gen_matmul_shape(Gen *g, const NodeVec *mains, int64_t dim, MatmulShape *s);
void gen_matmul_weights(Gen *g, const NodeVec *mains, PlanLaunch *l);
/* Where the input of a main stands; it must be rows. */
bool gen_input_rows(Gen *g, const Node *main, Loc *x);

/* Scratch for the mains' results side by side, `planes` times [rows][pairs][sum of N]; sets their places and decides
 * which of them their readers take from there. */
void gen_place_results(Gen *g, const NodeVec *mains, int64_t rows, int64_t pairs, int planes);
/* After the row program: results that it has copied to the slab are there. */
void gen_results_done(Gen *g, const NodeVec *mains);
/* In a launch of its own: what follows the mains, if anything; then their results are done. */
void gen_after(Gen *g, const Members *m, SrcLoc loc);
/* Mains and what follows them, for the row program; none when there is nothing to do. */
NodeVec gen_tail_nodes(Gen *g, const Members *m);

/* A kernel of matmul_strips.cu's kind; `order`: of gen_order(); `more`: further #defines; tail NULL: none. */
int gen_matmul_kernel(Gen *g, const char *file, const char *name, const MatmulShape *s, const char *order,
                      const char *more, const RowProgram *tail);

/* ==== Order (gen_order.c) ==== */

/* What of the current group may be early in this phase, in a launch for few rows. */
Early gen_early(const Gen *g);
/* "#define LAUNCH_EARLY .." and so on (kernels/launch_order.cu) of the group's launch; `nodes`: its row program's. */
const char *gen_order(Gen *g, const NodeVec *nodes);

/* ==== Prefill (gen_prefill.c) ==== */

/* Scratch offset for `most` rows of K columns as records (kernels/matmul_rows.cu). */
int64_t gen_records(Gen *g, int64_t k, int64_t most);
/* Rows -> records. */
void gen_input_launch(Gen *g, const Loc *x, int64_t records, int64_t k, int64_t most, int64_t dim, SrcLoc loc);
/* Records x weights -> out. */
void gen_prefill_launch(Gen *g, const NodeVec *mains, const MatmulShape *s, int64_t records, const Loc *out,
                        int64_t most, int64_t dim, SrcLoc loc);
/* The same through experts: sort, if nobody has by these ids, rows to where the sort says, multiply. */
void gen_prefill_experts(Gen *g, const Members *m, const MatmulShape *s, const Loc *x);

#endif
