// What tests call: see fake.h.
#include <cstdlib>
#include <cstring>

#include "fake.h"
#include "world.h"

using namespace fake;

namespace {

constexpr size_t kAlignment = 512;  // torch's
constexpr int kPoison = 0xDB;

using Locked = std::lock_guard<std::recursive_mutex>;

const char* keep(std::string text) {
  thread_local std::string kept;
  kept = std::move(text);
  return kept.c_str();
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

class JsonObject {
 public:
  void add(const std::string& name, const std::string& json) {
    text_ += (text_.empty() ? "" : ", ") + quoted(name) + ": " + json;
  }
  void add(const std::string& name, uint64_t number) { add(name, std::to_string(number)); }
  std::string text() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

Context& context_of(int device) {
  return world().devices.at(static_cast<size_t>(device)).context;
}

Stream& stream_of(int device, void* handle) {
  Stream* const stream = find_stream(context_of(device), static_cast<CUstream>(handle));
  if (!stream) std::abort();  // the test is wrong
  return *stream;
}

Range range_of(const void* address, size_t nbytes) {
  return {static_cast<const std::byte*>(address), nbytes};
}

std::shared_ptr<DeviceMemory> reusable(int device, const Stream& stream, size_t nbytes) {
  for (const auto& [begin, memory] : world().memory)
    if (memory->freed && memory->device == device && memory->stream == &stream &&
        memory->range.nbytes == nbytes)
      return memory;
  return nullptr;
}

}  // namespace

void fake_reset() {
  const Locked lock(world().mutex);
  World& w = world();
  for (Stream* stream : w.streams) {
    stream->capturing = false;
    run_all(*stream);
  }
  w.mode = Mode::eager;
  w.failure = {};
  w.calls.clear();
  w.violations.clear();
  w.bytes_to_device = w.bytes_to_host = w.launches = w.captures_broken = 0;
}

int fake_mode(const char* mode, uint64_t seed) {
  const Locked lock(world().mutex);
  const std::string name = mode;
  if (name != "eager" && name != "lazy" && name != "random") return -1;
  world().mode = name == "eager" ? Mode::eager : name == "lazy" ? Mode::lazy : Mode::random;
  world().random.seed(seed);
  run_some();
  return 0;
}

void fake_fail(const char* function, uint64_t nth, int code) {
  const Locked lock(world().mutex);
  world().failure = {function, nth, CUresult(code), {}};
}

const char* fake_failed() {
  const Locked lock(world().mutex);
  return keep(world().failure.failed);
}

void fake_hide_proc_address() {
  world().proc_address = false;
}

const char* fake_counts() {
  const Locked lock(world().mutex);
  const World& w = world();
  JsonObject counts;
  JsonObject calls;
  for (const auto& [name, count] : w.calls) calls.add(name, count);
  counts.add("calls", calls.text());
  size_t pinned = 0;
  for (const auto& [begin, nbytes] : w.pinned) pinned += nbytes;
  counts.add("pinned_nbytes", pinned);
  counts.add("pinned", w.pinned.size());
  counts.add("events", w.events.size());
  counts.add("streams", w.streams.size() - w.devices.size());
  counts.add("modules", w.modules.size());
  counts.add("contexts_pushed", static_cast<uint64_t>(w.contexts_pushed));
  counts.add("bytes_to_device", w.bytes_to_device);
  counts.add("bytes_to_host", w.bytes_to_host);
  counts.add("launches", w.launches);
  size_t pending = 0;
  for (const Stream* stream : w.streams) pending += stream->queue.size();
  counts.add("pending", pending);
  return keep(counts.text());
}

const char* fake_violations() {
  const Locked lock(world().mutex);
  std::string list;
  for (const std::string& text : world().violations) list += (list.empty() ? "" : ", ") + quoted(text);
  return keep("[" + list + "]");
}

void fake_set_devices(int count) {
  const Locked lock(world().mutex);
  world().n_devices = count;
}

void fake_set_device(int device, const char* name, int major, int minor) {
  const Locked lock(world().mutex);
  Device& changed = world().devices.at(static_cast<size_t>(device));
  changed.name = name;
  changed.major = major;
  changed.minor = minor;
}

void fake_set_driver(int version) {
  const Locked lock(world().mutex);
  world().version = version;
}

void fake_activate(int device, int active) {
  const Locked lock(world().mutex);
  world().devices.at(static_cast<size_t>(device)).active = active;
}

void* fake_stream(int device, int non_blocking) {
  const Locked lock(world().mutex);
  Stream* const stream = make_stream(context_of(device), !non_blocking).release();
  world().streams.insert(stream);
  return stream;
}

void fake_stream_free(void* handle) {
  const Locked lock(world().mutex);
  auto* const stream = static_cast<Stream*>(handle);
  run_all(*stream);
  forget_stream(*stream);
  delete stream;
}

int fake_synchronize(int device, void* stream) {
  const Locked lock(world().mutex);
  return run_all(stream_of(device, stream));
}

void fake_capture(int device, void* stream, int capturing, int mode) {
  const Locked lock(world().mutex);
  stream_of(device, stream).capturing = capturing;
  stream_of(device, stream).capture_mode = mode;
}

void* fake_alloc(int device, void* handle, size_t nbytes) {
  const Locked lock(world().mutex);
  Stream& stream = stream_of(device, handle);
  nbytes = (nbytes + kAlignment - 1) / kAlignment * kAlignment;
  if (const auto memory = reusable(device, stream, nbytes)) {
    memory->freed = false;
    return const_cast<std::byte*>(memory->range.begin);
  }
  auto* const address = static_cast<std::byte*>(std::aligned_alloc(kAlignment, nbytes));
  if (!address) return nullptr;
  std::memset(address, kPoison, nbytes);
  auto memory = std::make_shared<DeviceMemory>();
  memory->range = {address, nbytes};
  memory->device = device;
  memory->stream = &stream;
  world().memory[address] = std::move(memory);
  return address;
}

// The memory itself stays for the next who asks for as much: a late copy must not end this process.
void fake_free_on_stream(int device, void* handle, void* address) {
  const Locked lock(world().mutex);
  Stream& stream = stream_of(device, handle);
  const std::shared_ptr<DeviceMemory> memory = world().memory.at(static_cast<std::byte*>(address));
  if (memory->freed) violation("device memory is freed twice");
  memory->freed = true;
  memory->stream = &stream;
  ++memory->frees_told;
  Operation poison{"freeing device memory", {}, {}, {}, {}};
  poison.run = [memory, address] {
    std::memset(address, kPoison, memory->range.nbytes);
    ++memory->frees_reached;
  };
  enqueue(stream, std::move(poison));
}

void fake_adopt(int device, void* address, size_t nbytes) {
  const Locked lock(world().mutex);
  auto memory = std::make_shared<DeviceMemory>();
  memory->range = range_of(address, nbytes);
  memory->device = device;
  memory->adopted = true;
  world().memory[memory->range.begin] = std::move(memory);
}

void fake_disown(void* address) {
  const Locked lock(world().mutex);
  const auto found = world().memory.find(static_cast<std::byte*>(address));
  if (found == world().memory.end() || !found->second->adopted)
    return violation("disowned what was not adopted");
  check_not_in_use(found->second->range, "device memory is freed");
  world().memory.erase(found);
}

void fake_fill(int device, void* stream, void* address, int value, size_t nbytes) {
  const Locked lock(world().mutex);
  Operation fill{"a fill", [=] { std::memset(address, value, nbytes); }, {}, {}, {}};
  fill.uses.push_back(use_of(range_of(address, nbytes), fill.name));
  enqueue(stream_of(device, stream), std::move(fill));
}

void fake_copy(int device, void* stream, void* to, const void* from, size_t nbytes) {
  const Locked lock(world().mutex);
  Operation copy{"a copy on the device", [=] { std::memcpy(to, from, nbytes); }, {}, {}, {}};
  copy.uses.push_back(use_of(range_of(to, nbytes), copy.name));
  copy.uses.push_back(use_of(range_of(from, nbytes), copy.name));
  enqueue(stream_of(device, stream), std::move(copy));
}

void fake_push_context(int device) {
  context_stack().push_back(&context_of(device));
}

void fake_pop_context() {
  context_stack().pop_back();
}

int fake_context() {
  return current_context() ? current_context()->device : -1;
}

int fake_context_depth() {
  return static_cast<int>(context_stack().size());
}
