/* cmd_chat.c - lap chat: a conversation in the terminal, or through a pipe.
 *
 * The whole conversation is rendered and tokenised anew each turn; generate() keeps the K/V of what the
 * session already holds, so only new tokens are computed. Replies are remembered with their control
 * tokens written out, so that what the format hides (thinking) can be dropped from the history.
 */
#include "runtime/cli/cli.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <readline/history.h>
#include <readline/readline.h>

typedef struct Chat {
    Cli *c;
    Session *s;
    const ChatFormat *format;
    const Tokenizer *tokenizer;
    bool terminal;
    Str system;
    VEC(ChatTurn) turns; /* user, model, user, .. */
    TokenList stop;
    SampleOptions sample;
    GenerateStats stats; /* of the last reply */
    bool replied;
    /* while a reply is made */
    Progress *progress;
    Buf reply;       /* with control tokens written out */
    int32_t hide[2]; /* tokens that begin and end a hidden part; -1: none */
    bool hidden;
    Detokenizer raw;
} Chat;

/* ==== Reading lines ==== */

/* Ctrl-C at the prompt gives up the line. Called ten times a second: readline looks at rl_done only then,
 * not when a signal interrupts its read. */
static int on_idle(void) {
    if (cli_interrupted) {
        rl_replace_line("", 0);
        rl_done = 1;
    }
    return 0;
}

/* A line without its end; NULL at the end of input. free() it. */
static char *read_line(const Chat *chat) {
    if (chat->terminal)
        return readline("> ");
    char *line = NULL;
    size_t cap = 0;
    cli_interrupt_reads(true);
    ssize_t n = getline(&line, &cap, stdin);
    cli_interrupt_reads(false);
    if (n < 0) {
        free(line);
        return NULL;
    }
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
        line[--n] = 0;
    return line;
}

/* ==== Replies ==== */

static void on_progress(void *ctx, int64_t done, int64_t total) {
    progress_set(((Chat *)ctx)->progress, done, total);
}

static bool on_token(void *ctx, int32_t id, Str text) {
    Chat *chat = ctx;
    progress_end(chat->progress);
    chat->progress = NULL;
    if (id >= 0)
        detok_push(&chat->raw, id, &chat->reply);
    if (id >= 0 && id == chat->hide[0])
        chat->hidden = true;
    if (!chat->hidden)
        fwrite(text.s, 1, text.n, stdout);
    if (id >= 0 && id == chat->hide[1])
        chat->hidden = false;
    return cli_flush();
}

/* The conversation as ids. */
static void render(Chat *chat, TokenList *ids) {
    VEC(ChatTurn) all = {0};
    if (chat->system.n)
        vec_push(chat->c->arena, &all, ((ChatTurn){CHAT_SYSTEM, chat->system}));
    for (int i = 0; i < chat->turns.n; i++)
        vec_push(chat->c->arena, &all, chat->turns.v[i]);
    Buf text = {0};
    RangeList typed = {0}; /* no control tokens come from there */
    chat_render(chat->c->arena, chat->format, all.v, all.n, &text, &typed);
    tokenizer_encode(chat->tokenizer, chat->c->arena, text.n ? text.s : "", text.n,
                     (EncodeOptions){.add_bos = true, .parse_special = true, .plain = &typed}, ids);
    buf_free(&text);
}

/* Says why the reply ended when that is not plain, and remembers it. */
static void end_reply(Chat *chat, const Buf *reply) {
    putchar('\n');
    cli_flush();
    StopReason reason = chat->stats.reason;
    if (reason == STOP_CANCELLED || reason == STOP_CONTEXT || reason == STOP_COUNT)
        fprintf(stderr, "[%s]\n", stop_reason_text(reason));
    char *kept = arena_strndup(chat->c->arena, reply->n ? reply->s : "", reply->n);
    vec_push(chat->c->arena, &chat->turns, ((ChatTurn){CHAT_MODEL, {kept, reply->n}}));
}

/* Answers the conversation, whose last turn is the user's; false when the session cannot go on. */
static bool answer(Chat *chat) {
    TokenList ids = {0};
    render(chat, &ids);
    if (ids.n >= session_context(chat->s)) {
        fprintf(stderr, "[context full: %d of %lld positions; /reset starts anew]\n", ids.n,
                (long long)session_context(chat->s));
        chat->turns.n--;
        return true;
    }
    chat->sample.seed++; /* another draw each turn, the same in every run */
    GenerateOptions g = {.sample = chat->sample,
                         .max_tokens = chat->c->o.reply,
                         .stop = chat->stop.v,
                         .n_stop = chat->stop.n,
                         .cancel = &cli_interrupted,
                         .ctx = chat,
                         .progress = on_progress,
                         .token = on_token};
    cli_draft_generate(chat->c, &g);
    chat->reply.n = 0;
    chat->hidden = false;
    chat->raw = (Detokenizer){.t = chat->tokenizer, .show_control = true};
    cli_catch_interrupt();
    chat->progress = progress_start(chat->c, "reading");
    generate(chat->s, ids.v, ids.n, &g, chat->c->diag, &chat->stats);
    progress_end(chat->progress);
    chat->progress = NULL;
    chat->replied = true;
    if (chat->stats.reason == STOP_ERROR || chat->stats.reason == STOP_CALLER)
        return false;
    detok_end(&chat->raw, &chat->reply);
    end_reply(chat, &chat->reply);
    return true;
}

/* ==== Commands ==== */

static void say_help(void) {
    printf("/system TEXT  set the system text and start anew (no TEXT: remove it)\n"
           "/reset        forget the conversation\n"
           "/stats        tokens and speed of the last reply\n"
           "/help         this\n"
           "/quit         end (as does Ctrl-D)\n");
}

static void say_stats(const Chat *chat) {
    const GenerateStats *g = &chat->stats;
    if (!chat->replied) {
        printf("no reply yet\n");
        return;
    }
    int64_t fed = g->prompt_tokens - g->reused_tokens;
    printf("%lld tokens in the conversation, %lld of them read now in %.2f s (%.1f tokens/s)\n",
           (long long)g->prompt_tokens, (long long)fed, g->prompt_seconds,
           g->prompt_seconds > 0 ? (double)fed / g->prompt_seconds : 0.0);
    printf("%lld generated in %.2f s (%.1f tokens/s), %lld of %lld positions used, device %s", (long long)g->new_tokens,
           g->decode_seconds, g->decode_seconds > 0 ? (double)g->steps / g->decode_seconds : 0.0,
           (long long)session_length(chat->s), (long long)session_context(chat->s), session_device_text(chat->s));
    if (!session_gpu(chat->s))
        printf(", threads %d", session_threads(chat->s));
    putchar('\n');
    cli_flush();
    cli_print_drafts(chat->s, g);
}

static bool set_system(Chat *chat, const char *text) {
    if (*text && !chat->format->has_system) {
        fprintf(stderr, "[the chat format of %s has no place for a system text]\n", session_text_name(chat->s));
        return false;
    }
    chat->system = (Str){arena_strdup(chat->c->arena, text), strlen(text)};
    chat->turns.n = 0;
    return true;
}

/* False to quit. */
static bool run_command(Chat *chat, const char *line) {
    size_t n = strcspn(line, " ");
    const char *rest = line + n + strspn(line + n, " ");
    Str word = {line, n};
    if (str_eq(word, "/quit") || str_eq(word, "/exit"))
        return false;
    if (str_eq(word, "/help"))
        say_help();
    else if (str_eq(word, "/stats"))
        say_stats(chat);
    else if (str_eq(word, "/reset"))
        chat->turns.n = 0;
    else if (str_eq(word, "/system"))
        set_system(chat, rest);
    else
        fprintf(stderr, "[unknown command %.*s; /help lists them]\n", STR_FMT(word));
    cli_flush();
    return true;
}

/* ==== The conversation ==== */

/* Ids of the texts that the format names; those that are not one token each cannot be watched for. */
static bool find_tokens(Chat *chat) {
    const ChatFormat *f = chat->format;
    for (int i = 0; i < f->stop.n; i++) {
        int32_t id = tokenizer_find(chat->tokenizer, f->stop.v[i]);
        if (id < 0) {
            diag_error(chat->c->diag, NO_LOC, "%s: stop text \"%.*s\" of the chat format is not a token of %s",
                       session_text_name(chat->s), STR_FMT(f->stop.v[i]), session_file(chat->s)->path);
            return false;
        }
        vec_push(chat->c->arena, &chat->stop, id);
    }
    for (int i = 0; i < 2; i++)
        chat->hide[i] = f->hide[i].n ? tokenizer_find(chat->tokenizer, f->hide[i]) : -1;
    return true;
}

/* EXIT_FINE when the conversation can begin. */
static int prepare(Chat *chat) {
    Cli *c = chat->c;
    int code = cli_session(c, 0, NULL, 0, &chat->s);
    if (code != EXIT_FINE)
        return code;
    chat->format = &session_module(chat->s)->chat;
    if (!chat->format->present) {
        diag_error(c->diag, NO_LOC, "%s has no chat format (a `chat` part); lap run continues a text without one",
                   session_text_name(chat->s));
        return EXIT_INPUT;
    }
    chat->tokenizer = session_tokenizer(chat->s, true);
    if (!chat->tokenizer || !find_tokens(chat))
        return EXIT_INPUT;
    chat->sample = cli_sampling(c, session_file(chat->s));
    chat->terminal = isatty(STDIN_FILENO);
    rl_event_hook = on_idle;
    return !c->o.system_text || set_system(chat, c->o.system_text) ? EXIT_FINE : EXIT_INPUT;
}

static int converse(Chat *chat) {
    bool go_on = true;
    bool sound = true;
    if (chat->terminal && !chat->c->o.quiet)
        fprintf(stderr, "%s, device %s. /help lists commands, Ctrl-D ends.\n", chat->c->o.operand[0],
                session_device_text(chat->s));
    while (go_on) {
        cli_catch_interrupt();
        char *line = read_line(chat);
        if (!line)
            break;
        size_t n = strlen(line);
        if (n && chat->terminal)
            add_history(line);
        if (line[0] == '/') {
            go_on = run_command(chat, line);
        } else if (n) {
            vec_push(chat->c->arena, &chat->turns, ((ChatTurn){CHAT_USER, {arena_strdup(chat->c->arena, line), n}}));
            sound = answer(chat);
            go_on = sound;
        }
        free(line);
    }
    if (chat->terminal)
        putchar('\n');
    return sound ? EXIT_FINE : EXIT_INPUT;
}

int cmd_chat(Cli *c) {
    Chat chat = {.c = c};
    int code = prepare(&chat);
    if (code == EXIT_FINE)
        code = converse(&chat);
    session_close(chat.s);
    buf_free(&chat.reply);
    return code;
}
