/* attention_wgmma_wide.cu - attention_wgmma.cu's work for heads of 512 elements, whose output no warpgroup can hold.
 *
 * Contract: that of attention_prefill.cu, but for
 *   ATT_QUERIES    64
 *   ATT_TILE       64 keys
 *   dims           ATT_K_DIM = ATT_V_DIM = 512
 *   launch         block ATT_THREADS = 384; dynamic shared memory ATT_SHARED = 64 KB of queries, two times 8 KB of
 *                  weights, ATT_CHUNKS of 16 KB of keys and values, and about 2 KB: 211 KB
 *
 * How: two warpgroups have the same 64 rows and 256 columns each, and take turns with the tiles. Whose turn it is
 * multiplies queries by keys and makes weights, which it keeps in registers and leaves in shared memory for the other,
 * with what the sums before shrink by; then both add the values to their columns. So one warpgroup's softmax is under
 * the other's products. Keys and values come in chunks of 16 KB, 128 columns of 64 keys or all columns of 16 values,
 * in the order in which they are read: the keys of a tile, the values of the one before.
 *
 * What bounds it, on an H100 (clocks of one multiprocessor, a tile): products 2 x 1024; shared memory 64 KB of queries
 * and 64 KB of keys for the logits, 2 x 32 KB of values and 8 KB of weights four times for the sums, 128 KB in: 352 KB,
 * 2800. Predicted 450 to 550 TFLOP/s; measured 532 with 8192 rows (docs/performance/prefill.md).
 */
#ifndef ATT_NAME
#define ATT_NAME attention_prefill
#endif

#include "attention_kept.cu"

#define ATT_QUERIES 64
#define ATT_TILE    64
#define ATT_THREADS 384
#define ATT_CHUNKS  8

static_assert(ATT_K_DIM == 512 && ATT_V_DIM == 512, "dims");
static_assert(!KForm::packed && !VForm::packed, "elements of 16 bits");

/* ==== Shared memory ==== */

#define ATT_CHUNK_BYTES   16384
#define ATT_WEIGHTS_BYTES 8192
#define ATT_WEIGHTS_AT    (2 * ATT_QUERIES * ATT_K_DIM)
#define ATT_CHUNKS_AT     (ATT_WEIGHTS_AT + 2 * ATT_WEIGHTS_BYTES)
#define ATT_ROWS_AT       (ATT_CHUNKS_AT + ATT_CHUNKS * ATT_CHUNK_BYTES)
#define ATT_POSITIONS_AT  (ATT_ROWS_AT + 6 * 4 * ATT_QUERIES)
#define ATT_BARRIERS_AT   (ATT_POSITIONS_AT + 4 * ATT_QUERIES)
#define ATT_KEPT_AT       (ATT_BARRIERS_AT + 256)
#define ATT_SHARED        (ATT_KEPT_AT + KEPT_BYTES)

#define ATT_ROWS_BLOCK  (128 * ATT_QUERIES) /* bytes of 64 columns of the queries, of keys of a chunk, of its values */
#define ATT_KEYS_BLOCK  (128 * ATT_TILE)
#define ATT_VALUE_KEYS  16
#define ATT_VALUE_BLOCK (128 * ATT_VALUE_KEYS)

DYNAMIC_SHARED_ATOMS u8 shared_bytes[];

DEVICE int *positions() {
    return (int *)(shared_bytes + ATT_POSITIONS_AT);
}

#include "attention_group.cu"

/* Of each row, by the turn's parity: the largest logit so far, what sums before shrink by; and at the end each
 * warpgroup's sum of weights. */
DEVICE float *row_numbers(int which) {
    return (float *)(shared_bytes + ATT_ROWS_AT) + which * ATT_QUERIES;
}
enum { MOST = 0, SHRINK = 2, WEIGHT = 4 };

struct Barriers {
    u64 filled[ATT_CHUNKS], left[ATT_CHUNKS]; /* a chunk has arrived; both warpgroups have left it */
    u64 made[2], taken[2];                    /* a tile's weights are there; the other warpgroup has used them */
};
static_assert(sizeof(Barriers) + sizeof(Block) <= 256, "barriers and the block have their place");

DEVICE Barriers &barriers() {
    return *(Barriers *)(shared_bytes + ATT_BARRIERS_AT);
}

/* The block's numbers, which would cost registers in each thread. */
DEVICE Block &shared_block() {
    return *(Block *)(shared_bytes + ATT_BARRIERS_AT + sizeof(Barriers));
}

enum { READERS_ARRIVE = 8, GROUP_ARRIVES = 128, READERS_MEET = 1, READERS = 256, FIRST_BRINGER = 8, BRINGERS = 4 };

/* ==== Chunks ==== */

/* Keys of tile n are pieces 0..3 from chunk keys_chunk(n) on, values from values_chunk(n, ..) on. */
DEVICE int keys_chunk(int n) {
    return n == 0 ? 0 : 8 * n - 4;
}
DEVICE int values_chunk(int n, bool another) {
    return 8 * n + (another ? 8 : 4);
}

DEVICE u8 *chunk_at(int chunk) {
    return shared_bytes + ATT_CHUNKS_AT + chunk % ATT_CHUNKS * ATT_CHUNK_BYTES;
}

/* One warp's chunk, 16 pieces of 16 bytes a row of keys, 64 a row of values. */
DEVICE void bring_chunk(const Keys &keys, int chunk, int part, bool values) {
    const int lane = threadIdx.x & 31;
    u8 *to = chunk_at(chunk);
    barrier_wait(&barriers().left[chunk % ATT_CHUNKS], (chunk / ATT_CHUNKS & 1) ^ 1);
    if (values)
        bring_keys<32, ATT_VALUE_KEYS, 64, ATT_VALUE_BLOCK>(keys, ATT_VALUE_KEYS * part, 0, to, lane);
    else
        bring_keys<32, ATT_TILE, 16, ATT_KEYS_BLOCK>(keys, 0, 16 * part, to, lane);
    copies_arrive(&barriers().filled[chunk % ATT_CHUNKS]);
}

/* Chunks go to the four warps in turn; `part` is this warp's of each tile. */
DEVICE void bring_all(const Block &b, const u8 *cache_k, const u8 *cache_v, int part) {
    int tile = b.low / ATT_TILE, n = 0;
    bool any = next_tile(b, tile) != 0;
    if (any)
        bring_chunk(Keys(b, cache_k, tile), keys_chunk(0) + part, part, false);
    while (any) {
        const Keys values(b, cache_v, tile);
        any = next_tile(b, ++tile) != 0;
        if (any)
            bring_chunk(Keys(b, cache_k, tile), keys_chunk(n + 1) + part, part, false);
        bring_chunk(values, values_chunk(n, any) + part, part, true);
        n++;
    }
}

/* ==== A warpgroup ==== */

typedef u32 Weights[ATT_TILE / 16][4];

/* The other warpgroup's weights of a tile. */
struct Others {
    const u8 *at;

    DEVICE explicit Others(int n) : at(shared_bytes + ATT_WEIGHTS_AT + n % 2 * ATT_WEIGHTS_BYTES) {}
};

/* out += weights of 16 keys, the part'th of a tile, by their values. */
DEVICE void weights_by_values(float (&out)[ATT_V_DIM / 4], const Weights &weights, int part, const u8 *values) {
    group_mma_columns<256, VForm::bf16>(out, weights[part], values, 0, ATT_VALUE_BLOCK);
}
DEVICE void weights_by_values(float (&out)[ATT_V_DIM / 4], const Others &weights, int part, const u8 *values) {
    group_mma_columns<256, VForm::bf16>(out, weights.at, 32 * part, values, 0, ATT_VALUE_BLOCK);
}

struct Sums {
    float out[ATT_V_DIM / 4]; /* 256 columns: [8 columns][row][2 columns] */
    float weight[2];          /* of both rows, over this warpgroup's tiles and the thread's keys */
};

struct Group {
    const Block &b;
    Place at;
    int number; /* 0 or 1 */
    Sums sums;

    DEVICE Group(const Block &b, int number) : b(b), number(number), sums{} {}

    DEVICE void arrive(u64 *bar, int times) const {
        if ((threadIdx.x & 31) == 0)
            for (int i = 0; i < times; i++)
                barrier_arrive(bar);
    }
    DEVICE const u8 *wait_chunk(int chunk) const {
        wait_copies(&barriers().filled[chunk % ATT_CHUNKS], chunk / ATT_CHUNKS & 1);
        return chunk_at(chunk);
    }
    /* times: 2 for keys, which the other warpgroup does not read. */
    DEVICE void leave_chunks(int chunk, int times) const {
#pragma unroll
        for (int i = 0; i < 4; i++)
            arrive(&barriers().left[(chunk + i) % ATT_CHUNKS], times);
    }

    DEVICE void ask_logits(Products &s, int n) const {
        const int chunk = keys_chunk(n);
#pragma unroll
        for (int part = 0; part < 4; part++) {
            const u8 *keys = wait_chunk(chunk + part);
            group_mma_begin();
#pragma unroll
            for (int k = 0; k < 8; k++)
                group_mma_rows<ATT_TILE, KForm::bf16>(
                    s, shared_bytes, (2 * part + k / 4) * ATT_ROWS_BLOCK + k % 4 * 32, keys,
                    k / 4 * ATT_KEYS_BLOCK + k % 4 * 32, part > 0 || k > 0);
        }
        group_mma_close();
    }
    /* This warpgroup's columns of values times weights, those in registers or the other's. */
    template <class From> DEVICE void ask_values(const From &weights, int chunk) {
#pragma unroll
        for (int part = 0; part < 4; part++) {
            const u8 *values = wait_chunk(chunk + part) + number * 4 * ATT_VALUE_BLOCK;
            group_mma_begin();
            weights_by_values(sums.out, weights, part, values);
        }
        group_mma_close();
    }

    /* Logits of tile n, which is asked for, become weights, in registers and for the other warpgroup. */
    DEVICE void weigh(Products &s, int n, float (&shrink)[2]) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = at.row + 8 * half;
            const float before = n > 0 ? row_numbers(MOST + (n + 1) % 2)[row] : ATT_LEAST;
            const float most = fmaxf(row_most(s, half), before), weight = row_weights(s, half, most);
            shrink[half] = row_shrink(before, most);
            sums.weight[half] = multiply_add(sums.weight[half], shrink[half], weight);
            if (at.t == 0) {
                row_numbers(MOST + n % 2)[row] = most;
                row_numbers(SHRINK + n % 2)[row] = shrink[half];
            }
        }
    }
    DEVICE void hand_over(const Weights &weights, int n) const {
        u8 *to = shared_bytes + ATT_WEIGHTS_AT + n % 2 * ATT_WEIGHTS_BYTES;
        barrier_wait(&barriers().taken[n % 2], (n / 2 & 1) ^ 1);
#pragma unroll
        for (int i = 0; i < ATT_TILE / 4; i++) /* rows g and g + 8 of 8 keys, and of the next 8 */
            *(u32 *)(to + atom_at(at.row + i % 2 * 8, i / 2, 0) + 4 * at.t) = weights[i / 4][i % 4];
        barrier_publish();
        barrier_arrive(&barriers().made[n % 2]);
    }
    /* The other warpgroup's tile n: sums shrink by what it found, while none of its own products is under way. */
    DEVICE void take_over(int n) {
        float shrink[2];
        barrier_wait(&barriers().made[n % 2], n / 2 & 1);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            shrink[half] = row_numbers(SHRINK + n % 2)[at.row + 8 * half];
            sums.weight[half] *= shrink[half];
        }
        shrink_rows(sums.out, shrink);
    }
};

/* ==== The rows of a block ==== */

DEVICE void bring_queries(const Block &b, const u16 *q16) {
    constexpr int pieces = ATT_K_DIM / 8;
    for (int i = threadIdx.x; i < ATT_QUERIES * pieces; i += READERS) {
        const int row = i / pieces, piece = i % pieces;
        const bool inside = row < b.rows;
        copy16_async(shared_bytes + atom_at(row, piece, ATT_ROWS_BLOCK),
                     query_at(b, q16, inside ? row : 0) + 8 * piece, inside);
    }
    copies_shown();
    warps_meet(READERS_MEET, READERS);
}

/* Sums of weights of both warpgroups; then each stores its columns. */
DEVICE void finish(const Group &group, int tiles, float *out TABLE_PARAMETERS) {
    const Block &b = group.b;
    const Place &at = group.at;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float weight = group.sums.weight[half];
        weight += lane_swap(weight, 1);
        weight += lane_swap(weight, 2);
        if (at.t == 0)
            row_numbers(WEIGHT + group.number)[at.row + 8 * half] = weight;
    }
    warps_meet(READERS_MEET, READERS);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = at.row + 8 * half;
        const float weight = row_numbers(WEIGHT)[row] + row_numbers(WEIGHT + 1)[row];
        const float most = tiles > 0 ? row_numbers(MOST + (tiles + 1) % 2)[row] : ATT_LEAST;
        const float factor = last_factor(most * ATT_UNIT, weight, b.head TABLE_ARGUMENTS);
        float *to = out + ((u64)(b.first + row) * ATT_HEADS + b.head) * ATT_V_DIM + 256 * group.number + 2 * at.t;
        if (row < b.rows)
#pragma unroll
            for (int n = 0; n < 32; n++)
                *(float2 *)(to + 8 * n) = make_float2(group.sums.out[4 * n + 2 * half] * factor,
                                                      group.sums.out[4 * n + 2 * half + 1] * factor);
    }
}

DEVICE void attend(const Block &b, int number, const u16 *q16, float *out KEPT_PARAMETERS TABLE_PARAMETERS) {
    Group group(b, number);
    const Place &at = group.at;
    Products s;
    Weights weights;
    float shrink[2];
    int tile = b.low / ATT_TILE, kind = next_tile(b, tile), n = 0, mine = 0; /* n: of the tile; mine: chunk of values */
    bool pending = false, another = false;                                   /* own products with values under way */
    bring_queries(b, q16);
    if (number == 0 && kind) {
        group.ask_logits(s, 0);
        group_mma_wait<0>();
        group_mma_keep(s);
        group.leave_chunks(keys_chunk(0), 2);
        make_logits(b, at, tile * ATT_TILE, (kind & 3) != 2, s TABLE_ARGUMENTS);
        LEAVE_OUT(kind, tile, s)
        group.weigh(s, 0, shrink);
        pack_weights(s, weights);
        group.hand_over(weights, 0);
        another = (kind = next_tile(b, ++tile)) != 0;
        mine = values_chunk(0, another);
        group.ask_values(weights, mine);
        pending = true;
        n = 1;
    }
    /* Before tile n, which is the other warpgroup's. */
#pragma unroll 1
    while (kind) {
        const int others = n;
        const bool own = (kind = next_tile(b, ++tile)) != 0;
        const int theirs = values_chunk(others, own);
        group_mma_wait<0>();
        group_mma_keep(group.sums.out);
        if (pending)
            group.leave_chunks(mine, 1);
        group.take_over(others);
        n++;
        if (!own) {
            group.ask_values(Others(others), theirs);
            pending = false;
            break;
        }
        group.ask_logits(s, n);
        group.ask_values(Others(others), theirs);
        group_mma_wait<1>();
        group_mma_keep(s);
        group.leave_chunks(keys_chunk(n), 2);
        make_logits(b, at, tile * ATT_TILE, (kind & 3) != 2, s TABLE_ARGUMENTS);
        LEAVE_OUT(kind, tile, s)
        group.weigh(s, n, shrink);
        pack_weights(s, weights);
        group.hand_over(weights, n);
        group_mma_wait<0>();
        group_mma_keep(group.sums.out);
        group.leave_chunks(theirs, 1);
        barrier_arrive(&barriers().taken[others % 2]);
        shrink_rows(group.sums.out, shrink);
        another = (kind = next_tile(b, ++tile)) != 0;
        mine = values_chunk(n, another);
        group.ask_values(weights, mine);
        pending = true;
        n++;
    }
    group_mma_wait<0>();
    group_mma_keep(group.sums.out);
    finish(group, n, out TABLE_ARGUMENTS);
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
        Barriers &bar = barriers();
        shared_block() = b;
        for (int i = 0; i < ATT_CHUNKS; i++) {
            barrier_init(&bar.filled[i], 32); /* a warp's lanes */
            barrier_init(&bar.left[i], READERS_ARRIVE);
        }
        for (int i = 0; i < 2; i++) {
            barrier_init(&bar.made[i], GROUP_ARRIVES);
            barrier_init(&bar.taken[i], GROUP_ARRIVES);
        }
        barrier_publish();
    }
#if ATT_SPARSE
    find_kept(b, kept);
#endif
    block_sync();
    const int warp = lane_from((int)(threadIdx.x >> 5), 0);
    if (warp >= FIRST_BRINGER) {
        warpgroup_registers_fewer<40>();
        bring_all(shared_block(), cache_k, cache_v, warp - FIRST_BRINGER);
    } else {
        warpgroup_registers_more<232>();
        attend(shared_block(), warp / 4, q16, out KEPT_ARGUMENTS TABLE_ARGUMENTS);
    }
}
