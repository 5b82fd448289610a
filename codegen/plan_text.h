/* plan_text.h - plans as text, read back: what a .facet holds is not trusted.
 *
 * The language, one thing a line, as plan_print() writes it (names, strings, places as in docs/ir.md; comments mean
 * nothing):
 *
 *   plan ARCH slots N context N chunk N
 *   buffer bN KIND NAME BYTES [of INDEX]                 INDEX: the weight or cache of the module
 *   kernel NAME from FILE threads N shared BYTES blocks N [CUT of SHAPE]
 *   call bN bytes N slots OFFSET lengths OFFSET {
 *     input NAME : TYPE at OFFSET
 *   }
 *   fills {
 *     LAUNCH
 *   }
 *   weight INDEX to bN [by N]                            N: the fill that makes the buffer
 *   table N                                              N: a fill to run after all weights
 *   phase NAME of GRAPH rows N wanted N [capture] [timed] {
 *     LAUNCH
 *     emit NAME : TYPE at OFFSET                         in the slab; also tap
 *   }
 *   sampler of GRAPH rows N vocabulary N states bN recent bN ring bN {
 *     LAUNCH
 *   }
 *   checker of GRAPH rows N vocabulary N ring bN {         also guesser
 *     LAUNCH
 *   }
 *   LAUNCH: launch KERNEL (ARG, ..) grid X Y Z [fill N] [rows T|R axis N per N] [group N] [COST N ..] [LABEL]
 *   ARG:    bN | bN+OFFSET | null | INTEGER | staging
 *   CUT:    tuned|analytic groups N stages N flight N partials N     of a decode matmul, whose SHAPE is a string
 */
#ifndef LAP_CODEGEN_PLAN_TEXT_H
#define LAP_CODEGEN_PLAN_TEXT_H

#include "codegen/plan.h"

/* A plan without the kernels' texts. NULL after errors in diag, each at its place. In a plan that is read every index
 * exists, every offset lies in its buffer, inputs and outputs of the largest call end inside of their buffers, and
 * every count is sane: following it writes nowhere else, as far as a plan can tell. */
Plan *plan_parse(Arena *arena, Diag *diag, const char *name, const char *text, size_t len);

/* Gives a kernel its text, which is not copied. False: the plan has no such kernel. */
bool plan_attach_kernel(Plan *p, const char *name, const char *text);

/* Whether the plan is one of this module: weights, caches, entries, inputs and outputs exist, with the types and in
 * buffers of the size that the plan says. False after errors in diag. (plan_check.c) */
bool plan_check(const Plan *p, const Module *m, Diag *diag);

/* "sm_90a" is compute capability 90, whose code runs nowhere else. False when arch is no such text. */
bool plan_arch(const char *arch, int *sm, bool *only_there);

/* "9.0 MiB" */
const char *plan_bytes_text(char out[32], int64_t bytes);

#endif
