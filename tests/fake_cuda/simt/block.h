// The threads of one block as fibers of one OS thread: barriers and warp-wide operations switch between them.
#pragma once

#include <csetjmp>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <ucontext.h>

namespace lora_mmap::simt {

// What a kernel reads as threadIdx.x and so on, of the fiber that runs on this OS thread.
struct Indices {
  unsigned thread;
  unsigned block;
  unsigned grid;
};
extern __thread Indices here;

// In which order warps, and their lanes, take turns, and whether copies arrive as they begin (forward), as
// late as they may (reverse), or either (random).
enum class Order { forward, reverse, random };

// A place in the source where threads meet.
struct Place {
  const char* file;
  unsigned line;
  bool operator==(const Place&) const = default;
};

// A copy to shared memory that is under way.
struct Copy {
  void* to;
  const void* from;
  size_t nbytes;
  size_t zeros;  // behind them
  unsigned group;
};

class Block {
 public:
  using Kernel = void (*)(void** args);
  using WarpOperation = void (*)(void* const* operands);  // of 32 lanes

  Block();
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  // Runs all threads of block `block` to their end. Returns what went wrong, or nothing. Shared memory is
  // filled with NaN before.
  std::string run(Kernel kernel, void** args, unsigned grid, unsigned block, unsigned threads,
                  size_t shared_nbytes, Order order, std::mt19937& random);

  // What the running fiber may call.
  static Block& current();
  unsigned char* shared() { return shared_.data(); }
  void barrier(Place place);
  void collective(Place place, WarpOperation operation, void* operand);
  void begin_copy(const Copy& copy);
  void end_copies();
  void wait_copies(unsigned open);
  [[noreturn]] void fail(const std::string& what);

 private:
  enum class State { ready, at_barrier, at_collective, done };
  struct Fiber {
    ucontext_t start;
    jmp_buf resume;
    bool started = false;
    State state = State::ready;
    Place place{};
    WarpOperation operation = nullptr;
    void* operand = nullptr;
    std::vector<Copy> copies;
    unsigned open_group = 0;
  };

  static void enter();
  void prepare(unsigned threads);
  void resume(unsigned fiber);
  void suspend();
  bool run_lanes(unsigned warp);
  void release_warp(unsigned warp);
  bool turn();
  bool release_barrier();
  std::string stuck() const;
  bool all_done() const;
  void arrive(const Copy& copy);

  std::vector<Fiber> fibers_;
  unsigned char* stacks_ = nullptr;
  size_t stacks_nbytes_ = 0;
  jmp_buf scheduler_;
  unsigned running_ = 0;
  std::vector<unsigned char> shared_;
  size_t shared_nbytes_ = 0;
  Kernel kernel_ = nullptr;
  void** args_ = nullptr;
  Order order_ = Order::forward;
  std::mt19937* random_ = nullptr;
  std::string error_;
};

}  // namespace lora_mmap::simt
