#include "fuse/isa.h"

#include <cstdlib>

#include "base/error.h"
#include "fuse/element_avx2.h"
#include "fuse/packed.h"
#include "fuse/scalar.h"
#include "fuse/tile_avx2.h"
#include "fuse/tile_avx512.h"

namespace lora_mmap {
namespace {

#if defined(__x86_64__)
// F16C is not among the names of __builtin_cpu_supports in every compiler we build with, but every CPU with
// AVX2 and FMA has it. The names stand for what the operating system saves, too.
bool cpu_has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool cpu_has_avx512() {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("bmi2");
}
#else
bool cpu_has_avx2() {
  return false;
}
bool cpu_has_avx512() {
  return false;
}
#endif

std::vector<const Kernel*> find_kernels() {
  std::vector<const Kernel*> found;
  if (const TileOps* ops = avx512_tile_ops(); ops && cpu_has_avx512()) {
    static const PackedKernel avx512("avx512", *ops, *avx2_element_ops());
    found.push_back(&avx512);
  }
  if (const TileOps* ops = avx2_tile_ops(); ops && cpu_has_avx2()) {
    static const PackedKernel avx2("avx2", *ops, *avx2_element_ops());
    found.push_back(&avx2);
  }
  static const ScalarKernel scalar;
  found.push_back(&scalar);
  return found;
}

}  // namespace

const std::vector<const Kernel*>& available_kernels() {
  static const std::vector<const Kernel*> kernels = find_kernels();
  return kernels;
}

const Kernel& choose_kernel(const std::optional<std::string>& name) {
  const char* forced = std::getenv("LORA_MMAP_ISA");
  const std::string wanted = name ? *name : (forced ? forced : "");
  if (wanted.empty()) return *available_kernels().front();
  std::string known;
  for (const Kernel* kernel : available_kernels()) {
    if (kernel->name() == wanted) return *kernel;
    known.append(known.empty() ? "" : ", ").append(kernel->name());
  }
  throw Error(Fault::argument, std::string(name ? "[fuse] isa" : "[fuse] LORA_MMAP_ISA") + " is '" + wanted +
                                   "': this CPU and build have " + known);
}

}  // namespace lora_mmap
