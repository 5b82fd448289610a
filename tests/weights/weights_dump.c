/* weights_dump.c - opens a model and prints all that the reader found, or its messages; the data
 * tests compare the text. Exit status 0, or 1 when the model was refused.
 *
 *   arch NAME
 *   meta KEY = KIND VALUE        or  KIND[n] VALUES
 *   tensor NAME dtype(file type) [dims] BYTES bytes, sum S     (S: sum of all bytes)
 *   files BYTES
 */
#include "runtime/weights/weights.h"

#include <inttypes.h>
#include <stdio.h>

static void print_text(Str s) {
    putchar('"');
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.s[i];
        if (c < 0x20 || c == '"' || c == '\\' || c >= 0x7f)
            printf("\\x%02x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void print_value(const MetaValue *v) {
    static const char *const kinds[] = {
        [META_INT] = "int", [META_FLOAT] = "float", [META_BOOL] = "bool", [META_STRING] = "string"};
    printf("%s", kinds[v->kind]);
    if (v->is_array)
        printf("[%" PRId64 "]", v->n);
    for (int64_t i = 0; i < v->n; i++) {
        putchar(' ');
        if (v->kind == META_STRING)
            print_text(v->s[i]);
        else if (v->kind == META_FLOAT)
            printf("%.17g", v->f[i]);
        else
            printf("%" PRId64, v->i[i]);
    }
}

static void print_tensor(const TensorInfo *t) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < t->bytes; i++)
        sum += ((const uint8_t *)t->data)[i];
    printf("tensor %s %s(%" PRIu32 ") [", t->name, t->dtype == DT_COUNT ? "unknown" : dtype_name(t->dtype),
           t->file_type);
    for (int i = 0; i < t->rank; i++)
        printf(i ? ", %" PRId64 : "%" PRId64, t->dims[i]);
    printf("] %" PRIu64 " bytes, sum %" PRIu64 "\n", t->bytes, sum);
}

static int dump(const Weights *w) {
    const ModelFile *f = weights_file(w);
    printf("arch %s\n", f->arch);
    for (int i = 0; i < f->n_meta; i++) {
        if (modelfile_meta(f, f->meta[i].key) != &f->meta[i].value)
            return 2; /* the index must lead back */
        printf("meta %s = ", f->meta[i].key);
        print_value(&f->meta[i].value);
        putchar('\n');
    }
    for (int i = 0; i < f->n_tensors; i++) {
        if (modelfile_tensor(f, f->tensors[i].name) != &f->tensors[i])
            return 2;
        print_tensor(&f->tensors[i]);
    }
    printf("files %" PRIu64 "\n", weights_bytes(w));
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: weights_dump MODEL\n");
        return 2;
    }
    Diag *diag = diag_new();
    Weights *w = weights_open(argv[1], diag);
    int status = w ? dump(w) : 1;
    diag_print(diag, stdout, false);
    if (!w == !diag_errors(diag))
        status = 3; /* refused without a message, or accepted with an error */
    weights_close(w);
    diag_free(diag);
    return status;
}
