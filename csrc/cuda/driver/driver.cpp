#include "cuda/driver/driver.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>

#include "base/error.h"

namespace lora_mmap::cuda {
namespace {

using GetProcAddress = CUresult(const char* name, void** address, int version, uint64_t flags);
using GetProcAddressV2 = CUresult(const char* name, void** address, int version, uint64_t flags, int* found);

// Looks functions up in one library.
class Symbols {
 public:
  explicit Symbols(void* library)
      : library_(library),
        get_(reinterpret_cast<GetProcAddress*>(::dlsym(library, "cuGetProcAddress"))),
        get_v2_(reinterpret_cast<GetProcAddressV2*>(::dlsym(library, "cuGetProcAddress_v2"))) {}

  void* find(const char* name, const char* symbol, int version) const {
    void* address = nullptr;
    int found = 0;
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    if (get_v2_)
      result = get_v2_(name, &address, version, CU_GET_PROC_ADDRESS_LEGACY_STREAM, &found);
    else if (get_)
      result = get_(name, &address, version, CU_GET_PROC_ADDRESS_LEGACY_STREAM);
    return result == CUDA_SUCCESS && address ? address : ::dlsym(library_, symbol);
  }

 private:
  void* library_;
  GetProcAddress* get_;
  GetProcAddressV2* get_v2_;
};

// Null where there is none; `why` says so.
void* open_library(std::string& why) {
  constexpr int kFlags = RTLD_NOW | RTLD_LOCAL;
  if (const char* const path = std::getenv("LORA_MMAP_LIBCUDA")) {
    void* const library = ::dlopen(path, kFlags);
    if (!library) why = std::string("the driver that LORA_MMAP_LIBCUDA names does not load: ") + ::dlerror();
    return library;
  }
  if (void* const library = ::dlopen("libcuda.so.1", kFlags)) return library;
  why = std::string("there is no CUDA driver on this machine: ") + ::dlerror() +
        " (an odd place can be named in LORA_MMAP_LIBCUDA)";
  return ::dlopen("/usr/lib/wsl/lib/libcuda.so.1", kFlags);
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

constexpr const char* kForked =
    "this process was forked from one that had used CUDA, which does not survive a fork: start it with "
    "multiprocessing's 'spawn' or 'forkserver' method";

// Why a library whose functions are all there cannot be used; empty when it can.
std::string initialise(const Driver& driver) {
  const CUresult result = driver.cuInit.result(0);
  switch (result) {
    case CUDA_SUCCESS:
      return {};
    case CUDA_ERROR_NO_DEVICE:
      return "the CUDA driver finds no device (CUDA_VISIBLE_DEVICES can hide them)";
    case CUDA_ERROR_NOT_INITIALIZED:
      return kForked;
    case CUDA_ERROR_STUB_LIBRARY:
      return "the libcuda that was found is the toolkit's stub, not a driver: take the stubs folder off the "
             "library path, or name the driver in LORA_MMAP_LIBCUDA";
    default:
      return failure_text(driver, result, "cuInit").substr(Calling::prefix().size());
  }
}

// The one library of this process, and what was found wrong with it.
struct Library {
  static const Library& get() {
    static const Library* const library = new Library;  // never destroyed: other destructors come here
    return *library;
  }

  Library() {
    void* const handle = open_library(why);
    if (!handle) return;
    why.clear();
    loaded = true;
    const char* const missing = driver.find_all(handle);
    int version = 0;
    if (!driver.cuDriverGetVersion.missing() && driver.cuDriverGetVersion.result(&version) == CUDA_SUCCESS)
      driver.version = version;
    if (missing)
      why = "the CUDA driver is too old: it speaks CUDA " + version_text(driver.version) + " and has no " +
            missing + "; update it (the kernels need 525 or newer)";
    else
      why = initialise(driver);
    if (why.empty()) published = this;
  }

  Driver driver;
  bool loaded = false;
  std::string why;
  const pid_t pid = getpid();

  static std::atomic<const Library*> published;  // set when it can be used
};

std::atomic<const Library*> Library::published{nullptr};

}  // namespace

const char* Driver::find_all(void* library) {
  const Symbols symbols(library);
  const char* missing = nullptr;
#define LORA_MMAP_CUDA_FIND(name, symbol, since, parameters)                                      \
  name.address_ = reinterpret_cast<decltype(name.address_)>(symbols.find(#name, #symbol, since)); \
  if (name.missing() && !missing) missing = #name;
  LORA_MMAP_CUDA_FUNCTIONS(LORA_MMAP_CUDA_FIND)
#undef LORA_MMAP_CUDA_FIND
  return missing;
}

const Driver& driver() {
  const Library& library = Library::get();
  if (!library.why.empty()) throw Error(Fault::cuda, Calling::prefix() + library.why);
  if (library.pid != getpid()) throw Error(Fault::cuda, Calling::prefix() + kForked);
  return library.driver;
}

const Driver* loaded_driver() noexcept {
  const Library* const library = Library::published.load(std::memory_order_acquire);
  return library && library->pid == getpid() ? &library->driver : nullptr;
}

DriverReport driver_report() {
  const Library& library = Library::get();
  DriverReport report{library.loaded, library.driver.version, 0, library.why};
  if (!report.why.empty()) return report;
  if (library.pid != getpid()) {
    report.why = kForked;
    return report;
  }
  const CUresult result = library.driver.cuDeviceGetCount.result(&report.devices);
  if (result != CUDA_SUCCESS) report.why = failure_text(library.driver, result, "cuDeviceGetCount");
  return report;
}

}  // namespace lora_mmap::cuda
