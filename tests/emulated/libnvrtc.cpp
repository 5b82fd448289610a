/* libnvrtc.cpp - an NVRTC for the emulated GPU: the "cubin" is a shared object for libcuda.cpp, made by the C++
 * compiler.
 *
 *   preprocess   with tests/kernels/emulator.h in front, which defines LAP_PRELUDE: the text of prelude.cu in the
 *                program is then empty. KERNEL leaves a mark before each kernel, __launch_bounds__ one around its
 * numbers find         the names of the kernels behind the marks, macros expanded; the marks go compile      with a
 * table of the kernels at the end (emulated::Module), or take what is kept of the same text with other names: plans
 * number their kernels, and every other taps or models give the same ones other numbers
 *
 * Places of #line survive; messages are written as NVRTC does: FILE(LINE): error: TEXT. Of the options the
 * definitions are passed on. Programs of several threads compile beside each other.
 *
 * EMULATED_COMPILER, EMULATED_OPTIMISE, EMULATED_SOURCES, EMULATED_FOLDERS, EMULATED_KEPT: the compiler, its -O, the root
 * of the repository, where files are that are between two steps, and where objects are kept, as at build time.
 */
#include <errno.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <signal.h>
#include <spawn.h>
#include <sstream>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define NVRTC extern "C" __attribute__((visibility("default")))

extern char **environ;

typedef int Cancelled(void *payload, void *unused);

struct Program {
    std::string source, name, log, cubin;
    Cancelled *cancelled = nullptr;
    void *payload = nullptr;
};

enum Result { SUCCESS = 0, INVALID_INPUT = 3, COMPILATION = 6, CANCELLED = 16 };

/* ==== Files and processes ==== */

static std::string read_file(const std::string &path) {
    std::ifstream in(path, std::ios::binary);
    std::stringstream all;
    all << in.rdbuf();
    return all.str();
}

static void write_file(const std::string &path, const std::string &text) {
    std::ofstream(path, std::ios::binary) << text;
}

/* Folders of processes that were killed, which could not remove them. */
static bool remove_left_behind() {
    std::error_code none;
    std::filesystem::create_directories(EMULATED_FOLDERS, none);
    std::filesystem::directory_iterator entry(EMULATED_FOLDERS, none), end;
    for (; !none && entry != end; entry.increment(none)) {
        const pid_t owner = atoi(entry->path().filename().c_str());
        std::error_code other;
        if (owner > 0 && kill(owner, 0) != 0 && errno == ESRCH)
            std::filesystem::remove_all(entry->path(), other);
    }
    return true;
}

/* "PROCESS-XXXXXX"; goes with everything in it. */
struct Folder {
    std::string path = EMULATED_FOLDERS "/" + std::to_string(getpid()) + "-XXXXXX";
    Folder() {
        static const bool once = remove_left_behind();
        if (!once || !mkdtemp(path.data()))
            path.clear();
    }
    ~Folder() {
        std::error_code none;
        std::filesystem::remove_all(path, none);
    }
    std::string operator+(const char *name) const {
        return path + name;
    }
};

/* With messages in the C locale, and the compiler's own files in the folder. */
static std::vector<std::string> environment(const Folder &folder) {
    std::vector<std::string> all = {"LC_ALL=C", "TMPDIR=" + folder.path};
    for (char **e = environ; *e; e++)
        if (strncmp(*e, "LC_ALL=", 7) != 0 && strncmp(*e, "TMPDIR=", 7) != 0)
            all.push_back(*e);
    return all;
}

static std::vector<char *> pointers(std::vector<std::string> &strings) {
    std::vector<char *> all;
    for (std::string &s : strings)
        all.push_back(s.data());
    all.push_back(nullptr);
    return all;
}

static bool wait_for(pid_t child, const Program &p, bool *ok) {
    int status = 0;
    while (waitpid(child, &status, p.cancelled ? WNOHANG : 0) == 0) {
        if (p.cancelled(p.payload, nullptr)) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            return false;
        }
        usleep(2000);
    }
    *ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return true;
}

/* Runs the compiler; what it writes is added to p.log. */
static Result compiler(Program &p, const Folder &folder, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), EMULATED_COMPILER);
    std::vector<std::string> variables = environment(folder);
    std::vector<char *> argv = pointers(arguments), env = pointers(variables);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 2, (folder + "/log").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&files, 2, 1);
    pid_t child;
    const int error = posix_spawnp(&child, argv[0], &files, nullptr, argv.data(), env.data());
    posix_spawn_file_actions_destroy(&files);
    if (error) {
        p.log += std::string(EMULATED_COMPILER) + ": " + strerror(error) + "\n";
        return COMPILATION;
    }
    bool ok = false;
    if (!wait_for(child, p, &ok))
        return CANCELLED;
    p.log += read_file(folder + "/log");
    return ok ? SUCCESS : COMPILATION;
}

/* ==== The kernels of a text ==== */

struct Found {
    std::string name, bounds; /* as in the text */
};

static bool is_word(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

/* Behind the parenthesis that closes the one at `at`. */
static size_t behind_parenthesis(const std::string &s, size_t at) {
    int depth = 0;
    for (; at < s.size(); at++) {
        depth += (s[at] == '(') - (s[at] == ')');
        if (depth == 0)
            return at + 1;
    }
    return at;
}

/* Blanks out part of the text; its lines stay. */
static void blank(std::string &s, size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        if (s[i] != '\n')
            s[i] = ' ';
}

/* The kernel whose declaration begins at `at`: the word before the first parenthesis that is not of the bounds. */
static Found read_kernel(std::string &s, size_t at) {
    static const char bounds_mark[] = "EMULATED_BOUNDS_HERE";
    Found found;
    std::string word;
    while (at < s.size()) {
        const char c = s[at];
        if (c == '#' && s[at - 1] == '\n') { /* a line marker of the preprocessor */
            at = s.find('\n', at);
        } else if (is_word(c)) {
            const size_t start = at;
            while (at < s.size() && is_word(s[at]))
                at++;
            word = s.substr(start, at - start);
        } else if (c == '(' && word == bounds_mark) {
            const size_t end = behind_parenthesis(s, at);
            found.bounds = s.substr(at + 1, end - at - 2);
            blank(s, s.rfind(bounds_mark, at), end);
            at = end;
        } else if (c == '(') {
            found.name = word;
            return found;
        } else {
            at++;
        }
    }
    return found;
}

static std::vector<Found> find_kernels(std::string &s) {
    static const std::string mark = "EMULATED_KERNEL_HERE";
    std::vector<Found> all;
    for (size_t at = 0; (at = s.find(mark, at)) != std::string::npos;) {
        blank(s, at, at + mark.size());
        all.push_back(read_kernel(s, at));
    }
    return all;
}

enum { NAME_BYTES = 64 }; /* of a kernel's name in an object, with zeros behind it */

static std::string name_mark(size_t kernel) {
    return "@the name of kernel " + std::to_string(kernel) + "@";
}

static std::string table_of(const std::vector<Found> &kernels, bool dynamic_shared) {
    std::string s = "\n# 1 \"the table of kernels\"\n";
    for (size_t i = 0; i < kernels.size(); i++)
        s += "static const char emulated_name_" + std::to_string(i) + "[" +
             std::to_string(name_mark(i).size() + NAME_BYTES) + "] = \"" + name_mark(i) + kernels[i].name + "\";\n";
    s += "static const emulated::Kernel emulated_kernels[] = {\n";
    for (size_t i = 0; i < kernels.size(); i++) {
        const Found &k = kernels[i];
        const std::string arguments = "decltype(emulated_arguments(" + k.name + "))";
        const std::string bounds = "EmulatedBounds(" + k.bounds + ")";
        s += "{emulated_name_" + std::to_string(i) + " + " + std::to_string(name_mark(i).size()) + ", [](void **p) { " +
             arguments + "::run(" + k.name + ", p); }, " + arguments + "::count, " + arguments + "::bytes, " + bounds +
             ".threads, " + bounds + ".blocks},\n";
    }
    s += "{}};\nstatic __thread char emulated_anchor_byte;\n"
         "static void *emulated_anchor() { return &emulated_anchor_byte; }\n";
    if (dynamic_shared)
        s += "alignas(1024) __thread u8 shared_bytes[emulated::SHARED_MOST + emulated::FENCE_BYTES];\n"
             "static u8 *emulated_dynamic() { return shared_bytes; }\n";
    s += "extern \"C\" __attribute__((visibility(\"default\"))) const emulated::Module emulated_module = {\n"
         "emulated::ABI, " +
         std::to_string(kernels.size()) + ", emulated_kernels, " + (dynamic_shared ? "emulated_dynamic" : "nullptr") +
         ", emulated_anchor};\n";
    return s;
}

/* ==== Objects that are kept ==== */

/* Every whole word `from`. */
static std::string with_word(const std::string &s, const std::string &from, const std::string &to) {
    std::string out;
    size_t done = 0;
    for (size_t at = 0; (at = s.find(from, at)) != std::string::npos; at += from.size())
        if ((at == 0 || !is_word(s[at - 1])) && (at + from.size() == s.size() || !is_word(s[at + from.size()]))) {
            out.append(s, done, at - done).append(to);
            done = at + from.size();
        }
    return out.append(s, done, std::string::npos);
}

/* The file of what is made of a text, whatever its kernels' names and the folder are; "": it is not kept. */
static std::string kept_path(std::string text, std::vector<Found> kernels, const std::string &rest,
                             const std::string &folder) {
    for (size_t i = 0; i < kernels.size(); i++) {
        if (kernels[i].name.size() >= NAME_BYTES)
            return "";
        const std::string name = "@" + std::to_string(i);
        text = with_word(text, kernels[i].name, name);
        kernels[i].name = name;
    }
    for (size_t at; (at = text.find(folder)) != std::string::npos;)
        text.erase(at, folder.size());
    text += table_of(kernels, true) + rest;
    const XXH128_hash_t h = XXH3_128bits(text.data(), text.size());
    char digits[40];
    snprintf(digits, sizeof digits, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
    return std::string(EMULATED_KEPT "/") + digits;
}

/* With the names of these kernels; "": there is none. */
static std::string read_kept(const std::string &path, const std::vector<Found> &kernels) {
    std::string object = path.empty() ? "" : read_file(path);
    for (size_t i = 0; i < kernels.size() && !object.empty(); i++) {
        const size_t at = object.find(name_mark(i));
        if (at == std::string::npos)
            return "";
        std::string name = kernels[i].name;
        name.resize(NAME_BYTES, '\0');
        object.replace(at + name_mark(i).size(), NAME_BYTES, name);
    }
    return object;
}

/* Whole or not at all; best effort. */
static void keep(const std::string &path, const std::string &object, const Folder &folder) {
    std::error_code none;
    std::filesystem::create_directories(EMULATED_KEPT, none);
    write_file(folder + "/kept", object);
    if (!path.empty())
        std::filesystem::rename(folder + "/kept", path, none);
}

/* ==== Messages ==== */

/* FILE:LINE:COLUMN: error: .. as FILE(LINE): error: .. */
static std::string as_nvrtc(const std::string &line) {
    for (const char *kind : {": error: ", ": warning: ", ": note: ", ": fatal error: "}) {
        const size_t end = line.find(kind);
        const size_t column = end == std::string::npos ? end : line.rfind(':', end - 1);
        const size_t number =
            column == std::string::npos || column == 0 ? std::string::npos : line.rfind(':', column - 1);
        if (number != std::string::npos)
            return line.substr(0, number) + "(" + line.substr(number + 1, column - number - 1) + ")" + line.substr(end);
    }
    return line;
}

static std::string all_as_nvrtc(const std::string &log) {
    std::istringstream in(log);
    std::string all, line;
    while (std::getline(in, line))
        all += as_nvrtc(line) + "\n";
    return all;
}

/* ==== Compiling ==== */

static Result compile(Program &p, const Folder &folder, const std::vector<std::string> &definitions) {
    static const std::vector<std::string> how = {"-std=c++17",
                                                 EMULATED_OPTIMISE,
                                                 "-fPIC",
                                                 "-shared",
                                                 "-fvisibility=hidden",
                                                 "-fno-gnu-unique",
                                                 "-fno-exceptions",
                                                 "-fno-rtti",
                                                 "-fno-strict-aliasing",
                                                 "-ffp-contract=off",
                                                 "-fno-math-errno",
                                                 "-Wno-unknown-pragmas",
                                                 "-Wno-narrowing",
                                                 "-fno-diagnostics-show-caret"};
    write_file(folder + "/in.cu", "#line 1 \"" + p.name + "\"\n" + p.source);
    std::vector<std::string> preprocess = {"-E",
                                           "-std=c++17",
                                           "-DEMULATED_MODULE",
                                           "-x",
                                           "c++",
                                           "-I",
                                           EMULATED_SOURCES,
                                           "-include",
                                           EMULATED_SOURCES "/tests/kernels/emulator.h"};
    preprocess.insert(preprocess.end(), definitions.begin(), definitions.end());
    preprocess.insert(preprocess.end(), {folder + "/in.cu", "-o", folder + "/in.ii"});
    Result r = compiler(p, folder, preprocess);
    if (r != SUCCESS)
        return r;
    std::string text = read_file(folder + "/in.ii"), options;
    const std::vector<Found> kernels = find_kernels(text);
    for (const std::string &o : how)
        options += o + " ";
    const std::string kept = kept_path(text, kernels, options, folder.path);
    p.cubin = read_kept(kept, kernels);
    if (!p.cubin.empty())
        return SUCCESS;
    const bool dynamic_shared = text.find("shared_bytes") != std::string::npos;
    write_file(folder + "/out.ii", text + table_of(kernels, dynamic_shared));
    std::vector<std::string> arguments = how;
    arguments.insert(arguments.end(), {"-x", "c++-cpp-output", folder + "/out.ii", "-o", folder + "/out.so"});
    r = compiler(p, folder, arguments);
    if (r == SUCCESS) {
        p.cubin = read_file(folder + "/out.so");
        keep(kept, p.cubin, folder);
    }
    return r;
}

/* -DNAME, -D NAME, --define-macro=NAME, --define-macro NAME */
static std::vector<std::string> definitions_of(int n, const char *const *options) {
    std::vector<std::string> all;
    for (int i = 0; i < n; i++) {
        const std::string o = options[i];
        const bool apart = (o == "-D" || o == "--define-macro") && i + 1 < n;
        if (apart)
            all.push_back("-D" + std::string(options[++i]));
        else if (o.rfind("--define-macro=", 0) == 0)
            all.push_back("-D" + o.substr(15));
        else if (o.rfind("-D", 0) == 0)
            all.push_back(o);
    }
    return all;
}

/* ==== Entry points ==== */

NVRTC int nvrtcVersion(int *major, int *minor) {
    *major = 13;
    *minor = 0;
    return SUCCESS;
}

static const int archs[] = {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};

NVRTC int nvrtcGetNumSupportedArchs(int *n) {
    *n = sizeof archs / sizeof archs[0];
    return SUCCESS;
}
NVRTC int nvrtcGetSupportedArchs(int *to) {
    memcpy(to, archs, sizeof archs);
    return SUCCESS;
}
NVRTC const char *nvrtcGetErrorString(int result) {
    switch (result) {
    case SUCCESS: return "NVRTC_SUCCESS";
    case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
    case COMPILATION: return "NVRTC_ERROR_COMPILATION";
    case CANCELLED: return "NVRTC_ERROR_CANCELLED";
    default: return "NVRTC_ERROR unknown";
    }
}

NVRTC int nvrtcCreateProgram(Program **program, const char *source, const char *name, int n_headers,
                             const char *const *, const char *const *) {
    if (n_headers)
        return INVALID_INPUT;
    *program = new Program();
    (*program)->source = source;
    (*program)->name = name ? name : "default_program";
    return SUCCESS;
}
NVRTC int nvrtcDestroyProgram(Program **program) {
    delete *program;
    *program = nullptr;
    return SUCCESS;
}
NVRTC int nvrtcSetFlowCallback(Program *p, Cancelled *callback, void *payload) {
    p->cancelled = callback;
    p->payload = payload;
    return SUCCESS;
}

NVRTC int nvrtcCompileProgram(Program *p, int n_options, const char *const *options) {
    const Folder folder;
    if (folder.path.empty()) {
        p->log = EMULATED_FOLDERS ": no folder can be made there\n";
        return COMPILATION;
    }
    const Result r = compile(*p, folder, definitions_of(n_options, options));
    p->log = all_as_nvrtc(p->log);
    return r;
}

NVRTC int nvrtcGetCUBINSize(Program *p, size_t *bytes) {
    *bytes = p->cubin.size();
    return SUCCESS;
}
NVRTC int nvrtcGetCUBIN(Program *p, char *cubin) {
    memcpy(cubin, p->cubin.data(), p->cubin.size());
    return SUCCESS;
}
NVRTC int nvrtcGetProgramLogSize(Program *p, size_t *bytes) {
    *bytes = p->log.size() + 1;
    return SUCCESS;
}
NVRTC int nvrtcGetProgramLog(Program *p, char *log) {
    memcpy(log, p->log.c_str(), p->log.size() + 1);
    return SUCCESS;
}
