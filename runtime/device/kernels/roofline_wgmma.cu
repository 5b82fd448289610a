// roofline_wgmma.cu - how fast an sm_90a device multiplies bf16 matrices. See roofline.c.
//
// C = A * B^T with f32 sums, B stored by columns, all of depth 64 * `depths`. A block makes tiles of 128 rows and 256
// columns, one after another: a warpgroup whose first thread fetches, two that multiply 64 rows each with
// wgmma m64n256k16, both operands out of shared memory. 4 stages of 48 KB; the next tile's first stages are fetched
// while this one's result is stored.
//
//   a, b      pieces [rows / 128][depths] of 128 rows and 64 columns, a row 128 bytes, its eighths exchanged:
//             eighth e of row r stands at e ^ (r & 7), which is the 128-byte swizzle of wgmma
//   c         16 bytes [tile][warp][16][lane]: the fragments as they are, rounded to bf16
//   tile      t is of row block (t / (16 * wide)) * 16 + t % 16 and column block t / 16 % wide
//   launch    384 threads, one block a multiprocessor, `SHARED` bytes of dynamic shared memory

typedef unsigned u32;
typedef unsigned long long u64;

struct Quad {
    u32 x, y, z, w;
};

enum { STAGES = 4, PIECE = 16 << 10, STAGE = 3 * PIECE, TALL = 16, SHARED = 1024 + STAGES * STAGE };

__device__ static inline u32 shared_address(const void *p) {
    return (u32)__cvta_generic_to_shared(p);
}

// ==== Barriers: a parity each ====

__device__ static inline void barrier_init(u32 bar, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}

__device__ static inline void barrier_arrive(u32 bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

__device__ static inline void barrier_wait(u32 bar, u32 parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(bar),
                 "r"(parity)
                 : "memory");
}

// ==== Fetching ====

__device__ static inline void barrier_expect(u32 bar, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}

__device__ static inline void fetch_piece(u32 to, const void *from, u32 bar) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"((u32)PIECE), "r"(bar)
                 : "memory");
}

// ==== wgmma ====

// Of a piece whose eighths are exchanged: groups of 8 rows are 1024 bytes apart.
__device__ static inline u64 descriptor(u32 address) {
    return (u64)(address >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

__device__ static inline void wgmma_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ static inline void wgmma_close() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int OPEN> __device__ static inline void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(OPEN) : "memory");
}

#define SUMS8(i)                                                                                                       \
    "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3]), "+f"(sum[i + 4]), "+f"(sum[i + 5]),            \
        "+f"(sum[i + 6]), "+f"(sum[i + 7])
#define SUMS32(i) SUMS8(i), SUMS8(i + 8), SUMS8(i + 16), SUMS8(i + 24)

// sum = (ADD ? sum : 0) + 64 rows times 256 columns of depth 16.
template <int ADD> __device__ static inline void multiply16(float (&sum)[128], u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
                 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
                 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
                 "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"
                 "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"
                 "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"
                 "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127},"
                 " %128, %129, %130, 1, 1, 0, 0;"
                 : SUMS32(0), SUMS32(32), SUMS32(64), SUMS32(96)
                 : "l"(a), "l"(b), "n"(ADD));
}

// A stage: 64 rows at a, 256 columns at b, depth 64.
template <int ADD> __device__ static inline void multiply64(float (&sum)[128], u32 a, u32 b) {
    const u64 da = descriptor(a), db = descriptor(b);
    wgmma_begin();
    multiply16<ADD>(sum, da, db);
    multiply16<1>(sum, da + 2, db + 2);
    multiply16<1>(sum, da + 4, db + 4);
    multiply16<1>(sum, da + 6, db + 6);
    wgmma_close();
}

// ==== The kernel ====

// Where in the ring a thread is.
struct Place {
    int stage;
    u32 parity;
    __device__ inline void step() {
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        parity ^= stage == 0;
    }
};

struct Ring {
    u32 data, full, empty; // addresses: stages, barriers of 8 bytes each
};

__device__ static void fetch_all(const Ring &ring, const char *a, const char *b, int depths, int wide, int tiles) {
    Place at = {0, 1};
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int row = tile / (TALL * wide) * TALL + tile % TALL, column = tile / TALL % wide;
        const char *from_a = a + (u64)row * depths * PIECE, *from_b = b + (u64)column * 2 * depths * PIECE;
        for (int d = 0; d < depths; d++, at.step()) {
            const u32 to = ring.data + at.stage * STAGE, full = ring.full + 8 * at.stage;
            barrier_wait(ring.empty + 8 * at.stage, at.parity);
            barrier_expect(full, STAGE);
            fetch_piece(to, from_a + (u64)d * PIECE, full);
            fetch_piece(to + PIECE, from_b + (u64)d * PIECE, full);
            fetch_piece(to + 2 * PIECE, from_b + (u64)(depths + d) * PIECE, full);
        }
    }
}

__device__ static inline u32 round_pair(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ static inline void store(const float (&sum)[128], Quad *to) {
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const float *s = sum + 8 * i;
        to[32 * i] = {round_pair(s[0], s[1]), round_pair(s[2], s[3]), round_pair(s[4], s[5]), round_pair(s[6], s[7])};
    }
}

__device__ static void multiply_all(const Ring &ring, Quad *c, int half, int depths, int tiles) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 - 4;
    const bool first = threadIdx.x % 128 == 0;
    float sum[128];
    Place at = {0, 0};
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        u32 data = ring.data + at.stage * STAGE, before;
        barrier_wait(ring.full + 8 * at.stage, at.parity);
        multiply64<0>(sum, data + half * (PIECE / 2), data + PIECE);
        for (int d = 1; d < depths; d++) {
            before = ring.empty + 8 * at.stage;
            at.step();
            data = ring.data + at.stage * STAGE;
            barrier_wait(ring.full + 8 * at.stage, at.parity);
            multiply64<1>(sum, data + half * (PIECE / 2), data + PIECE);
            wgmma_wait<1>();
            if (first)
                barrier_arrive(before);
        }
        wgmma_wait<0>();
#pragma unroll
        for (int i = 0; i < 128; i++)
            asm volatile("" : "+f"(sum[i])::"memory"); // no sum is read before the wait
        if (first)
            barrier_arrive(ring.empty + 8 * at.stage);
        at.step();
        store(sum, c + ((u64)(tile * 8 + warp) * 16) * 32 + lane);
    }
}

extern "C" __global__ void __launch_bounds__(384, 1)
    roofline_matmul(const char *a, const char *b, Quad *c, int depths, int wide, int tiles) {
    extern __shared__ char bytes[];
    __shared__ u64 barriers[2 * STAGES];
    Ring ring = {(shared_address(bytes) + 1023) / 1024 * 1024, shared_address(barriers),
                 shared_address(barriers + STAGES)};
    const int part = __shfl_sync(~0u, threadIdx.x / 128, 0); // the same for a warp, and the compiler knows it
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(ring.full + 8 * i, 1);
            barrier_init(ring.empty + 8 * i, 2);
        }
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
    __syncthreads();
    if (part == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 0)
            fetch_all(ring, a, b, depths, wide, tiles);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        multiply_all(ring, c, part - 1, depths, tiles);
    }
}
