/* attention_tiles.cu - decode: shared memory, and the ring of tiles of keys and values that runs ahead of the work.
 *
 * Rows that the call stores do not come from the cache: a block that needs them prepares and rounds them into the tile
 * itself, and store_rows() lets some warp of the grid store the same bits.
 */
#ifndef LAP_ATTENTION_TILES
#define LAP_ATTENTION_TILES
#include "attention_merge.cu"

/* ==== Shared memory ==== */

template <class A, class B> constexpr bool same_type = false;
template <class A> constexpr bool same_type<A, A> = true;

/* Keys and values lie alike, so that one function does for both. */
constexpr bool alike = ATT_K_DIM == ATT_V_DIM && same_type<KForm, VForm>;

/* Rows of a tile, and all of it. */
template <class Form, int D> DEVICE constexpr int tile_stride() {
    if constexpr (Form::packed)
        return code_stride<Form, D>();
    else
        return 2 * D;
}

template <class Form, int D> DEVICE constexpr int tile_bytes() {
    if constexpr (Form::packed)
        return packed_bytes<Form, D>(ATT_KEYS);
    else
        return ATT_KEYS * 2 * D;
}

/* Whether tiles come by bulk copies, which one thread asks for, else by the copies of all who bring. */
#ifndef ATT_BULK
#define ATT_BULK BULK_COPIES
#endif
constexpr bool bulk_tiles = ATT_BULK && !KForm::packed && !VForm::packed;

/* The warps that bring tiles; without warps for it one of those that work does with bulk_tiles, else all do. Threads of
 * theirs, and a thread's number among them. */
constexpr int ATT_BRINGING = ATT_BRINGERS ? 32 * ATT_BRINGERS : bulk_tiles ? 32 : ATT_THREADS;

DEVICE int bringing_thread() {
    return ATT_BRINGERS ? (int)threadIdx.x - ATT_THREADS : (int)threadIdx.x & (bulk_tiles ? 31 : -1);
}

constexpr int k_tile_bytes = tile_bytes<KForm, ATT_K_DIM>(), v_tile_bytes = tile_bytes<VForm, ATT_V_DIM>();

#ifndef ATT_TURNED
#define ATT_TURNED 0
#endif
#ifndef ATT_WEIGHTS_BYTES
#define ATT_WEIGHTS_BYTES (ATT_VECTORS * row_bytes(ATT_WEIGHED))
#endif
#define ATT_WIDE        (ATT_K_DIM > ATT_V_DIM ? ATT_K_DIM : ATT_V_DIM)
#define ATT_STAGE_BYTES (k_tile_bytes > v_tile_bytes ? k_tile_bytes : v_tile_bytes)
#define ATT_QUERIES_AT  (ATT_STAGES * ATT_STAGE_BYTES)
#define ATT_WEIGHTS_AT  (ATT_QUERIES_AT + ATT_VECTORS * row_bytes(ATT_K_DIM))
#define ATT_SCRATCH_AT  (ATT_WEIGHTS_AT + ATT_WEIGHTS_BYTES)
#define ATT_TABLES_AT   (ATT_SCRATCH_AT + ATT_WARPS * ATT_WIDE * 4)
#define ATT_TURNED_AT   (ATT_TABLES_AT + HEAD_TABLE_BYTES)
#define ATT_SHARED      (ATT_TURNED_AT + 8 * ATT_TURNED * HEAD_PAIRS)

DYNAMIC_SHARED u8 shared_bytes[];

static_assert(ATT_MERGE_BYTES <= ATT_SHARED, "the merge uses the same memory");

/* What is needed to put rows of this call into a tile that was asked for. */
struct Asked {
    u64 fresh; /* which keys they are: bit = key */
    int stage, first, slot, kv_head;
    bool values;
};

/* Of shared memory, what tiles need. */
struct Ring {
    Plan plan;
    Asked asked[ATT_STAGES - 1]; /* the first tiles */
    u64 filled[ATT_STAGES];      /* with bulk_tiles or ATT_BRINGERS: a tile has come */
    u64 left[ATT_STAGES];        /* with ATT_BRINGERS: all are done with it */
};

struct Tensors {
    const float *q, *k, *v;
    u8 *cache_k, *cache_v;
    float *out, *partials;
};

/* A warp's room for a head vector. */
DEVICE float *warp_scratch() {
    return (float *)(shared_bytes + ATT_SCRATCH_AT) + (threadIdx.x >> 5) * ATT_WIDE;
}

/* ==== Where rows stand ==== */

/* Query rows, from the first on, whose cosines and sines are made once. */
DEVICE int turned_rows(const Plan &plan) {
    return plan.queries < ATT_TURNED ? plan.queries : ATT_TURNED;
}

/* Those of query row r: they are the same for all its heads. nullptr: they are not made. */
DEVICE float2 *turned_row(const Plan &plan, int r) {
    return r < turned_rows(plan) ? (float2 *)(shared_bytes + ATT_TURNED_AT) + r * HEAD_PAIRS : nullptr;
}

#if ATT_TURNED
static_assert(ATT_TURNED <= ATT_ROWS && HEAD_PAIRS > 0, "of rows that there are, with RoPE by one table");

/* Makes them, by so many threads, from the block's first on. */
DEVICE void turn_rows(const Plan &plan, int threads HEAD_PARAMETERS) {
    const int turned = turned_rows(plan);
#pragma unroll 2
    for (int i = threadIdx.x; i < turned * HEAD_PAIRS; i += threads)
        turned_row(plan, 0)[i] = turn_at(plan.pos[i / HEAD_PAIRS], HEAD_TURNS[i % HEAD_PAIRS]);
}
#endif

/* Of row t that the call stores, which stands where a query row does or, of a draft or of a row whose output nobody
 * wants, alone. By a warp. */
DEVICE Stand stored_stand(const Plan &plan, int t) {
    const int pos = plan.store_pos[t], lane = threadIdx.x & 31;
    if (!ATT_TURNED)
        return {pos, nullptr};
    const u32 there = lanes_where(lane < plan.queries && plan.pos[lane] == pos);
    return {pos, there ? turned_row(plan, lowest_bit(there)) : nullptr};
}

/* ==== The ring of tiles ==== */

/* Which keys of a tile are rows of this call: bit = key. */
DEVICE u64 fresh_keys(const Plan &plan, const Work &w, int first) {
    u64 fresh = 0;
    if (!ATT_STORE || first + ATT_KEYS <= plan.of[w.sequence].fresh)
        return fresh;
    const int slot = plan.of[w.sequence].slot;
    for (int t = 0; t < plan.stored; t++) {
        const int pos = plan.store_pos[t];
        if (plan.store_slot[t] == slot && pos >= first && pos < first + ATT_KEYS && pos >= w.start && pos < w.end)
            fresh |= (u64)1 << (pos - first);
    }
    return fresh;
}

/* Bits low .. high - 1, of 0 .. 64. */
DEVICE u64 bits_between(int low, int high) {
    return (high >= 64 ? ~(u64)0 : ((u64)1 << high) - 1) & ~(u64)0 << low;
}

#if ATT_BULK
/* A tile of the cache, by one thread. */
template <int D> DEVICE void bring_whole(u8 *to, const u8 *from, int begin, u64 *filled) {
    barrier_publish();
    barrier_expect(filled, ATT_KEYS * 2 * D);
    bulk_load(to, from + (u64)(u32)begin * (2 * D), ATT_KEYS * 2 * D, filled);
}

/* The keys of a tile that come from the cache, by one thread, in stretches, as a ring or rows of the call part them. */
template <int D> DEVICE void bring_stretches(u8 *to, const u8 *from, int begin, u64 keys, u64 *filled) {
    barrier_publish();
    barrier_expect(filled, 2 * D * (count_bits((u32)keys) + count_bits((u32)(keys >> 32))));
#pragma unroll 1
    while (keys) {
        const int key = lowest_bit(keys), place = wrapped(begin + key);
        const u64 others = ~(keys >> key);
        int n = others ? lowest_bit(others) : 64;
        if (ATT_RING && place + n > ATT_CAPACITY)
            n = ATT_CAPACITY - place;
        bulk_load(to + key * (2 * D), from + (u64)(u32)place * (2 * D), n * (2 * D), filled);
        keys &= ~bits_between(key, key + n);
    }
}
#endif

/* Values that the item does not see become zeros, as their weights are; keys may become anything. */
template <class Form, int D>
DEVICE void copy_elements(u8 *to, const u8 *cache, int slot, const Work &w, int first, u64 fresh,
                          [[maybe_unused]] bool values, [[maybe_unused]] u64 *filled) {
    constexpr int pieces = D / 8; /* of 16 bytes */
    const int begin = place_of(first), low = w.start - first, high = w.end - first;
    const u8 *from = cache + cache_at<Form, D>(slot, 0, w.kv_head);
    const bool whole = low <= 0 && high >= ATT_KEYS;
    const bool plain = whole && !fresh && (!ATT_RING || begin + ATT_KEYS <= ATT_CAPACITY);
#if ATT_BULK
    if (bulk_tiles) {
        if (!whole && values) { /* before this thread arrives at the barrier */
            for (int i = bringing_thread(); i < low * pieces; i += ATT_BRINGING)
                *(uint4 *)(to + 16 * i) = make_uint4(0, 0, 0, 0);
            for (int i = high * pieces + bringing_thread(); i < ATT_KEYS * pieces; i += ATT_BRINGING)
                *(uint4 *)(to + 16 * i) = make_uint4(0, 0, 0, 0);
        }
        if (bringing_thread() == 0 && plain)
            bring_whole<D>(to, from, begin, filled);
        else if (bringing_thread() == 0)
            bring_stretches<D>(to, from, begin,
                               bits_between(low > 0 ? low : 0, high < ATT_KEYS ? high : ATT_KEYS) & ~fresh, filled);
        return;
    }
#endif
    constexpr int steps = ATT_KEYS * pieces / ATT_BRINGING;
    if (plain && ATT_KEYS * pieces % ATT_BRINGING == 0) {
        from += (u64)(u32)begin * (2 * D) + 16 * bringing_thread();
        to += 16 * bringing_thread();
#pragma unroll
        for (int i = 0; i < steps; i++)
            copy16_async(to + i * 16 * ATT_BRINGING, from + i * 16 * ATT_BRINGING, true);
        return;
    }
#pragma unroll 1
    for (int i = bringing_thread(); i < ATT_KEYS * pieces; i += ATT_BRINGING) {
        const int key = i / pieces;
        const bool inside = key >= low && key < high;
        if (!(fresh >> key & 1))
            copy16_async(to + 16 * i,
                         from + (u64)(u32)(inside ? wrapped(begin + key) : 0) * (2 * D) + 16 * (i % pieces), inside);
    }
}

/* The scales of a tile, to [scales of a head][ATT_KEYS]: 8 neighbouring keys at a time, of which one at least is
 * inside; what the others get is anything. With rows of this call, all but theirs, key by key: by the warps that make
 * rows last. */
template <class Form, int D>
DEVICE void copy_scales(u8 *to, const u8 *cache, int slot, const Work &w, int first, u64 fresh) {
    constexpr int scales = D / Form::group, pieces = ATT_KEYS / 8;
    const int begin = place_of(first);
    const u8 *from = cache + scales_at<Form, D>(slot, 0, w.kv_head);
    if (!fresh) {
#pragma unroll 1
        for (int i = bringing_thread(); i < scales * pieces; i += ATT_BRINGING) {
            const int key = i % pieces * 8, pos = first + key;
            const bool inside = pos + 8 > w.start && pos < w.end;
            copy16_async(to + 16 * i, from + 2 * ((u64)(i / pieces) * ATT_PLACES + (inside ? wrapped(begin + key) : 0)),
                         inside);
        }
        return;
    }
    for (int i = bringing_thread(); i < scales * ATT_KEYS && bringing_thread() < ATT_BRINGING / 2;
         i += ATT_BRINGING / 2) {
        const int key = i % ATT_KEYS, pos = first + key;
        const bool inside = pos >= w.start && pos < w.end;
        if (!(fresh >> key & 1))
            ((u16 *)to)[i] = inside ? ((const u16 *)from)[(u64)(i / ATT_KEYS) * ATT_PLACES + wrapped(begin + key)] : 0;
    }
}

/* The largest power of 2 up to n, at most 64. */
DEVICE constexpr int power_below(int n) {
    return n >= 64 ? 64 : n >= 2 ? 2 * power_below(n / 2) : 1;
}

/* Codes and scales; codes of keys that the item does not see become zeros. */
template <class Form, int D>
DEVICE void copy_packed(u8 *to, const u8 *cache, int slot, const Work &w, int first, u64 fresh) {
    constexpr int pieces = code_bytes<Form, D>() / 16,
                  at_once = power_below(ATT_BRINGING / pieces); /* keys of a step */
    constexpr int steps = (ATT_KEYS + at_once - 1) / at_once;
    constexpr u32 stride = ATT_KV_HEADS * code_bytes<Form, D>();
    const int begin = place_of(first), of_step = bringing_thread() / pieces, piece = bringing_thread() % pieces;
    const u8 *from = cache + cache_at<Form, D>(slot, 0, w.kv_head) + 16 * piece;
    const bool whole = !fresh && first >= w.start && first + ATT_KEYS <= w.end;
#pragma unroll 1
    for (int i = 0; i < steps; i++) {
        const int key = i * at_once + of_step, pos = first + key;
        if (of_step >= at_once || (ATT_KEYS % at_once != 0 && key >= ATT_KEYS) || fresh >> (key & 63) & 1)
            continue;
        const bool inside = whole || (pos >= w.start && pos < w.end);
        copy16_async(to + key * code_stride<Form, D>() + 16 * piece,
                     from + (u64)(u32)(inside ? wrapped(begin + key) : 0) * stride, inside);
    }
    copy_scales<Form, D>(to + ATT_KEYS * code_stride<Form, D>(), cache, slot, w, first, fresh);
}

template <class Form, int D>
DEVICE void copy_tile(u8 *to, const u8 *cache, int slot, const Work &w, int first, u64 fresh, bool values,
                      u64 *filled) {
    if constexpr (Form::packed)
        copy_packed<Form, D>(to, cache, slot, w, first, fresh);
    else
        copy_elements<Form, D>(to, cache, slot, w, first, fresh, values, filled);
}

/* The block's item behind `item`. With packed tiles blocks take the items of every other round from the last block to
 * the first: items come largest first, so who has a large one of a round has a small one of the next. */
DEVICE int next_item(int item) {
    if constexpr (KForm::packed || VForm::packed) {
        const int blocks = gridDim.x, round_end = (item / blocks + 1) * blocks;
        return 2 * round_end - 1 - item;
    } else {
        return item + gridDim.x;
    }
}

/* Asks for the next tile, in a stage, but for rows of this call; with bulk_tiles filled[stage] tells of it, else it is
 * one group of copies. By those who bring, when all have left what was there. Ahead: an item, a cursor in it, and
 * next() */
template <class Ahead> DEVICE Asked ask_tile(Ring &sh, const Tensors &on, Ahead &ahead, int stage) {
    const Plan &plan = sh.plan;
    Asked asked = {0, stage, 0, 0, 0, false};
    if (ahead.item < plan.items) {
        const Work &w = ahead.cursor.work;
        u8 *to = shared_bytes + stage * ATT_STAGE_BYTES;
        const int first = ahead.cursor.tile() * ATT_KEYS, slot = plan.of[w.sequence].slot;
        const bool values = ahead.cursor.at_values();
        asked = {fresh_keys(plan, w, first), stage, first, slot, w.kv_head, values};
        if (alike || !values)
            copy_tile<KForm, ATT_K_DIM>(to, values ? on.cache_v : on.cache_k, slot, w, first, asked.fresh, values,
                                        &sh.filled[stage]);
        else
            copy_tile<VForm, ATT_V_DIM>(to, on.cache_v, slot, w, first, asked.fresh, values, &sh.filled[stage]);
        ahead.next(plan);
    }
    if (!bulk_tiles)
        copies_close();
    return asked;
}

/* Where key number `key` of the tile of a stage goes. */
template <class Form, int D> DEVICE Target tile_target(int stage, int key) {
    Target to = {shared_bytes + stage * ATT_STAGE_BYTES + key * tile_stride<Form, D>(), nullptr, 0, key};
    if constexpr (Form::packed) {
        to.scales = (u16 *)(shared_bytes + stage * ATT_STAGE_BYTES + ATT_KEYS * tile_stride<Form, D>()) + key;
        to.apart = ATT_KEYS;
    }
    return to;
}

/* Rows of this call by the block's warps, the last ones first: into the tile that was asked for or, at the beginning,
 * into the first tiles, and then this block's share of what goes to the cache: one of K or V for each warp of the blocks
 * without an item, and what is left for each warp of the grid. */
DEVICE void make_rows(const Ring &sh, const Tensors &on, const Asked &last, bool beginning HEAD_PARAMETERS) {
    const Plan &plan = sh.plan;
    const int blocks = gridDim.x, stored = plan.stored;
    const int tile_rows = beginning ? (ATT_STAGES - 1) * stored : last.fresh ? stored : 0;
    const int stores = beginning && ATT_STORE == 1 ? 2 * ATT_KV_HEADS * stored : 0;
    const int idle = blocks > plan.items ? blocks - plan.items : 0, back = blocks - 1 - (int)blockIdx.x;
    int t = ATT_WARPS - 1 - (int)(threadIdx.x >> 5);
    const int number = t ^ ATT_WARPS / 2, shared_job = ATT_WARPS * idle + number * blocks + back;
    int job = back < idle ? number * idle + back : shared_job;
#pragma unroll 1
    for (;;) {
        int row, head;
        bool of_v;
        Target to;
        if (t < tile_rows) {
            const Asked asked = beginning ? sh.asked[t / stored] : last;
            row = t % stored;
            t += ATT_WARPS;
            const int key = plan.store_pos[row] - asked.first;
            if (!asked.fresh || plan.store_slot[row] != asked.slot || key < 0 || key >= ATT_KEYS ||
                !(asked.fresh >> key & 1))
                continue;
            head = asked.kv_head;
            of_v = asked.values;
            to = of_v && !alike ? tile_target<VForm, ATT_V_DIM>(asked.stage, key)
                                : tile_target<KForm, ATT_K_DIM>(asked.stage, key);
        } else if (job < stores) {
            row = job / (2 * ATT_KV_HEADS);
            head = job / 2 % ATT_KV_HEADS;
            of_v = job & 1;
            job = job < ATT_WARPS * idle ? shared_job : job + ATT_WARPS * blocks;
            const int slot = plan.store_slot[row], pos = plan.store_pos[row];
            to = of_v && !alike ? cache_target<VForm, ATT_V_DIM>(on.cache_v, slot, pos, head)
                                : cache_target<KForm, ATT_K_DIM>(of_v ? on.cache_v : on.cache_k, slot, pos, head);
        } else {
            break;
        }
        make_row(warp_scratch(), on.k, on.v, row, head, stored_stand(plan, row), of_v, to HEAD_ARGUMENTS);
    }
}

/* A tile is asked for: it has come when its copies have, and with them what was written instead of copied. */
DEVICE void tell_tile(Ring &sh, const Asked &asked) {
    if (bulk_tiles) {
        if (bringing_thread() != 0)
            barrier_arrive(&sh.filled[asked.stage]);
    } else if ((KForm::packed || VForm::packed) && asked.fresh) {
        copies_wait<0>();
        barrier_arrive(&sh.filled[asked.stage]);
    } else {
        copies_arrive(&sh.filled[asked.stage]);
    }
}

#endif
