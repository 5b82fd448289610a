/* bench_svg.c - the curves of lap bench --contexts as a picture: tokens a second over the length of the context, a
 * panel for prompts and one for decoding.
 *
 * Plain SVG without scripts or fonts of its own; colours follow the reader's light or dark scheme, and the ways differ
 * by dashes too. Lengths are on a logarithmic axis, speeds on a linear one from 0. Units are pixels of 1:1.
 */
#include "runtime/cli/bench_int.h"
#include <errno.h>
#include <math.h>
#include <string.h>

enum { WIDTH = 760, LEFT = 84, RIGHT = 656, HIGH = 220, TOP = 76, PANELS_APART = 310, HEIGHT = 664, TICKS_APART = 44 };

static const char style[] =
    "svg { color: #1c1c1c; font: 13px sans-serif }\n"
    ".page { fill: #ffffff }\n"
    "text { fill: currentColor }\n"
    ".title { font-size: 15px; font-weight: bold }\n"
    ".grid { stroke: currentColor; stroke-opacity: 0.15 }\n"
    ".axis { stroke: currentColor; stroke-opacity: 0.7 }\n"
    ".dense, .sparse, .decode { fill: none; stroke-width: 2 }\n"
    ".dense { stroke: #1f5fbf } .sparse { stroke: #b8480f; stroke-dasharray: 7 4 } .decode { stroke: #1b7a3d }\n"
    "circle { stroke-dasharray: none !important }\n"
    "@media (prefers-color-scheme: dark) {\n"
    "  svg { color: #e6e6e6 }\n"
    "  .page { fill: #16181c }\n"
    "  .dense { stroke: #7fb2ff } .sparse { stroke: #ff9d63 } .decode { stroke: #69d190 }\n"
    "}\n";

/* A way of a panel: its speed at each point. */
typedef struct Line {
    const char *name; /* and its class */
    double speed[MOST_CONTEXTS];
} Line;

typedef struct Picture {
    FILE *f;
    const Curve *k;
    double top, most; /* of the panel: its upper edge; the speed there */
} Picture;

static void put_text(FILE *f, const char *s) {
    for (; *s; s++) {
        const char *name = *s == '&' ? "&amp;" : *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : NULL;
        if (name)
            fputs(name, f);
        else
            fputc((unsigned char)*s < ' ' ? ' ' : *s, f);
    }
}

static double x_of(const Curve *k, int i) {
    const double first = log((double)k->at[0].context), span = log((double)k->at[k->n - 1].context) - first;
    const double share = span > 0 ? (log((double)k->at[i].context) - first) / span : 0.5;
    return LEFT + 16 + share * (RIGHT - LEFT - 32);
}

static double y_of(const Picture *p, double speed) {
    return p->top + HIGH * (1 - speed / p->most);
}

/* 1, 2 or 5 times a power of ten, so that at most 6 steps reach `most`. */
static double step_of(double most) {
    const double ten = pow(10, floor(log10(most / 6))), times = most / 6 / ten;
    return ten * (times <= 1 ? 1 : times <= 2 ? 2 : times <= 5 ? 5 : 10);
}

/* 32768: 32K */
static void put_length(FILE *f, int64_t n) {
    if (n % 1024)
        fprintf(f, "%lld", (long long)n);
    else
        fprintf(f, "%lldK", (long long)n / 1024);
}

static void put_axes(const Picture *p, double step, const char *title) {
    const double bottom = p->top + HIGH;
    fprintf(p->f, "<text class=\"title\" x=\"%d\" y=\"%.1f\">%s</text>\n", LEFT, p->top - 14, title);
    for (int i = 0; i * step <= p->most * 1.0001; i++) {
        const double y = y_of(p, i * step);
        fprintf(p->f, "<line class=\"grid\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>\n", LEFT, y, RIGHT, y);
        fprintf(p->f, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.6g</text>\n", LEFT - 8, y + 4, i * step);
    }
    double last = -TICKS_APART;
    for (int i = 0; i < p->k->n; i++) {
        const double x = x_of(p->k, i);
        fprintf(p->f, "<line class=\"axis\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", x, bottom, x,
                bottom + 5);
        if (x - last < TICKS_APART)
            continue;
        last = x;
        fprintf(p->f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", x, bottom + 20);
        put_length(p->f, p->k->at[i].context);
        fputs("</text>\n", p->f);
    }
    fprintf(p->f, "<path class=\"axis\" fill=\"none\" d=\"M%d %.1fV%.1fH%d\"/>\n", LEFT, p->top, bottom, RIGHT);
    fprintf(p->f, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"middle\">tokens of context</text>\n", (LEFT + RIGHT) / 2,
            bottom + 40);
    fprintf(p->f, "<text transform=\"translate(20 %.1f) rotate(-90)\" text-anchor=\"middle\">tokens/s</text>\n",
            p->top + HIGH / 2);
}

static void put_line(const Picture *p, const Line *l, double label_y) {
    const Curve *k = p->k;
    fprintf(p->f, "<polyline class=\"%s\" points=\"", l->name);
    for (int i = 0; i < k->n; i++)
        fprintf(p->f, "%s%.1f,%.1f", i ? " " : "", x_of(k, i), y_of(p, l->speed[i]));
    fputs("\"/>\n", p->f);
    for (int i = 0; i < k->n; i++) {
        fprintf(p->f, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\">", l->name, x_of(k, i),
                y_of(p, l->speed[i]));
        fprintf(p->f, "<title>%s, %lld tokens: %.2f tokens/s</title></circle>\n", l->name, (long long)k->at[i].context,
                l->speed[i]);
    }
    fprintf(p->f, "<text x=\"%d\" y=\"%.1f\">%s</text>\n", RIGHT + 8, label_y + 4, l->name);
}

/* Names stand at the ends of their lines, one above the other where the lines meet. */
static void put_panel(Picture *p, const char *title, const Line *l, int n) {
    enum { APART = 16 };
    const int last = p->k->n - 1;
    p->most = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= last; j++)
            p->most = fmax(p->most, l[i].speed[j]);
    const double step = step_of(p->most);
    p->most = ceil(p->most / step) * step;
    put_axes(p, step, title);
    const double y0 = y_of(p, l[0].speed[last]), y1 = n > 1 ? y_of(p, l[1].speed[last]) : y0;
    const double gap = fabs(y1 - y0), move = n > 1 && gap < APART ? (APART - gap) / 2 : 0, up = y1 <= y0 ? 1 : -1;
    put_line(p, &l[0], y0 + up * move);
    if (n > 1)
        put_line(p, &l[1], y1 - up * move);
}

static void put_picture(FILE *f, const Bench *b, const Curve *k) {
    Line prompt[2] = {{"dense", {0}}, {"sparse", {0}}}, decode = {"decode", {0}};
    for (int i = 0; i < k->n; i++) {
        prompt[0].speed[i] = k->at[i].dense;
        prompt[1].speed[i] = k->at[i].sparse;
        decode.speed[i] = k->at[i].decode;
    }
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n", WIDTH,
            HEIGHT, WIDTH, HEIGHT);
    fprintf(f, "<style>\n%s</style>\n<rect class=\"page\" width=\"100%%\" height=\"100%%\"/>\n<text x=\"%d\" y=\"28\">",
            style, LEFT);
    const char *slash = strrchr(b->c->o.operand[0], '/');
    put_text(f, slash ? slash + 1 : b->c->o.operand[0]);
    fputs(": ", f);
    put_text(f, k->text);
    fputs(" on ", f);
    put_text(f, k->device);
    fprintf(f, ", median of %lld</text>\n", (long long)b->repeat);
    Picture p = {.f = f, .k = k, .top = TOP};
    put_panel(&p, "Prompt", prompt, k->sparse ? 2 : 1);
    p.top += PANELS_APART;
    put_panel(&p, "Decode", &decode, 1);
    fputs("</svg>\n", f);
}

int bench_draw(const Bench *b, const Curve *k) {
    const char *path = b->c->o.svg;
    FILE *f = fopen(path, "w");
    if (f)
        put_picture(f, b, k);
    bool ok = f && !ferror(f);
    int error = errno;
    if (f && fclose(f) != 0) {
        ok = false;
        error = errno;
    }
    return ok ? EXIT_FINE : cli_fail(b->c, EXIT_SYSTEM, "cannot write %s: %s", path, strerror(error));
}
