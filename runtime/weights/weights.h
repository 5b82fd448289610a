/* weights.h - readers of weight files: GGUF v3 (split files too) and safetensors (+ config.json).
 *
 * Both give a ModelFile (ir/modelfile.h) over mapped memory. The bytes are hostile until checked:
 * every count, size, offset and name is, before it is used. Errors name the file, the tensor or key,
 * and what was expected and found; they go to diag, and the result is NULL.
 * Formats: GGUF v3 (ggml's gguf.h), safetensors (huggingface/safetensors).
 *
 * With safetensors, metadata is config.json with nested objects as dotted keys ("a.b"), then the
 * file's own `__metadata__.KEY`; the architecture is the first of `architectures`, else `model_type`;
 * TensorInfo.file_type is the GGUF number of the dtype, UINT32_MAX where GGUF has none.
 */
#ifndef LAP_WEIGHTS_WEIGHTS_H
#define LAP_WEIGHTS_WEIGHTS_H

#include "ir/diag.h"
#include "ir/modelfile.h"

typedef struct Weights Weights;

/* Opens a file by its content: GGUF (any part of a split), .safetensors (with the config.json beside
 * it, if any), model.safetensors.index.json for its shards, or a directory with one such model: config.json and
 * model.safetensors or its indexed shards, or a GGUF. A directory with several is an error that names them. */
Weights *weights_open(const char *path, Diag *diag);
void weights_close(Weights *w);
/* Owned by w. */
const ModelFile *weights_file(const Weights *w);
/* Bytes of all files together. */
uint64_t weights_bytes(const Weights *w);

/* Bytes of NAME, its folder included, in the path "NAME-00002-of-00003.gguf" of a part; 0: it is not called so. */
size_t gguf_split_stem(const char *path);

/* The parsers on memory, for tests and fuzzing; `data` must outlive the result. `path` is used in
 * messages. A single part of a split GGUF parses alone (its keys tell the rest). */
Weights *gguf_parse(const void *data, size_t size, const char *path, Diag *diag);
Weights *safetensors_parse(const void *data, size_t size, const char *path, Diag *diag);

#endif
