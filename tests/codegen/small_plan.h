/* small_plan.h - a plan that uses everything a plan can hold, and the module it is of; for tests of texts and bundles.
 */
#ifndef LAP_TESTS_CODEGEN_SMALL_PLAN_H
#define LAP_TESTS_CODEGEN_SMALL_PLAN_H

static const char small_plan_text[] =
    "plan sm_90a slots 2 context 64 chunk 32\n"
    "# call 4.0 KiB, slab 64.0 KiB, scratch 1.0 KiB, raw 1.0 KiB, tiles 4.2 KiB, table 64 bytes, k 8.0 KiB, v 8.0 KiB, "
    "zero 8 bytes, sampler 720 bytes, host 256 bytes; device 91.0 KiB\n"
    "buffer b0 call call 4096                                        # 4.0 KiB\n"
    "buffer b1 slab slab 65536                                       # 64.0 KiB\n"
    "buffer b2 scratch scratch 1024                                  # 1.0 KiB\n"
    "buffer b3 raw emb.weight 1024 of 0                              # 1.0 KiB\n"
    "buffer b4 tiles \"odd \\\"name\\\"\" 4352 of 1                        # 4.2 KiB\n"
    "buffer b5 table turns 64                                        # 64 bytes\n"
    "buffer b6 k kv.0 4096 of 0                                      # 4.0 KiB\n"
    "buffer b7 v kv.0 4096 of 0                                      # 4.0 KiB\n"
    "buffer b8 zero counters 8                                       # 8 bytes\n"
    "buffer b9 sampler sampling 192                                  # 192 bytes\n"
    "buffer b10 sampler \"recent tokens\" 528                          # 528 bytes\n"
    "buffer b11 host ring 256                                        # 256 bytes\n"
    "kernel repack_0 from \"repack.cu\" threads 256 shared 0 blocks 1\n"
    "kernel matmul_1 from \"matmul_decode.cu\" threads 256 shared 98304 blocks 2\n"
    "kernel rowwise_2 from \"rowwise.cu\" threads 128 shared 512 blocks 4\n"
    "call b0 bytes 1024 slots 512 lengths 640 {\n"
    "  input tokens : i32[T] at 8\n"
    "  input pos : i32[T] at 136\n"
    "  input rows : i32[R] at 264\n"
    "}\n"
    "fills {\n"
    "  launch repack_0 (staging, b4, 64, null) grid 4 1 1 \"odd \\\"name\\\"\"\n"
    "  launch rowwise_2 (b5, -7) grid 1 1 1\n"
    "}\n"
    "weight 0 to b3\n"
    "weight 1 to b4 by 0\n"
    "table 1\n"
    "phase decode8 of step rows 8 wanted 8 capture {\n"
    "  launch matmul_1 (b0+8, b4, b1+1024, b2, b8, null, 16) grid 264 1 2 fill 2 group 3 weights 4352 expert 1 row 256 "
    "flops 8192 key 64 attend 128 window 31 \"odd + 2\"  # tiny.lap:12:13\n"
    "  launch rowwise_2 (b6+8191, b7) grid 8 1 1  # \"my model.lap\":3:4\n"
    "  emit logits : f32[R, 64] at 4096\n"
    "  tap layer.0 : f32[T, 4] at 0\n"
    "}\n"
    "phase prefill of step rows 32 wanted 8 {\n"
    "  launch matmul_1 (b1) grid 2 1 1 rows T axis 1 per 16\n"
    "  launch rowwise_2 (b1) grid 1 1 1 rows R axis 0 per 1 group 4\n"
    "  emit logits : f32[R, 64] at 4096\n"
    "}\n"
    "sampler of step rows 8 vocabulary 64 states b9 recent b10 ring b11 {\n"
    "  launch rowwise_2 (b1+4096, b9, b0+512, b0+4, b9+160, b0+8) grid 1 1 1 rows R axis 0 per 1 row 256 \"sample\"\n"
    "}\n";

/* Compiled from nothing: what the plan above says of its weights, caches and entries. */
static const char small_module_text[] =
    "module tiny arch \"tiny\" file \"tiny.gguf\"\n"
    "weight @emb.weight : f32[64, 4]\n"
    "weight @\"odd \\\"name\\\"\" : q8_0[64, 32]\n"
    "cache kv.0 : heads 1 k f32[16] v f32[16] linear capacity 64 lookback -1 row 64 64 bytes 8192\n"
    "graph step(tokens: i32[T], pos: i32[T], rows: i32[R]) {\n"
    "  %h = embed tokens, @emb.weight : f32[T, 4]\n"
    "  %last = rows %h, rows : f32[R, 4]\n"
    "  %logits = linear %last, @emb.weight : f32[R, 64]\n"
    "  %p = reshape %h : f32[T, 4]\n"
    "  tap layer.0 = %p\n"
    "  emit logits = %logits\n"
    "}\n";

#endif
