/* api_ours.c - our declarations of the CUDA driver give the numbers that CUDA's headers give. */
#include "runtime/device/cuda_types_int.h"
#include "tests/device/api_numbers.h"
#include <stdio.h>

static const ApiNumber ours[] = {
#define NUMBER(expression)                   {#expression, (long long)(expression)},
#define LAYOUT(type, our_field, their_field) {#type "." #our_field, (long long)offsetof(type, our_field)},
#include "tests/device/api_numbers.def"
};

int main(void) {
    int bad = 0, n = (int)(sizeof ours / sizeof ours[0]);
    for (int i = 0; i < n; i++)
        if (ours[i].value != api_theirs[i].value) {
            printf("%s is %lld, in CUDA's headers %lld\n", ours[i].name, ours[i].value, api_theirs[i].value);
            bad++;
        }
    printf("%d numbers compared, %d differ; all prototypes agree\n", n, bad);
    return bad || n != n_api_theirs;
}
