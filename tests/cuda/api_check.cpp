// Compiled, never run: csrc/cuda/driver/api.h says what cuda.h says. The two have types of their own, so
// signatures are compared by what a call passes: integers and enums by size, pointers by depth and target.
#include <type_traits>

#include "cuda/driver/api.h"

namespace ours = lora_mmap::cuda;

// The names as the library looks them up, before cuda.h makes macros of them.
namespace signature {
#define DECLARE(name, symbol, since, parameters) \
  namespace symbol##_of_ours {                   \
    using namespace lora_mmap::cuda;             \
    using Type = CUresult parameters;            \
  }
LORA_MMAP_CUDA_FUNCTIONS(DECLARE)
constexpr unsigned kPortable = ours::CU_MEMHOSTALLOC_PORTABLE;  // a macro there
}  // namespace signature

#include <cuda.h>

template <class T>
constexpr bool kPlain = std::is_integral_v<T> || std::is_enum_v<T>;

// Handles point to what neither side defines.
template <class T, class = void>
struct IsOpaque : std::is_class<T> {};
template <class T>
struct IsOpaque<T, std::void_t<decltype(sizeof(T))>> : std::false_type {};

template <class A, class B>
constexpr bool same() {
  using P = std::remove_pointer_t<A>;
  using Q = std::remove_pointer_t<B>;
  if constexpr (std::is_pointer_v<A> != std::is_pointer_v<B>) {
    return false;
  } else if constexpr (!std::is_pointer_v<A>) {
    return std::is_same_v<A, B> || (kPlain<A> && kPlain<B> && sizeof(A) == sizeof(B));
  } else if constexpr (std::is_const_v<P> != std::is_const_v<Q>) {
    return false;
  } else if constexpr (std::is_void_v<P> || std::is_void_v<Q>) {
    return std::is_same_v<P, Q>;
  } else if constexpr (IsOpaque<P>::value || IsOpaque<Q>::value) {
    return IsOpaque<P>::value && IsOpaque<Q>::value;
  } else {
    return same<std::remove_const_t<P>, std::remove_const_t<Q>>();
  }
}

template <class A, class B>
struct SameSignature : std::false_type {};
template <class R, class... Args, class S, class... Others>
struct SameSignature<R(Args...), S(Others...)> {
  static constexpr bool arguments() {
    if constexpr (sizeof...(Args) == sizeof...(Others))
      return (same<Args, Others>() && ...);
    else
      return false;
  }
  static constexpr bool value = same<R, S>() && arguments();
};

#define CHECK(name, symbol, since, parameters)                                               \
  static_assert(SameSignature<signature::symbol##_of_ours::Type, decltype(::symbol)>::value, \
                #symbol " has another signature");
LORA_MMAP_CUDA_FUNCTIONS(CHECK)

#define SAME_VALUE(name) static_assert(static_cast<long long>(ours::name) == static_cast<long long>(::name))
SAME_VALUE(CUDA_SUCCESS);
SAME_VALUE(CUDA_ERROR_INVALID_VALUE);
SAME_VALUE(CUDA_ERROR_NOT_INITIALIZED);
SAME_VALUE(CUDA_ERROR_STUB_LIBRARY);
SAME_VALUE(CUDA_ERROR_NO_DEVICE);
SAME_VALUE(CUDA_ERROR_INVALID_DEVICE);
SAME_VALUE(CUDA_ERROR_NOT_READY);
SAME_VALUE(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
SAME_VALUE(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME_VALUE(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME_VALUE(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME_VALUE(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
SAME_VALUE(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
SAME_VALUE(CU_STREAM_CAPTURE_STATUS_NONE);
SAME_VALUE(CU_STREAM_CAPTURE_MODE_RELAXED);
SAME_VALUE(CU_STREAM_NON_BLOCKING);
SAME_VALUE(CU_EVENT_DEFAULT);
SAME_VALUE(CU_EVENT_DISABLE_TIMING);
SAME_VALUE(CU_GET_PROC_ADDRESS_LEGACY_STREAM);
static_assert(signature::kPortable == CU_MEMHOSTALLOC_PORTABLE);
static_assert(same<ours::CUdeviceptr, ::CUdeviceptr>() && same<ours::CUdevice, ::CUdevice>());

// What the check has to find.
#if defined(WRONG_VALUE)
static_assert(static_cast<int>(ours::CUDA_ERROR_NOT_READY) == static_cast<int>(::CUDA_ERROR_NOT_FOUND));
#elif defined(WRONG_SIZE)
static_assert(SameSignature<CUresult(int), CUresult(long)>::value);
#elif defined(WRONG_ARITY)
static_assert(SameSignature<CUresult(int), CUresult(int, int)>::value);
#elif defined(WRONG_POINTER)
static_assert(SameSignature<CUresult(ours::CUstream*), CUresult(::CUstream)>::value);
#endif
