/* scalar_text.c - a variant's expressions as CUDA: variant.body, with visible, score, sink and tile_class.
 *
 * Positions are whole numbers below 2^31: parts of an expression that are whole are written in long long, which is
 * exact where the evaluator's doubles are; the rest in float for scores, in double for visibility. tile_class bounds
 * every comparison whose sides differ by an affine expression of q and k, and says "some" where it cannot.
 */
#include "codegen/gen_int.h"

#include <math.h>
#include <string.h>

enum { CLASS_NONE, CLASS_SOME, CLASS_ALL };

typedef struct Writer {
    Gen *g;
    const TableVec *tables;
    const char *real; /* "float" or "double" */
} Writer;

/* ==== Tables ==== */

static void find_tables(const Gen *g, const Scalar *e, TableVec *out) {
    if (!e)
        return;
    if (e->op == SC_TABLE) {
        for (int i = 0; i < out->n; i++)
            if (out->v[i] == e->weight)
                return;
        vec_push(g->arena, out, e->weight);
    }
    for (int i = 0; i < 3; i++)
        find_tables(g, e->arg[i], out);
}

void variant_tables(Gen *g, const Variant *v, TableVec *out) {
    find_tables(g, v->visible, out);
    find_tables(g, v->score, out);
    find_tables(g, v->sink, out);
}

/* ==== Expressions ==== */

static bool is_whole_number(double v) {
    return v == floor(v) && fabs(v) < 1e15;
}

/* True when the value is a whole number whatever q, k and h are. */
static bool is_whole(const Scalar *e) {
    switch (e->op) {
    case SC_CONST: return is_whole_number(e->value);
    case SC_Q:
    case SC_K:
    case SC_H: return true;
    case SC_S:
    case SC_TABLE:
    case SC_DIV:
    case SC_EXP:
    case SC_LOG:
    case SC_SQRT:
    case SC_TANH: return false;
    case SC_OR:
    case SC_AND:
    case SC_NOT:
    case SC_EQ:
    case SC_NE:
    case SC_LT:
    case SC_LE:
    case SC_GT:
    case SC_GE:
    case SC_FLOOR: return true;
    case SC_ADD:
    case SC_SUB:
    case SC_MUL:
    case SC_MOD:
    case SC_MIN:
    case SC_MAX: return is_whole(e->arg[0]) && is_whole(e->arg[1]);
    case SC_NEG:
    case SC_ABS: return is_whole(e->arg[0]);
    case SC_SELECT: return is_whole(e->arg[1]) && is_whole(e->arg[2]);
    case SC_COUNT: break;
    }
    return false;
}

static void write(Writer *w, Buf *to, const Scalar *e);

static void call(Writer *w, Buf *to, const char *name, const Scalar *e, int n) {
    buf_printf(to, "%s(", name);
    for (int i = 0; i < n; i++) {
        buf_str(to, i ? ", " : "");
        buf_printf(to, "(%s)", is_whole(e) ? "long long" : w->real);
        write(w, to, e->arg[i]);
    }
    buf_char(to, ')');
}

/* Both sides in the type that holds them. */
static void binary(Writer *w, Buf *to, const char *op, const Scalar *e) {
    const bool whole = is_whole(e->arg[0]) && is_whole(e->arg[1]) && e->op != SC_DIV;
    const char *type = whole ? "long long" : w->real;
    buf_printf(to, "((%s)", type);
    write(w, to, e->arg[0]);
    buf_printf(to, " %s (%s)", op, type);
    write(w, to, e->arg[1]);
    buf_char(to, ')');
}

static void table(Writer *w, Buf *to, const Scalar *e) {
    int i = 0;
    while (w->tables->v[i] != e->weight)
        i++;
    const Type *t = &w->g->m->weights.v[e->weight].type;
    buf_printf(to, "table_at(t%d, (int)", i);
    write(w, to, e->arg[0]);
    buf_printf(to, ", %lld)", (long long)t->dim[0]);
}

static void constant(Writer *w, Buf *to, double v) {
    if (is_whole_number(v))
        buf_printf(to, "(%lldll)", (long long)v);
    else if (isinf(v))
        buf_printf(to, "((%s)float_from_bits(0x%s800000u))", w->real, v < 0 ? "ff" : "7f");
    else
        buf_printf(to, "((%s)%.17g)", w->real, v);
}

/* How operators are written that need no more than their operands. */
typedef enum Form { SPECIAL, ATOM, LOGIC, BINARY, CALL } Form;
static const struct {
    Form form;
    const char *text;
} spellings[SC_COUNT] = {
    [SC_Q] = {ATOM, "q"},        [SC_K] = {ATOM, "k"},           [SC_S] = {ATOM, "s"},
    [SC_H] = {ATOM, "h"},        [SC_OR] = {LOGIC, "||"},        [SC_AND] = {LOGIC, "&&"},
    [SC_EQ] = {BINARY, "=="},    [SC_NE] = {BINARY, "!="},       [SC_LT] = {BINARY, "<"},
    [SC_LE] = {BINARY, "<="},    [SC_GT] = {BINARY, ">"},        [SC_GE] = {BINARY, ">="},
    [SC_ADD] = {BINARY, "+"},    [SC_SUB] = {BINARY, "-"},       [SC_MUL] = {BINARY, "*"},
    [SC_DIV] = {BINARY, "/"},    [SC_EXP] = {CALL, "exp"},       [SC_LOG] = {CALL, "log"},
    [SC_SQRT] = {CALL, "sqrt"},  [SC_TANH] = {CALL, "tanh"},     [SC_MIN] = {CALL, "smaller"},
    [SC_MAX] = {CALL, "larger"}, [SC_ABS] = {CALL, "magnitude"}, [SC_MOD] = {CALL, "remainder_of"},
};

static void write_around(Writer *w, Buf *to, const char *before, const Scalar *e) {
    buf_str(to, before);
    write(w, to, e);
    buf_char(to, ')');
}

static void select_one(Writer *w, Buf *to, const Scalar *e) {
    const char *type = is_whole(e) ? "long long" : w->real;
    buf_str(to, "((");
    write(w, to, e->arg[0]);
    buf_printf(to, ") ? (%s)", type);
    write(w, to, e->arg[1]);
    buf_printf(to, " : (%s)", type);
    write(w, to, e->arg[2]);
    buf_char(to, ')');
}

static void write_special(Writer *w, Buf *to, const Scalar *e) {
    switch ((int)e->op) {
    case SC_CONST: constant(w, to, e->value); return;
    case SC_TABLE: table(w, to, e); return;
    case SC_NOT: write_around(w, to, "!(", e->arg[0]); return;
    case SC_NEG: write_around(w, to, "(-", e->arg[0]); return;
    case SC_SELECT: select_one(w, to, e); return;
    case SC_FLOOR:
        buf_printf(to, "(long long)floor((%s)", w->real);
        write_around(w, to, "", e->arg[0]);
        return;
    default: ICE("scalar operator %d has no CUDA text", (int)e->op);
    }
}

static void write(Writer *w, Buf *to, const Scalar *e) {
    const char *text = spellings[e->op].text;
    switch (spellings[e->op].form) {
    case SPECIAL: write_special(w, to, e); return;
    case ATOM: buf_str(to, text); return;
    case LOGIC:
        write_around(w, to, "((", e->arg[0]);
        buf_printf(to, " %s ", text);
        write_around(w, to, "(", e->arg[1]);
        buf_char(to, ')');
        return;
    case BINARY: binary(w, to, text, e); return;
    case CALL: call(w, to, text, e, e->arg[1] ? 2 : 1); return;
    }
}

/* ==== tile_class ==== */

typedef struct Affine {
    bool is;
    double q, k, c; /* q * Q + k * K + c */
} Affine;

static Affine affine(const Scalar *e) {
    static const Affine none = {0};
    switch ((int)e->op) {
    case SC_CONST: return (Affine){true, 0, 0, e->value};
    case SC_Q: return (Affine){true, 1, 0, 0};
    case SC_K: return (Affine){true, 0, 1, 0};
    case SC_NEG: {
        Affine x = affine(e->arg[0]);
        return (Affine){x.is, -x.q, -x.k, -x.c};
    }
    case SC_ADD:
    case SC_SUB: {
        Affine x = affine(e->arg[0]), y = affine(e->arg[1]);
        const double sign = e->op == SC_ADD ? 1 : -1;
        return (Affine){x.is && y.is, x.q + sign * y.q, x.k + sign * y.k, x.c + sign * y.c};
    }
    case SC_MUL: {
        Affine x = affine(e->arg[0]), y = affine(e->arg[1]);
        if (x.is && y.is && x.q == 0 && x.k == 0)
            return (Affine){true, x.c * y.q, x.c * y.k, x.c * y.c};
        if (x.is && y.is && y.q == 0 && y.k == 0)
            return (Affine){true, y.c * x.q, y.c * x.k, y.c * x.c};
        return none;
    }
    default: return none;
    }
}

static bool small_whole(double v) {
    return is_whole_number(v) && fabs(v) < 0x1p30;
}

/* low..high of an affine expression over the tile: in long long where that is exact, else as doubles. */
static void bound(Buf *to, const char *name, const Affine *x, bool low) {
    const char *q = (x->q > 0) == low ? "q0" : "q1", *k = (x->k > 0) == low ? "k0" : "k1";
    if (small_whole(x->q) && small_whole(x->k) && is_whole_number(x->c))
        buf_printf(to, "    const long long %s = %.0fll * %s + %.0fll * %s + %.0fll;\n", name, x->q, q, x->k, k, x->c);
    else
        buf_printf(to, "    const double %s = %.17g * (double)%s + %.17g * (double)%s + %.17g;\n", name, x->q, q, x->k,
                   k, x->c);
}

/* Statements that compute the class of e into a variable; its name's number. */
static int class_of(Gen *g, Buf *to, const Scalar *e, int *count) {
    int x = 0, y = 0;
    if (e->op == SC_AND || e->op == SC_OR) {
        x = class_of(g, to, e->arg[0], count);
        y = class_of(g, to, e->arg[1], count);
    } else if (e->op == SC_NOT) {
        x = class_of(g, to, e->arg[0], count);
    }
    const int me = (*count)++;
    if (e->op == SC_AND || e->op == SC_OR) {
        buf_printf(to, "    const int c%d = c%d %s c%d ? c%d : c%d;\n", me, x, e->op == SC_AND ? "<" : ">", y, x, y);
        return me;
    }
    if (e->op == SC_NOT) {
        buf_printf(to, "    const int c%d = %d - c%d;\n", me, CLASS_ALL, x);
        return me;
    }
    const bool order = e->op == SC_LT || e->op == SC_LE || e->op == SC_GT || e->op == SC_GE;
    const bool swap = e->op == SC_GT || e->op == SC_GE;
    Affine d = {0};
    if (order) {
        Affine l = affine(e->arg[swap ? 1 : 0]), r = affine(e->arg[swap ? 0 : 1]);
        d = (Affine){l.is && r.is, l.q - r.q, l.k - r.k, l.c - r.c};
    }
    if (!d.is) {
        if (e->op == SC_CONST)
            buf_printf(to, "    const int c%d = %d;\n", me, e->value != 0 ? CLASS_ALL : CLASS_NONE);
        else
            buf_printf(to, "    const int c%d = %d;\n", me, CLASS_SOME);
        return me;
    }
    const char *op = e->op == SC_LT || e->op == SC_GT ? "<" : "<="; /* d op 0 */
    char low[24], high[24];
    snprintf(low, sizeof low, "l%d", me);
    snprintf(high, sizeof high, "h%d", me);
    bound(to, low, &d, true);
    bound(to, high, &d, false);
    buf_printf(to, "    const int c%d = %s %s 0 ? %d : %s %s 0 ? %d : %d;\n", me, high, op, CLASS_ALL, low, op,
               CLASS_SOME, CLASS_NONE);
    return me;
}

/* ==== The body ==== */

static void function(Writer *w, Buf *to, const char *head, const char *result, const Scalar *e, SrcLoc loc) {
    buf_printf(to, "%s {\n", head);
    gen_line(w->g, to, loc);
    buf_printf(to, "    return (%s)", result);
    write(w, to, e);
    buf_str(to, ";\n}\n\n");
}

static const char score_parameters[] = "([[maybe_unused]] float s, [[maybe_unused]] int q, [[maybe_unused]] int k, "
                                       "[[maybe_unused]] int h TABLE_PARAMETERS)";

const char *variant_text(Gen *g, const Variant *v) {
    static const char helpers[] =
        "DEVICE float table_at(const float *table, int i, int n) {\n    return i >= 0 && i < n ? table[i] : 0.0f;\n}\n"
        "template <class T> DEVICE T smaller(T x, T y) {\n    return x < y ? x : y;\n}\n"
        "template <class T> DEVICE T larger(T x, T y) {\n    return x > y ? x : y;\n}\n"
        "template <class T> DEVICE T magnitude(T x) {\n    return x < 0 ? -x : x;\n}\n"
        "DEVICE long long remainder_of(long long x, long long y) {\n"
        "    const long long r = x % y;\n    return r != 0 && (r < 0) != (y < 0) ? r + y : r;\n}\n"
        "template <class T> DEVICE T remainder_of(T x, T y) {\n    return x - y * floor(x / y);\n}\n\n";
    TableVec tables = {0};
    variant_tables(g, v, &tables);
    Writer w = {.g = g, .tables = &tables, .real = "double"};
    Buf b = {0};
    buf_str(&b, helpers);
    function(&w, &b,
             "DEVICE bool visible([[maybe_unused]] int q, [[maybe_unused]] int k, [[maybe_unused]] int h "
             "TABLE_PARAMETERS)",
             "bool", v->visible, v->loc);
    w.real = "float";
    if (v->score)
        function(&w, &b, arena_printf(g->arena, "DEVICE float score%s", score_parameters), "float", v->score, v->loc);
    if (v->sink)
        function(&w, &b, "DEVICE float sink([[maybe_unused]] int h TABLE_PARAMETERS)", "float", v->sink, v->loc);
    buf_str(&b, "DEVICE int tile_class([[maybe_unused]] int q0, [[maybe_unused]] int q1, [[maybe_unused]] int k0, "
                "[[maybe_unused]] int k1) {\n");
    int count = 0;
    const int c = class_of(g, &b, v->visible, &count);
    buf_printf(&b, "    return c%d;\n}\n", c);
    const char *text = arena_strndup(g->arena, b.s, b.n);
    buf_free(&b);
    return text;
}

/* The expression with k + 1/2 in the place of k. */
static const Scalar *half_a_key_on(Gen *g, const Scalar *e) {
    if (!e)
        return NULL;
    if (e->op == SC_K)
        return scalar_new(g->arena, SC_ADD, e, scalar_const(g->arena, 0.5, e->loc), NULL, e->loc);
    Scalar *copy = arena_alloc(g->arena, sizeof *copy);
    *copy = *e;
    for (int i = 0; i < 3; i++)
        copy->arg[i] = half_a_key_on(g, e->arg[i]);
    return copy;
}

const char *variant_mean_text(Gen *g, const Variant *v, int64_t block) {
    if (!v->score)
        return "";
    TableVec tables = {0};
    variant_tables(g, v, &tables);
    Writer w = {.g = g, .tables = &tables, .real = "float"};
    Buf b = {0};
    function(&w, &b, arena_printf(g->arena, "\nDEVICE float score_of_mean%s", score_parameters), "float",
             block % 2 ? v->score : half_a_key_on(g, v->score), v->loc);
    const char *text = arena_strndup(g->arena, b.s, b.n);
    buf_free(&b);
    return text;
}
