/* fuzz_facet.c - bundles: any bytes as an archive; or, behind the letter m, as the manifest of one whose other entries
 * are sound, so that hashes do not keep everything from the readers behind them.
 *
 * Whatever is accepted is read through: text, module, plans, cubins.
 */
#include "runtime/facet/facet.h"
#include "tests/codegen/small_plan.h"
#include "tests/fuzz/promise.h"

#include <zip.h>

static void touch(const void *data, size_t size) {
    static volatile unsigned sink; /* keeps the reads */
    unsigned sum = 0;
    Diag *d = diag_new();
    Facet *f = facet_open_memory(data, size, "input", d);
    require((f != NULL) == (diag_errors(d) == 0), "refused with a message, or opened");
    for (int i = 0; f && i < facet_info(f)->archs.n; i++) {
        if (!facet_load(f, i, d))
            continue;
        const FacetArch *a = &facet_info(f)->archs.v[i];
        for (int k = 0; k < a->plan->kernels.n; k++) {
            sum += (unsigned)strlen(a->plan->kernels.v[k].text);
            for (size_t j = 0; j < a->cubins[k].bytes; j++)
                sum += ((const uint8_t *)a->cubins[k].data)[j];
        }
    }
    if (f)
        facet_arch(f, "sm_89", d);
    sink = sum;
    (void)sink;
    free(diag_text(d));
    facet_close(f);
    diag_free(d);
}

static void put(zip_t *z, const char *name, const void *data, size_t n) {
    zip_source_t *s = zip_source_buffer(z, data, n, 0);
    require(s && zip_file_add(z, name, s, 0) >= 0, "libzip adds an entry");
}

/* A bundle for sm_90a with this manifest. */
static void touch_manifest(const uint8_t *manifest, size_t size) {
    static const char cubin[] = "\177ELF";
    static const char *const kernels[] = {"repack_0", "matmul_1", "rowwise_2"};
    char name[COUNTOF(kernels)][2][64];
    zip_error_t e;
    zip_error_init(&e);
    zip_source_t *memory = zip_source_buffer_create(NULL, 0, 0, &e);
    zip_t *z = zip_open_from_source(memory, ZIP_TRUNCATE, &e);
    require(z != NULL, "libzip makes an archive");
    zip_source_keep(memory);
    put(z, "manifest.json", manifest, size);
    put(z, "model.lap", "", 0);
    put(z, "module.ir", small_module_text, strlen(small_module_text));
    put(z, "sm_90a/plan.txt", small_plan_text, strlen(small_plan_text));
    for (size_t i = 0; i < COUNTOF(kernels); i++) {
        snprintf(name[i][0], sizeof name[i][0], "sm_90a/kernels/%s.cu", kernels[i]);
        snprintf(name[i][1], sizeof name[i][1], "sm_90a/kernels/%s.cubin", kernels[i]);
        put(z, name[i][0], "", 0);
        put(z, name[i][1], cubin, sizeof cubin - 1);
    }
    zip_stat_t st;
    require(zip_close(z) == 0 && zip_source_stat(memory, &st) == 0 && zip_source_open(memory) == 0,
            "libzip writes an archive");
    void *data = malloc(st.size);
    require(data && zip_source_read(memory, data, st.size) == (zip_int64_t)st.size, "libzip reads what it wrote");
    zip_source_close(memory);
    zip_source_free(memory);
    touch(data, st.size);
    free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size && data[0] == 'm')
        touch_manifest(data + 1, size - 1);
    else
        touch(data, size);
    return 0;
}
