// Threads that compose, switch, undo and roll back on weights of their own, all on the one pool, while memory
// runs out now and then and others ask records for their sizes. Ends with 1 where a bit is lost.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include "base/fault_points.h"
#include "undo/step.h"

namespace lora_mmap {
namespace {

constexpr int kOwners = 4;
constexpr int kRounds = 25;
constexpr int64_t kRows = 61;
constexpr int64_t kCols = 1100;
constexpr int64_t kRank = 5;

// Factors for one weight, and a scale.
struct Factors {
  std::vector<float> down;
  std::vector<float> up;
  double scale;

  explicit Factors(std::mt19937& random) : down(kRank * kCols), up(kRows * kRank) {
    std::normal_distribution<float> normal;
    for (float& value : down) value = normal(random);
    for (float& value : up) value = normal(random);
    scale = 0.01 * normal(random);
  }

  Layer layer(std::shared_ptr<Record> record) const {
    const Matrix matrix{down.data(), DType::F32, kCols, 1,       up.data(), DType::F32,
                        kRank,       1,          kRank, nullptr, nullptr};
    return {{Term{matrix, scale}}, std::move(record), {}};
  }
};

// A weight with what it holds, changed by one thread and looked at by another.
class Owner {
 public:
  explicit Owner(int seed) : random_(static_cast<unsigned>(seed)), weight_(kRows * kCols) {
    for (uint16_t& bits : weight_) bits = static_cast<uint16_t>(random_());
    pristine_ = weight_;
  }

  bool run() {
    for (int round = 0; round < kRounds; ++round) {
      replace(std::make_shared<Factors>(random_));
      if (round % 3 == 2) replace(nullptr);
    }
    replace(nullptr);
    return weight_ == pristine_;
  }

  // From any thread.
  size_t nbytes() const {
    const std::shared_ptr<Record> record = std::atomic_load(&shown_);
    return record ? record->nbytes() + static_cast<size_t>(record->written()) : 0;
  }

 private:
  // One transaction; again until memory was there.
  void replace(std::shared_ptr<Factors> next) {
    const auto record = next ? std::make_shared<Record>(kRows, kCols, DType::BF16, true) : nullptr;
    std::atomic_store(&shown_, record);
    const auto old_layer = held_ ? std::optional(held_->layer(record_)) : std::nullopt;
    const auto next_layer = next ? std::optional(next->layer(record)) : std::nullopt;
    while (!take(old_layer, next_layer)) {
      while (!take(next_layer, old_layer)) {
      }
    }
    held_ = std::move(next);
    record_ = record;
  }

  bool take(const std::optional<Layer>& old, const std::optional<Layer>& next) {
    try {
      step({{weight_.data(), kRows, kCols, kCols, 1, DType::BF16, old, next, std::nullopt}}, 3);
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

  std::mt19937 random_;
  std::vector<uint16_t> weight_;
  std::vector<uint16_t> pristine_;
  std::shared_ptr<Factors> held_;
  std::shared_ptr<Record> record_;
  std::shared_ptr<Record> shown_;
};

int stress() {
  std::vector<std::unique_ptr<Owner>> owners;
  for (int i = 0; i < kOwners; ++i) owners.push_back(std::make_unique<Owner>(i));
  std::atomic<bool> done{false};
  std::atomic<int> lost{0};
  std::thread watcher([&] {
    for (int countdown = 1; !done; countdown = countdown % 40 + 1) {
      arm_fault(countdown % 2 ? FaultPoint::encode : FaultPoint::tile, countdown);
      for (const auto& owner : owners) (void)owner->nbytes();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    arm_fault(FaultPoint::encode, 0);
    arm_fault(FaultPoint::tile, 0);
  });
  std::vector<std::thread> threads;
  for (const auto& owner : owners)
    threads.emplace_back([&owner, &lost] {
      if (!owner->run()) ++lost;
    });
  for (std::thread& thread : threads) thread.join();
  done = true;
  watcher.join();
  std::printf("%d of %d weights lost a bit\n", lost.load(), kOwners);
  return lost ? 1 : 0;
}

}  // namespace
}  // namespace lora_mmap

int main() {
  return lora_mmap::stress();
}
