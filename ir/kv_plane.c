/* kv_plane.c - planes of K/V caches as the kernels of a GPU have them: kv.h. */
#include "ir/kv.h"

#include "ir/base.h"

typedef struct GpuForm {
    const char *name;
    int code, group;
} GpuForm;

static const GpuForm forms[DT_COUNT] = {
#define KV_TYPE(name, rotated, code, group) [DT_##name] = {#name, code, group},
#include "ir/kv.def"
#undef KV_TYPE
};

const char *kv_form(DType t) {
    return (unsigned)t < DT_COUNT && forms[t].code ? forms[t].name : NULL;
}

int kv_group(DType t) {
    return forms[t].group;
}

int64_t kv_places(int64_t capacity) {
    return (capacity + KV_PLACES - 1) / KV_PLACES * KV_PLACES;
}

int64_t kv_gpu_head_bytes(DType t, int dim) {
    const GpuForm *f = &forms[t];
    return (int64_t)dim * f->code / 8 + (f->group ? dim / f->group * 2 : 0);
}

int64_t kv_gpu_plane_bytes(DType t, int heads, int dim, int64_t capacity) {
    int64_t bytes;
    const bool fits = capacity <= INT64_MAX - KV_PLACES &&
                      !__builtin_mul_overflow(kv_places(capacity), heads * kv_gpu_head_bytes(t, dim), &bytes);
    return fits ? bytes : -1;
}
