/* api_numbers.h - the numbers of api_numbers.def as CUDA's headers give them. */
#ifndef LAP_TESTS_DEVICE_API_NUMBERS_H
#define LAP_TESTS_DEVICE_API_NUMBERS_H

typedef struct ApiNumber {
    const char *name;
    long long value;
} ApiNumber;

extern const ApiNumber api_theirs[];
extern const int n_api_theirs;

#endif
