# cmake -DOUT=FILE.c -DTEXT=prelude.lap -P embed_prelude.cmake: writes the text as a C array (prelude.h).
file(READ ${TEXT} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "((0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,))" "\\1\n" bytes "${bytes}")
file(WRITE ${OUT} "/* Made by frontend/embed_prelude.cmake. */\n#include \"frontend/prelude.h\"\n\n"
     "const char prelude_text[] = {\n${bytes}0};\nconst size_t prelude_len = sizeof prelude_text - 1;\n")
