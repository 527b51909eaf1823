#include "cuda/recorded_event.h"

#include <exception>

#include "base/error.h"

namespace lora_mmap::cuda {
namespace {

constexpr const char* kFunction = "CudaEvent";

Event record(Device& device, CUstream stream, Timing timing) {
  const CurrentContext current = device.enter("cuda_event");
  device.refuse_capture(stream);
  Event event(timing);
  event.record(stream);
  return event;
}

}  // namespace

RecordedEvent::RecordedEvent(Device& device, CUstream stream, Timing timing)
    : device_(device), timing_(timing), event_(record(device, stream, timing)) {}

RecordedEvent::~RecordedEvent() {
  if (!loaded_driver()) return;
  try {
    const CurrentContext current = device_.enter(kFunction);
    const Event destroyed_in_the_context = std::move(event_);
  } catch (const Error&) {
    event_.abandon();
  }
}

bool RecordedEvent::ready() const {
  const CurrentContext current = device_.enter(kFunction);
  return event_.ready();
}

void RecordedEvent::wait() const {
  const CurrentContext current = device_.enter(kFunction);
  event_.wait();
}

float RecordedEvent::elapsed_ms(const RecordedEvent& since) const {
  const CurrentContext current = device_.enter(kFunction);
  if (timing_ == Timing::no || since.timing_ == Timing::no || &device_ != &since.device_)
    throw Error(
        Fault::argument,
        Calling::prefix() + "elapsed_ms takes two events of one device that were made with timing=True");
  float milliseconds = 0;
  driver().cuEventElapsedTime(&milliseconds, since.get(), get());
  return milliseconds;
}

}  // namespace lora_mmap::cuda
