/* gpu_sampling.c - see gpu_sampling.h. */
#include "runtime/engine/gpu_sampling.h"

#include <math.h>
#include <string.h>

static size_t mask_words(int vocab) {
    return ((size_t)vocab + 31) / 32;
}

static bool is_token(int32_t id, int vocab) {
    return id >= 0 && id < vocab;
}

void gpu_sampling_init(GpuSampling *s, const SampleOptions *options, int vocab, int64_t context, uint64_t recent) {
    const SampleOptions o = sample_options_in_range(*options);
    const float coldest = 0x1p-125f; /* 1 / coldest is an f32 */
    *s = (GpuSampling){
        .log_min_p = o.min_p < 1 ? log(o.min_p) : 0,
        .temperature = o.temperature > 0 && o.temperature < coldest ? coldest : o.temperature,
        .top_p = o.top_p,
        .repeat_penalty = o.repeat_penalty,
        .top_k = o.top_k < vocab ? o.top_k : 0,
    };
    sampler_seed(s->random, o.seed);
    if (o.repeat_penalty == 1 || o.repeat_last == 0)
        return;
    s->recent = recent;
    /* A ring that never overflows forgets nothing: none is needed. */
    s->ring_size = o.repeat_last < 0 || o.repeat_last > context ? 0 : o.repeat_last;
}

size_t gpu_sampling_recent_bytes(const GpuSampling *s, int vocab) {
    return s->recent ? (mask_words(vocab) + (size_t)s->ring_size) * sizeof(uint32_t) : 0;
}

void gpu_sampling_prompt(GpuSampling *s, uint32_t *recent, int vocab, const int32_t *ids, int64_t n) {
    if (!s->recent)
        return;
    memset(recent, 0, gpu_sampling_recent_bytes(s, vocab));
    uint32_t *ring = recent + mask_words(vocab);
    int64_t first = n, count = 0; /* the ring holds the last tokens only */
    while (first > 0 && (!s->ring_size || count < s->ring_size))
        count += is_token(ids[--first], vocab);
    for (int64_t i = first; i < n; i++) {
        if (!is_token(ids[i], vocab))
            continue;
        recent[ids[i] / 32] |= 1u << ids[i] % 32;
        if (s->ring_size)
            ring[s->ring_used++] = (uint32_t)ids[i];
    }
}
