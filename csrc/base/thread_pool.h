// Persistent worker threads, shared by every call in the process and started as they are first asked for.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace lora_mmap {

// A reference to a callable void(int worker, int64_t index); it must outlive the call it is passed to.
class LoopBody {
 public:
  template <class F, class = std::enable_if_t<!std::is_same_v<std::remove_cvref_t<F>, LoopBody>>>
  LoopBody(F&& f)  // NOLINT: implicit, so that a lambda can be passed
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, int worker, int64_t index) {
          (*static_cast<std::remove_reference_t<F>*>(object))(worker, index);
        }) {}
  void operator()(int worker, int64_t index) const { call_(object_, worker, index); }

 private:
  void* object_;
  void (*call_)(void*, int, int64_t);
};

// Runs body(worker, index) once for every index in [0, count), handed out in increasing order, on at most
// `threads` threads: the caller (worker 0) and up to threads - 1 others, each with its own worker number
// below `threads`. Returns when all have finished. The first exception that a body throws stops the handing
// out and is rethrown here.
//
// Safe from any number of threads at once: the calls share the workers, and each caller makes progress alone
// if need be. Inside a body it runs serially as worker 0. After fork() the child starts threads of its own.
// Workers are joined at process exit and block every signal. Where the system refuses a thread, fewer run.
void parallel_for(int threads, int64_t count, LoopBody body);

}  // namespace lora_mmap
