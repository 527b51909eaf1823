// Declares every function of the driver as lora_mmap calls it, so that a wrong signature does not compile.
#pragma once

#include "cuda/driver/api.h"

#define FAKE_DRIVER_ENTRY extern "C" __attribute__((visibility("default")))

using namespace lora_mmap::cuda;

#define FAKE_DECLARE(name, symbol, since, parameters) FAKE_DRIVER_ENTRY CUresult symbol parameters;
LORA_MMAP_CUDA_FUNCTIONS(FAKE_DECLARE)
#undef FAKE_DECLARE
