// A place in a stream of a device, for owners that do not hold the device's context.
#pragma once

#include <memory>

#include "cuda/driver/device.h"

namespace lora_mmap::cuda {

// Every method enters the device's context itself and throws Error(Fault::cuda). Safe to share between
// threads.
class RecordedEvent {
 public:
  // Records at once what `stream` has been told to do so far. Refuses a stream that is being captured.
  RecordedEvent(Device& device, CUstream stream, Timing timing);
  ~RecordedEvent();
  RecordedEvent(const RecordedEvent&) = delete;
  RecordedEvent& operator=(const RecordedEvent&) = delete;

  CUevent get() const { return event_.get(); }  // good while this lives
  bool ready() const;
  void wait() const;  // blocks this thread

  // Milliseconds between two places that have both been passed. Throws Error(Fault::argument) unless both
  // were made with timing, on one device.
  float elapsed_ms(const RecordedEvent& since) const;

 private:
  Device& device_;
  Timing timing_;
  Event event_;
};

}  // namespace lora_mmap::cuda
