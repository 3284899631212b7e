// libbitsearch_preload.so: with LD_PRELOAD, every session that an unmodified
// program creates through onnxruntime's C or C++ API, or in Python, has the
// operators.
//
// It stands in front of OrtGetApiBase and exchanges, in the runtime's own table
// of functions, the two that create sessions. They stand at the same place in
// every version, and nothing else of the table is touched or copied, since
// other versions are longer or shorter than the header here. The Python package
// calls no such table: there, the class of sessions gets another constructor.
//
// Nothing here needs libstdc++: programs would load it before they look for the
// one that they were made for.
#include <dlfcn.h>
#include <link.h>
#include <onnxruntime_c_api.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>

// Their versions from before glibc 2.34 moved them, so that EL8 has them.
#if defined(__x86_64__)
asm(".symver dlsym, dlsym@GLIBC_2.2.5");
asm(".symver dlopen, dlopen@GLIBC_2.2.5");
asm(".symver dladdr, dladdr@GLIBC_2.2.5");
asm(".symver dlerror, dlerror@GLIBC_2.2.5");
#elif defined(__aarch64__)
asm(".symver dlsym, dlsym@GLIBC_2.17");
asm(".symver dlopen, dlopen@GLIBC_2.17");
asm(".symver dladdr, dladdr@GLIBC_2.17");
asm(".symver dlerror, dlerror@GLIBC_2.17");
#endif

namespace {

using Register = OrtStatus*(OrtSessionOptions*, const OrtApiBase*);

constexpr char kLibrary[] = "libbitsearch_ops.so";  // beside this file

const OrtApiBase* base;
const OrtApi* api;  // with the functions exchanged
Register* register_operators;
decltype(OrtApi::CreateSession) create;
decltype(OrtApi::CreateSessionFromArray) create_from_array;

void Say(const char* what, const char* why) {
  std::fprintf(stderr, "bitsearch_preload: %s: %s\n", what, why);
}

// Registers in the program's own options, since copies lose what a program
// registered itself, before onnxruntime 1.22.
OrtStatus* Equip(OrtSessionOptions* options) {
  static std::atomic_flag busy = ATOMIC_FLAG_INIT;
  while (busy.test_and_set()) sched_yield();  // threads may share options
  OrtStatus* status = register_operators(options, base);
  busy.clear();
  return status;
}

template <class Create>
OrtStatus* Created(const OrtSessionOptions* given, Create with) {
  auto* options = const_cast<OrtSessionOptions*>(given);
  OrtStatus* status = given ? nullptr : api->CreateSessionOptions(&options);
  if (!status) status = Equip(options);
  if (status) {
    Say("a session goes without the operators", api->GetErrorMessage(status));
    api->ReleaseStatus(status);
  }
  status = with(options);
  if (!given && options) api->ReleaseSessionOptions(options);
  return status;
}

OrtStatus* CreateSession(const OrtEnv* env, const ORTCHAR_T* path,
                         const OrtSessionOptions* options,
                         OrtSession** session) noexcept {
  return Created(options, [&](const OrtSessionOptions* used) {
    return create(env, path, used, session);
  });
}

OrtStatus* CreateSessionFromArray(const OrtEnv* env, const void* model,
                                  size_t size, const OrtSessionOptions* options,
                                  OrtSession** session) noexcept {
  return Created(options, [&](const OrtSessionOptions* used) {
    return create_from_array(env, model, size, used, session);
  });
}

// The table is constant data: its pages are made writable for two stores.
bool Exchange() {
  auto* table = const_cast<OrtApi*>(api);
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin =
      reinterpret_cast<uintptr_t>(&table->CreateSession) & ~(page - 1);
  const uintptr_t end =
      reinterpret_cast<uintptr_t>(&table->CreateSessionFromArray + 1);
  auto* start = reinterpret_cast<void*>(begin);
  if (mprotect(start, end - begin, PROT_READ | PROT_WRITE)) return false;
  create = table->CreateSession;
  create_from_array = table->CreateSessionFromArray;
  table->CreateSession = CreateSession;
  table->CreateSessionFromArray = CreateSessionFromArray;
  return true;  // stays writable: whether it was before is not known
}

// The runtime's own function: the next one, or that of a library which the
// program opened for itself alone.
void* RuntimeFunction(const char* name) {
  if (void* found = dlsym(RTLD_NEXT, name)) return found;
  struct Search {
    const char* name;
    void* found;
  } search{name, nullptr};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto* search = static_cast<Search*>(data);
        if (!std::strstr(info->dlpi_name, "libonnxruntime.so")) return 0;
        void* library = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
        if (library) search->found = dlsym(library, search->name);
        return search->found ? 1 : 0;
      },
      &search);
  return search.found;
}

constexpr size_t kLongestPath = 4096;

void LibraryPath(char (&path)[kLongestPath]) {
  Dl_info self;
  const bool known = dladdr(reinterpret_cast<void*>(&Say), &self);
  const char* slash = known ? std::strrchr(self.dli_fname, '/') : nullptr;
  const int folder = slash ? static_cast<int>(slash + 1 - self.dli_fname) : 0;
  std::snprintf(path, sizeof path, "%.*s%s", folder,
                known ? self.dli_fname : "", kLibrary);
}

Register* LoadOperators() {
  char path[kLongestPath];
  LibraryPath(path);
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return nullptr;
  return reinterpret_cast<Register*>(dlsym(library, "RegisterCustomOps"));
}

const OrtApiBase* Prepare() {
  auto* get = reinterpret_cast<const OrtApiBase* (*)()>(
      RuntimeFunction("OrtGetApiBase"));
  if (!get) return nullptr;
  base = get();
  constexpr uint32_t kApiVersion = 17;
  // Asking an older runtime for it would print an error of its own.
  unsigned major = 0, minor = 0;
  std::sscanf(base->GetVersionString(), "%u.%u", &major, &minor);
  if (major == 1 && minor < kApiVersion) {
    Say("does nothing: expected onnxruntime 1.17 or newer, found",
        base->GetVersionString());
    return base;
  }
  api = base->GetApi(kApiVersion);
  register_operators = LoadOperators();
  if (!register_operators)
    Say("does nothing", dlerror());
  else if (!api || !Exchange())
    Say("does nothing: found no table of functions to change in onnxruntime",
        base->GetVersionString());
  return base;
}

// Python's functions, where the program is Python: it says what it imports.
using Audit = int(const char*, void*, void*);
void* (*tuple_item)(void*, intptr_t);
const char* (*utf8)(void*);
void (*clear_error)();
int (*run)(const char*);

template <class Function>
bool Find(Function& function, const char* name) {
  function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
  return function;
}

// Imported after the compiled module, and before anyone can create a session.
constexpr char kSessions[] =
    "onnxruntime.capi.onnxruntime_inference_collection";
constexpr char kEquip[] = R"python(exec('''
import sys
def equip(kind):
    create = kind.__init__
    def __init__(self, options, *rest, **named):
        try:
            options.register_custom_ops_library(library)
        except Exception as error:
            print("bitsearch_preload: a session goes without the operators:", error, file=sys.stderr)
        create(self, options, *rest, **named)
    kind.__init__ = __init__
if runtime := sys.modules.get("onnxruntime.capi.onnxruntime_pybind11_state"):
    equip(runtime.InferenceSession)
''', {"library": r"""%s"""}))python";

int OnAudit(const char* event, void* given, void*) {
  if (std::strcmp(event, "import")) return 0;
  void* module = tuple_item(given, 0);
  const char* name = module ? utf8(module) : nullptr;
  if (!name) clear_error();
  if (!name || std::strcmp(name, kSessions)) return 0;
  char path[kLongestPath], code[sizeof kEquip + sizeof path];
  LibraryPath(path);
  std::snprintf(code, sizeof code, kEquip, path);
  run(code);
  return 0;
}

// Hooks may be added before Python is initialized.
__attribute__((constructor)) void WatchPython() {
  int (*add_hook)(Audit*, void*);
  if (Find(add_hook, "PySys_AddAuditHook") &&
      Find(tuple_item, "PyTuple_GetItem") && Find(utf8, "PyUnicode_AsUTF8") &&
      Find(clear_error, "PyErr_Clear") && Find(run, "PyRun_SimpleString"))
    add_hook(OnAudit, nullptr);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const OrtApiBase*
OrtGetApiBase() noexcept {
  static std::atomic<bool> begun, done;
  static const OrtApiBase* prepared;
  if (!begun.exchange(true)) {
    prepared = Prepare();
    done = true;
  }
  while (!done) sched_yield();  // another thread was first
  return prepared;
}
