/* interval.c - what holds of a scalar expression for every (q, k) of a region.
 *
 * A region is a box of two free variables u, v from which q and k are built: (q, k) themselves for a
 * tile; (k, d = q - k) for the look-back; (q, e = k - q) for causality. A value is an affine form
 * a*u + b*v + [lo, hi], so that q - k of a far key is seen as d and not as a difference of two
 * unrelated intervals. What is not affine falls into [lo, hi]; what may be NaN, infinite or from a
 * table is unknown. Positions lie in [0, 2^31), so every range is finite.
 *
 * Proofs must hold for the doubles that scalar_eval computes: wherever it may round, the interval is
 * widened by far more than that. Small whole and binary numbers (all real masks) are exact, and so
 * are the bounds derived from them.
 */
#include "ir/scalar.h"

#include <math.h>

static const double MAX_POSITION = 2147483648.0;
static const double HUGE_VALUE = 1e200; /* beyond: unknown */
static const double WIDEN = 0x1p-46;    /* relative; a double rounds by 2^-53 */

typedef struct Region {
    double u0, u1, v0, v1;
    double q[2], k[2]; /* q = q[0]*u + q[1]*v; k alike */
} Region;

typedef struct Form {
    double a, b, lo, hi;
    bool unknown; /* any double, NaN too */
    bool whole;   /* only whole numbers */
} Form;

typedef struct Range {
    double lo, hi;
} Range;

static const Form UNKNOWN = {.unknown = true};

static double fmax3(double a, double b, double c) {
    return fmax(a, fmax(b, c));
}

static Range form_range(const Region *r, const Form *f) {
    double u[2] = {f->a * r->u0, f->a * r->u1}, v[2] = {f->b * r->v0, f->b * r->v1};
    return (Range){fmin(u[0], u[1]) + fmin(v[0], v[1]) + f->lo, fmax(u[0], u[1]) + fmax(v[0], v[1]) + f->hi};
}

/* Bound of everything that is added up when the form is computed. */
static double form_size(const Region *r, const Form *f) {
    double u = fmax(fabs(r->u0), fabs(r->u1)), v = fmax(fabs(r->v0), fabs(r->v1));
    return fabs(f->a) * u + fabs(f->b) * v + fmax(fabs(f->lo), fabs(f->hi));
}

static bool on_grid(double x) {
    return fabs(x) < 0x1p32 && x * 0x1p16 == floor(x * 0x1p16);
}

/* True when scalar_eval computes exactly this form: multiples of 2^-16 below 2^36. */
static bool exact(const Region *r, const Form *f) {
    return f->lo == f->hi && on_grid(f->a) && on_grid(f->b) && on_grid(f->lo) && form_size(r, f) < 0x1p36;
}

static bool is_whole(double x) {
    return x == floor(x);
}

/* A result of one rounded operation on operands of at most this size. Whole numbers do not round;
 * if the coefficients are whole too, so is the rest, and its ends can be. */
static Form rounded(const Region *r, Form f, double operands) {
    if (!exact(r, &f)) {
        double slack = WIDEN * (operands + form_size(r, &f)) + 1e-300;
        f.lo -= slack;
        f.hi += slack;
        f.whole = f.whole && is_whole(f.a) && is_whole(f.b) && slack < 0.25;
        if (f.whole) {
            f.lo = ceil(f.lo);
            f.hi = floor(f.hi);
        }
    }
    return form_size(r, &f) < HUGE_VALUE ? f : UNKNOWN;
}

static Form from_range(double lo, double hi, bool whole) {
    return (Form){.lo = lo, .hi = hi, .whole = whole};
}

/* A range whose ends were themselves computed with rounding. */
static Form wide_range(const Region *r, double lo, double hi) {
    if (!(fabs(lo) < HUGE_VALUE && fabs(hi) < HUGE_VALUE))
        return UNKNOWN;
    double size = fmax(fabs(lo), fabs(hi));
    return rounded(r, from_range(lo, hi, false), size);
}

static bool is_point(const Form *f) {
    return f->a == 0 && f->b == 0 && f->lo == f->hi;
}

/* ==== Truth: whether a condition can be true, can be false ==== */

typedef struct Truth {
    bool can_true, can_false;
} Truth;

static Form truth_form(Truth t) {
    return from_range(t.can_false ? 0 : 1, t.can_true ? 1 : 0, true);
}

static Truth truth_of(const Region *r, const Form *f) {
    if (f->unknown)
        return (Truth){true, true};
    Range x = form_range(r, f);
    return (Truth){x.lo != 0 || x.hi != 0, x.lo <= 0 && x.hi >= 0};
}

/* x - y, exactly as real numbers: x and y already allow for what scalar_eval rounds. */
static Form difference(const Region *r, const Form *x, const Form *y) {
    if (x->unknown || y->unknown)
        return UNKNOWN;
    Form d = {
        .a = x->a - y->a, .b = x->b - y->b, .lo = x->lo - y->hi, .hi = x->hi - y->lo, .whole = x->whole && y->whole};
    bool both = exact(r, x) && exact(r, y);
    return both ? d : rounded(r, d, form_size(r, x) + form_size(r, y));
}

static Truth compare(const Region *r, ScalarOp op, const Form *x, const Form *y) {
    Form d = difference(r, x, y);
    if (d.unknown)
        return (Truth){true, true};
    Range g = form_range(r, &d);
    Truth lt = {g.lo < 0, g.hi >= 0}, le = {g.lo <= 0, g.hi > 0};
    Truth eq = {g.lo <= 0 && g.hi >= 0, g.lo != 0 || g.hi != 0};
    if (op == SC_LT)
        return lt;
    if (op == SC_LE)
        return le;
    if (op == SC_GE)
        return (Truth){lt.can_false, lt.can_true};
    if (op == SC_GT)
        return (Truth){le.can_false, le.can_true};
    return op == SC_EQ ? eq : (Truth){eq.can_false, eq.can_true};
}

/* ==== Arithmetic ==== */

static Form add(const Region *r, const Form *x, const Form *y, double sign) {
    if (x->unknown || y->unknown)
        return UNKNOWN;
    Form f = {.a = x->a + sign * y->a, .b = x->b + sign * y->b, .whole = x->whole && y->whole};
    f.lo = x->lo + (sign > 0 ? y->lo : -y->hi);
    f.hi = x->hi + (sign > 0 ? y->hi : -y->lo);
    return rounded(r, f, form_size(r, x) + form_size(r, y));
}

static Form scale(const Region *r, const Form *x, double c) {
    Form f = {.a = x->a * c, .b = x->b * c, .lo = x->lo * c, .hi = x->hi * c, .whole = x->whole && is_whole(c)};
    if (c < 0) {
        double lo = f.lo;
        f.lo = f.hi;
        f.hi = lo;
    }
    return rounded(r, f, form_size(r, x) * fabs(c));
}

static Form multiply(const Region *r, const Form *x, const Form *y) {
    if (x->unknown || y->unknown)
        return UNKNOWN;
    if (is_point(y))
        return scale(r, x, y->lo);
    if (is_point(x))
        return scale(r, y, x->lo);
    Range a = form_range(r, x), b = form_range(r, y);
    double p[4] = {a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi};
    return wide_range(r, fmin(fmin(p[0], p[1]), fmin(p[2], p[3])), fmax(fmax(p[0], p[1]), fmax(p[2], p[3])));
}

static Form divide(const Region *r, const Form *x, const Form *y) {
    if (x->unknown || y->unknown)
        return UNKNOWN;
    Range a = form_range(r, x), b = form_range(r, y);
    if (b.lo <= 0 && b.hi >= 0)
        return UNKNOWN;
    if (is_point(y)) { /* rounds even where x * (1 / y) is on the grid, unless y is a power of two */
        Form f = scale(r, x, 1 / y->lo);
        int exponent;
        bool power = fabs(frexp(y->lo, &exponent)) == 0.5;
        double slack = power ? 0 : WIDEN * form_size(r, &f) + 1e-300;
        f.lo -= slack;
        f.hi += slack;
        f.whole = false;
        return f;
    }
    double p[4] = {a.lo / b.lo, a.lo / b.hi, a.hi / b.lo, a.hi / b.hi};
    return wide_range(r, fmin(fmin(p[0], p[1]), fmin(p[2], p[3])), fmax(fmax(p[0], p[1]), fmax(p[2], p[3])));
}

static Form floor_form(const Region *r, const Form *x) {
    if (x->unknown || x->whole)
        return *x;
    if (x->a == 0 && x->b == 0)
        return from_range(floor(x->lo), floor(x->hi), true);
    Form f = *x; /* keeps what it shares with other forms: floor(x) is in (x - 1, x] */
    f.lo -= 1;
    f = rounded(r, f, form_size(r, x));
    f.whole = !f.unknown;
    return f;
}

/* x - y * floor(x / y): of the sign of y and smaller than y. */
static Form modulo(const Region *r, const Form *x, const Form *y) {
    if (x->unknown || y->unknown)
        return UNKNOWN;
    Range b = form_range(r, y);
    if (b.lo <= 0 && b.hi >= 0)
        return UNKNOWN;
    double room = form_size(r, x) * WIDEN + 1e-300;
    bool whole = x->whole && y->whole && form_size(r, x) < 0x1p40 && form_size(r, y) < 0x1p40;
    if (whole) { /* floor(x / y) may only be off when x / y rounds up to a whole number: not below 2^40 */
        Range a = form_range(r, x);
        if (a.lo >= 0 && a.hi < b.lo)
            return *x;
        return b.lo > 0 ? from_range(0, b.hi - 1, true) : from_range(b.lo + 1, 0, true);
    }
    room += fmax(fabs(b.lo), fabs(b.hi)) * WIDEN;
    return b.lo > 0 ? wide_range(r, -room, b.hi + room) : wide_range(r, b.lo - room, room);
}

static Form negate(const Form *x) {
    return x->unknown ? UNKNOWN : (Form){.a = -x->a, .b = -x->b, .lo = -x->hi, .hi = -x->lo, .whole = x->whole};
}

/* Either of two values. */
static Form hull(const Region *r, const Form *x, const Form *y) {
    if (x->unknown || y->unknown)
        return UNKNOWN;
    bool whole = x->whole && y->whole;
    if (x->a == y->a && x->b == y->b)
        return (Form){x->a, x->b, fmin(x->lo, y->lo), fmax(x->hi, y->hi), false, whole};
    Range a = form_range(r, x), b = form_range(r, y);
    return from_range(fmin(a.lo, b.lo), fmax(a.hi, b.hi), whole);
}

static Form maximum(const Region *r, const Form *x, const Form *y) {
    Truth ge = compare(r, SC_GE, x, y);
    if (x->unknown || y->unknown)
        return UNKNOWN;
    if (!ge.can_false)
        return *x;
    if (!ge.can_true)
        return *y;
    if (x->a == y->a && x->b == y->b)
        return (Form){x->a, x->b, fmax(x->lo, y->lo), fmax(x->hi, y->hi), false, x->whole && y->whole};
    Range a = form_range(r, x), b = form_range(r, y);
    return from_range(fmax(a.lo, b.lo), fmax(a.hi, b.hi), x->whole && y->whole);
}

static Form minimum(const Region *r, const Form *x, const Form *y) {
    Form nx = negate(x), ny = negate(y), m = maximum(r, &nx, &ny);
    return negate(&m);
}

static Form absolute(const Region *r, const Form *x) {
    Form n = negate(x);
    return maximum(r, x, &n);
}

/* exp, log, sqrt, tanh: all rise, so the ends of the range give the ends of the result. */
static Form rising(const Region *r, ScalarOp op, const Form *x) {
    if (x->unknown)
        return UNKNOWN;
    Range g = form_range(r, x);
    if ((op == SC_LOG && g.lo <= 0) || (op == SC_SQRT && g.lo < 0))
        return UNKNOWN;
    double (*fn)(double) = op == SC_EXP ? exp : op == SC_LOG ? log : op == SC_SQRT ? sqrt : tanh;
    Form f = wide_range(r, fn(g.lo), fn(g.hi));
    if (f.unknown)
        return f;
    double slack = WIDEN * fmax3(fabs(f.lo), fabs(f.hi), 0); /* the library may be off by a few units */
    f.lo -= slack;
    f.hi += slack;
    f.whole = false;
    return f;
}

/* ==== Expressions ==== */

static Form bound(const Region *r, const Scalar *e);

static Form bound_logic(const Region *r, const Scalar *e) {
    Form x = bound(r, e->arg[0]);
    Truth a = truth_of(r, &x);
    if (e->op == SC_NOT)
        return truth_form((Truth){a.can_false, a.can_true});
    Form y = bound(r, e->arg[1]);
    Truth b = truth_of(r, &y);
    if (e->op == SC_AND)
        return truth_form((Truth){a.can_true && b.can_true, a.can_false || b.can_false});
    return truth_form((Truth){a.can_true || b.can_true, a.can_false && b.can_false});
}

static Form bound_select(const Region *r, const Scalar *e) {
    Form c = bound(r, e->arg[0]);
    Truth t = truth_of(r, &c);
    if (!t.can_false)
        return bound(r, e->arg[1]);
    if (!t.can_true)
        return bound(r, e->arg[2]);
    Form x = bound(r, e->arg[1]), y = bound(r, e->arg[2]);
    return hull(r, &x, &y);
}

static Form bound_unary(const Region *r, const Scalar *e) {
    Form x = bound(r, e->arg[0]);
    switch ((int)e->op) {
    case SC_NEG: return negate(&x);
    case SC_FLOOR: return floor_form(r, &x);
    case SC_ABS: return absolute(r, &x);
    default: return rising(r, e->op, &x);
    }
}

static Form bound_binary(const Region *r, const Scalar *e) {
    Form x = bound(r, e->arg[0]), y = bound(r, e->arg[1]);
    switch ((int)e->op) {
    case SC_ADD: return add(r, &x, &y, 1);
    case SC_SUB: return add(r, &x, &y, -1);
    case SC_MUL: return multiply(r, &x, &y);
    case SC_DIV: return divide(r, &x, &y);
    case SC_MOD: return modulo(r, &x, &y);
    case SC_MIN: return minimum(r, &x, &y);
    case SC_MAX: return maximum(r, &x, &y);
    default: return truth_form(compare(r, e->op, &x, &y));
    }
}

static Form bound(const Region *r, const Scalar *e) {
    switch (e->op) {
    case SC_CONST: return fabs(e->value) < HUGE_VALUE ? from_range(e->value, e->value, is_whole(e->value)) : UNKNOWN;
    case SC_Q: return (Form){.a = r->q[0], .b = r->q[1], .whole = true};
    case SC_K: return (Form){.a = r->k[0], .b = r->k[1], .whole = true};
    case SC_H: return from_range(0, MAX_POSITION, true);
    case SC_S:
    case SC_TABLE:
    case SC_COUNT: return UNKNOWN;
    case SC_OR:
    case SC_AND:
    case SC_NOT: return bound_logic(r, e);
    case SC_SELECT: return bound_select(r, e);
    case SC_NEG:
    case SC_FLOOR:
    case SC_ABS:
    case SC_EXP:
    case SC_LOG:
    case SC_SQRT:
    case SC_TANH: return bound_unary(r, e);
    case SC_EQ:
    case SC_NE:
    case SC_LT:
    case SC_LE:
    case SC_GT:
    case SC_GE:
    case SC_ADD:
    case SC_SUB:
    case SC_MUL:
    case SC_DIV:
    case SC_MOD:
    case SC_MIN:
    case SC_MAX: return bound_binary(r, e);
    }
    return UNKNOWN;
}

static Visibility over(const Region *r, const Scalar *visible) {
    Form f = bound(r, visible);
    Truth t = truth_of(r, &f);
    return !t.can_true ? VIS_NONE : !t.can_false ? VIS_ALL : VIS_SOME;
}

/* ==== The three questions ==== */

Visibility scalar_tile(const Scalar *visible, int64_t q0, int64_t q1, int64_t k0, int64_t k1) {
    Region r = {(double)q0, (double)q1, (double)k0, (double)k1, {1, 0}, {0, 1}};
    return over(&r, visible);
}

/* No key at a distance of `from` or more is visible. */
static bool none_beyond(const Scalar *visible, int64_t from) {
    Region r = {0, MAX_POSITION, (double)from, MAX_POSITION, {1, 1}, {1, 0}}; /* u = k, v = q - k */
    return over(&r, visible) == VIS_NONE;
}

int64_t scalar_lookback(const Scalar *visible) {
    int64_t hi = 1; /* proved empty from here; doubled until it is */
    while (!none_beyond(visible, hi)) {
        hi *= 2;
        if (hi >= (int64_t)MAX_POSITION)
            return -1;
    }
    int64_t lo = 0; /* not proved empty, or 0 */
    while (hi - lo > 1) {
        int64_t mid = lo + (hi - lo) / 2;
        if (none_beyond(visible, mid))
            hi = mid;
        else
            lo = mid;
    }
    return hi - 1;
}

bool scalar_causal(const Scalar *visible) {
    Region r = {0, MAX_POSITION, 1, MAX_POSITION, {1, 0}, {1, 1}}; /* u = q, v = k - q */
    return over(&r, visible) == VIS_NONE;
}
