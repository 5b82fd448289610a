/* parse_int.h - what the files that read the text form of the IR share. Private to ir/text_lex.c and ir/parse*.c.
 *
 * text_lex.h, .c  tokens, the small steps of the parser, lines
 * parse_scalar.c  expressions of variants
 * parse_decl.c    types; weights, caches, variants, chat
 * parse.c         graphs, the module, the way in
 *
 * Besides what text_lex.h says: those that give a pointer or an id give NULL or 0 after a mistake.
 */
#ifndef LAP_IR_PARSE_INT_H
#define LAP_IR_PARSE_INT_H

#include "ir/text_lex.h"

/* Bounds of numbers that come from the text and are used by more than one file. */
#define MAX_DIM   ((int64_t)INT32_MAX) /* a dimension; positions, rows */
#define MAX_BYTES ((int64_t)1 << 60)

/* ==== Parts ==== */

const Scalar *p_scalar(Parser *p); /* parse_scalar.c */

/* Declarations (parse_decl.c): each begins behind its first word, adds to the module, and ends behind its last
 * line. */
bool p_weight(Parser *p);
bool p_cache(Parser *p);
bool p_variant(Parser *p);
bool p_chat(Parser *p);
bool p_drafts(Parser *p);

#endif
