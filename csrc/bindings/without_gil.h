// Native work that other Python threads do not have to wait for.
#pragma once

#include <Python.h>

#include <exception>

namespace lora_mmap::bindings {

// Runs `work` without the GIL. Not gil_scoped_release: when the interpreter exits under a daemon thread,
// taking the GIL back unwinds that thread, which a destructor would turn into std::terminate.
template <class Work>
void without_gil(Work&& work) {
  std::exception_ptr failure;
  PyThreadState* state = PyEval_SaveThread();
  try {
    work();
  } catch (...) {
    failure = std::current_exception();
  }
  PyEval_RestoreThread(state);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace lora_mmap::bindings
