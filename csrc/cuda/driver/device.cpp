#include "cuda/driver/device.h"

#include <array>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "base/error.h"
#include "cuda/images/images.h"
#include "cuda/pinned_block.h"
#include "cuda/pinned_buffers.h"
#include "stream/ring.h"

namespace lora_mmap::cuda {
namespace {

constexpr unsigned kSharedWithoutAsking = 48 << 10;  // of dynamic shared memory, on every architecture

[[noreturn]] void refuse(const std::string& what) {
  throw Error(Fault::cuda, Calling::prefix() + what);
}

CUdevice find_device(int ordinal) {
  int count = 0;
  driver().cuDeviceGetCount(&count);
  if (ordinal < 0 || ordinal >= count)
    refuse("there is no cuda:" + std::to_string(ordinal) + ": the driver sees " + std::to_string(count) +
           (count == 1 ? " device" : " devices"));
  CUdevice device = 0;
  driver().cuDeviceGet(&device, ordinal);
  return device;
}

int attribute(CUdevice device, CUdevice_attribute which) {
  int value = 0;
  driver().cuDeviceGetAttribute(&value, which, device);
  return value;
}

DeviceFacts facts_of(CUdevice device) {
  std::array<char, 256> name{};
  driver().cuDeviceGetName(name.data(), static_cast<int>(name.size()) - 1, device);
  DeviceFacts facts;
  facts.name = name.data();
  facts.major = attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
  facts.minor = attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  facts.multiprocessors = attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  facts.shared_nbytes_per_block = attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  driver().cuDeviceTotalMem(&facts.memory_nbytes, device);
  return facts;
}

// The primary context, which stays: retaining it makes it ours as much as torch's.
CUcontext retain_active_context(CUdevice device, int ordinal) {
  unsigned flags = 0;
  int active = 0;
  driver().cuDevicePrimaryCtxGetState(device, &flags, &active);
  if (!active)
    refuse("cuda:" + std::to_string(ordinal) +
           " has no active context in this process: use it through torch first, torch.cuda.init() and a "
           "tensor on "
           "it will do");
  CUcontext context = nullptr;
  driver().cuDevicePrimaryCtxRetain(&context, device);
  return context;
}

struct Registry {
  std::mutex mutex;
  std::vector<Device*> devices;  // by ordinal; null where never used
};

Registry& registry() {
  static Registry* const registry = new Registry;  // never destroyed, as the devices in it
  return *registry;
}

}  // namespace

CurrentContext::CurrentContext(CUcontext context, int ordinal, const char* function)
    : calling_(function, ordinal) {
  const Driver& d = driver();
  d.cuCtxPushCurrent(context);
  const CUresult result = d.cuThreadExchangeStreamCaptureMode.result(&outer_mode_);
  if (result == CUDA_SUCCESS) return;
  static_cast<void>(d.cuCtxPopCurrent.result(&context));
  fail(result, "cuThreadExchangeStreamCaptureMode");
}

CurrentContext::~CurrentContext() {
  const Driver* const d = loaded_driver();
  if (!d) return;
  CUcontext ours = nullptr;
  static_cast<void>(d->cuThreadExchangeStreamCaptureMode.result(&outer_mode_));
  static_cast<void>(d->cuCtxPopCurrent.result(&ours));
}

struct Device::State {
  int ordinal = -1;
  DeviceFacts facts;
  CUcontext context = nullptr;
  std::mutex mutex;  // of what follows, up to the blank line
  Module module;
  std::map<std::string, CUfunction, std::less<>> kernels;
  std::optional<Stream> copy_stream;

  stream::Ring ring;
  PinnedBuffers pinned_buffers;
  PinnedBlocks pinned_blocks;
};

Device::Device(std::unique_ptr<State> state) : state_(std::move(state)) {}
Device::~Device() = default;

Device& Device::at(int ordinal, const char* function) {
  const Calling calling(function, ordinal);
  static_cast<void>(driver());  // before anything of a parent process is looked at
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  const auto index = static_cast<size_t>(ordinal);
  if (ordinal >= 0 && index < all.devices.size() && all.devices[index]) return *all.devices[index];
  const CUdevice device = find_device(ordinal);
  auto state = std::make_unique<State>();
  state->ordinal = ordinal;
  state->facts = facts_of(device);
  if (all.devices.size() <= index) all.devices.resize(index + 1);
  state->context = retain_active_context(device, ordinal);
  all.devices[index] = new Device(std::move(state));
  return *all.devices[index];
}

std::vector<Device*> Device::used() {
  std::vector<Device*> devices;
  if (!loaded_driver()) return devices;
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  for (Device* device : all.devices)
    if (device) devices.push_back(device);
  return devices;
}

int Device::ordinal() const {
  return state_->ordinal;
}

const DeviceFacts& Device::facts() const {
  return state_->facts;
}

CurrentContext Device::enter(const char* function) {
  return CurrentContext(state_->context, state_->ordinal, function);
}

void Device::refuse_capture(CUstream stream) {
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  const CUresult result = driver().cuStreamIsCapturing.result(stream, &status);
  // The legacy stream itself cannot be captured; using it breaks the capture of any stream that waits for it.
  if (result != CUDA_ERROR_STREAM_CAPTURE_IMPLICIT) check(result, "cuStreamIsCapturing");
  if (result != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_NONE)
    refuse("the current stream of " + Calling::device() +
           " is being captured into a CUDA graph: load and fuse before the capture begins or after it ends");
}

void Device::load_kernels() {
  const std::lock_guard lock(state_->mutex);
  if (state_->module) return;
  const DeviceFacts& facts = state_->facts;
  std::string why;
  const std::optional<Image> image = image_for(facts.major, facts.minor, driver().version, why);
  if (!image) refuse("no kernels for " + Calling::device() + " (" + facts.name + "): " + why);
  state_->module = Module(image->bytes.data());
}

CUfunction Device::kernel(const char* name) {
  load_kernels();
  const std::lock_guard lock(state_->mutex);
  const auto known = state_->kernels.find(name);
  if (known != state_->kernels.end()) return known->second;
  return state_->kernels.emplace(name, state_->module.function(name)).first->second;
}

unsigned Device::resident_blocks(CUfunction kernel, unsigned threads, unsigned shared_nbytes) {
  if (shared_nbytes > kSharedWithoutAsking)
    driver().cuFuncSetAttribute(kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                static_cast<int>(shared_nbytes));
  int per_multiprocessor = 0;
  driver().cuOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, kernel, static_cast<int>(threads),
                                                       shared_nbytes);
  if (per_multiprocessor < 1)
    refuse("a block of " + std::to_string(threads) + " threads and " + std::to_string(shared_nbytes) +
           " bytes of shared memory does not fit on " + Calling::device() + " (" + state_->facts.name + ")");
  return static_cast<unsigned>(per_multiprocessor * state_->facts.multiprocessors);
}

CUstream Device::copy_stream() {
  const std::lock_guard lock(state_->mutex);
  if (!state_->copy_stream) state_->copy_stream.emplace();
  return state_->copy_stream->get();
}

stream::Ring& Device::ring() {
  return state_->ring;
}

PinnedBuffers& Device::pinned_buffers() {
  return state_->pinned_buffers;
}

PinnedBlocks& Device::pinned_blocks() {
  return state_->pinned_blocks;
}

size_t Device::clear() {
  return state_->ring.free() + state_->pinned_buffers.free();
}

DeviceFacts device_facts(int ordinal, const char* function) {
  const Calling calling(function, ordinal);
  return facts_of(find_device(ordinal));
}

std::string image_name_for(const DeviceFacts& facts, std::string& why) {
  const std::optional<Image> image = image_for(facts.major, facts.minor, driver().version, why);
  return image ? image_name(*image) : std::string();
}

}  // namespace lora_mmap::cuda
