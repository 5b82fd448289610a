/* group_mma.cu - tensor cores of sm_90a as a warpgroup uses them: four warps, one product, not waited for.
 *
 * A warpgroup is four consecutive warps from a multiple of four on. Its product is c[64 x N] += a[64 x 16] b[16 x N],
 * f16 products exact, f32 sums: warp w has rows 16w..16w+15 of a and c in its registers, as for mma() of the prelude
 * (c[4i..4i+3] are columns 8i..8i+7); b is read from shared memory.
 *
 *   b          N rows of 64 f16, its columns' elements of 64 steps of k, in atoms of 8 rows: [N / 8] atoms of 1024
 *              bytes at a multiple of 1024. Row r of an atom is at 128 r, and its chunk c of 16 bytes at 16 (c ^ r):
 *              so eight rows' chunks lie in different banks. b points to the chunk of the step: 32 bytes for each 16
 *
 * Attention multiplies in two more ways, with f16 or bf16 elements:
 *
 *   group_mma_rows<N>(c, a, i, b, j, add)      both from shared memory, in atoms as above: a, 64 rows, too, from byte i
 *                                              on; b from byte j on. add false: c = a b
 *   group_mma_columns<N>(c, a, b, j, block)    b the other way round: 16 rows of k x N columns, in blocks of 64
 *                                              columns that lie `block` bytes apart, each [rows of k][64] in atoms as
 *                                              above; a in registers or, as rows (a, i), in shared memory
 *
 * Where i and j are known to the compiler the descriptors of a and b are made once for all steps.
 *
 *   group_mma_begin()    before the first product that reads or adds to registers which the threads have written
 *   group_mma<N>(..)     asks for a product; no register of it may be touched until it is done
 *   group_mma_close()    ends a group of products
 *   group_mma_wait<OPEN> until at most OPEN groups are under way; then reads of b are over, too
 *   group_mma_keep(c)    sums are not read before this point
 *
 * A kernel of three warpgroups has 168 registers a thread: one that only asks for copies gives most of its own away by
 * warpgroup_registers_fewer<24>(), and the others take 240 by warpgroup_registers_more<240>(): 504 in all as before, as
 * else they wait for ever. By all threads of a warpgroup.
 *
 * PTX ISA, wgmma.mma_async; the descriptor's fields are those of its matrix descriptor format: address / 16, distance
 * of atoms / 16 at bit 32, 128-byte swizzle at bit 62.
 */
#ifndef LAP_GROUP_MMA
#define LAP_GROUP_MMA
#include "prelude.cu"

DEVICE void group_mma_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

DEVICE void group_mma_close() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int OPEN> DEVICE void group_mma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(OPEN) : "memory");
}

template <int COUNT> DEVICE void warpgroup_registers_fewer() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT> DEVICE void warpgroup_registers_more() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

/* Of b from byte `at` on. The upper half is the same for all, and nothing is carried into it. */
DEVICE u64 group_mma_descriptor(const u8 *b, u32 at = 0, u32 block = 16) {
    const u32 low = (shared_address(b) >> 4 | block >> 4 << 16) + (at >> 4);
    return (u64)(64u | 1u << 30) << 32 | low;
}

/* clang-format off */
#define GM_SUMS8(c, i)  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]),    \
                        "+f"(c[i + 6]), "+f"(c[i + 7])
#define GM_SUMS32(c, i) GM_SUMS8(c, i), GM_SUMS8(c, i + 8), GM_SUMS8(c, i + 16), GM_SUMS8(c, i + 24)
#define GM_NAMES0  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,"    \
                   "%26,%27,%28,%29,%30,%31"
#define GM_NAMES32 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,"  \
                   "%56,%57,%58,%59,%60,%61,%62,%63"
#define GM_NAMES64 "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,"  \
                   "%88,%89,%90,%91,%92,%93,%94,%95"
#define GM_NAMES96 "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,"  \
                   "%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

#define GM_PRODUCT(n, names, a0, a1, a2, a3, d, ...)                                                                   \
    asm volatile("{ .reg .pred add; setp.ne.b32 add, 1, 0;"                                                            \
                 " wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.f16.f16 {" names "}, {" a0 "," a1 "," a2 "," a3 "}, " \
                 d ", add, 1, 1, 0; }"                                                                                 \
                 : __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(at))

template <int N> DEVICE void group_mma(float (&c)[N / 2], const u32 (&a)[4], const u8 *b) {
    static_assert(N == 64 || N == 128 || N == 192 || N == 256, "columns of a product");
    const u64 at = group_mma_descriptor(b);
    if constexpr (N == 64)
        GM_PRODUCT(64, GM_NAMES0, "%32", "%33", "%34", "%35", "%36", GM_SUMS32(c, 0));
    if constexpr (N == 128)
        GM_PRODUCT(128, GM_NAMES0 "," GM_NAMES32, "%64", "%65", "%66", "%67", "%68", GM_SUMS32(c, 0), GM_SUMS32(c, 32));
    if constexpr (N == 192)
        GM_PRODUCT(192, GM_NAMES0 "," GM_NAMES32 "," GM_NAMES64, "%96", "%97", "%98", "%99", "%100", GM_SUMS32(c, 0),
                   GM_SUMS32(c, 32), GM_SUMS32(c, 64));
    if constexpr (N == 256)
        GM_PRODUCT(256, GM_NAMES0 "," GM_NAMES32 "," GM_NAMES64 "," GM_NAMES96, "%128", "%129", "%130", "%131", "%132",
                   GM_SUMS32(c, 0), GM_SUMS32(c, 32), GM_SUMS32(c, 64), GM_SUMS32(c, 96));
}

#define GM_ROWS64(type)                                                                                                \
    asm volatile("{ .reg .pred add; setp.ne.b32 add, %34, 0;"                                                          \
                 " wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" GM_NAMES0 "}, %32, %33,"            \
                 " add, 1, 1, 0, 0; }"                                                                                 \
                 : GM_SUMS32(c, 0) : "l"(rows), "l"(at), "r"((int)add))

template <int N, bool BF16>
DEVICE void group_mma_rows(float (&c)[N / 2], const u8 *a, int i, const u8 *b, int j, bool add) {
    static_assert(N == 64, "columns of a product");
    const u64 rows = group_mma_descriptor(a, i), at = group_mma_descriptor(b, j);
    if constexpr (BF16)
        GM_ROWS64("bf16");
    else
        GM_ROWS64("f16");
}

#define GM_COLUMNS(n, type, names, a0, a1, a2, a3, d, ...)                                                             \
    asm volatile("{ .reg .pred add; setp.ne.b32 add, 1, 0;"                                                            \
                 " wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" names "}, {" a0 "," a1 "," a2   \
                 "," a3 "}, " d ", add, 1, 1, 1; }"                                                                    \
                 : __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(at))
#define GM_COLUMNS_OF(type)                                                                                            \
    if constexpr (N == 64)                                                                                             \
        GM_COLUMNS(64, type, GM_NAMES0, "%32", "%33", "%34", "%35", "%36", GM_SUMS32(c, 0));                           \
    if constexpr (N == 128)                                                                                            \
        GM_COLUMNS(128, type, GM_NAMES0 "," GM_NAMES32, "%64", "%65", "%66", "%67", "%68", GM_SUMS32(c, 0),            \
                   GM_SUMS32(c, 32));                                                                                  \
    if constexpr (N == 256)                                                                                            \
        GM_COLUMNS(256, type, GM_NAMES0 "," GM_NAMES32 "," GM_NAMES64 "," GM_NAMES96, "%128", "%129", "%130", "%131",  \
                   "%132", GM_SUMS32(c, 0), GM_SUMS32(c, 32), GM_SUMS32(c, 64), GM_SUMS32(c, 96));

template <int N, bool BF16>
DEVICE void group_mma_columns(float (&c)[N / 2], const u32 (&a)[4], const u8 *b, int j, u32 block) {
    static_assert(N == 64 || N == 128 || N == 256, "columns of a product");
    const u64 at = group_mma_descriptor(b, j, block);
    if constexpr (BF16) {
        GM_COLUMNS_OF("bf16")
    } else {
        GM_COLUMNS_OF("f16")
    }
}

#define GM_ROWS_COLUMNS(type)                                                                                          \
    asm volatile("{ .reg .pred add; setp.ne.b32 add, 1, 0;"                                                            \
                 " wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type " {" GM_NAMES0 "," GM_NAMES32 ","        \
                 GM_NAMES64 "," GM_NAMES96 "}, %128, %129, add, 1, 1, 0, 1; }"                                         \
                 : GM_SUMS32(c, 0), GM_SUMS32(c, 32), GM_SUMS32(c, 64), GM_SUMS32(c, 96) : "l"(rows), "l"(at))

template <int N, bool BF16>
DEVICE void group_mma_columns(float (&c)[N / 2], const u8 *a, int i, const u8 *b, int j, u32 block) {
    static_assert(N == 256, "columns of a product");
    const u64 rows = group_mma_descriptor(a, i), at = group_mma_descriptor(b, j, block);
    if constexpr (BF16)
        GM_ROWS_COLUMNS("bf16");
    else
        GM_ROWS_COLUMNS("f16");
}
/* clang-format on */

template <int COUNT> DEVICE void group_mma_keep(float (&c)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        asm volatile("" : "+f"(c[i])::"memory");
}

#endif
