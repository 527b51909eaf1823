// How tests steer the fake driver. Every function may be called from any thread; texts returned are valid
// until the same thread asks for the next. Devices count from 0, streams are driver handles (0: the default
// stream).
//
// Device addresses are host addresses. A stream is a queue of operations that run when the mode lets them:
//   eager    at once, as far as what they wait for has run;
//   lazy     only what somebody waits for, and what that waits for: a wait that is missing shows;
//   random   as lazy, and before every call some operations of some streams.
// What a real driver would leave undefined is recorded as a violation, and the test looks for those.
#pragma once

#include <cstddef>
#include <cstdint>

#define FAKE_CUDA_CONTROL extern "C" __attribute__((visibility("default")))

// Forgets counts, failures, violations and captures, mode eager. Memory, streams and contexts stay.
FAKE_CUDA_CONTROL void fake_reset();
// Returns 0, or -1 for a mode there is not.
FAKE_CUDA_CONTROL int fake_mode(const char* mode, uint64_t seed);

// From now on, the `nth` call (1: the next) of `function` returns `code` and, unless it destroys something,
// does nothing. "" counts the calls of all functions. nth 0: nothing fails any more.
FAKE_CUDA_CONTROL void fake_fail(const char* function, uint64_t nth, int code);
// The function whose call was made to fail; "" while none was.
FAKE_CUDA_CONTROL const char* fake_failed();
// cuGetProcAddress finds nothing from now on: what is left is dlsym.
FAKE_CUDA_CONTROL void fake_hide_proc_address();

FAKE_CUDA_CONTROL const char* fake_counts();      // a JSON object: see control.cpp
FAKE_CUDA_CONTROL const char* fake_violations();  // a JSON list of texts

FAKE_CUDA_CONTROL void fake_set_devices(int count);
FAKE_CUDA_CONTROL void fake_set_device(int device, const char* name, int major, int minor);
FAKE_CUDA_CONTROL void fake_set_driver(int version);
// Whether somebody (torch, that is) uses the device's primary context.
FAKE_CUDA_CONTROL void fake_activate(int device, int active);

// torch's side of things. Streams made here are blocking unless `non_blocking`.
FAKE_CUDA_CONTROL void* fake_stream(int device, int non_blocking);
FAKE_CUDA_CONTROL void fake_stream_free(void* stream);
// Runs all that is in the stream, and what that waits for. Returns a CUresult.
FAKE_CUDA_CONTROL int fake_synchronize(int device, void* stream);
// A stream that is captured into a graph, in the mode (0 global, 1 of its thread, 2 relaxed).
FAKE_CUDA_CONTROL void fake_capture(int device, void* stream, int capturing, int mode);

// Device memory as torch's caching allocator hands it out: what was freed on a stream is handed out again on
// it at once, and is really free when the stream gets to that place. Freeing poisons the bytes, there.
FAKE_CUDA_CONTROL void* fake_alloc(int device, void* stream, size_t nbytes);
FAKE_CUDA_CONTROL void fake_free_on_stream(int device, void* stream, void* address);
// Memory of the caller's own that counts as the device's until it is given back.
FAKE_CUDA_CONTROL void fake_adopt(int device, void* address, size_t nbytes);
FAKE_CUDA_CONTROL void fake_disown(void* address);
// Operations on a stream: writes `nbytes` of `value`; copies between device addresses.
FAKE_CUDA_CONTROL void fake_fill(int device, void* stream, void* address, int value, size_t nbytes);
FAKE_CUDA_CONTROL void fake_copy(int device, void* stream, void* to, const void* from, size_t nbytes);

// The calling thread's contexts: puts a device's on top, takes it away, tells whose is on top (-1: nobody's),
// and how many there are.
FAKE_CUDA_CONTROL void fake_push_context(int device);
FAKE_CUDA_CONTROL void fake_pop_context();
FAKE_CUDA_CONTROL int fake_context();
FAKE_CUDA_CONTROL int fake_context_depth();
