#include "base/thread_pool.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace lora_mmap {
namespace {

thread_local bool inside_loop = false;

// One parallel_for call, living on its caller's stack. The members below `next` belong to the pool's mutex.
struct Loop {
  Loop(LoopBody body_, int64_t count_, int helpers) : body(body_), count(count_), seats(helpers) {}

  // Takes indices until none is left.
  void work(int worker) {
    inside_loop = true;
    try {
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(worker, i);
    } catch (...) {
      next.store(count, std::memory_order_relaxed);
      if (!failed.exchange(true)) error = std::current_exception();
    }
    inside_loop = false;
  }

  const LoopBody body;
  const int64_t count;
  std::atomic<bool> failed{false};
  std::exception_ptr error;  // written once, read after every worker has left
  std::atomic<int64_t> next{0};
  int seats;  // helpers that may still join
  int next_worker = 1;
  int active = 0;  // helpers inside work()
  std::condition_variable left;
};

// New threads inherit the creator's mask: signals stay with the threads that the application made.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &saved_, nullptr); }

 private:
  sigset_t saved_;
};

class Pool {
 public:
  // The pool of this process. Never destroyed: a daemon thread may still be inside run() while the process
  // exits. A forked child finds its parent's pool, whose threads it does not have, and leaves it alone.
  static Pool& of_this_process();

  void run(int threads, int64_t count, LoopBody body) {
    Loop loop(body, count, threads - 1);
    {
      std::lock_guard lock(mutex_);
      grow(threads - 1);
      open_.push_back(&loop);
    }
    wake_.notify_all();
    loop.work(0);
    {
      std::unique_lock lock(mutex_);
      std::erase(open_, &loop);
      loop.left.wait(lock, [&] { return loop.active == 0; });
    }
    if (loop.error) std::rethrow_exception(loop.error);
  }

  void stop_and_join() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

 private:
  void grow(int wanted) {
    if (stopping_) return;
    const SignalsBlocked blocked;
    try {
      while (static_cast<int>(workers_.size()) < wanted) workers_.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {  // out of threads: the caller and those we have do the work
    }
  }

  void serve() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return stopping_ || !open_.empty(); });
      if (open_.empty()) return;  // stopping, and nothing left to help with
      Loop& loop = *open_.front();
      const int worker = loop.next_worker++;
      ++loop.active;
      if (--loop.seats == 0) open_.pop_front();
      lock.unlock();
      loop.work(worker);
      lock.lock();
      std::erase(open_, &loop);  // its indices are all taken
      // Notified under the lock: the caller may not destroy the loop before this thread is done with it.
      if (--loop.active == 0) loop.left.notify_one();
    }
  }

  const pid_t pid_ = getpid();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Loop*> open_;  // loops with a free seat and indices left, oldest first
  std::vector<std::thread> workers_;
  bool stopping_ = false;

  static std::atomic<Pool*> current;
  friend struct JoinAtExit;
};

std::atomic<Pool*> Pool::current{nullptr};

struct JoinAtExit {
  ~JoinAtExit() {
    Pool* pool = Pool::current.load();
    if (pool && pool->pid_ == getpid()) pool->stop_and_join();
  }
} join_at_exit;

Pool& Pool::of_this_process() {
  Pool* found = current.load(std::memory_order_acquire);
  if (found && found->pid_ == getpid()) return *found;
  Pool* fresh = new Pool;
  if (current.compare_exchange_strong(found, fresh)) return *fresh;
  delete fresh;  // another thread was first; no worker has started
  return *found;
}

}  // namespace

void parallel_for(int threads, int64_t count, LoopBody body) {
  const int useful = static_cast<int>(std::min<int64_t>(threads, count));
  if (useful > 1 && !inside_loop) return Pool::of_this_process().run(useful, count, body);
  for (int64_t i = 0; i < count; ++i) body(0, i);
}

}  // namespace lora_mmap
