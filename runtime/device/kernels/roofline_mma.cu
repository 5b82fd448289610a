// roofline_mma.cu - how fast a device from sm_80 on multiplies bf16 matrices with mma.sync. See roofline.c.
//
// C = A * B^T with f32 sums, B stored by columns, all of depth 64 * `depths`. A block makes tiles of 128 rows and 128
// columns, one after another: four warps of 64 by 64, a ring of 3 stages of 32 KB, the fragments of the next 16 columns
// loaded while these are multiplied; the next tile's first stages are fetched while this one's result is stored.
//
//   a, b      pieces [rows / 128][depths] of 128 rows and 64 columns, a row 128 bytes, its eighths exchanged:
//             eighth e of row r stands at e ^ (r & 7), so that ldmatrix meets no bank twice
//   c         16 bytes [tile][warp][16][lane]: the fragments as they are, rounded to bf16
//   tile      t is of row block (t / (16 * wide)) * 16 + t % 16 and column block t / 16 % wide
//   launch    128 threads, as many blocks as are resident, `SHARED` bytes of dynamic shared memory

typedef unsigned u32;
typedef unsigned long long u64;

struct Quad {
    u32 x, y, z, w;
};

enum { STAGES = 3, PIECE = 16 << 10, STAGE = 2 * PIECE, TALL = 16, SHARED = STAGES * STAGE, THREADS = 128 };

__device__ static inline u32 shared_address(const void *p) {
    return (u32)__cvta_generic_to_shared(p);
}

__device__ static inline void fetch16(u32 to, const char *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ static inline void fetches_close() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

__device__ static inline void fetches_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(1) : "memory");
}

__device__ static inline void load_matrices(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

__device__ static inline void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Depth 16 of a warp's 64 rows and 64 columns.
struct Fragments {
    u32 a[4][4], b[4][4];
};

// row_a, row_b: byte of the warp's first row plus the lane's row in it; x: 16 times the eighth that the lane exchanges.
__device__ static inline void load(Fragments &f, u32 row_a, u32 row_b, u32 eighth_a, u32 eighth_b, u32 x) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        load_matrices(f.a[i], row_a + i * 16 * 128 + (eighth_a ^ x));
        load_matrices(f.b[i], row_b + i * 16 * 128 + (eighth_b ^ x));
    }
}

__device__ static inline void multiply(float (&sum)[4][8][4], const Fragments &f) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
            multiply(sum[i][j], f.a[i], f.b[j / 2][j % 2 * 2], f.b[j / 2][j % 2 * 2 + 1]);
}

// What is fetched next, and how much of it there is.
struct Fetcher {
    const char *a, *b, *from_a, *from_b;
    int tile, tiles, depth, depths, wide, stage;
    u32 data;

    __device__ inline void begin_tile() {
        const int row = tile / (TALL * wide) * TALL + tile % TALL, column = tile / TALL % wide;
        from_a = a + (u64)row * depths * PIECE + threadIdx.x * 16;
        from_b = b + (u64)column * depths * PIECE + threadIdx.x * 16;
        depth = 0;
    }
    // A stage, or an empty group behind the last tile.
    __device__ inline void fetch() {
        if (tile < tiles) {
            const u32 to = data + stage * STAGE + threadIdx.x * 16;
#pragma unroll
            for (int i = 0; i < PIECE / (16 * THREADS); i++) {
                fetch16(to + i * 16 * THREADS, from_a + i * 16 * THREADS);
                fetch16(to + PIECE + i * 16 * THREADS, from_b + i * 16 * THREADS);
            }
            from_a += PIECE;
            from_b += PIECE;
            if (++depth == depths && (tile += gridDim.x) < tiles)
                begin_tile();
        }
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        fetches_close();
    }
};

__device__ static inline u32 round_pair(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ static inline void store(const float (&sum)[4][8][4], Quad *to) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float *s = sum[i][2 * j], *t = sum[i][2 * j + 1];
            to[32 * (4 * i + j)] = {round_pair(s[0], s[1]), round_pair(s[2], s[3]), round_pair(t[0], t[1]),
                                    round_pair(t[2], t[3])};
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    roofline_matmul(const char *a, const char *b, Quad *c, int depths, int wide, int tiles) {
    extern __shared__ __align__(128) char bytes[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 data = shared_address(bytes), x = lane % 8 * 16;
    // ldmatrix: lanes 0..15 name rows and the first eighth, 16..31 the second; of columns, 8 and 8 take turns.
    const u32 row_a = data + (warp / 2 * 64 + lane % 16) * 128, eighth_a = lane / 16 * 16;
    const u32 row_b = data + PIECE + (warp % 2 * 64 + lane % 8 + lane / 16 * 8) * 128, eighth_b = lane / 8 % 2 * 16;
    Fetcher f = {a, b, a, b, (int)blockIdx.x, tiles, 0, depths, wide, 0, data};
    if (f.tile < tiles)
        f.begin_tile();
    for (int i = 0; i < STAGES - 1; i++)
        f.fetch();
    u32 stage = 0;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        float sum[4][8][4] = {};
        for (int d = 0; d < depths; d++) {
            fetches_wait();
            __syncthreads();
            f.fetch();
            Fragments part[2];
            load(part[0], row_a + stage, row_b + stage, eighth_a, eighth_b, x);
#pragma unroll
            for (int k = 0; k < 4; k++) {
                if (k < 3)
                    load(part[(k + 1) % 2], row_a + stage, row_b + stage, eighth_a + 32 * (k + 1),
                         eighth_b + 32 * (k + 1), x);
                multiply(sum, part[k % 2]);
            }
            stage = stage + STAGE == STAGES * STAGE ? 0 : stage + STAGE;
        }
        store(sum, c + ((u64)(tile * 4 + warp) * 16) * 32 + lane);
    }
}
