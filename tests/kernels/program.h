/* program.h - kernels of codegen/kernels as programs for NVRTC, compiled as plans compile them. */
#ifndef LAP_TESTS_KERNELS_PROGRAM_H
#define LAP_TESTS_KERNELS_PROGRAM_H

#include "codegen/kernel_text.h"
#include "runtime/device/compile.h"

/* A file of codegen/kernels after `defines`, which is freed. bodies: texts in place of files. */
Program program_new(const char *label, const char *file, char *defines, const Body *bodies, int n_bodies);
void program_free(Program *p);

/* ==== What ptxas says ==== */

/* The number before `unit` in its report, the largest of several: " registers", " bytes spill stores". */
int ptxas_number(const char *log, const char *unit);
/* Whether it has made wgmma wait for each other, which are right then, but slow. */
bool ptxas_serializes(const char *log);
/* The options of plans, and that ptxas reports. */
const char *const *reporting_options(int *n);
/* Compiles them for an architecture, all or those that programs_main() has drawn, and prints what each needs. most[i]:
 * bytes that a thread of program i may spill. */
bool programs_compile(const Nvrtc *n, const char *arch, const Program *all, const int *most, int n_all);
enum {
    ANY_SPILL = -1,
    SPILL_OF_16_WARPS = 112 /* of attention_decode.cu, with 128 registers each: an item's numbers */
};

/* ==== Programs that compile and need no GPU ==== */

/* One of each kind that is released; what is compiled for one only is compiled for the first that has it. */
extern const char *const program_archs[];
extern const int n_program_archs;
/* NVRTC of the machine, or what scripts/fetch_nvrtc.py got; else ends the program, with 77 when there is none. */
Nvrtc *programs_nvrtc(void);
/* main() of one: `compile` for the architectures of the command line; `all`: for each; none: for the first, and
 * every third program, from one that is drawn on, for one that is drawn, too. The exit status. */
int programs_main(int argc, char **argv, bool (*compile)(const Nvrtc *n, const char *arch));

#endif
