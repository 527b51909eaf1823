#include "block.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <numeric>

namespace lora_mmap::simt {
namespace {

constexpr size_t kStackNbytes = 64 << 10;
constexpr size_t kGuardNbytes = 256;     // behind shared memory
constexpr unsigned char kPoison = 0xFF;  // a NaN in every floating-point type
constexpr unsigned char kGuard = 0xA5;
constexpr unsigned kWarp = 32;

thread_local Block* running_block = nullptr;

std::string name_of(Place place) {
  return std::string(place.file) + ":" + std::to_string(place.line);
}

}  // namespace

__thread Indices here;

Block::Block() = default;

Block::~Block() {
  if (stacks_) munmap(stacks_, stacks_nbytes_);
}

Block& Block::current() {
  return *running_block;
}

// A fiber runs one thread of one block after another and never returns.
void Block::enter() {
  while (true) {
    Block& block = *running_block;
    block.kernel_(block.args_);
    Fiber& self = block.fibers_[block.running_];
    if (!self.copies.empty()) block.fail("a thread ended with copies under way");
    self.state = State::done;
    block.suspend();
  }
}

void Block::prepare(unsigned threads) {
  if (fibers_.size() != threads) {
    if (stacks_) munmap(stacks_, stacks_nbytes_);
    stacks_nbytes_ = threads * kStackNbytes;
    void* memory = mmap(nullptr, stacks_nbytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    stacks_ = static_cast<unsigned char*>(memory);
    fibers_ = std::vector<Fiber>(threads);
  }
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers_[i];
    const bool usable = fiber.started && fiber.state == State::done;
    if (!usable) {
      getcontext(&fiber.start);
      fiber.start.uc_stack = {stacks_ + i * kStackNbytes, 0, kStackNbytes};
      fiber.start.uc_link = nullptr;
      makecontext(&fiber.start, &Block::enter, 0);
      fiber.started = false;
    }
    fiber.state = State::ready;
    fiber.copies.clear();
    fiber.open_group = 0;
  }
}

void Block::resume(unsigned fiber) {
  running_ = fiber;
  here.thread = fiber;
  if (_setjmp(scheduler_) != 0) return;
  Fiber& next = fibers_[fiber];
  if (next.started) _longjmp(next.resume, 1);
  next.started = true;
  setcontext(&next.start);
}

void Block::suspend() {
  if (_setjmp(fibers_[running_].resume) == 0) _longjmp(scheduler_, 1);
}

void Block::fail(const std::string& what) {
  if (error_.empty())
    error_ = what + " (block " + std::to_string(here.block) + ", thread " + std::to_string(here.thread) + ")";
  fibers_[running_].state = State::at_barrier;  // never resumed
  _longjmp(scheduler_, 1);
}

void Block::barrier(Place place) {
  Fiber& self = fibers_[running_];
  self.state = State::at_barrier;
  self.place = place;
  suspend();
}

void Block::collective(Place place, WarpOperation operation, void* operand) {
  Fiber& self = fibers_[running_];
  self.state = State::at_collective;
  self.place = place;
  self.operation = operation;
  self.operand = operand;
  suspend();
}

void Block::arrive(const Copy& copy) {
  std::memcpy(copy.to, copy.from, copy.nbytes);
  std::memset(static_cast<char*>(copy.to) + copy.nbytes, 0, copy.zeros);
}

void Block::begin_copy(const Copy& copy) {
  const auto* to = static_cast<unsigned char*>(copy.to);
  if (to < shared() || to + copy.nbytes + copy.zeros > shared() + shared_nbytes_)
    fail("a copy beyond shared memory");
  const bool early = order_ == Order::forward || (order_ == Order::random && ((*random_)() & 1) != 0);
  if (early) arrive(copy);
  Fiber& self = fibers_[running_];
  self.copies.push_back(copy);
  if (early) self.copies.back().nbytes = self.copies.back().zeros = 0;
  self.copies.back().group = self.open_group;
}

void Block::end_copies() {
  ++fibers_[running_].open_group;
}

void Block::wait_copies(unsigned open) {
  Fiber& self = fibers_[running_];
  const auto over = [&](const Copy& copy) { return copy.group + open < self.open_group; };
  for (const Copy& copy : self.copies)
    if (over(copy)) arrive(copy);
  std::erase_if(self.copies, over);
}

// Every lane of the warp that can goes on until it waits. False if none could.
bool Block::run_lanes(unsigned warp) {
  std::array<unsigned, kWarp> lanes;
  std::iota(lanes.begin(), lanes.end(), warp * kWarp);
  if (order_ == Order::reverse) std::reverse(lanes.begin(), lanes.end());
  if (order_ == Order::random) std::shuffle(lanes.begin(), lanes.end(), *random_);
  bool any = false;
  for (const unsigned lane : lanes) {
    if (fibers_[lane].state != State::ready) continue;
    any = true;
    resume(lane);
    if (!error_.empty()) return false;
  }
  return any;
}

// Carries out the operation of a warp whose lanes have all come to the same one.
void Block::release_warp(unsigned warp) {
  Fiber* lanes = &fibers_[warp * kWarp];
  const auto meets = [&](const Fiber& f) {
    return f.state == State::at_collective && f.place == lanes->place && f.operation == lanes->operation;
  };
  if (!std::all_of(lanes, lanes + kWarp, meets)) return;
  void* operands[kWarp];
  for (unsigned i = 0; i < kWarp; ++i) operands[i] = lanes[i].operand;
  lanes->operation(operands);
  for (unsigned i = 0; i < kWarp; ++i) lanes[i].state = State::ready;
}

// Each warp in turn goes as far as it can without the others: only a barrier holds it. False if none could.
bool Block::turn() {
  std::vector<unsigned> warps(fibers_.size() / kWarp);
  std::iota(warps.begin(), warps.end(), 0U);
  if (order_ == Order::reverse) std::reverse(warps.begin(), warps.end());
  if (order_ == Order::random) std::shuffle(warps.begin(), warps.end(), *random_);
  bool any = false;
  for (const unsigned warp : warps)
    while (run_lanes(warp)) {
      any = true;
      release_warp(warp);
      if (order_ == Order::random && ((*random_)() & 1) != 0) break;  // somewhere in between
    }
  return any && error_.empty();
}

bool Block::release_barrier() {
  const auto meets = [&](const Fiber& f) {
    return f.state == State::at_barrier && f.place == fibers_.front().place;
  };
  if (!std::all_of(fibers_.begin(), fibers_.end(), meets)) return false;
  for (Fiber& fiber : fibers_) fiber.state = State::ready;
  return true;
}

bool Block::all_done() const {
  return std::all_of(fibers_.begin(), fibers_.end(), [](const Fiber& f) { return f.state == State::done; });
}

// Says who waits where when nobody can go on.
std::string Block::stuck() const {
  std::string text = "the threads of block " + std::to_string(here.block) + " diverge:";
  for (size_t i = 0; i < fibers_.size(); ++i) {
    const Fiber& f = fibers_[i];
    if (i > 0 && f.state == fibers_[i - 1].state &&
        (f.state == State::done || f.place == fibers_[i - 1].place))
      continue;
    text += " from " + std::to_string(i) + " on " +
            (f.state == State::done         ? std::string("ended")
             : f.state == State::at_barrier ? "at the barrier of " + name_of(f.place)
                                            : "at the warp operation of " + name_of(f.place)) +
            ";";
  }
  return text;
}

std::string Block::run(Kernel kernel, void** args, unsigned grid, unsigned block, unsigned threads,
                       size_t shared_nbytes, Order order, std::mt19937& random) {
  here = {0, block, grid};
  kernel_ = kernel;
  args_ = args;
  order_ = order;
  random_ = &random;
  error_.clear();
  shared_nbytes_ = shared_nbytes;
  shared_.assign(shared_nbytes, kPoison);
  shared_.resize(shared_nbytes + kGuardNbytes, kGuard);
  prepare(threads);
  Block* outer = std::exchange(running_block, this);
  while (error_.empty() && !all_done())
    if (!turn() && error_.empty() && !release_barrier()) error_ = stuck();
  running_block = outer;
  const auto guard = shared_.begin() + static_cast<std::ptrdiff_t>(shared_nbytes);
  if (error_.empty() && std::any_of(guard, shared_.end(), [](unsigned char c) { return c != kGuard; }))
    error_ = "block " + std::to_string(block) + " wrote beyond its shared memory";
  return error_;
}

}  // namespace lora_mmap::simt
