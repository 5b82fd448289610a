/* kernel_text.c - see kernel_text.h. */
#include "codegen/kernel_text.h"
#include "codegen/plan.h"

#include "codegen/kernel_texts_int.h"
#include <string.h>

typedef struct Expansion {
    Buf out;
    const Body *bodies;
    int n_bodies;
    NameMap *done; /* files are included once: all have guards */
    Arena *scratch;
} Expansion;

static const char *find_text(const Expansion *x, const char *name) {
    for (int i = 0; i < x->n_bodies; i++)
        if (strcmp(x->bodies[i].name, name) == 0)
            return x->bodies[i].text;
    for (int i = 0; i < n_codegen_texts; i++)
        if (strcmp(codegen_texts[i].name, name) == 0)
            return codegen_texts[i].text;
    ICE("there is no kernel text %s", name);
}

static void expand(Expansion *x, const char *name) {
    static const char include[] = "#include \"";
    const size_t n = sizeof include - 1;
    if (namemap_get(x->done, name) >= 0)
        return;
    namemap_put(x->done, name, 1);
    buf_printf(&x->out, "#line 1 \"%s\"\n", name);
    int line = 1;
    for (const char *p = find_text(x, name); *p; line++) {
        const char *end = strchr(p, '\n');
        end = end ? end + 1 : p + strlen(p);
        if (strncmp(p, include, n) == 0) {
            expand(x, arena_strndup(x->scratch, p + n, strcspn(p + n, "\"\n")));
            buf_printf(&x->out, "#line %d \"%s\"\n", line + 1, name);
        } else {
            buf_bytes(&x->out, p, (size_t)(end - p));
        }
        p = end;
    }
}

const char *kernel_expand(Arena *a, const char *file, const char *defines, const Body *bodies, int n_bodies) {
    Expansion x = {.bodies = bodies, .n_bodies = n_bodies, .scratch = arena_new()};
    x.done = namemap_new(x.scratch);
    buf_str(&x.out, defines);
    expand(&x, file);
    const char *text = arena_strndup(a, x.out.s, x.out.n);
    buf_free(&x.out);
    arena_free(x.scratch);
    return text;
}

/* Seconds of compiling for a length of text, beside that of a decode matmul: more where loops are unrolled far, or the
 * same steps are written out for several cases (docs/performance/loading.md). */
static const struct {
    const char *file;
    int times;
} dense_texts[] = {
    {"sample.cu", 24},          {"matmul_wgmma.cu", 7},    {"attention_pipeline.cu", 6}, {"attention_wgmma_wide.cu", 4},
    {"attention_decode.cu", 3}, {"attention_wgmma.cu", 2}, {"matmul_prefill.cu", 2},
};

int64_t plan_kernel_effort(const PlanKernel *k) {
    int times = 1;
    for (size_t i = 0; i < COUNTOF(dense_texts); i++)
        if (strcmp(k->file, dense_texts[i].file) == 0)
            times = dense_texts[i].times;
    return (int64_t)strlen(k->text) * times;
}
