// The library's kernels on this CPU: its device sources compiled as C++, each thread a fiber. C interface, so
// that a fake driver, a test in Python and a test in C++ can all use it.
#pragma once

extern "C" {

// Runs kernel `kernel` over a grid of blocks on the calling thread, one block after the other; `args` is what
// cuLaunchKernel gets as kernelParams. 0, or another number and simt_error() says why; memory may then be
// partly written. Any number of OS threads may launch at once.
int simt_launch(const char* kernel, unsigned grid_x, unsigned block_x, unsigned shared_nbytes, void** args);

int simt_has_kernel(const char* kernel);

// The order in which the threads of a block, and the blocks, take turns from now on, in every OS thread:
// 0 ascending, 1 descending, 2 at random by `seed`.
void simt_order(int mode, unsigned seed);

// Of the last launch of this OS thread.
const char* simt_error();

// The architecture it imitates, as 75 or 90.
int simt_arch();
}
