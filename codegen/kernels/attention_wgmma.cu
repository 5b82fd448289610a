/* attention_wgmma.cu - attention_prefill.cu's work by warpgroups of sm_90a: flash attention of many query rows.
 *
 * Contract: macros, parameters and results are those of attention_prefill.cu, but for
 *   ATT_QUERIES    128
 *   ATT_TILE       64 keys
 *   dims           ATT_K_DIM = ATT_V_DIM = 64, 128 or 256
 *   launch         block ATT_THREADS = 384; dynamic shared memory ATT_SHARED = 256 ATT_K_DIM bytes of queries, 512
 *                  ATT_K_DIM of two tiles each of keys and values, 512 of positions, 128 of barriers, and the lists of
 *                  attention_kept.cu: 197 KB for 256
 *
 * How: two warpgroups have 64 query rows each and all columns of their output, 128 registers for 256 columns. While
 * the tensor cores add a tile's values, the warpgroup turns the next tile's products into weights: these are asked for
 * first. Two warps of the third warpgroup bring keys, two values, by pieces of 16 bytes, whose places in an atom of
 * 1024 bytes are exchanged (group_mma.cu): queries and keys are [dim / 64][row][64] as rows, values the same as
 * columns. Weights stay in registers.
 *
 * What bounds it, dims 256 on an H100 (clocks of one multiprocessor, a tile of 64 keys by 128 rows): products 2 x 1024;
 * shared memory 2 x (32 KB of queries + 32 KB of keys) for the logits, 2 x 32 KB of values, 64 KB in: 256 KB, 2048 at
 * 128 bytes a clock; a quarter computes 2 x 16 x 32 weights of about 8 operations, 340 slots and 2 x 512 / 16 = 64
 * exponentials a lane, 1024 clocks beside the products. Predicted 550 to 650 TFLOP/s for full rows, 400 for a window of
 * 1024, of which 1152 keys are touched; measured 672 and 455 with 8192 rows (docs/performance/prefill.md).
 */
#ifndef ATT_NAME
#define ATT_NAME attention_prefill
#endif

#include "attention_kept.cu"

#define ATT_QUERIES 128
#define ATT_TILE    64
#define ATT_THREADS 384
#define ATT_STAGES  2

static_assert(ATT_K_DIM == ATT_V_DIM && (ATT_K_DIM == 64 || ATT_K_DIM == 128 || ATT_K_DIM == 256), "dims");
static_assert(!KForm::packed && !VForm::packed, "elements of 16 bits");

/* ==== Shared memory ==== */

#define ATT_TILE_BYTES   (2 * ATT_TILE * ATT_K_DIM)
#define ATT_KEYS_AT      (2 * ATT_QUERIES * ATT_K_DIM)
#define ATT_VALUES_AT    (ATT_KEYS_AT + ATT_STAGES * ATT_TILE_BYTES)
#define ATT_POSITIONS_AT (ATT_VALUES_AT + ATT_STAGES * ATT_TILE_BYTES)
#define ATT_BARRIERS_AT  (ATT_POSITIONS_AT + 4 * ATT_QUERIES)
#define ATT_KEPT_AT      (ATT_BARRIERS_AT + 128)
#define ATT_SHARED       (ATT_KEPT_AT + KEPT_BYTES)

#define ATT_ROWS_BLOCK (128 * ATT_QUERIES) /* bytes of 64 columns of all queries, and of a tile */
#define ATT_TILE_BLOCK (128 * ATT_TILE)

DYNAMIC_SHARED_ATOMS u8 shared_bytes[];

DEVICE int *positions() {
    return (int *)(shared_bytes + ATT_POSITIONS_AT);
}

#include "attention_group.cu"

/* A stage has arrived; both warpgroups have left it. */
struct Ring {
    u64 filled[ATT_STAGES], left[ATT_STAGES];
};
struct Barriers {
    Ring keys, values;
};
static_assert(sizeof(Barriers) <= 128, "barriers have their place");

DEVICE Barriers &barriers() {
    return *(Barriers *)(shared_bytes + ATT_BARRIERS_AT);
}

enum {
    BRINGERS = 64,        /* threads that bring keys, and as many for values */
    READERS_ARRIVE = 8,
    QUERIES_BARRIER = 1,  /* named: and the next for the second warpgroup */
};

/* ==== The warps that bring ==== */

/* All tiles of keys or values. thread: of BRINGERS. */
DEVICE void bring_all(const Block &b, const u8 *cache, int at, Ring &ring, int thread) {
    int tile = b.low / ATT_TILE, step = 0;
    for (; next_tile(b, tile); tile++, step++) {
        const int stage = step % ATT_STAGES;
        barrier_wait(&ring.left[stage], (step / ATT_STAGES & 1) ^ 1);
        bring_keys<BRINGERS, ATT_TILE, ATT_K_DIM / 8, ATT_TILE_BLOCK>(
            Keys(b, cache, tile), 0, 0, shared_bytes + at + stage * ATT_TILE_BYTES, thread);
        copies_arrive(&ring.filled[stage]);
    }
}

/* ==== A warpgroup's 64 rows ==== */

struct Sums {
    float out[ATT_V_DIM / 2];   /* [8 columns][row][2 columns] */
    float most[2], weight[2];   /* of both rows; the weight over the thread's keys */
};

/* The group's queries; then all its warps see them. */
DEVICE void bring_queries(const Block &b, const u16 *q16) {
    constexpr int pieces = ATT_K_DIM / 8;
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128;
    for (int i = thread; i < 64 * pieces; i += 128) {
        const int row = 64 * group + i / pieces, piece = i % pieces;
        const bool inside = row < b.rows;
        copy16_async(shared_bytes + atom_at(row, piece, ATT_ROWS_BLOCK),
                     query_at(b, q16, inside ? row : 0) + 8 * piece, inside);
    }
    copies_shown();
    warps_meet(QUERIES_BARRIER + group, 128);
}

/* Asks for queries x keys. */
DEVICE void ask_logits(Products &s, const u8 *keys) {
    const u8 *queries = shared_bytes + threadIdx.x / 128 * (128 * 64);
    group_mma_begin();
#pragma unroll
    for (int k = 0; k < ATT_K_DIM / 16; k++)
        group_mma_rows<ATT_TILE, KForm::bf16>(s, queries, k / 4 * ATT_ROWS_BLOCK + k % 4 * 32, keys,
                                              k / 4 * ATT_TILE_BLOCK + k % 4 * 32, k > 0);
    group_mma_close();
}

/* Asks for out += weights x values. */
DEVICE void ask_values(Sums &sums, const u32 (&weights)[ATT_TILE / 16][4], const u8 *values) {
    group_mma_begin();
#pragma unroll
    for (int k = 0; k < ATT_TILE / 16; k++)
        group_mma_columns<ATT_V_DIM, VForm::bf16>(sums.out, weights[k], values, k * 2048, ATT_TILE_BLOCK);
    group_mma_close();
}

/* Logits become weights; shrink: what the sums before are worth beside the new maximum. */
DEVICE void weigh(Products &s, Sums &sums, float (&shrink)[2]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float before = sums.most[half], most = fmaxf(row_most(s, half), before);
        const float weight = row_weights(s, half, most);
        shrink[half] = row_shrink(before, most);
        sums.weight[half] = multiply_add(sums.weight[half], shrink[half], weight);
        sums.most[half] = most;
    }
}

DEVICE void finish(const Block &b, const Place &at, float *out, Sums &sums TABLE_PARAMETERS) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float weight = sums.weight[half];
        weight += lane_swap(weight, 1);
        weight += lane_swap(weight, 2);
        const float factor = last_factor(sums.most[half] * ATT_UNIT, weight, b.head TABLE_ARGUMENTS);
        const int row = at.row + 8 * half;
        float *to = out + ((u64)(b.first + row) * ATT_HEADS + b.head) * ATT_V_DIM + 2 * at.t;
        if (row < b.rows)
#pragma unroll
            for (int n = 0; n < ATT_V_DIM / 8; n++)
                *(float2 *)(to + 8 * n) =
                    make_float2(sums.out[4 * n + 2 * half] * factor, sums.out[4 * n + 2 * half + 1] * factor);
    }
}

/* The tile of a step in both rings. */
struct Reader {
    int step;

    DEVICE int stage() const {
        return step % ATT_STAGES;
    }
    DEVICE const u8 *wait(Ring &ring, int at) const {
        wait_copies(&ring.filled[stage()], step / ATT_STAGES & 1);
        return shared_bytes + at + stage() * ATT_TILE_BYTES;
    }
    DEVICE void leave(Ring &ring) const {
        if ((threadIdx.x & 31) == 0)
            barrier_arrive(&ring.left[stage()]);
    }
};

DEVICE void attend(const Block &b, const u16 *q16, float *out KEPT_PARAMETERS TABLE_PARAMETERS) {
    const Place at;
    Barriers &bar = barriers();
    Sums sums = {};
    sums.most[0] = sums.most[1] = ATT_LEAST;
    int tile = b.low / ATT_TILE, kind = next_tile(b, tile);
    bring_queries(b, q16);
    if (kind) {
        Products s;
        u32 weights[ATT_TILE / 16][4];
        float shrink[2];
        Reader keys = {0}, values = {0};
        ask_logits(s, keys.wait(bar.keys, ATT_KEYS_AT));
        group_mma_wait<0>();
        group_mma_keep(s);
        keys.leave(bar.keys);
        make_logits(b, at, tile * ATT_TILE, (kind & 3) != 2, s TABLE_ARGUMENTS);
        LEAVE_OUT(kind, tile, s)
        weigh(s, sums, shrink);
        pack_weights(s, weights);
        kind = next_tile(b, ++tile);
#pragma unroll 1
        while (kind) {
            keys.step++;
            ask_logits(s, keys.wait(bar.keys, ATT_KEYS_AT));
            ask_values(sums, weights, values.wait(bar.values, ATT_VALUES_AT));
            group_mma_wait<1>();
            group_mma_keep(s);
            keys.leave(bar.keys);
            make_logits(b, at, tile * ATT_TILE, (kind & 3) != 2, s TABLE_ARGUMENTS);
            LEAVE_OUT(kind, tile, s)
            weigh(s, sums, shrink);
            group_mma_wait<0>();
            group_mma_keep(sums.out);
            values.leave(bar.values);
            values.step++;
            shrink_rows(sums.out, shrink);
            pack_weights(s, weights);
            kind = next_tile(b, ++tile);
        }
        ask_values(sums, weights, values.wait(bar.values, ATT_VALUES_AT));
        group_mma_wait<0>();
        group_mma_keep(sums.out);
    }
    finish(b, at, out, sums TABLE_ARGUMENTS);
}

/* ==== The kernel ==== */

KERNEL __launch_bounds__(ATT_THREADS, 1)
    ATT_NAME(const u16 *q16, const u8 *cache_k, const u8 *cache_v, float *out, const int *query_pos, const int *slots,
             const int *lengths, const int *query_count KEPT_PARAMETERS TABLE_PARAMETERS) {
    Block b;
    next_kernel_release();
    previous_kernels_wait();
    if (!find_block(b, query_pos, slots, lengths, query_count))
        return;
    if (threadIdx.x == 0) {
        Ring *const rings[] = {&barriers().keys, &barriers().values};
        for (int i = 0; i < 2 * ATT_STAGES; i++) {
            barrier_init(&rings[i / ATT_STAGES]->filled[i % ATT_STAGES], BRINGERS);
            barrier_init(&rings[i / ATT_STAGES]->left[i % ATT_STAGES], READERS_ARRIVE);
        }
        barrier_publish();
    }
#if ATT_SPARSE
    find_kept(b, kept);
#endif
    block_sync();
    const int warp = lane_from((int)(threadIdx.x >> 5), 0);
    if (warp >= 8) {
        warpgroup_registers_fewer<40>();
        const int thread = threadIdx.x % BRINGERS;
        if (warp < 10)
            bring_all(b, cache_k, ATT_KEYS_AT, barriers().keys, thread);
        else
            bring_all(b, cache_v, ATT_VALUES_AT, barriers().values, thread);
    } else {
        warpgroup_registers_more<232>();
        attend(b, q16, out KEPT_ARGUMENTS TABLE_ARGUMENTS);
    }
}
