// All that the fake driver knows, under one lock.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cuda/driver/api.h"

namespace fake {

using namespace lora_mmap::cuda;

struct Stream;

// One time that an event was recorded.
struct Record {
  Stream* stream = nullptr;
  bool done = false;
  double milliseconds = 0;
};

struct Range {
  const std::byte* begin = nullptr;
  size_t nbytes = 0;
  bool overlaps(const Range& other) const {
    return begin < other.begin + other.nbytes && other.begin < begin + nbytes;
  }
  bool within(const Range& other) const {
    return begin >= other.begin && begin + nbytes <= other.begin + other.nbytes;
  }
};

// Device memory counts the times that it was freed: told to a stream, and reached by it. What is told to use
// the memory between two frees has to run between them.
struct DeviceMemory {
  Range range;
  int device = 0;
  Stream* stream = nullptr;  // that it was allocated on
  bool adopted = false;
  bool freed = false;  // and not handed out again
  uint64_t frees_told = 0;
  uint64_t frees_reached = 0;
};

struct Use {
  Range range;  // host and device memory alike
  std::shared_ptr<DeviceMemory> memory;
  uint64_t frees_told = 0;
};

struct Operation {
  std::string name;
  std::function<void()> run;
  std::shared_ptr<Record> waits_for;
  std::shared_ptr<Record> records;
  std::vector<Use> uses;
};

struct Context {
  int device = 0;
  int retained = 0;
  std::unique_ptr<Stream> default_stream;
  std::set<Stream*> streams;  // the default one too
};

struct Stream {
  Context* context = nullptr;
  bool blocking = true;
  bool capturing = false;
  int capture_mode = 0;
  bool running = false;  // somewhere below on the stack: a cycle of waits comes back to it
  std::deque<Operation> queue;
};

struct Event {
  Context* context = nullptr;
  bool timing = false;
  std::shared_ptr<Record> last;
};

struct Device {
  std::string name = "Fake H1";
  int major = 9;
  int minor = 0;
  bool active = true;
  Context context;
};

struct Failure {
  std::string function;
  uint64_t left = 0;
  CUresult code = CUDA_SUCCESS;
  std::string failed;
};

enum class Mode { eager, lazy, random };

struct World {
  World();

  std::recursive_mutex mutex;
  int version = 13000;
  bool proc_address = true;
  std::deque<Device> devices;  // addresses stay
  int n_devices = 2;

  Mode mode = Mode::eager;
  std::mt19937_64 random;
  Failure failure;
  std::map<std::string, uint64_t> calls;
  std::vector<std::string> violations;
  uint64_t bytes_to_device = 0;
  uint64_t bytes_to_host = 0;
  uint64_t launches = 0;
  uint64_t captures_broken = 0;
  int64_t contexts_pushed = 0;  // and not popped, on all threads

  std::set<Stream*> streams;  // made and not destroyed; default ones too
  std::set<Event*> events;
  std::set<std::string*> modules;
  std::set<std::string*> functions;
  std::map<const std::byte*, size_t> pinned;
  std::map<const std::byte*, std::shared_ptr<DeviceMemory>> memory;
};

World& world();
void violation(const std::string& what);
Context* current_context();  // of this thread; null where none is
std::vector<Context*>& context_stack();
CUstreamCaptureMode& capture_mode();

// Streams (streams.cpp).
Stream* find_stream(Context& context, CUstream handle);  // null where there is none
std::unique_ptr<Stream> make_stream(Context& context, bool blocking);
void forget_stream(Stream& stream);
void enqueue(Stream& stream, Operation operation);
void enqueue_record(Stream& stream, std::shared_ptr<Record> record);
CUresult run_all(Stream& stream);
CUresult run_until(const std::shared_ptr<Record>& record);
void run_some();  // what the mode lets run without being waited for

// Memory (memory.cpp).
bool is_pinned(const Range& range);
std::shared_ptr<DeviceMemory> device_memory(const Range& range);  // null where nobody allocated it
// What an operation tells that it uses; a violation where the device memory is free.
Use use_of(const Range& range, const std::string& name);
void check_memory_is_used_in_time(const Operation& operation);
void check_not_in_use(const Range& range, const std::string& what);

// One call of the driver: counts it, lets it fail if it is its turn. `destroys`: it takes effect nonetheless.
class Call {
 public:
  enum Needs { nothing = 0, context = 1, unsafe_in_capture = 2, destroys = 4 };
  Call(const char* name, int needs);
  bool refused() const { return result_ != CUDA_SUCCESS && !only_reported_; }
  CUresult result() const { return result_; }
  CUresult done(CUresult result = CUDA_SUCCESS) const { return result == CUDA_SUCCESS ? result_ : result; }

 private:
  std::lock_guard<std::recursive_mutex> lock_;
  CUresult result_ = CUDA_SUCCESS;
  bool only_reported_ = false;
};

constexpr CUresult kOutOfMemory = CUresult(2);
constexpr CUresult kInvalidContext = CUresult(201);
constexpr CUresult kInvalidHandle = CUresult(400);
constexpr CUresult kNotFound = CUresult(500);
constexpr CUresult kNotSupported = CUresult(801);
constexpr CUresult kCaptureUnsafe = CUresult(900);

}  // namespace fake
