/* fuzz_tokenizer.c - any bytes as the tokenizer.json of a checkpoint: no crash; what is refused is reported; what
 * converts has a token for each row of the embedding table, and the reader of GGUF's keys takes it or says what is
 * wrong.
 *
 * The rest of the checkpoint is one table of 64 rows and a .convert text; the folder is one of /tmp, of this process.
 */
#include "runtime/convert/convert.h"
#include "runtime/text/text.h"
#include "tests/fuzz/promise.h"

#include <unistd.h>

enum { ROWS = 64, COLUMNS = 32 };

static const char recipe[] = "from Test\n"
                             "number vocab rows\n"
                             "visible <seen>\n"
                             "key tokenizer.ggml.model string gemma4 if tokenizer\n"
                             "key tokenizer.ggml.add_bos_token bool 0 if tokenizer\n"
                             "tensor token_embd.weight matrix [64, 32] from embed\n";

static char folder[] = "/tmp/lap-fuzz-XXXXXX", path[64];

static void remove_folder(void) {
    unlink(path);
    rmdir(folder);
}

static void write_tokenizer(const uint8_t *data, size_t size) {
    if (!*path) {
        require(mkdtemp(folder) != NULL, "there is a folder to write to");
        snprintf(path, sizeof path, "%s/tokenizer.json", folder);
        atexit(remove_folder);
    }
    FILE *f = fopen(path, "wb");
    require(f && fwrite(data, 1, size, f) == size && fclose(f) == 0, "the file can be written");
}

/* A checkpoint of one table; nothing reads its values. */
static ModelFile checkpoint(Arena *a) {
    static const float values[ROWS * COLUMNS];
    static const int64_t rows = ROWS;
    static MetaEntry meta[] = {{"rows", {.kind = META_INT, .n = 1, .i = &rows}}};
    static TensorInfo tensors[] = {
        {.name = "embed", .dtype = DT_F32, .rank = 2, .dims = {ROWS, COLUMNS}, .data = values, .bytes = sizeof values}};
    ModelFile file = {
        .path = "checkpoint", .arch = "Test", .meta = meta, .n_meta = 1, .tensors = tensors, .n_tensors = 1};
    modelfile_index(&file, a);
    return file;
}

static void check_keys(const ModelFile *file) {
    const MetaValue *tokens = modelfile_meta(file, "tokenizer.ggml.tokens"),
                    *types = modelfile_meta(file, "tokenizer.ggml.token_type"),
                    *unknown = modelfile_meta(file, "tokenizer.ggml.unknown_token_id");
    require(tokens && types && tokens->n == ROWS && types->n == ROWS, "each row has a token and a type");
    for (int i = 0; i < ROWS; i++) {
        require(tokens->s[i].s != NULL, "each token has a text");
        require(types->i[i] >= 1 && types->i[i] <= 6, "each type is one of GGUF's");
    }
    require(!unknown || (unknown->i[0] >= 0 && unknown->i[0] < ROWS), "special tokens are tokens");
}

/* As a program that opens the written file would: to ids and back. */
static void use(const ModelFile *file, Arena *a, Diag *diag) {
    Tokenizer *t = tokenizer_new(file, diag);
    require((t != NULL) == (diag_errors(diag) == 0), "what no tokenizer is made of is reported");
    if (!t)
        return;
    static const char text[] = "hello <seen> world \xff";
    TokenList ids = {0};
    tokenizer_encode(t, a, text, sizeof text - 1, (EncodeOptions){.parse_special = true}, &ids);
    for (int i = 0; i < ids.n; i++) {
        require(ids.v[i] >= 0 && ids.v[i] < ROWS, "ids are below the rows of the table");
        tokenizer_piece(t, ids.v[i], true);
    }
    tokenizer_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    write_tokenizer(data, size);
    Arena *a = arena_new();
    Diag *diag = diag_new();
    const ModelFile source = checkpoint(a);
    const Conversion *c = convert_plan_text(a, diag, &source, folder, "bf16", "fuzz.convert", recipe);
    require((c != NULL) == (diag_errors(diag) == 0), "what does not convert is reported");
    free(diag_text(diag));
    if (c) {
        check_keys(&c->image.file);
        use(&c->image.file, a, diag);
    }
    diag_free(diag);
    arena_free(a);
    return 0;
}
