/* quant.c - which storage type each tensor has in a quantised file.
 *
 * The rules of llama.cpp's quantiser (src/llama-quant.cpp), as far as these file types use them: the names are
 * part of those rules and of no one model.
 * Kept as converted: vectors, what does not end in "weight", norms, the router, per_layer_model_proj.
 * Embeddings of a model without a head of its own, and the values and down projections of about half the
 * layers, get more bits. A row that is not whole blocks gets a type of smaller blocks.
 */
#include "runtime/synth/synth_int.h"
#include <stdlib.h>
#include <string.h>

struct QuantRule {
    const char *name;
    int file_type; /* general.file_type */
    DType type, more_bits;
};

static const QuantRule rules[] = {
    {"q4_k_m", 15, DT_Q4_K, DT_Q6_K},
    {"q8_0", 7, DT_Q8_0, DT_Q8_0},
    {"bf16", 32, DT_BF16, DT_BF16},
};

const char *synth_quant_names(Arena *a) {
    const char *all = rules[0].name;
    for (size_t k = 1; k < COUNTOF(rules); k++)
        all = arena_printf(a, "%s, %s", all, rules[k].name);
    return all;
}

const QuantRule *quant_rule(Arena *a, Diag *diag, const char *name) {
    for (size_t k = 0; k < COUNTOF(rules); k++)
        if (strcmp(rules[k].name, name) == 0)
            return &rules[k];
    diag_error(diag, NO_LOC, "no quantisation \"%s\"; there are %s", name, synth_quant_names(a));
    return NULL;
}

int64_t quant_file_type(const QuantRule *r) {
    return r->file_type;
}

static bool is_quantised(const TensorInfo *t) {
    size_t n = strlen(t->name);
    return t->rank >= 2 && n >= 6 && strcmp(t->name + n - 6, "weight") == 0 && !strstr(t->name, "_norm.weight") &&
           !strstr(t->name, "ffn_gate_inp.weight") && !strstr(t->name, "per_layer_model_proj");
}

static bool is_value(const TensorInfo *t) {
    return strstr(t->name, "attn_v.weight") != NULL;
}

static bool is_embedding(const TensorInfo *t) {
    return strcmp(t->name, "token_embd.weight") == 0 || strcmp(t->name, "per_layer_token_embd.weight") == 0;
}

static bool use_more_bits(int64_t i, int64_t n) {
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

/* The layer in "blk.7.ffn_down.weight". */
static int64_t layer_of(const char *name) {
    return strncmp(name, "blk.", 4) == 0 ? strtoll(name + 4, NULL, 10) : 0;
}

static DType for_rows(DType type, int64_t row) {
    if (row % dtype_info(type)->block_elems == 0)
        return type;
    DType smaller = type == DT_Q4_K ? DT_Q5_0 : type == DT_Q6_K ? DT_Q8_0 : DT_F16;
    return row % dtype_info(smaller)->block_elems == 0 ? smaller : DT_F16;
}

void quant_types(const QuantRule *r, TensorInfo *t, int n, int64_t layers) {
    int64_t values = 0;
    bool has_head = false;
    for (int k = 0; k < n; k++) {
        values += is_value(&t[k]);
        has_head |= strcmp(t[k].name, "output.weight") == 0;
    }
    int64_t value = 0;
    for (int k = 0; k < n; k++) {
        bool more = strcmp(t[k].name, "output.weight") == 0 || (is_embedding(&t[k]) && !has_head);
        if (is_value(&t[k]))
            more = use_more_bits(value++, values);
        else if (strstr(t[k].name, "ffn_down"))
            more = use_more_bits(layer_of(t[k].name), layers);
        if (is_quantised(&t[k]))
            t[k].dtype = for_rows(more ? r->more_bits : r->type, t[k].dims[t[k].rank - 1]);
    }
}
