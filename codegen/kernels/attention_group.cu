/* attention_group.cu - prefill by warpgroups: what attention_wgmma.cu and attention_wgmma_wide.cu share, of 64 query rows
 * and a tile of 64 keys in the registers of a warpgroup.
 */
#ifndef LAP_ATTENTION_GROUP
#define LAP_ATTENTION_GROUP
#include "attention_block.cu"
#include "group_mma.cu"

/* Byte of 16-byte piece `piece` of a row, where 64 columns of all rows are `block` bytes. */
DEVICE int atom_at(int row, int piece, int block) {
    return piece / 8 * block + row * 128 + ((piece ^ row) & 7) * 16;
}

/* A thread's place: rows g and g + 8 of its warp's 16, in each eight columns 2t and 2t + 1. */
struct Place {
    int g, t, row; /* row: g's, of ATT_QUERIES */

    DEVICE Place() {
        const int lane = threadIdx.x & 31;
        g = lane >> 2;
        t = lane & 3;
        row = (int)(threadIdx.x >> 5) * 16 % ATT_QUERIES + g;
    }
};

typedef float Products[ATT_TILE / 2]; /* of 64 keys: [8 keys][row g or g + 8][2 keys] */

/* The largest logit so far of a row that has not seen a key: less than any, but its difference to itself is 0. */
#define ATT_LEAST -1e30f

/* What logits are multiplied by for powers of two: products stay as they are where nothing else is done to them. */
constexpr bool ATT_PLAIN = !ATT_SCORE && ATT_SCALE > 0.0f;
constexpr float ATT_UNIT = ATT_PLAIN ? (float)(ATT_SCALE * LOG2_E * KForm::unit) : 1.0f;

/* Products become logits, -infinity where a query does not see a key. */
DEVICE void make_logits(const Block &b, const Place &at, int first, bool masked, Products &s TABLE_PARAMETERS) {
    if (!ATT_PLAIN)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int pos = positions()[at.row + 8 * half];
#pragma unroll
            for (int n = 0; n < ATT_TILE / 4; n++) {
                float &v = s[n / 2 * 4 + 2 * half + n % 2];
                v = logit(pos, first + n / 2 * 8 + 2 * at.t + n % 2, b.head, v TABLE_ARGUMENTS);
            }
        }
    if (masked)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int pos = positions()[at.row + 8 * half];
#pragma unroll
            for (int n = 0; n < ATT_TILE / 4; n++) {
                const int key = first + n / 2 * 8 + 2 * at.t + n % 2;
                if (!(key < b.high && visible(pos, key, b.head TABLE_ARGUMENTS)))
                    s[n / 2 * 4 + 2 * half + n % 2] = minus_infinity();
            }
        }
}

#if ATT_SPARSE
/* -infinity where a query's list leaves out the key. */
DEVICE void leave_out(const Block &b, const Place &at, int first, const u32 *kept, Products &s) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const u32 bits = kept_ahead(kept, positions()[at.row + 8 * half], b.head, first);
#pragma unroll
        for (int n = 0; n < ATT_TILE / 4; n++) {
            const int key = first + n / 2 * 8 + 2 * at.t + n % 2;
            const int block = SPARSE_BLOCK % ATT_TILE ? key / SPARSE_BLOCK - first / SPARSE_BLOCK : 0;
            if (!(bits >> block & 1))
                s[n / 2 * 4 + 2 * half + n % 2] = minus_infinity();
        }
    }
}
#endif

/* The largest logit of a row, of all four lanes that have it. */
DEVICE float row_most(const Products &s, int half) {
    float most = s[2 * half];
#pragma unroll
    for (int n = 0; n < ATT_TILE / 8; n++)
        most = fmaxf(most, fmaxf(s[4 * n + 2 * half], s[4 * n + 2 * half + 1]));
    most = fmaxf(most, lane_swap(most, 1));
    return fmaxf(most, lane_swap(most, 2));
}

/* A row's logits become weights beside `most`; their sum, of this lane's keys. */
DEVICE float row_weights(Products &s, int half, float most) {
    const float least = multiply_add(-most, ATT_UNIT, 0.0f);
    float weight = 0.0f;
#pragma unroll
    for (int n = 0; n < ATT_TILE / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float &v = s[4 * n + 2 * half + i];
            v = exp2_fast(multiply_add(v, ATT_UNIT, least));
            weight += v;
        }
    return weight;
}

/* What sums relative to `before` are worth relative to `most`: 1 if that is the same, ATT_LEAST, too. */
DEVICE float row_shrink(float before, float most) {
    return exp2_fast((before - most) * ATT_UNIT);
}

/* out, 64 rows x COUNT * 2 columns, times a factor for each of the thread's rows. */
template <int COUNT> DEVICE void shrink_rows(float (&out)[COUNT], const float (&shrink)[2]) {
#pragma unroll
    for (int half = 0; half < 2; half++)
        if (shrink[half] != 1.0f)
#pragma unroll
            for (int n = 0; n < COUNT / 4; n++) {
                out[4 * n + 2 * half] *= shrink[half];
                out[4 * n + 2 * half + 1] *= shrink[half];
            }
}

/* As the a of products with values, by 16 keys. */
DEVICE void pack_weights(const Products &s, u32 (&weights)[ATT_TILE / 16][4]) {
#pragma unroll
    for (int k = 0; k < ATT_TILE / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            weights[k][i] = VForm::round_pair(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
}

/* Byte of a head's queries in q16 of a row of the block. */
DEVICE const u16 *query_at(const Block &b, const u16 *q16, int row) {
    return q16 + ((u64)(b.first + row) * ATT_HEADS + b.head) * ATT_K_DIM;
}

/* A tile of keys or values in the cache. */
struct Keys {
    static constexpr int KEY_BYTES = 2 * ATT_K_DIM; /* from a key to the next */
    const u8 *from;
    int first, start, low, high;
    bool whole; /* all keys are looked at, and lie one behind the other */

    DEVICE Keys(const Block &b, const u8 *cache, int tile) {
        first = tile * ATT_TILE;
        start = place_of(first);
        low = b.low;
        high = b.high;
        whole = first >= low && first + ATT_TILE <= high && (!ATT_RING || start + ATT_TILE <= ATT_CAPACITY);
        from = cache + cache_at<KForm, ATT_K_DIM>(b.slot, 0, b.kv_head);
    }
    /* What stands in the cache as piece `piece` of a key of the tile; zeros where nobody looks. */
    DEVICE void bring(u8 *to, int key, int piece) const {
        const bool inside = first + key >= low && first + key < high;
        const int place = inside ? wrapped(start + key) : 0;
        copy16_async(to, from + (u64)place * KEY_BYTES + 16 * piece, inside);
    }
};

/* Asks for KEYS keys of a tile from `key` on, of each PIECES pieces from `piece` on, as blocks of 64 columns BLOCK bytes
 * apart; by a warp or several, THREADS threads. The usual case costs an address or two for a copy. The cache has the
 * pieces of 64 columns in the order that an atom has them in. */
template <int THREADS, int KEYS, int PIECES, int BLOCK>
DEVICE void bring_keys(const Keys &keys, int key, int piece, u8 *to, int thread) {
    constexpr int across = THREADS < PIECES ? THREADS : PIECES; /* threads for a key */
    constexpr int parts = PIECES / across, step = THREADS / across;
    static_assert(PIECES % across == 0 && across % 8 == 0 && KEYS % step == 0, "the same for all threads");
    static_assert(turned_pieces<ATT_K_DIM>() == 8, "as in an atom");
    const int mine = thread % across, k0 = thread / across;
    to += mine / 8 * BLOCK + mine % 8 * 16 + k0 * 128;
    if (keys.whole) {
        const u8 *from = keys.from + (u64)(keys.start + key + k0) * Keys::KEY_BYTES + 16 * (piece + mine);
#pragma unroll
        for (int i = 0; i < KEYS / step * parts; i++) {
            const int k = i / parts * step, p = i % parts * across;
            copy16_async(to + k * 128 + p / 8 * BLOCK, from + k * Keys::KEY_BYTES + 16 * p, true);
        }
    } else {
#pragma unroll 1
        for (int i = 0; i < KEYS / step * parts; i++) {
            const int k = i / parts * step, p = i % parts * across;
            keys.bring(to + k * 128 + p / 8 * BLOCK, key + k0 + k, piece + mine + p);
        }
    }
}

/* The calling thread's copies are there, for tensor cores, too, which read by another way than threads write. */
DEVICE void copies_shown() {
    copies_close();
    copies_wait<0>();
    barrier_publish();
}

/* Waits for what other threads' copies_arrive() tells of; tensor cores may read it then. */
DEVICE void wait_copies(u64 *bar, u32 parity) {
    barrier_wait(bar, parity);
    barrier_publish();
}

#if ATT_SPARSE
#define KEPT_ARGUMENTS , kept
#define LEAVE_OUT(kind, tile, s)                                                                                       \
    if ((kind) & KEPT_IN_PART)                                                                                         \
        leave_out(b, at, (tile) * ATT_TILE, kept, s);
#else
#define KEPT_ARGUMENTS
#define LEAVE_OUT(kind, tile, s)
#endif

#endif
