/* matmul_panels.cu - what the prefill matmuls share: their segments, panels of weights, and the work of a launch.
 *
 * Macros PF_K, PF_SEGMENTS, PF_FORMS, PF_STRIPS and PF_GROUPED as in matmul_prefill.cu; PF_COLUMNS columns of weights
 * come at a time, a multiple of 64, and of every form's tiles.
 */
#ifndef LAP_MATMUL_PANELS
#define LAP_MATMUL_PANELS
#include "matmul_weights.cu"
#include "prelude.cu"

#define PF_PIECES     ((PF_K + PF_COLUMNS - 1) / PF_COLUMNS)
#define PF_LAST_TILES ((PF_K - PF_COLUMNS * (PF_PIECES - 1) + 63) / 64) /* tiles of 64 columns of the last piece */
#define PF_SPAN       8

/* ==== Segments and panels ==== */

enum Form {
#define PF_FORM_ID(form) FORM_##form,
    PF_FORMS(PF_FORM_ID)
};

#define PF_ADD_ROWS(i, form, n)   +(n)
#define PF_ADD_ONE(i, form, n)    +1
#define PF_ADD_PANELS(i, form, n) +(((n) + 16 * PF_STRIPS - 1) / (16 * PF_STRIPS))
constexpr int all_rows = 0 PF_SEGMENTS(PF_ADD_ROWS), all_panels = 0 PF_SEGMENTS(PF_ADD_PANELS);

DEVICE constexpr u32 larger(u32 a, u32 b) {
    return a > b ? a : b;
}
#define PF_LARGER(form) larger(PF_COLUMNS / Strip_##form::K * Strip_##form::BYTES,
#define PF_CLOSE(form) )
/* Bytes of a piece of a strip: PF_COLUMNS columns. */
constexpr u32 PF_SLOT = PF_FORMS(PF_LARGER) 0 PF_FORMS(PF_CLOSE);

#define PF_PARAMETER(i, form, n) const u8 *w##i,
#define PF_LIST(i, form, n)      w##i,

/* Strips of one matrix. */
struct Panel {
    const u8 *from;
    u32 strip, piece, last; /* bytes of a strip, and of its pieces: of most, of the last */
    Form form;
    int column, rows; /* where its first row goes in a row of the output, and how many there are */
};

struct Weights {
    const u8 *of[0 PF_SEGMENTS(PF_ADD_ONE)];

    DEVICE Panel panel(int matrix, int panel) const {
        constexpr int most = 16 * PF_STRIPS;
        int column = 0;
#define PF_FIND(i, form_name, n)                                                                                       \
    if (panel < ((n) + most - 1) / most) {                                                                             \
        typedef Strip_##form_name Strip;                                                                               \
        constexpr u32 strip = (PF_K + Strip::K - 1) / Strip::K * Strip::BYTES;                                         \
        constexpr u32 piece = PF_COLUMNS / Strip::K * Strip::BYTES, last = strip - (PF_PIECES - 1) * piece;                \
        const int left = (n)-most * panel;                                                                             \
        return {of[i] + ((u64)matrix * (((n) + 15) / 16) + panel * PF_STRIPS) * strip,                                 \
                strip,                                                                                                 \
                piece,                                                                                                 \
                last,                                                                                                  \
                FORM_##form_name,                                                                                      \
                column + most * panel,                                                                                 \
                left < most ? left : most};                                                                            \
    }                                                                                                                  \
    panel -= ((n) + most - 1) / most;                                                                                  \
    column += (n);
        PF_SEGMENTS(PF_FIND)
        return {nullptr, 0, 0, 0, (Form)0, 0, 0}; /* no such panel */
    }
};

/* ==== The work ==== */

/* A panel and the rows of x that it meets. */
struct Item {
    int matrix, panel, first, live; /* first: tile of 8 rows */
};

struct Work {
    int rows;   /* live rows, or tiles of the list */
    int tokens; /* rows of a block, but of the list: a multiple of 8 */
    const int *tiles;

    DEVICE int blocks() const {
        return PF_GROUPED ? rows : (rows + tokens - 1) / tokens;
    }
    DEVICE int count() const {
        return blocks() * all_panels;
    }
    DEVICE Item item(int index) const {
        const int span = index / (PF_SPAN * all_panels), in_span = index % (PF_SPAN * all_panels);
        const int left = blocks() - PF_SPAN * span, width = left < PF_SPAN ? left : PF_SPAN;
        const int panel = in_span / width, block = PF_SPAN * span + in_span % width;
#if PF_GROUPED
        const int *tile = tiles + 3 * block;
        return {tile[0], panel, tile[1], tile[2]};
#else
        const int live = rows - tokens * block;
        return {0, panel, tokens / 8 * block, live < tokens ? live : tokens};
#endif
    }
};

#if PF_GROUPED
#define PF_LISTS     , const int *tiles, const int *order
#define PF_TILE_LIST tiles
#define PF_ORDER     order
#else
#define PF_LISTS
#define PF_TILE_LIST nullptr
#define PF_ORDER     nullptr
#endif

#endif
