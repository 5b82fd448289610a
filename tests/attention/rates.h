/* rates.h - times of the attention kernels on a GPU. */
#ifndef LAP_TESTS_ATTENTION_RATES_H
#define LAP_TESTS_ATTENTION_RATES_H

#include "tests/attention/lab.h"

/* Print their tables, of the cases with `label` in their name: bytes of keys and values a second, beside the read rate
 * of the same run; products a second. */
void decode_rates(Lab *l, const char *label);
void prefill_rates(Lab *l, const char *label);

#endif
