#include "probe/probe.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"
#include "probe/loops.h"

namespace lora_mmap {
namespace {

constexpr int kRounds = 3;
constexpr size_t kPiece = size_t{1} << 20;

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<std::byte, Free>;

Buffer buffer(size_t nbytes) {
  Buffer memory(static_cast<std::byte*>(std::aligned_alloc(4096, nbytes)));
  if (!memory) throw std::bad_alloc();
  return memory;
}

template <class F>
double fastest_seconds(F&& round) {
  using Clock = std::chrono::steady_clock;
  double best = 1e300;
  for (int i = 0; i < kRounds; ++i) {
    const Clock::time_point begin = Clock::now();
    round();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return best;
}

void check(const char* name, int threads, int64_t nbytes) {
  if (threads < 1 || nbytes < 1)
    throw Error(Fault::argument, std::string("[") + name + "] threads is " + std::to_string(threads) +
                                     ", nbytes " + std::to_string(nbytes) + ": expected 1 or more");
}

const ProbeLoops& loops_of(const std::string& isa) {
  std::string known;
  for (const ProbeLoops* loops : probe_loops()) {
    if (loops->isa == isa) return *loops;
    known.append(known.empty() ? "" : ", ").append(loops->isa);
  }
  throw Error(Fault::argument, "[probe_fma] isa is '" + isa + "': this CPU and build have " + known);
}

}  // namespace

std::vector<std::string> probe_isas() {
  std::vector<std::string> names;
  for (const ProbeLoops* loops : probe_loops()) names.emplace_back(loops->isa);
  return names;
}

double probe_fma(int threads, const std::string& isa) {
  check("probe_fma", threads, 1);
  const ProbeLoops& loops = loops_of(isa);
  constexpr int64_t kSteps = 20000;
  constexpr int64_t kPieces =
      200;  // of some 30 us; handed out as they are taken, so a slow thread gets fewer
  const int64_t pieces = kPieces * threads;
  std::vector<double> flops(static_cast<size_t>(pieces));
  const double seconds = fastest_seconds([&] {
    parallel_for(threads, pieces, [&](int, int64_t i) { flops[static_cast<size_t>(i)] = loops.fma(kSteps); });
  });
  return flops[0] * static_cast<double>(pieces) / seconds;
}

double probe_read_write(int threads, int64_t nbytes) {
  check("probe_read_write", threads, nbytes);
  const size_t pieces = (static_cast<size_t>(nbytes) + kPiece - 1) / kPiece;
  const Buffer memory = buffer(pieces * kPiece);
  std::memset(memory.get(), 1, pieces * kPiece);
  double seconds = 1e300;
  const auto time = [&](void (*flip)(std::byte*, size_t)) {
    if (!flip) return;
    seconds = std::min(seconds, fastest_seconds([&] {
                         parallel_for(threads, static_cast<int64_t>(pieces), [&](int, int64_t i) {
                           flip(memory.get() + static_cast<size_t>(i) * kPiece, kPiece);
                         });
                       }));
  };
  for (const ProbeLoops* loops : probe_loops()) {
    time(loops->flip);
    time(loops->flip_streaming);
  }
  return 2.0 * static_cast<double>(pieces * kPiece) / seconds;
}

double probe_copy(int threads, int64_t nbytes) {
  check("probe_copy", threads, nbytes);
  const size_t pieces = (static_cast<size_t>(nbytes) + kPiece - 1) / kPiece;
  const Buffer from = buffer(pieces * kPiece);
  const Buffer to = buffer(pieces * kPiece);
  std::memset(from.get(), 1, pieces * kPiece);
  std::memset(to.get(), 2, pieces * kPiece);
  const double seconds = fastest_seconds([&] {
    parallel_for(threads, static_cast<int64_t>(pieces), [&](int, int64_t i) {
      std::memcpy(to.get() + static_cast<size_t>(i) * kPiece, from.get() + static_cast<size_t>(i) * kPiece,
                  kPiece);
    });
  });
  return 2.0 * static_cast<double>(pieces * kPiece) / seconds;
}

}  // namespace lora_mmap
