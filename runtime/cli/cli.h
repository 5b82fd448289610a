/* cli.h - what the subcommands share: context, exit codes, messages, files, progress, JSON. */
#ifndef LAP_CLI_CLI_H
#define LAP_CLI_CLI_H

#include "codegen/tuned.h"
#include "frontend/frontend.h"
#include "ir/diag.h"
#include "runtime/cli/options.h"
#include "runtime/engine/generate.h"
#include "runtime/engine/modeltext.h"
#include "runtime/engine/session.h"
#include "runtime/weights/weights.h"
#include <jansson.h>

/* Documented in --help. */
enum {
    EXIT_FINE = 0,
    EXIT_INPUT = 1,
    EXIT_USAGE = 2,
    EXIT_SYSTEM = 3,
    EXIT_INTERRUPTED = 130, /* by Ctrl-C; main gives that of another signal */
};

typedef struct Cli {
    Command cmd;
    Options o;
    Arena *arena;
    Diag *diag;
    int64_t timed_rows, timed_wanted; /* of GpuOptions, for sessions that are opened */
    bool said_unused;                 /* which options the processor has no use for */
} Cli;

/* One function a subcommand, in cmd_NAME.c. The messages left in diag are printed by the caller. */
#define COMMAND(e, name, ...) int cmd_##name(Cli *c);
#include "runtime/cli/commands.def"
#undef COMMAND

/* ==== Messages ==== */

/* Prints `lap CMD: error: ...` to stderr and gives `code` back. */
__attribute__((format(printf, 3, 4))) int cli_fail(const Cli *c, int code, const char *fmt, ...);
/* Prints the messages collected so far and forgets them; EXIT_SYSTEM when the machine refused something, else
 * EXIT_INPUT when there were errors. */
int cli_report(Cli *c);

/* ==== Output ==== */

/* Flushes stdout; false once anything could not be written. */
bool cli_flush(void);
/* errno of the first flush that failed, 0 when none did: later calls overwrite errno. */
int cli_flush_error(void);

/* ==== Files that must not be written (outputs.c) ==== */

/* False after a usage error, printed: the file, under whatever name, is an input of the command. */
bool cli_may_write(const Cli *c, const char *path);
/* The same of all files that the options name; asked before anything is done. */
bool cli_may_write_all(const Cli *c);

/* ==== Kinds of files (kinds.c) ==== */

typedef enum FileKind { FILE_OTHER, FILE_GGUF, FILE_SAFETENSORS, FILE_TEXT, FILE_IR, FILE_BUNDLE } FileKind;

/* False after errors in diag: the file is of a kind that the command does not take, which is said with what does. */
bool cli_is_operand(const Cli *c, const char *path);
/* The same of the first operand, where there is no list of them, and of the options. */
bool cli_check_kinds(const Cli *c);

/* ==== Files ==== */

/* The whole of a file, "-": standard input. Errors go to diag. */
bool cli_read(Cli *c, const char *path, Buf *out);
/* Ids separated by commas or white space; `from` names the text in messages. */
bool cli_parse_ids(Cli *c, const char *from, const char *text, size_t n, TokenList *out);
bool cli_read_ids(Cli *c, const char *path, TokenList *out);
/* False after an error: one is not in the vocabulary. */
bool cli_check_ids(Cli *c, const char *from, const TokenList *ids, int vocab);

/* ==== Sessions ==== */

/* Opens the first operand with the model options; taps may be NULL. context 0: as --context. Gives
 * EXIT_FINE, or the exit code after errors in diag. Shows progress. */
int cli_session(Cli *c, int64_t context, const char *const *taps, int n_taps, Session **out);
/* ~/.cache/lapidary, and the folder of compiled kernels in it; NULL without a home. */
const char *cli_cache_dir(Arena *a);
const char *cli_kernel_cache(Cli *c);
/* Opened, NULL without one; closed after its warnings have been printed. */
CubinCache *cli_open_kernel_cache(Cli *c);
void cli_close_kernel_cache(const Cli *c, CubinCache *cache);
/* --kv-k or --kv-v; `automatic` when that is what was chosen. */
DType cli_kv_type(const char *choice, DType automatic);
/* --chunk, without it the usual one; at most the context. */
int64_t cli_chunk(const Cli *c);
/* --memory; nothing in room when it is not given. Gives EXIT_FINE, or the exit code of a usage error, printed. */
int cli_memory(const Cli *c, ChunkRoom *room);
/* A warning when the memory does not do for what was chosen. */
void cli_check_memory(const Cli *c, const ChunkRequest *chosen);
/* --sparse. */
SparseUse cli_sparse(const Cli *c);
/* --sparse and --alpha as passes have them. */
void cli_sparse_options(const Cli *c, PassOptions *p);
/* --set as the front end wants it; false after a usage error, printed. */
bool cli_settings(Cli *c, FeSetting **out, int *n);
/* The same of another option that is repeated. */
bool cli_parse_settings(Cli *c, const char *option, const TextList *given, FeSetting **out, int *n);
/* --weights, and --target with its compiled text, for texts that are compiled without being run. */
typedef struct Bound {
    Weights *weights, *target;   /* NULL: not given */
    ModelFile file, target_file; /* theirs, with what is looked up noted in reads */
    FeInput in;                  /* all but the text */
} Bound;

/* Opens what the options name. Gives EXIT_FINE, or the exit code after errors in diag or printed. */
int cli_bind(Cli *c, Bound *b);
void cli_unbind(Bound *b);
/* NULL after errors in diag: a text that works for a target needs --target. */
Module *cli_compile(Cli *c, const Bound *b, const TextSource *t);

/* Options, else the file's hints, else the defaults. */
SampleOptions cli_sampling(const Cli *c, const ModelFile *file);

/* ==== What was measured of GPUs (tuned.c) ==== */

/* Where they are kept, beside the compiled kernels; NULL: the command's --tune, `choice`, is off, or no such folder. */
const char *cli_tuned_file(Cli *c, const char *choice);
/* Those of a file, NULL: none; must_be: to have none is an error. Gives EXIT_FINE, or the exit code after errors,
 * printed or in diag. */
int cli_read_tuned(Cli *c, const char *path, bool must_be, Tuned *t);
/* Of a GPU of the architecture, by the newest that the file has; without one those that serve without a GPU. */
DeviceRates cli_rates_of_arch(const Tuned *t, const char *arch);
json_t *cli_rates_json(const DeviceRates *r);
/* Kernels of a plan that are not cut by the rule. */
int cli_tuned_kernels(const Plan *p);
/* --verbose: what a load timed, on stderr. */
void cli_say_tuning(const TuneReport *r);
json_t *cli_tuning_json(const TuneReport *r); /* the same; NULL: null */
const char *cli_tuned_text(Cli *c, const Tuned *t, const char *path);
json_t *cli_tuned_json(Cli *c, const Tuned *t, const char *path);

/* ==== Drafters (draft.c) ==== */

/* What the options say of a drafter. Gives EXIT_FINE, or the exit code after errors in diag or printed. */
int cli_draft_options(Cli *c, SessionOptions *so);
/* The drafter is what --draft-method asks for; else an error in diag. */
bool cli_check_method(Cli *c, const Session *s);
void cli_draft_generate(const Cli *c, GenerateOptions *g);
/* A line on stderr: rounds, how often guesses were right, where the time went. Nothing without a drafter. */
void cli_print_drafts(const Session *s, const GenerateStats *g);
/* " 61 40 % of each guess" */
void cli_print_right(FILE *f, const DraftStats *d);
double cli_tokens_a_round(const DraftStats *d);
/* Of generation, what was neither guessing nor the model. */
double cli_host_seconds(const GenerateStats *g);
json_t *cli_json_drafts(const Session *s, const GenerateStats *g);

/* ==== Interrupt ==== */

extern volatile bool cli_interrupted;
/* From now on Ctrl-C sets the flag once; the next one kills. */
void cli_catch_interrupt(void);
/* The same of Ctrl-C, SIGTERM and SIGHUP, for commands that make files: what is half made goes. */
void cli_catch_end(void);
/* Exit code of an interrupted command: 128 and the number of the signal. */
int cli_interrupt_code(void);
/* Whether Ctrl-C ends a read that waits (EINTR); off unless said. Writes always go on. */
void cli_interrupt_reads(bool on);

/* ==== Progress on stderr: only on a terminal, only after a second (progress.c) ==== */

typedef struct Progress Progress;

/* NULL when nothing is to be shown; the others take that. */
Progress *progress_start(const Cli *c, const char *what);
void progress_set(Progress *p, int64_t done, int64_t total);   /* total 0: not known */
void progress_bytes(Progress *p, int64_t done, int64_t total); /* with the rate and the time left */
void progress_end(Progress *p);                                /* clears the line, frees */

/* ==== Weights files (cmd_inspect.c) ==== */

/* What `lap inspect` prints, by its options; bytes is the size of the file. */
void inspect_print(const Cli *c, const ModelFile *f, uint64_t bytes);
/* lap inspect on a bundle (inspect_facet.c). */
int inspect_facet(Cli *c);

/* ==== JSON ==== */

/* Any bytes as a JSON string: what is not UTF-8 becomes U+FFFD. */
json_t *json_bytes(const char *s, size_t n);
/* Prints on one line, or indented, with a newline; releases it. */
void json_print(json_t *j, bool indent);

#endif
