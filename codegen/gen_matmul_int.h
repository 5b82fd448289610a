/* gen_matmul_int.h - what the families matmul and experts share. */
#ifndef LAP_CODEGEN_GEN_MATMUL_INT_H
#define LAP_CODEGEN_GEN_MATMUL_INT_H

#include "codegen/gen_int.h"
#include "codegen/matmul_shape.h"

/* The shape of the group's mains. False after gen_fail. */
bool gen_matmul_shape(Gen *g, const NodeVec *mains, int64_t dim, MatmulShape *s);
void gen_matmul_weights(Gen *g, const NodeVec *mains, PlanLaunch *l);
/* Mains whose weights are f32 and few, which are multiplied in f32 in every phase. */
bool gen_multiplies_in_f32(const Gen *g, const NodeVec *mains);
/* Where the input of a main stands; it must be rows, or there as an operand. */
bool gen_input_rows(Gen *g, const Node *main, Loc *x);

/* Scratch for the mains' results side by side, `planes` times [rows][pairs][sum of N]; sets their places and decides
 * which of them their readers take from there. halves: one plane, as f16 and f32 [rows][pairs] behind them. */
void gen_place_results(Gen *g, const NodeVec *mains, int64_t rows, int64_t pairs, int planes, bool halves);
/* After the row program: results that it has copied to the slab are there. */
void gen_results_done(Gen *g, const NodeVec *mains);
/* In a launch of its own: what follows the mains, if anything; then their results are done. */
void gen_after(Gen *g, const Members *m, SrcLoc loc);
/* Mains and what follows them, for the row program; none when there is nothing to do. */
NodeVec gen_tail_nodes(Gen *g, const Members *m);

/* Kernels of matmul_strips.cu's kind. */
typedef enum MatmulKind { MATMUL_LINEAR, MATMUL_EXPERTS } MatmulKind;

/* Cut as the options ask; `order`: of gen_order(); `more`: further #defines; tail NULL: none. */
int gen_matmul_kernel(Gen *g, MatmulKind kind, const MatmulShape *s, const char *order, const char *more,
                      const RowProgram *tail);

/* ==== Order (gen_order.c) ==== */

/* What of the current group may be early in this phase, in a launch for few rows. */
Early gen_early(const Gen *g);
/* "#define LAUNCH_EARLY .." and so on (kernels/launch_order.cu) of the group's launch; `nodes`: its row program's. */
const char *gen_order(Gen *g, const NodeVec *nodes);

/* ==== Prefill (gen_prefill.c) ==== */

/* Main's input as records (kernels/matmul_rows.cu) of K columns: those that were made with it, or a launch makes them.
 */
PlanArg gen_records(Gen *g, const Node *main, const Loc *x, int64_t k);
/* Records x weights -> out. */
void gen_prefill_launch(Gen *g, const NodeVec *mains, const MatmulShape *s, PlanArg records, const Loc *out,
                        int64_t most, int64_t dim, SrcLoc loc);
/* The same through experts: sort, if nobody has by these ids, rows to where the sort says, multiply. */
void gen_prefill_experts(Gen *g, const Members *m, const MatmulShape *s, const Loc *x);

#endif
