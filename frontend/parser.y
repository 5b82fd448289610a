/* parser.y - the grammar of model texts (docs/language.md is its reference).
 *
 * An action is one call of build.c. Newlines reach the grammar as ';' (tokens.c decides which).
 * `error` stands only where a statement or an item may: tokens.c hands out the next token from
 * which that list can go on, so one bad statement gives one message. Default reductions are those
 * that need no look ahead, so that an error after a block does not pop back into the block.
 */
%define api.pure full
%define api.prefix {fe_yy}
%define api.token.prefix {TK_}
%define api.value.type {ParseValue}
%define api.location.type {SrcLoc}
%define parse.error custom
%define parse.lac full
%define lr.default-reduction consistent
%locations
%expect 0
%param {Parser *p}

%code requires {
#include "frontend/parse_int.h"
}

%code {
#define YYLLOC_DEFAULT(cur, rhs, n)                        \
    do {                                                   \
        (cur) = YYRHSLOC(rhs, (n) ? 1 : 0);                \
        for (int k = 2; k <= (n); k++)                     \
            (cur) = fe_span((cur), YYRHSLOC(rhs, k));      \
    } while (0)
#define YYMAXDEPTH 10000 /* on the heap; chains without brackets, such as `not not ..`, get this far */
}

%token END 0 "the end of the text"
%token <name> NAME "a name"
%token <i> INT "a number"
%token <f> FLOAT "a decimal number"
%token STRING_BEGIN "a string" STRING_END "the end of the string" <text> TEXT "text in the string"
%token INTERP "'{' in the string" INTERP_END "'}' in the string"
%token <bad> BAD "an unreadable character"
%token COMMENT "a comment" STRAY_SEMI "a stray ';'"

%token <name> MODEL "model" FROM "from" USES "uses" TARGET "target" SPARSE "sparse"
%token PARAM "param" VARIANT "variant" FN "fn" ENTRY "entry" CHAT "chat" DRAFTS "drafts"
%token LET "let" VAR "var" FOR "for" IN "in" IF "if" THEN "then" ELSE "else" TAP "tap" EMIT "emit" CACHE "cache"
%token AND "and" OR "or" NOT "not" TRUE "true" FALSE "false" NONE "none"

%token LPAREN "(" RPAREN ")" LBRACKET "[" RBRACKET "]" LBRACE "{" RBRACE "}"
%token PLUS "+" MINUS "-" STAR "*" SLASH "/" PERCENT "%" EQ "==" NE "!=" LT "<" LE "<=" GT ">" GE ">="
%token ASSIGN "=" QUESTION "?" COLON ":" DOT "." DOTDOT ".." COMMA "," SEMI "the end of the statement"

/* An `else` belongs to the nearest `if` with a block. */
%precedence WITHOUT_ELSE
%precedence ELSE

%type <name> name from_format target chat_param chat_in
%type <expr> string length fn_body expr either both negated compared sum product signed postfix primary
%type <expr> block_expr index chained_pair
%type <stmt> stmt
%type <arg> arg
%type <entry_param> entry_param
%type <op> compare
%type <names> names name_list names_opt
%type <entry_params> entry_params entry_param_list
%type <exprs> exprs expr_list from_archs
%type <args> args arg_list args_opt
%type <stmts> block stmts
%type <parts> parts

%%

file: head "{" items close ;

head: "model" name target                        { fe_model(p, $name, (Name){0}, (ExprList){0}, $target); }
    | "model" name from_format from_archs target { fe_model(p, $name, $from_format, $from_archs, $target); }
    ;
from_format: "from" name  { $$ = $name; } ;
from_archs: string                    { $$ = fe_exprs(p, (ExprList){0}, $1); }
          | from_archs "or" string    { $$ = fe_exprs(p, $1, $3); }
          ;
target: %empty                      { $$ = (Name){0}; }
      | "uses" "target" ":" name    { $$ = $name; }
      ;

/* Both end what is in a list of statements or items; an error in it is over then. */
end: SEMI   { fe_recovered(p); yyerrok; } ;
close: "}"  { fe_recovered(p); yyerrok; } ;

/* ==== Items ==== */

items: item | items end item ;

item: %empty
    | "param" name ":" name length "=" expr       { fe_param(p, $2, $4, $length, $expr); }
    | "fn" name "(" names ")" fn_body             { fe_fn(p, $name, $names, $fn_body); }
    | "entry" name "(" entry_params ")" block     { fe_entry(p, $name, $entry_params, $block); }
    | variant_head "{" variant_parts close        { fe_variant_end(p); }
    | chat_head "{" chat_fields close
    | "drafts" name args_opt                      { fe_drafts(p, $name, $args_opt); }
    | error
    ;

length: %empty        { $$ = NULL; }
      | "[" expr "]"  { $$ = $expr; }
      ;
fn_body: "=" expr     { $$ = $expr; }
       | block_expr
       ;

entry_params: %empty              { $$ = (EntryParamList){0}; }
            | entry_param_list comma_opt
            ;
entry_param_list: entry_param     { $$ = fe_entry_params(p, (EntryParamList){0}, $1); }
                | entry_param_list "," entry_param  { $$ = fe_entry_params(p, $1, $3); }
                ;
entry_param: name ":" name "[" exprs "]"  { $$ = (EntryParam){$1, $3, $exprs}; } ;

variant_head: "variant" name names_opt    { fe_variant_begin(p, $name, $names_opt); } ;
variant_parts: variant_part | variant_parts end variant_part ;
variant_part: %empty
            | NAME "(" names ")" "=" expr { fe_variant_part(p, $NAME, $names, $expr); }
            | "sparse" name args_opt      { fe_variant_sparse(p, $name, $args_opt); }
            | error
            ;

chat_head: "chat"   { fe_chat_begin(p, @1); } ;
chat_fields: chat_field | chat_fields end chat_field ;
chat_field: %empty
          | name chat_param chat_in "=" expr  { fe_chat_field(p, $name, $chat_param, $chat_in, $expr); }
          | error
          ;
chat_param: %empty          { $$ = (Name){0}; }
          | "(" name ")"    { $$ = $name; }
          ;
chat_in: %empty             { $$ = (Name){0}; }
       | "in" name          { $$ = $name; }
       ;

/* ==== Lists of names, arguments, expressions: a last comma is allowed ==== */

comma_opt: %empty | "," ;

names_opt: %empty           { $$ = (NameList){0}; }
         | "(" names ")"    { $$ = $names; }
         ;
names: %empty               { $$ = (NameList){0}; }
     | name_list comma_opt
     ;
name_list: name             { $$ = fe_names(p, (NameList){0}, $1); }
         | name_list "," name  { $$ = fe_names(p, $1, $3); }
         ;
exprs: %empty               { $$ = (ExprList){0}; }
     | expr_list comma_opt
     ;
expr_list: expr             { $$ = fe_exprs(p, (ExprList){0}, $1); }
         | expr_list "," expr  { $$ = fe_exprs(p, $1, $3); }
         ;
args_opt: %empty            { $$ = (ArgList){0}; }
        | "(" args ")"      { $$ = $args; }
        ;
args: %empty                { $$ = (ArgList){0}; }
    | arg_list comma_opt
    ;
arg_list: arg               { $$ = fe_args(p, (ArgList){0}, $1); }
        | arg_list "," arg  { $$ = fe_args(p, $1, $3); }
        ;
arg: expr                   { $$ = (Arg){{0}, $1}; }
   | name "=" expr          { $$ = (Arg){$1, $3}; }
   ;

/* Words that mean something at one place only are names everywhere else. */
name: NAME | "model" | "from" | "uses" | "target" | "sparse" ;

/* ==== Statements ==== */

block: "{" stmts close      { $$ = $stmts; } ;
block_expr: "{" stmts close { $$ = fe_block(p, @$, $stmts); } ;

stmts: stmt                 { $$ = fe_stmts(p, (StmtList){0}, $1); }
     | stmts end stmt      { $$ = fe_stmts(p, $1, $3); }
     ;
stmt: %empty                { $$ = NULL; }
    | "let" name "=" expr   { $$ = fe_stmt(p, ST_LET, @$, $name, NULL, $expr); }
    | "var" name "=" expr   { $$ = fe_stmt(p, ST_VAR, @$, $name, NULL, $expr); }
    | name "=" expr         { $$ = fe_stmt(p, ST_ASSIGN, @$, $name, NULL, $expr); }
    | "tap" name index "=" expr   { $$ = fe_stmt(p, ST_TAP, @$, $name, $index, $expr); }
    | "emit" name index "=" expr  { $$ = fe_stmt(p, ST_EMIT, @$, $name, $index, $expr); }
    | "for" name "in" either ".." either block  { $$ = fe_for(p, @$, $2, $4, $6, $block); }
    | expr                  { $$ = fe_stmt(p, ST_EXPR, @$, (Name){0}, NULL, $expr); }
    | error                 { $$ = NULL; }
    ;
index: %empty               { $$ = NULL; }
     | "[" expr "]"         { $$ = $expr; }
     ;

/* ==== Expressions, loosest first ==== */

expr: either
    | either "?" expr ":" expr              { $$ = fe_cond(p, @$, $1, $3, $5); }
    | "if" either "then" expr "else" expr   { $$ = fe_cond(p, @$, $2, $4, $6); }
    | "if" either block_expr  %prec WITHOUT_ELSE  { $$ = fe_cond(p, @$, $2, $3, NULL); }
    | "if" either block_expr "else" expr    { $$ = fe_cond(p, @$, $2, $3, $5); }
    | block_expr
    ;
either: both
      | either "or" both            { $$ = fe_op(p, @$, AO_OR, $1, $3); }
      ;
both: negated
    | both "and" negated            { $$ = fe_op(p, @$, AO_AND, $1, $3); }
    ;
negated: compared
       | "not" negated              { $$ = fe_op(p, @$, AO_NOT, $2, NULL); }
       ;
compared: sum | chained_pair ;
chained_pair: sum compare sum               { $$ = fe_op(p, @$, $2, $1, $3); }
            | chained_pair compare sum      { $$ = fe_chained(p, @$, @2, $2, $1, $3); }
            ;
compare: "==" { $$ = AO_EQ; }
       | "!=" { $$ = AO_NE; }
       | "<"  { $$ = AO_LT; }
       | "<=" { $$ = AO_LE; }
       | ">"  { $$ = AO_GT; }
       | ">=" { $$ = AO_GE; }
       ;
sum: product
   | sum "+" product                { $$ = fe_op(p, @$, AO_ADD, $1, $3); }
   | sum "-" product                { $$ = fe_op(p, @$, AO_SUB, $1, $3); }
   ;
product: signed
       | product "*" signed         { $$ = fe_op(p, @$, AO_MUL, $1, $3); }
       | product "/" signed         { $$ = fe_op(p, @$, AO_DIV, $1, $3); }
       | product "%" signed         { $$ = fe_op(p, @$, AO_MOD, $1, $3); }
       ;
signed: postfix
      | "-" signed                  { $$ = fe_op(p, @$, AO_NEG, $2, NULL); }
      | "cache" postfix             { $$ = fe_cache(p, @$, $2); }
      ;
postfix: primary
       | postfix "." name           { $$ = fe_field(p, @$, $1, $3); }
       | postfix "[" expr "]"       { $$ = fe_index(p, @$, $1, $3); }
       | postfix "(" args ")"       { $$ = fe_call(p, $1, $3); }
       ;
primary: INT                        { $$ = fe_int(p, @$, $1); }
       | FLOAT                      { $$ = fe_float(p, @$, $1); }
       | "true"                     { $$ = fe_bool(p, @$, true); }
       | "false"                    { $$ = fe_bool(p, @$, false); }
       | "none"                     { $$ = fe_none(p, @$); }
       | string
       | name                       { $$ = fe_name(p, $1); }
       | "(" expr ")"               { $$ = $2; }
       | "[" exprs "]"              { $$ = fe_array(p, @$, $2); }
       ;
string: STRING_BEGIN parts STRING_END  { $$ = fe_string(p, @$, $2); } ;
parts: %empty                       { $$ = (StrPartList){0}; }
     | parts TEXT                   { $$ = fe_parts(p, $1, $2, NULL); }
     | parts INTERP expr INTERP_END { $$ = fe_parts(p, $1, (Str){0}, $3); }
     ;

%%

/* Hands the names of what would have fitted to parse_error.c, which words the message. */
static int yyreport_syntax_error(const yypcontext_t *ctx, Parser *p) {
    yysymbol_kind_t kinds[YYNTOKENS];
    const char *names[YYNTOKENS];
    int n = yypcontext_expected_tokens(ctx, kinds, YYNTOKENS);
    if (n < 0)
        return n; /* out of memory */
    for (int i = 0; i < n; i++)
        names[i] = yysymbol_name(kinds[i]);
    fe_syntax_error(p, names, n);
    return 0;
}
