/* graph.c - a list of launches as one executable graph.
 *
 * By capturing a stream: programmatic dependent launches become programmatic edges by themselves. The
 * capture concerns only the calling thread, so that uploads may go on beside it.
 */
#include "runtime/device/device_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct DevGraph {
    Device *d;
    CUgraphExec exec;
    int kernels;
    char name[NAME_BYTES]; /* for messages: "graph decode (312 kernels)" */
};

bool dev_capture_begin(DevStream *s, DevError *e) {
    if (!dev_enter(s->d, e) ||
        !stream_check(s, s->d->api.cuStreamBeginCapture(s->handle, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), e,
                      "cannot record a graph"))
        return false;
    s->capturing = true;
    s->n_recent = 0;
    return true;
}

/* Ends the capture; the graph, or NULL. */
static CUgraph end_capture(DevStream *s, DevError *e) {
    CUgraph graph = NULL;
    s->capturing = false;
    CUresult r = s->d->api.cuStreamEndCapture(s->handle, &graph);
    return stream_check(s, r, e, "cannot end recording a graph") ? graph : NULL;
}

void dev_capture_drop(DevStream *s) {
    if (!s->capturing || !dev_enter(s->d, NULL))
        return;
    CUgraph graph = end_capture(s, NULL);
    if (graph)
        s->d->api.cuGraphDestroy(graph);
    s->n_recent = 0;
}

/* Uploaded at once, so that the first launch costs no more than the others. */
static bool instantiate(DevGraph *g, CUgraph graph, DevStream *s, DevError *e) {
    const CudaApi *api = &g->d->api;
    return dev_check(g->d, api->cuGraphInstantiateWithFlags(&g->exec, graph, 0), e, "%s cannot be made", g->name) &&
           dev_check(g->d, api->cuGraphUpload(g->exec, s->handle), e, "%s cannot be uploaded", g->name);
}

DevGraph *dev_capture_end(DevStream *s, const char *label, DevError *e) {
    if (!dev_enter(s->d, e))
        return NULL;
    int kernels = (int)s->n_recent;
    s->n_recent = 0;
    CUgraph graph = end_capture(s, e);
    if (!graph)
        return NULL;
    DevGraph *g = calloc(1, sizeof *g);
    if (!g)
        dev_fail(e, DEV_MEMORY, "out of memory");
    if (g) {
        g->d = s->d;
        g->kernels = kernels;
        snprintf(g->name, sizeof g->name, "graph %.32s (%d kernels)", label, kernels);
        if (!instantiate(g, graph, s, e)) {
            dev_graph_free(g);
            g = NULL;
        }
    }
    s->d->api.cuGraphDestroy(graph);
    return g;
}

DevGraph *dev_graph_new(DevStream *s, const DevLaunch *launches, int n, const char *label, DevError *e) {
    if (!dev_capture_begin(s, e))
        return NULL;
    for (int i = 0; i < n; i++)
        if (!dev_launch(s, &launches[i], e)) {
            dev_capture_drop(s);
            return NULL;
        }
    return dev_capture_end(s, label, e);
}

bool dev_graph_launch(DevGraph *g, DevStream *s, DevError *e) {
    if (!dev_enter(g->d, e) ||
        !stream_check(s, g->d->api.cuGraphLaunch(g->exec, s->handle), e, "launch of %s", g->name))
        return false;
    stream_launched(s, g->name);
    return true;
}

void dev_graph_free(DevGraph *g) {
    if (!g)
        return;
    if (g->exec && dev_enter(g->d, NULL))
        g->d->api.cuGraphExecDestroy(g->exec);
    free(g);
}

int dev_graph_kernels(const DevGraph *g) {
    return g->kernels;
}
