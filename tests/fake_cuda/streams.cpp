// The queues: what waits for what, and what runs when.
#include <chrono>

#include "world.h"

namespace fake {
namespace {

double now_milliseconds() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

bool runnable(const Stream& stream) {
  return !stream.running && !stream.queue.empty() &&
         (!stream.queue.front().waits_for || stream.queue.front().waits_for->done);
}

// The operation leaves the queue when it is done: until then its memory counts as in use.
void run_front(Stream& stream) {
  Operation& operation = stream.queue.front();
  check_memory_is_used_in_time(operation);
  if (operation.run) operation.run();
  if (operation.records) {
    operation.records->done = true;
    operation.records->milliseconds = now_milliseconds();
  }
  stream.queue.pop_front();
}

// Runs the stream until `enough`, and what it waits for. CUDA_SUCCESS, or a violation for a cycle.
template <class Enough>
CUresult advance(Stream& stream, Enough enough) {
  if (stream.running) {
    violation("streams wait for each other in a circle");
    return kNotSupported;
  }
  stream.running = true;
  CUresult result = CUDA_SUCCESS;
  while (result == CUDA_SUCCESS && !enough() && !stream.queue.empty()) {
    const std::shared_ptr<Record> waits_for = stream.queue.front().waits_for;
    if (waits_for && !waits_for->done) result = run_until(waits_for);
    if (result == CUDA_SUCCESS) run_front(stream);
  }
  stream.running = false;
  return result;
}

std::shared_ptr<Record> mark_end(Stream& stream) {
  auto record = std::make_shared<Record>(Record{&stream});
  Operation operation{"a mark", {}, {}, record, {}};
  stream.queue.push_back(std::move(operation));
  return record;
}

void wait_for_end_of(Stream& other, Stream& stream) {
  if (other.queue.empty()) return;
  stream.queue.push_back({"the default stream's wait", {}, mark_end(other), {}, {}});
}

// The legacy default stream begins when every blocking stream has ended, and they wait for it likewise.
void order_with_default_stream(Stream& stream) {
  Context& context = *stream.context;
  if (&stream == context.default_stream.get()) {
    for (Stream* other : context.streams)
      if (other != &stream && other->blocking) wait_for_end_of(*other, stream);
  } else if (stream.blocking) {
    wait_for_end_of(*context.default_stream, stream);
  }
}

}  // namespace

Stream* find_stream(Context& context, CUstream handle) {
  if (!handle) return context.default_stream.get();
  auto* const stream = reinterpret_cast<Stream*>(handle);
  return world().streams.count(stream) && stream->context == &context ? stream : nullptr;
}

std::unique_ptr<Stream> make_stream(Context& context, bool blocking) {
  auto stream = std::make_unique<Stream>();
  stream->context = &context;
  stream->blocking = blocking;
  context.streams.insert(stream.get());
  return stream;
}

void forget_stream(Stream& stream) {
  if (!stream.queue.empty()) violation("a stream is destroyed with " + stream.queue.front().name + " in it");
  run_all(stream);
  world().streams.erase(&stream);
  stream.context->streams.erase(&stream);
}

void enqueue(Stream& stream, Operation operation) {
  if (stream.capturing) {
    violation(operation.name + " goes into a stream that is being captured");
    return;
  }
  order_with_default_stream(stream);
  stream.queue.push_back(std::move(operation));
  if (world().mode == Mode::eager) run_some();
}

void enqueue_record(Stream& stream, std::shared_ptr<Record> record) {
  record->stream = &stream;
  enqueue(stream, {"an event", {}, {}, std::move(record), {}});
}

CUresult run_all(Stream& stream) {
  return advance(stream, [] { return false; });
}

CUresult run_until(const std::shared_ptr<Record>& record) {
  if (record->done) return CUDA_SUCCESS;
  return advance(*record->stream, [&] { return record->done; });
}

void run_some() {
  World& w = world();
  if (w.mode == Mode::lazy) return;
  for (bool again = true; again;) {
    again = false;
    for (Stream* stream : w.streams) {
      if (w.mode == Mode::random && w.random() % 4) continue;
      if (!runnable(*stream)) continue;
      run_front(*stream);
      again = true;
    }
  }
}

}  // namespace fake
