/* api_theirs.c - the numbers of api_numbers.def from CUDA's headers; and each prototype of cuda_api.def is,
 * for the compiler, the type that CUDA gives that entry point at that version. */
#include "tests/device/api_numbers.h"
#include <cuda.h>
#include <cudaTypedefs.h>
#include <stddef.h>

/* Names that cuda.h redirects to later forms. */
#undef cuDeviceTotalMem
#undef cuDevicePrimaryCtxRelease
#undef cuMemGetInfo
#undef cuMemAlloc
#undef cuMemFree
#undef cuMemcpyHtoDAsync
#undef cuMemcpyDtoHAsync
#undef cuMemcpyDtoDAsync
#undef cuStreamDestroy
#undef cuStreamBeginCapture
#undef cuEventDestroy
#undef cuEventElapsedTime

#define CU(name, version, parameters)                                                                                  \
    _Static_assert(__builtin_types_compatible_p(PFN_##name##_v##version, CUresult(*) parameters), #name);
#include "runtime/device/cuda_api.def"
#undef CU

const ApiNumber api_theirs[] = {
#define NUMBER(expression)                   {#expression, (long long)(expression)},
#define LAYOUT(type, our_field, their_field) {#type "." #their_field, (long long)offsetof(type, their_field)},
#include "tests/device/api_numbers.def"
};
const int n_api_theirs = (int)(sizeof api_theirs / sizeof api_theirs[0]);
