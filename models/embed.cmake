# cmake -DOUT=FILE.c -DARRAY=NAME -DHEADER=FILE.h "-DTEXTS=A.lap;B.lap" -P embed.cmake: writes the texts as the C array
# NAME of EmbeddedText (ir/base.h), which the header declares.
set(arrays "")
set(rows "")
set(count 0)
foreach(path IN LISTS TEXTS)
    get_filename_component(name ${path} NAME)
    file(READ ${path} hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    # 16 bytes a line: no one reads it, but a line of 100 kB upsets tools.
    string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n"
           bytes "${bytes}")
    string(APPEND arrays "static const unsigned char text_${count}[] = {\n${bytes}0};\n\n")
    string(APPEND rows "    {\"${name}\", (const char *)text_${count}, sizeof text_${count} - 1},\n")
    math(EXPR count "${count} + 1")
endforeach()
file(WRITE ${OUT} "/* Made by models/embed.cmake. */\n#include \"${HEADER}\"\n\n${arrays}"
     "const EmbeddedText ${ARRAY}[] = {\n${rows}};\nconst int n_${ARRAY} = ${count};\n")
