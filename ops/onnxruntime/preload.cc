// libbitsearch_preload.so: with LD_PRELOAD, every session that an unmodified
// program creates through onnxruntime's C or C++ API has the operators.
//
// It stands in front of OrtGetApiBase and exchanges, in the runtime's own table
// of functions, the two that create sessions. They stand at the same place in
// every version, and nothing else of the table is touched or copied, since
// other versions are longer or shorter than the header here.
#include <dlfcn.h>
#include <link.h>
#include <onnxruntime_c_api.h>
#include <sys/mman.h>
#include <unistd.h>

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

// A copy of the options with the operators, or null, and what was wrong.
OrtSessionOptions* WithOperators(const OrtSessionOptions* options) {
  OrtSessionOptions* copy = nullptr;
  OrtStatus* status = options ? api->CloneSessionOptions(options, &copy)
                              : api->CreateSessionOptions(&copy);
  if (!status) status = register_operators(copy, base);
  if (!status) return copy;
  Say("a session goes without the operators", api->GetErrorMessage(status));
  api->ReleaseStatus(status);
  if (copy) api->ReleaseSessionOptions(copy);
  return nullptr;
}

template <class Create>
OrtStatus* Created(const OrtSessionOptions* options, Create with) {
  OrtSessionOptions* copy = WithOperators(options);
  OrtStatus* status = with(copy ? copy : options);
  if (copy) api->ReleaseSessionOptions(copy);
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

Register* LoadOperators() {
  Dl_info self;
  char path[4096];
  if (!dladdr(reinterpret_cast<void*>(&Say), &self)) return nullptr;
  const char* slash = std::strrchr(self.dli_fname, '/');
  const int folder = slash ? static_cast<int>(slash + 1 - self.dli_fname) : 0;
  std::snprintf(path, sizeof path, "%.*s%s", folder, self.dli_fname, kLibrary);
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

}  // namespace

extern "C" __attribute__((visibility("default"))) const OrtApiBase*
OrtGetApiBase() noexcept {
  static const OrtApiBase* const prepared = Prepare();
  return prepared;
}
