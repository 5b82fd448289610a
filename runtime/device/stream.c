/* stream.c - streams and events, and which kernel was at fault.
 *
 * The driver reports a kernel that failed at some later call, without its name. So a stream remembers
 * what was launched since it was last known to be idle; a fault among them is reported with those names.
 */
#include "runtime/device/device_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void stream_launched(DevStream *s, const char *name) {
    char *slot = s->recent[s->n_recent++ % RECENT];
    size_t n = strnlen(name, NAME_BYTES - 1);
    memcpy(slot, name, n);
    slot[n] = 0;
}

/* "in kernel a", "in one of the last 3 launches: a, b, c", "" when nothing was launched. */
static void suspects(const DevStream *s, char *out, size_t size) {
    *out = 0;
    if (s->n_recent == 0)
        return;
    if (s->n_recent == 1) {
        snprintf(out, size, ", in kernel %s", s->recent[0]);
        return;
    }
    uint64_t kept = s->n_recent < RECENT ? s->n_recent : RECENT;
    size_t n = (size_t)snprintf(out, size, ", in one of the last %llu launches: ", (unsigned long long)s->n_recent);
    if (kept < s->n_recent && n < size)
        n += (size_t)snprintf(out + n, size - n, "..., ");
    for (uint64_t i = s->n_recent - kept; i < s->n_recent && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", s->recent[i % RECENT], i + 1 < s->n_recent ? ", " : "");
}

bool stream_check(DevStream *s, CUresult r, DevError *e, const char *fmt, ...) {
    if (r == CUDA_SUCCESS)
        return true;
    char what[256], where[RECENT * (NAME_BYTES + 2) + 64] = "";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (cuda_is_fault(r))
        suspects(s, where, sizeof where);
    return dev_check(s->d, r, e, "%s%s", what, where);
}

/* ==== Streams ==== */

DevStream *dev_stream_new(Device *d, DevError *e) {
    if (!dev_enter(d, e))
        return NULL;
    DevStream *s = calloc(1, sizeof *s);
    if (!s) {
        dev_fail(e, DEV_MEMORY, "out of memory");
        return NULL;
    }
    s->d = d;
    if (dev_check(d, d->api.cuStreamCreate(&s->handle, CU_STREAM_NON_BLOCKING), e, "no new stream"))
        return s;
    free(s);
    return NULL;
}

void dev_stream_free(DevStream *s) {
    if (!s)
        return;
    if (dev_enter(s->d, NULL)) {
        s->d->api.cuStreamSynchronize(s->handle);
        s->d->api.cuStreamDestroy(s->handle);
    }
    free(s);
}

Device *dev_stream_device(const DevStream *s) {
    return s->d;
}

bool dev_stream_wait(DevStream *s, DevError *e) {
    if (!dev_enter(s->d, e) || !stream_check(s, s->d->api.cuStreamSynchronize(s->handle), e, "failed"))
        return false;
    s->n_recent = 0;
    return true;
}

bool dev_stream_after(DevStream *s, const DevEvent *event, DevError *e) {
    return dev_enter(s->d, e) &&
           stream_check(s, s->d->api.cuStreamWaitEvent(s->handle, event->handle, 0), e, "cannot wait for an event");
}

/* ==== Events ==== */

DevEvent *dev_event_new(Device *d, bool timed, DevError *e) {
    if (!dev_enter(d, e))
        return NULL;
    DevEvent *event = calloc(1, sizeof *event);
    if (!event) {
        dev_fail(e, DEV_MEMORY, "out of memory");
        return NULL;
    }
    event->d = d;
    unsigned flags = timed ? 0 : CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC;
    if (dev_check(d, d->api.cuEventCreate(&event->handle, flags), e, "no new event"))
        return event;
    free(event);
    return NULL;
}

void dev_event_free(DevEvent *event) {
    if (!event)
        return;
    if (dev_enter(event->d, NULL))
        event->d->api.cuEventDestroy(event->handle);
    free(event);
}

bool dev_event_record(DevEvent *event, DevStream *s, DevError *e) {
    event->stream = s;
    return dev_enter(s->d, e) &&
           stream_check(s, s->d->api.cuEventRecord(event->handle, s->handle), e, "cannot record an event");
}

/* A fault seen through an event belongs to the stream it was recorded on. */
static bool event_check(const DevEvent *event, CUresult r, DevError *e) {
    return event->stream ? stream_check(event->stream, r, e, "failed") : dev_check(event->d, r, e, "failed");
}

bool dev_event_wait(DevEvent *event, DevError *e) {
    return dev_enter(event->d, e) && event_check(event, event->d->api.cuEventSynchronize(event->handle), e);
}

bool dev_event_done(DevEvent *event, bool *done, DevError *e) {
    *done = false;
    if (!dev_enter(event->d, e))
        return false;
    CUresult r = event->d->api.cuEventQuery(event->handle);
    if (r == CUDA_ERROR_NOT_READY)
        return true;
    *done = r == CUDA_SUCCESS;
    return event_check(event, r, e);
}

bool dev_event_seconds(const DevEvent *from, const DevEvent *to, double *seconds, DevError *e) {
    float ms = 0;
    *seconds = 0;
    if (!dev_enter(to->d, e) || !event_check(to, to->d->api.cuEventElapsedTime(&ms, from->handle, to->handle), e))
        return false;
    *seconds = 1e-3 * (double)ms;
    return true;
}
