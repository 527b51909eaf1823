// A driver as CUDA 9 had it: it has no cuStreamIsCapturing, among others.
#include "entry_points.h"

FAKE_DRIVER_ENTRY CUresult cuInit(unsigned) {
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuDriverGetVersion(int* version) {
  *version = 9020;
  return CUDA_SUCCESS;
}
