/* types.c - which storage type each matrix has.
 *
 * The file types of llama.cpp with one type for all matrices; the table of embeddings that is the head as well, or the
 * head, has 6 bits where the others have 4. A row that is no whole number of blocks gets the type of smaller blocks
 * with at least as many bits, as there; bf16 when 32 does not divide it either.
 */
#include "runtime/convert/convert_int.h"
#include <string.h>

struct TypeRule {
    const char *name;
    int file_type; /* general.file_type */
    DType matrix, head;
};

static const TypeRule rules[] = {
    {"bf16", 32, DT_BF16, DT_BF16}, {"q8_0", 7, DT_Q8_0, DT_Q8_0},  {"q4_0", 2, DT_Q4_0, DT_Q6_K},
    {"q4_k", 14, DT_Q4_K, DT_Q6_K}, {"q6_k", 18, DT_Q6_K, DT_Q6_K},
};

/* The next type to try for a row. */
static const struct Fallback {
    DType from, to;
} fallbacks[] = {
    {DT_Q4_K, DT_Q5_0}, {DT_Q6_K, DT_Q8_0}, {DT_Q5_0, DT_BF16}, {DT_Q4_0, DT_BF16}, {DT_Q8_0, DT_BF16},
};

const TypeRule *type_rule(Arena *a, Diag *diag, const char *name) {
    const char *all = "";
    for (size_t k = 0; k < COUNTOF(rules); k++) {
        if (strcmp(rules[k].name, name) == 0)
            return &rules[k];
        all = arena_printf(a, "%s%s%s", all, k ? ", " : "", rules[k].name);
    }
    diag_error(diag, NO_LOC, "no quantisation \"%s\"; there are %s", name, all);
    return NULL;
}

int64_t type_file_type(const TypeRule *q) {
    return q->file_type;
}

static DType for_row(DType type, int64_t row) {
    for (size_t k = 0; k < COUNTOF(fallbacks); k++)
        if (fallbacks[k].from == type && row % dtype_info(type)->block_elems != 0)
            return for_row(fallbacks[k].to, row);
    return type;
}

/* One warning for all tensors of a row length that fell back alike. */
typedef struct Fallen {
    DType wanted, got;
    int64_t row;
    int count;
    const char *first;
} Fallen;

typedef VEC(Fallen) FallenList;

static void note_fallen(Arena *a, FallenList *list, Fallen f) {
    for (int k = 0; k < list->n; k++) {
        Fallen *other = &list->v[k];
        if (other->wanted == f.wanted && other->got == f.got && other->row == f.row) {
            other->count++;
            return;
        }
    }
    f.count = 1;
    vec_push(a, list, f);
}

void types_decide(Recipe *r) {
    FallenList fallen = {0};
    for (int k = 0; k < r->base.tensors.n; k++) {
        TensorInfo *t = &r->base.tensors.v[k];
        if (t->dtype != DT_COUNT)
            continue;
        int64_t row = t->dims[t->rank - 1];
        DType wanted = r->is_head.v[k] ? r->types->head : r->types->matrix;
        t->dtype = for_row(wanted, row);
        if (t->dtype != wanted)
            note_fallen(r->base.scope.arena, &fallen, (Fallen){wanted, t->dtype, row, 0, t->name});
    }
    for (int k = 0; k < fallen.n; k++) {
        const Fallen *f = &fallen.v[k];
        diag_warning(r->base.scope.diag, NO_LOC,
                     "%d tensor%s with rows of %lld values, %s first: %s instead of %s, whose blocks have %d values",
                     f->count, f->count == 1 ? "" : "s", (long long)f->row, f->first, dtype_name(f->got),
                     dtype_name(f->wanted), dtype_info(f->wanted)->block_elems);
    }
}
