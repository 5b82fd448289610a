/* device_error.h - what the machine refuses, as a kind and a text: every call of this folder that can fail
 * takes a DevError (NULL: the caller does not want to know) and returns false or NULL.
 *
 * Errors are values of the caller, not state of a device, so that several threads may use one device.
 */
#ifndef LAP_DEVICE_DEVICE_ERROR_H
#define LAP_DEVICE_DEVICE_ERROR_H

#include <stdbool.h>

typedef enum DevErrorKind {
    DEV_FINE,
    DEV_ABSENT, /* no driver, no GPU, no NVRTC, or one too old: the machine can do without */
    DEV_MEMORY, /* out of device or host memory */
    DEV_FAULT,  /* a kernel failed; this process can use the device no more */
    DEV_SOURCE, /* a program does not compile */
    DEV_OTHER,
} DevErrorKind;

typedef struct DevError {
    DevErrorKind kind;
    char text[2000]; /* one or several lines without a newline at the end */
} DevError;

/* Fills e and returns false. */
__attribute__((format(printf, 3, 4))) bool dev_fail(DevError *e, DevErrorKind kind, const char *fmt, ...);

#endif
