/* compile.h - CUDA text to cubins: NVRTC by dlopen, a directory of compiled kernels, a pool of threads.
 *
 * Needs no GPU and no driver, so that kernels can be compiled ahead of time on any machine.
 */
#ifndef LAP_DEVICE_COMPILE_H
#define LAP_DEVICE_COMPILE_H

#include "runtime/device/device_error.h"
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* One text to compile. Nothing in it is copied. */
typedef struct Program {
    const char *name;           /* "matmul.cu": what messages call it where no #line says otherwise */
    const char *source;         /* NUL-terminated */
    const char *const *options; /* of NVRTC, besides the architecture */
    int n_options;
    int64_t effort; /* to compile it, beside that for others: the largest come first. 0: the length of the text */
} Program;

typedef enum CompileState { COMPILE_FAILED, COMPILE_CANCELLED, COMPILE_DONE, COMPILE_CACHED } CompileState;

typedef struct Compiled {
    CompileState state;
    uint8_t *cubin; /* malloc; NULL when it failed */
    size_t bytes;
    char *log;      /* malloc; NVRTC's warnings and errors, its #line places untouched; NULL: none */
    double seconds; /* 0 from the cache */
    DevError error; /* when it failed: a line, then the log, cut if it is long */
} Compiled;

void compiled_free(Compiled *c); /* its buffers, not *c; c is as new afterwards */

/* ==== NVRTC (nvrtc.c) ==== */

typedef struct Nvrtc Nvrtc;

/* dir NULL: libnvrtc.so.13, then .12, first as the dynamic linker finds it, then where CUDA toolkits are
 * installed (nvrtc.c has the list). Else only in dir and, below it, lib, lib64, nvidia/cu13/lib and
 * nvidia/cuda_nvrtc/lib, so that a CUDA toolkit or the site-packages folder of pip can be named.
 * NULL after an error, which says where it looked and what to install. */
Nvrtc *nvrtc_open(const char *dir, DevError *e);
void nvrtc_close(Nvrtc *n);

typedef struct NvrtcInfo {
    int major, minor;
    const char *path;       /* the library's */
    int64_t builtins_bytes; /* size of libnvrtc-builtins beside it: tells builds of one version apart; 0: not found */
} NvrtcInfo;

const NvrtcInfo *nvrtc_info(const Nvrtc *n);
/* Whether it can make code for "sm_90a". */
bool nvrtc_supports(const Nvrtc *n, const char *arch);

/* Compiles. May be called from several threads at once. cancel may be NULL; set, a compile in progress ends soon
 * (with an NVRTC older than 12.9: at its end). True: out->cubin is there. */
bool nvrtc_compile(const Nvrtc *n, const Program *p, const char *arch, atomic_bool *cancel, Compiled *out);

/* ==== Directory of compiled kernels (cubin_cache.c) ==== */

typedef struct CubinCache CubinCache;

typedef struct CubinKey {
    uint8_t bytes[16];
} CubinKey;

/* The directory is made when first written to. Nothing here is ever fatal: what goes wrong is a warning. All calls
 * may be made from several threads, and several processes may use one directory. */
CubinCache *cubin_cache_open(const char *dir);
void cubin_cache_close(CubinCache *c);

/* Of the text, the options in order, the architecture and the NVRTC; not of the program's name, and not of #line: what
 * is kept of warnings has the places of the text that was compiled. */
CubinKey cubin_key(const NvrtcInfo *n, const Program *p, const char *arch);
/* "DIR/HEX.cubin"; out: at least strlen(dir) + 48 bytes */
void cubin_cache_path(const CubinCache *c, CubinKey key, char *out, size_t size);
bool cubin_cache_get(CubinCache *c, CubinKey key, const char *name, Compiled *out);
void cubin_cache_put(CubinCache *c, CubinKey key, const Compiled *compiled);
/* The directory and those above it, where they are missing; what goes wrong shows when something is written there. */
void cubin_cache_make_dir(const char *dir);
/* The warnings since the last call, one a line; free(). NULL: none. */
char *cubin_cache_warnings(CubinCache *c);

/* ==== Many programs (compile.c) ==== */

typedef struct CompileOptions {
    CubinCache *cache; /* NULL: none */
    int threads;       /* 0: one a processor */
    /* Called by the thread that called compile_programs, whenever a program is done and ten times a second.
     * False: stop. NULL: not called. */
    bool (*progress)(void *user, int done, int total);
    void *user;
} CompileOptions;

/* Compiles all of them; out[i] is of programs[i], whatever order they were done in, and is freed by the caller.
 * One that fails does not stop the others. True: all are there. e: of the first that failed, by its index. */
bool compile_programs(const Nvrtc *n, const char *arch, const Program *programs, int count, const CompileOptions *o,
                      Compiled *out, DevError *e);

#endif
