/* attention_plan.cu - decode: which work there is for 1..ATT_ROWS query rows, and how it is cut.
 *
 * Splits are by absolute position, whatever the rows: a row's result is put together from the same parts alone, among
 * others and in every batch. ATT_SPLITS bounds the splits that a row can see: the size of the partial results.
 *
 * A work item is (sequence, run of splits, K/V head, ATT_VECTORS query vectors), a query vector one head of one row:
 * the ATT_GROUP heads of each of the sequence's rows that share the K/V head. An item prepares its queries once, and
 * goes over the splits of its run from the newest to the oldest, each with a result of its own. Newer items, which have
 * more keys, and the call's own rows, come first. How long runs are touches no sum: a call chooses (choose_run).
 */
#ifndef LAP_ATTENTION_PLAN
#define LAP_ATTENTION_PLAN

/* Of the kernels that include it. */
#ifndef ATT_NAME
#define ATT_NAME attention_decode
#endif
#ifndef ATT_ROWS
#define ATT_ROWS 8
#endif
#ifndef ATT_QUERY_ROWS
#define ATT_QUERY_ROWS 0
#endif
#ifndef ATT_STORE
#define ATT_STORE 1
#endif
#ifndef ATT_EARLY
#define ATT_EARLY 0
#endif

#include "attention_layout.cu"

/* The output is x records of so many tiles of 8 rows; 0: f32. */
#ifndef ATT_RECORDS
#define ATT_RECORDS 0
#endif

/* ==== Splits ==== */

/* Keys of the shortest splits: the fewer K/V heads, the shorter, so that short contexts make work for all
 * multiprocessors. */
#ifndef ATT_CHUNK
#define ATT_CHUNK (ATT_KV_HEADS >= 16 ? 128 : ATT_KV_HEADS >= 4 ? 64 : 32)
#endif

/* Keys that are weighed together, from a multiple of it on; of a split's first and last some may be another's. ATT_KEYS
 * divides it. */
#ifndef ATT_WEIGHED
#define ATT_WEIGHED ATT_CHUNK
#endif

/* With a bounded look-back every split is a chunk. Without one, the first 32 are; then come octaves: 16 splits over the
 * positions from ATT_FINE << o to twice as many, until splits have 1024 keys, which they keep. So the partial results
 * stay small beside the keys. */
#define ATT_FINE    (32 * ATT_CHUNK)
#define ATT_OCTAVES (ATT_CHUNK == 32 ? 4 : ATT_CHUNK == 64 ? 3 : 2)

static_assert(ATT_CHUNK == 32 || ATT_CHUNK == 64 || ATT_CHUNK == 128, "splits of 1024 keys are reached by octaves");

DEVICE constexpr int split_of(int pos) {
    if (ATT_LOOKBACK >= 0 || pos < ATT_FINE)
        return pos / ATT_CHUNK;
    int octave = 0;
    while (octave < ATT_OCTAVES && pos >= ATT_FINE << (octave + 1))
        octave++;
    return 32 + 16 * octave + ((u32)(pos - (ATT_FINE << octave)) / (2 * ATT_CHUNK) >> octave);
}

/* The position that a split begins with. */
DEVICE constexpr int split_start(int split) {
    if (ATT_LOOKBACK >= 0 || split < 32)
        return split * ATT_CHUNK;
    const int octave = split < 32 + 16 * ATT_OCTAVES ? (split - 32) / 16 : ATT_OCTAVES;
    return (ATT_FINE << octave) + ((split - 32 - 16 * octave) * (2 * ATT_CHUNK) << octave);
}

/* Runs of splits: r of ATT_CHUNK << run keys covers the positions from r times as many on, where splits are not longer;
 * there each split is a run. With octaves they are as long from 16 times as many positions on: at run 16. A run has few
 * splits, as each ends for itself, and one of 32 keys takes a whole chunk: with runs of up to 1024 keys 32,768 keys of
 * 31B took 153 us, for 124 when each split was an item. */
#define ATT_RUNS 3 /* lengths there are, of up to 4 splits */

/* The first split that is as long as runs are, less its run. */
DEVICE constexpr int run_shift(int run) {
    return 16 * run;
}

DEVICE constexpr int run_of(int pos, int run) {
    const int r = pos / ATT_CHUNK >> run;
    return ATT_LOOKBACK >= 0 || r < 16 ? r : split_of(pos) - run_shift(run);
}

/* The position that a run begins with. */
DEVICE constexpr int run_start(int r, int run) {
    return ATT_LOOKBACK >= 0 || r < 16 ? r * ATT_CHUNK << run : split_start(r + run_shift(run));
}

/* Most splits that a row sees. */
#if ATT_LOOKBACK >= 0
#define ATT_SPLITS ((ATT_CAUSAL ? ATT_LOOKBACK : ATT_CAPACITY) / ATT_CHUNK + 2)
#else
#define ATT_SPLITS (split_of(ATT_CAPACITY - 1) + 1)
#endif

/* ==== Rows and sequences ==== */

/* Positions that a query may see: [low, high). */
struct Range {
    int low, high;

    DEVICE int first_split() const {
        return split_of(low);
    }
    DEVICE int splits() const {
        return high > low ? split_of(high - 1) - split_of(low) + 1 : 0;
    }
    /* Whether it has partial results, which become its output in the merge. With one split the item writes the output,
     * but for values in another basis and for records: it is in the merge that they turn back, and are rounded. */
    DEVICE bool merges() const {
        return ATT_RECORDS || VForm::rotated || splits() != 1;
    }
    DEVICE bool has(int split) const {
        return split >= first_split() && split < first_split() + splits();
    }
    DEVICE int runs(int run) const {
        return high > low ? run_of(high - 1, run) - run_of(low, run) + 1 : 0;
    }
    /* Keys of the runs, whole ones. */
    DEVICE int run_keys(int run) const {
        return run_start(run_of(high - 1, run) + 1, run) - run_start(run_of(low, run), run);
    }
    /* Most keys of a run: the newest ones are the longest. */
    DEVICE int longest(int run) const {
        const int last = run_of(high - 1, run), keys = run_start(last + 1, run) - run_start(last, run);
        return keys < high - low ? keys : high - low;
    }
};

struct Sequence {
    int slot;
    int first, rows;    /* its query rows: plan.order[first ..] */
    Range range;        /* of all of them */
    int oldest, newest; /* least and largest position of its query rows */
    int fresh;          /* least position that this call stores; none: a large number */
    int items_end;      /* items of the sequences up to this one */
};

struct Plan {
    int queries, stored; /* live rows */
    int sequences, items;
    int run;    /* of the items: how often ATT_CHUNK is doubled */
    int merges; /* whether a row has partial results, or no split */
    int pos[ATT_ROWS], slot[ATT_ROWS], order[ATT_ROWS];
    Range range[ATT_ROWS];
    int store_pos[ATT_ROWS], store_slot[ATT_ROWS];
    Sequence of[ATT_ROWS];
};

/* Where a call's rows stand: arrays in device memory. Those of rows have ATT_ROWS elements, live or not. */
struct Rows {
    const int *query_rows, *query_pos, *store_pos, *slots, *lengths, *query_count, *store_count;
};

/* By lane r of a warp for row r, of ATT_ROWS. All that does not depend on a load is loaded at once. */
DEVICE void plan_rows(Plan &plan, const Rows &rows, int r) {
    const int queries = *rows.query_count, stored = ATT_STORE ? *rows.store_count : 0;
    const int pos = rows.query_pos[r], slot_of_r = rows.slots[r], store_pos = ATT_STORE ? rows.store_pos[r] : 0;
    if (r == 0) {
        plan.queries = queries;
        plan.stored = stored;
    }
    if (r < queries) {
        const int slot = ATT_QUERY_ROWS ? rows.slots[rows.query_rows[r]] : slot_of_r;
        plan.pos[r] = pos;
        plan.slot[r] = slot;
        plan.range[r].low = ATT_LOOKBACK >= 0 && pos > ATT_LOOKBACK ? pos - ATT_LOOKBACK : 0;
        const int length =
            ATT_CAUSAL && ATT_STORE ? pos + 1 : rows.lengths[slot]; /* a drafter stands behind the last key */
        plan.range[r].high = ATT_CAUSAL && pos + 1 < length ? pos + 1 : length;
    }
    if (r < stored) {
        plan.store_pos[r] = store_pos;
        plan.store_slot[r] = slot_of_r;
    }
}

/* Above every position. */
enum { LARGE = 0x7fffffff };

/* What row r's sequence is, and the row's place among its rows. */
DEVICE Sequence sequence_of(const Plan &plan, int r, int &leader, int &place) {
    Sequence s = {plan.slot[r], 0, 0, {LARGE, 0}, LARGE, 0, LARGE, 0};
    leader = r;
    place = 0;
#pragma unroll
    for (int j = 0; j < ATT_ROWS; j++) {
        if (j >= plan.queries || plan.slot[j] != s.slot)
            continue;
        leader = j < leader ? j : leader;
        place += j < r;
        s.rows++;
        s.range.low = plan.range[j].low < s.range.low ? plan.range[j].low : s.range.low;
        s.range.high = plan.range[j].high > s.range.high ? plan.range[j].high : s.range.high;
        s.oldest = plan.pos[j] < s.oldest ? plan.pos[j] : s.oldest;
        s.newest = plan.pos[j] > s.newest ? plan.pos[j] : s.newest;
    }
#pragma unroll
    for (int j = 0; j < ATT_ROWS; j++)
        if (j < plan.stored && plan.store_slot[j] == s.slot && plan.store_pos[j] < s.fresh)
            s.fresh = plan.store_pos[j];
    return s;
}

DEVICE int vector_tiles(const Sequence &s) {
    return (s.rows * ATT_GROUP + ATT_VECTORS - 1) / ATT_VECTORS;
}

/* Over a warp's numbers from 0 on. */
DEVICE int largest_of(int v) {
    return (int)warp_largest((u32)v);
}

DEVICE int least_of(int v) {
    return LARGE - largest_of(LARGE - v);
}

/* The one sequence that all rows are of: by lane r for row r. */
DEVICE void plan_sequence(Plan &plan, int r) {
    const bool live = r < plan.queries;
    const int pos = live ? plan.pos[r] : 0, slot = plan.slot[0];
    const int low = live ? plan.range[r].low : LARGE, high = live ? plan.range[r].high : 0;
    const int fresh = r < plan.stored && plan.store_slot[r] == slot ? plan.store_pos[r] : LARGE;
    const Sequence s = {slot,           0, plan.queries, {least_of(low), largest_of(high)}, least_of(live ? pos : LARGE),
                        largest_of(pos), least_of(fresh), 0};
    const bool merges = lanes_where(live && plan.range[r].merges()) != 0;
    if (live)
        plan.order[r] = r;
    if (r == 0) {
        plan.of[0] = s;
        plan.sequences = 1;
        plan.merges = merges;
    }
}

/* The sequences and the order of rows, all of the plan but its items: by lane r for row r. */
DEVICE void plan_sequences(Plan &plan, int r) {
    const bool live = r < plan.queries;
    int leader = r, place = 0;
    if (plan.queries && !lanes_where(live && plan.slot[r] != plan.slot[0])) { /* the usual case */
        plan_sequence(plan, r);
        return;
    }
    Sequence s = {};
    if (live)
        s = sequence_of(plan, r, leader, place);
    const bool leads = live && leader == r;
    const int several = live && plan.range[r].merges();
    const u32 leaders = lanes_where(leads), before = leaders & ((1u << leader) - 1);
    int first = 0;
#pragma unroll
    for (int j = 0; j < ATT_ROWS; j++)
        first += lane_from(s.rows, j) * (int)(before >> j & 1);
    if (live)
        plan.order[first + place] = r;
    s.first = first;
    if (leads)
        plan.of[count_bits(before)] = s;
    const bool merges = lanes_where(several) != 0;
    if (r == 0) {
        plan.sequences = count_bits(leaders);
        plan.merges = merges;
    }
}

/* What an item takes besides its keys, in keys: queries are made, sums end. That is 3 to 5 us, and a multiprocessor of
 * an H100 goes through 10 keys of 2 KB, K and V, in a us, through 18 of 1 KB, and through packed ones not much faster.
 */
#define ATT_ITEM_COST (KForm::packed || VForm::packed || ATT_K_DIM + ATT_V_DIM <= 512 ? 80 : 48)

/* About how long a call takes with runs of a length, in keys: that of the longest item or, since blocks even out what
 * the longer items leave, of a block's share in whole shortest ones. */
DEVICE int run_cost(const Plan &plan, int run) {
    const int blocks = gridDim.x, shortest = ATT_CHUNK << run;
    int items = 0, pieces = 0, longest = 0;
    for (int i = 0; i < plan.sequences; i++) {
        const Sequence &s = plan.of[i];
        const int runs = s.range.runs(run), groups = ATT_KV_HEADS * vector_tiles(s);
        items += runs * groups;
        if (runs) {
            const int keys = s.range.longest(run);
            longest = keys > longest ? keys : longest;
            pieces += s.range.run_keys(run) / shortest * groups;
        }
    }
    const int even = (pieces + blocks - 1) / blocks * shortest + (items + blocks - 1) / blocks * ATT_ITEM_COST;
    return even > longest + ATT_ITEM_COST ? even : longest + ATT_ITEM_COST;
}

/* The run that takes the least time; the shortest of them, since each split has its end. By a warp, lane r for one. */
DEVICE int choose_run(const Plan &plan, int r) {
    const int cost = r < ATT_RUNS ? run_cost(plan, r) : 0;
    int best = 0, least = lane_from(cost, 0);
    for (int run = 1; run < ATT_RUNS; run++) {
        const int other = lane_from(cost, run);
        best = other < least ? run : best;
        least = other < least ? other : least;
    }
    return best;
}

/* Counts the items, which it returns: by lane r for sequence r. */
DEVICE int plan_items(Plan &plan, int run, int r) {
    const bool there = r < plan.sequences;
    const int items = there ? plan.of[r].range.runs(run) * ATT_KV_HEADS * vector_tiles(plan.of[r]) : 0;
    int all = 0;
    for (int j = 0; j < plan.sequences; j++) {
        all += lane_from(items, j);
        if (j == r)
            plan.of[r].items_end = all;
    }
    if (r == 0) {
        plan.run = run;
        plan.items = all;
    }
    return all;
}

/* By one warp; a block_sync() shows it to the block. */
DEVICE void make_plan(Plan &plan, const Rows &rows) {
    const int r = threadIdx.x & 31;
    if (r < ATT_ROWS)
        plan_rows(plan, rows, r);
    warp_sync();
    plan_sequences(plan, r);
    warp_sync();
    if (plan_items(plan, 0, r) <= (int)gridDim.x) /* the usual case: every split has a block */
        return;
    const int run = choose_run(plan, r);
    if (run)
        plan_items(plan, run, r);
}

/* ==== Items ==== */

/* An item, at one split of its run. */
struct Work {
    int sequence, kv_head, split;
    int first, vectors; /* query vectors: places in the sequence's rows x ATT_GROUP */
    int start, end;     /* keys of the split */

    /* Whether the run has no older split. */
    DEVICE bool last_split(const Plan &plan) const {
        return start <= plan.of[sequence].range.low || run_of(start - 1, plan.run) != run_of(start, plan.run);
    }
    /* The next split; false: there is none. */
    DEVICE bool next_split(const Plan &plan) {
        if (last_split(plan))
            return false;
        split--;
        end = start;
        start = split_start(split);
        start = start > plan.of[sequence].range.low ? start : plan.of[sequence].range.low;
        return true;
    }
};

/* An item at its run's newest split. */
DEVICE Work work_of(const Plan &plan, int item) {
    int i = 0;
    while (item >= plan.of[i].items_end)
        i++;
    const Sequence &s = plan.of[i];
    const int rest = item - (i ? plan.of[i - 1].items_end : 0), tiles = vector_tiles(s);
    Work w;
    w.sequence = i;
    w.kv_head = rest / tiles % ATT_KV_HEADS;
    w.first = rest % tiles * ATT_VECTORS;
    w.vectors = s.rows * ATT_GROUP - w.first;
    w.vectors = w.vectors < ATT_VECTORS ? w.vectors : ATT_VECTORS;
    const int run = run_of(s.range.high - 1, plan.run) - rest / (tiles * ATT_KV_HEADS);
    const int high = run_start(run + 1, plan.run);
    w.end = high < s.range.high ? high : s.range.high;
    w.split = split_of(w.end - 1);
    w.start = split_start(w.split);
    w.start = w.start > s.range.low ? w.start : s.range.low;
    return w;
}

/* The way over the splits of an item's run; over each of them as begin_split() and find() of Way say. */
template <class Way> struct Splits {
    Work work;

    DEVICE void begin(const Plan &plan, int item) {
        work = work_of(plan, item);
        ((Way *)this)->begin_split(plan);
    }
    /* At the run's next split; false: there is none. */
    DEVICE bool next_split(const Plan &plan) {
        const bool more = work.next_split(plan);
        if (more)
            ((Way *)this)->begin_split(plan);
        return more;
    }
};

/* A number of 32 bits, or of 64. */
template <bool MANY> struct Bits { typedef u32 type; };
template <> struct Bits<true> { typedef u64 type; };

/* The way over a split's tiles of ATT_KEYS keys: for each ATT_WEIGHED keys, a chunk, those of K, then those of V; tiles
 * that nobody sees are left out. A tile's number is its first position / ATT_KEYS. */
struct Cursor : Splits<Cursor> {
    enum {
        TILES = ATT_WEIGHED / ATT_KEYS,
        MOST_KEYS = ATT_LOOKBACK < 0 ? 1024 : ATT_WEIGHED > ATT_CHUNK ? ATT_WEIGHED : ATT_CHUNK, /* of a split */
        MOST_TILES = MOST_KEYS / ATT_KEYS,
        CHUNK = (1 << TILES) - 1
    };
    typedef typename Bits<(MOST_TILES > 32)>::type Tiles;
    int step;      /* chunk, K or V, tile of the chunk */
    Tiles present; /* of the split's tiles, from the chunk's first on: which come; bit = tile */

    /* By all lanes of a warp, each for a tile. */
    DEVICE void begin_split(const Plan &plan) {
        const Sequence &s = plan.of[work.sequence];
        const int first = work.start / ATT_WEIGHED * TILES;
        step = 2 * first;
        present = 0;
#pragma unroll
        for (int i = 0; i < MOST_TILES; i += 32) {
            const int key = (first + i + (int)(threadIdx.x & 31)) * ATT_KEYS;
            const bool comes = key < work.end && key + ATT_KEYS > work.start &&
                               tile_class(s.oldest, s.newest, key, key + ATT_KEYS - 1) != 0;
            present |= (Tiles)lanes_where(comes) << i;
        }
        find();
    }
    DEVICE void next() {
        const u32 later = chunk_tiles() >> (in_chunk() + 1);
        if (later) {
            step += 1 + lowest_bit(later);
        } else if (!at_values()) {
            step += TILES - in_chunk() + lowest_bit(chunk_tiles());
        } else {
            present >>= TILES;
            step += 2 * TILES - step % (2 * TILES);
            find();
        }
    }
    DEVICE bool done() const {
        return present == 0;
    }
    DEVICE bool at_values() const {
        return step / TILES & 1;
    }
    DEVICE int in_chunk() const {
        return step % TILES;
    }
    DEVICE int tile() const {
        return step / (2 * TILES) * TILES + step % TILES;
    }
    DEVICE u32 chunk_tiles() const {
        return (u32)present & CHUNK;
    }
    /* The first chunk from here with a tile. */
    DEVICE void find() {
        for (; present && !chunk_tiles(); step += 2 * TILES)
            present >>= TILES;
        step += present ? lowest_bit(chunk_tiles()) : 0;
    }
};

#endif
