#include "world.h"

#include <unistd.h>

namespace fake {
namespace {

const pid_t loaded_in = getpid();
constexpr int kMostDevices = 256;  // whole suites give every case a fresh one

bool some_capture_is_global(const World& w) {
  for (const Stream* stream : w.streams)
    if (stream->capturing && stream->capture_mode == 0) return true;
  return false;
}

CUresult injected_failure(World& w, const std::string& name) {
  Failure& failure = w.failure;
  if (failure.left == 0 || (!failure.function.empty() && failure.function != name)) return CUDA_SUCCESS;
  if (--failure.left > 0) return CUDA_SUCCESS;
  failure.failed = name;
  return failure.code;
}

}  // namespace

World::World() {
  for (int i = 0; i < kMostDevices; ++i) {
    Device& device = devices.emplace_back();
    device.context.device = i;
    device.context.default_stream = make_stream(device.context, true);
    device.active = i < 2;
    streams.insert(device.context.default_stream.get());
  }
}

World& world() {
  static World* const world = new World;  // outlives every destructor that may still call
  return *world;
}

void violation(const std::string& what) {
  world().violations.push_back(what);
}

std::vector<Context*>& context_stack() {
  thread_local std::vector<Context*> stack;
  return stack;
}

Context* current_context() {
  return context_stack().empty() ? nullptr : context_stack().back();
}

CUstreamCaptureMode& capture_mode() {
  thread_local CUstreamCaptureMode mode = CUstreamCaptureMode(0);
  return mode;
}

Call::Call(const char* name, int needs) : lock_(world().mutex) {
  World& w = world();
  ++w.calls[name];
  if (getpid() != loaded_in) {
    result_ = CUDA_ERROR_NOT_INITIALIZED;
    return;
  }
  result_ = injected_failure(w, name);
  if (result_ != CUDA_SUCCESS) {
    only_reported_ = needs & destroys;
    if (!only_reported_) return;
  }
  if ((needs & context) && !current_context()) {
    result_ = kInvalidContext;
    only_reported_ = false;
    violation(std::string(name) + " without a current context");
    return;
  }
  if ((needs & unsafe_in_capture) && capture_mode() != CU_STREAM_CAPTURE_MODE_RELAXED &&
      some_capture_is_global(w)) {
    result_ = kCaptureUnsafe;
    only_reported_ = false;
    ++w.captures_broken;
    violation(std::string(name) + " breaks a capture that goes on elsewhere");
    return;
  }
  run_some();
}

}  // namespace fake
