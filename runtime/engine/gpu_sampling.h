/* gpu_sampling.h - the host's part of sampling on a GPU (codegen/kernels/sample.cu): the state of a sequence.
 *
 * A sequence has a GpuSampling and, with a penalty, memory for recent tokens: u32 words, first a bit for each token of
 * the vocabulary, then the ring of the last tokens. Both are made here, in host memory, with the tokens of the prompt;
 * copied to the device before the first pick; and from then on advanced by the kernel alone. The kernel's ids are what
 * the Sampler of runtime/text would pick.
 */
#ifndef LAP_ENGINE_GPU_SAMPLING_H
#define LAP_ENGINE_GPU_SAMPLING_H

#include "runtime/text/text.h"

/* Twin of Sampling in codegen/kernels/sample_source.cu, which says what the fields mean. */
typedef struct GpuSampling {
    uint64_t random[4];
    double log_min_p;
    uint64_t recent; /* device address */
    float temperature, top_p, repeat_penalty;
    int32_t top_k, ring_size, ring_used, ring_oldest, unused;
} GpuSampling;
_Static_assert(sizeof(GpuSampling) == 80, "as the kernel has it");

/* The state before the first token. What is out of range means what sampler_new() says; a temperature between 0 and
 * 2^-125 is 2^-125. recent: where the recent tokens will lie on the device, 4-byte aligned; not 0 if there is a
 * penalty, else not used. */
void gpu_sampling_init(GpuSampling *s, const SampleOptions *o, int vocab, int64_t context, uint64_t recent);

/* Bytes of recent tokens that these options use, at most plan_recent_bytes(), to be copied to the device after
 * gpu_sampling_prompt(). 0: none. */
size_t gpu_sampling_recent_bytes(const GpuSampling *s, int vocab);

/* Tells a new state the tokens of the prompt, for the penalty: fills recent [gpu_sampling_recent_bytes()], the host's
 * copy. To be called once, with n = 0 too. Tokens outside of the vocabulary are ignored. */
void gpu_sampling_prompt(GpuSampling *s, uint32_t *recent, int vocab, const int32_t *ids, int64_t n);

#endif
