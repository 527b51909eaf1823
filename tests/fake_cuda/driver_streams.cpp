// The driver's functions for streams and events.
#include "entry_points.h"
#include "world.h"

using namespace fake;

namespace {

Event* find_event(CUevent handle) {
  auto* const event = reinterpret_cast<Event*>(handle);
  return world().events.count(event) ? event : nullptr;
}

}  // namespace

FAKE_DRIVER_ENTRY CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
  const Call call("cuStreamCreate", Call::context);
  if (call.refused()) return call.result();
  Stream* const made = make_stream(*current_context(), !(flags & CU_STREAM_NON_BLOCKING)).release();
  world().streams.insert(made);
  *stream = reinterpret_cast<CUstream>(made);
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuStreamDestroy_v2(CUstream stream) {
  const Call call("cuStreamDestroy", Call::context | Call::destroys);
  if (call.refused()) return call.result();
  Stream* const found = stream ? find_stream(*current_context(), stream) : nullptr;
  if (!found) return kInvalidHandle;
  forget_stream(*found);
  delete found;
  return call.done();
}

FAKE_DRIVER_ENTRY CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  const Call call("cuStreamWaitEvent", Call::context);
  if (call.refused()) return call.result();
  Stream* const waiting = find_stream(*current_context(), stream);
  const Event* const awaited = find_event(event);
  if (!waiting || !awaited) return kInvalidHandle;
  if (awaited->last) enqueue(*waiting, {"a wait", {}, awaited->last, {}, {}});
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuStreamSynchronize(CUstream stream) {
  const Call call("cuStreamSynchronize", Call::context | Call::unsafe_in_capture);
  if (call.refused()) return call.result();
  Stream* const found = find_stream(*current_context(), stream);
  return found ? run_all(*found) : kInvalidHandle;
}

FAKE_DRIVER_ENTRY CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
  const Call call("cuStreamIsCapturing", Call::context);
  if (call.refused()) return call.result();
  const Stream* const found = find_stream(*current_context(), stream);
  if (!found) return kInvalidHandle;
  *status = CUstreamCaptureStatus(found->capturing ? 1 : 0);
  if (found->capturing || found != current_context()->default_stream.get()) return CUDA_SUCCESS;
  for (const Stream* other : current_context()->streams)
    if (other->capturing && other->blocking) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuEventCreate(CUevent* event, unsigned flags) {
  const Call call("cuEventCreate", Call::context);
  if (call.refused()) return call.result();
  auto* const made = new Event{current_context(), !(flags & CU_EVENT_DISABLE_TIMING), {}};
  world().events.insert(made);
  *event = reinterpret_cast<CUevent>(made);
  return CUDA_SUCCESS;
}

// Legal while a stream has still to reach it: the record lives on.
FAKE_DRIVER_ENTRY CUresult cuEventDestroy_v2(CUevent event) {
  const Call call("cuEventDestroy", Call::context | Call::destroys);
  if (call.refused()) return call.result();
  Event* const found = find_event(event);
  if (!found) return kInvalidHandle;
  world().events.erase(found);
  delete found;
  return call.done();
}

FAKE_DRIVER_ENTRY CUresult cuEventRecord(CUevent event, CUstream stream) {
  const Call call("cuEventRecord", Call::context);
  if (call.refused()) return call.result();
  Event* const found = find_event(event);
  Stream* const recording = find_stream(*current_context(), stream);
  if (!found || !recording || found->context != recording->context) return kInvalidHandle;
  found->last = std::make_shared<Record>();
  enqueue_record(*recording, found->last);
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuEventQuery(CUevent event) {
  const Call call("cuEventQuery", Call::context | Call::unsafe_in_capture);
  if (call.refused()) return call.result();
  const Event* const found = find_event(event);
  if (!found) return kInvalidHandle;
  return !found->last || found->last->done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

FAKE_DRIVER_ENTRY CUresult cuEventSynchronize(CUevent event) {
  const Call call("cuEventSynchronize", Call::context | Call::unsafe_in_capture);
  if (call.refused()) return call.result();
  const Event* const found = find_event(event);
  if (!found) return kInvalidHandle;
  return found->last ? run_until(found->last) : CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuEventElapsedTime(float* milliseconds, CUevent begin, CUevent end) {
  const Call call("cuEventElapsedTime", Call::context);
  if (call.refused()) return call.result();
  const Event* const from = find_event(begin);
  const Event* const to = find_event(end);
  if (!from || !to || !from->timing || !to->timing || !from->last || !to->last) return kInvalidHandle;
  if (!from->last->done || !to->last->done) return CUDA_ERROR_NOT_READY;
  *milliseconds = static_cast<float>(to->last->milliseconds - from->last->milliseconds);
  return CUDA_SUCCESS;
}
